//! The deadlines of calls that share a lock: those within an endpoint's inbox, or those to one peer.
//! They lie under the lock that a call takes anyway, and none is ever taken back: a call that has
//! ended is found to be gone.

use crate::deadline::Timestamp;
use crate::plant::planted;
use std::cmp::Ordering;
use std::collections::{BinaryHeap, VecDeque};

/// Entries below which nothing is swept.
const FEW: usize = 64;

/// `C` is how a call is known.
#[derive(Debug)]
pub(crate) struct Deadlines<C> {
    /// In order of time: nearly all calls have the same timeout.
    line: VecDeque<Entry<C>>,
    /// Those that are due before one that came earlier.
    others: BinaryHeap<Entry<C>>,
    /// The number of entries at which those of ended calls are thrown out: twice as many as lived
    /// the last time, so that looking at them costs each call a few steps at most.
    sweep_at: usize,
    /// When an alarm rings: not later than the earliest deadline.
    armed: Timestamp,
}

#[derive(Debug)]
struct Entry<C> {
    at: Timestamp,
    call: C,
}

impl<C> Default for Deadlines<C> {
    fn default() -> Self {
        let (line, others) = (VecDeque::new(), BinaryHeap::new());
        Self { line, others, sweep_at: FEW, armed: Timestamp::MAX }
    }
}

impl<C> Deadlines<C> {
    pub(crate) fn armed(&self) -> Timestamp {
        self.armed
    }

    /// Adds the deadline of a call. `true` if an alarm must be set for it.
    #[inline]
    pub(crate) fn add(&mut self, at: Timestamp, call: C, lives: impl Fn(&C) -> bool) -> bool {
        // Calls end in about the order in which they begin: the dead ones are in front. Two for
        // each that comes, so that they become fewer.
        for _ in 0..2 {
            if self.line.front().is_some_and(|entry| !lives(&entry.call)) {
                self.line.pop_front();
            }
        }
        if at == Timestamp::MAX {
            return false;
        }
        let in_order = |line: &VecDeque<Entry<C>>| line.back().is_none_or(|last| last.at <= at);
        if !in_order(&self.line) && self.line.back().is_some_and(|last| !lives(&last.call)) {
            self.line.pop_back();
        }
        let entry = Entry { at, call };
        if in_order(&self.line) {
            self.line.push_back(entry);
        } else {
            self.others.push(entry);
        }
        if self.line.len().saturating_add(self.others.len()) > self.sweep_at {
            self.sweep(lives);
        }
        let earlier = at < self.armed;
        if earlier {
            self.armed = at;
        }
        earlier
    }

    #[cold]
    fn sweep(&mut self, lives: impl Fn(&C) -> bool) {
        self.line.retain(|entry| lives(&entry.call));
        self.others.retain(|entry| lives(&entry.call));
        let live = self.line.len().saturating_add(self.others.len());
        self.sweep_at = live.saturating_mul(2).max(FEW);
    }

    /// All calls, those included that have ended and were not found to be gone.
    pub(crate) fn calls(&self) -> impl Iterator<Item = &C> {
        self.line.iter().chain(&self.others).map(|entry| &entry.call)
    }

    /// Takes out the calls that are due, the earliest first, and says when the next alarm must ring.
    pub(crate) fn due(
        &mut self,
        now: Timestamp,
        lives: impl Fn(&C) -> bool,
    ) -> (Vec<C>, Option<Timestamp>) {
        let mut due = Vec::new();
        loop {
            let (first, other) = (self.line.front(), self.others.peek());
            let from_others = match (first, other) {
                (Some(first), Some(other)) => other.at < first.at && !planted!(LocalLate),
                (None, other) => other.is_some(),
                (Some(_), None) => false,
            };
            let next = if from_others { other } else { first };
            let Some(next) = next else {
                self.armed = Timestamp::MAX;
                return (due, None);
            };
            let live = lives(&next.call);
            if live && next.at > now {
                self.armed = next.at;
                return (due, Some(next.at));
            }
            let next = if from_others { self.others.pop() } else { self.line.pop_front() };
            due.extend(next.filter(|_| live).map(|entry| entry.call));
        }
    }
}

/// The earliest is the greatest, as a heap wants it.
impl<C> Ord for Entry<C> {
    fn cmp(&self, other: &Self) -> Ordering {
        other.at.cmp(&self.at)
    }
}

impl<C> PartialOrd for Entry<C> {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl<C> PartialEq for Entry<C> {
    fn eq(&self, other: &Self) -> bool {
        self.at == other.at
    }
}

impl<C> Eq for Entry<C> {}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    fn at(nanos: u64) -> Timestamp {
        Timestamp::from_nanos(nanos)
    }

    /// Calls that are known by their deadlines.
    #[derive(Default)]
    struct Calls {
        deadlines: Deadlines<u64>,
        open: BTreeSet<u64>,
    }

    impl Calls {
        fn add(&mut self, nanos: u64) -> bool {
            self.open.insert(nanos);
            self.deadlines.add(at(nanos), nanos, |call| self.open.contains(call))
        }

        fn due(&mut self, nanos: u64) -> (Vec<u64>, Option<Timestamp>) {
            self.deadlines.due(at(nanos), |call| self.open.contains(call))
        }
    }

    #[test]
    fn calls_are_due_in_order_and_an_alarm_is_set_for_the_earliest() {
        let mut calls = Calls::default();
        let armed = [30, 40, 10, 50, 20].map(|nanos| calls.add(nanos));
        assert_eq!(armed, [true, false, true, false, false]);
        assert_eq!(calls.due(35), (vec![10, 20, 30], Some(at(40))));
        assert!(!calls.add(45));
        calls.open.clear();
        assert_eq!(calls.due(41), (vec![], None), "ended calls need no alarm");
        assert!(calls.add(90));
    }

    #[test]
    fn ended_calls_do_not_pile_up_behind_one_that_lasts() {
        let mut calls = Calls::default();
        assert!(calls.add(1_000_000) && calls.add(500_000));
        for nanos in 0..100_000 {
            let later = if nanos % 2 == 0 { 2_000_000 } else { 0 };
            calls.add(nanos + later);
            calls.open.remove(&(nanos + later));
            let kept = calls.deadlines.line.len() + calls.deadlines.others.len();
            assert!(kept <= FEW + 1);
        }
        assert_eq!(calls.due(500_000), (vec![500_000], Some(at(1_000_000))));
    }
}
