//! A session, what its user does with it, and a peer that says what it likes, in frames that are
//! nearly right.

use super::frames::{Pieces, Rig, frames, peer_info};
use super::input::Input;
use crate::deadline::Timestamp;
use crate::error::{ErrorKind, RpcError};
use crate::message::Lane;
use crate::proto::{
    Asker, Close, CloseCode, Event, IncomingMessage, RelayedId, Request, Resolution, Submission,
    TargetId, TargetKey, Vital, WireNumber,
};
use crate::seam::{Incarnation, Outgoing};
use crate::termination::Termination;
use crate::wire::frame::{FLAG_FIRST, Header, Kind, put_header};
use bytes::{BufMut, BytesMut};
use std::collections::{BTreeMap, BTreeSet};
use std::task::Waker;
use std::time::Duration;

const IN_FLIGHT: usize = 6;

/// What the peer could know of this side, if it kept books.
#[derive(Default)]
struct Books {
    /// Messages that the peer has allowed by a number, and those that were sent.
    granted: BTreeMap<WireNumber, (u64, u64)>,
    /// Asks that it has neither answered nor been told to forget.
    asked: BTreeSet<u64>,
    /// Large messages in the middle, with their number.
    begun: BTreeMap<u32, WireNumber>,
}

impl Books {
    /// What the peer says of credit and calls, before it is heard.
    fn says(&mut self, kind: Kind, fields: &[u64], resolved: (u64, u32)) {
        let number = fields.first().copied().unwrap_or_default();
        let target = WireNumber::try_from(number).unwrap_or(WireNumber::MAX);
        let granted = match kind {
            Kind::Resolved => resolved.0,
            Kind::Credit => fields.get(1).copied().unwrap_or_default(),
            Kind::Reply | Kind::Failure => {
                self.asked.remove(&number);
                return;
            }
            _ => return,
        };
        // It may guess a number that has not been said yet.
        let books = self.granted.entry(target).or_default();
        books.0 = books.0.saturating_add(granted);
    }

    /// What this side has sent keeps to that.
    fn hears(&mut self, header: Header, payload: &[u8]) {
        let mut fields = Input::new(payload);
        let stream = (header.flags & FLAG_FIRST != 0).then(|| {
            let stream = u32::try_from(fields.number::<4>()).unwrap();
            fields.take(8);
            stream
        });
        match Kind::from_byte(header.kind) {
            Some(Kind::Release) => {
                let number = u32::try_from(fields.number::<4>()).unwrap();
                self.granted.remove(&number);
            }
            Some(Kind::Ask) => {
                let call = fields.number::<8>();
                assert!(self.asked.insert(call), "call {call:#x} was made twice");
                assert!(self.asked.len() <= IN_FLIGHT, "{} calls in flight", self.asked.len());
                self.sent(u32::try_from(fields.number::<4>()).unwrap(), stream);
            }
            Some(Kind::OneWay) => self.sent(u32::try_from(fields.number::<4>()).unwrap(), stream),
            Some(Kind::Cancel) => drop(self.asked.remove(&fields.number::<8>())),
            Some(Kind::ChunkDrop) => {
                let stream = u32::try_from(fields.number::<4>()).unwrap();
                let number = self.begun.remove(&stream);
                if let Some(books) = number.and_then(|number| self.granted.get_mut(&number)) {
                    books.1 = books.1.saturating_sub(1);
                }
            }
            _ => {}
        }
    }

    fn sent(&mut self, number: WireNumber, stream: Option<u32>) {
        let books = self.granted.get_mut(&number).expect("a message for what was never resolved");
        books.1 += 1;
        assert!(books.1 <= books.0, "{} messages within a window of {}", books.1, books.0);
        self.begun.extend(stream.map(|stream| (stream, number)));
    }
}

struct Host<'a> {
    input: Input<'a>,
    rig: Rig,
    books: Books,
    now: Timestamp,
    targets: Vec<TargetId>,
    relayed: Vec<RelayedId>,
    /// What the peer has resolved, and calls that it waits for.
    bound: Vec<WireNumber>,
    open: Vec<u64>,
    messages: Vec<IncomingMessage>,
    /// When the session is to be told of the time.
    alarm: Option<Timestamp>,
    lost: bool,
}

/// Everything that one side of a connection can do and say, against everything that the user of the
/// other can do.
pub(super) fn hostile_peer(bytes: &[u8]) {
    let mut host = Host {
        input: Input::new(bytes),
        rig: Rig::new(peer_info(2)),
        books: Books::default(),
        now: Timestamp::START,
        targets: Vec::new(),
        relayed: Vec::new(),
        bound: Vec::new(),
        open: Vec::new(),
        messages: Vec::new(),
        alarm: None,
        lost: false,
    };
    for name in ["a", "b"] {
        host.targets.push(host.rig.session.target(&TargetKey::new(name, None)).unwrap());
    }
    while !host.input.is_over() {
        host.step();
        assert_eq!(host.rig.session.unsound(), Vec::<String>::new());
        assert!(host.rig.session.open_calls().1 <= IN_FLIGHT);
        host.alarm = host.rig.session.take_alarm().or(host.alarm);
    }
    host.rig.end();
}

impl Host<'_> {
    fn step(&mut self) {
        if self.lost {
            self.reconnect();
        }
        match self.input.below(16) {
            0..5 => self.peer_says(),
            5..8 => self.submit(),
            8 => self.end_a_call(),
            9 => self.answer_a_call(),
            10 => self.tell_of_endpoints(),
            11 | 12 => self.transmit(),
            13 => self.pass_time(),
            14 => self.change_targets(),
            _ => self.relay(),
        }
    }

    /// A frame whose fields are small numbers, with a body that is right or chosen.
    fn peer_says(&mut self) {
        const KINDS: [Kind; 20] = [
            Kind::Resolved,
            Kind::Resolved,
            Kind::Credit,
            Kind::Reply,
            Kind::Failure,
            Kind::Ask,
            Kind::OneWay,
            Kind::Chunk,
            Kind::ChunkDrop,
            Kind::Cancel,
            Kind::Resolve,
            Kind::Release,
            Kind::Gone,
            Kind::Unresolved,
            Kind::Ping,
            Kind::Pong,
            Kind::Heartbeat,
            Kind::Goodbye,
            Kind::Close,
            Kind::Skip,
        ];
        let kind = KINDS[self.input.below(KINDS.len())];
        let flags = self.input.byte();
        // Most frames have no flags.
        let flags = if flags < 200 { 0 } else { flags & 0x1f };
        let window = (u64::from(self.input.byte() % 8), 40_000_u32);
        let mut fields = Vec::new();
        let mut payload = Vec::new();
        if flags & FLAG_FIRST != 0 {
            payload.put_u32(u32::from(self.input.byte() % 4));
            payload.put_u64(self.input.number::<3>());
        }
        for width in widths(kind) {
            let number = u64::from(self.input.byte());
            let number = if number < 250 { number % 6 } else { self.input.number::<8>() };
            let bytes = number.to_be_bytes();
            payload.extend_from_slice(&bytes[8 - width..]);
            fields.push(number & (u64::MAX >> (64 - 8 * width)));
        }
        match self.input.below(4) {
            0 => payload.extend_from_slice(self.input.part()),
            1 => payload.resize(payload.len() + usize::from(self.input.byte()) * 100, 7),
            _ => payload.extend_from_slice(&usual_body(kind, window)),
        }
        self.books.says(kind, &fields, window);
        let mut frame = BytesMut::new();
        put_header(&mut frame, payload.len(), kind, flags, u16::from(self.input.byte() % 3));
        frame.put_slice(&payload);
        let pieces =
            if self.input.below(4) == 0 { Pieces::chosen(&mut self.input) } else { Pieces::WHOLE };
        let received = self.rig.receive(&frame, pieces);
        self.act();
        if let Err(close) = received {
            self.close(&close);
        }
    }

    fn act(&mut self) {
        for event in std::mem::take(&mut self.rig.events) {
            match event {
                Event::Resolve(number, _) => self.bound.push(number),
                Event::Release(number) => {
                    self.rig.session.released(number);
                    self.bound.retain(|bound| *bound != number);
                }
                Event::Message(message) => self.message(message),
                Event::Messages(row) => row.into_messages().for_each(|one| self.message(one)),
                Event::Begun(..) | Event::GivenUp(..) | Event::Goodbye(_) => {}
                Event::Closed(_) => self.lost = true,
            }
        }
        self.messages.truncate(8);
        self.bound.truncate(64);
    }

    fn message(&mut self, message: IncomingMessage) {
        self.open.extend(message.call);
        self.messages.push(message);
    }

    fn submit(&mut self) {
        let target = self.targets[self.input.below(self.targets.len())];
        if self.input.below(8) == 0 {
            return self.rig.calls.extend(self.rig.session.watch(target));
        }
        let how = [Submission::Ask, Submission::Send, Submission::SendWait][self.input.below(3)];
        let size = match self.input.byte() {
            0..16 => 60_000,
            16..40 => 17_000,
            size => usize::from(size),
        };
        let lane = [Lane::Normal, Lane::Bulk][self.input.below(2)];
        let mut body = vec![5; size].into();
        let mut message = Outgoing::new("Ask", lane, &mut body, self.now + Duration::from_secs(5));
        let request = Request::new(target, &mut message, how);
        if let Ok(Some(call)) = self.rig.session.submit(|| self.now, request) {
            self.rig.calls.push(call);
        }
    }

    fn end_a_call(&mut self) {
        if self.rig.calls.is_empty() {
            return;
        }
        let place = self.input.below(self.rig.calls.len().min(256));
        if self.input.below(2) == 0 {
            self.rig.session.abandon(self.now, self.rig.calls.swap_remove(place));
        } else {
            self.rig.session.expire(self.now, self.rig.calls[place]);
        }
    }

    fn answer_a_call(&mut self) {
        let Some(call) = self.open.pop() else { return };
        if self.input.below(3) == 0 {
            self.rig.session.fail(call, &RpcError::new(ErrorKind::HandlerFailed, "no"));
        } else {
            let size = [3, 20_000, 90_000][self.input.below(3)];
            self.rig.session.reply(call, &mut vec![9; size].into()).unwrap();
        }
    }

    fn tell_of_endpoints(&mut self) {
        let Some(number) = self.bound.first().copied() else { return };
        let session = &mut self.rig.session;
        match self.input.below(4) {
            0 => {
                let messages = vec!["Ask".to_owned(); self.input.below(3)];
                let resolution = Resolution::new(Incarnation::new(1, 2), messages, 4, 30_000);
                session.resolved(number, &resolution);
            }
            1 => session.unresolved(number, &RpcError::new(ErrorKind::EndpointNotFound, "no")),
            2 => session.grant(number, 1, 100),
            _ => session.gone(number, Termination::Stopped),
        }
        self.bound.rotate_left(1);
    }

    fn transmit(&mut self) {
        for (header, payload) in frames(&self.rig.transmit()) {
            self.books.hears(header, payload);
        }
        let mut wakes = Vec::new();
        self.rig.session.take_wakes(&mut wakes);
    }

    fn pass_time(&mut self) {
        self.now = self.now + Duration::from_millis(u64::from(self.input.byte()) * 50);
        self.rig.at(self.now);
        let session = &mut self.rig.session;
        while let Some(at) = self.alarm.filter(|at| *at <= self.now) {
            self.alarm = session.expire_due(self.now, at);
        }
        match self.input.below(6) {
            0 => session.stalled(self.now, true),
            1 => session.stalled(self.now, false),
            2 => session.heartbeat(),
            3 => session.rearm(self.now),
            4 => session.goodbye("going"),
            _ => session.held(self.now),
        }
        let looked = session.look(self.now);
        if let Vital::Broken(close) = looked {
            self.close(&close);
        } else if self.rig.session.verdict(self.now).is_some() {
            self.lost = true;
        }
    }

    fn change_targets(&mut self) {
        let names = ["a", "b", "c"];
        let pin = (self.input.below(4) == 0).then(|| Incarnation::new(2, 7));
        let key = TargetKey::new(names[self.input.below(3)], pin);
        let target = self.rig.session.target(&key).unwrap();
        let place = self.input.below(self.targets.len());
        let old = std::mem::replace(&mut self.targets[place], target);
        self.rig.session.release(old);
    }

    fn asker(&mut self) -> Asker {
        Asker::new(u64::from(self.input.byte() % 2), Waker::noop().clone())
    }

    /// Somebody else's messages to this peer: those that it has sent itself.
    fn relay(&mut self) {
        let asker = self.asker();
        if self.relayed.len() < 2
            && let Ok(id) = self.rig.session.relay(&TargetKey::new("r", None), asker)
        {
            return self.relayed.push(id);
        }
        let Some(id) = self.relayed.first().copied() else { return };
        let session = &mut self.rig.session;
        let notices = session.notices(id);
        assert!(notices.len() <= 1000, "{} notices", notices.len());
        match (self.input.below(3), self.messages.pop()) {
            (0, _) | (_, None) => {
                session.release_relayed(id);
                self.relayed.remove(0);
            }
            (_, Some(message)) => {
                if let Ok(Some(call)) = session.forward(self.now, id, message) {
                    self.rig.calls.push(call);
                }
                self.relayed.rotate_left(1);
            }
        }
    }

    fn close(&mut self, close: &Close) {
        assert!(close.code > 0);
        self.rig.session.close(close);
        // Nothing may follow what is said last.
        let said = self.rig.transmit();
        if !close.is(CloseCode::Shutdown) {
            let last = frames(&said).pop().expect("nothing was said of it");
            assert_eq!(last.0.kind, Kind::Close as u8);
        }
        assert!(!self.rig.session.has_output());
        self.lost = true;
    }

    fn reconnect(&mut self) {
        let keep = self.input.below(2) == 0;
        self.rig.session.detach(&RpcError::new(ErrorKind::Disconnected, "cut"), keep);
        assert_eq!(self.rig.session.unsound(), Vec::<String>::new());
        self.rig.forget();
        self.books = Books::default();
        for id in std::mem::take(&mut self.relayed) {
            self.rig.session.release_relayed(id);
        }
        self.open.clear();
        self.bound.clear();
        let mut peer = peer_info(2);
        peer.hello.heartbeat = Some(u32::from(self.input.byte()) * 10);
        self.rig.session.attach(self.now, peer);
        self.lost = false;
    }
}

/// The widths of a frame's fields.
fn widths(kind: Kind) -> &'static [usize] {
    match kind {
        Kind::Resolve | Kind::Resolved | Kind::Unresolved | Kind::Gone | Kind::Release => &[4],
        Kind::OneWay | Kind::Chunk | Kind::ChunkDrop => &[4],
        Kind::Ask => &[8, 4, 4],
        Kind::Reply | Kind::Failure | Kind::Cancel | Kind::Ping | Kind::Pong => &[8],
        Kind::Credit => &[4, 4, 8],
        _ => &[],
    }
}

/// The body that such a frame has of a peer that means well.
fn usual_body(kind: Kind, (messages, bytes): (u64, u32)) -> Vec<u8> {
    match kind {
        Kind::Resolve => b"\x81\xa4name\xa1x".to_vec(),
        Kind::Resolved => {
            let mut body = b"\x83\xabincarnation\x92\x02\x07\xa8messages\x91\xa3Ask".to_vec();
            body.extend_from_slice(b"\xa6credit\x92");
            body.put_u8(u8::try_from(messages).unwrap());
            body.put_u8(0xce);
            body.put_u32(bytes);
            body
        }
        Kind::Failure | Kind::Unresolved => b"\x82\xa4code\x03\xa4text\xa2no".to_vec(),
        Kind::Close => b"\x81\xa4code\x06".to_vec(),
        Kind::Goodbye => b"\x80".to_vec(),
        Kind::Gone => b"\x81\xa6reason\x02".to_vec(),
        Kind::OneWay | Kind::Ask | Kind::Reply | Kind::Chunk => vec![1; 5],
        _ => Vec::new(),
    }
}
