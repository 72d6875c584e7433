//! The numbers by which the peer knows what this side has resolved: a fresh one for each
//! resolution, so that what is under way to an endpoint that is gone never reaches its successor.

use super::target::{TargetId, WireNumber};
use crate::plant::planted;
use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};

/// Numbers that may be in use at once: a peer keeps a table by them.
const MAX_NUMBERS: usize = 65_536;

/// Who has which number.
#[derive(Debug, Default)]
pub(crate) struct Numbers {
    slots: Vec<Number>,
    free: BinaryHeap<Reverse<WireNumber>>,
    /// Given up, with the ends of the lanes at that time: frames with the number may be before.
    retired: VecDeque<(WireNumber, [u64; 2])>,
    /// Given up, and nothing with the number is in the lanes any more.
    done: Vec<WireNumber>,
}

#[derive(Debug)]
struct Number {
    state: State,
    /// Whether it is somebody else's: what has it is not in this side's queue.
    relayed: bool,
    /// Large bodies with the number that have not gone out wholly.
    large: u32,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Free,
    Held(TargetId),
    Retired,
    /// Retired, and only large bodies are left.
    Draining,
}

impl Numbers {
    /// The smallest free number, for a target; `None` if there is none.
    pub(crate) fn take(&mut self, target: TargetId, relayed: bool) -> Option<WireNumber> {
        if let Some(Reverse(number)) = self.free.pop() {
            let slot = self.slots.get_mut(number as usize)?;
            (slot.state, slot.relayed) = (State::Held(target), relayed);
            return Some(number);
        }
        if self.slots.len() >= MAX_NUMBERS {
            return None;
        }
        let number = WireNumber::try_from(self.slots.len()).ok()?;
        self.slots.push(Number { state: State::Held(target), relayed, large: 0 });
        Some(number)
    }

    /// The target that has a number now.
    pub(crate) fn holder(&self, number: WireNumber) -> Option<TargetId> {
        match self.slots.get(number as usize)?.state {
            State::Held(target) => Some(target),
            _ => None,
        }
    }

    /// Whether what is sent with a number is somebody else's.
    pub(crate) fn is_relayed(&self, number: WireNumber) -> bool {
        self.slots.get(number as usize).is_some_and(|slot| slot.relayed)
    }

    /// Whether a number was ever in use on this connection.
    pub(crate) fn was_used(&self, number: WireNumber) -> bool {
        (number as usize) < self.slots.len()
    }

    /// The peer knows nothing of a number: it may be used again.
    pub(crate) fn free(&mut self, number: WireNumber) {
        if let Some(slot) = self.slots.get_mut(number as usize)
            && slot.state != State::Free
        {
            slot.state = State::Free;
            self.free.push(Reverse(number));
        }
    }

    /// Nothing more is sent with a number; the lanes end at `ends` now.
    pub(crate) fn retire(&mut self, number: WireNumber, ends: [u64; 2]) {
        if let Some(slot) = self.slots.get_mut(number as usize) {
            slot.state = State::Retired;
            self.retired.push_back((number, ends));
        }
    }

    pub(crate) fn large_begins(&mut self, number: WireNumber) {
        if let Some(slot) = self.slots.get_mut(number as usize) {
            slot.large = slot.large.saturating_add(1);
        }
    }

    pub(crate) fn large_ends(&mut self, number: WireNumber) {
        let Some(slot) = self.slots.get_mut(number as usize) else { return };
        slot.large = slot.large.saturating_sub(1);
        if slot.state == State::Draining && slot.large == 0 {
            self.done.push(number);
        }
    }

    /// Whether none was given up: that is so nearly always.
    pub(crate) fn all_in_use(&self) -> bool {
        self.retired.is_empty() && self.done.is_empty()
    }

    /// A retired number with which nothing is in the lanes any more, now that they have got to
    /// `gone`. It is still taken until [`free`](Self::free) is told.
    pub(crate) fn next_done(&mut self, gone: [u64; 2]) -> Option<WireNumber> {
        while let Some((number, ends)) = self.retired.front().copied()
            && (gone.iter().zip(ends).all(|(gone, end)| *gone >= end) || planted!(NumberTooEarly))
        {
            self.retired.pop_front();
            if let Some(slot) = self.slots.get_mut(number as usize) {
                slot.state = State::Draining;
                if slot.large == 0 || planted!(NumberWithinLarge) {
                    self.done.push(number);
                }
            }
        }
        self.done.pop()
    }

    /// The connection is gone, and every number with it.
    pub(crate) fn clear(&mut self) {
        *self = Self::default();
    }

    /// How many are taken.
    #[cfg(any(test, fuzzing))]
    pub(crate) fn taken(&self) -> usize {
        self.slots.len().saturating_sub(self.free.len())
    }

    /// The highest number that was ever taken, plus one.
    #[cfg(any(test, fuzzing))]
    pub(crate) fn highest(&self) -> usize {
        self.slots.len()
    }
}
