//! A session behind its lock, and the ways to wake whoever has to act on it.

use crate::rt::Clock;
use bytes::Bytes;
use rpc_core::proto::{Close, Session};
use rpc_core::spi::{CallEnd, Expire, RemoteCalls};
use rpc_core::{ErrorKind, RpcAddress, RpcError, Timestamp};
use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

/// One peer, as everything here shares it.
pub(crate) struct Link {
    clock: Clock,
    /// Where to dial it; `None` for an env that does not listen.
    address: Option<RpcAddress>,
    /// Whether there are orders: looked at in every turn of the driver, without the lock.
    ordered: AtomicBool,
    state: Mutex<State>,
}

struct State {
    session: Session,
    phase: Phase,
    /// The connection's driver, asleep: whoever makes output wakes it, once.
    driver: Option<Waker>,
    /// The same, awake or asleep: whoever has orders for it wakes it.
    watcher: Option<Waker>,
    orders: Option<Orders>,
    /// Set by the env's shutdown: no connection is taken any more.
    closing: bool,
}

/// What a driver is told from outside.
#[derive(Debug)]
pub(crate) enum Orders {
    /// Say goodbye, and end when that is written.
    Shutdown,
    /// End now.
    Break(Close),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Idle,
    Dialing,
    Connected,
}

impl Link {
    pub(crate) fn new(clock: Clock, address: Option<RpcAddress>, session: Session) -> Self {
        let state = State {
            session,
            phase: Phase::Idle,
            driver: None,
            watcher: None,
            orders: None,
            closing: false,
        };
        Self { clock, address, ordered: AtomicBool::new(false), state: Mutex::new(state) }
    }

    pub(crate) fn address(&self) -> Option<&RpcAddress> {
        self.address.as_ref()
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn now(&self) -> Timestamp {
        self.clock.now()
    }

    /// Works on the session under the lock; wakes what that has made ready, after it.
    pub(crate) fn with<R>(&self, f: impl FnOnce(&mut Session) -> R) -> R {
        let mut state = self.lock();
        let result = f(&mut state.session);
        let driver = if state.session.has_output() { state.driver.take() } else { None };
        let mut wakes = Vec::new();
        state.session.take_wakes(&mut wakes);
        drop(state);
        wakes.into_iter().for_each(Waker::wake);
        if let Some(driver) = driver {
            driver.wake();
        }
        result
    }

    /// As [`with`](Self::with), and says whether the link must be dialled now by the caller.
    pub(crate) fn with_dial<R>(&self, f: impl FnOnce(&mut Session) -> R) -> (R, bool) {
        let result = self.with(f);
        let mut state = self.lock();
        let dial = state.phase == Phase::Idle && state.session.wants_connection();
        if dial {
            state.phase = Phase::Dialing;
        }
        (result, dial)
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
        if state.session.has_output() || state.orders.is_some() {
            return false;
        }
        if !state.driver.as_ref().is_some_and(|waker| waker.will_wake(cx.waker())) {
            state.driver = Some(cx.waker().clone());
        }
        true
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

    /// Works on the session in the same breath in which the link becomes idle: what is queued
    /// after that is dialled for anew, what was queued before is ended by `f`.
    fn idle_with<R>(&self, f: impl FnOnce(&mut Session) -> R) -> R {
        let mut state = self.lock();
        state.phase = Phase::Idle;
        (state.driver, state.watcher, state.orders) = (None, None, None);
        let result = f(&mut state.session);
        let mut wakes = Vec::new();
        state.session.take_wakes(&mut wakes);
        drop(state);
        wakes.into_iter().for_each(Waker::wake);
        result
    }

    /// Takes an idle link for a connection that has come in.
    pub(crate) fn occupy(self: &Arc<Self>) -> Option<Busy> {
        let mut state = self.lock();
        if state.phase != Phase::Idle || state.closing {
            return None;
        }
        state.phase = Phase::Dialing;
        Some(Busy::new(self))
    }

    /// The hellos are exchanged. `false` if no connection is wanted any more.
    pub(crate) fn connect(&self) -> bool {
        let mut state = self.lock();
        if state.closing {
            return false;
        }
        state.phase = Phase::Connected;
        true
    }

    /// Ends the connection if something on it has taken too long.
    pub(crate) fn check(&self) {
        let now = self.now();
        let state = self.lock();
        if state.phase == Phase::Connected
            && let Err(close) = state.session.check(now)
        {
            self.order(state, Orders::Break(close));
        }
    }

    /// Takes no connection any more, and ends the one there is: in order, or at once.
    pub(crate) fn close(&self, orders: Orders) {
        let mut state = self.lock();
        state.closing = true;
        self.order(state, orders);
    }
}

impl RemoteCalls for Link {
    fn poll(&self, id: u64, cx: &mut Context<'_>) -> Poll<Result<Bytes, CallEnd>> {
        self.lock().session.poll_call(id, cx)
    }

    fn abandon(&self, id: u64) {
        let now = self.now();
        self.with(|session| session.abandon(now, id));
    }
}

impl Expire for Link {
    fn expire(&self, id: u64) {
        let now = self.now();
        self.with(|session| session.expire(now, id));
    }
}

impl fmt::Debug for Link {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Link").field("address", &self.address).finish_non_exhaustive()
    }
}

/// A link that is being dialled or driven. However that ends, the link becomes idle, and what
/// waits for it ends.
pub(crate) struct Busy {
    link: Option<Arc<Link>>,
}

impl Busy {
    pub(crate) fn new(link: &Arc<Link>) -> Self {
        Self { link: Some(link.clone()) }
    }

    /// Ends in order.
    pub(crate) fn end<R>(mut self, f: impl FnOnce(&mut Session) -> R) -> Option<R> {
        self.link.take().map(|link| link.idle_with(f))
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        if let Some(link) = self.link.take() {
            let text = "the thread of the connection has ended";
            let error = RpcError::new(ErrorKind::EnvStopped, text);
            link.idle_with(|session| session.detach(&error, false));
        }
    }
}
