//! Spark's RPC layer for Rust: the API, the protocol, and an in-process backend.

extern crate self as rpc_core;

mod address;
mod ask;
mod block;
mod call_context;
mod cell;
mod config;
mod config_source;
mod context;
mod core;
mod deadline;
mod delivery;
mod dispatcher;
mod endpoint;
mod endpoint_ref;
mod env;
mod error;
mod factory;
mod gate;
mod handlers;
mod inbox;
mod limits;
mod local;
mod local_call;
mod message;
pub mod proto;
mod raw;
mod raw_ref;
mod reply_sink;
mod scope;
mod seam;
mod setup;
pub mod spi;
mod ticket;
mod timers;
mod turn;
mod wakers;
pub mod wire;

pub use address::{EndpointAddress, EndpointLocation, EndpointName, EnvId, RpcAddress};
pub use ask::AskFuture;
pub use call_context::RpcCallContext;
pub use config::RpcEnvConfig;
pub use context::EndpointContext;
pub use deadline::{RpcTimeout, Timestamp};
pub use endpoint::RpcEndpoint;
pub use endpoint_ref::RpcEndpointRef;
pub use env::RpcEnv;
pub use error::{ErrorKind, Outcome, RemoteFailure, RpcError};
pub use factory::{RpcEnvFactory, RpcEnvFactoryRegistry};
pub use handlers::{
    HandlerSet, Receive, ReceiveAndReply, ReceiveAndReplyLater, Receives, Replies, RepliesLater,
};
pub use limits::{ConfigKey, Limits, Unit};
pub use local::{LocalRpcEnvFactory, LocalWorld};
pub use message::{
    Accepts, Ask, CoveredBy, Encoding, Lane, OneWay, RpcMessage, RpcProtocol, SentTo, Untyped,
};
pub use raw::{HandlerError, HandlerResult, RawMessage, RawReply};
pub use rpc_core_derive::{RpcMessage, endpoint, protocol};
pub use setup::EndpointOptions;

/// What the macros name and users do not.
#[doc(hidden)]
pub mod __private {
    pub use crate::delivery::{HandlerInfo, Tells, Work};
}
