//! Small asks beside messages of 64 MiB on the same connection.

use crate::child::{self, Server};
use crate::report::Report;
use crate::spread::{Spread, ms, timed};
use bytes::Bytes;
use rpc_actix::{
    HandlerResult, RpcCallContext, RpcEndpointRef, RpcEnvConfig, RpcError, RpcMessage, endpoint,
};
use serde::{Deserialize, Serialize};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

pub(crate) const SERVER: &str = "store";

const BULK: usize = 64 * 1024 * 1024;
const LIMIT: Duration = Duration::from_millis(5);
/// Beside large replies three threads of two processes compete for two cores: the limit is that of a
/// slice of the scheduler more. So it is in the short form, which runs beside whatever else there is.
const LOOSE: Duration = Duration::from_millis(10);
/// One small ask each; the next one does not wait for the answer of the one before.
const PACE: Duration = Duration::from_millis(1);

#[derive(Debug, Serialize, Deserialize, RpcMessage)]
#[rpc(reply = u64)]
struct Small {
    number: u64,
}

#[derive(Debug, Serialize, Deserialize, RpcMessage)]
#[rpc(reply = usize)]
struct Blob {
    #[serde(with = "rpc_actix::bytes_in_place")]
    payload: Bytes,
}

#[derive(Debug, Serialize, Deserialize, RpcMessage)]
#[rpc(reply = usize, lane = "bulk")]
struct BulkBlob {
    #[serde(with = "rpc_actix::bytes_in_place")]
    payload: Bytes,
}

#[derive(Debug, Serialize, Deserialize, RpcMessage)]
#[rpc(reply = Bytes)]
struct Fetch;

struct Store {
    blob: Bytes,
}

#[endpoint]
impl Store {
    #[receive_and_reply]
    fn small(&mut self, msg: Small) -> HandlerResult<u64> {
        Ok(msg.number)
    }

    #[receive_and_reply]
    fn blob(&mut self, msg: Blob) -> HandlerResult<usize> {
        Ok(msg.payload.len())
    }

    #[receive_and_reply]
    fn bulk_blob(&mut self, msg: BulkBlob) -> HandlerResult<usize> {
        Ok(msg.payload.len())
    }

    #[receive_and_reply]
    fn fetch(&mut self, _: Fetch, call: RpcCallContext<Bytes>) -> HandlerResult<()> {
        // Encoding it takes tens of ms: not on the thread of the endpoints.
        let blob = self.blob.clone();
        tokio::task::spawn_blocking(move || call.reply(blob));
        Ok(())
    }
}

/// Room for messages of 64 MiB: for one in an inbox, and two on the way.
fn roomy(config: RpcEnvConfig) -> Result<RpcEnvConfig, RpcError> {
    config
        .set("rpc.message.maxSize", "65MiB")?
        .set("rpc.inbox.maxBytes", "130MiB")?
        .set("rpc.outbox.maxBytes", "130MiB")
}

pub(crate) async fn serve() -> anyhow::Result<()> {
    let env = rpc_actix::create(roomy(RpcEnvConfig::server("store", "127.0.0.1:0"))?).await?;
    for name in ["store", "other"] {
        env.setup_endpoint(name, Store { blob: Bytes::from(vec![7; BULK]) }).await?;
    }
    child::listen(env).await
}

/// What goes on beside the small asks.
#[derive(Clone, Copy, Debug)]
enum Beside {
    Nothing,
    Normal,
    Bulk,
    Replies,
}

/// Makes so many small asks in each phase.
pub(crate) async fn run(asks: u64, short: bool) -> anyhow::Result<Report> {
    let mut report = Report::new("bulk-latency");
    let server = Server::start_as(SERVER, &[])?;
    let env = rpc_actix::create(roomy(RpcEnvConfig::client("client"))?).await?;
    let store = env.endpoint_ref::<Store>(&server.uri("store")).await?;
    let other = env.endpoint_ref::<Store>(&server.uri("other")).await?;
    measure(&store, asks / 10, Beside::Nothing, &other).await?;
    for (what, beside, asked) in [
        ("alone", Beside::Nothing, &other),
        ("to another endpoint than messages in the normal lane", Beside::Normal, &other),
        ("to the endpoint of messages in the bulk lane", Beside::Bulk, &store),
        ("beside large replies of another endpoint", Beside::Replies, &other),
    ] {
        let (times, large) = measure(&store, asks, beside, asked).await?;
        let limit = if short || matches!(beside, Beside::Replies) { LOOSE } else { LIMIT };
        report.require(
            times.len() as u64 == asks && times.percentile(99) < limit,
            &format!("{asks} small asks {what}, p99 below {}: {times}{large}", ms(limit)),
        );
    }
    env.shutdown().await;
    Ok(report)
}

async fn measure(
    store: &RpcEndpointRef<Store>,
    asks: u64,
    beside: Beside,
    asked: &RpcEndpointRef<Store>,
) -> anyhow::Result<(Spread, String)> {
    let over = Arc::new(AtomicBool::new(false));
    // On a thread of its own, which the encoding of large messages keeps busy.
    let (stop, large) = (over.clone(), store.clone());
    let large = tokio::task::spawn_blocking(move || send_large(&large, beside, &stop));
    let mut pace = tokio::time::interval(PACE);
    let mut tasks = Vec::new();
    for number in 0..asks {
        pace.tick().await;
        let asked = asked.clone();
        tasks.push(tokio::spawn(async move {
            let (time, answer) = timed(asked.ask(Small { number })).await;
            anyhow::ensure!(answer? == number, "a wrong answer");
            Ok(time)
        }));
    }
    let mut times = Vec::new();
    for task in tasks {
        times.push(task.await??);
    }
    over.store(true, Ordering::Relaxed);
    let large = large.await??;
    let note = match (beside, large) {
        (Beside::Nothing, _) => String::new(),
        (_, count) => format!(" ({count} of 64 MiB went by)"),
    };
    Ok((times.into_iter().collect(), note))
}

/// One large message after the other; how many.
fn send_large(
    store: &RpcEndpointRef<Store>,
    beside: Beside,
    over: &AtomicBool,
) -> anyhow::Result<u32> {
    let payload = Bytes::from(vec![7; BULK]);
    let mut count = 0;
    while !over.load(Ordering::Relaxed) {
        let payload = payload.clone();
        let bytes = match beside {
            Beside::Nothing => return Ok(0),
            Beside::Normal => store.ask_blocking(Blob { payload })?,
            Beside::Bulk => store.ask_blocking(BulkBlob { payload })?,
            Beside::Replies => store.ask_blocking(Fetch)?.len(),
        };
        anyhow::ensure!(bytes == BULK, "{bytes} bytes arrived");
        count += 1;
    }
    Ok(count)
}
