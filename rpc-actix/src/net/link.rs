//! A session behind its lock, and the ways to wake whoever has to act on it.

use crate::rt::Clock;
use bytes::Bytes;
use rpc_core::proto::Session;
use rpc_core::spi::{CallEnd, Expire, RemoteCalls};
use rpc_core::{RpcAddress, Timestamp};
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

/// One peer, as everything here shares it.
pub(crate) struct Link {
    clock: Clock,
    /// Where to dial it; `None` for an env that does not listen.
    address: Option<RpcAddress>,
    state: Mutex<State>,
}

struct State {
    session: Session,
    phase: Phase,
    /// The connection's driver, asleep: whoever makes output wakes it, once.
    driver: Option<Waker>,
    /// Set by the env's shutdown: the driver says goodbye and ends.
    closing: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Idle,
    Dialing,
    Connected,
}

impl Link {
    pub(crate) fn new(clock: Clock, address: Option<RpcAddress>, session: Session) -> Self {
        let state = State { session, phase: Phase::Idle, driver: None, closing: false };
        Self { clock, address, state: Mutex::new(state) }
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
        if state.session.has_output() || state.closing {
            return false;
        }
        if !state.driver.as_ref().is_some_and(|waker| waker.will_wake(cx.waker())) {
            state.driver = Some(cx.waker().clone());
        }
        true
    }

    /// Gives the link to a connection, unless it has one.
    pub(crate) fn connect(&self) -> bool {
        let mut state = self.lock();
        if state.phase == Phase::Connected || state.closing {
            return false;
        }
        state.phase = Phase::Connected;
        true
    }

    /// The connection, or the attempt to make one, is over.
    pub(crate) fn disconnected(&self) {
        let mut state = self.lock();
        state.phase = Phase::Idle;
        state.driver = None;
    }

    pub(crate) fn is_idle(&self) -> bool {
        self.lock().phase == Phase::Idle
    }

    /// Asks the driver to end.
    pub(crate) fn close(&self) {
        let mut state = self.lock();
        state.closing = true;
        let driver = state.driver.take();
        drop(state);
        if let Some(driver) = driver {
            driver.wake();
        }
    }

    pub(crate) fn is_closing(&self) -> bool {
        self.lock().closing
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

/// A link that ends its phase when the work on it ends, however that happens.
pub(crate) struct Busy(pub(crate) Arc<Link>);

impl Drop for Busy {
    fn drop(&mut self) {
        self.0.disconnected();
    }
}
