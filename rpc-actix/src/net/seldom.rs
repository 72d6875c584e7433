//! Lines in the log that strangers can cause, as many as they like: one in a while says how many there
//! were. What each of them was is counted ([`Counters`](rpc_core::Counters)), and logged at `DEBUG`.

use rpc_core::Timestamp;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

/// A line at most this often.
const BETWEEN_LINES: Duration = Duration::from_secs(5);

/// When a line of one kind was last written, and how many were not since.
#[derive(Debug, Default)]
pub(crate) struct Seldom {
    state: Mutex<(Option<Timestamp>, usize)>,
}

impl Seldom {
    /// Whether a line may be written now: then how many were not since the last one.
    pub(crate) fn due(&self, now: Timestamp) -> Option<usize> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let (last, untold) = &mut *state;
        if last.is_some_and(|last| now.since(last) < BETWEEN_LINES) {
            *untold = untold.saturating_add(1);
            return None;
        }
        *last = Some(now);
        Some(std::mem::take(untold))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_line_in_a_while_says_how_many_there_were() {
        let at = |millis| Timestamp::START.saturating_add(Duration::from_millis(millis));
        let seldom = Seldom::default();
        let due = [0, 1, 4_999, 5_000, 9_000, 10_001].map(|millis| seldom.due(at(millis)));
        assert_eq!(due, [Some(0), None, None, Some(2), None, Some(1)]);
    }
}
