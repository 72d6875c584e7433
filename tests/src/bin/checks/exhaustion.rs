//! A server that runs out of descriptors, and one that is flooded with connections that say nothing:
//! whoever is connected goes on, and newcomers come in as soon as there is room.

use crate::child::{self, Process, Server, resident_bytes};
use crate::messages::{Handled, Mirror, Msg, Slow};
use crate::report::{Report, say};
use crate::spread::{Spread, ms, timed};
use anyhow::Context;
use rpc_actix::{RpcEnv, RpcEnvConfig};
use std::time::{Duration, Instant};
use tokio::net::TcpStream;

pub(crate) const SERVER: &str = "exhaustion";
pub(crate) const STRANGERS: &str = "strangers";

/// Descriptors that the server may have, and what it keeps for others than connections that come in.
const DESCRIPTORS: usize = 128;
const RESERVE: usize = 64;
/// How soon a newcomer is taken when descriptors are back.
const BACK: Duration = Duration::from_millis(200);
/// What a stranger may cost, and how long it may stay.
const STRANGER_BYTES: f64 = 16.0 * 1024.0;
const REAPED: Duration = Duration::from_millis(5_300);
/// What a peer that means it may wait for in a flood.
const CONNECTED: Duration = Duration::from_millis(50);
/// Processes of strangers: each has a limit of descriptors.
const PROCESSES: u32 = 2;

/// The child: with room for so many that say nothing, and its log on standard error.
pub(crate) async fn serve(args: &[&str]) -> anyhow::Result<()> {
    let [strangers] = args else { anyhow::bail!("how many strangers may come") };
    tracing_subscriber::fmt().with_ansi(false).with_writer(std::io::stderr).init();
    let config = RpcEnvConfig::server(SERVER, "127.0.0.1:0");
    let config = config.set("rpc.io.maxUnauthenticated", strangers)?;
    let env = rpc_actix::create(config).await?;
    env.setup_endpoint("mirror", Mirror::default()).await?;
    env.setup_endpoint("slow", Slow::default()).await?;
    child::listen(env).await
}

/// A process that connects so many times and says nothing. Says how many of them were closed at the
/// order `closed`, once all are or a time is over, and how long the last one took.
pub(crate) async fn say_nothing(args: &[&str]) -> anyhow::Result<()> {
    let [server, count] = args else { anyhow::bail!("server and count") };
    let mut streams = Vec::new();
    for _ in 0..count.parse::<u32>()? {
        let (stream, since) = (TcpStream::connect(server).await?, Instant::now());
        // Each looks for itself, so that it is known when it was closed.
        streams.push(tokio::task::spawn_local(async move {
            let closed = tokio::time::timeout(REAPED * 2, stream.readable()).await.is_ok();
            closed.then(|| since.elapsed())
        }));
    }
    let mut orders = child::orders();
    say("connected");
    if orders.recv().await.is_some() {
        let (mut closed, mut longest) = (0, Duration::ZERO);
        for stream in streams {
            if let Some(after) = stream.await? {
                closed += 1;
                longest = longest.max(after);
            }
        }
        say(&format!("{closed} {}", longest.as_millis()));
    }
    while orders.recv().await.is_some() {}
    Ok(())
}

pub(crate) async fn run(strangers: u32) -> anyhow::Result<Report> {
    let mut report = Report::new("exhaustion");
    descriptors(&mut report).await?;
    flood(&mut report, strangers).await?;
    Ok(report)
}

/// A server with few descriptors, and more connections than they are enough for.
async fn descriptors(report: &mut Report) -> anyhow::Result<()> {
    let (process, log) = Process::start_logging(&DESCRIPTORS.to_string(), SERVER, &["1024"])?;
    let server = Server::of(process)?;
    let env = rpc_actix::create(RpcEnvConfig::client("early")).await?;
    let mirror = env.endpoint_ref::<Mirror>(&server.uri("mirror")).await?;
    mirror.ask(Msg::new(0)).await?;
    let mut strangers = Vec::new();
    for _ in 0..2 * DESCRIPTORS {
        strangers.push(TcpStream::connect(&server.address).await?);
    }
    let (mut answered, mut most) = (0, 0);
    for id in 0..200 {
        answered += u32::from(mirror.ask(Msg::new(id)).await.is_ok());
        most = open_descriptors(server.pid())?.max(most);
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    report.require(
        answered == 200,
        &format!(
            "{DESCRIPTORS} descriptors, {} strangers: {answered} of 200 asks of an early peer were answered",
            strangers.len()
        ),
    );
    report.require(
        // One that is just refused, and one of those others: a library reads a file now and then.
        most <= DESCRIPTORS - RESERVE + 2,
        &format!("the server had {most} descriptors at most: {RESERVE} stay for others"),
    );
    drop(strangers);
    let late = rpc_actix::create(RpcEnvConfig::client("late")).await?;
    let (took, found) = timed(late.endpoint_ref::<Mirror>(&server.uri("mirror"))).await;
    report.require(
        found.is_ok() && took <= BACK,
        &format!("descriptors are back: a newcomer is taken after {} of {}", ms(took), ms(BACK)),
    );
    env.shutdown().await;
    late.shutdown().await;
    drop(server);
    let log = log.join().ok().context("the log")?;
    let lines = log.lines().filter(|line| line.contains("accepting a connection failed")).count();
    report.require(
        (1..=3).contains(&lines),
        &format!("the log has {lines} lines of that: one in five seconds"),
    );
    Ok(())
}

/// Very many connections that say nothing, at once, and peers that mean it among them.
async fn flood(report: &mut Report, count: u32) -> anyhow::Result<()> {
    let places = (count + 100).to_string();
    let (process, log) = Process::start_logging("$(ulimit -Hn)", SERVER, &[&places])?;
    let server = Server::of(process)?;
    let early = rpc_actix::create(RpcEnvConfig::client("early")).await?;
    early.endpoint_ref::<Mirror>(&server.uri("mirror")).await?;
    let before = (resident_bytes(server.pid())?, open_descriptors(server.pid())?);
    let each = (count / PROCESSES).to_string();
    let args = [server.address.as_str(), &each];
    let start = |_| Process::start_with_descriptors(STRANGERS, &args);
    let processes = (0..PROCESSES).map(start).collect::<anyhow::Result<Vec<_>>>()?;
    let connecting = tokio::spawn(child::lines(processes));
    let (mut times, mut failed, mut most) = (Vec::new(), 0, (0, 0));
    while !connecting.is_finished() || times.len() < 100 {
        let env = rpc_actix::create(RpcEnvConfig::client("newcomer")).await?;
        let (took, connected) = timed(connect(&env, &server)).await;
        times.push(took);
        failed += u32::from(connected.is_err());
        env.shutdown().await;
        most.0 = resident_bytes(server.pid())?.max(most.0);
        most.1 = open_descriptors(server.pid())?.max(most.1);
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let (processes, _) = connecting.await??;
    let there = most.1.saturating_sub(before.1);
    let times: Spread = times.into_iter().collect();
    report.require(
        failed == 0 && times.percentile(99) <= CONNECTED,
        &format!(
            "{count} strangers come, {there} are there at once: {} peers that mean it connected meanwhile, {failed} failed, p99 within {}: {times}",
            times.len(),
            ms(CONNECTED)
        ),
    );
    let bytes = most.0.saturating_sub(before.0) as f64 / there.max(1) as f64;
    report.require(
        bytes <= STRANGER_BYTES && there > 0,
        &format!("each costs {STRANGER_BYTES} bytes at most: {bytes:.0}"),
    );
    let processes = all_closed(report, processes, &each).await?;
    let left = open_descriptors(server.pid())?;
    report.require(
        left <= before.1 + 1,
        &format!("the server has {left} descriptors in the end, {} at the beginning", before.1),
    );
    early.shutdown().await;
    drop(processes);
    drop(server);
    let log = log.join().ok().context("the log")?;
    let lines = log.lines().count();
    report.require(lines <= 20, &format!("the log of all that has {lines} lines, of 20"));
    Ok(())
}

/// The strangers are closed in time, `each` of each process.
async fn all_closed(
    report: &mut Report,
    mut processes: Vec<Process>,
    each: &str,
) -> anyhow::Result<Vec<Process>> {
    for process in &mut processes {
        process.tell("closed")?;
    }
    let (processes, said) = child::lines(processes).await?;
    for line in said {
        let (closed, longest) = line.split_once(' ').context("a count and a time")?;
        let longest = Duration::from_millis(longest.parse()?);
        report.require(
            closed == each && longest <= REAPED,
            &format!(
                "{closed} of {each} were closed, the last after {} of {}",
                ms(longest),
                ms(REAPED)
            ),
        );
    }
    Ok(processes)
}

/// Connects, and is answered.
async fn connect(env: &RpcEnv, server: &Server) -> anyhow::Result<()> {
    let slow = env.endpoint_ref::<Slow>(&server.uri("slow")).await?;
    slow.ask(Handled).await?;
    Ok(())
}

fn open_descriptors(pid: u32) -> anyhow::Result<usize> {
    Ok(std::fs::read_dir(format!("/proc/{pid}/fd"))?.count())
}
