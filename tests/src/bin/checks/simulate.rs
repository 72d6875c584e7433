//! Simulated clusters, a seed each, on all cores: see `rpc_tests::simulation`.

use crate::report::{Report, say};
use rpc_tests::simulation::{Options, Report as Ended, run_seed_within};
use std::num::NonZero;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

/// The simulated time of one seed, if nobody says otherwise.
const EACH: Duration = Duration::from_secs(300);
/// Seeds of the short form and of the full one.
const SHORT: u64 = 2_000;
const FULL: u64 = 20_000;
/// Seeds that are run a second time.
const TWICE: u64 = 200;
/// A seed takes a twentieth of a second, a large one half of one: what has not ended after so long never
/// will, even where others have nearly all of the processors.
const HUNG: Duration = Duration::from_secs(600);
/// Failures that are told one by one.
const TOLD: usize = 10;

/// Which seeds are simulated, and for how long.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Seeds {
    count: Option<u64>,
    from: u64,
    hours: Option<f64>,
    events: bool,
}

impl Seeds {
    /// Takes what it needs out of the arguments. `None` if that cannot be read.
    pub(crate) fn read(args: &[String]) -> Option<(Vec<String>, Self)> {
        let (mut rest, mut seeds, mut args) = (Vec::new(), Self::default(), args.iter());
        while let Some(arg) = args.next() {
            match arg.as_str() {
                "--seeds" => seeds.count = Some(args.next()?.parse().ok()?),
                "--from" => seeds.from = args.next()?.parse().ok()?,
                "--hours" => seeds.hours = Some(args.next()?.parse().ok()?),
                "--events" => seeds.events = true,
                _ => rest.push(arg.clone()),
            }
        }
        Some((rest, seeds))
    }

    /// How many there are, and how long each is. `hours` are those of all of them together.
    pub(crate) fn plan(self, most: u64) -> (u64, Options) {
        let count = self.count.unwrap_or(most);
        let each = self.hours.and_then(|hours| {
            let seconds = hours * 3600.0 / f64::from(u32::try_from(count).ok()?);
            Duration::try_from_secs_f64(seconds).ok()
        });
        (count, Options::default().lasting(each.unwrap_or(EACH)).verbose(self.events))
    }
}

/// What came out of many seeds.
#[derive(Debug, Default)]
struct Sum {
    seeds: u64,
    time: Duration,
    events: u64,
    sent: u64,
    answered: u64,
    failures: Vec<Ended>,
    traces: Vec<(u64, u64)>,
}

impl Sum {
    fn add(&mut self, ended: Ended) {
        self.seeds += 1;
        self.time += ended.elapsed;
        self.events += ended.events;
        self.sent += ended.figures.sent;
        self.answered += ended.figures.answered;
        match ended.wrong {
            Some(_) => self.failures.push(ended),
            None => self.traces.push((ended.seed, ended.trace)),
        }
    }

    fn merge(mut self, other: Self) -> Self {
        self.seeds += other.seeds;
        self.time += other.time;
        self.events += other.events;
        self.sent += other.sent;
        self.answered += other.answered;
        self.failures.extend(other.failures);
        self.traces.extend(other.traces);
        self
    }
}

/// Simulates, and reports.
pub(crate) async fn run(seeds: Seeds, short: bool) -> anyhow::Result<Report> {
    let (count, options) = seeds.plan(if short { SHORT } else { FULL });
    let mut report = Report::new("simulate");
    let start = Instant::now();
    let mut sum = simulate(seeds.from, count, &options);
    let (took, hours) = (start.elapsed().as_secs_f64(), sum.time.as_secs_f64() / 3600.0);
    report.figure(format!(
        "{} seeds from {}, {hours:.1} simulated cluster-hours in {took:.0} s: {:.0} times as fast as life",
        sum.seeds,
        seeds.from,
        hours * 3600.0 / took
    ));
    report.figure(format!(
        "{} events, {} messages sent, {} asks answered",
        sum.events, sum.sent, sum.answered
    ));
    sum.failures.sort_by_key(|ended| ended.seed);
    for ended in sum.failures.iter().take(TOLD) {
        report.figure(ended.wrong.clone().unwrap_or_default());
        let hours = options.duration.as_secs_f64() / 3600.0;
        report.figure(format!(
            "  replay: checks simulate --seeds 1 --from {} --hours {hours} --events",
            ended.seed
        ));
    }
    let violations = sum.failures.len();
    report.require(violations == 0, &format!("every invariant holds: {violations} violations"));
    sum.traces.sort_unstable();
    let again: Vec<_> = sum.traces.iter().take(usize::try_from(TWICE)?).copied().collect();
    let twice = repeats(&again, &options);
    report.require(
        twice == again.len(),
        &format!(
            "a seed repeats itself: {twice} of {} had the same trace when run again",
            again.len()
        ),
    );
    Ok(report)
}

/// Runs a seed, unless it hangs.
pub(crate) fn run_guarded(seed: u64, options: &Options) -> Ended {
    run_seed_within(seed, options, HUNG)
}

/// Runs the seeds on all cores.
fn simulate(from: u64, count: u64, options: &Options) -> Sum {
    let next = AtomicU64::new(0);
    let one = || {
        let mut sum = Sum::default();
        loop {
            let number = next.fetch_add(1, Ordering::Relaxed);
            if number >= count {
                return sum;
            }
            let ended = run_guarded(from + number, options);
            if let Some(wrong) = &ended.wrong {
                say(&format!("  {wrong}"));
            }
            sum.add(ended);
        }
    };
    on_all_cores(one).into_iter().fold(Sum::default(), Sum::merge)
}

/// How many of some seeds have the same trace again.
fn repeats(expected: &[(u64, u64)], options: &Options) -> usize {
    let next = AtomicU64::new(0);
    let options = options.clone().verbose(false);
    let same = on_all_cores(|| {
        let mut same = 0;
        while let Some((seed, trace)) = usize::try_from(next.fetch_add(1, Ordering::Relaxed))
            .ok()
            .and_then(|at| expected.get(at))
        {
            same += usize::from(run_guarded(*seed, &options).trace == *trace);
        }
        same
    });
    same.into_iter().sum()
}

pub(crate) fn on_all_cores<T: Send>(work: impl Fn() -> T + Sync) -> Vec<T> {
    let cores = thread::available_parallelism().map_or(1, NonZero::get);
    thread::scope(|scope| {
        let threads: Vec<_> = (0..cores).map(|_| scope.spawn(&work)).collect();
        threads.into_iter().filter_map(|thread| thread.join().ok()).collect()
    })
}
