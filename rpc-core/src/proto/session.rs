//! One peer, across connections: calls to it, messages that wait for it, calls from it.

use super::assembly::Assemblies;
use super::bodies::IncomingMessage;
use super::calls::{Calls, Flights, Progress};
use super::close::Close;
use super::hello::PeerInfo;
use super::lanes::Lanes;
use super::large::lane_flag;
use super::named::{MessageName, Named};
use super::numbers::Numbers;
use super::pulse::Pulse;
use super::queue::{Going, Pending, Queue};
use super::serving::Serving;
use super::store::Store;
use super::target::{Phase, TargetId, WireNumber, lane_index};
use super::targets::Targets;
use super::waiting::Waiting;
use crate::counters::{Tally, Traffic};
use crate::deadline::Timestamp;
use crate::deadlines::Deadlines;
use crate::error::{ErrorKind, RpcError};
use crate::limits::Limits;
use crate::plant::planted;
use crate::seam::Outgoing;
use crate::termination::Termination;
use crate::wire::encoded::SMALL_BODY;
use crate::wire::rope::Rope;
use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::task::Waker;

/// The protocol's state towards one peer. It does no I/O: it is given bytes and the time, and
/// gives back bytes and events. Whoever holds it keeps it behind a short lock and wakes the
/// connection's driver when [`has_output`](Self::has_output) turns true.
///
/// In this order, because a process may have thousands of connections and each ask passes through the
/// cache anew: what every ask and answer touches is at the beginning and lies together.
#[derive(Debug)]
#[repr(C)]
pub struct Session {
    pub(super) lanes: Lanes,
    pub(super) closing: Closing,
    pub(super) wakes: Vec<Waker>,
    /// Whether messages have left in company the last time.
    pub(super) together: bool,
    /// Whether the peer has said goodbye: nothing new is sent to it.
    pub(super) leaving: bool,
    /// Whether there is a connection, and how many there were, that one included.
    pub(super) connected: bool,
    pub(super) connections: u64,
    /// The largest message, and the most calls in flight, that both sides take.
    pub(super) max_message: usize,
    pub(super) max_in_flight: usize,
    pub(super) pulse: Pulse,
    /// The part of a large body that is in the middle of its frame: its stream, and what is to come.
    pub(super) middle: Option<(u32, usize)>,
    pub(super) limits: Arc<Limits>,
    pub(super) assemblies: Assemblies<IncomingMessage>,
    pub(super) serving: Serving,
    /// Messages to the peer and their answers, and answers to the peer.
    pub(super) served: Traffic,
    pub(super) called: Traffic,
    pub(super) calls: Calls,
    /// Calls that the peer may be working on.
    pub(super) flights: Flights,
    pub(super) targets: Targets,
    /// The deadlines of asks, and the time of which this must be told, if nobody has heard it yet.
    pub(super) deadlines: Deadlines<u64>,
    pub(super) alarm: Option<Timestamp>,
    /// Messages that have not been given to the socket, and their bytes.
    pub(super) queued: usize,
    pub(super) queued_bytes: usize,
    pub(super) waiting: Waiting,
    /// Messages in the lanes' buffers: they leave the queue when the buffers do.
    pub(super) ready: [(usize, usize); 2],
    /// Targets of the system: room is kept for such.
    pub(super) reserves: usize,
    pub(super) store: Store,
    /// Endpoints of this side whose end is to be said when the normal lane has gone so far: at most
    /// one for each number that the peer has resolved.
    pub(super) going: VecDeque<(u64, WireNumber, Termination)>,
    pub(super) numbers: Numbers,
    /// Targets at other envs that nobody needs, and where the lanes ended when that began.
    pub(super) lingering: BTreeMap<TargetId, [u64; 2]>,
    /// Targets with an ask that waits for a call in flight to end: others, and those of the system.
    pub(super) blocked: [VecDeque<TargetId>; 2],
    /// The same of relayed ones, which have half of the places.
    pub(super) blocked_relayed: VecDeque<TargetId>,
    /// Targets to be asked for when there is a number for them.
    pub(super) starved: VecDeque<TargetId>,
    pub(super) peer: Option<PeerInfo>,
    pub(super) peer_name: String,
    pub(super) tally: Arc<Tally>,
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
pub struct Request<'a, 'b> {
    /// Whom it is for.
    pub target: TargetId,
    /// What is sent.
    pub message: &'a mut Outgoing<'b>,
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

impl<'a, 'b> Request<'a, 'b> {
    /// A message to be queued.
    pub fn new(target: TargetId, message: &'a mut Outgoing<'b>, submission: Submission) -> Self {
        Self { target, message, submission }
    }
}

impl Session {
    /// A session without a connection. `peer` names the other side in messages to people.
    #[must_use]
    pub fn new(limits: impl Into<Arc<Limits>>, peer: impl Into<String>) -> Self {
        let limits = limits.into();
        Self {
            serving: Serving::new(limits.max_in_flight()),
            assemblies: Assemblies::new(limits.message_max_size(), limits.max_assembly()),
            middle: None,
            peer_name: peer.into(),
            peer: None,
            connected: false,
            connections: 0,
            max_message: limits.message_max_size(),
            max_in_flight: 0,
            calls: Calls::default(),
            targets: Targets::default(),
            numbers: Numbers::default(),
            lanes: Lanes::new(),
            store: Store::default(),
            queued: 0,
            queued_bytes: 0,
            ready: [(0, 0); 2],
            deadlines: Deadlines::default(),
            alarm: None,
            together: false,
            flights: Flights::default(),
            going: VecDeque::new(),
            starved: VecDeque::new(),
            lingering: BTreeMap::new(),
            blocked: Default::default(),
            blocked_relayed: VecDeque::new(),
            waiting: Waiting::default(),
            reserves: 0,
            wakes: Vec::new(),
            closing: Closing::No,
            leaving: false,
            pulse: Pulse::default(),
            called: Traffic::default(),
            served: Traffic::default(),
            tally: Arc::default(),
            limits,
        }
    }

    /// The peer's name in messages to people.
    #[must_use]
    pub fn peer_name(&self) -> &str {
        &self.peer_name
    }

    /// Queues a message, in order behind those to the same target and lane. The number of the
    /// call, of an ask and of a [`Submission::SendWait`] that has to wait for room.
    ///
    /// # Errors
    /// `Overloaded`, `TooLarge`; `Encode` if the message's name does not fit into a frame.
    pub fn submit(
        &mut self,
        now: impl FnOnce() -> Timestamp,
        request: Request<'_, '_>,
    ) -> Result<Option<u64>, RpcError> {
        let bytes = request.message.body.len();
        let fits = self.admit(&request, bytes)?;
        let lane = lane_index(request.message.lane);
        let ask = request.submission == Submission::Ask;
        let call = match request.submission {
            Submission::Send => None,
            Submission::SendWait if fits => None,
            Submission::SendWait => Some(self.open(request.target, || Progress::Waiting)?),
            Submission::Ask => {
                let call = self.open(request.target, || Progress::Pending)?;
                self.keep_deadline(request.message.deadline, call);
                Some(call)
            }
        };
        let place = if fits {
            None
        } else {
            let system = self.is_system(request.target);
            self.waiting.add(system, bytes, call.filter(|_| !ask))
        };
        self.called.message(ask);
        self.queued = self.queued.saturating_add(1);
        self.queued_bytes = self.queued_bytes.saturating_add(bytes);
        if bytes <= SMALL_BODY && self.can_go_now(request.target, lane, ask, bytes) {
            let (name, trace) = (Named::Ours(request.message.name), request.message.trace.as_ref());
            let deadline = request.message.deadline;
            let going = Going { name: &name, call, ask, deadline, trace, place };
            // One way, the time says nothing.
            let now = if ask { now() } else { Timestamp::START };
            self.put_small(now, request.target, lane, &going, request.message.body.own());
            return Ok(call);
        }
        if call.is_none() && self.queue_frame(&request, lane) {
            return Ok(call);
        }
        let body = if bytes <= SMALL_BODY {
            Rope::from(self.store.keep(request.message.body.own()))
        } else {
            request.message.body.take()
        };
        let Outgoing { name, deadline, ref mut trace, .. } = *request.message;
        let (name, trace) = (Named::Ours(name), trace.take());
        let pending = Pending { call, ask, name, body, deadline, trace, place };
        if let Some(target) = self.targets.get_mut(request.target) {
            if let Some(queue) = target.pending.get_mut(lane) {
                queue.push(pending);
            }
            self.ask_for(request.target);
            if self.may_pump(request.target) {
                self.pump(now(), request.target);
            }
        }
        Ok(call)
    }

    /// Has a one-way message wait as the frame that it will be, if it is such and its target is known.
    /// What is in front of it, or what it waits for itself, may not go now.
    fn queue_frame(&mut self, request: &Request<'_, '_>, lane: usize) -> bool {
        if request.message.trace.is_some() || !Queue::takes(request.message.body.len()) {
            return false;
        }
        let Some(target) = self.targets.get_mut(request.target) else { return false };
        let (Phase::Resolved, Some(number)) = (target.phase, target.number) else { return false };
        let MessageName::Number(message) = target.own_message(request.message.name) else {
            return false;
        };
        let Some(queue) = target.pending.get_mut(lane) else { return false };
        queue.push_frame(number, lane_flag(lane), message, request.message.body.own());
        true
    }

    pub(super) fn open(
        &mut self,
        target: TargetId,
        begins: impl FnOnce() -> Progress,
    ) -> Result<u64, RpcError> {
        let Some(call) = self.calls.open(target, begins) else {
            return Err(RpcError::new(
                ErrorKind::Overloaded,
                format!("too many calls to {} are open", self.peer_name),
            ));
        };
        if let Some(target) = self.targets.get_mut(target) {
            target.calls = target.calls.saturating_add(1);
        }
        Ok(call)
    }

    pub(super) fn can_go_now(
        &self,
        target: TargetId,
        lane: usize,
        ask: bool,
        bytes: usize,
    ) -> bool {
        let in_flight = if ask { self.in_flight_for(target) } else { 0 };
        let in_flight = in_flight.saturating_add(usize::from(planted!(InFlightOneMore)));
        let Some(target) = self.targets.get(target) else { return false };
        !self.leaving
            && target.phase == Phase::Resolved
            && (target.pending.get(lane).is_some_and(Queue::is_empty) || planted!(QueueOvertaken))
            && (target.large.get(lane) == Some(&false) || planted!(LargeOvertaken))
            && target.has_credit(bytes)
            && (!ask || self.flights.len() < in_flight)
    }

    /// Whether something of a target's queues may go now.
    fn may_pump(&self, target: TargetId) -> bool {
        let Some(target) = self.targets.get(target) else { return false };
        let mut lanes = target.pending.iter().zip(target.large);
        !self.leaving
            && target.phase == Phase::Resolved
            && lanes.any(|(pending, large)| {
                let front = pending.front();
                !large && front.is_some_and(|front| target.has_credit(front.first_bytes()))
            })
    }

    /// Whether calls have ended whose callers are to be woken.
    #[must_use]
    pub fn has_wakes(&self) -> bool {
        !self.wakes.is_empty()
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
        self.blocked.iter_mut().for_each(VecDeque::clear);
        self.blocked_relayed.clear();
        self.starved.clear();
        self.lingering.clear();
        self.numbers.clear();
        for target in self.targets.iter_mut() {
            (target.blocked, target.starved) = (false, false);
        }
        (self.queued, self.queued_bytes) = self.targets.waiting();
        // What was in the lanes has left the queue as well.
        self.waiting.lanes_cleared();
        if !self.waiting.is_empty() {
            self.waiting.keep(&self.targets.places());
        }
    }
}
