//! A session gets a connection, and loses it.

use super::calls::Progress;
use super::close::{Close, CloseCode};
use super::hello::PeerInfo;
use super::pulse::{Pulse, Vital};
use super::session::{Closing, Session};
use super::target::{Phase, Target, TargetId};
use crate::deadline::Timestamp;
use crate::error::{Outcome, RpcError};
use crate::message::Encoding;
use crate::plant::planted;
use crate::seam::CallEnd;
use crate::termination::Termination;
use crate::wire::frame::{Kind, put_control};
use crate::wire::payload;
use serde::Serialize;

/// What a lost connection has ended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Detached {
    /// Calls that had been sent and will not be answered.
    pub unknown: usize,
    /// Calls that had not been sent.
    pub never_sent: usize,
}

#[derive(Serialize)]
struct Reason<'a> {
    reason: &'a str,
}

impl Session {
    /// A connection is ready: the hellos are exchanged.
    pub fn attach(&mut self, now: Timestamp, peer: PeerInfo) {
        self.pulse = Pulse::new(now, &peer.hello);
        self.leaving = false;
        let frame = usize::try_from(peer.hello.limits.frame).unwrap_or(usize::MAX);
        let assembly = usize::try_from(peer.hello.limits.assembly).unwrap_or(usize::MAX);
        self.lanes.set_limits(frame.min(self.limits.frame_max_size()), assembly);
        self.set_peer(Some(peer));
        self.connections = self.connections.wrapping_add(1);
        for id in self.targets.ids(Target::is_wanted) {
            self.ask_for(id);
        }
    }

    /// The peer, while there is a connection.
    #[must_use]
    pub fn peer(&self) -> Option<&PeerInfo> {
        self.peer.as_ref()
    }

    /// Which connection of the session this is, while there is one. What belongs to a call, a
    /// window or a binding of an earlier connection must not be said on a later one, where the
    /// same numbers mean something else.
    #[must_use]
    pub fn connection(&self) -> Option<u64> {
        self.connected.then_some(self.connections)
    }

    /// The connection is gone. Calls that were sent end as *outcome unknown*, those in a buffer
    /// as *never sent*; what waits in queues stays for the next connection if `keep` says so.
    pub fn detach(&mut self, error: &RpcError, keep: bool) -> Detached {
        let mut result = Detached::default();
        self.set_peer(None);
        self.pulse = Pulse::default();
        self.leaving = false;
        self.closing = Closing::No;
        for id in
            self.calls.ids(|call| matches!(call.progress, Progress::Ready { .. } | Progress::Sent))
        {
            let Some(call) = self.calls.get(id) else { continue };
            call.flight = None;
            let sent = match call.progress {
                _ if planted!(SentToldUnsent) => false,
                Progress::Ready { lane, offset, .. } => self.lanes.has_gone(lane, offset),
                _ => !self.lanes.waits(id),
            };
            let outcome = if sent { Outcome::Unknown } else { Outcome::NeverSent };
            let count = if sent { &mut result.unknown } else { &mut result.never_sent };
            *count = count.saturating_add(1);
            let end = CallEnd::Failed(error.clone().with_outcome(outcome));
            self.calls.finish(id, Err(end), &mut self.wakes);
        }
        self.lanes.clear();
        if !planted!(ServedKept) {
            self.serving.clear(&mut self.wakes);
        }
        if !planted!(AssembliesKept) {
            self.assemblies.clear();
        }
        if !planted!(MiddleKept) {
            self.middle = None;
        }
        self.end_relayed(&error.clone().with_outcome(Outcome::NeverSent));
        for id in self.targets.ids(|target| !target.watchers.is_empty()) {
            self.end_watches(id, Termination::NodeLost, Some(error));
        }
        self.going.clear();
        for target in self.targets.iter_mut() {
            target.unresolve();
        }
        self.reset_queue();
        if keep {
            self.leave(0, 0);
            self.settle_all();
        } else {
            result.never_sent = result.never_sent.saturating_add(self.fail_queued(error));
        }
        result
    }

    /// Ends everything that waits for a connection, as *never sent*; how much that was.
    pub fn fail_queued(&mut self, error: &RpcError) -> usize {
        let error = error.clone().with_outcome(Outcome::NeverSent);
        let before = self.open_calls().0;
        let (mut messages, mut bytes) = (0_usize, 0_usize);
        for id in self.targets.ids(|_| true) {
            let failed = self.fail_target(id, &error);
            messages = messages.saturating_add(failed.0);
            bytes = bytes.saturating_add(failed.1);
        }
        // Only now, so that no `send_wait` is told of room that its own end has made.
        self.leave(messages, bytes);
        self.settle_all();
        before.saturating_sub(self.open_calls().0)
    }

    /// A call that ends when the peer has said whether the target is there.
    ///
    /// # Errors
    /// `Overloaded` when too many calls are open.
    pub fn resolve(&mut self, now: Timestamp, id: TargetId) -> Result<u64, RpcError> {
        let call = self.open(id, || Progress::Resolving)?;
        let resolved = self.targets.get(id).is_some_and(|target| target.phase == Phase::Resolved);
        if resolved {
            self.finish(now, call, Ok(bytes::Bytes::new()));
        } else if let Some(target) = self.targets.get_mut(id) {
            target.resolvers.push(call);
            self.ask_for(id);
        }
        Ok(call)
    }

    /// Whether something waits for a connection.
    #[must_use]
    pub fn wants_connection(&self) -> bool {
        self.peer.is_none() && self.targets.iter().any(Target::is_wanted)
    }

    /// The socket takes no more, or takes something again.
    pub fn stalled(&mut self, now: Timestamp, stalled: bool) {
        self.pulse.stalled(now, stalled);
    }

    /// Nothing is read for now, because too much waits to be written: a frame in the middle is
    /// not the peer's fault.
    pub fn held(&mut self, now: Timestamp) {
        self.pulse.partial(now, false);
    }

    /// Looks at the connection, and pings a peer that promises no heartbeats if it is silent. To
    /// be called several times in a heartbeat.
    pub fn look(&mut self, now: Timestamp) -> Vital {
        if self.peer.is_none() {
            return Vital::Fine;
        }
        if self.pulse.must_ping(&self.limits, now) {
            put_control(self.lanes.control(), Kind::Ping, &now.as_nanos().to_be_bytes(), &[]);
        }
        self.pulse.look(&self.limits, now)
    }

    /// Whether nothing was sent for so long that the peer should have a sign of life: also while
    /// the peer itself is silent, because that may be the silence of a thread here that is blocked.
    #[must_use]
    pub fn is_quiet(&self, now: Timestamp) -> bool {
        self.peer.is_some() && self.pulse.is_quiet(&self.limits, now)
    }

    /// What to close with if the peer is gone: to be asked when all that came has been read.
    #[must_use]
    pub fn verdict(&self, now: Timestamp) -> Option<Close> {
        self.pulse.verdict(&self.limits, now)
    }

    /// Puts a sign of life among what is to be written.
    pub fn heartbeat(&mut self) {
        put_control(self.lanes.control(), Kind::Heartbeat, &[], &[]);
    }

    /// A sign of life was written beside the session.
    pub fn said(&mut self, now: Timestamp) {
        self.pulse.said(now);
    }

    /// The whole process stood still: silence until now means nothing.
    pub fn rearm(&mut self, now: Timestamp) {
        self.pulse.rearm(now);
    }

    /// The peer is going to close: what has not gone waits for another connection.
    pub(super) fn peer_leaves(&mut self) {
        self.leaving = true;
    }

    pub(super) fn pong(&mut self, now: Timestamp, token: u64) -> Result<(), Close> {
        self.pulse.pong(&self.limits, now)?;
        put_control(self.lanes.control(), Kind::Pong, &token.to_be_bytes(), &[]);
        Ok(())
    }

    /// Tells the peer that this side is going to close.
    pub fn goodbye(&mut self, reason: &str) {
        if let Ok(body) = payload::to_vec(&Reason { reason }, Encoding::Named, usize::MAX) {
            put_control(self.lanes.control(), Kind::Goodbye, &[], &body);
        }
    }

    /// Tells the peer why this side closes, last of all. An orderly shutdown sends what waits
    /// before; a peer that broke the protocol gets nothing more.
    pub fn close(&mut self, close: &Close) {
        if !close.is(CloseCode::Shutdown) {
            self.lanes.clear();
            self.waiting.lanes_cleared();
        }
        self.closing = Closing::Soon(close.clone());
    }
}
