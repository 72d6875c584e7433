//! Eight peers at one slow endpoint, one of them with a hundred times as much as each of the
//! others: what each gets, and what others of the same server feel.

use crate::child::{self, Process, Server, resident_bytes};
use crate::report::{Report, say};
use crate::spread::{Spread, ms, timed};
use anyhow::Context;
use rpc_actix::{HandlerResult, RpcEndpointRef, RpcEnvConfig, RpcMessage, endpoint};
use serde::{Deserialize, Serialize};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

pub(crate) const SERVER: &str = "shared";
pub(crate) const PEER: &str = "peer";

const PEERS: usize = 8;
/// The peer that offers this many times as much as each of the others.
const GREEDY: usize = 0;
const GREED: f64 = 100.0;
/// What all offer together, in the time in which the endpoint can take one.
const OVERLOAD: f64 = 10.0;
/// The part of its fair share that each of the others gets at least.
const SHARE: f64 = 0.8;
const PING_EVERY: Duration = Duration::from_millis(10);
/// What memory may vary by: pages that the allocator keeps, and what eight connections read at a
/// time.
const SLACK: u64 = 4 * 1024 * 1024;

/// How a message costs its time: both kinds of slowness that there are.
#[derive(Clone, Copy, Debug)]
struct Kind {
    name: &'static str,
    about: &'static str,
    /// What a ping may take in 99 of 100 cases beside the load.
    ping: Duration,
}

const KINDS: [Kind; 2] = [
    // The thread has nothing to do, so pings are to be as they are without the load; with ten
    // processes on two cores, a waiting time for a core is in it.
    Kind { name: "waits", about: "waits for 1 ms", ping: Duration::from_millis(5) },
    // The endpoint gives way after about 1 ms (rpc.dispatcher.maxTurn), at 100 us a message. A ping
    // waits for one such turn before it is read, one before its handler, and one before its answer
    // is written: 3 ms, and then for a core as the others do.
    Kind { name: "works", about: "computes for 100 us", ping: Duration::from_millis(10) },
];

#[derive(Debug, Serialize, Deserialize, RpcMessage)]
struct Load {
    peer: usize,
    payload: bytes::Bytes,
}

#[derive(Debug, Serialize, Deserialize, RpcMessage)]
#[rpc(reply = ())]
struct Ping;

/// How many messages of each peer have been handled.
#[derive(Debug, Serialize, Deserialize, RpcMessage)]
#[rpc(reply = Vec<u64>)]
struct Handled;

type Counts = Arc<[AtomicU64; PEERS]>;

struct Work {
    waits: bool,
    handled: Counts,
}

#[endpoint]
impl Work {
    #[receive]
    async fn load(&mut self, msg: Load) -> HandlerResult<()> {
        if self.waits {
            tokio::time::sleep(Duration::from_millis(1)).await;
        } else {
            let start = Instant::now();
            while start.elapsed() < Duration::from_micros(100) {
                std::hint::spin_loop();
            }
        }
        if let Some(count) = self.handled.get(msg.peer) {
            count.fetch_add(1, Ordering::Relaxed);
        }
        Ok(())
    }
}

struct Pinged {
    handled: Counts,
}

#[endpoint]
impl Pinged {
    #[receive_and_reply]
    fn ping(&mut self, _: Ping) -> HandlerResult<()> {
        Ok(())
    }

    #[receive_and_reply]
    fn handled(&mut self, _: Handled) -> HandlerResult<Vec<u64>> {
        Ok(self.handled.iter().map(|count| count.load(Ordering::Relaxed)).collect())
    }
}

pub(crate) async fn serve(args: &[&str]) -> anyhow::Result<()> {
    let handled = Counts::default();
    let waits = args.contains(&"waits");
    let env = rpc_actix::create(RpcEnvConfig::server("shared", "127.0.0.1:0")).await?;
    env.setup_endpoint("work", Work { waits, handled: handled.clone() }).await?;
    env.setup_endpoint("pinged", Pinged { handled }).await?;
    child::listen(env).await
}

/// A peer's process: at each order `SECONDS RATE` it pings for so long and offers so many messages
/// a second; then it says what became of them, and how long its pings took.
pub(crate) async fn offer(args: &[&str]) -> anyhow::Result<()> {
    let [server, peer] = args else { anyhow::bail!("server and number of the peer") };
    let peer: usize = peer.parse()?;
    let config = RpcEnvConfig::client(format!("peer-{peer}")).set("rpc.actix.mode", "inline")?;
    let env = rpc_actix::create(config).await?;
    let work = env.endpoint_ref::<Work>(&format!("rpc://work@{server}")).await?;
    let pinged = env.endpoint_ref::<Pinged>(&format!("rpc://pinged@{server}")).await?;
    let mut orders = child::orders();
    say("connected");
    while let Some(order) = orders.recv().await {
        let (seconds, rate) = order.split_once(' ').context("an order")?;
        let time = Duration::from_secs_f64(seconds.parse()?);
        let over = async {
            tokio::time::sleep(time).await;
            Ok([0; 3])
        };
        let (pings, sent) = tokio::try_join!(ping(&pinged, time), async {
            match rate.parse()? {
                0.0 => over.await,
                rate => load(&work, peer, time, rate).await,
            }
        })?;
        let pings: Vec<_> = pings.iter().map(|time| time.as_micros().to_string()).collect();
        say(&format!("{} {} {} {}", sent[0], sent[1], sent[2], pings.join(" ")));
    }
    Ok(())
}

async fn ping(pinged: &RpcEndpointRef<Pinged>, time: Duration) -> anyhow::Result<Vec<Duration>> {
    let start = Instant::now();
    let mut ticks = tokio::time::interval(PING_EVERY);
    let mut tasks = Vec::new();
    while start.elapsed() < time {
        ticks.tick().await;
        let pinged = pinged.clone();
        tasks.push(tokio::task::spawn_local(async move { timed(pinged.ask(Ping)).await }));
    }
    let mut times = Vec::new();
    for task in tasks {
        let (time, answer) = task.await?;
        answer?;
        times.push(time);
    }
    Ok(times)
}

/// Sends so many messages a second: how many were accepted, refused as overload, or else.
async fn load(
    work: &RpcEndpointRef<Work>,
    peer: usize,
    time: Duration,
    rate: f64,
) -> anyhow::Result<[u64; 3]> {
    let payload = bytes::Bytes::from(vec![7_u8; 256]);
    let mut ticks = tokio::time::interval(Duration::from_millis(1));
    let start = Instant::now();
    let mut sent = [0; 3];
    while start.elapsed() < time {
        ticks.tick().await;
        let due = (start.elapsed().as_secs_f64() * rate) as u64;
        while sent.iter().sum::<u64>() < due {
            let result = work.send(Load { peer, payload: payload.clone() });
            let place = match result {
                Ok(()) => 0,
                Err(error) if error.is_overloaded() => 1,
                Err(_) => 2,
            };
            sent[place] += 1;
        }
    }
    Ok(sent)
}

/// What a peer said of one order.
#[derive(Debug)]
struct Seen {
    sent: [u64; 3],
    pings: Vec<Duration>,
}

impl Seen {
    fn read(line: &str) -> anyhow::Result<Self> {
        let numbers: Result<Vec<u64>, _> = line.split(' ').map(str::parse).collect();
        let numbers = numbers.with_context(|| format!("a peer said {line}"))?;
        let (sent, pings) = numbers.split_first_chunk().context("a short line")?;
        Ok(Self { sent: *sent, pings: pings.iter().copied().map(Duration::from_micros).collect() })
    }
}

/// What the server's side showed while the load was on.
#[derive(Debug, Default)]
struct Taken {
    memory: Vec<u64>,
    handled: Vec<u64>,
    seconds: f64,
}

/// Loads the server for that long, once with each kind of slowness.
pub(crate) async fn run(time: Duration) -> anyhow::Result<Report> {
    let mut report = Report::new("greedy");
    for kind in KINDS {
        one(&mut report, kind, time).await?;
    }
    Ok(report)
}

async fn one(report: &mut Report, kind: Kind, time: Duration) -> anyhow::Result<()> {
    let server = Server::start_as(SERVER, &[kind.name])?;
    let env = rpc_actix::create(RpcEnvConfig::client("observer")).await?;
    let pinged = env.endpoint_ref::<Pinged>(&server.uri("pinged")).await?;
    let mut peers = Vec::new();
    for peer in 0..PEERS {
        let mut process = Process::start(PEER, &[&server.address, &peer.to_string()])?;
        anyhow::ensure!(process.line()? == "connected", "peer {peer} has not connected");
        peers.push(process);
    }
    let (peers, before) = order(peers, Duration::from_secs(2), &[0.0; PEERS]).await?;
    let modest = kind.capacity() * OVERLOAD / (GREED + PEERS as f64 - 1.0);
    let mut rates = [modest; PEERS];
    rates[GREEDY] = modest * GREED;
    let ((peers, seen), taken) =
        tokio::try_join!(order(peers, time, &rates), observe(&pinged, server.pid(), time))?;
    drop(peers);
    env.shutdown().await;
    judge_shares(report, kind, time, &seen, &taken);
    judge_memory(report, &taken.memory);
    judge_pings(report, kind, &before, &seen);
    Ok(())
}

/// Has the peers do something at the same time: what they say of it.
async fn order(
    mut peers: Vec<Process>,
    time: Duration,
    rates: &[f64],
) -> anyhow::Result<(Vec<Process>, Vec<Seen>)> {
    for (peer, rate) in peers.iter_mut().zip(rates) {
        peer.tell(&format!("{} {rate}", time.as_secs_f64()))?;
    }
    let (peers, said) = child::lines(peers).await?;
    let seen: anyhow::Result<Vec<_>> = said.iter().map(|line| Seen::read(line)).collect();
    Ok((peers, seen?))
}

/// What the server does in the last four fifths of the time.
async fn observe(
    pinged: &RpcEndpointRef<Pinged>,
    server: u32,
    time: Duration,
) -> anyhow::Result<Taken> {
    tokio::time::sleep(time / 5).await;
    let (start, before) = (Instant::now(), pinged.ask(Handled).await?);
    let mut taken = Taken::default();
    for sample in 0..30 {
        tokio::time::sleep(time / 40).await;
        if sample >= 12 {
            taken.memory.push(resident_bytes(server)?);
        }
    }
    let after = pinged.ask(Handled).await?;
    taken.seconds = start.elapsed().as_secs_f64();
    taken.handled = after.iter().zip(&before).map(|(after, before)| after - before).collect();
    Ok(taken)
}

fn judge_shares(report: &mut Report, kind: Kind, time: Duration, seen: &[Seen], taken: &Taken) {
    let offered = |seen: &Seen| seen.sent.iter().sum::<u64>() as f64 / time.as_secs_f64();
    let handled: Vec<_> = taken.handled.iter().map(|count| *count as f64 / taken.seconds).collect();
    let capacity: f64 = handled.iter().sum();
    let all: f64 = seen.iter().map(offered).sum();
    report.figure(format!(
        "an endpoint that {}: {all:.0} messages/s offered, {capacity:.0} handled",
        kind.about
    ));
    report.require(all > 5.0 * capacity, "that is far more than it can take");
    let unknown: u64 = seen.iter().map(|seen| seen.sent[2]).sum();
    report.require(unknown == 0, "no send failed for another reason than overload");
    let mut least = f64::MAX;
    for (peer, (seen, handled)) in seen.iter().zip(&handled).enumerate() {
        let fair = offered(seen).min(capacity / PEERS as f64);
        let name = if peer == GREEDY { "the greedy peer" } else { "a modest peer" };
        report.figure(format!(
            "{name}: {:.0} messages/s offered, {handled:.0} handled, fair share {fair:.0}, {} refused",
            offered(seen),
            seen.sent[1]
        ));
        if peer != GREEDY {
            least = least.min(handled / fair);
        }
    }
    report.require(
        least >= SHARE,
        &format!(
            "each modest peer gets at least {:.0} % of its fair share: {:.0} %",
            SHARE * 100.0,
            least * 100.0
        ),
    );
}

/// Memory from the middle of the load, when every queue is full, to its end.
fn judge_memory(report: &mut Report, samples: &[u64]) {
    let first = samples.first().copied().unwrap_or_default();
    let most = samples.iter().copied().max().unwrap_or_default();
    report.require(
        most <= first + SLACK,
        &format!(
            "the server's memory is flat: {:.1} MiB in the middle, {:.1} MiB at most after",
            first as f64 / 1048576.0,
            most as f64 / 1048576.0
        ),
    );
}

fn judge_pings(report: &mut Report, kind: Kind, before: &[Seen], beside: &[Seen]) {
    let all = |seen: &[Seen], greedy: bool| -> Spread {
        let peers = seen.iter().enumerate().filter(|(peer, _)| (*peer == GREEDY) == greedy);
        peers.flat_map(|(_, seen)| &seen.pings).copied().collect()
    };
    for (name, greedy) in [("modest peers", false), ("the greedy peer", true)] {
        let (quiet, loaded) = (all(before, greedy), all(beside, greedy));
        let limit = kind.ping + quiet.percentile(99);
        report.figure(format!("{} pings of {name} without load: {quiet}", quiet.len()));
        report.require(
            loaded.percentile(99) <= limit,
            &format!("{} pings beside it, p99 at most {}: {loaded}", loaded.len(), ms(limit)),
        );
    }
}

impl Kind {
    /// What the endpoint could handle in a second if handling cost nothing else.
    fn capacity(self) -> f64 {
        if self.name == "waits" { 1_000.0 } else { 10_000.0 }
    }
}
