//! What an endpoint may rely on, and what its hooks see: S36-S55.

use rpc_core::{
    EndpointContext, ErrorKind, HandlerResult, RpcAddress, RpcEndpointRef, RpcError, RpcMessage,
    endpoint,
};
use rpc_tests::harness::{
    Boom, Echo, Fail, Harness, Log, Note, NoteBoom, NoteFail, Probe, ProbeWatch, Quit, Script, Wait,
};
use serde::{Deserialize, Serialize};

async fn s36_s37_s38_start_messages_stop_in_this_order(h: &Harness) -> anyhow::Result<()> {
    let pair = h.pair().await?;
    let (watch, [local, remote]) = pair.probe_both_ways("p").await?;
    // Held in its first message, with the rest and the stop behind it.
    let held = local.ask(Wait(0));
    watch.log.reaches(2).await;
    for number in 1..=5 {
        local.send(Note(number))?;
    }
    let last = local.ask(Echo::of("last"));
    pair.server.stop(&local)?;
    watch.gate.open();
    assert_eq!((held.await?, last.await?.as_str()), (0, "last"));
    pair.server.stopped(&local).await?;
    assert_eq!(
        watch.log.all(),
        [
            "start",
            "wait 0",
            "waited 0",
            "note 1",
            "note 2",
            "note 3",
            "note 4",
            "note 5",
            "echo last",
            "stop"
        ]
    );
    assert!(remote.ask(Echo::of("late")).await.is_err());
    assert_eq!(watch.log.all().last().map(String::as_str), Some("stop"));
    Ok(())
}

async fn s39_what_comes_after_the_stop_is_refused(h: &Harness) -> anyhow::Result<()> {
    let pair = h.pair().await?;
    let (watch, [local, remote]) = pair.probe_both_ways("p").await?;
    let held = remote.ask(Wait(0));
    watch.log.reaches(2).await;
    local.send(Note(1))?;
    pair.server.stop(&local)?;
    // Spark drops it with a warning at the callee; here the sender is told.
    for error in [
        local.send(Note(2)).unwrap_err(),
        local.ask(Echo::of("late")).await.unwrap_err(),
        remote.ask(Echo::of("late")).await.unwrap_err(),
    ] {
        assert_eq!(error.kind(), ErrorKind::EndpointStopped);
        assert!(error.is_stopped() && error.is_never_sent());
    }
    watch.gate.open();
    assert_eq!(held.await?, 0, "what was taken before the stop is answered");
    pair.server.stopped(&local).await?;
    assert_eq!(watch.log.all(), ["start", "wait 0", "waited 0", "note 1", "stop"]);
    Ok(())
}

async fn s40_stop_is_idempotent(h: &Harness) -> anyhow::Result<()> {
    let env = h.server("m").await?;
    let (watch, endpoint) = Probe::at(&env, "p").await?;
    for _ in 0..3 {
        env.stop(&endpoint)?;
    }
    env.stopped(&endpoint).await?;
    env.stop(&endpoint)?;
    env.stopped(&endpoint).await?;
    env.shutdown().await;
    env.stop(&endpoint)?;
    assert_eq!(watch.log.all(), ["start", "stop"]);
    Ok(())
}

async fn s41_an_endpoint_may_stop_itself(h: &Harness) -> anyhow::Result<()> {
    let env = h.server("m").await?;
    let (watch, endpoint) = Probe::at(&env, "p").await?;
    endpoint.send(Quit)?;
    env.stopped(&endpoint).await?;
    assert_eq!(watch.log.all(), ["start", "quit", "stop"]);
    assert!(env.local_ref::<Probe>("p").is_none(), "the name is free");
    Ok(())
}

async fn s42_stop_goes_by_the_endpoint_not_by_its_name(h: &Harness) -> anyhow::Result<()> {
    let (one, two) = (h.server("one").await?, h.server("two").await?);
    let (_, first) = Probe::at(&one, "p").await?;
    let (_, namesake) = Probe::at(&two, "p").await?;
    // Spark would stop the local endpoint of that name.
    assert_eq!(one.stop(&namesake).unwrap_err().kind(), ErrorKind::WrongRef);
    assert_eq!(first.ask(Echo::of("a")).await? + &namesake.ask(Echo::of("b")).await?, "ab");
    // A ref to an endpoint that is gone does nothing to its successor.
    one.stop(&first)?;
    one.stopped(&first).await?;
    let (watch, second) = Probe::at(&one, "p").await?;
    one.stop(&first)?;
    assert_eq!(second.ask(Echo::of("c")).await?, "c");
    assert_eq!(watch.log.all(), ["start", "echo c"]);
    Ok(())
}

/// Uses its own ref wherever it can.
struct Selfish(Log, Log<RpcEndpointRef<Self>>);

#[endpoint]
impl Selfish {
    #[on_start]
    fn started(&mut self, cx: &mut EndpointContext<Self>) -> HandlerResult<()> {
        self.1.push(cx.self_ref());
        cx.self_ref().send(Note(1))?;
        Ok(())
    }

    #[receive]
    fn note(&mut self, msg: Note, cx: &mut EndpointContext<Self>) -> HandlerResult<()> {
        self.1.push(cx.self_ref());
        self.0.push(format!("note {}", msg.0));
        if msg.0 < 3 {
            cx.self_ref().send(Note(msg.0 + 1))?;
        }
        Ok(())
    }

    #[on_stop]
    fn stopped(&mut self, cx: &mut EndpointContext<Self>) -> HandlerResult<()> {
        self.1.push(cx.self_ref());
        let late = cx.self_ref().send(Note(9)).map_err(|error| error.kind());
        self.0.push(format!("stop {late:?}"));
        Ok(())
    }
}

async fn s43_s44_self_is_valid_from_start_to_stop(h: &Harness) -> anyhow::Result<()> {
    let env = h.server("m").await?;
    let (log, refs) = (Log::default(), Log::default());
    let endpoint = env.setup_endpoint("s", Selfish(log.clone(), refs.clone())).await?;
    log.reaches(3).await;
    env.stop(&endpoint)?;
    env.stopped(&endpoint).await?;
    // Spark's self is null in onStop; ours is there, and says that the endpoint is stopped.
    assert_eq!(log.all(), ["note 1", "note 2", "note 3", "stop Err(EndpointStopped)"]);
    assert_eq!(refs.len(), 5);
    assert!(
        refs.all()
            .iter()
            .all(|one| *one == endpoint && one.incarnation() == endpoint.incarnation())
    );
    Ok(())
}

/// Has no handlers at all.
struct Silent(Log);

#[endpoint]
impl Silent {
    #[on_error]
    fn failed(&mut self, error: RpcError) -> HandlerResult<()> {
        self.0.push(format!("{:?}: {error}", error.kind()));
        Ok(())
    }
}

async fn s45_s46_an_endpoint_without_handlers_says_so(h: &Harness) -> anyhow::Result<()> {
    let pair = h.pair().await?;
    let log = Log::default();
    let endpoint = pair.server.setup_endpoint("silent", Silent(log.clone())).await?;
    let address = endpoint.endpoint_address().to_string();
    let untyped =
        [endpoint.clone().into_untyped(), pair.from_client(&endpoint).await?.into_untyped()];
    for (index, endpoint) in untyped.into_iter().enumerate() {
        endpoint.send(Note(1))?;
        let no_receive =
            format!("Unsupported: {address} does not implement 'receive' (message Note)");
        assert_eq!(log.reaches(2 * index + 1).await.last(), Some(&no_receive));
        let error = endpoint.ask(Echo::of("x")).await.unwrap_err();
        assert!(error.is_unsupported() && error.is_never_sent(), "{error:?}");
        assert_eq!(error.text(), format!("{address} won't reply anything (message Echo)"));
        assert_eq!(log.reaches(2 * index + 2).await.len(), 2 * index + 2);
    }
    Ok(())
}

/// A message that no probe takes.
#[derive(Debug, Serialize, Deserialize, RpcMessage)]
struct Strange;

/// An ask that no probe takes.
#[derive(Debug, Serialize, Deserialize, RpcMessage)]
#[rpc(reply = ())]
struct StrangeAsk;

async fn s47_s48_a_message_that_nothing_takes_is_unsupported(h: &Harness) -> anyhow::Result<()> {
    let pair = h.pair().await?;
    let (watch, refs) = pair.probe_both_ways("p").await?;
    let address = refs[0].endpoint_address().to_string();
    for endpoint in refs {
        let endpoint = endpoint.into_untyped();
        watch.log.take().clear();
        endpoint.send(Strange)?;
        let logged = watch.log.reaches(1).await;
        assert!(
            logged[0].starts_with("error Unsupported: Unsupported message Strange from "),
            "{logged:?}"
        );
        assert!(logged[0].ends_with(&format!(" to {address}")), "{logged:?}");
        let error = endpoint.ask(StrangeAsk).await.unwrap_err();
        assert!(error.is_unsupported(), "{error:?}");
        assert!(error.text().starts_with("Unsupported message StrangeAsk from "), "{error}");
        let logged = watch.log.reaches(2).await;
        assert_eq!(logged[1], format!("error Unsupported: {error}"), "on_error hears of it, too");
        // An ask that is sent, and a message that is asked, get the same.
        let error = endpoint.ask(NoteAsAsk(1)).await.unwrap_err();
        assert!(
            error.is_unsupported() && error.text().contains("it is one-way, but it was asked"),
            "{error}"
        );
        endpoint.send(EchoAsNote("x".into()))?;
        let logged = watch.log.reaches(4).await;
        assert!(logged[3].contains("it is an ask, but it was sent"), "{logged:?}");
    }
    Ok(())
}

/// What a peer that is out of date may send: [`Note`], as an ask.
#[derive(Debug, Serialize, Deserialize, RpcMessage)]
#[rpc(reply = (), name = "Note")]
struct NoteAsAsk(u64);

/// [`Echo`], one way.
#[derive(Debug, Serialize, Deserialize, RpcMessage)]
#[rpc(name = "Echo")]
struct EchoAsNote(String);

async fn s49_a_failed_handler_tells_the_caller_and_on_error(h: &Harness) -> anyhow::Result<()> {
    let pair = h.pair().await?;
    let (watch, refs) = pair.probe_both_ways("p").await?;
    for endpoint in refs {
        watch.log.take().clear();
        let error = endpoint.ask(Fail("broken".into())).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::HandlerFailed);
        assert_eq!(error.text(), "broken: the cause");
        assert!(error.is_remote());
        let logged = watch.log.reaches(2).await;
        assert_eq!(logged, ["fail broken", "error HandlerFailed: broken: the cause"]);
    }
    Ok(())
}

async fn s50_every_error_reaches_on_error(h: &Harness) -> anyhow::Result<()> {
    let pair = h.pair().await?;
    let watch = ProbeWatch::default();
    let probe = Probe::with(&watch, Script::StopFails);
    let endpoint = pair.server.setup_endpoint("p", probe).await?;
    endpoint.send(NoteFail("one way".into()))?;
    let _ = endpoint.ask(Fail("ask".into())).await;
    pair.from_client(&endpoint).await?.send(NoteFail("from afar".into()))?;
    watch.log.reaches(7).await;
    pair.server.stop(&endpoint)?;
    pair.server.stopped(&endpoint).await?;
    assert_eq!(
        watch.log.all(),
        [
            "start",
            "note-fail one way",
            "error HandlerFailed: one way",
            "fail ask",
            "error HandlerFailed: ask: the cause",
            "note-fail from afar",
            "error HandlerFailed: from afar",
            "stop",
            "error HandlerFailed: no stop",
        ]
    );
    assert_eq!(pair.server.unhandled_errors(), 0, "a hook that took them keeps them from the env");
    Ok(())
}

/// Keeps the default of `on_error`.
struct Careless;

#[endpoint]
impl Careless {
    #[receive]
    fn fail(&mut self, msg: NoteFail) -> HandlerResult<()> {
        Err(anyhow::anyhow!(msg.0).into())
    }

    #[receive_and_reply]
    fn echo(&mut self, msg: Echo) -> HandlerResult<String> {
        Ok(msg.0)
    }
}

async fn s51_an_error_of_on_error_is_ignored_and_the_default_tells_the_env(
    h: &Harness,
) -> anyhow::Result<()> {
    let env = h.server("m").await?;
    for (script, name) in [(Script::ErrorFails, "fails"), (Script::ErrorPanics, "panics")] {
        let watch = ProbeWatch::default();
        let endpoint = env.setup_endpoint(name, Probe::with(&watch, script)).await?;
        endpoint.send(NoteFail("first".into()))?;
        assert_eq!(endpoint.ask(Echo::of("alive")).await?, "alive");
        let logged = watch.log.all();
        assert_eq!(logged[1..3], ["note-fail first", "error HandlerFailed: first"]);
        assert_eq!(logged.len(), 4, "on_error is not called for its own error: {logged:?}");
    }
    assert_eq!(env.unhandled_errors(), 0);
    let endpoint = env.setup_endpoint("default", Careless).await?;
    endpoint.send(NoteFail("x".into()))?;
    endpoint.send(NoteFail("y".into()))?;
    assert_eq!(endpoint.ask(Echo::of("alive")).await?, "alive");
    assert_eq!(env.unhandled_errors(), 2);
    Ok(())
}

async fn s50_s52_an_endpoint_whose_start_fails_is_not_registered(
    h: &Harness,
) -> anyhow::Result<()> {
    let env = h.server("m").await?;
    for (script, kind, text) in [
        (Script::StartFails, ErrorKind::HandlerFailed, "no start"),
        (Script::StartPanics, ErrorKind::HandlerPanicked, "boom at start"),
    ] {
        let watch = ProbeWatch::default();
        // Spark would keep it, and serve messages with it; here the one who registers it is told.
        let error = env.setup_endpoint("p", Probe::with(&watch, script)).await.unwrap_err();
        assert_eq!(error.kind(), kind);
        assert!(error.text().contains(text), "{error}");
        assert!(env.local_ref::<Probe>("p").is_none(), "its name is free");
        assert_eq!(watch.log.all(), ["start"], "neither on_error nor on_stop of what never began");
    }
    let (_, endpoint) = Probe::at(&env, "p").await?;
    assert_eq!(endpoint.ask(Echo::of("x")).await?, "x");
    Ok(())
}

async fn s52_messages_that_waited_for_a_failed_start_are_told(h: &Harness) -> anyhow::Result<()> {
    let env = h.server("m").await?;
    let error = env.setup_endpoint("eager", EagerFailure).await.unwrap_err();
    assert_eq!(error.text(), "no start");
    Ok(())
}

/// Queues a message for itself, and fails to start.
struct EagerFailure;

#[endpoint]
impl EagerFailure {
    #[on_start]
    fn started(&mut self, cx: &mut EndpointContext<Self>) -> HandlerResult<()> {
        cx.self_ref().send(Note(1))?;
        Err(anyhow::anyhow!("no start").into())
    }

    #[receive]
    fn note(&mut self, _msg: Note) -> HandlerResult<()> {
        panic!("a message reached an endpoint that never started");
    }
}

/// Writes down what the network does.
struct Watcher(Log);

#[endpoint]
impl Watcher {
    #[on_connected]
    fn up(&mut self, peer: &RpcAddress) -> HandlerResult<()> {
        self.0.push(format!("up {peer}"));
        Ok(())
    }

    #[on_disconnected]
    fn down(&mut self, peer: &RpcAddress) -> HandlerResult<()> {
        self.0.push(format!("down {peer}"));
        Ok(())
    }

    #[receive]
    fn note(&mut self, msg: Note) -> HandlerResult<()> {
        self.0.push(format!("note {}", msg.0));
        Ok(())
    }
}

async fn s53_s54_network_events_come_in_order_with_messages(h: &Harness) -> anyhow::Result<()> {
    let (server, peer) = (h.server("server").await?, h.server("peer").await?);
    let log = Log::default();
    let watcher = server.setup_endpoint("w", Watcher(log.clone())).await?;
    // An endpoint without the hooks is not woken for them.
    let (probe, _) = Probe::at(&server, "p").await?;
    let remote = peer.endpoint_ref::<Watcher>(&watcher.to_string()).await?;
    for number in 1..=3 {
        remote.send(Note(number))?;
    }
    log.reaches(4).await;
    let address = peer.address().expect("listens").to_string();
    peer.shutdown().await;
    assert_eq!(
        log.reaches(5).await,
        [
            format!("up {address}"),
            "note 1".into(),
            "note 2".into(),
            "note 3".into(),
            format!("down {address}")
        ]
    );
    assert_eq!(probe.log.all(), ["start"]);
    Ok(())
}

async fn s55_an_endpoint_serves_on_after_errors_and_panics(h: &Harness) -> anyhow::Result<()> {
    let pair = h.pair().await?;
    let (watch, refs) = pair.probe_both_ways("p").await?;
    for endpoint in refs {
        endpoint.send(NoteFail("one".into()))?;
        endpoint.send(NoteBoom)?;
        assert!(endpoint.ask(Fail("two".into())).await.is_err());
        assert_eq!(endpoint.ask(Boom).await.unwrap_err().kind(), ErrorKind::HandlerPanicked);
        assert_eq!(endpoint.ask(Echo::of("alive")).await?, "alive");
    }
    // Never started again: it is the same one.
    assert_eq!(watch.log.all().iter().filter(|entry| *entry == "start").count(), 1);
    Ok(())
}

rpc_tests::both! {
    s36_s37_s38_start_messages_stop_in_this_order,
    s39_what_comes_after_the_stop_is_refused,
    s40_stop_is_idempotent,
    s41_an_endpoint_may_stop_itself,
    s42_stop_goes_by_the_endpoint_not_by_its_name,
    s43_s44_self_is_valid_from_start_to_stop,
    s45_s46_an_endpoint_without_handlers_says_so,
    s47_s48_a_message_that_nothing_takes_is_unsupported,
    s49_a_failed_handler_tells_the_caller_and_on_error,
    s50_every_error_reaches_on_error,
    s50_s52_an_endpoint_whose_start_fails_is_not_registered,
    s51_an_error_of_on_error_is_ignored_and_the_default_tells_the_env,
    s52_messages_that_waited_for_a_failed_start_are_told,
    s55_an_endpoint_serves_on_after_errors_and_panics,
}

rpc_tests::actix_only! {
    s53_s54_network_events_come_in_order_with_messages,
}
