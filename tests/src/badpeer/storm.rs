//! Cases in a loop, and what a peer that behaves feels of them.

use super::case::Case;
use super::scene::misbehave;
use super::victim::Victim;
use anyhow::Context;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// How long the asks of a peer that behaves took, without a bad peer and beside one.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct Damage {
    /// In the slices in which nothing else happened.
    pub quiet: Vec<Duration>,
    /// In those in which a bad peer misbehaved.
    pub beside: Vec<Duration>,
    /// How often it did.
    pub played: usize,
}

/// Plays the cases in turn in every second slice of time.
pub(super) fn measure(
    cases: &[&Case],
    victim: &Victim,
    rate: u32,
    slices: u32,
    slice: Duration,
) -> anyhow::Result<Damage> {
    let mut damage = Damage::default();
    let stop = Arc::new(AtomicBool::new(false));
    let asking = victim.ask_until(&stop);
    let storm = || storm(cases, victim, rate, slices, slice);
    let busy = std::thread::scope(|scope| scope.spawn(storm).join());
    stop.store(true, Ordering::Relaxed);
    let (busy, played) = busy.map_err(|_| anyhow::anyhow!("the bad peer panicked"))??;
    damage.played = played;
    let times = victim.runtime.block_on(asking).context("the asking task")??;
    for (start, time) in times {
        let beside = busy.iter().any(|busy| busy.start < start + time && start < busy.end);
        let of = if beside { &mut damage.beside } else { &mut damage.quiet };
        of.push(time);
    }
    Ok(damage)
}

/// The bad peer's thread: when it was busy, and how often it misbehaved.
fn storm(
    cases: &[&Case],
    victim: &Victim,
    rate: u32,
    slices: u32,
    slice: Duration,
) -> anyhow::Result<(Vec<Range<Instant>>, usize)> {
    // A bad peer has a machine of its own: here it gets what the others leave of the processors.
    rustix::process::nice(19)?;
    let (mut busy, mut played) = (Vec::new(), 0);
    let mut turns = cases.iter().cycle();
    for _ in 0..slices {
        std::thread::sleep(slice);
        let start = Instant::now();
        let mut next = start;
        while start.elapsed() < slice {
            // A peer that is cut off in the middle has had what it came for.
            if let Some(case) = turns.next() {
                let _ = misbehave(case, victim);
                played += 1;
            }
            next += Duration::from_secs(1) / rate.max(1);
            std::thread::sleep(next.saturating_duration_since(Instant::now()));
        }
        busy.push(start..Instant::now());
    }
    Ok((busy, played))
}
