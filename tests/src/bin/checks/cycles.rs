//! Endpoints and envs that come and go by the thousand, and leave nothing behind (P10, R59).

use crate::child::resident_bytes;
use crate::messages::{Mirror, Msg};
use crate::report::Report;
use rpc_actix::{
    ActixHost, ActixRpcEnvFactory, EndpointOptions, RpcEnv, RpcEnvConfig, RpcEnvFactory,
};
use std::time::{Duration, Instant};

/// What the memory of the process may vary by: what the allocator keeps for each thread it ever had.
const SLACK: u64 = 8 * 1024 * 1024;
/// Threads end a little after what ended them.
const PATIENCE: Duration = Duration::from_secs(10);

/// What the system knows of this process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Held {
    threads: usize,
    descriptors: usize,
    memory: u64,
}

impl Held {
    fn now() -> anyhow::Result<Self> {
        let count = |of: &str| anyhow::Ok(std::fs::read_dir(of)?.count());
        Ok(Self {
            threads: count("/proc/self/task")?,
            descriptors: count("/proc/self/fd")?,
            memory: resident_bytes(std::process::id())?,
        })
    }

    /// Once threads and descriptors are those of before, or patience is over.
    async fn settled(before: Self) -> anyhow::Result<Self> {
        let start = Instant::now();
        loop {
            let now = Self::now()?;
            let same = now.threads <= before.threads && now.descriptors <= before.descriptors;
            if same || start.elapsed() >= PATIENCE {
                return Ok(now);
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
}

/// That many cycles of endpoints, and of envs.
pub(crate) async fn run(endpoints: usize, envs: usize) -> anyhow::Result<Report> {
    let mut report = Report::new("cycles");
    let server = rpc_actix::create(RpcEnvConfig::server("server", "127.0.0.1:0")).await?;
    let client = rpc_actix::create(RpcEnvConfig::client("client")).await?;
    // What is made once is made before.
    endpoint_cycles(&server, &client, endpoints / 10).await?;
    let before = Held::now()?;
    endpoint_cycles(&server, &client, endpoints).await?;
    judge(&mut report, &format!("{endpoints} endpoints"), before, Held::settled(before).await?);

    env_cycles(&server, envs / 10).await?;
    let before = Held::now()?;
    env_cycles(&server, envs).await?;
    judge(&mut report, &format!("{envs} envs"), before, Held::settled(before).await?);
    client.shutdown().await;
    server.shutdown().await;
    Ok(report)
}

/// Starts an endpoint, asks it from both sides, has it watched, and stops it. Every hundredth has a
/// thread of its own.
async fn endpoint_cycles(server: &RpcEnv, client: &RpcEnv, cycles: usize) -> anyhow::Result<()> {
    for cycle in 0..cycles {
        let options = EndpointOptions::new("mirror");
        let options = if cycle % 100 == 0 { options.isolated() } else { options };
        let local = server.setup_endpoint(options, Mirror::default()).await?;
        let remote = client.endpoint_ref::<Mirror>(&local.endpoint_address().to_string()).await?;
        let watched = (local.terminated(), remote.terminated());
        remote.ask(Msg::new(1)).await?;
        local.ask(Msg::new(2)).await?;
        server.stop(&local)?;
        server.stopped(&local).await?;
        watched.0.await;
        watched.1.await;
    }
    Ok(())
}

/// Starts an env, on a thread of its own or on threads of others, asks through it, and shuts it down.
async fn env_cycles(server: &RpcEnv, cycles: usize) -> anyhow::Result<()> {
    let host = ActixHost::start().await?;
    let mirror = server.setup_endpoint("mirror", Mirror::default()).await?;
    let uri = mirror.endpoint_address().to_string();
    for cycle in 0..cycles {
        let config = if cycle % 2 == 0 {
            RpcEnvConfig::client("guest")
        } else {
            RpcEnvConfig::server("guest", "127.0.0.1:0")
        };
        let env = if cycle % 4 < 2 {
            ActixRpcEnvFactory::on(&host).create(config).await?
        } else {
            rpc_actix::create(config).await?
        };
        let own = env.setup_endpoint("own", Mirror::default()).await?;
        own.ask(Msg::new(1)).await?;
        env.endpoint_ref::<Mirror>(&uri).await?.ask(Msg::new(2)).await?;
        env.shutdown().await;
    }
    server.stop(&mirror)?;
    server.stopped(&mirror).await?;
    Ok(())
}

fn judge(report: &mut Report, what: &str, before: Held, after: Held) {
    let mib = |bytes: u64| bytes as f64 / 1048576.0;
    report.figure(format!(
        "{what} came and went: threads {} before and {} after, descriptors {} and {}, memory {:.1} and {:.1} MiB",
        before.threads,
        after.threads,
        before.descriptors,
        after.descriptors,
        mib(before.memory),
        mib(after.memory)
    ));
    report.require(after.threads <= before.threads, "no thread is left");
    report.require(after.descriptors <= before.descriptors, "no descriptor is left");
    report.require(after.memory <= before.memory + SLACK, "memory grew by 8 MiB at most");
}
