//! What waits for the end of the turn of the endpoint that this thread runs: replies to one peer
//! leave together then, without another task of the thread having to be woken for them.

use std::cell::{Cell, RefCell};
use std::sync::Arc;

/// Something to be done when an endpoint has had its turn.
pub trait TurnEnd: Send + Sync {
    /// The turn is over: no handler runs on this thread, and no lock is held.
    fn turn_ended(&self);
}

thread_local! {
    /// Endpoints that are having their turn on this thread, each within the one before.
    static TURNS: Cell<usize> = const { Cell::new(0) };
    static PUT_OFF: RefCell<Vec<Arc<dyn TurnEnd>>> = const { RefCell::new(Vec::new()) };
    /// Whether something is put off.
    static SOME: Cell<bool> = const { Cell::new(false) };
}

/// Puts something off to the end of the turn of the endpoint that this thread runs. `false`, and
/// nothing is made, if it runs none.
pub fn at_turn_end<T: TurnEnd + 'static>(make: impl FnOnce() -> Arc<T>) -> bool {
    if TURNS.get() == 0 {
        return false;
    }
    PUT_OFF.with_borrow_mut(|put_off| put_off.push(make()));
    SOME.set(true);
    true
}

/// An endpoint has its turn on this thread until what this returns is dropped, panic or not.
pub(crate) fn begin() -> InTurn {
    TURNS.set(TURNS.get().saturating_add(1));
    InTurn
}

#[must_use = "the turn is over when this is dropped"]
pub(crate) struct InTurn;

impl Drop for InTurn {
    fn drop(&mut self) {
        TURNS.set(TURNS.get().saturating_sub(1));
        if !SOME.replace(false) {
            return;
        }
        let mut put_off = PUT_OFF.take();
        for work in put_off.drain(..) {
            work.turn_ended();
        }
        // Its memory is for the next turn.
        PUT_OFF.with_borrow_mut(|next| {
            if next.is_empty() {
                std::mem::swap(next, &mut put_off);
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicUsize, Ordering};

    #[derive(Default)]
    struct Counts(AtomicUsize);

    impl TurnEnd for Counts {
        fn turn_ended(&self) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    #[test]
    fn it_is_done_once_when_the_turn_is_over_and_only_put_off_within_one() {
        let counts = Arc::new(Counts::default());
        let done = || counts.0.load(Ordering::Relaxed);
        assert!(!at_turn_end(|| counts.clone()));
        for turn in 1..4 {
            let in_turn = begin();
            assert!(at_turn_end(|| counts.clone()));
            assert_eq!(done(), turn - 1);
            drop(in_turn);
            assert_eq!(done(), turn);
        }
        drop(begin());
        assert_eq!(done(), 3);
    }

    #[test]
    fn a_turn_that_ends_with_a_panic_is_over_as_well() {
        let counts = Arc::new(Counts::default());
        let panics = || {
            let _turn = begin();
            at_turn_end(|| counts.clone());
            panic!("of a handler");
        };
        assert!(std::panic::catch_unwind(std::panic::AssertUnwindSafe(panics)).is_err());
        assert_eq!(counts.0.load(Ordering::Relaxed), 1);
        assert!(!at_turn_end(|| counts.clone()));
    }
}
