//! Time as rpc-core sees it: it never reads a clock, it is given [`Timestamp`]s.
//!
//! [`RpcTimeout`] is how long something may take together with the key that says so, because an error that names the
//! key can be acted on. Remaining time crosses the wire as a duration and becomes a [`Timestamp`] of the receiver's
//! own clock; nothing here can overflow, whatever a peer sends.

use std::fmt;
use std::ops::Add;
use std::time::Duration;

use crate::error::{ErrorKind, RpcError};

const NANOS_PER_SECOND: u64 = 1_000_000_000;

/// The longest time that a call may take: 24 hours. Longer timeouts count as this one.
pub(crate) const MAX_TIMEOUT: Duration = Duration::from_secs(24 * 60 * 60);

/// A point in time: nanoseconds since the env's clock began.
///
/// Only timestamps of the same env can be compared. The range is 584 years; sums stay at its end.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Debug)]
pub struct Timestamp(pub(crate) u64);

impl Timestamp {
    /// When the env's clock began.
    pub const START: Self = Self(0);
    /// The greatest timestamp: a time that never comes.
    pub const MAX: Self = Self(u64::MAX);

    /// The time this many nanoseconds after the clock began.
    pub const fn from_nanos(nanos: u64) -> Self {
        Self(nanos)
    }

    /// Nanoseconds since the clock began.
    pub const fn as_nanos(self) -> u64 {
        self.0
    }

    /// The time `duration` later, [`Timestamp::MAX`] if that is out of range.
    #[must_use]
    pub fn saturating_add(self, duration: Duration) -> Self {
        // Not by way of 128 bits: this comes with every look at the clock.
        let seconds = duration.as_secs().saturating_mul(NANOS_PER_SECOND);
        Self(self.0.saturating_add(seconds).saturating_add(u64::from(duration.subsec_nanos())))
    }

    /// How long ago `earlier` was; zero if it was not earlier.
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }
}

/// As [`Timestamp::saturating_add`].
impl Add<Duration> for Timestamp {
    type Output = Self;

    fn add(self, duration: Duration) -> Self {
        self.saturating_add(duration)
    }
}

impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:.3}s", Duration::from_nanos(self.0).as_secs_f64())
    }
}

/// How long something may take, and the key that says so.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct RpcTimeout {
    nanos: u64,
    key: &'static str,
}

impl RpcTimeout {
    /// A timeout that the configuration key `key` controls. More than 24 hours count as that.
    pub fn new(duration: Duration, key: &'static str) -> Self {
        let nanos = Timestamp::START.saturating_add(duration.min(MAX_TIMEOUT)).as_nanos();
        Self { nanos, key }
    }

    /// A timeout that a caller gave with the call; an error says so in the place of a key.
    pub fn given(duration: Duration) -> Self {
        Self::new(duration, "the caller")
    }

    /// What is left of the time of the call whose handler makes this one.
    pub fn inherited(left: Duration) -> Self {
        Self::new(left, "the handler's own caller")
    }

    /// How long it is.
    pub fn duration(&self) -> Duration {
        Duration::from_nanos(self.nanos)
    }

    /// The key that controls it.
    pub fn key(&self) -> &'static str {
        self.key
    }

    /// When it is over for what begins `now`.
    pub fn deadline(&self, now: Timestamp) -> Timestamp {
        Timestamp(now.0.saturating_add(self.nanos))
    }

    /// The text of the error, where `what` is the peer that did not answer. The key is in it exactly once.
    pub fn error_text(&self, what: impl fmt::Display) -> String {
        let (duration, key) = (duration_text(self.duration()), self.key);
        format!(
            "Cannot receive any reply from {what} in {duration}. This timeout is controlled by {key}"
        )
    }

    /// The error of a call to `what` that took too long; its outcome is unknown unless the caller knows better.
    pub fn error(&self, what: impl fmt::Display) -> RpcError {
        RpcError::new(ErrorKind::Timeout, self.error_text(what))
    }
}

/// Ten seconds, under `rpc.askTimeout`: what an ask has when nothing is configured.
impl Default for RpcTimeout {
    fn default() -> Self {
        Self::new(Duration::from_secs(10), "rpc.askTimeout")
    }
}

/// The duration and the key, as in `10s (rpc.askTimeout)`.
impl fmt::Display for RpcTimeout {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", duration_text(self.duration()), self.key)
    }
}

/// The units that durations are written in, in nanoseconds, the greatest first.
const UNITS: [(&str, u128); 6] = [
    ("h", 3_600_000_000_000),
    ("min", 60_000_000_000),
    ("s", 1_000_000_000),
    ("ms", 1_000_000),
    ("us", 1_000),
    ("ns", 1),
];

/// A duration in the greatest unit that leaves no fraction: `90s`, `2min`, `500ms`.
pub(crate) fn duration_text(duration: Duration) -> String {
    let nanos = duration.as_nanos();
    match UNITS.iter().find(|(_, size)| nanos != 0 && nanos.is_multiple_of(*size)) {
        Some((unit, size)) => format!("{}{unit}", nanos.checked_div(*size).unwrap_or(nanos)),
        None => "0s".to_owned(),
    }
}

/// Reads a whole number with a unit: `10s`, `500ms`, `2min` or `2m`, `1h`. A number alone is not a duration.
pub(crate) fn parse_duration(text: &str) -> Option<Duration> {
    let (number, unit) = split_number(text)?;
    let unit = if unit == "m" { "min" } else { unit };
    let (_, size) = UNITS.iter().find(|(name, _)| *name == unit)?;
    let nanos = u128::from(number).checked_mul(*size)?;
    Some(Duration::from_nanos(u64::try_from(nanos).ok()?))
}

/// Splits `10 s` and `10s` into the number and the unit, which may be empty.
pub(crate) fn split_number(text: &str) -> Option<(u64, &str)> {
    let text = text.trim();
    let end = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at_checked(end)?;
    Some((number.parse().ok()?, unit.trim_start()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn timestamps_add_and_subtract_without_overflow() {
        let at = Timestamp::from_nanos(1_000);
        assert_eq!(at + Duration::from_nanos(5), Timestamp::from_nanos(1_005));
        assert_eq!(at.saturating_add(Duration::MAX), Timestamp::MAX);
        assert_eq!((at + Duration::from_secs(2)).since(at), Duration::from_secs(2));
        assert_eq!(at.since(Timestamp::MAX), Duration::ZERO);
        assert_eq!(Timestamp::default(), Timestamp::START);
        assert_eq!(Timestamp::from_nanos(1_500_000_000).to_string(), "1.500s");
    }

    #[test]
    fn s93_s94_s95_the_text_names_peer_duration_and_key_once() {
        let timeout = RpcTimeout::new(Duration::from_secs(10), "rpc.askTimeout");
        let error = timeout.error("b:7077");
        assert_eq!(
            error.to_string(),
            "Cannot receive any reply from b:7077 in 10s. This timeout is controlled by rpc.askTimeout"
        );
        assert!(error.is_timeout());
        assert_eq!(error.text().matches("rpc.askTimeout").count(), 1);
        assert_eq!(timeout.to_string(), "10s (rpc.askTimeout)");
        assert_eq!(RpcTimeout::given(Duration::from_millis(5)).key(), "the caller");
    }

    #[test]
    fn timeouts_are_capped() {
        let timeout = RpcTimeout::new(Duration::MAX, "k");
        assert_eq!(timeout.duration(), MAX_TIMEOUT);
        assert_eq!(timeout.deadline(Timestamp::MAX), Timestamp::MAX);
        assert_eq!(timeout.deadline(Timestamp::START).since(Timestamp::START), MAX_TIMEOUT);
    }

    #[test]
    fn durations_are_written_and_read() {
        for (text, millis) in
            [("10s", 10_000), ("500ms", 500), ("2min", 120_000), ("1h", 3_600_000), ("90s", 90_000)]
        {
            let duration = Duration::from_millis(millis);
            assert_eq!(parse_duration(text), Some(duration));
            assert_eq!(duration_text(duration), text);
        }
        assert_eq!(parse_duration(" 2 m "), Some(Duration::from_secs(120)));
        assert_eq!(parse_duration("0s"), Some(Duration::ZERO));
        assert_eq!(duration_text(Duration::ZERO), "0s");
        for bad in ["", "10", "s", "-1s", "+1s", "1.5s", "1d", "10 s s", "99999999999999999999s"] {
            assert_eq!(parse_duration(bad), None, "{bad}");
        }
        assert_eq!(parse_duration("18446744073709551615h"), None);
    }
}
