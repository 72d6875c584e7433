//! A handler that blocks its thread: peers stay connected, and other threads of the env go on.

use crate::child::{self, Server};
use crate::report::Report;
use crate::spread::{Spread, ms, timed};
use anyhow::Context;
use rpc_actix::{
    EndpointOptions, HandlerResult, RpcAddress, RpcEndpointRef, RpcEnv, RpcEnvConfig, RpcMessage,
    endpoint,
};
use serde::{Deserialize, Serialize};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

pub(crate) const SERVER: &str = "blocked";

const ASK_EVERY: Duration = Duration::from_millis(5);
/// What an ask may take while another thread is blocked.
const LIMIT: Duration = Duration::from_millis(100);
/// Set where they are known, so that a peer would be declared dead while the handler blocks.
const HEARTBEATS: [(&str, &str); 2] = [("rpc.io.heartbeat", "1s"), ("rpc.io.deadAfter", "3s")];

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

/// With heartbeats as quick as they can be told to be; and whether there are any.
fn with_heartbeats(mut config: RpcEnvConfig) -> anyhow::Result<(RpcEnvConfig, bool)> {
    let mut any = false;
    for (key, value) in HEARTBEATS {
        if RpcEnvConfig::known_keys().any(|known| known.name == key) {
            config = config.set(key, value)?;
            any = true;
        }
    }
    Ok((config, any))
}

/// One arbiter for endpoints and connections, and one for each isolated endpoint.
pub(crate) async fn serve() -> anyhow::Result<()> {
    let (config, _) = with_heartbeats(RpcEnvConfig::server("blocked", "127.0.0.1:0"))?;
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
    /// Asks over the connection: how long they took, and how many failed.
    remote: Spread,
    failed: usize,
    /// Asks within the server, to an isolated endpoint.
    local: Spread,
    /// Connections that ended, as the server and as the client saw them.
    lost: (u32, u32),
}

/// Blocks a shared and an isolated thread for that long.
pub(crate) async fn run(time: Duration) -> anyhow::Result<Report> {
    let mut report = Report::new("blocked");
    let server = Server::start_as(SERVER, &[])?;
    let (config, heartbeats) = with_heartbeats(RpcEnvConfig::client("client"))?;
    let env = rpc_actix::create(config).await?;
    let observer = Observer::default();
    env.setup_endpoint("observer", observer.clone()).await?;
    if !heartbeats {
        report.figure("there are no heartbeats yet: nothing could declare a peer dead".to_owned());
    }
    let client = Client { env: env.clone(), server, seen: observer };
    let quiet = client.phase(None, time / 2).await?;
    report.figure(format!("nobody blocks: {} remote asks, {}", quiet.remote.len(), quiet.remote));
    report.figure(format!(
        "  {} local asks to an isolated one, {}",
        quiet.local.len(),
        quiet.local
    ));
    let isolated = client.phase(Some("isolated"), time).await?;
    report.require(
        isolated.remote.most() < LIMIT,
        &format!(
            "an isolated endpoint blocks for {}: {} remote asks to others, {}",
            ms(time),
            isolated.remote.len(),
            isolated.remote
        ),
    );
    judge(&mut report, &isolated);
    let shared = client.phase(Some("shared"), time).await?;
    report.figure(format!(
        "a shared endpoint blocks for {}: remote asks to an isolated one wait with their connection, {}",
        ms(time),
        shared.remote
    ));
    judge(&mut report, &shared);
    env.shutdown().await;
    Ok(report)
}

fn judge(report: &mut Report, phase: &Phase) {
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
        phase.failed == 0,
        &format!("  asks that failed instead of waiting: {}", phase.failed),
    );
    report.require(
        phase.lost == (0, 0),
        &format!(
            "  connections that were closed: {} seen by the server, {} by the client",
            phase.lost.0, phase.lost.1
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
        if let Some(blocked) = blocked {
            blocked?.context("the ask that blocks")?;
        }
        let (lost, local) = observer.ask(Observed).await?;
        let answered: Vec<_> = asks.iter().flatten().copied().collect();
        Ok(Phase {
            failed: asks.len() - answered.len(),
            remote: answered.into_iter().collect(),
            local: local.into_iter().map(Duration::from_micros).collect(),
            lost: (lost, self.seen.lost.load(Ordering::Relaxed)),
        })
    }

    async fn endpoint<P>(&self, name: &str) -> anyhow::Result<RpcEndpointRef<P>> {
        Ok(self.env.endpoint_ref(&self.server.uri(name)).await?)
    }
}

/// How long each ask took, or nothing if it failed.
async fn ask_on(
    asked: &RpcEndpointRef<Blocker>,
    time: Duration,
    over: &AtomicBool,
) -> Vec<Option<Duration>> {
    let start = Instant::now();
    let mut ticks = tokio::time::interval(ASK_EVERY);
    let mut tasks = Vec::new();
    while start.elapsed() < time || !over.load(Ordering::Relaxed) {
        ticks.tick().await;
        let asked = asked.clone();
        tasks.push(tokio::spawn(async move {
            let (time, answer) = timed(asked.ask(Ping)).await;
            answer.ok().map(|()| time)
        }));
    }
    let mut times = Vec::new();
    for task in tasks {
        times.push(task.await.ok().flatten());
    }
    times
}
