//! How many instructions a message costs, counted by valgrind and compared with accepted figures.
//!
//! Times depend on the machine and on what else it does; instructions hardly do. Each scenario runs
//! twice with different numbers of messages, and the difference is divided by theirs, so that
//! start-up falls out.

mod accepted;
mod scenarios;

pub(crate) use scenarios::{COUNTED, send};

use crate::report::Report;
use accepted::{Accepted, Verdict};
use anyhow::Context;
use scenarios::{SCENARIOS, Scenario};
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

/// Counts every scenario and compares; with `accept` the counts become the accepted figures.
pub(crate) async fn run(accept: bool) -> anyhow::Result<Report> {
    let mut report = Report::new("instructions");
    if let Err(reason) = available() {
        report.figure(format!("SKIPPED: {reason}"));
        return Ok(report);
    }
    let mut accepted = Accepted::read()?;
    for (scenario, count) in SCENARIOS.iter().zip(count_all(SCENARIOS)?) {
        match accepted.compare(scenario.name, count) {
            Verdict::Good(text) => report.figure(text),
            Verdict::More(text) if accept => report.figure(text),
            Verdict::More(text) => report.require(false, &text),
        }
        accepted.set(scenario.name, count);
    }
    if accept {
        accepted.write()?;
        report.figure("these are the accepted figures now".to_owned());
    }
    Ok(report)
}

/// Whether the counts can be compared on this machine.
fn available() -> Result<(), &'static str> {
    if !cfg!(target_arch = "x86_64") {
        return Err("the accepted figures are those of x86_64");
    }
    if cfg!(debug_assertions) {
        return Err("the accepted figures are those of a release build");
    }
    match Command::new("valgrind").arg("--version").output() {
        Ok(output) if output.status.success() => Ok(()),
        _ => Err("there is no valgrind (Debian package valgrind)"),
    }
}

/// Instructions per message of each scenario, in their order; two are counted at a time.
fn count_all(scenarios: &[Scenario]) -> anyhow::Result<Vec<u64>> {
    let counts = Mutex::new(Vec::new());
    let next = AtomicUsize::new(0);
    let work = || {
        loop {
            let index = next.fetch_add(1, Ordering::Relaxed);
            let Some(scenario) = scenarios.get(index) else { break };
            let count = per_message(scenario);
            counts.lock().unwrap_or_else(PoisonError::into_inner).push((index, count));
        }
    };
    std::thread::scope(|scope| {
        scope.spawn(work);
        scope.spawn(work);
    });
    let mut counts = counts.into_inner().unwrap_or_else(PoisonError::into_inner);
    counts.sort_by_key(|(index, _)| *index);
    counts.into_iter().map(|(_, count)| count).collect()
}

fn per_message(scenario: &Scenario) -> anyhow::Result<u64> {
    let (few, many) = scenario.messages;
    let difference = total(scenario.name, many)?.saturating_sub(total(scenario.name, few)?);
    Ok(difference / many.saturating_sub(few).max(1))
}

/// The instructions of a whole process that sends so many messages.
fn total(scenario: &str, messages: u64) -> anyhow::Result<u64> {
    let file = format!("checks-{}-{scenario}-{messages}.callgrind", std::process::id());
    let file = std::env::temp_dir().join(file);
    let output = Command::new("valgrind")
        .arg("--tool=callgrind")
        .arg(format!("--callgrind-out-file={}", file.display()))
        .arg(std::env::current_exe().context("this program's path")?)
        .args([crate::child::ROLE, COUNTED, scenario, &messages.to_string()])
        .output()
        .context("running valgrind")?;
    anyhow::ensure!(
        output.status.success(),
        "{scenario} under valgrind: {}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    let total = read_total(&file);
    let _ = std::fs::remove_file(&file);
    total
}

fn read_total(file: &Path) -> anyhow::Result<u64> {
    let text = std::fs::read_to_string(file).context("callgrind's output")?;
    let total = text.lines().find_map(|line| line.strip_prefix("totals: "));
    total.context("the totals in callgrind's output")?.trim().parse().context("callgrind's totals")
}
