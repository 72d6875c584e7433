//! What a session counts for its env, and whether that can be.

use super::session::Session;
use crate::counters::{Count, Tally};
use std::collections::VecDeque;
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

    /// Whether what it holds is within its limits, and adds up. Its tables are compared with each
    /// other as well if the feature `audit` is on.
    ///
    /// # Errors
    /// What does not.
    pub fn audit(&self) -> Result<(), String> {
        let broken = self.does_not_add_up();
        #[cfg(feature = "audit")]
        let broken = broken.or_else(|| self.unsound().into_iter().next());
        match broken {
            Some(text) => Err(format!("{}: {text}", self.peer_name)),
            None => Ok(()),
        }
    }

    /// Which limit or sum does not hold.
    pub(super) fn does_not_add_up(&self) -> Option<String> {
        let room = self.outbox_for(true);
        let most = room.messages.saturating_add(self.limits.outbox_max_waiting());
        let (count, bytes) = self.targets.waiting();
        let (flights, served) = (self.flights.len(), self.serving.len());
        let in_flight = self.limits.max_in_flight();
        let text = if self.queued > most {
            format!("{} of {most} messages are queued", self.queued)
        } else if self.queued < count {
            format!("{} messages are queued, and {count} wait", self.queued)
        } else if self.queued_bytes < bytes {
            format!("{} bytes, and {bytes} wait", self.queued_bytes)
        } else if self.queued == 0 && self.queued_bytes > 0 {
            format!("no message is queued, and has {} bytes", self.queued_bytes)
        } else if self.next_has_room().is_some() {
            "there is room, and who waits for it was not told".to_owned()
        } else if self.place_unheard() {
            "a call waits, and there is a place in flight".to_owned()
        } else if flights > in_flight {
            format!("{flights} of {in_flight} calls are in flight")
        } else if served > in_flight {
            format!("{served} of {in_flight} calls are served")
        } else {
            return None;
        };
        Some(text)
    }

    /// Whether a target waits for a place among the calls in flight that is there.
    fn place_unheard(&self) -> bool {
        let flights = self.flights.len();
        let mut first = self.blocked.iter().filter_map(VecDeque::front);
        self.peer.is_some() && first.any(|id| flights < self.in_flight_for(*id))
    }

    /// What has begun and not ended: calls in either direction, and messages on their way.
    #[must_use]
    pub fn unfinished(&self) -> Option<String> {
        let (calls, served) = self.open_calls();
        let (flights, queued) = (self.flights.len(), self.queued);
        (calls > 0 || served > 0 || flights > 0 || queued > 0).then(|| {
            format!(
                "{}: {calls} calls, {flights} in flight, {served} served, {queued} messages queued",
                self.peer_name
            )
        })
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        self.settle_counts();
    }
}
