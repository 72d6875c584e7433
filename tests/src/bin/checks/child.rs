//! The other process: this program again, serving the endpoints of the checks.

use crate::messages::{Mirror, Recorder, Slow};
use crate::report::say;
use anyhow::Context;
use rpc_actix::RpcEnvConfig;
use std::io::{BufRead, BufReader, Read};
use std::process::{Child, Command, ExitCode, Stdio};

/// The argument that makes this program the child.
pub(crate) const ROLE: &str = "serve";

/// A running child; it ends when this is dropped, or when this process does.
#[derive(Debug)]
pub(crate) struct Server {
    child: Child,
    /// Where it listens, as `host:port`.
    pub address: String,
}

impl Server {
    /// Starts the child and waits until it listens.
    pub(crate) fn start() -> anyhow::Result<Self> {
        let program = std::env::current_exe().context("this program's path")?;
        let mut child = Command::new(program)
            .arg(ROLE)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .context("starting the server process")?;
        let out = child.stdout.take().context("the server's output")?;
        let mut address = String::new();
        BufReader::new(out).read_line(&mut address).context("the server's address")?;
        anyhow::ensure!(!address.is_empty(), "the server ended before it listened");
        Ok(Self { child, address: address.trim().to_owned() })
    }

    /// The URI of an endpoint of the child.
    pub(crate) fn uri(&self, name: &str) -> String {
        format!("rpc://{name}@{}", self.address)
    }

    /// The child's process.
    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        drop(self.child.stdin.take());
        let _ = self.child.wait();
    }
}

/// The child's main: serves until standard input ends.
pub(crate) fn serve() -> ExitCode {
    let system = actix_rt::System::new();
    match system.block_on(serve_until_eof()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            say(&format!("error: {error:#}"));
            ExitCode::FAILURE
        }
    }
}

async fn serve_until_eof() -> anyhow::Result<()> {
    let env = rpc_actix::create(RpcEnvConfig::server("server", "127.0.0.1:0")).await?;
    env.setup_endpoint("recorder", Recorder::default()).await?;
    env.setup_endpoint("mirror", Mirror::default()).await?;
    env.setup_endpoint("slow", Slow::default()).await?;
    let address = env.address().context("the server has an address")?;
    say(&address.to_string());
    let stopped = env.clone();
    std::thread::spawn(move || {
        // The parent's end of the pipe closes when it ends, however it ends.
        let _ = std::io::stdin().read_to_end(&mut Vec::new());
        drop(stopped);
        std::process::exit(0);
    });
    env.await_termination().await;
    Ok(())
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
