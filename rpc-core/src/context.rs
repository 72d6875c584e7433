//! What a handler sees of the world: its own ref, its env, its caller.

use crate::address::{EndpointName, RpcAddress};
use crate::beat::message_of;
use crate::call_context::{Deferred, ReplyKind, RpcCallContext};
use crate::core::EnvCore;
use crate::counters::Count;
use crate::deadline::Timestamp;
use crate::delivery::Work;
use crate::dispatcher::env_stopped;
use crate::endpoint_ref::RpcEndpointRef;
use crate::env::{EnvShared, RpcEnv};
use crate::error::{ErrorKind, Outcome, RpcError};
use crate::inbox::Inbox;
use crate::later::{self, ScheduledSend};
use crate::local_call::{LocalAnswer, LocalCall, Taken, into_message};
use crate::message::{Ask, Encoding, OneWay, RpcMessage, SentTo};
use crate::open_call::Watch;
use crate::raw::{HandlerError, RawMessage, RawReply};
use crate::raw_ref::RawRef;
use crate::reply_sink::{ReplySink, Way};
use crate::row::Together;
use crate::scope;
use crate::seam::Origin;
use crate::terminated::WatchId;
use crate::trace::TraceContext;
use crate::turn;
use crate::wire::payload;
use std::any::Any;
use std::fmt;
use std::future::Future;
use std::marker::PhantomData;
use std::sync::{Arc, Weak};
use std::task::Poll;
use std::time::Duration;

/// Given to every handler and hook of an endpoint: itself, its env, and the current call.
pub struct EndpointContext<E> {
    pub(crate) inbox: Arc<Inbox>,
    pub(crate) core: Arc<EnvCore>,
    env: Weak<EnvShared>,
    /// The current message, until its handler has it. It lies here because a future that is called with
    /// it, and the one within that, would each move it.
    pub(crate) work: Work,
    /// The call that the current handler is to answer.
    pub(crate) current: Option<ReplySink>,
    /// The same, once it was handed to a call context.
    pub(crate) deferred: Option<Deferred>,
    /// Where the current message came from, if not from this env.
    pub(crate) origin: Option<Arc<dyn Origin>>,
    /// What it came with, of which more may come.
    pub(crate) together: Option<Arc<Together>>,
    pub(crate) deadline: Timestamp,
    /// Whether the handler's turn ended with its answer, before it did.
    pub(crate) turn_over: bool,
    endpoint: PhantomData<fn() -> E>,
}

impl<E> EndpointContext<E> {
    pub(crate) fn new(inbox: Arc<Inbox>, env: Weak<EnvShared>) -> Self {
        Self {
            core: inbox.core().clone(),
            inbox,
            env,
            work: Work::Nothing,
            current: None,
            deferred: None,
            origin: None,
            together: None,
            deadline: Timestamp::MAX,
            turn_over: false,
            endpoint: PhantomData,
        }
    }

    /// A ref to this endpoint, pinned to this life of it. Valid from `on_start` on.
    #[must_use]
    pub fn self_ref(&self) -> RpcEndpointRef<E> {
        RpcEndpointRef::from_raw(RawRef::local(self.inbox.clone()))
    }

    /// The endpoint's name.
    #[must_use]
    pub fn name(&self) -> &EndpointName {
        self.inbox.name()
    }

    /// How often the endpoint was started anew after a panic ([`PanicPolicy::Restart`]): 0 for its
    /// first value.
    ///
    /// [`PanicPolicy::Restart`]: crate::PanicPolicy::Restart
    #[must_use]
    pub fn restarts(&self) -> u32 {
        self.inbox.behind.restarts()
    }

    /// The env that the endpoint is registered in.
    ///
    /// # Errors
    /// `EnvStopped` when the last [`RpcEnv`] was dropped: the env is shutting down.
    pub fn env(&self) -> Result<RpcEnv, RpcError> {
        self.env.upgrade().and_then(|shared| shared.env()).ok_or_else(env_stopped)
    }

    /// Who sent the current message: the listening address of the sender's env, or its socket's
    /// address if it does not listen. For a sender in this env that is this env's address.
    #[must_use]
    pub fn sender(&self) -> Option<RpcAddress> {
        match &self.origin {
            Some(origin) => origin.sender().cloned(),
            None => self.core.address().cloned(),
        }
    }

    /// How long the caller still waits; `None` for a one-way message.
    #[must_use]
    pub fn remaining(&self) -> Option<Duration> {
        (self.deadline != Timestamp::MAX).then(|| self.deadline.since(self.core.now()))
    }

    /// Whether the caller of the current handler gave up.
    #[must_use]
    pub fn is_cancelled(&self) -> bool {
        self.way().is_some_and(|way| way.is_cancelled_by(self.deadline, &self.core))
    }

    /// Resolves when the caller of the current handler gives up, or its time is over; never for a
    /// one-way message.
    ///
    /// # Cancel safety
    /// It may be dropped at any time. It belongs to the message that was current when it was made.
    pub fn cancelled(&self) -> impl Future<Output = ()> + use<E> {
        let way = self.way().cloned();
        let mut watch = way.map(|way| Watch::new(self.core.clone(), way, self.deadline));
        std::future::poll_fn(move |cx| match &mut watch {
            Some(watch) => watch.poll(cx),
            None => Poll::Pending,
        })
    }

    /// The place of the current handler in the trace of its message: the sender's trace, a span of
    /// its own, and the sender's span as its parent. `None` if the message came without a trace.
    ///
    /// What the handler asks and sends is part of the trace without further ado, with this span as
    /// the sender's. A task that it starts takes this along: [`TraceContext::scope`].
    #[must_use]
    pub fn trace(&self) -> Option<TraceContext> {
        self.inbox.trace()
    }

    /// Resolves when the caller of the current handler gives up, or its time is over, while it
    /// waits for the handler: not when it has its answer.
    pub(crate) fn turn_cancelled(&self) -> impl Future<Output = ()> + use<E> {
        let (inbox, (turn, deadline)) = (self.inbox.clone(), self.inbox.current_call());
        let way = self.way().cloned();
        let mut watch = way.map(|way| Watch::new(self.core.clone(), way, deadline));
        std::future::poll_fn(move |cx| {
            let over = watch.as_mut().is_some_and(|watch| watch.poll(cx).is_ready());
            if over && inbox.is_awaited(turn) { Poll::Ready(()) } else { Poll::Pending }
        })
    }

    /// The handler was dropped because nobody waits for it.
    pub(crate) fn aborted(&mut self) {
        if let Some(sink) = self.current.take() {
            let text = "the handler was dropped, because the time of the ask was over";
            sink.fail(&RpcError::new(ErrorKind::Timeout, text));
        }
    }

    /// Sends the endpoint a message of its own once `delay` is over on the env's clock, behind what
    /// is in its inbox then. It waits there for room, and is gone if the endpoint is. It is part of
    /// the trace of the message that is handled now.
    pub fn send_after<M: OneWay + SentTo<E>>(&self, delay: Duration, msg: M) -> ScheduledSend {
        later::after(&self.inbox, delay, msg)
    }

    /// Sends the endpoint a message of its own whenever another `period` is over (at least 1 ms),
    /// for the first time after one period, until it is [cancelled](ScheduledSend::cancel) or the
    /// endpoint ends. While the one before waits in the inbox, none is added: an endpoint that is
    /// slower than its clock does not pile them up.
    pub fn send_every<M: OneWay + SentTo<E> + Clone>(
        &self,
        period: Duration,
        msg: M,
    ) -> ScheduledSend {
        later::every(&self.inbox, period, move || msg.clone())
    }

    /// Now, on the env's clock, which is virtual in a [`LocalWorld`](crate::LocalWorld) and in a simulation.
    #[must_use]
    pub fn now(&self) -> Timestamp {
        self.core.now()
    }

    /// Waits on the env's clock, which is virtual in a [`LocalWorld`](crate::LocalWorld). It holds
    /// the endpoint, as every await does; to do something later, [`send_after`](Self::send_after).
    ///
    /// # Cancel safety
    /// It may be dropped at any time.
    pub fn sleep(&self, delay: Duration) -> impl Future<Output = ()> + Send + use<E> {
        later::sleep(&self.core, delay)
    }

    /// Watches another endpoint, here or elsewhere:
    /// [`on_terminated`](crate::RpcEndpoint::on_terminated) is called once when its life is over, when
    /// the connection with its env is lost, or at once if it is not there. A ref by name means
    /// whoever has the name now. The watch keeps neither the endpoint nor its env alive, and ends with
    /// this endpoint's value.
    ///
    /// The event comes behind all that the endpoint had sent to this one, in the same env; from
    /// another one, behind all of that in the normal lane that did not wait for room. What is lost
    /// with a connection comes never.
    ///
    /// # Errors
    /// `Overloaded` beyond `rpc.dispatcher.maxWatches`.
    pub fn watch<P>(&self, endpoint: &RpcEndpointRef<P>) -> Result<WatchId, RpcError> {
        self.inbox.watch(endpoint.raw())
    }

    /// Ends a watch: nothing is heard of it any more, whatever is under way.
    pub fn unwatch(&self, watch: WatchId) {
        self.inbox.unwatch(watch);
    }

    /// Stops this endpoint: as [`RpcEnv::stop`].
    pub fn stop(&self) {
        match self.env.upgrade() {
            Some(env) => env.stop(&self.inbox),
            None => self.inbox.stop(),
        }
    }

    /// Passes an error on to the env, which logs and counts it.
    pub fn report(&self, error: &RpcError) {
        self.core.report(self.inbox.name().as_str(), message_of(&self.inbox), error);
    }

    fn way(&self) -> Option<&Way> {
        match (&self.current, &self.deferred) {
            (Some(sink), _) => sink.way(),
            (None, Some(deferred)) => Some(deferred.way()),
            (None, None) => None,
        }
    }

    /// The current message as an `M`. Nothing comes after the decoding: what it makes would be moved.
    pub(crate) fn decode<M: RpcMessage>(&mut self) -> Result<M, RpcError> {
        match std::mem::replace(&mut self.work, Work::Nothing) {
            Work::Tell(tell) => {
                scope::within(&self.core, || into_message(tell, self.core.prescan()))
            }
            Work::Ask => self.local_message::<M>(),
            Work::Nothing => Err(lost()),
            Work::Wire(_, body) => {
                scope::within(&self.core, || payload::decode_body(&body, self.core.prescan()))
            }
            Work::Arrived(place, last) => {
                let over = if last { self.together.take() } else { None };
                let together = over.as_deref().or(self.together.as_deref());
                self.decode_arrived(together.ok_or_else(lost), place)
            }
        }
    }

    /// What comes of a message that is no `M`.
    #[cold]
    pub(crate) fn undecodable<M: RpcMessage>(&self, error: &RpcError) -> HandlerError {
        if error.kind() == ErrorKind::Decode {
            self.core.tally().count(Count::MessagesUndecodable);
            if self.current.is_none() {
                self.core.tally().count(Count::DeadLettersUndecodable);
            }
        }
        HandlerError::refused(self.name_message(M::NAME, error))
    }

    fn decode_arrived<M: RpcMessage>(
        &self,
        together: Result<&Together, RpcError>,
        place: usize,
    ) -> Result<M, RpcError> {
        let arrivals = &together?.arrivals;
        let (body, limits) = (arrivals.body(place), self.core.prescan());
        scope::within(&self.core, || {
            if payload::may_stay(body) {
                payload::decode_body(&arrivals.kept_body(place), limits)
            } else {
                payload::decode(body, limits)
            }
        })
    }

    fn name_message(&self, message: &str, error: &RpcError) -> RpcError {
        let text = format!("{message} to {}: {error}", self.inbox.address());
        // No handler has seen the message.
        RpcError::new(error.kind(), text).with_outcome(Outcome::NeverSent)
    }

    fn local_message<M: RpcMessage>(&self) -> Result<M, RpcError> {
        let Some(Way::Local(call)) = self.way() else { return Err(lost()) };
        let tell = call.take().ok_or_else(lost)?;
        scope::within(&self.core, || into_message(tell, self.core.prescan()))
    }

    /// The message of a local ask of exactly this type, without boxing it.
    pub(crate) fn take_ask<M: Ask>(&self) -> Taken<M> {
        let (Work::Ask, Some(Way::Local(call))) = (&self.work, self.way()) else {
            return Taken::Other;
        };
        match LocalCall::<M>::of(call) {
            Some(call) => call.take_message().map_or(Taken::GivenUp, Taken::Message),
            None if call.is_cancelled() => Taken::GivenUp,
            None => Taken::Other,
        }
    }

    /// Answers the current call.
    pub(crate) fn reply<M: Ask>(&mut self, reply: M::Reply) {
        let Some(way) = ReplySink::take_from(&mut self.current) else { return };
        // First: asks of the handler that others wait for must not take the answer for a cancel.
        turn::end(&self.inbox);
        self.turn_over = true;
        if let Way::Local(call) = &way
            && let Some(call) = LocalCall::<M>::of(call)
        {
            call.answer(reply);
            return;
        }
        let kind = ReplyKind { message: Some(M::NAME), encoding: M::ENCODING };
        let sent = way.reply(&self.core, &reply, M::ENCODING, || kind.describe(&self.inbox));
        if let Err(error) = sent {
            self.report(&error);
        }
    }

    /// Hands the current call to a call context.
    pub(crate) fn take_call<R: 'static, C: LocalAnswer<R> + Any>(
        &mut self,
        kind: ReplyKind,
    ) -> Result<RpcCallContext<R>, HandlerError> {
        let Some(way) = ReplySink::take_from(&mut self.current) else {
            return Err(HandlerError::refused(RpcError::new(
                ErrorKind::Unsupported,
                "a one-way message was sent where an ask is expected",
            )));
        };
        let typed = match &way {
            Way::Local(call) => call.clone().into_any().downcast::<C>().ok(),
            Way::Wire(..) => None,
        };
        let inbox = self.inbox.clone();
        let (call, deferred) = match typed {
            Some(typed) => RpcCallContext::typed(inbox, typed, kind),
            None => RpcCallContext::encoded(inbox, way, kind),
        };
        self.deferred = Some(deferred);
        Ok(call)
    }

    /// The current message for `receive` or `receive_and_reply`, and the call if it is an ask.
    pub(crate) fn take_raw(
        &mut self,
    ) -> Result<(RawMessage, Option<RpcCallContext<RawReply>>), HandlerError> {
        let core = self.core.clone();
        let message = match std::mem::replace(&mut self.work, Work::Nothing) {
            Work::Tell(tell) => RawMessage::from_value(tell, core),
            Work::Wire(name, body) => {
                RawMessage::from_bytes(name.as_deref().unwrap_or("?").to_owned(), body, core)
            }
            Work::Ask => {
                let tell = match self.way() {
                    Some(Way::Local(call)) => call.take(),
                    _ => None,
                };
                RawMessage::from_value(tell.ok_or_else(lost)?, core)
            }
            Work::Nothing | Work::Arrived(..) => return Err(HandlerError::refused(lost())),
        };
        let Some(way) = ReplySink::take_from(&mut self.current) else {
            return Ok((message, None));
        };
        let kind = ReplyKind { message: None, encoding: Encoding::Named };
        let (call, deferred) = RpcCallContext::encoded(self.inbox.clone(), way, kind);
        self.deferred = Some(deferred);
        Ok((message, Some(call)))
    }

    /// What the sender of a message gets that nothing takes (S45-S48).
    pub(crate) fn unsupported(&self, msg: &RawMessage, one_way: bool) -> HandlerError {
        if one_way {
            self.core.tally().count(Count::DeadLettersUnsupported);
        }
        let address = self.inbox.address();
        let has_some = self.inbox.handlers().iter().any(|info| info.one_way == one_way);
        let other_way = self.inbox.handlers().iter().any(|info| info.name == msg.name());
        let text = if other_way {
            let (is, sent) = if one_way { ("an ask", "sent") } else { ("one-way", "asked") };
            format!(
                "Unsupported message {} to {address}: it is {is}, but it was {sent}",
                msg.name()
            )
        } else if has_some {
            let sender = self.sender().map_or_else(|| "this process".to_owned(), |a| a.to_string());
            format!("Unsupported message {} from {sender} to {address}", msg.name())
        } else if one_way {
            format!("{address} does not implement 'receive' (message {})", msg.name())
        } else {
            format!("{address} won't reply anything (message {})", msg.name())
        };
        HandlerError::refused(RpcError::new(ErrorKind::Unsupported, text))
    }
}

#[cold]
fn lost() -> RpcError {
    RpcError::new(ErrorKind::Internal, "the current message was lost")
}

impl<E> fmt::Debug for EndpointContext<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EndpointContext")
            .field("endpoint", self.inbox.address())
            .finish_non_exhaustive()
    }
}
