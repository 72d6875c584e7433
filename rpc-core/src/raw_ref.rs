//! The inside of a ref: where it leads, whatever the type of its endpoint.

use crate::address::{EndpointAddress, RpcAddress};
use crate::core::{EnvCore, Opaque};
use crate::dispatcher::{Dispatcher, env_stopped};
use crate::error::{ErrorKind, Outcome, RpcError};
use crate::inbox::Inbox;
use crate::seam::{Incarnation, RemoteTarget};
use std::borrow::Cow;
use std::sync::{Arc, Weak};

#[derive(Clone)]
pub(crate) struct RawRef(Arc<RefInner>);

struct RefInner {
    address: EndpointAddress,
    pin: Option<Incarnation>,
    /// Who passes messages on to the env of the address, as the ref came.
    relay: Option<RpcAddress>,
    core: Weak<EnvCore>,
    route: Route,
}

enum Route {
    /// An endpoint of this env, for as long as it lives.
    Local(Arc<Inbox>),
    /// Whatever endpoint of this env has the name.
    Named(Weak<Dispatcher>),
    /// An endpoint of another env.
    Remote(Arc<dyn RemoteTarget>),
    /// An endpoint of another env that cannot be reached from here, and why.
    Nowhere(RpcError),
    /// An endpoint of this env whose life is over.
    Ended,
}

impl RawRef {
    pub(crate) fn local(inbox: Arc<Inbox>) -> Self {
        Self(Arc::new(RefInner {
            address: inbox.address().clone(),
            pin: Some(inbox.incarnation()),
            relay: None,
            core: Arc::downgrade(inbox.core()),
            route: Route::Local(inbox),
        }))
    }

    pub(crate) fn named(
        address: EndpointAddress,
        core: &Arc<EnvCore>,
        dispatcher: &Arc<Dispatcher>,
    ) -> Self {
        let route = Route::Named(Arc::downgrade(dispatcher));
        let core = Arc::downgrade(core);
        Self(Arc::new(RefInner { address, pin: None, relay: None, core, route }))
    }

    pub(crate) fn remote(
        address: EndpointAddress,
        pin: Option<Incarnation>,
        relay: Option<RpcAddress>,
        core: &Arc<EnvCore>,
        target: Arc<dyn RemoteTarget>,
    ) -> Self {
        let route = Route::Remote(target);
        Self(Arc::new(RefInner { address, pin, relay, core: Arc::downgrade(core), route }))
    }

    /// A ref that leads nowhere from here: it may be passed on, and what is sent to it fails.
    pub(crate) fn nowhere(
        address: EndpointAddress,
        pin: Option<Incarnation>,
        relay: Option<RpcAddress>,
        core: &Arc<EnvCore>,
        error: RpcError,
    ) -> Self {
        let route = Route::Nowhere(error.with_outcome(Outcome::NeverSent));
        Self(Arc::new(RefInner { address, pin, relay, core: Arc::downgrade(core), route }))
    }

    pub(crate) fn ended(address: EndpointAddress, pin: Incarnation, core: &Arc<EnvCore>) -> Self {
        let core = Arc::downgrade(core);
        let (pin, route) = (Some(pin), Route::Ended);
        Self(Arc::new(RefInner { address, pin, relay: None, core, route }))
    }

    pub(crate) fn address(&self) -> &EndpointAddress {
        &self.0.address
    }

    /// Who answers, for messages to people.
    pub(crate) fn peer(&self) -> String {
        match &self.0.route {
            Route::Remote(target) => target.peer(),
            _ => self.0.address.to_string(),
        }
    }

    /// The endpoint's inbox, if it is in this env.
    pub(crate) fn local_inbox(&self) -> Option<Arc<Inbox>> {
        self.find().ok().flatten().map(Cow::into_owned)
    }

    pub(crate) fn core(&self) -> Result<Arc<EnvCore>, RpcError> {
        self.0.core.upgrade().ok_or_else(env_stopped)
    }

    /// The endpoint's inbox; `None` if it is in another env.
    #[inline]
    pub(crate) fn find(&self) -> Result<Option<Cow<'_, Arc<Inbox>>>, RpcError> {
        match &self.0.route {
            Route::Local(inbox) => Ok(Some(Cow::Borrowed(inbox))),
            _ => self.look_up(),
        }
    }

    fn look_up(&self) -> Result<Option<Cow<'_, Arc<Inbox>>>, RpcError> {
        match &self.0.route {
            Route::Local(inbox) => Ok(Some(Cow::Borrowed(inbox))),
            Route::Remote(_) => Ok(None),
            Route::Nowhere(error) => Err(error.clone()),
            Route::Ended => Err(RpcError::new(
                ErrorKind::EndpointStopped,
                format!("the endpoint {} that this ref is pinned to is gone", self.0.address),
            )),
            Route::Named(dispatcher) => {
                let dispatcher = dispatcher.upgrade().ok_or_else(env_stopped)?;
                if let Some(inbox) = dispatcher.lookup(self.0.address.name().as_str()) {
                    return Ok(Some(Cow::Owned(inbox)));
                }
                if dispatcher.is_closed() {
                    return Err(env_stopped());
                }
                Err(RpcError::new(
                    ErrorKind::EndpointNotFound,
                    format!("Could not find {}.", self.0.address.name()),
                ))
            }
        }
    }

    /// The life of the endpoint that the ref is pinned to.
    pub(crate) fn pin(&self) -> Option<Incarnation> {
        self.0.pin
    }

    /// Who passes messages on to the endpoint's env, as the ref came.
    pub(crate) fn relay(&self) -> Option<&RpcAddress> {
        self.0.relay.as_ref()
    }

    /// The way out, if the endpoint is in another env.
    pub(crate) fn remote_target(&self) -> Option<&Arc<dyn RemoteTarget>> {
        match &self.0.route {
            Route::Remote(target) => Some(target),
            _ => None,
        }
    }

    pub(crate) fn into_opaque(self) -> Opaque {
        self.0
    }

    /// What [`into_opaque`](Self::into_opaque) gave away.
    pub(crate) fn from_opaque(inside: Opaque) -> Result<Self, RpcError> {
        let lost = |_| RpcError::new(ErrorKind::Internal, "a bound address is no ref");
        inside.downcast().map(Self).map_err(lost)
    }
}
