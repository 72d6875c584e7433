//! One peer, across connections: calls to it, messages that wait for it, calls from it.

use super::assembly::Assemblies;
use super::bodies::IncomingMessage;
use super::calls::{Call, Calls, Flights, Progress};
use super::close::Close;
use super::hello::PeerInfo;
use super::lanes::{FirstFrame, Lanes};
use super::pulse::Pulse;
use super::serving::Serving;
use super::target::{MessageName, Pending, Phase, Target, TargetId, TargetKey, lane_index};
use crate::deadline::Timestamp;
use crate::error::{ErrorKind, RemoteFailure, RpcError};
use crate::limits::Limits;
use crate::message::{Encoding, Lane};
use crate::seam::CallEnd;
use crate::wire::frame::{self, FLAG_BULK, FLAG_NAMED, Kind};
use crate::wire::payload::{self, SMALL_BODY};
use bytes::{Bytes, BytesMut};
use std::collections::{BTreeMap, VecDeque};
use std::task::{Context, Poll, Waker};

/// The protocol's state towards one peer. It does no I/O: it is given bytes and the time, and
/// gives back bytes and events. Whoever holds it keeps it behind a short lock and wakes the
/// connection's driver when [`has_output`](Self::has_output) turns true.
#[derive(Debug)]
pub struct Session {
    pub(super) limits: Limits,
    pub(super) peer_name: String,
    pub(super) peer: Option<PeerInfo>,
    /// How many connections there were, the present one included.
    pub(super) connections: u64,
    pub(super) calls: Calls,
    pub(super) targets: Vec<Target>,
    index: BTreeMap<TargetKey, TargetId>,
    pub(super) lanes: Lanes,
    pub(super) serving: Serving,
    pub(super) assemblies: Assemblies<IncomingMessage>,
    /// Messages that have not been given to the socket, and their bytes.
    pub(super) queued: usize,
    pub(super) queued_bytes: usize,
    /// Messages in the lanes' buffers: they leave the queue when the buffers do.
    ready: [(usize, usize); 2],
    /// Calls that the peer may be working on.
    pub(super) flights: Flights,
    /// Targets to be asked for when what is in the lanes for them has gone out.
    pub(super) again: Vec<TargetId>,
    /// Targets with an ask that waits for one of those to end.
    blocked: VecDeque<TargetId>,
    /// `send_wait`s in the order of their places, and the place.
    waiting: VecDeque<(u64, u64)>,
    entered: u64,
    left: u64,
    pub(super) wakes: Vec<Waker>,
    pub(super) closing: Closing,
    pub(super) pulse: Pulse,
}

/// Whether this side ends the connection.
#[derive(Debug)]
pub(super) enum Closing {
    No,
    /// What to say when everything before it has gone.
    Soon(Close),
    /// It has been said: nothing may follow.
    Said,
}

/// A message to be queued.
#[derive(Debug)]
#[non_exhaustive]
pub struct Request<'a> {
    /// Whom it is for.
    pub target: TargetId,
    /// Its wire name.
    pub name: &'static str,
    /// Its lane.
    pub lane: Lane,
    /// Its body. A large one is taken, a small one copied.
    pub body: &'a mut Vec<u8>,
    /// When its caller stops waiting.
    pub deadline: Timestamp,
    /// How it is sent.
    pub submission: Submission,
}

/// How a message is sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Submission {
    /// One way, refused when there is no room.
    Send,
    /// One way, waiting for room.
    SendWait,
    /// With an answer, waiting for room.
    Ask,
}

impl<'a> Request<'a> {
    /// A message to be queued.
    pub fn new(
        target: TargetId,
        message: crate::seam::Outgoing<'a>,
        submission: Submission,
    ) -> Self {
        let crate::seam::Outgoing { name, lane, body, deadline } = message;
        Self { target, name, lane, body, deadline, submission }
    }
}

/// Endpoints of one peer that may be called.
const MAX_TARGETS: usize = 65_536;

impl Session {
    /// A session without a connection. `peer` names the other side in messages to people.
    #[must_use]
    pub fn new(limits: Limits, peer: impl Into<String>) -> Self {
        Self {
            serving: Serving::new(limits.max_in_flight()),
            assemblies: Assemblies::new(limits.message_max_size()),
            peer_name: peer.into(),
            peer: None,
            connections: 0,
            calls: Calls::default(),
            targets: Vec::new(),
            index: BTreeMap::new(),
            lanes: Lanes::new(),
            queued: 0,
            queued_bytes: 0,
            ready: [(0, 0); 2],
            flights: Flights::default(),
            again: Vec::new(),
            blocked: VecDeque::new(),
            waiting: VecDeque::new(),
            entered: 0,
            left: 0,
            wakes: Vec::new(),
            closing: Closing::No,
            pulse: Pulse::default(),
            limits,
        }
    }

    /// The peer's name in messages to people.
    #[must_use]
    pub fn peer_name(&self) -> &str {
        &self.peer_name
    }

    /// The number of a target, new or known.
    ///
    /// # Errors
    /// `Overloaded` when too many endpoints of one peer are called.
    pub fn target(&mut self, key: &TargetKey) -> Result<TargetId, RpcError> {
        if let Some(id) = self.index.get(key) {
            return Ok(*id);
        }
        let id = u32::try_from(self.targets.len()).unwrap_or(u32::MAX);
        if self.targets.len() >= MAX_TARGETS {
            return Err(RpcError::new(
                ErrorKind::Overloaded,
                format!("{MAX_TARGETS} endpoints of {} are called already", self.peer_name),
            ));
        }
        self.targets.push(Target::new(key.clone()));
        self.index.insert(key.clone(), id);
        Ok(id)
    }

    /// Queues a message, in order behind those to the same target and lane. The number of the
    /// call, for all but [`Submission::Send`].
    ///
    /// # Errors
    /// `Overloaded`, `TooLarge`.
    pub fn submit(
        &mut self,
        now: Timestamp,
        request: Request<'_>,
    ) -> Result<Option<u64>, RpcError> {
        let bytes = request.body.len();
        self.admit(&request, bytes)?;
        let lane = lane_index(request.lane);
        let ask = request.submission == Submission::Ask;
        let call = match request.submission {
            Submission::Send => None,
            Submission::SendWait if self.queued < self.limits.outbox_max_messages() => {
                let done = Progress::Done(Ok(Bytes::new()));
                Some(self.open(request.target, done)?)
            }
            Submission::SendWait => Some(self.open(request.target, Progress::Waiting)?),
            Submission::Ask => Some(self.open(request.target, Progress::Pending)?),
        };
        if request.submission == Submission::SendWait
            && self.queued >= self.limits.outbox_max_messages()
        {
            self.waiting.extend(call.map(|call| (call, self.entered)));
        }
        self.queued = self.queued.saturating_add(1);
        self.queued_bytes = self.queued_bytes.saturating_add(bytes);
        self.entered = self.entered.wrapping_add(1);
        if bytes <= SMALL_BODY && self.can_go_now(request.target, lane, ask) {
            let going = Going { name: request.name, call, ask, deadline: request.deadline };
            self.put_small(now, request.target, lane, &going, request.body);
            return Ok(call);
        }
        let body = if bytes <= SMALL_BODY {
            Bytes::copy_from_slice(request.body)
        } else {
            Bytes::from(std::mem::take(request.body))
        };
        let pending = Pending { call, ask, name: request.name, body, deadline: request.deadline };
        if let Some(target) = self.targets.get_mut(request.target as usize) {
            if let Some(queue) = target.pending.get_mut(lane) {
                queue.push_back(pending);
            }
            self.ask_for(request.target);
            self.pump(now, request.target);
        }
        Ok(call)
    }

    fn open(&mut self, target: TargetId, progress: Progress) -> Result<u64, RpcError> {
        self.calls.open(target, progress).ok_or_else(|| {
            RpcError::new(
                ErrorKind::Overloaded,
                format!("too many calls to {} are open", self.peer_name),
            )
        })
    }

    fn admit(&self, request: &Request<'_>, bytes: usize) -> Result<(), RpcError> {
        if bytes > self.max_message() {
            return Err(self.too_large(request.name, request.target, bytes));
        }
        let waits = request.submission != Submission::Send;
        let most = self.limits.outbox_max_messages();
        let most_waiting = self.limits.outbox_max_waiting();
        if waits && self.queued >= most.saturating_add(most_waiting) {
            let waiting = self.queued.saturating_sub(most);
            let held = format!("{} messages wait, {waiting} of them for room,", self.queued);
            let limit = format!("rpc.outbox.maxWaiting ({most_waiting})");
            return Err(self.overloaded(request, "", &held, &limit));
        }
        if !waits && self.queued >= most {
            let held = format!("{} messages wait", self.queued);
            let limit = format!("rpc.outbox.maxMessages ({most})");
            return Err(self.overloaded(request, "", &held, &limit));
        }
        let most = self.limits.outbox_max_bytes();
        if !waits && self.queued > 0 && self.queued_bytes.saturating_add(bytes) > most {
            let what = format!("the {bytes} bytes of ");
            let held = format!("{} bytes wait", self.queued_bytes);
            let limit = format!("rpc.outbox.maxBytes ({most})");
            return Err(self.overloaded(request, &what, &held, &limit));
        }
        Ok(())
    }

    /// The error of a message that its receiver would not take.
    fn too_large(&self, message: &str, target: TargetId, bytes: usize) -> RpcError {
        RpcError::new(
            ErrorKind::TooLarge,
            format!(
                "{message} to {} at {}: {}",
                self.target_name(target),
                self.peer_name,
                self.over_limit(bytes)
            ),
        )
    }

    fn over_limit(&self, bytes: usize) -> String {
        let max = self.max_message();
        let whose = if max < self.limits.message_max_size() { " of the peer" } else { "" };
        format!(
            "its {bytes} bytes are over the limit of {max}{whose}. This limit is controlled by rpc.message.maxSize"
        )
    }

    fn target_name(&self, target: TargetId) -> &str {
        self.targets.get(target as usize).map_or("?", |target| target.key.name.as_str())
    }

    fn overloaded(&self, request: &Request<'_>, what: &str, held: &str, limit: &str) -> RpcError {
        RpcError::new(
            ErrorKind::Overloaded,
            format!(
                "no room for {what}{} to {} at {}: {held} to be sent there. This limit is controlled by {limit}",
                request.name,
                self.target_name(request.target),
                self.peer_name
            ),
        )
    }

    /// The largest message that both sides take.
    fn max_message(&self) -> usize {
        let ours = self.limits.message_max_size();
        let theirs = self.peer.as_ref().map_or(u64::MAX, |peer| peer.hello.limits.message);
        usize::try_from(theirs).unwrap_or(usize::MAX).min(ours)
    }

    fn max_in_flight(&self) -> usize {
        let theirs = self.peer.as_ref().map_or(0, |peer| peer.hello.limits.in_flight);
        usize::try_from(theirs).unwrap_or(usize::MAX).min(self.limits.max_in_flight())
    }

    fn can_go_now(&self, target: TargetId, lane: usize, ask: bool) -> bool {
        let Some(target) = self.targets.get(target as usize) else { return false };
        target.phase == Phase::Resolved
            && target.pending.get(lane).is_some_and(VecDeque::is_empty)
            && target.large.get(lane) == Some(&false)
            && target.has_credit()
            && (!ask || self.flights.len() < self.max_in_flight())
    }

    /// Asks the peer for a target that it has not been asked for on this connection.
    pub(super) fn ask_for(&mut self, id: TargetId) {
        if self.peer.is_none() {
            return;
        }
        let Some(target) = self.targets.get_mut(id as usize) else { return };
        if target.phase != Phase::Unknown {
            return;
        }
        if target.behind.is_some_and(|ends| !self.lanes.have_gone(&ends, id)) {
            if !self.again.contains(&id) {
                self.again.push(id);
            }
            return;
        }
        target.phase = Phase::Resolving;
        let resolve =
            super::bodies::ResolveBody { name: target.key.name.clone(), pin: target.key.pin };
        if let Ok(body) = payload::to_vec(&resolve, Encoding::Named, usize::MAX) {
            frame::put_control(self.lanes.control(), Kind::Resolve, &id.to_be_bytes(), &body);
        }
    }

    /// Puts what may go of a target's queues into the lanes.
    pub(super) fn pump(&mut self, now: Timestamp, id: TargetId) {
        let max_in_flight = self.max_in_flight();
        for lane in 0..2 {
            while let Some(target) = self.targets.get_mut(id as usize)
                && target.phase == Phase::Resolved
                && target.large.get(lane) == Some(&false)
                && target.has_credit()
                && let Some(front) = target.pending.get(lane).and_then(VecDeque::front)
            {
                if front.ask && self.flights.len() >= max_in_flight {
                    if !std::mem::replace(&mut target.blocked, true) {
                        self.blocked.push_back(id);
                    }
                    break;
                }
                self.put_next(now, id, lane);
            }
        }
    }

    fn put_next(&mut self, now: Timestamp, id: TargetId, lane: usize) {
        let max = self.max_message();
        let Some(target) = self.targets.get_mut(id as usize) else { return };
        let Some(next) = target.pending.get_mut(lane).and_then(VecDeque::pop_front) else { return };
        if next.body.len() > max {
            // The peer's limit was not known when it was queued.
            return self.refuse(id, &next);
        }
        let Pending { call, ask, name, body, deadline } = next;
        let going = Going { name, call, ask, deadline };
        if body.len() <= SMALL_BODY {
            self.put_small(now, id, lane, &going, &body);
            return;
        }
        let Some(target) = self.targets.get_mut(id as usize) else { return };
        target.spend(body.len());
        let number = target.number(name);
        if let Some(large) = target.large.get_mut(lane) {
            *large = true;
        }
        self.leave(1, body.len());
        let flight = self.depart(&going);
        self.goes(&going, flight, Progress::Sent);
        let (kind, flags, message, fields) =
            request_fields(now, id, lane, number, flight, deadline);
        let head = FirstFrame { kind, flags, message, fields: fields.as_slice().to_vec() };
        self.lanes.put_large(lane, head, body, Some((id, lane)), call);
    }

    fn refuse(&mut self, id: TargetId, message: &Pending) {
        let error = self.too_large(message.name, id, message.body.len());
        let end = Err(CallEnd::Failed(error.clone()));
        let told = message.call.and_then(|id| self.calls.finish(id, end, &mut self.wakes));
        if told.is_none() {
            tracing::warn!(%error, "a one-way message was lost");
        }
        self.leave(1, message.body.len());
    }

    fn put_small(&mut self, now: Timestamp, id: TargetId, lane: usize, going: &Going, body: &[u8]) {
        let flight = self.depart(going);
        let Some(target) = self.targets.get_mut(id as usize) else { return };
        target.spend(body.len());
        let number = target.number(going.name);
        let (kind, flags, message, fields) =
            request_fields(now, id, lane, number, flight, going.deadline);
        let offset = self.lanes.put_small(lane, kind, flags, message, fields.as_slice(), body);
        if let Some((messages, bytes)) = self.ready.get_mut(lane) {
            *messages = messages.saturating_add(1);
            *bytes = bytes.saturating_add(body.len());
        }
        self.goes(going, flight, Progress::Ready { lane, offset, bytes: body.len() });
    }

    /// The number that the peer knows a call by, if it is one.
    fn depart(&mut self, going: &Going) -> Option<u64> {
        let call = going.call.filter(|_| going.ask)?;
        Some(self.flights.depart(call))
    }

    /// A call's message is in a lane. A `send_wait` that has found room is over; one that still
    /// waits for it may be taken back from there, like an ask.
    fn goes(&mut self, going: &Going, flight: Option<u64>, progress: Progress) {
        if let Some(call) = going.call.and_then(|id| self.calls.get(id))
            && !matches!(call.progress, Progress::Done(_))
        {
            call.progress = progress;
            call.flight = flight;
        }
    }

    /// Messages have left the queue: there is room for those that wait.
    pub(super) fn leave(&mut self, messages: usize, bytes: usize) {
        self.queued = self.queued.saturating_sub(messages);
        self.queued_bytes = self.queued_bytes.saturating_sub(bytes);
        self.left = self.left.wrapping_add(messages as u64);
        let room = self.limits.outbox_max_messages() as u64;
        while let Some((call, place)) = self.waiting.front().copied()
            && place.saturating_sub(self.left) < room
        {
            self.waiting.pop_front();
            self.calls.finish(call, Ok(Bytes::new()), &mut self.wakes);
        }
    }

    /// A call of the peer's limit has ended: another may go.
    fn landed(&mut self, now: Timestamp, flight: u64) {
        self.flights.land(flight);
        // The first one may have nothing left to send: the place is for whoever can use it.
        while self.flights.len() < self.max_in_flight()
            && let Some(id) = self.blocked.pop_front()
        {
            if let Some(target) = self.targets.get_mut(id as usize) {
                target.blocked = false;
            }
            self.pump(now, id);
        }
    }

    /// Ends a call with its answer.
    pub(super) fn finish(&mut self, now: Timestamp, id: u64, result: Result<Bytes, CallEnd>) {
        self.calls.finish(id, result, &mut self.wakes);
        if let Some(flight) = self.calls.get(id).and_then(|call| call.flight.take()) {
            self.landed(now, flight);
        }
    }

    /// The call's result, once. The waker is kept until then.
    pub fn poll_call(&mut self, id: u64, cx: &Context<'_>) -> Poll<Result<Bytes, CallEnd>> {
        self.calls.poll(id, cx)
    }

    /// The caller gives up: what has not gone is taken back, what has gone is cancelled there.
    pub fn abandon(&mut self, now: Timestamp, id: u64) {
        if let Some(call) = self.calls.close(id) {
            self.withdraw(now, id, &call);
        }
    }

    /// The deadline of a call is over: it ends, for a caller who has not looked yet.
    pub fn expire(&mut self, now: Timestamp, id: u64) {
        let Some(open) = self.calls.get(id) else { return };
        if matches!(open.progress, Progress::Done(_)) {
            return;
        }
        let target = open.target;
        let flight = open.flight.take();
        let end = Progress::Done(Err(CallEnd::TimedOut { sent: false }));
        let progress = std::mem::replace(&mut open.progress, end);
        let call = Call::ended(progress, target, flight);
        let sent = self.withdraw(now, id, &call);
        if let Some(open) = self.calls.get(id) {
            open.progress = Progress::Done(Err(CallEnd::TimedOut { sent }));
            self.wakes.extend(open.take_waker());
        }
    }

    /// Takes a call back as far as possible; whether the peer may have seen it.
    fn withdraw(&mut self, now: Timestamp, id: u64, call: &Call) -> bool {
        let mut sent = false;
        match call.progress {
            Progress::Pending | Progress::Waiting => {
                let target = self.targets.get_mut(call.target as usize);
                if let Some(bytes) = target.and_then(|target| target.withdraw(id)) {
                    self.waiting.retain(|(waiting, _)| *waiting != id);
                    self.leave(1, bytes);
                }
            }
            Progress::Ready { lane, offset, bytes } if !self.lanes.has_gone(lane, offset) => {
                if self.lanes.take_back(lane, offset)
                    && let Some(target) = self.targets.get_mut(call.target as usize)
                {
                    target.refund(1, bytes as u64);
                }
            }
            Progress::Ready { .. } | Progress::Sent => {
                sent = self.withdraw_sent(now, id, call.flight);
            }
            Progress::Resolving => {
                if let Some(target) = self.targets.get_mut(call.target as usize) {
                    target.resolvers.retain(|known| *known != id);
                }
            }
            Progress::Done(_) => {}
        }
        if let Some(flight) = call.flight {
            self.landed(now, flight);
        }
        // Its place, or its credit, is for what waits behind it.
        self.pump(now, call.target);
        sent
    }

    fn withdraw_sent(&mut self, now: Timestamp, id: u64, flight: Option<u64>) -> bool {
        if let Some(large) = self.lanes.drop_large(id) {
            if let Some((target, lane)) = large.then {
                // What does not arrive is never given back as credit.
                if let Some(target) = self.targets.get_mut(target as usize) {
                    target.refund(1, large.total as u64);
                }
                self.large_done(now, target, lane);
            }
            if !large.begun {
                return false;
            }
        }
        if let Some(flight) = flight {
            frame::put_control(self.lanes.control(), Kind::Cancel, &flight.to_be_bytes(), &[]);
        }
        true
    }

    /// A large message has gone: those behind it may go.
    pub(super) fn large_done(&mut self, now: Timestamp, id: TargetId, lane: usize) {
        if let Some(large) = self.targets.get_mut(id as usize).and_then(|t| t.large.get_mut(lane)) {
            *large = false;
        }
        self.pump(now, id);
        self.ask_again();
    }

    /// Asks for the targets that had something in the lanes when they were gone.
    fn ask_again(&mut self) {
        for target in std::mem::take(&mut self.again) {
            self.ask_for(target);
        }
    }

    /// Answers a call of the peer.
    ///
    /// # Errors
    /// `TooLarge`: the call is still open, and may be answered with that.
    pub fn reply(&mut self, id: u64, body: &mut Vec<u8>) -> Result<(), RpcError> {
        if body.len() > self.max_message() {
            return Err(RpcError::new(ErrorKind::TooLarge, self.over_limit(body.len())));
        }
        let Some(waker) = self.serving.close(id) else { return Ok(()) };
        self.wakes.extend(waker);
        if body.len() <= SMALL_BODY {
            self.lanes.put_small(0, Kind::Reply, 0, 0, &id.to_be_bytes(), body);
        } else {
            let fields = id.to_be_bytes().to_vec();
            let head = FirstFrame { kind: Kind::Reply, flags: 0, message: 0, fields };
            self.lanes.put_large(0, head, Bytes::from(std::mem::take(body)), None, None);
        }
        Ok(())
    }

    /// Answers a call of the peer with an error.
    pub fn fail(&mut self, id: u64, error: &RpcError) {
        let Some(waker) = self.serving.close(id) else { return };
        self.wakes.extend(waker);
        self.put_failure(Kind::Failure, &id.to_be_bytes(), error);
    }

    pub(super) fn put_failure(&mut self, kind: Kind, fields: &[u8], error: &RpcError) {
        let failure = RemoteFailure::from(error);
        let body = super::bodies::FailureBody { code: failure.code, text: failure.text };
        let Ok(body) = payload::to_vec(&body, Encoding::Named, usize::MAX) else { return };
        if kind == Kind::Failure {
            self.lanes.put_small(0, kind, 0, 0, fields, &body);
        } else {
            frame::put_control(self.lanes.control(), kind, fields, &body);
        }
    }

    /// Ready when the caller of `id` gave up or is gone, or has its answer.
    pub fn poll_cancelled(&mut self, id: u64, cx: &Context<'_>) -> Poll<()> {
        self.serving.poll_closed(id, cx)
    }

    /// Whether the caller of `id` gave up or is gone, or has its answer.
    #[must_use]
    pub fn is_cancelled(&self, id: u64) -> bool {
        !self.serving.is_open(id)
    }

    /// Whether there is something for the socket.
    #[must_use]
    pub fn has_output(&self) -> bool {
        let lasts = match self.closing {
            Closing::No => !self.lanes.is_empty(),
            Closing::Soon(_) => true,
            Closing::Said => false,
        };
        self.peer.is_some() && lasts
    }

    /// Bytes that wait for the socket.
    #[must_use]
    pub fn output_bytes(&self) -> usize {
        self.lanes.len()
    }

    /// Moves about `budget` bytes out, to be written in this order. They count as sent.
    pub fn transmit(&mut self, now: Timestamp, budget: usize, out: &mut VecDeque<Bytes>) {
        if self.peer.is_none() || matches!(self.closing, Closing::Said) {
            return;
        }
        self.pulse.pongs = 0;
        let done = self.lanes.transmit(budget, out);
        for lane in 0..2 {
            let all_gone = self.lanes.ready_is_empty(lane);
            if all_gone
                && let Some((messages, bytes)) = self.ready.get_mut(lane).map(std::mem::take)
                && messages > 0
            {
                self.leave(messages, bytes);
            }
        }
        for (target, lane) in done.finished {
            self.large_done(now, target, lane);
        }
        self.ask_again();
        if let Closing::Soon(close) = &self.closing
            && self.lanes.is_empty()
        {
            let mut last = BytesMut::new();
            close.put(&mut last);
            out.push_back(last.freeze());
            self.closing = Closing::Said;
        }
    }

    /// The wakers of calls that have ended, to be woken outside of the lock.
    pub fn take_wakes(&mut self, into: &mut Vec<Waker>) {
        into.append(&mut self.wakes);
    }

    /// Open calls in both directions.
    #[must_use]
    pub fn open_calls(&self) -> (usize, usize) {
        (self.calls.unfinished(), self.serving.len())
    }

    pub(super) fn reset_queue(&mut self) {
        self.ready = [(0, 0); 2];
        self.flights.clear();
        self.blocked.clear();
        self.again.clear();
        self.targets.iter_mut().for_each(|target| target.blocked = false);
        self.queued = self.targets.iter().flat_map(|t| &t.pending).map(VecDeque::len).sum();
        self.queued_bytes = self
            .targets
            .iter()
            .flat_map(|target| target.pending.iter().flatten())
            .map(|pending| pending.body.len())
            .sum();
        // What was in the lanes has left the queue as well, or places would never come again.
        self.left = self.entered.wrapping_sub(self.queued as u64);
    }
}

/// A message on its way into a lane.
struct Going {
    name: &'static str,
    /// The call, of an ask or of a `send_wait`.
    call: Option<u64>,
    ask: bool,
    deadline: Timestamp,
}

/// The fixed fields of a request, without an allocation.
struct Fields {
    bytes: [u8; 16 + 256],
    length: usize,
}

impl Fields {
    fn put(&mut self, part: &[u8]) {
        let end = self.length.saturating_add(part.len());
        if let Some(place) = self.bytes.get_mut(self.length..end) {
            place.copy_from_slice(part);
            self.length = end;
        }
    }

    fn as_slice(&self) -> &[u8] {
        self.bytes.get(..self.length).unwrap_or_default()
    }
}

fn request_fields(
    now: Timestamp,
    target: TargetId,
    lane: usize,
    name: MessageName,
    call: Option<u64>,
    deadline: Timestamp,
) -> (Kind, u8, u16, Fields) {
    let mut fields = Fields { bytes: [0; 272], length: 0 };
    let mut flags = if lane == 1 { FLAG_BULK } else { 0 };
    let kind = match call {
        Some(call) => {
            fields.put(&call.to_be_bytes());
            fields.put(&target.to_be_bytes());
            // Rounded up, so that a call never ends earlier there than here.
            let left = deadline.since(now).as_micros().div_ceil(1000);
            fields.put(&u32::try_from(left).unwrap_or(u32::MAX).to_be_bytes());
            Kind::Ask
        }
        None => {
            fields.put(&target.to_be_bytes());
            Kind::OneWay
        }
    };
    let message = match name {
        MessageName::Number(number) => number,
        MessageName::Text(text) => {
            flags |= FLAG_NAMED;
            fields.put(&[u8::try_from(text.len()).unwrap_or(u8::MAX)]);
            fields.put(text.as_bytes());
            0
        }
    };
    (kind, flags, message, fields)
}
