//! When a worker tries again to register (D19, D20).

use std::hash::{BuildHasher, Hasher, RandomState};
use std::time::Duration;

/// So many attempts come quickly, and so many in all; the rest wait this many times as long.
const QUICK: u32 = 6;
const ALL: u32 = 16;
const SLOWER: u32 = 6;

/// One series of attempts. The fuzz factor is the worker's, drawn once, so that a fleet does not
/// reconnect in step.
#[derive(Debug)]
pub(crate) struct Retries {
    fuzz: f64,
    wait: Duration,
    done: u32,
}

impl Retries {
    /// `wait` is what a quick attempt waits, but for the fuzz.
    pub(crate) fn new(wait: Duration) -> Self {
        // The standard library's only source of random numbers is the seed of its hash maps.
        let random = RandomState::new().build_hasher().finish();
        let thousandths = u16::try_from(random % 1000).unwrap_or(0);
        Self { fuzz: 0.5 + f64::from(thousandths) / 1000.0, wait, done: 0 }
    }

    /// How long to wait before the next attempt; `None`: give up.
    pub(crate) fn next(&mut self) -> Option<Duration> {
        self.done += 1;
        let wait = match self.done {
            done if done <= QUICK => self.wait,
            done if done <= ALL => self.wait.saturating_mul(SLOWER),
            _ => return None,
        };
        Some(wait.mul_f64(self.fuzz))
    }

    /// The next attempt is the first of a series again.
    pub(crate) fn reset(&mut self) {
        self.done = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn six_quick_ten_slow_then_it_gives_up() {
        let mut retries = Retries::new(Duration::from_secs(10));
        assert!((0.5..1.5).contains(&retries.fuzz));
        let waits: Vec<_> = std::iter::from_fn(|| retries.next()).collect();
        assert_eq!(waits.len(), 16);
        let fuzz = retries.fuzz;
        let secs = |base: u64| Duration::from_secs(base).mul_f64(fuzz);
        assert!(waits[..6].iter().all(|&wait| wait == secs(10)), "the same factor each time");
        assert!(waits[6..].iter().all(|&wait| wait == secs(60)));
        retries.reset();
        assert_eq!(retries.next(), Some(secs(10)));
    }
}
