//! Spark's RPC layer for Rust: the API, the protocol, and an in-process backend.
//!
//! An [`RpcEnv`] is a container in which endpoints are registered by name. An endpoint
//! ([`RpcEndpoint`], usually written by [`endpoint`](macro@endpoint)) is state with handlers that
//! run one at a time. An [`RpcEndpointRef`] sends messages to it, here or on another machine.
//!
//! This crate is deterministic: it has no runtime, no socket and no clock. It is given the time
//! and bytes. Programs use `rpc-actix`, which re-exports all of it and adds threads and TCP; tests
//! use [`LocalWorld`], as this tutorial does.
//!
//! # Messages and an endpoint
//!
//! A message is a type. With a `reply` it is asked, without one it is sent. The compiler refuses
//! what does not fit.
//!
//! ```
//! use rpc_core::{HandlerResult, LocalWorld, RpcEnvConfig, RpcEnvFactory, RpcMessage, endpoint};
//! use serde::{Deserialize, Serialize};
//!
//! #[derive(Debug, Serialize, Deserialize, RpcMessage)]
//! struct Heartbeat {
//!     worker: u64,
//! }
//!
//! #[derive(Debug, Serialize, Deserialize, RpcMessage)]
//! #[rpc(reply = u64)]
//! struct CountBeats;
//!
//! #[derive(Default)]
//! struct Master {
//!     beats: u64,
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
//!     async fn count(&mut self, _msg: CountBeats) -> HandlerResult<u64> {
//!         Ok(self.beats)
//!     }
//! }
//!
//! let world = LocalWorld::new();
//! world.block_on(async {
//!     let env = world.factory().create(RpcEnvConfig::server("env", "master:7077")).await?;
//!     let master = env.setup_endpoint("master", Master::default()).await?;
//!     master.send(Heartbeat { worker: 1 })?; // never waits
//!     assert_eq!(master.ask(CountBeats).await?, 1); // in order
//!     Ok::<(), rpc_core::RpcError>(())
//! })?;
//! # Ok::<(), rpc_core::RpcError>(())
//! ```
//!
//! # Two envs
//!
//! Envs of one world reach each other by their addresses. What one sends is encoded and decoded
//! as it would be on a wire. An env that does not listen can be called all the same, by a ref in
//! a message.
//!
//! ```
//! use rpc_core::{
//!     HandlerResult, LocalWorld, RpcEndpointRef, RpcEnvConfig, RpcEnvFactory, RpcMessage, endpoint,
//! };
//! use serde::{Deserialize, Serialize};
//!
//! #[derive(Debug, Serialize, Deserialize, RpcMessage)]
//! #[rpc(reply = String)]
//! struct Register {
//!     worker: RpcEndpointRef<Worker>, // refs travel in messages
//! }
//!
//! #[derive(Debug, Serialize, Deserialize, RpcMessage)]
//! #[rpc(reply = String)]
//! struct WhoAreYou;
//!
//! struct Master;
//!
//! #[endpoint]
//! impl Master {
//!     #[receive_and_reply]
//!     async fn register(&mut self, msg: Register) -> HandlerResult<String> {
//!         let name = msg.worker.ask(WhoAreYou).await?; // the worker is in another env
//!         Ok(format!("welcome, {name}"))
//!     }
//! }
//!
//! struct Worker;
//!
//! #[endpoint]
//! impl Worker {
//!     #[receive_and_reply]
//!     fn who(&mut self, _msg: WhoAreYou) -> HandlerResult<String> {
//!         Ok("worker-1".to_owned())
//!     }
//! }
//!
//! let world = LocalWorld::new();
//! world.block_on(async {
//!     let server = world.factory().create(RpcEnvConfig::server("server", "master:7077")).await?;
//!     server.setup_endpoint("master", Master).await?;
//!
//!     let client = world.factory().create(RpcEnvConfig::client("client")).await?;
//!     let worker = client.setup_endpoint("worker", Worker).await?;
//!     let master = client.endpoint_ref::<Master>("rpc://master@master:7077").await?;
//!     assert_eq!(master.ask(Register { worker }).await?, "welcome, worker-1");
//!     Ok::<(), rpc_core::RpcError>(())
//! })?;
//! # Ok::<(), rpc_core::RpcError>(())
//! ```
//!
//! # When it goes wrong
//!
//! Every ask ends, by its deadline at the latest. An [`RpcError`] says what went wrong
//! ([`kind`](RpcError::kind)) and what is known about the handler ([`outcome`](RpcError::outcome)):
//! only what was [never sent](Outcome::NeverSent) can be sent again without thought. The clock of a
//! world jumps when nothing can run, so a test of a timeout takes no time.
//!
//! ```
//! use rpc_core::{
//!     HandlerResult, LocalWorld, Outcome, RpcCallContext, RpcEnvConfig, RpcEnvFactory, RpcMessage,
//!     endpoint,
//! };
//! use serde::{Deserialize, Serialize};
//! use std::time::Duration;
//!
//! #[derive(Debug, Serialize, Deserialize, RpcMessage)]
//! #[rpc(reply = ())]
//! struct Wait;
//!
//! #[derive(Default)]
//! struct Busy {
//!     waiting: Vec<RpcCallContext<()>>,
//! }
//!
//! #[endpoint]
//! impl Busy {
//!     // Answered later, or in this case never: the call may be kept, or moved to another thread.
//!     #[receive_and_reply]
//!     fn wait(&mut self, _msg: Wait, call: RpcCallContext<()>) -> HandlerResult<()> {
//!         self.waiting.push(call);
//!         Ok(())
//!     }
//! }
//!
//! let world = LocalWorld::new();
//! world.block_on(async {
//!     let env = world.factory().create(RpcEnvConfig::client("env")).await?;
//!     let busy = env.setup_endpoint("busy", Busy::default()).await?;
//!     let error = busy.ask_with_timeout(Wait, Duration::from_secs(60)).await.unwrap_err();
//!     assert!(error.is_timeout());
//!     assert_eq!(error.outcome(), Outcome::Unknown); // its handler has seen it
//!     assert_eq!(world.now(), Duration::from_secs(60));
//!     env.stop(&busy)?;
//!     env.stopped(&busy).await?;
//!     let error = busy.ask(Wait).await.unwrap_err();
//!     assert_eq!(error.outcome(), Outcome::NeverSent);
//!     Ok::<(), rpc_core::RpcError>(())
//! })?;
//! # Ok::<(), rpc_core::RpcError>(())
//! ```
//!
//! # Where to look
//!
//! | for | see |
//! |---|---|
//! | messages | [`RpcMessage`](macro@RpcMessage), [`OneWay`], [`Ask`], [`protocol!`] |
//! | endpoints | [`endpoint`](macro@endpoint), [`RpcEndpoint`], [`EndpointContext`], [`EndpointOptions`] |
//! | calling | [`RpcEndpointRef`], [`AskFuture`], [`RpcCallContext`], [`RpcError`], [`TraceContext`] |
//! | envs | [`RpcEnv`], [`RpcEnvConfig`], [`Limits`], [`RpcEnvFactoryRegistry`] |
//! | writing a backend | [`spi`], [`proto`], [`wire`] |

extern crate self as rpc_core;

mod address;
mod alarm;
mod ask;
mod beat;
mod behind;
mod block;
mod call_alarm;
mod call_context;
mod cell;
mod config;
mod config_source;
mod context;
mod core;
mod counters;
mod credit;
mod current;
mod deadline;
mod deadlines;
mod delivery;
mod dispatcher;
mod endpoint;
mod endpoint_ref;
mod env;
mod error;
mod factory;
#[cfg(any(test, fuzzing))]
#[doc(hidden)]
#[cfg_attr(fuzzing, allow(dead_code, reason = "tests use more of it"))]
pub mod fuzz;
mod gate;
mod guard;
mod handlers;
mod handoff;
mod inbox;
mod later;
mod limits;
mod local;
mod local_call;
mod memory;
mod message;
mod open_call;
mod own_keys;
#[cfg(not(plant))]
mod plant;
#[cfg(plant)]
#[doc(hidden)]
pub mod plant;
mod policy;
pub mod proto;
mod quiet;
mod raw;
mod raw_ref;
mod remote_failure;
mod reply_sink;
mod room;
mod row;
mod running;
mod scope;
mod seam;
mod setup;
mod share;
mod spark_keys;
pub mod spi;
mod status;
mod stopping;
mod taking;
mod terminated;
mod termination;
mod ticket;
mod timers;
mod trace;
mod turn;
mod turn_end;
mod turns;
mod unknown_key;
mod wakers;
mod watch;
mod watches;
mod window;
pub mod wire;
mod yielding;

pub use address::{EndpointAddress, EndpointLocation, EndpointName, EnvId, RpcAddress};
pub use ask::AskFuture;
pub use call_context::RpcCallContext;
pub use config::RpcEnvConfig;
pub use context::EndpointContext;
pub use counters::Counters;
pub use deadline::{RpcTimeout, Timestamp};
pub use endpoint::RpcEndpoint;
pub use endpoint_ref::RpcEndpointRef;
pub use env::RpcEnv;
pub use error::{ErrorKind, Outcome, RpcError};
pub use factory::{RpcEnvFactory, RpcEnvFactoryRegistry};
pub use handlers::{
    HandlerSet, Receive, ReceiveAndReply, ReceiveAndReplyLater, Receives, Replies, RepliesLater,
};
pub use later::ScheduledSend;
pub use limits::{ConfigKey, Limits, Unit};
pub use local::{LocalRpcEnvFactory, LocalWorld};
pub use memory::MemoryBound;
pub use message::{
    Accepts, Ask, CoveredBy, Encoding, Lane, OneWay, RpcMessage, RpcProtocol, SentTo, Untyped,
};
pub use policy::{PanicPolicy, RestartLimit};
pub use raw::{HandlerError, HandlerResult, RawMessage, RawReply};
pub use remote_failure::RemoteFailure;
pub use rpc_core_derive::{RpcMessage, endpoint, protocol};
pub use seam::Incarnation;
pub use setup::EndpointOptions;
pub use spark_keys::SparkKey;
pub use status::EndpointStatus;
pub use terminated::{Terminated, WatchId};
pub use termination::Termination;
pub use trace::TraceContext;
pub use wire::in_place as bytes_in_place;
pub use wire::wire_type::assert_wire_type;

/// What the macros name and users do not.
#[doc(hidden)]
pub mod __private {
    pub use crate::delivery::HandlerInfo;
}
