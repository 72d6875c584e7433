//! Bugs planted in the library, one at a time: does the simulation see them? They exist only in a program
//! that is compiled with `--cfg plant`, so this check compiles itself once more, and has that run.

use crate::report::Report;
use crate::simulate::Seeds;

/// Names of planted bugs.
#[derive(Clone, Debug, Default)]
pub(crate) struct Wanted(Vec<String>);

impl Wanted {
    /// Takes them out of the arguments: they begin with a capital letter, as no check does.
    pub(crate) fn read(args: Vec<String>) -> (Vec<String>, Self) {
        let is_plant = |arg: &String| arg.starts_with(|c: char| c.is_ascii_uppercase());
        let (plants, rest) = args.into_iter().partition(is_plant);
        (rest, Self(plants))
    }
}

#[cfg(not(plant))]
pub(crate) use outside::run;
#[cfg(plant)]
pub(crate) use planted::run;

#[cfg(not(plant))]
mod outside {
    use super::{Report, Seeds, Wanted};
    use anyhow::Context;
    use std::path::Path;
    use std::process::Command;

    /// What makes such a program soon compiled, and fast enough.
    const PROFILE: [(&str, &str); 5] = [
        ("LTO", "off"),
        ("CODEGEN_UNITS", "16"),
        ("OPT_LEVEL", "1"),
        ("DEBUG", "0"),
        ("DEBUG_ASSERTIONS", "true"),
    ];

    /// Compiles this program with the bugs in it, and has it look for them.
    pub(crate) async fn run(
        wanted: Wanted,
        _seeds: Seeds,
        _short: bool,
        _accept: bool,
    ) -> anyhow::Result<Report> {
        let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
        let workspace = Path::new(env!("CARGO_MANIFEST_DIR")).parent().context("no workspace")?;
        let settings = PROFILE.map(|(key, value)| (format!("CARGO_PROFILE_RELEASE_{key}"), value));
        let is_option = |arg: &String| !crate::is_check(arg) && !wanted.0.contains(arg);
        let options = std::env::args().skip(1).filter(is_option);
        let status = Command::new(cargo)
            .current_dir(workspace)
            .env("CARGO_TARGET_DIR", workspace.join("target/plants"))
            .env("RUSTFLAGS", "--cfg plant")
            .env_remove("CARGO_ENCODED_RUSTFLAGS")
            .envs(settings)
            .args(["run", "--quiet", "--release", "-p", "rpc-tests", "--bin", "checks", "--"])
            .arg("plants")
            .args(&wanted.0)
            .args(options)
            .status()
            .context("cargo cannot be run")?;
        let mut report = Report::new("plants");
        report.require(status.success(), "the program with the planted bugs says so, above");
        Ok(report)
    }
}

#[cfg(plant)]
mod planted {
    use super::{Report, Seeds, Wanted};
    use crate::report::say;
    use crate::simulate::{on_all_cores, run_guarded};
    use anyhow::Context;
    use rpc_core::plant::Plant;
    use rpc_tests::simulation::Options;
    use std::fmt::Write;
    use std::path::Path;
    use std::sync::Mutex;
    use std::sync::atomic::{AtomicU64, Ordering};
    use std::time::{Instant, SystemTime};

    /// The seeds that a bug may need.
    const SEEDS: u64 = 1_000;
    /// How many of them the short form looks for: others each day.
    const FEW: usize = 6;

    /// Where a bug was found.
    struct Found {
        seed: u64,
        text: String,
    }

    /// Looks for each of the bugs.
    pub(crate) async fn run(
        wanted: Wanted,
        seeds: Seeds,
        short: bool,
        accept: bool,
    ) -> anyhow::Result<Report> {
        let (count, options) = seeds.plan(SEEDS);
        let mut report = Report::new("plants");
        let mut found = Vec::new();
        for bug in chosen(&wanted, short)? {
            let start = Instant::now();
            let first = look_for(bug, count, &options);
            let took = start.elapsed().as_secs_f64();
            let line = match &first {
                Some(Found { seed, text }) => {
                    format!("{} at seed {seed} in {took:.0} s: {text}", bug.name())
                }
                None => format!("{} in none of {count} seeds, {took:.0} s", bug.name()),
            };
            say(&format!("  {line}"));
            found.push((bug, first));
        }
        let missed = found.iter().filter(|(_, found)| found.is_none());
        let missed: Vec<_> = missed.map(|(bug, _)| bug.name()).collect();
        let mut needed: Vec<_> =
            found.iter().filter_map(|(_, found)| Some(found.as_ref()?.seed + 1)).collect();
        needed.sort_unstable();
        if let (Some(median), Some(most)) = (needed.get(needed.len() / 2), needed.last()) {
            report.figure(format!("seeds needed: median {median}, most {most}"));
        }
        report.require(
            missed.is_empty(),
            &format!(
                "{} of {} found within {count} seeds; missed: {missed:?}",
                needed.len(),
                found.len()
            ),
        );
        if accept {
            write_page(&found)?;
        }
        Ok(report)
    }

    /// Those with the names; without any all of them, or a few that change from day to day.
    fn chosen(wanted: &Wanted, short: bool) -> anyhow::Result<Vec<Plant>> {
        let by_name = |name: &String| {
            let bug = Plant::ALL.iter().find(|bug| bug.name() == name).copied();
            bug.with_context(|| format!("there is no planted bug {name}"))
        };
        if !wanted.0.is_empty() {
            return wanted.0.iter().map(by_name).collect();
        }
        if !short {
            return Ok(Plant::ALL.to_vec());
        }
        let day = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH)?.as_secs() / 86_400;
        let begin = usize::try_from(day)?.wrapping_mul(FEW) % Plant::ALL.len().max(1);
        Ok(Plant::ALL.iter().cycle().skip(begin).take(FEW).copied().collect())
    }

    /// The first seed that fails with a bug, and does not fail without it.
    fn look_for(bug: Plant, count: u64, options: &Options) -> Option<Found> {
        let mut from = 0;
        loop {
            Plant::switch(Some(bug));
            let found = first_failure(from, count, options);
            Plant::switch(None);
            let found = found?;
            let without = run_guarded(found.seed, options);
            match without.wrong {
                None => return Some(found),
                Some(wrong) => say(&format!(
                    "  seed {} fails without {} as well: {wrong}",
                    found.seed,
                    bug.name()
                )),
            }
            from = found.seed + 1;
        }
    }

    /// The first seed that fails.
    fn first_failure(from: u64, count: u64, options: &Options) -> Option<Found> {
        let (next, end) = (AtomicU64::new(from), AtomicU64::new(count));
        let first = Mutex::new(None::<Found>);
        on_all_cores(|| {
            loop {
                let seed = next.fetch_add(1, Ordering::Relaxed);
                if seed >= end.load(Ordering::Relaxed) {
                    return;
                }
                let Some(text) = run_guarded(seed, options).wrong else { continue };
                end.fetch_min(seed, Ordering::Relaxed);
                if let Ok(mut first) = first.lock()
                    && first.as_ref().is_none_or(|known| seed < known.seed)
                {
                    *first = Some(Found { seed, text });
                }
            }
        });
        first.into_inner().ok()?
    }

    /// Which invariant it was: the letter and number with which its text begins.
    fn invariant(text: &str) -> &str {
        let is_name = |word: &&str| {
            let word = word.trim_end_matches(':');
            let digits = word.strip_prefix(['I', 'P']);
            digits.is_some_and(|digits| {
                !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit())
            })
        };
        let found = text.split_whitespace().find(is_name).map(|word| word.trim_end_matches(':'));
        let other = if text.contains("panicked") { "no panic" } else { "it ends" };
        found.unwrap_or(other)
    }

    /// Writes the page of what was found.
    fn write_page(found: &[(Plant, Option<Found>)]) -> anyhow::Result<()> {
        let mut page = String::from(HEAD);
        for (bug, found) in found {
            let (seeds, by) = match found {
                Some(Found { seed, text }) => ((seed + 1).to_string(), invariant(text)),
                None => ("not found".to_owned(), "-"),
            };
            writeln!(
                page,
                "| `{}` | `{}` | {} | {seeds} | {by} |",
                bug.name(),
                bug.file(),
                bug.breaks()
            )?;
        }
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/PLANTS.md");
        Ok(std::fs::write(path, page)?)
    }

    const HEAD: &str = "# Planted bugs

How do we know that the simulation would see a bug? Bugs are planted: a line or two at a real place,
one switched on at a time, and the simulation's seeds are run from 0 until one fails. A seed that fails
without the bug as well does not count.

The bugs are in a program only if it is compiled with `--cfg plant`. No feature and no key does that, and
without it the code is not there. `rpc-core/src/plant.rs` lists them; each stands behind `planted!` in
the file that the table names. `cargo run --release -p rpc-tests --bin checks -- plants` compiles such a
program in `target/plants` and looks for all of them, `plants NAME` for one; with `--accept` it writes this
page. Every run of CI looks for six of them, others each day.

What the names of the invariants mean: I1 each ask ends once, in time, and as it can have ended; I2 what
is received was sent, once, in order, and not told to be never sent, and what was taken is not lost; I7 queues
and tables are within their limits, and credit is neither lost nor made; I8 after a calm everybody is
reached; I9 nothing is left; I13 peers come and go in turn, and their messages between; I14 members keep to
the protocol, and what is late or broken is so for a reason; P6 silence is noticed.

| bug | in | what it breaks | seeds needed | seen by |
|---|---|---|---|---|
";
}
