//! Deferred replies: the right to answer one call, from anywhere, later.

use crate::address::RpcAddress;
use crate::error::{ErrorKind, RpcError};
use crate::inbox::Inbox;
use crate::local_call::LocalAnswer;
use crate::message::Encoding;
use crate::open_call::{OpenCall, Watch};
use crate::raw::{HandlerError, RawReply};
use crate::reply_sink::{Way, in_time};
use crate::trace::TraceContext;
use crate::turn;
use serde::Serialize;
use std::fmt;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

/// Answers one call, now or later: it may be moved to another task or thread.
///
/// Dropped without an answer, the caller gets "no reply" at once; while the handler that got it
/// still runs, that waits for the handler's end, so that an error or a panic is what the caller
/// sees.
#[must_use = "dropped without an answer, the caller gets the error NoReply"]
pub struct RpcCallContext<R> {
    inbox: Arc<Inbox>,
    answer: Option<Answer<R>>,
    open: Arc<OpenCall>,
    kind: ReplyKind,
    /// The turn of its handler.
    turn: u64,
    trace: Option<TraceContext>,
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

/// What the endpoint's loop keeps of a call that it gave to a handler.
pub(crate) struct Deferred(Arc<OpenCall>);

impl Deferred {
    pub(crate) fn way(&self) -> &Way {
        self.0.way()
    }

    /// The handler is done: an error goes to the caller unless it has its answer.
    pub(crate) fn handler_done(self, result: Result<(), &RpcError>) {
        let dropped = self.0.handler_done(result.is_err());
        match result {
            Err(error) => self.way().fail(error),
            Ok(()) if dropped => self.way().fail(&no_reply()),
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
        let way = Way::Local(call.clone().erase());
        Self::deferred(inbox, Answer::Typed(call), way, kind)
    }

    pub(crate) fn encoded(inbox: Arc<Inbox>, way: Way, kind: ReplyKind) -> (Self, Deferred) {
        Self::deferred(inbox, Answer::Encoded(way.clone()), way, kind)
    }

    fn deferred(
        inbox: Arc<Inbox>,
        answer: Answer<R>,
        way: Way,
        kind: ReplyKind,
    ) -> (Self, Deferred) {
        let (turn, deadline) = inbox.current_call();
        let open = Arc::new(OpenCall::new(inbox.core().clone(), way, deadline));
        inbox.deferred(open.clone());
        let (answer, trace) = (Some(answer), inbox.trace());
        (Self { inbox, answer, open: open.clone(), kind, turn, trace }, Deferred(open))
    }

    /// The answer, to be given now: from here on nobody waits for the handler, if it still runs.
    fn take_answer(&mut self) -> Option<Answer<R>> {
        self.open.answered();
        self.inbox.answered(self.turn);
        self.answer.take()
    }

    /// Fails the call: the caller gets the error's text as [`ErrorKind::HandlerFailed`].
    pub fn fail(mut self, error: impl Into<HandlerError>) {
        let error = in_time(error.into().into_rpc(), self.open.deadline(), self.inbox.core());
        if self.take_answer().is_some() {
            self.open.way().fail(&error);
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
        self.open.way().is_cancelled_by(self.open.deadline(), self.inbox.core())
    }

    /// Resolves when the caller gives up, or its time is over.
    ///
    /// # Cancel safety
    /// It may be dropped at any time.
    pub async fn cancelled(&self) {
        let (core, way) = (self.inbox.core().clone(), self.open.way().clone());
        let mut watch = Watch::new(core, way, self.open.deadline());
        std::future::poll_fn(|cx| watch.poll(cx)).await;
    }

    /// How long the caller still waits.
    #[must_use]
    pub fn remaining(&self) -> Duration {
        self.open.deadline().since(self.inbox.core().now())
    }

    /// The place of this call's handler in the trace of its message; see
    /// [`EndpointContext::trace`](crate::EndpointContext::trace).
    #[must_use]
    pub fn trace(&self) -> Option<TraceContext> {
        self.trace.clone()
    }

    /// Runs `f` on behalf of this call, wherever the call was moved: asks made in it have no more
    /// time than its caller has left, end as [`Cancelled`](ErrorKind::Cancelled) when that caller
    /// gives up, and are part of the call's trace, as if its handler had made them.
    ///
    /// What an ask inherits is decided when it is *called*, so that a synchronous stretch is
    /// enough: `match call.scope(|| store.ask(Load { id })).await { .. }`.
    ///
    /// In the handler that was given the call this is so without a scope. Once the call has its
    /// answer, what is left of those asks goes on by their own timeouts.
    pub fn scope<T>(&self, f: impl FnOnce() -> T) -> T {
        turn::within(Some(self.open.clone()), self.trace.clone(), f)
    }

    /// As [`scope`](Self::scope), for a future: whatever it asks, behind any number of awaits, is on behalf
    /// of this call: `let all = call.scoped(async { .. }).await; call.reply(all)`.
    ///
    /// # Cancel safety
    /// That of the future.
    pub fn scoped<F: Future>(&self, future: F) -> impl Future<Output = F::Output> + use<F, R> {
        turn::within_each_poll(Some(self.open.clone()), self.trace.clone(), future)
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
        if self.answer.take().is_some() && self.open.dropped() {
            self.open.way().fail(&no_reply());
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
