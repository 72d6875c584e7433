//! A asks B, B asks C, each in a process of its own: when A gives up, C stops, and C knows how
//! much time A has left.

use crate::child::{self, Process, Server};
use crate::report::Report;
use crate::spread::{Spread, ms};
use anyhow::Context;
use rpc_actix::{
    EndpointContext, HandlerResult, RpcEndpointRef, RpcEnvConfig, RpcMessage, endpoint,
};
use serde::{Deserialize, Serialize};
use std::time::{Duration, Instant};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

pub(crate) const FIRST: &str = "chain-b";
pub(crate) const LAST: &str = "chain-c";

/// From the end of the ask at A to the word of it that C's handler sends back.
const STOPPED_WITHIN: Duration = Duration::from_millis(50);
const DEADLINE: Duration = Duration::from_secs(1);
const SEEN_AT_LEAST: Duration = Duration::from_millis(900);
/// How long C is busy while the time of an ask runs out, and how much that ask has.
const BUSY: Duration = Duration::from_millis(300);
const TOO_SHORT: Duration = Duration::from_millis(100);

/// What B passes on to C, and C does.
#[derive(Debug, Serialize, Deserialize, RpcMessage)]
#[rpc(reply = u32)]
struct Job {
    id: u32,
    until_cancelled: bool,
    watch: RpcEndpointRef<Watch>,
}

/// Keeps C busy, whether its caller waits or not.
#[derive(Debug, Serialize, Deserialize, RpcMessage)]
#[rpc(reply = ())]
struct Hold {
    time: Duration,
}

/// The jobs that C's handler has seen.
#[derive(Debug, Serialize, Deserialize, RpcMessage)]
#[rpc(reply = Vec<u32>)]
struct Seen;

#[derive(Debug, Serialize, Deserialize, RpcMessage)]
struct Began {
    id: u32,
    remaining: Option<Duration>,
}

#[derive(Debug, Serialize, Deserialize, RpcMessage)]
struct Stopped {
    id: u32,
}

struct First {
    last: RpcEndpointRef<Last>,
}

#[endpoint]
impl First {
    #[receive_and_reply]
    async fn job(&mut self, msg: Job) -> HandlerResult<u32> {
        Ok(self.last.ask(msg).await?)
    }
}

#[derive(Default)]
struct Last {
    seen: Vec<u32>,
}

#[endpoint]
impl Last {
    #[receive_and_reply]
    async fn job(&mut self, msg: Job, cx: &mut EndpointContext<Self>) -> HandlerResult<u32> {
        self.seen.push(msg.id);
        msg.watch.send(Began { id: msg.id, remaining: cx.remaining() })?;
        if msg.until_cancelled {
            cx.cancelled().await;
            msg.watch.send(Stopped { id: msg.id })?;
        }
        Ok(msg.id)
    }

    #[receive_and_reply]
    async fn hold(&mut self, msg: Hold) -> HandlerResult<()> {
        tokio::time::sleep(msg.time).await;
        Ok(())
    }

    #[receive_and_reply]
    fn seen(&mut self, _: Seen) -> HandlerResult<Vec<u32>> {
        Ok(self.seen.clone())
    }
}

pub(crate) async fn serve_first(args: &[&str]) -> anyhow::Result<()> {
    let [last] = args else { anyhow::bail!("the URI of the last one") };
    let env = rpc_actix::create(RpcEnvConfig::server("b", "127.0.0.1:0")).await?;
    let last = env.endpoint_ref::<Last>(last).await?;
    env.setup_endpoint("first", First { last }).await?;
    child::listen(env).await
}

pub(crate) async fn serve_last() -> anyhow::Result<()> {
    let env = rpc_actix::create(RpcEnvConfig::server("c", "127.0.0.1:0")).await?;
    env.setup_endpoint("last", Last::default()).await?;
    child::listen(env).await
}

/// Hears what C does, and when.
struct Watch {
    told: UnboundedSender<Told>,
}

/// A job of C's that began, with what its caller had left, or ended early.
enum Told {
    Began(u32, Option<Duration>),
    Stopped(u32, Instant),
}

#[endpoint]
impl Watch {
    #[receive]
    fn began(&mut self, msg: Began) -> HandlerResult<()> {
        Ok(self.told.send(Told::Began(msg.id, msg.remaining))?)
    }

    #[receive]
    fn stopped(&mut self, msg: Stopped) -> HandlerResult<()> {
        Ok(self.told.send(Told::Stopped(msg.id, Instant::now()))?)
    }
}

struct Chain {
    first: RpcEndpointRef<First>,
    last: RpcEndpointRef<Last>,
    watch: RpcEndpointRef<Watch>,
    told: UnboundedReceiver<Told>,
    /// B's process.
    middle: Process,
    id: u32,
}

/// Asks through the chain so many times in each way.
pub(crate) async fn run(times: u32) -> anyhow::Result<Report> {
    let mut report = Report::new("chain");
    let last = Server::start_as(LAST, &[])?;
    let first = Server::start_as(FIRST, &[&last.uri("last")])?;
    let env = rpc_actix::create(RpcEnvConfig::server("a", "127.0.0.1:0")).await?;
    let (sender, told) = unbounded_channel();
    let mut chain = Chain {
        first: env.endpoint_ref(&first.uri("first")).await?,
        last: env.endpoint_ref(&last.uri("last")).await?,
        watch: env.setup_endpoint("watch", Watch { told: sender }).await?,
        told,
        middle: first.process,
        id: 0,
    };
    // C connects to A with the first job.
    chain.remaining().await?;
    cancel(&mut report, &mut chain, times).await?;
    deadline(&mut report, &mut chain, times).await?;
    expire(&mut report, &mut chain, times / 4).await?;
    env.shutdown().await;
    Ok(report)
}

async fn cancel(report: &mut Report, chain: &mut Chain, times: u32) -> anyhow::Result<()> {
    let mut stopped = Vec::new();
    for _ in 0..times {
        let job = chain.job(true);
        let mut ask = chain.first.ask(job);
        let id = chain.id;
        tokio::select! {
            answer = &mut ask => anyhow::bail!("an ask that waits for its cancel was answered: {answer:?}"),
            began = chain.began(id) => began?,
        };
        // Before the drop, which wakes other threads.
        let dropped = Instant::now();
        drop(ask);
        stopped.push(chain.stopped(id).await?.saturating_duration_since(dropped));
    }
    let stopped: Spread = stopped.into_iter().collect();
    report.require(
        stopped.most() < STOPPED_WITHIN,
        &format!(
            "{times} asks dropped at A: C's handler was told and A heard of that in less than {}: {stopped}",
            ms(STOPPED_WITHIN)
        ),
    );
    Ok(())
}

async fn deadline(report: &mut Report, chain: &mut Chain, times: u32) -> anyhow::Result<()> {
    let mut remaining = Vec::new();
    for _ in 0..times {
        remaining.push(chain.remaining().await?.context("C saw no deadline")?);
    }
    let remaining: Spread = remaining.into_iter().collect();
    let least = remaining.percentile(0);
    report.require(
        least >= SEEN_AT_LEAST && remaining.most() <= DEADLINE,
        &format!(
            "{times} asks with {} at A: C saw {} to {}, at least {}",
            ms(DEADLINE),
            ms(least),
            ms(remaining.most()),
            ms(SEEN_AT_LEAST)
        ),
    );
    Ok(())
}

/// Asks whose time is over before C can begin with them: half of them taken back by B, the other
/// half not, because B's process is stopped.
async fn expire(report: &mut Report, chain: &mut Chain, times: u32) -> anyhow::Result<()> {
    let (mut timed_out, mut of_b, mut late, mut ids) = (0, 0, Duration::ZERO, Vec::new());
    for round in 0..times {
        let hold = tokio::spawn(chain.last.ask(Hold { time: BUSY }));
        let start = Instant::now();
        let job = chain.job(false);
        let mut ask = chain.first.ask_with_timeout(job, TOO_SHORT);
        ids.push(chain.id);
        if round % 2 == 1 {
            // By now it waits at C.
            let early = tokio::time::timeout(TOO_SHORT / 2, &mut ask).await;
            anyhow::ensure!(early.is_err(), "C answered while it was busy: {early:?}");
            chain.middle.pause()?;
        }
        let answer = ask.await;
        let took = start.elapsed();
        let held = hold.await;
        chain.middle.go_on()?;
        held??;
        late = late.max(took.saturating_sub(TOO_SHORT));
        match answer {
            Err(error) if error.is_timeout() => timed_out += 1,
            // B's clock may be the first to ring: its handler passes the error on as its own.
            Err(error) if error.is_remote() && error.text().contains("time") => of_b += 1,
            other => report.figure(format!("an ask whose time was over ended as {other:?}")),
        }
    }
    report.require(
        timed_out + of_b == times && late < STOPPED_WITHIN,
        &format!(
            "{times} asks with {} to a busy C: {timed_out} timed out at A, {of_b} at B, {} late at most",
            ms(TOO_SHORT),
            ms(late)
        ),
    );
    // Behind them in C's inbox, and through B as well.
    chain.remaining().await?;
    let seen = chain.last.ask(Seen).await?;
    let handled = ids.iter().filter(|id| seen.contains(id)).count();
    report.require(
        handled == 0,
        &format!("C handled {handled} of them; every second one was not taken back by B"),
    );
    Ok(())
}

impl Chain {
    fn job(&mut self, until_cancelled: bool) -> Job {
        self.id += 1;
        Job { id: self.id, until_cancelled, watch: self.watch.clone() }
    }

    /// What C sees of A's deadline.
    async fn remaining(&mut self) -> anyhow::Result<Option<Duration>> {
        let job = self.job(false);
        let id = self.id;
        self.first.ask_with_timeout(job, DEADLINE).await?;
        self.began(id).await
    }

    async fn began(&mut self, job: u32) -> anyhow::Result<Option<Duration>> {
        match self.next().await? {
            Told::Began(id, remaining) if id == job => Ok(remaining),
            _ => anyhow::bail!("C told of something else than the begin of job {job}"),
        }
    }

    async fn stopped(&mut self, job: u32) -> anyhow::Result<Instant> {
        match self.next().await? {
            Told::Stopped(id, at) if id == job => Ok(at),
            _ => anyhow::bail!("C told of something else than the end of job {job}"),
        }
    }

    async fn next(&mut self) -> anyhow::Result<Told> {
        let told = tokio::time::timeout(Duration::from_secs(5), self.told.recv());
        told.await.context("C did not tell in 5 s")?.context("the watch has ended")
    }
}
