//! Whose message is next: the senders of an inbox take turns.

use crate::plant::planted;
use std::collections::{BTreeMap, VecDeque};

/// What a sender may have handled before it is another one's turn. Sixteen messages of 1 us delay a
/// newcomer by 16 us for each sender that is before it, and are enough that answers to one
/// connection still leave in one write. The bytes are those of one frame: whoever sends large
/// messages has one of them handled in a turn.
const TURN_MESSAGES: usize = 16;
const TURN_BYTES: usize = 256 * 1024;
/// Empty queues that keep their memory for the next sender that has something.
const SPARE: usize = 8;

/// Something with a size, which may be many in a row.
pub(crate) trait Weigh: Sized {
    fn bytes(&self) -> usize;

    /// How many messages it is.
    fn count(&self) -> usize {
        1
    }

    /// Takes out the first `messages` of a row, or as many as come to `bytes`; `None` if that is all.
    fn split(&mut self, messages: usize, bytes: usize) -> Option<Self> {
        let _ = (messages, bytes);
        None
    }
}

/// Queues of senders, first in, first out within each, taken from in turns. `K` is how a sender is
/// known by name, if it is.
#[derive(Debug)]
pub(crate) struct Turns<K, T> {
    lines: Vec<Line<K, T>>,
    free: Vec<usize>,
    names: BTreeMap<K, usize>,
    /// The lines that have something; it is the first one's turn. Where nobody else has something, the
    /// last one keeps its place when it has nothing more.
    ring: VecDeque<usize>,
    /// What has been taken in this turn.
    messages: usize,
    bytes: usize,
    length: usize,
    size: usize,
    spare: Vec<VecDeque<T>>,
}

#[derive(Debug)]
struct Line<K, T> {
    name: Option<K>,
    users: usize,
    queue: VecDeque<T>,
    /// Whether it has something, or had the last turn.
    in_ring: bool,
}

/// The line of all senders of this process together. It is always there.
pub(crate) const HERE: usize = 0;

impl<K: Ord + Clone, T: Weigh> Turns<K, T> {
    pub(crate) fn new() -> Self {
        Self {
            lines: vec![Line { name: None, users: 1, queue: VecDeque::new(), in_ring: false }],
            free: Vec::new(),
            names: BTreeMap::new(),
            ring: VecDeque::new(),
            messages: 0,
            bytes: 0,
            length: 0,
            size: 0,
            spare: Vec::new(),
        }
    }

    /// A line for a sender: the one of its name, if others use that.
    pub(crate) fn join(&mut self, name: Option<&K>) -> usize {
        let known = name.and_then(|name| self.names.get(name).copied());
        let place = known.unwrap_or_else(|| self.add(name));
        if let Some(line) = self.lines.get_mut(place) {
            line.users = line.users.saturating_add(1);
        }
        place
    }

    fn add(&mut self, name: Option<&K>) -> usize {
        let (name_of, queue) = (name.cloned(), VecDeque::new());
        let line = Line { name: name_of, users: 0, queue, in_ring: false };
        let place = self.free.pop().unwrap_or(self.lines.len());
        match self.lines.get_mut(place) {
            Some(free) => *free = line,
            None => self.lines.push(line),
        }
        if let Some(name) = name {
            self.names.insert(name.clone(), place);
        }
        place
    }

    /// A sender is gone; what it has sent is still handled.
    pub(crate) fn leave(&mut self, place: usize) {
        if let Some(line) = self.lines.get_mut(place) {
            line.users = line.users.saturating_sub(1);
        }
        if self.lines.get(place).is_some_and(|line| line.in_ring) {
            // That forgets it, if it was only there because it had the last turn.
            self.give_way(place);
        } else {
            self.forget(place);
        }
    }

    /// Takes a line out of the ring that is only there because it had the last turn. `next` is the
    /// one that comes, or goes.
    fn give_way(&mut self, next: usize) {
        let Some(place) = self.ring.front().copied() else { return };
        let Some(line) = self.lines.get_mut(place) else { return };
        let idle = self.messages == 0 && line.queue.is_empty();
        if idle && (place != next || line.users == 0) {
            self.end_turn();
        }
    }

    /// The first line has nothing more.
    fn end_turn(&mut self) {
        let Some(place) = self.ring.pop_front() else { return };
        let Some(line) = self.lines.get_mut(place) else { return };
        line.in_ring = false;
        let queue = std::mem::take(&mut line.queue);
        if self.spare.len() < SPARE {
            self.spare.push(queue);
        }
        self.forget(place);
    }

    /// Frees a line that nobody uses and that has nothing.
    fn forget(&mut self, place: usize) {
        let Some(line) = self.lines.get_mut(place) else { return };
        if line.users == 0 && !line.in_ring {
            if let Some(name) = line.name.take() {
                self.names.remove(&name);
            }
            self.free.push(place);
        }
    }

    // An item is made where it is put.
    #[inline(always)]
    pub(crate) fn push(&mut self, place: usize, item: T) {
        if self.lines.get(place).is_some_and(|line| !line.in_ring) {
            self.begin_turns(place);
        }
        let Some(line) = self.lines.get_mut(place) else { return };
        self.length = self.length.saturating_add(item.count());
        self.size = self.size.saturating_add(item.bytes());
        line.queue.push_back(item);
    }

    /// A line that had nothing gets something.
    fn begin_turns(&mut self, place: usize) {
        self.give_way(place);
        let Some(line) = self.lines.get_mut(place) else { return };
        line.in_ring = true;
        self.ring.push_back(place);
        if line.queue.capacity() == 0
            && let Some(spare) = self.spare.pop()
        {
            line.queue = spare;
        }
    }

    /// Something about a sender, in order with what that one sends.
    pub(crate) fn push_about(&mut self, name: &K, item: T) {
        let place = self.join(Some(name));
        self.push(if planted!(EventsOvertake) { HERE } else { place }, item);
        self.leave(place);
    }

    /// Takes out what is left of the turn of the sender whose turn it is.
    pub(crate) fn take(&mut self, into: &mut VecDeque<T>) {
        self.settle();
        let Some(line) = self.ring.front().and_then(|place| self.lines.get_mut(*place)) else {
            return;
        };
        while self.messages < TURN_MESSAGES
            && self.bytes < TURN_BYTES
            && let Some(first) = line.queue.front_mut()
        {
            let messages = TURN_MESSAGES.saturating_sub(self.messages);
            let part = first.split(messages, TURN_BYTES.saturating_sub(self.bytes));
            let item = part.as_ref().unwrap_or(first);
            let (count, bytes) = (item.count(), item.bytes());
            self.length = self.length.saturating_sub(count);
            self.size = self.size.saturating_sub(bytes);
            self.messages = self.messages.saturating_add(count);
            self.bytes = self.bytes.saturating_add(bytes);
            // Each by a way of its own: an item that may be this or that one would be moved twice.
            match part {
                Some(part) => into.push_back(part),
                None => into.extend(line.queue.pop_front()),
            }
        }
    }

    /// Puts back what was taken last and not used: its turn goes on.
    pub(crate) fn put_back(&mut self, unused: &mut VecDeque<T>) {
        let Some(line) = self.ring.front().and_then(|place| self.lines.get_mut(*place)) else {
            return;
        };
        while let Some(item) = unused.pop_back() {
            self.length = self.length.saturating_add(item.count());
            self.size = self.size.saturating_add(item.bytes());
            self.messages = self.messages.saturating_sub(item.count());
            self.bytes = self.bytes.saturating_sub(item.bytes());
            line.queue.push_front(item);
        }
    }

    /// Goes on to the next sender if the turn is over. To be called when all that was taken is used:
    /// a sender that has nothing more begins a new turn with what it sends then.
    #[inline]
    pub(crate) fn settle(&mut self) {
        let Some(place) = self.ring.front().copied() else { return };
        let Some(line) = self.lines.get_mut(place) else { return };
        let empty = line.queue.is_empty();
        if empty || self.messages >= TURN_MESSAGES || self.bytes >= TURN_BYTES {
            self.go_on(place, empty);
        }
    }

    fn go_on(&mut self, place: usize, empty: bool) {
        let Some(line) = self.lines.get_mut(place) else { return };
        (self.messages, self.bytes) = (0, 0);
        if self.ring.len() == 1 && line.users > 0 {
            // Nobody else waits.
            return;
        }
        if empty {
            self.end_turn();
        } else {
            self.ring.pop_front();
            self.ring.push_back(place);
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.length
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.length == 0
    }

    /// The bytes of all that is queued.
    pub(crate) fn size(&self) -> usize {
        self.size
    }

    /// Takes everything out.
    pub(crate) fn drain(&mut self) -> Vec<T> {
        let mut all = VecDeque::new();
        while self.length > 0 {
            self.take(&mut all);
        }
        self.settle();
        all.into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, PartialEq, Eq)]
    struct Sized(&'static str, u32, usize);

    impl Weigh for Sized {
        fn bytes(&self) -> usize {
            self.2
        }
    }

    fn turns() -> Turns<&'static str, Sized> {
        Turns::new()
    }

    /// The next one, the rest of its turn put back.
    fn pop(turns: &mut Turns<&'static str, Sized>) -> Option<Sized> {
        let mut taken = VecDeque::new();
        turns.take(&mut taken);
        let first = taken.pop_front();
        turns.put_back(&mut taken);
        first
    }

    fn fill(turns: &mut Turns<&'static str, Sized>, name: &'static str, count: u32, bytes: usize) {
        let place = turns.join(Some(&name));
        (0..count).for_each(|number| turns.push(place, Sized(name, number, bytes)));
        turns.leave(place);
    }

    fn names(turns: &mut Turns<&'static str, Sized>) -> Vec<&'static str> {
        turns.drain().into_iter().map(|item| item.0).collect()
    }

    #[test]
    fn one_sender_is_first_in_first_out() {
        let mut turns = turns();
        (0..100).for_each(|number| turns.push(HERE, Sized("", number, 1 << 20)));
        assert_eq!((turns.len(), turns.size()), (100, 100 << 20));
        let all: Vec<u32> = turns.drain().into_iter().map(|item| item.1).collect();
        assert_eq!(all, (0..100).collect::<Vec<_>>());
        assert_eq!((turns.len(), turns.size(), pop(&mut turns)), (0, 0, None));
    }

    #[test]
    fn a_late_sender_waits_for_a_turn_of_each_other() {
        let mut turns = turns();
        for name in ["a", "b", "c"] {
            fill(&mut turns, name, 1000, 10);
        }
        fill(&mut turns, "late", 2, 10);
        let all = names(&mut turns);
        let place = all.iter().position(|name| *name == "late").unwrap();
        assert_eq!(place, 3 * TURN_MESSAGES);
        assert_eq!(all[place + 1], "late");
        assert_eq!(all[..TURN_MESSAGES], ["a"; TURN_MESSAGES]);
        assert_eq!(all[place + 2], "a");
    }

    #[test]
    fn a_turn_goes_on_with_what_was_put_back() {
        let mut turns = turns();
        for name in ["a", "b"] {
            fill(&mut turns, name, 100, 10);
        }
        let one_by_one: Vec<_> = std::iter::from_fn(|| pop(&mut turns)).collect();
        for name in ["a", "b"] {
            fill(&mut turns, name, 100, 10);
        }
        assert_eq!(one_by_one, turns.drain());
        assert_eq!((turns.len(), turns.size()), (0, 0));
    }

    #[test]
    fn bytes_end_a_turn_as_well() {
        let mut turns = turns();
        fill(&mut turns, "large", 4, TURN_BYTES);
        fill(&mut turns, "half", 4, TURN_BYTES / 2);
        fill(&mut turns, "small", 20, 1);
        let want = ["large", "half", "half", "small"].map(|name| {
            let count = if name == "small" { TURN_MESSAGES } else { 1 };
            vec![name; count]
        });
        assert_eq!(names(&mut turns)[..want.concat().len()], want.concat());
    }

    #[test]
    fn a_turn_is_not_carried_over_to_the_next_sender() {
        let mut turns = turns();
        fill(&mut turns, "a", 15, 1);
        fill(&mut turns, "b", 20, 1);
        fill(&mut turns, "c", 1, 1);
        let all = names(&mut turns);
        assert_eq!(all.iter().position(|name| *name == "c"), Some(15 + TURN_MESSAGES));
    }

    #[test]
    fn who_was_alone_gives_way_to_a_sender_that_comes_first() {
        let mut turns = turns();
        for _ in 0..3 {
            turns.push(HERE, Sized("here", 0, 1));
            assert_eq!(pop(&mut turns), Some(Sized("here", 0, 1)));
            turns.settle();
            fill(&mut turns, "a", 1, 1);
            turns.push(HERE, Sized("here", 1, 1));
            assert_eq!(names(&mut turns), ["a", "here"]);
            // In the middle of its turn it does not.
            turns.push(HERE, Sized("here", 0, 1));
            let mut taken = VecDeque::new();
            turns.take(&mut taken);
            fill(&mut turns, "a", 1, 1);
            turns.put_back(&mut taken);
            assert_eq!(names(&mut turns), ["here", "a"]);
        }
        assert_eq!((turns.lines.len(), turns.free.len()), (2, 1));
    }

    #[test]
    fn what_is_about_a_sender_stays_in_its_order() {
        let mut turns = turns();
        fill(&mut turns, "a", 40, 1);
        turns.push_about(&"a", Sized("event", 0, 0));
        fill(&mut turns, "a", 1, 1);
        turns.push_about(&"b", Sized("event", 1, 0));
        fill(&mut turns, "b", 1, 1);
        let all = names(&mut turns);
        assert_eq!(all[TURN_MESSAGES..TURN_MESSAGES + 2], ["event", "b"]);
        assert_eq!(all[40 + 2..], ["event", "a"]);
    }

    #[test]
    fn lines_of_senders_that_are_gone_are_used_again() {
        let mut turns = turns();
        for _ in 0..3 {
            let (a, b) = (turns.join(Some(&"a")), turns.join(None));
            assert_eq!(turns.join(Some(&"a")), a);
            turns.push(a, Sized("a", 0, 1));
            [a, a, b].into_iter().for_each(|place| turns.leave(place));
            assert!(turns.names.contains_key("a"), "what it has sent is still there");
            assert_eq!(pop(&mut turns), Some(Sized("a", 0, 1)));
            assert_eq!(pop(&mut turns), None);
        }
        assert_eq!((turns.lines.len(), turns.free.len(), turns.names.len()), (3, 2, 0));
    }

    #[test]
    fn a_sender_that_goes_after_the_last_turn_gives_its_line_up_once() {
        let mut turns = turns();
        let a = turns.join(Some(&"a"));
        turns.push(a, Sized("a", 0, 1));
        assert_eq!(pop(&mut turns), Some(Sized("a", 0, 1)));
        turns.settle();
        turns.leave(a);
        let (b, c) = (turns.join(Some(&"b")), turns.join(Some(&"c")));
        assert_ne!(b, c, "two senders would have one queue");
        turns.push(b, Sized("b", 0, 1));
        turns.push(c, Sized("c", 0, 1));
        assert_eq!(names(&mut turns), ["b", "c"]);
    }

    /// So many in a row, of a byte each.
    #[derive(Debug)]
    struct Row(char, usize);

    impl Weigh for Row {
        fn bytes(&self) -> usize {
            self.1
        }

        fn count(&self) -> usize {
            self.1
        }

        fn split(&mut self, messages: usize, _bytes: usize) -> Option<Self> {
            let left = self.1.checked_sub(messages).filter(|left| *left > 0)?;
            self.1 = left;
            Some(Self(self.0, messages))
        }
    }

    #[test]
    fn a_row_is_as_many_messages_as_are_in_it() {
        let mut turns = Turns::new();
        let (a, b) = (turns.join(Some(&'a')), turns.join(Some(&'b')));
        [(a, 'a', 40), (b, 'b', 3), (b, 'b', 20)]
            .into_iter()
            .for_each(|(place, name, count)| turns.push(place, Row(name, count)));
        assert_eq!((turns.len(), turns.size()), (63, 63));
        let mut taken = VecDeque::new();
        turns.take(&mut taken);
        assert_eq!((turns.len(), taken.len()), (63 - TURN_MESSAGES, 1));
        // Ten of them were begun before the handler waited.
        taken[0].1 -= 10;
        turns.put_back(&mut taken);
        assert_eq!((turns.len(), turns.size()), (53, 53));
        let order: Vec<_> = turns.drain().into_iter().map(|row| (row.0, row.1)).collect();
        let all = [('a', 6), ('b', 3), ('b', 13), ('a', 16), ('b', 7), ('a', 8)];
        assert_eq!(order, all);
        assert_eq!((turns.len(), turns.size()), (0, 0));
    }

    #[test]
    fn memory_follows_what_is_queued() {
        let mut turns = turns();
        for _ in 0..100 {
            let places: Vec<_> = (0..100).map(|_| turns.join(None)).collect();
            places.iter().for_each(|place| turns.push(*place, Sized("", 0, 1)));
            turns.drain();
            places.into_iter().for_each(|place| turns.leave(place));
        }
        assert_eq!((turns.lines.len(), turns.spare.len()), (101, SPARE));
        assert!(turns.lines.iter().all(|line| line.queue.capacity() == 0));
    }
}
