//! The master: it knows the workers, and gives their cores to applications.

mod schedule;
mod state;

pub(crate) use schedule::Placement;

use crate::ids::{AppId, ExecutorId, WorkerId};
use crate::protocol::{
    ApplicationFinished, ApplicationRemoved, ExecutorAdded, ExecutorState, ExecutorStateChanged,
    ExecutorUpdated, Heartbeat, KillExecutor, LaunchExecutor, MasterApi, MasterSummary,
    ReconnectWorker, RegisterApplication, RegisterWorker, RegisteredApplication,
    RequestMasterState, UnregisterApplication, WorkerLatestState, WorkerRegistration,
};
use rpc_actix::{
    EndpointContext, HandlerResult, OneWay, RpcAddress, RpcEndpointRef, RpcMessage, SentTo,
    endpoint,
};
use serde::{Deserialize, Serialize};
use state::{AppInfo, Books, Consequence, Placed, WorkerState};
use std::fmt;
use std::time::{Duration, SystemTime};

/// The master's settings.
#[derive(Clone, Debug)]
pub(crate) struct MasterOptions {
    pub(crate) worker_timeout: Duration,
    pub(crate) placement: Placement,
    /// D39; none: executors may fail for ever.
    pub(crate) max_executor_failures: Option<u32>,
}

#[derive(Debug)]
pub(crate) struct Master {
    options: MasterOptions,
    books: Books,
    next_app: u32,
}

/// The master's own timer (D24).
#[derive(Clone, Debug, Serialize, Deserialize, RpcMessage)]
pub(crate) struct CheckForWorkerTimeout;

#[endpoint(protocol = MasterApi)]
impl Master {
    pub(crate) fn new(options: MasterOptions) -> Self {
        Self { options, books: Books::default(), next_app: 0 }
    }

    #[on_start]
    fn started(&self, cx: &mut EndpointContext<Self>) -> HandlerResult<()> {
        cx.send_every(self.options.worker_timeout, CheckForWorkerTimeout);
        Ok(())
    }

    #[receive_and_reply]
    fn register_worker(
        &mut self,
        msg: RegisterWorker,
        cx: &mut EndpointContext<Self>,
    ) -> HandlerResult<WorkerRegistration> {
        let RegisterWorker { id, worker, cores, memory_mb } = msg;
        let heartbeat = self.options.worker_timeout / 4;
        let heartbeat_ms = u64::try_from(heartbeat.as_millis()).unwrap_or(u64::MAX);
        if let Some(known) = self.books.workers.get_mut(&id)
            && known.state == WorkerState::Alive
        {
            known.last_heartbeat = cx.now();
            return Ok(WorkerRegistration::Registered { duplicate: true, heartbeat_ms });
        }
        if let Some(other) = self.books.alive_at(worker.address()) {
            let message =
                format!("Attempted to re-register worker at same address: {worker} is {other}");
            return Ok(WorkerRegistration::Failed { message });
        }
        tracing::info!(worker = %id, cores, memory_mb, "registering worker");
        self.books.add_worker(id, worker, (cores, memory_mb), cx.now());
        tell(&cx.self_ref(), Schedule);
        Ok(WorkerRegistration::Registered { duplicate: false, heartbeat_ms })
    }

    #[receive]
    fn heartbeat(&mut self, msg: Heartbeat, cx: &mut EndpointContext<Self>) -> HandlerResult<()> {
        match self.books.workers.get_mut(&msg.id) {
            Some(worker) if worker.state == WorkerState::Alive => {
                worker.last_heartbeat = cx.now();
            }
            Some(worker) => {
                tracing::warn!(worker = %msg.id, "heartbeat of a dead worker: it must register");
                tell(&worker.worker, ReconnectWorker);
            }
            None => tracing::warn!(worker = %msg.id, "heartbeat of a worker never seen"),
        }
        Ok(())
    }

    #[receive]
    fn worker_latest_state(&mut self, msg: WorkerLatestState) -> HandlerResult<()> {
        let Some(worker) = self.books.workers.get(&msg.id) else { return Ok(()) };
        for (app, executor) in msg.executors {
            let known = self.books.apps.get(&app).and_then(|app| app.executors.get(&executor));
            if known.is_none_or(|info| info.worker != msg.id) {
                tell(&worker.worker, KillExecutor { app, executor });
            }
        }
        Ok(())
    }

    #[receive]
    fn check_for_worker_timeout(
        &mut self,
        _msg: CheckForWorkerTimeout,
        cx: &mut EndpointContext<Self>,
    ) -> HandlerResult<()> {
        let timeout = self.options.worker_timeout;
        for id in self.books.silent(timeout, cx.now()) {
            let message = format!("Not receiving heartbeat for {} seconds", timeout.as_secs());
            self.remove_worker(&id, &message);
        }
        Ok(())
    }

    #[receive_and_reply]
    fn register_application(
        &mut self,
        msg: RegisterApplication,
        cx: &mut EndpointContext<Self>,
    ) -> HandlerResult<RegisteredApplication> {
        // D31: a driver that asks twice gets the application that it has.
        let same = self.books.apps.iter().find(|(_, app)| app.driver == msg.driver);
        let app = if let Some((app, _)) = same {
            app.clone()
        } else {
            let app = AppId::new(SystemTime::now(), self.next_app);
            self.next_app = (self.next_app + 1) % 10_000;
            tracing::info!(%app, name = msg.description.name, "registered application");
            self.books.add_app(app.clone(), msg.description, msg.driver);
            app
        };
        tell(&cx.self_ref(), Schedule);
        Ok(RegisteredApplication { app })
    }

    #[receive]
    fn schedule_soon(&mut self, _msg: Schedule) -> HandlerResult<()> {
        self.schedule();
        Ok(())
    }

    #[receive]
    fn unregister_application(&mut self, msg: UnregisterApplication) -> HandlerResult<()> {
        self.finish_app(&msg.app, "finished");
        Ok(())
    }

    #[receive_and_reply]
    fn executor_state_changed(&mut self, msg: ExecutorStateChanged) -> HandlerResult<()> {
        self.executor_changed(&msg.app, msg.executor, msg.state, &msg.message);
        Ok(())
    }

    #[receive_and_reply]
    fn state(&self, _msg: RequestMasterState) -> HandlerResult<MasterSummary> {
        Ok(self.books.summary())
    }

    /// A broken connection removes a worker at once (D26) and finishes an application (D35).
    #[on_disconnected]
    fn disconnected(&mut self, peer: &RpcAddress) -> HandlerResult<()> {
        if let Some(id) = self.books.alive_at(Some(peer)).cloned() {
            self.remove_worker(&id, &format!("{peer} got disassociated"));
        }
        let gone = self.books.apps.iter().find(|(_, app)| app.driver.address() == Some(peer));
        if let Some(app) = gone.map(|(id, _)| id.clone()) {
            self.finish_app(&app, "its driver is gone");
        }
        Ok(())
    }

    fn executor_changed(
        &mut self,
        app_id: &AppId,
        executor: ExecutorId,
        state: ExecutorState,
        message: &str,
    ) {
        tracing::info!(app = %app_id, %executor, ?state, message, "executor changed");
        let most = self.options.max_executor_failures;
        let consequence = self.books.executor_changed(app_id, executor, state, most);
        if consequence == Consequence::Unknown {
            return;
        }
        if let Some(app) = self.books.apps.get(app_id) {
            let message = message.to_owned();
            tell(&app.driver, ExecutorUpdated { executor, state, message });
        }
        if let Consequence::AppFailed { failures } = consequence {
            let text = format!(
                "{failures} executors failed in a row and none is running (--max-executor-retries); the last one: {message}"
            );
            self.fail_app(app_id, &text);
        }
        if state.is_finished() {
            self.schedule();
        }
    }

    fn remove_worker(&mut self, id: &WorkerId, message: &str) {
        let lost = self.books.worker_lost(id);
        if lost.is_empty() {
            tracing::info!(worker = %id, message, "removing worker");
        } else {
            tracing::warn!(worker = %id, message, lost = lost.len(), "removing worker, its executors are lost");
        }
        for (app, executor) in lost {
            if let Some(app) = self.books.apps.get(&app) {
                let message = format!("worker {id} was lost: {message}");
                let state = ExecutorState::Lost;
                tell(&app.driver, ExecutorUpdated { executor, state, message });
            }
        }
        self.schedule();
    }

    fn finish_app(&mut self, id: &AppId, why: &str) {
        if let Some(app) = self.books.remove_app(id) {
            tracing::info!(app = %id, why, "application is over");
            self.clean_up(id, &app);
            self.schedule();
        }
    }

    fn fail_app(&mut self, id: &AppId, message: &str) {
        if let Some(app) = self.books.remove_app(id) {
            tracing::error!(app = %id, message, "application failed");
            tell(&app.driver, ApplicationRemoved { message: message.to_owned() });
            self.clean_up(id, &app);
        }
    }

    fn clean_up(&self, id: &AppId, app: &AppInfo) {
        for (&executor, info) in &app.executors {
            if let Some(worker) = self.books.workers.get(&info.worker) {
                tell(&worker.worker, KillExecutor { app: id.clone(), executor });
            }
        }
        for worker in self.books.workers.values().filter(|w| w.state == WorkerState::Alive) {
            tell(&worker.worker, ApplicationFinished { app: id.clone() });
        }
    }

    /// Runs on every change (D41).
    fn schedule(&mut self) {
        for placed in self.books.place(self.options.placement) {
            self.launch(placed);
        }
    }

    /// Worker and driver are told at the same moment (D54).
    fn launch(&self, placed: Placed) {
        let Placed { app: app_id, executor, worker: worker_id, cores, memory_mb } = placed;
        let Some(worker) = self.books.workers.get(&worker_id) else { return };
        let Some(app) = self.books.apps.get(&app_id) else { return };
        tracing::info!(app = %app_id, %executor, worker = %worker_id, cores, "launching executor");
        let driver = app.driver.clone();
        tell(&worker.worker, LaunchExecutor { app: app_id, executor, cores, memory_mb, driver });
        tell(&app.driver, ExecutorAdded { executor, worker: worker_id, cores });
    }
}

/// Scheduling after what is being handled now, so that a worker or driver has the answer to its
/// registration before it hears of executors.
#[derive(Debug, Serialize, Deserialize, RpcMessage)]
pub(crate) struct Schedule;

/// Sends; if that fails, the broken connection will be told to us as well, so it is only logged.
pub(crate) fn tell<P, M: OneWay + SentTo<P> + fmt::Debug>(to: &RpcEndpointRef<P>, msg: M) {
    if let Err(error) = to.send(msg) {
        tracing::warn!(%to, message = M::NAME, %error, "a message was not sent");
    }
}
