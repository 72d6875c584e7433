//! How a test and its endpoints wait for each other: message-driven, on any executor.

use std::collections::VecDeque;
use std::fmt;
use std::future::{Future, poll_fn};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Poll, Waker};

struct Shared<T>(Arc<Mutex<State<T>>>);

struct State<T> {
    value: T,
    wakers: Vec<Waker>,
}

impl<T> Clone for Shared<T> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<T: Default> Default for Shared<T> {
    fn default() -> Self {
        Self(Arc::new(Mutex::new(State { value: T::default(), wakers: Vec::new() })))
    }
}

impl<T> Shared<T> {
    fn lock(&self) -> MutexGuard<'_, State<T>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn change<R>(&self, change: impl FnOnce(&mut T) -> R) -> R {
        let mut state = self.lock();
        let result = change(&mut state.value);
        let wakers = std::mem::take(&mut state.wakers);
        drop(state);
        wakers.into_iter().for_each(Waker::wake);
        result
    }

    fn wait<R>(&self, mut ready: impl FnMut(&mut T) -> Option<R>) -> impl Future<Output = R> {
        let shared = self.clone();
        poll_fn(move |cx| {
            let mut state = shared.lock();
            match ready(&mut state.value) {
                Some(result) => Poll::Ready(result),
                None => {
                    if !state.wakers.iter().any(|waker| waker.will_wake(cx.waker())) {
                        state.wakers.push(cx.waker().clone());
                    }
                    Poll::Pending
                }
            }
        })
    }
}

/// A door that many may wait for. Closed at first.
#[derive(Clone, Default)]
pub struct Gate(Shared<bool>);

impl Gate {
    /// A gate that is open already.
    #[must_use]
    pub fn opened() -> Self {
        let gate = Self::default();
        gate.open();
        gate
    }

    /// Lets everybody through, from now on.
    pub fn open(&self) {
        self.0.change(|open| *open = true);
    }

    /// Waits until it is open.
    pub fn wait(&self) -> impl Future<Output = ()> {
        self.0.wait(|open| open.then_some(()))
    }
}

impl fmt::Debug for Gate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Gate").field("open", &self.0.lock().value).finish()
    }
}

/// What has happened, in its order.
#[derive(Clone)]
pub struct Log<T = String>(Shared<Vec<T>>);

impl<T> Default for Log<T> {
    fn default() -> Self {
        Self(Shared::default())
    }
}

impl<T: Clone> Log<T> {
    /// Appends an entry.
    pub fn push(&self, entry: impl Into<T>) {
        self.0.change(|entries| entries.push(entry.into()));
    }

    /// All entries so far.
    #[must_use]
    pub fn all(&self) -> Vec<T> {
        self.0.lock().value.clone()
    }

    /// Takes all entries out.
    #[must_use]
    pub fn take(&self) -> Vec<T> {
        self.0.change(std::mem::take)
    }

    /// How many entries there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.lock().value.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Waits until there are `count` entries, and returns all.
    pub fn reaches(&self, count: usize) -> impl Future<Output = Vec<T>> {
        self.0.wait(move |entries| (entries.len() >= count).then(|| entries.clone()))
    }

    /// Waits for an entry.
    pub fn has(&self, is: impl Fn(&T) -> bool) -> impl Future<Output = ()> {
        self.0.wait(move |entries| entries.iter().any(&is).then_some(()))
    }
}

impl<T: fmt::Debug> fmt::Debug for Log<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(&self.0.lock().value).finish()
    }
}

/// Where an endpoint leaves things for the test: call contexts to be answered later, mostly.
pub struct Parking<T>(Shared<VecDeque<T>>);

impl<T> Parking<T> {
    /// Leaves something.
    pub fn leave(&self, thing: T) {
        self.0.change(|parked| parked.push_back(thing));
    }

    /// Waits for the next thing, and takes it.
    pub fn next(&self) -> impl Future<Output = T> {
        self.0.wait(VecDeque::pop_front)
    }

    /// Takes the next thing, if there is one.
    #[must_use]
    pub fn try_next(&self) -> Option<T> {
        self.0.change(VecDeque::pop_front)
    }

    /// How many things are parked.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.lock().value.len()
    }

    /// Whether nothing is.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl<T> Clone for Parking<T> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<T> Default for Parking<T> {
    fn default() -> Self {
        Self(Shared::default())
    }
}

impl<T> fmt::Debug for Parking<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Parking").field("len", &self.len()).finish()
    }
}
