//! One direction of a simulated connection: what is under way, and what waits to be read.

use bytes::{Buf, Bytes};
use rpc_core::Timestamp;
use std::collections::VecDeque;
use std::net::IpAddr;
use std::task::Waker;
use std::time::Duration;

/// What travels.
#[derive(Debug)]
pub(super) enum Segment {
    Data(Bytes),
    /// Nothing comes after this.
    Fin,
    /// The connection is gone.
    Reset,
}

/// How a pipe has ended for its reader.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End {
    Fin,
    Reset,
}

#[derive(Debug)]
pub(super) struct Pipe {
    pub(super) from: IpAddr,
    pub(super) to: IpAddr,
    flight: VecDeque<(Timestamp, Segment)>,
    flying: usize,
    arrived: VecDeque<Bytes>,
    waiting: usize,
    pub(super) end: Option<End>,
    /// Since when its reader has had all that came.
    pub(super) read_since: Timestamp,
    /// Whether its writer has closed it.
    pub(super) finished: bool,
    /// Somebody on the way has ended it for the reader: what is written leads nowhere.
    severed: bool,
    /// Until when the way is busy, and when the last segment arrives.
    busy_until: Timestamp,
    last: Timestamp,
    /// After so many bytes more the connection breaks.
    pub(super) breaks_after: Option<usize>,
    pub(super) reader: Option<Waker>,
    pub(super) writer: Option<Waker>,
}

impl Pipe {
    pub(super) fn new(from: IpAddr, to: IpAddr) -> Self {
        Self {
            from,
            to,
            flight: VecDeque::new(),
            flying: 0,
            arrived: VecDeque::new(),
            waiting: 0,
            end: None,
            read_since: Timestamp::START,
            finished: false,
            severed: false,
            busy_until: Timestamp::START,
            last: Timestamp::START,
            breaks_after: None,
            reader: None,
            writer: None,
        }
    }

    /// Bytes that are neither read nor lost.
    pub(super) fn held(&self) -> usize {
        self.flying.saturating_add(self.waiting)
    }

    pub(super) fn has_unread(&self) -> bool {
        self.waiting > 0
    }

    pub(super) fn is_empty(&self) -> bool {
        self.flight.is_empty()
    }

    /// Since when its reader can know that its writer has ended it.
    pub(super) fn over_since(&self) -> Option<Timestamp> {
        (self.end == Some(End::Fin) && !self.has_unread()).then_some(self.read_since)
    }

    /// Sends something that is `latency` under way and keeps the way busy for `busy`. When it arrives.
    pub(super) fn put(
        &mut self,
        now: Timestamp,
        (latency, busy): (Duration, Duration),
        segment: Segment,
    ) -> Option<Timestamp> {
        if self.severed {
            return None;
        }
        self.busy_until = self.busy_until.max(now).saturating_add(busy);
        let at = self.busy_until.saturating_add(latency).max(self.last);
        self.last = at;
        if let Segment::Data(data) = &segment {
            self.flying = self.flying.saturating_add(data.len());
        }
        self.flight.push_back((at, segment));
        Some(at)
    }

    /// What has arrived by now, one by one.
    pub(super) fn next_arrival(&mut self, now: Timestamp) -> Option<Segment> {
        if self.flight.front()?.0 > now {
            return None;
        }
        let (_, segment) = self.flight.pop_front()?;
        if let Segment::Data(data) = &segment {
            self.flying = self.flying.saturating_sub(data.len());
        }
        Some(segment)
    }

    /// What was held up on the way sets out again: nothing arrives before `at`.
    pub(super) fn delay(&mut self, at: Timestamp) -> Option<Timestamp> {
        for (arrives, _) in &mut self.flight {
            *arrives = (*arrives).max(at);
        }
        self.last = self.last.max(at);
        self.flight.front().map(|(at, _)| *at)
    }

    /// Of what is under way only the first `kept` segments arrive.
    pub(super) fn lose(&mut self, kept: usize) {
        self.flight.truncate(kept);
        let data = self.flight.iter().map(|(_, segment)| match segment {
            Segment::Data(data) => data.len(),
            Segment::Fin | Segment::Reset => 0,
        });
        self.flying = data.sum();
    }

    pub(super) fn under_way(&self) -> usize {
        self.flight.len()
    }

    /// Data for the reader.
    pub(super) fn arrive(&mut self, data: Bytes) {
        self.waiting = self.waiting.saturating_add(data.len());
        self.arrived.push_back(data);
    }

    /// Its writer has said its last word.
    pub(super) fn finish(&mut self, now: Timestamp) {
        self.end.get_or_insert(End::Fin);
        self.read_since = self.read_since.max(now);
    }

    /// Takes up to `most` bytes for the reader.
    pub(super) fn take(&mut self, now: Timestamp, most: usize) -> Bytes {
        self.read_since = now;
        let Some(front) = self.arrived.front_mut() else { return Bytes::new() };
        let taken = front.split_to(most.min(front.len()));
        if !front.has_remaining() {
            self.arrived.pop_front();
        }
        self.waiting = self.waiting.saturating_sub(taken.len());
        taken
    }

    /// How much of it one read can have.
    pub(super) fn readable(&self) -> usize {
        self.arrived.front().map_or(0, Bytes::len)
    }

    /// Nothing more of what its writer writes arrives, and the reader sees its end.
    pub(super) fn sever(&mut self) {
        self.severed = true;
    }

    /// Ends it at once, on both sides.
    pub(super) fn break_now(&mut self, wakes: &mut Vec<Waker>) {
        self.lose(0);
        self.end.get_or_insert(End::Reset);
        self.finished = true;
        self.wake_both(wakes);
    }

    pub(super) fn wake_both(&mut self, wakes: &mut Vec<Waker>) {
        wakes.extend(self.reader.take());
        wakes.extend(self.writer.take());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(millis: u64) -> Timestamp {
        Timestamp::START.saturating_add(Duration::from_millis(millis))
    }

    fn pipe() -> Pipe {
        Pipe::new([127, 1, 0, 1].into(), [127, 1, 0, 2].into())
    }

    const fn ms(millis: u64) -> Duration {
        Duration::from_millis(millis)
    }

    #[test]
    fn bytes_arrive_in_order_however_long_each_is_under_way() {
        let mut pipe = pipe();
        let slow = pipe.put(at(0), (ms(50), ms(0)), Segment::Data(Bytes::from_static(b"ab")));
        let fast = pipe.put(at(1), (ms(1), ms(0)), Segment::Data(Bytes::from_static(b"c")));
        assert_eq!((slow, fast), (Some(at(50)), Some(at(50))));
        assert_eq!(pipe.held(), 3);
        assert!(pipe.next_arrival(at(49)).is_none());
        while let Some(Segment::Data(data)) = pipe.next_arrival(at(50)) {
            pipe.arrive(data);
        }
        assert_eq!(
            (pipe.take(at(50), 1), pipe.take(at(50), 9), pipe.take(at(60), 9)),
            ("a".into(), "b".into(), "c".into())
        );
        assert!(!pipe.has_unread() && pipe.is_empty() && pipe.held() == 0);
    }

    #[test]
    fn a_narrow_way_is_busy() {
        let mut pipe = pipe();
        let first = pipe.put(at(0), (ms(1), ms(100)), Segment::Data(Bytes::from_static(b"a")));
        let second = pipe.put(at(0), (ms(1), ms(100)), Segment::Fin);
        assert_eq!((first, second), (Some(at(101)), Some(at(201))));
        assert_eq!(pipe.delay(at(150)), Some(at(150)));
    }
}
