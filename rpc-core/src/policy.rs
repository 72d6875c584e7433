//! What becomes of an endpoint whose code panics.

use crate::deadline::Timestamp;
use std::collections::VecDeque;
use std::time::Duration;

/// What becomes of an endpoint when a handler or a hook of it panics. In every case the caller gets
/// [`HandlerPanicked`](crate::ErrorKind::HandlerPanicked), [`on_error`](crate::RpcEndpoint::on_error)
/// is called, and the process, the thread and all other endpoints go on.
///
/// It counts for panics, not for errors that a handler returns.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum PanicPolicy {
    /// It goes on with the next message, its state as the panic left it.
    #[default]
    Resume,
    /// Its value is replaced by a new one: `on_stop`, the constructor and `on_start` run, and what is
    /// queued waits for that. Needs [`setup_endpoint_again`](crate::RpcEnv::setup_endpoint_again).
    Restart,
    /// It ends: what is queued fails as [`EndpointStopped`](crate::ErrorKind::EndpointStopped) at
    /// once, `on_stop` runs, its name is free.
    Stop,
}

/// How often an endpoint is started anew, and how fast. The default is five times in ten seconds, as
/// systemd has it for services (`StartLimitBurst`, `StartLimitIntervalSec`), after 100 ms (its
/// `RestartSec`), twice that with each further one, up to 5 s.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RestartLimit {
    most: u32,
    within: Duration,
    first: Duration,
    longest: Duration,
}

impl RestartLimit {
    /// At most `most` restarts within any stretch of time of that length; the panic after that ends
    /// the endpoint, as [`PanicPolicy::Stop`] does.
    #[must_use]
    pub fn new(most: u32, within: Duration) -> Self {
        Self { most, within, ..Self::default() }
    }

    /// How long it waits before a restart: `first` after a panic that comes alone, twice as long with
    /// each further restart in the same stretch of time, `longest` at most.
    #[must_use]
    pub fn backoff(mut self, first: Duration, longest: Duration) -> Self {
        (self.first, self.longest) = (first, longest);
        self
    }
}

impl Default for RestartLimit {
    fn default() -> Self {
        Self {
            most: 5,
            within: Duration::from_secs(10),
            first: Duration::from_millis(100),
            longest: Duration::from_secs(5),
        }
    }
}

/// The restarts of one endpoint that still count.
#[derive(Debug)]
pub(crate) struct Restarts {
    limit: RestartLimit,
    /// At most as many as the limit.
    recent: VecDeque<Timestamp>,
}

impl Restarts {
    pub(crate) fn new(limit: RestartLimit) -> Self {
        Self { limit, recent: VecDeque::new() }
    }

    /// Counts a restart at `now`: how long to wait before it, or `None` if there were too many.
    pub(crate) fn next(&mut self, now: Timestamp) -> Option<Duration> {
        while self.recent.front().is_some_and(|then| now.since(*then) >= self.limit.within) {
            self.recent.pop_front();
        }
        let before = u32::try_from(self.recent.len()).unwrap_or(u32::MAX);
        if before >= self.limit.most {
            return None;
        }
        self.recent.push_back(now);
        let factor = 1_u32.checked_shl(before).unwrap_or(u32::MAX);
        Some(self.limit.first.saturating_mul(factor).min(self.limit.longest))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(millis: u64) -> Timestamp {
        Timestamp::START.saturating_add(Duration::from_millis(millis))
    }

    #[test]
    fn waits_longer_each_time_and_gives_up_after_the_last() {
        let ms = Duration::from_millis;
        let limit = RestartLimit::new(4, ms(1000)).backoff(ms(10), ms(35));
        let mut restarts = Restarts::new(limit);
        let waits: Vec<_> = [0, 100, 200, 300, 400].map(|now| restarts.next(at(now))).into();
        assert_eq!(waits, [Some(ms(10)), Some(ms(20)), Some(ms(35)), Some(ms(35)), None]);
    }

    #[test]
    fn those_of_long_ago_do_not_count() {
        let ms = Duration::from_millis;
        let mut restarts = Restarts::new(RestartLimit::new(2, ms(100)).backoff(ms(10), ms(100)));
        assert_eq!(restarts.next(at(0)), Some(ms(10)));
        assert_eq!(restarts.next(at(99)), Some(ms(20)));
        assert_eq!(restarts.next(at(99)), None);
        // The first is forgotten, the second is not.
        assert_eq!(restarts.next(at(100)), Some(ms(20)));
        assert_eq!(restarts.next(at(300)), Some(ms(10)));
    }

    #[test]
    fn a_limit_of_none_never_restarts() {
        let mut restarts = Restarts::new(RestartLimit::new(0, Duration::MAX));
        assert_eq!(restarts.next(at(0)), None);
    }
}
