//! Targets that nobody needs any more, and the numbers that are given back to the peer.

use super::session::Session;
use super::target::{Phase, Target, TargetId, TargetKey};
use super::targets::MAX_TARGETS;
use crate::error::{ErrorKind, RpcError};
use crate::wire::frame::{Kind, put_control};

impl Session {
    /// A target, new or known, with one more user: [`release`](Self::release) it in the end.
    ///
    /// # Errors
    /// `Overloaded` when too many endpoints of one peer are called at once.
    pub fn target(&mut self, key: &TargetKey) -> Result<TargetId, RpcError> {
        let known = self.targets.find(key, None).or_else(|| self.targets.add(key, None));
        let id = known.ok_or_else(|| self.too_many_targets())?;
        if let Some(target) = self.targets.get_mut(id) {
            target.users = target.users.saturating_add(1);
        }
        Ok(id)
    }

    pub(super) fn too_many_targets(&self) -> RpcError {
        RpcError::new(
            ErrorKind::Overloaded,
            format!("{MAX_TARGETS} endpoints of {} are called already", self.peer_name),
        )
    }

    /// A target has one user less. What was sent to it goes on its way; then it is forgotten.
    pub fn release(&mut self, id: TargetId) {
        if let Some(target) = self.targets.get_mut(id) {
            target.users = target.users.saturating_sub(1);
        }
        self.settle(id);
    }

    /// Forgets a target that nobody needs. One that is reached through the peer stays until what was sent
    /// to it has gone out: whoever takes it again must not resolve it anew before its RELEASE, or the peer
    /// had two ways to it, of which one might overtake the other.
    pub(super) fn settle(&mut self, id: TargetId) {
        let needed = |target: &Target| {
            target.users > 0
                || target.calls > 0
                || target.phase == Phase::Resolving
                || target.has_pending()
                || target.large.contains(&true)
        };
        let Some(target) = self.targets.get(id) else { return };
        if needed(target) {
            self.lingering.remove(&id);
            return;
        }
        if target.key.env.is_some() {
            let ends = *self.lingering.entry(id).or_insert_with(|| self.lanes.ends());
            if self.lanes.gone().iter().zip(ends).any(|(gone, end)| *gone < end) {
                return;
            }
            self.lingering.remove(&id);
        }
        if let Some(target) = self.targets.remove(id) {
            self.leave_queues(id, &target);
            self.reserves = self.reserves.saturating_sub(usize::from(target.system));
            self.retire(target.number);
            // There may be more of it, if none is kept any more.
            self.give_room();
        }
    }

    /// What it waited for was taken back. Its place in a queue is not for whoever has its id next.
    fn leave_queues(&mut self, id: TargetId, target: &Target) {
        if target.blocked {
            for queue in self.blocked.iter_mut().chain([&mut self.blocked_relayed]) {
                queue.retain(|blocked| *blocked != id);
            }
        }
        if target.starved {
            self.starved.retain(|starved| *starved != id);
        }
    }

    /// Forgets all that nobody needs.
    pub(super) fn settle_all(&mut self) {
        for id in self.targets.ids(|target| target.users == 0) {
            self.settle(id);
        }
    }

    /// Nothing more is sent with a number: it is the peer's again when what has it in the lanes has
    /// gone out.
    pub(super) fn retire(&mut self, number: Option<u32>) {
        if let Some(number) = number {
            self.numbers.retire(number, self.lanes.ends());
            self.release_numbers();
        }
    }

    /// Settles what had to wait until it has gone out.
    pub(super) fn settle_lingering(&mut self) {
        if !self.lingering.is_empty() {
            let lingering: Vec<TargetId> = self.lingering.keys().copied().collect();
            lingering.into_iter().for_each(|id| self.settle(id));
        }
    }

    /// Tells the peer of numbers that are out of use; they may be chosen again at once.
    #[inline]
    pub(super) fn release_numbers(&mut self) {
        if !self.numbers.all_in_use() {
            self.release_retired();
        }
    }

    #[cold]
    fn release_retired(&mut self) {
        let gone = self.lanes.gone();
        while let Some(number) = self.numbers.next_done(gone) {
            put_control(self.lanes.control(), Kind::Release, &number.to_be_bytes(), &[]);
            self.free_number(number);
        }
    }

    /// A number may be used again: by a target that waits for one, if there is any.
    pub(super) fn free_number(&mut self, number: u32) {
        self.numbers.free(number);
        while let Some(id) = self.starved.pop_front() {
            let waits = |target: &mut Target| std::mem::take(&mut target.starved);
            // Nothing waits for one that is relayed, before whoever asked knows of it.
            let wanted = |target: &Target| target.is_wanted() || target.relayed.is_some();
            let known = self.targets.get_mut(id);
            if known.is_some_and(|target| waits(target) && wanted(target)) {
                return self.ask_for(id);
            }
        }
    }

    /// How many endpoints of the peer are known here: those that somebody uses, or that something
    /// is on its way to.
    #[must_use]
    pub fn known_targets(&self) -> usize {
        self.targets.len()
    }
}
