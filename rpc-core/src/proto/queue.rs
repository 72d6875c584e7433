//! What waits for one target in one lane: messages, and runs of frames that are ready to go.

use super::named::Named;
use super::waiting::Place;
use crate::deadline::Timestamp;
use crate::trace::TraceContext;
use crate::wire::frame::{self, HEADER, Header, Kind};
use crate::wire::payload::charged;
use crate::wire::rope::Rope;
use bytes::Bytes;
use std::collections::VecDeque;
use std::collections::vec_deque::Drain;

/// Bytes of a run: as much memory as one message of it may keep from being freed.
const RUN: usize = 4096;
/// What a one-way message's frame has before the body: its header, and the target's number.
const HEAD: usize = HEADER + 4;

/// A message that cannot go yet.
#[derive(Debug)]
pub(crate) struct Pending {
    /// The call, of an ask or of a `send_wait`.
    pub(crate) call: Option<u64>,
    pub(crate) ask: bool,
    pub(crate) name: Named,
    pub(crate) body: Rope,
    pub(crate) deadline: Timestamp,
    pub(crate) trace: Option<TraceContext>,
    /// Where it waits for room.
    pub(crate) place: Option<Place>,
}

/// A message on its way into a lane, but for its body.
#[derive(Clone, Copy)]
pub(super) struct Going<'a> {
    pub(super) name: &'a Named,
    /// The call, of an ask or of a `send_wait`.
    pub(super) call: Option<u64>,
    pub(super) ask: bool,
    pub(super) deadline: Timestamp,
    pub(super) trace: Option<&'a TraceContext>,
    /// Where it waits for room.
    pub(super) place: Option<Place>,
}

/// One-way messages without a call and a trace, whose bodies cost no bytes of credit, as frames under
/// the number that the target has now.
#[derive(Debug)]
pub(crate) struct Run {
    frames: Vec<u8>,
    /// Where the first of them begins that has not gone.
    at: usize,
    /// Those that have not gone, and the bytes of their bodies.
    messages: usize,
    bytes: usize,
}

/// What is next in a queue.
#[derive(Debug)]
pub(crate) enum Entry {
    One(Pending),
    Run(Run),
}

impl Entry {
    pub(crate) fn messages(&self) -> usize {
        match self {
            Self::One(_) => 1,
            Self::Run(run) => run.messages,
        }
    }

    /// The bytes of their bodies.
    pub(crate) fn bytes(&self) -> usize {
        match self {
            Self::One(pending) => pending.body.len(),
            Self::Run(run) => run.bytes,
        }
    }

    /// The bytes of the first one's body, as far as they cost credit.
    pub(crate) fn first_bytes(&self) -> usize {
        match self {
            Self::One(pending) => pending.body.len(),
            Self::Run(_) => 0,
        }
    }

    pub(crate) fn call(&self) -> Option<u64> {
        match self {
            Self::One(pending) => pending.call,
            Self::Run(_) => None,
        }
    }

    /// Where it waits for room, if it does.
    pub(crate) fn place(&self) -> Option<Place> {
        match self {
            Self::One(pending) => pending.place,
            Self::Run(_) => None,
        }
    }
}

/// Messages in the order in which they were sent.
#[derive(Debug, Default)]
pub(crate) struct Queue {
    entries: VecDeque<Entry>,
    messages: usize,
}

impl Queue {
    pub(crate) fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// How many messages wait.
    pub(crate) fn len(&self) -> usize {
        self.messages
    }

    pub(crate) fn front(&self) -> Option<&Entry> {
        self.entries.front()
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &Entry> {
        self.entries.iter()
    }

    /// Whether it has as many messages as it says, and runs only while `resolved`.
    #[cfg(any(test, fuzzing, feature = "audit"))]
    pub(crate) fn is_sound(&self, resolved: bool) -> bool {
        let runs = self.entries.iter().any(|entry| matches!(entry, Entry::Run(_)));
        self.entries.iter().map(Entry::messages).sum::<usize>() == self.messages
            && (resolved || !runs)
    }

    pub(crate) fn push(&mut self, pending: Pending) {
        self.messages = self.messages.saturating_add(1);
        self.entries.push_back(Entry::One(pending));
    }

    /// Whether a body may be in a run: what allows one message then allows it.
    pub(crate) fn takes(bytes: usize) -> bool {
        charged(bytes) == 0
    }

    /// Adds a one-way message as the frame that it will be, as long as the target has that number.
    pub(crate) fn push_frame(&mut self, target: u32, flags: u8, message: u16, body: &[u8]) {
        let whole = HEAD.saturating_add(body.len());
        self.messages = self.messages.saturating_add(1);
        let more = match self.entries.back_mut() {
            Some(Entry::Run(run)) if run.frames.len().saturating_add(whole) <= RUN => run,
            last => {
                // The first one may be the only one.
                let room = if last.is_some() { RUN } else { 0 };
                let frames = Vec::with_capacity(room.max(whole));
                self.entries.push_back(Entry::Run(Run { frames, at: 0, messages: 0, bytes: 0 }));
                let Some(Entry::Run(run)) = self.entries.back_mut() else { return };
                run
            }
        };
        more.messages = more.messages.saturating_add(1);
        more.bytes = more.bytes.saturating_add(body.len());
        let length = whole.saturating_sub(HEADER);
        more.frames.extend_from_slice(&frame::header(length, Kind::OneWay, flags, message));
        more.frames.extend_from_slice(&target.to_be_bytes());
        more.frames.extend_from_slice(body);
    }

    /// Takes out the first message, if it is not in a run.
    pub(crate) fn pop(&mut self) -> Option<Pending> {
        match self.entries.pop_front()? {
            Entry::One(pending) => {
                self.messages = self.messages.saturating_sub(1);
                Some(pending)
            }
            run @ Entry::Run(_) => {
                self.entries.push_front(run);
                None
            }
        }
    }

    /// Takes the first messages out of the run in front, `most` of them or all: `put` is given their
    /// frames. Their number, and the bytes of their bodies.
    pub(crate) fn take_run(&mut self, most: usize, put: impl FnOnce(&[u8])) -> (usize, usize) {
        let Some(Entry::Run(run)) = self.entries.front_mut() else { return (0, 0) };
        let (messages, bytes, end) = run.first(most);
        put(run.frames.get(run.at..end).unwrap_or_default());
        run.at = end;
        run.messages = run.messages.saturating_sub(messages);
        run.bytes = run.bytes.saturating_sub(bytes);
        if run.messages == 0 {
            self.entries.pop_front();
        }
        self.messages = self.messages.saturating_sub(messages);
        (messages, bytes)
    }

    /// Takes a call out.
    pub(crate) fn withdraw(&mut self, call: u64) -> Option<Entry> {
        let place = self.entries.iter().position(|entry| entry.call() == Some(call))?;
        self.messages = self.messages.saturating_sub(1);
        self.entries.remove(place)
    }

    /// Takes all out.
    pub(crate) fn drain(&mut self) -> Drain<'_, Entry> {
        self.messages = 0;
        self.entries.drain(..)
    }

    /// The number is over: what is in runs waits again as the messages that it was made of. `name`
    /// tells which message had a number.
    pub(crate) fn take_apart(&mut self, name: impl Fn(u16) -> Named) {
        if !self.entries.iter().any(|entry| matches!(entry, Entry::Run(_))) {
            return;
        }
        for entry in std::mem::take(&mut self.entries) {
            match entry {
                Entry::Run(run) => run.into_messages(&mut self.entries, &name),
                one @ Entry::One(_) => self.entries.push_back(one),
            }
        }
    }
}

impl Run {
    /// The first messages, `most` of them or all: their number, the bytes of their bodies, and where
    /// their frames end.
    fn first(&self, most: usize) -> (usize, usize, usize) {
        if self.messages <= most {
            return (self.messages, self.bytes, self.frames.len());
        }
        let (mut messages, mut end) = (0_usize, self.at);
        while messages < most
            && let Some(header) = self.frames.get(end..).and_then(Header::read)
        {
            end = end.saturating_add(HEADER).saturating_add(header.length);
            messages = messages.saturating_add(1);
        }
        let heads = messages.saturating_mul(HEAD);
        (messages, end.saturating_sub(self.at).saturating_sub(heads), end)
    }

    fn into_messages(self, into: &mut VecDeque<Entry>, name: impl Fn(u16) -> Named) {
        let (frames, mut at) = (Bytes::from(self.frames), self.at);
        while let Some((header, payload)) = frames.get(at..).and_then(Header::split) {
            at = at.saturating_add(HEADER).saturating_add(header.length);
            let body = Rope::from(frames.slice_ref(payload.get(4..).unwrap_or_default()));
            let (name, deadline) = (name(header.message), Timestamp::MAX);
            into.push_back(Entry::One(Pending {
                call: None,
                ask: false,
                name,
                body,
                deadline,
                trace: None,
                place: None,
            }));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn one(call: u64) -> Pending {
        Pending {
            call: Some(call),
            ask: true,
            name: Named::Ours("One"),
            body: Rope::from(Bytes::from_static(b"one")),
            deadline: Timestamp::MAX,
            trace: None,
            place: None,
        }
    }

    /// A queue of so many one-way messages, whose bodies are as long as their places.
    fn queue(messages: u8) -> Queue {
        let mut queue = Queue::default();
        for place in 0..messages {
            queue.push_frame(7, 0, u16::from(place % 2), &vec![place; usize::from(place)]);
        }
        queue
    }

    /// The numbers and bodies of frames.
    fn read(frames: &[u8]) -> Vec<(u16, Vec<u8>)> {
        let (mut read, mut at) = (Vec::new(), 0);
        while let Some((header, payload)) = Header::split(&frames[at..]) {
            at += HEADER + header.length;
            assert_eq!((header.kind, &payload[..4]), (Kind::OneWay as u8, &[0, 0, 0, 7][..]));
            read.push((header.message, payload[4..].to_vec()));
        }
        assert_eq!(at, frames.len());
        read
    }

    fn expected(places: std::ops::Range<u8>) -> Vec<(u16, Vec<u8>)> {
        places.map(|place| (u16::from(place % 2), vec![place; usize::from(place)])).collect()
    }

    #[test]
    fn a_run_goes_as_far_as_it_may_and_the_rest_later() {
        let mut queue = queue(10);
        assert_eq!((queue.len(), queue.iter().count()), (10, 1));
        let mut frames = Vec::new();
        let mut take =
            |queue: &mut Queue, most| queue.take_run(most, |part| frames.extend_from_slice(part));
        assert_eq!(take(&mut queue, 3), (3, 1 + 2));
        assert_eq!((queue.len(), queue.front().unwrap().bytes()), (7, 42));
        assert_eq!(take(&mut queue, 1), (1, 3));
        assert_eq!(take(&mut queue, 100), (6, 4 + 5 + 6 + 7 + 8 + 9));
        assert!(queue.is_empty());
        assert_eq!(take(&mut queue, 100), (0, 0));
        assert_eq!(read(&frames), expected(0..10));
    }

    #[test]
    fn what_a_message_may_keep_from_being_freed_is_bounded() {
        let mut queue = Queue::default();
        (0..100).for_each(|_| queue.push_frame(7, 0, 0, &[0; 500]));
        queue.push_frame(7, 0, 0, &[0; 4096]);
        queue.push_frame(7, 0, 0, &[0; 4]);
        let lengths: Vec<usize> = queue.iter().map(Entry::messages).collect();
        assert_eq!(lengths, [[8; 12].as_slice(), &[4, 1, 1]].concat());
        let room = queue.iter().map(|entry| match entry {
            Entry::Run(run) => run.frames.capacity(),
            Entry::One(_) => 0,
        });
        assert!(room.max().unwrap() <= RUN + HEAD);
        assert!(Queue::takes(4096) && !Queue::takes(4097));
    }

    #[test]
    fn calls_keep_their_place_between_runs() {
        let mut queue = queue(3);
        queue.push(one(1));
        queue.push(one(2));
        queue.push_frame(7, 0, 0, b"last");
        assert!(queue.pop().is_none(), "a run is in front");
        let mut withdraw = || queue.withdraw(1).map(|entry| entry.bytes());
        assert_eq!((withdraw(), withdraw(), queue.len()), (Some(3), None, 5));
        assert_eq!(queue.take_run(10, |frames| assert_eq!(read(frames), expected(0..3))).0, 3);
        assert_eq!(queue.take_run(10, |_| panic!("a call is in front")), (0, 0));
        assert_eq!((queue.pop().unwrap().call, queue.len()), (Some(2), 1));
        assert_eq!(
            queue.drain().map(|entry| (entry.messages(), entry.bytes())).next(),
            Some((1, 4))
        );
        assert_eq!((queue.is_empty(), queue.len()), (true, 0));
    }

    #[test]
    fn a_run_that_is_taken_apart_is_what_it_was_made_of() {
        let mut queue = queue(6);
        queue.take_run(2, |_| ());
        queue.push(one(1));
        queue.push_frame(7, 0, 0, b"last");
        queue.take_apart(|message| Named::Ours(["Even", "Odd"][usize::from(message)]));
        assert_eq!(queue.len(), 6);
        let mut found = Vec::new();
        while let Some(Pending { call, ask, name, body, .. }) = queue.pop() {
            found.push((name.to_string(), body.first().to_vec(), call, ask));
        }
        let sent = |place: u8| {
            let name = if place.is_multiple_of(2) { "Even" } else { "Odd" };
            (name.to_owned(), vec![place; usize::from(place)], None, false)
        };
        let mut all: Vec<_> = (2..6).map(sent).collect();
        all.push(("One".to_owned(), b"one".to_vec(), Some(1), true));
        all.push(("Even".to_owned(), b"last".to_vec(), None, false));
        assert_eq!(found, all);
    }
}
