//! The runtime at arm's length: the only file that reads the clock, sleeps or spawns.

use rpc_core::Timestamp;
use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Wake, Waker};
use std::thread::ThreadId;
use std::time::Duration;
use tokio::time::Instant;

/// The monotonic clock of one env, and what waits by it. In a paused runtime it is virtual, and one of
/// a simulated node may be fast or slow.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Clock {
    epoch: Instant,
    #[cfg(feature = "sim")]
    rate: simulated::Rate,
}

impl Clock {
    pub(crate) fn start() -> Self {
        Self {
            epoch: Instant::now(),
            #[cfg(feature = "sim")]
            rate: simulated::Rate::TRUE,
        }
    }

    #[cfg(feature = "sim")]
    pub(crate) fn at_rate(self, rate: simulated::Rate) -> Self {
        Self { rate, ..self }
    }

    pub(crate) fn now(self) -> Timestamp {
        let passed = Instant::now().duration_since(self.epoch);
        #[cfg(feature = "sim")]
        let passed = self.rate.shown(passed);
        Timestamp::START.saturating_add(passed)
    }

    pub(crate) async fn sleep_until(self, at: Timestamp) {
        self.sleep(at.since(self.now())).await;
    }

    pub(crate) async fn sleep(self, duration: Duration) {
        tokio::time::sleep(self.lasts(duration)).await;
    }

    /// The future's output, unless that takes longer.
    pub(crate) async fn within<T>(
        self,
        limit: Duration,
        future: impl Future<Output = T>,
    ) -> Option<T> {
        tokio::time::timeout(self.lasts(limit), future).await.ok()
    }

    /// What the runtime has to wait until this clock has moved on by so much.
    fn lasts(self, duration: Duration) -> Duration {
        #[cfg(feature = "sim")]
        let duration = self.rate.lasts(duration);
        duration
    }
}

/// The tick of the system's coarse clock, if it has one: it lasts 1 to 10 ms, and costs a fifth of what
/// the time costs. It does not know of a paused runtime, whose time moves only when no task runs.
#[cfg(any(target_os = "linux", target_os = "android"))]
pub(crate) fn tick() -> Option<u64> {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::MonotonicCoarse);
    Some((now.tv_sec as u64).wrapping_mul(1_000_000_000).wrapping_add(now.tv_nsec as u64))
}

#[cfg(not(any(target_os = "linux", target_os = "android")))]
pub(crate) fn tick() -> Option<u64> {
    None
}

/// Runs a future on this thread, beside others.
pub(crate) fn spawn(future: impl Future<Output = ()> + 'static) {
    let task = tokio::task::spawn_local(future);
    #[cfg(feature = "sim")]
    simulated::watch(task);
    #[cfg(not(feature = "sim"))]
    drop(task);
}

/// Wakes `cx` after the runtime has looked at sockets and timers. A task that only wakes itself
/// runs up to 61 times before a `LocalSet` lets the runtime do that.
pub(crate) fn yield_now(cx: &mut Context<'_>) {
    let _ = pin!(tokio::task::yield_now()).poll(cx);
}

/// Whether the runtime has looked at sockets and timers since this was made. A thread that was busy
/// for long knows nothing of what has come meanwhile before that.
#[derive(Debug)]
pub(crate) struct Looked {
    seen: Arc<Seen>,
}

#[derive(Debug)]
struct Seen {
    over: AtomicBool,
    task: Waker,
}

impl Looked {
    /// The task is woken when the runtime has looked.
    pub(crate) fn from_now(cx: &Context<'_>) -> Self {
        let seen = Arc::new(Seen { over: AtomicBool::new(false), task: cx.waker().clone() });
        yield_now(&mut Context::from_waker(&Waker::from(seen.clone())));
        Self { seen }
    }

    pub(crate) fn is_over(&self) -> bool {
        self.seen.over.load(Ordering::Acquire)
    }
}

impl Wake for Seen {
    fn wake(self: Arc<Self>) {
        self.over.store(true, Ordering::Release);
        self.task.wake_by_ref();
    }
}

thread_local! {
    static THREAD: ThreadId = std::thread::current().id();
}

/// The current thread, without touching what other threads count.
pub(crate) fn thread() -> ThreadId {
    THREAD.with(|thread| *thread)
}

/// Whether the current thread can run futures that stay on it.
pub(crate) fn can_spawn() -> bool {
    // There is no question to ask, only an attempt that panics outside of a `LocalSet`.
    tokio::runtime::Handle::try_current().is_ok()
        && std::panic::catch_unwind(|| drop(tokio::task::spawn_local(async {}))).is_ok()
}

/// What a simulation runs on: one thread, and a clock that jumps to the next timer when nothing can
/// run.
#[cfg(feature = "sim")]
pub(crate) mod simulated {
    use futures_util::FutureExt;
    use rpc_core::spi::LocalBoxFuture;
    use std::any::Any;
    use std::cell::RefCell;
    use std::future::Future;
    use std::io;
    use std::panic::AssertUnwindSafe;
    use std::pin::Pin;
    use std::rc::Rc;
    use std::task::{Context, Poll};
    use std::time::Duration;
    use tokio::task::{JoinHandle, LocalSet};

    type Panicked = Rc<dyn Fn(&(dyn Any + Send))>;

    thread_local! {
        /// Whom this thread's simulation tells of panics of the library, which would otherwise cost
        /// one task, and nobody might notice.
        static PANICKED: RefCell<Option<Panicked>> = const { RefCell::new(None) };
    }

    /// Calls `panicked` with each panic of a task of the library on this thread.
    pub(crate) fn on_panic(panicked: impl Fn(&(dyn Any + Send)) + 'static) {
        PANICKED.set(Some(Rc::new(panicked)));
    }

    fn panicked() -> Option<Panicked> {
        PANICKED.with_borrow(Clone::clone)
    }

    pub(super) fn watch(task: JoinHandle<()>) {
        let Some(panicked) = panicked() else { return };
        tokio::task::spawn_local(async move {
            if let Err(error) = task.await
                && let Ok(panic) = error.try_into_panic()
            {
                panicked(&*panic);
            }
        });
    }

    /// The same for a future that actix runs.
    pub(crate) fn guarded(future: LocalBoxFuture<()>) -> LocalBoxFuture<()> {
        let Some(panicked) = panicked() else { return future };
        Box::pin(async move {
            if let Err(panic) = AssertUnwindSafe(future).catch_unwind().await {
                panicked(&*panic);
            }
        })
    }

    /// Runs a future and what it spawns. There is no socket in it: whoever opens one is told so.
    pub(crate) fn block_on<T>(future: impl Future<Output = T>) -> io::Result<T> {
        let mut builder = tokio::runtime::Builder::new_current_thread();
        let runtime = builder.enable_time().start_paused(true).build()?;
        Ok(LocalSet::new().block_on(&runtime, future))
    }

    /// How fast a node's clock runs: what it shows of the time that goes by, in 2^-32 of it.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub(crate) struct Rate(u64);

    impl Rate {
        pub(crate) const TRUE: Self = Self(1 << 32);

        /// So many times as fast as the simulation's clock, from a hundredth to a hundred times.
        pub(crate) fn new(times: f64) -> Self {
            let times = if times.is_nan() { 1.0 } else { times.clamp(0.01, 100.0) };
            Self((times * 4_294_967_296.0) as u64)
        }

        /// What the clock shows when so much time has gone by.
        pub(super) fn shown(self, passed: Duration) -> Duration {
            if self == Self::TRUE {
                return passed;
            }
            from_nanos(passed.as_nanos().saturating_mul(u128::from(self.0)) >> 32)
        }

        /// The time that goes by until the clock shows so much more.
        pub(super) fn lasts(self, shown: Duration) -> Duration {
            if self == Self::TRUE {
                return shown;
            }
            from_nanos((shown.as_nanos() << 32).div_ceil(u128::from(self.0)))
        }
    }

    fn from_nanos(nanos: u128) -> Duration {
        Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))
    }

    /// Moves the clock by hand; timers that fall due on the way fire late.
    pub(crate) async fn jump(by: Duration) {
        tokio::time::advance(by).await;
    }

    /// The tasks of one node. They run when this is polled, and are dropped with it.
    #[derive(Debug, Default)]
    pub(crate) struct Tasks(LocalSet);

    impl Tasks {
        pub(crate) fn spawn(&self, future: impl Future<Output = ()> + 'static) {
            self.0.spawn_local(future);
        }

        /// Runs what can run. `Ready` if nothing is left.
        pub(crate) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
            Pin::new(&mut self.0).poll(cx)
        }
    }
}

#[cfg(all(test, feature = "sim"))]
mod tests {
    use crate::rt::simulated::Rate;
    use std::time::Duration;

    #[test]
    fn a_clock_shows_what_was_waited_for() {
        let times = [0.0, 0.9, 0.999_999, 1.0, 1.1, 2.0, f64::NAN, f64::INFINITY];
        for rate in times.map(Rate::new) {
            for nanos in [0, 1, 7, 999_999_999, 86_400_000_000_000] {
                let shown = Duration::from_nanos(nanos);
                let waited = rate.lasts(shown);
                assert!(rate.shown(waited) >= shown, "{rate:?} {nanos}");
                let less = waited.saturating_sub(Duration::from_nanos(1));
                assert!(nanos == 0 || rate.shown(less) < shown, "{rate:?} {nanos}");
            }
        }
        let hour = Duration::from_secs(3600);
        assert_eq!(Rate::new(2.0).shown(hour), 2 * hour);
        assert_eq!(Rate::new(2.0).lasts(hour), hour / 2);
        assert_eq!(Rate::new(1.0), Rate::TRUE);
        assert_eq!(Rate::TRUE.lasts(Duration::MAX), Duration::MAX);
        assert_eq!(Rate::new(0.5).lasts(Duration::MAX).as_nanos(), u128::from(u64::MAX));
    }
}
