//! Random numbers that follow from a seed.

use std::ops::Range;
use std::time::Duration;

/// A source of random numbers: the same seed gives the same numbers, on every machine and in every
/// version. Not for secrets.
#[derive(Clone, Debug)]
pub struct SimRandom {
    state: u64,
}

impl SimRandom {
    /// A source that follows from a seed.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self { state: mix(seed ^ 0x5349_4d55_4c41_5445) }
    }

    /// Another source, which follows from this one's seed and a label: what is drawn from the one
    /// does not change what comes out of the other.
    #[must_use]
    pub fn fork(&self, label: &str) -> Self {
        let label =
            label.bytes().fold(0x9ae1_6a3b_2f90_404f, |all, byte| mix(all ^ u64::from(byte)));
        Self { state: mix(self.state ^ label) }
    }

    /// Any number.
    pub fn number(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        mix(self.state)
    }

    /// A number below `bound`; 0 if that is 0.
    pub fn below(&mut self, bound: u64) -> u64 {
        self.number().checked_rem(bound).unwrap_or(0)
    }

    /// A number in a range; its start if the range is empty.
    pub fn within(&mut self, range: Range<u64>) -> u64 {
        range.start.saturating_add(self.below(range.end.saturating_sub(range.start)))
    }

    /// A time in a range, in whole microseconds; its start if the range is empty.
    pub fn duration(&mut self, range: Range<Duration>) -> Duration {
        let micros = |time: Duration| u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
        Duration::from_micros(self.within(micros(range.start)..micros(range.end)))
    }

    /// `true` with this probability, from 0 to 1.
    pub fn chance(&mut self, probability: f64) -> bool {
        const ONE: f64 = 4_294_967_296.0;
        f64::from(u32::try_from(self.number() >> 32).unwrap_or(u32::MAX)) < probability * ONE
    }

    /// One of the values; `None` if there is none.
    pub fn pick<'a, T>(&mut self, values: &'a [T]) -> Option<&'a T> {
        let place = self.below(u64::try_from(values.len()).unwrap_or(u64::MAX));
        values.get(usize::try_from(place).unwrap_or(usize::MAX))
    }
}

/// A number of which each bit depends on each bit of the input (the end of splitmix64).
pub(super) fn mix(mut number: u64) -> u64 {
    number = (number ^ (number >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    number = (number ^ (number >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    number ^ (number >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_gives_the_same_numbers_for_ever() {
        let mut random = SimRandom::new(7);
        let first: Vec<_> = (0..3).map(|_| random.number()).collect();
        let expected =
            [9_106_550_468_278_480_374, 16_787_177_387_216_859_198, 13_181_045_958_549_860_512];
        assert_eq!(first, expected);
    }

    #[test]
    fn a_fork_does_not_depend_on_what_was_drawn_from_the_other() {
        let random = SimRandom::new(1);
        let mut one = random.fork("net");
        let mut two = random.fork("nodes");
        let expected = random.fork("net").number();
        two.number();
        assert_eq!(one.number(), expected);
        assert_ne!(one.number(), two.number());
    }

    #[test]
    fn numbers_stay_in_their_range() {
        let mut random = SimRandom::new(3);
        for _ in 0..1_000 {
            assert!((5..9).contains(&random.within(5..9)));
            assert!(random.pick(&[1, 2]).is_some());
            let time = random.duration(Duration::from_millis(1)..Duration::from_millis(3));
            assert!(time >= Duration::from_millis(1) && time < Duration::from_millis(3));
        }
        assert_eq!((random.below(0), random.within(4..4)), (0, 4));
        let hits = (0..10_000).filter(|_| random.chance(0.25)).count();
        assert!((2_300..2_700).contains(&hits), "{hits}");
        assert!(!random.chance(0.0) && random.chance(1.0));
    }
}
