//! What has happened, as one number: two runs with the same number were the same run.

use super::random::mix;
use rpc_core::Timestamp;
use std::fmt;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Receives each event as a line, for whoever looks for the cause of a failure.
pub(super) type Listener = Box<dyn FnMut(&str) + Send>;

/// Takes in every event of a simulation.
pub(super) struct Trace {
    state: Mutex<State>,
}

struct State {
    hash: u64,
    events: u64,
    listener: Option<Listener>,
}

impl Trace {
    pub(super) fn new(seed: u64, listener: Option<Listener>) -> Self {
        Self { state: Mutex::new(State { hash: mix(seed), events: 0, listener }) }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// An event: its kind, and numbers that tell it from others.
    pub(super) fn event(&self, now: Timestamp, kind: &'static str, numbers: &[u64]) {
        let mut state = self.lock();
        state.events = state.events.saturating_add(1);
        state.take(now.as_nanos());
        state.take(bytes_hash(kind.as_bytes()));
        numbers.iter().for_each(|number| state.take(*number));
        state.tell(now, &|f| write!(f, "{kind} {numbers:?}"));
    }

    /// An event in words.
    pub(super) fn text(&self, now: Timestamp, text: &str) {
        let mut state = self.lock();
        state.events = state.events.saturating_add(1);
        state.take(now.as_nanos());
        state.take(bytes_hash(text.as_bytes()));
        state.tell(now, &|f| f.write_str(text));
    }

    /// The number of all events so far, and how many there were.
    pub(super) fn sum(&self) -> (u64, u64) {
        let state = self.lock();
        (state.hash, state.events)
    }
}

impl State {
    fn take(&mut self, number: u64) {
        self.hash = mix(self.hash.rotate_left(5) ^ number);
    }

    fn tell(&mut self, now: Timestamp, what: &dyn Fn(&mut fmt::Formatter<'_>) -> fmt::Result) {
        if let Some(listener) = &mut self.listener {
            let seconds = now.since(Timestamp::START).as_secs_f64();
            listener(&format!("{seconds:12.6} {}", Shown(what)));
        }
    }
}

struct Shown<'a>(&'a dyn Fn(&mut fmt::Formatter<'_>) -> fmt::Result);

impl fmt::Display for Shown<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        (self.0)(f)
    }
}

/// One multiplication for a word: every byte of the network goes through this.
fn fold(hash: u64, word: u64) -> u64 {
    (hash.rotate_left(23) ^ word).wrapping_mul(0x9e37_79b9_7f4a_7c15)
}

/// A number that follows from bytes.
pub(super) fn bytes_hash(bytes: &[u8]) -> u64 {
    let mut hash = u64::try_from(bytes.len()).unwrap_or(u64::MAX);
    let (words, rest) = bytes.as_chunks::<8>();
    for word in words {
        hash = fold(hash, u64::from_le_bytes(*word));
    }
    if !rest.is_empty() {
        hash = fold(hash, rest.iter().rev().fold(0, |word, byte| (word << 8) | u64::from(*byte)));
    }
    mix(hash)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn order_and_content_count() {
        let sum = |events: &[(&'static str, u64)]| {
            let trace = Trace::new(1, None);
            events
                .iter()
                .for_each(|(kind, number)| trace.event(Timestamp::START, kind, &[*number]));
            trace.sum().0
        };
        assert_eq!(sum(&[("a", 1), ("b", 2)]), sum(&[("a", 1), ("b", 2)]));
        assert_ne!(sum(&[("a", 1), ("b", 2)]), sum(&[("b", 2), ("a", 1)]));
        assert_ne!(sum(&[("a", 1)]), sum(&[("a", 2)]));
        assert_ne!(bytes_hash(&[0]), bytes_hash(&[0, 0]));
        assert_ne!(bytes_hash(b"12345678a"), bytes_hash(b"12345678b"));
    }
}
