//! Which tasks are done, running or to run: map tasks first, then reduce tasks; what was lost
//! runs again.

use crate::ids::ExecutorId;
use crate::protocol::{BlockId, TaskId};

/// How often one task may fail (Spark's `task.maxFailures`).
pub(crate) const MAX_FAILURES: u32 = 4;
/// How often a reduce task may fail to fetch. Another number, because that is the fault of
/// executors that have died, and their map tasks ran again in between.
const MAX_FETCH_FAILURES: u32 = 16;

/// One attempt at a task.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Attempt {
    pub(crate) task: TaskId,
    pub(crate) number: u32,
}

#[derive(Debug, Default)]
struct Task {
    state: State,
    attempts: u32,
    failures: u32,
    fetch_failures: u32,
}

#[derive(Debug, Default)]
enum State {
    #[default]
    Pending,
    Running(ExecutorId),
    /// Done, with its blocks on that executor.
    Done {
        executor: ExecutorId,
        attempt: u32,
        blocks: Vec<u64>,
    },
}

impl Task {
    fn is_done(&self) -> bool {
        matches!(self.state, State::Done { .. })
    }

    fn start(&mut self, executor: ExecutorId) -> u32 {
        self.state = State::Running(executor);
        self.attempts += 1;
        self.attempts - 1
    }
}

/// A task has failed too often.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct TooManyFailures(pub(crate) u32);

/// A block of a map task that a reduce task needs.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct MapBlock {
    pub(crate) block: BlockId,
    pub(crate) size: u64,
    pub(crate) executor: ExecutorId,
}

/// The tasks of one job.
#[derive(Debug)]
pub(crate) struct Tracker {
    maps: Vec<Task>,
    reduces: Vec<Task>,
    /// Times that something done or running was lost with its executor.
    pub(crate) reruns: u32,
}

impl Tracker {
    pub(crate) fn new(maps: usize, reduces: u32) -> Self {
        let maps = (0..maps).map(|_| Task::default()).collect();
        Self { maps, reduces: (0..reduces).map(|_| Task::default()).collect(), reruns: 0 }
    }

    /// Done and all, for map and for reduce tasks.
    pub(crate) fn progress(&self) -> [(usize, usize); 2] {
        [&self.maps, &self.reduces]
            .map(|tasks| (tasks.iter().filter(|task| task.is_done()).count(), tasks.len()))
    }

    pub(crate) fn is_done(&self) -> bool {
        self.reduces.iter().all(Task::is_done)
    }

    /// Gives the executor a task, if there is one to run now.
    pub(crate) fn next(&mut self, executor: ExecutorId) -> Option<Attempt> {
        if self.is_done() {
            return None;
        }
        let maps_done = self.maps.iter().all(Task::is_done);
        let (tasks, id): (_, fn(u32) -> TaskId) = if maps_done {
            (&mut self.reduces, TaskId::Reduce)
        } else {
            (&mut self.maps, TaskId::Map)
        };
        let (index, task) =
            tasks.iter_mut().zip(0..).find_map(|(task, index)| match task.state {
                State::Pending => Some((index, task)),
                _ => None,
            })?;
        Some(Attempt { task: id(index), number: task.start(executor) })
    }

    /// Where a partition of every map task lies; `None` if some of it was lost meanwhile.
    pub(crate) fn blocks(&self, partition: u32) -> Option<Vec<MapBlock>> {
        let blocks = self.maps.iter().zip(0..).map(|(task, map)| {
            let State::Done { executor, attempt, blocks } = &task.state else { return None };
            let size = *blocks.get(usize::try_from(partition).ok()?)?;
            let block = BlockId { task: TaskId::Map(map), attempt: *attempt, partition };
            Some(MapBlock { block, size, executor: *executor })
        });
        blocks.collect()
    }

    /// The attempt's task, if the attempt is the one that runs: late news of others is ignored.
    fn running(&mut self, attempt: Attempt, on: ExecutorId) -> Option<&mut Task> {
        let task = match attempt.task {
            TaskId::Map(map) => self.maps.get_mut(usize::try_from(map).ok()?),
            TaskId::Reduce(reduce) => self.reduces.get_mut(usize::try_from(reduce).ok()?),
        }?;
        let current = task.attempts.checked_sub(1) == Some(attempt.number);
        let runs = matches!(task.state, State::Running(executor) if executor == on);
        (current && runs).then_some(task)
    }

    /// The attempt is done; false if nobody waits for it any more.
    pub(crate) fn done(
        &mut self,
        attempt: Attempt,
        executor: ExecutorId,
        blocks: Vec<u64>,
    ) -> bool {
        let Some(task) = self.running(attempt, executor) else { return false };
        task.state = State::Done { executor, attempt: attempt.number, blocks };
        true
    }

    /// The attempt failed: its task runs again, unless that has happened too often.
    pub(crate) fn failed(
        &mut self,
        attempt: Attempt,
        executor: ExecutorId,
    ) -> Result<(), TooManyFailures> {
        let Some(task) = self.running(attempt, executor) else { return Ok(()) };
        task.state = State::Pending;
        task.failures += 1;
        if task.failures >= MAX_FAILURES { Err(TooManyFailures(task.failures)) } else { Ok(()) }
    }

    /// The attempt could not get a block from `source`, whose other map tasks run again as well.
    pub(crate) fn fetch_failed(
        &mut self,
        attempt: Attempt,
        executor: ExecutorId,
        source: ExecutorId,
    ) -> Result<(), TooManyFailures> {
        let Some(task) = self.running(attempt, executor) else { return Ok(()) };
        task.state = State::Pending;
        task.fetch_failures += 1;
        let failures = task.fetch_failures;
        self.lose_outputs(source);
        if failures >= MAX_FETCH_FAILURES { Err(TooManyFailures(failures)) } else { Ok(()) }
    }

    /// An executor is gone, with the tasks that it ran and the blocks that it had. What it ran
    /// counts as failed, because that may be what killed it.
    pub(crate) fn executor_lost(&mut self, gone: ExecutorId) -> Result<(), TooManyFailures> {
        let mut result = Ok(());
        for task in self.maps.iter_mut().chain(&mut self.reduces) {
            if matches!(task.state, State::Running(executor) if executor == gone) {
                task.state = State::Pending;
                task.failures += 1;
                self.reruns += 1;
                if task.failures >= MAX_FAILURES {
                    result = Err(TooManyFailures(task.failures));
                }
            }
        }
        self.lose_outputs(gone);
        result
    }

    /// The driver has the parts of reduce tasks that are done, so only blocks of map tasks can be
    /// lost.
    fn lose_outputs(&mut self, gone: ExecutorId) {
        if self.is_done() {
            return;
        }
        for task in &mut self.maps {
            if matches!(&task.state, State::Done { executor, .. } if *executor == gone) {
                task.state = State::Pending;
                self.reruns += 1;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: ExecutorId = ExecutorId(0);
    const B: ExecutorId = ExecutorId(1);

    fn map(index: u32, number: u32) -> Attempt {
        Attempt { task: TaskId::Map(index), number }
    }

    fn reduce(index: u32, number: u32) -> Attempt {
        Attempt { task: TaskId::Reduce(index), number }
    }

    fn mapped() -> Tracker {
        let mut tasks = Tracker::new(2, 2);
        for executor in [A, B] {
            let attempt = tasks.next(executor).unwrap();
            assert!(tasks.done(attempt, executor, vec![10, 20]));
        }
        tasks
    }

    #[test]
    fn reduces_wait_for_all_maps() {
        let mut tasks = Tracker::new(2, 1);
        assert_eq!(tasks.next(A), Some(map(0, 0)));
        assert_eq!(tasks.next(B), Some(map(1, 0)));
        assert_eq!(tasks.next(A), None);
        assert!(tasks.done(map(1, 0), B, vec![1]));
        assert_eq!((tasks.next(B), tasks.blocks(0)), (None, None));
        assert!(tasks.done(map(0, 0), A, vec![2]));
        assert_eq!(tasks.blocks(0).unwrap()[0].size, 2);
        assert_eq!(tasks.next(B), Some(reduce(0, 0)));
        assert!(tasks.done(reduce(0, 0), B, vec![5]) && tasks.is_done());
        assert_eq!(tasks.progress(), [(2, 2), (1, 1)]);
    }

    #[test]
    fn a_lost_executor_takes_its_outputs_along() {
        let mut tasks = mapped();
        assert_eq!(tasks.next(B), Some(reduce(0, 0)));
        assert_eq!(tasks.executor_lost(A), Ok(()));
        assert_eq!(tasks.blocks(1), None);
        assert_eq!(tasks.next(B), Some(map(0, 1)), "only its own map task runs again");
        assert_eq!(tasks.next(B), None);
        assert_eq!(tasks.fetch_failed(reduce(0, 0), B, A), Ok(()));
        assert!(tasks.done(map(0, 1), B, vec![10, 20]));
        assert_eq!(tasks.blocks(1).unwrap()[0].block.attempt, 1);
        assert_eq!(tasks.next(B), Some(reduce(0, 1)));
        assert_eq!(tasks.reruns, 1);
    }

    #[test]
    fn late_news_is_ignored() {
        let mut tasks = Tracker::new(1, 1);
        assert_eq!(tasks.next(A), Some(map(0, 0)));
        assert_eq!(tasks.executor_lost(A), Ok(()));
        assert_eq!(tasks.next(B), Some(map(0, 1)));
        assert!(!tasks.done(map(0, 0), A, vec![1]));
        assert_eq!(tasks.failed(map(0, 0), A), Ok(()));
        assert!(tasks.done(map(0, 1), B, vec![1]));
        assert!(!tasks.done(map(0, 1), B, vec![1]), "twice");
    }

    #[test]
    fn a_task_may_fail_three_times() {
        let mut tasks = Tracker::new(1, 1);
        for _ in 1..MAX_FAILURES {
            let attempt = tasks.next(A).unwrap();
            assert_eq!(tasks.failed(attempt, A), Ok(()));
        }
        let attempt = tasks.next(A).unwrap();
        assert_eq!(tasks.failed(attempt, A), Err(TooManyFailures(MAX_FAILURES)));
    }

    #[test]
    fn a_done_job_loses_nothing() {
        let mut tasks = mapped();
        for _ in 0..2 {
            let attempt = tasks.next(A).unwrap();
            assert!(tasks.done(attempt, A, vec![1]));
        }
        assert_eq!(tasks.executor_lost(A), Ok(()));
        assert!(tasks.is_done() && tasks.next(B).is_none());
    }
}
