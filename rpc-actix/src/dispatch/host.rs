//! The actix System behind envs, and its arbiters.

use super::actor::EndpointActor;
use super::worker::{Shown, Worker, WorkerLoop, is_arbiter};
use crate::options::Mode;
use actix_rt::{Arbiter, System};
use rpc_core::spi::{Beat, EndpointTask, EnvCore};
use rpc_core::{ErrorKind, RpcError};
use std::fmt;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::thread;
use tokio::sync::oneshot;

/// Threads that envs run on: one actix System, which several envs may share.
///
/// It ends when the last env on it has been shut down and the last handle is dropped.
#[derive(Clone)]
pub struct ActixHost {
    inner: Arc<Inner>,
}

struct Inner {
    /// The System's own thread: it accepts, keeps time, and runs no user code.
    main: Worker,
    mode: Mode,
    arbiters: Mutex<Arbiters>,
    next: AtomicUsize,
    /// The envs that need these threads.
    envs: Mutex<Vec<Weak<EnvCore>>>,
}

/// Arbiters by index; none in inline mode, where everything is on the main worker.
#[derive(Default)]
struct Arbiters {
    workers: Vec<Worker>,
    /// What the threads of all arbiters show, those of isolated endpoints included.
    shown: Vec<Shown>,
}

impl Arbiters {
    fn shows(&mut self, shown: Shown) {
        self.shown.retain(|known| !known.is_over());
        self.shown.push(shown);
    }
}

impl ActixHost {
    /// Whether everything is on the caller's thread.
    pub(crate) fn is_inline(&self) -> bool {
        self.inner.mode == Mode::Inline
    }

    /// What the threads of the arbiters show of themselves.
    pub(crate) fn beats(&self) -> Vec<Arc<Beat>> {
        self.lock().shown.iter().filter_map(Shown::beat).collect()
    }

    /// Starts a System on a thread of its own.
    ///
    /// # Errors
    /// When the thread cannot be started.
    ///
    /// # Cancel safety
    /// Dropped in the middle, the thread ends.
    pub async fn start() -> Result<Self, RpcError> {
        let (ready, started) = oneshot::channel();
        let (main, queue) = Worker::new();
        let host = Self::new(main, Mode::Threads);
        let lost = host.when_lost();
        let ended = |cause: &dyn fmt::Display| {
            RpcError::new(
                ErrorKind::Internal,
                format!("cannot start the thread of an RpcEnv: {cause}"),
            )
        };
        thread::Builder::new()
            .name("rpc-system".into())
            .spawn(move || {
                let system = System::new();
                system.block_on(async move {
                    let stopped = queue.start(lost);
                    // Whoever started us has given up if this fails; the queue then ends.
                    let _ = ready.send(());
                    let _ = stopped.await;
                });
            })
            .map_err(|error| ended(&error))?;
        started.await.map_err(|error| ended(&error))?;
        Ok(host)
    }

    /// Uses the current thread: an `#[actix::main]`, or any thread inside a `LocalSet`. No thread
    /// is started; a handler that blocks then blocks everything.
    ///
    /// # Errors
    /// `InvalidConfig` on a thread where no actor can live.
    pub(crate) fn inline() -> Result<Self, RpcError> {
        if !crate::rt::can_spawn() {
            return Err(RpcError::new(
                ErrorKind::InvalidConfig,
                "rpc.actix.mode is \"inline\", but this thread is in no actix System and no LocalSet, where actors can live; start it from #[actix::main], or leave the key out",
            ));
        }
        let (main, queue) = Worker::new();
        let host = Self::new(main, Mode::Inline);
        drop(queue.start(host.when_lost()));
        Ok(host)
    }

    fn new(main: Worker, mode: Mode) -> Self {
        let inner = Inner {
            main,
            mode,
            arbiters: Mutex::default(),
            next: AtomicUsize::new(0),
            envs: Mutex::default(),
        };
        Self { inner: Arc::new(inner) }
    }

    /// An env that ends with these threads.
    pub(crate) fn carries(&self, core: &Arc<EnvCore>) {
        let mut envs = self.inner.envs.lock().unwrap_or_else(PoisonError::into_inner);
        envs.retain(|env| env.strong_count() > 0);
        envs.push(Arc::downgrade(core));
    }

    /// What a thread does when it ends though it is needed: user code has stopped it.
    fn when_lost(&self) -> impl FnOnce() + Send + use<> {
        let inner = Arc::downgrade(&self.inner);
        move || {
            if let Some(inner) = inner.upgrade() {
                Self { inner }.lost_a_thread();
            }
        }
    }

    /// The envs end if the System does. Otherwise the arbiter gets a successor.
    fn lost_a_thread(self) {
        let host = self.clone();
        let asked = self.main().run(move || {
            crate::rt::spawn(async move {
                if system_is_stopped().await {
                    host.shut_down();
                } else if let Err(error) = host.replace().await {
                    tracing::error!(%error, "an arbiter has ended, and has no successor");
                }
            });
        });
        if asked.is_err() {
            self.shut_down();
        }
    }

    fn shut_down(&self) {
        let envs =
            std::mem::take(&mut *self.inner.envs.lock().unwrap_or_else(PoisonError::into_inner));
        for env in envs.iter().filter_map(Weak::upgrade) {
            tracing::warn!(env = %env.config().name(), "the System of the RpcEnv was stopped");
            env.shut_down();
        }
    }

    /// Starts an arbiter for each that has ended.
    async fn replace(&self) -> Result<(), RpcError> {
        loop {
            let over = self.lock().workers.iter().position(Worker::is_over);
            let Some(place) = over else { return Ok(()) };
            let worker = self.new_arbiter().await?;
            tracing::warn!("an arbiter has ended, and what was on it; another one is in its place");
            let mut arbiters = self.lock();
            arbiters.shows(worker.shown());
            if let Some(old) = arbiters.workers.get_mut(place) {
                *old = worker;
            }
        }
    }

    pub(crate) fn main(&self) -> &Worker {
        &self.inner.main
    }

    /// Makes sure that there are at least `count` arbiters.
    pub(crate) async fn grow(&self, count: usize) -> Result<(), RpcError> {
        if self.inner.mode == Mode::Inline {
            return Ok(());
        }
        let have = self.lock().workers.len();
        for _ in have..count {
            let worker = self.new_arbiter().await?;
            let mut arbiters = self.lock();
            arbiters.shows(worker.shown());
            arbiters.workers.push(worker);
        }
        Ok(())
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Arbiters> {
        self.inner.arbiters.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A new thread of the System. It ends when its worker is dropped.
    async fn new_arbiter(&self) -> Result<Worker, RpcError> {
        let (worker, queue) = Worker::new();
        let (ready, started) = oneshot::channel();
        let lost = self.when_lost();
        self.inner.main.run(move || {
            start_arbiter(queue, lost);
            let _ = ready.send(());
        })?;
        started.await.map_err(|_| {
            RpcError::new(ErrorKind::EnvStopped, "the System of the RpcEnv has ended")
        })?;
        Ok(worker)
    }

    /// The arbiter for the next endpoint or connection, in turn.
    pub(crate) fn pick(&self) -> Worker {
        let turn = self.inner.next.fetch_add(1, Ordering::Relaxed);
        let arbiters = self.lock();
        let picked = turn.checked_rem(arbiters.workers.len());
        picked.and_then(|index| arbiters.workers.get(index)).unwrap_or(&self.inner.main).clone()
    }

    /// Starts an endpoint on its arbiter.
    pub(crate) fn spawn(&self, task: EndpointTask) -> Result<(), RpcError> {
        if !task.isolated() || self.inner.mode == Mode::Inline {
            return self.pick().run(move || EndpointActor::start(task));
        }
        let (worker, queue) = Worker::new();
        self.lock().shows(worker.shown());
        // Nobody else needs that thread.
        self.inner.main.run(move || start_arbiter(queue, || {}))?;
        // The arbiter ends with the endpoint: its worker lives as long as the endpoint's future.
        let keep = worker.clone();
        worker.run(move || EndpointActor::start(task.keeping(keep)))
    }

    /// Why the current thread must not block, if it must not.
    pub(crate) fn refuses_blocking(&self) -> Option<String> {
        is_arbiter().then(|| {
            "this thread runs endpoints, and the answer may need it; use ask(..).await, or a thread without endpoints".to_owned()
        })
    }
}

/// Whether the System of this thread was stopped: its own arbiter does nothing any more.
async fn system_is_stopped() -> bool {
    let Some(system) = System::try_current() else { return false };
    let (going, goes) = oneshot::channel();
    let _ = system.arbiter().spawn_fn(move || {
        let _ = going.send(());
    });
    goes.await.is_err()
}

fn start_arbiter(queue: WorkerLoop, lost: impl FnOnce() + Send + 'static) {
    let arbiter = Arbiter::new();
    arbiter.spawn_fn(move || {
        let stopped = queue.start(lost);
        crate::rt::spawn(async move {
            let _ = stopped.await;
            Arbiter::current().stop();
        });
    });
}

impl fmt::Debug for ActixHost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ActixHost").field("mode", &self.inner.mode).finish_non_exhaustive()
    }
}
