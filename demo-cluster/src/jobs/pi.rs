//! Monte Carlo pi: the smallest job, with nothing to read and one key.

use super::Job;
use clap::Args;
use serde::{Deserialize, Serialize};
use std::collections::HashMap;
use std::fmt;

/// Throws darts at a square and counts those in the circle.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct Pi;

/// How many darts.
#[derive(Clone, Debug, Args, Serialize, Deserialize)]
#[non_exhaustive]
pub struct PiParams {
    /// How many samples in all
    #[arg(long, default_value_t = 4_000_000)]
    pub samples: u64,
    /// How many tasks they are spread over
    #[arg(long, default_value_t = 16, value_parser = clap::value_parser!(u64).range(1..=100_000))]
    pub tasks: u64,
    /// Where the random numbers begin
    #[arg(long, default_value_t = 1)]
    pub seed: u64,
}

/// The samples of one task.
#[derive(Debug, Serialize, Deserialize)]
#[non_exhaustive]
pub struct PiSplit {
    /// Where its random numbers begin.
    pub seed: u64,
    /// How many there are.
    pub samples: u64,
}

/// Counted samples: what tasks add up, and the outcome.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Samples {
    /// Those in the circle.
    pub inside: u64,
    /// All.
    pub total: u64,
}

impl Job for Pi {
    const NAME: &'static str = "pi";
    const ABOUT: &'static str = "Estimates pi with random numbers";
    type Params = PiParams;
    type Split = PiSplit;
    type Key = ();
    type Value = Samples;
    type Part = Samples;
    type Outcome = Samples;

    fn splits(&self, params: &PiParams) -> anyhow::Result<Vec<PiSplit>> {
        let (each, rest) = (params.samples / params.tasks, params.samples % params.tasks);
        let split = |task| PiSplit {
            seed: params.seed.wrapping_mul(0x1_0000_0001).wrapping_add(task),
            samples: each + u64::from(task < rest),
        };
        Ok((0..params.tasks).map(split).collect())
    }

    fn map(
        &self,
        _params: &PiParams,
        split: PiSplit,
        emit: &mut dyn FnMut((), Samples),
    ) -> anyhow::Result<()> {
        let mut random = SplitMix(mix(split.seed));
        let inside = (0..split.samples).filter(|_| {
            let (x, y) = (random.next(), random.next());
            x * x + y * y <= 1.0
        });
        emit((), Samples { inside: u64::try_from(inside.count())?, total: split.samples });
        Ok(())
    }

    fn combine(&self, into: &mut Samples, value: Samples) {
        into.inside += value.inside;
        into.total += value.total;
    }

    fn reduce(&self, _: &PiParams, mut pairs: HashMap<(), Samples>) -> anyhow::Result<Samples> {
        Ok(pairs.remove(&()).unwrap_or_default())
    }

    fn finish(&self, _params: &PiParams, parts: Vec<Samples>) -> anyhow::Result<Samples> {
        let mut all = Samples::default();
        parts.into_iter().for_each(|part| self.combine(&mut all, part));
        Ok(all)
    }

    fn single_threaded(&self, params: &PiParams) -> anyhow::Result<Samples> {
        let mut all = Samples::default();
        for split in self.splits(params)? {
            self.map(params, split, &mut |(), samples| self.combine(&mut all, samples))?;
        }
        Ok(all)
    }
}

impl fmt::Display for Samples {
    #[expect(clippy::cast_precision_loss, reason = "an estimate is printed with six digits")]
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { inside, total } = *self;
        let pi = 4.0 * inside as f64 / total.max(1) as f64;
        write!(f, "pi is about {pi:.6} ({inside} of {total} samples in the circle)")
    }
}

/// Numbers from 0 to 1 that the same seed gives everywhere.
struct SplitMix(u64);

impl SplitMix {
    #[expect(clippy::cast_precision_loss, reason = "53 bits fit")]
    fn next(&mut self) -> f64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        (mix(self.0) >> 11) as f64 / (1u64 << 53) as f64
    }
}

/// Spreads a change of any bit over all of them.
pub(super) fn mix(mut bits: u64) -> u64 {
    bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    bits ^ (bits >> 31)
}
