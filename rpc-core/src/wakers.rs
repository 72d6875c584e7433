//! Tasks that wait for the same thing.

use std::iter::{Chain, Flatten};
use std::task::{Context, Waker};
use std::{option, vec};

/// The wakers of those who wait, each found again without a search.
///
/// The first one stays, and is nobody's: mostly it is a handler's own task, by which all come who wait for
/// this one after the other, and they need nothing. Whoever comes by another waker, as each part of a
/// `join_all` or a `FuturesUnordered` does, has a place, and takes it back from there.
#[derive(Debug, Default)]
pub(crate) struct Wakers {
    first: Option<Waker>,
    others: Option<Box<Others>>,
}

#[derive(Debug, Default)]
struct Others {
    slots: Vec<Option<Waker>>,
    free: Vec<usize>,
}

impl Wakers {
    /// Remembers the task that polls; `place` is what has to be taken back, if anything. It is kept by
    /// the caller, from one poll to the next.
    pub(crate) fn add(&mut self, place: &mut Option<usize>, cx: &Context<'_>) {
        match &self.first {
            None => self.first = Some(cx.waker().clone()),
            Some(first) if place.is_none() && first.will_wake(cx.waker()) => {}
            Some(_) => self.others.get_or_insert_default().put(place, cx.waker()),
        }
    }

    /// Takes back what was kept there, to be dropped where no lock is held.
    pub(crate) fn remove(&mut self, place: usize) -> Option<Waker> {
        let others = self.others.as_mut()?;
        let waker = others.slots.get_mut(place)?.take()?;
        others.free.push(place);
        Some(waker)
    }
}

/// A place of one who waits, which is taken back however that ends.
pub(crate) struct Place<F: Fn(usize)> {
    pub(crate) kept: Option<usize>,
    take_back: F,
}

impl<F: Fn(usize)> Place<F> {
    pub(crate) fn new(take_back: F) -> Self {
        Self { kept: None, take_back }
    }
}

impl<F: Fn(usize)> Drop for Place<F> {
    fn drop(&mut self) {
        self.kept.take().into_iter().for_each(&self.take_back);
    }
}

impl Others {
    fn put(&mut self, place: &mut Option<usize>, waker: &Waker) {
        let kept = place.and_then(|place| self.slots.get_mut(place)).and_then(Option::as_mut);
        if let Some(kept) = kept {
            return kept.clone_from(waker);
        }
        let free = self.free.pop().unwrap_or(self.slots.len());
        match self.slots.get_mut(free) {
            Some(slot) => *slot = Some(waker.clone()),
            None => self.slots.push(Some(waker.clone())),
        }
        *place = Some(free);
    }
}

/// To be woken, where no lock is held.
impl IntoIterator for Wakers {
    type Item = Waker;
    type IntoIter = Chain<option::IntoIter<Waker>, Flatten<vec::IntoIter<Option<Waker>>>>;

    fn into_iter(self) -> Self::IntoIter {
        let others = self.others.map(|others| others.slots).unwrap_or_default();
        self.first.into_iter().chain(others.into_iter().flatten())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::task::Wake;

    #[derive(Default)]
    struct Task(AtomicUsize);

    impl Wake for Task {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn add(wakers: &mut Wakers, place: &mut Option<usize>, task: &Arc<Task>) {
        wakers.add(place, &Context::from_waker(&Waker::from(task.clone())));
    }

    #[test]
    fn who_comes_by_the_first_waker_needs_no_place() {
        let (mut wakers, task) = (Wakers::default(), Arc::<Task>::default());
        for _ in 0..100 {
            let mut place = None;
            add(&mut wakers, &mut place, &task);
            assert_eq!(place, None);
        }
        assert_eq!(Arc::strong_count(&task), 2);
        wakers.into_iter().for_each(Waker::wake);
        assert_eq!(task.0.load(Ordering::Relaxed), 1);
    }

    #[test]
    fn a_place_is_kept_taken_back_and_used_again() {
        let (mut wakers, task) = (Wakers::default(), Arc::<Task>::default());
        add(&mut wakers, &mut None, &Arc::default());
        let [first, second, other] = [(); 3].map(|()| Arc::<Task>::default());
        let (mut one, mut two) = (None, None);
        add(&mut wakers, &mut one, &first);
        add(&mut wakers, &mut two, &second);
        assert_eq!((one, two), (Some(0), Some(1)));
        add(&mut wakers, &mut one, &other);
        assert_eq!((one, Arc::strong_count(&first)), (Some(0), 1), "it has moved to another task");
        assert!(wakers.remove(0).is_some() && wakers.remove(0).is_none());
        assert!(wakers.remove(7).is_none());
        one = None;
        add(&mut wakers, &mut one, &task);
        assert_eq!(one, Some(0));
        assert!(wakers.remove(1).is_some());
        wakers.into_iter().for_each(Waker::wake);
        let woken = [task, first, second, other].map(|task| task.0.load(Ordering::Relaxed));
        assert_eq!(woken, [1, 0, 0, 0]);
    }
}
