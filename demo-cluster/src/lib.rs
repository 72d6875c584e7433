//! A small cluster on the RPC layer: a master, workers, executors and drivers, and jobs that run
//! on them.
//!
//! All programs are thin mains over [`run`], and each can start itself in any role, so one binary
//! is a whole cluster. A program with jobs of its own is a `main` of a few lines:
//!
//! ```no_run
//! use demo_cluster::{JobRegistry, Program};
//!
//! fn main() -> std::process::ExitCode {
//!     let jobs = JobRegistry::standard(); // .with(MyJob)
//!     demo_cluster::run(Program::Quickstart, &jobs)
//! }
//! ```
//!
//! Not here yet: recovery of the master from what it has stored, standby masters (its messages
//! leave room for them), drivers that run on workers, a web page.

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
mod timer;
mod worker;

pub use jobs::{
    Job, JobRegistry, Pi, PiParams, PiSplit, Samples, WordCount, WordCountParams, WordCounts,
    WordSplit,
};
pub use role::{Program, run};
