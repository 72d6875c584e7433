//! A job from its plan to its outcome, in the driver's process.

use super::{Driver, DriverEvent, Plan};
use crate::jobs::AnyJob;
use crate::progress::Progress;
use crate::protocol::{
    AppDescription, DRIVER, DriverApi, MasterApi, RegisterApplication, RegisteredApplication,
    RequestMasterState, UnregisterApplication,
};
use crate::summary::Summary;
use anyhow::Context;
use bytes::Bytes;
use rpc_actix::{RpcEndpointRef, RpcEnv, RpcEnvConfig};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::mpsc;
use tokio::time::timeout;

/// D28, with shorter waits: someone sits before this and waits for an answer.
const REGISTRATION_TRIES: u32 = 3;
const REGISTRATION_WAIT: Duration = Duration::from_secs(1);
/// D52: how long without executors before a warning.
const WARN_AFTER: Duration = Duration::from_secs(3);

/// A job that can be run: its arguments are read and its input is found.
#[derive(Debug)]
pub(crate) struct Prepared {
    pub(crate) job: Arc<dyn AnyJob>,
    pub(crate) plan: Plan,
}

/// How a job is run.
#[derive(Clone, Debug)]
pub(crate) struct RunOptions {
    pub(crate) master: String,
    pub(crate) description: AppDescription,
    /// How long to go on without any executor.
    pub(crate) timeout: Duration,
    pub(crate) verify: bool,
}

/// What came of a job.
#[derive(Debug)]
pub(crate) struct JobReport {
    pub(crate) outcome: String,
    pub(crate) summary: Summary,
    /// With `verify`: how long a single thread took to find the same.
    pub(crate) verified: Option<Duration>,
}

/// Runs a job on the cluster of a master.
pub(crate) async fn run_job(
    prepared: Prepared,
    options: RunOptions,
    progress: &mut Progress,
) -> anyhow::Result<JobReport> {
    let Prepared { job, plan } = prepared;
    let params = plan.params.clone();
    progress.planned(&plan);
    let env = rpc_actix::create(RpcEnvConfig::server("driver", "127.0.0.1:0")).await?;
    let result = run_in(&env, plan, &options, progress).await;
    env.shutdown().await;
    progress.end();
    let (parts, summary) = result?;
    let finished = job.finish(&params, &parts)?;
    let verified = if options.verify {
        let start = Instant::now();
        let verify = tokio::task::spawn_blocking(finished.verify);
        if let Some(other) = verify.await?? {
            anyhow::bail!(
                "the result is not that of a single thread.\n\nHere:\n{}\n\nSingle thread:\n{other}",
                finished.text
            );
        }
        Some(start.elapsed())
    } else {
        None
    };
    Ok(JobReport { outcome: finished.text, summary, verified })
}

async fn run_in(
    env: &RpcEnv,
    plan: Plan,
    options: &RunOptions,
    progress: &mut Progress,
) -> anyhow::Result<(Vec<Bytes>, Summary)> {
    let master = find_master(env, &options.master).await?;
    let (events, mut incoming) = mpsc::unbounded_channel();
    let driver = env.setup_endpoint(DRIVER, Driver::new(plan, events)).await?;
    let driver = driver.into_protocol::<DriverApi>();
    let start = Instant::now();
    let description = options.description.clone();
    let register = RegisterApplication { description, driver };
    let RegisteredApplication { app } = master.ask(register).await?;
    progress.registered(&app);
    let mut summary = Summary::new(start);
    let result = follow(&mut incoming, &master, options, progress, &mut summary).await;
    // If the master does not hear it, it notices that the connection closes.
    let _ = master.send(UnregisterApplication { app });
    result.map(|parts| (parts, summary))
}

async fn find_master(env: &RpcEnv, uri: &str) -> anyhow::Result<RpcEndpointRef<MasterApi>> {
    let mut tries = 1;
    loop {
        match env.endpoint_ref(uri).await {
            Ok(master) => return Ok(master),
            Err(error) if tries < REGISTRATION_TRIES && error.is_unreachable() => {
                tracing::info!(tries, %error, "the master cannot be reached, trying again");
            }
            Err(error) => {
                return Err(error).with_context(|| format!("no master at {uri} ({tries} tries)"));
            }
        }
        tries += 1;
        tokio::time::sleep(REGISTRATION_WAIT).await;
    }
}

/// Passes events on until the job is over, or has been without executors for too long.
async fn follow(
    events: &mut mpsc::UnboundedReceiver<DriverEvent>,
    master: &RpcEndpointRef<MasterApi>,
    options: &RunOptions,
    progress: &mut Progress,
    summary: &mut Summary,
) -> anyhow::Result<Vec<Bytes>> {
    loop {
        let event = if summary.has_executors() {
            events.recv().await
        } else {
            without_executors(events, master, options, progress).await?
        };
        let event = event.context("the driver endpoint is gone")?;
        summary.note(&event);
        progress.show(&event);
        match event {
            DriverEvent::Finished { parts, .. } => return Ok(parts),
            DriverEvent::Failed(message) => anyhow::bail!("the job failed: {message}"),
            _ => {}
        }
    }
}

/// The next event; a warning, and then an error, if it does not come.
async fn without_executors(
    events: &mut mpsc::UnboundedReceiver<DriverEvent>,
    master: &RpcEndpointRef<MasterApi>,
    options: &RunOptions,
    progress: &Progress,
) -> anyhow::Result<Option<DriverEvent>> {
    let warn_after = WARN_AFTER.min(options.timeout);
    if let Ok(event) = timeout(warn_after, events.recv()).await {
        return Ok(event);
    }
    let reason = why_none(master, options).await;
    progress.warn(&format!("no executors yet: {reason}"));
    if let Ok(event) = timeout(options.timeout.saturating_sub(warn_after), events.recv()).await {
        return Ok(event);
    }
    let seconds = options.timeout.as_secs_f64();
    let reason = why_none(master, options).await;
    anyhow::bail!("no executors within {seconds:.0} s (--timeout): {reason}")
}

/// What the master says about that.
async fn why_none(master: &RpcEndpointRef<MasterApi>, options: &RunOptions) -> String {
    let state = match master.ask(RequestMasterState).await {
        Ok(state) => state,
        Err(error) => return format!("the master at {} does not answer: {error}", options.master),
    };
    let alive: Vec<_> = state.workers.iter().filter(|worker| worker.alive).collect();
    if alive.is_empty() {
        return format!(
            "the master at {} has no workers; start one with: worker --master {}",
            options.master, options.master
        );
    }
    let wanted = options.description.cores_per_executor.unwrap_or(1);
    let memory = options.description.memory_per_executor_mb;
    let fits = alive.iter().any(|worker| worker.cores >= wanted && worker.memory_mb >= memory);
    if !fits {
        return format!(
            "an executor needs {wanted} cores and {memory} MiB, which none of the {} workers has",
            alive.len()
        );
    }
    let free: u32 = alive.iter().map(|worker| worker.cores_free).sum();
    let all: u32 = alive.iter().map(|worker| worker.cores).sum();
    format!("{free} of {all} cores are free, {} applications run", state.running_apps)
}
