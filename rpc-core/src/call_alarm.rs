//! The alarm of a table of calls that keeps their deadlines: one at a time, the earliest.

use crate::deadline::Timestamp;
use std::fmt;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Takes an alarm back that has been set.
pub(crate) type Cancel = Box<dyn FnOnce() + Send>;

/// The alarm that a table of calls has asked for: see [`RemoteCalls::alarm`](crate::spi::RemoteCalls::alarm).
/// It is taken back when an earlier one comes, and when the table is dropped.
#[derive(Default)]
pub struct CallAlarm {
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// Counts the alarms.
    last: u64,
    set: Option<Set>,
}

struct Set {
    number: u64,
    at: Timestamp,
    /// Nothing, while it is being set.
    cancel: Option<Cancel>,
}

impl CallAlarm {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The number of an alarm that must be set, if none rings before it. It takes the place of a later one.
    pub(crate) fn begins(&self, at: Timestamp) -> Option<u64> {
        let mut state = self.lock();
        if state.set.as_ref().is_some_and(|set| set.at <= at) {
            return None;
        }
        state.last = state.last.wrapping_add(1);
        let number = state.last;
        let later = state.set.replace(Set { number, at, cancel: None });
        drop(state);
        if let Some(cancel) = later.and_then(|later| later.cancel) {
            cancel();
        }
        Some(number)
    }

    /// The alarm is set. If it has rung meanwhile, or an earlier one came, it is not needed.
    pub(crate) fn is_set(&self, number: u64, cancel: Cancel) {
        let mut state = self.lock();
        if let Some(set) = state.set.as_mut().filter(|set| set.number == number) {
            set.cancel = Some(cancel);
            return;
        }
        drop(state);
        cancel();
    }

    /// The alarm rings: the next one may be later.
    pub(crate) fn rings(&self, number: u64) {
        // Dropped outside of the lock: it holds what it would take back.
        let rung = self.lock().set.take_if(|set| set.number == number);
        drop(rung);
    }
}

impl Drop for CallAlarm {
    fn drop(&mut self) {
        let set = self.lock().set.take();
        if let Some(cancel) = set.and_then(|set| set.cancel) {
            cancel();
        }
    }
}

impl fmt::Debug for CallAlarm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let at = self.lock().set.as_ref().map(|set| set.at);
        f.debug_struct("CallAlarm").field("at", &at).finish()
    }
}
