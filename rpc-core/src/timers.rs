//! The deadlines of an env, in one queue that costs each two short locks.

use crate::deadline::Timestamp;
use crate::plant::planted;
use crate::quiet::quietly;
use crate::seam::Expire;
use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

/// Deadlines that may be taken back. Nothing here reads a clock.
#[derive(Default)]
pub(crate) struct Timers {
    inner: Mutex<Inner>,
}

#[derive(Default)]
struct Inner {
    /// What is due when. An entry whose slot has moved on is dead.
    due: BinaryHeap<Reverse<(Timestamp, u32, u32)>>,
    slots: Vec<Slot>,
    free: Vec<u32>,
    /// The deadline that the backend knows of.
    armed: Option<Timestamp>,
}

#[derive(Default)]
struct Slot {
    generation: u32,
    target: Option<(Arc<dyn Expire>, u64)>,
}

/// A deadline in the queue.
#[derive(Clone, Copy, Debug)]
pub(crate) struct TimerKey {
    slot: u32,
    generation: u32,
}

impl Timers {
    /// Adds a deadline. The second value is set if the backend must be told of a new earliest one.
    pub(crate) fn add(
        &self,
        at: Timestamp,
        target: Arc<dyn Expire>,
        id: u64,
    ) -> (TimerKey, Option<Timestamp>) {
        let mut inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        let key = inner.occupy(target, id);
        inner.due.push(Reverse((at, key.slot, key.generation)));
        let earlier = inner.armed.is_none_or(|armed| at < armed && !planted!(TimerLost));
        if earlier {
            inner.armed = Some(at);
        }
        (key, earlier.then_some(at))
    }

    /// Takes a deadline back.
    pub(crate) fn cancel(&self, key: TimerKey) {
        let mut inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        let target = inner.vacate(key);
        inner.compact();
        drop(inner);
        drop(target);
    }

    /// Expires everything that is due, outside of the lock, and returns the next deadline, which
    /// counts as told to the backend.
    pub(crate) fn fire(&self, now: Timestamp) -> Option<Timestamp> {
        let mut expired = Vec::new();
        let next = {
            let mut inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
            let next = loop {
                let Some(Reverse((at, slot, generation))) = inner.due.peek().copied() else {
                    break None;
                };
                let key = TimerKey { slot, generation };
                if inner.is_live(key) && at > now {
                    break Some(at);
                }
                inner.due.pop();
                expired.extend(inner.vacate(key));
            };
            inner.armed = next;
            next
        };
        for (target, id) in expired {
            // Whoever keeps the time keeps everybody's.
            quietly("a deadline", || {
                target.expire(id);
                drop(target);
            });
        }
        next
    }

    #[cfg(test)]
    pub(crate) fn len(&self) -> (usize, usize) {
        let inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        (inner.due.len(), inner.slots.len() - inner.free.len())
    }
}

impl Inner {
    fn occupy(&mut self, target: Arc<dyn Expire>, id: u64) -> TimerKey {
        let target = Some((target, id));
        if let Some(slot) = self.free.pop()
            && let Some(entry) = self.slots.get_mut(slot as usize)
        {
            entry.target = target;
            return TimerKey { slot, generation: entry.generation };
        }
        let slot = u32::try_from(self.slots.len()).unwrap_or(u32::MAX);
        self.slots.push(Slot { generation: 0, target });
        TimerKey { slot, generation: 0 }
    }

    fn vacate(&mut self, key: TimerKey) -> Option<(Arc<dyn Expire>, u64)> {
        let entry = self.slots.get_mut(key.slot as usize)?;
        if entry.generation != key.generation {
            return None;
        }
        let target = entry.target.take()?;
        entry.generation = entry.generation.wrapping_add(1);
        self.free.push(key.slot);
        Some(target)
    }

    fn is_live(&self, key: TimerKey) -> bool {
        self.slots
            .get(key.slot as usize)
            .is_some_and(|slot| slot.generation == key.generation && slot.target.is_some())
    }

    /// Dead entries stay in the heap until their time comes; with long timeouts and short calls
    /// they would be nearly all of it, so it is swept when they are the larger part.
    fn compact(&mut self) {
        let live = self.slots.len().saturating_sub(self.free.len());
        if self.due.len() > 64 && self.due.len() > live.saturating_mul(4) {
            let slots = &self.slots;
            self.due.retain(|Reverse((_, slot, generation))| {
                slots.get(*slot as usize).is_some_and(|s| s.generation == *generation)
            });
        }
    }
}

impl fmt::Debug for Timers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Timers").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Default)]
    struct Log(Mutex<Vec<u64>>);

    impl Expire for Log {
        fn expire(&self, id: u64) {
            self.0.lock().unwrap().push(id);
        }
    }

    fn at(nanos: u64) -> Timestamp {
        Timestamp::from_nanos(nanos)
    }

    #[test]
    fn expires_in_order_and_once() {
        let (timers, log) = (Timers::default(), Arc::new(Log::default()));
        let (_, armed) = timers.add(at(20), log.clone(), 2);
        assert_eq!(armed, Some(at(20)));
        let (_, armed) = timers.add(at(30), log.clone(), 3);
        assert_eq!(armed, None, "a later deadline needs no new alarm");
        let (_, armed) = timers.add(at(10), log.clone(), 1);
        assert_eq!(armed, Some(at(10)));
        assert_eq!(timers.fire(at(25)), Some(at(30)));
        assert_eq!(timers.fire(at(40)), None);
        assert_eq!(*log.0.lock().unwrap(), [1, 2, 3]);
    }

    /// Panics at its deadline, and when it is dropped.
    struct Bomb;

    impl Expire for Bomb {
        fn expire(&self, id: u64) {
            assert_ne!(id, 0, "boom");
        }
    }

    impl Drop for Bomb {
        fn drop(&mut self) {
            assert!(std::thread::panicking(), "boom");
        }
    }

    #[test]
    fn a_panic_at_a_deadline_costs_no_other() {
        let (timers, log) = (Timers::default(), Arc::new(Log::default()));
        for id in 0..3 {
            timers.add(at(id), Arc::new(Bomb), id);
            timers.add(at(id), log.clone(), id);
        }
        assert_eq!(timers.fire(at(1)), Some(at(2)));
        assert_eq!(timers.fire(at(2)), None);
        assert_eq!(*log.0.lock().unwrap(), [0, 1, 2]);
    }

    #[test]
    fn a_cancelled_deadline_never_fires_even_when_its_slot_is_used_again() {
        let (timers, log) = (Timers::default(), Arc::new(Log::default()));
        let (first, _) = timers.add(at(10), log.clone(), 1);
        timers.cancel(first);
        timers.add(at(20), log.clone(), 2);
        timers.cancel(first);
        assert_eq!(timers.fire(at(15)), Some(at(20)));
        assert_eq!(timers.fire(at(20)), None);
        assert_eq!(*log.0.lock().unwrap(), [2]);
    }

    #[test]
    fn dead_deadlines_do_not_pile_up() {
        let (timers, log) = (Timers::default(), Arc::new(Log::default()));
        for id in 0..100_000 {
            let (key, _) = timers.add(at(1_000_000 + id), log.clone(), id);
            timers.cancel(key);
        }
        let (heap, live) = timers.len();
        assert!(heap <= 65, "{heap} dead entries");
        assert_eq!(live, 0);
    }
}
