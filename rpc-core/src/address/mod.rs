//! Names and addresses: parsed once, valid for ever, cheap to clone.
//!
//! An env that listens has an [`RpcAddress`], every env has an [`EnvId`], an endpoint has an [`EndpointName`], and
//! an [`EndpointAddress`] says which endpoint of which env. All of them are read from text with `parse()` and
//! written by `Display`; what was written is read back as the same value. Every error is of the kind
//! [`ErrorKind::InvalidAddress`](crate::ErrorKind::InvalidAddress), quotes the text and says what is wrong and which form is expected.

mod endpoint;
mod env_id;
mod name;
mod rpc;
mod text;

pub use endpoint::{EndpointAddress, EndpointLocation};
pub use env_id::EnvId;
pub use name::EndpointName;
pub use rpc::RpcAddress;
