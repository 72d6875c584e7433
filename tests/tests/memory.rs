//! What peers and endpoints must not make grow without end: what is of peers that are gone, and news
//! of the network that nobody hears.
#![cfg(test)]

use rpc_actix::{HandlerResult, RpcAddress, RpcEndpointRef, RpcEnv, RpcEnvConfig, endpoint};
use rpc_core::proto::CloseCode;
use rpc_tests::harness::{Probe, ProbeWatch, Wait};
use rpc_tests::raw_peer::{self, RawPeer, frame, hello, kind};
use serde::Deserialize;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Wake, Waker};
use tokio::sync::Semaphore;

const UNRESOLVED: u8 = 0x04;

async fn server() -> (RpcEnv, String) {
    let config = RpcEnvConfig::server("server", "127.0.0.1:0");
    let config = config.set("rpc.inbox.maxMessages", "16").unwrap();
    let env = rpc_actix::create(config).await.unwrap();
    let address = env.address().unwrap().to_string();
    (env, address)
}

/// A peer that has said hello; what it heard.
fn greet(address: &str, env: u64) -> (RawPeer, raw_peer::Frame) {
    let mut peer = RawPeer::connect(address);
    peer.say(&hello(env, None));
    let answer = peer.frame().unwrap();
    (peer, answer)
}

fn resolve() -> Vec<u8> {
    frame(kind::RESOLVE, &[&0_u32.to_be_bytes()[..], b"\x81\xa4name\xa1p"].concat())
}

#[tokio::test]
async fn peers_that_come_and_go_do_not_fill_an_inbox() {
    #[derive(Deserialize)]
    struct Reason {
        text: String,
    }
    let (env, address) = server().await;
    let watch = ProbeWatch::default();
    let probe: RpcEndpointRef<Probe> = env.setup_endpoint("p", Probe::new(&watch)).await.unwrap();
    // The endpoint is held until the gate opens.
    let held = tokio::spawn(probe.ask(Wait(1)));
    watch.log.has(|entry| entry == "wait 1").await;
    let attack = move || {
        for number in 1..1000_u64 {
            let (mut peer, _) = greet(&address, number);
            peer.send(&resolve());
            let answer = peer.frame().unwrap();
            if answer.kind == UNRESOLVED {
                let reason: Reason = rmp_serde::from_slice(&answer.payload[4..]).unwrap();
                return (address, number, reason.text);
            }
            // A message that nobody takes out, and a question that shows that it is there.
            peer.send(&frame(kind::ONE_WAY, &[0; 5]));
            peer.send(&frame(kind::PING, &[0; 8]));
            peer.expect(kind::PONG);
        }
        panic!("the inbox grows for ever");
    };
    let (address, number, text) = tokio::task::spawn_blocking(attack).await.unwrap();
    // Some of those before may not be known to be gone yet.
    assert!((17..200).contains(&number), "{number}");
    assert!(text.contains("of peers that are gone are in its inbox"), "{text}");
    assert!(text.contains("rpc.inbox.maxMessages (16)"), "{text}");
    watch.gate.open();
    held.await.unwrap().unwrap();
    // There is room again when they are handled.
    let back = move || {
        for number in 1001.. {
            let (mut peer, _) = greet(&address, number);
            peer.send(&resolve());
            if peer.frame().unwrap().kind == kind::RESOLVED {
                return;
            }
        }
    };
    tokio::task::spawn_blocking(back).await.unwrap();
    env.shutdown().await;
}

/// Hears of a peer only when it is let.
struct Deaf(Arc<Semaphore>);

#[endpoint]
impl Deaf {
    #[on_connected]
    async fn connected(&mut self, _peer: &RpcAddress) -> HandlerResult<()> {
        self.0.acquire().await?.forget();
        Ok(())
    }
}

#[tokio::test]
async fn nobody_connects_while_news_of_the_network_is_not_heard() {
    let (env, address) = server().await;
    let gate = Arc::new(Semaphore::new(0));
    env.setup_endpoint("deaf", Deaf(gate.clone())).await.unwrap();
    let attack = move || {
        for number in 1..1000_u64 {
            let (mut peer, answer) = greet(&address, number);
            if answer.kind == kind::CLOSE {
                let reason: raw_peer::Reason = rmp_serde::from_slice(&answer.payload).unwrap();
                return (address, number, reason);
            }
            peer.send(&frame(kind::PING, &[0; 8]));
            peer.expect(kind::PONG);
        }
        panic!("the inbox grows for ever");
    };
    let (address, number, reason) = tokio::task::spawn_blocking(attack).await.unwrap();
    // Each one that went before it is two events, or one if that is not known yet.
    assert!((8..=20).contains(&number), "{number}");
    assert_eq!(reason.code, CloseCode::Overloaded as u16);
    assert!(reason.text.contains("has 16 network events to handle first"), "{}", reason.text);
    gate.add_permits(10_000);
    let back = move || {
        let mut number = 1001;
        while greet(&address, number).1.kind != kind::HELLO {
            number += 1;
        }
    };
    tokio::task::spawn_blocking(back).await.unwrap();
    env.shutdown().await;
}

/// A task that waits for the end of something beside its work, and has done it: it is not kept until that end.
#[tokio::test]
async fn who_waited_for_an_end_is_forgotten() {
    struct Task;

    impl Wake for Task {
        fn wake(self: Arc<Self>) {}
    }

    let (env, _) = server().await;
    let (_watch, probe) = Probe::at(&env, "probe").await.unwrap();
    let poll = || {
        let task = Arc::new(Task);
        let waker = Waker::from(task.clone());
        let mut cx = Context::from_waker(&waker);
        assert!(pin!(env.await_termination()).as_mut().poll(&mut cx).is_pending());
        assert!(pin!(env.stopped(&probe)).as_mut().poll(&mut cx).is_pending());
        drop(waker);
        task
    };
    let _first = poll();
    for _ in 0..100 {
        assert_eq!(Arc::strong_count(&poll()), 1);
    }
    env.shutdown().await;
}
