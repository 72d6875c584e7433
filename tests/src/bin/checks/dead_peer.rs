//! When a peer counts as gone: one that is stopped, or whose network is silent, in time; one that was
//! only busy, or paused for less than a second, never.

use crate::child::{self, Process, Server};
use crate::lan::{Host, Lan};
use crate::random::Random;
use crate::report::Report;
use crate::spread::{Spread, ms};
use anyhow::Context;
use rpc_actix::{
    HandlerResult, RpcAddress, RpcEndpointRef, RpcEnv, RpcEnvConfig, RpcMessage, endpoint,
};
use serde::{Deserialize, Serialize};
use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

pub(crate) const PEER: &str = "watched";

/// `rpc.io.deadAfter`, and a fifth of a heartbeat.
const DEAD: Duration = Duration::from_millis(3_200);
/// By then a peer that was not reported never will be.
const HOPELESS: Duration = Duration::from_secs(8);
/// Pauses at one time.
const AT_ONCE: u32 = 8;

#[derive(Debug, Serialize, Deserialize, RpcMessage)]
#[rpc(reply = u32)]
struct Lost;

/// Counts the peers that it has lost.
#[derive(Default)]
struct Watched {
    lost: u32,
}

#[endpoint]
impl Watched {
    #[receive_and_reply]
    fn lost(&mut self, _: Lost) -> HandlerResult<u32> {
        Ok(self.lost)
    }

    #[on_disconnected]
    fn disconnected(&mut self, _peer: &RpcAddress) -> HandlerResult<()> {
        self.lost += 1;
        Ok(())
    }
}

/// A child at that address.
pub(crate) async fn serve(args: &[&str]) -> anyhow::Result<()> {
    let [bind] = args else { anyhow::bail!("where to listen") };
    let env = rpc_actix::create(RpcEnvConfig::server(PEER, bind)).await?;
    env.setup_endpoint(PEER, Watched::default()).await?;
    child::listen(env).await
}

/// When which peer was lost.
#[derive(Clone, Default)]
struct Watcher(Arc<Mutex<HashMap<String, Instant>>>);

#[endpoint]
impl Watcher {
    #[on_disconnected]
    fn disconnected(&mut self, peer: &RpcAddress) -> HandlerResult<()> {
        let mut lost = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        lost.entry(peer.host_port()).or_insert_with(Instant::now);
        Ok(())
    }
}

impl Watcher {
    fn forget(&self) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }

    fn lost(&self) -> HashMap<String, Instant> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// How much is tried.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Effort {
    pub peers: u32,
    pub pauses: u32,
    /// Times that each peer is stopped, and that the network of all is cut.
    pub rounds: u32,
}

impl Effort {
    pub(crate) fn of(short: bool) -> Self {
        if short {
            Self { peers: 20, pauses: 100, rounds: 2 }
        } else {
            Self { peers: 50, pauses: 500, rounds: 4 }
        }
    }
}

pub(crate) async fn run(effort: Effort) -> anyhow::Result<Report> {
    let mut report = Report::new("dead-peer");
    let here = move || in_runtime(async move { Scene::set(effort, None).await?.stops().await });
    report.absorb(tokio::task::spawn_blocking(here).await??);
    Lan::sweep();
    if let Some(why) = Lan::missing() {
        report.figure(format!("silent partitions are skipped: {why}"));
        return Ok(report);
    }
    let apart = move || {
        let lan = Arc::new(Lan::new()?);
        lan.enter(Host::A)?;
        in_runtime(async move { Scene::set(effort, Some(lan)).await?.cuts().await })
    };
    // In a thread of its own, which ends on that host.
    let apart = std::thread::spawn(apart);
    let joined = tokio::task::spawn_blocking(move || apart.join()).await?;
    report.absorb(joined.ok().context("the watcher has panicked")??);
    Ok(report)
}

fn in_runtime<T>(future: impl Future<Output = anyhow::Result<T>>) -> anyhow::Result<T> {
    tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(future)
}

/// A watcher, and peers that it is connected to.
struct Scene {
    report: Report,
    effort: Effort,
    env: RpcEnv,
    watcher: Watcher,
    peers: Vec<Server>,
    refs: Vec<RpcEndpointRef<Watched>>,
    random: Random,
    lan: Option<Arc<Lan>>,
}

impl Scene {
    async fn set(effort: Effort, lan: Option<Arc<Lan>>) -> anyhow::Result<Self> {
        let start = |_| match &lan {
            None => Server::start_as(PEER, &["127.0.0.1:0"]),
            Some(lan) => {
                let bind = format!("{}:0", Host::B.ip());
                Server::of(Process::start_on((lan, Host::B), PEER, &[&bind])?)
            }
        };
        let peers: Vec<_> = (0..effort.peers).map(start).collect::<anyhow::Result<_>>()?;
        let env = rpc_actix::create(RpcEnvConfig::client("watcher")).await?;
        let watcher = Watcher::default();
        env.setup_endpoint("watcher", watcher.clone()).await?;
        let mut refs = Vec::new();
        for peer in &peers {
            refs.push(env.endpoint_ref(&peer.uri(PEER)).await?);
        }
        let report = Report::new("dead-peer");
        Ok(Self { report, effort, env, watcher, peers, refs, random: Random::new(7), lan })
    }

    /// Processes that are paused while both cores are busy, and then stopped.
    async fn stops(mut self) -> anyhow::Result<Report> {
        let lost_before = self.lost_by_peers().await?;
        let busy = Burners::start()?;
        let (pauses, longest) = self.pauses().await?;
        // Longer than it takes to find a peer dead.
        tokio::time::sleep(DEAD).await;
        let cores = busy.count();
        drop(busy);
        let (ours, theirs) =
            (self.watcher.lost().len() as u32, self.lost_by_peers().await? - lost_before);
        self.report.require(
            ours == 0 && theirs == 0,
            &format!(
                "{pauses} pauses of up to {} beside {cores} busy threads: {ours} peers were reported dead, and {theirs} times they reported us",
                ms(longest)
            ),
        );
        let mut times = Vec::new();
        for _ in 0..self.effort.rounds {
            times.extend(self.stop_all().await?);
        }
        self.judge("stopped", &times);
        self.env.shutdown().await;
        Ok(self.report)
    }

    /// So many pauses, some at a time, of random peers for random times.
    async fn pauses(&mut self) -> anyhow::Result<(u32, Duration)> {
        let (mut done, mut longest) = (0, Duration::ZERO);
        while done < self.effort.pauses {
            let at_once = AT_ONCE.min(self.effort.pauses - done).min(self.effort.peers);
            let first = self.random.between(0, u64::from(self.effort.peers));
            let mut ends = Vec::new();
            for number in 0..u64::from(at_once) {
                let place = (first + number) % u64::from(self.effort.peers);
                let peer = self.peers.get(usize::try_from(place)?).context("a peer")?;
                peer.process.pause()?;
                let time = Duration::from_millis(self.random.between(50, 950));
                ends.push((time, place, Instant::now()));
            }
            ends.sort_unstable();
            for (time, place, since) in ends {
                tokio::time::sleep(time.saturating_sub(since.elapsed())).await;
                self.peers.get(usize::try_from(place)?).context("a peer")?.process.go_on()?;
                longest = longest.max(since.elapsed());
                done += 1;
            }
        }
        Ok((done, longest))
    }

    /// Stops every peer, at times that have nothing to do with their signs of life; how long it
    /// took until each was reported.
    async fn stop_all(&mut self) -> anyhow::Result<Vec<Option<Duration>>> {
        self.settle().await?;
        let mut stopped = Vec::new();
        for number in 0..self.peers.len() {
            tokio::time::sleep(Duration::from_millis(self.random.between(0, 40))).await;
            let peer = self.peers.get(number).context("a peer")?;
            peer.process.pause()?;
            stopped.push((peer.address.clone(), Instant::now()));
        }
        let times = self.reported(&stopped).await;
        self.peers.iter().try_for_each(|peer| peer.process.go_on())?;
        Ok(times)
    }

    /// The network of all peers is silent, both ways; in the last round they are killed behind it.
    async fn cuts(mut self) -> anyhow::Result<Report> {
        let lan = self.lan.clone().context("a link")?;
        let mut times = Vec::new();
        for round in 1..=self.effort.rounds {
            self.settle().await?;
            let at = Instant::now();
            lan.cut(&[Host::A, Host::B])?;
            if round == self.effort.rounds {
                self.peers.iter_mut().try_for_each(|peer| peer.process.kill())?;
            }
            let cut: Vec<_> = self.peers.iter().map(|peer| (peer.address.clone(), at)).collect();
            times.extend(self.reported(&cut).await);
            lan.heal(&[Host::A, Host::B])?;
        }
        self.judge("cut off", &times);
        self.env.shutdown().await;
        Ok(self.report)
    }

    /// Every peer is connected, and none was lost.
    async fn settle(&mut self) -> anyhow::Result<()> {
        self.lost_by_peers().await?;
        let time = Duration::from_millis(1_500 + self.random.between(0, 1_000));
        tokio::time::sleep(time).await;
        self.watcher.forget();
        Ok(())
    }

    async fn lost_by_peers(&self) -> anyhow::Result<u32> {
        let mut all = 0;
        for peer in &self.refs {
            all += peer.ask(Lost).await?;
        }
        Ok(all)
    }

    async fn reported(&self, gone: &[(String, Instant)]) -> Vec<Option<Duration>> {
        let end = Instant::now() + HOPELESS;
        while self.watcher.lost().len() < gone.len() && Instant::now() < end {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        let lost = self.watcher.lost();
        let time = |(peer, at): &(String, Instant)| {
            lost.get(peer).map(|when| when.saturating_duration_since(*at))
        };
        gone.iter().map(time).collect()
    }

    fn judge(&mut self, how: &str, times: &[Option<Duration>]) {
        let reported: Spread = times.iter().copied().flatten().collect();
        self.report.require(
            reported.len() == times.len() && reported.percentile(99) <= DEAD,
            &format!(
                "{} of {} peers that were {how} were reported, p99 within {}: {reported}",
                reported.len(),
                times.len(),
                ms(DEAD)
            ),
        );
    }
}

/// Threads that keep every core busy until this is dropped.
struct Burners {
    over: Arc<AtomicBool>,
    count: u32,
}

impl Burners {
    fn start() -> anyhow::Result<Self> {
        let count = u32::try_from(std::thread::available_parallelism()?.get())?;
        let over = Arc::new(AtomicBool::new(false));
        let turns = Arc::new(AtomicU32::new(0));
        for _ in 0..count {
            let (over, turns) = (over.clone(), turns.clone());
            std::thread::spawn(move || {
                while !over.load(Ordering::Relaxed) {
                    turns.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
        Ok(Self { over, count })
    }

    fn count(&self) -> u32 {
        self.count
    }
}

impl Drop for Burners {
    fn drop(&mut self) {
        self.over.store(true, Ordering::Relaxed);
    }
}
