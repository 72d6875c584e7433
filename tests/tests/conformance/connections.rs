//! Connections and what waits for them: S105-S118. More is in `tests/connections.rs`, with peers
//! that are made by hand.

use super::dials::{Dial, Dials};
use rpc_core::proto::{Hello, Hellos, PeerLimits, Session, Vital};
use rpc_core::{
    ErrorKind, Limits, Outcome, RpcEndpointRef, RpcEnv, RpcEnvConfig, RpcError, Timestamp,
};
use rpc_tests::harness::{Echo, Gate, Harness, Hold, Note, Probe, Relay};
use rpc_tests::raw_peer::{RawPeer, hello, kind, resolved};
use std::collections::VecDeque;
use std::future::poll_fn;
use std::io;
use std::net::TcpListener;
use std::sync::mpsc;
use std::task::Poll;
use std::thread;
use std::time::Duration;

/// A ref of that env to an endpoint of another one, without a lookup, which would connect.
fn handed_to(
    env: &RpcEnv,
    from: &RpcEnv,
    endpoint: &RpcEndpointRef<Probe>,
) -> Result<RpcEndpointRef<Probe>, RpcError> {
    env.decode(&from.encode(endpoint)?)
}

/// A client whose tries follow each other at once.
fn quick(name: &str) -> anyhow::Result<RpcEnvConfig> {
    let quick = [("rpc.io.reconnectMin", "1ms"), ("rpc.io.reconnectMax", "1ms")];
    Ok(RpcEnvConfig::client(name).set_all(quick)?)
}

async fn s105_s106_the_first_message_connects_and_nobody_waits_for_that(
    h: &Harness,
) -> anyhow::Result<()> {
    let server = h.server("server").await?;
    let (watch, local) = Probe::at(&server, "p").await?;
    let gate = Gate::default();
    let open = gate.clone();
    let dials = Dials::new(move |_| Dial::Waits(open.clone()));
    let client = dials.env(RpcEnvConfig::client("client")).await?;
    let remote = handed_to(&client, &server, &local)?;
    // Time for a dial that should not be.
    let other = h.client("other").await?.endpoint_ref::<Probe>(&local.to_string()).await?;
    assert_eq!(other.ask(Echo::of("other")).await?, "other");
    watch.log.take().clear();
    watch.log.push("start");
    assert!(dials.log.is_empty(), "a ref alone connects nothing");
    // A hundred messages are taken while there is no connection.
    remote.send(Note(0))?;
    dials.log.reaches(1).await;
    let mut asks: Vec<_> = (0..50).map(|n| remote.ask(Echo(n.to_string()))).collect();
    for ask in &mut asks {
        let now = poll_fn(|cx| Poll::Ready(std::pin::Pin::new(&mut *ask).poll(cx))).await;
        assert!(now.is_pending());
    }
    for n in 1..50 {
        remote.send(Note(n))?;
    }
    assert_eq!(watch.log.all(), ["start"]);
    gate.open();
    for (n, ask) in asks.into_iter().enumerate() {
        assert_eq!(ask.await?, n.to_string());
    }
    let entry = |n: u64| if n == 0 { "start".into() } else { format!("note {}", n - 1) };
    let seen = watch.log.reaches(51 + 50).await;
    let notes: Vec<_> = seen.iter().filter(|entry| !entry.starts_with("echo")).cloned().collect();
    assert_eq!(notes, (0..51).map(entry).collect::<Vec<_>>());
    let echoes: Vec<_> = seen.iter().filter(|entry| entry.starts_with("echo")).cloned().collect();
    assert_eq!(echoes, (0..50).map(|n| format!("echo {n}")).collect::<Vec<_>>());
    assert_eq!(seen[2], "echo 0", "sends and asks are in one order: {seen:?}");
    assert_eq!(dials.log.len(), 1);
    client.shutdown().await;
    Ok(())
}

async fn s107_s117_one_connection_for_each_peer(h: &Harness) -> anyhow::Result<()> {
    let (one, two) = (h.server("one").await?, h.server("two").await?);
    let dials = Dials::all_connect();
    let client = dials.env(quick("client")?).await?;
    let mut refs = Vec::new();
    for server in [&one, &two] {
        for name in ["a", "b"] {
            refs.push(handed_to(&client, server, &Probe::at(server, name).await?.1)?);
        }
    }
    // Different servers, different connections; everything to one server goes over the same.
    let asks: Vec<_> = (0..100).map(|n| refs[n % refs.len()].ask(Echo(n.to_string()))).collect();
    for (n, ask) in asks.into_iter().enumerate() {
        assert_eq!(ask.await?, n.to_string());
    }
    let address = |env: &RpcEnv| env.address().expect("listens").to_string();
    let mut dialled = dials.log.all();
    dialled.sort();
    let mut expected = [address(&one), address(&two)];
    expected.sort();
    assert_eq!(dialled, expected);
    // One that has ended is never used again.
    let there = address(&one);
    one.shutdown().await;
    let successor = h.create(RpcEnvConfig::server("successor", &there)).await?;
    let (_, local) = Probe::at(&successor, "c").await?;
    let again = handed_to(&client, &successor, &local)?;
    loop {
        // The goodbye of the one before may still be on its way.
        match again.ask(Echo::of("again")).await {
            Ok(answer) => break assert_eq!(answer, "again"),
            Err(error) => assert!(error.is_disconnected() || error.is_stopped(), "{error:?}"),
        }
    }
    assert!(dials.log.len() >= 3 && dials.log.all()[2..].iter().all(|to| *to == there));
    client.shutdown().await;
    Ok(())
}

async fn s108_a_ref_from_a_peer_leads_back_over_the_same_connection(
    _: &Harness,
) -> anyhow::Result<()> {
    let (here, there) = (Dials::all_connect(), Dials::all_connect());
    let first = here.env(RpcEnvConfig::server("first", "127.0.0.1:0")).await?;
    let second = there.env(RpcEnvConfig::server("second", "127.0.0.1:0")).await?;
    let client = Dials::all_connect().env(RpcEnvConfig::client("client")).await?;
    let (_, relay) = Probe::at(&second, "relay").await?;
    for env in [&first, &client] {
        let (_, to) = Probe::at(env, "mine").await?;
        let far: RpcEndpointRef<Probe> = env.endpoint_ref(&relay.to_string()).await?;
        assert_eq!(far.ask(Relay { to, text: "back".into() }).await?, "back");
    }
    assert!(there.log.is_empty(), "the second env has dialled nobody");
    assert_eq!(here.log.len(), 1);
    for env in [client, first, second] {
        env.shutdown().await;
    }
    Ok(())
}

async fn s110_s111_s130_a_failed_connect_fails_what_waits_and_the_next_message_tries_again(
    h: &Harness,
) -> anyhow::Result<()> {
    let server = h.server("server").await?;
    let (watch, local) = Probe::at(&server, "p").await?;
    let (gate, refusal) = (Gate::default(), Gate::default());
    let (open, refuses) = (gate.clone(), refusal.clone());
    let dials = Dials::new(move |n| match n {
        0 => Dial::Waits(open.clone()),
        1 => Dial::FailsLater(io::ErrorKind::ConnectionRefused, refuses.clone()),
        _ => Dial::Connects,
    });
    let client = dials.env(quick("client")?).await?;
    let events = super::network::watch(&client).await?;
    let remote = handed_to(&client, &server, &local)?;
    let nowhere = handed_to(&client, &server, &local)?;
    // The first connection is one to another env, so that all the tries are of one transport.
    remote.send(Note(1))?;
    gate.open();
    watch.log.reaches(2).await;
    events.reaches(1).await;
    let other = h.server("other").await?;
    let (watch, local) = Probe::at(&other, "p").await?;
    let far = handed_to(&client, &other, &local)?;
    // Whatever is queued when it fails shares its fate: the note as well, without a word.
    far.send(Note(1))?;
    let ask = far.ask(Echo::of("x"));
    // Both wait for it now.
    let refused = async { refusal.open() };
    let error = tokio::join!(biased; ask, refused).0.unwrap_err();
    assert_eq!((error.kind(), error.outcome()), (ErrorKind::Unreachable, Outcome::NeverSent));
    let text = format!("Failed to connect to {}: connection refused", other.address().unwrap());
    assert_eq!(error.text(), text);
    // Nobody tries by itself.
    nowhere.ask(Echo::of("time passes")).await?;
    assert_eq!(dials.log.len(), 2);
    assert_eq!(far.ask(Echo::of("y")).await?, "y");
    far.send(Note(2))?;
    assert_eq!(watch.log.reaches(3).await, ["start", "echo y", "note 2"]);
    assert_eq!(dials.log.len(), 3);
    // And it was no event: these two connections were.
    let ups = [&server, &other].map(|env| format!("up {}", env.address().unwrap()));
    assert_eq!(events.reaches(2).await, ups);
    client.shutdown().await;
    Ok(())
}

async fn s111_s118_a_try_after_a_failure_waits(h: &Harness) -> anyhow::Result<()> {
    let server = h.server("server").await?;
    let (_, local) = Probe::at(&server, "p").await?;
    let dials = Dials::new(|n| match n {
        0 => Dial::Fails(io::ErrorKind::ConnectionRefused),
        _ => Dial::Connects,
    });
    let long = [("rpc.io.reconnectMin", "24h"), ("rpc.io.reconnectMax", "24h")];
    let client = dials.env(RpcEnvConfig::client("client").set_all(long)?).await?;
    let remote = handed_to(&client, &server, &local)?;
    assert!(remote.ask(Echo::of("x")).await.unwrap_err().is_unreachable());
    // Spark would fail at once; here the message waits for the next try, within its own time.
    // Longer than the first wait is by default.
    let error = remote.ask_with_timeout(Echo::of("y"), Duration::from_millis(100)).await;
    let error = error.unwrap_err();
    assert!(error.is_timeout() && error.is_never_sent(), "{error:?}");
    assert_eq!(dials.log.len(), 1);
    client.shutdown().await;
    Ok(())
}

async fn s112_what_waits_for_a_connection_ends_with_the_env(h: &Harness) -> anyhow::Result<()> {
    let server = h.server("server").await?;
    let (watch, local) = Probe::at(&server, "p").await?;
    let dials = Dials::new(|_| Dial::Never);
    let client = dials.env(RpcEnvConfig::client("client")).await?;
    let remote = handed_to(&client, &server, &local)?;
    remote.send(Note(1))?;
    let ask = remote.ask(Echo::of("x"));
    dials.log.reaches(1).await;
    client.shutdown().await;
    let error = ask.await.unwrap_err();
    assert_eq!((error.kind(), error.outcome()), (ErrorKind::EnvStopped, Outcome::NeverSent));
    assert_eq!(error.text(), "RpcEnv has been stopped");
    assert_eq!(watch.log.all(), ["start"]);
    Ok(())
}

async fn s116_connecting_has_its_own_time(h: &Harness) -> anyhow::Result<()> {
    let server = h.server("server").await?;
    let (_, local) = Probe::at(&server, "p").await?;
    let dials = Dials::new(|_| Dial::Never);
    let config = quick("client")?.set("rpc.io.connectTimeout", "20ms")?;
    let client = dials.env(config).await?;
    let error = handed_to(&client, &server, &local)?.ask(Echo::of("x")).await.unwrap_err();
    assert_eq!((error.kind(), error.outcome()), (ErrorKind::Unreachable, Outcome::NeverSent));
    let text = format!(
        "Failed to connect to {}: timed out after 20ms (rpc.io.connectTimeout)",
        server.address().unwrap()
    );
    assert_eq!(error.text(), text);
    client.shutdown().await;
    for no_end in ["0s", "-1s", "25h"] {
        let set = RpcEnvConfig::client("c").set("rpc.io.connectTimeout", no_end);
        assert_eq!(set.unwrap_err().kind(), ErrorKind::InvalidConfig);
    }
    Ok(())
}

async fn s119_a_name_is_resolved_for_each_connection(h: &Harness) -> anyhow::Result<()> {
    let dials = Dials::all_connect();
    let client = dials.env(quick("client")?).await?;
    let server = h.server("first").await?;
    let port = server.address().expect("listens").port();
    let (_, _local) = Probe::at(&server, "p").await?;
    let uri = format!("rpc://p@localhost:{port}");
    let remote: RpcEndpointRef<Probe> = client.endpoint_ref(&uri).await?;
    server.shutdown().await;
    let again = h.create(RpcEnvConfig::server("second", format!("127.0.0.1:{port}"))).await?;
    let (_, _local) = Probe::at(&again, "p").await?;
    while remote.ask(Echo::of("x")).await.is_err() {}
    // Each time the transport was given the name, and not what it had once meant.
    let dialled = dials.log.all();
    assert!(dialled.len() >= 2, "{dialled:?}");
    assert!(dialled.iter().all(|to| *to == format!("localhost:{port}")), "{dialled:?}");
    client.shutdown().await;
    Ok(())
}

async fn s113_a_call_under_way_ends_with_its_connection(h: &Harness) -> anyhow::Result<()> {
    let pair = h.pair().await?;
    let (watch, [_, remote]) = pair.probe_both_ways("p").await?;
    let (_, back) = Probe::at(&pair.client, "back").await?;
    let back: RpcEndpointRef<Probe> = pair.server.decode(&pair.client.encode(&back)?)?;
    assert_eq!(back.ask(Echo::of("x")).await?, "x");
    // The client goes while the server's own call to it is being handled there.
    let (theirs, held) = Probe::at(&pair.client, "held").await?;
    let held: RpcEndpointRef<Probe> = pair.server.decode(&pair.client.encode(&held)?)?;
    let under_way = held.ask(Hold(1));
    let call = theirs.held.next().await;
    pair.client.shutdown().await;
    let error = under_way.await.unwrap_err();
    assert!(!error.is_timeout() && error.outcome() == Outcome::Unknown, "{error:?}");
    drop((call, watch, remote));
    Ok(())
}

/// The first peer takes three and goes; its successor gets the rest, each once and in order.
async fn numbered_messages_across_a_reconnect(_: &Harness) -> anyhow::Result<()> {
    let client = Dials::all_connect().env(quick("client")?).await?;
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let there = listener.local_addr()?.to_string();
    let uri = format!("rpc://p@{there}");
    let (sent, all_sent) = mpsc::channel();
    let peers = thread::spawn(move || {
        let numbers = |credit: u64, count: usize, wait: bool| {
            let mut peer = RawPeer::accept(&listener);
            peer.expect(kind::HELLO);
            peer.say(&hello(u64::MAX, Some(&there)));
            let resolve = peer.expect(kind::RESOLVE).payload;
            let target = u32::from_be_bytes(resolve[..4].try_into().unwrap());
            peer.send(&resolved(target, &["Note"], credit));
            let next = |_| peer.expect(kind::ONE_WAY).payload[4];
            let numbers: Vec<u8> = (0..count).map(next).collect();
            if wait {
                all_sent.recv().unwrap();
            }
            numbers
        };
        (numbers(3, 3, true), numbers(1000, 97, false))
    });
    let remote: RpcEndpointRef<Probe> = client.endpoint_ref(&uri).await?;
    for number in 0..100 {
        remote.send(Note(number))?;
    }
    sent.send(())?;
    let (first, second) = peers.join().expect("no panic");
    assert_eq!([first, second].concat(), (0..100).collect::<Vec<u8>>());
    client.shutdown().await;
    Ok(())
}

/// What `accept` may say, by the numbers of Linux; the first four are a lack of something.
const ACCEPT_ERRORS: [(i32, &str); 13] = [
    (24, "EMFILE"),
    (23, "ENFILE"),
    (105, "ENOBUFS"),
    (12, "ENOMEM"),
    (103, "ECONNABORTED"),
    (71, "EPROTO"),
    (1, "EPERM"),
    (4, "EINTR"),
    (104, "ECONNRESET"),
    (100, "ENETDOWN"),
    (101, "ENETUNREACH"),
    (113, "EHOSTUNREACH"),
    (22, "EINVAL"),
];

/// R7: no error of `accept` ends the listener.
async fn every_error_of_accept_is_outlived(h: &Harness) -> anyhow::Result<()> {
    let failing = Dials::all_connect().accepts_after(ACCEPT_ERRORS.map(|(errno, _)| errno));
    let server = failing.env(h.server_config("server")).await?;
    let (_watch, local) = Probe::at(&server, "probe").await?;
    let client = h.client("client").await?;
    let probe = client.endpoint_ref::<Probe>(&local.endpoint_address().to_string()).await?;
    assert_eq!(probe.ask(Echo::of("x")).await?, "x");
    let counters = server.counters();
    assert_eq!(counters.accept_errors, ACCEPT_ERRORS.len() as u64);
    assert_eq!((counters.connections_accepted, counters.connections_opened), (1, 1));
    client.shutdown().await;
    server.shutdown().await;
    Ok(())
}

async fn the_buffers_of_sockets_are_limited_on_both_sides(_: &Harness) -> anyhow::Result<()> {
    for (set, limits) in [("96KiB", vec![96 << 10]), ("0", vec![])] {
        let (here, there) = (Dials::all_connect(), Dials::all_connect());
        let key = "rpc.io.socketBuffer";
        let config = RpcEnvConfig::server("server", "127.0.0.1:0").set(key, set)?;
        let server = there.env(config).await?;
        let client = here.env(RpcEnvConfig::client("client").set(key, set)?).await?;
        let (_, local) = Probe::at(&server, "p").await?;
        let remote: RpcEndpointRef<Probe> = client.endpoint_ref(&local.to_string()).await?;
        assert_eq!(remote.ask(Echo::of("x")).await?, "x");
        assert_eq!((here.buffers.all(), there.buffers.all()), (limits.clone(), limits));
        client.shutdown().await;
        server.shutdown().await;
    }
    Ok(())
}

rpc_tests::both! {
    s113_a_call_under_way_ends_with_its_connection,
}

rpc_tests::actix_only! {
    numbered_messages_across_a_reconnect,
    the_buffers_of_sockets_are_limited_on_both_sides,
    every_error_of_accept_is_outlived,
    s105_s106_the_first_message_connects_and_nobody_waits_for_that,
    s107_s117_one_connection_for_each_peer,
    s108_a_ref_from_a_peer_leads_back_over_the_same_connection,
    s110_s111_s130_a_failed_connect_fails_what_waits_and_the_next_message_tries_again,
    s111_s118_a_try_after_a_failure_waits,
    s112_what_waits_for_a_connection_ends_with_the_env,
    s116_connecting_has_its_own_time,
    s119_a_name_is_resolved_for_each_connection,
}

/// A connection in virtual time: a peer that gives signs of life is kept for ever, with calls
/// open or without, and one that does not is gone after `rpc.io.deadAfter`.
#[test]
fn s114_s115_a_connection_lives_as_long_as_its_peer_is_heard() {
    let limits = Limits::default();
    let hello = |env| {
        let hello = Hello::new(env, None, PeerLimits::default());
        hello.with_heartbeat(limits.heartbeat())
    };
    let session = |own, peer| {
        let mut bytes = bytes::BytesMut::new();
        hello(peer).put(&mut bytes);
        let info = Hellos::new(hello(own), 65_536).receive(&mut bytes).unwrap().unwrap();
        let mut session = Session::new(limits.clone(), "peer");
        session.attach(Timestamp::START, info);
        session
    };
    let (mut one, mut two) = (session(1, 2), session(2, 1));
    let mut now = Timestamp::START;
    for _ in 0..3600 {
        now = now + Duration::from_secs(1);
        // Each has said nothing for a second, and says that it is there.
        for _ in 0..2 {
            assert_eq!((one.look(now), one.is_quiet(now)), (Vital::Fine, true));
            one.heartbeat();
            let mut out = VecDeque::new();
            one.transmit(|| now, usize::MAX, &mut out);
            let mut bytes: bytes::BytesMut = out.into_iter().flatten().collect();
            two.receive(now, &mut bytes, &mut Vec::new()).unwrap();
            std::mem::swap(&mut one, &mut two);
        }
    }
    let still = now + (limits.dead_after() - Duration::from_millis(1));
    assert_eq!(one.look(still), Vital::Fine);
    assert_eq!(one.look(now + limits.dead_after()), Vital::Silent);
}
