//! Tasks that wait for the same thing.

use std::task::{Context, Waker};

/// Wakers without doubles: one for each task that waits.
#[derive(Debug, Default)]
pub(crate) struct Wakers(Vec<Waker>);

impl Wakers {
    /// Remembers the task that polls.
    pub(crate) fn add(&mut self, cx: &Context<'_>) {
        if !self.0.iter().any(|waker| waker.will_wake(cx.waker())) {
            self.0.push(cx.waker().clone());
        }
    }
}

/// To be woken, where no lock is held.
impl IntoIterator for Wakers {
    type Item = Waker;
    type IntoIter = std::vec::IntoIter<Waker>;

    fn into_iter(self) -> Self::IntoIter {
        self.0.into_iter()
    }
}
