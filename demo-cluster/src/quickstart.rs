//! A whole cluster in one command: master and workers as child processes, the driver here.

use crate::cli::QuickstartArgs;
use crate::driver::Prepared;
use crate::jobs::JobRegistry;
use crate::process::{Role, interrupted};
use crate::progress::{ProgressMode, print_to};
use crate::role::{prepare, run_on, stopped_by_user};
use anyhow::Context;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;
use tokio::time::timeout;

/// How long master and workers have to come up.
const START: Duration = Duration::from_secs(60);
/// How much is read if no input is given.
const DEFAULT_MIB: &str = "24";
const WORD_COUNT: &str = "word-count";

/// Starts a cluster, runs the job, stops the cluster. Dropped in the middle, it kills what it
/// has started.
pub(crate) async fn quickstart(
    args: QuickstartArgs,
    jobs: &JobRegistry,
) -> anyhow::Result<ExitCode> {
    // A job that cannot be run needs no cluster.
    let prepared = prepare(&job_of(&args.job, jobs)?, &args.run, jobs)?;
    let folder = WorkFolder::new()?;
    let mut cluster = Cluster::default();
    let result = tokio::select! {
        // Dropped, it leaves what it has started in `cluster`, and its driver's env closes.
        result = run_in(&mut cluster, &args, prepared, &folder.0) => result,
        why = interrupted() => Ok(stopped_by_user(why?)),
    };
    cluster.stop().await;
    result
}

async fn run_in(
    cluster: &mut Cluster,
    args: &QuickstartArgs,
    prepared: Prepared,
    folder: &Path,
) -> anyhow::Result<ExitCode> {
    let master = cluster.start(args, folder).await?;
    if args.run.progress == ProgressMode::Auto {
        let text = format!("cluster: master {master}, {} workers\n", args.workers);
        print_to(&mut io::stderr(), &text);
    }
    run_on(&master, &args.run, prepared).await
}

/// What was started. Dropped, it is killed.
#[derive(Debug, Default)]
struct Cluster {
    master: Option<Role>,
    workers: Vec<Role>,
}

impl Cluster {
    /// Starts all and waits until the workers are registered; gives the master's URI.
    async fn start(&mut self, args: &QuickstartArgs, folder: &Path) -> anyhow::Result<String> {
        let arguments = ["master", "--port=0"].map(str::to_owned);
        let master = self.master.insert(Role::start("master", &arguments)?);
        let ready = timeout(START, master.ready("listening at ")).await;
        let uri = ready.context("the master did not come up in time")??;
        let cores = args.worker_cores.unwrap_or_else(|| share_of_machine(args.workers));
        for number in 1..=args.workers {
            let arguments = [
                "worker".to_owned(),
                format!("--master={uri}"),
                format!("--cores={cores}"),
                format!("--work-dir={}", folder.join(format!("worker-{number}")).display()),
            ];
            self.workers.push(Role::start(&format!("worker {number}"), &arguments)?);
        }
        for worker in &mut self.workers {
            let ready = timeout(START, worker.ready("registered ")).await;
            ready.context("a worker did not register in time")??;
        }
        Ok(uri)
    }

    /// Workers first, and these all at once, then the master (D6).
    async fn stop(mut self) {
        self.workers.iter_mut().for_each(Role::ask_to_stop);
        for role in self.workers.into_iter().chain(self.master) {
            role.stop().await;
        }
    }
}

fn share_of_machine(workers: u32) -> u32 {
    let cores = std::thread::available_parallelism().map_or(1, |cores| cores.get());
    (u32::try_from(cores).unwrap_or(u32::MAX) / workers.max(1)).max(1)
}

/// The job and its arguments: as given, or a count of the paths given, or of the default input.
fn job_of(given: &[String], jobs: &JobRegistry) -> anyhow::Result<Vec<String>> {
    let word_count = [WORD_COUNT.to_owned()];
    let Some(first) = given.first() else {
        let input = default_input()?.into_iter();
        let options = ["--ext", "rs,md,toml", "--max-mib", DEFAULT_MIB].map(str::to_owned);
        return Ok(word_count.into_iter().chain(options).chain(input).collect());
    };
    let is_path = Path::new(first).exists();
    match jobs.find(first) {
        Ok(_) => Ok(given.to_vec()),
        Err(_) if is_path || first.starts_with('-') => {
            Ok(word_count.into_iter().chain(given.iter().cloned()).collect())
        }
        Err(unknown) => Err(unknown.context(format!("{first:?} is neither a path nor a job"))),
    }
}

/// Text that is on any machine that has built this: the sources of the dependencies, or else
/// this project's own.
fn default_input() -> anyhow::Result<Vec<String>> {
    let home = std::env::var_os("CARGO_HOME").map(PathBuf::from);
    let home = home.or_else(|| Some(PathBuf::from(std::env::var_os("HOME")?).join(".cargo")));
    let sources = home.map(|home| home.join("registry").join("src"));
    let own = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap_or_else(|| Path::new("."));
    let own = ["rpc-core", "rpc-actix", "demo-cluster", "tests", "docs"].map(|part| own.join(part));
    let mut input = Vec::new();
    for path in sources.into_iter().chain(own) {
        let has_some = fs::read_dir(&path).is_ok_and(|mut entries| entries.next().is_some());
        if has_some && let Some(path) = path.to_str() {
            input.push(path.to_owned());
        }
        if input.first().is_some_and(|first| first.ends_with("src")) {
            break;
        }
    }
    anyhow::ensure!(!input.is_empty(), "no text found to count words in: give a path");
    Ok(input)
}

/// Where the workers work; it goes when this is dropped.
#[derive(Debug)]
struct WorkFolder(PathBuf);

impl WorkFolder {
    fn new() -> anyhow::Result<Self> {
        let path = std::env::temp_dir().join(format!("quickstart-{}", std::process::id()));
        fs::create_dir_all(&path).with_context(|| format!("cannot make {}", path.display()))?;
        Ok(Self(path))
    }
}

impl Drop for WorkFolder {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_dir_all(&self.0) {
            tracing::debug!(%error, "the work folder stays");
        }
    }
}
