//! The deadlines of an endpoint's local calls. They lie under the lock that a call takes anyway, and
//! none is ever taken back: a call that has ended is found to be gone.

use crate::deadline::Timestamp;
use crate::seam::Expire;
use std::cmp::Ordering;
use std::collections::{BinaryHeap, VecDeque};
use std::sync::{Arc, Weak};

/// Entries below which nothing is swept.
const FEW: usize = 64;

pub(crate) struct Deadlines {
    /// In order of time: nearly all calls have the same timeout.
    line: VecDeque<Entry>,
    /// Those that are due before one that came earlier.
    others: BinaryHeap<Entry>,
    /// The number of entries at which those of ended calls are thrown out: twice as many as lived
    /// the last time, so that looking at them costs each call a few steps at most.
    sweep_at: usize,
    /// When an alarm rings: not later than the earliest deadline.
    armed: Timestamp,
}

struct Entry {
    at: Timestamp,
    call: Weak<dyn Expire>,
}

impl Entry {
    fn is_live(&self) -> bool {
        self.call.strong_count() > 0
    }
}

impl Default for Deadlines {
    fn default() -> Self {
        let (line, others) = (VecDeque::new(), BinaryHeap::new());
        Self { line, others, sweep_at: FEW, armed: Timestamp::MAX }
    }
}

impl Deadlines {
    pub(crate) fn armed(&self) -> Timestamp {
        self.armed
    }

    /// Adds the deadline of a call. `true` if an alarm must be set for it.
    pub(crate) fn add(&mut self, at: Timestamp, call: Weak<dyn Expire>) -> bool {
        // Calls end in about the order in which they begin: the dead ones are in front. Two for
        // each that comes, so that they become fewer.
        for _ in 0..2 {
            if self.line.front().is_some_and(|entry| !entry.is_live()) {
                self.line.pop_front();
            }
        }
        if at == Timestamp::MAX {
            return false;
        }
        if self.line.back().is_some_and(|entry| !entry.is_live()) {
            self.line.pop_back();
        }
        let entry = Entry { at, call };
        if self.line.back().is_none_or(|last| last.at <= at) {
            self.line.push_back(entry);
        } else {
            self.others.push(entry);
        }
        if self.line.len().saturating_add(self.others.len()) > self.sweep_at {
            self.sweep();
        }
        let earlier = at < self.armed;
        if earlier {
            self.armed = at;
        }
        earlier
    }

    fn sweep(&mut self) {
        self.line.retain(Entry::is_live);
        self.others.retain(Entry::is_live);
        let live = self.line.len().saturating_add(self.others.len());
        self.sweep_at = live.saturating_mul(2).max(FEW);
    }

    /// All calls that have not ended.
    pub(crate) fn live(&self) -> Vec<Arc<dyn Expire>> {
        self.line.iter().chain(&self.others).filter_map(|entry| entry.call.upgrade()).collect()
    }

    /// Takes out the calls that are due, the earliest first, and says when the next alarm must ring.
    pub(crate) fn due(&mut self, now: Timestamp) -> (Vec<Arc<dyn Expire>>, Option<Timestamp>) {
        let mut due = Vec::new();
        loop {
            let (first, other) = (self.line.front(), self.others.peek());
            let from_others = match (first, other) {
                (Some(first), Some(other)) => other.at < first.at,
                (None, other) => other.is_some(),
                (Some(_), None) => false,
            };
            let next = if from_others { other } else { first };
            let Some(next) = next else {
                self.armed = Timestamp::MAX;
                return (due, None);
            };
            if next.is_live() && next.at > now {
                self.armed = next.at;
                return (due, Some(next.at));
            }
            due.extend(next.call.upgrade());
            if from_others {
                self.others.pop();
            } else {
                self.line.pop_front();
            }
        }
    }
}

/// The earliest is the greatest, as a heap wants it.
impl Ord for Entry {
    fn cmp(&self, other: &Self) -> Ordering {
        other.at.cmp(&self.at)
    }
}

impl PartialOrd for Entry {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Entry {
    fn eq(&self, other: &Self) -> bool {
        self.at == other.at
    }
}

impl Eq for Entry {}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Mutex;

    struct Call(u64, Arc<Mutex<Vec<u64>>>);

    impl Expire for Call {
        fn expire(&self, _id: u64) {
            self.1.lock().unwrap().push(self.0);
        }
    }

    fn at(nanos: u64) -> Timestamp {
        Timestamp::from_nanos(nanos)
    }

    fn add(deadlines: &mut Deadlines, call: &Arc<Call>) -> bool {
        let weak = Arc::downgrade(call);
        deadlines.add(at(call.0), weak)
    }

    #[test]
    fn calls_are_due_in_order_and_an_alarm_is_set_for_the_earliest() {
        let log = Arc::new(Mutex::new(Vec::new()));
        let calls = [30, 40, 10, 50, 20].map(|nanos| Arc::new(Call(nanos, log.clone())));
        let mut deadlines = Deadlines::default();
        let armed = calls.each_ref().map(|call| add(&mut deadlines, call));
        assert_eq!(armed, [true, false, true, false, false]);
        let (due, next) = deadlines.due(at(35));
        due.iter().for_each(|call| call.expire(0));
        assert_eq!((log.lock().unwrap().clone(), next), (vec![10, 20, 30], Some(at(40))));
        assert!(!add(&mut deadlines, &calls[3]));
        drop(due);
        drop(calls);
        let (due, next) = deadlines.due(at(41));
        assert_eq!((due.len(), next), (0, None), "ended calls need no alarm");
        assert!(add(&mut deadlines, &Arc::new(Call(90, log))));
    }

    #[test]
    fn ended_calls_do_not_pile_up_behind_one_that_lasts() {
        let log = Arc::default();
        let mut deadlines = Deadlines::default();
        let lasting = [1_000_000, 500_000].map(|nanos| Arc::new(Call(nanos, Arc::clone(&log))));
        assert!(lasting.iter().all(|call| add(&mut deadlines, call)));
        for nanos in 0..100_000 {
            let later = if nanos % 2 == 0 { 2_000_000 } else { 0 };
            add(&mut deadlines, &Arc::new(Call(nanos + later, Arc::clone(&log))));
            assert!(deadlines.line.len() + deadlines.others.len() <= FEW + 1);
        }
        let (due, next) = deadlines.due(at(500_000));
        assert_eq!((due.len(), next), (1, Some(at(1_000_000))));
    }
}
