//! A handler that blocks its thread: peers stay connected, and other threads of the env go on.

use crate::child::{self, Server};
use crate::report::Report;
use crate::spread::{Spread, ms, timed};
use rpc_actix::{
    EndpointOptions, HandlerResult, RpcAddress, RpcEndpointRef, RpcEnv, RpcEnvConfig, RpcError,
    RpcMessage, endpoint,
};
use serde::{Deserialize, Serialize};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

pub(crate) const SERVER: &str = "blocked";

const ASK_EVERY: Duration = Duration::from_millis(5);
/// What an ask may take while another thread is blocked.
const LIMIT: Duration = Duration::from_millis(100);
#[derive(Debug, Serialize, Deserialize, RpcMessage)]
#[rpc(reply = ())]
struct Block {
    time: Duration,
}

#[derive(Debug, Serialize, Deserialize, RpcMessage)]
#[rpc(reply = ())]
struct Ping;

/// What the server saw since the last time: connections that ended, and the times that asks of its
/// own to an isolated endpoint took, in microseconds.
#[derive(Debug, Serialize, Deserialize, RpcMessage)]
#[rpc(reply = (u32, Vec<u64>))]
struct Observed;

struct Blocker;

#[endpoint]
impl Blocker {
    #[receive_and_reply]
    fn block(&mut self, msg: Block) -> HandlerResult<()> {
        std::thread::sleep(msg.time);
        Ok(())
    }

    #[receive_and_reply]
    fn ping(&mut self, _: Ping) -> HandlerResult<()> {
        Ok(())
    }
}

/// Counts connections that end.
#[derive(Clone, Default)]
struct Observer {
    lost: Arc<AtomicU32>,
    local: Arc<Mutex<Vec<u64>>>,
}

#[endpoint]
impl Observer {
    #[receive_and_reply]
    fn observed(&mut self, _: Observed) -> HandlerResult<(u32, Vec<u64>)> {
        let mut local = self.local.lock().unwrap_or_else(PoisonError::into_inner);
        Ok((self.lost.swap(0, Ordering::Relaxed), std::mem::take(&mut *local)))
    }

    #[on_disconnected]
    fn disconnected(&mut self, _peer: &RpcAddress) -> HandlerResult<()> {
        self.lost.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }
}

/// With heartbeats so quick that a peer would be declared dead long before the handler ends.
fn with_heartbeats(config: RpcEnvConfig, dead_after: Duration) -> Result<RpcEnvConfig, RpcError> {
    config
        .set("rpc.io.heartbeat", &format!("{}ms", dead_after.as_millis() / 3))?
        .set("rpc.io.deadAfter", &format!("{}ms", dead_after.as_millis()))
}

/// One arbiter for endpoints and connections, and one for each isolated endpoint.
pub(crate) async fn serve(args: &[&str]) -> anyhow::Result<()> {
    let [dead_after] = args else { anyhow::bail!("after how many ms a silent peer is dead") };
    let config = RpcEnvConfig::server("blocked", "127.0.0.1:0");
    let config = with_heartbeats(config, Duration::from_millis(dead_after.parse()?))?;
    let env = rpc_actix::create(config).await?;
    let observer = Observer::default();
    env.setup_endpoint("observer", observer.clone()).await?;
    env.setup_endpoint("shared", Blocker).await?;
    env.setup_endpoint(EndpointOptions::new("isolated").isolated(), Blocker).await?;
    let quick = env.setup_endpoint(EndpointOptions::new("quick").isolated(), Blocker).await?;
    std::thread::spawn(move || ask_locally(&quick, &observer.local));
    child::listen(env).await
}

fn ask_locally(quick: &RpcEndpointRef<Blocker>, times: &Mutex<Vec<u64>>) {
    loop {
        let start = Instant::now();
        if quick.ask_blocking(Ping).is_err() {
            return;
        }
        let took = u64::try_from(start.elapsed().as_micros()).unwrap_or(u64::MAX);
        times.lock().unwrap_or_else(PoisonError::into_inner).push(took);
        std::thread::sleep(ASK_EVERY);
    }
}

/// What one phase showed.
struct Phase {
    /// Asks over the connection: how long they took, and why others failed.
    remote: Spread,
    failed: Vec<RpcError>,
    /// Asks within the server, to an isolated endpoint.
    local: Spread,
    /// Connections that ended, as the server and as the client saw them.
    lost: (u32, u32),
    /// How the ask ended whose handler blocks.
    blocked: Result<(), RpcError>,
}

/// Blocks a shared and an isolated thread for that long, with peers that are dead after `dead_after`
/// of silence.
pub(crate) async fn run(time: Duration, dead_after: Duration) -> anyhow::Result<Report> {
    let mut report = Report::new("blocked");
    let server = Server::start_as(SERVER, &[&dead_after.as_millis().to_string()])?;
    let config = with_heartbeats(RpcEnvConfig::client("client"), dead_after)?;
    let env = rpc_actix::create(config).await?;
    let observer = Observer::default();
    env.setup_endpoint("observer", observer.clone()).await?;
    let client = Client { env: env.clone(), server, seen: observer };
    let quiet = client.phase(None, time / 2).await?;
    let Phase { remote, local, .. } = &quiet;
    report.figure(format!("nobody blocks: {} remote asks, {remote}", remote.len()));
    report.figure(format!("  {} asks within the server to an isolated one, {local}", local.len()));
    let isolated = client.phase(Some("isolated"), time).await?;
    let Phase { remote, .. } = &isolated;
    report.require(
        remote.most() < LIMIT,
        &format!(
            "an isolated endpoint blocks for {}: {} remote asks to others, less than {}: {remote}",
            ms(time),
            remote.len(),
            ms(LIMIT)
        ),
    );
    judge(&mut report, &isolated, dead_after);
    let shared = client.phase(Some("shared"), time).await?;
    report.figure(format!(
        "a shared endpoint blocks for {}: remote asks to an isolated one wait with their connection, {}",
        ms(time),
        shared.remote
    ));
    judge(&mut report, &shared, dead_after);
    env.shutdown().await;
    Ok(report)
}

fn judge(report: &mut Report, phase: &Phase, dead_after: Duration) {
    report.require(
        phase.local.most() < LIMIT && phase.local.len() > 100,
        &format!(
            "  {} asks within the server to another isolated one, less than {}: {}",
            phase.local.len(),
            ms(LIMIT),
            phase.local
        ),
    );
    report.require(
        phase.lost == (0, 0),
        &format!(
            "  connections that were closed, where a silent peer is dead after {}: {} seen by the server, {} by the client",
            ms(dead_after),
            phase.lost.0,
            phase.lost.1
        ),
    );
    let first = phase.failed.first().or_else(|| phase.blocked.as_ref().err());
    let first = first.map(|error| format!(", the first with: {error}")).unwrap_or_default();
    report.require(
        phase.failed.is_empty() && phase.blocked.is_ok(),
        &format!(
            "  no ask failed: the one that blocks {}, {} others did{first}",
            if phase.blocked.is_ok() { "was answered" } else { "failed" },
            phase.failed.len()
        ),
    );
}

struct Client {
    env: RpcEnv,
    server: Server,
    seen: Observer,
}

impl Client {
    /// Asks for that long while the endpoint named is blocked for as long.
    async fn phase(&self, blocks: Option<&str>, time: Duration) -> anyhow::Result<Phase> {
        let observer = self.endpoint::<Observer>("observer").await?;
        // When the isolated one blocks, the shared one is asked; otherwise an isolated one is.
        let asked = if blocks == Some("isolated") { "shared" } else { "quick" };
        let asked = self.endpoint::<Blocker>(asked).await?;
        asked.ask(Ping).await?;
        observer.ask(Observed).await?;
        self.seen.lost.store(0, Ordering::Relaxed);
        let blocking = match blocks {
            Some(name) => {
                let blocker = self.endpoint::<Blocker>(name).await?;
                Some(tokio::spawn(
                    blocker.ask_with_timeout(Block { time }, time + Duration::from_secs(10)),
                ))
            }
            None => None,
        };
        let over = AtomicBool::new(false);
        let (asks, blocked) = tokio::join!(ask_on(&asked, time, &over), async {
            let result = match blocking {
                Some(blocking) => Some(blocking.await),
                None => None,
            };
            over.store(true, Ordering::Relaxed);
            result
        });
        let blocked = blocked.unwrap_or(Ok(Ok(())))?;
        let (lost, local) = observer.ask(Observed).await?;
        let (answered, failed): (Vec<_>, Vec<_>) = asks.into_iter().partition(Result::is_ok);
        Ok(Phase {
            blocked,
            failed: failed.into_iter().filter_map(Result::err).collect(),
            remote: answered.into_iter().flatten().collect(),
            local: local.into_iter().map(Duration::from_micros).collect(),
            lost: (lost, self.seen.lost.load(Ordering::Relaxed)),
        })
    }

    async fn endpoint<P>(&self, name: &str) -> anyhow::Result<RpcEndpointRef<P>> {
        Ok(self.env.endpoint_ref(&self.server.uri(name)).await?)
    }
}

/// How long each ask took.
async fn ask_on(
    asked: &RpcEndpointRef<Blocker>,
    time: Duration,
    over: &AtomicBool,
) -> Vec<Result<Duration, RpcError>> {
    let start = Instant::now();
    let mut ticks = tokio::time::interval(ASK_EVERY);
    let mut tasks = Vec::new();
    while start.elapsed() < time || !over.load(Ordering::Relaxed) {
        ticks.tick().await;
        let asked = asked.clone();
        tasks.push(tokio::spawn(async move {
            let (time, answer) = timed(asked.ask(Ping)).await;
            answer.map(|()| time)
        }));
    }
    let mut times = Vec::new();
    for task in tasks {
        times.extend(task.await);
    }
    times
}
