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

/// The monotonic clock of one env. In a paused runtime it is virtual.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Clock {
    epoch: Instant,
}

impl Clock {
    pub(crate) fn start() -> Self {
        Self { epoch: Instant::now() }
    }

    pub(crate) fn now(self) -> Timestamp {
        Timestamp::START.saturating_add(Instant::now().duration_since(self.epoch))
    }

    pub(crate) async fn sleep_until(self, at: Timestamp) {
        tokio::time::sleep(at.since(self.now())).await;
    }
}

pub(crate) async fn sleep(duration: Duration) {
    tokio::time::sleep(duration).await;
}

/// The future's output, unless that takes longer.
pub(crate) async fn within<T>(limit: Duration, future: impl Future<Output = T>) -> Option<T> {
    tokio::time::timeout(limit, future).await.ok()
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
