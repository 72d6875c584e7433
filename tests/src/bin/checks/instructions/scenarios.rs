//! What is counted. Caller and endpoint are envs of mode `inline` on one thread of one process, and
//! remote ones talk over loopback: a figure is that of both sides, without the system's share.

use crate::messages::{
    AskMirror, Asker, CompactMsg, Measure, MeasureInPlace, Mirror, Msg, Note, Notes,
};
use anyhow::Context;
use bytes::Bytes;
use rpc_actix::{RpcEndpointRef, RpcEnvConfig};

/// The role of a child whose instructions are counted.
pub(crate) const COUNTED: &str = "counted";

/// A way to send messages.
pub(crate) struct Scenario {
    pub name: &'static str,
    /// Messages in each of the two runs: multiples of 128, so that each task has equally many.
    pub messages: (u64, u64),
    remote: bool,
    what: What,
}

#[derive(Clone, Copy)]
enum What {
    /// Asks, so many in flight.
    Ask(u64),
    /// The same with structs as arrays.
    CompactAsk(u64),
    /// Asks with 1 MiB, so many in flight.
    LargeAsk(u64),
    /// The same without a copy.
    SharedAsk(u64),
    /// Asks that a handler makes, so many in flight, each with a waker of its own if that is not one.
    HandlerAsk(usize),
    /// One-way messages in a row.
    Send,
}

pub(crate) const SCENARIOS: &[Scenario] = &[
    small("local-ask-1", false, What::Ask(1)),
    small("local-ask-128", false, What::Ask(128)),
    small("handler-ask-1", false, What::HandlerAsk(1)),
    small("handler-ask-128", false, What::HandlerAsk(128)),
    small("local-send", false, What::Send),
    small("remote-ask-1", true, What::Ask(1)),
    small("remote-ask-128", true, What::Ask(128)),
    small("remote-ask-128-compact", true, What::CompactAsk(128)),
    small("remote-send", true, What::Send),
    large("remote-ask-1MiB", What::LargeAsk(1)),
    large("remote-ask-1MiB-in-place", What::SharedAsk(1)),
];

const fn small(name: &'static str, remote: bool, what: What) -> Scenario {
    Scenario { name, messages: (2_048, 14_336), remote, what }
}

const fn large(name: &'static str, what: What) -> Scenario {
    Scenario { name, messages: (16, 144), remote: true, what }
}

/// What the child does: one scenario, with so many messages.
pub(crate) async fn send(args: &[&str]) -> anyhow::Result<()> {
    let [name, messages] = args else { anyhow::bail!("a scenario and a number of messages") };
    let messages: u64 = messages.parse().context("the number of messages")?;
    let scenario = SCENARIOS.iter().find(|scenario| scenario.name == *name);
    let scenario = scenario.with_context(|| format!("there is no scenario {name}"))?;
    let server = rpc_actix::create(config(RpcEnvConfig::server("server", "127.0.0.1:0"))?).await?;
    let here = server.setup_endpoint("mirror", Mirror::default()).await?;
    if let What::HandlerAsk(at_once) = scenario.what {
        let asker = server.setup_endpoint("asker", Asker).await?;
        let replies = asker.ask(AskMirror { mirror: here, messages, at_once }).await?;
        anyhow::ensure!(replies == messages, "{replies} of {messages} asks were answered");
    } else if scenario.remote {
        let client = rpc_actix::create(config(RpcEnvConfig::client("client"))?).await?;
        let address = server.address().context("the server has an address")?;
        let there = client.endpoint_ref(&format!("rpc://mirror@{address}")).await?;
        run(scenario.what, &there, messages).await?;
        client.shutdown().await;
    } else {
        run(scenario.what, &here, messages).await?;
    }
    server.shutdown().await;
    Ok(())
}

/// Under valgrind everything takes 50 times as long: what is cut or sent by the clock is put off, or
/// the counts would depend on the machine's speed.
fn config(config: RpcEnvConfig) -> anyhow::Result<RpcEnvConfig> {
    let keys = [
        ("rpc.actix.mode", "inline"),
        ("rpc.dispatcher.maxTurn", "1h"),
        ("rpc.io.heartbeat", "1h"),
        ("rpc.io.deadAfter", "3h"),
        ("rpc.askTimeout", "1h"),
    ];
    keys.into_iter().try_fold(config, |config, (key, value)| Ok(config.set(key, value)?))
}

type Ref = RpcEndpointRef<Mirror>;

async fn run(what: What, mirror: &Ref, messages: u64) -> anyhow::Result<()> {
    match what {
        What::HandlerAsk(_) => anyhow::bail!("a handler makes them"),
        What::Send => send_in_a_row(mirror, messages).await,
        What::Ask(flight) => in_flight(mirror, messages, flight, 64, ask).await,
        What::CompactAsk(flight) => in_flight(mirror, messages, flight, 64, compact_ask).await,
        What::LargeAsk(flight) => in_flight(mirror, messages, flight, 1 << 20, measure).await,
        What::SharedAsk(flight) => {
            in_flight(mirror, messages, flight, 1 << 20, measure_in_place).await
        }
    }
}

async fn ask(mirror: &Ref, message: Msg) -> anyhow::Result<()> {
    let id = message.id;
    anyhow::ensure!(mirror.ask(message).await?.id == id, "wrong reply");
    Ok(())
}

async fn compact_ask(mirror: &Ref, message: Msg) -> anyhow::Result<()> {
    let id = message.id;
    anyhow::ensure!(mirror.ask(CompactMsg(message)).await?.id == id, "wrong reply");
    Ok(())
}

async fn measure(mirror: &Ref, message: Msg) -> anyhow::Result<()> {
    let length = message.payload.len();
    anyhow::ensure!(mirror.ask(Measure(message)).await? == length, "wrong reply");
    Ok(())
}

async fn measure_in_place(mirror: &Ref, Msg { payload, .. }: Msg) -> anyhow::Result<()> {
    let length = payload.len();
    anyhow::ensure!(mirror.ask(MeasureInPlace { payload }).await? == length, "wrong reply");
    Ok(())
}

/// Sends from so many tasks, each with one message at a time.
async fn in_flight(
    mirror: &Ref,
    messages: u64,
    flight: u64,
    length: usize,
    send: impl AsyncFn(&Ref, Msg) -> anyhow::Result<()> + Copy + 'static,
) -> anyhow::Result<()> {
    let payload = Bytes::from(vec![7; length]);
    let tasks: Vec<_> = (0..flight)
        .map(|_| {
            let (mirror, payload) = (mirror.clone(), payload.clone());
            tokio::task::spawn_local(async move {
                for id in 0..messages / flight {
                    send(&mirror, Msg::with(id, payload.clone())).await?;
                }
                anyhow::Ok(())
            })
        })
        .collect();
    for task in tasks {
        task.await??;
    }
    Ok(())
}

async fn send_in_a_row(mirror: &Ref, messages: u64) -> anyhow::Result<()> {
    let payload = Bytes::from(vec![7; 64]);
    for id in 0..messages {
        let Msg { name, payload, .. } = Msg::with(id, payload.clone());
        mirror.send_wait(Note { id, name, payload }).await?;
    }
    let handled = mirror.ask(Notes).await?;
    anyhow::ensure!(handled == messages, "{handled} of {messages} arrived");
    Ok(())
}
