//! What endpoints hear of the network: S121-S131. More is in `tests/connections.rs`.

use rpc_core::{HandlerResult, RpcAddress, RpcEndpointRef, RpcEnv, RpcError, endpoint};
use rpc_tests::harness::{Echo, Harness, Log, Probe};
use rpc_tests::raw_peer::{RawPeer, frame, hello, kind};

/// Writes down all network events.
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

    #[on_network_error]
    fn error(&mut self, error: &RpcError, peer: &RpcAddress) -> HandlerResult<()> {
        self.0.push(format!("error {:?} {peer}", error.kind()));
        Ok(())
    }
}

/// An endpoint of that env which writes down all network events.
pub(super) async fn watch(env: &RpcEnv) -> Result<Log, RpcError> {
    let log = Log::default();
    env.setup_endpoint("network-watcher", Watcher(log.clone())).await?;
    Ok(log)
}

fn address(env: &RpcEnv) -> String {
    env.address().expect("listens").to_string()
}

async fn s121_s122_s123_s127_both_servers_hear_of_each_other_by_their_listening_addresses(
    h: &Harness,
) -> anyhow::Result<()> {
    let (one, two) = (h.server("one").await?, h.server("two").await?);
    let (mine, theirs) = (watch(&one).await?, watch(&two).await?);
    let (_, local) = Probe::at(&two, "p").await?;
    let remote: RpcEndpointRef<Probe> = one.endpoint_ref(&local.to_string()).await?;
    for _ in 0..3 {
        // Once, not again with each message.
        assert_eq!(remote.ask(Echo::of("x")).await?, "x");
    }
    let (here, there) = (address(&one), address(&two));
    assert_eq!(mine.all(), [format!("up {there}")]);
    assert_eq!(theirs.all(), [format!("up {here}")]);
    two.shutdown().await;
    assert_eq!(mine.reaches(2).await, [format!("up {there}"), format!("down {there}")]);
    assert_eq!(theirs.all(), [format!("up {here}")]);
    Ok(())
}

async fn s121_s123_s128_s129_a_client_is_known_by_its_socket_and_knows_the_server_by_its_port(
    h: &Harness,
) -> anyhow::Result<()> {
    let pair = h.pair().await?;
    let (server, client) = (watch(&pair.server).await?, watch(&pair.client).await?);
    let (_, [_, remote]) = pair.probe_both_ways("p").await?;
    let seen_by_handlers = remote.ask(rpc_tests::harness::Who).await?.expect("an address");
    let there = address(&pair.server);
    assert_eq!(client.all(), [format!("up {there}")]);
    assert_eq!(server.all(), [format!("up {seen_by_handlers}")]);
    assert!(seen_by_handlers.starts_with("127.0.0.1:") && seen_by_handlers != there);
    pair.client.shutdown().await;
    assert_eq!(server.reaches(2).await[1], format!("down {seen_by_handlers}"));
    assert_eq!(client.all(), [format!("up {there}")]);
    Ok(())
}

async fn s129_a_client_hears_that_the_server_is_gone(h: &Harness) -> anyhow::Result<()> {
    let pair = h.pair().await?;
    let client = watch(&pair.client).await?;
    let (_, _refs) = pair.probe_both_ways("p").await?;
    let there = address(&pair.server);
    pair.server.shutdown().await;
    assert_eq!(client.reaches(2).await, [format!("up {there}"), format!("down {there}")]);
    Ok(())
}

async fn s124_an_error_on_a_connection_comes_before_its_end(h: &Harness) -> anyhow::Result<()> {
    let server = h.server("server").await?;
    let log = watch(&server).await?;
    let mut peer = RawPeer::connect(&address(&server));
    peer.say(&hello(5, Some("127.0.0.1:1")));
    peer.expect(kind::HELLO);
    log.reaches(1).await;
    // An answer to a call that never was.
    peer.send(&frame(kind::REPLY, &[0, 0, 0, 0, 0, 0, 0, 9, 0xc0]));
    assert!(peer.reason().is_some());
    let events = ["up", "error Protocol", "down"];
    assert_eq!(log.reaches(3).await, events.map(|event| format!("{event} 127.0.0.1:1")));
    Ok(())
}

async fn s125_every_endpoint_with_a_hook_hears_of_it(h: &Harness) -> anyhow::Result<()> {
    let pair = h.pair().await?;
    let logs = [Log::default(), Log::default(), Log::default()];
    for (number, log) in logs.iter().enumerate() {
        pair.server.setup_endpoint(format!("w{number}"), Watcher(log.clone())).await?;
    }
    let (watch, _refs) = pair.probe_both_ways("p").await?;
    for log in logs {
        assert!(log.reaches(1).await[0].starts_with("up "));
    }
    assert_eq!(watch.log.all(), ["start"]);
    Ok(())
}

async fn s131_a_connection_that_never_was_is_no_event(h: &Harness) -> anyhow::Result<()> {
    let server = h.server("server").await?;
    let log = watch(&server).await?;
    // One that closes at once, one that speaks something else, one that is cut off in its hello.
    drop(RawPeer::connect(&address(&server)));
    for says in [&b"GET / HTTP/1.1\r\n\r\n"[..], b"ARPC\0\0\0\x09\x01\0\0\0"] {
        let mut peer = RawPeer::connect(&address(&server));
        peer.send(says);
        if says.starts_with(b"GET") {
            assert!(peer.frame().is_none());
        }
    }
    let mut peer = RawPeer::connect(&address(&server));
    peer.say(&hello(5, Some("127.0.0.1:1")));
    peer.expect(kind::HELLO);
    drop(peer);
    assert_eq!(log.reaches(2).await, ["up 127.0.0.1:1", "down 127.0.0.1:1"]);
    Ok(())
}

rpc_tests::actix_only! {
    s121_s122_s123_s127_both_servers_hear_of_each_other_by_their_listening_addresses,
    s121_s123_s128_s129_a_client_is_known_by_its_socket_and_knows_the_server_by_its_port,
    s124_an_error_on_a_connection_comes_before_its_end,
    s125_every_endpoint_with_a_hook_hears_of_it,
    s129_a_client_hears_that_the_server_is_gone,
    s131_a_connection_that_never_was_is_no_event,
}
