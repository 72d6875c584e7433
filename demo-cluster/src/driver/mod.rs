//! The driver: it has a job's tasks run by the executors that the master gives it.

mod run;
mod tasks;

pub(crate) use run::{JobReport, Prepared, RunOptions, run_job};

use crate::executor::fetch;
use crate::ids::{ExecutorId, WorkerId};
use crate::protocol::{
    ApplicationRemoved, BlockId, BlockSource, DriverApi, ExecutorAdded, ExecutorApi,
    ExecutorUpdated, RegisterExecutor, RunTask, ShuffleApi, TaskId, TaskInput, TaskReply,
    TaskReport,
};
use bytes::Bytes;
use rpc_actix::{
    EndpointContext, HandlerResult, RpcAddress, RpcEndpointRef, RpcError, RpcMessage, endpoint,
};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::time::Duration;
use tasks::{Attempt, MapBlock, TooManyFailures, Tracker};
use tokio::sync::mpsc;

/// A task that takes longer than this counts as failed.
const TASK_TIMEOUT: Duration = Duration::from_secs(600);

/// What is to be run.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    pub(crate) job: &'static str,
    pub(crate) params: Bytes,
    pub(crate) splits: Vec<Bytes>,
    pub(crate) partitions: u32,
}

/// What the driver's process is told.
#[derive(Debug)]
pub(crate) enum DriverEvent {
    ExecutorAdded {
        executor: ExecutorId,
        worker: WorkerId,
        pid: u32,
        cores: u32,
    },
    ExecutorLost {
        executor: ExecutorId,
        message: String,
    },
    TaskDone {
        executor: ExecutorId,
        task: TaskId,
        report: TaskReport,
        progress: [(usize, usize); 2],
    },
    TaskFailed {
        executor: ExecutorId,
        task: TaskId,
        message: String,
    },
    Finished {
        parts: Vec<Bytes>,
        reruns: u32,
    },
    Failed(String),
}

#[derive(Debug)]
struct Executor {
    executor: RpcEndpointRef<ExecutorApi>,
    shuffle: RpcEndpointRef<ShuffleApi>,
    cores: u32,
    running: u32,
}

#[derive(Debug)]
pub(crate) struct Driver {
    plan: Plan,
    tasks: Tracker,
    executors: BTreeMap<ExecutorId, Executor>,
    parts: BTreeMap<u32, Bytes>,
    /// Bounded by the number of attempts at tasks.
    events: mpsc::UnboundedSender<DriverEvent>,
    over: bool,
}

#[endpoint(protocol = DriverApi)]
impl Driver {
    pub(crate) fn new(plan: Plan, events: mpsc::UnboundedSender<DriverEvent>) -> Self {
        let tasks = Tracker::new(plan.splits.len(), plan.partitions);
        let (executors, parts) = (BTreeMap::new(), BTreeMap::new());
        Self { plan, tasks, executors, parts, events, over: false }
    }

    #[receive_and_reply]
    fn register_executor(
        &mut self,
        msg: RegisterExecutor,
        cx: &mut EndpointContext<Self>,
    ) -> HandlerResult<()> {
        let RegisterExecutor { id, worker, executor, shuffle, cores, pid } = msg;
        if self.over {
            return Err(anyhow::anyhow!("the job is over").into());
        }
        self.executors.insert(id, Executor { executor, shuffle, cores, running: 0 });
        self.tell(DriverEvent::ExecutorAdded { executor: id, worker, pid, cores });
        self.assign(&cx.self_ref());
        Ok(())
    }

    #[receive]
    fn executor_added(&self, msg: ExecutorAdded) -> HandlerResult<()> {
        let ExecutorAdded { executor, worker, cores } = msg;
        tracing::info!(%executor, %worker, cores, "the master has launched an executor");
        Ok(())
    }

    #[receive]
    fn executor_updated(
        &mut self,
        msg: ExecutorUpdated,
        cx: &mut EndpointContext<Self>,
    ) -> HandlerResult<()> {
        tracing::info!(executor = %msg.executor, state = ?msg.state, message = msg.message, "executor updated");
        if msg.state.is_finished() {
            self.lose(msg.executor, &msg.message, &cx.self_ref());
        }
        Ok(())
    }

    #[receive]
    fn application_removed(&mut self, msg: ApplicationRemoved) -> HandlerResult<()> {
        self.fail(format!("the master removed the application: {}", msg.message));
        Ok(())
    }

    #[receive]
    fn attempt_ended(
        &mut self,
        msg: AttemptEnded,
        cx: &mut EndpointContext<Self>,
    ) -> HandlerResult<()> {
        let AttemptEnded { executor, task, attempt, end } = msg;
        if let Some(known) = self.executors.get_mut(&executor) {
            known.running = known.running.saturating_sub(1);
        }
        let attempt = Attempt { task, number: attempt };
        match end {
            AttemptEnd::Done(report, part) => self.done(executor, attempt, report, part),
            AttemptEnd::FetchFailed { source, message } => {
                self.tell(DriverEvent::TaskFailed { executor, task, message: message.clone() });
                let result = self.tasks.fetch_failed(attempt, executor, source);
                self.check(result, task, &message);
            }
            AttemptEnd::Failed(message) => {
                self.tell(DriverEvent::TaskFailed { executor, task, message: message.clone() });
                let result = self.tasks.failed(attempt, executor);
                self.check(result, task, &message);
            }
            AttemptEnd::ExecutorLost(message) => self.lose(executor, &message, &cx.self_ref()),
        }
        self.assign(&cx.self_ref());
        Ok(())
    }

    #[on_disconnected]
    fn disconnected(
        &mut self,
        peer: &RpcAddress,
        cx: &mut EndpointContext<Self>,
    ) -> HandlerResult<()> {
        let gone = self.executors.iter().find(|(_, known)| known.executor.address() == Some(peer));
        if let Some(gone) = gone.map(|(&id, _)| id) {
            self.lose(gone, "its connection broke", &cx.self_ref());
        }
        Ok(())
    }

    fn done(
        &mut self,
        executor: ExecutorId,
        attempt: Attempt,
        report: TaskReport,
        part: Option<Bytes>,
    ) {
        if !self.tasks.done(attempt, executor, report.blocks.clone()) {
            return;
        }
        if let (TaskId::Reduce(partition), Some(part)) = (attempt.task, part) {
            self.parts.insert(partition, part);
        }
        let (task, progress) = (attempt.task, self.tasks.progress());
        self.tell(DriverEvent::TaskDone { executor, task, report, progress });
        if self.tasks.is_done() && !std::mem::replace(&mut self.over, true) {
            let parts = std::mem::take(&mut self.parts).into_values().collect();
            self.tell(DriverEvent::Finished { parts, reruns: self.tasks.reruns });
        }
    }

    fn check(&mut self, result: Result<(), TooManyFailures>, task: TaskId, message: &str) {
        if let Err(TooManyFailures(times)) = result {
            self.fail(format!("{task} failed {times} times, last: {message}"));
        }
    }

    fn fail(&mut self, message: String) {
        if !std::mem::replace(&mut self.over, true) {
            self.tell(DriverEvent::Failed(message));
        }
    }

    fn lose(&mut self, id: ExecutorId, message: &str, me: &RpcEndpointRef<Self>) {
        // The news comes by several ways; the first one counts.
        if self.over || self.executors.remove(&id).is_none() {
            return;
        }
        self.tell(DriverEvent::ExecutorLost { executor: id, message: message.to_owned() });
        if let Err(TooManyFailures(times)) = self.tasks.executor_lost(id) {
            self.fail(format!("a task was lost {times} times with its executor, last: {message}"));
        }
        self.assign(me);
    }

    /// Gives every free core a task, one for each executor in turn.
    fn assign(&mut self, me: &RpcEndpointRef<Self>) {
        while !self.over {
            let mut assigned = false;
            let ids: Vec<_> = self.executors.keys().copied().collect();
            for id in ids {
                assigned |= self.assign_one(id, me).is_some();
            }
            if !assigned {
                return;
            }
        }
    }

    fn assign_one(&mut self, id: ExecutorId, me: &RpcEndpointRef<Self>) -> Option<()> {
        let known = self.executors.get(&id).filter(|known| known.running < known.cores)?;
        let (executor, shuffle) = (known.executor.clone(), known.shuffle.clone());
        let attempt = self.tasks.next(id)?;
        let Some(input) = self.input(attempt.task) else {
            // The tracker gives out no reduce task whose blocks are gone; better no job than one
            // that waits for ever.
            self.fail(format!("what {} needs is nowhere", attempt.task));
            return None;
        };
        let run = RunTask {
            job: self.plan.job.to_owned(),
            params: self.plan.params.clone(),
            partitions: self.plan.partitions,
            task: attempt.task,
            attempt: attempt.number,
            input,
        };
        if let Some(known) = self.executors.get_mut(&id) {
            known.running += 1;
        }
        let me = me.clone();
        tokio::spawn(async move {
            let end = run_task(&executor, &shuffle, run).await;
            let Attempt { task, number } = attempt;
            // If the driver is gone, so is the job.
            let _ = me.send(AttemptEnded { executor: id, task, attempt: number, end });
        });
        Some(())
    }

    fn input(&self, task: TaskId) -> Option<TaskInput> {
        match task {
            TaskId::Map(map) => {
                let split = self.plan.splits.get(usize::try_from(map).ok()?)?;
                Some(TaskInput::Split(split.clone()))
            }
            TaskId::Reduce(partition) => {
                let mut sources: BTreeMap<ExecutorId, BlockSource> = BTreeMap::new();
                let blocks = self.tasks.blocks(partition)?;
                for MapBlock { block, size, executor } in blocks.into_iter().filter(|b| b.size > 0)
                {
                    let shuffle = &self.executors.get(&executor)?.shuffle;
                    let source = sources.entry(executor).or_insert_with(|| BlockSource {
                        executor,
                        shuffle: shuffle.clone(),
                        blocks: Vec::new(),
                    });
                    source.blocks.push((block, size));
                }
                Some(TaskInput::Blocks(sources.into_values().collect()))
            }
        }
    }

    fn tell(&self, event: DriverEvent) {
        // If nobody listens, the job was given up.
        let _ = self.events.send(event);
    }
}

/// Asks an executor to run a task, and fetches the part that a reduce task has made. The ask ends
/// when the task does, or when the executor's connection breaks.
async fn run_task(
    executor: &RpcEndpointRef<ExecutorApi>,
    shuffle: &RpcEndpointRef<ShuffleApi>,
    run: RunTask,
) -> AttemptEnd {
    let (task, attempt) = (run.task, run.attempt);
    let report = match executor.ask_with_timeout(run, TASK_TIMEOUT).await {
        Ok(TaskReply::Done(report)) => report,
        Ok(TaskReply::FetchFailed { executor: source, message }) => {
            return AttemptEnd::FetchFailed { source, message };
        }
        Ok(TaskReply::Failed { message }) => return AttemptEnd::Failed(message),
        Err(error) => return failed_ask(&error),
    };
    if matches!(task, TaskId::Map(_)) {
        return AttemptEnd::Done(report, None);
    }
    let block = BlockId { task, attempt, partition: 0 };
    let size = report.blocks.first().copied().unwrap_or(0);
    match fetch(shuffle, block, size).await {
        Ok(part) => AttemptEnd::Done(report, Some(part)),
        Err(error) => failed_ask(&error),
    }
}

fn failed_ask(error: &RpcError) -> AttemptEnd {
    let lost = error.is_disconnected() || error.is_unreachable() || error.is_stopped();
    let message = error.to_string();
    if lost { AttemptEnd::ExecutorLost(message) } else { AttemptEnd::Failed(message) }
}

/// One attempt at a task is over.
#[derive(Debug, Serialize, Deserialize, RpcMessage)]
pub(crate) struct AttemptEnded {
    executor: ExecutorId,
    task: TaskId,
    attempt: u32,
    end: AttemptEnd,
}

#[derive(Debug, Serialize, Deserialize)]
enum AttemptEnd {
    Done(TaskReport, Option<Bytes>),
    FetchFailed { source: ExecutorId, message: String },
    Failed(String),
    ExecutorLost(String),
}
