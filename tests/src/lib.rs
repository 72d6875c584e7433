//! What the suites of the workspace share: see [`harness`].

mod documentation;
pub mod harness;
