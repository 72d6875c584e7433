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
}

/// One-way messages between two looks at the clock.
const LOOK_AFTER: usize = 4;

impl Turn {
    /// Whether the turn has taken its time, before a message. An ask must not be handled when its own
    /// time is over, so the clock is read for each; otherwise it is read now and then.
    pub(crate) fn is_late(&mut self, core: &EnvCore, call: bool) -> bool {
        let looks = self.messages > 0 && self.messages.is_multiple_of(LOOK_AFTER);
        if !looks && !call {
            return false;
        }
        self.now = core.now();
        match self.since {
            Some(since) => self.now.since(since) >= core.config().limits().max_turn(),
            None => {
                self.since = Some(self.now);
                false
            }
        }
    }

    /// When the clock was looked at last: before an ask, that is now.
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
