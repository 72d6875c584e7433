//! Calls of this side that end: answered, given up, or out of time.

use super::calls::{Call, Progress};
use super::large::Then;
use super::notice::Notice;
use super::session::Session;
use super::target::TargetId;
use crate::counters::Count;
use crate::deadline::Timestamp;
use crate::plant::planted;
use crate::seam::CallEnd;
use crate::wire::frame::{self, Kind};
use crate::wire::payload::charged;
use bytes::Bytes;
use std::task::{Context, Poll};

impl Session {
    /// Ends a call with its answer.
    pub(super) fn finish(&mut self, now: Timestamp, id: u64, result: Result<Bytes, CallEnd>) {
        self.calls.finish(id, result, &mut self.wakes);
        if let Some(flight) = self.calls.get(id).and_then(|call| call.flight.take()) {
            self.landed(now, flight);
        }
    }

    /// The call's result, once. The waker is kept until then.
    pub fn poll_call(&mut self, id: u64, cx: &Context<'_>) -> Poll<Result<Bytes, CallEnd>> {
        let target = self.calls.get(id).map(|call| call.target);
        let polled = self.calls.poll(id, cx);
        if polled.is_ready() {
            self.call_closed(target);
        }
        polled
    }

    /// A call has left the table: its target may not be needed any more.
    fn call_closed(&mut self, target: Option<TargetId>) {
        let Some(id) = target else { return };
        if let Some(target) = self.targets.get_mut(id) {
            target.calls = target.calls.saturating_sub(1);
        }
        self.settle(id);
    }

    /// The caller gives up: what has not gone is taken back, what has gone is cancelled there.
    pub fn abandon(&mut self, now: Timestamp, id: u64) {
        if let Some(call) = self.calls.close(id) {
            self.withdraw(now, id, &call);
            self.call_closed(Some(call.target));
        }
    }

    /// The deadline of a call is over: it ends, for a caller who has not looked yet.
    pub fn expire(&mut self, now: Timestamp, id: u64) {
        let Some(open) = self.calls.get(id) else { return };
        if matches!(open.progress, Progress::Done(_)) {
            return;
        }
        let (target, relayed) = (open.target, open.relayed);
        let flight = open.flight.take();
        let end = Progress::Done(Err(CallEnd::TimedOut { sent: false }));
        let progress = std::mem::replace(&mut open.progress, end);
        let mut call = Call::ended(progress, target, flight);
        call.relayed = relayed;
        let sent = self.withdraw(now, id, &call);
        if let Some(open) = self.calls.get(id) {
            open.progress = Progress::Done(Err(CallEnd::TimedOut { sent }));
            self.wakes.extend(open.take_waker());
        }
    }

    pub(super) fn keep_deadline(&mut self, at: Timestamp, call: u64) {
        let calls = &self.calls;
        if self.deadlines.add(at, call, |call| calls.is_open(*call)) {
            self.alarm = Some(at);
        }
    }

    /// When this must be told of the time, if that has become earlier: see
    /// [`expire_due`](Self::expire_due).
    #[must_use]
    pub fn take_alarm(&mut self) -> Option<Timestamp> {
        self.alarm.take()
    }

    /// Ends the asks whose deadline is not after `until`; when to be told of the time again.
    pub fn expire_due(&mut self, now: Timestamp, until: Timestamp) -> Option<Timestamp> {
        let calls = &self.calls;
        let (due, next) = self.deadlines.due(until, |call| calls.is_open(*call));
        due.into_iter().for_each(|call| self.expire(now, call));
        next
    }

    /// Takes a call back as far as possible; whether the peer may have seen it.
    pub(super) fn withdraw(&mut self, now: Timestamp, id: u64, call: &Call) -> bool {
        let mut sent = false;
        match call.progress {
            Progress::Pending | Progress::Waiting => {
                let target = self.targets.get_mut(call.target);
                if let Some(entry) = target.and_then(|target| target.withdraw(id)) {
                    if call.relayed {
                        self.tell_refund(call.target, entry.bytes());
                    } else {
                        self.waits_no_more(entry.place(), false);
                        self.leave(1, entry.bytes());
                    }
                }
            }
            Progress::Ready { lane, offset, bytes, number }
                if !self.lanes.has_gone(lane, offset) =>
            {
                if self.lanes.take_back(lane, offset) && !planted!(RefundLost) {
                    self.refund(number, bytes);
                }
            }
            Progress::Ready { .. } | Progress::Sent => {
                sent = self.withdraw_sent(now, id, call.flight);
                if planted!(RefundTwice)
                    && let Progress::Ready { number, bytes, .. } = call.progress
                {
                    self.refund(number, bytes);
                }
            }
            Progress::Resolving => {
                if let Some(target) = self.targets.get_mut(call.target) {
                    target.resolvers.retain(|known| *known != id);
                }
            }
            Progress::Watching => {
                if let Some(target) = self.targets.get_mut(call.target) {
                    target.watchers.remove(&id);
                }
            }
            Progress::Done(_) => {}
        }
        if let Some(flight) = call.flight
            && !planted!(FlightKept)
        {
            self.landed(now, flight);
        }
        // Its place, or its credit, is for what waits behind it.
        self.pump(now, call.target);
        sent
    }

    pub(super) fn withdraw_sent(&mut self, now: Timestamp, id: u64, flight: Option<u64>) -> bool {
        if let Some(large) = self.lanes.drop_large(id) {
            if let Some(Then { number, lane, place }) = large.then {
                self.waits_no_more(place, false);
                self.refund(number, large.total);
                if !self.numbers.is_relayed(number) {
                    self.leave(1, large.total);
                }
                self.large_done(now, number, lane);
            }
            // A one-way message of which the end does not come is not handled.
            if !large.begun || flight.is_none() {
                return false;
            }
        }
        if let Some(flight) = flight.filter(|_| !planted!(CancelForgotten)) {
            self.tally.count(Count::CancelsSent);
            frame::put_control(self.lanes.control(), Kind::Cancel, &flight.to_be_bytes(), &[]);
        }
        true
    }

    /// What does not arrive is never given back as credit, so this side gives it back itself:
    /// to the window that it was taken from, if that is still open.
    fn refund(&mut self, number: u32, bytes: usize) {
        let Some(id) = self.numbers.holder(number) else { return };
        if let Some(target) = self.targets.get_mut(id) {
            target.refund(1, charged(bytes) as u64);
        }
        self.tell_refund(id, bytes);
    }

    /// Whoever a message was relayed for has spent credit for it as well.
    pub(super) fn tell_refund(&mut self, id: TargetId, bytes: usize) {
        self.tell(id, Notice::Credit { messages: 1, bytes: charged(bytes) as u64 });
    }

    /// A large message has gone: those behind it may go.
    pub(super) fn large_done(&mut self, now: Timestamp, number: u32, lane: usize) {
        self.numbers.large_ends(number);
        let Some(id) = self.numbers.holder(number) else {
            // It was for an endpoint that is gone.
            return self.release_numbers();
        };
        if let Some(large) = self.targets.get_mut(id).and_then(|t| t.large.get_mut(lane)) {
            *large = false;
        }
        self.pump(now, id);
    }
}
