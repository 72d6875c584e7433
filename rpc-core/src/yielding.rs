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
    /// Since when; looked at after the first few messages.
    since: Timestamp,
}

/// Messages between two looks at the clock.
const LOOK_AFTER: usize = 4;

impl Turn {
    /// Counts a message: whether it is the last of its turn.
    pub(crate) fn is_over(&mut self, core: &EnvCore) -> bool {
        let limits = core.config().limits();
        self.messages = self.messages.saturating_add(1);
        let mut over = self.messages >= limits.yield_after();
        if self.messages == LOOK_AFTER {
            self.since = core.now();
        } else if self.messages.is_multiple_of(LOOK_AFTER) {
            over |= core.now().since(self.since) >= limits.max_turn();
        }
        if over {
            self.messages = 0;
        }
        over
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
