//! A handler that does not give way.

use crate::rt::Clock;
use rpc_core::Timestamp;
use std::future;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::Poll;
use std::time::Duration;

/// Blocks a node's thread, as code does that does not give way.
#[derive(Clone, Debug)]
pub struct Blocking {
    pub(super) until: Arc<AtomicU64>,
    pub(super) clock: Clock,
}

impl Blocking {
    pub(super) fn begin(&self, now: Timestamp, duration: Duration) {
        self.until.fetch_max(now.saturating_add(duration).as_nanos(), Ordering::AcqRel);
    }

    /// Nothing on the node runs for so long, neither this task nor others. Wait for it at once:
    /// the node stands still when the task next does.
    ///
    /// # Cancel safety
    /// Dropped, the node still stands still.
    pub async fn block(&self, duration: Duration) {
        self.begin(self.clock.now(), duration);
        let mut first = true;
        future::poll_fn(|cx| {
            if std::mem::take(&mut first) {
                cx.waker().wake_by_ref();
                return Poll::Pending;
            }
            Poll::Ready(())
        })
        .await;
    }
}
