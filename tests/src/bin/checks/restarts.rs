//! The callee is killed again and again while tasks ask it. What the askers heard is compared with
//! what the callee wrote down before it answered.

use crate::child::{self, Process, Server};
use crate::messages::Mark;
use crate::report::Report;
use crate::spread::{Spread, ms};
use anyhow::Context;
use rpc_actix::{
    ErrorKind, HandlerError, HandlerResult, Outcome, RpcEndpointRef, RpcEnvConfig, RpcMessage,
    endpoint,
};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, HashMap};
use std::fs::{File, OpenOptions};
use std::io::{BufRead, BufReader, Write};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

pub(crate) const SERVER: &str = "ledger";

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
/// A little more than `rpc.askTimeout`: by then every ask has ended.
const LONGEST: Duration = Duration::from_secs(11);

/// Asks for a line in the log; the answer is which life of the process wrote it.
#[derive(Debug, Serialize, Deserialize, RpcMessage)]
#[rpc(reply = u32)]
struct Enter {
    mark: Mark,
}

struct Ledger {
    log: File,
    life: u32,
}

#[endpoint]
impl Ledger {
    #[receive_and_reply]
    async fn enter(&mut self, msg: Enter) -> HandlerResult<u32> {
        let Mark { sender, number } = msg.mark;
        // In one system call, so that the line is whole and stays when the process is killed.
        self.log.write_all(format!("{sender} {number}\n").as_bytes())?;
        if number % 16 == 7 {
            // So that some are killed in the middle of a handler, and others behind it.
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        if is_to_fail(number) {
            return Err(HandlerError::msg("as it was asked to"));
        }
        Ok(self.life)
    }
}

fn is_to_fail(number: u32) -> bool {
    number % 16 == 11
}

/// The child: at a given port, with a log that the lives before it have begun.
pub(crate) async fn serve(args: &[&str]) -> anyhow::Result<()> {
    let [bind, log, life] = args else { anyhow::bail!("bind, log and life") };
    let log = OpenOptions::new().create(true).append(true).open(log)?;
    let env = rpc_actix::create(RpcEnvConfig::server("ledger", bind)).await?;
    env.setup_endpoint("ledger", Ledger { log, life: life.parse()? }).await?;
    child::listen(env).await
}

/// What an asker heard.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Class {
    Reply,
    NeverSent,
    Unknown,
    Failed,
    /// An answer that does not fit to what was asked.
    Wrong,
}

/// Everything that one task heard.
#[derive(Default)]
struct Heard {
    classes: Vec<(Mark, Class)>,
    kinds: BTreeMap<(String, Class), u32>,
    longest: Duration,
}

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
    let log = std::env::temp_dir().join(format!("rpc-checks-{}-ledger.log", std::process::id()));
    let bind = free_port()?;
    let first = start(&bind, &log, 0)?;
    let env = rpc_actix::create(RpcEnvConfig::client("asker")).await?;
    let ledger = env.endpoint_ref::<Ledger>(&first.uri("ledger")).await?;
    let lives = Arc::new(Lives::default());
    let askers: Vec<_> = (0..ASKERS)
        .map(|sender| tokio::spawn(ask_on(ledger.clone(), sender, lives.clone())))
        .collect();
    let (killing, place) = (lives.clone(), log.clone());
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
    let entered = read_log(&log)?;
    std::fs::remove_file(&log).context("removing the log")?;
    judge(&mut report, &heard, &entered);
    judge_return(&mut report, &back, kills);
    Ok(report)
}

/// An address below the ports that the system gives to connections: one of those could be given
/// to the asker's own while nobody listens.
fn free_port() -> anyhow::Result<String> {
    let from = 20_000 + u16::try_from(std::process::id() % 8_000)?;
    let free = |port: &u16| std::net::TcpListener::bind(("127.0.0.1", *port)).is_ok();
    let port = (from..32_000).find(free).context("no free port")?;
    Ok(format!("127.0.0.1:{port}"))
}

fn start(bind: &str, log: &std::path::Path, life: u32) -> anyhow::Result<Server> {
    let log = log.to_str().context("the path of the log")?;
    Server::of(Process::start(SERVER, &[bind, log, &life.to_string()])?)
}

/// For each kill, how long the next life listened until it had answered; and the last life.
fn kill_again(
    first: Server,
    bind: &str,
    log: &std::path::Path,
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
        server = start(bind, log, life)?;
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
        let mark = Mark { sender, number };
        let start = Instant::now();
        let result = ledger.ask(Enter { mark }).await;
        heard.longest = heard.longest.max(start.elapsed());
        if let Ok(life) = result {
            lives.answered(life);
        }
        let class = class_of(number, &result);
        if let Err(error) = &result {
            let seen = (format!("{:?}", error.kind()), class);
            *heard.kinds.entry(seen).or_default() += 1;
        }
        heard.classes.push((mark, class));
        if matches!(class, Class::NeverSent | Class::Unknown) {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    }
    heard
}

fn class_of(number: u32, result: &Result<u32, rpc_actix::RpcError>) -> Class {
    match result {
        Ok(_) if is_to_fail(number) => Class::Wrong,
        Ok(_) => Class::Reply,
        Err(error) => match error.outcome() {
            Outcome::NeverSent => Class::NeverSent,
            Outcome::Unknown => Class::Unknown,
            Outcome::FailedInHandler
                if is_to_fail(number) && error.kind() == ErrorKind::HandlerFailed =>
            {
                Class::Failed
            }
            _ => Class::Wrong,
        },
    }
}

/// How often each mark was entered.
fn read_log(log: &PathBuf) -> anyhow::Result<HashMap<(u32, u32), u32>> {
    let mut entered = HashMap::new();
    for line in BufReader::new(File::open(log)?).lines() {
        let line = line?;
        let (sender, number) = line.split_once(' ').context("a line of the log")?;
        *entered.entry((sender.parse()?, number.parse()?)).or_default() += 1;
    }
    Ok(entered)
}

fn judge(report: &mut Report, heard: &[Heard], entered: &HashMap<(u32, u32), u32>) {
    let mut counts: BTreeMap<Class, (u32, u32)> = BTreeMap::new();
    for (mark, class) in heard.iter().flat_map(|heard| &heard.classes) {
        let (all, in_log) = counts.entry(*class).or_default();
        *all += 1;
        *in_log += u32::from(entered.contains_key(&(mark.sender, mark.number)));
    }
    let of = |class| counts.get(&class).copied().unwrap_or_default();
    let (replies, replies_in) = of(Class::Reply);
    let (unsent, unsent_in) = of(Class::NeverSent);
    let (unknown, unknown_in) = of(Class::Unknown);
    let (failed, failed_in) = of(Class::Failed);
    report.figure(format!(
        "asks of {ASKERS} tasks: {replies} replies, {failed} failed in the handler, {unsent} never sent, {unknown} unknown (of which {unknown_in} are in the log)"
    ));
    let mut kinds: BTreeMap<_, u32> = BTreeMap::new();
    for (seen, count) in heard.iter().flat_map(|heard| &heard.kinds) {
        *kinds.entry(seen).or_default() += count;
    }
    let kinds: Vec<_> =
        kinds.iter().map(|((kind, class), count)| format!("{count} {kind} ({class:?})")).collect();
    report.figure(format!("errors: {}", kinds.join(", ")));
    let asked: usize = heard.iter().map(|heard| heard.classes.len()).sum();
    let known: usize = (replies_in + failed_in + unsent_in + unknown_in) as usize;
    report.require(of(Class::Wrong).0 == 0, "every answer fits to what was asked");
    report.require(replies_in == replies, "every ask with a reply is in the callee's log");
    report.require(failed_in == failed, "every ask that failed in the handler is in the log");
    report.require(unsent_in == 0, "no ask reported as never sent is in the log");
    report.require(entered.values().all(|times| *times == 1), "nothing is in the log twice");
    report.require(known == entered.len(), "nothing is in the log that was not asked");
    report.require(
        replies > 0 && failed > 0 && unknown > 0,
        &format!("{asked} asks were enough to see replies, failures and unknown outcomes"),
    );
    let longest = heard.iter().map(|heard| heard.longest).max().unwrap_or_default();
    report.require(longest < LONGEST, &format!("every ask ended, the longest in {}", ms(longest)));
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
