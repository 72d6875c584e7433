//! A message of the simulated cluster, and what became of it.

use super::messages::Deed;
use std::time::Duration;

/// A message that was sent.
#[derive(Debug)]
pub(super) struct Sent {
    pub(super) draft: Draft,
    pub(super) fate: Fate,
    /// When its caller stopped waiting by itself.
    pub(super) dropped: Option<Duration>,
    pub(super) received: bool,
}

impl Sent {
    pub(super) fn deadline(&self) -> Option<Duration> {
        Some(self.draft.at + self.draft.lasts?)
    }

    /// When the callee may say that its time is over, by a clock of that rate.
    pub(super) fn earliest_end(&self, fastest: f64) -> Option<Duration> {
        let Draft { at, timeout, lasts, .. } = self.draft;
        Some(at + timeout?.div_f64(fastest).min(lasts?))
    }
}

/// How it has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fate {
    Open,
    /// It must never be received.
    NeverSent,
    Ended,
    /// One way, and not refused.
    Taken,
}

/// A message that is about to be sent.
#[derive(Clone, Copy, Debug)]
pub(super) struct Draft {
    pub(super) bytes: usize,
    /// For asks.
    pub(super) deed: Option<Deed>,
    pub(super) at: Duration,
    /// For asks that have time of their own, and not that of a caller: by its caller's clock.
    pub(super) timeout: Option<Duration>,
    /// The same on the simulation's.
    pub(super) lasts: Option<Duration>,
}

impl Draft {
    /// A one-way message that is sent now.
    pub(super) fn tell(at: Duration, bytes: usize) -> Self {
        Self { bytes, deed: None, at, timeout: None, lasts: None }
    }

    /// An ask that is made now, and its time by the caller's clock and by the simulation's.
    pub(super) fn ask(
        at: Duration,
        bytes: usize,
        deed: Deed,
        (timeout, lasts): (Duration, Duration),
    ) -> Self {
        Self { bytes, deed: Some(deed), at, timeout: Some(timeout), lasts: Some(lasts) }
    }
}
