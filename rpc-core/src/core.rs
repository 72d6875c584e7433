//! What every part of an env shares: identity, limits, clock, timers.

use crate::address::{EndpointAddress, EndpointLocation, EnvId, RpcAddress};
use crate::config::RpcEnvConfig;
use crate::counters::{Count, Tally};
use crate::deadline::{RpcTimeout, Timestamp};
use crate::error::RpcError;
use crate::seam::{EnvBackend, Expire, Incarnation};
use crate::timers::{TimerKey, Timers};
use crate::trace::{self, TraceContext};
use crate::wakers::Wakers;
use crate::wire::prescan::PrescanLimits;
use std::any::Any;
use std::fmt;
use std::num::{NonZeroU64, NonZeroU128};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError, Weak};
use std::task::{Context, Poll, Waker};

/// The env that a core belongs to: turns addresses found in messages into refs of its own, and can be ended.
pub(crate) trait Owner: Send + Sync {
    /// The ref to an address; `relay` is who passes messages on, if its env does not listen.
    fn bind(
        &self,
        address: EndpointAddress,
        pin: Option<Incarnation>,
        relay: Option<RpcAddress>,
    ) -> Result<Opaque, RpcError>;

    /// Where the env's endpoints are.
    fn location(&self) -> &EndpointLocation;

    /// The env ends in order.
    fn shut_down(&self);
}

/// The inside of a ref: refs lie above the env's core, so it cannot look into them.
pub(crate) type Opaque = Arc<dyn Any + Send + Sync>;

/// The shared heart of an env. Backends hold it to read the limits and to fire its timers.
pub struct EnvCore {
    id: EnvId,
    config: RpcEnvConfig,
    prescan: PrescanLimits,
    ask_timeout: RpcTimeout,
    address: Option<RpcAddress>,
    location: EndpointLocation,
    backend: OnceLock<Arc<dyn EnvBackend>>,
    owner: OnceLock<Weak<dyn Owner>>,
    timers: Timers,
    tally: Arc<Tally>,
    /// As in `termination`, to be read without its lock.
    over: AtomicBool,
    /// Spans that were named so far.
    spans: AtomicU64,
    termination: Mutex<Termination>,
}

#[derive(Default)]
struct Termination {
    over: bool,
    waiting: Wakers,
}

impl EnvCore {
    /// Makes the core of an env that listens at `address`, or nowhere.
    #[must_use]
    pub(crate) fn new(id: u64, config: RpcEnvConfig, address: Option<RpcAddress>) -> Self {
        let id = EnvId(id);
        let location = address
            .clone()
            .map_or_else(|| EndpointLocation::Client(id), EndpointLocation::Listening);
        let prescan = PrescanLimits::from(config.limits());
        let ask_timeout = config.ask_timeout();
        Self {
            id,
            config,
            prescan,
            ask_timeout,
            address,
            location,
            backend: OnceLock::new(),
            owner: OnceLock::new(),
            timers: Timers::default(),
            tally: Arc::default(),
            over: AtomicBool::new(false),
            spans: AtomicU64::new(0),
            termination: Mutex::default(),
        }
    }

    pub(crate) fn install(&self, backend: Arc<dyn EnvBackend>, owner: Weak<dyn Owner>) {
        let _ = self.backend.set(backend);
        let _ = self.owner.set(owner);
    }

    pub(crate) fn owner(&self) -> Option<&Weak<dyn Owner>> {
        self.owner.get()
    }

    pub(crate) fn backend(&self) -> Option<&Arc<dyn EnvBackend>> {
        self.backend.get()
    }

    /// The env's number, new at each start.
    #[must_use]
    pub fn id(&self) -> EnvId {
        self.id
    }

    /// The configuration.
    #[must_use]
    pub fn config(&self) -> &RpcEnvConfig {
        &self.config
    }

    /// How long an ask may take that does not say.
    pub(crate) fn ask_timeout(&self) -> RpcTimeout {
        self.ask_timeout
    }

    /// Where the env listens, as others reach it.
    #[must_use]
    pub fn address(&self) -> Option<&RpcAddress> {
        self.address.as_ref()
    }

    /// What the env counts.
    #[must_use]
    pub fn tally(&self) -> &Arc<Tally> {
        &self.tally
    }

    pub(crate) fn location(&self) -> &EndpointLocation {
        &self.location
    }

    pub(crate) fn prescan(&self) -> &PrescanLimits {
        &self.prescan
    }

    /// Now, on the backend's clock.
    #[must_use]
    pub fn now(&self) -> Timestamp {
        self.backend.get().map_or_else(Timestamp::default, |backend| backend.now())
    }

    pub(crate) fn tick(&self) -> Option<u64> {
        self.backend.get()?.tick()
    }

    pub(crate) fn add_timer(&self, at: Timestamp, target: Arc<dyn Expire>, id: u64) -> TimerKey {
        let (key, earliest) = self.timers.add(at, target, id);
        if let (Some(at), Some(backend)) = (earliest, self.backend.get()) {
            backend.arm_timer(at);
        }
        if self.over.load(Ordering::Acquire) {
            // Nobody keeps the time any more.
            self.timers.fire(Timestamp::MAX);
        }
        key
    }

    pub(crate) fn cancel_timer(&self, key: TimerKey) {
        self.timers.cancel(key);
    }

    /// Deadlines that nobody has taken back.
    #[cfg(test)]
    pub(crate) fn timers_left(&self) -> usize {
        self.timers.len().1
    }

    /// Ends the calls whose deadline is over, and returns when to call this again.
    pub fn fire_timers(&self, now: Timestamp) -> Option<Timestamp> {
        self.timers.fire(now)
    }

    /// Begins to shut the env down, in order, as its user can: for a backend that cannot go on.
    pub fn shut_down(&self) {
        if let Some(env) = self.owner.get().and_then(Weak::upgrade) {
            env.shut_down();
        }
    }

    /// The backend is closed: nothing of the env is left. Wakes everyone who waits for that.
    pub fn terminated(&self) {
        let mut state = self.termination.lock().unwrap_or_else(PoisonError::into_inner);
        state.over = true;
        self.over.store(true, Ordering::Release);
        let waiting = std::mem::take(&mut state.waiting);
        drop(state);
        // Nobody keeps the time any more, so no ask may be left that waits for its deadline: one
        // whose call context somebody still holds, say.
        self.timers.fire(Timestamp::MAX);
        waiting.into_iter().for_each(Waker::wake);
    }

    pub(crate) fn is_terminated(&self) -> bool {
        self.termination.lock().unwrap_or_else(PoisonError::into_inner).over
    }

    /// Keeps the waker at `place`, to be taken back from there.
    pub(crate) fn poll_terminated(&self, place: &mut Option<usize>, cx: &Context<'_>) -> Poll<()> {
        let mut state = self.termination.lock().unwrap_or_else(PoisonError::into_inner);
        if state.over {
            return Poll::Ready(());
        }
        state.waiting.add(place, cx);
        Poll::Pending
    }

    /// The waker of [`poll_terminated`](Self::poll_terminated) is needed no more.
    pub(crate) fn waits_no_more(&self, place: usize) {
        let mut state = self.termination.lock().unwrap_or_else(PoisonError::into_inner);
        let waker = state.waiting.remove(place);
        drop(state);
        drop(waker);
    }

    /// A span id that this env has not given before.
    pub(crate) fn next_span(&self) -> NonZeroU64 {
        loop {
            let count = self.spans.fetch_add(1, Ordering::Relaxed).wrapping_add(1);
            // One number of them all is zero.
            if let Some(span) = NonZeroU64::new(trace::mixed(self.id.0, count)) {
                return span;
            }
        }
    }

    /// The beginning of a trace: its id is this env's number, which is random, and a span id.
    pub(crate) fn new_trace(&self, sampled: bool) -> TraceContext {
        let (env, span) = (trace::mixed(!self.id.0, 0), self.next_span());
        let trace_id = NonZeroU128::from(span) | (u128::from(env) << 64);
        TraceContext::new(trace_id, self.next_span(), sampled)
    }

    /// The last stop of an error that no endpoint handled: it is logged and counted.
    pub(crate) fn report(&self, endpoint: &str, message: Option<&str>, error: &RpcError) {
        self.tally.count(Count::ErrorsUnhandled);
        let (env, kind) = (self.config.name(), error.kind());
        tracing::error!(%env, endpoint, message_type = message, ?kind, %error, "error in an endpoint");
    }
}

impl fmt::Debug for EnvCore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EnvCore")
            .field("id", &self.id)
            .field("address", &self.address)
            .finish_non_exhaustive()
    }
}
