//! Whose turn it is: in which endpoint's handler the current thread is, and who waits for it.

use crate::deadline::Timestamp;
use crate::inbox::{Asker, Inbox};
use crate::reply_sink::Way;
use std::cell::RefCell;
use std::sync::Arc;
use std::task::{Context, Poll};

thread_local! {
    static HANDLER: RefCell<Option<Arc<Inbox>>> = const { RefCell::new(None) };
}

/// Enters an endpoint's handlers on this thread, until what this returns is dropped, panic or not.
pub(crate) fn enter(inbox: Arc<Inbox>) -> Inside {
    Inside { before: HANDLER.replace(Some(inbox)) }
}

#[must_use = "the handler is left again when this is dropped"]
pub(crate) struct Inside {
    before: Option<Arc<Inbox>>,
}

impl Drop for Inside {
    fn drop(&mut self) {
        drop(HANDLER.replace(self.before.take()));
    }
}

/// Looks at the endpoint whose handler this thread is in.
pub(crate) fn with_handler<R>(f: impl FnOnce(Option<&Arc<Inbox>>) -> R) -> R {
    HANDLER.with_borrow(|current| f(current.as_ref()))
}

impl Inbox {
    /// The turn of the current handler.
    pub(crate) fn current_turn(&self) -> u64 {
        self.lock().turn
    }

    /// The turn of the current handler, and the handler that can do nothing but wait for it.
    pub(crate) fn awaited_by(&self) -> (u64, Option<Asker>) {
        let state = self.lock();
        let (turn, asker, way) = (state.turn, state.asker.clone(), state.way.clone());
        drop(state);
        let awaited = matches!(way, Some(Way::Local(call)) if call.is_awaited());
        (turn, asker.filter(|_| awaited))
    }

    /// The caller of that turn has its answer: it waits no more, and cannot give up either.
    pub(crate) fn answered(&self, turn: u64) {
        let mut state = self.lock();
        if state.turn == turn {
            state.deadline = Timestamp::MAX;
            let waiting = (state.asker.take(), state.way.take());
            drop(state);
            drop(waiting);
        }
    }

    /// When the caller of the current handler stops waiting; `MAX` for a one-way message.
    pub(crate) fn current_deadline(&self) -> Timestamp {
        self.lock().deadline
    }

    /// The current handler is done: nobody waits for it any more.
    pub(crate) fn end_turn(&self) {
        let mut state = self.lock();
        state.turn = state.turn.wrapping_add(1);
        state.deadline = Timestamp::MAX;
        let waiting = (state.asker.take(), state.way.take());
        drop(state);
        drop(waiting);
    }

    /// Ready when the caller of the handler with that turn has given up; the task is woken then.
    /// Pending for ever once the handler is done.
    pub(crate) fn poll_turn_cancelled(&self, turn: u64, cx: &mut Context<'_>) -> Poll<()> {
        let state = self.lock();
        let way = if state.turn == turn { state.way.clone() } else { None };
        drop(state);
        way.map_or(Poll::Pending, |way| way.poll_cancelled(cx))
    }
}
