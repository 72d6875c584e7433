//! The scheduler of a world: ready tasks in the order in which they became ready.

use crate::seam::{EndpointTask, LocalBoxFuture};
use std::cell::RefCell;
use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Wake, Waker};
use std::thread::{self, ThreadId};

/// Runs the tasks of one world on its thread.
pub(crate) struct Executor {
    home: ThreadId,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    new: VecDeque<EndpointTask>,
    ready: VecDeque<u64>,
    last: u64,
    running: bool,
    /// Whoever waits for the world with another executor.
    driver: Option<Waker>,
}

/// Tasks by executor, because their futures must stay on this thread.
type Tasks = BTreeMap<(usize, u64), LocalBoxFuture<()>>;

thread_local! {
    static TASKS: RefCell<Tasks> = const { RefCell::new(BTreeMap::new()) };
}

impl Executor {
    pub(crate) fn new() -> Arc<Self> {
        Arc::new(Self { home: thread::current().id(), state: Mutex::default() })
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn key(self: &Arc<Self>) -> usize {
        Arc::as_ptr(self).addr()
    }

    /// Takes a task; it starts on the world's thread.
    pub(crate) fn spawn(&self, task: EndpointTask) {
        let mut state = self.lock();
        state.new.push_back(task);
        let driver = state.driver.take();
        drop(state);
        if let Some(driver) = driver {
            driver.wake();
        }
    }

    /// Whether something can run.
    pub(crate) fn is_busy(&self) -> bool {
        let state = self.lock();
        !state.ready.is_empty() || !state.new.is_empty()
    }

    /// Whether the caller is inside one of the tasks.
    pub(crate) fn is_inside(&self) -> bool {
        thread::current().id() == self.home && self.lock().running
    }

    /// Runs what can run, and wakes `cx` when there is more.
    pub(crate) fn drive(self: &Arc<Self>, cx: &Context<'_>) {
        // Whoever polls on another thread is woken by its reply; the world has to be run here.
        if thread::current().id() == self.home {
            let mut state = self.lock();
            if !state.running {
                state.driver = Some(cx.waker().clone());
            }
        }
        self.run();
    }

    /// Runs until nothing is ready. Inside a task, or on another thread, it does nothing.
    pub(crate) fn run(self: &Arc<Self>) {
        if thread::current().id() != self.home {
            return;
        }
        {
            let mut state = self.lock();
            if std::mem::replace(&mut state.running, true) {
                return;
            }
        }
        let _done = Running(self);
        while let Some((id, future)) = self.next() {
            self.poll(id, future);
        }
    }

    fn next(self: &Arc<Self>) -> Option<(u64, LocalBoxFuture<()>)> {
        loop {
            let mut state = self.lock();
            if let Some(task) = state.new.pop_front() {
                state.last += 1;
                let id = state.last;
                drop(state);
                return Some((id, task.start()));
            }
            let Some(id) = state.ready.pop_front() else {
                // In the same breath, or a wake-up from another thread would be nobody's.
                state.running = false;
                return None;
            };
            drop(state);
            let task = TASKS.with_borrow_mut(|tasks| tasks.remove(&(self.key(), id)));
            if let Some(task) = task {
                return Some((id, task));
            }
        }
    }

    fn poll(self: &Arc<Self>, id: u64, mut future: LocalBoxFuture<()>) {
        let waker = Waker::from(Arc::new(TaskWaker { executor: self.clone(), id }));
        if future.as_mut().poll(&mut Context::from_waker(&waker)).is_pending() {
            TASKS.with_borrow_mut(|tasks| tasks.insert((self.key(), id), future));
        }
    }
}

struct Running<'a>(&'a Arc<Executor>);

impl Drop for Running<'_> {
    fn drop(&mut self) {
        self.0.lock().running = false;
    }
}

struct TaskWaker {
    executor: Arc<Executor>,
    id: u64,
}

impl Wake for TaskWaker {
    fn wake(self: Arc<Self>) {
        let mut state = self.executor.lock();
        if !state.ready.contains(&self.id) {
            state.ready.push_back(self.id);
        }
        let driver = if state.running { None } else { state.driver.take() };
        drop(state);
        if let Some(driver) = driver {
            driver.wake();
        }
    }
}
