//! The calls to a peer, as those who wait for them reach them.

use super::beside::wake_with_driver;
use super::link::Link;
use bytes::Bytes;
use rpc_core::Timestamp;
use rpc_core::spi::{CallEnd, Expire, RemoteCalls};
use std::task::{Context, Poll, Waker};

impl RemoteCalls for Link {
    fn poll(&self, id: u64, cx: &mut Context<'_>) -> Poll<Result<Bytes, CallEnd>> {
        let mut state = self.lock();
        // One value all the way, so that the result is not moved once more.
        let polled = state.session.poll_call(id, cx);
        // Its target may have been released by its end, and the peer is to hear of it.
        let output = polled.is_ready() && state.session.has_output() && !state.put_off;
        let driver = if output { state.driver.take() } else { None };
        drop(state);
        driver.into_iter().for_each(Waker::wake);
        polled
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
}

impl Expire for Link {
    fn expire(&self, id: u64) {
        let now = self.now();
        let mut state = self.lock();
        state.session.expire(now, id);
        wake_with_driver(state);
    }
}
