//! What a session counts for its env.

use super::session::Session;
use crate::counters::{Count, Tally};
use std::sync::Arc;

impl Session {
    /// The same, counting for an env.
    #[must_use]
    pub fn counting(mut self, tally: &Arc<Tally>) -> Self {
        self.tally = tally.clone();
        self
    }

    /// Adds what was counted under the session's lock to what its env has counted.
    pub fn settle_counts(&mut self) {
        use Count::{AsksRemote, FailuresReceived, FailuresSent};
        use Count::{RepliesReceived, RepliesSent, SendsRemote};
        let called = [AsksRemote, SendsRemote, RepliesReceived, FailuresReceived].map(Some);
        self.called.settle(&self.tally, called);
        self.served.settle(&self.tally, [None, None, Some(RepliesSent), Some(FailuresSent)]);
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        self.settle_counts();
    }
}
