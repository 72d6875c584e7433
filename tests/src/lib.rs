//! What the suites of the workspace share: see [`harness`], and [`raw_peer`].

pub mod badpeer;
mod documentation;
pub mod harness;
pub mod raw_peer;
