//! Messages on their way: from a target's queue into the lanes, as far as the peer allows.

use super::bodies::ResolveBody;
use super::calls::Progress;
use super::headers;
use super::hello::RELAY;
use super::large::{FirstFrame, Then, lane_flag};
use super::named::MessageName;
use super::queue::{Entry, Going, Pending, Queue};
use super::session::Session;
use super::target::{Phase, TargetId, TargetKey};
use crate::address::EnvId;
use crate::counters::Count;
use crate::deadline::Timestamp;
use crate::error::{ErrorKind, Outcome, RpcError};
use crate::message::Encoding;
use crate::plant::planted;
use crate::seam::CallEnd;
use crate::wire::encoded::SMALL_BODY;
use crate::wire::frame::{self, FLAG_HEADERS, FLAG_NAMED, Kind};
use crate::wire::payload;

impl Session {
    /// Asks the peer for a target that it has not been asked for on this connection.
    pub(super) fn ask_for(&mut self, id: TargetId) {
        let Some(peer) = self.peer.as_ref().filter(|_| !self.leaving) else { return };
        let Some(target) = self.targets.get_mut(id) else { return };
        if target.phase != Phase::Unknown || target.starved {
            return;
        }
        if target.key.env.is_some() && !peer.hello.has(RELAY) {
            let error = does_not_relay(&target.key, &self.peer_name);
            return self.target_failed(id, &error);
        }
        let Some(number) = self.numbers.take(id, target.relayed.is_some()) else {
            target.starved = true;
            self.starved.push_back(id);
            return;
        };
        target.phase = Phase::Resolving;
        target.number = Some(number);
        let TargetKey { name, pin, env } = target.key.clone();
        let resolve = ResolveBody { name, pin, env };
        if let Ok(body) = payload::to_vec(&resolve, Encoding::Named, usize::MAX) {
            frame::put_control(self.lanes.control(), Kind::Resolve, &number.to_be_bytes(), &body);
        }
    }

    /// Puts what may go of a target's queues into the lanes.
    pub(super) fn pump(&mut self, now: Timestamp, id: TargetId) {
        if self.leaving {
            return;
        }
        let max_in_flight = self.in_flight_for(id);
        for lane in 0..2 {
            while let Some(target) = self.targets.get_mut(id)
                && target.phase == Phase::Resolved
                && target.large.get(lane) == Some(&false)
                && let Some(front) = target.pending.get(lane).and_then(Queue::front)
                && target.has_credit(front.first_bytes())
            {
                let Entry::One(front) = front else {
                    self.put_run(id, lane);
                    continue;
                };
                let relayed = target.relayed.is_some();
                if front.ask && !self.flights.have_room(max_in_flight, relayed) {
                    if !std::mem::replace(&mut target.blocked, true) {
                        let queue = if relayed {
                            Some(&mut self.blocked_relayed)
                        } else {
                            self.blocked.get_mut(usize::from(target.system))
                        };
                        if let Some(queue) = queue {
                            queue.push_back(id);
                        }
                    }
                    break;
                }
                self.put_next(now, id, lane);
            }
        }
        self.settle(id);
    }

    /// Puts a run into the lane, or as much of it as there is credit for.
    fn put_run(&mut self, id: TargetId, lane: usize) {
        let Some(target) = self.targets.get_mut(id) else { return };
        let most = usize::try_from(target.messages_left).unwrap_or(0);
        let Some(queue) = target.pending.get_mut(lane) else { return };
        let (messages, bytes) = queue.take_run(most, |frames| self.lanes.put_frames(lane, frames));
        target.spend_messages(messages);
        self.is_ready(lane, messages, bytes);
    }

    /// Messages of this env are in a lane's buffer.
    fn is_ready(&mut self, lane: usize, messages: usize, bytes: usize) {
        if let Some(ready) = self.ready.get_mut(lane) {
            ready.0 = ready.0.saturating_add(messages);
            ready.1 = ready.1.saturating_add(bytes);
        }
    }

    fn put_next(&mut self, now: Timestamp, id: TargetId, lane: usize) {
        let max = self.max_message();
        let Some(target) = self.targets.get_mut(id) else { return };
        let Some(next) = target.pending.get_mut(lane).and_then(Queue::pop) else { return };
        target.left_queue(next.body.len());
        let relayed = target.relayed.is_some();
        if next.body.len() > max {
            // The peer's limit was not known when it was queued.
            return self.refuse(id, &next);
        }
        let Pending { call, ask, ref name, deadline, ref trace, body, place } = next;
        let going = Going { name, call, ask, deadline, trace: trace.as_ref(), place };
        if body.len() <= SMALL_BODY {
            self.put_small(now, id, lane, &going, body.first());
            return;
        }
        let Some(target) = self.targets.get_mut(id) else { return };
        let Some(number) = target.number else { return };
        target.spend(body.len());
        let message = target.message(name);
        if let Some(large) = target.large.get_mut(lane) {
            *large = true;
        }
        self.numbers.large_begins(number);
        let flight = self.depart(&going, relayed);
        self.goes(&going, flight, Progress::Sent);
        let mut head = RequestHead::new(now, number, lane, message, flight, deadline);
        let fields = head.with_headers(self.headers(&going).as_deref());
        let RequestHead { kind, flags, message, .. } = head;
        let head = FirstFrame { kind, flags, message, fields };
        self.lanes.put_large(lane, head, body, Some(Then { number, lane, place }), call);
    }

    fn refuse(&mut self, id: TargetId, message: &Pending) {
        let error = self.too_large(&message.name, id, message.body.len());
        let end = Err(CallEnd::Failed(error.clone()));
        let told = message.call.and_then(|id| self.calls.finish(id, end, &mut self.wakes));
        if told.is_none() {
            self.tally.count(Count::DeadLettersUnsent);
            tracing::warn!(%error, "a one-way message was lost");
        }
        self.waits_no_more(message.place, false);
        self.leave(1, message.body.len());
    }

    pub(super) fn put_small(
        &mut self,
        now: Timestamp,
        id: TargetId,
        lane: usize,
        going: &Going<'_>,
        body: &[u8],
    ) {
        let Some(target) = self.targets.get_mut(id) else { return };
        let Some(number) = target.number else { return };
        target.spend(body.len());
        let message = target.message(going.name);
        let relayed = target.relayed.is_some();
        let flight = self.depart(going, relayed);
        let mut head = RequestHead::new(now, number, lane, message, flight, going.deadline);
        let headers = self.headers(going);
        let offset = if headers.is_none() && head.name.is_none() {
            self.lanes.put_small(lane, head.kind, head.flags, head.message, head.fixed(), body)
        } else {
            let fields = head.with_headers(headers.as_deref());
            self.lanes.put_small(lane, head.kind, head.flags, head.message, &fields, body)
        };
        if !relayed {
            self.is_ready(lane, 1, body.len());
        }
        if let Some(place) = going.place {
            self.waiting.is_ready(lane, offset, place);
        }
        self.goes(going, flight, Progress::Ready { lane, offset, bytes: body.len(), number });
    }

    /// What goes before the body of a message that has a trace, if the peer reads it.
    fn headers(&self, going: &Going<'_>) -> Option<Vec<u8>> {
        let trace = going.trace?;
        let reads = self.peer.as_ref()?.hello.has(headers::CAPABILITY);
        reads.then(|| headers::put(trace))
    }

    /// The number that the peer knows a call by, if it is one.
    fn depart(&mut self, going: &Going<'_>, relayed: bool) -> Option<u64> {
        let call = going.call.filter(|_| going.ask)?;
        Some(self.flights.depart(call, relayed))
    }

    /// A call's message is in a lane. A `send_wait` that has found room is over; one that still
    /// waits for it may be taken back from there, like an ask.
    fn goes(&mut self, going: &Going<'_>, flight: Option<u64>, progress: Progress) {
        if let Some(call) = going.call.and_then(|id| self.calls.get(id))
            && !matches!(call.progress, Progress::Done(_))
        {
            call.progress = progress;
            call.flight = flight;
        }
    }

    /// A call of the peer's limit has ended: another may go.
    pub(super) fn landed(&mut self, now: Timestamp, flight: u64) {
        self.flights.land(flight);
        self.has_place(now);
    }

    /// There may be a place among the calls in flight.
    #[inline]
    pub(super) fn has_place(&mut self, now: Timestamp) {
        // The first one may have nothing left to send: the place is for whoever can use it.
        while let Some(id) = self.next_blocked() {
            if let Some(target) = self.targets.get_mut(id) {
                target.blocked = false;
            }
            self.pump(now, id);
            if planted!(BlockedMissed) {
                break;
            }
        }
    }

    /// A target for which there is a place among the calls in flight, those of the system first.
    fn next_blocked(&mut self) -> Option<TargetId> {
        for system in [true, false] {
            let queue = self.blocked.get_mut(usize::from(system))?;
            let Some(id) = queue.front().copied() else { continue };
            if self.flights.len() < self.in_flight_for(id) {
                return self.blocked.get_mut(usize::from(system))?.pop_front();
            }
        }
        let id = self.blocked_relayed.front().copied()?;
        let room = self.flights.have_room(self.in_flight_for(id), true);
        if room { self.blocked_relayed.pop_front() } else { None }
    }
}

/// The error of a target that leads through a peer of an older version.
fn does_not_relay(key: &TargetKey, relay: &str) -> RpcError {
    let (name, env) = (&key.name, EnvId::new(key.env.unwrap_or_default()));
    let text = format!(
        "cannot reach rpc-client://{name}@{env} through rpc://{relay}: that env does not relay"
    );
    RpcError::new(ErrorKind::Unreachable, text).with_outcome(Outcome::NeverSent)
}

/// What a message's frame says before its body.
struct RequestHead<'a> {
    kind: Kind,
    flags: u8,
    message: u16,
    fixed: [u8; 16],
    length: usize,
    /// The message's name, where it has no number.
    name: Option<&'a str>,
}

impl<'a> RequestHead<'a> {
    fn new(
        now: Timestamp,
        target: u32,
        lane: usize,
        name: MessageName<'a>,
        call: Option<u64>,
        deadline: Timestamp,
    ) -> Self {
        let (number, text) = match name {
            MessageName::Number(number) => (number, None),
            MessageName::Text(text) => (0, Some(text)),
        };
        let named = if text.is_some() { FLAG_NAMED } else { 0 };
        let flags = named | lane_flag(lane);
        let [a, b, c, d] = target.to_be_bytes();
        let (kind, fixed, length) = match call {
            Some(call) => {
                // Rounded up, so that a call never ends earlier there than here.
                let left = deadline.as_nanos().saturating_sub(now.as_nanos());
                let left = if planted!(DeadlineForgotten) { u64::MAX } else { left };
                let left = left.div_ceil(1_000_000);
                let [e, f, g, h] = u32::try_from(left).unwrap_or(u32::MAX).to_be_bytes();
                let [i, j, k, l, m, n, o, p] = call.to_be_bytes();
                (Kind::Ask, [i, j, k, l, m, n, o, p, a, b, c, d, e, f, g, h], 16)
            }
            None => (Kind::OneWay, [a, b, c, d, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0], 4),
        };
        Self { kind, flags, message: number, fixed, length, name: text }
    }

    fn fixed(&self) -> &[u8] {
        self.fixed.get(..self.length).unwrap_or_default()
    }

    /// All fields; sets the flag of headers if there are any.
    fn with_headers(&mut self, headers: Option<&[u8]>) -> Vec<u8> {
        let mut fields = self.fixed().to_vec();
        if let Some(name) = self.name {
            fields.push(u8::try_from(name.len()).unwrap_or(u8::MAX));
            fields.extend_from_slice(name.as_bytes());
        }
        if let Some(headers) = headers {
            self.flags |= FLAG_HEADERS;
            fields.extend_from_slice(headers);
        }
        fields
    }
}
