//! What a session has to say is given to the connection.

use super::close::{Close, CloseCode};
use super::lanes::Transmitted;
use super::large::Then;
use super::session::{Closing, Session};
use crate::deadline::Timestamp;
use bytes::{Bytes, BytesMut};
use std::collections::VecDeque;

impl Session {
    /// Whether there is something for the socket.
    #[must_use]
    pub fn has_output(&self) -> bool {
        let lasts = match self.closing {
            Closing::No => !self.lanes.is_empty(),
            Closing::Soon(_) => true,
            Closing::Said => false,
        };
        lasts && self.connected
    }

    /// Whether an ask is all there is to say, and nothing else is under way: nothing that it could
    /// wait for would come. Not if calls have gone out together just before.
    #[must_use]
    pub fn is_lone_ask(&self) -> bool {
        self.flights.len() == 1
            && self.ready.first().is_some_and(|ready| ready.0 == 1)
            && self.lanes.control_len() == 0
            && !self.together
    }

    /// Whether the peer leaves more unread than it could if it kept to the rules: more answers than
    /// it may have asked for at once, or an unlikely amount of what is said about endpoints. Large
    /// bodies do not count: if both sides stopped reading for theirs, neither would ever go on.
    #[must_use]
    pub fn is_flooded(&self) -> bool {
        self.lanes.answers() > self.limits.max_in_flight()
            || self.lanes.control_len() > self.limits.outbox_max_bytes()
    }

    /// What to close with if control frames pile up although nothing more is read: one read asked
    /// for very much that is answered at length.
    ///
    /// # Errors
    /// `Overloaded`, with the key.
    pub fn check_control(&self) -> Result<(), Close> {
        let (wait, most) = (self.lanes.control_len(), self.limits.max_control_bytes());
        if wait <= most {
            return Ok(());
        }
        let text = format!(
            "{wait} bytes of answers about endpoints wait to be read, over the limit of {most} (twice rpc.outbox.maxBytes, or 128 KiB)"
        );
        Err(Close::new(CloseCode::Overloaded, text))
    }

    /// Moves about `budget` bytes out, to be written in this order. They count as sent.
    pub fn transmit(
        &mut self,
        now: impl FnOnce() -> Timestamp,
        budget: usize,
        out: &mut VecDeque<Bytes>,
    ) {
        if !self.connected || matches!(self.closing, Closing::Said) {
            return;
        }
        if !self.lanes.is_empty() {
            self.transmit_lanes(now(), budget, out);
        }
        if let Closing::Soon(close) = &self.closing
            && self.lanes.is_empty()
        {
            let mut last = BytesMut::new();
            close.put(&mut last);
            out.push_back(last.freeze());
            self.closing = Closing::Said;
        }
    }

    fn transmit_lanes(&mut self, now: Timestamp, budget: usize, out: &mut VecDeque<Bytes>) {
        self.pulse.said(now);
        let done = self.lanes.transmit(budget, out);
        self.together = self.ready.iter().any(|ready| ready.0 > 1);
        for lane in 0..2 {
            if self.waiting.is_in(lane) {
                self.waiters_sent(lane);
            }
            if let Some((messages @ 1.., bytes)) = self.ready.get(lane).copied()
                && self.lanes.ready_is_empty(lane)
            {
                self.ready.get_mut(lane).map(std::mem::take);
                self.leave(messages, bytes);
            }
        }
        if !done.finished.is_empty() {
            self.large_finished(now, done);
        }
        self.settle_lingering();
        self.release_numbers();
        if !self.going.is_empty() {
            self.say_gone();
        }
        if self.queued == 0 {
            self.store.clear();
        }
    }

    #[cold]
    fn large_finished(&mut self, now: Timestamp, done: Transmitted) {
        for (Then { number, lane, place }, bytes) in done.finished {
            self.waits_no_more(place, true);
            if !self.numbers.is_relayed(number) {
                self.leave(1, bytes);
            }
            self.large_done(now, number, lane);
        }
    }

    /// Frames of a lane's buffer have gone out: those who waited with them have waited enough. They are
    /// counted apart from the rest of the buffer, which may have to wait.
    pub(super) fn waiters_sent(&mut self, lane: usize) {
        let (mut messages, mut all) = (0_usize, 0_usize);
        let lanes = &self.lanes;
        while let Some(place) = self.waiting.next_sent(lane, |at| lanes.has_gone(lane, at)) {
            let Some((bytes, call)) = self.waiting.take(place) else { continue };
            if let Some(call) = call {
                self.calls.finish(call, Ok(Bytes::new()), &mut self.wakes);
            }
            messages = messages.saturating_add(1);
            all = all.saturating_add(bytes);
        }
        if let Some(ready) = self.ready.get_mut(lane) {
            ready.0 = ready.0.saturating_sub(messages);
            ready.1 = ready.1.saturating_sub(all);
        }
        self.leave(messages, all);
    }
}
