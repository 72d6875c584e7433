//! Registering endpoints.

use crate::address::EndpointName;
use crate::behind::Policy;
use crate::cell::Started;
use crate::cell::{Ended, EndpointCell};
use crate::endpoint::RpcEndpoint;
use crate::endpoint_ref::RpcEndpointRef;
use crate::env::{RpcEnv, drive, endpoint_name};
use crate::error::{ErrorKind, RpcError};
use crate::gate::Gate;
use crate::handlers::HandlerSet;
use crate::inbox::Inbox;
use crate::policy::{PanicPolicy, RestartLimit};
use crate::raw_ref::RawRef;
use crate::seam::{EndpointTask, LocalBoxFuture};
use std::sync::Arc;

/// How an endpoint is registered.
#[derive(Clone, Debug)]
pub struct EndpointOptions {
    name: String,
    isolated: bool,
    system: bool,
    policy: Policy,
}

impl EndpointOptions {
    /// An endpoint with that name, on one of the env's arbiters.
    #[must_use]
    pub fn new(name: impl Into<String>) -> Self {
        Self { name: name.into(), isolated: false, system: false, policy: Policy::default() }
    }

    /// Gives the endpoint an arbiter, and so a thread, of its own: it may block without delaying
    /// others, and costs them a wakeup of another thread per message.
    #[must_use]
    pub fn isolated(mut self) -> Self {
        self.isolated = true;
        self
    }

    /// Keeps room for messages to the endpoint: for the few that the cluster lives by, such as
    /// heartbeats and registrations. Senders keep the last eighth of their queue to this env, and
    /// of the calls in flight, for its endpoints of this kind, and each of them may have 64 messages
    /// in its inbox, however many they are. So bulk traffic to other endpoints cannot crowd it out.
    ///
    /// Worth it for one or two endpoints with small and rare messages. Where everything is of the
    /// system, nothing is.
    #[must_use]
    pub fn system(mut self) -> Self {
        self.system = true;
        self
    }

    /// What becomes of the endpoint when its code panics; by default it goes on.
    #[must_use]
    pub fn on_panic(mut self, policy: PanicPolicy) -> Self {
        self.policy.on_panic = policy;
        self
    }

    /// How often it is started anew, where that is the policy, and how fast.
    #[must_use]
    pub fn restart_limit(mut self, limit: RestartLimit) -> Self {
        self.policy.limit = limit;
        self
    }
}

impl From<&str> for EndpointOptions {
    fn from(name: &str) -> Self {
        Self::new(name)
    }
}

impl From<String> for EndpointOptions {
    fn from(name: String) -> Self {
        Self::new(name)
    }
}

impl From<&String> for EndpointOptions {
    fn from(name: &String) -> Self {
        Self::new(name)
    }
}

impl From<EndpointName> for EndpointOptions {
    fn from(name: EndpointName) -> Self {
        Self::new(name.as_str())
    }
}

impl RpcEnv {
    /// Registers an endpoint and waits until its `on_start` has ended. The ref is pinned to this
    /// life of the endpoint. Messages may be sent to the name before that; they wait.
    ///
    /// # Errors
    /// `NameTaken`, `InvalidAddress` for a bad name, `EnvStopped`, or the error of `on_start`;
    /// the name is then free again.
    ///
    /// # Cancel safety
    /// Dropped in the middle, the endpoint stays registered and starts.
    pub async fn setup_endpoint<E: RpcEndpoint + Send>(
        &self,
        options: impl Into<EndpointOptions>,
        endpoint: E,
    ) -> Result<RpcEndpointRef<E>, RpcError> {
        self.setup_endpoint_with(options, move || endpoint).await
    }

    /// As [`setup_endpoint`](Self::setup_endpoint), for endpoints that are not `Send`: `make`
    /// runs on the thread where the endpoint will live.
    ///
    /// # Errors
    /// As [`setup_endpoint`](Self::setup_endpoint).
    pub async fn setup_endpoint_with<E: RpcEndpoint>(
        &self,
        options: impl Into<EndpointOptions>,
        make: impl FnOnce() -> E + Send + 'static,
    ) -> Result<RpcEndpointRef<E>, RpcError> {
        let options = options.into();
        if options.policy.on_panic == PanicPolicy::Restart {
            let text = format!(
                "{} cannot be set up with PanicPolicy::Restart from one value: use setup_endpoint_again, which makes it as often as needed",
                options.name
            );
            return Err(RpcError::new(ErrorKind::InvalidConfig, text));
        }
        let mut make = Some(make);
        self.set_up(options, move || make.take().map(|make| make())).await
    }

    /// As [`setup_endpoint_with`](Self::setup_endpoint_with), for endpoints that may be started anew
    /// after a panic ([`PanicPolicy::Restart`]): `make` makes the first value, and each further one.
    ///
    /// All values are one life of the endpoint: refs to it stay valid, what is queued waits for the
    /// next value, and nobody is told that it ended. The new value begins with `on_start`
    /// ([`EndpointContext::restarts`](crate::EndpointContext::restarts) tells it which it is); what
    /// the old one had set with `send_after` and `send_every`, and its watches, are gone with it.
    ///
    /// # Errors
    /// As [`setup_endpoint`](Self::setup_endpoint). When the first start fails there is no further one.
    pub async fn setup_endpoint_again<E: RpcEndpoint>(
        &self,
        options: impl Into<EndpointOptions>,
        mut make: impl FnMut() -> E + Send + 'static,
    ) -> Result<RpcEndpointRef<E>, RpcError> {
        self.set_up(options.into(), move || Some(make())).await
    }

    async fn set_up<E: RpcEndpoint>(
        &self,
        options: EndpointOptions,
        make: impl FnMut() -> Option<E> + Send + 'static,
    ) -> Result<RpcEndpointRef<E>, RpcError> {
        let (inbox, started) = self.spawn_endpoint(options, make)?;
        let core = inbox.core().clone();
        std::future::poll_fn(|cx| {
            drive(&core, cx);
            started.poll(cx)
        })
        .await?;
        Ok(RpcEndpointRef::from_raw(RawRef::local(inbox)))
    }

    fn spawn_endpoint<E: RpcEndpoint>(
        &self,
        options: EndpointOptions,
        make: impl FnMut() -> Option<E> + Send + 'static,
    ) -> Result<(Arc<Inbox>, Arc<Started>), RpcError> {
        let shared = self.shared();
        let name = endpoint_name(&options.name)?;
        let mut handlers = Vec::new();
        E::Handlers::describe(&mut handlers);
        let core = shared.core.clone();
        let inbox = shared.dispatcher.register(&name, |endpoint| {
            let (events, system, policy) = (E::NETWORK_EVENTS, options.system, options.policy);
            Arc::new(Inbox::new(name.clone(), endpoint, core, handlers, events, system, policy))
        })?;
        let started = Arc::new(Gate::default());
        let env = Arc::downgrade(shared);
        // If the task is dropped before it starts, the name is freed all the same.
        let end = Ended::new(inbox.clone(), env.clone(), started.clone());
        let cell = EndpointCell { inbox: inbox.clone(), env, make, started: started.clone() };
        let start = move || -> LocalBoxFuture<()> {
            Box::pin(async move {
                cell.run::<E>().await;
                drop(end);
            })
        };
        let task =
            EndpointTask { name: options.name, isolated: options.isolated, start: Box::new(start) };
        let backend = shared.core.backend().ok_or_else(crate::dispatcher::env_stopped)?;
        backend.spawn(task)?;
        Ok((inbox, started))
    }
}
