//! Bytes: frames, MessagePack bodies, and the scan that bounds what decoding may cost.

pub mod frame;
pub(crate) mod payload;
pub mod prescan;
pub mod read;
