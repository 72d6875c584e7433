//! An endpoint's loop as its thread polls it: from its own task, or in place from an asker's.

use crate::beat;
use crate::error::RpcError;
use crate::handoff::Loop;
use crate::inbox::{Inbox, Item};
use crate::quiet::drop_quietly;
use crate::termination::Termination;
use crate::turn;
use crate::turn_end;
use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::rc::{Rc, Weak};
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

/// What the loop and whoever polls it both see.
#[derive(Default)]
pub(crate) struct Taken {
    /// What the loop has taken out of its inbox, and not begun with.
    pub(crate) items: RefCell<VecDeque<Item>>,
    gave_way: Cell<bool>,
    waited: Cell<bool>,
}

impl Taken {
    /// Whether others of the thread had their turn since this was asked last: the endpoint's own task
    /// has waited. An asker that polls the loop, and might come again and again, does not count.
    pub(crate) fn gave_way(&self) -> bool {
        self.gave_way.replace(false)
    }

    /// Whether the loop has waited since this was asked last, whoever has polled it.
    pub(crate) fn waited(&self) -> bool {
        self.waited.replace(false)
    }
}

/// The task of an endpoint. Dropped, it ends the endpoint.
pub(crate) struct Running<T>(Rc<Run<T>>);

/// How an endpoint's life ended; the error is that of its start.
type End = Result<Termination, RpcError>;

/// Marks the thread as inside the endpoint while its loop is polled, so that asks know who makes
/// them. While it is not, whatever others may want to see of it is in the inbox. What panics in it
/// outside of users' code ends the endpoint, not the thread.
struct Run<T> {
    inbox: Arc<Inbox>,
    taken: Rc<Taken>,
    state: RefCell<State<T>>,
}

struct State<T> {
    stage: Stage<T>,
    /// The endpoint's own task, which what the loop waits for wakes, whoever polls it.
    task: Waker,
    /// The endpoint, for the thread to say where it is.
    inside: Option<Arc<Inbox>>,
}

enum Stage<T> {
    On(Pin<Box<T>>),
    /// It has ended, and its task does not know yet.
    Over(End),
    Done,
}

impl<T: Future<Output = End> + 'static> Running<T> {
    pub(crate) fn new(inbox: Arc<Inbox>, taken: Rc<Taken>, run: T) -> Self {
        let stage = Stage::On(Box::pin(run));
        let state = RefCell::new(State { stage, task: Waker::noop().clone(), inside: None });
        let run = Rc::new(Run { inbox, taken, state });
        let backend = run.inbox.core().backend();
        if backend.is_some_and(|backend| backend.polls_in_place()) {
            let weak: Weak<Run<T>> = Rc::downgrade(&run);
            run.inbox.place().offer(weak);
        }
        Self(run)
    }
}

impl<T> Run<T> {
    fn put_back(&self) {
        let mut taken = self.taken.items.borrow_mut();
        if !taken.is_empty() {
            self.inbox.put_back(&mut taken);
        }
    }
}

impl<T: Future<Output = End>> Run<T> {
    fn poll(&self, state: &mut State<T>, in_place: bool) {
        let Stage::On(run) = &mut state.stage else { return };
        let _beat = beat::enter(&self.inbox);
        let _turn = turn_end::begin();
        let inbox = state.inside.take().unwrap_or_else(|| self.inbox.clone());
        let inside = turn::enter(inbox);
        let mut cx = Context::from_waker(&state.task);
        match catch_unwind(AssertUnwindSafe(|| run.as_mut().poll(&mut cx))) {
            Ok(Poll::Pending) => {
                turn::write_down();
                self.put_back();
                self.taken.waited.set(true);
                if !in_place {
                    self.taken.gave_way.set(true);
                }
            }
            Ok(Poll::Ready(end)) => state.stage = Stage::Over(end),
            Err(panic) => {
                drop_quietly("a panic's value", panic);
                tracing::error!(endpoint = %self.inbox.name(), "an endpoint ends after a panic outside of its handlers");
                let over = Stage::Over(Ok(Termination::Crashed));
                // A handler in the middle has values of users, whose destructors may panic.
                drop_quietly("an endpoint", std::mem::replace(&mut state.stage, over));
            }
        }
        state.inside = inside.leave();
    }
}

impl<T: Future<Output = End>> Future for Running<T> {
    type Output = End;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<End> {
        let Ok(mut state) = self.0.state.try_borrow_mut() else {
            // It is being polled further up on this stack.
            cx.waker().wake_by_ref();
            return Poll::Pending;
        };
        state.task.clone_from(cx.waker());
        self.0.inbox.awake();
        self.0.poll(&mut state, false);
        match std::mem::replace(&mut state.stage, Stage::Done) {
            Stage::Over(output) => Poll::Ready(output),
            other => {
                state.stage = other;
                Poll::Pending
            }
        }
    }
}

impl<T: Future<Output = End>> Loop for Run<T> {
    fn poll_in_place(&self) {
        let Ok(mut state) = self.state.try_borrow_mut() else { return };
        self.poll(&mut state, true);
        if let Stage::Over(_) = state.stage {
            state.task.wake_by_ref();
        }
    }
}

impl<T> Drop for Run<T> {
    fn drop(&mut self) {
        self.inbox.place().withdraw();
        let stage = std::mem::replace(&mut self.state.get_mut().stage, Stage::Done);
        drop_quietly("an endpoint", stage);
        self.put_back();
    }
}
