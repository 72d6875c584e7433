//! The future of an ask: it ends once, by its deadline, and its end is the end of the call.

use crate::core::EnvCore;
use crate::counters::Count;
use crate::deadline::{RpcTimeout, Timestamp};
use crate::dispatcher::env_stopped;
use crate::error::{ErrorKind, Outcome, RpcError};
use crate::inbox::{Asker, Inbox};
use crate::local_call::LocalReply;
use crate::raw_ref::RawRef;
use crate::seam::{CallEnd, Expire, RemoteCall, RemoteCalls};
use crate::timers::TimerKey;
use crate::turn::{self, Behalf};
use bytes::Bytes;
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Weak};
use std::task::{Context, Poll};

/// The reply to come, from [`RpcEndpointRef::ask`](crate::RpcEndpointRef::ask) and its kin.
///
/// The message was encoded and took its place in the order when this was made; polling only waits
/// for the answer. It is `Send`, runs on any executor, and resolves once, by its deadline.
///
/// # Cancel safety
/// Dropping it cancels the call: a message still queued, here or there, is not handled; a running
/// handler sees it as [`cancelled`](crate::EndpointContext::cancelled).
#[must_use = "an ask that is dropped is cancelled"]
pub struct AskFuture<R> {
    // A future is moved some times before it is polled, each time within a larger one: what is not as
    // with most asks is in a box.
    state: State<R>,
    special: Option<Box<Special>>,
}

enum State<R> {
    /// Ended as it was made: with an error, or with nothing to wait for.
    Failed(RpcError),
    Ready(fn() -> R),
    Local(Local<R>),
    /// The same of a call whose endpoint had nothing else to do, and that nobody has polled yet.
    Idle(Local<R>),
    Remote(Remote<R>),
    Done,
}

struct Local<R> {
    call: Arc<dyn LocalReply<R>>,
    inbox: Arc<Inbox>,
}

struct Remote<R> {
    calls: Arc<dyn RemoteCalls>,
    id: u64,
    decode: Decode<R>,
    core: Arc<EnvCore>,
    target: RawRef,
}

/// How a call is made.
pub(crate) struct Terms {
    pub(crate) now: Timestamp,
    pub(crate) deadline: Timestamp,
    pub(crate) special: Option<Box<Special>>,
}

/// What most asks have not.
#[derive(Default)]
pub(crate) struct Special {
    pub(crate) behalf: Behalf,
    /// Where the call that it is for keeps its task, if that has to be taken back.
    pub(crate) place: Option<usize>,
    /// How long it may take, if that is not `rpc.askTimeout`.
    pub(crate) timeout: Option<RpcTimeout>,
    /// The env's timer, unless the table of the call keeps its deadline.
    pub(crate) timer: Option<TimerKey>,
    /// Whether it is known that this does not wait, directly or through others, for its own asker.
    pub(crate) checked_for_cycle: bool,
}

impl Terms {
    /// The handler that makes the call, which may wait for it.
    pub(crate) fn asker(&self) -> Option<&Asker> {
        self.special.as_ref()?.behalf.asker.as_ref()
    }
}

pub(crate) type Decode<R> = fn(&EnvCore, &RawRef, &Bytes) -> Result<R, RpcError>;

impl<R> AskFuture<R> {
    pub(crate) fn failed(error: RpcError) -> Self {
        Self::ended(State::Failed(error))
    }

    /// One that is over before anybody waits for it.
    pub(crate) fn ready(result: fn() -> R) -> Self {
        Self::ended(State::Ready(result))
    }

    fn ended(state: State<R>) -> Self {
        Self { state, special: None }
    }

    /// A call within this process, whose deadline its inbox keeps. `idle` says that its endpoint has
    /// nothing else to do.
    pub(crate) fn local(
        call: Arc<dyn LocalReply<R>>,
        inbox: Arc<Inbox>,
        terms: Terms,
        idle: bool,
    ) -> Self {
        let local = Local { call, inbox };
        let state = if idle { State::Idle(local) } else { State::Local(local) };
        Self { state, special: terms.special }
    }

    /// A message that waits for room in an inbox: for no handler that might wait for it.
    pub(crate) fn room(ticket: Arc<dyn LocalReply<R>>, inbox: Arc<Inbox>, terms: Terms) -> Self {
        let mut special = terms.special;
        special.iter_mut().for_each(|special| special.checked_for_cycle = true);
        Self { state: State::Local(Local { call: ticket, inbox }), special }
    }

    pub(crate) fn remote(
        call: RemoteCall,
        decode: Decode<R>,
        core: Arc<EnvCore>,
        target: RawRef,
        terms: Terms,
    ) -> Self {
        let Terms { deadline, mut special, .. } = terms;
        if !call.kept {
            let timer = core.add_timer(deadline, call.calls.clone(), call.id);
            special.get_or_insert_default().timer = Some(timer);
        } else if let Some(at) = call.alarm {
            call_alarm(&core, at, &call.calls);
        }
        let RemoteCall { calls, id, .. } = call;
        Self { state: State::Remote(Remote { calls, id, decode, core, target }), special }
    }

    /// Ends the call as [`ErrorKind::Cancelled`], as dropping the future would.
    pub fn abort(&mut self) {
        self.cancel();
        let error = RpcError::new(ErrorKind::Cancelled, "the ask was aborted by its caller");
        self.state = State::Failed(error);
    }

    fn timer(&self) -> Option<TimerKey> {
        self.special.as_ref()?.timer
    }

    /// It has ended: whoever it is for need not tell it any more.
    fn forget(&mut self) {
        if let Some(special) = &mut self.special
            && let Some(place) = special.place.take()
        {
            special.behalf.forget(place);
        }
    }

    fn cancel(&mut self) {
        self.forget();
        match std::mem::replace(&mut self.state, State::Done) {
            State::Local(local) | State::Idle(local) => local.call.abandon(),
            State::Remote(remote) => {
                remote.calls.abandon(remote.id);
                self.timer().into_iter().for_each(|timer| remote.core.cancel_timer(timer));
            }
            State::Failed(_) | State::Ready(_) | State::Done => {}
        }
    }

    /// Why the call ends before its endpoint says so, if it does. With a task that is kept, to be woken when
    /// that is so.
    fn ends_early(&mut self, cx: Option<&mut Context<'_>>) -> Option<RpcError> {
        let Special { behalf, place, .. } = &mut **self.special.as_mut()?;
        let given_up = match cx {
            Some(cx) => behalf.poll_cancelled(place, cx).is_ready(),
            None => behalf.is_cancelled(),
        };
        let error = if given_up {
            let text = "the caller of the handler that made this ask gave up";
            RpcError::new(ErrorKind::Cancelled, text)
        } else {
            self.cycle()?
        };
        self.cancel();
        Some(error)
    }

    /// Lets the endpoint handle the message here, if it is on this thread and still idle.
    fn hand_over(&mut self) {
        // Before: whether it waits for its own asker is seen only while nobody has begun.
        if let Some(error) = self.ends_early(None) {
            self.state = State::Failed(error);
            return;
        }
        if let State::Idle(local) = &self.state {
            local.inbox.place().poll();
        }
        if let State::Idle(local) = std::mem::replace(&mut self.state, State::Done) {
            self.state = State::Local(local);
        }
    }

    /// The call's end, if it has come.
    fn poll_end(&self, cx: &mut Context<'_>) -> Poll<Result<R, RpcError>> {
        match &self.state {
            State::Local(Local { call, inbox }) | State::Idle(Local { call, inbox }) => {
                drive(inbox.core(), cx);
                call.poll_reply(cx, &|end| {
                    self.explain(end, inbox.core(), || inbox.address().to_string())
                })
            }
            State::Remote(Remote { calls, id, decode, core, target }) => {
                drive(core, cx);
                let result = calls.poll(*id, cx);
                if result.is_pending() {
                    return Poll::Pending;
                }
                if let Some(timer) = self.timer() {
                    core.cancel_timer(timer);
                }
                match result {
                    Poll::Ready(Ok(ref body)) => Poll::Ready(decode(core, target, body)),
                    Poll::Ready(Err(end)) => {
                        Poll::Ready(Err(self.explain(end, core, || target.peer())))
                    }
                    Poll::Pending => Poll::Pending,
                }
            }
            State::Failed(error) => Poll::Ready(Err(error.clone())),
            State::Ready(result) => Poll::Ready(Ok(result())),
            State::Done => Poll::Ready(Err(RpcError::new(
                ErrorKind::Internal,
                "an ask was polled after it had ended",
            ))),
        }
    }

    #[cold]
    fn explain(&self, end: CallEnd, core: &EnvCore, peer: impl FnOnce() -> String) -> RpcError {
        let sent = match end {
            CallEnd::Failed(error) => return error,
            CallEnd::Relayed(failure) => return failure.into_error(),
            CallEnd::TimedOut { sent } => sent,
            CallEnd::Terminated { .. } => {
                return RpcError::new(ErrorKind::Internal, "an ask ended as a watch does");
            }
        };
        let outcome = if sent { Outcome::Unknown } else { Outcome::NeverSent };
        if core.is_terminated() {
            return env_stopped().with_outcome(outcome);
        }
        core.tally().count(Count::Timeouts);
        let own = self.special.as_ref().and_then(|special| special.timeout);
        let timeout = own.unwrap_or_else(|| core.ask_timeout());
        RpcError::new(ErrorKind::Timeout, timeout.error_text(peer())).with_outcome(outcome)
    }

    /// An ask that waits, directly or through others, for the handler that waits for it.
    fn cycle(&mut self) -> Option<RpcError> {
        let special = self.special.as_mut()?;
        if std::mem::replace(&mut special.checked_for_cycle, true) {
            return None;
        }
        let (State::Local(local) | State::Idle(local)) = &self.state else { return None };
        let Local { call, inbox } = local;
        let asker = special.behalf.asker.as_ref()?;
        if !turn::is_inside(|here| Arc::ptr_eq(here, &asker.inbox)) {
            return None;
        }
        call.awaited();
        find_cycle(asker, inbox)
    }
}

/// Tells a table of calls of the time at its earliest deadline, and then at the next one.
#[cold]
fn call_alarm(core: &Arc<EnvCore>, at: Timestamp, calls: &Arc<dyn RemoteCalls>) {
    let Some(alarm) = calls.alarm() else { return };
    let Some(number) = alarm.begins(at) else { return };
    let env = Arc::downgrade(core);
    let ring = Ring { number, core: env.clone(), calls: Arc::downgrade(calls) };
    let timer = core.add_timer(at, Arc::new(ring), 0);
    let cancel = move || env.upgrade().into_iter().for_each(|core| core.cancel_timer(timer));
    alarm.is_set(number, Box::new(cancel));
}

struct Ring {
    number: u64,
    core: Weak<EnvCore>,
    /// Whoever waits for an answer holds the table; nobody else needs the alarm.
    calls: Weak<dyn RemoteCalls>,
}

impl Expire for Ring {
    fn expire(&self, _id: u64) {
        let (Some(core), Some(calls)) = (self.core.upgrade(), self.calls.upgrade()) else { return };
        if let Some(alarm) = calls.alarm() {
            alarm.rings(self.number);
        }
        // When the env has ended nobody keeps the time: every call is due.
        let now = if core.is_terminated() { Timestamp::MAX } else { core.now() };
        if let Some(next) = calls.expire_due(now) {
            call_alarm(&core, next, &calls);
        }
    }
}

/// Lets a backend without threads of its own run endpoints.
fn drive(core: &EnvCore, cx: &mut Context<'_>) {
    if let Some(backend) = core.backend() {
        backend.drive(cx);
    }
}

/// Follows who waits for whom from `asker` up, looking for `target`.
fn find_cycle(asker: &Asker, target: &Arc<Inbox>) -> Option<RpcError> {
    let mut chain = vec![target.name().to_string()];
    let mut current = asker.clone();
    // A chain longer than this is cut by its deadline.
    for _ in 0..64 {
        let (turn, next) = current.inbox.awaited_by();
        if turn != current.turn {
            return None;
        }
        chain.push(current.inbox.name().to_string());
        if Arc::ptr_eq(&current.inbox, target) {
            chain.reverse();
            return Some(RpcError::new(
                ErrorKind::AskCycle,
                format!(
                    "this ask can never be answered, because its endpoint waits for it: {}",
                    chain.join(" -> ")
                ),
            ));
        }
        current = next?;
    }
    None
}

impl<R> Future for AskFuture<R> {
    type Output = Result<R, RpcError>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.get_mut();
        if let State::Idle(_) = this.state {
            this.hand_over();
        }
        // One value all the way, so that a reply is not moved once more.
        let mut polled = this.poll_end(cx);
        if polled.is_ready() {
            this.state = State::Done;
            this.forget();
        } else if this.special.is_some()
            && let Some(error) = this.ends_early(Some(cx))
        {
            polled = Poll::Ready(Err(error));
        }
        polled
    }
}

impl<R> Unpin for AskFuture<R> {}

impl<R> Drop for AskFuture<R> {
    #[inline]
    fn drop(&mut self) {
        if !matches!(self.state, State::Done | State::Ready(_)) {
            self.cancel();
        }
    }
}

impl<R> fmt::Debug for AskFuture<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = match &self.state {
            State::Failed(_) => "failed",
            State::Ready(_) => "ready",
            State::Local(_) | State::Idle(_) => "local",
            State::Remote(_) => "remote",
            State::Done => "done",
        };
        f.debug_struct("AskFuture").field("state", &state).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::call_alarm::CallAlarm;
    use crate::config::RpcEnvConfig;
    use crate::deadlines::Deadlines;
    use crate::factory::RpcEnvFactory;
    use crate::local::LocalWorld;
    use std::collections::BTreeSet;
    use std::sync::Mutex;
    use std::time::Duration;

    /// Calls that are open, and their deadlines.
    #[derive(Default)]
    struct Table {
        calls: Mutex<(BTreeSet<u64>, Deadlines<u64>)>,
        expired: Mutex<Vec<u64>>,
        alarm: CallAlarm,
    }

    impl Table {
        fn ask(self: &Arc<Self>, core: &Arc<EnvCore>, call: u64, timeout: Duration) {
            let at = core.now().saturating_add(timeout);
            let mut calls = self.calls.lock().unwrap();
            let (open, deadlines) = &mut *calls;
            open.insert(call);
            let earlier = deadlines.add(at, call, |call| open.contains(call));
            drop(calls);
            if earlier {
                let table: Arc<dyn RemoteCalls> = self.clone();
                call_alarm(core, at, &table);
            }
        }

        fn answered(&self, call: u64) {
            self.calls.lock().unwrap().0.remove(&call);
        }
    }

    impl Expire for Table {
        fn expire(&self, _id: u64) {}
    }

    impl RemoteCalls for Table {
        fn poll(&self, _id: u64, _cx: &mut Context<'_>) -> Poll<Result<Bytes, CallEnd>> {
            Poll::Pending
        }

        fn abandon(&self, _id: u64) {}

        fn expire_due(&self, now: Timestamp) -> Option<Timestamp> {
            let mut calls = self.calls.lock().unwrap();
            let (open, deadlines) = &mut *calls;
            let (due, next) = deadlines.due(now, |call| open.contains(call));
            open.retain(|call| !due.contains(call));
            self.expired.lock().unwrap().extend(due);
            next
        }

        fn alarm(&self) -> Option<&CallAlarm> {
            Some(&self.alarm)
        }
    }

    #[test]
    fn short_asks_beside_a_long_one_leave_no_alarms() {
        let world = LocalWorld::new();
        let env = world.block_on(world.factory().create(RpcEnvConfig::client("env"))).unwrap();
        let core = &env.shared().core;
        let (table, before) = (Arc::new(Table::default()), core.timers_left());
        let (hour, short) = (Duration::from_secs(3600), Duration::from_millis(10));
        table.ask(core, 0, hour);
        for call in 1..=1000 {
            table.ask(core, call, short);
            table.answered(call);
            world.advance(short);
            assert!(core.timers_left() <= before + 2, "{}", core.timers_left());
        }
        // Those of which each is due earlier, as well.
        for call in 1001..=2000 {
            table.ask(core, call, short - Duration::from_micros(call - 1000));
            table.answered(call);
        }
        assert_eq!(core.timers_left(), before + 1);
        world.advance(short);
        table.ask(core, 2001, short);
        world.advance(short);
        assert_eq!(*table.expired.lock().unwrap(), [2001]);
        world.advance(hour);
        assert_eq!(*table.expired.lock().unwrap(), [2001, 0]);
        assert_eq!(core.timers_left(), before);
        // Nor does one stay for a table that is gone.
        table.ask(core, 3000, hour);
        assert_eq!(core.timers_left(), before + 1);
        drop(table);
        assert_eq!(core.timers_left(), before);
    }
}
