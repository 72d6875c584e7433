//! Two sessions joined by pipes of bytes, a clock that is set by hand, and small endpoints.

use crate::Lane;
use crate::deadline::Timestamp;
use crate::error::{ErrorKind, Outcome, RpcError};
use crate::limits::Limits;
use crate::proto::{
    Close, Event, Hello, IncomingMessage, Landing, PeerInfo, PeerLimits, Request, Resolution,
    Session, Submission, TargetId, TargetKey, WireNumber,
};
use crate::spi::{CallEnd, Incarnation, Outgoing};
use crate::termination::Termination;
use crate::trace::TraceContext;
use bytes::{BufMut, Bytes, BytesMut};
use std::collections::{BTreeMap, VecDeque};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

/// One of the two sides.
pub(super) type Side = usize;
pub(super) const A: Side = 0;
pub(super) const B: Side = 1;

pub(super) const SMALL: &str = "Small";
pub(super) const FAIL: &str = "Fail";
/// A message that no endpoint has a number for.
pub(super) const UNLISTED: &str = "Unlisted";

/// How many bytes arrive at a time.
#[derive(Clone, Debug)]
pub(super) enum Chunks {
    Whole,
    Single,
    Random(Random),
}

/// Choices: those of a seed, or those that the bytes of an input make, until they end.
#[derive(Clone, Debug)]
pub(super) enum Random {
    Seed(u64),
    Bytes(VecDeque<u8>),
}

impl Random {
    pub(super) fn new(seed: u64) -> Self {
        Self::Seed(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    /// A number below `end`; 0 where the bytes have ended.
    pub(super) fn below(&mut self, end: usize) -> usize {
        let number = match self {
            Self::Seed(state) => {
                *state ^= *state << 13;
                *state ^= *state >> 7;
                *state ^= *state << 17;
                *state
            }
            Self::Bytes(bytes) => {
                let mut number = u64::from(bytes.pop_front().unwrap_or(0));
                let mut reach = 256;
                while reach < end as u64 {
                    number = number << 8 | u64::from(bytes.pop_front().unwrap_or(0));
                    reach <<= 8;
                }
                number
            }
        };
        (number % end as u64) as usize
    }

    pub(super) fn is_over(&self) -> bool {
        matches!(self, Self::Bytes(bytes) if bytes.is_empty())
    }
}

/// What a handler saw of a message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Seen {
    pub(super) endpoint: String,
    pub(super) life: u64,
    pub(super) message: String,
    /// The number that the sender put at the start of the body.
    pub(super) number: u32,
    pub(super) bytes: usize,
    pub(super) call: Option<u64>,
    pub(super) trace: Option<TraceContext>,
}

#[derive(Debug)]
pub(super) struct Endpoint {
    pub(super) life: u64,
    pub(super) window: (u64, u64),
    pub(super) system: bool,
}

/// What one side has resolved at the other.
#[derive(Debug)]
struct Bound {
    /// Which resolution it is, of all there ever were.
    serial: u64,
    endpoint: String,
    life: u64,
    window: (u64, u64),
    /// The sizes of those in the inbox.
    queued: Vec<u64>,
    /// Handled and not given back.
    credit: (u64, u64),
}

/// A message in the inbox of an endpoint.
pub(super) struct Waiting {
    pub(super) endpoint: String,
    life: u64,
    /// The resolution that it came by.
    serial: u64,
    pub(super) message: IncomingMessage,
}

pub(super) struct Node {
    pub(super) session: Session,
    pub(super) endpoints: BTreeMap<String, Endpoint>,
    /// Whether messages wait for [`Pair::handle`].
    pub(super) hold: bool,
    bound: BTreeMap<WireNumber, Bound>,
    resolutions: u64,
    pub(super) inbox: VecDeque<Waiting>,
    pub(super) seen: Vec<Seen>,
    out: VecDeque<Bytes>,
    read: BytesMut,
    landing: Option<Landing>,
    pub(super) goodbye: Option<String>,
    pub(super) closed: Option<Close>,
}

pub(super) struct Pair {
    pub(super) now: Timestamp,
    pub(super) nodes: [Node; 2],
    /// Bytes under way, by who sends them.
    wires: [BytesMut; 2],
    pub(super) chunks: Chunks,
    /// How many bytes may still arrive at each side.
    pub(super) reach: [usize; 2],
    lives: u64,
}

fn other(side: Side) -> Side {
    1 - side
}

pub(super) fn hello(env: u64, limits: &Limits) -> PeerInfo {
    PeerInfo { version: 1, hello: Hello::new(env, None, PeerLimits::of(limits)) }
}

/// A body of `bytes` bytes that begins with a number.
pub(super) fn body(number: u32, bytes: usize) -> Vec<u8> {
    let mut body = number.to_be_bytes().to_vec();
    body.resize(bytes.max(4), number as u8);
    body
}

impl Bound {
    /// The bytes of credit that all in the inbox cost.
    fn cost(&self) -> u64 {
        self.queued.iter().copied().map(cost).sum()
    }
}

/// The bytes of credit that a body costs: up to 4 KiB, none.
pub(super) fn cost(bytes: u64) -> u64 {
    if bytes > 4096 { bytes } else { 0 }
}

impl Pair {
    pub(super) fn new() -> Self {
        Self::with(Limits::default(), Limits::default())
    }

    pub(super) fn with(a: Limits, b: Limits) -> Self {
        let node = |limits: Limits, name: &str| Node {
            session: Session::new(limits, name),
            endpoints: BTreeMap::new(),
            hold: false,
            bound: BTreeMap::new(),
            resolutions: 0,
            inbox: VecDeque::new(),
            seen: Vec::new(),
            out: VecDeque::new(),
            read: BytesMut::new(),
            landing: None,
            goodbye: None,
            closed: None,
        };
        let hellos = [hello(1, &a), hello(2, &b)];
        let mut pair = Self {
            now: Timestamp::START,
            nodes: [node(a, "b"), node(b, "a")],
            wires: [BytesMut::new(), BytesMut::new()],
            chunks: Chunks::Whole,
            reach: [usize::MAX; 2],
            lives: 0,
        };
        pair.attach(hellos);
        pair
    }

    pub(super) fn attach(&mut self, [a, b]: [PeerInfo; 2]) {
        self.nodes[A].session.attach(self.now, b);
        self.nodes[B].session.attach(self.now, a);
    }

    /// Cuts the connection: what is under way is lost.
    pub(super) fn cut(&mut self) {
        let error = RpcError::new(ErrorKind::Disconnected, "cut");
        for side in [A, B] {
            self.wires[side].clear();
            let node = &mut self.nodes[side];
            node.session.detach(&error, false);
            node.out.clear();
            node.read.clear();
            node.landing = None;
            node.bound.clear();
            node.inbox.clear();
        }
    }

    /// Starts an endpoint, in place of one of the same name.
    pub(super) fn start(&mut self, side: Side, name: &str, window: (u64, u64)) -> Incarnation {
        self.stop(side, name);
        self.lives += 1;
        let endpoint = Endpoint { life: self.lives, window, system: name.starts_with("system") };
        self.nodes[side].endpoints.insert(name.to_owned(), endpoint);
        Incarnation::new(side as u64, self.lives)
    }

    pub(super) fn stop(&mut self, side: Side, name: &str) {
        let node = &mut self.nodes[side];
        let Some(gone) = node.endpoints.remove(name) else { return };
        let targets = node.bound.iter().filter(|(_, bound)| bound.life == gone.life);
        targets.for_each(|(target, _)| node.session.gone(*target, Termination::Stopped));
        let waiting = std::mem::take(&mut node.inbox);
        for waiting in waiting {
            if waiting.life == gone.life {
                node.fail_stopped(waiting.serial, &waiting.message);
            } else {
                node.inbox.push_back(waiting);
            }
        }
    }

    pub(super) fn target(&mut self, side: Side, name: &str, pin: Option<Incarnation>) -> TargetId {
        self.nodes[side].session.target(&TargetKey::new(name, pin)).unwrap()
    }

    pub(super) fn submit(
        &mut self,
        side: Side,
        target: TargetId,
        message: (&'static str, Lane),
        body: Vec<u8>,
        how: Submission,
    ) -> Result<Option<u64>, RpcError> {
        self.submit_traced(side, target, message, body, how, None)
    }

    pub(super) fn submit_traced(
        &mut self,
        side: Side,
        target: TargetId,
        (name, lane): (&'static str, Lane),
        body: Vec<u8>,
        how: Submission,
        trace: Option<TraceContext>,
    ) -> Result<Option<u64>, RpcError> {
        let deadline = self.now + Duration::from_secs(10);
        let mut body = body.into();
        let mut message = Outgoing::new(name, lane, &mut body, deadline).traced(trace);
        let request = Request::new(target, &mut message, how);
        let now = self.now;
        self.nodes[side].session.submit(|| now, request)
    }

    pub(super) fn ask(&mut self, side: Side, target: TargetId, number: u32, bytes: usize) -> u64 {
        let body = body(number, bytes);
        let call = self.submit(side, target, (SMALL, Lane::Normal), body, Submission::Ask);
        call.unwrap().unwrap()
    }

    pub(super) fn send(&mut self, side: Side, target: TargetId, number: u32, bytes: usize) {
        let body = body(number, bytes);
        self.submit(side, target, (SMALL, Lane::Normal), body, Submission::Send).unwrap();
    }

    pub(super) fn poll(&mut self, side: Side, call: u64) -> Option<Result<Bytes, CallEnd>> {
        let cx = Context::from_waker(Waker::noop());
        match self.nodes[side].session.poll_call(call, &cx) {
            Poll::Ready(result) => Some(result),
            Poll::Pending => None,
        }
    }

    /// The number that a call was answered with.
    pub(super) fn answer(&mut self, side: Side, call: u64) -> u32 {
        let body = self.poll(side, call).expect("not answered").expect("failed");
        u32::from_be_bytes(body[..4].try_into().unwrap())
    }

    /// The error that a call ended with.
    pub(super) fn error(&mut self, side: Side, call: u64) -> RpcError {
        match self.poll(side, call).expect("not ended") {
            Err(CallEnd::Failed(error)) => error,
            end => panic!("{end:?}"),
        }
    }

    /// Gives one side's output to the wire, about `budget` bytes of it.
    pub(super) fn transmit(&mut self, side: Side, budget: usize) -> bool {
        let node = &mut self.nodes[side];
        node.session.transmit(|| self.now, budget, &mut node.out);
        let moved = !node.out.is_empty();
        for bytes in node.out.drain(..) {
            self.wires[side].extend_from_slice(&bytes);
        }
        moved
    }

    /// Lets some bytes arrive at one side.
    pub(super) fn deliver(&mut self, side: Side) -> Result<bool, Close> {
        let wire = &mut self.wires[other(side)];
        let most = match &mut self.chunks {
            Chunks::Whole => wire.len(),
            Chunks::Single => 1,
            Chunks::Random(random) => 1 + random.below(100_000),
        };
        let bytes = wire.split_to(most.min(wire.len()).min(self.reach[side]));
        self.reach[side] -= bytes.len();
        if bytes.is_empty() {
            return Ok(false);
        }
        self.arrive(side, &bytes)?;
        Ok(true)
    }

    /// Gives bytes to one side, as if the other had sent them.
    pub(super) fn arrive(&mut self, side: Side, bytes: &[u8]) -> Result<(), Close> {
        let node = &mut self.nodes[side];
        let mut events = Vec::new();
        let received = node.receive(side, self.now, bytes, &mut events);
        events.into_iter().for_each(|event| node.act(side, event));
        if !node.hold {
            while self.handle(side) {}
        }
        received
    }

    /// Lets everything happen that can.
    pub(super) fn run(&mut self) {
        loop {
            let mut moved = false;
            for side in [A, B] {
                moved |= self.transmit(side, 256 * 1024);
                moved |= self.deliver(other(side)).expect("closed");
            }
            if !moved {
                return;
            }
        }
    }

    /// Handles the next message of one side: echoes it, or fails it.
    pub(super) fn handle(&mut self, side: Side) -> bool {
        let node = &mut self.nodes[side];
        let Some(waiting) = node.inbox.pop_front() else { return false };
        let Waiting { endpoint, life, serial, message } = waiting;
        node.consumed(serial, message.body.len());
        let name = match &message.name {
            Some(name) => name.to_string(),
            None => [SMALL, FAIL][usize::from(message.number)].to_owned(),
        };
        if let Some(call) = message.call
            && node.session.is_cancelled(call)
        {
            return true;
        }
        let number = u32::from_be_bytes(message.body[..4].try_into().unwrap());
        let bytes = message.body.len();
        let (call, trace) = (message.call, message.trace.clone());
        let seen = Seen { endpoint, life, message: name, number, bytes, call, trace };
        let fails = seen.message == FAIL;
        node.seen.push(seen);
        if let Some(call) = message.call {
            if fails {
                node.session.fail(call, &RpcError::new(ErrorKind::HandlerFailed, "no"));
            } else {
                // As those do who answer.
                if let Err(error) = node.session.reply(call, &mut message.body.to_vec().into()) {
                    node.session.fail(call, &error.with_outcome(Outcome::FailedInHandler));
                }
            }
        }
        true
    }
}

impl Node {
    /// Side B reads into landings, as drivers do; side A does not know of them.
    fn receive(
        &mut self,
        side: Side,
        now: Timestamp,
        mut bytes: &[u8],
        events: &mut Vec<Event>,
    ) -> Result<(), Close> {
        if side == A {
            self.read.extend_from_slice(bytes);
            return self.session.receive(now, &mut self.read, events);
        }
        loop {
            let mut landing = self.landing.take();
            if let Some(landing) = &mut landing {
                let mut room = landing.room();
                let (part, rest) = bytes.split_at(bytes.len().min(room.remaining_mut()));
                room.put_slice(part);
                bytes = rest;
            } else {
                self.read.extend_from_slice(std::mem::take(&mut bytes));
            }
            // A little at a time: how far a turn goes must not show.
            let taken = self.session.receive_with(now, landing, &mut self.read, events, &mut 1)?;
            self.landing = taken.landing;
            if bytes.is_empty() && !taken.more {
                return Ok(());
            }
        }
    }

    fn act(&mut self, side: Side, event: Event) {
        match event {
            Event::Resolve(target, key) => self.resolve(side, target, &key),
            Event::Message(message) => self.message(message),
            Event::Messages(row) => row.into_messages().for_each(|one| self.message(one)),
            Event::Release(number) => {
                assert!(self.bound.remove(&number).is_some(), "{number} is not resolved");
            }
            Event::Begun(target, bytes) => self.charge(target, bytes),
            Event::GivenUp(target, bytes) => self.given_up(target, bytes),
            Event::Goodbye(reason) => self.goodbye = Some(reason),
            Event::Closed(close) => self.closed = Some(close),
        }
    }

    fn resolve(&mut self, side: Side, target: WireNumber, key: &TargetKey) {
        assert!(!self.bound.contains_key(&target), "{target} is resolved twice");
        let found = self.endpoints.get(&key.name);
        let fits = |endpoint: &&Endpoint| key.pin.is_none_or(|pin| pin.1 == endpoint.life);
        let Some(endpoint) = found.filter(fits) else {
            let error = RpcError::new(ErrorKind::EndpointNotFound, "not here");
            return self.session.unresolved(target, &error);
        };
        let (life, window, system) = (endpoint.life, endpoint.window, endpoint.system);
        let messages = vec![SMALL.to_owned(), FAIL.to_owned()];
        let incarnation = Incarnation::new(side as u64, life);
        let mut resolution = Resolution::new(incarnation, messages, window.0, window.1);
        resolution.system = system;
        self.session.resolved(target, &resolution);
        let endpoint = key.name.clone();
        self.resolutions += 1;
        let serial = self.resolutions;
        let bound = Bound { serial, endpoint, life, window, queued: Vec::new(), credit: (0, 0) };
        self.bound.insert(target, bound);
    }

    fn given_up(&mut self, target: TargetId, bytes: usize) {
        let bound = self.bound.get_mut(&target).unwrap();
        let place = bound.queued.iter().position(|size| *size == bytes as u64);
        bound.queued.swap_remove(place.expect("given up, but not begun"));
    }

    /// Counts a message: when it is there, or when its first part is.
    fn charge(&mut self, target: TargetId, bytes: usize) {
        let bound = self.bound.get_mut(&target).expect("a message for what was never resolved");
        bound.queued.push(bytes as u64);
        assert!(bound.queued.len() as u64 <= bound.window.0, "over the window: {bound:?}");
        // The last one sent may overdraw the bytes; across lanes it need not arrive last.
        let largest = bound.queued.iter().max().copied().unwrap_or(0);
        let others = bound.cost() - cost(largest);
        assert!(others < bound.window.1, "over the window: {bound:?}");
    }

    fn message(&mut self, message: IncomingMessage) {
        let target = message.target;
        if !message.in_parts {
            self.charge(target, message.body.len());
        }
        let bound = &self.bound[&target];
        let (endpoint, life, serial) = (bound.endpoint.clone(), bound.life, bound.serial);
        if self.endpoints.get(&endpoint).is_none_or(|there| there.life != life) {
            self.fail_stopped(serial, &message);
        } else {
            self.inbox.push_back(Waiting { endpoint, life, serial, message });
        }
    }

    fn fail_stopped(&mut self, serial: u64, message: &IncomingMessage) {
        self.consumed(serial, message.body.len());
        if let Some(call) = message.call {
            let error = RpcError::new(ErrorKind::EndpointStopped, "stopped");
            self.session.fail(call, &error);
        }
    }

    /// Gives credit back, half a window at a time.
    fn consumed(&mut self, serial: u64, bytes: usize) {
        let mut all = self.bound.iter_mut();
        let Some((target, bound)) = all.find(|(_, bound)| bound.serial == serial) else { return };
        let target = *target;
        let place = bound.queued.iter().position(|size| *size == bytes as u64);
        bound.queued.swap_remove(place.expect("consumed twice"));
        bound.credit.0 += 1;
        bound.credit.1 += cost(bytes as u64);
        let (messages, bytes) = bound.credit;
        if messages >= bound.window.0.div_ceil(2) || bytes >= bound.window.1.div_ceil(2) {
            bound.credit = (0, 0);
            self.session.grant(target, u32::try_from(messages).unwrap(), bytes);
        }
    }

    /// How many endpoints of this side the other has resolved.
    pub(super) fn bound(&self) -> usize {
        self.bound.len()
    }

    /// What the window of a number is short of, from the side that serves it; `None` if the
    /// endpoint was started anew and the number is not bound to it.
    pub(super) fn owed(&self, number: WireNumber) -> Option<(u64, u64)> {
        let bound = self.bound.get(&number)?;
        let there = self.endpoints.get(&bound.endpoint)?;
        let queued = (bound.queued.len() as u64, bound.cost());
        let owed = (queued.0 + bound.credit.0, queued.1 + bound.credit.1);
        (there.life == bound.life).then_some(owed)
    }
}
