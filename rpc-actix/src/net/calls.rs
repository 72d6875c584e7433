//! The calls to a peer, as those who wait for them reach them.

use super::beside::wake_with_driver;
use super::link::{Link, State};
use bytes::Bytes;
use rpc_core::Timestamp;
use rpc_core::spi::{CallAlarm, CallEnd, Expire, RemoteCalls};
use std::sync::MutexGuard;
use std::task::{Context, Poll, Waker};

impl RemoteCalls for Link {
    fn poll(&self, id: u64, cx: &mut Context<'_>) -> Poll<Result<Bytes, CallEnd>> {
        // Nothing comes after the poll, so that the result is not moved once more.
        let mut looking = Looking(Some(self.lock()));
        match &mut looking.0 {
            Some(state) => state.session.poll_call(id, cx),
            None => Poll::Pending,
        }
    }

    fn abandon(&self, id: u64) {
        let now = self.now();
        let mut state = self.lock();
        state.session.abandon(now, id);
        wake_with_driver(state);
    }

    fn expire_due(&self, until: Timestamp) -> Option<Timestamp> {
        let now = self.now();
        let mut state = self.lock();
        let next = state.session.expire_due(now, until);
        wake_with_driver(state);
        next
    }

    fn alarm(&self) -> Option<&CallAlarm> {
        Some(&self.alarm)
    }
}

/// The lock, while a call is looked at.
struct Looking<'a>(Option<MutexGuard<'a, State>>);

/// The target may have been released by the end of the call, and the peer is to hear of it.
impl Drop for Looking<'_> {
    #[inline]
    fn drop(&mut self) {
        let Some(mut state) = self.0.take() else { return };
        if state.session.has_wakes() {
            // Room that was kept for it is given to those who wait.
            return wake_with_driver(state);
        }
        if state.driver.is_none() || state.put_off || !state.session.has_output() {
            return;
        }
        let driver = state.driver.take();
        drop(state);
        driver.into_iter().for_each(Waker::wake);
    }
}

impl Expire for Link {
    fn expire(&self, id: u64) {
        let now = self.now();
        let mut state = self.lock();
        state.session.expire(now, id);
        wake_with_driver(state);
    }
}
