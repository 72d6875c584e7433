//! What the suites of the workspace share: see [`harness`], [`raw_peer`] and [`simulation`].

pub mod badpeer;
mod documentation;
pub mod harness;
pub mod raw_peer;
pub mod simulation;
