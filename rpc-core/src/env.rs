//! The env: a container of endpoints, and the way to those of other envs.

use crate::address::{EndpointAddress, EndpointLocation, EndpointName, EnvId, RpcAddress};
use crate::config::RpcEnvConfig;
use crate::core::{EnvCore, Opaque, Owner};
use crate::counters::{Count, Counters};
use crate::deadline::Timestamp;
use crate::dispatcher::Dispatcher;
use crate::endpoint_ref::RpcEndpointRef;
use crate::error::{ErrorKind, RpcError};
use crate::inbox::Inbox;
use crate::later;
use crate::message::Encoding;
use crate::raw_ref::RawRef;
use crate::scope;
use crate::seam::{EnvBackend, EnvParts, Incarnation};
use crate::status::EndpointStatus;
use crate::trace::TraceContext;
use crate::turn;
use crate::wakers::Place;
use crate::wire::payload;
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::fmt;
use std::future::Future;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

/// A container of endpoints, made by a factory: [`RpcEnvFactoryRegistry`](crate::RpcEnvFactoryRegistry).
///
/// Cheap to clone and usable from every thread. When the last clone is dropped the env shuts down
/// as [`shutdown`](Self::shutdown) does, without anyone waiting for it; endpoints do not count.
#[must_use = "an env shuts down when its last clone is dropped"]
#[derive(Clone)]
pub struct RpcEnv(Arc<Handle>);

/// What users hold; endpoints hold the shared part only.
struct Handle {
    shared: Arc<EnvShared>,
}

pub(crate) struct EnvShared {
    pub(crate) core: Arc<EnvCore>,
    pub(crate) dispatcher: Arc<Dispatcher>,
    handle: Mutex<Weak<Handle>>,
}

impl RpcEnv {
    /// Puts an env together: what a factory does last. `backend` gets the core, which it needs to
    /// read limits and to fire timers, and the dispatcher, to find endpoints for its peers.
    ///
    /// # Errors
    /// Whatever `backend` returns.
    pub fn assemble(
        parts: EnvParts,
        address: Option<RpcAddress>,
        backend: impl FnOnce(&Arc<EnvCore>, &Arc<Dispatcher>) -> Result<Arc<dyn EnvBackend>, RpcError>,
    ) -> Result<Self, RpcError> {
        let dispatcher = Arc::new(Dispatcher::default());
        if address.is_some() {
            dispatcher.reserve_verifier();
        }
        let core = Arc::new(EnvCore::new(parts.id, parts.config, address));
        let backend = backend(&core, &dispatcher)?;
        let shared = Arc::new(EnvShared { core, dispatcher, handle: Mutex::new(Weak::new()) });
        let owner: Arc<dyn Owner> = shared.clone();
        shared.core.install(backend, Arc::downgrade(&owner));
        let handle = Arc::new(Handle { shared: shared.clone() });
        *shared.handle.lock().unwrap_or_else(PoisonError::into_inner) = Arc::downgrade(&handle);
        Ok(Self(handle))
    }

    pub(crate) fn shared(&self) -> &Arc<EnvShared> {
        &self.0.shared
    }

    /// The env's name, from its configuration.
    #[must_use]
    pub fn name(&self) -> &str {
        self.0.shared.core.config().name()
    }

    /// Where the env listens, as others reach it: the advertised host and the real port. `None`
    /// for an env that does not listen (S4).
    #[must_use]
    pub fn address(&self) -> Option<&RpcAddress> {
        self.0.shared.core.address()
    }

    /// The env's number, new at each start.
    #[must_use]
    pub fn id(&self) -> EnvId {
        self.0.shared.core.id()
    }

    /// The configuration it was made with.
    #[must_use]
    pub fn config(&self) -> &RpcEnvConfig {
        self.0.shared.core.config()
    }

    /// Errors that reached the env because no endpoint handled them.
    #[must_use]
    pub fn unhandled_errors(&self) -> u64 {
        self.0.shared.core.tally().get(Count::ErrorsUnhandled)
    }

    /// The endpoints of this env, in the order of their names: what waits for each, and what it is at. It takes the
    /// lock of each endpoint once.
    #[must_use]
    pub fn endpoints(&self) -> Vec<EndpointStatus> {
        let endpoints = self.0.shared.dispatcher.endpoints();
        endpoints.iter().map(|inbox| EndpointStatus::of(inbox)).collect()
    }

    /// What the env has counted since it was made: messages, connections, and whatever went wrong,
    /// a number for each cause. To be looked at by a person or a metrics exporter, now and then: it
    /// takes the lock of each endpoint and each connection once.
    #[must_use]
    pub fn counters(&self) -> Counters {
        let EnvShared { core, dispatcher, .. } = &*self.0.shared;
        for inbox in dispatcher.endpoints() {
            inbox.settle_counts();
        }
        if let Some(backend) = core.backend() {
            backend.settle_counts();
        }
        Counters::read(core.tally())
    }

    /// A ref to the endpoint at a URI, `rpc://name@host:port`, once its env has said that it is
    /// there. The ref is by name. An endpoint of this env is found without the network.
    ///
    /// # Errors
    /// `InvalidAddress`, `EndpointNotFound` with the URI, `Timeout` after `rpc.lookupTimeout`, or
    /// why the env cannot be reached.
    ///
    /// # Cancel safety
    /// It may be dropped at any time.
    pub async fn endpoint_ref<P>(&self, uri: &str) -> Result<RpcEndpointRef<P>, RpcError> {
        let address: EndpointAddress = uri.parse()?;
        let raw = self.0.shared.raw_ref(address, None, None)?;
        if self.0.shared.is_here(raw.address().location()) {
            if self.0.shared.dispatcher.lookup(raw.address().name().as_str()).is_none() {
                return Err(not_found(raw.address()));
            }
        } else {
            raw.resolve(self.config().lookup_timeout()).await?;
        }
        Ok(RpcEndpointRef::from_raw(raw))
    }

    /// As [`endpoint_ref`](Self::endpoint_ref), from an address and a name.
    ///
    /// # Errors
    /// As [`endpoint_ref`](Self::endpoint_ref).
    pub async fn endpoint_ref_at<P>(
        &self,
        address: &RpcAddress,
        name: &str,
    ) -> Result<RpcEndpointRef<P>, RpcError> {
        self.endpoint_ref(&format!("rpc://{name}@{}", address.host_port())).await
    }

    /// A ref by name to an endpoint that nobody has looked for: it need not be there yet. Messages connect
    /// and look it up, and fail as they do when an endpoint has ended; the next one tries again. A worker that
    /// may start before its master needs no loop around [`endpoint_ref`](Self::endpoint_ref).
    ///
    /// # Errors
    /// `EnvStopped`, `SecurityRequired` for an address that is not of this machine, or `Unreachable` for an
    /// env that does not listen and is not connected.
    pub fn unresolved_ref<P>(
        &self,
        address: EndpointAddress,
    ) -> Result<RpcEndpointRef<P>, RpcError> {
        Ok(RpcEndpointRef::from_raw(self.0.shared.raw_ref(address, None, None)?))
    }

    /// A pinned ref to the endpoint of this env with that name, if there is one. Its type is not
    /// checked here, but by the endpoint.
    #[must_use]
    pub fn local_ref<P>(&self, name: &str) -> Option<RpcEndpointRef<P>> {
        let inbox = self.0.shared.dispatcher.lookup(name)?;
        Some(RpcEndpointRef::from_raw(RawRef::local(inbox)))
    }

    /// Stops an endpoint of this env: it takes no more messages, what is queued is handled until
    /// `rpc.shutdown.drainTimeout`, then `on_stop` runs and the name is free. Stopping twice, or
    /// an endpoint that is gone, does nothing.
    ///
    /// # Errors
    /// `WrongRef` if the endpoint is in another env.
    pub fn stop<P>(&self, endpoint: &RpcEndpointRef<P>) -> Result<(), RpcError> {
        if let Some(inbox) = self.own(endpoint)? {
            self.0.shared.stop(&inbox);
        }
        Ok(())
    }

    /// Waits until an endpoint of this env is gone: its `on_stop` has run.
    ///
    /// # Errors
    /// `WrongRef` if the endpoint is in another env.
    ///
    /// # Cancel safety
    /// It may be dropped at any time.
    pub async fn stopped<P>(&self, endpoint: &RpcEndpointRef<P>) -> Result<(), RpcError> {
        if let Some(inbox) = self.own(endpoint)? {
            let core = &self.0.shared.core;
            let mut place = Place::new(|place| inbox.waits_no_more(place));
            std::future::poll_fn(|cx| {
                drive(core, cx);
                inbox.poll_closed(&mut place.kept, cx)
            })
            .await;
        }
        Ok(())
    }

    fn own<P>(&self, endpoint: &RpcEndpointRef<P>) -> Result<Option<Arc<Inbox>>, RpcError> {
        let address = endpoint.endpoint_address();
        if !self.0.shared.is_here(address.location()) {
            return Err(RpcError::new(
                ErrorKind::WrongRef,
                format!("{address} is not an endpoint of the RpcEnv {}", self.name()),
            ));
        }
        Ok(endpoint.raw().local_inbox())
    }

    /// Shuts the env down: nothing is taken any more, every endpoint is stopped as by
    /// [`stop`](Self::stop), every open ask ends, connections close. Ready when nothing is left.
    /// Inside a handler of the env it only begins, because that handler would wait for itself.
    ///
    /// # Cancel safety
    /// Once polled the env shuts down, whoever waits.
    pub async fn shutdown(&self) {
        self.0.shared.shutdown();
        let core = &self.0.shared.core;
        if !turn::is_inside(|inbox| Arc::ptr_eq(inbox.core(), core)) {
            self.await_termination().await;
        }
    }

    /// Waits until the env has been shut down by someone.
    ///
    /// # Cancel safety
    /// It may be dropped at any time.
    pub async fn await_termination(&self) {
        let core = &self.0.shared.core;
        let mut place = Place::new(|place| core.waits_no_more(place));
        std::future::poll_fn(|cx| {
            drive(core, cx);
            core.poll_terminated(&mut place.kept, cx)
        })
        .await;
    }

    /// Now, on the env's clock, which is virtual in a [`LocalWorld`](crate::LocalWorld) and in a simulation.
    #[must_use]
    pub fn now(&self) -> Timestamp {
        self.0.shared.core.now()
    }

    /// Waits on the env's clock, which is virtual in a [`LocalWorld`](crate::LocalWorld). It ends
    /// early when the env does.
    ///
    /// # Cancel safety
    /// It may be dropped at any time.
    pub fn sleep(&self, delay: Duration) -> impl Future<Output = ()> + Send + use<> {
        later::sleep(&self.0.shared.core, delay)
    }

    /// Begins a trace, for what has none from outside: a new trace id and the id of its first span.
    /// `sampled` tells those who record traces to record it. Messages become part of it in its
    /// [scope](TraceContext::scope).
    ///
    /// The trace id is made from the env's number, which is random where the backend's are, and
    /// from a counter: it is never the same twice.
    #[must_use]
    pub fn new_trace(&self, sampled: bool) -> TraceContext {
        self.0.shared.core.new_trace(sampled)
    }

    /// Encodes a value that holds refs, as a message would be.
    ///
    /// # Errors
    /// `Encode`, `TooLarge`.
    pub fn encode<T: Serialize>(&self, value: &T) -> Result<Vec<u8>, RpcError> {
        let core = &self.0.shared.core;
        let max = core.config().limits().message_max_size();
        scope::within(core, || payload::to_vec(value, Encoding::Named, max))
    }

    /// Decodes a value that holds refs; they become refs of this env.
    ///
    /// # Errors
    /// `Decode`.
    pub fn decode<T: DeserializeOwned>(&self, bytes: &[u8]) -> Result<T, RpcError> {
        let core = &self.0.shared.core;
        scope::within(core, || payload::decode(bytes, core.prescan()))
    }
}

/// Lets a backend without threads run endpoints while someone waits.
pub(crate) fn drive(core: &EnvCore, cx: &mut std::task::Context<'_>) {
    if let Some(backend) = core.backend() {
        backend.drive(cx);
    }
}

fn not_found(address: &EndpointAddress) -> RpcError {
    RpcError::new(ErrorKind::EndpointNotFound, format!("Cannot find endpoint: {address}"))
}

impl EnvShared {
    /// The env for a user, if any user still has it.
    pub(crate) fn env(&self) -> Option<RpcEnv> {
        self.handle.lock().unwrap_or_else(PoisonError::into_inner).upgrade().map(RpcEnv)
    }

    pub(crate) fn is_here(&self, location: &EndpointLocation) -> bool {
        self.core.location() == location
    }

    pub(crate) fn stop(&self, inbox: &Arc<Inbox>) {
        inbox.stop();
    }

    fn shutdown(&self) {
        if self.dispatcher.close() {
            for inbox in self.dispatcher.endpoints() {
                self.stop(&inbox);
            }
            self.endpoint_gone();
        }
    }

    /// Closes the backend once the last endpoint of a stopped env is gone.
    pub(crate) fn endpoint_gone(&self) {
        if self.dispatcher.is_finished()
            && let Some(backend) = self.core.backend()
        {
            backend.close();
        }
    }
}

impl EnvShared {
    /// The ref to an address, from here.
    fn raw_ref(
        &self,
        address: EndpointAddress,
        pin: Option<Incarnation>,
        relay: Option<RpcAddress>,
    ) -> Result<RawRef, RpcError> {
        if !self.is_here(address.location()) {
            let backend = self
                .core
                .backend()
                .ok_or_else(|| RpcError::new(ErrorKind::Internal, "the env has no backend yet"))?;
            let target = backend.remote_through(&address, pin, relay.as_ref())?;
            return Ok(RawRef::remote(address, pin, relay, &self.core, target));
        }
        let Some(pin) = pin else {
            return Ok(RawRef::named(address, &self.core, &self.dispatcher));
        };
        match self.dispatcher.lookup(address.name().as_str()) {
            Some(inbox) if inbox.incarnation() == pin => Ok(RawRef::local(inbox)),
            _ => Ok(RawRef::ended(address, pin, &self.core)),
        }
    }
}

impl Owner for EnvShared {
    fn bind(
        &self,
        address: EndpointAddress,
        pin: Option<Incarnation>,
        relay: Option<RpcAddress>,
    ) -> Result<Opaque, RpcError> {
        let bound = self.raw_ref(address.clone(), pin, relay.clone());
        // A message is not lost for a ref in it that leads nowhere: what is sent to the ref is.
        Ok(bound
            .unwrap_or_else(|error| RawRef::nowhere(address, pin, relay, &self.core, error))
            .into_opaque())
    }

    fn location(&self) -> &EndpointLocation {
        self.core.location()
    }

    fn shut_down(&self) {
        self.shutdown();
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        self.shared.shutdown();
    }
}

impl fmt::Debug for RpcEnv {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RpcEnv")
            .field("name", &self.name())
            .field("address", &self.address())
            .field("backend", &self.0.shared.core.backend().map(|backend| backend.kind()))
            .finish_non_exhaustive()
    }
}

/// Parses an endpoint's name.
pub(crate) fn endpoint_name(name: &str) -> Result<EndpointName, RpcError> {
    name.parse()
}
