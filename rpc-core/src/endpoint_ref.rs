//! Refs: how an endpoint is spoken to, from anywhere.

use crate::address::{EndpointAddress, EndpointLocation, EndpointName, RpcAddress};
use crate::ask::{AskFuture, Special, Terms};
use crate::block::block_on;
use crate::core::EnvCore;
use crate::counters::Count;
use crate::deadline::{RpcTimeout, Timestamp};
use crate::error::{ErrorKind, Outcome, RpcError};
use crate::local_call::{LocalCall, Tell};
use crate::message::{Ask, CoveredBy, OneWay, RpcMessage, SentTo, Untyped};
use crate::raw_ref::RawRef;
use crate::scope::{self, For};
use crate::seam::{Incarnation, Outgoing, RemoteCall, RemoteTarget};
use crate::terminated::Terminated;
use crate::ticket::Ticket;
use crate::trace::TraceContext;
use crate::turn::{self, Behalf, Inherited};
use crate::wire::payload;
use serde::ser::SerializeMap;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::fmt;
use std::future::Future;
use std::hash::{Hash, Hasher};
use std::marker::PhantomData;
use std::sync::Arc;
use std::time::Duration;

/// A way to an endpoint, here or on another machine; the caller sees no difference.
///
/// Cheap to clone, `Send` and `Sync`, usable from any thread and runtime, and from messages: a
/// ref may be a field of a message or a reply. `P` says which messages it takes: the endpoint
/// type, a protocol type, or [`Untyped`].
///
/// Two refs are equal when they lead to the same endpoint address (S76). A ref made from a URI is
/// by name, and finds the endpoint again after a restart; one from
/// [`setup_endpoint`](crate::RpcEnv::setup_endpoint), [`self_ref`](crate::EndpointContext::self_ref)
/// or a message is pinned to that life of the endpoint, and fails cleanly when it is over.
pub struct RpcEndpointRef<P = Untyped> {
    raw: RawRef,
    endpoint: PhantomData<fn() -> P>,
}

impl RawRef {
    fn send<M: OneWay>(&self, msg: M) -> Result<(), RpcError> {
        let send = || {
            if let Some(inbox) = self.find()? {
                return inbox.tell(Box::new(Tell(msg)), size_of::<M>(), turn::trace());
            }
            let core = self.core()?;
            let (deadline, trace) = (Timestamp::MAX, turn::trace());
            self.remote_send(&core, &msg, (deadline, None), trace, |target, out| target.send(out))
        };
        send().map_err(|error| self.refused(error))
    }

    /// Counts what is refused for want of room.
    #[cold]
    fn refused(&self, error: RpcError) -> RpcError {
        if let (ErrorKind::Overloaded, Ok(core)) = (error.kind(), self.core()) {
            core.tally().count(Count::Overloads);
        }
        error
    }

    fn failed<R>(&self, error: RpcError) -> AskFuture<R> {
        AskFuture::failed(self.refused(error))
    }

    /// Encodes a message outside of every lock and hands it to the target.
    fn remote_send<M: RpcMessage, T>(
        &self,
        core: &EnvCore,
        msg: &M,
        (deadline, made): (Timestamp, Option<Timestamp>),
        trace: Option<TraceContext>,
        hand_over: impl FnOnce(&dyn RemoteTarget, &mut Outgoing<'_>) -> Result<T, RpcError>,
    ) -> Result<T, RpcError> {
        let Some(target) = self.remote_target() else {
            return Err(RpcError::new(ErrorKind::Internal, "a local ref has no remote target"));
        };
        let max = core.config().limits().message_max_size();
        scope::within_for(core, For::Target(target), || {
            let encoded = payload::encoded(msg, M::ENCODING, max);
            let mut encoded = encoded.map_err(|error| self.explain(M::NAME, &error))?;
            // Made where it stays: to move what was just put together costs as much as a lock.
            let (name, lane, body) = (M::NAME, M::LANE, encoded.body());
            let mut message = Outgoing { name, lane, body, deadline, trace, made };
            hand_over(&**target, &mut message)
        })
    }

    /// Names the message and the endpoint in an error of the encoder.
    fn explain(&self, message: &str, error: &RpcError) -> RpcError {
        RpcError::new(error.kind(), format!("{message} to {}: {error}", self.address()))
    }

    fn ask<M: Ask>(&self, msg: M, timeout: Option<RpcTimeout>) -> AskFuture<M::Reply> {
        // The future is made in each branch, in the place where it is returned: it is large.
        let inbox = match self.find() {
            Ok(Some(inbox)) => inbox,
            Ok(None) => {
                let (core, terms, call) = match self.ask_remotely(&msg, timeout) {
                    Ok(made) => made,
                    Err(error) => return self.failed(error),
                };
                return AskFuture::remote(call, Self::decode_reply::<M>, core, self.clone(), terms);
            }
            Err(error) => return self.failed(error),
        };
        let (terms, trace) = terms(inbox.core(), timeout);
        let call = Arc::new(LocalCall::new(msg));
        let (asker, bytes) = (terms.asker().cloned(), size_of::<M>());
        match inbox.ask(call.clone(), bytes, asker, terms.deadline, trace) {
            Ok(idle) => AskFuture::local(call, inbox.into_owned(), terms, idle),
            Err(error) => self.failed(error),
        }
    }

    fn ask_remotely<M: Ask>(
        &self,
        msg: &M,
        timeout: Option<RpcTimeout>,
    ) -> Result<(Arc<EnvCore>, Terms, RemoteCall), RpcError> {
        let core = self.core()?;
        let (terms, trace) = terms(&core, timeout);
        let ask = |target: &dyn RemoteTarget, out: &mut Outgoing<'_>| target.ask(out);
        let times = (terms.deadline, Some(terms.now));
        let call = self.remote_send(&core, msg, times, trace, ask)?;
        Ok((core, terms, call))
    }

    fn decode_reply<M: Ask>(
        core: &EnvCore,
        from: &Self,
        body: &bytes::Bytes,
    ) -> Result<M::Reply, RpcError> {
        // One value, so that the reply is not moved once more.
        let mut reply = scope::within(core, || payload::decode_body(body, core.prescan()));
        if let Err(error) = &mut reply {
            let of = format!("the reply to {} from {}", M::NAME, from.address());
            core.tally().count(Count::RepliesUndecodable);
            // The handler has run.
            *error = RpcError::new(error.kind(), format!("{of}: {error}"))
                .with_outcome(Outcome::FailedInHandler);
        }
        reply
    }

    fn send_wait<M: OneWay>(&self, msg: M) -> AskFuture<()> {
        // The future of most is made where it is returned.
        match self.send_or_wait(msg) {
            Ok(None) => AskFuture::ready(|| ()),
            Ok(Some(waits)) => waits,
            Err(error) => self.failed(error),
        }
    }

    /// Sends a message; the future that waits for room, if there is none.
    fn send_or_wait<M: OneWay>(&self, msg: M) -> Result<Option<AskFuture<()>>, RpcError> {
        let Some(inbox) = self.find()? else {
            let (core, trace) = (self.core()?, turn::trace());
            let wait = |target: &dyn RemoteTarget, out: &mut Outgoing<'_>| target.send_wait(out);
            let times = (Timestamp::MAX, None);
            let Some(call) = self.remote_send(&core, &msg, times, trace, wait)? else {
                return Ok(None);
            };
            let (terms, _) = terms(&core, None);
            return Ok(Some(AskFuture::remote(call, |_, _, _| Ok(()), core, self.clone(), terms)));
        };
        let trace = turn::trace();
        let Some(tell) = inbox.tell_now(Box::new(Tell(msg)), size_of::<M>(), &trace)? else {
            return Ok(None);
        };
        let (terms, _) = terms(inbox.core(), None);
        let ticket = Arc::new(Ticket::default());
        inbox.tell_in_turn(tell, size_of::<M>(), ticket.clone(), terms.deadline, trace)?;
        Ok(Some(AskFuture::room(ticket, inbox.into_owned(), terms)))
    }

    /// Whether the endpoint exists; for refs made from a URI.
    pub(crate) fn resolve(&self, timeout: RpcTimeout) -> AskFuture<()> {
        let call = || -> Result<AskFuture<()>, RpcError> {
            let core = self.core()?;
            let now = core.now();
            let deadline = now.saturating_add(timeout.duration());
            let Some(target) = self.remote_target() else {
                return Err(RpcError::new(ErrorKind::Internal, "a local ref is not resolved"));
            };
            let call = target.resolve(deadline)?;
            let special = Special { timeout: Some(timeout), ..Special::default() };
            let terms = Terms { now, deadline, special: Some(Box::new(special)) };
            Ok(AskFuture::remote(call, |_, _, _| Ok(()), core, self.clone(), terms))
        };
        call().unwrap_or_else(|error| self.failed(error))
    }
}

/// How a call is made from here, and the trace that it is part of.
#[inline]
fn terms(core: &EnvCore, timeout: Option<RpcTimeout>) -> (Terms, Option<TraceContext>) {
    let now = core.now();
    let deadline = timeout.unwrap_or_else(|| core.ask_timeout()).deadline(now);
    let inherited = turn::inherited();
    if timeout.is_none() && inherited.is_none() {
        return (Terms { now, deadline, special: None }, None);
    }
    special_terms(core, timeout, now, deadline, inherited)
}

fn special_terms(
    core: &EnvCore,
    mut timeout: Option<RpcTimeout>,
    now: Timestamp,
    mut deadline: Timestamp,
    inherited: Option<Inherited>,
) -> (Terms, Option<TraceContext>) {
    let (mut behalf, mut trace) = (Behalf::default(), None);
    if let Some(inherited) = inherited {
        // No more time than the caller of the handler has that makes it.
        let until = inherited.deadline_by(core);
        if until < deadline {
            deadline = until;
            timeout = Some(RpcTimeout::inherited(deadline.since(now)));
        }
        (behalf, trace) = (inherited.behalf, inherited.trace);
    }
    let special = Special { behalf, timeout, ..Special::default() };
    let special = Some(Box::new(special));
    (Terms { now, deadline, special }, trace)
}

impl<P> RpcEndpointRef<P> {
    pub(crate) fn from_raw(raw: RawRef) -> Self {
        Self { raw, endpoint: PhantomData }
    }

    pub(crate) fn raw(&self) -> &RawRef {
        &self.raw
    }

    /// Waits for the end of the endpoint: that of the life which it has now, if the ref is by name.
    /// The watch begins when this is called. It is over as soon as nobody can tell any more, with
    /// the reason [`NodeLost`](crate::Termination::NodeLost). Endpoints use
    /// [`cx.watch`](crate::EndpointContext::watch).
    ///
    /// # Cancel safety
    /// Dropped, the watch is over. It keeps neither the endpoint nor its env alive.
    pub fn terminated(&self) -> impl Future<Output = Terminated> + Send + use<P> {
        self.raw.terminated()
    }

    /// The endpoint's name.
    #[must_use]
    pub fn name(&self) -> &EndpointName {
        self.raw.address().name()
    }

    /// The endpoint's address, as a URI when displayed.
    #[must_use]
    pub fn endpoint_address(&self) -> &EndpointAddress {
        self.raw.address()
    }

    /// Where the endpoint's env listens; `None` if it does not.
    #[must_use]
    pub fn address(&self) -> Option<&RpcAddress> {
        self.raw.address().rpc_address()
    }

    /// Which life of the endpoint the ref is pinned to; `None` if it is by name.
    #[must_use]
    pub fn incarnation(&self) -> Option<Incarnation> {
        self.raw.pin()
    }

    /// Sends a one-way message: at most once, in order with what this env sends to the endpoint
    /// in the same lane. It never waits.
    ///
    /// # Errors
    /// `Overloaded` when there is no room for the message, `Encode`, `TooLarge`, or what ended
    /// the way to the endpoint (`EndpointNotFound`, `EndpointStopped`, `EnvStopped`, ...). After
    /// an `Ok` the message is not refused any more for want of room.
    pub fn send<M: OneWay + SentTo<P>>(&self, msg: M) -> Result<(), RpcError> {
        self.raw.send(msg)
    }

    /// Sends a one-way message and waits until there is room for it, for `rpc.askTimeout` at most.
    /// It takes its place in the order now, not when polled.
    ///
    /// # Errors
    /// As [`send`](Self::send), and `Timeout`; the message is then not handled.
    ///
    /// # Cancel safety
    /// Dropped before it is ready, the message is not handled, unless it has found room already.
    pub fn send_wait<M: OneWay + SentTo<P>>(&self, msg: M) -> AskFuture<()> {
        self.raw.send_wait(msg)
    }

    /// Sends a message and waits for its answer, for `rpc.askTimeout` at most (10 s by default).
    /// It takes its place in the order now, not when polled, and waits there for room.
    ///
    /// # Errors
    /// See [`ErrorKind`]; [`RpcError::outcome`] says whether a handler may have seen the message.
    ///
    /// # Cancel safety
    /// Dropping the future cancels the call; see [`AskFuture`].
    pub fn ask<M: Ask + SentTo<P>>(&self, msg: M) -> AskFuture<M::Reply> {
        self.raw.ask(msg, None)
    }

    /// As [`ask`](Self::ask), with a timeout of its own, cut to 24 h.
    ///
    /// # Errors
    /// As [`ask`](Self::ask).
    pub fn ask_with_timeout<M: Ask + SentTo<P>>(
        &self,
        msg: M,
        timeout: Duration,
    ) -> AskFuture<M::Reply> {
        self.raw.ask(msg, Some(RpcTimeout::given(timeout)))
    }

    /// As [`ask`](Self::ask), from a thread without a runtime: the thread sleeps until the answer
    /// is there.
    ///
    /// # Errors
    /// As [`ask`](Self::ask), and `WouldBlockArbiter` on a thread that runs endpoints, because
    /// the answer may need that very thread.
    pub fn ask_blocking<M: Ask + SentTo<P>>(&self, msg: M) -> Result<M::Reply, RpcError> {
        let core = self.raw.core()?;
        if let Some(why) = core.backend().and_then(|backend| backend.refuses_blocking()) {
            return Err(RpcError::new(
                ErrorKind::WouldBlockArbiter,
                format!("a blocking ask of {} to {} was refused: {why}", M::NAME, self.raw.peer()),
            ));
        }
        drop(core);
        block_on(self.ask(msg))
    }

    /// The same endpoint, as a protocol that it covers.
    #[must_use]
    pub fn into_protocol<Q: CoveredBy<P>>(self) -> RpcEndpointRef<Q> {
        RpcEndpointRef::from_raw(self.raw)
    }

    /// The same endpoint, without a type.
    #[must_use]
    pub fn into_untyped(self) -> RpcEndpointRef {
        RpcEndpointRef::from_raw(self.raw)
    }
}

impl RpcEndpointRef<Untyped> {
    /// The same endpoint as type `P`. Nothing checks that it is one: messages that it does not
    /// take fail there, as `Unsupported`.
    #[must_use]
    pub fn cast_unchecked<P>(self) -> RpcEndpointRef<P> {
        RpcEndpointRef::from_raw(self.raw)
    }
}

impl<P> RpcEndpointRef<P> {
    /// Who passes messages on to the endpoint, as the one who gets the ref is told.
    fn relay(&self) -> Option<RpcAddress> {
        match self.raw.address().location() {
            EndpointLocation::Listening(_) => None,
            location => self.raw.relay().cloned().or_else(|| scope::relay_for(location)),
        }
    }
}

impl<P> Clone for RpcEndpointRef<P> {
    fn clone(&self) -> Self {
        Self::from_raw(self.raw.clone())
    }
}

impl<P> PartialEq for RpcEndpointRef<P> {
    fn eq(&self, other: &Self) -> bool {
        self.raw.address() == other.raw.address()
    }
}

impl<P> Eq for RpcEndpointRef<P> {}

impl<P> Hash for RpcEndpointRef<P> {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.raw.address().hash(state);
    }
}

impl<P> fmt::Debug for RpcEndpointRef<P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "RpcEndpointRef({})", self.raw.address())
    }
}

impl<P> fmt::Display for RpcEndpointRef<P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self.raw.address(), f)
    }
}

/// On the wire a ref is a map, with room for more keys: `at` is its URI, `pin` the life it is
/// pinned to, `relay` who passes messages on to an env that does not listen.
impl<P> Serialize for RpcEndpointRef<P> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        scope::require("encoded").map_err(serde::ser::Error::custom)?;
        let (pin, relay) = (self.raw.pin(), self.relay());
        let keys = 1 + usize::from(pin.is_some()) + usize::from(relay.is_some());
        let mut map = serializer.serialize_map(Some(keys))?;
        map.serialize_entry("at", self.raw.address())?;
        if let Some(pin) = pin {
            map.serialize_entry("pin", &(pin.env, pin.endpoint))?;
        }
        if let Some(relay) = relay {
            map.serialize_entry("relay", &relay.host_port())?;
        }
        map.end()
    }
}

#[derive(Deserialize)]
struct RefOnTheWire {
    at: EndpointAddress,
    #[serde(default)]
    pin: Option<(u64, u64)>,
    #[serde(default)]
    relay: Option<String>,
}

impl<'de, P> Deserialize<'de> for RpcEndpointRef<P> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let wire = RefOnTheWire::deserialize(deserializer)?;
        let pin = wire.pin.map(|(env, endpoint)| Incarnation::new(env, endpoint));
        // One that is not understood is no relay.
        let relay = wire.relay.and_then(|relay| relay.parse().ok());
        scope::bind(wire.at, pin, relay)
            .and_then(RawRef::from_opaque)
            .map(Self::from_raw)
            .map_err(serde::de::Error::custom)
    }
}
