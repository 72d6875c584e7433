//! The alarm of an inbox: it rings at the earliest deadline of the local calls.

use crate::deadline::Timestamp;
use crate::inbox::{Inbox, State};
use crate::seam::Expire;
use std::sync::{Arc, Weak};

impl Inbox {
    /// Sets the alarm for the earliest deadline of the local calls.
    #[cold]
    pub(crate) fn arm(self: &Arc<Self>, at: Timestamp) {
        // Whoever waits for an answer holds the inbox; nobody else needs the alarm.
        let alarm = Arc::new(Alarm(Arc::downgrade(self)));
        let mut other = Some(self.core().add_timer(at, alarm, 0));
        let mut state = self.lock();
        if state.deadlines.armed() == at {
            std::mem::swap(&mut state.alarm, &mut other);
        }
        drop(state);
        other.into_iter().for_each(|timer| self.core().cancel_timer(timer));
    }
}

/// Nobody waits any more: an alarm that is far away would keep the inbox's memory until then.
impl Drop for Inbox {
    fn drop(&mut self) {
        let alarm = self.lock().alarm.take();
        alarm.into_iter().for_each(|timer| self.core().cancel_timer(timer));
    }
}

impl State {
    /// Keeps the deadline of a local call; when the alarm must ring, if one must be set.
    #[inline]
    pub(crate) fn expires<C: Expire + 'static>(
        &mut self,
        at: Timestamp,
        call: &Arc<C>,
    ) -> Option<Timestamp> {
        let call: Weak<C> = Arc::downgrade(call);
        self.deadlines.add(at, call, is_live).then_some(at)
    }
}

/// Whether somebody waits for a call.
fn is_live(call: &Weak<dyn Expire>) -> bool {
    call.strong_count() > 0
}

/// Rings at the earliest deadline of an inbox's local calls.
struct Alarm(Weak<Inbox>);

impl Expire for Alarm {
    fn expire(&self, _id: u64) {
        let Some(inbox) = self.0.upgrade() else { return };
        // When the env has ended nobody keeps the time: every call is due.
        let over = inbox.core().is_terminated();
        let now = if over { Timestamp::MAX } else { inbox.core().now() };
        let (due, next) = inbox.lock().deadlines.due(now, is_live);
        due.iter().filter_map(Weak::upgrade).for_each(|call| call.expire(0));
        if let Some(at) = next {
            inbox.arm(at);
        }
    }
}
