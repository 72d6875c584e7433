//! The bridge: connections, and what keeps each in step with the endpoints.

pub(crate) mod admission;
pub(crate) mod backoff;
mod beside;
pub(crate) mod binding;
pub(crate) mod bindings;
mod buffer;
mod busy;
mod calls;
pub(crate) mod complaints;
pub(crate) mod delivering;
mod dialing;
pub(crate) mod driver;
pub(crate) mod handshake;
pub(crate) mod link;
pub(crate) mod listening;
pub(crate) mod node;
pub(crate) mod peers;
pub(crate) mod pen;
pub(crate) mod relay;
pub(crate) mod resolving;
mod taken;
pub(crate) mod target;
pub(crate) mod tcp;
mod telling;
pub mod transport;
mod writing;
