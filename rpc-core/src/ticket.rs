//! A one-way message's place in a full inbox: `send_wait` waits on it.

use crate::error::RpcError;
use crate::local_call::LocalReply;
use crate::seam::{CallEnd, Expire};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, Waker};

/// Resolves when the message has found room.
#[derive(Default)]
pub(crate) struct Ticket {
    state: Mutex<State>,
}

/// A ticket, and where its message is among all local ones that ever entered its inbox.
pub(crate) struct Placed {
    /// Those before it, and the bytes of all up to it.
    pub(crate) before: u64,
    pub(crate) end: u64,
    pub(crate) ticket: Arc<Ticket>,
}

#[derive(Default)]
struct State {
    end: Option<Result<(), CallEnd>>,
    /// The sender gave up: the message must not be handled.
    withdrawn: bool,
    granted: bool,
    waker: Option<Waker>,
}

impl Ticket {
    /// There is room: the message will be handled.
    pub(crate) fn grant(&self) {
        self.finish(Ok(()), true);
    }

    pub(crate) fn fail(&self, error: RpcError) {
        self.finish(Err(CallEnd::Failed(error)), false);
    }

    /// Whether the message must not be handled, asked when its turn comes.
    pub(crate) fn is_withdrawn(&self) -> bool {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).withdrawn
    }

    fn finish(&self, end: Result<(), CallEnd>, granted: bool) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if state.end.is_some() || state.withdrawn || state.granted {
            return;
        }
        state.end = Some(end);
        state.granted = granted;
        let waker = state.waker.take();
        drop(state);
        if let Some(waker) = waker {
            waker.wake();
        }
    }
}

impl LocalReply<()> for Ticket {
    fn poll_reply(
        &self,
        cx: &mut Context<'_>,
        explain: &dyn Fn(CallEnd) -> RpcError,
    ) -> Poll<Result<(), RpcError>> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(end) = state.end.take() {
            drop(state);
            return Poll::Ready(end.map_err(explain));
        }
        state.waker = Some(cx.waker().clone());
        Poll::Pending
    }

    fn abandon(&self) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if !state.granted {
            state.withdrawn = true;
        }
    }
}

impl Expire for Ticket {
    fn expire(&self, _id: u64) {
        self.finish(Err(CallEnd::TimedOut { sent: false }), false);
        self.abandon();
    }
}
