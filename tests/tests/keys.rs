//! Every key has an effect: for each one a test that sets it and sees what it does.
#![cfg(test)]

use rpc_actix::{
    ErrorKind, LocalWorld, RpcEndpointRef, RpcEnv, RpcEnvConfig, RpcEnvFactory, Untyped,
};
use rpc_tests::harness::{Echo, Note, Probe, ProbeWatch};
use rpc_tests::raw_peer::{RawPeer, frame, hello, kind, resolved};
use std::collections::BTreeSet;
use std::fs;
use std::net::TcpListener;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

/// The key, the suite (from the root of the workspace), and the test there that sets it. Where a
/// test uses the setter, its name stands for the key.
const EFFECTS: &[(&str, &str, &str)] = &[
    ("rpc.env", "tests/tests/conformance/envs.rs", "s3_the_key_rpc_env_picks_the_factory"),
    ("rpc.name", "tests/tests/keys.rs", "name_bind_and_advertise"),
    ("rpc.bind", "tests/tests/keys.rs", "name_bind_and_advertise"),
    ("rpc.advertise", "tests/tests/keys.rs", "name_bind_and_advertise"),
    (
        "rpc.askTimeout",
        "tests/tests/bad_input.rs",
        "an_ask_that_takes_too_long_names_its_key_once_and_the_peer",
    ),
    ("rpc.lookupTimeout", "tests/tests/bad_input.rs", "a_lookup_that_takes_too_long"),
    (
        "rpc.network.timeout",
        "tests/tests/bad_input.rs",
        "an_ask_that_takes_too_long_names_its_key_once_and_the_peer",
    ),
    (
        "rpc.io.connectTimeout",
        "tests/tests/conformance/connections.rs",
        "s116_connecting_has_its_own_time",
    ),
    (
        "rpc.shutdown.drainTimeout",
        "tests/tests/bad_input.rs",
        "an_endpoint_that_has_no_time_to_drain",
    ),
    (
        "port.maxRetries",
        "tests/tests/conformance/envs.rs",
        "s9_s13_a_taken_port_is_retried_if_the_key_allows_it",
    ),
    ("rpc.frame.maxSize", "tests/tests/keys.rs", "the_greatest_frame"),
    (
        "rpc.message.maxSize",
        "tests/tests/conformance/wire.rs",
        "s150_the_layer_itself_bounds_messages",
    ),
    ("rpc.message.maxDepth", "tests/tests/keys.rs", "depth_and_elements_of_a_message"),
    ("rpc.message.maxElements", "tests/tests/keys.rs", "depth_and_elements_of_a_message"),
    ("rpc.io.preAuthBytes", "tests/tests/keys.rs", "the_greatest_hello"),
    ("rpc.io.handshakeTimeout", "tests/tests/bad_input.rs", "a_peer_that_never_says_hello"),
    ("rpc.io.maxConnections", "tests/tests/bad_input.rs", "a_server_that_has_no_place"),
    ("rpc.io.maxUnauthenticated", "tests/tests/keys.rs", "the_most_without_a_hello"),
    (
        "with_max_unauthenticated_per_source",
        "rpc-actix/src/net/admission.rs",
        "l4_a_source_that_has_too_many_takes_from_itself_and_loopback_may_have_all",
    ),
    ("rpc.io.maxInFlight", "tests/tests/keys.rs", "the_most_calls_in_flight"),
    ("rpc.inbox.maxMessages", "tests/tests/bad_input.rs", "a_full_inbox"),
    ("rpc.inbox.maxBytes", "tests/tests/bad_input.rs", "an_inbox_with_too_many_bytes"),
    ("rpc.outbox.maxMessages", "tests/tests/bad_input.rs", "a_full_outbox"),
    ("rpc.outbox.maxBytes", "tests/tests/bad_input.rs", "an_outbox_with_too_many_bytes"),
    ("rpc.outbox.maxControl", "tests/tests/keys.rs", "the_most_control_frames"),
    ("rpc.io.maxPings", "tests/tests/keys.rs", "the_most_pings"),
    (
        "rpc.outbox.maxWaiting",
        "tests/tests/bad_input.rs",
        "too_many_that_wait_for_room_in_an_inbox",
    ),
    ("rpc.dispatcher.yieldAfter", "tests/tests/keys.rs", "turns_of_an_endpoint"),
    (
        "rpc.dispatcher.blockedAfter",
        "tests/tests/watchdog.rs",
        "a_handler_that_blocks_its_thread_is_named_and_counted",
    ),
    ("rpc.dispatcher.maxWatches", "tests/tests/watch.rs", "watches_have_a_limit"),
    ("rpc.dispatcher.maxTurn", "tests/tests/keys.rs", "the_longest_turn_of_an_endpoint"),
    (
        "rpc.io.maxAssembly",
        "tests/tests/hostile_peer.rs",
        "r15_large_bodies_announced_over_the_budget",
    ),
    (
        "rpc.outbox.maxWaitingBytes",
        "tests/tests/bad_input.rs",
        "too_many_bytes_that_wait_for_room_in_an_inbox",
    ),
    (
        "with_outbox_max_reply_bytes",
        "rpc-core/src/proto/tests/budgets.rs",
        "replies_that_wait_have_a_limit_in_bytes",
    ),
    ("rpc.io.busyPoll", "tests/tests/keys.rs", "the_thread_of_a_busy_connection_does_not_sleep"),
    (
        "rpc.io.socketBuffer",
        "tests/tests/conformance/connections.rs",
        "the_buffers_of_sockets_are_limited_on_both_sides",
    ),
    ("rpc.io.writeStall", "tests/tests/keys.rs", "a_peer_that_takes_nothing"),
    ("rpc.io.frameTimeout", "tests/src/badpeer/times.rs", "frames"),
    (
        "rpc.io.heartbeat",
        "tests/tests/connections.rs",
        "r56_a_blocked_arbiter_still_gives_signs_of_life",
    ),
    (
        "rpc.io.deadAfter",
        "tests/tests/connections.rs",
        "r61_a_peer_that_breaks_its_promise_to_be_heard_is_gone",
    ),
    (
        "rpc.io.reconnectMin",
        "tests/tests/conformance/connections.rs",
        "s111_s118_a_try_after_a_failure_waits",
    ),
    ("rpc.io.reconnectMax", "tests/tests/keys.rs", "the_longest_wait_between_tries"),
    (
        "rpc.actix.arbiters",
        "tests/tests/conformance/threading.rs",
        "s59_s60_s62_s63_shared_arbiters_and_arbiters_of_ones_own",
    ),
    ("rpc.actix.mode", "tests/tests/bridge.rs", "inline_scenario"),
];

/// The text of a function, up to the line that ends it.
fn body<'a>(text: &'a str, function: &str) -> Option<&'a str> {
    let start = text.find(&format!("fn {function}("))?;
    let line = text[..start].rfind('\n').map_or(0, |at| at + 1);
    let indent = text[line..].len() - text[line..].trim_start().len();
    let end = format!("\n{}}}\n", " ".repeat(indent));
    let length = text[start..].find(&end)?;
    Some(&text[start..start + length])
}

#[test]
fn every_key_has_a_test_of_its_effect() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let setter = |key: &str| key.starts_with("with_");
    for (key, file, test) in EFFECTS {
        let text = fs::read_to_string(root.join(file)).unwrap();
        let body = body(&text, test).unwrap_or_else(|| panic!("{file} has no {test}"));
        // Its setting may be in a constant or a helper of the file.
        let is_set = body.contains(&format!("\"{key}\"")) || setter(key) && text.contains(key);
        assert!(is_set, "{test} in {file} does not set {key}");
    }
    let shown: BTreeSet<_> = EFFECTS
        .iter()
        .map(|(key, ..)| match *key {
            "with_max_unauthenticated_per_source" => "rpc.io.maxUnauthenticatedPerSource",
            "with_outbox_max_reply_bytes" => "rpc.outbox.maxReplyBytes",
            key => key,
        })
        .collect();
    let known: BTreeSet<_> = RpcEnvConfig::known_keys().map(|key| key.name).collect();
    assert_eq!(shown, known, "keys without a test, or tests without a key");
    assert_eq!(shown.len(), EFFECTS.len(), "one test for each key");
}

async fn server(key: &str, value: &str) -> (RpcEnv, String) {
    let config = RpcEnvConfig::server("server", "127.0.0.1:0").set(key, value).unwrap();
    let env = rpc_actix::create(config).await.unwrap();
    let address = env.address().unwrap().to_string();
    (env, address)
}

/// Connected, and heard.
fn greeted(address: &str, number: u64) -> RawPeer {
    let mut peer = RawPeer::connect(address);
    peer.say(&hello(number, None));
    peer.expect(kind::HELLO);
    peer
}

#[tokio::test]
async fn name_bind_and_advertise() {
    let settings = [("rpc.name", "mine"), ("rpc.bind", "127.0.0.1:0")];
    let config = RpcEnvConfig::from_pairs(settings).unwrap();
    let config = config.set("rpc.advertise", "example.com").unwrap();
    let env = rpc_actix::create(config).await.unwrap();
    assert_eq!(env.name(), "mine");
    let address = env.address().unwrap().clone();
    assert_eq!(address.host(), "example.com");
    // It listens where it was told to, whatever it says of that.
    greeted(&format!("127.0.0.1:{}", address.port()), 5);
    env.shutdown().await;
}

#[tokio::test]
async fn the_greatest_frame() {
    let (env, address) = server("rpc.frame.maxSize", "32KiB").await;
    let mut peer = greeted(&address, 5);
    peer.send(&[0, 0, 0x80, 1, kind::ASK, 0, 0, 0]);
    let text = "a frame of 32769 bytes is over the limit of 32768 (rpc.frame.maxSize)";
    assert_eq!(peer.reason().unwrap().text, text);
    env.shutdown().await;
}

#[tokio::test]
async fn the_greatest_hello() {
    let (env, address) = server("rpc.io.preAuthBytes", "1KiB").await;
    let mut peer = RawPeer::connect(&address);
    peer.send(&[&b"ARPC"[..], &[0, 0, 4, 1, kind::HELLO, 0, 0, 0]].concat());
    let text = "a hello of 1025 bytes is over the limit of 1024 (rpc.io.preAuthBytes)";
    assert_eq!(peer.reason().unwrap().text, text);
    env.shutdown().await;
}

#[tokio::test]
async fn the_most_without_a_hello() {
    let (env, address) = server("rpc.io.maxUnauthenticated", "1").await;
    let mut first = RawPeer::connect(&address);
    let mut second = RawPeer::connect(&address);
    assert!(first.frame().is_none(), "it gives way");
    second.say(&hello(5, None));
    second.expect(kind::HELLO);
    env.shutdown().await;
}

#[tokio::test]
async fn depth_and_elements_of_a_message() {
    let (env, _) = server("rpc.message.maxDepth", "2").await;
    let error = env.decode::<Vec<Vec<Vec<u8>>>>(b"\x91\x91\x90").unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Decode);
    let text = "nested 3 deep, the limit is 2 (rpc.message.maxDepth)";
    assert!(error.text().contains(text), "{error}");
    assert_eq!(env.decode::<Vec<Vec<u8>>>(b"\x91\x90").unwrap(), [[0_u8; 0]]);
    env.shutdown().await;

    let (env, _) = server("rpc.message.maxElements", "3").await;
    let error = env.decode::<Vec<u8>>(b"\x94\x01\x02\x03\x04").unwrap_err();
    let text = "has 4 elements, the limit is 3 (rpc.message.maxElements";
    assert!(error.text().contains(text), "{error}");
    assert_eq!(env.decode::<Vec<u8>>(b"\x93\x01\x02\x03").unwrap(), [1, 2, 3]);
    env.shutdown().await;
}

#[tokio::test]
async fn the_most_control_frames() {
    let (env, address) = server("rpc.outbox.maxControl", "8").await;
    let mut peer = greeted(&address, 5);
    // More than it answers at a time; it may get to write in between.
    peer.send(&frame(kind::PING, &[0; 8]).repeat(3000));
    let text = "more than 8 pings wait for their answer (rpc.outbox.maxControl)";
    assert_eq!(peer.reason().unwrap().text, text);
    env.shutdown().await;
}

#[tokio::test]
async fn the_most_pings() {
    let (env, address) = server("rpc.io.maxPings", "8").await;
    let mut peer = greeted(&address, 5);
    // Each is answered before the next one.
    let answered = (0..100).take_while(|_| {
        peer.send(&frame(kind::PING, &[0; 8]));
        peer.frame().is_some_and(|frame| frame.kind == kind::PONG)
    });
    // One more for each quarter of a second that this takes.
    assert!((8..50).contains(&answered.count()));
    env.shutdown().await;
}

#[tokio::test]
async fn the_most_calls_in_flight() {
    let (env, address) = server("rpc.io.maxInFlight", "2").await;
    let watch = ProbeWatch::default();
    env.setup_endpoint("p", Probe::new(&watch)).await.unwrap();
    let mut peer = greeted(&address, 5);
    peer.send(&frame(kind::RESOLVE, &[&0_u32.to_be_bytes()[..], b"\x81\xa4name\xa1p"].concat()));
    peer.expect(kind::RESOLVED);
    let target = [0; 4];
    let ask = |slot: u64| {
        let fields = [&slot.to_be_bytes()[..], &target, &10_000_u32.to_be_bytes()];
        frame(kind::ASK, &[&fields.concat()[..], b"\xa1x"].concat())
    };
    peer.send(&ask(2));
    let text = "call 0x2 is in slot 2, but 2 calls may be in flight (rpc.io.maxInFlight)";
    assert_eq!(peer.reason().unwrap().text, text);
    env.shutdown().await;
}

#[test]
fn turns_of_an_endpoint() {
    for (after, order) in [("1", [1, 11, 2, 12, 3, 13]), ("64", [1, 2, 3, 11, 12, 13])] {
        let world = LocalWorld::new();
        let config = RpcEnvConfig::client("env").with_factory("local");
        let config = config.set("rpc.dispatcher.yieldAfter", after).unwrap();
        let env = world.block_on(world.factory().create(config)).unwrap();
        let watch = ProbeWatch::default();
        let mut refs = Vec::new();
        for name in ["a", "b"] {
            refs.push(world.block_on(env.setup_endpoint(name, Probe::new(&watch))).unwrap());
        }
        world.run();
        watch.log.take().clear();
        for (endpoint, first) in refs.iter().zip([1, 11]) {
            (first..first + 3).for_each(|number| endpoint.send(Note(number)).unwrap());
        }
        world.run();
        assert_eq!(watch.log.all(), order.map(|number| format!("note {number}")), "{after}");
        world.block_on(env.shutdown());
    }
}

/// The clock stands still while endpoints run: a turn ends at its second look at the time, or by its
/// number of messages. It is looked at after every fourth one-way message, and before each ask.
#[test]
fn the_longest_turn_of_an_endpoint() {
    for (longest, asks, place) in
        [("0s", false, 8), ("1ms", false, 12), ("0s", true, 1), ("1ms", true, 12)]
    {
        let world = LocalWorld::new();
        let config = RpcEnvConfig::client("env").with_factory("local");
        let config = config.set("rpc.dispatcher.maxTurn", longest).unwrap();
        let env = world.block_on(world.factory().create(config)).unwrap();
        let watch = ProbeWatch::default();
        let [a, b] = ["a", "b"]
            .map(|name| world.block_on(env.setup_endpoint(name, Probe::new(&watch))).unwrap());
        world.run();
        watch.log.take().clear();
        let send = |number| a.send(Note(number)).unwrap();
        let ask = |_| a.ask(Echo::of("x"));
        let asked: Vec<_> = (1..=if asks { 12 } else { 0 }).map(ask).collect();
        (1..=if asks { 0 } else { 12 }).for_each(send);
        b.send(Note(100)).unwrap();
        world.run();
        let others = watch.log.all().iter().position(|entry| entry == "note 100");
        assert_eq!(others, Some(place), "{longest}, asks: {asks}");
        drop(asked);
        world.block_on(env.shutdown());
    }
}

#[tokio::test]
async fn a_peer_that_takes_nothing() {
    let (env, _) = server("rpc.io.writeStall", "50ms").await;
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let there = listener.local_addr().unwrap().to_string();
    let uri = format!("rpc://far@{there}");
    let peer = tokio::task::spawn_blocking(move || {
        let mut peer = RawPeer::accept(&listener);
        peer.expect(kind::HELLO);
        peer.say(&hello(7, Some(&listener.local_addr().unwrap().to_string())));
        let target = peer.expect(kind::RESOLVE).payload;
        let target = u32::from_be_bytes(target[..4].try_into().unwrap());
        peer.send(&resolved(target, &["Echo"], 100));
        peer
    });
    let far: RpcEndpointRef<Untyped> = env.endpoint_ref(&uri).await.unwrap();
    let mut peer = peer.await.unwrap();
    // More than the buffers of both sockets take.
    let error = far.ask(Echo("x".repeat(15 << 20))).await.unwrap_err();
    let why = "nothing was read at the other end for 50ms (rpc.io.writeStall)";
    assert_eq!(error.text(), format!("the connection to {there} was closed: {why}"));
    assert_eq!(error.kind(), ErrorKind::Disconnected);
    while peer.frame().is_some() {}
    env.shutdown().await;
}

/// The first wait is random below a day, or below five seconds by default: only the key makes all
/// of them short.
#[tokio::test]
async fn the_longest_wait_between_tries() {
    let (gone, _) = server("rpc.name", "gone").await;
    let watch = ProbeWatch::default();
    let probe = gone.setup_endpoint("probe", Probe::new(&watch)).await.unwrap();
    let settings = [("rpc.io.reconnectMin", "24h"), ("rpc.io.reconnectMax", "1ms")];
    let config = RpcEnvConfig::client("client").set_all(settings).unwrap();
    let env = rpc_actix::create(config.set("rpc.askTimeout", "1s").unwrap()).await.unwrap();
    let probe: RpcEndpointRef<Probe> = env.decode(&gone.encode(&probe).unwrap()).unwrap();
    gone.shutdown().await;
    for _ in 0..8 {
        let error = probe.ask(Echo::of("x")).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unreachable, "{error}");
    }
    env.shutdown().await;
}

/// How often the thread of two envs sleeps while a timer of a tenth of a second runs, after an ask.
fn naps(key: &'static str, value: &'static str) -> usize {
    let naps = Arc::new(AtomicUsize::new(0));
    let counter = naps.clone();
    let mut runtime = tokio::runtime::Builder::new_current_thread();
    runtime.enable_all().on_thread_park(move || _ = counter.fetch_add(1, Ordering::Relaxed));
    let config = |config: RpcEnvConfig| {
        let config = config.set("rpc.actix.mode", "inline").unwrap();
        config.set(key, value).unwrap()
    };
    tokio::task::LocalSet::new().block_on(&runtime.build().unwrap(), async move {
        let server = config(RpcEnvConfig::server("server", "127.0.0.1:0"));
        let server = rpc_actix::create(server).await.unwrap();
        let here =
            server.setup_endpoint("probe", Probe::new(&ProbeWatch::default())).await.unwrap();
        let client = rpc_actix::create(config(RpcEnvConfig::client("client"))).await.unwrap();
        let uri = here.endpoint_address().to_string();
        let probe = client.endpoint_ref::<Probe>(&uri).await.unwrap();
        probe.ask(Echo::of("hello")).await.unwrap();
        let before = naps.load(Ordering::Relaxed);
        tokio::time::sleep(Duration::from_millis(100)).await;
        let naps = naps.load(Ordering::Relaxed) - before;
        client.shutdown().await;
        server.shutdown().await;
        naps
    })
}

#[test]
fn the_thread_of_a_busy_connection_does_not_sleep() {
    assert!(naps("rpc.io.busyPoll", "0s") > 0);
    assert_eq!(naps("rpc.io.busyPoll", "1h"), 0);
}
