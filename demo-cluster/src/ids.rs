//! What workers, applications and executors are called (D7).

use serde::{Deserialize, Serialize};
use std::fmt;
use std::time::{SystemTime, UNIX_EPOCH};

/// `worker-<yyyyMMddHHmmss>-<host>-<port>`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub(crate) struct WorkerId(String);

impl WorkerId {
    pub(crate) fn new(now: SystemTime, host: &str, port: u16) -> Self {
        Self(format!("worker-{}-{host}-{port}", stamp(now)))
    }
}

/// An id that came over a command line.
impl From<String> for WorkerId {
    fn from(text: String) -> Self {
        Self(text)
    }
}

impl fmt::Display for WorkerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

/// `app-<yyyyMMddHHmmss>-<0000>`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub(crate) struct AppId(String);

impl AppId {
    pub(crate) fn new(now: SystemTime, number: u32) -> Self {
        Self(format!("app-{}-{number:04}", stamp(now)))
    }

    /// An id that came over a command line.
    pub(crate) fn parse(text: &str) -> anyhow::Result<Self> {
        let is_word = |c: char| c.is_ascii_alphanumeric() || c == '-';
        anyhow::ensure!(
            text.starts_with("app-") && text.chars().all(is_word),
            "{text:?} is not the id of an application"
        );
        Ok(Self(text.to_owned()))
    }

    /// The id as the name of a directory: [`parse`](Self::parse) and [`new`](Self::new) let no
    /// separator in, a peer's message might.
    pub(crate) fn directory(&self) -> String {
        self.0.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '-' }).collect()
    }
}

impl fmt::Display for AppId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

/// The number of an executor within its application.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub(crate) struct ExecutorId(pub(crate) u32);

impl fmt::Display for ExecutorId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

/// A moment as `yyyyMMddHHmmss`, in UTC.
fn stamp(now: SystemTime) -> String {
    let seconds = now.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    let (days, second) = (seconds / 86_400, seconds % 86_400);
    let (year, month, day) = civil(days);
    let (hour, minute, second) = (second / 3600, second / 60 % 60, second % 60);
    format!("{year:04}{month:02}{day:02}{hour:02}{minute:02}{second:02}")
}

/// Year, month and day of a number of days since 1970-01-01, in the Gregorian calendar. Years
/// begin in March here, so that the leap day is the last one.
fn civil(days: u64) -> (u64, u64, u64) {
    let days = days + 719_468;
    let (era, day_of_era) = (days / 146_097, days % 146_097);
    let year_of_era =
        (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted + 2) / 5 + 1;
    let month = if shifted < 10 { shifted + 3 } else { shifted - 9 };
    (year_of_era + era * 400 + u64::from(month <= 2), month, day)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn ids_have_sparks_form() {
        let at = UNIX_EPOCH + Duration::from_secs(1_709_210_096);
        assert_eq!(
            WorkerId::new(at, "127.0.0.1", 77).to_string(),
            "worker-20240229123456-127.0.0.1-77"
        );
        assert_eq!(AppId::new(at, 3).to_string(), "app-20240229123456-0003");
        assert_eq!(stamp(UNIX_EPOCH), "19700101000000");
        assert_eq!(stamp(UNIX_EPOCH + Duration::from_secs(4_102_444_799)), "20991231235959");
    }

    #[test]
    fn an_id_is_no_path() {
        assert!(AppId::parse("app-1-0000").is_ok());
        assert!(AppId::parse("app-../..").is_err() && AppId::parse("x").is_err());
        assert_eq!(AppId("app-../..".into()).directory(), "app------");
    }
}
