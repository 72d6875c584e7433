//! The bridge over real TCP on loopback: large messages, order, cancelling, credit, callbacks,
//! restarts, and where an env may run.
#![cfg(test)]

use rpc_actix::{
    ActixHost, ActixRpcEnvFactory, EndpointContext, EndpointOptions, ErrorKind, HandlerResult,
    Outcome, RawMessage, RawReply, RpcAddress, RpcCallContext, RpcEndpointRef, RpcEnv,
    RpcEnvConfig, RpcEnvFactory, RpcError, RpcMessage, Untyped, endpoint,
};
use serde::{Deserialize, Serialize};
use std::io::{BufRead, BufReader, Read};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::sync::{Notify, mpsc};

const MIB: usize = 1024 * 1024;

#[derive(Debug, Serialize, Deserialize, RpcMessage)]
#[rpc(reply = String)]
struct Echo {
    text: String,
}

#[derive(Debug, Serialize, Deserialize, RpcMessage)]
#[rpc(reply = String)]
struct Inflate {
    bytes: usize,
}

/// A step of a sender's sequence.
#[derive(Debug, Serialize, Deserialize, RpcMessage)]
struct Step {
    number: u64,
    load: String,
}

/// The same, answered with its number.
#[derive(Debug, Serialize, Deserialize, RpcMessage)]
#[rpc(reply = u64)]
struct AskedStep {
    number: u64,
    load: String,
}

#[derive(Debug, Serialize, Deserialize, RpcMessage)]
#[rpc(reply = Vec<u64>)]
struct Steps;

/// The handler waits for the test, or for its caller to give up.
#[derive(Debug, Serialize, Deserialize, RpcMessage)]
#[rpc(reply = ())]
struct Hold;

/// How long the caller still waits.
#[derive(Debug, Serialize, Deserialize, RpcMessage)]
#[rpc(reply = Option<Duration>)]
struct Remaining;

/// Asks the ref it carries.
#[derive(Debug, Serialize, Deserialize, RpcMessage)]
#[rpc(reply = String)]
struct CallBack {
    to: RpcEndpointRef<Probe>,
    text: String,
}

/// Answered at once; the handler asks the ref after that.
#[derive(Debug, Serialize, Deserialize, RpcMessage)]
#[rpc(reply = ())]
struct AnswerFirst {
    to: RpcEndpointRef<Probe>,
}

/// Keeps a ref for others.
#[derive(Debug, Serialize, Deserialize, RpcMessage)]
#[rpc(reply = Option<RpcEndpointRef<Probe>>)]
struct Swap {
    with: RpcEndpointRef<Probe>,
}

#[derive(Default)]
struct Probe {
    steps: Vec<u64>,
    kept: Option<RpcEndpointRef<Self>>,
    gate: Gate,
}

/// What a test sees of a probe, and tells it.
#[derive(Clone, Default)]
struct Gate {
    holding: Arc<Notify>,
    release: Arc<Notify>,
    cancelled: Arc<Notify>,
    handled: Arc<AtomicU64>,
}

#[endpoint]
impl Probe {
    #[receive_and_reply]
    async fn echo(&mut self, msg: Echo) -> HandlerResult<String> {
        self.gate.handled.fetch_add(1, Ordering::Relaxed);
        Ok(msg.text)
    }

    #[receive_and_reply]
    async fn inflate(&mut self, msg: Inflate) -> HandlerResult<String> {
        Ok("y".repeat(msg.bytes))
    }

    #[receive]
    async fn step(&mut self, msg: Step) -> HandlerResult<()> {
        self.gate.handled.fetch_add(1, Ordering::Relaxed);
        self.steps.push(msg.number);
        Ok(())
    }

    #[receive_and_reply]
    async fn asked_step(&mut self, msg: AskedStep) -> HandlerResult<u64> {
        self.steps.push(msg.number);
        Ok(msg.number)
    }

    #[receive_and_reply]
    async fn steps(&mut self, _msg: Steps) -> HandlerResult<Vec<u64>> {
        Ok(std::mem::take(&mut self.steps))
    }

    #[receive_and_reply]
    async fn hold(&mut self, _msg: Hold, cx: &mut EndpointContext<Self>) -> HandlerResult<()> {
        self.gate.holding.notify_one();
        tokio::select! {
            () = self.gate.release.notified() => {}
            () = cx.cancelled() => {
                assert!(cx.is_cancelled());
                self.gate.cancelled.notify_one();
            }
        }
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
    async fn call_back(&mut self, msg: CallBack) -> HandlerResult<String> {
        self.gate.holding.notify_one();
        Ok(msg.to.ask(Echo { text: msg.text }).await?)
    }

    #[receive_and_reply]
    async fn answer_first(
        &mut self,
        msg: AnswerFirst,
        call: RpcCallContext<()>,
    ) -> HandlerResult<()> {
        call.reply(());
        // The caller has its answer, and is not waited for any more: it has not given up.
        for _ in 0..10 {
            tokio::task::yield_now().await;
            msg.to.ask(Echo { text: "after the answer".into() }).await?;
            self.steps.push(1);
        }
        Ok(())
    }

    #[receive_and_reply]
    async fn swap(&mut self, msg: Swap) -> HandlerResult<Option<RpcEndpointRef<Self>>> {
        Ok(self.kept.replace(msg.with))
    }
}

async fn server(settings: &[(&str, &str)]) -> RpcEnv {
    let config = RpcEnvConfig::server("server", "127.0.0.1:0");
    rpc_actix::create(config.set_all(settings.iter().copied()).unwrap()).await.unwrap()
}

async fn client(settings: &[(&str, &str)]) -> RpcEnv {
    let config = RpcEnvConfig::client("client");
    rpc_actix::create(config.set_all(settings.iter().copied()).unwrap()).await.unwrap()
}

fn uri(env: &RpcEnv, name: &str) -> String {
    format!("rpc://{name}@{}", env.address().unwrap())
}

/// Registers a probe.
async fn probe(env: &RpcEnv, name: &str) -> (RpcEndpointRef<Probe>, Gate) {
    let probe = Probe::default();
    let gate = probe.gate.clone();
    (env.setup_endpoint(name, probe).await.unwrap(), gate)
}

/// A server with a probe, a client, and the client's ref to it.
async fn pair(
    server_settings: &[(&str, &str)],
    client_settings: &[(&str, &str)],
) -> (RpcEnv, RpcEnv, RpcEndpointRef<Probe>, Gate) {
    let (server, client) = (server(server_settings).await, client(client_settings).await);
    let (_, gate) = probe(&server, "probe").await;
    let far = client.endpoint_ref(&uri(&server, "probe")).await.unwrap();
    (server, client, far, gate)
}

fn echo(bytes: usize) -> Echo {
    // Different everywhere, so that parts in the wrong place show.
    let text: String = (0..bytes / 8).map(|part| format!("{part:08x}")).collect();
    Echo { text }
}

// Large messages.

#[tokio::test]
async fn large_messages_both_ways_and_as_replies() {
    let (server, client, far, _) = pair(&[], &[]).await;
    let (here, _) = probe(&client, "here").await;
    let back: RpcEndpointRef<Probe> = server.decode(&client.encode(&here).unwrap()).unwrap();
    for bytes in [16 * 1024, 256 * 1024, MIB, 3 * MIB, 16 * MIB - 64] {
        for probe in [&far, &back] {
            let message = echo(bytes);
            let expected = message.text.clone();
            assert!(probe.ask(message).await.unwrap() == expected, "{bytes} bytes");
            assert_eq!(probe.ask(Inflate { bytes }).await.unwrap().len(), bytes);
        }
    }
}

/// Large messages in both directions at once do not wait for each other in a ring.
#[tokio::test]
async fn large_messages_in_both_directions_at_once() {
    let (server, client, far, _) = pair(&[], &[]).await;
    let (here, _) = probe(&client, "here").await;
    let back: RpcEndpointRef<Probe> = server.decode(&client.encode(&here).unwrap()).unwrap();
    let asks = [&far, &back].into_iter().cycle().take(12);
    let asks: Vec<_> = asks.map(|probe| probe.ask(echo(6 * MIB))).collect();
    for ask in asks {
        assert_eq!(ask.await.unwrap().len(), 6 * MIB);
    }
}

/// Nor do answers, however many of them wait on both sides: both go on reading.
#[tokio::test]
async fn large_answers_in_both_directions_at_once() {
    let settings = [("rpc.outbox.maxBytes", "1MiB")];
    let (server, client, far, _) = pair(&settings, &settings).await;
    let (here, _) = probe(&client, "here").await;
    let back: RpcEndpointRef<Probe> = server.decode(&client.encode(&here).unwrap()).unwrap();
    let asks = [&far, &back].into_iter().cycle().take(24);
    let asks: Vec<_> = asks.map(|probe| probe.ask(Inflate { bytes: 4 * MIB })).collect();
    for ask in asks {
        assert_eq!(ask.await.unwrap().len(), 4 * MIB);
    }
}

#[tokio::test]
async fn small_asks_between_large_messages() {
    let (server, client, bulk, _) = pair(&[], &[]).await;
    let (_, _) = probe(&server, "small").await;
    let small: RpcEndpointRef<Probe> = client.endpoint_ref(&uri(&server, "small")).await.unwrap();
    let large: Vec<_> = (0..6).map(|_| bulk.ask(echo(8 * MIB))).collect();
    for round in 0..500 {
        let text = format!("{round}");
        assert_eq!(small.ask(Echo { text: text.clone() }).await.unwrap(), text);
    }
    for answer in large {
        assert_eq!(answer.await.unwrap().len(), 8 * MIB);
    }
}

// Order.

/// Sends and asks, small and large, from one sender to one endpoint: in the order of the calls.
#[tokio::test]
async fn order_holds_for_sends_and_asks_small_and_large() {
    let (server, _client, far, _) = pair(&[], &[]).await;
    let near = server.local_ref::<Probe>("probe").unwrap();
    for probe in [&far, &near] {
        let mut asks = Vec::new();
        for number in 0..1500 {
            let load = "z".repeat(if number % 100 == 99 { 100_000 } else { 10 });
            if number % 3 == 0 {
                asks.push((number, probe.ask(AskedStep { number, load })));
            } else {
                probe.send(Step { number, load }).unwrap();
            }
        }
        for (number, ask) in asks {
            assert_eq!(ask.await.unwrap(), number);
        }
        assert_eq!(probe.ask(Steps).await.unwrap(), (0..1500).collect::<Vec<_>>());
    }
}

// Room that is kept.

/// Bulk traffic to one endpoint does not crowd out another one that is of the system.
#[tokio::test]
async fn a_full_queue_takes_messages_to_an_endpoint_of_the_system() {
    let (server, client, bulk, gate) = pair(&[], &[("rpc.outbox.maxMessages", "16")]).await;
    let options = EndpointOptions::new("master").system();
    server.setup_endpoint(options, Probe::default()).await.unwrap();
    let master: RpcEndpointRef<Probe> = client.endpoint_ref(&uri(&server, "master")).await.unwrap();
    let hold = bulk.ask(Hold);
    gate.holding.notified().await;
    let step = || Step { number: 0, load: String::new() };
    // Until nothing goes any more: the window is used up, and the queue is full.
    let refused = loop {
        if let Err(refused) = bulk.send(step()) {
            assert_eq!(master.ask(echo(8)).await.unwrap().len(), 8);
            if bulk.send(step()).is_err() {
                break refused;
            }
        }
    };
    assert_eq!(refused.kind(), ErrorKind::Overloaded);
    let limit = "rpc.outbox.maxMessages (16, less an eighth for endpoints of the system)";
    assert!(refused.text().ends_with(limit), "{refused}");
    master.send(step()).unwrap();
    assert_eq!(master.ask(Steps).await.unwrap().len(), 1);
    gate.release.notify_one();
    hold.await.unwrap();
}

// Cancelling and time.

#[tokio::test]
async fn a_dropped_ask_is_seen_by_its_handler() {
    let (server, _client, far, gate) = pair(&[], &[]).await;
    let near = server.local_ref::<Probe>("probe").unwrap();
    for probe in [&far, &near] {
        let ask = probe.ask(Hold);
        gate.holding.notified().await;
        drop(ask);
        gate.cancelled.notified().await;
    }
}

#[tokio::test]
async fn a_dropped_ask_that_is_queued_is_not_handled() {
    let (server, client, far, gate) = pair(&[], &[]).await;
    let near = server.local_ref::<Probe>("probe").unwrap();
    for probe in [&far, &near] {
        let before = gate.handled.load(Ordering::Relaxed);
        let hold = probe.ask(Hold);
        gate.holding.notified().await;
        let queued: Vec<_> = (0..10).map(|_| probe.ask(echo(8))).collect();
        let kept = probe.ask(echo(8));
        drop(queued);
        settle(&server, &client).await;
        gate.release.notify_one();
        hold.await.unwrap();
        kept.await.unwrap();
        probe.ask(Steps).await.unwrap();
        assert_eq!(gate.handled.load(Ordering::Relaxed) - before, 1, "the kept one");
    }
}

#[tokio::test]
async fn the_callee_sees_the_remaining_time() {
    let (server, _client, far, _) =
        pair(&[("rpc.askTimeout", "7s")], &[("rpc.askTimeout", "9s")]).await;
    let near = server.local_ref::<Probe>("probe").unwrap();
    for (probe, most) in [(&far, 9), (&near, 7)] {
        let (most, given) = (Duration::from_secs(most), Duration::from_secs(3600));
        let left = probe.ask(Remaining).await.unwrap().unwrap();
        assert!(left > Duration::ZERO && left <= most, "{left:?}");
        let left = probe.ask_with_timeout(Remaining, given).await.unwrap().unwrap();
        assert!(left > most && left <= given, "{left:?}");
    }
}

/// What a handler asks while its caller waits ends with that caller.
#[tokio::test]
async fn an_ask_of_a_handler_ends_with_its_caller() {
    let (server, client, far, gate) = pair(&[], &[]).await;
    let near = server.local_ref::<Probe>("probe").unwrap();
    let (middle, at_work) = probe(&server, "middle").await;
    let far_middle: RpcEndpointRef<Probe> =
        client.endpoint_ref(&uri(&server, "middle")).await.unwrap();
    for (middle, probe) in [(far_middle, far), (middle, near)] {
        let hold = probe.ask(Hold);
        gate.holding.notified().await;
        let relayed = middle.ask(CallBack { to: probe.clone(), text: "x".into() });
        at_work.holding.notified().await;
        drop(relayed);
        let behind = middle.ask(Steps).await;
        assert_eq!(behind.unwrap(), [0; 0], "the middle is free although the probe holds");
        gate.release.notify_one();
        hold.await.unwrap();
    }
    assert_eq!(gate.handled.load(Ordering::Relaxed), 0);
}

/// A handler that has answered goes on, and may ask.
#[tokio::test]
async fn a_handler_asks_after_its_answer() {
    let (server, client, far, _) = pair(&[], &[]).await;
    let near = server.local_ref::<Probe>("probe").unwrap();
    let (near_middle, _) = probe(&server, "middle").await;
    let far_middle: RpcEndpointRef<Probe> =
        client.endpoint_ref(&uri(&server, "middle")).await.unwrap();
    for (middle, probe) in [(far_middle, far), (near_middle, near)] {
        middle.ask(AnswerFirst { to: probe }).await.unwrap();
        assert_eq!(middle.ask(Steps).await.unwrap(), [1; 10]);
    }
}

// Refs that travel.

#[tokio::test]
async fn a_client_is_called_back_over_its_own_connection() {
    let (_server, client, far, _) = pair(&[], &[]).await;
    let (here, _) = probe(&client, "here").await;
    for text in ["small".to_owned(), "x".repeat(MIB)] {
        let answer = far.ask(CallBack { to: here.clone(), text: text.clone() }).await.unwrap();
        assert!(answer == text);
    }
    assert!(here.address().is_none());
}

#[tokio::test]
async fn a_ref_from_a_peer_leads_a_third_env_to_its_endpoint() {
    let (_server, _first, far, _) = pair(&[], &[]).await;
    let other = server(&[]).await;
    let (owner, _) = probe(&other, "owner").await;
    let known: RpcEndpointRef<Probe> =
        other.endpoint_ref(&far.endpoint_address().to_string()).await.unwrap();
    assert!(known.ask(Swap { with: owner.clone() }).await.unwrap().is_none());

    let third = client(&[]).await;
    let registry: RpcEndpointRef<Probe> =
        third.endpoint_ref(&far.endpoint_address().to_string()).await.unwrap();
    let (own, _) = probe(&third, "own").await;
    let found = registry.ask(Swap { with: own.clone() }).await.unwrap().unwrap();
    assert_eq!(found, owner);
    assert_eq!(found.incarnation(), owner.incarnation());
    assert_eq!(found.ask(Echo { text: "direct".into() }).await.unwrap(), "direct");
    // A ref that has come home is the endpoint itself.
    let home = registry.ask(Swap { with: own.clone() }).await.unwrap().unwrap();
    assert_eq!(home, own);
    assert_eq!(home.ask(Echo { text: "home".into() }).await.unwrap(), "home");
}

/// Refs in a message that no typed handler takes belong to the receiver's env as well.
#[tokio::test]
async fn refs_in_raw_messages() {
    #[derive(Debug, Serialize, Deserialize, RpcMessage)]
    #[rpc(reply = String)]
    struct Letter {
        from: RpcEndpointRef<Probe>,
    }
    #[derive(Debug, Serialize, Deserialize, RpcMessage)]
    #[rpc(name = "Letter", reply = String)]
    struct SameLetter {
        from: RpcEndpointRef<Untyped>,
    }
    struct Mailbox;
    #[endpoint]
    impl Mailbox {
        #[receive_and_reply_raw]
        async fn any(
            &mut self,
            msg: RawMessage,
            call: RpcCallContext<RawReply>,
            _cx: &mut EndpointContext<Self>,
        ) -> HandlerResult<()> {
            assert_eq!(msg.name(), "Letter");
            let letter: SameLetter = msg.decode()?;
            call.reply_with(&letter.from.ask(Echo { text: "got it".into() }).await?);
            Ok(())
        }
    }
    let (server, client) = (server(&[]).await, client(&[]).await);
    let near = server.setup_endpoint("mailbox", Mailbox).await.unwrap().into_untyped();
    let far: RpcEndpointRef = client.endpoint_ref(&uri(&server, "mailbox")).await.unwrap();
    let ((from_far, _), (from_near, _)) =
        (probe(&client, "from").await, probe(&server, "from").await);
    assert_eq!(far.ask(Letter { from: from_far }).await.unwrap(), "got it");
    assert_eq!(near.ask(Letter { from: from_near }).await.unwrap(), "got it");
}

// Endpoints and envs that end.

#[tokio::test]
async fn an_endpoint_that_is_restarted_under_its_name() {
    let (server, client, by_name, _) = pair(&[], &[]).await;
    let first = server.local_ref::<Probe>("probe").unwrap();
    let pinned: RpcEndpointRef<Probe> = client.decode(&server.encode(&first).unwrap()).unwrap();
    assert_eq!(pinned.ask(Echo { text: "first".into() }).await.unwrap(), "first");
    server.stop(&first).unwrap();
    server.stopped(&first).await.unwrap();
    probe(&server, "probe").await;

    // What was on its way to the first one fails with it; after that the name leads to the next.
    let found = loop {
        match by_name.ask(Echo { text: "second".into() }).await {
            Err(error) if error.kind() == ErrorKind::EndpointStopped => {
                assert!(error.is_never_sent())
            }
            found => break found,
        }
    };
    assert_eq!(found.unwrap(), "second");
    for gone in [&pinned, &first] {
        let error = gone.ask(Echo { text: "third".into() }).await.unwrap_err();
        assert_eq!(
            (error.kind(), error.outcome()),
            (ErrorKind::EndpointStopped, Outcome::NeverSent)
        );
        assert!(gone.send(Step { number: 0, load: String::new() }).is_err() || gone == &pinned);
    }
}

/// Each ask that is queued when its endpoint stops ends: with its answer while there is time to
/// drain, otherwise with the news that the endpoint stopped.
#[tokio::test]
async fn an_endpoint_stops_with_asks_in_its_queue() {
    for (drain, answered) in [("10s", true), ("0s", false)] {
        let (server, client, far, gate) = pair(&[("rpc.shutdown.drainTimeout", drain)], &[]).await;
        let near = server.local_ref::<Probe>("probe").unwrap();
        let hold = near.ask(Hold);
        gate.holding.notified().await;
        let local: Vec<_> = (0..50).map(|_| near.ask(echo(8))).collect();
        let remote: Vec<_> = (0..50).map(|_| far.ask(echo(8))).collect();
        settle(&server, &client).await;
        server.stop(&near).unwrap();
        if !answered {
            // The queue is emptied although the handler goes on.
            for ask in local {
                check_ended(ask.await, answered);
            }
            gate.release.notify_one();
        } else {
            gate.release.notify_one();
            for ask in local {
                check_ended(ask.await, answered);
            }
        }
        for ask in remote {
            check_ended(ask.await, answered);
        }
        hold.await.unwrap();
        server.stopped(&near).await.unwrap();
    }
}

fn check_ended(answer: Result<String, RpcError>, answered: bool) {
    match answer {
        Ok(_) => assert!(answered),
        Err(error) => {
            assert!(!answered, "{error:?}");
            assert_eq!(error.kind(), ErrorKind::EndpointStopped, "{error:?}");
            assert!(error.is_never_sent(), "{error:?}");
        }
    }
}

/// Ready when what the client has sent before has arrived: the messages of a connection are in order.
async fn settle(server: &RpcEnv, client: &RpcEnv) {
    let (local, _) = probe(server, "settle").await;
    let other: RpcEndpointRef<Probe> = client.endpoint_ref(&uri(server, "settle")).await.unwrap();
    other.ask(Steps).await.unwrap();
    server.stop(&local).unwrap();
    server.stopped(&local).await.unwrap();
}

// Processes that die.

const CHILD: &str = "BRIDGE_CHILD";

/// Not a test, but what the child process does: a server that lives until its input ends.
#[test]
fn child_process() {
    let Some(bind) = std::env::var_os(CHILD) else { return };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async move {
        let config = RpcEnvConfig::server("child", bind.to_str().unwrap());
        let env = rpc_actix::create(config).await.unwrap();
        let (_probe, gate) = probe(&env, "probe").await;
        println!("address={}", env.address().unwrap());
        let input = std::thread::spawn(|| std::io::stdin().read_to_end(&mut Vec::new()));
        while !input.is_finished() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        drop(gate);
    });
}

struct Server {
    process: Child,
    address: RpcAddress,
}

impl Server {
    fn start(bind: &str) -> Self {
        let mut process = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "child_process", "--nocapture"])
            .env(CHILD, bind)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let lines = BufReader::new(process.stdout.take().unwrap()).lines();
        let address = lines
            .map(Result::unwrap)
            .find_map(|line| line.split_once("address=").map(|(_, address)| address.to_owned()));
        Self { process, address: address.unwrap().parse().unwrap() }
    }

    fn kill(&mut self) {
        self.process.kill().unwrap();
        self.process.wait().unwrap();
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// Network events as an endpoint gets them.
struct Watcher {
    seen: mpsc::UnboundedSender<String>,
}

#[endpoint]
impl Watcher {
    #[on_connected]
    async fn connected(&mut self, peer: &RpcAddress) -> HandlerResult<()> {
        Ok(self.seen.send(format!("connected {peer}"))?)
    }

    #[on_disconnected]
    async fn disconnected(&mut self, peer: &RpcAddress) -> HandlerResult<()> {
        Ok(self.seen.send(format!("disconnected {peer}"))?)
    }
}

#[tokio::test]
async fn a_server_is_killed_and_another_takes_its_port() {
    let mut first = Server::start("127.0.0.1:0");
    let address = first.address.clone();
    let client = client(&[]).await;
    let (seen, mut events) = mpsc::unbounded_channel();
    client.setup_endpoint("watcher", Watcher { seen }).await.unwrap();
    let uri = format!("rpc://probe@{address}");
    let far: RpcEndpointRef<Probe> = client.endpoint_ref(&uri).await.unwrap();
    assert_eq!(events.recv().await.unwrap(), format!("connected {address}"));

    let held = far.ask(Hold);
    let queued: Vec<_> = (0..10).map(|_| far.ask(echo(8))).collect();
    // Over the same connection, so what went before has gone.
    let other = client.endpoint_ref::<Untyped>(&format!("rpc://nobody@{address}")).await;
    assert!(other.unwrap_err().is_not_found());
    first.kill();
    for error in [held.await.unwrap_err(), queued.into_iter().next().unwrap().await.unwrap_err()] {
        assert_eq!((error.kind(), error.outcome()), (ErrorKind::Disconnected, Outcome::Unknown));
        assert!(error.text().contains(&address.to_string()), "{error}");
    }
    assert_eq!(events.recv().await.unwrap(), format!("disconnected {address}"));
    let error = far.ask(echo(8)).await.unwrap_err();
    assert_eq!((error.kind(), error.outcome()), (ErrorKind::Unreachable, Outcome::NeverSent));

    let second = Server::start(&address.to_string());
    assert_eq!(second.address, address);
    assert_eq!(far.ask(Echo { text: "again".into() }).await.unwrap(), "again");
    assert_eq!(events.recv().await.unwrap(), format!("connected {address}"));
}

#[tokio::test]
async fn a_server_is_shut_down_and_another_takes_its_port() {
    let server = on_a_port_of_its_own().await;
    let (client, address) = (client(&[]).await, server.address().unwrap().to_string());
    probe(&server, "probe").await;
    let far: RpcEndpointRef<Probe> = client.endpoint_ref(&uri(&server, "probe")).await.unwrap();
    assert_eq!(far.ask(Echo { text: "first".into() }).await.unwrap(), "first");
    server.shutdown().await;
    let again = rpc_actix::create(RpcEnvConfig::server("again", &address)).await.unwrap();
    probe(&again, "probe").await;
    let found = loop {
        match far.ask(Echo { text: "second".into() }).await {
            // The goodbye is still on its way.
            Err(error) if error.is_disconnected() => {}
            found => break found,
        }
    };
    assert_eq!(found.unwrap(), "second");
    client.shutdown().await;
}

/// A server on a port below those that the system hands out: a port of those could be somebody
/// else's as soon as the server is gone.
async fn on_a_port_of_its_own() -> RpcEnv {
    let first = 20_000 + u16::try_from(std::process::id() % 10_000).unwrap();
    for port in (first..30_000).chain(20_000..first) {
        let config = RpcEnvConfig::server("server", format!("127.0.0.1:{port}"));
        match rpc_actix::create(config).await {
            Ok(env) => return env,
            Err(error) => assert_eq!(error.kind(), ErrorKind::Bind),
        }
    }
    panic!("no port from 20000 to 29999 is free");
}

// Credit.

/// A slow endpoint makes its senders' `send` say Overloaded, and loses nothing that it took.
#[tokio::test]
async fn nothing_that_was_accepted_is_lost() {
    let few = [("rpc.inbox.maxMessages", "64")];
    let small = [("rpc.outbox.maxMessages", "32")];
    let (server, _client, far, gate) = pair(&few, &small).await;
    let more = client(&small).await;
    let also: RpcEndpointRef<Probe> = more.endpoint_ref(&uri(&server, "probe")).await.unwrap();
    let near = server.local_ref::<Probe>("probe").unwrap();
    let hold = near.ask(Hold);
    gate.holding.notified().await;
    let mut accepted = 0;
    for (sender, probe) in [far.clone(), far.clone(), also.clone(), near.clone()].iter().enumerate()
    {
        let mut refused = false;
        for number in 0..10_000 {
            match probe.send(Step { number, load: String::new() }) {
                Ok(()) => accepted += 1,
                Err(error) => {
                    assert!(error.is_overloaded() && error.is_never_sent(), "{error:?}");
                    refused = true;
                    break;
                }
            }
        }
        assert!(refused, "sender {sender} was never refused");
    }
    assert!(accepted < 400, "{accepted}");
    gate.release.notify_one();
    hold.await.unwrap();
    let mut counted = 0;
    for probe in [&far, &also, &near] {
        counted += probe.ask(Steps).await.unwrap().len() as u64;
    }
    // What each sender's ask was behind has been handled.
    assert_eq!((counted, gate.handled.load(Ordering::Relaxed)), (accepted, accepted));
}

#[tokio::test]
async fn a_send_that_waits_for_room() {
    let few = [("rpc.inbox.maxMessages", "8"), ("rpc.outbox.maxMessages", "8")];
    let (server, _client, far, gate) = pair(&few, &few).await;
    let near = server.local_ref::<Probe>("probe").unwrap();
    for probe in [&far, &near] {
        let before = gate.handled.load(Ordering::Relaxed);
        let hold = probe.ask(Hold);
        gate.holding.notified().await;
        let step = |number| Step { number, load: String::new() };
        let mut waiting: Vec<_> = (0..40).map(|number| probe.send_wait(step(number))).collect();
        // The last ones found no room, and are taken back.
        drop(waiting.split_off(35));
        gate.release.notify_one();
        hold.await.unwrap();
        for sent in waiting {
            sent.await.unwrap();
        }
        assert_eq!(probe.ask(Steps).await.unwrap(), (0..35).collect::<Vec<_>>());
        assert_eq!(gate.handled.load(Ordering::Relaxed) - before, 35);
    }
}

/// More asks than may be in flight wait their turn.
#[tokio::test]
async fn more_asks_than_may_be_in_flight() {
    let few = [("rpc.io.maxInFlight", "4"), ("rpc.inbox.maxMessages", "16")];
    let (_server, _client, far, _) = pair(&few, &few).await;
    let asks: Vec<_> =
        (0..2000).map(|number| far.ask(AskedStep { number, load: String::new() })).collect();
    for (number, ask) in asks.into_iter().enumerate() {
        assert_eq!(ask.await.unwrap(), number as u64);
    }
    assert_eq!(far.ask(Steps).await.unwrap(), (0..2000).collect::<Vec<_>>());
}

// Where envs run.

#[tokio::test]
async fn over_ipv6() {
    if std::net::TcpListener::bind("[::1]:0").is_err() {
        return eprintln!("no IPv6 here");
    }
    let server = rpc_actix::create(RpcEnvConfig::server("six", "[::1]:0")).await.unwrap();
    let (_, _) = probe(&server, "probe").await;
    let client = client(&[]).await;
    let (here, _) = probe(&client, "here").await;
    let uri = uri(&server, "probe");
    assert!(uri.starts_with("rpc://probe@[::1]:"), "{uri}");
    let far: RpcEndpointRef<Probe> = client.endpoint_ref(&uri).await.unwrap();
    assert_eq!(far.ask(Echo { text: "six".into() }).await.unwrap(), "six");
    assert_eq!(far.ask(CallBack { to: here, text: "back".into() }).await.unwrap(), "back");
}

#[tokio::test]
async fn several_envs_on_one_host() {
    let host = ActixHost::start().await.unwrap();
    let factory = ActixRpcEnvFactory::on(&host);
    let mut servers = Vec::new();
    for name in ["a", "b", "c"] {
        let env = factory.create(RpcEnvConfig::server(name, "127.0.0.1:0")).await.unwrap();
        probe(&env, "probe").await;
        servers.push(env);
    }
    for from in &servers {
        for to in &servers {
            let far: RpcEndpointRef<Probe> = from.endpoint_ref(&uri(to, "probe")).await.unwrap();
            assert_eq!(far.ask(Echo { text: "x".into() }).await.unwrap(), "x");
        }
    }
    let last = servers.pop().unwrap();
    let (gone, left) = (servers.remove(0), servers.remove(0));
    let to_left: RpcEndpointRef<Probe> = last.endpoint_ref(&uri(&left, "probe")).await.unwrap();
    gone.shutdown().await;
    drop(host);
    assert_eq!(to_left.ask(Echo { text: "y".into() }).await.unwrap(), "y", "the host is shared");
    left.shutdown().await;
    last.shutdown().await;
}

/// Both envs on the caller's own thread.
async fn inline_scenario() {
    let inline = [("rpc.actix.mode", "inline")];
    let (server, client, far, _) = pair(&inline, &inline).await;
    let (here, _) = probe(&client, "here").await;
    assert_eq!(far.ask(echo(MIB)).await.unwrap().len(), MIB);
    assert_eq!(far.ask(CallBack { to: here, text: "back".into() }).await.unwrap(), "back");
    let error = far.ask_blocking(Steps).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::WouldBlockArbiter);
    client.shutdown().await;
    server.shutdown().await;
    assert!(far.ask(Steps).await.unwrap_err().is_stopped());
}

#[test]
fn inline_in_an_actix_system() {
    actix_rt::System::new().block_on(inline_scenario());
}

#[test]
fn inline_in_a_local_set() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    tokio::task::LocalSet::new().block_on(&runtime, inline_scenario());
}

/// Refs work from a thread without any runtime, and from other runtimes than the one that made them.
#[test]
fn refs_are_at_home_in_any_runtime() {
    let make = tokio::runtime::Runtime::new().unwrap();
    let (server, client, far, _gate) = make.block_on(pair(&[], &[]));
    drop(make);
    assert_eq!(far.ask_blocking(Echo { text: "none".into() }).unwrap(), "none");
    let other = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let answer = other.block_on(async { far.ask(Echo { text: "other".into() }).await });
    assert_eq!(answer.unwrap(), "other");
    other.block_on(async {
        client.shutdown().await;
        server.shutdown().await;
    });
}
