//! Choosing the implementation of an env by configuration.

use crate::config::RpcEnvConfig;
use crate::env::RpcEnv;
use crate::error::{ErrorKind, RpcError};
use crate::seam::BoxFuture;
use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

/// Makes envs of one kind.
pub trait RpcEnvFactory: Send + Sync {
    /// The name that the key `rpc.env` picks it by.
    fn name(&self) -> &str;

    /// Makes an env. Nothing is left behind if it fails.
    fn create(&self, config: RpcEnvConfig) -> BoxFuture<Result<RpcEnv, RpcError>>;
}

/// The factories that a program knows: a value, nothing global.
#[derive(Clone, Default)]
pub struct RpcEnvFactoryRegistry {
    factories: BTreeMap<String, Arc<dyn RpcEnvFactory>>,
}

impl RpcEnvFactoryRegistry {
    /// A registry without factories.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a factory under its name, in place of one with the same name.
    #[must_use]
    pub fn with(mut self, factory: impl RpcEnvFactory + 'static) -> Self {
        self.factories.insert(factory.name().to_owned(), Arc::new(factory));
        self
    }

    /// Makes an env with the factory that the configuration names (`rpc.env`).
    ///
    /// # Errors
    /// `UnknownFactory`, listing the known ones; `InvalidConfig`; what the factory returns.
    ///
    /// # Cancel safety
    /// Dropped in the middle, no env is left behind.
    pub async fn create(&self, config: RpcEnvConfig) -> Result<RpcEnv, RpcError> {
        config.validate()?;
        let Some(factory) = self.factories.get(config.factory()) else {
            let known: Vec<&str> = self.factories.keys().map(String::as_str).collect();
            let known = if known.is_empty() { "none".to_owned() } else { known.join(", ") };
            return Err(RpcError::new(
                ErrorKind::UnknownFactory,
                format!(
                    "there is no RpcEnvFactory called {:?} (key rpc.env); known: {known}",
                    config.factory()
                ),
            ));
        };
        factory.create(config).await
    }

    /// The names of the factories.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.factories.keys().map(String::as_str)
    }
}

impl fmt::Debug for RpcEnvFactoryRegistry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RpcEnvFactoryRegistry").field("factories", &self.factories.keys()).finish()
    }
}
