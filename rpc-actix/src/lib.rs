//! Spark's RPC layer for Rust, on the actix actor crate.

extern crate self as rpc_actix;

mod backend;
mod dispatch;
mod factory;
mod net;
mod options;
mod rt;

pub use dispatch::host::ActixHost;
pub use factory::ActixRpcEnvFactory;
pub use net::transport;
pub use rpc_core::*;

/// The factories that this crate knows: `actix`, and `local` in a world of its own.
#[must_use]
pub fn registry() -> RpcEnvFactoryRegistry {
    RpcEnvFactoryRegistry::new().with(ActixRpcEnvFactory::new()).with(LocalWorld::new().factory())
}

/// Makes an env with the factory that the configuration names: [`registry`] and
/// [`RpcEnvFactoryRegistry::create`] in one.
///
/// # Errors
/// As [`RpcEnvFactoryRegistry::create`].
///
/// # Cancel safety
/// Dropped in the middle, no env is left behind.
pub async fn create(config: RpcEnvConfig) -> Result<RpcEnv, RpcError> {
    registry().create(config).await
}
