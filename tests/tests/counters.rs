//! What an env counts: exact, on both backends, whenever somebody looks.
#![cfg(test)]

use rpc_core::{Counters, RpcEndpointRef, RpcEnv, Untyped};
use rpc_tests::both;
use rpc_tests::harness::{Boom, Echo, Fail, Harness, Hold, Note, NoteBoom, Probe, Wait};
use std::time::Duration;

type Grown = Vec<(&'static str, u64)>;

/// What has gone up since then, in the order of the names' declaration.
fn grown(env: &RpcEnv, before: &Counters) -> Grown {
    // How bytes come together in reads and writes is the machine's matter.
    let amounts = ["bytes_received", "bytes_sent", "reads", "writes"];
    let counted = env.counters().since(before);
    counted.iter().filter(|(name, number)| *number > 0 && !amounts.contains(name)).collect()
}

async fn messages_of_this_env(h: &Harness) -> anyhow::Result<()> {
    let pair = h.pair().await?;
    let (watch, probe) = pair.probe("probe").await?;
    let before = pair.server.counters();
    probe.ask(Echo::of("x")).await?;
    probe.send(Note(1))?;
    probe.send_wait(Note(2)).await?;
    assert!(probe.ask(Fail("x".into())).await.is_err());
    assert!(probe.ask(Boom).await.is_err());
    probe.send(NoteBoom)?;
    probe.clone().into_untyped().cast_unchecked::<Untyped>().send(Other)?;
    probe.ask(Echo::of("y")).await?;
    let (call, _) = watch.outlived(&probe, 1).await?;
    drop(call);
    let counted = grown(&pair.server, &before);
    let of = |wanted| counted.iter().find(|(name, _)| *name == wanted).map_or(0, |(_, n)| *n);
    // How often a short time is over before a handler has begun depends on the machine.
    let tries = of("timeouts");
    assert!(tries >= 1);
    let mut want = vec![
        ("asks_local", 4 + tries),
        ("sends_local", 4),
        ("timeouts", tries),
        ("panics", 2),
        ("errors_unhandled", of("errors_unhandled")),
        ("dead_letters_unsupported", 1),
    ];
    want.retain(|(_, number)| *number > 0);
    assert_eq!(counted, want);
    Ok(())
}

#[derive(Debug, serde::Serialize, serde::Deserialize, rpc_core::RpcMessage)]
struct Other;

async fn messages_of_another_env(h: &Harness) -> anyhow::Result<()> {
    let pair = h.pair().await?;
    let (_watch, local) = pair.probe("probe").await?;
    let probe: RpcEndpointRef<Probe> = pair.from_client(&local).await?;
    probe.ask(Echo::of("x")).await?;
    let before = (pair.client.counters(), pair.server.counters());
    for _ in 0..10 {
        probe.ask(Echo::of("x")).await?;
        probe.send(Note(1))?;
    }
    assert!(probe.ask(Fail("x".into())).await.is_err());
    let calls = vec![
        ("asks_remote", 11),
        ("sends_remote", 10),
        ("replies_received", 10),
        ("failures_received", 1),
    ];
    assert_eq!(grown(&pair.client, &before.0), calls);
    let served = grown(&pair.server, &before.1);
    let served: Grown =
        served.into_iter().filter(|(name, _)| *name != "errors_unhandled").collect();
    let answers =
        [("asks_received", 11), ("sends_received", 10), ("replies_sent", 10), ("failures_sent", 1)];
    assert_eq!(served, answers);
    Ok(())
}

/// What an endpoint has counted is there when it is gone; what comes too late is counted.
async fn an_endpoint_that_ends(h: &Harness) -> anyhow::Result<()> {
    let pair = h.pair().await?;
    let (_watch, probe) = pair.probe("probe").await?;
    let before = pair.server.counters();
    let held = probe.ask_with_timeout(Hold(1), Duration::from_secs(60));
    probe.ask(Echo::of("x")).await?;
    pair.server.stop(&probe)?;
    pair.server.stopped(&probe).await?;
    drop(held);
    assert_eq!(grown(&pair.server, &before), [("asks_local", 2)]);
    assert!(probe.send(Note(1)).is_err());
    assert_eq!(grown(&pair.server, &before), [("asks_local", 2)], "its sender knows");
    Ok(())
}

/// What waits for an endpoint, from here and from elsewhere, and what it is at.
async fn an_endpoint_that_is_behind(h: &Harness) -> anyhow::Result<()> {
    let pair = h.pair().await?;
    let (watch, local) = pair.probe("probe").await?;
    let remote: RpcEndpointRef<Probe> = pair.from_client(&local).await?;
    let (_, other) = pair.probe("other").await?;
    let other = pair.from_client(&other).await?;
    let held = local.ask(Wait(0));
    watch.log.reaches(2).await;
    for number in 0..20 {
        local.send(Note(number))?;
        remote.send(Note(number))?;
    }
    // It goes the same way behind them.
    other.ask(Echo::of("x")).await?;
    let of = |name: &str| {
        let found = pair.server.endpoints().into_iter().find(|known| known.name.as_str() == name);
        found.expect("an endpoint of the env")
    };
    let behind = of("probe");
    assert_eq!((behind.queued, behind.message.as_deref()), (40, Some("Wait")));
    assert!(behind.queued_bytes > 0 && behind.is_open && behind.restarts == 0, "{behind:?}");
    assert_eq!((of("other").queued, of("other").message.as_deref()), (0, Some("Echo")));
    watch.gate.open();
    held.await?;
    local.ask(Echo::of("x")).await?;
    remote.ask(Echo::of("x")).await?;
    assert_eq!((of("probe").queued, of("probe").message.as_deref()), (0, Some("Echo")));
    Ok(())
}

both! {
    messages_of_this_env,
    messages_of_another_env,
    an_endpoint_that_ends,
    an_endpoint_that_is_behind,
}
