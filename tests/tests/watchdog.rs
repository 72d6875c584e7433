//! Threads that endpoints block, and threads that end: who does it is named (R56), and whoever waits
//! for an endpoint of such a thread hears at once that it is gone (R57).
#![cfg(test)]

use rpc_actix::{
    EndpointContext, EndpointOptions, ErrorKind, HandlerResult, RpcEnvConfig, RpcMessage,
    Termination, endpoint,
};
use rpc_tests::actix_only;
use rpc_tests::harness::{Echo, Gate, Harness, Log, Probe, block_on};
use serde::{Deserialize, Serialize};
use std::fmt;
use std::sync::{Arc, Mutex, mpsc};
use std::thread;
use std::time::Duration;
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Level, Metadata, Subscriber};

/// What was logged at `WARN`, with all fields.
#[derive(Clone, Default)]
struct Logged(Arc<Mutex<Vec<String>>>);

struct Text(String);

impl Visit for Text {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.0.push_str(&format!("{}={value:?} ", field.name()));
    }
}

impl Subscriber for Logged {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        *metadata.level() <= Level::WARN
    }

    fn new_span(&self, _: &Attributes<'_>) -> Id {
        Id::from_u64(1)
    }

    fn record(&self, _: &Id, _: &Record<'_>) {}
    fn record_follows_from(&self, _: &Id, _: &Id) {}
    fn enter(&self, _: &Id) {}
    fn exit(&self, _: &Id) {}

    fn event(&self, event: &Event<'_>) {
        let mut text = Text(String::new());
        event.record(&mut text);
        self.0.lock().unwrap().push(text.0);
    }
}

/// An ask: blocks the thread until that was seen.
#[derive(Debug, Serialize, Deserialize, RpcMessage)]
#[rpc(reply = u64)]
struct Grind;

/// An ask: the thread of the endpoint ends.
#[derive(Debug, Serialize, Deserialize, RpcMessage)]
#[rpc(reply = ())]
struct EndThread;

struct Grinder(Gate, Log);

#[endpoint]
impl Grinder {
    #[receive_and_reply]
    fn grind(&mut self, _msg: Grind, cx: &mut EndpointContext<Self>) -> HandlerResult<u64> {
        let env = cx.env()?;
        // As a computation would, but no longer than it takes to be noticed.
        while env.counters().handlers_blocked == 0 {
            thread::sleep(Duration::from_millis(1));
        }
        Ok(env.counters().handlers_blocked)
    }

    #[receive_and_reply]
    async fn end_thread(&mut self, _msg: EndThread) -> HandlerResult<()> {
        self.1.push("runs");
        self.0.wait().await;
        actix_rt::Arbiter::current().stop();
        std::future::pending().await
    }
}

#[test]
fn a_handler_that_blocks_its_thread_is_named_and_counted() {
    let logged = Logged::default();
    tracing::subscriber::set_global_default(logged.clone()).unwrap();
    let config = RpcEnvConfig::client("env").set("rpc.dispatcher.blockedAfter", "20ms").unwrap();
    let env = block_on(rpc_actix::create(config)).unwrap();
    for options in [EndpointOptions::new("grinder"), EndpointOptions::new("alone").isolated()] {
        let grinder = Grinder(Gate::default(), Log::default());
        let grinder = block_on(env.setup_endpoint(options, grinder)).unwrap();
        // The isolated one is not the first: it blocks until the first was counted, no longer.
        assert_eq!(block_on(grinder.ask(Grind)).unwrap(), 1);
    }
    block_on(env.shutdown());
    let logged = logged.0.lock().unwrap();
    let named: Vec<_> = logged.iter().filter(|line| line.contains("blockedAfter")).collect();
    assert_eq!(named.len(), 1, "{logged:?}");
    for part in ["endpoint=grinder", "message=\"Grind\"", "rpc-client://grinder@", "isolated"] {
        assert!(named[0].contains(part), "no {part} in {}", named[0]);
    }
}

/// An ask: blocks the thread until the test lets it go on.
#[derive(Debug, Serialize, Deserialize, RpcMessage)]
#[rpc(reply = ())]
struct Block;

/// An ask: nothing.
#[derive(Debug, Serialize, Deserialize, RpcMessage)]
#[rpc(reply = ())]
struct Nothing;

struct Blocked(mpsc::Receiver<()>, Log);

#[endpoint]
impl Blocked {
    #[receive_and_reply]
    fn block(&mut self, _msg: Block) -> HandlerResult<()> {
        self.1.push("blocks");
        self.0.recv()?;
        Ok(())
    }

    #[receive_and_reply]
    fn nothing(&mut self, _msg: Nothing) -> HandlerResult<()> {
        self.1.push("handled");
        Ok(())
    }
}

async fn what_waits_behind_a_blocked_thread_ends_at_the_drain_deadline(
    h: &Harness,
) -> anyhow::Result<()> {
    let config = h.server_config("server").with_drain_timeout(Duration::from_millis(20));
    let env = h.create(config).await?;
    let ((go_on, wait), log) = (mpsc::channel(), Log::default());
    let options = EndpointOptions::new("blocked").isolated();
    let endpoint = env.setup_endpoint(options, Blocked(wait, log.clone())).await?;
    // The first round is so that the rest are in the queue together, and taken together.
    let first = endpoint.ask(Block);
    log.reaches(1).await;
    let second = endpoint.ask(Block);
    let behind: Vec<_> = (0..8).map(|_| endpoint.ask(Nothing)).collect();
    go_on.send(())?;
    first.await?;
    log.reaches(2).await;
    env.stop(&endpoint)?;
    // The handler still blocks: nobody but the env's own thread can tell them.
    for ask in behind {
        let error = ask.await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::EndpointStopped, "{error}");
        assert!(error.is_never_sent() && error.text().contains("drainTimeout"), "{error}");
    }
    go_on.send(())?;
    second.await?;
    env.stopped(&endpoint).await?;
    assert_eq!(log.all(), ["blocks", "blocks"], "nobody was told wrong");
    Ok(())
}

async fn a_thread_that_ends_ends_its_endpoints_and_nothing_else(h: &Harness) -> anyhow::Result<()> {
    let pair = h.pair().await?;
    let (gate, log) = (Gate::default(), Log::default());
    let options = EndpointOptions::new("victim").isolated();
    let victim = Grinder(gate.clone(), log.clone());
    let local = pair.server.setup_endpoint(options, victim).await?;
    let remote = pair.from_client(&local).await?;
    let (_, other) = Probe::at(&pair.server, "other").await?;
    let watched = [local.terminated(), remote.terminated()];
    let mut asks = vec![remote.ask(EndThread)];
    log.reaches(1).await;
    asks.extend([local.ask(EndThread), remote.ask(EndThread)]);
    gate.open();
    for (number, ask) in asks.into_iter().enumerate() {
        let error = ask.await.unwrap_err();
        let gone = matches!(error.kind(), ErrorKind::EndpointStopped | ErrorKind::EndpointNotFound);
        assert!(gone, "ask {number}: {:?} {error}", error.kind());
        assert!(number == 0 || error.is_never_sent(), "{error}");
    }
    for watched in watched {
        assert_eq!(watched.await.reason(), Termination::Crashed);
    }
    // The name is free, and all else goes on.
    let again = Grinder(Gate::default(), Log::default());
    let again = pair.server.setup_endpoint("victim", again).await?;
    assert_eq!(other.ask(Echo::of("here")).await?, "here");
    pair.server.stop(&again)?;
    Ok(())
}

actix_only! {
    what_waits_behind_a_blocked_thread_ends_at_the_drain_deadline,
    a_thread_that_ends_ends_its_endpoints_and_nothing_else,
}
