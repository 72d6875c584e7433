//! An endpoint as its senders see it: a name, the messages it takes, and a bounded queue.
//!
//! actix mailboxes have no bound, so the bound is here, in front of the actor: counted in
//! messages and bytes, taken before a message enters, given back when its handler begins.

use crate::address::{EndpointAddress, EndpointLocation, EndpointName};
use crate::behind::{Behind, Policy};
use crate::core::EnvCore;
use crate::counters::{Count, Traffic};
use crate::credit::{Credit, Pool};
use crate::deadline::Timestamp;
use crate::deadlines::Deadlines;
use crate::delivery::{HandlerInfo, NetworkEvent, WireMessage};
use crate::error::RpcError;
use crate::handoff::Place;
use crate::local_call::{LocalAsk, LocalTell};
use crate::open_call::OpenCall;
use crate::plant::planted;
use crate::reply_sink::{ReplySink, Way};
use crate::row::Row;
use crate::seam::{Expire, Incarnation, Origin};
use crate::terminated::WatchId;
use crate::termination::Termination;
use crate::ticket::{Placed, Ticket};
use crate::timers::TimerKey;
use crate::trace::TraceContext;
use crate::turns::{HERE, Turns, Weigh};
use crate::wakers::Wakers;
use crate::watches::Watches;
use std::any::TypeId;
use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::task::Waker;

pub(crate) struct Item {
    pub(crate) kind: Kind,
    pub(crate) bytes: usize,
    /// The trace that it is part of, as its sender says.
    pub(crate) trace: Option<TraceContext>,
}

impl Weigh for Item {
    fn bytes(&self) -> usize {
        if let Kind::Row(row) = &self.kind { row.bytes() } else { self.bytes }
    }

    fn count(&self) -> usize {
        if let Kind::Row(row) = &self.kind { row.len() } else { 1 }
    }

    fn split(&mut self, messages: usize, bytes: usize) -> Option<Self> {
        let Kind::Row(row) = &mut self.kind else { return None };
        Some(Self::row(row.split(messages, bytes)?))
    }
}

impl Item {
    fn row(row: Row) -> Self {
        Self { kind: Kind::Row(row), bytes: 0, trace: None }
    }
}

pub(crate) enum Kind {
    Tell {
        tell: Box<dyn LocalTell>,
        ticket: Option<Arc<Ticket>>,
    },
    Ask {
        sink: ReplySink,
        asker: Option<Asker>,
        deadline: Timestamp,
    },
    /// Boxed, because it is the largest, and each one that is moved costs the others its size.
    Wire(Box<WireMessage>),
    /// Messages of a peer that came in a row.
    Row(Row),
    Network(NetworkEvent),
    /// A watch of the endpoint has ended.
    Terminated(WatchId),
}

/// The handler that waits for an ask: how chains of asks are followed.
#[derive(Clone)]
pub(crate) struct Asker {
    pub(crate) inbox: Arc<Inbox>,
    pub(crate) turn: u64,
}

/// The inbox of one endpoint, for as long as it lives.
pub struct Inbox {
    name: EndpointName,
    address: EndpointAddress,
    incarnation: Incarnation,
    core: Arc<EnvCore>,
    handlers: Vec<HandlerInfo>,
    network_events: bool,
    /// Whether the current message has a trace: looked at without the lock.
    pub(crate) traced: AtomicBool,
    /// Local messages, and their bytes, that were begun since the loop took some: they are still
    /// among those that `State` says are held. Only the loop writes here.
    pub(crate) begun: AtomicUsize,
    pub(crate) begun_bytes: AtomicUsize,
    /// Whether the loop has taken something that it has not begun.
    pub(crate) has_taken: AtomicBool,
    /// Whether the drain deadline is over: nothing more is begun.
    pub(crate) drained: AtomicBool,
    /// Whether that is because it has panicked.
    pub(crate) crashed: AtomicBool,
    system: bool,
    /// What is behind it.
    pub(crate) behind: Behind,
    place: Place,
    /// Whether the loop's task was woken because of a message, and has not been polled since. Only
    /// that task takes this back: an asker that polls the loop does not make up for it.
    pub(crate) woken: AtomicBool,
    state: Mutex<State>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Phase {
    Open,
    /// What is queued is still handled.
    Stopping,
    Closed,
}

pub(crate) struct State {
    pub(crate) phase: Phase,
    /// By sender: each peer, by its address, and all senders of this process together.
    pub(crate) queue: Turns<EndpointLocation, Item>,
    /// Local messages in the queue, and their bytes.
    pub(crate) held: usize,
    pub(crate) held_bytes: usize,
    /// What is for the windows of peers.
    pub(crate) pool: Pool,
    /// Network events in the queue.
    pub(crate) events: usize,
    /// Messages of peers that are gone.
    pub(crate) abandoned: Credit,
    /// Local messages, and their bytes, that ever entered and left: a ticket waits until what is
    /// before its message allows it. Those that are held have entered, and no others.
    pub(crate) left: u64,
    pub(crate) left_bytes: u64,
    /// Messages that were queued: of this env, and of others.
    local: Traffic,
    received: Traffic,
    pub(crate) tickets: VecDeque<Placed>,
    /// Those of local calls, whether they are queued or being handled.
    pub(crate) deadlines: Deadlines<Weak<dyn Expire>>,
    pub(crate) alarm: Option<TimerKey>,
    /// Whether the endpoint's loop waits for messages, or for its end.
    pub(crate) idle: bool,
    /// Its task.
    pub(crate) waker: Option<Waker>,
    /// Counts handlers; `asker` is who waits for the current one.
    pub(crate) turn: u64,
    pub(crate) asker: Option<Asker>,
    pub(crate) way: Option<Way>,
    /// When the caller of the current handler stops waiting.
    pub(crate) deadline: Timestamp,
    /// The same call, once it was handed to a call context.
    pub(crate) open: Option<Arc<OpenCall>>,
    /// The current handler's place in the trace of its message; kept for `on_error`.
    pub(crate) trace: Option<TraceContext>,
    /// Peers to tell when the endpoint is gone.
    pub(crate) origins: Vec<Weak<dyn Origin>>,
    pub(crate) closed: Wakers,
    /// Those who wait for its end, by a number, to be told how it ended.
    pub(crate) watchers: BTreeMap<u64, Waker>,
    pub(crate) last_watcher: u64,
    /// What it watches itself.
    pub(crate) watches: Watches,
    /// How it has ended.
    pub(crate) how: Option<Termination>,
    /// Whether the time of a running handler is over as well, and its task, to be told of it.
    pub(crate) overdue: bool,
    pub(crate) running: Option<Waker>,
    /// The drain deadline, and that of a running handler.
    pub(crate) drain: Vec<TimerKey>,
}

impl Inbox {
    pub(crate) fn new(
        name: EndpointName,
        endpoint: u64,
        core: Arc<EnvCore>,
        handlers: Vec<HandlerInfo>,
        network_events: bool,
        system: bool,
        policy: Policy,
    ) -> Self {
        let limits = core.config().limits();
        let room =
            Credit { messages: limits.inbox_max_messages(), bytes: limits.inbox_max_bytes() };
        let state = State {
            phase: Phase::Open,
            queue: Turns::new(),
            held: 0,
            held_bytes: 0,
            pool: Pool::new(room, system),
            events: 0,
            abandoned: Credit::default(),
            left: 0,
            left_bytes: 0,
            local: Traffic::default(),
            received: Traffic::default(),
            tickets: VecDeque::new(),
            deadlines: Deadlines::default(),
            alarm: None,
            idle: false,
            waker: None,
            turn: 0,
            asker: None,
            way: None,
            deadline: Timestamp::MAX,
            open: None,
            trace: None,
            origins: Vec::new(),
            closed: Wakers::default(),
            watchers: BTreeMap::new(),
            last_watcher: 0,
            watches: Watches::default(),
            how: None,
            overdue: false,
            running: None,
            drain: Vec::new(),
        };
        Self {
            address: EndpointAddress::new(name.clone(), core.location().clone()),
            incarnation: Incarnation::new(core.id().0, endpoint),
            name,
            core,
            handlers,
            network_events,
            traced: AtomicBool::new(false),
            begun: AtomicUsize::new(0),
            begun_bytes: AtomicUsize::new(0),
            has_taken: AtomicBool::new(false),
            drained: AtomicBool::new(false),
            crashed: AtomicBool::new(false),
            system,
            behind: Behind::new(policy),
            place: Place::default(),
            woken: AtomicBool::new(false),
            state: Mutex::new(state),
        }
    }

    /// To be locked to put something in the queue.
    #[inline]
    pub(crate) fn open(&self) -> MutexGuard<'_, State> {
        let mut state = self.lock();
        if !self.has_taken.load(Ordering::Relaxed) {
            state.queue.settle();
        }
        state
    }

    #[inline]
    pub(crate) fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    #[cfg(test)]
    pub(crate) fn is_locked(&self) -> bool {
        self.state.try_lock().is_err()
    }

    /// The endpoint's name.
    #[must_use]
    pub fn name(&self) -> &EndpointName {
        &self.name
    }

    /// Where the endpoint is.
    #[must_use]
    pub fn address(&self) -> &EndpointAddress {
        &self.address
    }

    /// Which life of which endpoint this is.
    #[must_use]
    pub fn incarnation(&self) -> Incarnation {
        self.incarnation
    }

    /// The messages that the endpoint has handlers for, in the order of their numbers.
    #[must_use]
    pub fn handlers(&self) -> &[HandlerInfo] {
        &self.handlers
    }

    /// Whether it was set up as an endpoint of the system: with room that bulk traffic to others
    /// does not take.
    #[must_use]
    pub fn is_system(&self) -> bool {
        self.system
    }

    pub(crate) fn core(&self) -> &Arc<EnvCore> {
        &self.core
    }

    pub(crate) fn place(&self) -> &Place {
        &self.place
    }

    /// The number of the handler for a message: by its type, or at least by its name.
    #[inline]
    pub(crate) fn handler_of(&self, message: TypeId, name: impl FnOnce() -> &'static str) -> usize {
        let same_type = self.handlers.iter().position(|info| info.type_id == message);
        same_type.unwrap_or_else(|| self.handler_named(name()))
    }

    #[cold]
    fn handler_named(&self, name: &str) -> usize {
        let found = self.handlers.iter().position(|info| info.name == name);
        found.unwrap_or(self.handlers.len())
    }

    /// Puts a local one-way message in the queue, if there is room.
    pub(crate) fn tell(
        &self,
        tell: Box<dyn LocalTell>,
        bytes: usize,
        trace: Option<TraceContext>,
    ) -> Result<(), RpcError> {
        let mut state = self.admit(tell.name(), bytes, false)?;
        state.enter(Item { kind: Kind::Tell { tell, ticket: None }, bytes, trace });
        self.wake(state);
        Ok(())
    }

    /// The same, giving the message back if there is no room.
    #[inline]
    pub(crate) fn tell_now(
        &self,
        tell: Box<dyn LocalTell>,
        bytes: usize,
        trace: &Option<TraceContext>,
    ) -> Result<Option<Box<dyn LocalTell>>, RpcError> {
        let mut state = self.open();
        if state.phase != Phase::Open {
            return Err(self.stopped());
        }
        if !self.has_room(&state, bytes) {
            return Ok(Some(tell));
        }
        let trace = trace.clone();
        state.enter(Item { kind: Kind::Tell { tell, ticket: None }, bytes, trace });
        self.wake(state);
        Ok(None)
    }

    /// Puts a local one-way message in the queue, where it waits for room.
    pub(crate) fn tell_in_turn(
        self: &Arc<Self>,
        tell: Box<dyn LocalTell>,
        bytes: usize,
        ticket: Arc<Ticket>,
        deadline: Timestamp,
        trace: Option<TraceContext>,
    ) -> Result<(), RpcError> {
        let mut state = self.admit(tell.name(), bytes, true)?;
        let before = state.left.wrapping_add(state.held as u64);
        let alarm = state.expires(deadline, &ticket);
        let kind = Kind::Tell { tell, ticket: Some(ticket.clone()) };
        state.enter(Item { kind, bytes, trace });
        let end = state.left_bytes.wrapping_add(state.held_bytes as u64);
        state.tickets.push_back(Placed { before, end, ticket });
        let granted = self.grant_tickets(&mut state);
        self.wake(state);
        granted.into_iter().for_each(|ticket| ticket.grant());
        if let Some(at) = alarm {
            self.arm(at);
        }
        Ok(())
    }

    /// Puts a local ask in the queue, behind what is there; it waits for room in its place. Whether
    /// the endpoint has nothing else to do.
    pub(crate) fn ask<C: LocalAsk + Expire + 'static>(
        self: &Arc<Self>,
        call: Arc<C>,
        bytes: usize,
        asker: Option<Asker>,
        deadline: Timestamp,
        trace: Option<TraceContext>,
    ) -> Result<bool, RpcError> {
        let mut state = self.admit(call.name(), bytes, true)?;
        let idle = state.idle && state.queue.is_empty();
        let alarm = state.expires(deadline, &call);
        let sink = ReplySink::local(call);
        state.enter(Item { kind: Kind::Ask { sink, asker, deadline }, bytes, trace });
        if alarm.is_some() && planted!(AskUnheard) {
            drop(state);
        } else {
            self.wake(state);
        }
        if let Some(at) = alarm {
            self.arm(at);
        }
        Ok(idle)
    }

    /// Takes messages that arrived from a peer, all at once. What cannot be taken because the
    /// endpoint is gone comes back.
    pub(crate) fn deliver(&self, line: usize, messages: &mut VecDeque<WireMessage>) {
        let mut state = self.open();
        if state.phase != Phase::Open {
            return;
        }
        for mut message in messages.drain(..) {
            let (trace, bytes) = (message.trace.take(), message.body.len());
            state.received.message(message.call.is_some());
            let kind = Kind::Wire(Box::new(message));
            state.queue.push(line, Item { kind, bytes, trace });
        }
        self.wake(state);
    }

    /// The same, of messages that came in a row.
    pub(crate) fn deliver_row(&self, line: usize, asks: usize, row: Row) -> Result<(), Row> {
        let mut state = self.open();
        if state.phase != Phase::Open {
            return Err(row);
        }
        state.received.messages(asks, row.len());
        state.queue.push(line, Item::row(row));
        self.wake(state);
        Ok(())
    }

    pub(crate) fn wants_network_events(&self) -> bool {
        self.network_events
    }

    /// Puts a network event in the queue, in order with the messages of the env that it is about.
    pub(crate) fn network_event(&self, env: &EndpointLocation, event: &NetworkEvent) {
        let mut state = self.open();
        if state.phase == Phase::Open {
            let kind = Kind::Network(event.clone());
            state.events = state.events.saturating_add(1);
            state.queue.push_about(env, Item { kind, bytes: 0, trace: None });
            self.wake(state);
        }
    }

    /// Adds what was counted under the lock to what the env has counted.
    pub(crate) fn settle_counts(&self) {
        use Count::{AsksLocal, AsksReceived, SendsLocal, SendsReceived};
        let (tally, mut state) = (self.core.tally(), self.lock());
        state.local.settle(tally, [Some(AsksLocal), Some(SendsLocal), None, None]);
        state.received.settle(tally, [Some(AsksReceived), Some(SendsReceived), None, None]);
    }

    /// Messages in the queue, and their bytes.
    pub(crate) fn queued(&self) -> (usize, usize) {
        let state = self.lock();
        (state.queue.len(), state.queue.size())
    }

    /// Whether the endpoint takes messages.
    #[must_use]
    pub fn is_open(&self) -> bool {
        self.lock().phase == Phase::Open
    }
}

impl State {
    #[inline(always)]
    fn enter(&mut self, item: Item) {
        self.held = self.held.saturating_add(1);
        self.held_bytes = self.held_bytes.saturating_add(item.bytes);
        self.local.message(matches!(item.kind, Kind::Ask { .. }));
        self.queue.push(HERE, item);
    }
}

impl fmt::Debug for Inbox {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Inbox")
            .field("address", &self.address)
            .field("incarnation", &self.incarnation)
            .finish_non_exhaustive()
    }
}
