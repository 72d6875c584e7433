//! A thread that takes work: an arbiter, or the caller's own thread in inline mode.

use crate::rt;
use rpc_core::spi::Beat;
use rpc_core::{ErrorKind, RpcError};
use std::cell::Cell;
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, OnceLock, Weak};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::sync::oneshot;

type Job = Box<dyn FnOnce() + Send>;

/// Hands work to one thread. The channel has no bound of its own: a job is the start of an
/// endpoint or of a connection, and those are bounded.
#[derive(Clone)]
pub(crate) struct Worker {
    jobs: UnboundedSender<Job>,
    beat: Arc<OnceLock<Arc<Beat>>>,
}

/// What a thread shows of itself, once its loop has started; it does not keep the thread.
#[derive(Clone, Debug)]
pub(crate) struct Shown(Weak<OnceLock<Arc<Beat>>>);

impl Shown {
    pub(crate) fn is_over(&self) -> bool {
        self.0.strong_count() == 0
    }

    pub(crate) fn beat(&self) -> Option<Arc<Beat>> {
        self.0.upgrade()?.get().cloned()
    }
}

thread_local! {
    /// Whether this thread runs endpoints of some env.
    static IS_ARBITER: Cell<bool> = const { Cell::new(false) };
}

/// Whether this thread runs endpoints, so that it must not block on them.
pub(crate) fn is_arbiter() -> bool {
    IS_ARBITER.get()
}

impl Worker {
    /// A worker and its loop, which must be started on its thread.
    pub(crate) fn new() -> (Self, WorkerLoop) {
        let (jobs, queue) = unbounded_channel();
        let beat = Arc::<OnceLock<_>>::default();
        (Self { jobs, beat: beat.clone() }, WorkerLoop { queue, beat: Arc::downgrade(&beat) })
    }

    /// What the thread shows of itself.
    pub(crate) fn shown(&self) -> Shown {
        Shown(Arc::downgrade(&self.beat))
    }

    /// Whether the thread takes no more jobs.
    pub(crate) fn is_over(&self) -> bool {
        self.jobs.is_closed()
    }

    /// Runs `job` on the thread.
    pub(crate) fn run(&self, job: impl FnOnce() + Send + 'static) -> Result<(), RpcError> {
        self.jobs
            .send(Box::new(job))
            .map_err(|_| RpcError::new(ErrorKind::EnvStopped, "the thread of the RpcEnv has ended"))
    }
}

impl fmt::Debug for Worker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Worker").field("ended", &self.is_over()).finish()
    }
}

#[must_use = "a worker without its loop does nothing"]
pub(crate) struct WorkerLoop {
    queue: UnboundedReceiver<Job>,
    beat: Weak<OnceLock<Arc<Beat>>>,
}

impl WorkerLoop {
    /// Takes jobs on this thread until the last [`Worker`] is dropped; ready when that is so. If the
    /// thread ends before that, it calls `lost`.
    pub(crate) fn start(self, lost: impl FnOnce() + Send + 'static) -> oneshot::Receiver<()> {
        IS_ARBITER.set(true);
        if let Some(beat) = self.beat.upgrade() {
            let _ = beat.set(Beat::of_this_thread());
        }
        let (ended, stopped) = oneshot::channel();
        let mut running = Running { queue: self.queue, lost: Some(Box::new(lost)) };
        rt::spawn(async move {
            while let Some(job) = running.queue.recv().await {
                // A thread that cannot be started panics in actix; it must not cost this one.
                if catch_unwind(AssertUnwindSafe(job)).is_err() {
                    tracing::error!("panic in a job of an arbiter");
                }
            }
            running.end();
            let _ = ended.send(());
        });
        stopped
    }
}

/// A loop at work.
struct Running {
    queue: UnboundedReceiver<Job>,
    lost: Option<Job>,
}

impl Running {
    /// Nobody needs the thread any more.
    fn end(mut self) {
        self.lost = None;
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // First: what is handed over from now on is refused.
        self.queue.close();
        if let Some(lost) = self.lost.take() {
            lost();
        }
    }
}
