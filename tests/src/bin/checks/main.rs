//! Checks that take time: `checks NAME` runs one, prints its figures and a verdict.
//!
//! `cargo run --release -p rpc-tests --bin checks -- all --short` is what CI runs.

mod bench;
mod child;
mod exactly_once;
mod messages;
mod report;
mod slow_endpoint;

use report::{Report, say};
use std::process::ExitCode;
use std::time::Duration;

const USAGE: &str = "usage: checks NAME [--short]
  exactly-once   1,000,000 asks and 1,000,000 sends between two processes: none lost, none doubled, in order
  slow-endpoint  10 times more than an endpoint can take, for 30 s: memory flat, every refusal reported
  bench          local ask and send, remote ask with 1 and 128 in flight
  all            all of them";

/// How much of a check is to be run.
#[derive(Clone, Copy, Debug)]
struct Size {
    short: bool,
}

impl Size {
    fn pick<T>(self, short: T, full: T) -> T {
        if self.short { short } else { full }
    }
}

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let size = Size { short: args.iter().any(|arg| arg == "--short") };
    let Some(name) = args.iter().find(|arg| !arg.starts_with("--")) else {
        say(USAGE);
        return ExitCode::from(2);
    };
    if name == child::ROLE {
        return child::serve();
    }
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            say(&format!("no runtime: {error}"));
            return ExitCode::from(2);
        }
    };
    let mut reports = Vec::new();
    let known = ["exactly-once", "slow-endpoint", "bench"];
    for check in known.into_iter().filter(|check| name == "all" || name == check) {
        let outcome = runtime.block_on(run(check, size));
        let report = outcome.unwrap_or_else(|error| Report::failed(check, &error));
        report.print();
        reports.push(report);
    }
    if reports.is_empty() {
        say(USAGE);
        return ExitCode::from(2);
    }
    let failed = reports.iter().filter(|report| !report.passed()).count();
    say(&format!("{} passed, {failed} failed", reports.len().saturating_sub(failed)));
    if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

async fn run(check: &str, size: Size) -> anyhow::Result<Report> {
    match check {
        "exactly-once" => exactly_once::run(size.pick(100_000, 1_000_000)).await,
        "slow-endpoint" => slow_endpoint::run(Duration::from_secs(size.pick(10, 30))).await,
        _ => bench::run(size.pick(20_000, 200_000)).await,
    }
}
