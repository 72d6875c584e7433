//! An endpoint under ten times the load that it can take.

use crate::child::{Server, resident_bytes};
use crate::messages::{Handled, Load, SLOWNESS, Slow};
use crate::report::Report;
use rpc_actix::{Limits, RpcEndpointRef, RpcEnvConfig};
use std::time::{Duration, Instant};

/// Messages that are offered in the time of one.
const OVERLOAD: u32 = 10;
/// Room for messages at the sender: small, so that it is full long before the check ends.
const OUTBOX: usize = 1024;
/// What memory may vary by: pages that the allocator keeps.
const SLACK: u64 = 2 * 1024 * 1024;

struct Offered {
    accepted: u64,
    refused: u64,
    other: u64,
    memory: Vec<(u64, u64)>,
}

/// Offers the load for that long.
pub(crate) async fn run(time: Duration) -> anyhow::Result<Report> {
    let mut report = Report::new("slow-endpoint");
    let server = Server::start()?;
    let limits = Limits::default().with_outbox_max_messages(OUTBOX)?;
    let env = rpc_actix::create(RpcEnvConfig::client("client").with_limits(limits)).await?;
    let slow = env.endpoint_ref::<Slow>(&server.uri("slow")).await?;
    let offered = offer(&slow, time, server.pid()).await?;
    let total = offered.accepted + offered.refused + offered.other;
    report.figure(format!(
        "{total} messages of 1 KiB offered in {:.0} s: {} accepted, {} refused as Overloaded",
        time.as_secs_f64(),
        offered.accepted,
        offered.refused
    ));
    report.require(offered.other == 0, "no send failed for another reason");
    report.require(offered.refused > 0, "the load was more than there is room for");
    judge_memory(&mut report, &offered.memory);
    // Everything that was accepted is handled in the end; the ask waits behind it.
    let handled = slow.ask_with_timeout(Handled, Duration::from_secs(600)).await?;
    report.require(
        handled == offered.accepted,
        &format!("handled ({handled}) are exactly the accepted ({})", offered.accepted),
    );
    env.shutdown().await;
    Ok(report)
}

async fn offer(
    slow: &RpcEndpointRef<Slow>,
    time: Duration,
    server: u32,
) -> anyhow::Result<Offered> {
    let payload = bytes::Bytes::from(vec![7_u8; 1024]);
    let mut offered = Offered { accepted: 0, refused: 0, other: 0, memory: Vec::new() };
    let mut ticks = tokio::time::interval(SLOWNESS);
    let start = Instant::now();
    let mut next_sample = time / 2;
    while start.elapsed() < time {
        ticks.tick().await;
        for _ in 0..OVERLOAD {
            match slow.send(Load { payload: payload.clone() }) {
                Ok(()) => offered.accepted += 1,
                Err(error) if error.is_overloaded() => offered.refused += 1,
                Err(_) => offered.other += 1,
            }
        }
        if start.elapsed() >= next_sample {
            offered.memory.push((resident_bytes(std::process::id())?, resident_bytes(server)?));
            next_sample += time / 20;
        }
    }
    Ok(offered)
}

/// Memory from the middle of the run, when every queue is full, to its end.
fn judge_memory(report: &mut Report, samples: &[(u64, u64)]) {
    for (name, pick) in [("sender", 0), ("receiver", 1)] {
        let of = |sample: &(u64, u64)| if pick == 0 { sample.0 } else { sample.1 };
        let first = samples.first().map(of).unwrap_or_default();
        let most = samples.iter().map(of).max().unwrap_or_default();
        let flat = most <= first + SLACK;
        report.require(
            flat,
            &format!(
                "the {name}'s memory is flat: {:.1} MiB in the middle, {:.1} MiB at most after",
                first as f64 / 1048576.0,
                most as f64 / 1048576.0
            ),
        );
    }
}
