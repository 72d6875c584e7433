//! What master, workers, drivers and executors say to each other.

use crate::ids::{AppId, ExecutorId, WorkerId};
use bytes::Bytes;
use rpc_actix::{RpcEndpointRef, RpcMessage, protocol};
use serde::{Deserialize, Serialize};
use std::fmt;

/// The endpoints' names are the rendezvous (D4).
pub(crate) const MASTER: &str = "Master";
pub(crate) const WORKER: &str = "Worker";
pub(crate) const DRIVER: &str = "Driver";
pub(crate) const EXECUTOR: &str = "Executor";
pub(crate) const SHUFFLE: &str = "Shuffle";

protocol! {
    /// What workers and drivers may ask of a master.
    pub(crate) MasterApi {
        RegisterWorker, Heartbeat, WorkerLatestState, ExecutorStateChanged,
        RegisterApplication, UnregisterApplication, RequestMasterState,
    }

    /// What the master and its executors may tell a worker.
    pub(crate) WorkerApi {
        LaunchExecutor, KillExecutor, ApplicationFinished, ReconnectWorker, ExecutorStarted,
    }

    /// What the master and the executors may tell a driver.
    pub(crate) DriverApi { RegisterExecutor, ExecutorAdded, ExecutorUpdated, ApplicationRemoved }

    /// What a driver may ask of an executor.
    pub(crate) ExecutorApi { RunTask, StopExecutor }

    /// What an executor gives to others: the blocks that its tasks have made.
    pub(crate) ShuffleApi { FetchBlock }
}

// Worker and master.

/// A worker offers itself (D8). The ref is how the master talks back (D9).
#[derive(Debug, Serialize, Deserialize, RpcMessage)]
#[rpc(reply = WorkerRegistration)]
pub(crate) struct RegisterWorker {
    pub(crate) id: WorkerId,
    pub(crate) worker: RpcEndpointRef<WorkerApi>,
    pub(crate) cores: u32,
    pub(crate) memory_mb: u64,
}

#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum WorkerRegistration {
    /// The master knows the worker; `duplicate` if it did before (D12).
    Registered { duplicate: bool, heartbeat_ms: u64 },
    /// Another worker is registered at that address (D13).
    Failed { message: String },
}

#[derive(Debug, Serialize, Deserialize, RpcMessage)]
pub(crate) struct Heartbeat {
    pub(crate) id: WorkerId,
}

/// What a worker runs, after it has registered again; the master has the rest killed (D17).
#[derive(Debug, Serialize, Deserialize, RpcMessage)]
pub(crate) struct WorkerLatestState {
    pub(crate) id: WorkerId,
    pub(crate) executors: Vec<(AppId, ExecutorId)>,
}

/// An ask, so that the worker knows that the master has heard it (D62).
#[derive(Clone, Debug, Serialize, Deserialize, RpcMessage)]
#[rpc(reply = ())]
pub(crate) struct ExecutorStateChanged {
    pub(crate) app: AppId,
    pub(crate) executor: ExecutorId,
    pub(crate) state: ExecutorState,
    pub(crate) message: String,
}

/// D61, without DECOMMISSIONED.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum ExecutorState {
    Launching,
    Running,
    Killed,
    Failed,
    Lost,
    Exited,
}

impl ExecutorState {
    pub(crate) fn is_finished(self) -> bool {
        matches!(self, Self::Killed | Self::Failed | Self::Lost | Self::Exited)
    }
}

/// The master dropped the worker, but hears from it (D23).
#[derive(Debug, Serialize, Deserialize, RpcMessage)]
pub(crate) struct ReconnectWorker;

#[derive(Debug, Serialize, Deserialize, RpcMessage)]
pub(crate) struct LaunchExecutor {
    pub(crate) app: AppId,
    pub(crate) executor: ExecutorId,
    pub(crate) cores: u32,
    pub(crate) memory_mb: u64,
    /// Where the executor is to register. It is a ref that crosses two connections: the driver
    /// gave it to the master, the master gives it to the worker.
    pub(crate) driver: RpcEndpointRef<DriverApi>,
}

#[derive(Debug, Serialize, Deserialize, RpcMessage)]
pub(crate) struct KillExecutor {
    pub(crate) app: AppId,
    pub(crate) executor: ExecutorId,
}

#[derive(Debug, Serialize, Deserialize, RpcMessage)]
pub(crate) struct ApplicationFinished {
    pub(crate) app: AppId,
}

/// An executor process has found its driver, and so counts as running.
#[derive(Debug, Serialize, Deserialize, RpcMessage)]
pub(crate) struct ExecutorStarted {
    pub(crate) app: AppId,
    pub(crate) executor: ExecutorId,
}

// Driver and master.

/// What an application wants (D32).
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct AppDescription {
    pub(crate) name: String,
    pub(crate) max_cores: Option<u32>,
    pub(crate) cores_per_executor: Option<u32>,
    pub(crate) memory_per_executor_mb: u64,
}

#[derive(Debug, Serialize, Deserialize, RpcMessage)]
#[rpc(reply = RegisteredApplication)]
pub(crate) struct RegisterApplication {
    pub(crate) description: AppDescription,
    pub(crate) driver: RpcEndpointRef<DriverApi>,
}

#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct RegisteredApplication {
    pub(crate) app: AppId,
}

#[derive(Debug, Serialize, Deserialize, RpcMessage)]
pub(crate) struct UnregisterApplication {
    pub(crate) app: AppId,
}

#[derive(Debug, Serialize, Deserialize, RpcMessage)]
pub(crate) struct ExecutorAdded {
    pub(crate) executor: ExecutorId,
    pub(crate) worker: WorkerId,
    pub(crate) cores: u32,
}

#[derive(Debug, Serialize, Deserialize, RpcMessage)]
pub(crate) struct ExecutorUpdated {
    pub(crate) executor: ExecutorId,
    pub(crate) state: ExecutorState,
    pub(crate) message: String,
}

/// The application is over, for the master's reasons.
#[derive(Debug, Serialize, Deserialize, RpcMessage)]
pub(crate) struct ApplicationRemoved {
    pub(crate) message: String,
}

/// What the master has, for people (D116).
#[derive(Debug, Serialize, Deserialize, RpcMessage)]
#[rpc(reply = MasterSummary)]
pub(crate) struct RequestMasterState;

#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct MasterSummary {
    pub(crate) workers: Vec<WorkerSummary>,
    pub(crate) waiting_apps: u32,
    pub(crate) running_apps: u32,
}

#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct WorkerSummary {
    pub(crate) id: WorkerId,
    pub(crate) alive: bool,
    pub(crate) cores: u32,
    pub(crate) cores_free: u32,
    pub(crate) memory_mb: u64,
    pub(crate) memory_free_mb: u64,
}

// Executor and driver.

#[derive(Debug, Serialize, Deserialize, RpcMessage)]
#[rpc(reply = ())]
pub(crate) struct RegisterExecutor {
    pub(crate) id: ExecutorId,
    pub(crate) worker: WorkerId,
    pub(crate) executor: RpcEndpointRef<ExecutorApi>,
    pub(crate) shuffle: RpcEndpointRef<ShuffleApi>,
    pub(crate) cores: u32,
    pub(crate) pid: u32,
}

/// Answered when the task is done, from the task that runs it.
#[derive(Debug, Serialize, Deserialize, RpcMessage)]
#[rpc(reply = TaskReply)]
pub(crate) struct RunTask {
    pub(crate) job: String,
    pub(crate) params: Bytes,
    pub(crate) partitions: u32,
    pub(crate) task: TaskId,
    pub(crate) attempt: u32,
    pub(crate) input: TaskInput,
}

/// Which part of the job.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub(crate) enum TaskId {
    Map(u32),
    Reduce(u32),
}

impl fmt::Display for TaskId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Map(index) => write!(f, "map task {index}"),
            Self::Reduce(index) => write!(f, "reduce task {index}"),
        }
    }
}

#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum TaskInput {
    /// The job's own description of one split.
    Split(Bytes),
    /// Where one partition of every map task lies.
    Blocks(Vec<BlockSource>),
}

/// The blocks of one executor, with their sizes. They are together, because a ref is the largest
/// part of where a block lies, and there is a block for every map task.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct BlockSource {
    pub(crate) executor: ExecutorId,
    pub(crate) shuffle: RpcEndpointRef<ShuffleApi>,
    pub(crate) blocks: Vec<(BlockId, u64)>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub(crate) struct BlockId {
    pub(crate) task: TaskId,
    pub(crate) attempt: u32,
    pub(crate) partition: u32,
}

#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum TaskReply {
    Done(TaskReport),
    /// A block could not be had from the executor that made it: its map tasks must run again.
    FetchFailed {
        executor: ExecutorId,
        message: String,
    },
    Failed {
        message: String,
    },
}

#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct TaskReport {
    /// The size of each block that the task made, by partition; a reduce task makes one.
    pub(crate) blocks: Vec<u64>,
    /// Bytes of blocks that came from other executors.
    pub(crate) fetched_remote: u64,
    /// Bytes of blocks that were here already.
    pub(crate) fetched_local: u64,
    pub(crate) millis: u64,
}

#[derive(Debug, Serialize, Deserialize, RpcMessage)]
pub(crate) struct StopExecutor;

/// A part of a block. Large messages would be refused (`rpc.message.maxSize`), and in the bulk
/// lane they give way to everything else.
#[derive(Debug, Serialize, Deserialize, RpcMessage)]
#[rpc(reply = Bytes, lane = "bulk")]
pub(crate) struct FetchBlock {
    pub(crate) block: BlockId,
    pub(crate) offset: u64,
}
