//! A small cluster on the RPC layer: a master, workers, executors and drivers, and jobs that run
//! on them.
//!
//! All programs are thin mains over [`run`], and each can start itself in any role, so one binary
//! is a whole cluster.
#![doc = ""]
#![doc = include_str!("../README.md")]

mod cli;
mod driver;
mod executor;
mod ids;
mod input;
mod jobs;
mod master;
mod process;
mod progress;
mod protocol;
mod quickstart;
mod role;
mod summary;
mod worker;

pub use jobs::{
    Job, JobRegistry, Pi, PiParams, PiSplit, Samples, WordCount, WordCountParams, WordCounts,
    WordSplit,
};
pub use role::{Program, run};
