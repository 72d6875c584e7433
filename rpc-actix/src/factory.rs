//! Making envs on actix.

use crate::backend::ActixBackend;
use crate::dispatch::host::ActixHost;
use crate::net::node::{Node, NodeParts, require_loopback};
use crate::net::tcp::Tcp;
use crate::net::transport::{Listener, Transport};
use crate::options::{Mode, NAME, Options};
use crate::rt::{self, Clock};
use rpc_core::spi::{BoxFuture, EnvBackend, EnvParts};
use rpc_core::{ErrorKind, RpcEnv, RpcEnvConfig, RpcEnvFactory, RpcError};
use std::fmt;
use std::io;
use std::sync::{Arc, Weak};

/// Makes envs whose endpoints live in actix actors and whose peers are reached over TCP.
#[derive(Clone)]
pub struct ActixRpcEnvFactory {
    host: Option<ActixHost>,
    transport: Arc<dyn Transport>,
    random: Arc<dyn Random>,
}

impl ActixRpcEnvFactory {
    /// Envs with threads of their own, or on the caller's thread, as `rpc.actix.mode` says.
    #[must_use]
    pub fn new() -> Self {
        Self { host: None, transport: Arc::new(Tcp), random: Arc::new(System) }
    }

    /// Envs that share the threads of `host`.
    #[must_use]
    pub fn on(host: &ActixHost) -> Self {
        Self { host: Some(host.clone()), ..Self::new() }
    }

    /// The same over another transport than TCP: a simulated network, say.
    #[must_use]
    pub fn with_transport(mut self, transport: impl Transport + 'static) -> Self {
        self.transport = Arc::new(transport);
        self
    }

    /// The same with other random numbers than the system's. All that is random about an env follows
    /// from its own number, which is drawn when the env is made: so a source that repeats itself
    /// makes an env that does. No two envs that meet may have the same number.
    #[must_use]
    pub fn with_random(mut self, random: impl Random + 'static) -> Self {
        self.random = Arc::new(random);
        self
    }
}

/// Where the numbers of envs come from.
pub trait Random: Send + Sync {
    /// A number that nobody can guess, or that a test has chosen.
    ///
    /// # Errors
    /// As the system gives them.
    fn number(&self) -> io::Result<u64>;
}

/// The system's random numbers.
struct System;

impl Random for System {
    fn number(&self) -> io::Result<u64> {
        getrandom::u64().map_err(io::Error::other)
    }
}

impl Default for ActixRpcEnvFactory {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for ActixRpcEnvFactory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ActixRpcEnvFactory").field("host", &self.host).finish_non_exhaustive()
    }
}

impl RpcEnvFactory for ActixRpcEnvFactory {
    fn name(&self) -> &'static str {
        NAME
    }

    fn create(&self, config: RpcEnvConfig) -> BoxFuture<Result<RpcEnv, RpcError>> {
        let factory = self.clone();
        // The thread matters in inline mode, so that is decided before the first await.
        let host = factory.host.clone().map_or_else(|| inline_host(&config), |host| Ok(Some(host)));
        Box::pin(async move {
            let (env, _) = create(factory, host?, config, Clock::start()).await?;
            Ok(env)
        })
    }
}

/// The current thread as a host, if the configuration says so.
fn inline_host(config: &RpcEnvConfig) -> Result<Option<ActixHost>, RpcError> {
    match Options::read(config)?.mode {
        Mode::Threads => Ok(None),
        Mode::Inline => ActixHost::inline().map(Some),
    }
}

/// Makes an env; what it is to the network comes with it, for whoever looks inside.
pub(crate) async fn create(
    factory: ActixRpcEnvFactory,
    host: Option<ActixHost>,
    config: RpcEnvConfig,
    clock: Clock,
) -> Result<(RpcEnv, Weak<Node>), RpcError> {
    config.validate()?;
    let options = Options::read(&config)?;
    let listener = bind(&*factory.transport, &config)?;
    let address = listener.as_ref().and_then(|bound| config.advertised_address(bound.port()));
    let host = match host {
        Some(host) => host,
        None => ActixHost::start().await?,
    };
    host.grow(options.arbiters).await?;
    let id = factory.random.number().map_err(|error| {
        RpcError::new(ErrorKind::Internal, format!("no random number for the env: {error}"))
    })?;
    let parts = EnvParts::new(config.clone(), id);
    let mut inside = Weak::new();
    let env = RpcEnv::assemble(parts, address.clone(), |core, dispatcher| {
        let node = Node::new(NodeParts {
            id,
            config,
            address,
            clock,
            host: host.clone(),
            dispatcher: dispatcher.clone(),
            tally: core.tally().clone(),
            transport: factory.transport,
        });
        inside = Arc::downgrade(&node);
        host.carries(core);
        let backend = ActixBackend::new(core, node.clone());
        backend.keep_time(&node)?;
        let watching = node.clone();
        host.main().run(move || {
            let tasks = watching.tasks().clone();
            rt::spawn(tasks.track_future(watching.clone().watch()));
            rt::spawn(tasks.track_future(watching.watch_threads()));
        })?;
        if let Some(listener) = listener {
            let accepting = node.clone();
            host.main().run(move || {
                let tasks = accepting.tasks().clone();
                rt::spawn(tasks.track_future(accepting.accept(listener)));
            })?;
        }
        Ok(Arc::new(backend) as Arc<dyn EnvBackend>)
    })?;
    let bound = env.config().limits().memory_bound();
    tracing::info!(env = env.name(), bytes = bound.total(0, 0), "memory bound: {bound}");
    if cfg!(feature = "dangerous-plaintext") {
        let text = "built with `dangerous-plaintext`: whoever reaches this env can read, send and pose as another";
        tracing::warn!(env = env.name(), "{text}");
    }
    if let Some(address) = env.address() {
        tracing::info!(env = env.name(), %address, "listening");
    }
    Ok((env, inside))
}

/// Binds the configured port, or one of those after it if `port.maxRetries` allows that.
fn bind(
    transport: &dyn Transport,
    config: &RpcEnvConfig,
) -> Result<Option<Box<dyn Listener>>, RpcError> {
    let Some(wanted) = config.bind_address() else { return Ok(None) };
    require_loopback(wanted, "listen on")?;
    let known_as = config.advertised_address(wanted.port());
    if let Some(nowhere) = known_as.filter(|at| ["0.0.0.0", "::"].contains(&at.host())) {
        let text = format!(
            "the RpcEnv {} would be known as {nowhere}, by which nobody reaches it: say what its address is (rpc.advertise)",
            config.name()
        );
        return Err(RpcError::new(ErrorKind::InvalidConfig, text));
    }
    let mut last = io::Error::from(io::ErrorKind::AddrInUse);
    for port in config.candidate_ports() {
        match transport.bind(&wanted.with_port(port)) {
            Ok(listener) => return Ok(Some(listener)),
            Err(error) => {
                let retry = error.kind() == io::ErrorKind::AddrInUse;
                last = error;
                if !retry {
                    break;
                }
            }
        }
    }
    Err(config.bind_error(wanted, &last).with_source(last))
}
