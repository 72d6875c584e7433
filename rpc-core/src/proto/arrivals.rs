//! Messages that came in a row, as most do: whole, with a number, in the normal lane, without headers.

use super::bodies::IncomingMessage;
use super::message_frame::Plain;
use super::target::WireNumber;
use crate::deadline::Timestamp;
use crate::memory::MOST_IN_A_ROW;
use crate::wire::frame::HEADER;
use bytes::Bytes;
use std::ops::Range;

/// Messages to one target that one read has brought in a row. Their bodies stay where they were read.
/// Of a longer row, 64 at a time: who holds one message holds what is said here of all.
#[derive(Debug)]
pub struct Arrivals {
    target: WireNumber,
    frames: Bytes,
    messages: Vec<Arrival>,
    asks: usize,
}

/// One of them, but for its body.
#[derive(Debug)]
pub(crate) struct Arrival {
    /// The call to answer, of an ask.
    pub(crate) call: Option<u64>,
    /// When the caller stops waiting.
    pub(crate) deadline: Timestamp,
    /// Where its body begins, and ends.
    at: usize,
    end: usize,
    /// Its number among those of the resolution.
    pub(crate) number: u16,
}

impl Arrival {
    /// The length of its body.
    pub(crate) fn bytes(&self) -> usize {
        self.end.saturating_sub(self.at)
    }
}

impl Arrivals {
    /// None yet, of what was read together.
    pub(super) fn new(frames: Bytes) -> Self {
        Self { target: 0, frames, messages: Vec::new(), asks: 0 }
    }

    /// Whether a message to that target belongs to them.
    pub(super) fn takes(&self, target: WireNumber) -> bool {
        self.messages.is_empty() || (self.target == target && self.messages.len() < MOST_IN_A_ROW)
    }

    /// Adds a message, whose body ends where the frame does.
    pub(super) fn add(&mut self, now: Timestamp, number: u16, plain: &Plain<'_>, frame_end: usize) {
        self.target = plain.target;
        if self.messages.capacity() == 0 {
            // As many as there are if all are as long as this one.
            let left = self.frames.len().saturating_sub(frame_end);
            let more = left.checked_div(HEADER.saturating_add(plain.body.len())).unwrap_or(0);
            self.messages.reserve_exact(more.saturating_add(1).min(MOST_IN_A_ROW));
        }
        self.asks = self.asks.saturating_add(usize::from(plain.call.is_some()));
        self.messages.push(Arrival {
            call: plain.call,
            deadline: plain.deadline(now),
            at: frame_end.saturating_sub(plain.body.len()),
            end: frame_end,
            number,
        });
    }

    /// Takes out what has been added.
    pub(super) fn take(&mut self) -> Self {
        let next = Self::new(self.frames.clone());
        std::mem::replace(self, next)
    }

    /// Takes out the only message that has been added.
    pub(super) fn take_only(&mut self) -> Option<IncomingMessage> {
        let only = if self.len() == 1 { self.message(0) } else { None };
        if only.is_some() {
            (self.asks, _) = (0, self.messages.clear());
        }
        only
    }

    /// What the peer calls the endpoint.
    #[must_use]
    pub fn target(&self) -> WireNumber {
        self.target
    }

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.messages.len()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.messages.is_empty()
    }

    /// How many of them are asks.
    #[must_use]
    pub fn asks(&self) -> usize {
        self.asks
    }

    /// The lengths of their bodies.
    pub fn sizes(&self) -> impl Iterator<Item = usize> {
        self.messages.iter().map(Arrival::bytes)
    }

    /// The same of those in these places.
    pub(crate) fn sizes_of(&self, places: Range<usize>) -> impl Iterator<Item = usize> {
        self.messages.get(places).unwrap_or_default().iter().map(Arrival::bytes)
    }

    /// Forgets all but the first ones.
    pub fn truncate(&mut self, length: usize) {
        if length >= self.len() {
            return;
        }
        self.messages.truncate(length);
        self.asks = self.messages.iter().filter(|message| message.call.is_some()).count();
    }

    pub(crate) fn get(&self, place: usize) -> Option<&Arrival> {
        self.messages.get(place)
    }

    /// A message's body.
    pub(crate) fn body(&self, place: usize) -> &[u8] {
        let message = self.messages.get(place);
        let body = message.and_then(|message| self.frames.get(message.at..message.end));
        body.unwrap_or_default()
    }

    /// The same, to be kept: it shares the buffer of all of them.
    pub(crate) fn kept_body(&self, place: usize) -> Bytes {
        self.keep(self.body(place))
    }

    /// A part of what was read together, to be kept.
    pub(super) fn keep(&self, part: &[u8]) -> Bytes {
        self.frames.slice_ref(part)
    }

    /// Them, one by one.
    pub fn into_messages(self) -> impl Iterator<Item = IncomingMessage> {
        (0..self.len()).map_while(move |place| self.message(place))
    }

    fn message(&self, place: usize) -> Option<IncomingMessage> {
        let Arrival { call, deadline, number, .. } = *self.messages.get(place)?;
        let body = self.kept_body(place);
        Some(IncomingMessage::plain(self.target, number, call, deadline, body))
    }
}

#[cfg(test)]
mod tests {
    use crate::deadline::Timestamp;
    use crate::limits::Limits;
    use crate::memory::MOST_IN_A_ROW;
    use crate::proto::{Event, Session};
    use crate::wire::frame::{FLAG_BULK, Kind, put_control, put_header};
    use bytes::BytesMut;

    fn put(into: &mut BytesMut, flags: u8, number: u16, target: u32, body: &[u8]) {
        put_header(into, 4 + body.len(), Kind::OneWay, flags, number);
        into.extend_from_slice(&target.to_be_bytes());
        into.extend_from_slice(body);
    }

    fn put_ask(into: &mut BytesMut, call: u64, target: u32, body: &[u8]) {
        put_header(into, 16 + body.len(), Kind::Ask, 0, 1);
        into.extend_from_slice(&call.to_be_bytes());
        into.extend_from_slice(&target.to_be_bytes());
        into.extend_from_slice(&5_u32.to_be_bytes());
        into.extend_from_slice(body);
    }

    /// The messages of an event: their targets and bodies.
    type Row = Vec<(u32, Vec<u8>)>;

    /// What a session makes of the bytes, and whether it can read them.
    fn rows(mut bytes: BytesMut) -> (Vec<Row>, bool) {
        let (mut session, mut events) = (Session::new(Limits::default(), "test"), Vec::new());
        let read = session.receive(Timestamp::START, &mut bytes, &mut events);
        let rows = events.into_iter().map(|event| match event {
            Event::Message(one) => vec![(one.target, one.body.to_vec())],
            Event::Messages(row) => {
                assert_eq!(row.len(), row.sizes().count());
                let target = row.target();
                let messages: Row =
                    row.into_messages().map(|one| (one.target, one.body.to_vec())).collect();
                assert!(messages.iter().all(|(of, _)| *of == target));
                messages
            }
            Event::Release(_) => Vec::new(),
            event => panic!("{event:?}"),
        });
        (rows.collect(), read.is_ok())
    }

    #[test]
    fn messages_to_one_target_are_one_event_and_all_keep_their_order() {
        let mut bytes = BytesMut::new();
        put(&mut bytes, 0, 0, 1, b"a");
        put_ask(&mut bytes, 0, 1, b"bc");
        put(&mut bytes, 0, 0, 2, b"d");
        put(&mut bytes, 0, 0, 1, b"");
        put(&mut bytes, FLAG_BULK, 0, 1, b"e");
        put(&mut bytes, 0, 0, 1, b"f");
        put_control(&mut bytes, Kind::Release, &7_u32.to_be_bytes(), &[]);
        put(&mut bytes, 0, 0, 1, b"g");
        put(&mut bytes, 0, 0, 1, b"h");
        let one = |target: u32, body: &str| (target, body.as_bytes().to_vec());
        let expected = vec![
            vec![one(1, "a"), one(1, "bc")],
            vec![one(2, "d")],
            vec![one(1, "")],
            vec![one(1, "e")],
            vec![one(1, "f")],
            vec![],
            vec![one(1, "g"), one(1, "h")],
        ];
        assert_eq!(rows(bytes), (expected, true));
    }

    #[test]
    fn what_comes_before_a_broken_frame_is_told() {
        let mut bytes = BytesMut::new();
        put(&mut bytes, 0, 0, 1, b"a");
        put(&mut bytes, 0, 0, 1, b"b");
        put_control(&mut bytes, Kind::OneWay, &[0], &[]);
        put(&mut bytes, 0, 0, 1, b"c");
        let (rows, fine) = rows(bytes);
        assert_eq!((rows, fine), (vec![vec![(1, vec![b'a']), (1, vec![b'b'])]], false));
    }

    #[test]
    fn a_long_row_comes_in_pieces() {
        let mut bytes = BytesMut::new();
        let all = MOST_IN_A_ROW * 2 + 1;
        (0..all).for_each(|number| put(&mut bytes, 0, 0, 1, &number.to_be_bytes()));
        let (rows, _) = rows(bytes);
        let lengths: Vec<usize> = rows.iter().map(Vec::len).collect();
        assert_eq!(lengths, [MOST_IN_A_ROW, MOST_IN_A_ROW, 1]);
        let bodies = rows.concat().into_iter().map(|(_, body)| body);
        assert!(bodies.eq((0..all).map(|number| number.to_be_bytes().to_vec())));
    }

    #[test]
    fn asks_are_counted_among_those_that_are_left() {
        let mut bytes = BytesMut::new();
        (0..3).for_each(|call| put_ask(&mut bytes, call, 1, b"a"));
        put(&mut bytes, 0, 0, 1, b"b");
        let (mut session, mut events) = (Session::new(Limits::default(), "test"), Vec::new());
        session.receive(Timestamp::START, &mut bytes, &mut events).unwrap();
        let Some(Event::Messages(mut row)) = events.pop() else { panic!("no row") };
        assert_eq!((row.len(), row.asks()), (4, 3));
        row.truncate(4);
        assert_eq!((row.len(), row.asks()), (4, 3));
        row.truncate(2);
        assert_eq!((row.len(), row.asks()), (2, 2));
    }
}
