//! Endpoints of this peer that others reach through this env: targets of their own, apart from
//! those of this env's refs. Nothing of them waits for a connection, and what waits for the peer
//! is bounded by the window that the peer gave.

use super::bodies::IncomingMessage;
use super::calls::Progress;
use super::named::Named;
use super::notice::{Asker, Notice, Relayed};
use super::queue::{Pending, Queue};
use super::session::Session;
use super::target::{Phase, TargetId, TargetKey, lane_index, signed};
use crate::counters::Count;
use crate::deadline::Timestamp;
use crate::error::{ErrorKind, RpcError};
use crate::remote_failure::RemoteFailure;
use crate::termination::Termination;
use crate::wire::payload::charged;
use crate::wire::rope::Rope;
use std::collections::VecDeque;

/// A relayed target, as one asker has it: the next one of the same env may take it over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RelayedId {
    pub(super) target: TargetId,
    /// Which of its askers.
    pub(super) turn: u64,
}

/// Why a message was not forwarded.
#[derive(Debug)]
#[non_exhaustive]
pub enum Refusal {
    /// The endpoint has ended.
    Gone,
    /// It is more than the window allows: the sender broke the protocol.
    Overrun,
    /// Something else, of which only this message suffers.
    Failed(RpcError),
}

impl Session {
    /// Resolves an endpoint of this peer for somebody else; [`release_relayed`](Self::release_relayed)
    /// it in the end. What the asker's env has sent before, over a connection that it has lost or with
    /// a number that it has released, keeps its place in front: it has only what that left of the window.
    ///
    /// # Errors
    /// `Overloaded` when too many endpoints of this peer are called, `Unreachable` if there is no
    /// connection to it.
    pub fn relay(&mut self, key: &TargetKey, asker: Asker) -> Result<RelayedId, RpcError> {
        if self.peer.is_none() || self.leaving {
            let text = format!("there is no connection to {}", self.peer_name);
            return Err(RpcError::new(ErrorKind::Unreachable, text));
        }
        if let Some(id) = self.take_over(key, &asker) {
            return Ok(id);
        }
        let added = self.targets.add(key, Some(Relayed::new(asker)));
        let target = added.ok_or_else(|| self.too_many_targets())?;
        if let Some(target) = self.targets.get_mut(target) {
            target.users = 1;
        }
        self.ask_for(target);
        Ok(RelayedId { target, turn: 0 })
    }

    /// The target that an earlier asker of the same env has left. One that somebody has is left alone: an
    /// env may have several connections, and resolve an endpoint again and again.
    fn take_over(&mut self, key: &TargetKey, asker: &Asker) -> Option<RelayedId> {
        let id = self.targets.find(key, Some(asker.env))?;
        let target = self.targets.get_mut(id).filter(|target| target.phase != Phase::Unknown)?;
        if target.users > 0 {
            return None;
        }
        let resolution = target.hand_over(asker.clone());
        let turn = target.relayed.as_ref()?.turn;
        if let Some(resolution) = resolution {
            self.tell(id, Notice::Resolved(resolution));
        }
        Some(RelayedId { target: id, turn })
    }

    /// What has happened to a relayed target since this was asked the last time; nothing, if it is
    /// somebody else's by now.
    pub fn notices(&mut self, id: RelayedId) -> VecDeque<Notice> {
        let relayed = self.targets.get_mut(id.target).and_then(|target| target.relayed.as_mut());
        let relayed = relayed.filter(|relayed| relayed.turn == id.turn);
        relayed.map(Relayed::take).unwrap_or_default()
    }

    /// An asker needs its target no more; what it has sent goes on its way.
    pub fn release_relayed(&mut self, id: RelayedId) {
        self.release(id.target);
    }

    /// Queues somebody else's message for a relayed target; the number of the call, if it is an
    /// ask. What ends such a call is told as it is.
    ///
    /// # Errors
    /// Why the message goes no further.
    pub fn forward(
        &mut self,
        now: Timestamp,
        RelayedId { target: id, .. }: RelayedId,
        message: IncomingMessage,
    ) -> Result<Option<u64>, Refusal> {
        let bytes = message.body.len();
        let Some(target) = self.targets.get(id).filter(|t| t.phase == Phase::Resolved) else {
            self.tally.add(Count::DeadLettersStopped, u64::from(message.call.is_none()));
            return Err(Refusal::Gone);
        };
        let Some(relayed) = &target.relayed else { return Err(Refusal::Gone) };
        let waiting = target.pending.iter().map(Queue::len).sum::<usize>();
        // The last message that its sender sent may overdraw the bytes. It need not arrive last: one
        // of the other lane may have overtaken one that was sent before it.
        let cost = relayed.pending_bytes.saturating_add(charged(bytes));
        let overdraft = signed(self.limits.message_max_size());
        if target.messages_left <= signed(waiting)
            || (charged(bytes) > 0
                && target.bytes_left.saturating_sub(signed(cost)) < overdraft.saturating_neg())
        {
            return Err(Refusal::Overrun);
        }
        let IncomingMessage { number, name, lane, deadline, trace, body, .. } = message;
        let name = name.map_or(Named::Number(number), Named::Text);
        if bytes > self.max_message() {
            self.tell(id, Notice::Credit { messages: 1, bytes: charged(bytes) as u64 });
            return Err(Refusal::Failed(self.too_large(&name, id, bytes)));
        }
        let ask = message.call.is_some();
        let call = if ask { Some(self.open_relayed(id)?) } else { None };
        self.tally.count(if ask { Count::AsksRelayed } else { Count::SendsRelayed });
        let body = Rope::from(body);
        let pending = Pending { call, ask, name, body, deadline, trace, place: None };
        if let Some(target) = self.targets.get_mut(id) {
            if let Some(relayed) = &mut target.relayed {
                relayed.pending_bytes = relayed.pending_bytes.saturating_add(charged(bytes));
            }
            if let Some(queue) = target.pending.get_mut(lane_index(lane)) {
                queue.push(pending);
            }
        }
        self.pump(now, id);
        Ok(call)
    }

    fn open_relayed(&mut self, id: TargetId) -> Result<u64, Refusal> {
        let call = self.open(id, || Progress::Pending).map_err(Refusal::Failed)?;
        if let Some(open) = self.calls.get(call) {
            open.relayed = true;
        }
        Ok(call)
    }

    /// Notes something for whoever a target is relayed for, if it is.
    pub(super) fn tell(&mut self, id: TargetId, notice: Notice) {
        let relayed = self.targets.get_mut(id).and_then(|target| target.relayed.as_mut());
        if let Some(relayed) = relayed {
            self.wakes.push(relayed.tell(notice));
        }
    }

    /// Relayed targets end with the connection: those who asked for them ask again.
    pub(super) fn end_relayed(&mut self, error: &RpcError) {
        for id in self.targets.ids(|target| target.relayed.is_some()) {
            let phase = self.targets.get(id).map(|target| target.phase);
            self.fail_target(id, error);
            match phase {
                Some(Phase::Resolved) => self.tell(id, Notice::Gone(Termination::NodeLost)),
                Some(Phase::Resolving) => {
                    let error = RpcError::new(ErrorKind::Unreachable, error.text());
                    self.tell(id, Notice::Unresolved(RemoteFailure::from(&error)));
                }
                _ => {}
            }
        }
    }
}
