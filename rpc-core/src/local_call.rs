//! Messages that stay in this process: moved, not encoded, one allocation each.

use crate::error::{ErrorKind, RpcError};
use crate::message::{Ask, Encoding, RpcMessage};
use crate::quiet::drop_quietly;
use crate::seam::{CallEnd, Expire};
use crate::wakers::Wakers;
use crate::wire::payload;
use crate::wire::prescan::PrescanLimits;
use bytes::Bytes;
use std::any::{Any, TypeId};
use std::fmt::Display;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

/// A one-way message by value.
pub(crate) trait LocalTell: Any + Send {
    fn name(&self) -> &'static str;
    fn message_type(&self) -> TypeId;
    fn encode(&self) -> Result<Bytes, RpcError>;
}

pub(crate) struct Tell<M>(pub(crate) M);

impl<M: RpcMessage> LocalTell for Tell<M> {
    fn name(&self) -> &'static str {
        M::NAME
    }

    fn message_type(&self) -> TypeId {
        TypeId::of::<M>()
    }

    fn encode(&self) -> Result<Bytes, RpcError> {
        payload::to_vec(&self.0, M::ENCODING, usize::MAX).map(Bytes::from)
    }
}

/// The message as an `M`: itself if it is one, otherwise through its bytes.
pub(crate) fn into_message<M: RpcMessage>(
    tell: Box<dyn LocalTell>,
    limits: &PrescanLimits,
) -> Result<M, RpcError> {
    if tell.message_type() != TypeId::of::<M>() {
        return payload::decode(&tell.encode()?, limits);
    }
    match (tell as Box<dyn Any>).downcast::<Tell<M>>() {
        Ok(tell) => Ok(tell.0),
        Err(_) => Err(RpcError::new(ErrorKind::Internal, "a message lost its type")),
    }
}

/// An ask by value, as the endpoint sees it.
pub(crate) trait LocalAsk: Any + Send + Sync {
    fn name(&self) -> &'static str;
    fn message_type(&self) -> TypeId;
    fn into_any(self: Arc<Self>) -> Arc<dyn Any + Send + Sync>;
    /// Takes the message out as a value of unknown type.
    fn take(&self) -> Option<Box<dyn LocalTell>>;
    fn fail(&self, error: RpcError);
    /// Answers with the bytes of a value; the call is still open if they are no reply of it.
    fn reply_bytes(&self, body: &[u8], limits: &PrescanLimits) -> Result<(), RpcError>;
    /// As [`Origin::poll_cancelled`](crate::seam::Origin::poll_cancelled).
    fn poll_cancelled(&self, place: &mut Option<usize>, cx: &mut Context<'_>) -> Poll<()>;
    fn forget(&self, place: usize);
    fn is_cancelled(&self) -> bool;
    /// Whether a handler waits for this in its own body, where it can do nothing else.
    fn is_awaited(&self) -> bool;
}

/// An ask by value, as its caller sees it.
pub(crate) trait LocalReply<R>: Send + Sync {
    /// The reply, or what `explain` makes of the end without one.
    fn poll_reply(
        &self,
        cx: &mut Context<'_>,
        explain: &dyn Fn(CallEnd) -> RpcError,
    ) -> Poll<Result<R, RpcError>>;
    fn abandon(&self);
    /// The asker is a handler, and has begun to wait.
    fn awaited(&self) {}
}

/// An ask by value, as a call context sees it.
pub(crate) trait LocalAnswer<R>: Send + Sync {
    fn answer(&self, reply: R);
    fn erase(self: Arc<Self>) -> Arc<dyn LocalAsk>;
}

/// One ask within this process: message, reply and both wakers in one allocation.
pub(crate) struct LocalCall<M: Ask> {
    state: Mutex<State<M>>,
}

/// What a handler finds of a call's message.
pub(crate) enum Taken<M> {
    Message(M),
    /// Nobody waits for an answer.
    GivenUp,
    /// The message has another type.
    Other,
}

// In this order, of words: it is made elsewhere and moved to where it stays by two words at a time, which
// waits where those were stored by less.
#[repr(C)]
struct State<M: Ask> {
    phase: Phase<M>,
    asker: Option<Waker>,
    /// Handlers that want to know when the asker gives up. Mostly there is none, and a word less to move.
    waiting: Option<Box<Wakers>>,
    awaited: Awaited,
}

/// Whether the asker is a handler that waits for this in its own body.
#[derive(Clone, Copy, PartialEq, Eq)]
#[repr(usize)]
enum Awaited {
    No,
    Yes,
}

enum Phase<M: Ask> {
    Queued(M),
    Handling,
    Replied(M::Reply),
    Failed(CallEnd),
    /// The asker has its answer.
    Over,
    GaveUp,
}

impl<M: Ask> Phase<M> {
    /// Whether nothing can end the call any more.
    fn is_queued(&self) -> bool {
        matches!(self, Self::Queued(_))
    }

    fn has_ended(&self) -> bool {
        !matches!(self, Self::Queued(_) | Self::Handling)
    }

    fn is_cancelled(&self) -> bool {
        matches!(self, Self::GaveUp | Self::Failed(CallEnd::TimedOut { .. }))
    }

    /// What an ended call is when its asker has looked, or does not care.
    fn seen(&self) -> Self {
        if self.is_cancelled() { Self::GaveUp } else { Self::Over }
    }
}

impl<M: Ask> LocalCall<M> {
    pub(crate) fn new(message: M) -> Self {
        let phase = Phase::Queued(message);
        let state = State { phase, asker: None, awaited: Awaited::No, waiting: None };
        Self { state: Mutex::new(state) }
    }

    fn lock(&self) -> MutexGuard<'_, State<M>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A call of this very type, if it is one.
    pub(crate) fn of(call: &Arc<dyn LocalAsk>) -> Option<&Self> {
        let call: &dyn Any = &**call;
        call.downcast_ref()
    }

    /// Takes the message out for its handler.
    #[inline]
    pub(crate) fn take_message(&self) -> Option<M> {
        let mut state = self.lock();
        // Looked at before: what is known to be a message is moved once.
        if let Phase::Queued(_) = state.phase
            && let Phase::Queued(message) = std::mem::replace(&mut state.phase, Phase::Handling)
        {
            return Some(message);
        }
        None
    }

    /// The first answer counts; a later one is dropped.
    fn end(&self, end: Phase<M>, why: &dyn Display) {
        self.end_if(|phase| !phase.has_ended(), end, why);
    }

    fn end_if(&self, such: impl FnOnce(&Phase<M>) -> bool, end: Phase<M>, why: &dyn Display) {
        let mut state = self.lock();
        if such(&state.phase) {
            let before = std::mem::replace(&mut state.phase, end);
            Self::wake(state, before, why);
        } else {
            drop(state);
            drop_quietly(M::NAME, end);
        }
    }

    /// Tells everyone who waits, and then drops what is over, both outside of the lock. `why` is for the log.
    #[inline]
    fn wake(mut state: MutexGuard<'_, State<M>>, before: Phase<M>, why: &dyn Display) {
        let (asker, waiting) = (state.asker.take(), state.waiting.take());
        drop(state);
        if let Some(asker) = asker {
            asker.wake();
        }
        if let Some(waiting) = waiting {
            (*waiting).into_iter().for_each(Waker::wake);
        }
        // A message, or a reply that nobody wants.
        if !matches!(before, Phase::Handling) {
            drop_quietly(format_args!("{}: {why}", M::NAME), before);
        }
    }

    /// The asker stops waiting: the handler, if any, is told.
    fn give_up(&self, why: GaveUp) {
        let mut state = self.lock();
        let text = match why {
            GaveUp::Dropped => "its caller gave up",
            GaveUp::TimedOut => "its time was over",
        };
        let next = match (&state.phase, why) {
            (phase, GaveUp::Dropped) if phase.has_ended() => phase.seen(),
            (_, GaveUp::Dropped) => Phase::GaveUp,
            // The answer was there first.
            (phase, GaveUp::TimedOut) if phase.has_ended() => return,
            (phase, GaveUp::TimedOut) => {
                let sent = matches!(phase, Phase::Handling);
                Phase::Failed(CallEnd::TimedOut { sent })
            }
        };
        let before = std::mem::replace(&mut state.phase, next);
        Self::wake(state, before, &text);
    }
}

impl<M: Ask> LocalAsk for LocalCall<M> {
    fn name(&self) -> &'static str {
        M::NAME
    }

    fn message_type(&self) -> TypeId {
        TypeId::of::<M>()
    }

    fn into_any(self: Arc<Self>) -> Arc<dyn Any + Send + Sync> {
        self
    }

    fn take(&self) -> Option<Box<dyn LocalTell>> {
        self.take_message().map(|message| Box::new(Tell(message)) as Box<dyn LocalTell>)
    }

    fn fail(&self, error: RpcError) {
        let why = error.clone();
        self.end(Phase::Failed(CallEnd::reported(error)), &why);
    }

    fn reply_bytes(&self, body: &[u8], limits: &PrescanLimits) -> Result<(), RpcError> {
        self.end(Phase::Replied(payload::decode(body, limits)?), &"answered");
        Ok(())
    }

    fn poll_cancelled(&self, place: &mut Option<usize>, cx: &mut Context<'_>) -> Poll<()> {
        let mut state = self.lock();
        if state.phase.is_cancelled() {
            return Poll::Ready(());
        }
        // What has its answer is not cancelled any more.
        if !state.phase.has_ended() {
            state.waiting.get_or_insert_default().add(place, cx);
        }
        Poll::Pending
    }

    fn forget(&self, place: usize) {
        let mut state = self.lock();
        let waker = state.waiting.as_mut().and_then(|waiting| waiting.remove(place));
        drop(state);
        drop(waker);
    }

    fn is_cancelled(&self) -> bool {
        self.lock().phase.is_cancelled()
    }

    fn is_awaited(&self) -> bool {
        let state = self.lock();
        state.awaited == Awaited::Yes && matches!(state.phase, Phase::Queued(_) | Phase::Handling)
    }
}

/// Why an asker stops waiting.
#[derive(Clone, Copy)]
enum GaveUp {
    Dropped,
    TimedOut,
}

impl<M: Ask> LocalAnswer<M::Reply> for LocalCall<M> {
    fn answer(&self, reply: M::Reply) {
        let mut state = self.lock();
        if let Phase::Handling = state.phase {
            state.phase = Phase::Replied(reply);
            Self::wake(state, Phase::Handling, &"answered");
        } else {
            drop(state);
            drop_quietly(M::NAME, reply);
        }
    }

    fn erase(self: Arc<Self>) -> Arc<dyn LocalAsk> {
        self
    }
}

impl<M: Ask> LocalReply<M::Reply> for LocalCall<M> {
    fn poll_reply(
        &self,
        cx: &mut Context<'_>,
        explain: &dyn Fn(CallEnd) -> RpcError,
    ) -> Poll<Result<M::Reply, RpcError>> {
        let mut state = self.lock();
        if let Phase::Replied(_) = state.phase
            && let Phase::Replied(reply) = std::mem::replace(&mut state.phase, Phase::Over)
        {
            return Poll::Ready(Ok(reply));
        }
        if let Phase::Failed(_) = state.phase {
            let seen = state.phase.seen();
            if let Phase::Failed(end) = std::mem::replace(&mut state.phase, seen) {
                drop(state);
                return Poll::Ready(Err(explain(end)));
            }
        }
        if !state.asker.as_ref().is_some_and(|waker| waker.will_wake(cx.waker())) {
            state.asker = Some(cx.waker().clone());
        }
        Poll::Pending
    }

    fn abandon(&self) {
        self.give_up(GaveUp::Dropped);
    }

    fn awaited(&self) {
        self.lock().awaited = Awaited::Yes;
    }
}

impl<M: Ask> Expire for LocalCall<M> {
    fn expire(&self, _id: u64) {
        self.give_up(GaveUp::TimedOut);
    }

    fn refuse(&self, error: &RpcError) {
        self.end_if(Phase::is_queued, Phase::Failed(CallEnd::reported(error.clone())), error);
    }
}

/// Bodies of local replies of another type than the caller's go through bytes, like any other.
pub(crate) const BRIDGE_ENCODING: Encoding = Encoding::Named;
