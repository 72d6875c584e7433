//! Handing an ask over in place: an endpoint that idles on the asker's own thread handles it where
//! the asker waits, without a wakeup of either.

use std::cell::{Cell, RefCell};
use std::ptr;
use std::rc::{Rc, Weak};
use std::sync::atomic::{AtomicUsize, Ordering};

/// Endpoints that may be inside of each other on one stack: those of a chain of asks.
const MAX_DEPTH: usize = 4;

/// An endpoint's loop, which others than its own task may poll.
pub(crate) trait Loop {
    /// Polls it, unless it is being polled.
    fn poll_in_place(&self);
}

/// Where the loop of an endpoint is found by those on its thread: one more than its place in
/// `LOOPS`, or nothing. On another thread that place is empty, or another one's.
#[derive(Debug, Default)]
pub(crate) struct Place(AtomicUsize);

/// The loops of one thread.
#[derive(Default)]
struct Loops {
    slots: Vec<Option<Slot>>,
    free: Vec<usize>,
}

struct Slot {
    /// Whose loop it is; only compared.
    place: *const Place,
    run: Weak<dyn Loop>,
}

thread_local! {
    static LOOPS: RefCell<Loops> =
        const { RefCell::new(Loops { slots: Vec::new(), free: Vec::new() }) };
    /// Loops that are polled in place now.
    static DEPTH: Cell<usize> = const { Cell::new(0) };
}

impl Place {
    /// Lets askers of this thread find a loop. Its place must be withdrawn before it is dropped.
    pub(crate) fn offer(&self, run: Weak<dyn Loop>) {
        LOOPS.with_borrow_mut(|loops| {
            let slot = Slot { place: self, run };
            let place = loops.free.pop().unwrap_or(loops.slots.len());
            match loops.slots.get_mut(place) {
                Some(free) => *free = Some(slot),
                None => loops.slots.push(Some(slot)),
            }
            self.0.store(place.saturating_add(1), Ordering::Relaxed);
        });
    }

    /// The loop is gone; to be said on its thread. While that ends, nobody asks any more.
    pub(crate) fn withdraw(&self) {
        let Some(place) = self.0.swap(0, Ordering::Relaxed).checked_sub(1) else { return };
        let withdrawn = LOOPS.try_with(|loops| {
            let mut loops = loops.borrow_mut();
            loops.free.push(place);
            loops.slots.get_mut(place).and_then(Option::take)
        });
        drop(withdrawn);
    }

    fn find(&self) -> Option<Rc<dyn Loop>> {
        let place = self.0.load(Ordering::Relaxed).checked_sub(1)?;
        let find = |loops: &RefCell<Loops>| {
            let loops = loops.borrow();
            let slot = loops.slots.get(place)?.as_ref()?;
            if ptr::eq(slot.place, self) { slot.run.upgrade() } else { None }
        };
        LOOPS.try_with(find).ok().flatten()
    }

    /// Polls the loop, if it is on this thread. Not within a span of the asker's, which handlers
    /// are no part of.
    pub(crate) fn poll(&self) {
        let depth = DEPTH.get();
        if depth < MAX_DEPTH
            && let Some(run) = self.find()
            && tracing::Span::current().is_none()
        {
            let _within = Within(depth);
            DEPTH.set(depth.saturating_add(1));
            run.poll_in_place();
        }
    }
}

struct Within(usize);

impl Drop for Within {
    fn drop(&mut self) {
        DEPTH.set(self.0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Counted(Cell<usize>, Place);

    impl Loop for Counted {
        fn poll_in_place(&self) {
            self.0.set(self.0.get() + 1);
            self.1.poll();
        }
    }

    #[test]
    fn a_loop_is_found_on_its_own_thread_until_it_is_withdrawn() {
        let place = Place::default();
        place.poll();
        let run = Rc::new(Counted(Cell::new(0), Place::default()));
        let weak: Weak<Counted> = Rc::downgrade(&run);
        place.offer(weak);
        place.poll();
        assert_eq!(run.0.get(), 1);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                // The same place there is another one's.
                let (other, elsewhere) =
                    (Place::default(), Rc::new(Counted(Cell::new(0), Place::default())));
                let weak: Weak<Counted> = Rc::downgrade(&elsewhere);
                other.offer(weak);
                place.poll();
                assert_eq!(elsewhere.0.get(), 0);
                other.withdraw();
            });
        });
        assert_eq!(run.0.get(), 1);
        place.withdraw();
        place.poll();
        assert_eq!(run.0.get(), 1);
        LOOPS.with_borrow(|loops| assert_eq!((loops.slots.len(), loops.free.len()), (1, 1)));
    }

    #[test]
    fn loops_within_loops_come_to_an_end() {
        let run = Rc::new(Counted(Cell::new(0), Place::default()));
        let weak: Weak<Counted> = Rc::downgrade(&run);
        run.1.offer(weak);
        run.1.poll();
        assert_eq!((run.0.get(), DEPTH.get()), (MAX_DEPTH, 0));
        run.1.withdraw();
    }
}
