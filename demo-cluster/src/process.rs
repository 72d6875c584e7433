//! Child processes, and how they notice that their parent is gone.

use anyhow::Context;
use std::io::{self, Read};
use std::path::PathBuf;
use std::process::Stdio;
use std::thread;
use std::time::Duration;
use tokio::io::{AsyncBufReadExt, BufReader, Lines};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::oneshot;

/// How long a child has to end by itself once its standard input is closed.
const STOP_WAIT: Duration = Duration::from_secs(15);

/// A process group of its own, so that Ctrl-C in a terminal reaches the parent alone, which then
/// stops its children in order.
pub(crate) fn in_own_group(command: &mut Command) -> &mut Command {
    command.process_group(0).kill_on_drop(true)
}

/// This program, to be started in another role.
pub(crate) fn own_program() -> anyhow::Result<PathBuf> {
    std::env::current_exe().context("cannot find this program's own file")
}

/// This program in another role. Its standard input stays open for as long as this value lives,
/// whose end kills it if it has not ended before.
#[derive(Debug)]
pub(crate) struct Role {
    name: String,
    child: Child,
    stdin: Option<ChildStdin>,
    lines: Lines<BufReader<ChildStdout>>,
}

impl Role {
    pub(crate) fn start(name: &str, arguments: &[String]) -> anyhow::Result<Self> {
        let mut command = Command::new(own_program()?);
        command.arg(crate::role::ROLE).args(arguments);
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = in_own_group(&mut command)
            .spawn()
            .with_context(|| format!("cannot start the {name}"))?;
        let stdin = child.stdin.take();
        let stdout = child.stdout.take().context("a child has no standard output")?;
        let lines = BufReader::new(stdout).lines();
        Ok(Self { name: name.to_owned(), child, stdin, lines })
    }

    /// The first line that it prints, without `prefix`: it is up.
    pub(crate) async fn ready(&mut self, prefix: &str) -> anyhow::Result<String> {
        let line = self.lines.next_line().await?;
        let line = line.with_context(|| format!("the {} ended before it was up", self.name))?;
        let rest = line.strip_prefix(prefix);
        rest.map(str::to_owned).with_context(|| format!("the {} said {line:?}", self.name))
    }

    /// Closes its standard input, at which it ends.
    pub(crate) fn ask_to_stop(&mut self) {
        self.stdin = None;
    }

    /// Ends the process: asks it to, and kills it if it does not.
    pub(crate) async fn stop(mut self) {
        self.ask_to_stop();
        if tokio::time::timeout(STOP_WAIT, self.child.wait()).await.is_err() {
            tracing::warn!(name = self.name, "did not stop by itself, killing it");
            let _ = self.child.kill().await;
        }
    }
}

/// Resolves when standard input ends: the parent, who holds its other end, is gone or wants this
/// process to end.
pub(crate) fn parent_gone() -> oneshot::Receiver<()> {
    let (gone, receiver) = oneshot::channel();
    // A thread, because a read from standard input cannot be cancelled; it ends with the process.
    thread::spawn(move || {
        let mut buffer = [0; 64];
        loop {
            match io::stdin().read(&mut buffer) {
                Ok(1..) => {}
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Ok(0) | Err(_) => break,
            }
        }
        let _ = gone.send(());
    });
    receiver
}

/// Resolves at Ctrl-C, at the polite signal to end, and when the terminal closes.
pub(crate) async fn interrupted() -> anyhow::Result<&'static str> {
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    let mut hangup = signal(SignalKind::hangup())?;
    // A signal that arrives between polls is kept by its stream.
    Ok(tokio::select! {
        _ = interrupt.recv() => "interrupted",
        _ = terminate.recv() => "terminated",
        _ = hangup.recv() => "terminal closed",
    })
}
