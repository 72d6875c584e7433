//! A call that a handler took to answer later: whether it is still open, and who works for it.

use crate::core::EnvCore;
use crate::deadline::Timestamp;
use crate::reply_sink::Way;
use crate::seam::Expire;
use crate::timers::TimerKey;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

/// A call that its handler has a context of, shared by the context, the endpoint's loop and those
/// who work for the call: their own asks end with it.
pub(crate) struct OpenCall {
    /// The env that serves it, by whose clock the deadline is.
    core: Arc<EnvCore>,
    way: Way,
    deadline: Timestamp,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    handler_done: bool,
    /// The context was dropped without an answer: while the handler runs, that waits for its end.
    dropped: bool,
    answered: bool,
}

impl OpenCall {
    pub(crate) fn new(core: Arc<EnvCore>, way: Way, deadline: Timestamp) -> Self {
        Self { core, way, deadline, state: Mutex::default() }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn core(&self) -> &EnvCore {
        &self.core
    }

    pub(crate) fn way(&self) -> &Way {
        &self.way
    }

    /// When its caller stops waiting.
    pub(crate) fn deadline(&self) -> Timestamp {
        self.deadline
    }

    /// When those who work for it are to stop: `MAX` once it has its answer.
    pub(crate) fn deadline_of_work(&self) -> Timestamp {
        if self.lock().answered { Timestamp::MAX } else { self.deadline }
    }

    /// The handler is done; whether its call was dropped before. An error of it is an answer.
    pub(crate) fn handler_done(&self, failed: bool) -> bool {
        let mut state = self.lock();
        state.handler_done = true;
        state.answered |= failed || state.dropped;
        state.dropped
    }

    /// The context is dropped without an answer; whether its handler was done before.
    pub(crate) fn dropped(&self) -> bool {
        let mut state = self.lock();
        state.dropped = true;
        state.answered |= state.handler_done;
        state.handler_done
    }

    /// The call gets its answer now. To be said before it is sent.
    pub(crate) fn answered(&self) {
        self.lock().answered = true;
    }

    /// Ready when its caller has given up; never once it has its answer.
    pub(crate) fn poll_cancelled(
        &self,
        place: &mut Option<usize>,
        cx: &mut Context<'_>,
    ) -> Poll<()> {
        // Asked after: on the wire an answered call is over just as one that was given up.
        if self.way.poll_cancelled(place, cx).is_ready() && !self.lock().answered {
            return Poll::Ready(());
        }
        Poll::Pending
    }

    /// Whether its caller has given up.
    pub(crate) fn is_cancelled(&self) -> bool {
        self.way.is_cancelled() && !self.lock().answered
    }
}

/// Waits for a caller to give up, by its word or by the clock: a peer that cannot be heard any
/// more gives up as well.
pub(crate) struct Watch {
    core: Arc<EnvCore>,
    way: Way,
    deadline: Timestamp,
    place: Option<usize>,
    bell: Option<(Arc<Bell>, TimerKey)>,
}

impl Watch {
    pub(crate) fn new(core: Arc<EnvCore>, way: Way, deadline: Timestamp) -> Self {
        Self { core, way, deadline, place: None, bell: None }
    }

    pub(crate) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if self.way.poll_cancelled(&mut self.place, cx).is_ready() {
            return Poll::Ready(());
        }
        // A caller in this process has a timer of its own.
        if !matches!(self.way, Way::Wire(..)) || self.deadline == Timestamp::MAX {
            return Poll::Pending;
        }
        let (core, deadline) = (&self.core, self.deadline);
        let (bell, _) = self.bell.get_or_insert_with(|| {
            let bell = Arc::new(Bell::default());
            let timer = core.add_timer(deadline, bell.clone(), 0);
            (bell, timer)
        });
        bell.poll(cx)
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        if let Some((_, timer)) = self.bell.take() {
            self.core.cancel_timer(timer);
        }
        if let Some(place) = self.place.take() {
            self.way.forget(place);
        }
    }
}

/// Rings once, at a time.
#[derive(Default)]
struct Bell {
    state: Mutex<(bool, Option<Waker>)>,
}

impl Bell {
    fn poll(&self, cx: &Context<'_>) -> Poll<()> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if state.0 {
            return Poll::Ready(());
        }
        if !state.1.as_ref().is_some_and(|waker| waker.will_wake(cx.waker())) {
            state.1 = Some(cx.waker().clone());
        }
        Poll::Pending
    }
}

impl Expire for Bell {
    fn expire(&self, _id: u64) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.0 = true;
        let waker = state.1.take();
        drop(state);
        waker.into_iter().for_each(Waker::wake);
    }
}
