//! The env under attack, and a peer of it that behaves.

use anyhow::{Context, ensure};
use rpc_actix::{
    Counters, EndpointContext, EndpointOptions, HandlerResult, RpcCallContext, RpcEndpointRef,
    RpcEnv, RpcEnvConfig, RpcError, RpcMessage, endpoint,
};
use serde::{Deserialize, Serialize};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};
use tokio::runtime::Runtime;
use tokio::task::JoinHandle;
use tokio::time::MissedTickBehavior;

const BETWEEN_ASKS: Duration = Duration::from_micros(500);

/// An ask: is answered with its own text.
#[derive(Debug, Serialize, Deserialize, RpcMessage)]
#[rpc(reply = String)]
pub(super) struct Echo {
    pub(super) text: String,
}

/// How much time its caller has.
#[derive(Debug, Serialize, Deserialize, RpcMessage)]
#[rpc(reply = Option<Duration>)]
struct Remaining;

/// Holds the endpoint until the caller gives up.
#[derive(Debug, Serialize, Deserialize, RpcMessage)]
#[rpc(reply = ())]
struct Hold;

/// As `Hold`; its handler may be dropped.
#[derive(Debug, Serialize, Deserialize, RpcMessage)]
#[rpc(reply = (), abort)]
struct Abort;

/// Never answered; whoever holds the call holds all that belongs to it.
#[derive(Debug, Serialize, Deserialize, RpcMessage)]
#[rpc(reply = ())]
struct Keep;

/// One way.
#[derive(Debug, Serialize, Deserialize, RpcMessage)]
struct Note {
    number: u64,
}

/// Panics.
#[derive(Debug, Serialize, Deserialize, RpcMessage)]
#[rpc(reply = ())]
struct Boom;

/// Many small values: what a frame of it decodes to is many times its size.
#[derive(Debug, Serialize, Deserialize, RpcMessage)]
#[rpc(reply = usize)]
struct Names {
    names: Vec<Option<String>>,
}

/// Within itself.
#[derive(Debug, Serialize, Deserialize, RpcMessage)]
#[rpc(reply = ())]
struct Tree {
    below: Option<Box<Self>>,
}

/// The numbers of the messages: the order of the handlers.
pub(super) mod number {
    pub(crate) const ECHO: u16 = 0;
    pub(crate) const REMAINING: u16 = 1;
    pub(crate) const HOLD: u16 = 2;
    pub(crate) const ABORT: u16 = 3;
    pub(crate) const KEEP: u16 = 4;
    pub(crate) const NOTE: u16 = 5;
    pub(crate) const BOOM: u16 = 6;
    pub(crate) const NAMES: u16 = 7;
    pub(crate) const TREE: u16 = 8;
}

pub(super) struct Target {
    kept: Vec<RpcCallContext<()>>,
}

#[endpoint]
impl Target {
    #[receive_and_reply]
    async fn echo(&mut self, msg: Echo) -> HandlerResult<String> {
        Ok(msg.text)
    }

    #[receive_and_reply]
    async fn remaining(
        &mut self,
        _msg: Remaining,
        cx: &mut EndpointContext<Self>,
    ) -> HandlerResult<Option<Duration>> {
        Ok(cx.remaining())
    }

    #[receive_and_reply]
    async fn hold(&mut self, _msg: Hold, cx: &mut EndpointContext<Self>) -> HandlerResult<()> {
        cx.cancelled().await;
        Err(anyhow::anyhow!("nobody waits").into())
    }

    #[receive_and_reply]
    async fn abort(&mut self, _msg: Abort) -> HandlerResult<()> {
        std::future::pending().await
    }

    #[receive_and_reply]
    fn keep(&mut self, _msg: Keep, call: RpcCallContext<()>) -> HandlerResult<()> {
        self.kept.push(call);
        Ok(())
    }

    #[receive]
    fn note(&mut self, _msg: Note) -> HandlerResult<()> {
        Ok(())
    }

    #[receive_and_reply]
    #[expect(clippy::panic, reason = "that is what it is for")]
    fn boom(&mut self, _msg: Boom) -> HandlerResult<()> {
        panic!("boom")
    }

    #[receive_and_reply]
    fn names(&mut self, msg: Names) -> HandlerResult<usize> {
        Ok(msg.names.len())
    }

    #[receive_and_reply]
    fn tree(&mut self, _msg: Tree) -> HandlerResult<()> {
        Ok(())
    }
}

/// An env with two endpoints, `probe` for the bad peer and `own` for the one that behaves.
#[derive(Debug)]
pub(super) struct Victim {
    pub(super) runtime: Runtime,
    pub(super) env: RpcEnv,
    client: RpcEnv,
    healthy: RpcEndpointRef<Target>,
    /// What the healthy peer had counted when it was connected.
    connected: Counters,
}

impl Victim {
    /// Both on the arbiter that has the connections as well.
    pub(super) fn with(settings: &[(&str, &str)]) -> anyhow::Result<Self> {
        Self::made(settings, EndpointOptions::new("probe"))
    }

    /// `probe` has a thread of its own: what its handlers do with what they are sent, and what decoding
    /// that takes, is nobody else's.
    pub(super) fn apart(settings: &[(&str, &str)]) -> anyhow::Result<Self> {
        Self::made(settings, EndpointOptions::new("probe").isolated())
    }

    fn made(settings: &[(&str, &str)], probe: EndpointOptions) -> anyhow::Result<Self> {
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
        let (env, client, healthy) = runtime.block_on(async {
            let config = RpcEnvConfig::server("victim", "127.0.0.1:0");
            let config = config.set_all(settings.iter().copied())?;
            let env = rpc_actix::create(config).await?;
            for options in [probe, EndpointOptions::new("own")] {
                env.setup_endpoint(options, Target { kept: Vec::new() }).await?;
            }
            let client = rpc_actix::create(RpcEnvConfig::client("healthy")).await?;
            let address = env.address().context("it listens")?;
            let healthy = client.endpoint_ref(&format!("rpc://own@{address}")).await?;
            anyhow::Ok((env, client, healthy))
        })?;
        let connected = client.counters();
        Ok(Self { runtime, env, client, healthy, connected })
    }

    pub(super) fn address(&self) -> String {
        self.env.address().map(ToString::to_string).unwrap_or_default()
    }

    /// The healthy peer is answered, over the connection that it had before.
    pub(super) fn is_well(&self) -> anyhow::Result<()> {
        let text = "still here".to_owned();
        let answer = self.runtime.block_on(self.healthy.ask(Echo { text: text.clone() }));
        ensure!(answer.context("the healthy peer's ask")? == text, "another answer");
        let since = self.client.counters().since(&self.connected);
        let lost = (since.connections_ended, since.connections_dialed);
        ensure!(lost == (0, 0), "the healthy peer lost its connection: {lost:?}");
        Ok(())
    }

    /// The peer that behaves asks, a little apart, until it is told to stop; how long each ask took, and
    /// when it began.
    pub(super) fn ask_until(
        &self,
        stop: &Arc<AtomicBool>,
    ) -> JoinHandle<Result<Vec<(Instant, Duration)>, RpcError>> {
        let (healthy, stop) = (self.healthy.clone(), stop.clone());
        self.runtime.spawn(async move {
            let mut times = Vec::new();
            let mut ticks = tokio::time::interval(BETWEEN_ASKS);
            ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
            while !stop.load(Ordering::Relaxed) {
                ticks.tick().await;
                let start = Instant::now();
                healthy.ask(Echo { text: "x".to_owned() }).await?;
                times.push((start, start.elapsed()));
            }
            Ok(times)
        })
    }

    pub(super) fn shut_down(self) {
        self.runtime.block_on(async {
            self.client.shutdown().await;
            self.env.shutdown().await;
        });
    }
}
