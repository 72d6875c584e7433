//! Envs without a port that talk to each other through a third, over real TCP.
#![cfg(test)]

use rpc_actix::{
    EndpointContext, ErrorKind, HandlerResult, Outcome, RpcCallContext, RpcEndpointRef, RpcEnv,
    RpcEnvConfig, RpcMessage, endpoint,
};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::sync::Notify;

const MIB: usize = 1024 * 1024;

#[derive(Debug, Serialize, Deserialize, RpcMessage)]
#[rpc(reply = String)]
struct Echo {
    text: String,
}

#[derive(Debug, Serialize, Deserialize, RpcMessage)]
#[rpc(reply = String)]
struct Fail {
    text: String,
}

#[derive(Debug, Serialize, Deserialize, RpcMessage)]
struct Step {
    number: u64,
    load: String,
}

#[derive(Debug, Serialize, Deserialize, RpcMessage)]
#[rpc(lane = "bulk")]
struct BulkStep {
    number: u64,
    load: String,
}

#[derive(Debug, Serialize, Deserialize, RpcMessage)]
#[rpc(reply = (Vec<u64>, Vec<u64>))]
struct Steps;

#[derive(Debug, Serialize, Deserialize, RpcMessage)]
#[rpc(reply = u64)]
struct AskedStep {
    number: u64,
    load: String,
}

/// The handler waits for the test, or for its caller to give up.
#[derive(Debug, Serialize, Deserialize, RpcMessage)]
#[rpc(reply = ())]
struct Hold;

/// Answered by the next step.
#[derive(Debug, Serialize, Deserialize, RpcMessage)]
#[rpc(reply = String)]
struct Later;

#[derive(Debug, Serialize, Deserialize, RpcMessage)]
#[rpc(reply = Option<Duration>)]
struct Remaining;

#[derive(Debug, Serialize, Deserialize, RpcMessage)]
#[rpc(reply = String)]
struct CallBack {
    to: RpcEndpointRef<Peer>,
    text: String,
}

/// Answered with the trace that the handler is in.
#[derive(Debug, Serialize, Deserialize, RpcMessage)]
#[rpc(reply = Option<String>)]
struct Traced;

/// Answered with the ref to the endpoint itself.
#[derive(Debug, Serialize, Deserialize, RpcMessage)]
#[rpc(reply = RpcEndpointRef<Peer>)]
struct WhoAreYou;

#[derive(Default)]
struct Peer {
    steps: Vec<u64>,
    bulk: Vec<u64>,
    later: Option<RpcCallContext<String>>,
    gate: Gate,
}

#[derive(Clone, Default)]
struct Gate {
    holding: Arc<Notify>,
    release: Arc<Notify>,
    cancelled: Arc<Notify>,
    handled: Arc<AtomicU64>,
}

#[endpoint]
impl Peer {
    #[receive_and_reply]
    async fn echo(&mut self, msg: Echo) -> HandlerResult<String> {
        self.gate.handled.fetch_add(1, Ordering::Relaxed);
        Ok(msg.text)
    }

    #[receive_and_reply]
    async fn fail(&mut self, msg: Fail) -> HandlerResult<String> {
        Err(anyhow::anyhow!(msg.text).into())
    }

    #[receive]
    async fn step(&mut self, msg: Step) -> HandlerResult<()> {
        self.gate.handled.fetch_add(1, Ordering::Relaxed);
        self.steps.push(msg.number);
        if let Some(call) = self.later.take() {
            call.reply(msg.load);
        }
        Ok(())
    }

    #[receive]
    async fn bulk_step(&mut self, msg: BulkStep) -> HandlerResult<()> {
        self.bulk.push(msg.number);
        Ok(())
    }

    #[receive_and_reply]
    async fn asked_step(&mut self, msg: AskedStep) -> HandlerResult<u64> {
        self.steps.push(msg.number);
        Ok(msg.number)
    }

    #[receive_and_reply]
    async fn steps(&mut self, _msg: Steps) -> HandlerResult<(Vec<u64>, Vec<u64>)> {
        Ok((std::mem::take(&mut self.steps), std::mem::take(&mut self.bulk)))
    }

    #[receive_and_reply]
    async fn hold(&mut self, _msg: Hold, cx: &mut EndpointContext<Self>) -> HandlerResult<()> {
        self.gate.holding.notify_one();
        tokio::select! {
            () = self.gate.release.notified() => {}
            () = cx.cancelled() => self.gate.cancelled.notify_one(),
        }
        Ok(())
    }

    #[receive_and_reply]
    async fn later(&mut self, _msg: Later, call: RpcCallContext<String>) -> HandlerResult<()> {
        self.later = Some(call);
        self.gate.holding.notify_one();
        Ok(())
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
    async fn traced(
        &mut self,
        _msg: Traced,
        cx: &mut EndpointContext<Self>,
    ) -> HandlerResult<Option<String>> {
        Ok(cx.trace().map(|trace| format!("{:032x}", trace.trace_id())))
    }

    #[receive_and_reply]
    async fn call_back(&mut self, msg: CallBack) -> HandlerResult<String> {
        Ok(msg.to.ask(Echo { text: msg.text }).await?)
    }

    #[receive_and_reply]
    async fn who_are_you(
        &mut self,
        _msg: WhoAreYou,
        cx: &mut EndpointContext<Self>,
    ) -> HandlerResult<RpcEndpointRef<Self>> {
        Ok(cx.self_ref())
    }
}

/// Where envs find each other's refs.
#[derive(Default)]
struct Board {
    refs: BTreeMap<String, RpcEndpointRef<Peer>>,
}

#[derive(Debug, Serialize, Deserialize, RpcMessage)]
#[rpc(reply = ())]
struct Put {
    name: String,
    what: RpcEndpointRef<Peer>,
}

#[derive(Debug, Serialize, Deserialize, RpcMessage)]
#[rpc(reply = RpcEndpointRef<Peer>)]
struct Take {
    name: String,
}

#[endpoint]
impl Board {
    #[receive_and_reply]
    async fn put(&mut self, msg: Put) -> HandlerResult<()> {
        self.refs.insert(msg.name, msg.what);
        Ok(())
    }

    #[receive_and_reply]
    async fn take(&mut self, msg: Take) -> HandlerResult<RpcEndpointRef<Peer>> {
        Ok(self.refs[&msg.name].clone())
    }
}

/// An env without a port, with its endpoint, connected to the hub.
struct Client {
    env: RpcEnv,
    own: RpcEndpointRef<Peer>,
    gate: Gate,
    board: RpcEndpointRef<Board>,
}

impl Client {
    async fn new(hub: &RpcEnv, name: &str, settings: &[(&str, &str)]) -> Self {
        Self::at(&hub.address().unwrap().to_string(), name, settings).await
    }

    /// Connected to whoever listens there.
    async fn at(hub: &str, name: &str, settings: &[(&str, &str)]) -> Self {
        let config = RpcEnvConfig::client(name).set_all(settings.iter().copied()).unwrap();
        let env = rpc_actix::create(config).await.unwrap();
        let peer = Peer::default();
        let gate = peer.gate.clone();
        let own = env.setup_endpoint("peer", peer).await.unwrap();
        let uri = format!("rpc://board@{hub}");
        let board: RpcEndpointRef<Board> = env.endpoint_ref(&uri).await.unwrap();
        let client = Self { env, own, gate, board };
        client.put(name, &client.own).await;
        client
    }

    async fn put(&self, name: &str, what: &RpcEndpointRef<Peer>) {
        self.board.ask(Put { name: name.into(), what: what.clone() }).await.unwrap();
    }

    async fn take(&self, name: &str) -> RpcEndpointRef<Peer> {
        self.board.ask(Take { name: name.into() }).await.unwrap()
    }
}

/// The env in the middle, and its own ref to the endpoint of a client.
struct Hub {
    env: RpcEnv,
    board: RpcEndpointRef<Board>,
}

impl Hub {
    async fn new(settings: &[(&str, &str)]) -> Self {
        let config = RpcEnvConfig::server("hub", "127.0.0.1:0");
        let config = config.set_all(settings.iter().copied()).unwrap();
        let env = rpc_actix::create(config).await.unwrap();
        let board = env.setup_endpoint("board", Board::default()).await.unwrap();
        Self { env, board }
    }

    async fn take(&self, name: &str) -> RpcEndpointRef<Peer> {
        self.board.ask(Take { name: name.into() }).await.unwrap()
    }
}

/// Two clients of a hub, and the refs of each to the other.
async fn three() -> (Hub, Client, Client, RpcEndpointRef<Peer>, RpcEndpointRef<Peer>) {
    let hub = Hub::new(&[]).await;
    let (a, b) = (Client::new(&hub.env, "a", &[]).await, Client::new(&hub.env, "b", &[]).await);
    let (to_a, to_b) = (b.take("a").await, a.take("b").await);
    (hub, a, b, to_a, to_b)
}

fn text(bytes: usize) -> String {
    // Different everywhere, so that parts in the wrong place show.
    (0..bytes / 8).map(|part| format!("{part:08x}")).collect()
}

#[tokio::test]
async fn two_envs_without_ports_talk_through_a_third() {
    let (_hub, a, b, to_a, to_b) = three().await;
    assert_eq!(to_a, a.own, "a relay is not part of what a ref means");
    assert_eq!(to_b, b.own);
    for to in [&to_a, &to_b] {
        assert_eq!(to.ask(Echo { text: "hello".into() }).await.unwrap(), "hello");
        let error = to.ask(Fail { text: "no such luck".into() }).await.unwrap_err();
        assert_eq!(
            (error.kind(), error.outcome()),
            (ErrorKind::HandlerFailed, Outcome::FailedInHandler)
        );
        assert_eq!(error.text(), "no such luck");
        let left = to.ask_with_timeout(Remaining, Duration::from_secs(7)).await.unwrap().unwrap();
        assert!(left > Duration::ZERO && left <= Duration::from_secs(7), "{left:?}");
    }
    let trace = b.env.new_trace(true);
    let traced = trace.scope(|| to_a.ask(Traced)).await.unwrap();
    assert_eq!(traced, Some(format!("{:032x}", trace.trace_id())));
    let later = to_a.ask(Later);
    a.gate.holding.notified().await;
    to_a.send(Step { number: 0, load: "at last".into() }).unwrap();
    assert_eq!(later.await.unwrap(), "at last");
    to_a.send_wait(Step { number: 1, load: String::new() }).await.unwrap();
    assert_eq!(to_a.ask(Steps).await.unwrap().0, [0, 1]);
}

#[tokio::test]
async fn order_holds_in_each_lane() {
    let (_hub, _a, _b, to_a, _) = three().await;
    let mut asks = Vec::new();
    for number in 0..1500 {
        let load = "z".repeat(if number % 100 == 99 { 100_000 } else { 10 });
        match number % 4 {
            0 => asks.push((number, to_a.ask(AskedStep { number, load }))),
            1 => to_a.send(BulkStep { number, load }).unwrap(),
            _ => to_a.send(Step { number, load }).unwrap(),
        }
    }
    for (number, ask) in asks {
        assert_eq!(ask.await.unwrap(), number);
    }
    let mut bulk = Vec::new();
    while bulk.len() < 375 {
        let (normal, more) = to_a.ask(Steps).await.unwrap();
        assert!(
            normal.is_empty() || normal == (0..1500).filter(|n| n % 4 != 1).collect::<Vec<_>>()
        );
        bulk.extend(more);
    }
    assert_eq!(bulk, (0..1500).filter(|n| n % 4 == 1).collect::<Vec<_>>());
}

/// Refs that are made, and handed on, behind the relay.
#[tokio::test]
async fn refs_in_relayed_messages_work() {
    let (hub, a, b, to_a, to_b) = three().await;
    let c = Client::new(&hub.env, "c", &[]).await;
    let call_back = |to: &RpcEndpointRef<Peer>| CallBack { to: to.clone(), text: "back".into() };
    // An endpoint of the sender, of the receiver, of a fourth env, in a message.
    let to_c = b.take("c").await;
    let at_hub = hub.env.setup_endpoint("peer", Peer::default()).await.unwrap();
    let uri = at_hub.endpoint_address().to_string();
    let at_hub = b.env.endpoint_ref::<Peer>(&uri).await.unwrap();
    for to in [&b.own, &to_c, &at_hub] {
        assert_eq!(to_a.ask(call_back(to)).await.unwrap(), "back", "{to}");
    }
    // In a reply: an endpoint that nobody else has heard of.
    let other = a.env.setup_endpoint("other", Peer::default()).await.unwrap();
    assert_eq!(to_a.ask(WhoAreYou).await.unwrap(), a.own);
    let there = to_a.ask(WhoAreYou).await.unwrap();
    assert_eq!(there.ask(Echo { text: "again".into() }).await.unwrap(), "again");
    // From hand to hand: a to b to c, and c speaks to a.
    c.put("handed on", &to_b).await;
    c.put("other", &other).await;
    let handed = c.take("handed on").await;
    assert_eq!(handed.ask(Echo { text: "c".into() }).await.unwrap(), "c");
    // Whoever is not connected to the relay connects.
    let far = rpc_actix::create(RpcEnvConfig::client("far")).await.unwrap();
    let bytes = b.env.encode(&to_a).unwrap();
    let from_far: RpcEndpointRef<Peer> = far.decode(&bytes).unwrap();
    assert_eq!(from_far.ask(Echo { text: "far".into() }).await.unwrap(), "far");
    let own = far.setup_endpoint("own", Peer::default()).await.unwrap();
    assert_eq!(from_far.ask(CallBack { to: own, text: "far".into() }).await.unwrap(), "far");
}

#[tokio::test]
async fn large_bodies_both_ways() {
    let large = [("rpc.message.maxSize", "64MiB"), ("rpc.outbox.maxBytes", "256MiB")];
    let large = [large[0], large[1], ("rpc.inbox.maxBytes", "256MiB")];
    let hub = Hub::new(&large).await;
    let a = Client::new(&hub.env, "a", &large).await;
    let b = Client::new(&hub.env, "b", &large).await;
    let (to_a, to_b) = (b.take("a").await, a.take("b").await);
    for bytes in [17_000, 300_000, 5 * MIB, 64 * MIB - 64] {
        let sent = text(bytes);
        assert!(to_a.ask(Echo { text: sent.clone() }).await.unwrap() == sent, "{bytes}");
    }
    let asks: Vec<_> = [&to_a, &to_b]
        .into_iter()
        .cycle()
        .take(8)
        .map(|to| to.ask(Echo { text: text(6 * MIB) }))
        .collect();
    for ask in asks {
        assert_eq!(ask.await.unwrap().len(), 6 * MIB);
    }
    // One that only the last of the three does not take.
    let c = Client::new(&hub.env, "c", &[("rpc.message.maxSize", "1MiB")]).await;
    let to_c = b.take("c").await;
    let error = to_c.ask(Echo { text: text(2 * MIB) }).await.unwrap_err();
    assert_eq!((error.kind(), error.outcome()), (ErrorKind::TooLarge, Outcome::NeverSent));
    assert!(error.text().contains("rpc.message.maxSize"), "{error}");
    // Its credit came back.
    for _ in 0..3_000 {
        to_c.send(Step { number: 0, load: String::new() }).unwrap();
    }
    to_c.ask(Steps).await.unwrap();
    drop(c);
}

#[tokio::test]
async fn whoever_gives_up_is_heard() {
    let (_hub, a, _b, to_a, _) = three().await;
    let hold = to_a.ask(Hold);
    a.gate.holding.notified().await;
    let queued: Vec<_> = (0..10).map(|_| to_a.ask(Echo { text: String::new() })).collect();
    let kept = to_a.ask(Echo { text: "kept".into() });
    drop(queued);
    drop(hold);
    a.gate.cancelled.notified().await;
    assert_eq!(kept.await.unwrap(), "kept");
    // A deadline ends at the caller.
    let short = to_a.ask_with_timeout(Later, Duration::from_millis(50));
    let error = short.await.unwrap_err();
    assert!(error.is_timeout(), "{error}");
    assert!(error.text().contains("through rpc://127.0.0.1:"), "{error}");
    to_a.send(Step { number: 0, load: "too late".into() }).unwrap();
    to_a.ask(Steps).await.unwrap();
}

#[tokio::test]
async fn an_endpoint_that_is_gone_is_gone_there_as_well() {
    let (_hub, a, b, to_a, _) = three().await;
    to_a.ask(Echo { text: String::new() }).await.unwrap();
    a.env.stop(&a.own).unwrap();
    a.env.stopped(&a.own).await.unwrap();
    let error = to_a.ask(Echo { text: String::new() }).await.unwrap_err();
    assert_eq!((error.kind(), error.outcome()), (ErrorKind::EndpointStopped, Outcome::NeverSent));
    // Its successor is another one, which a ref by name finds.
    a.env.setup_endpoint("peer", Peer::default()).await.unwrap();
    let error = to_a.ask(Echo { text: String::new() }).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::EndpointStopped);
    #[derive(Serialize)]
    struct ByName {
        at: String,
        relay: String,
    }
    let by_name = |name: &str, env: &str| ByName {
        at: format!("rpc-client://{name}@{env}"),
        relay: b.board.address().unwrap().to_string(),
    };
    let bytes = b.env.encode(&by_name("peer", &a.env.id().to_string())).unwrap();
    let named: RpcEndpointRef<Peer> = b.env.decode(&bytes).unwrap();
    assert_eq!(named.ask(Echo { text: "new".into() }).await.unwrap(), "new");
    let first = a.env.local_ref::<Peer>("peer").unwrap();
    a.env.stop(&first).unwrap();
    a.env.stopped(&first).await.unwrap();
    a.env.setup_endpoint("peer", Peer::default()).await.unwrap();
    loop {
        match named.ask(Echo { text: "newer".into() }).await {
            Ok(text) => break assert_eq!(text, "newer"),
            // What crossed the word of its end.
            Err(error) => assert_eq!(error.kind(), ErrorKind::EndpointStopped),
        }
    }
    // Names and envs that are not there.
    let bytes = b.env.encode(&by_name("nobody", &a.env.id().to_string())).unwrap();
    let nobody: RpcEndpointRef<Peer> = b.env.decode(&bytes).unwrap();
    let error = nobody.ask(Steps).await.unwrap_err();
    assert_eq!((error.kind(), error.outcome()), (ErrorKind::EndpointNotFound, Outcome::NeverSent));
    assert_eq!(error.text(), format!("Cannot find endpoint: {nobody}"));
    let bytes = b.env.encode(&by_name("peer", "00000000000000aa")).unwrap();
    let lost: RpcEndpointRef<Peer> = b.env.decode(&bytes).unwrap();
    let error = lost.ask(Steps).await.unwrap_err();
    assert_eq!((error.kind(), error.outcome()), (ErrorKind::Unreachable, Outcome::NeverSent));
    let hub = b.board.address().unwrap();
    let text = format!(
        "cannot reach rpc-client://peer@00000000000000aa through rpc://{hub}: that env is not connected to it"
    );
    assert_eq!(error.text(), text);
}

/// Passes bytes between whoever connects and `to`, until it is told to cut them off.
async fn wire(to: String, cut: Arc<Notify>) -> String {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    tokio::spawn(async move {
        loop {
            let (mut near, _) = listener.accept().await.unwrap();
            let mut far = tokio::net::TcpStream::connect(&to).await.unwrap();
            tokio::select! {
                _ = tokio::io::copy_bidirectional(&mut near, &mut far) => {}
                () = cut.notified() => {}
            }
        }
    });
    address
}

#[tokio::test]
async fn a_lost_connection_of_either_end_is_heard() {
    let hub = Hub::new(&[]).await;
    let cut = Arc::<Notify>::default();
    let address = wire(hub.env.address().unwrap().to_string(), cut.clone()).await;
    let a = Client::at(&address, "a", &[]).await;
    let b = Client::new(&hub.env, "b", &[]).await;
    let to_a = b.take("a").await;
    let held = to_a.ask(Hold);
    a.gate.holding.notified().await;
    let second = to_a.ask(Echo { text: "in the inbox".into() });
    to_a.send(Step { number: 1, load: String::new() }).unwrap();
    // The relay has all of it.
    b.board.ask(Take { name: "b".into() }).await.unwrap();
    cut.notify_one();
    let errors = [held.await.unwrap_err(), second.await.unwrap_err()];
    assert_eq!(errors[0].outcome(), Outcome::Unknown);
    for error in errors {
        assert_eq!(error.kind(), ErrorKind::Disconnected);
        assert!(error.text().starts_with(&format!("{} through rpc://", a.own)), "{error}");
    }
    a.gate.cancelled.notified().await;
    let error = loop {
        let error = to_a.ask(Echo { text: String::new() }).await.unwrap_err();
        assert_eq!(error.outcome(), Outcome::NeverSent, "{error}");
        if !error.is_stopped() {
            break error;
        }
    };
    assert_eq!(error.kind(), ErrorKind::Unreachable);
    assert!(error.text().ends_with("that env is not connected to it"), "{error}");
    // It comes back when that env has a reason to connect.
    a.board.ask(Take { name: "b".into() }).await.unwrap();
    assert_eq!(to_a.ask(Echo { text: "again".into() }).await.unwrap(), "again");
    // A caller that is lost has its calls cancelled.
    let to_b = a.take("b").await;
    let held = to_b.ask(Hold);
    b.gate.holding.notified().await;
    cut.notify_one();
    b.gate.cancelled.notified().await;
    assert_eq!(held.await.unwrap_err().outcome(), Outcome::Unknown);
}

/// An env that is shut down fails what it does not handle, and is not there any more.
#[tokio::test]
async fn the_end_of_either_env_is_heard() {
    let (_hub, a, b, to_a, to_b) = three().await;
    a.env.shutdown().await;
    let error = loop {
        let error = to_a.ask(Echo { text: String::new() }).await.unwrap_err();
        if !error.is_stopped() && error.kind() != ErrorKind::Disconnected {
            break error;
        }
    };
    assert_eq!((error.kind(), error.outcome()), (ErrorKind::Unreachable, Outcome::NeverSent));
    assert!(error.text().contains("is not connected to it"), "{error}");
    assert_eq!(to_b.ask(Steps).await.unwrap_err().kind(), ErrorKind::EnvStopped);
    b.env.shutdown().await;
}

#[tokio::test]
async fn the_death_of_the_relay_is_heard() {
    let (hub, a, _b, to_a, _) = three().await;
    let held = to_a.ask(Hold);
    a.gate.holding.notified().await;
    let address = hub.env.address().unwrap().to_string();
    hub.env.shutdown().await;
    a.gate.cancelled.notified().await;
    let error = held.await.unwrap_err();
    assert_eq!(error.outcome(), Outcome::Unknown, "{error}");
    assert!(error.text().contains(&address), "{error}");
    let error = to_a.ask(Echo { text: String::new() }).await.unwrap_err();
    assert_eq!((error.kind(), error.outcome()), (ErrorKind::Unreachable, Outcome::NeverSent));
    assert!(error.text().contains(&address), "{error}");
}

/// A flood for an endpoint that does not keep up fills the flooder's queue, and nobody else's.
#[tokio::test]
async fn a_flood_does_not_drown_the_relay() {
    let hub = Hub::new(&[("rpc.outbox.maxMessages", "64")]).await;
    let a = Client::new(&hub.env, "a", &[("rpc.io.maxInFlight", "8")]).await;
    let b = [("rpc.outbox.maxMessages", "3000"), ("rpc.askTimeout", "100s")];
    let b = Client::new(&hub.env, "b", &b).await;
    let second = a.env.setup_endpoint("second", Peer::default()).await.unwrap();
    a.put("second", &second).await;
    let to_a = b.take("a").await;
    let hold = to_a.ask(Hold);
    a.gate.holding.notified().await;
    let load = "x".repeat(4000);
    let mut sent = 0_u64;
    let asks: Vec<_> = (0..100).map(|_| to_a.ask(Echo { text: load.clone() })).collect();
    let error = loop {
        match to_a.send(Step { number: sent, load: load.clone() }) {
            Ok(()) => sent += 1,
            Err(error) => break error,
        }
        if sent.is_multiple_of(64) {
            // What the relay and the endpoint take has been taken.
            b.board.ask(Take { name: "a".into() }).await.unwrap();
        }
    };
    assert!(error.is_overloaded() && error.text().contains("rpc.outbox.maxMessages"), "{error}");
    assert!(sent < 3000 + 2 * 1024, "{sent} messages went into a closed door");
    // The relay's own calls to that env are as free as before: to another endpoint of it, more at
    // once than the flood leaves places for, and one-way messages within its own limit.
    let own = hub.take("second").await;
    for _ in 0..5 {
        let asks: Vec<_> = (0..20).map(|_| own.ask(Echo { text: "own".into() })).collect();
        for ask in asks {
            assert_eq!(ask.await.unwrap(), "own");
        }
        for number in 0..64 {
            own.send(Step { number, load: String::new() }).unwrap();
        }
        own.ask(Steps).await.unwrap();
    }
    a.gate.release.notify_one();
    hold.await.unwrap();
    for ask in asks {
        ask.await.unwrap();
    }
    let steps = to_a.ask(Steps).await.unwrap().0;
    assert_eq!(steps, (0..sent).collect::<Vec<_>>());
}

/// What is resolved through a relay and dropped is forgotten by all three.
#[tokio::test]
async fn many_refs_through_a_relay_one_after_the_other() {
    let (_hub, a, b, _, _) = three().await;
    for round in 0..2_000 {
        let to_a = b.take("a").await;
        if round % 3 == 0 {
            to_a.send(Step { number: round, load: String::new() }).unwrap();
        } else {
            to_a.ask(Echo { text: String::new() }).await.unwrap();
        }
    }
    // What was sent last is handled, and the release behind it has come through.
    for _ in 0..2 {
        b.take("a").await.ask(Echo { text: String::new() }).await.unwrap();
    }
    let steps = a.own.ask(Steps).await.unwrap().0;
    assert_eq!(steps, (0..2_000).filter(|round| round % 3 == 0).collect::<Vec<_>>());
    // No window of theirs is left in the inbox: it has room for others again.
    let held = a.own.ask(Hold);
    a.gate.holding.notified().await;
    for number in 0..3_000 {
        a.own.send(Step { number, load: String::new() }).unwrap();
    }
    drop(held);
}
