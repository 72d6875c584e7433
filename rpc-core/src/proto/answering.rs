//! Calls of the peer that are answered.

use super::lanes::Lanes;
use super::large::FirstFrame;
use super::session::Session;
use crate::error::{ErrorKind, RpcError};
use crate::message::Encoding;
use crate::plant::planted;
use crate::remote_failure::RemoteFailure;
use crate::wire::encoded::{Encoded, SMALL_BODY};
use crate::wire::frame::{self, Kind};
use crate::wire::payload;
use crate::wire::rope::Rope;
use bytes::Bytes;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::task::{Context, Poll, Waker};

impl Session {
    /// Answers a call of the peer.
    ///
    /// # Errors
    /// `TooLarge`, or `Overloaded` if too many bytes of replies wait: the call is still open, and
    /// may be answered with that.
    pub fn reply(&mut self, id: u64, body: &mut Encoded) -> Result<(), RpcError> {
        self.close_call(id, body.len(), |lanes| {
            if body.len() > SMALL_BODY {
                return put_large(lanes, id, body.take());
            }
            let body = body.own();
            lanes.put_small(0, Kind::Reply, 0, 0, &id.to_be_bytes(), body);
            if planted!(ReplyTwice) {
                lanes.put_small(0, Kind::Reply, 0, 0, &id.to_be_bytes(), body);
            }
        })
    }

    /// As [`reply`](Self::reply), with a body that is not copied if it is large.
    ///
    /// # Errors
    /// As [`reply`](Self::reply).
    pub fn reply_bytes(&mut self, id: u64, body: Bytes) -> Result<(), RpcError> {
        self.close_call(id, body.len(), |lanes| {
            if body.len() > SMALL_BODY {
                return put_large(lanes, id, Rope::from(body));
            }
            lanes.put_small(0, Kind::Reply, 0, 0, &id.to_be_bytes(), &body);
        })
    }

    /// Ends a call with what `put` writes, unless that is too much, or the call is over.
    fn close_call(
        &mut self,
        id: u64,
        bytes: usize,
        put: impl FnOnce(&mut Lanes),
    ) -> Result<(), RpcError> {
        if bytes > self.max_message() {
            return Err(RpcError::new(ErrorKind::TooLarge, self.over_limit(bytes)));
        }
        let (wait, most) = (self.lanes.answer_bytes(), self.limits.outbox_max_reply_bytes());
        if wait > 0 && wait.saturating_add(bytes) > most && self.serving.is_open(id) {
            return Err(self.no_room_for_reply(bytes, wait, most));
        }
        if let Some(waker) = self.serving.close(id) {
            self.wakes.extend(waker);
            self.served.answer(false);
            put(&mut self.lanes);
        }
        Ok(())
    }

    #[cold]
    fn no_room_for_reply(&self, bytes: usize, wait: usize, most: usize) -> RpcError {
        let text = format!(
            "no room for the {bytes} bytes of a reply to {}: {wait} bytes of replies wait to be sent there. This limit is controlled by rpc.outbox.maxReplyBytes ({most})",
            self.peer_name
        );
        RpcError::new(ErrorKind::Overloaded, text)
    }

    /// Answers a call of the peer with an error.
    pub fn fail(&mut self, id: u64, error: &RpcError) {
        self.fail_as(id, RemoteFailure::from(error));
    }

    /// Answers a call of the peer with a failure as it was reported to this side.
    pub fn fail_as(&mut self, id: u64, failure: RemoteFailure) {
        let Some(waker) = self.serving.close(id) else { return };
        self.wakes.extend(waker);
        self.served.answer(true);
        self.put_failure(Kind::Failure, &id.to_be_bytes(), failure);
    }

    pub(super) fn put_failure(&mut self, kind: Kind, fields: &[u8], failure: RemoteFailure) {
        let body = super::bodies::FailureBody { code: failure.code, text: failure.text };
        let Ok(body) = payload::to_vec(&body, Encoding::Named, usize::MAX) else { return };
        if kind == Kind::Failure {
            self.lanes.put_small(0, kind, 0, 0, fields, &body);
        } else {
            frame::put_control(self.lanes.control(), kind, fields, &body);
        }
    }

    /// Ready when the caller of `id` gave up or is gone, or has its answer. Until then the waker is
    /// kept; `place` is where, if it has to be taken back.
    pub fn poll_cancelled(
        &mut self,
        id: u64,
        place: &mut Option<usize>,
        cx: &Context<'_>,
    ) -> Poll<()> {
        self.serving.poll_closed(id, place, cx)
    }

    /// Takes the waker back that [`poll_cancelled`](Self::poll_cancelled) has kept.
    pub fn forget(&mut self, id: u64, place: usize) -> Option<Waker> {
        self.serving.forget(id, place)
    }

    /// Set once a caller of this connection gave up, or the connection is gone: until then nobody
    /// need ask [`is_cancelled`](Self::is_cancelled).
    #[must_use]
    pub fn cancels(&self) -> Arc<AtomicBool> {
        self.serving.cancels().clone()
    }

    /// Whether the caller of `id` gave up or is gone, or has its answer.
    #[must_use]
    pub fn is_cancelled(&self, id: u64) -> bool {
        !self.serving.is_open(id)
    }
}

fn put_large(lanes: &mut Lanes, id: u64, body: Rope) {
    let fields = id.to_be_bytes().to_vec();
    let head = FirstFrame { kind: Kind::Reply, flags: 0, message: 0, fields };
    lanes.put_large(0, head, body, None, None);
}
