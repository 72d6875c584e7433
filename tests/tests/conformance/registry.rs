//! Registering and looking up endpoints: S22-S35.

use rpc_core::{EndpointContext, ErrorKind, HandlerResult, RpcEndpointRef, endpoint};
use rpc_tests::harness::{
    Echo, Harness, Log, Note, Probe, ProbeWatch, Relay, Script, Wait, block_on,
};
use std::net::TcpListener;
use std::thread;
use std::time::Duration;

async fn s22_setup_returns_a_ref_that_works(h: &Harness) -> anyhow::Result<()> {
    let env = h.server("m").await?;
    let (a, b) = tokio::join!(Probe::at(&env, "a"), Probe::at(&env, "b"));
    for (_, endpoint) in [a?, b?] {
        assert_eq!(endpoint.ask(Echo::of("x")).await?, "x");
    }
    Ok(())
}

async fn s22_setup_is_safe_from_many_threads(h: &Harness) -> anyhow::Result<()> {
    let env = h.client("m").await?;
    let threads: Vec<_> = (0..8)
        .map(|number| {
            let env = env.clone();
            thread::spawn(move || {
                // All want the first name; each has a second one for itself.
                let shared = block_on(Probe::at(&env, "shared")).is_ok();
                let (_, own) = block_on(Probe::at(&env, format!("own-{number}"))).unwrap();
                (shared, own.ask_blocking(Echo::of("x")).unwrap())
            })
        })
        .collect();
    let results: Vec<_> = threads.into_iter().map(|thread| thread.join().unwrap()).collect();
    assert_eq!(results.iter().filter(|(shared, _)| *shared).count(), 1);
    assert!(results.iter().all(|(_, echo)| echo == "x"));
    Ok(())
}

async fn s23_a_name_is_given_once(h: &Harness) -> anyhow::Result<()> {
    let env = h.server("m").await?;
    let (first, endpoint) = Probe::at(&env, "twice").await?;
    let second = ProbeWatch::default();
    let error = env.setup_endpoint("twice", Probe::new(&second)).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NameTaken);
    assert_eq!(error.text(), "There is already an RpcEndpoint called twice");
    assert!(second.log.is_empty(), "the second one never began: {:?}", second.log);
    assert_eq!(endpoint.ask(Echo::of("still here")).await?, "still here");
    // Free again once the first one is gone.
    env.stop(&endpoint)?;
    env.stopped(&endpoint).await?;
    let (_, again) = Probe::at(&env, "twice").await?;
    assert_eq!(again.ask(Echo::of("new")).await?, "new");
    assert_eq!(first.log.all(), ["start", "echo still here", "stop"]);
    Ok(())
}

async fn s25_nothing_is_registered_after_shutdown(h: &Harness) -> anyhow::Result<()> {
    let env = h.server("m").await?;
    env.shutdown().await;
    let error = Probe::at(&env, "late").await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::EnvStopped);
    assert_eq!(error.text(), "RpcEnv has been stopped");
    Ok(())
}

async fn s26_a_constructor_that_panics_leaves_no_name(h: &Harness) -> anyhow::Result<()> {
    let env = h.server("m").await?;
    let made = env.setup_endpoint_with("p", || -> Probe { panic!("no constructor") }).await;
    let error = made.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::HandlerPanicked);
    assert!(error.text().contains("no constructor"), "{error}");
    assert!(env.local_ref::<Probe>("p").is_none());
    let (_, endpoint) = Probe::at(&env, "p").await?;
    assert_eq!(endpoint.ask(Echo::of("x")).await?, "x");
    Ok(())
}

/// Sends itself a message before it has started.
struct Eager(Log);

#[endpoint]
impl Eager {
    #[on_start]
    fn started(&mut self, cx: &mut EndpointContext<Self>) -> HandlerResult<()> {
        cx.self_ref().send(Note(1))?;
        assert_eq!(cx.env()?.local_ref::<Self>("eager"), Some(cx.self_ref()));
        self.0.push("start");
        Ok(())
    }

    #[receive]
    fn note(&mut self, msg: Note) -> HandlerResult<()> {
        self.0.push(format!("note {}", msg.0));
        Ok(())
    }
}

async fn s27_the_ref_is_there_before_on_start(h: &Harness) -> anyhow::Result<()> {
    let env = h.server("m").await?;
    let log = Log::default();
    env.setup_endpoint("eager", Eager(log.clone())).await?;
    assert_eq!(log.reaches(2).await, ["start", "note 1"]);
    Ok(())
}

async fn s28_an_env_finds_its_own_endpoints_or_says_none(h: &Harness) -> anyhow::Result<()> {
    let env = h.server("m").await?;
    assert!(env.local_ref::<Probe>("p").is_none());
    let (_, endpoint) = Probe::at(&env, "p").await?;
    let found = env.local_ref::<Probe>("p").expect("registered");
    assert_eq!(found, endpoint);
    assert_eq!(found.incarnation(), endpoint.incarnation());
    env.stop(&endpoint)?;
    env.stopped(&endpoint).await?;
    assert!(env.local_ref::<Probe>("p").is_none());
    Ok(())
}

async fn s29_s31_s32_a_lookup_finds_the_endpoint_or_names_the_uri(
    h: &Harness,
) -> anyhow::Result<()> {
    let pair = h.pair().await?;
    let (_, endpoint) = pair.probe("there").await?;
    let by_uri = pair.from_client(&endpoint).await?;
    let address = pair.server.address().expect("listens");
    let by_parts = pair.client.endpoint_ref_at::<Probe>(address, "there").await?;
    assert_eq!(by_uri, by_parts);
    assert_eq!(by_parts.ask(Echo::of("x")).await?, "x");
    let uri = format!("rpc://nobody@{address}");
    for error in [
        pair.client.endpoint_ref::<Probe>(&uri).await.unwrap_err(),
        pair.client.endpoint_ref_at::<Probe>(address, "nobody").await.unwrap_err(),
        pair.server.endpoint_ref::<Probe>(&uri).await.unwrap_err(),
    ] {
        assert_eq!(error.kind(), ErrorKind::EndpointNotFound);
        assert_eq!(error.text(), format!("Cannot find endpoint: {uri}"));
        assert!(error.is_never_sent());
    }
    let error = pair.client.endpoint_ref::<Probe>("rpc://no-port@there").await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidAddress);
    Ok(())
}

/// A port that accepts and says nothing.
pub(crate) fn silent_port() -> (TcpListener, String) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    (listener, address)
}

async fn s30_a_lookup_ends_by_its_own_timeout(h: &Harness) -> anyhow::Result<()> {
    let (_listener, address) = silent_port();
    let config = h.client_config("c").with_lookup_timeout(Duration::from_millis(50));
    let env = h.create(config).await?;
    let uri = format!("rpc://m@{address}");
    let error = env.endpoint_ref::<Probe>(&uri).await.unwrap_err();
    assert!(error.is_timeout() && error.is_never_sent(), "{error:?}");
    assert_eq!(
        error.text(),
        format!(
            "Cannot receive any reply from {uri} in 50ms. This timeout is controlled by rpc.lookupTimeout"
        )
    );
    Ok(())
}

async fn s33_a_lookup_does_not_wait_for_on_start(h: &Harness) -> anyhow::Result<()> {
    let pair = h.pair().await?;
    let watch = ProbeWatch::default();
    let setup = pair.server.setup_endpoint("slow", Probe::with(&watch, Script::StartWaits));
    let uri = format!("rpc://slow@{}", pair.server.address().expect("listens"));
    let meanwhile = async {
        watch.log.reaches(1).await;
        let remote = pair.client.endpoint_ref::<Probe>(&uri).await?;
        let here = pair.server.endpoint_ref::<Probe>(&uri).await?;
        here.send(Note(1))?;
        let answer = remote.ask(Echo::of("early"));
        assert_eq!(watch.log.all(), ["start"], "messages wait for the end of on_start");
        watch.gate.open();
        assert_eq!(answer.await?, "early");
        anyhow::Ok(())
    };
    let (endpoint, meanwhile) = tokio::join!(setup, meanwhile);
    endpoint?;
    meanwhile?;
    assert_eq!(watch.log.all(), ["start", "started", "note 1", "echo early"]);
    Ok(())
}

async fn s34_a_lookup_in_the_own_env_needs_no_network(h: &Harness) -> anyhow::Result<()> {
    // Nobody could connect to the advertised address.
    let env = h.create(h.server_config("m").with_advertise("example.com:1")).await?;
    let (_, endpoint) = Probe::at(&env, "p").await?;
    let found = env.endpoint_ref::<Probe>("rpc://p@example.com:1").await?;
    assert_eq!(found, endpoint);
    assert_eq!(found.ask(Echo::of("x")).await?, "x");
    // It is by name: it finds the next one of that name.
    env.stop(&endpoint)?;
    env.stopped(&endpoint).await?;
    let (watch, _) = Probe::at(&env, "p").await?;
    assert_eq!(found.ask(Echo::of("y")).await?, "y");
    assert_eq!(watch.log.all(), ["start", "echo y"]);
    Ok(())
}

async fn s35_an_endpoint_of_a_client_is_found_over_the_clients_connection(
    h: &Harness,
) -> anyhow::Result<()> {
    let pair = h.pair().await?;
    let (_, mine) = Probe::at(&pair.client, "mine").await?;
    let (_, local) = pair.probe("m").await?;
    let remote = pair.from_client(&local).await?;
    let relayed = remote.ask(Relay { to: mine.clone(), text: "handed over".into() }).await?;
    assert_eq!(relayed, "handed over");
    // Spark cannot look it up at all; here its URI names the env, which is connected.
    let found: RpcEndpointRef<Probe> = pair.server.endpoint_ref(&mine.to_string()).await?;
    assert_eq!(found.ask(Echo::of("looked up")).await?, "looked up");
    let other = "rpc-client://mine@00000000000000ff";
    let error = pair.server.endpoint_ref::<Probe>(other).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unreachable);
    assert!(error.text().contains(other), "{error}");
    Ok(())
}

async fn s29_a_ref_by_name_survives_a_restart_of_the_endpoint(h: &Harness) -> anyhow::Result<()> {
    let pair = h.pair().await?;
    let (_, first) = pair.probe("p").await?;
    let by_name = pair.from_client(&first).await?;
    assert_eq!(by_name.ask(Echo::of("1")).await?, "1");
    pair.server.stop(&first)?;
    pair.server.stopped(&first).await?;
    let error = by_name.ask(Echo::of("gone")).await.unwrap_err();
    // "Stopped" if the message was on its way when the endpoint ended; either way it was not seen.
    assert!((error.is_not_found() || error.is_stopped()) && error.is_never_sent(), "{error:?}");
    let (watch, _) = pair.probe("p").await?;
    assert_eq!(by_name.ask(Echo::of("2")).await?, "2");
    assert_eq!(watch.log.all(), ["start", "echo 2"]);
    watch.gate.open();
    assert_eq!(by_name.ask(Wait(3)).await?, 3);
    Ok(())
}

rpc_tests::both! {
    s29_a_ref_by_name_survives_a_restart_of_the_endpoint,
    s22_setup_returns_a_ref_that_works,
    s23_a_name_is_given_once,
    s25_nothing_is_registered_after_shutdown,
    s26_a_constructor_that_panics_leaves_no_name,
    s27_the_ref_is_there_before_on_start,
    s28_an_env_finds_its_own_endpoints_or_says_none,
    s29_s31_s32_a_lookup_finds_the_endpoint_or_names_the_uri,
    s33_a_lookup_does_not_wait_for_on_start,
    s34_a_lookup_in_the_own_env_needs_no_network,
    s35_an_endpoint_of_a_client_is_found_over_the_clients_connection,
}

rpc_tests::actix_only! {
    s22_setup_is_safe_from_many_threads,
    s30_a_lookup_ends_by_its_own_timeout,
}
