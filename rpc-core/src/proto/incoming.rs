//! Frames from the peer, and what they mean for this side.

use super::arrivals::Arrivals;
use super::assembly::FirstPart;
use super::bodies::{FailureBody, GoodbyeBody, IncomingMessage, ResolveBody, ResolvedBody};
use super::calls::{Call, Known};
use super::close::Close;
use super::message_frame::MessageFrame;
use super::notice::Notice;
use super::queue::Queue;
use super::resolution::Resolution;
use super::session::Session;
use super::target::{Phase, TargetId, TargetKey, WireNumber};
use crate::counters::Count;
use crate::deadline::Timestamp;
use crate::error::{ErrorKind, Outcome, RpcError, shortened};
use crate::message::Encoding;
use crate::plant::planted;
use crate::remote_failure::{MAX_FAILURE_TEXT, RemoteFailure};
use crate::seam::{CallEnd, Incarnation};
use crate::termination::Termination;
use crate::wire::frame::{Kind, put_control};
use crate::wire::payload;
use crate::wire::prescan::PrescanLimits;
use crate::wire::read::Reader;
use bytes::Bytes;
use serde::de::DeserializeOwned;

/// Something that the holder of a session has to act on.
#[derive(Debug)]
#[non_exhaustive]
pub enum Event {
    /// The peer asks for an endpoint; answer with [`Session::resolved`] or [`Session::unresolved`].
    Resolve(WireNumber, TargetKey),
    /// The peer will use that number no more: its frames with it have all arrived.
    Release(WireNumber),
    /// A message for an endpoint that the peer has resolved.
    Message(IncomingMessage),
    /// Several of them, in this order.
    Messages(Arrivals),
    /// The first part of a large message to a target: it counts with all of these bytes.
    Begun(TargetId, usize),
    /// The rest of such a message will not come.
    GivenUp(TargetId, usize),
    /// The peer is going to close, in order.
    Goodbye(String),
    /// The peer has closed, and says why.
    Closed(Close),
}

impl Session {
    /// A frame that carries no message.
    pub(super) fn frame(
        &mut self,
        now: Timestamp,
        kind: Kind,
        payload: &[u8],
        events: &mut Vec<Event>,
    ) -> Result<(), Close> {
        let mut reader = Reader::new(payload);
        match kind {
            Kind::Chunk => {
                let stream = need(reader.u32(), kind)?;
                self.part(now, stream, reader.rest(), events)
            }
            Kind::ChunkDrop => {
                self.dropped(need(reader.u32(), kind)?, events);
                Ok(())
            }
            Kind::Failure => {
                let id = need(reader.u64(), kind)?;
                let failure = read_failure(reader.rest());
                let relayed = |open: &mut Call| open.relayed;
                let call = self.flights.call_of(id).and_then(|call| self.calls.get(call));
                let end = if call.is_some_and(relayed) {
                    CallEnd::Relayed(failure)
                } else {
                    CallEnd::reported(failure.into_error())
                };
                self.answered(now, id, Err(end))
            }
            Kind::Cancel => {
                let waiting = self.serving.cancel(need(reader.u64(), kind)?);
                self.tally.count(Count::CancelsReceived);
                self.wakes.extend(waiting.into_iter().flatten());
                Ok(())
            }
            Kind::Resolve
            | Kind::Resolved
            | Kind::Unresolved
            | Kind::Gone
            | Kind::Release
            | Kind::Credit => {
                let target = need(reader.u32(), kind)?;
                self.about_target(now, kind, target, reader, events)
            }
            Kind::Ping => self.pong(now, need(reader.u64(), kind)?),
            Kind::Pong => need(reader.u64(), kind).map(|_| ()),
            Kind::Goodbye => {
                let body: GoodbyeBody = read(reader.rest(), kind)?;
                self.peer_leaves();
                events.push(Event::Goodbye(shortened(body.reason, MAX_FAILURE_TEXT)));
                Ok(())
            }
            Kind::Close => {
                events.push(Event::Closed(Close::read(reader.rest())));
                Ok(())
            }
            Kind::Hello => Err(Close::protocol("a second hello")),
            // The last three are not for here.
            Kind::Skip => {
                self.tally.count(Count::FramesSkipped);
                Ok(())
            }
            Kind::Heartbeat | Kind::OneWay | Kind::Ask | Kind::Reply => Ok(()),
        }
    }

    pub(super) fn part(
        &mut self,
        now: Timestamp,
        stream: u32,
        part: &[u8],
        events: &mut Vec<Event>,
    ) -> Result<(), Close> {
        match self.assemblies.add(stream, part)? {
            Some((message, body)) => self.arrived(now, message, body, events),
            None => Ok(()),
        }
    }

    fn dropped(&mut self, stream: u32, events: &mut Vec<Event>) {
        let dropped = self.assemblies.drop_stream(stream);
        let request = dropped.filter(|(message, _)| !message.reply);
        events.extend(request.map(|(message, total)| Event::GivenUp(message.target, total)));
    }

    /// A one-way message, an ask or a reply: the three frames that may be in parts.
    pub(super) fn message(
        &mut self,
        now: Timestamp,
        frame: MessageFrame,
        body: Bytes,
        events: &mut Vec<Event>,
    ) -> Result<(), Close> {
        let MessageFrame { message, large } = frame;
        let Some((stream, total)) = large else {
            self.assemblies.allow(body.len())?;
            return self.arrived(now, message, body, events);
        };
        self.begin(FirstPart { stream, total, what: message }, events)?;
        self.part(now, stream, &body, events)
    }

    /// Begins a large body.
    pub(super) fn begin(
        &mut self,
        first: FirstPart<IncomingMessage>,
        events: &mut Vec<Event>,
    ) -> Result<(), Close> {
        let (reply, target) = (first.what.reply, first.what.target);
        let total = self.assemblies.begin(first)?;
        if !reply {
            events.push(Event::Begun(target, total));
        }
        Ok(())
    }

    pub(super) fn arrived(
        &mut self,
        now: Timestamp,
        mut message: IncomingMessage,
        body: Bytes,
        events: &mut Vec<Event>,
    ) -> Result<(), Close> {
        if let (true, Some(id)) = (message.reply, message.call) {
            return self.answered(now, id, Ok(body));
        }
        if let Some(id) = message.call {
            self.serving.open(id)?;
        }
        message.body = body;
        events.push(Event::Message(message));
        Ok(())
    }

    pub(super) fn answered(
        &mut self,
        now: Timestamp,
        id: u64,
        result: Result<Bytes, CallEnd>,
    ) -> Result<(), Close> {
        let failed = result.is_err();
        self.answered_by(now, id, failed, || result)
    }

    /// The same; the answer is made where it stays.
    #[inline]
    pub(super) fn answered_by(
        &mut self,
        now: Timestamp,
        id: u64,
        failed: bool,
        result: impl FnOnce() -> Result<Bytes, CallEnd>,
    ) -> Result<(), Close> {
        let Some(call) = self.flights.land(id) else { return self.answered_before(id) };
        self.called.answer(failed);
        self.calls.answer(call, result, &mut self.wakes);
        self.has_place(now);
        Ok(())
    }

    #[cold]
    fn answered_before(&self, id: u64) -> Result<(), Close> {
        if self.flights.known(id) == Known::Never {
            return Err(Close::protocol(format!(
                "an answer to call {id:#x}, which was never made"
            )));
        }
        // The caller gave up in the meantime.
        self.tally.count(Count::AnswersLate);
        Ok(())
    }

    fn about_target(
        &mut self,
        now: Timestamp,
        kind: Kind,
        number: WireNumber,
        mut reader: Reader<'_>,
        events: &mut Vec<Event>,
    ) -> Result<(), Close> {
        match kind {
            Kind::Resolve => {
                let body: ResolveBody = read(reader.rest(), kind)?;
                let ResolveBody { name, pin, env } = body;
                events.push(Event::Resolve(number, TargetKey { name, pin, env }));
            }
            Kind::Release => events.push(Event::Release(number)),
            Kind::Resolved => {
                let body: ResolvedBody = read(reader.rest(), kind)?;
                let id = self.resolving(number)?;
                self.target_resolved(now, id, body);
            }
            Kind::Unresolved => {
                let failure = read_failure(reader.rest());
                let id = self.resolving(number)?;
                self.tell(id, Notice::Unresolved(failure.clone()));
                let error = failure.into_error().with_outcome(Outcome::NeverSent);
                if let Some(target) = self.targets.get_mut(id) {
                    target.unresolve();
                }
                // The peer keeps nothing of it.
                self.free_number(number);
                self.target_failed(id, &error);
            }
            Kind::Gone => {
                let how = Self::read_ending(reader.rest());
                if let Some(id) = self.resolved_target(number)? {
                    self.target_gone(id, how);
                }
            }
            _ => {
                let messages = need(reader.u32(), kind)?;
                let bytes = need(reader.u64(), kind)?;
                let Some(id) = self.resolved_target(number)? else { return Ok(()) };
                let messages = u64::from(messages);
                if let Some(target) = self.targets.get_mut(id) {
                    target.refund(messages, bytes);
                }
                self.tell(id, Notice::Credit { messages, bytes });
                self.pump(now, id);
            }
        }
        Ok(())
    }

    /// The target that waits for an answer to its RESOLVE.
    fn resolving(&self, number: WireNumber) -> Result<TargetId, Close> {
        let id = self.known_number(number)?;
        let waits = |id: &TargetId| {
            self.targets.get(*id).is_some_and(|target| target.phase == Phase::Resolving)
        };
        let unasked = || Close::protocol(format!("target {number} was resolved unasked"));
        id.filter(waits).ok_or_else(unasked)
    }

    /// The target that is resolved under a number; `None` if it was given up in the meantime.
    fn resolved_target(&self, number: WireNumber) -> Result<Option<TargetId>, Close> {
        let id = self.known_number(number)?;
        Ok(id.filter(|id| {
            self.targets.get(*id).is_some_and(|target| target.phase == Phase::Resolved)
        }))
    }

    fn known_number(&self, number: WireNumber) -> Result<Option<TargetId>, Close> {
        if !self.numbers.was_used(number) {
            return Err(Close::protocol(format!("target {number} was never resolved")));
        }
        Ok(self.numbers.holder(number))
    }

    fn target_resolved(&mut self, now: Timestamp, id: TargetId, body: ResolvedBody) {
        let Some(target) = self.targets.get_mut(id) else { return };
        let (env, endpoint) = body.incarnation;
        let incarnation = Incarnation::new(env, endpoint);
        let (messages, bytes) = body.credit;
        let mut resolution = Resolution::new(incarnation, body.messages, messages, bytes);
        resolution.system = body.system;
        let told = target.relayed.is_some().then(|| resolution.clone());
        let resolvers = std::mem::take(&mut target.resolvers);
        self.reserves = self.reserves.saturating_sub(usize::from(target.system));
        self.reserves = self.reserves.saturating_add(usize::from(body.system));
        target.resolved(resolution);
        self.give_room();
        for call in resolvers {
            self.finish(now, call, Ok(Bytes::new()));
        }
        if let Some(resolution) = told {
            self.tell(id, Notice::Resolved(resolution));
        }
        self.pump(now, id);
    }

    /// The peer has no such endpoint: what waits for it ends.
    pub(super) fn target_failed(&mut self, id: TargetId, error: &RpcError) {
        let (messages, bytes) = self.fail_target(id, error);
        self.leave(messages, if planted!(BytesKept) { 0 } else { bytes });
        self.settle(id);
    }

    /// Ends what waits for a target; the messages and bytes that were queued.
    pub(super) fn fail_target(&mut self, id: TargetId, error: &RpcError) -> (usize, usize) {
        let Some(target) = self.targets.get_mut(id) else { return (0, 0) };
        let watchers = std::mem::take(&mut target.watchers);
        for call in std::mem::take(&mut target.resolvers).into_iter().chain(watchers) {
            self.calls.finish(call, Err(CallEnd::Failed(error.clone())), &mut self.wakes);
        }
        let (mut messages, mut bytes, mut lost) = (0_usize, 0_usize, 0_usize);
        let own = target.relayed.is_none();
        for entry in target.pending.iter_mut().flat_map(Queue::drain) {
            if own {
                messages = messages.saturating_add(entry.messages());
                bytes = bytes.saturating_add(entry.bytes());
            }
            let end = |error: &RpcError| Err(CallEnd::Failed(error.clone()));
            entry.place().and_then(|place| self.waiting.take(place));
            let call = entry.call();
            let told = call.and_then(|id| self.calls.finish(id, end(error), &mut self.wakes));
            if told.is_none() {
                lost = lost.saturating_add(entry.messages());
            }
        }
        if lost > 0 {
            self.tally.add(Count::DeadLettersUnsent, lost as u64);
            let endpoint = &target.key.name;
            tracing::warn!(peer = %self.peer_name, %endpoint, lost, %error, "one-way messages lost");
        }
        (messages, bytes)
    }

    /// The endpoint has ended. A target by name looks for its successor, under a new number: what
    /// has the old one is refused there. A pinned one has no successor.
    fn target_gone(&mut self, id: TargetId, how: Termination) {
        self.end_watches(id, how, None);
        let Some(target) = self.targets.get_mut(id) else { return };
        let number = target.unresolve();
        let ends = target.key.pin.is_some() || target.relayed.is_some();
        let wanted = target.is_wanted();
        if ends {
            let error = RpcError::new(
                ErrorKind::EndpointStopped,
                format!("the endpoint {} at {} has been stopped", target.key.name, self.peer_name),
            );
            self.retire(number);
            self.tell(id, Notice::Gone(how));
            return self.target_failed(id, &error.with_outcome(Outcome::NeverSent));
        }
        self.retire(number);
        if wanted {
            self.ask_for(id);
        }
        self.settle(id);
    }

    /// Tells the peer that the endpoint it asked for is there.
    pub fn resolved(&mut self, id: WireNumber, resolution: &Resolution) {
        // Names that the frame has no room for have no number: the peer sends them by name.
        let mut room = self.lanes.frame_size().saturating_sub(1024);
        let mut fits = |name: &&String| {
            let length = name.len().saturating_add(2);
            let taken = length <= room;
            room = room.saturating_sub(length);
            taken
        };
        let body = ResolvedBody {
            incarnation: (resolution.incarnation.env, resolution.incarnation.endpoint),
            messages: resolution.messages.iter().take_while(|name| fits(name)).cloned().collect(),
            credit: (resolution.credit_messages, resolution.credit_bytes),
            system: resolution.system,
        };
        if let Ok(body) = payload::to_vec(&body, Encoding::Named, usize::MAX) {
            put_control(self.lanes.control(), Kind::Resolved, &id.to_be_bytes(), &body);
        }
    }

    /// Tells the peer that the endpoint it asked for is not there.
    pub fn unresolved(&mut self, id: WireNumber, error: &RpcError) {
        self.unresolved_as(id, RemoteFailure::from(error));
    }

    /// The same, with a failure as it was reported to this side.
    pub fn unresolved_as(&mut self, id: WireNumber, failure: RemoteFailure) {
        self.put_failure(Kind::Unresolved, &id.to_be_bytes(), failure);
    }

    /// Gives the peer room for more.
    pub fn grant(&mut self, id: WireNumber, messages: u32, bytes: u64) {
        let mut fields = [0_u8; 16];
        let parts = id.to_be_bytes().into_iter().chain(messages.to_be_bytes());
        let parts = parts.chain(bytes.to_be_bytes());
        for (place, byte) in fields.iter_mut().zip(parts) {
            *place = byte;
        }
        put_control(self.lanes.control(), Kind::Credit, &fields, &[]);
    }
}

pub(super) fn need<T>(field: Option<T>, kind: Kind) -> Result<T, Close> {
    field.ok_or_else(|| Close::protocol(format!("a {kind:?} frame ends early")))
}

fn read<T: DeserializeOwned>(body: &[u8], kind: Kind) -> Result<T, Close> {
    payload::decode(body, &PrescanLimits::default())
        .map_err(|error| Close::protocol(format!("a {kind:?} frame is not readable: {error}")))
}

fn read_failure(body: &[u8]) -> RemoteFailure {
    match payload::decode::<FailureBody>(body, &PrescanLimits::default()) {
        Ok(failure) => RemoteFailure::new(failure.code, failure.text),
        Err(error) => RemoteFailure::from(&RpcError::new(
            ErrorKind::Protocol,
            format!("the peer sent a failure that is not readable: {error}"),
        )),
    }
}
