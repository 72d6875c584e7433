//! Timeouts: S93-S102.

use rpc_core::{ErrorKind, RpcEnvConfig, RpcTimeout};
use rpc_tests::harness::{Echo, Harness, Hold, Pair, Probe, Wait};
use std::time::Duration;

async fn impatient(h: &Harness) -> anyhow::Result<Pair> {
    let config = |config: RpcEnvConfig| config.set("rpc.askTimeout", "30ms");
    Ok(Pair {
        server: h.create(config(h.server_config("server"))?).await?,
        client: h.create(config(h.client_config("client"))?).await?,
    })
}

async fn s93_s94_s95_a_timeout_names_peer_duration_and_key_once(h: &Harness) -> anyhow::Result<()> {
    let pair = impatient(h).await?;
    let (watch, refs) = pair.probe_both_ways("p").await?;
    for endpoint in refs {
        let error = endpoint.ask(Hold(1)).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Timeout);
        assert_eq!(
            error.text(),
            format!(
                "Cannot receive any reply from {endpoint} in 30ms. This timeout is controlled by rpc.askTimeout"
            )
        );
        // The same through whatever the caller wraps it in.
        let wrapped = anyhow::Error::new(error).context("outer");
        assert_eq!(format!("{wrapped:#}").matches("rpc.askTimeout").count(), 1);
    }
    drop(watch);
    Ok(())
}

async fn s96_a_timeout_of_a_client_names_its_socket(h: &Harness) -> anyhow::Result<()> {
    let pair = impatient(h).await?;
    let (watch, mine) = Probe::at(&pair.client, "mine").await?;
    let (_, local) = pair.probe("p").await?;
    let _connected = pair.from_client(&local).await?;
    let from_server = pair.server.endpoint_ref::<Probe>(&mine.to_string()).await?;
    let error = from_server.ask(Hold(1)).await.unwrap_err();
    assert!(error.is_timeout(), "{error:?}");
    assert!(error.text().contains(&mine.to_string()), "{error}");
    if h.is_actix() {
        assert!(error.text().contains(" (127.0.0.1:"), "{error}");
    }
    drop(watch);
    Ok(())
}

async fn s101_the_time_in_the_queue_counts(h: &Harness) -> anyhow::Result<()> {
    let pair = impatient(h).await?;
    let (watch, [local, remote]) = pair.probe_both_ways("p").await?;
    let held = local.ask_with_timeout(Wait(0), Duration::from_secs(60));
    watch.log.reaches(2).await;
    for endpoint in [local, remote] {
        let error = endpoint.ask(Wait(1)).await.unwrap_err();
        assert!(error.is_timeout(), "{error:?}");
    }
    watch.gate.open();
    held.await?;
    Ok(())
}

async fn s102_the_callee_is_told_that_its_caller_has_given_up(h: &Harness) -> anyhow::Result<()> {
    let pair = h.pair().await?;
    let (watch, refs) = pair.probe_both_ways("p").await?;
    for endpoint in refs {
        // By its word: the call has ten seconds left.
        let held = endpoint.ask(Hold(1));
        let call = watch.held.next().await;
        assert!(!call.is_cancelled() && call.remaining() > Duration::ZERO);
        drop(held);
        assert_eq!(endpoint.ask(Echo::of("after")).await?, "after");
        assert!(call.is_cancelled());
        call.cancelled().await;
        // By the clock.
        let (call, _) = watch.outlived(&endpoint, 2).await?;
        call.cancelled().await;
        assert!(call.is_cancelled());
    }
    Ok(())
}

rpc_tests::both! {
    s93_s94_s95_a_timeout_names_peer_duration_and_key_once,
    s96_a_timeout_of_a_client_names_its_socket,
    s101_the_time_in_the_queue_counts,
    s102_the_callee_is_told_that_its_caller_has_given_up,
}

#[test]
fn s97_s99_s100_the_first_key_that_is_set_holds() {
    let config = RpcEnvConfig::client("c");
    let is = |timeout: RpcTimeout, seconds: u64, key: &str| {
        assert_eq!((timeout.duration(), timeout.key()), (Duration::from_secs(seconds), key));
    };
    // Nothing set: the head key, with the default.
    is(config.ask_timeout(), 10, "rpc.askTimeout");
    is(config.lookup_timeout(), 10, "rpc.lookupTimeout");
    let config = config.set("rpc.network.timeout", "7s").unwrap();
    is(config.ask_timeout(), 7, "rpc.network.timeout");
    is(config.lookup_timeout(), 7, "rpc.network.timeout");
    let config = config.set("rpc.askTimeout", "3s").unwrap();
    is(config.ask_timeout(), 3, "rpc.askTimeout");
    is(config.lookup_timeout(), 7, "rpc.network.timeout");
    let config = config.set("rpc.lookupTimeout", "2min").unwrap();
    is(config.lookup_timeout(), 120, "rpc.lookupTimeout");
}

#[test]
fn s97_a_key_that_is_unknown_or_unreadable_is_an_error() {
    for (key, value) in [
        ("rpc.askTimout", "1s"),
        ("rpc.askTimeout", "soon"),
        ("rpc.askTimeout", "10"),
        ("rpc.askTimeout", "-1s"),
    ] {
        let error = RpcEnvConfig::client("c").set(key, value).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidConfig);
        assert!(error.text().contains("rpc.askTimeout"), "{error}");
    }
}

#[test]
fn s98_a_part_of_a_second_is_kept() {
    // Spark cuts 500ms to 0 s.
    let config = RpcEnvConfig::client("c").set("rpc.askTimeout", "500ms").unwrap();
    assert_eq!(config.ask_timeout().duration(), Duration::from_millis(500));
    assert_eq!(config.ask_timeout().to_string(), "500ms (rpc.askTimeout)");
}

#[test]
fn s93_a_timeout_is_a_number_and_a_key_and_never_endless() {
    let timeout = RpcTimeout::new(Duration::MAX, "my.key");
    assert_eq!(timeout.duration(), Duration::from_secs(24 * 60 * 60));
    let error = timeout.error("b:7077");
    assert!(error.is_timeout());
    assert!(error.text().ends_with(". This timeout is controlled by my.key"), "{error}");
}
