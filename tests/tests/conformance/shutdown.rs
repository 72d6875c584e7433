//! The end of an env: S132-S138.

use rpc_core::{
    EndpointContext, ErrorKind, HandlerResult, RpcAddress, RpcEndpointRef, RpcMessage, endpoint,
};
use rpc_tests::harness::{Echo, Gate, Harness, Hold, Log, Note, Probe, Wait};
use serde::{Deserialize, Serialize};

/// Writes down what the network does, and its end.
struct Watcher(Log);

#[endpoint]
impl Watcher {
    #[on_connected]
    fn up(&mut self, _peer: &RpcAddress) -> HandlerResult<()> {
        self.0.push("up");
        Ok(())
    }

    #[on_disconnected]
    fn down(&mut self, _peer: &RpcAddress) -> HandlerResult<()> {
        self.0.push("down");
        Ok(())
    }

    #[on_stop]
    fn stopped(&mut self) -> HandlerResult<()> {
        self.0.push("stop");
        Ok(())
    }
}

async fn s132_ones_own_shutdown_is_no_network_event(h: &Harness) -> anyhow::Result<()> {
    let (server, peer) = (h.server("server").await?, h.server("peer").await?);
    let (mine, theirs) = (Log::default(), Log::default());
    let watcher = server.setup_endpoint("w", Watcher(mine.clone())).await?;
    peer.setup_endpoint("w", Watcher(theirs.clone())).await?;
    peer.endpoint_ref::<Watcher>(&watcher.to_string()).await?;
    mine.reaches(1).await;
    server.shutdown().await;
    assert_eq!(mine.all(), ["up", "stop"]);
    assert_eq!(theirs.reaches(2).await, ["up", "down"]);
    Ok(())
}

async fn s133_shutdown_is_idempotent_and_can_be_waited_for(h: &Harness) -> anyhow::Result<()> {
    let pair = h.pair().await?;
    let (watch, [_, remote]) = pair.probe_both_ways("p").await?;
    assert_eq!(remote.ask(Echo::of("x")).await?, "x");
    let other = pair.server.clone();
    tokio::join!(
        pair.server.shutdown(),
        other.shutdown(),
        other.await_termination(),
        pair.server.await_termination()
    );
    pair.server.shutdown().await;
    assert_eq!(watch.log.all(), ["start", "echo x", "stop"]);
    Ok(())
}

/// Says goodbye to a peer when it stops.
struct Farewell {
    to: RpcEndpointRef<Probe>,
    log: Log,
}

#[endpoint]
impl Farewell {
    #[on_stop]
    async fn stopped(&mut self) -> HandlerResult<()> {
        self.log.push("stopping");
        self.log.push(self.to.ask(Echo::of("bye")).await?);
        Ok(())
    }
}

async fn s134_endpoints_end_first_and_connections_carry_what_they_still_say(
    h: &Harness,
) -> anyhow::Result<()> {
    let pair = h.pair().await?;
    let (watch, [_, remote]) = pair.probe_both_ways("p").await?;
    let (theirs, mine) = Probe::at(&pair.client, "mine").await?;
    let log = Log::default();
    let to: RpcEndpointRef<Probe> = pair.server.decode(&pair.client.encode(&mine)?)?;
    pair.server.setup_endpoint("farewell", Farewell { to, log: log.clone() }).await?;
    let open = remote.ask(Wait(1));
    watch.log.reaches(2).await;
    let opened = async { watch.gate.open() };
    tokio::join!(pair.server.shutdown(), opened);
    assert_eq!(log.all(), ["stopping", "bye"]);
    assert_eq!(theirs.log.all(), ["start", "echo bye"]);
    assert_eq!(open.await?, 1, "the answer of a handler that was at work has come");
    assert_eq!(watch.log.all().last().map(String::as_str), Some("stop"));
    Ok(())
}

async fn s135_open_asks_end_with_the_env(h: &Harness) -> anyhow::Result<()> {
    let pair = h.pair().await?;
    let (watch, [local, remote]) = pair.probe_both_ways("p").await?;
    let (held_local, held_remote) = (local.ask(Hold(1)), remote.ask(Hold(2)));
    let calls = [watch.held.next().await, watch.held.next().await];
    pair.server.shutdown().await;
    // Spark's local one might never end. Ours have been handled, so that their end is unknown.
    for end in [held_local.await, held_remote.await] {
        let error = end.unwrap_err();
        assert!(!error.is_timeout() && !error.is_never_sent(), "{error:?}");
    }
    for call in calls {
        assert!(call.is_cancelled());
        call.reply(1);
    }
    Ok(())
}

async fn s135_open_asks_end_with_the_env_that_made_them(h: &Harness) -> anyhow::Result<()> {
    let pair = h.pair().await?;
    let (watch, [_, remote]) = pair.probe_both_ways("p").await?;
    let open = remote.ask(Hold(1));
    let call = watch.held.next().await;
    pair.client.shutdown().await;
    let error = open.await.unwrap_err();
    assert!(!error.is_timeout() && !error.is_never_sent(), "{error:?}");
    call.cancelled().await;
    call.reply(1);
    Ok(())
}

async fn s137_what_is_queued_is_handled_before_on_stop(h: &Harness) -> anyhow::Result<()> {
    let pair = h.pair().await?;
    let (watch, local) = pair.probe("p").await?;
    let (other, second) = pair.probe("q").await?;
    let held = [local.ask(Wait(0)), second.ask(Wait(0))];
    tokio::join!(watch.log.reaches(2), other.log.reaches(2));
    for number in 1..=3 {
        local.send(Note(number))?;
        second.send(Note(number))?;
    }
    let open = async {
        watch.gate.open();
        other.gate.open();
    };
    tokio::join!(pair.server.shutdown(), open);
    for log in [watch.log, other.log] {
        assert_eq!(
            log.all(),
            ["start", "wait 0", "waited 0", "note 1", "note 2", "note 3", "stop"]
        );
    }
    for held in held {
        assert_eq!(held.await?, 0, "and is answered");
    }
    Ok(())
}

/// An ask: the handler shuts its own env down.
#[derive(Debug, Serialize, Deserialize, RpcMessage)]
#[rpc(reply = ())]
struct ShutDown;

/// Ends its env.
struct Ender(Gate);

#[endpoint]
impl Ender {
    #[receive_and_reply]
    async fn end(&mut self, _msg: ShutDown, cx: &mut EndpointContext<Self>) -> HandlerResult<()> {
        cx.env()?.shutdown().await;
        let late = Probe::at(&cx.env()?, "late").await.unwrap_err();
        assert_eq!(late.kind(), ErrorKind::EnvStopped, "it has begun");
        Ok(())
    }

    #[on_stop]
    fn stopped(&mut self) -> HandlerResult<()> {
        self.0.open();
        Ok(())
    }
}

async fn s138_a_handler_may_shut_its_env_down(h: &Harness) -> anyhow::Result<()> {
    let pair = h.pair().await?;
    let gate = Gate::default();
    let ender = pair.server.setup_endpoint("e", Ender(gate.clone())).await?;
    let remote = pair.from_client(&ender).await?;
    // Spark's would wait for itself. The call that asked for it is answered before the end.
    remote.ask(ShutDown).await?;
    pair.server.await_termination().await;
    gate.wait().await;
    Ok(())
}

rpc_tests::both! {
    s134_endpoints_end_first_and_connections_carry_what_they_still_say,
    s133_shutdown_is_idempotent_and_can_be_waited_for,
    s135_open_asks_end_with_the_env,
    s135_open_asks_end_with_the_env_that_made_them,
    s137_what_is_queued_is_handled_before_on_stop,
    s138_a_handler_may_shut_its_env_down,
}

rpc_tests::actix_only! {
    s132_ones_own_shutdown_is_no_network_event,
}
