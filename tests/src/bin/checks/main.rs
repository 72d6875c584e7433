//! Checks that take time: `checks NAME` runs one, prints its figures and a verdict.
//!
//! `cargo run --release -p rpc-tests --bin checks -- all --short` is what CI runs.

mod badpeer;
mod bench;
mod blocked;
mod bulk_latency;
mod cgroup;
mod chain;
mod child;
mod cycles;
mod dead_peer;
mod exactly_once;
mod exhaustion;
mod greedy;
mod instructions;
mod lan;
mod ledger;
mod messages;
mod panics;
mod partitions;
mod plants;
mod random;
mod raw_client;
mod relay;
mod report;
mod restarts;
mod scale;
mod simulate;
mod slow_endpoint;
mod soak;
mod spread;
mod unread;

use report::{Report, say};
use std::future::Future;
use std::pin::Pin;
use std::process::ExitCode;
use std::time::Duration;

/// How much of a check is to be run.
#[derive(Clone, Debug)]
struct Size {
    short: bool,
    /// How long the soak takes, if that is said.
    minutes: Option<u64>,
    /// Figures that are compared with accepted ones become the accepted ones.
    accept: bool,
    /// Which seeds are simulated.
    seeds: simulate::Seeds,
    /// Which planted bugs are looked for, by their names; all if there is none.
    plants: plants::Wanted,
    /// Beginnings of the names of the bad peer's families that are measured; all if there is none.
    families: Vec<String>,
}

impl Size {
    fn pick<T>(&self, short: T, full: T) -> T {
        if self.short { short } else { full }
    }

    fn seconds(&self, short: u64, full: u64) -> Duration {
        Duration::from_secs(self.pick(short, full))
    }
}

type Running = Pin<Box<dyn Future<Output = anyhow::Result<Report>>>>;

/// A check: its name, what it shows, and how it is run.
struct Check {
    name: &'static str,
    about: &'static str,
    run: fn(&Size) -> Running,
}

const CHECKS: &[Check] = &[
    Check {
        name: "exactly-once",
        about: "1,000,000 asks and 1,000,000 sends between two processes: none lost, none doubled, in order",
        run: |size| Box::pin(exactly_once::run(size.pick(100_000, 1_000_000))),
    },
    Check {
        name: "slow-endpoint",
        about: "10 times more than an endpoint can take, for 30 s: memory flat, every refusal reported",
        run: |size| Box::pin(slow_endpoint::run(size.seconds(10, 30))),
    },
    Check {
        name: "restarts",
        about: "the callee is killed 100 times under 64 asking tasks: every ask ends as it should, service is back in 1 s",
        run: |size| Box::pin(restarts::run(size.pick(10, 100))),
    },
    Check {
        name: "chain",
        about: "three processes in a chain: cancelling and deadlines reach the last one",
        run: |size| Box::pin(chain::run(size.pick(20, 100))),
    },
    Check {
        name: "greedy",
        about: "eight peers at one slow endpoint, one of them with 100 times as much, for 60 s: the others get their share",
        run: |size| Box::pin(greedy::run(size.seconds(5, 60))),
    },
    Check {
        name: "bulk-latency",
        about: "small asks beside messages of 64 MiB on one connection: p99 under 5 ms",
        run: |size| Box::pin(bulk_latency::run(size.pick(2_000, 10_000), size.short)),
    },
    Check {
        name: "relay",
        about: "two envs without ports, 10,000 asks each way through a third one: all answered, in order",
        run: |size| Box::pin(relay::run(size.pick(2_000, 10_000))),
    },
    Check {
        name: "scale",
        about: "10,000 endpoints and 10,000 connections in one env: memory of each, asks answered",
        run: |size| Box::pin(scale::run(size.pick(1_000, 10_000))),
    },
    Check {
        name: "blocked",
        about: "a handler that blocks its thread for 5 s: no connection is lost, other threads go on",
        run: |size| Box::pin(blocked::run(size.seconds(2, 5), size.seconds(1, 3))),
    },
    Check {
        name: "cycles",
        about: "10,000 endpoints and 1,000 envs come and go: no thread, descriptor or memory is left",
        run: |size| Box::pin(cycles::run(size.pick(1_000, 10_000), size.pick(100, 1_000))),
    },
    Check {
        name: "panics",
        about: "1,000,000 panics in handlers: as many typed errors, no endpoint lost, at most 20 us each",
        run: |size| Box::pin(panics::run(size.pick(50_000, 1_000_000))),
    },
    Check {
        name: "unread",
        about: "1,000 readers that never read, 10 GB offered to them: memory within the bound that the library prints",
        run: |size| {
            Box::pin(unread::run(size.pick(200, 1_000), size.pick(1_000_000_000, 10_000_000_000)))
        },
    },
    Check {
        name: "exhaustion",
        about: "128 descriptors and twice as many strangers; 10,000 connections that say nothing: peers go on and come in, nothing is left",
        run: |size| Box::pin(exhaustion::run(size.pick(2_000, 10_000))),
    },
    Check {
        name: "dead-peer",
        about: "200 peers that are stopped, and 200 that are cut off: reported within 3.2 s; 500 pauses of up to 1 s: none reported",
        run: |size| Box::pin(dead_peer::run(dead_peer::Effort::of(size.short))),
    },
    Check {
        name: "partitions",
        about: "cables cut in each direction, for short and for long, again and again; a callee killed, stopped: both sides agree, nothing is handled twice",
        run: |size| Box::pin(partitions::run(size.short)),
    },
    Check {
        name: "soak",
        about: "servers and clients of all kinds for 10 minutes (--minutes N) under faults: nothing lost, doubled, misrouted or left",
        run: |size| Box::pin(soak::run(soak::Plan::of(size.short, size.minutes))),
    },
    Check {
        name: "badpeer",
        about: "every case of the bad peer has its exact outcome, and adds at most a fifth to others' p99",
        run: |size| Box::pin(badpeer::run(size.short, size.families.clone())),
    },
    Check {
        name: "bench",
        about: "local ask and send, remote ask with 1 and 128 in flight",
        run: |size| Box::pin(bench::run(size.pick(20_000, 200_000))),
    },
    Check {
        name: "simulate",
        about: "clusters on a virtual clock, with faults, from seeds: every invariant holds, and a seed repeats itself",
        run: |size| Box::pin(simulate::run(size.seeds, size.short)),
    },
    Check {
        name: "plants",
        about: "bugs planted in every layer, one at a time: the simulation finds each within 1,000 seeds",
        run: |size| Box::pin(plants::run(size.plants.clone(), size.seeds, size.short, size.accept)),
    },
    Check {
        name: "instructions",
        about: "instructions per message under valgrind: at most 5 % above those in tests/instructions.toml",
        run: |size| Box::pin(instructions::run(size.accept)),
    },
];

/// Whether that is the name of a check, or of all.
fn is_check(name: &str) -> bool {
    name == "all" || CHECKS.iter().any(|check| check.name == name)
}

fn usage() -> ExitCode {
    say("usage: checks NAME... [--short] [--accept]");
    say("       checks simulate [--seeds N] [--from SEED] [--hours H] [--events]");
    say("       checks soak [--minutes N]");
    say("       checks plants [BUG...] [--seeds N] [--hours H]");
    say("       checks badpeer [SIDE/FAMILY...]");
    for check in CHECKS {
        say(&format!("  {:14} {}", check.name, check.about));
    }
    say("  all            all of them");
    ExitCode::from(2)
}

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    if let [child::ROLE, role, rest @ ..] =
        args.iter().map(String::as_str).collect::<Vec<_>>().as_slice()
    {
        return child::main(serve(role, rest));
    }
    let Some((args, seeds)) = simulate::Seeds::read(&args) else { return usage() };
    let Some((args, minutes)) = soak::minutes(args) else { return usage() };
    let (args, plants) = plants::Wanted::read(args);
    let (flags, args): (Vec<_>, Vec<_>) = args.into_iter().partition(|arg| arg.starts_with("--"));
    if let Some(unknown) =
        flags.iter().find(|flag| !["--short", "--accept"].contains(&flag.as_str()))
    {
        if unknown != "--help" {
            say(&format!("unknown option {unknown}"));
        }
        return usage();
    }
    let flag = |name: &str| flags.iter().any(|flag| flag == name);
    let (families, names): (Vec<_>, Vec<_>) = args.into_iter().partition(|arg| arg.contains('/'));
    let (short, accept) = (flag("--short"), flag("--accept"));
    let size = Size { short, accept, minutes, seeds, plants, families };
    if names.is_empty() || !names.iter().all(|name| is_check(name)) {
        return usage();
    }
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            say(&format!("no runtime: {error}"));
            return ExitCode::from(2);
        }
    };
    let wanted = |check: &&Check| names.iter().any(|name| *name == "all" || *name == check.name);
    let (mut passed, mut failed) = (0, 0);
    for check in CHECKS.iter().filter(wanted) {
        let start = std::time::Instant::now();
        let outcome = runtime.block_on((check.run)(&size));
        let report = outcome.unwrap_or_else(|error| Report::failed(check.name, &error));
        report.print(start.elapsed());
        if report.passed() { passed += 1 } else { failed += 1 }
    }
    say(&format!("{passed} passed, {failed} failed"));
    if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

type Serving<'a> = Pin<Box<dyn Future<Output = anyhow::Result<()>> + 'a>>;

/// What a child does, by the name of its role.
fn serve<'a>(role: &str, args: &'a [&'a str]) -> Serving<'a> {
    match role {
        blocked::SERVER => Box::pin(blocked::serve(args)),
        bulk_latency::SERVER => Box::pin(bulk_latency::serve()),
        chain::FIRST => Box::pin(chain::serve_first(args)),
        chain::LAST => Box::pin(chain::serve_last()),
        exhaustion::SERVER => Box::pin(exhaustion::serve(args)),
        exhaustion::STRANGERS => Box::pin(exhaustion::say_nothing(args)),
        greedy::SERVER => Box::pin(greedy::serve(args)),
        dead_peer::PEER => Box::pin(dead_peer::serve(args)),
        instructions::COUNTED => Box::pin(instructions::send(args)),
        greedy::PEER => Box::pin(greedy::offer(args)),
        relay::MIDDLE => Box::pin(relay::serve()),
        relay::END => Box::pin(relay::talk(args)),
        ledger::SERVER => Box::pin(ledger::serve(args)),
        scale::SERVER => Box::pin(scale::serve()),
        scale::CLIENTS => Box::pin(scale::connect(args)),
        soak::SERVER => Box::pin(soak::serve_server(args)),
        soak::CLIENT => Box::pin(soak::serve_client(args)),
        unread::SERVER => Box::pin(unread::serve(args)),
        unread::READERS => Box::pin(unread::read_nothing(args)),
        _ => Box::pin(child::serve()),
    }
}
