//! Very many endpoints and connections in one env: what each costs while it is idle, and whether
//! they are answered.

use crate::child::{self, Process, Server, resident_bytes};
use crate::random::Random;
use crate::raw_client::RawClient;
use crate::report::{Report, say};
use crate::spread::{Spread, ms, timed};
use anyhow::Context;
use rpc_actix::{
    EndpointContext, HandlerResult, RpcEndpointRef, RpcEnv, RpcEnvConfig, RpcMessage, endpoint,
};
use serde::{Deserialize, Serialize};
use std::time::Duration;

pub(crate) const SERVER: &str = "scale";
pub(crate) const CLIENTS: &str = "clients";

/// Processes that open connections: each has a limit of descriptors.
const PROCESSES: u32 = 2;
/// What an idle connection may cost the server.
const CONNECTION_BYTES: f64 = 8192.0;
/// Endpoints and connections that are asked afterwards.
const SAMPLE: u32 = 500;

/// The answer is the endpoint's number.
#[derive(Debug, Serialize, Deserialize, RpcMessage)]
#[rpc(reply = u32)]
struct Which;

#[derive(Debug, Serialize, Deserialize, RpcMessage)]
#[rpc(reply = ())]
struct SetUp {
    count: u32,
}

struct Numbered {
    number: u32,
}

#[endpoint]
impl Numbered {
    #[receive_and_reply]
    fn which(&mut self, _: Which) -> HandlerResult<u32> {
        Ok(self.number)
    }
}

struct Control;

#[endpoint]
impl Control {
    #[receive_and_reply]
    async fn set_up(&mut self, msg: SetUp, cx: &mut EndpointContext<Self>) -> HandlerResult<()> {
        let env = cx.env()?;
        for number in 0..msg.count {
            env.setup_endpoint(format!("e{number}"), Numbered { number }).await?;
        }
        Ok(())
    }
}

pub(crate) async fn serve() -> anyhow::Result<()> {
    let config =
        RpcEnvConfig::server("scale", "127.0.0.1:0").set("rpc.io.maxConnections", "12000")?;
    let env = rpc_actix::create(config).await?;
    env.setup_endpoint("control", Control).await?;
    child::listen(env).await
}

/// A process with many connections, each of them a client of its own that speaks what the page of
/// the wire says, by hand. At the order `ask COUNT` so many of them ask one endpoint each.
pub(crate) async fn connect(args: &[&str]) -> anyhow::Result<()> {
    let [server, count, endpoints] = args else { anyhow::bail!("server, count and endpoints") };
    let (count, endpoints): (u32, u32) = (count.parse()?, endpoints.parse()?);
    let mut clients = Vec::new();
    for _ in 0..count {
        clients.push(RawClient::connect(server).await?);
    }
    let mut orders = child::orders();
    say("connected");
    let mut random = Random::new(u64::from(std::process::id()));
    while let Some(order) = orders.recv().await {
        let asks: u32 = order.parse()?;
        let (mut right, mut times) = (0, Vec::new());
        for _ in 0..asks {
            let client = random.below(count);
            let number = random.below(endpoints);
            let client = clients.get_mut(client as usize).context("a client")?;
            let (time, answer) = timed(client.ask(&format!("e{number}"))).await;
            right += u32::from(answer? == number);
            times.push(time);
        }
        let spread: Spread = times.into_iter().collect();
        say(&format!("{right} {}", spread.percentile(99).as_micros()));
    }
    Ok(())
}

/// So many endpoints, then so many connections.
pub(crate) async fn run(count: u32) -> anyhow::Result<Report> {
    let mut report = Report::new("scale");
    let server = Server::of(Process::start_with_descriptors(SERVER, &[])?)?;
    let env = rpc_actix::create(RpcEnvConfig::client("client")).await?;
    let control = env.endpoint_ref::<Control>(&server.uri("control")).await?;
    // Once before anything is measured: code and allocator are warm then.
    let before = settled(server.pid()).await?;
    let (took, set_up) =
        timed(control.ask_with_timeout(SetUp { count }, Duration::from_secs(120))).await;
    set_up?;
    let with_endpoints = settled(server.pid()).await?;
    let each = per(with_endpoints, before, count);
    report.figure(format!("{count} idle endpoints, set up in {}: {each:.0} bytes each", ms(took)));
    ask_endpoints(&mut report, &env, &server, count).await?;
    let before = settled(server.pid()).await?;
    let mut processes = Vec::new();
    for _ in 0..PROCESSES {
        let args = [&server.address, &(count / PROCESSES).to_string(), &count.to_string()];
        let args = args.map(String::as_str);
        processes.push(Process::start_with_descriptors(CLIENTS, &args)?);
    }
    let (took, processes) = timed(connected(processes)).await;
    let mut processes = processes?;
    let with_connections = settled(server.pid()).await?;
    let each = per(with_connections, before, count);
    report.require(
        each <= CONNECTION_BYTES,
        &format!(
            "{count} idle connections, made in {}, {CONNECTION_BYTES} bytes at most: {each:.0} bytes each", ms(took)
        ),
    );
    report.figure(format!(
        "the server as a whole: {:.1} MiB resident",
        with_connections as f64 / 1048576.0
    ));
    for process in &mut processes {
        process.tell(&SAMPLE.to_string())?;
    }
    let said = child::lines(processes).await?;
    for line in said.1 {
        let (right, p99) = line.split_once(' ').context("a count and a time")?;
        report.require(
            right.parse::<u32>()? == SAMPLE,
            &format!("{right} of {SAMPLE} asks over random connections were answered, each behind its resolve; p99 {p99} us"),
        );
    }
    env.shutdown().await;
    Ok(report)
}

async fn ask_endpoints(
    report: &mut Report,
    env: &RpcEnv,
    server: &Server,
    count: u32,
) -> anyhow::Result<()> {
    let (mut random, mut right, mut times) = (Random::new(7), 0, Vec::new());
    for _ in 0..SAMPLE {
        let number = random.below(count);
        let endpoint: RpcEndpointRef<Numbered> =
            env.endpoint_ref(&server.uri(&format!("e{number}"))).await?;
        let (time, answer) = timed(endpoint.ask(Which)).await;
        right += u32::from(answer? == number);
        times.push(time);
    }
    let times: Spread = times.into_iter().collect();
    report.require(
        right == SAMPLE,
        &format!("{right} of {SAMPLE} random endpoints answered: {times}"),
    );
    Ok(())
}

/// What the process holds when it has come to rest.
async fn settled(pid: u32) -> anyhow::Result<u64> {
    tokio::time::sleep(Duration::from_millis(500)).await;
    resident_bytes(pid)
}

fn per(after: u64, before: u64, count: u32) -> f64 {
    after.saturating_sub(before) as f64 / f64::from(count)
}

async fn connected(processes: Vec<Process>) -> anyhow::Result<Vec<Process>> {
    let (processes, said) = child::lines(processes).await?;
    anyhow::ensure!(said.iter().all(|line| line == "connected"), "clients said {said:?}");
    Ok(processes)
}
