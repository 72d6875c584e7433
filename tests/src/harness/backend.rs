//! The two factories, and the envs of a test.

use super::block::block_on;
use super::probe::{Probe, ProbeWatch};
use anyhow::Context as _;
use rpc_actix::ActixRpcEnvFactory;
use rpc_core::{LocalWorld, RpcEndpointRef, RpcEnv, RpcEnvConfig, RpcEnvFactoryRegistry, RpcError};
use std::sync::{Mutex, PoisonError, mpsc};
use std::thread;
use std::time::Duration;

/// After this a test is given up: it hangs. No test depends on it to pass.
pub const WATCHDOG: Duration = Duration::from_secs(120);

/// A factory to test.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Backend {
    /// Actors, threads and sockets. The test runs on a thread without a runtime.
    Actix,
    /// One thread, a virtual clock that jumps when nothing can run.
    Local,
}

impl Backend {
    /// What the key `rpc.env` calls it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Actix => "actix",
            Self::Local => "local",
        }
    }

    /// Runs a test; an error, a panic or a hang fails it. Then every env that the test has made
    /// must shut down.
    #[expect(clippy::panic, reason = "this is where tests fail")]
    pub fn run(
        self,
        test: &'static str,
        body: impl AsyncFnOnce(&Harness) -> anyhow::Result<()> + Send + 'static,
    ) {
        let (done, ended) = mpsc::channel();
        let runner = thread::Builder::new().name(test.to_owned()).spawn(move || {
            let harness = Harness::new(self);
            let result = harness.block_on(async {
                body(&harness).await?;
                harness.shut_down().await;
                Ok::<(), anyhow::Error>(())
            });
            // Nobody listens any more when the watchdog has barked.
            let _ = done.send(());
            result
        });
        let runner = runner.unwrap_or_else(|error| panic!("no thread for {test}: {error}"));
        if ended.recv_timeout(WATCHDOG) == Err(mpsc::RecvTimeoutError::Timeout) {
            panic!("{test} hangs on {}", self.name());
        }
        match runner.join() {
            Ok(Ok(())) => {}
            Ok(Err(error)) => panic!("{test} on {}: {error:?}", self.name()),
            Err(panic) => std::panic::resume_unwind(panic),
        }
    }
}

/// What a test makes its envs with.
#[derive(Debug)]
pub struct Harness {
    backend: Backend,
    world: LocalWorld,
    registry: RpcEnvFactoryRegistry,
    envs: Mutex<Vec<RpcEnv>>,
}

impl Harness {
    /// A harness whose local envs share one world, of the current thread.
    #[must_use]
    pub fn new(backend: Backend) -> Self {
        let world = LocalWorld::new();
        let registry =
            RpcEnvFactoryRegistry::new().with(ActixRpcEnvFactory::new()).with(world.factory());
        Self { backend, world, registry, envs: Mutex::default() }
    }

    /// The factory under test.
    #[must_use]
    pub fn backend(&self) -> Backend {
        self.backend
    }

    /// Whether this is the actix backend.
    #[must_use]
    pub fn is_actix(&self) -> bool {
        self.backend == Backend::Actix
    }

    /// The world of the local envs.
    #[must_use]
    pub fn world(&self) -> &LocalWorld {
        &self.world
    }

    /// Both factories.
    #[must_use]
    pub fn registry(&self) -> &RpcEnvFactoryRegistry {
        &self.registry
    }

    /// Runs a future as the backend wants it.
    pub fn block_on<F: Future>(&self, future: F) -> F::Output {
        match self.backend {
            Backend::Actix => block_on(future),
            Backend::Local => self.world.block_on(future),
        }
    }

    /// The configuration of a server on any free port of this machine.
    #[must_use]
    pub fn server_config(&self, name: &str) -> RpcEnvConfig {
        RpcEnvConfig::server(name, "127.0.0.1:0").with_factory(self.backend.name())
    }

    /// The configuration of an env that does not listen.
    #[must_use]
    pub fn client_config(&self, name: &str) -> RpcEnvConfig {
        RpcEnvConfig::client(name).with_factory(self.backend.name())
    }

    /// Makes an env, and remembers to shut it down.
    ///
    /// # Errors
    /// As the factory.
    pub async fn create(&self, config: RpcEnvConfig) -> Result<RpcEnv, RpcError> {
        let env = self.registry.create(config).await?;
        self.envs.lock().unwrap_or_else(PoisonError::into_inner).push(env.clone());
        Ok(env)
    }

    /// A server.
    ///
    /// # Errors
    /// As the factory.
    pub async fn server(&self, name: &str) -> Result<RpcEnv, RpcError> {
        self.create(self.server_config(name)).await
    }

    /// A client.
    ///
    /// # Errors
    /// As the factory.
    pub async fn client(&self, name: &str) -> Result<RpcEnv, RpcError> {
        self.create(self.client_config(name)).await
    }

    /// A server and a client.
    ///
    /// # Errors
    /// As the factory.
    pub async fn pair(&self) -> Result<Pair, RpcError> {
        Ok(Pair { server: self.server("server").await?, client: self.client("client").await? })
    }

    /// Shuts down all envs that were made here.
    pub async fn shut_down(&self) {
        let envs = std::mem::take(&mut *self.envs.lock().unwrap_or_else(PoisonError::into_inner));
        for env in envs.into_iter().rev() {
            env.shutdown().await;
        }
    }
}

/// An env that listens, and one that does not.
#[derive(Clone, Debug)]
pub struct Pair {
    /// The one that listens.
    pub server: RpcEnv,
    /// The one that does not.
    pub client: RpcEnv,
}

impl Pair {
    /// Registers a [`Probe`] at the server.
    ///
    /// # Errors
    /// As [`RpcEnv::setup_endpoint`].
    pub async fn probe(&self, name: &str) -> Result<(ProbeWatch, RpcEndpointRef<Probe>), RpcError> {
        Probe::at(&self.server, name).await
    }

    /// The client's ref, by name, to an endpoint of the server.
    ///
    /// # Errors
    /// As [`RpcEnv::endpoint_ref`].
    pub async fn from_client<P>(
        &self,
        endpoint: &RpcEndpointRef<P>,
    ) -> anyhow::Result<RpcEndpointRef<P>> {
        let uri = endpoint.endpoint_address().to_string();
        self.client.endpoint_ref(&uri).await.with_context(|| format!("looking up {uri}"))
    }

    /// A probe at the server, and the refs to it that either side has.
    ///
    /// # Errors
    /// As [`probe`](Self::probe) and [`from_client`](Self::from_client).
    pub async fn probe_both_ways(
        &self,
        name: &str,
    ) -> anyhow::Result<(ProbeWatch, [RpcEndpointRef<Probe>; 2])> {
        let (watch, local) = self.probe(name).await?;
        let remote = self.from_client(&local).await?;
        Ok((watch, [local, remote]))
    }
}
