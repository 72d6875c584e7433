//! What holds of a session between any two of its calls: looked at by tests and fuzzers after
//! each, and by simulations again and again.

use super::calls::{Call, Progress};
use super::session::{Closing, Session};
#[cfg(feature = "audit")]
use super::target::WireNumber;
use super::target::{Phase, Target, TargetId};
use super::waiting::Place;
use std::collections::{BTreeMap, BTreeSet};

impl Session {
    /// Says what does not hold of the tables: each of them against the others, and against its limit.
    pub(crate) fn unsound(&self) -> Vec<String> {
        let mut wrong = Vec::new();
        let mut hold = |holds: bool, what: &str| {
            if !holds {
                wrong.push(what.to_owned());
            }
        };
        let most = self.limits.max_in_flight();
        hold(self.serving.len() <= most, "more calls are served than may be in flight");
        hold(self.serving.is_counted(), "the served calls are counted wrong");
        hold(self.flights.len() <= most, "more calls are in flight than may be");
        hold(self.flights.is_counted(), "the relayed flights are counted wrong");
        hold(
            self.assemblies.is_counted(),
            "large bodies that come are counted wrong, or over limit",
        );
        hold(self.lanes.is_counted(), "large bodies that go are counted wrong");
        hold(self.calls_agree(), "a call and its flight disagree");
        hold(self.targets_agree(), "a target is not what its number, its calls or its queue say");
        let (messages, bytes) = self.queue_found();
        // What was in the lanes is dropped when this side closes, and counted when the connection is gone.
        let closing = !matches!(self.closing, Closing::No);
        let counted = |found: usize, queued: usize| found == queued || closing && found < queued;
        hold(self.waiting.is_counted(), "those who wait for room are counted wrong");
        hold(self.waiters_agree(closing), "who waits for room is not who is said to");
        let (room, (taken, bytes_taken)) = (self.outbox_for(true), self.room_taken());
        hold(
            taken <= room.messages && (bytes_taken <= room.bytes || taken == 1),
            "more has room than there is",
        );
        hold(self.peer.is_some() == self.connected, "a connection is there or it is not");
        hold(self.peer.is_some() || self.lanes.is_empty(), "something waits for no connection");
        if !counted(messages, self.queued) {
            wrong.push(format!("{messages} messages wait, not {}", self.queued));
        }
        if !counted(bytes, self.queued_bytes) {
            wrong.push(format!("{bytes} bytes wait, not {}", self.queued_bytes));
        }
        wrong
    }

    /// What may be sent to each endpoint that the peer has resolved, by its number: messages and bytes.
    #[cfg(feature = "audit")]
    #[must_use]
    pub fn credit_left(&self) -> Vec<(WireNumber, (i64, i64))> {
        let resolved = self.targets.iter().filter(|target| {
            // What is relayed for this side is granted by somebody else.
            target.phase == Phase::Resolved && target.key.env.is_none()
        });
        let left = resolved
            .filter_map(|target| Some((target.number?, (target.messages_left, target.bytes_left))));
        left.collect()
    }

    /// The messages, and their bytes, that wait for the socket and are this env's own.
    #[cfg(any(test, fuzzing))]
    pub(crate) fn queued(&self) -> (usize, usize) {
        (self.queued, self.queued_bytes)
    }

    /// A call in flight knows its number, and the number knows its call; one that waits has none.
    fn calls_agree(&self) -> bool {
        let flies = |call: &Call| match call.progress {
            Progress::Ready { .. } | Progress::Sent => true,
            _ => call.flight.is_none(),
        };
        let mut ours = 0;
        let agrees = |(id, call): (u64, &Call)| {
            ours += usize::from(call.flight.is_some());
            flies(call) && call.flight.is_none_or(|flight| self.flights.call_of(flight) == Some(id))
        };
        // As many as there are flights, and each of them another: all flights are theirs.
        self.calls.iter().all(agrees) && ours == self.flights.len()
    }

    /// Who waits for room has a message in a queue or a lane, and a `send_wait` that has not ended is
    /// among them.
    fn waiters_agree(&self, closing: bool) -> bool {
        let in_lanes = self.lanes.requests().filter_map(|(then, _)| then.place);
        let queued = self.targets.places().into_iter();
        let found: BTreeSet<Place> =
            queued.chain(in_lanes).chain(self.waiting.in_lanes()).collect();
        let told: BTreeSet<u64> = self.waiting.places().filter_map(|(_, call)| call).collect();
        let waits = |call: &Call| matches!(call.progress, Progress::Waiting);
        self.waiting.places().all(|(place, _)| closing || found.contains(&place))
            && self.calls.iter().all(|(id, call)| !waits(call) || told.contains(&id))
    }

    fn targets_agree(&self) -> bool {
        let mut calls = BTreeMap::<TargetId, usize>::new();
        for (_, call) in self.calls.iter() {
            *calls.entry(call.target).or_default() += 1;
        }
        let numbered = |id: TargetId, target: &Target| match target.number {
            Some(number) => {
                target.phase != Phase::Unknown && self.numbers.holder(number) == Some(id)
            }
            None => target.phase == Phase::Unknown,
        };
        let queued = |id: TargetId, target: &Target| {
            let mut queues = self.blocked.iter().chain([&self.blocked_relayed]);
            let blocked = queues.any(|queue| queue.contains(&id));
            blocked == target.blocked && self.starved.contains(&id) == target.starved
        };
        let all = self.targets.ids(|_| true);
        let agrees = |id: &TargetId| {
            let counted = calls.get(id).copied().unwrap_or(0);
            self.targets.get(*id).is_some_and(|target| {
                let resolved = target.phase == Phase::Resolved;
                target.calls == counted
                    && target.messages_left >= 0
                    && target.pending.iter().all(|queue| queue.is_sound(resolved))
                    && numbered(*id, target)
                    && queued(*id, target)
            })
        };
        let system = self.targets.iter().filter(|target| target.system).count();
        all.iter().all(agrees) && system == self.reserves
    }

    /// The messages that have not been given to the socket, and their bytes, as they are found.
    fn queue_found(&self) -> (usize, usize) {
        let large = self.lanes.requests().filter(|(then, _)| !self.numbers.is_relayed(then.number));
        let large = large.map(|(_, bytes)| (1, bytes));
        let all = large.chain([self.targets.waiting()]).chain(self.ready);
        all.fold((0, 0), |(messages, bytes), (more, size)| (messages + more, bytes + size))
    }
}
