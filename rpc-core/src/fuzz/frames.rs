//! Bytes of a connection, before and after the hellos, in whatever pieces they come.

use super::input::Input;
use crate::deadline::Timestamp;
use crate::error::{ErrorKind, RpcError};
use crate::limits::Limits;
use crate::message::Lane;
use crate::proto::{
    Close, Event, Hello, Hellos, Landing, PeerInfo, PeerLimits, Request, Session, Submission,
    TargetId, TargetKey,
};
use crate::seam::{CallEnd, Outgoing};
use crate::trace::TraceContext;
use crate::wire::frame::{self, FLAG_HEADERS, HEADER, Header, Kind, put_control, put_header};
use bytes::{BufMut, Bytes, BytesMut};
use std::collections::VecDeque;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

/// No side says more than this of why it closes.
const LONGEST_CLOSE: usize = 5 * 1024;

/// How many bytes come at a time.
#[derive(Clone, Copy, Debug)]
pub(super) struct Pieces(usize);

impl Pieces {
    pub(super) const WHOLE: Self = Self(usize::MAX);

    pub(super) fn chosen(input: &mut Input<'_>) -> Self {
        Self([1, 2, 3, 7, 8, 9, 64, 1000][input.below(8)])
    }

    fn of(self, bytes: &[u8]) -> impl Iterator<Item = &[u8]> {
        bytes.chunks(self.0)
    }
}

pub(super) fn small_limits() -> Limits {
    let limits = Limits::default().with_max_in_flight(6).unwrap();
    let limits = limits.with_message_max_size(100_000).unwrap();
    let limits = limits.with_max_assembly(150_000).unwrap();
    let limits = limits.with_outbox_max_messages(12).unwrap();
    limits.with_outbox_max_waiting(8).unwrap()
}

fn hello(env: u64) -> Hello {
    Hello::new(env, None, PeerLimits::of(&small_limits()))
}

pub(super) fn peer_info(env: u64) -> PeerInfo {
    PeerInfo { version: 1, hello: hello(env) }
}

/// Says what a close is, and that it is short.
fn checked(close: &Close) -> u16 {
    let mut answer = BytesMut::new();
    close.put_answer(&mut answer);
    assert!(answer.len() <= LONGEST_CLOSE, "a close of {} bytes", answer.len());
    assert!(close.to_error("peer").text().len() <= LONGEST_CLOSE);
    close.code
}

/// Everything before the hello is taken, and it; what comes behind it goes to a session. It does not
/// matter in which pieces it comes.
pub(super) fn preauth(bytes: &[u8]) {
    let mut input = Input::new(bytes);
    let max = [16, 100, 64 * 1024][input.below(3)];
    let pieces = Pieces::chosen(&mut input);
    let whole = greet(input.rest(), Pieces::WHOLE, max);
    assert_eq!(whole, greet(input.rest(), pieces, max), "{pieces:?}");
}

/// The close code, or the peer's hello as text and what came behind it.
fn greet(bytes: &[u8], pieces: Pieces, max: usize) -> Result<Option<(String, Vec<u8>)>, u16> {
    let mut hellos = Hellos::new(hello(1), max);
    let mut read = BytesMut::new();
    let mut greeted = None;
    for piece in pieces.of(bytes) {
        read.extend_from_slice(piece);
        if greeted.is_none() {
            greeted = hellos.receive(&mut read).map_err(|close| checked(&close))?;
            assert!(greeted.is_some() || read.len() <= frame::MAGIC.len() + HEADER + max + 1000);
        }
    }
    let Some(peer) = greeted else { return Ok(None) };
    assert!(hellos.magic_seen() && !hellos.closed_by_peer());
    let told = (format!("{peer:?}"), read.to_vec());
    let mut rig = Rig::new(peer);
    let _ = rig.receive(&read, Pieces::WHOLE);
    rig.end();
    Ok(Some(told))
}

/// A session with two asks under way and one that waits, and what becomes of them.
pub(super) struct Rig {
    pub(super) session: Session,
    pub(super) events: Vec<Event>,
    pub(super) calls: Vec<u64>,
    now: Timestamp,
    read: BytesMut,
    landing: Option<Landing>,
    lands: bool,
    frame: usize,
}

impl Rig {
    pub(super) fn new(peer: PeerInfo) -> Self {
        let limits = small_limits();
        let frame = usize::try_from(peer.hello.limits.frame).unwrap_or(usize::MAX);
        let mut session = Session::new(limits, "peer");
        session.attach(Timestamp::START, peer);
        Self {
            session,
            events: Vec::new(),
            calls: Vec::new(),
            now: Timestamp::START,
            read: BytesMut::new(),
            landing: None,
            lands: false,
            frame,
        }
    }

    /// Asks of an endpoint that the peer has resolved.
    fn with_asks(lands: bool) -> Self {
        let mut rig = Self::new(peer_info(2));
        rig.lands = lands;
        let target = rig.session.target(&TargetKey::new("echo", None)).unwrap();
        rig.ask(target);
        let waits = rig.session.target(&TargetKey::new("other", None)).unwrap();
        rig.ask(waits);
        rig.transmit();
        let mut resolved = BytesMut::new();
        put_control(&mut resolved, Kind::Resolved, &[0; 4], RESOLVED);
        rig.receive(&resolved, Pieces::WHOLE).unwrap();
        rig.ask(target);
        rig.transmit();
        rig
    }

    fn ask(&mut self, target: TargetId) {
        let mut body = vec![1, 2, 3].into();
        let deadline = self.now + Duration::from_secs(9);
        let mut message = Outgoing::new("Ask", Lane::Normal, &mut body, deadline);
        let request = Request::new(target, &mut message, Submission::Ask);
        self.calls.extend(self.session.submit(|| self.now, request).unwrap());
    }

    pub(super) fn receive(&mut self, bytes: &[u8], pieces: Pieces) -> Result<(), Close> {
        for piece in pieces.of(bytes) {
            self.piece(piece)?;
            // Nobody reads on behind that.
            if self.events.iter().any(|event| matches!(event, Event::Closed(_))) {
                break;
            }
        }
        assert_eq!(self.session.unsound(), Vec::<String>::new());
        Ok(())
    }

    /// As a driver reads: into a landing as long as there is one.
    fn piece(&mut self, mut bytes: &[u8]) -> Result<(), Close> {
        if !self.lands {
            self.read.extend_from_slice(bytes);
            return self.session.receive(self.now, &mut self.read, &mut self.events);
        }
        let mut more = false;
        while more || !bytes.is_empty() {
            let mut landing = self.landing.take();
            if let Some(landing) = &mut landing {
                let mut room = landing.room();
                let (part, rest) = bytes.split_at(bytes.len().min(room.remaining_mut()));
                room.put_slice(part);
                bytes = rest;
            } else {
                self.read.extend_from_slice(std::mem::take(&mut bytes));
            }
            let (session, read) = (&mut self.session, &mut self.read);
            let taken =
                session.receive_with(self.now, landing, read, &mut self.events, &mut 100)?;
            (self.landing, more) = (taken.landing, taken.more);
        }
        Ok(())
    }

    /// What goes out is whole frames that the peer takes.
    pub(super) fn transmit(&mut self) -> Vec<u8> {
        let mut out = VecDeque::new();
        self.session.transmit(|| self.now, usize::MAX, &mut out);
        let all: Vec<u8> = out.into_iter().flatten().collect();
        for (header, _) in frames(&all) {
            assert!(header.length <= self.frame, "{header:?}");
            assert!(Kind::from_byte(header.kind).is_some(), "{header:?}");
        }
        all
    }

    /// The time from now on.
    pub(super) fn at(&mut self, now: Timestamp) {
        self.now = now;
    }

    /// Another connection has nothing of what was in the middle.
    pub(super) fn forget(&mut self) {
        self.read.clear();
        self.landing = None;
    }

    fn poll(&mut self, call: u64) -> Poll<Result<Bytes, CallEnd>> {
        self.session.poll_call(call, &Context::from_waker(Waker::noop()))
    }

    /// The connection ends, and every call with it.
    pub(super) fn end(&mut self) {
        self.transmit();
        self.session.detach(&RpcError::new(ErrorKind::Disconnected, "cut"), false);
        for call in std::mem::take(&mut self.calls) {
            assert!(self.poll(call).is_ready(), "call {call} hangs");
        }
        assert_eq!(self.session.open_calls(), (0, 0));
        assert_eq!(self.session.unsound(), Vec::<String>::new());
    }
}

/// An endpoint that takes some messages.
const RESOLVED: &[u8] =
    b"\x83\xabincarnation\x92\x02\x07\xa8messages\x91\xa3Ask\xa6credit\x92\x08\xce\x00\x01\x00\x00";

/// Whole frames, one after the other.
pub(super) fn frames(mut bytes: &[u8]) -> Vec<(Header, &[u8])> {
    let mut found = Vec::new();
    while !bytes.is_empty() {
        let header = Header::read(bytes).expect("a header was cut");
        let whole = HEADER + header.length;
        assert!(bytes.len() >= whole, "a frame was cut: {header:?}");
        found.push((header, &bytes[HEADER..whole]));
        bytes = &bytes[whole..];
    }
    found
}

/// What a session makes of the bytes: its events, its close, and how its calls end.
fn outcome(bytes: &[u8], pieces: Pieces, lands: bool) -> (Vec<String>, Option<u16>, Vec<String>) {
    let mut rig = Rig::with_asks(lands);
    let closed = rig.receive(bytes, pieces).err();
    let closed = closed.map(|close| checked(&close));
    for event in &rig.events {
        if let Event::Closed(close) = event {
            checked(close);
        }
    }
    let calls = rig.calls.clone();
    let ends = calls.into_iter().map(|call| format!("{:?}", rig.poll(call))).collect();
    let events = std::mem::take(&mut rig.events).into_iter().flat_map(one_by_one);
    let events = events.map(|event| format!("{event:?}")).collect();
    rig.end();
    (events, closed, ends)
}

/// The messages of a row, as if each had come alone: which of them make a row is a matter of pieces.
fn one_by_one(event: Event) -> Vec<Event> {
    match event {
        Event::Messages(row) => row.into_messages().map(Event::Message).collect(),
        event => vec![event],
    }
}

/// Frames behind the hellos. It does not matter in which pieces they come, nor what they are read into.
pub(super) fn frame_stream(bytes: &[u8]) {
    let mut input = Input::new(bytes);
    let pieces = Pieces::chosen(&mut input);
    let bytes = input.rest();
    let whole = outcome(bytes, Pieces::WHOLE, false);
    assert_eq!(whole, outcome(bytes, pieces, false), "{pieces:?}");
    assert_eq!(whole, outcome(bytes, pieces, true), "{pieces:?}, into landings");
    assert_eq!(frame::is_alone(bytes), {
        let header = Header::read(bytes);
        header.is_some_and(|h| HEADER + h.length == bytes.len()) && bytes.len() <= frame::ALONE
    });
}

/// What a peer says of why something failed: in every frame that has room for it.
pub(super) fn failures(bytes: &[u8]) {
    let mut rig = Rig::with_asks(false);
    let mut say = BytesMut::new();
    let first = 0_u64.to_be_bytes();
    put_control(&mut say, Kind::Failure, &first, bytes);
    put_control(&mut say, Kind::Unresolved, &1_u32.to_be_bytes(), bytes);
    put_control(&mut say, Kind::Gone, &[0; 4], bytes);
    put_control(&mut say, Kind::Close, &[], bytes);
    put_control(&mut say, Kind::Goodbye, &[], bytes);
    if bytes.len() <= small_limits().frame_max_size() - 8 {
        let said = rig.receive(&say, Pieces::WHOLE);
        let [failed, unresolved] = [rig.calls[0], rig.calls[1]];
        for call in [failed, unresolved] {
            match rig.poll(call) {
                Poll::Ready(Err(CallEnd::Failed(error))) => {
                    assert!(error.text().len() <= LONGEST_CLOSE);
                }
                // The failure says that it was the time.
                Poll::Ready(Err(CallEnd::TimedOut { .. })) => {}
                end => panic!("{end:?}"),
            }
        }
        for event in &rig.events {
            match event {
                Event::Closed(close) => drop(checked(close)),
                Event::Goodbye(reason) => assert!(reason.len() <= LONGEST_CLOSE),
                event => panic!("{event:?}"),
            }
        }
        assert!(said.is_ok() || rig.events.len() == 1, "{said:?}");
    }
    rig.end();
}

/// Headers of a message, and the texts in them.
pub(super) fn trace_headers(bytes: &[u8]) {
    if let Ok(text) = std::str::from_utf8(bytes)
        && let Some(trace) = TraceContext::parse(text)
    {
        assert_eq!(TraceContext::parse(&trace.to_string()), Some(trace.clone()));
        let state = trace.with_tracestate(text);
        assert!(state.tracestate().is_none_or(|state| state == text && state.len() <= 512));
    }
    let mut message = BytesMut::new();
    let length = u16::try_from(bytes.len()).unwrap_or(u16::MAX);
    put_header(&mut message, 4 + 2 + bytes.len(), Kind::OneWay, FLAG_HEADERS, 0);
    message.put_u32(0);
    message.put_u16(length);
    message.put_slice(bytes);
    let mut rig = Rig::with_asks(false);
    let read = rig.receive(&message, Pieces::WHOLE);
    match (read, rig.events.first()) {
        (Ok(()), Some(Event::Message(message))) => {
            let state = message.trace.as_ref().and_then(TraceContext::tracestate);
            assert!(state.is_none_or(|state| state.len() <= 512));
        }
        (Ok(()), event) => assert!(bytes.len() > 1024, "{event:?}"),
        (Err(close), _) => assert_ne!(checked(&close), 0),
    }
    rig.end();
}
