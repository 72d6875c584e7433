//! A worker: it registers with the master, and launches executors.

mod executor_process;
mod retry;

use crate::ids::{AppId, ExecutorId, WorkerId};
use crate::master::tell;
use crate::protocol::{
    ApplicationFinished, ExecutorStarted, ExecutorState, ExecutorStateChanged, Heartbeat,
    KillExecutor, LaunchExecutor, MasterApi, ReconnectWorker, RegisterWorker, WorkerApi,
    WorkerLatestState, WorkerRegistration,
};
use executor_process::{ExecutorCommand, ExecutorEnd, ExecutorProcess};
use retry::Retries;
use rpc_actix::{
    EndpointContext, HandlerResult, RpcAddress, RpcEndpointRef, RpcEnv, RpcMessage, endpoint,
};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;
use tokio::sync::mpsc;

/// D62: how often the master is told of an executor's end before the worker gives up.
const STATE_ATTEMPTS: u32 = 5;

/// The worker's settings.
#[derive(Clone, Debug)]
pub(crate) struct WorkerOptions {
    pub(crate) id: WorkerId,
    pub(crate) master: String,
    pub(crate) cores: u32,
    pub(crate) memory_mb: u64,
    pub(crate) work_dir: PathBuf,
    /// How long the first attempts to register wait for the next.
    pub(crate) registration_wait: Duration,
    /// The program that is launched as an executor.
    pub(crate) executor_program: PathBuf,
}

/// What the worker's process is told.
#[derive(Debug)]
pub(crate) enum WorkerEvent {
    Registered(WorkerId),
    /// The worker cannot go on.
    Fatal(String),
}

#[derive(Debug)]
pub(crate) struct Worker {
    options: WorkerOptions,
    /// At most one event per registration is under way, so its length is bounded by those.
    events: mpsc::UnboundedSender<WorkerEvent>,
    master: Option<RpcEndpointRef<MasterApi>>,
    retries: Retries,
    /// One series of attempts at a time (D27).
    registering: bool,
    /// One heartbeat timer at a time, however often the worker registers (D18).
    beating: Option<Duration>,
    executors: BTreeMap<(AppId, ExecutorId), ExecutorProcess>,
}

#[endpoint(protocol = WorkerApi)]
impl Worker {
    pub(crate) fn new(options: WorkerOptions, events: mpsc::UnboundedSender<WorkerEvent>) -> Self {
        Self {
            retries: Retries::new(options.registration_wait),
            options,
            events,
            master: None,
            registering: false,
            beating: None,
            executors: BTreeMap::new(),
        }
    }

    #[on_start]
    fn started(&mut self, cx: &mut EndpointContext<Self>) -> HandlerResult<()> {
        self.register(cx)
    }

    /// Executors end with their worker.
    #[on_stop]
    async fn stopping(&mut self) -> HandlerResult<()> {
        for (_, mut executor) in std::mem::take(&mut self.executors) {
            executor.kill();
            executor.killed().await;
        }
        Ok(())
    }

    #[receive]
    fn try_again(&mut self, _: TryToRegister, cx: &mut EndpointContext<Self>) -> HandlerResult<()> {
        self.attempt(cx)
    }

    #[receive]
    fn registration_ended(
        &mut self,
        msg: RegistrationEnded,
        cx: &mut EndpointContext<Self>,
    ) -> HandlerResult<()> {
        match msg {
            RegistrationEnded::Answered(
                master,
                WorkerRegistration::Registered { duplicate, heartbeat_ms },
            ) => {
                self.registered(master, duplicate, Duration::from_millis(heartbeat_ms), cx);
            }
            RegistrationEnded::Answered(_, WorkerRegistration::Failed { message }) => {
                self.registering = false;
                self.give_up(format!("Worker registration failed: {message}"));
            }
            RegistrationEnded::Failed(message) => match self.retries.next() {
                Some(wait) => {
                    tracing::warn!(message, ?wait, "could not register, will try again");
                    cx.send_after(wait, TryToRegister);
                }
                None => {
                    self.give_up(format!("All masters are unresponsive! Giving up. {message}"));
                }
            },
        }
        Ok(())
    }

    #[receive]
    fn beat(&mut self, _msg: Beat, cx: &mut EndpointContext<Self>) -> HandlerResult<()> {
        if let Some(master) = &self.master {
            tell(master, Heartbeat { id: self.options.id.clone() });
        }
        if let Some(interval) = self.beating {
            cx.send_after(interval, Beat);
        }
        Ok(())
    }

    #[receive]
    fn reconnect(
        &mut self,
        _: ReconnectWorker,
        cx: &mut EndpointContext<Self>,
    ) -> HandlerResult<()> {
        self.master = None;
        self.register(cx)
    }

    #[receive]
    fn launch(&mut self, msg: LaunchExecutor, cx: &mut EndpointContext<Self>) -> HandlerResult<()> {
        let (app, executor) = (msg.app.clone(), msg.executor);
        tracing::info!(%app, %executor, cores = msg.cores, "launching executor");
        let command = self.command(msg, &cx.self_ref())?;
        let (me, key) = (cx.self_ref(), (app.clone(), executor));
        let on_end = move |end| {
            let ExecutorEnd { state, message } = end;
            let (app, executor) = key;
            // If the worker has stopped, nobody waits for this.
            let _ = me.send(ExecutorEnded(ExecutorStateChanged { app, executor, state, message }));
        };
        match ExecutorProcess::launch(&command, on_end) {
            Ok(process) => {
                self.executors.insert((app, executor), process);
            }
            Err(error) => {
                let (state, message) = (ExecutorState::Failed, format!("{error:#}"));
                self.report(ExecutorStateChanged { app, executor, state, message });
            }
        }
        Ok(())
    }

    #[receive]
    fn executor_started(&mut self, msg: ExecutorStarted) -> HandlerResult<()> {
        let ExecutorStarted { app, executor } = msg;
        let state = ExecutorState::Running;
        self.report(ExecutorStateChanged { app, executor, state, message: String::new() });
        Ok(())
    }

    #[receive]
    fn executor_ended(&mut self, msg: ExecutorEnded) -> HandlerResult<()> {
        let ExecutorEnded(change) = msg;
        tracing::info!(app = %change.app, executor = %change.executor, message = change.message, "executor ended");
        self.executors.remove(&(change.app.clone(), change.executor));
        self.report(change);
        Ok(())
    }

    #[receive]
    fn kill_executor(&mut self, msg: KillExecutor) -> HandlerResult<()> {
        if let Some(process) = self.executors.get_mut(&(msg.app, msg.executor)) {
            process.kill();
        }
        Ok(())
    }

    #[receive]
    fn application_finished(&mut self, msg: ApplicationFinished) -> HandlerResult<()> {
        let own = self.executors.iter_mut().filter(|((app, _), _)| *app == msg.app);
        own.for_each(|(_, process)| process.kill());
        Ok(())
    }

    /// D27: executors go on, and the worker registers again.
    #[on_disconnected]
    fn disconnected(
        &mut self,
        peer: &RpcAddress,
        cx: &mut EndpointContext<Self>,
    ) -> HandlerResult<()> {
        if self.master.as_ref().is_some_and(|master| master.address() == Some(peer)) {
            tracing::warn!(%peer, "connection to the master lost");
            self.master = None;
            self.register(cx)?;
        }
        Ok(())
    }

    /// Begins a series of attempts, unless one is under way.
    fn register(&mut self, cx: &EndpointContext<Self>) -> HandlerResult<()> {
        if std::mem::replace(&mut self.registering, true) {
            return Ok(());
        }
        self.retries.reset();
        self.attempt(cx)
    }

    /// Asks the master, without holding the endpoint meanwhile.
    fn attempt(&self, cx: &EndpointContext<Self>) -> HandlerResult<()> {
        let (env, me, options) = (cx.env()?, cx.self_ref(), self.options.clone());
        tokio::spawn(async move {
            let result = register_at(&env, &options, me.clone().into_protocol()).await;
            let ended = match result {
                Ok((master, answer)) => RegistrationEnded::Answered(master, answer),
                Err(error) => RegistrationEnded::Failed(format!("{}: {error:#}", options.master)),
            };
            let _ = me.send(ended);
        });
        Ok(())
    }

    fn registered(
        &mut self,
        master: RpcEndpointRef<MasterApi>,
        duplicate: bool,
        heartbeat: Duration,
        cx: &EndpointContext<Self>,
    ) {
        if duplicate {
            tracing::warn!(%master, "the master knew this worker already");
        }
        self.registering = false;
        let id = self.options.id.clone();
        let executors = self.executors.keys().cloned().collect();
        tell(&master, WorkerLatestState { id: id.clone(), executors });
        self.master = Some(master);
        if self.beating.replace(heartbeat).is_none() {
            tell(&cx.self_ref(), Beat);
        }
        let _ = self.events.send(WorkerEvent::Registered(id));
    }

    fn command(
        &self,
        msg: LaunchExecutor,
        me: &RpcEndpointRef<Self>,
    ) -> HandlerResult<ExecutorCommand> {
        let directory = self.options.work_dir.join(msg.app.directory());
        let directory = directory.join(msg.executor.to_string());
        let arguments = [
            crate::role::ROLE.to_owned(),
            "executor".to_owned(),
            format!("--driver={}", msg.driver),
            format!("--worker={me}"),
            format!("--worker-id={}", self.options.id),
            format!("--app={}", msg.app),
            format!("--executor={}", msg.executor),
            format!("--cores={}", msg.cores),
        ];
        let arguments = arguments.into_iter().map(Into::into).collect();
        let program = self.options.executor_program.clone();
        Ok(ExecutorCommand { program, arguments, directory })
    }

    /// Tells the master with an ask, again if need be, so that no executor is lost in its books
    /// (D62).
    fn report(&self, change: ExecutorStateChanged) {
        // Without a master the worker will register again, and then tell what it runs.
        let (Some(master), events) = (self.master.clone(), self.events.clone()) else { return };
        tokio::spawn(async move {
            for attempt in 1..=STATE_ATTEMPTS {
                match master.ask(change.clone()).await {
                    Ok(()) => return,
                    Err(error) => tracing::warn!(attempt, %error, "executor state not told"),
                }
                tokio::time::sleep(Duration::from_secs(1)).await;
            }
            let text = format!("the master was not told of executor {}", change.executor);
            let _ = events.send(WorkerEvent::Fatal(text));
        });
    }

    fn give_up(&self, message: String) {
        let _ = self.events.send(WorkerEvent::Fatal(message));
    }
}

async fn register_at(
    env: &RpcEnv,
    options: &WorkerOptions,
    worker: RpcEndpointRef<WorkerApi>,
) -> anyhow::Result<(RpcEndpointRef<MasterApi>, WorkerRegistration)> {
    let master = env.endpoint_ref::<MasterApi>(&options.master).await?;
    let WorkerOptions { id, cores, memory_mb, .. } = options.clone();
    let answer = master.ask(RegisterWorker { id, worker, cores, memory_mb }).await?;
    Ok((master, answer))
}

/// The end of one attempt to register.
#[derive(Debug, Serialize, Deserialize, RpcMessage)]
pub(crate) enum RegistrationEnded {
    Answered(RpcEndpointRef<MasterApi>, WorkerRegistration),
    Failed(String),
}

#[derive(Debug, Serialize, Deserialize, RpcMessage)]
pub(crate) struct TryToRegister;

#[derive(Debug, Serialize, Deserialize, RpcMessage)]
pub(crate) struct Beat;

#[derive(Debug, Serialize, Deserialize, RpcMessage)]
pub(crate) struct ExecutorEnded(ExecutorStateChanged);
