//! Refs: how an endpoint is spoken to, from anywhere.

use crate::address::{EndpointAddress, EndpointName, RpcAddress};
use crate::ask::AskFuture;
use crate::block::block_on;
use crate::core::EnvCore;
use crate::deadline::{RpcTimeout, Timestamp};
use crate::error::{ErrorKind, Outcome, RpcError};
use crate::inbox::Asker;
use crate::local_call::{LocalCall, Tell};
use crate::message::{Ask, CoveredBy, OneWay, RpcMessage, SentTo, Untyped};
use crate::raw_ref::RawRef;
use crate::scope;
use crate::seam::{Incarnation, Outgoing, RemoteTarget};
use crate::ticket::Ticket;
use crate::turn;
use crate::wire::payload;
use serde::ser::SerializeMap;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::fmt;
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
        if let Some(inbox) = self.find()? {
            return inbox.tell(Box::new(Tell(msg)), size_of::<M>(), None);
        }
        let core = self.core()?;
        self.remote_send(&core, &msg, Timestamp::MAX, |target, out| target.send(out))
    }

    /// Encodes a message outside of every lock and hands it to the target.
    fn remote_send<M: RpcMessage, T>(
        &self,
        core: &EnvCore,
        msg: &M,
        deadline: Timestamp,
        hand_over: impl FnOnce(&dyn RemoteTarget, Outgoing<'_>) -> Result<T, RpcError>,
    ) -> Result<T, RpcError> {
        let Some(target) = self.remote_target() else {
            return Err(RpcError::new(ErrorKind::Internal, "a local ref has no remote target"));
        };
        let max = core.config().limits().message_max_size();
        let encoded = scope::within(core, || {
            payload::with_encoded(msg, M::ENCODING, max, |body| {
                hand_over(&**target, Outgoing::new(M::NAME, M::LANE, body, deadline))
            })
        });
        encoded.map_err(|error| self.explain(M::NAME, &error))?
    }

    /// Names the message and the endpoint in an error of the encoder.
    fn explain(&self, message: &str, error: &RpcError) -> RpcError {
        RpcError::new(error.kind(), format!("{message} to {}: {error}", self.address()))
    }

    fn ask<M: Ask>(&self, msg: M, timeout: RpcTimeout) -> AskFuture<M::Reply> {
        let call = || -> Result<AskFuture<M::Reply>, RpcError> {
            let core = self.core()?;
            let asker = current_asker();
            let (timeout, deadline) = inherit(core.now(), timeout, asker.as_ref());
            let Some(inbox) = self.find()? else {
                let call =
                    self.remote_send(&core, &msg, deadline, |target, out| target.ask(out))?;
                let decode = |core: &EnvCore, from: &Self, body: &bytes::Bytes| {
                    scope::within(core, || payload::decode(body, core.prescan())).map_err(|error| {
                        let of = format!("the reply to {} from {}", M::NAME, from.address());
                        // The handler has run.
                        RpcError::new(error.kind(), format!("{of}: {error}"))
                            .with_outcome(Outcome::FailedInHandler)
                    })
                };
                return Ok(AskFuture::remote(
                    call,
                    decode,
                    core,
                    self.clone(),
                    timeout,
                    deadline,
                    asker,
                ));
            };
            let call = Arc::new(LocalCall::new(msg));
            inbox.ask(call.clone(), size_of::<M>(), asker.clone(), deadline)?;
            Ok(AskFuture::local(call, core, self.clone(), timeout, deadline, asker))
        };
        call().unwrap_or_else(AskFuture::failed)
    }

    fn send_wait<M: OneWay>(&self, msg: M, timeout: RpcTimeout) -> AskFuture<()> {
        let call = || -> Result<AskFuture<()>, RpcError> {
            let core = self.core()?;
            let asker = current_asker();
            let (timeout, deadline) = inherit(core.now(), timeout, asker.as_ref());
            let Some(inbox) = self.find()? else {
                let call =
                    self.remote_send(&core, &msg, deadline, |target, out| target.send_wait(out))?;
                return Ok(AskFuture::remote(
                    call,
                    |_, _, _| Ok(()),
                    core,
                    self.clone(),
                    timeout,
                    deadline,
                    asker,
                ));
            };
            let ticket = Arc::new(Ticket::default());
            inbox.tell(Box::new(Tell(msg)), size_of::<M>(), Some(ticket.clone()))?;
            Ok(AskFuture::local(ticket, core, self.clone(), timeout, deadline, None))
        };
        call().unwrap_or_else(AskFuture::failed)
    }

    /// Whether the endpoint exists; for refs made from a URI.
    pub(crate) fn resolve(&self, timeout: RpcTimeout) -> AskFuture<()> {
        let call = || -> Result<AskFuture<()>, RpcError> {
            let core = self.core()?;
            let deadline = core.now().saturating_add(timeout.duration());
            let Some(target) = self.remote_target() else {
                return Err(RpcError::new(ErrorKind::Internal, "a local ref is not resolved"));
            };
            let call = target.resolve(deadline)?;
            let target = self.clone();
            Ok(AskFuture::remote(call, |_, _, _| Ok(()), core, target, timeout, deadline, None))
        };
        call().unwrap_or_else(AskFuture::failed)
    }
}

/// An ask that a handler makes has no more time than the handler's own caller.
fn inherit(now: Timestamp, timeout: RpcTimeout, asker: Option<&Asker>) -> (RpcTimeout, Timestamp) {
    let own = now.saturating_add(timeout.duration());
    let inherited = asker.map_or(Timestamp::MAX, |asker| asker.inbox.current_deadline());
    if inherited < own {
        (RpcTimeout::inherited(inherited.since(now)), inherited)
    } else {
        (timeout, own)
    }
}

/// The handler on this thread, as the one who waits for an ask made in it.
fn current_asker() -> Option<Asker> {
    turn::with_handler(|inbox| {
        inbox.map(|inbox| Asker { inbox: inbox.clone(), turn: inbox.current_turn() })
    })
}

impl<P> RpcEndpointRef<P> {
    pub(crate) fn from_raw(raw: RawRef) -> Self {
        Self { raw, endpoint: PhantomData }
    }

    pub(crate) fn raw(&self) -> &RawRef {
        &self.raw
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
        self.raw.send_wait(msg, self.ask_timeout())
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
        self.raw.ask(msg, self.ask_timeout())
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
        self.raw.ask(msg, RpcTimeout::given(timeout))
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

    fn ask_timeout(&self) -> RpcTimeout {
        self.raw.core().map_or_else(|_| RpcTimeout::default(), |core| core.config().ask_timeout())
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
/// pinned to.
impl<P> Serialize for RpcEndpointRef<P> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        scope::require("encoded").map_err(serde::ser::Error::custom)?;
        let pin = self.raw.pin();
        let mut map = serializer.serialize_map(Some(1 + usize::from(pin.is_some())))?;
        map.serialize_entry("at", self.raw.address())?;
        if let Some(pin) = pin {
            map.serialize_entry("pin", &(pin.env, pin.endpoint))?;
        }
        map.end()
    }
}

#[derive(Deserialize)]
struct RefOnTheWire {
    at: EndpointAddress,
    #[serde(default)]
    pin: Option<(u64, u64)>,
}

impl<'de, P> Deserialize<'de> for RpcEndpointRef<P> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let wire = RefOnTheWire::deserialize(deserializer)?;
        let pin = wire.pin.map(|(env, endpoint)| Incarnation::new(env, endpoint));
        scope::bind(wire.at, pin)
            .and_then(RawRef::from_opaque)
            .map(Self::from_raw)
            .map_err(serde::de::Error::custom)
    }
}
