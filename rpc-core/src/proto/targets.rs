//! The targets of a session, by their number here and by what they are.

use super::notice::Relayed;
use super::queue::{Entry, Queue};
use super::target::{Target, TargetId, TargetKey};
use super::waiting::Place;
use std::collections::BTreeMap;

/// A slab: a target that nobody needs leaves it, and its place is used again.
#[derive(Debug, Default)]
pub(crate) struct Targets {
    slots: Vec<Option<Target>>,
    free: Vec<TargetId>,
    /// By what they are, and by the env that they are relayed for.
    index: BTreeMap<(TargetKey, Option<u64>), TargetId>,
}

/// Endpoints of one peer that may be known at once.
pub(super) const MAX_TARGETS: usize = 65_536;

impl Targets {
    pub(crate) fn get(&self, id: TargetId) -> Option<&Target> {
        self.slots.get(id as usize)?.as_ref()
    }

    pub(crate) fn get_mut(&mut self, id: TargetId) -> Option<&mut Target> {
        self.slots.get_mut(id as usize)?.as_mut()
    }

    /// The target that refs with that key share, or the one that is relayed for an env: the newest of
    /// several.
    pub(crate) fn find(&self, key: &TargetKey, relayed_for: Option<u64>) -> Option<TargetId> {
        self.index.get(&(key.clone(), relayed_for)).copied()
    }

    /// Adds a target, for all refs with that key or for one asker; `None` if there are too many.
    pub(crate) fn add(&mut self, key: &TargetKey, relayed: Option<Relayed>) -> Option<TargetId> {
        if self.len() >= MAX_TARGETS {
            return None;
        }
        let mut target = Target::new(key.clone());
        target.relayed = relayed;
        let index = target.index();
        let target = Some(target);
        let id = match self.free.pop() {
            Some(id) => {
                *self.slots.get_mut(id as usize)? = target;
                id
            }
            None => {
                self.slots.push(target);
                TargetId::try_from(self.slots.len().saturating_sub(1)).ok()?
            }
        };
        self.index.insert(index, id);
        Some(id)
    }

    pub(crate) fn remove(&mut self, id: TargetId) -> Option<Target> {
        let target = self.slots.get_mut(id as usize)?.take()?;
        self.free.push(id);
        let index = target.index();
        if self.index.get(&index) == Some(&id) {
            self.index.remove(&index);
        }
        Some(target)
    }

    pub(crate) fn len(&self) -> usize {
        self.slots.len().saturating_sub(self.free.len())
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &Target> {
        self.slots.iter().flatten()
    }

    pub(crate) fn iter_mut(&mut self) -> impl Iterator<Item = &mut Target> {
        self.slots.iter_mut().flatten()
    }

    /// The messages of this env that wait for their targets, and the bytes of their bodies.
    pub(crate) fn waiting(&self) -> (usize, usize) {
        let own = self.iter().filter(|target| target.relayed.is_none());
        let entries = own.flat_map(|target| target.pending.iter().flat_map(Queue::iter));
        entries.fold((0, 0), |(messages, bytes), entry| {
            (messages.saturating_add(entry.messages()), bytes.saturating_add(entry.bytes()))
        })
    }

    /// The places of those that wait for room as well, in order.
    pub(crate) fn places(&self) -> Vec<Place> {
        let queues = self.iter().flat_map(|target| &target.pending);
        let mut places: Vec<Place> =
            queues.flat_map(Queue::iter).filter_map(Entry::place).collect();
        places.sort_unstable();
        places
    }

    /// The numbers of the targets for which `pick` says so.
    pub(crate) fn ids(&self, pick: impl Fn(&Target) -> bool) -> Vec<TargetId> {
        let picked = (0..).zip(&self.slots).filter(|(_, slot)| slot.as_ref().is_some_and(&pick));
        picked.map(|(id, _)| id).collect()
    }
}
