//! A session behind its lock, and the ways to wake whoever has to act on it.

use super::backoff::Backoff;
use super::beside::wake_all;
use super::pen::{Pen, SideWrite};
use crate::rt::Clock;
use rpc_core::proto::{Close, Hello, Session, Vital};
use rpc_core::spi::CallAlarm;
use rpc_core::{EndpointLocation, ErrorKind, Limits, RpcAddress, RpcError, Timestamp};
use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};
use std::thread::ThreadId;

/// One peer, as everything here shares it.
#[repr(C)]
pub(crate) struct Link {
    clock: Clock,
    /// Whether there are orders: looked at in every turn of the driver, without the lock.
    ordered: AtomicBool,
    /// Whether what was read last was for several, whose messages leave together.
    pub(super) spread: AtomicBool,
    pub(super) pen: Pen,
    state: Mutex<State>,
    /// Where to dial it; `None` for an env that does not listen.
    address: Option<RpcAddress>,
    pub(super) alarm: CallAlarm,
}

/// In this order, so that what an ask touches, the session's beginning included, lies together.
#[repr(C)]
pub(super) struct State {
    /// The connection's driver, asleep: whoever makes output wakes it, once.
    pub(super) driver: Option<Waker>,
    /// Its thread, if others may write in its place.
    pub(super) home: Option<ThreadId>,
    /// Output waits for the end of the turn of the endpoint that this thread runs.
    pub(super) put_off: bool,
    /// Something was written in part beside the driver, which has to go on with it.
    pub(super) begun: bool,
    /// Set by the env's shutdown: no connection is taken any more.
    pub(super) closing: bool,
    pub(super) phase: Phase,
    /// Dials in a row that gave way to the peer's.
    pub(super) declines: u32,
    pub(super) orders: Option<Orders>,
    pub(super) session: Session,
    /// Counts the tries and connections: what belongs to an earlier one has no say any more.
    pub(super) turn: u64,
    pub(super) backoff: Backoff,
    pub(super) limits: Arc<Limits>,
    /// Since when there is a connection.
    pub(super) connected: Timestamp,
    /// What this side has called the connection, and what the peer has: whoever has dialled it.
    pub(super) number: Option<u64>,
    pub(super) theirs: Option<u64>,
    /// As whose messages those of the peer are queued.
    whose: Option<EndpointLocation>,
    /// The same as `driver`, awake or asleep: whoever has orders for it wakes it.
    pub(super) watcher: Option<Waker>,
    /// Whoever waits for the end of the connection.
    pub(super) successors: Vec<Waker>,
}

/// What a driver is told from outside.
#[derive(Debug)]
pub(crate) enum Orders {
    /// Read all that has come, and end if the peer is silent even so.
    Probe,
    /// Say goodbye, and end when that is written.
    Shutdown,
    /// End now.
    Break(Close),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    Idle,
    /// To be dialled when its time has come.
    Waiting,
    Dialing,
    Connected,
}

/// A link that is being dialled or driven. However that ends, the link becomes idle, and what
/// waits for it ends; unless another connection has taken its place.
pub(crate) struct Busy {
    pub(super) link: Arc<Link>,
    pub(super) turn: u64,
    /// Whether it has ended in order: what waits was told, or may wait on.
    pub(super) settled: bool,
}

/// What became of a connection that has come in for a link.
pub(crate) enum Occupied {
    /// It has the link.
    Taken(Busy),
    /// This side dials as well, and its own dial is the one that counts.
    Dialing,
    /// There is a connection, with that env.
    Connected(u64),
    /// The env is closing.
    Closing,
}

impl Link {
    pub(crate) fn new(
        clock: Clock,
        address: Option<RpcAddress>,
        session: Session,
        limits: Arc<Limits>,
        seed: u64,
    ) -> Self {
        let state = State {
            session,
            phase: Phase::Idle,
            turn: 0,
            backoff: Backoff::new(seed),
            declines: 0,
            limits,
            connected: Timestamp::START,
            number: None,
            theirs: None,
            whose: None,
            driver: None,
            home: None,
            put_off: false,
            begun: false,
            watcher: None,
            orders: None,
            successors: Vec::new(),
            closing: false,
        };
        let (ordered, spread) = (AtomicBool::new(false), AtomicBool::new(false));
        let (state, pen, alarm) = (Mutex::new(state), Pen::default(), CallAlarm::default());
        Self { clock, address, ordered, spread, state, pen, alarm }
    }

    pub(crate) fn address(&self) -> Option<&RpcAddress> {
        self.address.as_ref()
    }

    /// Where the peer listens, as others reach it: as it says itself, or as it was dialled.
    pub(crate) fn listening(&self) -> Option<RpcAddress> {
        let state = self.lock();
        match state.session.peer() {
            Some(peer) => peer.hello.address.as_deref().and_then(|text| text.parse().ok()),
            None => self.address.clone(),
        }
    }

    /// As whose messages those of the peer are queued, since it was connected last.
    pub(crate) fn whose(&self) -> Option<EndpointLocation> {
        self.lock().whose.clone()
    }

    pub(crate) fn belongs_to(&self, env: &EndpointLocation) {
        self.lock().whose = Some(env.clone());
    }

    pub(crate) fn pen(&self) -> &Pen {
        &self.pen
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn now(&self) -> Timestamp {
        self.clock.now()
    }

    /// Works on the session under the lock; wakes what that has made ready, after it, and sees to it
    /// that what there is to say is written.
    pub(crate) fn with<R>(self: &Arc<Self>, f: impl FnOnce(&mut Session) -> R) -> R {
        let mut state = self.lock();
        let result = f(&mut state.session);
        self.write_soon(state, false);
        result
    }

    /// As [`with`](Self::with), for a message; `dial` is called if the peer is to be dialled for it.
    /// Only what `f` returns is passed on: with each message, a result within a result would be moved.
    ///
    /// # Errors
    /// `EnvStopped`, `Unreachable` if there is no connection and nobody to dial, and those of `f`.
    pub(crate) fn with_dial<R>(
        self: &Arc<Self>,
        is_ask: bool,
        dial: impl FnOnce(Busy),
        f: impl FnOnce(&mut Session) -> Result<R, RpcError>,
    ) -> Result<R, RpcError> {
        let mut state = self.lock();
        if state.closing {
            return Err(env_stopped());
        }
        if state.phase == Phase::Idle && self.address.is_none() {
            // With what waited for a connection that did not come about.
            let error = nobody_to_dial();
            state.session.fail_queued(&error);
            wake_all(state);
            return Err(error);
        }
        let result = f(&mut state.session);
        if state.phase == Phase::Idle && state.session.wants_connection() {
            let busy = self.busy(&mut state, Phase::Waiting);
            self.write_soon(state, is_ask);
            dial(busy);
        } else {
            self.write_soon(state, is_ask);
        }
        result
    }

    /// When the link may be dialled.
    pub(crate) fn not_before(&self) -> Timestamp {
        self.lock().backoff.next()
    }

    fn busy(self: &Arc<Self>, state: &mut State, phase: Phase) -> Busy {
        state.phase = phase;
        state.turn = state.turn.wrapping_add(1);
        Busy { link: self.clone(), turn: state.turn, settled: false }
    }

    /// The same for the driver, which collects the wakers and needs no waking itself.
    pub(crate) fn drive<R>(&self, wakes: &mut Vec<Waker>, f: impl FnOnce(&mut Session) -> R) -> R {
        let mut state = self.lock();
        let result = f(&mut state.session);
        state.session.take_wakes(wakes);
        result
    }

    /// Parks the driver, unless there is something for it to do.
    pub(crate) fn park(&self, cx: &Context<'_>) -> bool {
        let mut state = self.lock();
        if state.session.has_output() || state.orders.is_some() || state.begun {
            return false;
        }
        if !state.driver.as_ref().is_some_and(|waker| waker.will_wake(cx.waker())) {
            state.driver = Some(cx.waker().clone());
        }
        true
    }

    /// What was read last is for one endpoint, which may write by itself at the end of its turn, or
    /// for several.
    pub(crate) fn is_spread(&self, spread: bool) {
        if self.spread.load(Ordering::Relaxed) != spread {
            self.spread.store(spread, Ordering::Relaxed);
        }
    }

    /// Lets the driver be found by whoever has orders for it.
    pub(crate) fn watch(&self, cx: &Context<'_>) {
        let mut state = self.lock();
        if !state.watcher.as_ref().is_some_and(|waker| waker.will_wake(cx.waker())) {
            state.watcher = Some(cx.waker().clone());
        }
    }

    pub(crate) fn has_orders(&self) -> bool {
        self.ordered.load(Ordering::Acquire)
    }

    pub(crate) fn take_orders(&self) -> Option<Orders> {
        self.ordered.store(false, Ordering::Release);
        self.lock().orders.take()
    }

    fn order(&self, mut state: MutexGuard<'_, State>, orders: Orders) {
        state.orders = Some(orders);
        self.ordered.store(true, Ordering::Release);
        let watcher = state.watcher.clone();
        drop(state);
        if let Some(watcher) = watcher {
            watcher.wake();
        }
    }

    /// Takes the link for a connection that has come in, from an idle one, or from a dial of this
    /// side's that gives way (R67).
    pub(crate) fn occupy(self: &Arc<Self>, gives_way: bool) -> Occupied {
        let mut state = self.lock();
        if state.closing {
            return Occupied::Closing;
        }
        match (state.phase, state.session.peer()) {
            (Phase::Dialing, _) if !gives_way => Occupied::Dialing,
            (Phase::Connected, Some(peer)) => Occupied::Connected(peer.hello.env),
            // It is about to be idle.
            (Phase::Connected, None) => Occupied::Connected(0),
            _ => Occupied::Taken(self.coming(&mut state)),
        }
    }

    /// One that ends before it is answered ends nothing of what waits here.
    fn coming(self: &Arc<Self>, state: &mut State) -> Busy {
        let mut busy = self.busy(state, Phase::Dialing);
        busy.settled = true;
        busy
    }

    /// A new link, taken from its beginning.
    pub(crate) fn taken(self: Arc<Self>) -> Busy {
        let mut state = self.lock();
        self.coming(&mut state)
    }

    /// Ready when there is no connection.
    fn poll_idle(&self, cx: &Context<'_>) -> Poll<()> {
        let mut state = self.lock();
        if state.phase != Phase::Connected {
            return Poll::Ready(());
        }
        state.successors.push(cx.waker().clone());
        Poll::Pending
    }

    /// Looks at the connection: sends a sign of life if nothing else was sent, and ends it if
    /// something on it has taken too long.
    pub(crate) fn look(self: &Arc<Self>) {
        let now = self.now();
        let mut state = self.lock();
        if state.phase != Phase::Connected {
            return;
        }
        let quiet = state.session.is_quiet(now);
        match state.session.look(now) {
            Vital::Broken(close) => return self.order(state, Orders::Break(close)),
            Vital::Silent if state.orders.is_none() => self.order(state, Orders::Probe),
            _ => drop(state),
        }
        if !quiet {
            // There may be a ping to be written.
            return self.with(|_| ());
        }
        match self.pen.sign_of_life() {
            SideWrite::Written => self.with(|session| session.said(now)),
            SideWrite::Begun => {
                let mut state = self.lock();
                (state.begun, _) = (true, state.session.said(now));
                let driver = state.driver.take();
                drop(state);
                driver.into_iter().for_each(Waker::wake);
            }
            SideWrite::NoDoor => self.with(|session| session.heartbeat()),
            // Something is being written: that is a sign as well.
            SideWrite::NotNow => {}
        }
    }

    /// Nothing that was silent or slow while the process stood still is to blame.
    pub(crate) fn rearm(&self) {
        let now = self.now();
        self.lock().session.rearm(now);
    }

    /// Ends the connection at once.
    pub(crate) fn break_off(&self, close: Close) {
        let state = self.lock();
        if state.phase == Phase::Connected {
            self.order(state, Orders::Break(close));
        }
    }

    /// Ends the connection for another one. Ready when its end has been told.
    pub(crate) async fn give_way(&self, close: Close) {
        self.break_off(close);
        std::future::poll_fn(|cx| self.poll_idle(cx)).await;
    }

    /// Whether its peer, which says hello anew, has lost the connection: it had dialled it by the same
    /// address, or names it.
    pub(crate) fn was_lost_by(&self, hello: &Hello) -> bool {
        let state = self.lock();
        let known = state.session.peer().and_then(|peer| peer.hello.dialled.as_deref());
        let again = known.is_some() && known == hello.dialled.as_deref();
        let named = state.number.is_some() && state.number == hello.follows;
        state.phase == Phase::Connected && (again || named)
    }

    /// Takes no connection any more, and ends the one there is: in order, or at once.
    pub(crate) fn close(&self, orders: Orders) {
        let mut state = self.lock();
        state.closing = true;
        self.order(state, orders);
    }
}

impl fmt::Debug for Link {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Link").field("address", &self.address).finish_non_exhaustive()
    }
}

/// The error of what is for an env that does not listen, and is not connected.
pub(super) fn nobody_to_dial() -> RpcError {
    let text = "Cannot send message to client endpoint with no listen address.";
    RpcError::new(ErrorKind::Unreachable, text)
}

/// The error of everything that is begun on a link whose env has ended.
pub(crate) fn env_stopped() -> RpcError {
    RpcError::new(ErrorKind::EnvStopped, "RpcEnv has been stopped")
}
