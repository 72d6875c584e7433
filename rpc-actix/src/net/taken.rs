//! A link that somebody has taken: to dial it, or to drive its connection.

use super::beside::wake_all;
use super::link::{Busy, Link, Phase, State};
use super::transport::SideDoor;
use crate::rt;
use rpc_core::proto::{PeerInfo, Session};
use rpc_core::spi::Tally;
use rpc_core::{ErrorKind, RpcError};
use std::sync::{Arc, MutexGuard};
use std::task::Waker;

impl Busy {
    /// The link, and its state if it is still this one's.
    fn held(&self) -> Option<MutexGuard<'_, State>> {
        let state = self.link.lock();
        (state.turn == self.turn).then_some(state)
    }

    pub(crate) fn link(&self) -> &Arc<Link> {
        &self.link
    }

    /// The time to dial has come. `false` if a connection has come in meanwhile.
    pub(crate) fn dials(&self) -> bool {
        let Some(mut state) = self.held() else { return false };
        state.phase = Phase::Dialing;
        true
    }

    /// The last connection here, as the peer has called it, if it was the peer that had dialled. `None` as well
    /// if a connection has come in meanwhile, which is not lost.
    pub(crate) fn follows(&self) -> Option<u64> {
        self.held()?.theirs
    }

    /// The hellos are exchanged. `false` if this connection is not wanted any more.
    pub(crate) fn connects(&mut self, peer: PeerInfo, number: Option<u64>) -> bool {
        let Some(mut state) = self.held() else { return false };
        if state.closing {
            return false;
        }
        let now = self.link.now();
        state.phase = Phase::Connected;
        state.connected = now;
        state.declines = 0;
        (state.number, state.theirs) = (number, peer.hello.number);
        state.session.attach(now, peer);
        drop(state);
        self.settled = false;
        true
    }

    /// The connection may be written to: by this thread's driver, and through `door`; by whoever
    /// has something to say if `beside` says so, and not only for signs of life.
    pub(crate) fn opens(&self, door: Option<Arc<dyn SideDoor>>, tally: &Arc<Tally>, beside: bool) {
        let beside = beside && door.is_some();
        self.link.pen.open(self.turn, door, tally.clone());
        if let Some(mut state) = self.held() {
            state.home = beside.then(rt::thread);
            (state.put_off, state.begun) = (false, false);
        }
    }

    /// The connection is not written to any more.
    pub(crate) fn closes(&self) {
        self.link.pen.close(self.turn);
    }

    /// Works on the session when the connection is lost; the link stays taken until this is
    /// dropped.
    pub(crate) fn lost<R>(&mut self, f: impl FnOnce(&mut Session) -> R) -> Option<R> {
        self.settled = true;
        let mut state = self.held()?;
        let (now, State { connected, limits, backoff, .. }) = (self.link.now(), &mut *state);
        backoff.lost(*connected, now, limits);
        let result = f(&mut state.session);
        wake_all(state);
        Some(result)
    }

    /// The peer could not be reached: what waits for it ends by `f`.
    pub(crate) fn failed<R>(
        &mut self,
        error: &RpcError,
        f: impl FnOnce(&mut Session) -> R,
    ) -> Option<R> {
        self.settled = true;
        let mut state = self.held()?;
        state.declines = 0;
        let (now, State { limits, backoff, .. }) = (self.link.now(), &mut *state);
        if error.kind() == ErrorKind::VersionMismatch {
            backoff.refused(now, limits);
        } else {
            backoff.failed(now, limits);
        }
        let result = f(&mut state.session);
        wake_all(state);
        Some(result)
    }

    /// The peer dials as well, and its dial is the one that counts. How often in a row that
    /// was so.
    pub(crate) fn declined(&mut self) -> u32 {
        self.settled = true;
        let Some(mut state) = self.held() else { return 0 };
        let (now, State { limits, backoff, declines, .. }) = (self.link.now(), &mut *state);
        backoff.failed(now, limits);
        *declines = declines.saturating_add(1);
        *declines
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        self.closes();
        let Some(mut state) = self.held() else { return };
        state.phase = Phase::Idle;
        (state.driver, state.watcher, state.orders, state.home) = (None, None, None, None);
        if !self.settled {
            let text = "the thread of the connection has ended";
            let error = RpcError::new(ErrorKind::EnvStopped, text);
            state.session.detach(&error, false);
        }
        let successors = std::mem::take(&mut state.successors);
        wake_all(state);
        successors.into_iter().for_each(Waker::wake);
    }
}
