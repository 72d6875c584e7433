//! What a process is: the mains of all programs, each of which can be started as any other.

use crate::cli::{ExecutorArgs, MasterArgs, RunArgs, SubmitArgs, WorkerArgs};
use crate::driver::{Plan, Prepared, RunOptions, run_job};
use crate::executor::{ExecutorOptions, run_executor};
use crate::ids::{AppId, ExecutorId, WorkerId};
use crate::jobs::JobRegistry;
use crate::master::Master;
use crate::process::{self, interrupted, parent_gone};
use crate::progress::{Progress, print_to};
use crate::protocol::{MASTER, WORKER};
use crate::quickstart::quickstart;
use crate::worker::{Worker, WorkerEvent, WorkerOptions};
use anyhow::Context;
use clap::Parser;
use rpc_actix::RpcEnvConfig;
use std::ffi::OsString;
use std::fs;
use std::io;
use std::process::ExitCode;
use std::time::{Duration, SystemTime};
use tokio::sync::mpsc;
use tracing_subscriber::EnvFilter;

/// The first argument of a child process; the second one says which role it has.
pub(crate) const ROLE: &str = "__role";

/// The programs of this package.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Program {
    /// The cluster's master.
    Master,
    /// A worker.
    Worker,
    /// Runs a job on a cluster.
    Submit,
    /// A whole cluster and a job in one command.
    Quickstart,
}

/// The `main` of a program: reads the command line, and runs until it is done. `jobs` are those
/// that it can run, in whatever role.
#[must_use]
pub fn run(program: Program, jobs: &JobRegistry) -> ExitCode {
    start_logging();
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return failed(&error.into()),
    };
    let result = runtime.block_on(dispatch(program, jobs));
    // A task of a job may still hold a thread; nobody waits for it any more.
    runtime.shutdown_background();
    match result {
        Ok(code) => code,
        Err(error) => failed(&error),
    }
}

fn failed(error: &anyhow::Error) -> ExitCode {
    print_to(&mut io::stderr(), &format!("error: {}\n", with_causes(error)));
    ExitCode::FAILURE
}

/// An error with its causes, but for those that it names itself.
fn with_causes(error: &anyhow::Error) -> String {
    error.chain().fold(String::new(), |text, cause| match cause.to_string() {
        cause if text.is_empty() => cause,
        cause if text.contains(&cause) => text,
        cause => format!("{text}: {cause}"),
    })
}

/// Logs go to standard error, warnings and worse unless `RUST_LOG` says otherwise.
fn start_logging() {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("warn"));
    let subscriber = tracing_subscriber::fmt().with_env_filter(filter).with_writer(io::stderr);
    // It fails where a program that uses this library has its own.
    let _ = subscriber.try_init();
}

async fn dispatch(program: Program, jobs: &JobRegistry) -> anyhow::Result<ExitCode> {
    let mut arguments: Vec<OsString> = std::env::args_os().collect();
    let child = arguments.get(1).is_some_and(|first| first == ROLE);
    if !child {
        return match program {
            Program::Master => master(parse(arguments), false).await,
            Program::Worker => worker(parse(arguments), false).await,
            Program::Submit => submit(parse_with_jobs(arguments, jobs), jobs).await,
            Program::Quickstart => quickstart(parse_with_jobs(arguments, jobs), jobs).await,
        };
    }
    arguments.drain(..2);
    let role = arguments.first().and_then(|role| role.to_str()).unwrap_or("").to_owned();
    match role.as_str() {
        "master" => master(parse(arguments), true).await,
        "worker" => worker(parse(arguments), true).await,
        "executor" => executor(parse(arguments), jobs).await,
        _ => anyhow::bail!("{role:?} is not a role"),
    }
}

fn parse<T: Parser>(arguments: Vec<OsString>) -> T {
    T::parse_from(arguments)
}

/// As `parse`, with the jobs in the help.
fn parse_with_jobs<T: Parser>(arguments: Vec<OsString>, jobs: &JobRegistry) -> T {
    let mut command = T::command().after_help(jobs.help());
    let matches = command.clone().get_matches_from(arguments);
    T::from_arg_matches(&matches).unwrap_or_else(|error| error.format(&mut command).exit())
}

pub(crate) fn stopped_by_user(why: &str) -> ExitCode {
    print_to(&mut io::stderr(), &format!("\n{why}\n"));
    // As shells report a program that Ctrl-C ended.
    ExitCode::from(130)
}

/// Resolves when this process is to end: its parent is gone, or someone asks for it.
async fn end_asked(child: bool) -> anyhow::Result<&'static str> {
    if !child {
        return interrupted().await;
    }
    let gone = parent_gone();
    // Both only listen, so either may be dropped.
    tokio::select! {
        _ = gone => Ok("the parent process is gone"),
        why = interrupted() => why,
    }
}

async fn master(args: MasterArgs, child: bool) -> anyhow::Result<ExitCode> {
    let end = end_asked(child);
    let at = format!("{}:{}", args.host, args.port);
    let env = rpc_actix::create(RpcEnvConfig::server("master", at)).await?;
    let master = env.setup_endpoint(MASTER, Master::new(args.options())).await?;
    print_to(&mut io::stdout(), &format!("listening at {master}\n"));
    let why = end.await?;
    tracing::info!(why, "master ends");
    env.shutdown().await;
    Ok(ExitCode::SUCCESS)
}

async fn worker(args: WorkerArgs, child: bool) -> anyhow::Result<ExitCode> {
    let at = format!("{}:{}", args.host, args.port);
    // Executors get time to end before the worker does.
    let config = RpcEnvConfig::server("worker", at).with_drain_timeout(Duration::from_secs(15));
    let env = rpc_actix::create(config).await?;
    let port = env.address().context("the worker does not listen")?.port();
    let id = WorkerId::new(SystemTime::now(), &args.host, port);
    let all_cores = || std::thread::available_parallelism().map_or(1, |cores| cores.get());
    let cores = args.cores.unwrap_or_else(|| u32::try_from(all_cores()).unwrap_or(u32::MAX));
    let options = WorkerOptions {
        id: id.clone(),
        master: args.master,
        cores,
        memory_mb: args.memory.unwrap_or_else(machine_memory_mb),
        work_dir: args.work_dir.unwrap_or_else(|| std::env::temp_dir().join("demo-cluster-work")),
        registration_wait: Duration::from_millis(args.registration_wait_ms),
        executor_program: match args.executor_program {
            Some(program) => program,
            None => process::own_program()?,
        },
    };
    let (events, mut incoming) = mpsc::unbounded_channel();
    env.setup_endpoint(WORKER, Worker::new(options, events)).await?;
    let mut end = std::pin::pin!(end_asked(child));
    let result = loop {
        // Both keep what they have not given out yet.
        let event = tokio::select! {
            event = incoming.recv() => event,
            why = &mut end => {
                tracing::info!(why = why?, "worker ends");
                break Ok(ExitCode::SUCCESS);
            }
        };
        match event {
            Some(WorkerEvent::Registered(id)) => {
                print_to(&mut io::stdout(), &format!("registered {id}\n"));
            }
            Some(WorkerEvent::Fatal(message)) => break Err(anyhow::anyhow!(message)),
            None => break Err(anyhow::anyhow!("the worker endpoint is gone")),
        }
    };
    env.shutdown().await;
    result
}

/// D3: all of the machine's memory but a gigabyte.
fn machine_memory_mb() -> u64 {
    let text = fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let total = text.lines().find_map(|line| line.strip_prefix("MemTotal:"));
    let kib = total.and_then(|rest| rest.split_whitespace().next()?.parse::<u64>().ok());
    kib.map_or(1024, |kib| (kib / 1024).saturating_sub(1024)).max(512)
}

async fn executor(args: ExecutorArgs, jobs: &JobRegistry) -> anyhow::Result<ExitCode> {
    let options = ExecutorOptions {
        driver: args.driver,
        worker: args.worker,
        worker_id: WorkerId::from(args.worker_id),
        app: AppId::parse(&args.app)?,
        id: ExecutorId(args.executor),
        cores: args.cores,
    };
    // A running task is not waited for: nobody wants its outcome.
    let why = tokio::select! {
        why = run_executor(options, jobs.clone()) => why?,
        why = end_asked(true) => why?.to_owned(),
    };
    tracing::info!(why, "executor ends");
    // A task may hold a thread of the env for as long as it computes.
    std::process::exit(0);
}

async fn submit(args: SubmitArgs, jobs: &JobRegistry) -> anyhow::Result<ExitCode> {
    let SubmitArgs { master, run, job } = args;
    let prepared = prepare(&job, &run, jobs)?;
    // A driver that is dropped closes its connections, which ends its application.
    tokio::select! {
        code = run_on(&master, &run, prepared) => code,
        why = interrupted() => Ok(stopped_by_user(why?)),
    }
}

/// Reads a job's name and arguments, and finds its input. Arguments that are wrong, or `--help`,
/// end the process here, before anything was started.
pub(crate) fn prepare(
    job: &[String],
    run: &RunArgs,
    jobs: &JobRegistry,
) -> anyhow::Result<Prepared> {
    let (name, arguments) = job.split_first().context("no job")?;
    let job = jobs.find(name)?.clone();
    let params = job.params(arguments).unwrap_or_else(|error| error.exit());
    let splits = job.splits(&params)?;
    let plan = Plan { job: job.name(), params, splits, partitions: run.partitions };
    Ok(Prepared { job, plan })
}

/// Runs a job and prints what came of it.
pub(crate) async fn run_on(
    master: &str,
    run: &RunArgs,
    prepared: Prepared,
) -> anyhow::Result<ExitCode> {
    let options = RunOptions {
        master: master.to_owned(),
        description: run.description(prepared.plan.job),
        timeout: Duration::from_secs(run.timeout),
        verify: run.verify,
    };
    let mut progress = Progress::new(run.progress);
    let report = run_job(prepared, options, &mut progress).await?;
    progress.report(&report);
    Ok(ExitCode::SUCCESS)
}
