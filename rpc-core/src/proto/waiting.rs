//! Those who wait for room in the queue to the peer: an ask or a `send_wait` each, in its place. They
//! are in the queue as well; what is there beside them has room.

use std::collections::VecDeque;
use std::num::NonZeroU64;

/// A place among those who wait. It is nobody else's ever after.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Place(NonZeroU64);

/// A message that waits.
#[derive(Debug)]
struct Waiter {
    place: Place,
    bytes: usize,
    /// Whom to tell of room: whoever waits for an answer is told of nothing else.
    call: Option<u64>,
    /// Its message has left the queue, before those in front of it.
    gone: bool,
}

/// Messages that wait in one line, and the bytes of their bodies.
#[derive(Debug, Default)]
struct Line {
    messages: usize,
    bytes: usize,
    /// By place; those in front and at the end have not gone.
    waiters: VecDeque<Waiter>,
}

/// Those who wait. Most connections never have one: the rest is apart from what each message touches.
#[derive(Debug, Default)]
pub(crate) struct Waiting(Option<Box<Lines>>);

#[derive(Debug, Default)]
struct Lines {
    /// To others, and to endpoints of the system.
    lines: [Line; 2],
    last: u64,
    /// Those in a lane's buffer, by where their frames begin.
    ready: [VecDeque<(u64, Place)>; 2],
}

/// Waiters below which none that has gone is thrown out of the middle.
const FEW: usize = 64;

/// A queue that was long once does not keep its memory.
fn free<T>(queue: &mut VecDeque<T>) {
    if queue.is_empty() && queue.capacity() > FEW {
        *queue = VecDeque::new();
    }
}

impl Line {
    fn count(&mut self, bytes: usize) {
        self.messages = self.messages.saturating_add(1);
        self.bytes = self.bytes.saturating_add(bytes);
    }

    fn uncount(&mut self, bytes: usize) {
        self.messages = self.messages.saturating_sub(1);
        self.bytes = self.bytes.saturating_sub(bytes);
    }

    fn take(&mut self, place: Place) -> Option<(usize, Option<u64>)> {
        let index = self.waiters.binary_search_by_key(&place, |waiter| waiter.place).ok()?;
        let waiter = self.waiters.get_mut(index).filter(|waiter| !waiter.gone)?;
        waiter.gone = true;
        let (bytes, call) = (waiter.bytes, waiter.call);
        self.uncount(bytes);
        self.trim();
        Some((bytes, call))
    }

    /// Throws out those that have gone: at the ends, and wherever they are if they are most of all.
    fn trim(&mut self) {
        while self.waiters.front().is_some_and(|waiter| waiter.gone) {
            self.waiters.pop_front();
        }
        while self.waiters.back().is_some_and(|waiter| waiter.gone) {
            self.waiters.pop_back();
        }
        if self.waiters.len() > self.messages.saturating_mul(2).saturating_add(FEW) {
            self.waiters.retain(|waiter| !waiter.gone);
        }
        free(&mut self.waiters);
    }
}

impl Waiting {
    fn lines(&self) -> impl Iterator<Item = &Line> {
        self.0.iter().flat_map(|waiting| &waiting.lines)
    }

    fn line(&self, system: bool) -> Option<&Line> {
        self.0.as_ref()?.lines.get(usize::from(system))
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.lines().all(|line| line.waiters.is_empty())
    }

    /// The messages that wait, and their bytes: to endpoints of the system, or to others.
    pub(crate) fn of(&self, system: bool) -> (usize, usize) {
        self.line(system).map_or((0, 0), |line| (line.messages, line.bytes))
    }

    /// Adds a message at the end of its line. `call` is told when there is room.
    pub(crate) fn add(&mut self, system: bool, bytes: usize, call: Option<u64>) -> Option<Place> {
        let Lines { lines, last, .. } = &mut **self.0.get_or_insert_default();
        *last = last.wrapping_add(1);
        let place = Place(NonZeroU64::new(*last)?);
        let line = lines.get_mut(usize::from(system))?;
        line.count(bytes);
        line.waiters.push_back(Waiter { place, bytes, call, gone: false });
        Some(place)
    }

    /// The bytes of the next one of a line.
    pub(crate) fn next(&self, system: bool) -> Option<usize> {
        self.line(system)?.waiters.front().map(|waiter| waiter.bytes)
    }

    /// There is room for the next one of a line; whom to tell.
    pub(crate) fn pop(&mut self, system: bool) -> Option<u64> {
        let line = self.0.as_mut()?.lines.get_mut(usize::from(system))?;
        let waiter = line.waiters.pop_front()?;
        line.uncount(waiter.bytes);
        line.trim();
        waiter.call
    }

    /// The message waits no more: it has left the queue. Its bytes, and whom to tell if that is
    /// because it has been sent.
    pub(crate) fn take(&mut self, place: Place) -> Option<(usize, Option<u64>)> {
        self.0.as_mut()?.lines.iter_mut().find_map(|line| line.take(place))
    }

    /// Its frame is in a lane's buffer.
    pub(super) fn is_ready(&mut self, lane: usize, offset: u64, place: Place) {
        if let Some(ready) = self.0.as_mut().and_then(|waiting| waiting.ready.get_mut(lane)) {
            ready.push_back((offset, place));
        }
    }

    /// The next one whose frame in a lane's buffer has gone out.
    pub(super) fn next_sent(
        &mut self,
        lane: usize,
        has_gone: impl Fn(u64) -> bool,
    ) -> Option<Place> {
        let ready = self.0.as_mut()?.ready.get_mut(lane)?;
        let (offset, place) = ready.front().copied()?;
        has_gone(offset).then(|| ready.pop_front())?;
        free(ready);
        Some(place)
    }

    /// Whether there was one that waited in a lane's buffer.
    pub(super) fn is_in(&self, lane: usize) -> bool {
        let ready = self.0.as_ref().and_then(|waiting| waiting.ready.get(lane));
        ready.is_some_and(|ready| !ready.is_empty())
    }

    /// The lanes' buffers are empty, and nothing of them has gone.
    pub(crate) fn lanes_cleared(&mut self) {
        self.0.iter_mut().flat_map(|waiting| &mut waiting.ready).for_each(VecDeque::clear);
    }

    /// Forgets all but those with these places, which are in order.
    pub(crate) fn keep(&mut self, places: &[Place]) {
        for line in self.0.iter_mut().flat_map(|waiting| &mut waiting.lines) {
            line.waiters
                .retain(|waiter| !waiter.gone && places.binary_search(&waiter.place).is_ok());
            line.messages = line.waiters.len();
            line.bytes = line.waiters.iter().map(|waiter| waiter.bytes).sum();
        }
    }

    /// The places of those who wait, and whom they tell.
    #[cfg(any(test, fuzzing, feature = "audit"))]
    pub(crate) fn places(&self) -> impl Iterator<Item = (Place, Option<u64>)> {
        let waiters = self.lines().flat_map(|line| &line.waiters);
        waiters.filter(|waiter| !waiter.gone).map(|waiter| (waiter.place, waiter.call))
    }

    /// The places of those in the lanes' buffers.
    #[cfg(any(test, fuzzing, feature = "audit"))]
    pub(crate) fn in_lanes(&self) -> impl Iterator<Item = Place> {
        let ready = self.0.iter().flat_map(|waiting| &waiting.ready);
        ready.flatten().map(|(_, place)| *place)
    }

    /// How many are remembered, those included that have gone.
    #[cfg(test)]
    pub(crate) fn kept(&self) -> usize {
        self.lines().map(|line| line.waiters.len()).sum()
    }

    /// Whether the sums are those of the waiters, and few have gone.
    #[cfg(any(test, fuzzing, feature = "audit"))]
    pub(crate) fn is_counted(&self) -> bool {
        self.lines().all(|line| {
            let live = || line.waiters.iter().filter(|waiter| !waiter.gone);
            live().count() == line.messages
                && live().map(|waiter| waiter.bytes).sum::<usize>() == line.bytes
                && line.waiters.len() <= line.messages.saturating_mul(2).saturating_add(FEW)
                && line.waiters.iter().is_sorted_by_key(|waiter| waiter.place)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// So many that wait, of as many bytes each as come before them.
    fn line_of(count: usize) -> (Waiting, Vec<Place>) {
        let mut waiting = Waiting::default();
        let places = (0..count).map(|bytes| waiting.add(false, bytes, None).unwrap()).collect();
        (waiting, places)
    }

    /// How many are remembered, and for how many there is memory.
    fn held(waiting: &Waiting) -> (usize, usize) {
        let line = waiting.line(false).unwrap();
        (line.waiters.len(), line.waiters.capacity())
    }

    #[test]
    fn those_that_have_gone_from_the_middle_are_thrown_out_when_they_are_most() {
        for (count, left) in [(FEW + 4, FEW + 4), (FEW + 5, 2)] {
            let (mut waiting, places) = line_of(count);
            for place in &places[1..count - 1] {
                assert!(waiting.take(*place).is_some());
                assert!(waiting.take(*place).is_none(), "once");
            }
            assert_eq!(held(&waiting).0, left);
            assert_eq!(waiting.of(false), (2, count - 1));
            assert_eq!(waiting.next(false), Some(0));
            waiting.pop(false);
            assert_eq!((waiting.next(false), held(&waiting).0), (Some(count - 1), 1));
            assert!(!waiting.is_empty());
            waiting.pop(false);
            assert!(waiting.is_empty());
        }
    }

    #[test]
    fn a_line_that_was_long_gives_its_memory_back_when_it_is_empty() {
        for (count, kept) in [(8, true), (FEW, true), (2 * FEW, false)] {
            let (mut waiting, _) = line_of(count);
            for left in (0..count).rev() {
                waiting.pop(false);
                assert_eq!(waiting.of(false).0, left);
            }
            let (length, capacity) = held(&waiting);
            assert_eq!((length, capacity > 0), (0, kept), "{count}: {capacity}");
        }
    }

    #[test]
    fn what_is_kept_is_all_there_is() {
        let (mut waiting, places) = line_of(5);
        waiting.take(places[2]);
        waiting.keep(&[places[1], places[2], places[4]]);
        assert_eq!(waiting.of(false), (2, 1 + 4), "the third has gone");
        let left: Vec<_> = waiting.places().map(|(place, _)| place).collect();
        assert_eq!(left, [places[1], places[4]]);
    }

    #[test]
    fn nobody_waits_in_a_buffer_that_was_emptied() {
        let (mut waiting, places) = line_of(2);
        assert!(!waiting.is_in(0));
        waiting.is_ready(0, 100, places[0]);
        assert!(waiting.is_in(0) && !waiting.is_in(1));
        assert_eq!(waiting.next_sent(0, |offset| offset < 100), None);
        waiting.lanes_cleared();
        assert!(!waiting.is_in(0));
        assert_eq!(waiting.next_sent(0, |_| true), None);
        waiting.is_ready(0, 7, places[1]);
        assert_eq!(waiting.next_sent(0, |offset| offset < 100), Some(places[1]));
    }
}
