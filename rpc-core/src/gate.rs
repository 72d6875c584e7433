//! One value, handed from one task to another, once.

use std::sync::{Mutex, PoisonError};
use std::task::{Context, Poll, Waker};

pub(crate) struct Gate<T> {
    state: Mutex<State<T>>,
}

struct State<T> {
    value: Option<T>,
    opened: bool,
    waker: Option<Waker>,
}

impl<T> Default for Gate<T> {
    fn default() -> Self {
        Self { state: Mutex::new(State { value: None, opened: false, waker: None }) }
    }
}

impl<T> Gate<T> {
    /// Hands the value over. `false` if it was opened before: the value is dropped.
    pub(crate) fn open(&self, value: T) -> bool {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if state.opened {
            return false;
        }
        state.opened = true;
        state.value = Some(value);
        let waker = state.waker.take();
        drop(state);
        if let Some(waker) = waker {
            waker.wake();
        }
        true
    }

    /// The value, when it is there. It can be taken once.
    pub(crate) fn poll(&self, cx: &Context<'_>) -> Poll<T> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(value) = state.value.take() {
            return Poll::Ready(value);
        }
        state.waker = Some(cx.waker().clone());
        Poll::Pending
    }
}
