//! Bytes: frames, MessagePack bodies, and the scan that bounds what decoding may cost.

pub(crate) mod encoded;
pub mod frame;
pub mod in_place;
pub(crate) mod payload;
pub mod prescan;
pub mod read;
pub(crate) mod rope;
pub mod spare;
pub(crate) mod wire_type;
