//! The callee is killed again and again while tasks ask it. What the askers heard is compared with
//! what the callee wrote down before it answered.

use crate::child::{Process, Server, free_port};
use crate::ledger::{self, Account, Files, Heard, LONGEST, Ledger};
use crate::messages::Mark;
use crate::report::Report;
use crate::spread::{Spread, ms};
use rpc_actix::{RpcEndpointRef, RpcEnvConfig};
use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

const ASKERS: u32 = 64;
/// How long after it listens the callee must have answered an ask.
const BACK: Duration = Duration::from_secs(1);
/// How long the callee lives at least: a connection that is lost in its first second counts as a
/// try that failed, and then more and more time passes until the next.
const SETTLED: Duration = Duration::from_millis(1_010);
/// How long the callee is away, in turn: nobody is to profit from one rhythm.
const AWAY: [Duration; 4] = [
    Duration::ZERO,
    Duration::from_millis(100),
    Duration::from_millis(300),
    Duration::from_millis(700),
];

/// When each life of the callee was first heard of.
#[derive(Default)]
struct Lives {
    first: Mutex<HashMap<u32, Instant>>,
    over: AtomicBool,
}

impl Lives {
    fn answered(&self, life: u32) {
        let mut first = self.first.lock().unwrap_or_else(PoisonError::into_inner);
        first.entry(life).or_insert_with(Instant::now);
    }

    fn first(&self, life: u32) -> Option<Instant> {
        self.first.lock().unwrap_or_else(PoisonError::into_inner).get(&life).copied()
    }
}

/// Kills the callee so many times.
pub(crate) async fn run(kills: u32) -> anyhow::Result<Report> {
    let mut report = Report::new("restarts");
    let files = Arc::new(Files::new("restarts"));
    let bind = free_port()?;
    let first = start(&bind, &files, 0)?;
    let env = rpc_actix::create(RpcEnvConfig::client("asker")).await?;
    let ledger = env.endpoint_ref::<Ledger>(&first.uri("ledger")).await?;
    let lives = Arc::new(Lives::default());
    let askers: Vec<_> = (0..ASKERS)
        .map(|sender| tokio::spawn(ask_on(ledger.clone(), sender, lives.clone())))
        .collect();
    let (killing, place) = (lives.clone(), files.clone());
    let killer =
        tokio::task::spawn_blocking(move || kill_again(first, &bind, &place, kills, &killing));
    let killed = killer.await?;
    lives.over.store(true, Ordering::Relaxed);
    let mut heard = Vec::new();
    for asker in askers {
        heard.push(asker.await?);
    }
    env.shutdown().await;
    let (back, last) = killed?;
    drop(last);
    let account = Account::of(&heard, &files.entered()?);
    report.figure(format!("{ASKERS} tasks, {}", account.figures()));
    report.figure(format!("errors: {}", account.errors()));
    account.judge(&mut report);
    report.require(
        account.has_all_classes(),
        "they were enough to see replies, failures and unknown outcomes",
    );
    judge_return(&mut report, &back, kills);
    Ok(report)
}

fn start(bind: &str, files: &Files, life: u32) -> anyhow::Result<Server> {
    let args = [bind, files.argument()?, &life.to_string()];
    Server::of(Process::start(ledger::SERVER, &args)?)
}

/// For each kill, how long the next life listened until it had answered; and the last life.
fn kill_again(
    first: Server,
    bind: &str,
    files: &Files,
    kills: u32,
    lives: &Lives,
) -> anyhow::Result<(Vec<Option<Duration>>, Server)> {
    let mut server = first;
    let mut back = Vec::new();
    wait_for(lives, 0);
    for life in 1..=kills {
        std::thread::sleep(SETTLED + Duration::from_millis(u64::from(life * 37 % 60)));
        server.process.kill()?;
        std::thread::sleep(AWAY.get(life as usize % AWAY.len()).copied().unwrap_or_default());
        server = start(bind, files, life)?;
        let listening = Instant::now();
        let answered = wait_for(lives, life);
        back.push(answered.map(|first| first.saturating_duration_since(listening)));
    }
    Ok((back, server))
}

fn wait_for(lives: &Lives, life: u32) -> Option<Instant> {
    let start = Instant::now();
    while start.elapsed() < LONGEST {
        if let Some(first) = lives.first(life) {
            return Some(first);
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    None
}

async fn ask_on(ledger: RpcEndpointRef<Ledger>, sender: u32, lives: Arc<Lives>) -> Heard {
    let mut heard = Heard::default();
    for number in 0.. {
        if lives.over.load(Ordering::Relaxed) {
            break;
        }
        if let Some(life) = heard.ask(&ledger, Mark { sender, number }).await {
            lives.answered(life);
        }
    }
    heard
}

fn judge_return(report: &mut Report, back: &[Option<Duration>], kills: u32) {
    let answered: Spread = back.iter().copied().flatten().collect();
    report.require(
        answered.len() == kills as usize,
        &format!("killed {kills} times, {} times back", answered.len()),
    );
    report.require(
        answered.most() < BACK,
        &format!("from listening to the first reply less than {}: {answered}", ms(BACK)),
    );
}
