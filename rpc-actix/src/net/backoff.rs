//! When a peer is dialled again: later and later, and at random, so that a thousand peers of a
//! server that comes back do not come at once.

use rpc_core::{Limits, Timestamp};
use std::time::Duration;

/// The tries to reach one peer.
#[derive(Debug)]
pub(crate) struct Backoff {
    failures: u32,
    next: Timestamp,
    random: u64,
}

/// How much the bound grows with each failure in a row.
const GROWTH: f64 = 1.6;

/// A connection that lived shorter than this counts as a failure: a peer that accepts and closes
/// at once is not dialled in a circle.
const SETTLED: Duration = Duration::from_secs(1);

impl Backoff {
    pub(crate) fn new(seed: u64) -> Self {
        Self { failures: 0, next: Timestamp::START, random: seed | 1 }
    }

    /// Not before this.
    pub(crate) fn next(&self) -> Timestamp {
        self.next
    }

    /// How many tries in a row have failed.
    #[cfg(test)]
    pub(crate) fn failures(&self) -> u32 {
        self.failures
    }

    /// A connection could not be made.
    pub(crate) fn failed(&mut self, now: Timestamp, limits: &Limits) {
        let bound = self.bound(limits);
        self.failures = self.failures.saturating_add(1);
        self.next = now.saturating_add(bound.mul_f64(self.fraction()));
    }

    /// It could not be made for a reason that does not go away by itself: only the longest wait
    /// makes sense.
    pub(crate) fn refused(&mut self, now: Timestamp, limits: &Limits) {
        self.failures = self.failures.saturating_add(1);
        self.next = now.saturating_add(limits.reconnect_max());
    }

    /// A connection that was made at `since` has ended.
    pub(crate) fn lost(&mut self, since: Timestamp, now: Timestamp, limits: &Limits) {
        if now.since(since) < SETTLED {
            self.failed(now, limits);
        } else {
            (self.failures, self.next) = (0, now);
        }
    }

    fn bound(&self, limits: &Limits) -> Duration {
        let growth = GROWTH.powi(i32::try_from(self.failures.min(64)).unwrap_or(64));
        let bound = limits.reconnect_min().as_secs_f64() * growth;
        Duration::try_from_secs_f64(bound).unwrap_or(Duration::MAX).min(limits.reconnect_max())
    }

    /// From 0 to 1.
    fn fraction(&mut self) -> f64 {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        f64::from(u32::try_from(self.random >> 32).unwrap_or(u32::MAX)) / f64::from(u32::MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(millis: u64) -> Timestamp {
        Timestamp::START.saturating_add(Duration::from_millis(millis))
    }

    #[test]
    fn l16_waits_are_random_below_a_bound_that_grows_to_its_limit() {
        let limits = Limits::default();
        let mut longest = [Duration::ZERO; 20];
        for seed in 1..2_000_u64 {
            let mut backoff = Backoff::new(0x9e37_79b9_7f4a_7c15_u64.wrapping_mul(seed));
            for longest in &mut longest {
                backoff.failed(at(7), &limits);
                *longest = backoff.next().since(at(7)).max(*longest);
            }
        }
        let bounds = [50.0, 80.0, 128.0, 204.8, 327.68];
        for (longest, bound) in longest.iter().zip(bounds) {
            let longest = longest.as_secs_f64() * 1000.0;
            assert!(longest <= bound && longest > bound * 0.95, "{longest} of {bound}");
        }
        assert!(longest[19] <= Duration::from_secs(5) && longest[19] > Duration::from_millis(4800));
    }

    #[test]
    fn a_connection_that_lived_starts_anew_and_one_that_did_not_counts_as_a_failure() {
        let limits = Limits::default();
        let mut backoff = Backoff::new(1);
        backoff.failed(at(0), &limits);
        backoff.lost(at(100), at(1099), &limits);
        assert_eq!(backoff.failures(), 2);
        backoff.lost(at(2000), at(3000), &limits);
        assert_eq!((backoff.failures(), backoff.next()), (0, at(3000)));
        backoff.refused(at(3000), &limits);
        assert_eq!(backoff.next(), at(8000));
    }
}
