//! The first benchmark: how long calls take, here and between two processes.

use crate::child::{Server, cpu_seconds};
use crate::messages::{Mirror, Msg, Note, Notes};
use crate::report::Report;
use rpc_actix::{RpcEndpointRef, RpcEnvConfig};
use std::time::Instant;

/// How many times each figure is taken; the median is reported.
const ROUNDS: usize = 5;

/// Measures with about `calls` calls a round.
pub(crate) async fn run(calls: u64) -> anyhow::Result<Report> {
    let mut report = Report::new("bench");
    local(&mut report, calls).await?;
    remote(&mut report, calls).await?;
    Ok(report)
}

async fn local(report: &mut Report, calls: u64) -> anyhow::Result<()> {
    let runtime = tokio::task::LocalSet::new();
    let figures = runtime
        .run_until(async {
            let config = RpcEnvConfig::client("inline").set("rpc.actix.mode", "inline")?;
            let env = rpc_actix::create(config).await?;
            let mirror = env.setup_endpoint("mirror", Mirror::default()).await?;
            let mut asks = Vec::new();
            let mut sends = Vec::new();
            for _ in 0..ROUNDS {
                asks.push(ask_in_turn(&mirror, calls).await?);
                sends.push(send_all(&mirror, calls).await?);
            }
            env.shutdown().await;
            anyhow::Ok((median(asks), median(sends)))
        })
        .await?;
    report.figure(format!("local ask, 1 in flight, one arbiter: {:.0} ns", figures.0 * 1e9));
    report.figure(format!("local send, one arbiter: {:.0} ns", figures.1 * 1e9));
    Ok(())
}

async fn remote(report: &mut Report, calls: u64) -> anyhow::Result<()> {
    let server = Server::start()?;
    let local = tokio::task::LocalSet::new();
    local
        .run_until(async {
            let config = RpcEnvConfig::client("client").set("rpc.actix.mode", "inline")?;
            let env = rpc_actix::create(config).await?;
            let mirror = env.endpoint_ref::<Mirror>(&server.uri("mirror")).await?;
            for flight in [1, 128] {
                let mut rates = Vec::new();
                let mut cpu = Vec::new();
                for _ in 0..ROUNDS {
                    let calls = if flight == 1 { calls / 10 } else { calls };
                    let before = cpu_seconds(server.pid())? + cpu_seconds(std::process::id())?;
                    let seconds = ask_in_flight(&mirror, calls, flight).await?;
                    let after = cpu_seconds(server.pid())? + cpu_seconds(std::process::id())?;
                    rates.push(calls as f64 / seconds);
                    cpu.push((after - before) * 1e6 / calls as f64);
                }
                let (rate, cpu) = (median(rates), median(cpu));
                report.figure(format!(
                    "remote ask, {flight} in flight: {:.1} k asks/s, {:.1} us each, {cpu:.2} CPU s per million",
                    rate / 1e3,
                    1e6 / rate
                ));
            }
            env.shutdown().await;
            anyhow::Ok(())
        })
        .await
}

async fn ask_in_turn(mirror: &RpcEndpointRef<Mirror>, calls: u64) -> anyhow::Result<f64> {
    let start = Instant::now();
    for id in 0..calls {
        mirror.ask(Msg::new(id)).await?;
    }
    Ok(start.elapsed().as_secs_f64() / calls as f64)
}

async fn send_all(mirror: &RpcEndpointRef<Mirror>, calls: u64) -> anyhow::Result<f64> {
    let before = mirror.ask(Notes).await?;
    let start = Instant::now();
    for id in 0..calls {
        let Msg { name, payload, .. } = Msg::new(id);
        mirror.send_wait(Note { id, name, payload }).await?;
    }
    let after = mirror.ask(Notes).await?;
    anyhow::ensure!(after - before == calls, "{} of {calls} arrived", after - before);
    Ok(start.elapsed().as_secs_f64() / calls as f64)
}

async fn ask_in_flight(
    mirror: &RpcEndpointRef<Mirror>,
    calls: u64,
    flight: u64,
) -> anyhow::Result<f64> {
    let start = Instant::now();
    let tasks: Vec<_> = (0..flight)
        .map(|_| {
            let mirror = mirror.clone();
            tokio::task::spawn_local(async move {
                for id in 0..calls / flight {
                    let reply = mirror.ask(Msg::new(id)).await?;
                    anyhow::ensure!(reply.id == id, "wrong reply");
                }
                anyhow::Ok(())
            })
        })
        .collect();
    for task in tasks {
        task.await??;
    }
    Ok(start.elapsed().as_secs_f64())
}

fn median(mut figures: Vec<f64>) -> f64 {
    figures.sort_by(f64::total_cmp);
    figures.get(figures.len() / 2).copied().unwrap_or_default()
}
