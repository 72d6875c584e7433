//! The master's books: workers, applications and executors. No message is sent from here.

use super::schedule::{self, Demand, Offer, Placement};
use crate::ids::{AppId, ExecutorId, WorkerId};
use crate::protocol::{
    AppDescription, DriverApi, ExecutorState, MasterSummary, WorkerApi, WorkerSummary,
};
use rpc_actix::{RpcAddress, RpcEndpointRef, Timestamp};
use std::collections::BTreeMap;
use std::time::Duration;

/// D25: how many timeouts a dead worker stays listed.
const DEAD_WORKER_PERSISTENCE: u32 = 15;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum WorkerState {
    Alive,
    Dead,
}

#[derive(Debug)]
pub(crate) struct WorkerInfo {
    pub(crate) worker: RpcEndpointRef<WorkerApi>,
    pub(crate) state: WorkerState,
    pub(crate) last_heartbeat: Timestamp,
    cores: u32,
    memory_mb: u64,
    cores_used: u32,
    memory_used_mb: u64,
}

#[derive(Debug)]
pub(crate) struct AppInfo {
    pub(crate) driver: RpcEndpointRef<DriverApi>,
    pub(crate) executors: BTreeMap<ExecutorId, ExecutorInfo>,
    description: AppDescription,
    next_executor: u32,
    /// D39: abnormal exits in a row with none running.
    failures: u32,
}

#[derive(Debug)]
pub(crate) struct ExecutorInfo {
    pub(crate) worker: WorkerId,
    pub(crate) cores: u32,
    pub(crate) state: ExecutorState,
}

/// An executor that has its place in the books and is to be launched.
#[derive(Debug)]
pub(crate) struct Placed {
    pub(crate) app: AppId,
    pub(crate) executor: ExecutorId,
    pub(crate) worker: WorkerId,
    pub(crate) cores: u32,
    pub(crate) memory_mb: u64,
}

/// What a change of an executor's state means for its application.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Consequence {
    /// The executor is not in the books: nothing changes.
    Unknown,
    Noted,
    /// It has failed too often.
    AppFailed {
        failures: u32,
    },
}

#[derive(Debug, Default)]
pub(crate) struct Books {
    pub(crate) workers: BTreeMap<WorkerId, WorkerInfo>,
    /// In the order of registration, which is the order of their ids (D45).
    pub(crate) apps: BTreeMap<AppId, AppInfo>,
}

impl Books {
    /// Enters a worker, in place of dead ones at its address (D14).
    pub(crate) fn add_worker(
        &mut self,
        id: WorkerId,
        worker: RpcEndpointRef<WorkerApi>,
        (cores, memory_mb): (u32, u64),
        now: Timestamp,
    ) {
        self.workers.retain(|_, known| {
            known.state == WorkerState::Alive || known.worker.address() != worker.address()
        });
        let info = WorkerInfo {
            worker,
            state: WorkerState::Alive,
            last_heartbeat: now,
            cores,
            memory_mb,
            cores_used: 0,
            memory_used_mb: 0,
        };
        self.workers.insert(id, info);
    }

    pub(crate) fn alive_at(&self, address: Option<&RpcAddress>) -> Option<&WorkerId> {
        let found = self.workers.iter().find(|(_, known)| {
            known.state == WorkerState::Alive && known.worker.address() == address
        });
        found.map(|(id, _)| id)
    }

    /// Marks a worker dead; its executors are lost (D67). They are given back by application.
    pub(crate) fn worker_lost(&mut self, id: &WorkerId) -> Vec<(AppId, ExecutorId)> {
        let Some(worker) = self.workers.get_mut(id) else { return Vec::new() };
        worker.state = WorkerState::Dead;
        let mut lost = Vec::new();
        for (app_id, app) in &mut self.apps {
            app.executors.retain(|&executor, info| {
                let keep = info.worker != *id;
                if !keep {
                    lost.push((app_id.clone(), executor));
                }
                keep
            });
        }
        lost
    }

    /// Forgets workers that have been dead for long, and names those that are silent (D24, D25).
    pub(crate) fn silent(&mut self, timeout: Duration, now: Timestamp) -> Vec<WorkerId> {
        let silence = |worker: &WorkerInfo| now.since(worker.last_heartbeat);
        let forget = timeout.saturating_mul(DEAD_WORKER_PERSISTENCE + 1);
        self.workers
            .retain(|_, worker| worker.state == WorkerState::Alive || silence(worker) < forget);
        let silent = self
            .workers
            .iter()
            .filter(|(_, worker)| worker.state == WorkerState::Alive && silence(worker) > timeout);
        silent.map(|(id, _)| id.clone()).collect()
    }

    pub(crate) fn add_app(
        &mut self,
        id: AppId,
        description: AppDescription,
        driver: RpcEndpointRef<DriverApi>,
    ) {
        let executors = BTreeMap::new();
        let app = AppInfo { driver, executors, description, next_executor: 0, failures: 0 };
        self.apps.insert(id, app);
    }

    /// Takes an application out of the books, and what its executors used back.
    pub(crate) fn remove_app(&mut self, id: &AppId) -> Option<AppInfo> {
        let app = self.apps.remove(id)?;
        for info in app.executors.values() {
            give_back(&mut self.workers, info, &app.description);
        }
        Some(app)
    }

    /// Places as many executors as there is room for, application by application (D45). One that
    /// waits does not block those behind it.
    pub(crate) fn place(&mut self, placement: Placement) -> Vec<Placed> {
        let mut placed = Vec::new();
        for (app_id, app) in &mut self.apps {
            let used: u32 = app.executors.values().map(|info| info.cores).sum();
            let most = app.description.max_cores.unwrap_or(u32::MAX);
            let memory_mb = app.description.memory_per_executor_mb;
            let demand = Demand {
                cores: most.saturating_sub(used),
                cores_per_executor: app.description.cores_per_executor,
                memory_per_executor_mb: memory_mb,
            };
            let (ids, offers) = offers(&self.workers);
            for launch in schedule::assign(&offers, &demand, placement) {
                let Some(worker_id) = ids.get(launch.offer) else { continue };
                let Some(worker) = self.workers.get_mut(worker_id) else { continue };
                worker.cores_used += launch.cores;
                worker.memory_used_mb += memory_mb;
                let executor = ExecutorId(app.next_executor);
                app.next_executor += 1;
                let (worker, cores) = (worker_id.clone(), launch.cores);
                let info =
                    ExecutorInfo { worker: worker.clone(), cores, state: ExecutorState::Launching };
                app.executors.insert(executor, info);
                placed.push(Placed { app: app_id.clone(), executor, worker, cores, memory_mb });
            }
        }
        placed
    }

    /// Notes the new state of an executor; one that has ended gives back what it used (D68).
    pub(crate) fn executor_changed(
        &mut self,
        app_id: &AppId,
        executor: ExecutorId,
        state: ExecutorState,
        max_failures: Option<u32>,
    ) -> Consequence {
        let Some(app) = self.apps.get_mut(app_id) else { return Consequence::Unknown };
        let Some(info) = app.executors.get_mut(&executor) else { return Consequence::Unknown };
        if state == ExecutorState::Running {
            // D63: running is legal only from launching.
            if info.state != ExecutorState::Launching {
                return Consequence::Unknown;
            }
            app.failures = 0;
        }
        info.state = state;
        if !state.is_finished() {
            return Consequence::Noted;
        }
        if let Some(info) = app.executors.remove(&executor) {
            give_back(&mut self.workers, &info, &app.description);
        }
        if state == ExecutorState::Killed {
            return Consequence::Noted;
        }
        app.failures = app.failures.saturating_add(1);
        let running = app.executors.values().any(|info| info.state == ExecutorState::Running);
        match max_failures {
            Some(most) if app.failures >= most && !running => {
                Consequence::AppFailed { failures: app.failures }
            }
            _ => Consequence::Noted,
        }
    }

    pub(crate) fn summary(&self) -> MasterSummary {
        let workers = self.workers.iter().map(|(id, worker)| WorkerSummary {
            id: id.clone(),
            alive: worker.state == WorkerState::Alive,
            cores: worker.cores,
            cores_free: worker.cores.saturating_sub(worker.cores_used),
            memory_mb: worker.memory_mb,
            memory_free_mb: worker.memory_mb.saturating_sub(worker.memory_used_mb),
        });
        let waiting = self.apps.values().filter(|app| app.executors.is_empty()).count();
        let count = |apps| u32::try_from(apps).unwrap_or(u32::MAX);
        MasterSummary {
            workers: workers.collect(),
            waiting_apps: count(waiting),
            running_apps: count(self.apps.len().saturating_sub(waiting)),
        }
    }
}

/// The workers that may get work (D51), those with the most free cores first (D49).
fn offers(workers: &BTreeMap<WorkerId, WorkerInfo>) -> (Vec<WorkerId>, Vec<Offer>) {
    let alive = workers.iter().filter(|(_, worker)| worker.state == WorkerState::Alive);
    let mut offers: Vec<(WorkerId, Offer)> = alive
        .map(|(id, worker)| {
            let cores = worker.cores.saturating_sub(worker.cores_used);
            let memory_mb = worker.memory_mb.saturating_sub(worker.memory_used_mb);
            (id.clone(), Offer { cores, memory_mb })
        })
        .collect();
    offers.sort_by_key(|(_, offer)| std::cmp::Reverse(offer.cores));
    offers.into_iter().unzip()
}

fn give_back(
    workers: &mut BTreeMap<WorkerId, WorkerInfo>,
    info: &ExecutorInfo,
    description: &AppDescription,
) {
    if let Some(worker) = workers.get_mut(&info.worker) {
        worker.cores_used = worker.cores_used.saturating_sub(info.cores);
        let memory = description.memory_per_executor_mb;
        worker.memory_used_mb = worker.memory_used_mb.saturating_sub(memory);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rpc_actix::{RpcEnv, RpcEnvConfig};
    use std::time::SystemTime;

    const SECOND: Duration = Duration::from_secs(1);

    async fn env() -> RpcEnv {
        rpc_actix::create(RpcEnvConfig::client("books")).await.unwrap()
    }

    /// A ref to an endpoint that nobody has looked for.
    fn at<P>(env: &RpcEnv, port: u16) -> RpcEndpointRef<P> {
        env.unresolved_ref(format!("rpc://someone@127.0.0.1:{port}").parse().unwrap()).unwrap()
    }

    fn worker_id(port: u16) -> WorkerId {
        WorkerId::new(SystemTime::UNIX_EPOCH, "h", port)
    }

    /// Two workers of four cores each, and an application that wants executors of two.
    fn books(env: &RpcEnv, now: Timestamp) -> (Books, AppId) {
        let mut books = Books::default();
        for port in [1, 2] {
            books.add_worker(worker_id(port), at(env, port), (4, 1000), now);
        }
        let app = AppId::new(SystemTime::UNIX_EPOCH, 0);
        let description = AppDescription {
            name: "test".into(),
            max_cores: Some(6),
            cores_per_executor: Some(2),
            memory_per_executor_mb: 100,
        };
        books.add_app(app.clone(), description, at(env, 9));
        (books, app)
    }

    fn free(books: &Books) -> Vec<u32> {
        books.summary().workers.iter().map(|worker| worker.cores_free).collect()
    }

    #[tokio::test]
    async fn what_an_executor_used_comes_back() {
        let (env, now) = (env().await, Timestamp::START);
        let (mut books, app) = books(&env, now);
        assert_eq!(books.place(Placement::Pack).len(), 3);
        assert_eq!((free(&books), books.place(Placement::Pack).len()), (vec![0, 2], 0));
        let change =
            |books: &mut Books, state| books.executor_changed(&app, ExecutorId(0), state, Some(10));
        assert_eq!(change(&mut books, ExecutorState::Running), Consequence::Noted);
        assert_eq!(change(&mut books, ExecutorState::Running), Consequence::Unknown, "D63");
        assert_eq!(change(&mut books, ExecutorState::Exited), Consequence::Noted);
        assert_eq!(change(&mut books, ExecutorState::Exited), Consequence::Unknown);
        assert_eq!(free(&books), [2, 2]);
        let again = books.place(Placement::SpreadOut);
        assert_eq!(again[0].executor, ExecutorId(3), "numbers are not used again");
        assert!(books.remove_app(&app).is_some());
        assert_eq!(free(&books), [4, 4]);
        env.shutdown().await;
    }

    #[tokio::test]
    async fn a_lost_worker_loses_its_executors_and_gets_no_work() {
        let (env, now) = (env().await, Timestamp::START);
        let (mut books, app) = books(&env, now);
        books.place(Placement::SpreadOut);
        let lost = books.worker_lost(&worker_id(1));
        assert_eq!(lost.len() + books.apps[&app].executors.len(), 3);
        assert_eq!(books.alive_at(Some(at::<WorkerApi>(&env, 1).address().unwrap())), None);
        let placed = books.place(Placement::SpreadOut);
        assert!(placed.iter().all(|placed| placed.worker == worker_id(2)));
        // D14: a new worker at the address takes the place of the dead one.
        books.add_worker(worker_id(3), at(&env, 1), (1, 100), now);
        assert_eq!(books.workers.keys().collect::<Vec<_>>(), [&worker_id(2), &worker_id(3)]);
        env.shutdown().await;
    }

    #[tokio::test]
    async fn silent_workers_are_named_then_forgotten() {
        let (env, start) = (env().await, Timestamp::START);
        let (mut books, _) = books(&env, start);
        assert_eq!(books.silent(SECOND, start + SECOND), []);
        let later = start + 3 * SECOND;
        books.workers.get_mut(&worker_id(2)).unwrap().last_heartbeat = later;
        assert_eq!(books.silent(SECOND, later), [worker_id(1)]);
        books.worker_lost(&worker_id(1));
        assert_eq!(books.silent(SECOND, start + 15 * SECOND), [worker_id(2)]);
        assert_eq!(books.workers.len(), 2, "the dead one is still shown");
        books.silent(SECOND, start + 16 * SECOND);
        assert_eq!(books.workers.len(), 1);
        env.shutdown().await;
    }

    #[tokio::test]
    async fn failures_in_a_row_end_the_application() {
        let env = env().await;
        let (mut books, app) = books(&env, Timestamp::START);
        let most = Some(2);
        let mut fail = |id, state| books.executor_changed(&app, ExecutorId(id), state, most);
        assert_eq!(fail(0, ExecutorState::Failed), Consequence::Unknown, "not placed yet");
        books.place(Placement::SpreadOut);
        let mut change = |id, state| books.executor_changed(&app, ExecutorId(id), state, most);
        assert_eq!(change(0, ExecutorState::Failed), Consequence::Noted);
        assert_eq!(change(1, ExecutorState::Running), Consequence::Noted, "resets the count");
        assert_eq!(change(2, ExecutorState::Failed), Consequence::Noted);
        books.place(Placement::SpreadOut);
        let mut change = |id, state| books.executor_changed(&app, ExecutorId(id), state, most);
        assert_eq!(change(3, ExecutorState::Failed), Consequence::Noted, "one is running");
        assert_eq!(change(4, ExecutorState::Killed), Consequence::Noted, "does not count");
        assert_eq!(change(1, ExecutorState::Exited), Consequence::AppFailed { failures: 3 });
        env.shutdown().await;
    }
}
