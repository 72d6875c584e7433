//! Refs, send and ask: S68-S85.

use super::registry::silent_port;
use rpc_core::{
    EndpointContext, ErrorKind, HandlerResult, Outcome, RpcEndpointRef, RpcMessage, endpoint,
};
use rpc_tests::harness::{Echo, Harness, Hold, Log, Me, Note, Probe, Relay, Wait, Who, block_on};
use serde::{Deserialize, Serialize, Serializer};
use std::collections::HashSet;
use std::thread;
use std::time::Duration;

async fn s68_a_ref_has_a_name_and_an_address(h: &Harness) -> anyhow::Result<()> {
    let pair = h.pair().await?;
    let (_, refs) = pair.probe_both_ways("p").await?;
    for endpoint in refs {
        assert_eq!(endpoint.name().as_str(), "p");
        assert_eq!(endpoint.address(), pair.server.address());
        assert_eq!(endpoint.to_string(), format!("rpc://p@{}", pair.server.address().unwrap()));
    }
    let (_, mine) = Probe::at(&pair.client, "mine").await?;
    assert_eq!(mine.address(), None);
    assert_eq!(mine.to_string(), format!("rpc-client://mine@{}", pair.client.id()));
    Ok(())
}

async fn s69_send_is_one_way_here_and_there(h: &Harness) -> anyhow::Result<()> {
    let pair = h.pair().await?;
    let (watch, [local, remote]) = pair.probe_both_ways("p").await?;
    local.send(Note(1))?;
    watch.log.reaches(2).await;
    remote.send(Note(2))?;
    assert_eq!(watch.log.reaches(3).await, ["start", "note 1", "note 2"]);
    Ok(())
}

/// An ask without a value, and with one.
#[derive(Debug, Serialize, Deserialize, RpcMessage)]
#[rpc(reply = Option<String>)]
struct Maybe(Option<String>);

/// Answers with what it got.
struct Mirror;

#[endpoint]
impl Mirror {
    #[receive_and_reply]
    fn maybe(&mut self, msg: Maybe) -> HandlerResult<Option<String>> {
        Ok(msg.0)
    }
}

async fn s70_s139_an_absent_value_is_a_value(h: &Harness) -> anyhow::Result<()> {
    // There is no null message to refuse; what may be absent says so in its type.
    let pair = h.pair().await?;
    let local = pair.server.setup_endpoint("mirror", Mirror).await?;
    for mirror in [pair.from_client(&local).await?, local] {
        assert_eq!(mirror.ask(Maybe(None)).await?, None);
        assert_eq!(mirror.ask(Maybe(Some("x".into()))).await?.as_deref(), Some("x"));
    }
    Ok(())
}

async fn s71_ask_answers_within_the_default_or_a_given_time(h: &Harness) -> anyhow::Result<()> {
    let pair = h.pair().await?;
    let (watch, refs) = pair.probe_both_ways("p").await?;
    for endpoint in refs {
        assert_eq!(endpoint.ask(Echo::of("hello")).await?, "hello");
        let given = endpoint.ask_with_timeout(Echo::of("given"), Duration::from_secs(60));
        assert_eq!(given.await?, "given");
        let error =
            endpoint.ask_with_timeout(Hold(1), Duration::from_millis(20)).await.unwrap_err();
        assert!(error.is_timeout(), "{error:?}");
        assert!(
            error.text().ends_with("in 20ms. This timeout is controlled by the caller"),
            "{error}"
        );
    }
    drop(watch);
    Ok(())
}

/// An ask: its handler asks `to`, blocking its thread.
#[derive(Debug, Serialize, Deserialize, RpcMessage)]
#[rpc(reply = String)]
struct BlockOn {
    to: RpcEndpointRef<Probe>,
}

/// Blocks where it must not.
struct Blocker;

#[endpoint]
impl Blocker {
    #[receive_and_reply]
    fn block(&mut self, msg: BlockOn) -> HandlerResult<String> {
        let error = msg.to.ask_blocking(Echo::of("x")).unwrap_err();
        Ok(format!("{:?}: {error}", error.kind()))
    }
}

async fn s72_a_blocking_ask_in_a_handler_is_refused(h: &Harness) -> anyhow::Result<()> {
    let pair = h.pair().await?;
    let (watch, [local, remote]) = pair.probe_both_ways("p").await?;
    let blocker = pair.server.setup_endpoint("blocker", Blocker).await?;
    let mine = pair.client.setup_endpoint("blocker", Blocker).await?;
    for refused in [blocker.ask(BlockOn { to: local }), mine.ask(BlockOn { to: remote })] {
        let text = refused.await?;
        assert!(text.starts_with("WouldBlockArbiter: a blocking ask of Echo to "), "{text}");
    }
    assert_eq!(watch.log.all(), ["start"], "nothing was sent");
    Ok(())
}

async fn s72_a_blocking_ask_waits_on_any_other_thread(h: &Harness) -> anyhow::Result<()> {
    let pair = h.pair().await?;
    let (_, refs) = pair.probe_both_ways("p").await?;
    for endpoint in refs {
        // This thread runs no endpoints of actix; that of a local world is driven by the ask.
        assert_eq!(endpoint.ask_blocking(Echo::of("x"))?, "x");
    }
    Ok(())
}

async fn s73_s102_an_aborted_or_dropped_ask_is_taken_back(h: &Harness) -> anyhow::Result<()> {
    let pair = h.pair().await?;
    let (watch, refs) = pair.probe_both_ways("p").await?;
    for endpoint in refs {
        let mut held = endpoint.ask(Hold(1));
        let call = watch.held.next().await;
        assert!(!call.is_cancelled());
        held.abort();
        let error = held.await.unwrap_err();
        assert!(error.is_cancelled(), "{error:?}");
        // Spark does not tell the callee; here it sees that nobody waits, before it sees anything
        // that was sent after.
        assert_eq!(endpoint.ask(Echo::of("after")).await?, "after");
        assert!(call.is_cancelled());
        call.cancelled().await;
        call.reply(1);
        let held = endpoint.ask(Hold(2));
        let call = watch.held.next().await;
        drop(held);
        assert_eq!(endpoint.ask(Echo::of("alive")).await?, "alive");
        assert!(call.is_cancelled());
    }
    Ok(())
}

async fn s73_an_ask_that_is_dropped_in_the_queue_is_not_handled(h: &Harness) -> anyhow::Result<()> {
    let pair = h.pair().await?;
    let (watch, [local, remote]) = pair.probe_both_ways("p").await?;
    let held = local.ask(Wait(0));
    watch.log.reaches(2).await;
    drop(local.ask(Echo::of("dropped")));
    drop(remote.ask(Echo::of("dropped")));
    let kept = [local.ask(Echo::of("kept")), remote.ask(Echo::of("kept"))];
    // What the client has taken back reaches the server before what it sends now.
    let (_, other) = pair.probe("other").await?;
    assert_eq!(pair.from_client(&other).await?.ask(Echo::of("later")).await?, "later");
    watch.gate.open();
    held.await?;
    for kept in kept {
        kept.await?;
    }
    let echoes: Vec<String> =
        watch.log.all().into_iter().filter(|entry| entry.starts_with("echo")).collect();
    assert_eq!(echoes, ["echo kept", "echo kept"]);
    Ok(())
}

async fn s74_s101_a_message_is_handled_at_most_once(h: &Harness) -> anyhow::Result<()> {
    let pair = h.pair().await?;
    let (watch, [local, remote]) = pair.probe_both_ways("p").await?;
    for number in 0..200 {
        remote.send(Note(number))?;
    }
    let (call, error) = watch.outlived(&remote, 1).await?;
    // It was sent, and never is again: whether to repeat it is the caller's to say.
    assert_eq!((error.kind(), error.outcome()), (ErrorKind::Timeout, Outcome::Unknown));
    let held = local.ask(Wait(0));
    watch.log.has(|entry| entry == "wait 0").await;
    let queued = local.ask_with_timeout(Echo::of("too late"), Duration::from_millis(20));
    let error = queued.await.unwrap_err();
    assert!(error.is_timeout() && error.is_never_sent(), "{error:?}");
    watch.gate.open();
    held.await?;
    assert_eq!(remote.ask(Echo::of("end")).await?, "end");
    let mut logged = watch.log.all();
    logged.sort();
    let all = logged.clone();
    logged.dedup();
    assert_eq!(logged, all, "nothing twice");
    assert_eq!(logged.iter().filter(|entry| entry.starts_with("note")).count(), 200);
    drop(call);
    assert!(!logged.iter().any(|entry| entry == "echo too late"));
    Ok(())
}

async fn s75_refs_are_used_from_any_thread(h: &Harness) -> anyhow::Result<()> {
    fn portable<T: Send + Sync + Clone + 'static>(_: &T) {}
    fn moves<T: Send>(value: T) -> T {
        value
    }
    let pair = h.pair().await?;
    let (watch, [local, remote]) = pair.probe_both_ways("p").await?;
    portable(&local);
    let ask = moves(remote.ask(Echo::of("elsewhere")));
    let waiter = thread::spawn(move || block_on(ask));
    let senders: Vec<_> = [local.clone(), remote.clone()]
        .into_iter()
        .map(|endpoint| thread::spawn(move || endpoint.send(Note(1))))
        .collect();
    for sender in senders {
        sender.join().expect("no panic")?;
    }
    assert_eq!(waiter.join().expect("no panic")?, "elsewhere");
    watch.log.reaches(4).await;
    Ok(())
}

#[expect(clippy::mutable_key_type, reason = "equality and hash go by the address, which is fixed")]
async fn s76_refs_are_equal_by_address(h: &Harness) -> anyhow::Result<()> {
    let pair = h.pair().await?;
    let (_, [local, remote]) = pair.probe_both_ways("p").await?;
    let (_, other) = pair.probe("other").await?;
    let other_env = h.server("server").await?;
    let (_, elsewhere) = Probe::at(&other_env, "p").await?;
    assert_eq!(local, remote);
    assert_ne!(local, other);
    assert_ne!(local, elsewhere);
    let set: HashSet<_> = [local.clone(), remote, other, elsewhere, local].into_iter().collect();
    assert_eq!(set.len(), 3);
    Ok(())
}

/// Can be moved, but not written.
#[derive(Debug, Deserialize, RpcMessage)]
#[rpc(reply = Unwritable)]
struct UnwritableAsk(Unwritable);

impl Serialize for UnwritableAsk {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.0.serialize(serializer)
    }
}

/// A value that cannot be written.
#[derive(Debug, Deserialize, PartialEq)]
struct Unwritable(u64);

impl Serialize for Unwritable {
    fn serialize<S: Serializer>(&self, _serializer: S) -> Result<S::Ok, S::Error> {
        Err(serde::ser::Error::custom("this stays here"))
    }
}

/// Hands values back.
struct Keeper;

#[endpoint]
impl Keeper {
    #[receive_and_reply]
    fn keep(&mut self, msg: UnwritableAsk) -> HandlerResult<Unwritable> {
        Ok(Unwritable(msg.0.0 + 1))
    }
}

async fn s77_in_one_env_values_are_moved_and_never_written(h: &Harness) -> anyhow::Result<()> {
    let env = h.server("m").await?;
    let endpoint = env.setup_endpoint("keeper", Keeper).await?;
    let by_name = env.endpoint_ref::<Keeper>(&endpoint.to_string()).await?;
    for endpoint in [endpoint, by_name] {
        assert_eq!(endpoint.ask(UnwritableAsk(Unwritable(1))).await?, Unwritable(2));
    }
    Ok(())
}

/// [`Echo`], expected to be answered with a number.
#[derive(Debug, Serialize, Deserialize, RpcMessage)]
#[rpc(reply = u64, name = "Echo")]
struct WrongReply(String);

async fn s78_a_reply_of_another_type_is_a_decode_error(h: &Harness) -> anyhow::Result<()> {
    let pair = h.pair().await?;
    let (_, refs) = pair.probe_both_ways("p").await?;
    for endpoint in refs {
        let untyped = endpoint.into_untyped();
        let error = untyped.ask(WrongReply("seven".into())).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Decode);
        assert!(error.is_codec());
        assert!(error.text().contains("u64"), "{error}");
    }
    Ok(())
}

async fn s79_a_name_without_an_endpoint_is_an_error_of_the_sender(
    h: &Harness,
) -> anyhow::Result<()> {
    let env = h.server("m").await?;
    let (_, endpoint) = Probe::at(&env, "p").await?;
    let by_name = env.endpoint_ref::<Probe>(&endpoint.to_string()).await?;
    env.stop(&endpoint)?;
    env.stopped(&endpoint).await?;
    for error in [by_name.send(Note(1)).unwrap_err(), by_name.ask(Echo::of("x")).await.unwrap_err()]
    {
        assert_eq!(error.kind(), ErrorKind::EndpointNotFound);
        assert_eq!(error.text(), "Could not find p.");
        assert!(error.is_never_sent());
    }
    // The one that is pinned to the life that is over says that.
    assert_eq!(endpoint.send(Note(1)).unwrap_err().kind(), ErrorKind::EndpointStopped);
    Ok(())
}

async fn s80_s136_refs_of_a_stopped_env_fail(h: &Harness) -> anyhow::Result<()> {
    let pair = h.pair().await?;
    let (_, [local, remote]) = pair.probe_both_ways("p").await?;
    let by_name = pair.server.endpoint_ref::<Probe>(&local.to_string()).await?;
    pair.client.shutdown().await;
    pair.server.shutdown().await;
    for endpoint in [by_name, local, remote] {
        // Spark only logs the send.
        let sent = endpoint.send(Note(1)).unwrap_err();
        let asked = endpoint.ask(Echo::of("x")).await.unwrap_err();
        assert!(sent.is_stopped() && asked.is_stopped(), "{sent:?} {asked:?}");
        assert!(sent.is_never_sent() && asked.is_never_sent());
    }
    Ok(())
}

async fn s81_s82_an_unknown_endpoint_of_a_peer(h: &Harness) -> anyhow::Result<()> {
    let pair = h.pair().await?;
    let (watch, [local, remote]) = pair.probe_both_ways("p").await?;
    let (gone, doomed) = pair.probe("doomed").await?;
    let by_name = pair.from_client(&doomed).await?;
    pair.server.stop(&doomed)?;
    pair.server.stopped(&doomed).await?;
    // A one-way message is lost, or refused where the sender knows already; nothing else suffers.
    let _ = by_name.send(Note(1));
    let error = by_name.ask(Echo::of("x")).await.unwrap_err();
    assert!((error.is_not_found() || error.is_stopped()) && error.is_never_sent(), "{error:?}");
    // The client has heard of the end by now. The kind survives, where Spark has the text of a
    // stack trace.
    let error = by_name.ask(Echo::of("x")).await.unwrap_err();
    assert!(error.is_not_found() && error.is_never_sent(), "{error:?}");
    assert_eq!(error.text(), format!("Cannot find endpoint: {}", doomed.endpoint_address()));
    assert_eq!(remote.ask(Echo::of("fine")).await?, "fine");
    assert_eq!(local.ask(Echo::of("fine")).await?, "fine");
    assert_eq!(gone.log.all(), ["start", "stop"]);
    assert_eq!(watch.log.len(), 3);
    Ok(())
}

async fn s83_the_sender_is_its_listening_address(h: &Harness) -> anyhow::Result<()> {
    let pair = h.pair().await?;
    let (_, [local, remote]) = pair.probe_both_ways("p").await?;
    let peer = h.server("peer").await?;
    let from_peer = peer.endpoint_ref::<Probe>(&local.to_string()).await?;
    let own = pair.server.address().map(ToString::to_string);
    assert_eq!(local.ask(Who).await?, own, "this env itself");
    assert_eq!(from_peer.ask(Who).await?, peer.address().map(ToString::to_string));
    let client = remote.ask(Who).await?;
    if h.is_actix() {
        // A socket of this machine, which is not where anybody listens.
        let client = client.expect("a socket has an address");
        assert!(client.starts_with("127.0.0.1:"), "{client}");
        assert_ne!(Some(client), own);
    } else {
        assert_eq!(client, None, "without sockets a client has no address");
    }
    Ok(())
}

/// Writes down the order in which messages come.
#[derive(Default)]
struct Order(Log<u64>);

/// One way: a number and some ballast.
#[derive(Debug, Serialize, Deserialize, RpcMessage)]
struct Numbered {
    number: u64,
    ballast: String,
}

/// An ask: a number.
#[derive(Debug, Serialize, Deserialize, RpcMessage)]
#[rpc(reply = u64)]
struct NumberedAsk(u64);

#[endpoint]
impl Order {
    #[receive]
    fn one_way(&mut self, msg: Numbered) -> HandlerResult<()> {
        assert!(msg.ballast.len().is_multiple_of(50_000));
        self.0.push(msg.number);
        Ok(())
    }

    #[receive_and_reply]
    fn ask(&mut self, msg: NumberedAsk, cx: &mut EndpointContext<Self>) -> HandlerResult<u64> {
        assert_eq!(cx.name().as_str(), "order");
        self.0.push(msg.0);
        Ok(msg.0)
    }
}

async fn s84_messages_of_one_sender_keep_their_order(h: &Harness) -> anyhow::Result<()> {
    let pair = h.pair().await?;
    let log = Log::default();
    let local = pair.server.setup_endpoint("order", Order(log.clone())).await?;
    for endpoint in [pair.from_client(&local).await?, local] {
        log.take().clear();
        let mut asks = Vec::new();
        for number in 0..1000 {
            // Asks between one-way messages, and some that travel in many frames.
            if number % 10 == 3 {
                asks.push(endpoint.ask(NumberedAsk(number)));
            } else {
                let ballast = if number % 100 == 50 { "x".repeat(50_000) } else { String::new() };
                endpoint.send(Numbered { number, ballast })?;
            }
        }
        for (index, ask) in asks.into_iter().enumerate() {
            assert_eq!(ask.await?, index as u64 * 10 + 3);
        }
        assert_eq!(log.reaches(1000).await, (0..1000).collect::<Vec<_>>());
    }
    Ok(())
}

async fn s85_s92_refs_travel_in_messages_and_replies(h: &Harness) -> anyhow::Result<()> {
    let pair = h.pair().await?;
    let (watch, refs) = pair.probe_both_ways("p").await?;
    for endpoint in refs {
        let me = endpoint.ask(Me).await?;
        assert_eq!(me, endpoint);
        assert!(me.incarnation().is_some(), "a ref that was handed over is pinned");
        assert_eq!(me.ask(Echo::of("by the ref in a reply")).await?, "by the ref in a reply");
        // To the client's endpoint, which the server calls.
        let (mine, own) = Probe::at(&pair.client, format!("own-{}", watch.log.len())).await?;
        let relayed = endpoint.ask(Relay { to: own, text: "by the ref in a message".into() });
        assert_eq!(relayed.await?, "by the ref in a message");
        assert_eq!(mine.log.all(), ["start", "echo by the ref in a message"]);
    }
    // A ref that came back home is local again.
    let (_, own) = Probe::at(&pair.client, "boomerang").await?;
    let mirror = pair.server.setup_endpoint("mirror", RefMirror).await?;
    let back = pair.from_client(&mirror).await?.ask(Throw(own.clone())).await?;
    assert_eq!((back.incarnation(), &back), (own.incarnation(), &own));
    assert_eq!(back.ask(Echo::of("home")).await?, "home");
    Ok(())
}

/// An ask: the ref comes back.
#[derive(Debug, Serialize, Deserialize, RpcMessage)]
#[rpc(reply = RpcEndpointRef<Probe>)]
struct Throw(RpcEndpointRef<Probe>);

/// Throws refs back.
struct RefMirror;

#[endpoint]
impl RefMirror {
    #[receive_and_reply]
    fn throw(&mut self, msg: Throw) -> HandlerResult<RpcEndpointRef<Probe>> {
        Ok(msg.0)
    }
}

async fn s85_a_pinned_ref_ends_with_its_endpoint(h: &Harness) -> anyhow::Result<()> {
    let pair = h.pair().await?;
    let (_, [local, remote]) = pair.probe_both_ways("p").await?;
    let pinned = remote.ask(Me).await?;
    pair.server.stop(&local)?;
    pair.server.stopped(&local).await?;
    let (watch, _) = pair.probe("p").await?;
    for endpoint in [pinned, local] {
        let error = endpoint.ask(Echo::of("x")).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::EndpointStopped);
        assert!(error.is_never_sent());
    }
    assert_eq!(remote.ask(Echo::of("by name")).await?, "by name");
    assert_eq!(watch.log.all(), ["start", "echo by name"]);
    Ok(())
}

rpc_tests::both! {
    s68_a_ref_has_a_name_and_an_address,
    s69_send_is_one_way_here_and_there,
    s70_s139_an_absent_value_is_a_value,
    s71_ask_answers_within_the_default_or_a_given_time,
    s72_a_blocking_ask_in_a_handler_is_refused,
    s72_a_blocking_ask_waits_on_any_other_thread,
    s73_s102_an_aborted_or_dropped_ask_is_taken_back,
    s73_an_ask_that_is_dropped_in_the_queue_is_not_handled,
    s74_s101_a_message_is_handled_at_most_once,
    s76_refs_are_equal_by_address,
    s77_in_one_env_values_are_moved_and_never_written,
    s78_a_reply_of_another_type_is_a_decode_error,
    s79_a_name_without_an_endpoint_is_an_error_of_the_sender,
    s80_s136_refs_of_a_stopped_env_fail,
    s81_s82_an_unknown_endpoint_of_a_peer,
    s83_the_sender_is_its_listening_address,
    s84_messages_of_one_sender_keep_their_order,
    s85_s92_refs_travel_in_messages_and_replies,
    s85_a_pinned_ref_ends_with_its_endpoint,
    s109_a_ref_of_an_env_without_a_port_works_for_others,
}

rpc_tests::actix_only! {
    s75_refs_are_used_from_any_thread,
    s101_connecting_counts_against_the_ask_timeout,
    s103_what_was_given_up_before_the_connection_is_never_sent,
}

/// A ref as it would come in a message, without a lookup.
#[derive(Debug, Serialize, Deserialize)]
struct Bare {
    at: String,
}

async fn s101_connecting_counts_against_the_ask_timeout(h: &Harness) -> anyhow::Result<()> {
    let (_listener, address) = silent_port();
    let env = h.client("c").await?;
    let bare = env.encode(&Bare { at: format!("rpc://p@{address}") })?;
    let endpoint: RpcEndpointRef<Probe> = env.decode(&bare)?;
    let error =
        endpoint.ask_with_timeout(Echo::of("x"), Duration::from_millis(50)).await.unwrap_err();
    assert!(error.is_timeout() && error.is_never_sent(), "{error:?}");
    Ok(())
}

async fn s109_a_ref_of_an_env_without_a_port_works_for_others(h: &Harness) -> anyhow::Result<()> {
    let pair = h.pair().await?;
    let other = h.client("other").await?;
    let (_, at_server) = pair.probe("board").await?;
    let (watch, own) = Probe::at(&pair.client, "p").await?;
    // The server has it from a message, and others have it from the server.
    let board = pair.from_client(&at_server).await?;
    assert_eq!(board.ask(Relay { to: own.clone(), text: "a".into() }).await?, "a");
    let there: RpcEndpointRef<Probe> = pair.server.decode(&pair.client.encode(&own)?)?;
    let handed: RpcEndpointRef<Probe> = other.decode(&pair.server.encode(&there)?)?;
    assert_eq!(handed, own);
    handed.send(Note(1))?;
    assert_eq!(handed.ask(Echo::of("b")).await?, "b");
    assert_eq!(watch.log.reaches(4).await, ["start", "echo a", "note 1", "echo b"]);
    // One of the other's own, and the way back.
    let (_, back) = Probe::at(&other, "back").await?;
    assert_eq!(handed.ask(Relay { to: back, text: "c".into() }).await?, "c");
    let me: RpcEndpointRef<Probe> = handed.ask(Me).await?;
    assert_eq!(me.ask(Echo::of("d")).await?, "d");
    // It is over for both.
    pair.client.stop(&own)?;
    pair.client.stopped(&own).await?;
    let error = handed.ask(Echo::of("e")).await.unwrap_err();
    assert_eq!((error.kind(), error.outcome()), (ErrorKind::EndpointStopped, Outcome::NeverSent));
    pair.client.shutdown().await;
    let error = loop {
        let error = handed.ask(Echo::of("f")).await.unwrap_err();
        // The news of the env's end may be under way.
        if error.kind() != ErrorKind::EndpointStopped && error.kind() != ErrorKind::EnvStopped {
            break error;
        }
    };
    assert_eq!((error.kind(), error.outcome()), (ErrorKind::Unreachable, Outcome::NeverSent));
    Ok(())
}

async fn s103_what_was_given_up_before_the_connection_is_never_sent(
    h: &Harness,
) -> anyhow::Result<()> {
    let (listener, address) = silent_port();
    let client = h.client("c").await?;
    let bare = client.encode(&Bare { at: format!("rpc://p@{address}") })?;
    let endpoint: RpcEndpointRef<Probe> = client.decode(&bare)?;
    let mut aborted = endpoint.ask(Echo::of("aborted"));
    drop(endpoint.ask(Echo::of("dropped")));
    let late = endpoint.ask_with_timeout(Echo::of("late"), Duration::from_millis(20));
    assert!(late.await.unwrap_err().is_never_sent());
    aborted.abort();
    assert!(aborted.await.unwrap_err().is_cancelled());
    // Now the one they were for is there. Spark would send it all of them.
    drop(listener);
    let config = h.server_config("server").with_bind(&address);
    let server = h.create(config).await?;
    let (watch, _) = Probe::at(&server, "p").await?;
    loop {
        match endpoint.ask(Echo::of("kept")).await {
            Ok(_) => break,
            // The end of the silent connection may take one more with it.
            Err(error) => assert!(error.is_never_sent(), "{error:?}"),
        }
    }
    assert_eq!(watch.log.all(), ["start", "echo kept"]);
    Ok(())
}
