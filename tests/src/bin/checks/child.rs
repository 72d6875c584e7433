//! Other processes: this program again, in another role.

use crate::lan::{Host, Lan};
use crate::messages::{Mirror, Recorder, Slow};
use crate::report::say;
use anyhow::Context;
use rpc_actix::{RpcEnv, RpcEnvConfig};
use rustix::process::{Pid, Signal, kill_process};
use std::future::Future;
use std::io::{BufRead, BufReader, Read, Write};
use std::process::{Child, ChildStdin, ChildStdout, Command, ExitCode, Stdio};
use std::thread::JoinHandle;
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};

/// The argument that makes this program a child.
pub(crate) const ROLE: &str = "serve";

/// The role of a child that serves the endpoints of most checks.
const SERVER: &str = "server";

/// How a child's last line begins, if it fails.
const ERROR: &str = "error: ";

/// A running child; it ends when this is dropped, or when this process does.
#[derive(Debug)]
pub(crate) struct Process {
    child: Child,
    input: Option<ChildStdin>,
    output: BufReader<ChildStdout>,
}

impl Process {
    pub(crate) fn start(role: &str, args: &[&str]) -> anyhow::Result<Self> {
        let program = std::env::current_exe().context("this program's path")?;
        let mut command = Command::new(program);
        command.arg(ROLE).arg(role).args(args);
        Self::spawn(command, role)
    }

    /// The same on a host of a [`Lan`].
    pub(crate) fn start_on(
        (lan, host): (&Lan, Host),
        role: &str,
        args: &[&str],
    ) -> anyhow::Result<Self> {
        let program = std::env::current_exe().context("this program's path")?;
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &lan.namespace(host)]);
        command.arg(program).arg(ROLE).arg(role).args(args);
        Self::spawn(command, role)
    }

    /// The same with as many descriptors as the system lets it have.
    pub(crate) fn start_with_descriptors(role: &str, args: &[&str]) -> anyhow::Result<Self> {
        let program = std::env::current_exe().context("this program's path")?;
        let mut command = Command::new("sh");
        command.args(["-c", r#"ulimit -n "$(ulimit -Hn)"; exec "$0" "$@""#]);
        command.arg(program).arg(ROLE).arg(role).args(args);
        Self::spawn(command, role)
    }

    /// The same with so many descriptors, as a shell reads it. What it logs can be had when it has ended.
    pub(crate) fn start_logging(
        descriptors: &str,
        role: &str,
        args: &[&str],
    ) -> anyhow::Result<(Self, JoinHandle<String>)> {
        let program = std::env::current_exe().context("this program's path")?;
        let mut command = Command::new("sh");
        command.args(["-c", &format!(r#"ulimit -n "{descriptors}"; exec "$0" "$@""#)]);
        command.arg(program).arg(ROLE).arg(role).args(args).stderr(Stdio::piped());
        let mut process = Self::spawn(command, role)?;
        let mut errors = process.child.stderr.take().context("the child's log")?;
        let log = std::thread::spawn(move || {
            let mut log = String::new();
            // What is not text is no line that anybody looks for.
            let _ = errors.read_to_string(&mut log);
            log
        });
        Ok((process, log))
    }

    fn spawn(mut command: Command, role: &str) -> anyhow::Result<Self> {
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .with_context(|| format!("starting a process as {role}"))?;
        let input = child.stdin.take();
        let output = BufReader::new(child.stdout.take().context("the child's output")?);
        Ok(Self { child, input, output })
    }

    /// The next line that the child prints. Blocks.
    pub(crate) fn line(&mut self) -> anyhow::Result<String> {
        let mut line = String::new();
        self.output.read_line(&mut line).context("the child's output")?;
        anyhow::ensure!(!line.is_empty(), "a child ended before it was to");
        anyhow::ensure!(!line.starts_with(ERROR), "a child said: {}", line.trim());
        Ok(line.trim().to_owned())
    }

    /// Gives the child an order: see [`orders`].
    pub(crate) fn tell(&mut self, line: &str) -> anyhow::Result<()> {
        let input = self.input.as_mut().context("the child's input")?;
        writeln!(input, "{line}").context("the child's input")
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// SIGSTOP, without the time that another process would take to send it.
    pub(crate) fn pause(&self) -> anyhow::Result<()> {
        self.send(Signal::STOP)
    }

    /// SIGCONT.
    pub(crate) fn go_on(&self) -> anyhow::Result<()> {
        self.send(Signal::CONT)
    }

    fn send(&self, signal: Signal) -> anyhow::Result<()> {
        send(self.pid(), signal)
    }

    /// SIGKILL: the child has no chance to say anything.
    pub(crate) fn kill(&mut self) -> anyhow::Result<()> {
        self.child.kill().context("killing a child")?;
        self.child.wait().context("waiting for a child")?;
        Ok(())
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        drop(self.input.take());
        let _ = self.child.wait();
    }
}

/// SIGKILL, for a child that another thread waits for.
pub(crate) fn kill(pid: u32) -> anyhow::Result<()> {
    send(pid, Signal::KILL)
}

fn send(pid: u32, signal: Signal) -> anyhow::Result<()> {
    let pid = Pid::from_raw(i32::try_from(pid)?).context("the child's number")?;
    kill_process(pid, signal).context("sending a signal to a child")
}

/// The next line of each process, without keeping this thread.
pub(crate) async fn lines(
    mut processes: Vec<Process>,
) -> anyhow::Result<(Vec<Process>, Vec<String>)> {
    let waiting = tokio::task::spawn_blocking(move || {
        let said: anyhow::Result<Vec<_>> = processes.iter_mut().map(Process::line).collect();
        anyhow::Ok((processes, said?))
    });
    waiting.await?
}

/// A child that listens.
#[derive(Debug)]
pub(crate) struct Server {
    pub process: Process,
    /// Where it listens, as `host:port`.
    pub address: String,
}

impl Server {
    /// Starts the child with the endpoints of most checks and waits until it listens.
    pub(crate) fn start() -> anyhow::Result<Self> {
        Self::start_as(SERVER, &[])
    }

    /// The same in another role, whose first line is its address.
    pub(crate) fn start_as(role: &str, args: &[&str]) -> anyhow::Result<Self> {
        Self::of(Process::start(role, args)?)
    }

    /// A child that was just started, once it listens.
    pub(crate) fn of(mut process: Process) -> anyhow::Result<Self> {
        let address = process.line().context("the address of a server process")?;
        Ok(Self { process, address })
    }

    /// The URI of an endpoint of the child.
    pub(crate) fn uri(&self, name: &str) -> String {
        format!("rpc://{name}@{}", self.address)
    }

    /// The child's process.
    pub(crate) fn pid(&self) -> u32 {
        self.process.pid()
    }
}

/// An address below the ports that the system gives to connections: one of those could be given
/// to the asker's own while nobody listens.
pub(crate) fn free_port() -> anyhow::Result<String> {
    let from = 20_000 + u16::try_from(std::process::id() % 8_000)?;
    let free = |port: &u16| std::net::TcpListener::bind(("127.0.0.1", *port)).is_ok();
    let port = (from..32_000).find(free).context("no free port")?;
    Ok(format!("127.0.0.1:{port}"))
}

/// The child's main: in an actix System, until it ends or standard input does.
pub(crate) fn main(serving: impl Future<Output = anyhow::Result<()>>) -> ExitCode {
    match actix_rt::System::new().block_on(serving) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            say(&format!("{ERROR}{error:#}"));
            ExitCode::FAILURE
        }
    }
}

/// The lines that the parent sends. The process ends with them: the parent's end of the pipe
/// closes when it ends, however it ends.
pub(crate) fn orders() -> UnboundedReceiver<String> {
    let (sender, orders) = unbounded_channel();
    std::thread::spawn(move || {
        for line in std::io::stdin().lock().lines() {
            let Ok(line) = line else { break };
            // A child that takes no orders has dropped the receiver.
            let _ = sender.send(line);
        }
        std::process::exit(0);
    });
    orders
}

/// Says where an env listens and serves until the parent ends the process.
pub(crate) async fn listen(env: RpcEnv) -> anyhow::Result<()> {
    let address = env.address().context("the server has an address")?;
    drop(orders());
    say(&address.to_string());
    env.await_termination().await;
    Ok(())
}

/// Serves the endpoints of most checks.
pub(crate) async fn serve() -> anyhow::Result<()> {
    let env = rpc_actix::create(RpcEnvConfig::server("server", "127.0.0.1:0")).await?;
    env.setup_endpoint("recorder", Recorder::default()).await?;
    env.setup_endpoint("mirror", Mirror::default()).await?;
    env.setup_endpoint("slow", Slow::default()).await?;
    listen(env).await
}

/// Resident memory of a process, in bytes.
pub(crate) fn resident_bytes(pid: u32) -> anyhow::Result<u64> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).context("VmRSS")?;
    let kib: u64 = line.split_whitespace().nth(1).context("VmRSS in kB")?.parse()?;
    Ok(kib.saturating_mul(1024))
}

/// User and system CPU seconds of a process so far.
pub(crate) fn cpu_seconds(pid: u32) -> anyhow::Result<f64> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat"))?;
    let after = stat.rsplit(')').next().context("the fields of stat")?;
    let ticks: u64 = after
        .split_whitespace()
        .skip(11)
        .take(2)
        .filter_map(|field| field.parse::<u64>().ok())
        .sum();
    // Linux counts them in hundredths of a second on every platform that Rust runs on.
    Ok(ticks as f64 / 100.0)
}
