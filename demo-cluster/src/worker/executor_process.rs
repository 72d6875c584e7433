//! An executor's process, from its start to its end.

use crate::process;
use crate::protocol::ExecutorState;
use anyhow::Context;
use std::ffi::OsString;
use std::fs::{self, File};
use std::io::Write;
use std::path::PathBuf;
use std::process::{ExitStatus, Stdio};
use std::time::Duration;
use tokio::process::{Child, Command};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

/// D65: how long an executor has to end by itself.
const KILL_WAIT: Duration = Duration::from_secs(10);

/// What to run, and in which directory: standard output and standard error go to files there
/// (D57).
#[derive(Debug)]
pub(crate) struct ExecutorCommand {
    pub(crate) program: PathBuf,
    pub(crate) arguments: Vec<OsString>,
    pub(crate) directory: PathBuf,
}

/// A running executor. Dropping it, or [`kill`](Self::kill), ends it.
#[derive(Debug)]
pub(crate) struct ExecutorProcess {
    stop: Option<oneshot::Sender<()>>,
    ended: JoinHandle<()>,
}

/// How an executor ended.
#[derive(Debug)]
pub(crate) struct ExecutorEnd {
    pub(crate) state: ExecutorState,
    pub(crate) message: String,
}

impl ExecutorProcess {
    /// Starts the process; `on_end` is called when it is gone.
    pub(crate) fn launch(
        command: &ExecutorCommand,
        on_end: impl FnOnce(ExecutorEnd) + Send + 'static,
    ) -> anyhow::Result<Self> {
        let child = spawn(command)
            .with_context(|| format!("cannot launch {}", command.program.display()))?;
        let (stop, stopped) = oneshot::channel();
        let directory = command.directory.clone();
        let ended = tokio::spawn(async move {
            let mut end = supervise(child, stopped).await;
            if end.state != ExecutorState::Killed {
                let log = directory.join("stderr");
                end.message = format!("{} (its log: {})", end.message, log.display());
            }
            on_end(end);
        });
        Ok(Self { stop: Some(stop), ended })
    }

    /// Asks the executor to end, and sees to it that it does.
    pub(crate) fn kill(&mut self) {
        self.stop = None;
    }

    /// Kills the executor and waits for its end.
    pub(crate) async fn killed(mut self) {
        self.kill();
        let _ = self.ended.await;
    }
}

fn spawn(command: &ExecutorCommand) -> anyhow::Result<Child> {
    fs::create_dir_all(&command.directory)
        .with_context(|| format!("cannot make the directory {}", command.directory.display()))?;
    let stdout = File::create(command.directory.join("stdout"))?;
    let mut stderr = File::create(command.directory.join("stderr"))?;
    writeln!(stderr, "Launch command: {} {:?}", command.program.display(), command.arguments)?;
    let mut builder = Command::new(&command.program);
    builder.args(&command.arguments).stdin(Stdio::piped()).stdout(stdout).stderr(stderr);
    Ok(process::in_own_group(&mut builder).spawn()?)
}

/// Waits for the end of the child, or ends it: closing its standard input asks it to, and after a
/// while it is killed.
async fn supervise(mut child: Child, stopped: oneshot::Receiver<()>) -> ExecutorEnd {
    // Waiting for a child closes its standard input, so it is taken out before.
    let stdin = child.stdin.take();
    tokio::select! {
        // A wait that is dropped has changed nothing.
        status = child.wait() => return ended(status),
        _ = stopped => drop(stdin),
    }
    if let Ok(status) = tokio::time::timeout(KILL_WAIT, child.wait()).await {
        let ExecutorEnd { message, .. } = ended(status);
        return ExecutorEnd { state: ExecutorState::Killed, message };
    }
    let message = match child.kill().await {
        Ok(()) => "killed, because it did not end by itself".to_owned(),
        Err(error) => format!("cannot be killed, and will likely be orphaned: {error}"),
    };
    ExecutorEnd { state: ExecutorState::Killed, message }
}

fn ended(status: std::io::Result<ExitStatus>) -> ExecutorEnd {
    match status {
        Ok(status) => {
            ExecutorEnd { state: ExecutorState::Exited, message: format!("executor: {status}") }
        }
        Err(error) => ExecutorEnd { state: ExecutorState::Failed, message: error.to_string() },
    }
}
