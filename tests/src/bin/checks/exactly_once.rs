//! Asks and sends of many tasks to another process, compared with what that process received.

use crate::child::Server;
use crate::messages::{Echo, Mark, ReadLog, Recorder, Tell};
use crate::report::Report;
use rpc_actix::{RpcEndpointRef, RpcEnvConfig};
use std::collections::BTreeMap;
use std::time::Instant;

const SENDERS: u32 = 64;

/// Sends `total` asks and as many one-way messages from 64 tasks.
pub(crate) async fn run(total: u32) -> anyhow::Result<Report> {
    let mut report = Report::new("exactly-once");
    let server = Server::start()?;
    let env = rpc_actix::create(RpcEnvConfig::client("client")).await?;
    let recorder = env.endpoint_ref::<Recorder>(&server.uri("recorder")).await?;
    let each = total / SENDERS;
    let start = Instant::now();
    let tasks: Vec<_> =
        (0..SENDERS).map(|sender| tokio::spawn(send_all(recorder.clone(), sender, each))).collect();
    for task in tasks {
        task.await??;
    }
    let seconds = start.elapsed().as_secs_f64();
    let log = read_log(&recorder, 2 * SENDERS * each).await?;
    report.figure(format!(
        "{} asks and {} sends from {SENDERS} tasks in {seconds:.1} s, {} in the receiver's log",
        SENDERS * each,
        SENDERS * each,
        log.len()
    ));
    judge(&mut report, &log, each);
    env.shutdown().await;
    Ok(report)
}

async fn send_all(
    recorder: RpcEndpointRef<Recorder>,
    sender: u32,
    each: u32,
) -> anyhow::Result<()> {
    for turn in 0..each {
        // Even numbers are sent, odd ones asked; the order between them holds as well.
        let tell = Mark { sender, number: 2 * turn };
        recorder.send_wait(Tell { mark: tell }).await?;
        let echo = Mark { sender, number: 2 * turn + 1 };
        let back = recorder.ask(Echo { mark: echo }).await?;
        anyhow::ensure!(back == echo, "asked {echo:?}, got {back:?}");
    }
    Ok(())
}

async fn read_log(
    recorder: &RpcEndpointRef<Recorder>,
    expected: u32,
) -> anyhow::Result<Vec<(bool, Mark)>> {
    let mut log = Vec::with_capacity(expected as usize);
    loop {
        let part = recorder.ask(ReadLog { from: log.len(), count: 50_000 }).await?;
        if part.is_empty() {
            return Ok(log);
        }
        log.extend(part);
    }
}

fn judge(report: &mut Report, log: &[(bool, Mark)], each: u32) {
    let mut next: BTreeMap<u32, u32> = BTreeMap::new();
    let (mut out_of_order, mut wrong_kind) = (0_u64, 0_u64);
    for (asked, mark) in log {
        let expected = next.entry(mark.sender).or_default();
        if mark.number == *expected {
            *expected += 1;
        } else {
            out_of_order += 1;
        }
        if *asked != (mark.number % 2 == 1) {
            wrong_kind += 1;
        }
    }
    let complete = next.len() == SENDERS as usize && next.values().all(|next| *next == 2 * each);
    report.require(complete, "none lost: every sender's numbers are there to the last");
    let expected = 2 * SENDERS as usize * each as usize;
    report.require(log.len() == expected, "none doubled: the log is as long as what was sent");
    report.require(out_of_order == 0, "every sender's messages arrived in their order");
    report.require(wrong_kind == 0, "asks arrived as asks and sends as sends");
}
