//! When a worker tries again to register (D19, D20).

use std::hash::{BuildHasher, Hasher, RandomState};
use std::time::Duration;

const FIRST: (u32, Duration) = (6, Duration::from_secs(10));
const ALL: (u32, Duration) = (16, Duration::from_secs(60));

/// One series of attempts. The fuzz factor is the worker's, drawn once, so that a fleet does not
/// reconnect in step.
#[derive(Debug)]
pub(crate) struct Retries {
    fuzz: f64,
    done: u32,
}

impl Retries {
    pub(crate) fn new() -> Self {
        // The standard library's only source of random numbers is the seed of its hash maps.
        let random = RandomState::new().build_hasher().finish();
        let thousandths = u16::try_from(random % 1000).unwrap_or(0);
        Self { fuzz: 0.5 + f64::from(thousandths) / 1000.0, done: 0 }
    }

    /// How long to wait before the next attempt; `None`: give up.
    pub(crate) fn next(&mut self) -> Option<Duration> {
        self.done += 1;
        let wait = match self.done {
            done if done <= FIRST.0 => FIRST.1,
            done if done <= ALL.0 => ALL.1,
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
        let mut retries = Retries::new();
        assert!((0.5..1.5).contains(&retries.fuzz));
        let waits: Vec<_> = std::iter::from_fn(|| retries.next()).collect();
        assert_eq!(waits.len(), 16);
        let secs = |base: u64| Duration::from_secs(base).mul_f64(retries.fuzz);
        assert!(waits[..6].iter().all(|&wait| wait == secs(10)), "the same factor each time");
        assert!(waits[6..].iter().all(|&wait| wait == secs(60)));
        retries.reset();
        assert_eq!(retries.next(), Some(secs(10)));
    }
}
