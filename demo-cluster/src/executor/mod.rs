//! An executor: runs a driver's tasks, and keeps what they make for other executors.

mod shuffle;

pub(crate) use shuffle::fetch;

use crate::ids::{AppId, ExecutorId, WorkerId};
use crate::jobs::JobRegistry;
use crate::master::tell;
use crate::protocol::{
    BlockId, BlockSource, DriverApi, EXECUTOR, ExecutorApi, ExecutorStarted, RegisterExecutor,
    RunTask, SHUFFLE, StopExecutor, TaskInput, TaskReply, TaskReport, WorkerApi,
};
use anyhow::Context;
use bytes::Bytes;
use futures_util::{StreamExt, TryStreamExt, stream};
use rpc_actix::{HandlerResult, RpcAddress, RpcCallContext, RpcEnvConfig, endpoint};
use shuffle::{BlockStore, Shuffle};
use std::sync::Arc;
use std::time::Instant;
use tokio::sync::watch;

/// How many blocks a reduce task fetches at a time.
const FETCHES: usize = 8;

/// What a worker tells an executor on its command line.
#[derive(Clone, Debug)]
pub(crate) struct ExecutorOptions {
    pub(crate) driver: String,
    pub(crate) worker: String,
    pub(crate) worker_id: WorkerId,
    pub(crate) app: AppId,
    pub(crate) id: ExecutorId,
    pub(crate) cores: u32,
}

/// Runs an executor until its driver or its worker ends it; says why.
pub(crate) async fn run_executor(
    options: ExecutorOptions,
    jobs: JobRegistry,
) -> anyhow::Result<String> {
    let ExecutorOptions { driver, worker, worker_id, app, id, cores } = options;
    let name = format!("executor-{id}");
    let env = rpc_actix::create(RpcEnvConfig::server(name, "127.0.0.1:0")).await?;
    let worker = env.endpoint_ref::<WorkerApi>(&worker).await.context("no worker")?;
    let driver = env.endpoint_ref::<DriverApi>(&driver).await.context("no driver")?;
    let (stop, mut stopped) = watch::channel(None);
    let store = BlockStore::default();
    let shuffle = env.setup_endpoint(SHUFFLE, Shuffle::new(store.clone())).await?;
    let peers = [worker.address().cloned(), driver.address().cloned()];
    let tasks = Tasks { jobs, store, id, here: env.address().cloned() };
    let executor = Executor { tasks: Arc::new(tasks), peers, stop };
    let executor = env.setup_endpoint(EXECUTOR, executor).await?.into_protocol();
    let (shuffle, pid) = (shuffle.into_protocol(), std::process::id());
    driver.ask(RegisterExecutor { id, worker: worker_id, executor, shuffle, cores, pid }).await?;
    tell(&worker, ExecutorStarted { app, executor: id });
    let why = stopped.wait_for(Option::is_some).await?.clone().unwrap_or_default();
    // Whoever waits for an answer of this executor learns at once that it is gone.
    env.shutdown().await;
    Ok(why)
}

#[derive(Debug)]
struct Executor {
    tasks: Arc<Tasks>,
    /// Where worker and driver are: without them there is nothing to do (D66).
    peers: [Option<RpcAddress>; 2],
    stop: watch::Sender<Option<String>>,
}

#[endpoint(protocol = ExecutorApi)]
impl Executor {
    /// Answers when the task is done, so that others can run meanwhile.
    #[receive_and_reply]
    fn run_task(&self, msg: RunTask, call: RpcCallContext<TaskReply>) -> HandlerResult<()> {
        let tasks = self.tasks.clone();
        tokio::spawn(async move {
            let reply = tasks.run(msg).await;
            call.reply(reply);
        });
        Ok(())
    }

    #[receive]
    fn stop_executor(&self, _msg: StopExecutor) -> HandlerResult<()> {
        self.end("stopped by the driver".to_owned());
        Ok(())
    }

    #[on_disconnected]
    fn disconnected(&self, peer: &RpcAddress) -> HandlerResult<()> {
        if self.peers.iter().flatten().any(|known| known == peer) {
            self.end(format!("the connection to {peer} broke"));
        }
        Ok(())
    }

    fn end(&self, why: String) {
        self.stop.send_replace(Some(why));
    }
}

/// What tasks need.
#[derive(Debug)]
struct Tasks {
    jobs: JobRegistry,
    store: BlockStore,
    id: ExecutorId,
    here: Option<RpcAddress>,
}

impl Tasks {
    async fn run(&self, msg: RunTask) -> TaskReply {
        let start = Instant::now();
        let reply = self.try_run(msg).await.unwrap_or_else(|error| {
            tracing::warn!(error = format!("{error:#}"), "a task failed");
            TaskReply::Failed { message: format!("{error:#}") }
        });
        match reply {
            TaskReply::Done(mut report) => {
                report.millis = u64::try_from(start.elapsed().as_millis()).unwrap_or(u64::MAX);
                TaskReply::Done(report)
            }
            other => other,
        }
    }

    async fn try_run(&self, msg: RunTask) -> anyhow::Result<TaskReply> {
        let RunTask { job, params, partitions, task, attempt, input } = msg;
        tracing::debug!(executor = %self.id, %task, attempt, "running");
        let job = self.jobs.find(&job)?.clone();
        let mut report = TaskReport::default();
        let blocks = match input {
            TaskInput::Split(split) => {
                // Tasks use a core for long, so they have threads of their own.
                blocking(move || job.map(&params, &split, partitions)).await?
            }
            TaskInput::Blocks(sources) => match self.gather(sources, &mut report).await {
                Ok(blocks) => vec![blocking(move || job.reduce(&params, blocks)).await?],
                Err(failed) => return Ok(failed),
            },
        };
        for (partition, block) in (0..).zip(blocks) {
            report.blocks.push(u64::try_from(block.len())?);
            self.store.put(BlockId { task, attempt, partition }, block);
        }
        Ok(TaskReply::Done(report))
    }

    /// All blocks of a partition, several at a time; otherwise whose could not be had.
    async fn gather(
        &self,
        sources: Vec<BlockSource>,
        report: &mut TaskReport,
    ) -> Result<Vec<Bytes>, TaskReply> {
        let mut wanted = Vec::new();
        for BlockSource { executor, shuffle, blocks } in sources {
            let is_here = shuffle.address() == self.here.as_ref();
            for (block, size) in blocks {
                let fetched =
                    if is_here { &mut report.fetched_local } else { &mut report.fetched_remote };
                *fetched += size;
                wanted.push((executor, shuffle.clone(), block, size));
            }
        }
        let fetches = stream::iter(wanted).map(|(executor, shuffle, block, size)| async move {
            fetch(&shuffle, block, size).await.map_err(|error| TaskReply::FetchFailed {
                executor,
                message: format!("a block of executor {executor}: {error}"),
            })
        });
        fetches.buffer_unordered(FETCHES).try_collect().await
    }
}

/// Runs what takes long on a thread of its own; a panic there is an error of the task.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> anyhow::Result<T> + Send + 'static,
) -> anyhow::Result<T> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result,
        Err(error) => Err(anyhow::anyhow!("the task panicked: {error}")),
    }
}
