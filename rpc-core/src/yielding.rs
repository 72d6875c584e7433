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
    /// Short ones just before, after which only other tasks had theirs.
    short: usize,
    /// When the clock was looked at first.
    since: Option<Timestamp>,
    now: Timestamp,
    /// When that was read, on the cheap clock; nothing if it does not count any more.
    tick: Option<u64>,
}

/// Messages between two looks at the clock.
const LOOK_AFTER: usize = 4;
/// Turns after which only other tasks of the thread have theirs, if all took less than a quarter of the
/// longest one together: a look at the sockets costs as much as some messages.
const SHORT: usize = 3;

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

    /// Other tasks of the thread have had their turn. Sockets may not have been looked at: a loop that is
    /// polled where its asker waits is woken in its own task after each short turn.
    pub(crate) fn others_had_theirs(&mut self) {
        *self = Self { short: self.short, ..Self::default() };
    }

    /// Ends the turn after its last message: whether it is enough that other tasks of the thread have
    /// theirs, and what comes from outside may wait for some such turns more.
    pub(crate) fn was_short(&mut self, core: &EnvCore) -> bool {
        let most = core.config().limits().max_turn() / 4;
        let short =
            self.short < SHORT && self.since.is_some_and(|since| self.now.since(since) < most);
        if short {
            (self.messages, self.short) = (0, self.short.saturating_add(1));
        } else {
            *self = Self::default();
        }
        short
    }
}

/// Lets other tasks of the thread that are ready have their turn.
pub(crate) async fn pause() {
    let mut paused = false;
    std::future::poll_fn(|cx| {
        if std::mem::replace(&mut paused, true) {
            return Poll::Ready(());
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    })
    .await;
}

/// Lets the others of the thread, and what comes from outside, have their turn. Nothing else that wakes the loop meanwhile ends it.
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

    /// Turns of 64 messages, each of which takes so long, up to the one after which what comes from
    /// outside has its turn.
    fn turns(nanos_per_message: u64) -> usize {
        let (core, clocks) =
            (EnvCore::new(1, RpcEnvConfig::client("env"), None), Arc::new(Clocks::default()));
        core.install(clocks.clone(), Weak::<EnvShared>::new());
        let (mut turn, mut turns) = (Turn::default(), 0);
        loop {
            loop {
                assert!(!turn.is_late(&core, false));
                clocks.now.fetch_add(nanos_per_message, Ordering::Relaxed);
                if turn.is_over(&core) {
                    break;
                }
            }
            turns += 1;
            if !turn.was_short(&core) {
                assert_eq!((turn.messages, turn.short, turn.since), (0, 0, None));
                return turns;
            }
        }
    }

    #[test]
    fn sockets_are_looked_at_after_some_short_turns_or_a_quarter_of_a_long_one() {
        assert_eq!(turns(10), 4);
        assert_eq!(turns(900), 4);
        // A quarter of a millisecond is over in the third one, or in the first.
        assert_eq!(turns(1_500), 3);
        assert_eq!(turns(5_000), 1);
    }

    #[test]
    fn a_turn_of_which_nobody_knows_the_time_is_not_short() {
        let config = RpcEnvConfig::client("env").set("rpc.dispatcher.yieldAfter", "2").unwrap();
        let core = EnvCore::new(1, config, None);
        let mut turn = Turn::default();
        assert!(!turn.is_over(&core) && turn.is_over(&core));
        assert!(!turn.was_short(&core));
    }
}
