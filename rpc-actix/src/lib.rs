//! Spark's RPC layer for Rust, on the actix actor crate.
//!
//! Endpoints with typed messages, called by name, in this process or over TCP, without the caller
//! seeing a difference. This crate re-exports all of [`rpc_core`] and adds what runs it: each
//! endpoint lives in an actix actor, and envs reach each other over TCP.
//!
//! A server and a client, which would be two processes. They share the messages, and here the
//! endpoint's type; with [`protocol!`] a client needs to know its messages only.
//!
//! ```
//! use rpc_actix::{EndpointContext, HandlerResult, RpcEnvConfig, RpcError, RpcMessage, endpoint};
//! use serde::{Deserialize, Serialize};
//!
//! #[derive(Debug, Serialize, Deserialize, RpcMessage)] // one way
//! struct Heartbeat {
//!     worker: u64,
//! }
//!
//! #[derive(Debug, Serialize, Deserialize, RpcMessage)]
//! #[rpc(reply = String)] // an ask
//! struct Report;
//!
//! #[derive(Default)]
//! struct Master {
//!     beats: u64, // one message at a time, so fields need no locks
//! }
//!
//! #[endpoint]
//! impl Master {
//!     #[receive]
//!     async fn heartbeat(&mut self, _msg: Heartbeat) -> HandlerResult<()> {
//!         self.beats += 1;
//!         Ok(())
//!     }
//!
//!     #[receive_and_reply]
//!     async fn report(&mut self, _: Report, cx: &mut EndpointContext<Self>) -> HandlerResult<String> {
//!         Ok(format!("{} beats for {}", self.beats, cx.name()))
//!     }
//! }
//!
//! #[tokio::main(flavor = "current_thread")]
//! async fn main() -> Result<(), RpcError> {
//!     // The server. Port 0 is any free one.
//!     let server = rpc_actix::create(RpcEnvConfig::server("server", "127.0.0.1:0")).await?;
//!     server.setup_endpoint("master", Master::default()).await?;
//!     let address = server.address().expect("it listens");
//!
//!     // The client: all that it needs is the URI.
//!     let client = rpc_actix::create(RpcEnvConfig::client("client")).await?;
//!     let master = client.endpoint_ref::<Master>(&format!("rpc://master@{address}")).await?;
//!     master.send(Heartbeat { worker: 1 })?; // does not wait
//!     master.send(Heartbeat { worker: 2 })?;
//!     assert_eq!(master.ask(Report).await?, "2 beats for master"); // in order
//!
//!     client.shutdown().await;
//!     server.shutdown().await;
//!     Ok(())
//! }
//! ```
//!
//! # Runtimes and threads
//!
//! [`create`] may be called in any tokio runtime and in `#[actix::main]`; refs work everywhere,
//! without a runtime by [`ask_blocking`](RpcEndpointRef::ask_blocking). By default an env has a
//! thread for its System and one for its endpoints and connections: keys `rpc.actix.mode` and
//! `rpc.actix.arbiters`. Several envs may share threads: [`ActixHost`],
//! [`ActixRpcEnvFactory::on`]. An endpoint that blocks gets a thread of its own:
//! [`EndpointOptions::isolated`].
//!
//! # Security
//!
//! There is none yet, so envs listen on and dial loopback addresses only. The feature
//! `dangerous-plaintext` lifts that.
//!
//! # Tests
//!
//! [`LocalWorld`] is a second backend, without threads and sockets, on a clock that is set by hand;
//! see [`rpc_core`].

extern crate self as rpc_actix;

mod backend;
mod dispatch;
mod factory;
mod net;
mod options;
mod planted;
mod rt;
#[cfg(feature = "sim")]
pub mod sim;

pub use dispatch::host::ActixHost;
pub use factory::{ActixRpcEnvFactory, Random};
pub use net::transport;
pub use rpc_core::*;

/// The factories that this crate knows: `actix`, and `local` in a world of its own: envs of two registries
/// never meet in one.
#[must_use]
pub fn registry() -> RpcEnvFactoryRegistry {
    RpcEnvFactoryRegistry::new().with(ActixRpcEnvFactory::new()).with(LocalWorld::new().factory())
}

/// Makes an env with the factory that the configuration names: [`registry`] and
/// [`RpcEnvFactoryRegistry::create`] in one. For `local` envs that are to meet, keep one registry.
///
/// # Errors
/// As [`RpcEnvFactoryRegistry::create`].
///
/// # Cancel safety
/// Dropped in the middle, no env is left behind.
pub async fn create(config: RpcEnvConfig) -> Result<RpcEnv, RpcError> {
    registry().create(config).await
}
