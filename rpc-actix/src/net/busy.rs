//! Whether a connection is looked at again before its thread sleeps (`rpc.io.busyPoll`).

use rpc_core::Timestamp;
use std::time::Duration;

/// Counts from what was read or written last.
#[derive(Debug)]
pub(crate) struct BusyPoll {
    period: Duration,
    active: bool,
    until: Timestamp,
}

impl BusyPoll {
    /// Goes on for `period` after something happened; never, if that is nothing.
    pub(crate) fn new(period: Duration) -> Self {
        Self { period, active: false, until: Timestamp::START }
    }

    /// Something was read or written.
    pub(crate) fn note(&mut self) {
        self.active = true;
    }

    /// Whether to look again at once. The clock is read only if that is asked for.
    pub(crate) fn goes_on(&mut self, now: impl FnOnce() -> Timestamp) -> bool {
        if self.period.is_zero() {
            return false;
        }
        let now = now();
        if std::mem::take(&mut self.active) {
            self.until = now.saturating_add(self.period);
        }
        now < self.until
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(millis: u64) -> Timestamp {
        Timestamp::START.saturating_add(Duration::from_millis(millis))
    }

    #[test]
    fn it_goes_on_until_nothing_has_happened_for_so_long() {
        let mut busy = BusyPoll::new(Duration::from_millis(2));
        assert!(!busy.goes_on(|| at(10)), "nothing has happened");
        busy.note();
        assert!(busy.goes_on(|| at(10)) && busy.goes_on(|| at(11)));
        busy.note();
        assert!(busy.goes_on(|| at(12)) && busy.goes_on(|| at(13)));
        assert!(!busy.goes_on(|| at(14)));
    }

    #[test]
    fn it_is_off_without_a_period() {
        let mut busy = BusyPoll::new(Duration::ZERO);
        busy.note();
        assert!(!busy.goes_on(|| panic!("nobody needs the time")));
    }
}
