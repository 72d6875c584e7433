//! The future of an ask: it ends once, by its deadline, and its end is the end of the call.

use crate::core::EnvCore;
use crate::deadline::{RpcTimeout, Timestamp};
use crate::dispatcher::env_stopped;
use crate::error::{ErrorKind, Outcome, RpcError};
use crate::inbox::{Asker, Inbox};
use crate::local_call::LocalReply;
use crate::raw_ref::RawRef;
use crate::seam::{CallEnd, RemoteCall};
use crate::timers::TimerKey;
use crate::turn::{self, Behalf};
use bytes::Bytes;
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

/// The reply to come, from [`RpcEndpointRef::ask`](crate::RpcEndpointRef::ask) and its kin.
///
/// The message was encoded and took its place in the order when this was made; polling only waits
/// for the answer. It is `Send`, runs on any executor, and resolves once, by its deadline.
///
/// # Cancel safety
/// Dropping it cancels the call: a message still queued, here or there, is not handled; a running
/// handler sees it as [`cancelled`](crate::EndpointContext::cancelled).
#[must_use = "an ask that is dropped is cancelled"]
pub struct AskFuture<R> {
    state: State<R>,
    call: Option<Pending>,
}

/// What is known of a call while it is open.
struct Pending {
    core: Arc<EnvCore>,
    target: RawRef,
    timeout: RpcTimeout,
    timer: TimerKey,
    behalf: Behalf,
    checked_for_cycle: bool,
}

/// How a call is made.
pub(crate) struct Terms {
    pub(crate) core: Arc<EnvCore>,
    pub(crate) target: RawRef,
    pub(crate) timeout: RpcTimeout,
    pub(crate) now: Timestamp,
    pub(crate) deadline: Timestamp,
    pub(crate) behalf: Behalf,
}

enum State<R> {
    /// It was over when it was made.
    Ready(fn() -> R),
    Failed(RpcError),
    Local(Arc<dyn LocalReply<R>>),
    Remote(RemoteCall, Decode<R>),
    Done,
}

pub(crate) type Decode<R> = fn(&EnvCore, &RawRef, &Bytes) -> Result<R, RpcError>;

impl<R> AskFuture<R> {
    pub(crate) fn failed(error: RpcError) -> Self {
        Self { state: State::Failed(error), call: None }
    }

    /// A call that was over when it was made.
    pub(crate) fn ready(result: fn() -> R) -> Self {
        Self { state: State::Ready(result), call: None }
    }

    /// A call within this process. `answered` says that it waits for a handler, and might be one
    /// that waits for itself.
    pub(crate) fn local<C: LocalReply<R> + 'static>(
        call: Arc<C>,
        terms: Terms,
        answered: bool,
    ) -> Self {
        let timer = terms.core.add_timer(terms.deadline, call.clone(), 0);
        let call: Arc<dyn LocalReply<R>> = call;
        Self { state: State::Local(call), call: Some(Pending::new(terms, timer, !answered)) }
    }

    pub(crate) fn remote(call: RemoteCall, decode: Decode<R>, terms: Terms) -> Self {
        let timer = terms.core.add_timer(terms.deadline, call.calls.clone(), call.id);
        let pending = Pending::new(terms, timer, true);
        Self { state: State::Remote(call, decode), call: Some(pending) }
    }

    /// Ends the call as [`ErrorKind::Cancelled`], as dropping the future would.
    pub fn abort(&mut self) {
        self.cancel();
        let error = RpcError::new(ErrorKind::Cancelled, "the ask was aborted by its caller");
        self.state = State::Failed(error);
    }

    fn cancel(&mut self) {
        match std::mem::replace(&mut self.state, State::Done) {
            State::Local(call) => call.abandon(),
            State::Remote(call, _) => call.calls.abandon(call.id),
            State::Ready(_) | State::Failed(_) | State::Done => {}
        }
        if let Some(pending) = self.call.take() {
            pending.core.cancel_timer(pending.timer);
        }
    }

    fn finish(&mut self, result: Result<R, CallEnd>) -> Result<R, RpcError> {
        self.state = State::Done;
        let Some(pending) = self.call.take() else {
            return Err(RpcError::new(ErrorKind::Internal, "a call ended twice"));
        };
        pending.core.cancel_timer(pending.timer);
        result.map_err(|end| match end {
            CallEnd::Failed(error) => error,
            CallEnd::Relayed(failure) => failure.into_error(),
            CallEnd::TimedOut { sent } => pending.timed_out(sent),
        })
    }

    fn end_early(&mut self, error: RpcError) -> Poll<Result<R, RpcError>> {
        self.cancel();
        Poll::Ready(Err(error))
    }
}

impl Pending {
    fn new(terms: Terms, timer: TimerKey, checked_for_cycle: bool) -> Self {
        let Terms { core, target, timeout, behalf, .. } = terms;
        Self { core, target, timeout, timer, behalf, checked_for_cycle }
    }

    fn timed_out(&self, sent: bool) -> RpcError {
        let outcome = if sent { Outcome::Unknown } else { Outcome::NeverSent };
        if self.core.is_terminated() {
            return env_stopped().with_outcome(outcome);
        }
        let text = self.timeout.error_text(self.target.peer());
        RpcError::new(ErrorKind::Timeout, text).with_outcome(outcome)
    }

    /// An ask that waits, directly or through others, for the handler that waits for it. `awaited`
    /// marks the ask as one that its handler waits for.
    fn cycle(&mut self, awaited: impl FnOnce()) -> Option<RpcError> {
        if std::mem::replace(&mut self.checked_for_cycle, true) {
            return None;
        }
        let asker = self.behalf.asker.clone()?;
        let target = self.target.local_inbox()?;
        if !turn::is_inside(|here| Arc::ptr_eq(here, &asker.inbox)) {
            return None;
        }
        awaited();
        find_cycle(&asker, &target)
    }
}

/// Follows who waits for whom from `asker` up, looking for `target`.
fn find_cycle(asker: &Asker, target: &Arc<Inbox>) -> Option<RpcError> {
    let mut chain = vec![target.name().to_string()];
    let mut current = asker.clone();
    // A chain longer than this is cut by its deadline.
    for _ in 0..64 {
        let (turn, next) = current.inbox.awaited_by();
        if turn != current.turn {
            return None;
        }
        chain.push(current.inbox.name().to_string());
        if Arc::ptr_eq(&current.inbox, target) {
            chain.reverse();
            return Some(RpcError::new(
                ErrorKind::AskCycle,
                format!(
                    "this ask can never be answered, because its endpoint waits for it: {}",
                    chain.join(" -> ")
                ),
            ));
        }
        current = next?;
    }
    None
}

impl<R> Future for AskFuture<R> {
    type Output = Result<R, RpcError>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.get_mut();
        if let Some(pending) = &this.call
            && let Some(backend) = pending.core.backend()
        {
            backend.drive(cx);
        }
        let polled = match &this.state {
            State::Ready(_) | State::Failed(_) => {
                return Poll::Ready(match std::mem::replace(&mut this.state, State::Done) {
                    State::Ready(result) => Ok(result()),
                    State::Failed(error) => Err(error),
                    _ => Err(polled_again()),
                });
            }
            State::Local(call) => call.poll_reply(cx),
            State::Remote(call, decode) => {
                let decode = *decode;
                call.calls.poll(call.id, cx).map(|reply| {
                    let body = reply?;
                    let Some(pending) = &this.call else {
                        return Err(CallEnd::TimedOut { sent: true });
                    };
                    decode(&pending.core, &pending.target, &body).map_err(CallEnd::Failed)
                })
            }
            State::Done => {
                return Poll::Ready(Err(polled_again()));
            }
        };
        match polled {
            Poll::Ready(result) => Poll::Ready(this.finish(result)),
            Poll::Pending => {
                if let Some(pending) = &this.call
                    && pending.behalf.poll_cancelled(cx).is_ready()
                {
                    let text = "the caller of the handler that made this ask gave up";
                    return this.end_early(RpcError::new(ErrorKind::Cancelled, text));
                }
                let awaited = || {
                    if let State::Local(call) = &this.state {
                        call.awaited();
                    }
                };
                match this.call.as_mut().and_then(|pending| pending.cycle(awaited)) {
                    Some(error) => this.end_early(error),
                    None => Poll::Pending,
                }
            }
        }
    }
}

fn polled_again() -> RpcError {
    RpcError::new(ErrorKind::Internal, "an ask was polled after it had ended")
}

impl<R> Unpin for AskFuture<R> {}

impl<R> Drop for AskFuture<R> {
    fn drop(&mut self) {
        self.cancel();
    }
}

impl<R> fmt::Debug for AskFuture<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = match &self.state {
            State::Ready(_) => "ready",
            State::Failed(_) => "failed",
            State::Local(_) => "local",
            State::Remote(..) => "remote",
            State::Done => "done",
        };
        f.debug_struct("AskFuture").field("state", &state).finish_non_exhaustive()
    }
}
