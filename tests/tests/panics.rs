//! What a panic costs (R51, R52): the call, and what the endpoint's `PanicPolicy` says. In every hook,
//! in constructors and destructors, on both backends.
#![cfg(test)]

use rpc_core::{
    EndpointContext, EndpointOptions, ErrorKind, HandlerResult, PanicPolicy, RestartLimit,
    RpcAddress, RpcEndpointRef, RpcEnv, RpcError, RpcMessage, endpoint,
};
use rpc_tests::both;
use rpc_tests::harness::{Gate, Harness, Log, Pair};
use serde::{Deserialize, Serialize};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

/// An ask: panics.
#[derive(Clone, Copy, Debug, Serialize, Deserialize, RpcMessage)]
#[rpc(reply = ())]
struct Boom;

/// An ask: the value's number and what it has counted.
#[derive(Clone, Copy, Debug, Serialize, Deserialize, RpcMessage)]
#[rpc(reply = (u32, u64))]
struct Count;

/// An ask: waits for the gate, then panics.
#[derive(Clone, Copy, Debug, Serialize, Deserialize, RpcMessage)]
#[rpc(reply = ())]
struct BoomLater;

/// One way: sent by the endpoint to itself, for ever.
#[derive(Clone, Copy, Debug, Serialize, Deserialize, RpcMessage)]
struct Tick;

/// What panics.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Worst {
    constructor: bool,
    start: bool,
    stop: bool,
    error: bool,
    connected: bool,
    drop: bool,
}

#[derive(Clone, Debug, Default)]
struct Seen {
    log: Log,
    gate: Gate,
    made: Arc<AtomicU32>,
}

struct Bomb {
    seen: Seen,
    worst: Worst,
    count: u64,
}

impl Bomb {
    fn new(seen: &Seen, worst: Worst) -> Self {
        let number = seen.made.fetch_add(1, Ordering::Relaxed);
        // The first start is fine in every test but those of the start.
        assert!(!worst.constructor || number == 0, "boom in the constructor");
        Self { seen: seen.clone(), worst, count: 0 }
    }

    async fn at(
        env: &RpcEnv,
        policy: PanicPolicy,
        worst: Worst,
    ) -> Result<(Seen, RpcEndpointRef<Self>), RpcError> {
        let seen = Seen::default();
        let limit = RestartLimit::new(3, Duration::from_secs(3600))
            .backoff(Duration::from_millis(10), Duration::from_millis(20));
        let options = EndpointOptions::new("bomb").on_panic(policy).restart_limit(limit);
        let make = {
            let seen = seen.clone();
            move || Self::new(&seen, worst)
        };
        Ok((seen, env.setup_endpoint_again(options, make).await?))
    }
}

#[endpoint]
impl Bomb {
    #[on_start]
    fn started(&mut self, cx: &mut EndpointContext<Self>) -> HandlerResult<()> {
        self.seen.log.push(format!("start {}", cx.restarts()));
        assert!(!self.worst.start || cx.restarts() == 0, "boom at the start");
        cx.send_every(Duration::from_secs(60), Tick);
        Ok(())
    }

    #[on_stop]
    fn stopped(&mut self) -> HandlerResult<()> {
        self.seen.log.push(format!("stop after {}", self.count));
        assert!(!self.worst.stop, "boom at the stop");
        Ok(())
    }

    #[on_error]
    fn failed(&mut self, error: RpcError) -> HandlerResult<()> {
        self.seen.log.push(format!("error {}", error.text()));
        assert!(!self.worst.error, "boom in on_error");
        Ok(())
    }

    #[on_connected]
    fn connected(&mut self, _peer: &RpcAddress) -> HandlerResult<()> {
        self.seen.log.push("connected");
        assert!(!self.worst.connected, "boom at the connection");
        Ok(())
    }

    #[receive_and_reply]
    fn boom(&mut self, _msg: Boom) -> HandlerResult<()> {
        self.count += 100;
        panic!("boom");
    }

    #[receive_and_reply]
    async fn boom_later(&mut self, _msg: BoomLater) -> HandlerResult<()> {
        self.seen.log.push("waits");
        self.seen.gate.wait().await;
        panic!("boom, later");
    }

    #[receive_and_reply]
    fn count(&mut self, _msg: Count, cx: &mut EndpointContext<Self>) -> HandlerResult<(u32, u64)> {
        self.count += 1;
        Ok((cx.restarts(), self.count))
    }

    #[receive]
    fn tick(&mut self, _msg: Tick, cx: &mut EndpointContext<Self>) -> HandlerResult<()> {
        self.seen.log.push(format!("tick {}", cx.restarts()));
        Ok(())
    }
}

impl Drop for Bomb {
    fn drop(&mut self) {
        self.seen.log.push("drop");
        assert!(!self.worst.drop, "boom in the destructor");
    }
}

async fn resume_keeps_the_state(h: &Harness) -> anyhow::Result<()> {
    let pair = h.pair().await?;
    let (seen, local) = Bomb::at(&pair.server, PanicPolicy::Resume, Worst::default()).await?;
    let remote = pair.from_client(&local).await?;
    for (endpoint, before) in [(local, 0), (remote, 101)] {
        let error = endpoint.ask(Boom).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::HandlerPanicked);
        let text = format!("a handler panicked: boom (Boom at {endpoint})");
        assert_eq!(error.text(), text);
        assert_eq!(endpoint.ask(Count).await?, (0, before + 101));
    }
    let log = seen.log.all();
    assert_eq!(log.iter().filter(|entry| entry.starts_with("error")).count(), 2);
    Ok(())
}

async fn stop_ends_the_endpoint_at_once(h: &Harness) -> anyhow::Result<()> {
    let pair = h.pair().await?;
    let (seen, local) = Bomb::at(&pair.server, PanicPolicy::Stop, Worst::default()).await?;
    let remote = pair.from_client(&local).await?;
    let boom = local.ask(BoomLater);
    seen.log.has(|entry| entry == "waits").await;
    let queued = [local.ask(Count), local.ask(Count)];
    let under_way = remote.ask(Count);
    seen.gate.open();
    assert_eq!(boom.await.unwrap_err().kind(), ErrorKind::HandlerPanicked);
    for ask in queued {
        let error = ask.await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::EndpointStopped, "{error}");
        assert!(error.is_never_sent(), "{error}");
    }
    // That one may come when the name is free already.
    let error = under_way.await.unwrap_err();
    assert!(error.is_never_sent(), "{error}");
    pair.server.stopped(&local).await?;
    assert!(pair.server.local_ref::<Bomb>("bomb").is_none(), "the name is free");
    let mut log = seen.log.all();
    log.retain(|entry| entry != "connected");
    let error = format!("error a handler panicked: boom, later (BoomLater at {local})");
    assert_eq!(log, ["start 0", "waits", &error, "stop after 0", "drop"]);
    Ok(())
}

async fn restart_makes_a_new_value_and_keeps_the_queue(h: &Harness) -> anyhow::Result<()> {
    let pair = h.pair().await?;
    let (seen, local) = Bomb::at(&pair.server, PanicPolicy::Restart, Worst::default()).await?;
    let remote = pair.from_client(&local).await?;
    assert_eq!(local.ask(Count).await?, (0, 1));
    let boom = local.ask(BoomLater);
    seen.log.has(|entry| entry == "waits").await;
    let queued = [local.ask(Count), local.ask(Count), local.ask(Count)];
    seen.gate.open();
    assert_eq!(boom.await.unwrap_err().kind(), ErrorKind::HandlerPanicked);
    let mut answers = Vec::new();
    for ask in queued {
        answers.push(ask.await?);
    }
    assert_eq!(answers, [(1, 1), (1, 2), (1, 3)], "in their order, by the next value");
    // Both refs, pinned and by name, lead to the new value.
    assert_eq!((local.ask(Count).await?, remote.ask(Count).await?), ((1, 4), (1, 5)));
    let mut log = seen.log.all();
    log.retain(|entry| entry != "connected");
    let error = format!("error a handler panicked: boom, later (BoomLater at {local})");
    assert_eq!(log, ["start 0", "waits", &error, "stop after 1", "drop", "start 1"]);
    Ok(())
}

async fn too_many_restarts_end_the_endpoint(h: &Harness) -> anyhow::Result<()> {
    let env = h.server("server").await?;
    let (seen, endpoint) = Bomb::at(&env, PanicPolicy::Restart, Worst::default()).await?;
    for _ in 0..4 {
        assert_eq!(endpoint.ask(Boom).await.unwrap_err().kind(), ErrorKind::HandlerPanicked);
    }
    env.stopped(&endpoint).await?;
    let error = endpoint.ask(Count).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::EndpointStopped);
    let starts = seen.log.all().into_iter().filter(|entry| entry.starts_with("start"));
    assert_eq!(starts.collect::<Vec<_>>(), ["start 0", "start 1", "start 2", "start 3"]);
    Ok(())
}

async fn a_restart_that_fails_counts_as_one(h: &Harness) -> anyhow::Result<()> {
    for worst in
        [Worst { constructor: true, ..Worst::default() }, Worst { start: true, ..Worst::default() }]
    {
        let env = h.server("server").await?;
        let (seen, endpoint) = Bomb::at(&env, PanicPolicy::Restart, worst).await?;
        assert_eq!(endpoint.ask(Boom).await.unwrap_err().kind(), ErrorKind::HandlerPanicked);
        env.stopped(&endpoint).await?;
        assert_eq!(seen.made.load(Ordering::Relaxed), 4, "three restarts were tried");
        assert_eq!(env.unhandled_errors(), 3);
    }
    Ok(())
}

/// What is wrong with the next value is not blamed on the message that the last one ended in.
async fn a_new_value_is_at_no_message(h: &Harness) -> anyhow::Result<()> {
    let env = h.server("server").await?;
    let (seen, endpoint) = Bomb::at(&env, PanicPolicy::Restart, Worst::default()).await?;
    assert_eq!(endpoint.ask(Count).await?, (0, 1));
    let at = || env.endpoints().into_iter().map(|endpoint| endpoint.message).collect::<Vec<_>>();
    assert_eq!(at(), [Some("Count".to_owned())]);
    assert!(endpoint.ask(Boom).await.is_err());
    seen.log.has(|entry| entry == "start 1").await;
    assert_eq!(at(), [None]);
    Ok(())
}

async fn an_endpoint_may_be_stopped_between_two_values(h: &Harness) -> anyhow::Result<()> {
    let env = h.server("server").await?;
    let seen = Seen::default();
    let hour = Duration::from_secs(3600);
    let options = EndpointOptions::new("bomb")
        .on_panic(PanicPolicy::Restart)
        .restart_limit(RestartLimit::new(3, hour).backoff(hour, hour));
    let make = {
        let seen = seen.clone();
        move || Bomb::new(&seen, Worst::default())
    };
    let endpoint = env.setup_endpoint_again(options, make).await?;
    assert!(endpoint.ask(Boom).await.is_err());
    let queued = endpoint.ask(Count);
    seen.log.has(|entry| entry == "drop").await;
    env.stop(&endpoint)?;
    assert_eq!(queued.await.unwrap_err().kind(), ErrorKind::EndpointStopped);
    env.stopped(&endpoint).await?;
    assert_eq!(seen.made.load(Ordering::Relaxed), 1);
    Ok(())
}

async fn what_the_old_value_had_set_for_later_is_gone_with_it(h: &Harness) -> anyhow::Result<()> {
    let env = h.server("server").await?;
    let (seen, endpoint) = Bomb::at(&env, PanicPolicy::Restart, Worst::default()).await?;
    assert!(endpoint.ask(Boom).await.is_err());
    assert_eq!(endpoint.ask(Count).await?, (1, 1));
    if h.is_actix() {
        // An hour of real time is too long for a test.
        return Ok(());
    }
    h.world().advance(Duration::from_secs(185));
    let ticks: Vec<_> = seen.log.all().into_iter().filter(|e| e.starts_with("tick")).collect();
    assert_eq!(ticks, ["tick 1"; 3]);
    Ok(())
}

async fn a_restart_needs_a_constructor(h: &Harness) -> anyhow::Result<()> {
    let env = h.server("server").await?;
    let seen = Seen::default();
    let options = EndpointOptions::new("bomb").on_panic(PanicPolicy::Restart);
    let bomb = Bomb::new(&seen, Worst::default());
    let error = env.setup_endpoint(options, bomb).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidConfig);
    assert!(error.text().contains("setup_endpoint_again"), "{error}");
    assert!(env.local_ref::<Bomb>("bomb").is_none());
    Ok(())
}

async fn a_panic_of_a_first_start_is_the_error_of_the_setup(h: &Harness) -> anyhow::Result<()> {
    let env = h.server("server").await?;
    for policy in [PanicPolicy::Resume, PanicPolicy::Restart, PanicPolicy::Stop] {
        for what in ["constructor", "on_start"] {
            let options = EndpointOptions::new("bomb").on_panic(policy);
            let made = Arc::new(AtomicU32::new(0));
            let make = {
                let made = made.clone();
                move || {
                    made.fetch_add(1, Ordering::Relaxed);
                    assert_ne!(what, "constructor", "boom");
                    Starts
                }
            };
            let error = env.setup_endpoint_again(options, make).await.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::HandlerPanicked);
            assert!(error.text().starts_with(&format!("{what} panicked")), "{error}");
            assert_eq!(made.load(Ordering::Relaxed), 1, "{policy:?}: no second try");
        }
    }
    Ok(())
}

struct Starts;

#[endpoint]
impl Starts {
    #[on_start]
    fn started(&mut self) -> HandlerResult<()> {
        panic!("boom");
    }

    #[receive]
    fn tick(&mut self, _msg: Tick) -> HandlerResult<()> {
        Ok(())
    }
}

/// Panics with a value whose destructor panics.
struct Nested;

impl Drop for Nested {
    fn drop(&mut self) {
        panic!("boom in the value of a panic");
    }
}

/// An ask: its handler holds a `Nested`, and waits for ever.
#[derive(Clone, Copy, Debug, Serialize, Deserialize, RpcMessage)]
#[rpc(reply = ())]
struct HoldNested;

/// An ask: panics with a `Nested`.
#[derive(Clone, Copy, Debug, Serialize, Deserialize, RpcMessage)]
#[rpc(reply = ())]
struct PanicNested;

struct Nesting(Log);

#[endpoint]
impl Nesting {
    #[receive_and_reply]
    async fn hold(&mut self, _msg: HoldNested) -> HandlerResult<()> {
        let _held = Nested;
        self.0.push("held");
        std::future::pending().await
    }

    #[receive_and_reply]
    fn panics(&mut self, _msg: PanicNested) -> HandlerResult<()> {
        std::panic::panic_any(Nested)
    }
}

impl Drop for Nesting {
    fn drop(&mut self) {
        self.0.push("drop");
        panic!("boom in the destructor");
    }
}

async fn panics_upon_panics_end_the_endpoint_and_nothing_else(h: &Harness) -> anyhow::Result<()> {
    let all = Worst { stop: true, error: true, connected: true, drop: true, ..Worst::default() };
    for policy in [PanicPolicy::Resume, PanicPolicy::Restart, PanicPolicy::Stop] {
        let config = h.server_config("server").with_drain_timeout(Duration::from_millis(10));
        let server = h.create(config).await?;
        let pair = Pair { server, client: h.client("client").await? };
        let (seen, bomb) = Bomb::at(&pair.server, policy, all).await?;
        let (log, other) =
            (Log::default(), pair.server.setup_endpoint("other", Nesting(Log::default())).await?);
        let nesting = pair.server.setup_endpoint("nesting", Nesting(log.clone())).await?;
        assert_eq!(other.ask(PanicNested).await.unwrap_err().kind(), ErrorKind::HandlerPanicked);
        if policy == PanicPolicy::Resume && h.is_actix() {
            pair.from_client(&bomb).await?;
            seen.log.has(|entry| entry.contains("boom at the connection")).await;
        }
        assert_eq!(bomb.ask(Boom).await.unwrap_err().kind(), ErrorKind::HandlerPanicked);
        if policy == PanicPolicy::Resume {
            let held = nesting.ask(HoldNested);
            log.has(|entry| entry == "held").await;
            // Its handler never ends: it is dropped five seconds after the drain deadline.
            pair.server.stop(&nesting)?;
            assert_eq!(held.await.unwrap_err().kind(), ErrorKind::EndpointStopped);
        }
        pair.server.stop(&nesting)?;
        pair.server.stopped(&nesting).await?;
        log.has(|entry| entry == "drop").await;
        assert_eq!(other.ask(PanicNested).await.unwrap_err().kind(), ErrorKind::HandlerPanicked);
        pair.server.stop(&bomb)?;
        pair.server.stopped(&bomb).await?;
        seen.log.has(|entry| entry == "drop").await;
    }
    Ok(())
}

/// A panic within a panic aborts the process, so this runs in a process of its own.
#[test]
fn the_worst_panics_do_not_abort() {
    use rpc_tests::harness::Backend;

    const CHILD: &str = "RPC_TESTS_WORST_PANICS";
    if std::env::var_os(CHILD).is_some() {
        for backend in [Backend::Local, Backend::Actix] {
            backend.run("the worst panics", panics_upon_panics_end_the_endpoint_and_nothing_else);
        }
        return;
    }
    let itself = std::env::current_exe().unwrap();
    let mut child = Command::new(itself);
    child.args(["--exact", "the_worst_panics_do_not_abort"]).env(CHILD, "1");
    let output = child.output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{:?}\n{text}\n{said}", output.status);
    assert!(text.contains("1 passed"), "{text}");
}

both! {
    resume_keeps_the_state,
    stop_ends_the_endpoint_at_once,
    restart_makes_a_new_value_and_keeps_the_queue,
    too_many_restarts_end_the_endpoint,
    a_restart_that_fails_counts_as_one,
    a_new_value_is_at_no_message,
    an_endpoint_may_be_stopped_between_two_values,
    what_the_old_value_had_set_for_later_is_gone_with_it,
    a_restart_needs_a_constructor,
    a_panic_of_a_first_start_is_the_error_of_the_setup,
}
