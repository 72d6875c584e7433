//! How long an endpoint goes on before the others of its thread have their turn.

use crate::core::EnvCore;
use crate::deadline::Timestamp;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Wake, Waker};

/// What an endpoint has handled since others of its thread had their turn.
#[derive(Default)]
pub(crate) struct Turn {
    messages: usize,
    /// When the clock was looked at first.
    since: Option<Timestamp>,
    now: Timestamp,
    /// When that was read, on the cheap clock; nothing if it does not count any more.
    tick: Option<u64>,
}

/// Messages between two looks at the clock.
const LOOK_AFTER: usize = 4;

impl Turn {
    /// Whether the turn has taken its time, before a message. The clock is read now and then; and for an
    /// ask, which must not be handled when its own time is over, as often as a cheap clock ticks.
    pub(crate) fn is_late(&mut self, core: &EnvCore, call: bool) -> bool {
        let looks = self.messages > 0 && self.messages.is_multiple_of(LOOK_AFTER);
        if !looks && !call {
            return false;
        }
        // What is no ask needs the length of the turn only.
        let tick = if call { core.tick() } else { None };
        if !looks && tick.is_some() && self.tick == tick {
            return false;
        }
        (self.tick, self.now) = (tick, core.now());
        match self.since {
            Some(since) => self.now.since(since) >= core.config().limits().max_turn(),
            None => {
                self.since = Some(self.now);
                false
            }
        }
    }

    /// The loop has waited: whatever was known of the time is no more.
    pub(crate) fn has_waited(&mut self) {
        self.tick = None;
    }

    /// When the clock was looked at last: before an ask, that is not more than a tick ago.
    pub(crate) fn now(&self) -> Timestamp {
        self.now
    }

    /// Counts a message: whether it is the last of its turn.
    pub(crate) fn is_over(&mut self, core: &EnvCore) -> bool {
        self.messages = self.messages.saturating_add(1);
        self.messages >= core.config().limits().yield_after()
    }
}

/// Lets the others of the thread have their turn. Nothing else that wakes the loop meanwhile ends it.
pub(crate) async fn yield_now(core: &EnvCore) {
    let mut turn: Option<Arc<OthersTurn>> = None;
    std::future::poll_fn(|cx| {
        if let Some(turn) = &turn {
            return if turn.over.load(Ordering::Acquire) { Poll::Ready(()) } else { Poll::Pending };
        }
        let over = AtomicBool::new(false);
        let others = turn.insert(Arc::new(OthersTurn { over, task: cx.waker().clone() }));
        let waker = Waker::from(others.clone());
        match core.backend() {
            Some(backend) => backend.yield_now(&mut Context::from_waker(&waker)),
            None => waker.wake(),
        }
        Poll::Pending
    })
    .await;
}

/// Woken when it is over.
struct OthersTurn {
    over: AtomicBool,
    task: Waker,
}

impl Wake for OthersTurn {
    fn wake(self: Arc<Self>) {
        self.over.store(true, Ordering::Release);
        self.task.wake_by_ref();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::address::EndpointAddress;
    use crate::config::RpcEnvConfig;
    use crate::env::EnvShared;
    use crate::error::{ErrorKind, RpcError};
    use crate::seam::{EndpointTask, EnvBackend, Incarnation, RemoteTarget};
    use std::sync::Weak;
    use std::sync::atomic::{AtomicU64, AtomicUsize};

    /// Two clocks that are set by hand, and how often the dear one was read.
    #[derive(Default)]
    struct Clocks {
        now: AtomicU64,
        tick: AtomicU64,
        reads: AtomicUsize,
    }

    impl EnvBackend for Clocks {
        fn kind(&self) -> &'static str {
            "clocks"
        }

        fn now(&self) -> Timestamp {
            self.reads.fetch_add(1, Ordering::Relaxed);
            Timestamp::from_nanos(self.now.load(Ordering::Relaxed))
        }

        fn tick(&self) -> Option<u64> {
            Some(self.tick.load(Ordering::Relaxed))
        }

        fn spawn(&self, _: EndpointTask) -> Result<(), RpcError> {
            Ok(())
        }

        fn arm_timer(&self, _: Timestamp) {}

        fn remote(
            &self,
            _: &EndpointAddress,
            _: Option<Incarnation>,
        ) -> Result<Arc<dyn RemoteTarget>, RpcError> {
            Err(RpcError::new(ErrorKind::Unreachable, "there is no network"))
        }

        fn close(&self) {}
    }

    #[test]
    fn an_ask_is_begun_by_a_reading_of_this_tick_until_the_loop_waits() {
        let (core, clocks) =
            (EnvCore::new(1, RpcEnvConfig::client("env"), None), Arc::new(Clocks::default()));
        core.install(clocks.clone(), Weak::<EnvShared>::new());
        let mut turn = Turn::default();
        let mut begins = |at: u64, tick: u64, waited: bool| {
            clocks.now.store(at, Ordering::Relaxed);
            clocks.tick.store(tick, Ordering::Relaxed);
            if waited {
                turn.has_waited();
            }
            assert!(!turn.is_late(&core, true));
            assert!(!turn.is_over(&core));
            (turn.now().as_nanos(), clocks.reads.load(Ordering::Relaxed))
        };
        assert_eq!(begins(10, 1, false), (10, 1));
        assert_eq!(begins(20, 1, false), (10, 1));
        assert_eq!(begins(30, 2, false), (30, 2), "a handler has taken longer than a tick");
        assert_eq!(begins(40, 2, true), (40, 3), "time may have gone by as it will");
        assert_eq!(begins(50, 2, false), (50, 4), "the length of the turn is looked at");
        assert_eq!(begins(60, 2, false), (50, 4));
    }
}
