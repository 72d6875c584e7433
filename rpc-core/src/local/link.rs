//! Messages between two envs of a world: encoded and decoded as on a wire, without one.

use super::World;
use super::backend::LocalBackend;
use crate::address::{EndpointAddress, EndpointLocation, RpcAddress};
use crate::counters::{Count, Tally};
use crate::deadline::Timestamp;
use crate::delivery::WireMessage;
use crate::error::{ErrorKind, Outcome, RpcError};
use crate::inbox::Inbox;
use crate::remote_failure::RemoteFailure;
use crate::seam::{
    CallEnd, Expire, Incarnation, Origin, Outgoing, RemoteCall, RemoteCalls, RemoteTarget,
};
use crate::termination::Termination;
use crate::wakers::Wakers;
use crate::window::Sender;
use crate::wire::encoded::Encoded;
use bytes::Bytes;
use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::task::{Context, Poll, Wake, Waker};

/// The calls from one env to another.
pub(crate) struct Link {
    sender: Option<RpcAddress>,
    /// What this env counts, and the other one.
    tallies: [Arc<Tally>; 2],
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    last: u64,
    calls: BTreeMap<u64, Call>,
    /// The places in the inboxes of the other env, by the number of their endpoint.
    senders: BTreeMap<u64, Arc<Sender>>,
}

#[derive(Default)]
struct Call {
    end: Option<Result<Bytes, CallEnd>>,
    asker: Option<Waker>,
    /// Handlers that want to know when the asker gives up.
    waiting: Wakers,
    /// Whose end it waits for, if it is a watch.
    watch: Option<Arc<Watch>>,
}

/// Waits for the end of an endpoint of the other env.
struct Watch {
    link: Weak<Link>,
    call: u64,
    inbox: Arc<Inbox>,
    place: Mutex<Option<u64>>,
}

impl Watch {
    fn look(self: &Arc<Self>) {
        let waker = Waker::from(self.clone());
        let mut place = self.place.lock().unwrap_or_else(PoisonError::into_inner);
        let polled = self.inbox.poll_ended(&mut place, &Context::from_waker(&waker));
        drop(place);
        if let (Poll::Ready(reason), Some(link)) = (polled, self.link.upgrade()) {
            let incarnation = Some(self.inbox.incarnation());
            let end = CallEnd::Terminated { incarnation, reason, cause: None };
            link.end(self.call, Err(end));
        }
    }

    fn end(&self) {
        let place = self.place.lock().unwrap_or_else(PoisonError::into_inner).take();
        place.into_iter().for_each(|place| self.inbox.unwatched(place));
    }
}

impl Wake for Watch {
    fn wake(self: Arc<Self>) {
        self.look();
    }
}

impl Link {
    pub(crate) fn new(sender: Option<RpcAddress>, tallies: [Arc<Tally>; 2]) -> Self {
        Self { sender, tallies, state: Mutex::default() }
    }

    fn count(&self, here: Count, there: Count) {
        for (tally, count) in self.tallies.iter().zip([here, there]) {
            tally.count(count);
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn open(&self) -> u64 {
        let mut state = self.lock();
        state.last += 1;
        let id = state.last;
        state.calls.insert(id, Call::default());
        id
    }

    /// This env's place in an inbox of the other one.
    fn sender_in(&self, inbox: &Arc<Inbox>) -> Arc<Sender> {
        let endpoint = inbox.incarnation().endpoint;
        if let Some(known) = self.lock().senders.get(&endpoint) {
            return known.clone();
        }
        let sender = Arc::new(inbox.sender(self.env().as_ref()));
        let mut state = self.lock();
        state.senders.retain(|_, known| !known.is_over());
        state.senders.insert(endpoint, sender.clone());
        sender
    }

    /// Ends a call; what comes later is too late. Whether it was open.
    fn end(&self, id: u64, end: Result<Bytes, CallEnd>) -> bool {
        let mut state = self.lock();
        let Some(call) = state.calls.get_mut(&id) else { return false };
        if call.end.is_some() {
            return false;
        }
        call.end = Some(end);
        let wakers = (call.asker.take(), std::mem::take(&mut call.waiting));
        let watch = call.watch.take();
        drop(state);
        watch.iter().for_each(|watch| watch.end());
        wakers.0.into_iter().chain(wakers.1).for_each(Waker::wake);
        true
    }

    /// Ends every call.
    pub(crate) fn break_off(&self, error: &RpcError) {
        // They are in the other env's inboxes, or in the hands of its handlers.
        let error = error.clone().with_outcome(Outcome::Unknown);
        let calls = self.lock();
        let watched = |call: &Call| call.watch.as_ref().map(|watch| watch.inbox.incarnation());
        let ids: Vec<_> = calls.calls.iter().map(|(id, call)| (*id, watched(call))).collect();
        drop(calls);
        for (id, watched) in ids {
            let cause = error.clone();
            let end = match watched {
                Some(incarnation) => CallEnd::Terminated {
                    incarnation: Some(incarnation),
                    reason: Termination::NodeLost,
                    cause: Some(cause),
                },
                None => CallEnd::Failed(cause),
            };
            self.end(id, Err(end));
        }
    }
}

impl RemoteCalls for Link {
    fn poll(&self, id: u64, cx: &mut Context<'_>) -> Poll<Result<Bytes, CallEnd>> {
        let mut state = self.lock();
        let Some(call) = state.calls.get_mut(&id) else {
            return Poll::Ready(Err(CallEnd::TimedOut { sent: true }));
        };
        let Some(end) = call.end.take() else {
            call.asker = Some(cx.waker().clone());
            return Poll::Pending;
        };
        state.calls.remove(&id);
        Poll::Ready(end)
    }

    fn abandon(&self, id: u64) {
        let mut call = self.lock().calls.remove(&id);
        let watch = call.as_mut().and_then(|call| call.watch.take());
        watch.iter().for_each(|watch| watch.end());
        call.into_iter().flat_map(|call| call.waiting).for_each(Waker::wake);
    }
}

impl Expire for Link {
    fn expire(&self, id: u64) {
        self.end(id, Err(CallEnd::TimedOut { sent: true }));
    }
}

impl Origin for Link {
    fn reply(&self, id: u64, body: &mut Encoded) -> Result<(), RpcError> {
        if self.end(id, Ok(Bytes::from(body.to_vec()))) {
            self.count(Count::RepliesReceived, Count::RepliesSent);
        }
        Ok(())
    }

    fn fail(&self, id: u64, error: &RpcError) {
        let failure = RemoteFailure::from(error).into_error();
        if self.end(id, Err(CallEnd::reported(failure))) {
            self.count(Count::FailuresReceived, Count::FailuresSent);
        }
    }

    fn poll_cancelled(&self, id: u64, place: &mut Option<usize>, cx: &mut Context<'_>) -> Poll<()> {
        match self.lock().calls.get_mut(&id) {
            Some(call) if call.end.is_none() => {
                call.waiting.add(place, cx);
                Poll::Pending
            }
            _ => Poll::Ready(()),
        }
    }

    fn forget(&self, id: u64, place: usize) {
        let mut state = self.lock();
        let waker = state.calls.get_mut(&id).and_then(|call| call.waiting.remove(place));
        drop(state);
        drop(waker);
    }

    fn is_cancelled(&self, id: u64) -> bool {
        self.lock().calls.get(&id).is_none_or(|call| call.end.is_some())
    }

    /// Room is what the inbox says it is: there are no windows in one process.
    fn consumed(&self, _bytes: usize) {}

    /// Those who watch it are told by its inbox.
    fn gone(&self, _how: Termination) {}

    fn sender(&self) -> Option<&RpcAddress> {
        self.sender.as_ref()
    }
}

/// An endpoint of another env of the world.
pub(crate) struct LocalTarget {
    world: Arc<World>,
    from: u64,
    address: EndpointAddress,
    pin: Option<Incarnation>,
}

impl LocalTarget {
    pub(crate) fn new(
        world: Arc<World>,
        from: u64,
        address: EndpointAddress,
        pin: Option<Incarnation>,
    ) -> Self {
        Self { world, from, address, pin }
    }

    fn env(&self) -> Result<Arc<LocalBackend>, RpcError> {
        let found = match self.address.location() {
            EndpointLocation::Listening(address) => self.world.find(address),
            EndpointLocation::Client(id) => self.world.find_id(id.0),
        };
        found.ok_or_else(|| {
            RpcError::new(
                ErrorKind::Unreachable,
                format!("cannot reach {}: no env of this world is there", self.address),
            )
        })
    }

    fn inbox(&self, env: &LocalBackend) -> Result<Arc<Inbox>, RpcError> {
        let inbox = env.dispatcher().lookup(self.address.name().as_str());
        let inbox = inbox.filter(|inbox| self.pin.is_none_or(|pin| pin == inbox.incarnation()));
        match inbox {
            Some(inbox) if inbox.is_open() => Ok(inbox),
            None if self.pin.is_none() => Err(RpcError::new(
                ErrorKind::EndpointNotFound,
                format!("Cannot find endpoint: {}", self.address),
            )),
            _ => Err(RpcError::new(
                ErrorKind::EndpointStopped,
                format!("the endpoint {} has been stopped", self.address),
            )),
        }
    }

    fn deliver(
        &self,
        message: &Outgoing<'_>,
        ask: bool,
        waits: bool,
    ) -> Result<RemoteCall, RpcError> {
        let from = self.world.find_id(self.from).ok_or_else(crate::dispatcher::env_stopped)?;
        let to = self.env()?;
        let inbox = self.inbox(&to)?;
        let link = from.link(&to);
        self.admit(&to, &inbox, message, waits)?;
        let handler = inbox.handlers().iter().position(|info| info.name == message.name);
        let origin: Arc<dyn Origin> = link.clone();
        let body = Bytes::from(message.body.to_vec());
        let mut wire =
            WireMessage::new(handler.unwrap_or_else(|| inbox.handlers().len()), body, origin);
        wire.name = handler.is_none().then(|| Arc::from(message.name));
        wire.deadline = message.deadline;
        wire.trace = message.trace.clone();
        let id = link.open();
        wire.call = ask.then_some(id);
        from.tally().count(if ask { Count::AsksRemote } else { Count::SendsRemote });
        let mut messages = VecDeque::from([wire]);
        link.sender_in(&inbox).deliver(&mut messages);
        if messages.is_empty() && !ask {
            link.end(id, Ok(Bytes::new()));
        }
        for refused in messages {
            refused.origin.consumed(refused.body.len());
            link.end(id, Err(CallEnd::Failed(inbox.stopped())));
        }
        Ok(RemoteCall::new(link, id))
    }

    fn admit(
        &self,
        to: &LocalBackend,
        inbox: &Inbox,
        message: &Outgoing<'_>,
        waits: bool,
    ) -> Result<(), RpcError> {
        let limits = to.config().limits();
        let (queued, queued_bytes) = inbox.queued();
        let (more, more_bytes) = match waits {
            true => (limits.outbox_max_waiting(), limits.outbox_max_waiting_bytes()),
            false => (0, 0),
        };
        let max = limits.inbox_max_messages().saturating_add(more);
        let max_bytes = limits.inbox_max_bytes().saturating_add(more_bytes);
        let bytes = message.body.len();
        let (held, key, limit) = if queued >= max {
            let waiting = ("rpc.outbox.maxWaiting", more);
            let (key, limit) = if waits { waiting } else { ("rpc.inbox.maxMessages", max) };
            (format!("{queued} messages"), key, limit)
        } else if queued > 0 && queued_bytes.saturating_add(bytes) > max_bytes {
            let waiting = ("rpc.outbox.maxWaitingBytes", more_bytes);
            let (key, limit) = if waits { waiting } else { ("rpc.inbox.maxBytes", max_bytes) };
            (format!("{queued_bytes} bytes"), key, limit)
        } else {
            return Ok(());
        };
        Err(RpcError::new(
            ErrorKind::Overloaded,
            format!(
                "{} has no room for {}: {held} are queued. This limit is controlled by {key} ({limit})",
                self.address, message.name
            ),
        ))
    }
}

impl RemoteTarget for LocalTarget {
    fn send(&self, message: &mut Outgoing<'_>) -> Result<(), RpcError> {
        let call = self.deliver(message, false, false)?;
        call.calls.abandon(call.id);
        Ok(())
    }

    fn send_wait(&self, message: &mut Outgoing<'_>) -> Result<Option<RemoteCall>, RpcError> {
        self.deliver(message, false, true).map(Some)
    }

    fn ask(&self, message: &mut Outgoing<'_>) -> Result<RemoteCall, RpcError> {
        self.deliver(message, true, true)
    }

    fn resolve(&self, _deadline: Timestamp) -> Result<RemoteCall, RpcError> {
        let from = self.world.find_id(self.from).ok_or_else(crate::dispatcher::env_stopped)?;
        let to = self.env()?;
        let link = from.link(&to);
        let id = link.open();
        link.end(id, self.inbox(&to).map(|_| Bytes::new()).map_err(CallEnd::Failed));
        Ok(RemoteCall::new(link, id))
    }

    fn watch(&self) -> Result<RemoteCall, RpcError> {
        let from = self.world.find_id(self.from).ok_or_else(crate::dispatcher::env_stopped)?;
        let to = self.env()?;
        let (link, inbox) = (from.link(&to), self.inbox(&to)?);
        let id = link.open();
        let place = Mutex::new(None);
        let watch = Arc::new(Watch { link: Arc::downgrade(&link), call: id, inbox, place });
        if let Some(call) = link.lock().calls.get_mut(&id) {
            call.watch = Some(watch.clone());
        }
        watch.look();
        Ok(RemoteCall::new(link, id))
    }

    fn whose(&self) -> Option<EndpointLocation> {
        self.env().ok()?.address().cloned().map(EndpointLocation::Listening)
    }

    fn peer(&self) -> String {
        self.address.to_string()
    }
}
