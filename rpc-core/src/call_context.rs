//! Deferred replies: the right to answer one call, from anywhere, later.

use crate::address::RpcAddress;
use crate::error::{ErrorKind, RpcError};
use crate::inbox::Inbox;
use crate::local_call::LocalAnswer;
use crate::message::Encoding;
use crate::raw::{HandlerError, RawReply};
use crate::reply_sink::Way;
use serde::Serialize;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

/// Answers one call, now or later: it may be moved to another task or thread.
///
/// Dropped without an answer, the caller gets "no reply" at once; while the handler that got it
/// still runs, that waits for the handler's end, so that an error or a panic is what the caller
/// sees.
pub struct RpcCallContext<R> {
    inbox: Arc<Inbox>,
    answer: Option<Answer<R>>,
    parking: Arc<Parking>,
    kind: ReplyKind,
    /// The turn of its handler.
    turn: u64,
}

/// What is to be replied to, and how.
#[derive(Clone, Copy)]
pub(crate) struct ReplyKind {
    /// The message's wire name, if it is a constant.
    pub(crate) message: Option<&'static str>,
    pub(crate) encoding: Encoding,
}

impl ReplyKind {
    /// Names the reply in errors.
    pub(crate) fn describe(self, inbox: &Inbox) -> String {
        match self.message {
            Some(message) => format!("the reply to {message} from {}", inbox.address()),
            None => format!("a reply from {}", inbox.address()),
        }
    }
}

enum Answer<R> {
    /// The caller is in this process and expects this very type.
    Typed(Arc<dyn LocalAnswer<R>>),
    Encoded(Way),
}

/// Where a call waits that was dropped while its handler runs.
#[derive(Default)]
pub(crate) struct Parking {
    state: Mutex<ParkingState>,
}

#[derive(Default)]
struct ParkingState {
    handler_done: bool,
    dropped: bool,
}

/// What the endpoint's loop keeps of a call that it gave to a handler.
pub(crate) struct Deferred {
    pub(crate) way: Way,
    parking: Arc<Parking>,
}

impl Deferred {
    /// The handler is done: an error goes to the caller unless it has its answer.
    pub(crate) fn handler_done(self, result: Result<(), &RpcError>) {
        let mut state = self.parking.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.handler_done = true;
        let dropped = state.dropped;
        drop(state);
        match result {
            Err(error) => self.way.fail(error),
            Ok(()) if dropped => self.way.fail(&no_reply()),
            Ok(()) => {}
        }
    }
}

fn no_reply() -> RpcError {
    RpcError::new(ErrorKind::NoReply, "the endpoint dropped the call without a reply")
}

impl<R> RpcCallContext<R> {
    pub(crate) fn typed(
        inbox: Arc<Inbox>,
        call: Arc<dyn LocalAnswer<R>>,
        kind: ReplyKind,
    ) -> (Self, Deferred) {
        let parking = Arc::new(Parking::default());
        let way = Way::Local(call.clone().erase());
        let answer = Some(Answer::Typed(call));
        let turn = inbox.current_turn();
        (Self { inbox, answer, parking: parking.clone(), kind, turn }, Deferred { way, parking })
    }

    pub(crate) fn encoded(inbox: Arc<Inbox>, way: Way, kind: ReplyKind) -> (Self, Deferred) {
        let parking = Arc::new(Parking::default());
        let answer = Some(Answer::Encoded(way.clone()));
        let turn = inbox.current_turn();
        (Self { inbox, answer, parking: parking.clone(), kind, turn }, Deferred { way, parking })
    }

    /// The answer, to be given now: from here on nobody waits for the handler, if it still runs.
    fn take_answer(&mut self) -> Option<Answer<R>> {
        self.inbox.answered(self.turn);
        self.answer.take()
    }

    /// Fails the call: the caller gets the error's text as [`ErrorKind::HandlerFailed`].
    pub fn fail(mut self, error: impl Into<HandlerError>) {
        let error = error.into().into_rpc();
        match self.take_answer() {
            Some(Answer::Typed(call)) => call.fail(error),
            Some(Answer::Encoded(way)) => {
                way.fail(&error);
            }
            None => {}
        }
    }

    /// Who called: the listening address of the caller's env, or its socket's address if it does
    /// not listen. `None` for a caller in an env of this process that does not listen.
    #[must_use]
    pub fn sender(&self) -> Option<RpcAddress> {
        match &self.answer {
            Some(Answer::Encoded(way @ Way::Wire(..))) => way.sender(),
            _ => self.inbox.core().address().cloned(),
        }
    }

    /// Whether the caller gave up: an answer would go nowhere.
    #[must_use]
    pub fn is_cancelled(&self) -> bool {
        match &self.answer {
            Some(Answer::Typed(call)) => call.is_cancelled(),
            Some(Answer::Encoded(way)) => way.is_cancelled(),
            None => true,
        }
    }

    /// Resolves when the caller gives up.
    ///
    /// # Cancel safety
    /// It may be dropped at any time.
    pub async fn cancelled(&self) {
        std::future::poll_fn(|cx| match &self.answer {
            Some(Answer::Typed(call)) => call.poll_cancelled(cx),
            Some(Answer::Encoded(way)) => way.poll_cancelled(cx),
            None => std::task::Poll::Ready(()),
        })
        .await;
    }
}

impl<R: Serialize> RpcCallContext<R> {
    /// Answers the call. If the reply cannot be encoded, the caller gets that error.
    pub fn reply(mut self, reply: R) {
        match self.take_answer() {
            Some(Answer::Typed(call)) => call.answer(reply),
            Some(Answer::Encoded(way)) => {
                reply_encoded(&self.inbox, self.kind, &way, &reply);
            }
            None => {}
        }
    }
}

impl RpcCallContext<RawReply> {
    /// Answers the call with a value of any type; the caller decodes it as the type it expects.
    pub fn reply_with<T: Serialize>(mut self, reply: &T) {
        if let Some(Answer::Encoded(way)) = self.take_answer() {
            reply_encoded(&self.inbox, self.kind, &way, reply);
        }
    }
}

fn reply_encoded<T: Serialize>(inbox: &Inbox, kind: ReplyKind, way: &Way, reply: &T) {
    let sent = way.reply(inbox.core(), reply, kind.encoding, || kind.describe(inbox));
    if let Err(error) = sent {
        tracing::warn!(%error, "a reply was not sent; its caller got the error");
    }
}

impl<R> Drop for RpcCallContext<R> {
    fn drop(&mut self) {
        let Some(answer) = self.answer.take() else { return };
        let mut state = self.parking.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.dropped = true;
        let handler_done = state.handler_done;
        drop(state);
        if !handler_done {
            return;
        }
        match answer {
            Answer::Typed(call) => call.fail(no_reply()),
            Answer::Encoded(way) => way.fail(&no_reply()),
        }
    }
}

impl<R> fmt::Debug for RpcCallContext<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RpcCallContext")
            .field("answered", &self.answer.is_none())
            .finish_non_exhaustive()
    }
}
