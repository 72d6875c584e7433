//! Connections from their dial to their end: who speaks first, dials that cross, tries that back
//! off, what outlives a connection, silence, and the events that endpoints get of all that.
#![cfg(test)]

use rpc_actix::proto::{CloseCode, Hello};
use rpc_actix::{
    ErrorKind, HandlerResult, Outcome, RpcAddress, RpcEndpointRef, RpcEnv, RpcEnvConfig, RpcError,
    RpcMessage, Untyped, endpoint,
};
use rpc_tests::harness::{Log, Parking};
use rpc_tests::raw_peer::{RawPeer, frame, hello, kind, resolved};
use serde::{Deserialize, Serialize};
use std::net::TcpListener;
use std::sync::mpsc;
use std::time::Duration;

#[derive(Clone, Debug, Serialize, Deserialize, RpcMessage)]
struct Note(u64);

#[derive(Clone, Debug, Serialize, Deserialize, RpcMessage)]
#[rpc(reply = u64)]
struct Number;

/// Blocks its thread until the test says otherwise.
#[derive(Clone, Debug, Serialize, Deserialize, RpcMessage)]
#[rpc(reply = ())]
struct Block;

struct Watcher {
    log: Log,
    blocks: Parking<mpsc::Receiver<()>>,
}

#[endpoint]
impl Watcher {
    #[on_connected]
    async fn connected(&mut self, peer: &RpcAddress) -> HandlerResult<()> {
        self.log.push(format!("connected {peer}"));
        Ok(())
    }

    #[on_disconnected]
    async fn disconnected(&mut self, peer: &RpcAddress) -> HandlerResult<()> {
        self.log.push(format!("disconnected {peer}"));
        Ok(())
    }

    #[on_network_error]
    async fn error(&mut self, error: &RpcError, peer: &RpcAddress) -> HandlerResult<()> {
        self.log.push(format!("error {:?} {peer}", error.kind()));
        Ok(())
    }

    #[receive_and_reply]
    async fn number(&mut self, _msg: Number) -> HandlerResult<u64> {
        Ok(7)
    }

    #[receive_and_reply]
    async fn block(&mut self, _msg: Block) -> HandlerResult<()> {
        let gate = self.blocks.try_next().expect("a gate");
        self.log.push("blocks");
        let _ = gate.recv();
        Ok(())
    }
}

async fn env(settings: &[(&str, &str)]) -> (RpcEnv, Log, Parking<mpsc::Receiver<()>>) {
    let config = RpcEnvConfig::server("env", "127.0.0.1:0");
    let quick = [("rpc.io.reconnectMin", "1ms"), ("rpc.io.reconnectMax", "2ms")];
    let config = config.set_all(quick.iter().chain(settings).copied()).unwrap();
    let env = rpc_actix::create(config).await.unwrap();
    let (log, blocks) = (Log::default(), Parking::default());
    let watcher = Watcher { log: log.clone(), blocks: blocks.clone() };
    env.setup_endpoint("watcher", watcher).await.unwrap();
    (env, log, blocks)
}

/// The other side of a connection, on a thread of its own.
fn by_hand<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> tokio::task::JoinHandle<T> {
    tokio::task::spawn_blocking(work)
}

fn listen() -> (TcpListener, String) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    (listener, address)
}

/// An env's number below, and one above all that are drawn.
const SMALL: u64 = 1;
const LARGE: u64 = u64::MAX;

/// Serves a resolve.
fn serve(peer: &mut RawPeer, credit: u64) {
    let frame = peer.expect(kind::RESOLVE);
    let target = u32::from_be_bytes(frame.payload[..4].try_into().unwrap());
    peer.send(&resolved(target, &["Note", "Number"], credit));
}

// The hellos.

#[tokio::test]
async fn the_dialler_speaks_first_and_the_listener_only_when_it_has_seen_that() {
    let (env, _, _) = env(&[]).await;
    let address = env.address().unwrap().to_string();
    by_hand(move || {
        let mut peer = RawPeer::connect(&address);
        let bytes = {
            let mut bytes = bytes::BytesMut::new();
            hello(SMALL, None).put(&mut bytes);
            bytes
        };
        // All but the last byte: nothing comes back, or the read below would see it as well.
        let (last, most) = bytes.split_last().unwrap();
        peer.send(most);
        let mut other = RawPeer::connect(&address);
        other.say(&hello(SMALL + 1, None));
        other.expect(kind::HELLO);
        assert!(!peer.has_bytes());
        peer.send(&[*last]);
        peer.expect(kind::HELLO);
    })
    .await
    .unwrap();
    env.shutdown().await;
}

#[tokio::test]
async fn r11_a_peer_that_says_it_is_where_the_env_is() {
    let (env, log, _) = env(&[]).await;
    let address = env.address().unwrap().to_string();
    let told = by_hand(move || {
        let mut peer = RawPeer::connect(&address);
        peer.say(&hello(SMALL, Some(&address)));
        (peer.reason().unwrap(), address)
    });
    let (reason, address) = told.await.unwrap();
    assert_eq!(reason.code, CloseCode::Hello as u16);
    assert_eq!(reason.text, format!("the address {address} in the hello is that of this env"));
    assert!(log.is_empty());
    env.shutdown().await;
}

// Dials that cross (R67).

/// The env dials a peer that has dialled it as well and has the larger number: the env's dial is
/// the one that counts, and it says so.
#[tokio::test]
async fn r67_the_dial_of_the_smaller_env_counts() {
    let (env, log, _) = env(&[]).await;
    let here = env.address().unwrap().to_string();
    let (listener, there) = listen();
    let uri = format!("rpc://far@{there}");
    let peer = by_hand(move || {
        // The env's dial is under way: its hello has come and is not answered.
        let mut dialled = RawPeer::accept(&listener);
        dialled.expect(kind::HELLO);
        let mut dialling = RawPeer::connect(&here);
        dialling.say(&hello(LARGE, Some(&there)));
        let reason = dialling.reason().unwrap();
        assert_eq!(reason.code, CloseCode::Duplicate as u16);
        dialled.say(&hello(LARGE, Some(&there)));
        serve(&mut dialled, 9);
        dialled.expect(kind::ONE_WAY);
        (dialled, there)
    });
    let far: RpcEndpointRef<Untyped> = env.endpoint_ref(&uri).await.unwrap();
    far.send(Note(1)).unwrap();
    let (_connection, there) = peer.await.unwrap();
    assert_eq!(log.all(), [format!("connected {there}")]);
    env.shutdown().await;
}

/// The peer has the smaller number: its dial counts, and what waited goes out over that.
#[tokio::test]
async fn r67_the_dial_of_the_larger_env_gives_way() {
    for says_so in [true, false] {
        let (env, log, _) = env(&[]).await;
        let here = env.address().unwrap().to_string();
        let (listener, there) = listen();
        let uri = format!("rpc://far@{there}");
        let peer = by_hand(move || {
            let mut dialled = RawPeer::accept(&listener);
            dialled.expect(kind::HELLO);
            if says_so {
                dialled.refuse(CloseCode::Duplicate);
            }
            let mut dialling = RawPeer::connect(&here);
            dialling.say(&hello(SMALL, Some(&there)));
            // It may have dialled again meanwhile, and gives way once more.
            dialling.expect(kind::HELLO);
            serve(&mut dialling, 9);
            dialling.expect(kind::ONE_WAY);
            (dialling, dialled, there)
        });
        let far: RpcEndpointRef<Untyped> = env.endpoint_ref(&uri).await.unwrap();
        far.send(Note(1)).unwrap();
        let (_dialling, _dialled, there) = peer.await.unwrap();
        assert_eq!(log.all(), [format!("connected {there}")]);
        env.shutdown().await;
    }
}

/// Its dial counts, but it resets that before it is answered: what waited is dialled for again.
#[tokio::test]
async fn r67_a_dial_that_gives_way_to_one_that_ends_is_made_again() {
    let (env, _, _) = env(&[]).await;
    let here = env.address().unwrap().to_string();
    let (listener, there) = listen();
    let uri = format!("rpc://far@{there}");
    let peer = by_hand(move || {
        let mut dialled = RawPeer::accept(&listener);
        dialled.expect(kind::HELLO);
        let mut dialling = RawPeer::connect(&here);
        dialling.say(&hello(SMALL, Some(&there)));
        dialling.reset();
        let second = takes(&listener, &there, 9);
        (second, dialled)
    });
    let far = env.endpoint_ref::<Untyped>(&uri).await;
    assert!(far.is_ok(), "{far:?}");
    drop(peer.await.unwrap());
    env.shutdown().await;
}

/// A peer that says so and never comes is unreachable, and the error tells why.
#[tokio::test]
async fn r67_a_dial_that_gives_way_to_none_fails() {
    let (env, _, _) = env(&[]).await;
    let (listener, there) = listen();
    let refusing = by_hand(move || {
        for _ in 0..8 {
            let mut peer = RawPeer::accept(&listener);
            peer.expect(kind::HELLO);
            peer.refuse(CloseCode::Duplicate);
        }
    });
    let found = env.endpoint_ref::<Untyped>(&format!("rpc://far@{there}")).await;
    let error = found.unwrap_err();
    assert_eq!((error.kind(), error.outcome()), (ErrorKind::Unreachable, Outcome::NeverSent));
    assert!(error.text().contains("no dial comes"), "{error}");
    refusing.await.unwrap();
    env.shutdown().await;
}

// Lives of a peer.

#[tokio::test]
async fn r68_events_of_a_former_life_come_before_those_of_its_successor() {
    let (env, log, _) = env(&[]).await;
    let here = env.address().unwrap().to_string();
    let peers = by_hand(move || {
        let mut first = RawPeer::connect(&here);
        first.say(&hello(5, Some("127.0.0.1:1")));
        first.expect(kind::HELLO);
        let mut second = RawPeer::connect(&here);
        second.say(&hello(6, Some("127.0.0.1:1")));
        let reason = first.reason().unwrap();
        assert_eq!(reason.text, "another env has taken the address of this one");
        second.expect(kind::HELLO);
        second
    });
    let connection = peers.await.unwrap();
    let seen = log.reaches(3).await;
    let expected = ["connected", "disconnected", "connected"];
    assert_eq!(seen, expected.map(|event| format!("{event} 127.0.0.1:1")));
    drop(connection);
    env.shutdown().await;
}

#[tokio::test]
async fn events_come_once_for_an_env_that_has_two_connections() {
    let (env, log, _) = env(&[]).await;
    let here = env.address().unwrap().to_string();
    let peers = by_hand(move || {
        let both = [0, 1].map(|_| {
            let mut peer = RawPeer::connect(&here);
            peer.say(&hello(5, Some("127.0.0.1:1")));
            peer.expect(kind::HELLO);
            peer
        });
        // Another one, so that there is something to wait for.
        let mut other = RawPeer::connect(&here);
        other.say(&hello(6, Some("127.0.0.1:2")));
        other.expect(kind::HELLO);
        (both, other)
    });
    let ([first, second], other) = peers.await.unwrap();
    let connected = ["127.0.0.1:1", "127.0.0.1:2"].map(|peer| format!("connected {peer}"));
    assert_eq!(log.reaches(2).await, connected);
    drop(first);
    drop(other);
    assert_eq!(log.reaches(3).await[2], "disconnected 127.0.0.1:2");
    drop(second);
    assert_eq!(log.reaches(4).await[3], "disconnected 127.0.0.1:1");
    env.shutdown().await;
}

/// What is still under way on the connection that a peer has given up must not come behind what it says
/// on the next one (seed 2081 of the simulation).
#[tokio::test]
async fn who_dials_again_by_the_same_address_has_lost_its_former_connection() {
    let (env, log, _) = env(&[]).await;
    let here = env.address().unwrap().to_string();
    let peers = by_hand(move || {
        let dial = |dialled: &str| {
            let mut peer = RawPeer::connect(&here);
            peer.say(&hello(5, Some("127.0.0.1:1")).with_dialled(dialled));
            peer.expect(kind::HELLO);
            peer
        };
        let (mut first, mut other) = (dial("here"), dial("elsewhere"));
        let mut again = dial("here");
        let reason = first.reason().expect("the former connection is ended");
        assert_eq!(reason.code, CloseCode::Duplicate as u16, "{reason:?}");
        assert_eq!(reason.text, "the env at the other end has dialled again");
        for peer in [&mut other, &mut again] {
            peer.send(&frame(kind::PING, &[1; 8]));
            peer.expect(kind::PONG);
        }
        (other, again)
    });
    let peers = peers.await.unwrap();
    drop(peers);
    let seen = log.reaches(2).await;
    assert_eq!(
        seen,
        ["connected 127.0.0.1:1", "disconnected 127.0.0.1:1"],
        "it was there all the time"
    );
    env.shutdown().await;
}

/// The same where this env had dialled: whoever dials back names the connection that it has lost (seed 4495).
#[tokio::test]
async fn who_dials_back_names_the_connection_that_it_has_lost() {
    let (env, log, _) = env(&[]).await;
    let here = env.address().unwrap().to_string();
    let (listener, there) = listen();
    let uri = format!("rpc://far@{there}");
    let peers = by_hand(move || {
        let numbers_of = |peer: &mut RawPeer| {
            let hello: Hello = rmp_serde::from_slice(&peer.expect(kind::HELLO).payload).unwrap();
            (hello.number.expect("a dialler's hello has a number"), hello.follows)
        };
        let mut first = RawPeer::accept(&listener);
        let (number, follows) = numbers_of(&mut first);
        assert_eq!(follows, None);
        first.say(&hello(LARGE, Some(&there)));
        serve(&mut first, 1024);
        let back = |dialled: &str, number: u64, follows: u64| {
            let mut peer = RawPeer::connect(&here);
            let hello = hello(LARGE, Some(&there)).with_dialled(dialled);
            peer.say(&hello.with_number(number, Some(follows)));
            peer.expect(kind::HELLO);
            peer
        };
        let beside = back("elsewhere", 1, number.wrapping_add(1));
        first.send(&frame(kind::PING, &[1; 8]));
        first.expect(kind::PONG);
        let again = back("here", 2, number);
        let reason = first.reason().expect("the former connection is ended");
        assert_eq!(reason.code, CloseCode::Duplicate as u16, "{reason:?}");
        assert_eq!(reason.text, "the env at the other end has dialled again");
        drop((beside, again));
        let mut last = RawPeer::accept(&listener);
        let (next, follows) = numbers_of(&mut last);
        assert_ne!(next, number);
        assert_eq!(follows, Some(2));
        last.say(&hello(LARGE, Some(&there)));
        serve(&mut last, 1024);
        last.expect(kind::ONE_WAY);
        last
    });
    let far: RpcEndpointRef<Untyped> = env.endpoint_ref(&uri).await.unwrap();
    log.reaches(2).await;
    far.send(Note(1)).unwrap();
    peers.await.unwrap();
    env.shutdown().await;
}

/// Its connections come from different ports, and endpoints keep their books by address.
#[tokio::test]
async fn an_env_without_a_port_has_one_name_however_many_connections() {
    let (env, log, _) = env(&[]).await;
    let here = env.address().unwrap().to_string();
    let peers = by_hand(move || {
        [(5, None), (5, None), (6, Some("127.0.0.1:2"))].map(|(number, address)| {
            let mut peer = RawPeer::connect(&here);
            peer.say(&hello(number, address));
            peer.expect(kind::HELLO);
            peer
        })
    });
    let [first, second, other] = peers.await.unwrap();
    let seen = log.reaches(2).await;
    assert_eq!(seen[1], "connected 127.0.0.1:2");
    drop(first);
    drop(other);
    assert_eq!(log.reaches(3).await[2], "disconnected 127.0.0.1:2");
    drop(second);
    assert_eq!(log.reaches(4).await[3], format!("dis{}", seen[0]));
    env.shutdown().await;
}

// What outlives a connection.

/// A peer that takes a connection and resolves what it is asked for, with that much credit.
fn takes(listener: &TcpListener, there: &str, credit: u64) -> RawPeer {
    let mut peer = RawPeer::accept(listener);
    peer.expect(kind::HELLO);
    peer.say(&hello(LARGE, Some(there)));
    serve(&mut peer, credit);
    peer
}

#[tokio::test]
async fn r40_what_was_not_sent_goes_out_over_the_next_connection_and_what_was_is_unknown() {
    let (env, log, _) = env(&[]).await;
    let (listener, there) = listen();
    let uri = format!("rpc://far@{there}");
    let (go, told) = mpsc::channel();
    let peer = by_hand(move || {
        let mut first = takes(&listener, &there, 1);
        first.expect(kind::ASK);
        told.recv().unwrap();
        drop(first);
        let mut second = takes(&listener, &there, 1024);
        second.expect(kind::ONE_WAY);
        let ask = second.expect(kind::ASK);
        second.send(&frame(kind::REPLY, &[&ask.payload[..8], b"\x07"].concat()));
        (second, there)
    });
    let far: RpcEndpointRef<Untyped> = env.endpoint_ref(&uri).await.unwrap();
    let sent = far.ask(Number);
    far.send(Note(1)).unwrap();
    let waiting = far.ask(Number);
    go.send(()).unwrap();
    let error = sent.await.unwrap_err();
    assert_eq!((error.kind(), error.outcome()), (ErrorKind::Disconnected, Outcome::Unknown));
    assert_eq!(waiting.await.unwrap(), 7);
    let (_second, there) = peer.await.unwrap();
    let expected = ["connected", "disconnected", "connected"];
    assert_eq!(log.all(), expected.map(|event| format!("{event} {there}")));
    env.shutdown().await;
}

/// Spark sends it all the same.
#[tokio::test]
async fn s103_what_timed_out_before_it_left_is_never_sent() {
    let (env, _, _) = env(&[]).await;
    let (listener, there) = listen();
    let uri = format!("rpc://far@{there}");
    let (go, told) = mpsc::channel();
    let peer = by_hand(move || {
        let mut peer = takes(&listener, &there, 1);
        assert_eq!(peer.expect(kind::ONE_WAY).payload[4..], [1]);
        told.recv().unwrap();
        let credit = [&0_u32.to_be_bytes()[..], &9_u32.to_be_bytes(), &900_u64.to_be_bytes()];
        peer.send(&frame(0x20, &credit.concat()));
        assert_eq!(peer.expect(kind::ONE_WAY).payload[4..], [2]);
        peer
    });
    let far: RpcEndpointRef<Untyped> = env.endpoint_ref(&uri).await.unwrap();
    far.send(Note(1)).unwrap();
    let error = far.ask_with_timeout(Number, Duration::from_millis(5)).await.unwrap_err();
    assert_eq!((error.kind(), error.outcome()), (ErrorKind::Timeout, Outcome::NeverSent));
    far.send(Note(2)).unwrap();
    go.send(()).unwrap();
    peer.await.unwrap();
    env.shutdown().await;
}

#[tokio::test]
async fn nothing_new_is_sent_to_a_peer_that_has_said_goodbye() {
    let (env, _, _) = env(&[]).await;
    let (listener, there) = listen();
    let uri = format!("rpc://far@{there}");
    let (heard, goodbye) = tokio::sync::oneshot::channel();
    let (go, told) = mpsc::channel();
    let peer = by_hand(move || {
        let mut first = takes(&listener, &there, 1024);
        let ping = frame(kind::PING, &[0; 8]);
        first.send(&[frame(kind::GOODBYE, b"\x80"), ping.clone()].concat());
        first.expect(kind::PONG);
        heard.send(()).unwrap();
        told.recv().unwrap();
        first.send(&ping);
        first.expect(kind::PONG);
        drop(first);
        let mut second = takes(&listener, &there, 1024);
        second.expect(kind::ONE_WAY);
        second
    });
    let far: RpcEndpointRef<Untyped> = env.endpoint_ref(&uri).await.unwrap();
    goodbye.await.unwrap();
    far.send(Note(1)).unwrap();
    go.send(()).unwrap();
    peer.await.unwrap();
    env.shutdown().await;
}

/// A lookup keeps no ref when it fails; the wait before the next try is kept all the same.
#[tokio::test]
async fn l16_lookups_in_a_row_wait_between_their_tries() {
    let never = [
        ("rpc.io.reconnectMin", "24h"),
        ("rpc.io.reconnectMax", "24h"),
        ("rpc.lookupTimeout", "50ms"),
    ];
    let (env, _, _) = env(&never).await;
    let (listener, there) = listen();
    drop(listener);
    let uri = format!("rpc://far@{there}");
    let first = env.endpoint_ref::<Untyped>(&uri).await.unwrap_err();
    assert_eq!(first.kind(), ErrorKind::Unreachable);
    let second = env.endpoint_ref::<Untyped>(&uri).await.unwrap_err();
    assert_eq!((second.kind(), second.outcome()), (ErrorKind::Timeout, Outcome::NeverSent));
    env.shutdown().await;
}

/// Nobody can dial such an env; when it has connected again, the refs to its endpoints work again.
#[tokio::test]
async fn refs_to_an_env_without_a_port_outlive_its_connection() {
    let (env, log, _) = env(&[]).await;
    let here = env.address().unwrap().to_string();
    let connect = move || {
        let here = here.clone();
        by_hand(move || {
            let mut peer = RawPeer::connect(&here);
            peer.say(&hello(5, None));
            peer.expect(kind::HELLO);
            peer
        })
    };
    let answers = |mut peer: RawPeer| {
        by_hand(move || {
            serve(&mut peer, 9);
            let ask = peer.expect(kind::ASK);
            peer.send(&frame(kind::REPLY, &[&ask.payload[..8], b"\x07"].concat()));
            peer
        })
    };
    let first = connect().await.unwrap();
    log.reaches(1).await;
    let first = answers(first);
    let uri = "rpc-client://far@0000000000000005";
    let far: RpcEndpointRef<Untyped> = env.endpoint_ref(uri).await.unwrap();
    assert_eq!(far.ask(Number).await.unwrap(), 7);
    drop(first.await.unwrap());
    log.reaches(2).await;
    let error = far.ask(Number).await.unwrap_err();
    assert_eq!((error.kind(), error.outcome()), (ErrorKind::Unreachable, Outcome::NeverSent));
    // Nobody can be dialled, which is known at once.
    let error = far.send(Note(1)).unwrap_err();
    assert_eq!((error.kind(), error.outcome()), (ErrorKind::Unreachable, Outcome::NeverSent));
    assert_eq!(env.counters().dead_letters_unsent, 0);
    let second = connect().await.unwrap();
    log.reaches(3).await;
    let second = answers(second);
    assert_eq!(far.ask(Number).await.unwrap(), 7);
    drop(second.await.unwrap());
    env.shutdown().await;
}

/// A second connection, under another name of this env say, comes and goes without them.
#[tokio::test]
async fn refs_to_an_env_without_a_port_have_the_connection_that_its_next_one_takes_up() {
    let (env, _, _) = env(&[]).await;
    let here = env.address().unwrap().to_string();
    let peers = by_hand(move || {
        [(); 2].map(|()| {
            let mut peer = RawPeer::connect(&here);
            peer.say(&hello(5, None));
            peer.expect(kind::HELLO);
            peer.send(&frame(kind::PING, &[1; 8]));
            peer.expect(kind::PONG);
            peer
        })
    });
    let [mut first, second] = peers.await.unwrap();
    let first = by_hand(move || {
        serve(&mut first, 9);
        first.expect(kind::ONE_WAY);
        first
    });
    let far: RpcEndpointRef<Untyped> =
        env.endpoint_ref("rpc-client://far@0000000000000005").await.unwrap();
    drop(second);
    far.send(Note(1)).unwrap();
    first.await.unwrap();
    env.shutdown().await;
}

// Silence.

#[tokio::test]
async fn r61_a_peer_that_breaks_its_promise_to_be_heard_is_gone() {
    let short = [("rpc.io.heartbeat", "10ms"), ("rpc.io.deadAfter", "40ms")];
    let (env, log, _) = env(&short).await;
    let here = env.address().unwrap().to_string();
    let silent = by_hand(move || {
        let mut peer = RawPeer::connect(&here);
        peer.say(&hello(5, Some("127.0.0.1:1")).with_heartbeat(Duration::from_millis(10)));
        peer.reason().unwrap()
    });
    let reason = silent.await.unwrap();
    assert_eq!(reason.code, CloseCode::Timeout as u16);
    assert_eq!(reason.text, "nothing was heard of the peer for 40ms (rpc.io.deadAfter)");
    let expected = ["connected", "disconnected"];
    assert_eq!(log.reaches(2).await, expected.map(|event| format!("{event} 127.0.0.1:1")));
    env.shutdown().await;
}

/// A peer that has promised nothing is asked, and gone only when it does not answer.
#[tokio::test]
async fn a_peer_that_promises_nothing_is_asked_whether_it_lives() {
    let (env, log, _) = env(&[("rpc.io.heartbeat", "10ms"), ("rpc.io.deadAfter", "500ms")]).await;
    let here = env.address().unwrap().to_string();
    let silent = by_hand(move || {
        let mut peer = RawPeer::connect(&here);
        peer.skips_liveness = false;
        peer.say(&hello(5, None));
        peer.expect(kind::HELLO);
        let mut pinged = 0;
        while pinged < 5 {
            let ping = peer.frame().unwrap();
            if ping.kind == kind::PING {
                peer.send(&frame(kind::PONG, &ping.payload));
                pinged += 1;
            }
        }
        peer.reason().unwrap()
    });
    assert_eq!(silent.await.unwrap().code, CloseCode::Timeout as u16);
    assert_eq!(log.reaches(2).await.len(), 2);
    env.shutdown().await;
}

/// A blocked thread reads nothing, so its peer seems to be silent. That is neither a reason to be
/// silent as well nor, when the thread goes on, to take the peer for dead: it was heard in time.
#[tokio::test]
async fn r56_a_thread_that_was_blocked_for_long_does_not_take_its_peer_for_dead() {
    let (env, log, blocks) =
        env(&[("rpc.io.heartbeat", "10ms"), ("rpc.io.deadAfter", "300ms")]).await;
    let here = env.address().unwrap().to_string();
    let (release, gate) = mpsc::channel();
    blocks.leave(gate);
    let mut peer = by_hand(move || {
        let mut peer = RawPeer::connect(&here);
        peer.skips_liveness = false;
        peer.say(&hello(5, Some("127.0.0.1:1")).with_heartbeat(Duration::from_millis(10)));
        peer.expect(kind::HELLO);
        peer
    })
    .await
    .unwrap();
    let watcher = env.local_ref::<Watcher>("watcher").unwrap();
    let blocked = watcher.ask(Block);
    let peer = by_hand(move || {
        // Longer than the other side would wait if it heard nothing.
        for _ in 0..50 {
            peer.expect(kind::HEARTBEAT);
            peer.send(&frame(kind::HEARTBEAT, &[]));
        }
        release.send(()).unwrap();
        peer.send(&frame(kind::PING, &[0; 8]));
        while peer.frame().expect("the connection lives").kind != kind::PONG {}
        peer
    })
    .await
    .unwrap();
    blocked.await.unwrap();
    assert!(!log.all().iter().any(|entry| entry.starts_with("disconnected")));
    drop(peer);
    env.shutdown().await;
}

/// The thread of the connection is blocked by a handler; the env's own thread is not (R56).
#[tokio::test]
async fn r56_a_blocked_arbiter_still_gives_signs_of_life() {
    let (env, log, blocks) = env(&[("rpc.io.heartbeat", "10ms")]).await;
    let here = env.address().unwrap().to_string();
    let (release, gate) = mpsc::channel();
    blocks.leave(gate);
    let peer = by_hand({
        let here = here.clone();
        move || {
            let mut peer = RawPeer::connect(&here);
            peer.skips_liveness = false;
            peer.say(&hello(5, Some("127.0.0.1:1")).with_heartbeat(Duration::from_secs(60)));
            peer.expect(kind::HELLO);
            peer
        }
    });
    let mut peer = peer.await.unwrap();
    let watcher = env.local_ref::<Watcher>("watcher").unwrap();
    let blocked = watcher.ask(Block);
    log.has(|entry| entry == "blocks").await;
    by_hand(move || {
        for _ in 0..5 {
            peer.expect(kind::HEARTBEAT);
        }
        // It is read by nobody as long as the thread is blocked.
        peer.send(&frame(kind::PING, &[0; 8]));
        for _ in 0..5 {
            peer.expect(kind::HEARTBEAT);
        }
        release.send(()).unwrap();
        while peer.frame().unwrap().kind != kind::PONG {}
    })
    .await
    .unwrap();
    blocked.await.unwrap();
    env.shutdown().await;
}
