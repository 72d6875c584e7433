//! Threads, arbiters and the actors on them.

pub(crate) mod actor;
pub(crate) mod host;
pub(crate) mod worker;
