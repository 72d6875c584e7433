//! Bytes: frames, MessagePack bodies, and the scan that bounds what decoding may cost.
//!
//! For backends, and for whoever looks at the protocol: it may change in any release before 1.0, and what programs use
//! is at the top of the crate.

pub(crate) mod encoded;
pub mod frame;
pub mod in_place;
pub(crate) mod payload;
pub mod prescan;
pub mod read;
pub(crate) mod rope;
pub mod spare;
pub(crate) mod wire_type;
