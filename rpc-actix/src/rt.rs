//! The runtime at arm's length: the only file that reads the clock, sleeps or spawns.

use rpc_core::Timestamp;
use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Wake, Waker};
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
    tokio::task::spawn_local(future);
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

/// Whether the current thread can run futures that stay on it.
pub(crate) fn can_spawn() -> bool {
    // There is no question to ask, only an attempt that panics outside of a `LocalSet`.
    tokio::runtime::Handle::try_current().is_ok()
        && std::panic::catch_unwind(|| drop(tokio::task::spawn_local(async {}))).is_ok()
}
