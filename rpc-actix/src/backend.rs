//! An env on actix: what rpc-core asks of a backend.

use crate::net::node::Node;
use crate::rt;
use rpc_core::spi::{EndpointTask, EnvBackend, EnvCore, Incarnation, RemoteTarget};
use rpc_core::{EndpointAddress, RpcAddress, RpcError, Timestamp};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::task::Context;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

pub(crate) struct ActixBackend {
    core: Weak<EnvCore>,
    clock: rt::Clock,
    timer: Arc<Timer>,
    /// Taken when the env closes, so that nothing keeps its threads.
    node: Mutex<Option<Arc<Node>>>,
}

/// The env's next deadline, and the bell for a new one.
pub(crate) struct Timer {
    next: AtomicU64,
    bell: Notify,
    /// Set when every call has ended: no time is kept any more.
    over: CancellationToken,
}

impl ActixBackend {
    pub(crate) fn new(core: &Arc<EnvCore>, node: Arc<Node>) -> Self {
        let timer = Arc::new(Timer {
            next: AtomicU64::new(u64::MAX),
            bell: Notify::new(),
            over: CancellationToken::new(),
        });
        Self {
            core: Arc::downgrade(core),
            clock: node.clock(),
            timer,
            node: Mutex::new(Some(node)),
        }
    }

    fn node(&self) -> Result<Arc<Node>, RpcError> {
        let node = self.node.lock().unwrap_or_else(PoisonError::into_inner);
        node.clone().ok_or_else(crate::net::link::env_stopped)
    }

    /// Keeps time for the env until it has closed, goodbyes included: on the System's own thread,
    /// which no handler blocks.
    pub(crate) fn keep_time(&self, node: &Node) -> Result<(), RpcError> {
        let (core, timer, over) = (self.core.clone(), self.timer.clone(), self.timer.over.clone());
        let clock = node.clock();
        node.host().main().run(move || {
            rt::spawn(async move {
                tokio::select! {
                    biased;
                    // Nothing is lost with a timer loop: its state is in the env's timers.
                    () = keep_time(core, timer, clock) => {}
                    () = over.cancelled() => {}
                }
            });
        })
    }
}

async fn keep_time(core: Weak<EnvCore>, timer: Arc<Timer>, clock: rt::Clock) {
    loop {
        let rung = timer.bell.notified();
        let next = Timestamp::from_nanos(timer.next.load(Ordering::Acquire));
        let due = async {
            if next == Timestamp::MAX {
                std::future::pending().await
            } else {
                clock.sleep_until(next).await
            }
        };
        tokio::select! {
            biased;
            // Either may be dropped: the next deadline is read again.
            () = due => {
                let Some(core) = core.upgrade() else { return };
                timer.next.store(u64::MAX, Ordering::Release);
                if let Some(next) = core.fire_timers(clock.now()) {
                    timer.next.fetch_min(next.as_nanos(), Ordering::AcqRel);
                }
            }
            () = rung => {}
        }
    }
}

impl EnvBackend for ActixBackend {
    fn kind(&self) -> &'static str {
        crate::options::NAME
    }

    fn now(&self) -> Timestamp {
        self.clock.now()
    }

    fn tick(&self) -> Option<u64> {
        rt::tick()
    }

    fn spawn(&self, task: EndpointTask) -> Result<(), RpcError> {
        self.node()?.host().spawn(task)
    }

    fn arm_timer(&self, at: Timestamp) {
        self.timer.next.fetch_min(at.as_nanos(), Ordering::AcqRel);
        self.timer.bell.notify_one();
    }

    fn remote(
        &self,
        address: &EndpointAddress,
        pin: Option<Incarnation>,
    ) -> Result<Arc<dyn RemoteTarget>, RpcError> {
        self.node()?.target(address, pin, None)
    }

    fn remote_through(
        &self,
        address: &EndpointAddress,
        pin: Option<Incarnation>,
        relay: Option<&RpcAddress>,
    ) -> Result<Arc<dyn RemoteTarget>, RpcError> {
        self.node()?.target(address, pin, relay)
    }

    fn refuses_blocking(&self) -> Option<String> {
        self.node().ok()?.host().refuses_blocking()
    }

    fn settle_counts(&self) {
        if let Ok(node) = self.node() {
            node.settle_counts();
        }
    }

    fn polls_in_place(&self) -> bool {
        true
    }

    fn yield_now(&self, cx: &mut Context<'_>) {
        rt::yield_now(cx);
    }

    fn close(&self) {
        let node = self.node.lock().unwrap_or_else(PoisonError::into_inner).take();
        let (core, timer) = (self.core.clone(), self.timer.clone());
        let Some(node) = node else { return };
        let terminated = move || {
            timer.over.cancel();
            if let Some(core) = core.upgrade() {
                core.terminated();
            }
        };
        let main = node.host().main().clone();
        let (done, abandoned) = (terminated.clone(), node.clone());
        let started = main.run(move || {
            rt::spawn(async move {
                node.close().await;
                // The last handle of the threads, unless other envs share them.
                drop(node);
                done();
            });
        });
        if started.is_err() {
            abandoned.abandon();
            terminated();
        }
    }
}
