//! Peers that misbehave in a conversation: whatever comes, the process lives, other peers are not
//! disturbed, and the sender is told what was wrong. What can be said in one go is a case of
//! `rpc_tests::badpeer`.
#![cfg(test)]

use rpc_actix::{
    EndpointContext, HandlerResult, RpcCallContext, RpcEndpointRef, RpcEnv, RpcEnvConfig,
    RpcMessage, endpoint,
};
use rpc_tests::raw_peer::{
    self, RawPeer, Reason, ask, bytes_of, flagged as frame, resolve as resolve_as,
};
use serde::{Deserialize, Serialize};
use std::sync::Arc;
use std::time::Duration;
use tokio::runtime::Runtime;
use tokio::sync::Notify;

// The env under attack, and a peer that behaves.

#[derive(Debug, Serialize, Deserialize, RpcMessage)]
#[rpc(reply = String)]
struct Echo {
    text: String,
}

#[derive(Debug, Serialize, Deserialize, RpcMessage)]
#[rpc(reply = Option<Duration>)]
struct Remaining;

#[derive(Debug, Serialize, Deserialize, RpcMessage)]
#[rpc(reply = ())]
struct Hold;

/// Its handler may be dropped.
#[derive(Debug, Serialize, Deserialize, RpcMessage)]
#[rpc(reply = (), abort)]
struct Abort;

/// Never answered; whoever holds the call holds all that belongs to it.
#[derive(Debug, Serialize, Deserialize, RpcMessage)]
#[rpc(reply = ())]
struct Keep;

struct Probe {
    release: Arc<Notify>,
}

/// The numbers of the messages: the order of the handlers.
const ECHO: u16 = 0;
const REMAINING: u16 = 1;
const HOLD: u16 = 2;
const ABORT: u16 = 3;
const KEEP: u16 = 4;

#[endpoint]
impl Probe {
    #[receive_and_reply]
    async fn echo(&mut self, msg: Echo) -> HandlerResult<String> {
        Ok(msg.text)
    }

    #[receive_and_reply]
    async fn remaining(
        &mut self,
        _msg: Remaining,
        cx: &mut EndpointContext<Self>,
    ) -> HandlerResult<Option<Duration>> {
        Ok(cx.remaining())
    }

    #[receive_and_reply]
    async fn hold(&mut self, _msg: Hold, cx: &mut EndpointContext<Self>) -> HandlerResult<()> {
        tokio::select! {
            () = self.release.notified() => Ok(()),
            () = cx.cancelled() => Err(anyhow::anyhow!("nobody waits").into()),
        }
    }

    #[receive_and_reply]
    async fn abort(&mut self, _msg: Abort) -> HandlerResult<()> {
        std::future::pending().await
    }

    #[receive_and_reply]
    fn keep(&mut self, _msg: Keep, call: RpcCallContext<()>) -> HandlerResult<()> {
        std::mem::forget(call);
        Ok(())
    }
}

struct Victim {
    runtime: Runtime,
    env: RpcEnv,
    _client: RpcEnv,
    healthy: RpcEndpointRef<Probe>,
}

impl Victim {
    fn start() -> Self {
        Self::with(&[])
    }

    fn with(settings: &[(&str, &str)]) -> Self {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let (env, client, healthy) = runtime.block_on(async {
            let config = RpcEnvConfig::server("victim", "127.0.0.1:0");
            let config = config.set_all(settings.iter().copied()).unwrap();
            let env = rpc_actix::create(config).await.unwrap();
            for name in ["probe", "own"] {
                let probe = Probe { release: Arc::default() };
                env.setup_endpoint(name, probe).await.unwrap();
            }
            let client = rpc_actix::create(RpcEnvConfig::client("healthy")).await.unwrap();
            let uri = format!("rpc://own@{}", env.address().unwrap());
            let healthy = client.endpoint_ref(&uri).await.unwrap();
            (env, client, healthy)
        });
        let victim = Self { runtime, env, _client: client, healthy };
        victim.is_well();
        victim
    }

    /// The three things that hold after every attack.
    fn is_well(&self) {
        let text = "still here".to_owned();
        let answer = self.runtime.block_on(self.healthy.ask(Echo { text: text.clone() }));
        assert_eq!(answer.unwrap(), text);
    }

    fn connect(&self) -> RawPeer {
        RawPeer::connect(&self.env.address().unwrap().to_string())
    }

    /// A peer that has said hello, and has heard one.
    fn greet(&self) -> RawPeer {
        let mut peer = self.connect();
        peer.send(&hello());
        let hello = peer.frame().unwrap();
        assert_eq!(hello.kind, 0x01);
        peer
    }

    /// A peer that has resolved the probe as target 0.
    fn resolve(&self) -> RawPeer {
        let mut peer = self.greet();
        peer.send(&resolve("probe"));
        assert_eq!(peer.frame().unwrap().kind, 0x03);
        peer
    }
}

// The bytes.

fn hello() -> Vec<u8> {
    bytes_of(&raw_peer::hello(7, None))
}

fn resolve(name: &str) -> Vec<u8> {
    resolve_as(0, name)
}

fn release(target: u32) -> Vec<u8> {
    frame(0x06, 0, 0, &target.to_be_bytes())
}

fn echo(text: &str) -> Vec<u8> {
    rmp_serde::to_vec_named(&Echo { text: text.to_owned() }).unwrap()
}

/// The connection is as good as before.
#[track_caller]
fn is_served(peer: &mut RawPeer) {
    peer.send(&ask(ECHO, 9, 10_000, &echo("fine")));
    let reply = peer.frame().unwrap();
    assert_eq!((reply.kind, &reply.payload[8..]), (0x12, &b"\xa4fine"[..]));
}

const PROTOCOL: u16 = 1;
const TOO_LARGE: u16 = 3;
const OVERLOADED: u16 = 7;
const WINDOW: u16 = 8;

// Before the hello.

/// Those who say nothing make room for those who do, the oldest first.
#[test]
fn r6_a_flood_of_silent_connections() {
    let victim = Victim::with(&[("rpc.io.maxUnauthenticated", "4")]);
    let mut silent: Vec<_> = (0..4).map(|_| victim.connect()).collect();
    let newcomer = victim.greet();
    assert!(silent[0].frame().is_none(), "the oldest is closed without a word");
    for (place, peer) in silent.iter_mut().enumerate().skip(1) {
        peer.send(&hello());
        assert_eq!(peer.frame().unwrap().kind, 0x01, "connection {place}");
    }
    drop(newcomer);
    victim.is_well();
}

#[test]
fn l5_more_connections_than_there_may_be() {
    // The healthy client has one of them.
    let victim = Victim::with(&[("rpc.io.maxConnections", "2")]);
    let second = victim.greet();
    let mut third = victim.connect();
    third.send(&hello());
    third.expect_close(OVERLOADED, "2 connections are open (rpc.io.maxConnections)");
    drop(second);
    // The place comes back when the env has seen the end of that one.
    while {
        let mut next = victim.connect();
        next.send(&hello());
        next.frame().unwrap().kind != 0x01
    } {}
    victim.is_well();
}

// Frames.

/// A whole session: hello, a resolution, two asks.
fn session() -> Vec<u8> {
    let asks = [ask(ECHO, 1, 10_000, &echo("one")), ask(REMAINING, 2, 10_000, b"\xc0")];
    [hello(), resolve("probe"), asks.concat()].concat()
}

#[test]
fn r16_a_session_that_is_cut_at_every_byte() {
    let victim = Victim::start();
    let session = session();
    for end in 0..=session.len() {
        let mut peer = victim.connect();
        peer.send(&session[..end]);
        drop(peer);
    }
    victim.is_well();
}

#[test]
fn r17_a_session_in_pieces_of_any_size() {
    let victim = Victim::start();
    for size in [1, 2, 3, 7, 64, usize::MAX] {
        let mut peer = victim.connect();
        for piece in session().chunks(size.min(session().len())) {
            peer.send(piece);
        }
        let kinds = [(); 4].map(|()| peer.frame().unwrap().kind);
        assert_eq!(kinds, [0x01, 0x03, 0x12, 0x12], "in pieces of {size}");
    }
    victim.is_well();
}

// Bodies.

// Targets.

/// A number means something else after its release: nothing of what it meant before is said of it.
#[test]
fn nothing_is_said_of_a_number_that_was_released() {
    let victim = Victim::with(&[("rpc.inbox.maxMessages", "16")]);
    let mut peer = victim.resolve();
    peer.send(&ask(KEEP, 8, 10_000, b"\xc0"));
    peer.send(&ask(HOLD, 0, 10_000, b"\xc0"));
    for call in 1..6 {
        peer.send(&ask(ECHO, call, 10_000, &echo("x")));
    }
    peer.send(&[release(0), resolve("own")].concat());
    assert_eq!(peer.frame().unwrap().kind, 0x03);
    // More than half of the window is handled now, and then the endpoint ends.
    peer.send(&frame(0x14, 0, 0, &[0; 8]));
    for call in 1..6_u64 {
        let reply = peer.frame().unwrap();
        assert_eq!((reply.kind, &reply.payload[..8]), (0x12, &call.to_be_bytes()[..]));
    }
    let probe = victim.env.local_ref::<Probe>("probe").unwrap();
    victim.env.stop(&probe).unwrap();
    victim.runtime.block_on(victim.env.stopped(&probe)).unwrap();
    is_served(&mut peer);
    victim.is_well();
}

#[test]
fn a_window_that_is_released_is_there_for_others() {
    #[derive(Deserialize)]
    struct Resolved {
        credit: (u64, u64),
    }
    let victim = Victim::start();
    let mut peer = victim.greet();
    let mut first = None;
    for call in 0..80 {
        peer.send(&resolve("probe"));
        let resolved = peer.frame().unwrap();
        assert_eq!(resolved.kind, 0x03);
        let resolved: Resolved = rmp_serde::from_slice(&resolved.payload[4..]).unwrap();
        let first = *first.get_or_insert(resolved.credit);
        assert_eq!(resolved.credit, first, "round {call}");
        peer.send(&ask(KEEP, call, 10_000, b"\xc0"));
        peer.send(&ask(ECHO, 100 + call, 10_000, &echo("x")));
        assert_eq!(peer.frame().unwrap().kind, 0x12);
        peer.send(&release(0));
    }
    victim.is_well();
}

#[test]
fn windows_that_are_open_do_not_add_up() {
    let victim = Victim::start();
    let mut peer = victim.resolve();
    for target in 1..300 {
        peer.send(&resolve_as(target, "probe"));
        let answer = peer.frame().unwrap();
        assert_eq!(answer.kind, if target < 256 { 0x03 } else { 0x04 }, "target {target}");
    }
    // Another endpoint is another matter, and a place that is given back is there again.
    peer.send(&resolve_as(256, "own"));
    assert_eq!(peer.frame().unwrap().kind, 0x03);
    peer.send(&[release(7), resolve_as(7, "probe")].concat());
    assert_eq!(peer.frame().unwrap().kind, 0x03);
    victim.is_well();
}

#[test]
fn windows_that_are_released_full_do_not_add_up() {
    let victim = Victim::with(&[("rpc.inbox.maxMessages", "16")]);
    let mut peer = victim.resolve();
    peer.send(&ask(HOLD, 0, 10_000, b"\xc0"));
    let mut asked = 0;
    let refused = loop {
        peer.send(&release(0));
        peer.send(&resolve("probe"));
        let answer = peer.frame().unwrap();
        if answer.kind != 0x03 {
            break answer;
        }
        asked += 1;
        peer.send(&ask(ECHO, asked, 10_000, &echo("x")));
        assert!(asked < 100, "the inbox grows");
    };
    assert_eq!((refused.kind, asked), (0x04, 8), "half of the inbox");
    let reason: Reason = rmp_serde::from_slice(&refused.payload[4..]).unwrap();
    assert_eq!(reason.code, 2);
    assert!(reason.text.contains("rpc.inbox.maxMessages (16)"), "{}", reason.text);
    // What was taken is handled, and then there is room again.
    peer.send(&frame(0x14, 0, 0, &[0; 8]));
    for call in 1..=asked {
        let reply = peer.frame().unwrap();
        assert_eq!((reply.kind, &reply.payload[..8]), (0x12, &call.to_be_bytes()[..]));
    }
    peer.send(&resolve("probe"));
    assert_eq!(peer.frame().unwrap().kind, 0x03);
    is_served(&mut peer);
    victim.is_well();
}

#[test]
fn what_a_relay_is_asked_for_is_checked() {
    let victim = Victim::start();
    let client = &victim._client;
    let far = Probe { release: Arc::default() };
    victim.runtime.block_on(client.setup_endpoint("far", far)).unwrap();
    let resolve = |env: u64| {
        #[derive(Serialize)]
        struct Body {
            name: &'static str,
            env: u64,
        }
        let body = rmp_serde::to_vec_named(&Body { name: "far", env }).unwrap();
        frame(0x02, 0, 0, &[&[0; 4], &*body].concat())
    };
    let far = resolve(client.id().as_u64());
    let greet = || {
        let mut peer = victim.greet();
        peer.send(&far);
        assert_eq!(peer.frame().unwrap().kind, 0x03);
        peer
    };
    is_served(&mut greet());
    // A number stands for one thing at a time, and is free when that is not there.
    let mut peer = greet();
    peer.send(&far);
    peer.expect_close(PROTOCOL, "target 0 was resolved again before its release");
    let mut peer = victim.greet();
    for _ in 0..3 {
        peer.send(&resolve(12345));
        assert_eq!(peer.frame().unwrap().kind, 0x04);
    }
    peer.send(&[&*far, &release(0), &far].concat());
    while peer.frame().unwrap().kind != 0x03 {}
    // Before the answer nothing may be sent.
    let mut peer = victim.greet();
    peer.send(&[far.clone(), ask(ECHO, 1, 10_000, &echo("x"))].concat());
    peer.expect_close(PROTOCOL, "a message for target 0, which is not resolved");
    // Nor more than the window.
    let mut peer = greet();
    peer.send(&ask(HOLD, 0, 10_000, b"\xc0"));
    peer.send(&frame(0x10, 0, REMAINING, &[0, 0, 0, 0, 0xc0]).repeat(2000));
    let what = format!("rpc-client://far@{}", client.id());
    let own = victim.env.address().unwrap();
    peer.expect_close(
        WINDOW,
        &format!("more than its window allows was sent to {what} through rpc://{own}"),
    );
    victim.is_well();
}

// Calls.

// Floods.

/// More messages than the window allows.
/// A caller that does not say that it has given up, or cannot be heard: its own time ends it.
#[test]
fn r38_a_deadline_that_passes_without_a_cancel() {
    let victim = Victim::start();
    let mut peer = victim.resolve();
    let mut left = 20;
    loop {
        peer.send(&ask(HOLD, 1, left, &[0x90]));
        let answer = peer.frame().unwrap();
        assert_eq!((answer.kind, &answer.payload[..8]), (0x13, &1_u64.to_be_bytes()[..]));
        let reason: Reason = rmp_serde::from_slice(&answer.payload[8..]).unwrap();
        // On a busy machine the time may be over before the handler has begun.
        if reason.code == 1001 {
            left *= 2;
            continue;
        }
        // The handler has seen that nobody waits any more, and failed: too late to be the caller's
        // error.
        let text = "the time of the ask was over when its handler failed: nobody waits";
        assert_eq!((reason.code, reason.text.as_str()), (3001, text));
        break;
    }
    // A handler that may be dropped is.
    loop {
        peer.send(&ask(ABORT, 2, left, &[0x90]));
        let answer = peer.frame().unwrap();
        assert_eq!((answer.kind, &answer.payload[..8]), (0x13, &2_u64.to_be_bytes()[..]));
        let reason: Reason = rmp_serde::from_slice(&answer.payload[8..]).unwrap();
        if reason.code == 1 {
            break;
        }
        assert_eq!(reason.code, 1001);
        left *= 2;
    }
    is_served(&mut peer);
    victim.is_well();
}

/// The first part of a large message, or reply, that is announced with `total` bytes.
fn begin(kind: u8, stream: u32, total: u64) -> Vec<u8> {
    let fields = if kind == 0x10 { &[0; 4][..] } else { &[0; 8] };
    let fields = [&stream.to_be_bytes()[..], &total.to_be_bytes(), fields, b"part"].concat();
    frame(kind, 0x01, ECHO, &fields)
}

const MIB: u64 = 1024 * 1024;

/// A peer that uses its window up gets a larger one, and everything that it is granted is exact: one
/// message more ends the connection.
#[test]
fn r44_a_window_that_follows_need() {
    let victim = Victim::with(&[("rpc.io.maxInFlight", "2000")]);
    let mut peer = victim.resolve();
    let (mut credit, mut credits, mut call) = (64_u64, Vec::new(), 0_u64);
    let mut next = |slot: u64| {
        call += 1;
        (call << 24) | slot
    };
    for _ in 0..7 {
        credits.push(credit);
        // A burst that waits in the inbox as a whole.
        let hold = next(0);
        let burst: Vec<u8> =
            (1..credit).flat_map(|slot| ask(ECHO, next(slot), 10_000, &echo("x"))).collect();
        peer.send(&[ask(HOLD, hold, 10_000, b"\xc0"), burst, frame(0x30, 0, 0, &[7; 8])].concat());
        let mut answers = credit - 1;
        credit = 0;
        while peer.frame().unwrap().kind != 0x31 {}
        peer.send(&frame(0x14, 0, 0, &hold.to_be_bytes()));
        while answers > 0 {
            let frame = peer.frame().unwrap();
            match frame.kind {
                0x12 => answers -= 1,
                0x20 => {
                    let messages = frame.payload[4..8].try_into().unwrap();
                    credit += u64::from(u32::from_be_bytes(messages));
                }
                kind => panic!("{kind:#x}"),
            }
        }
    }
    // What is less than half of a window is not given back yet.
    assert_eq!(credits[..5], [64, 96, 192, 384, 768]);
    assert!(credits[5..].iter().all(|credit| (513..=1024).contains(credit)), "{credits:?}");
    let asks = (0..=credit).map(|slot| {
        let message = if slot == 0 { HOLD } else { ECHO };
        let body = if slot == 0 { b"\xc0".to_vec() } else { echo("x") };
        ask(message, next(slot), 10_000, &body)
    });
    peer.send(&asks.flatten().collect::<Vec<_>>());
    peer.expect_close(
        WINDOW,
        "more than the window of 1024 messages and 1048576 bytes was sent to probe",
    );
    victim.is_well();
}

/// Large bodies have a budget together, replies as well, whatever they answer.
#[test]
fn r15_large_bodies_announced_over_the_budget() {
    let victim = Victim::start();
    let mut peer = victim.resolve();
    (0..5).for_each(|stream| peer.send(&begin(0x12, stream, 16 * MIB)));
    is_served(&mut peer);
    peer.send(&begin(0x12, 5, 5));
    peer.expect_close(
        WINDOW,
        "large messages of 83886085 bytes are under way at once, over the limit of 67108864 and one message (rpc.io.maxAssembly)",
    );
    let victim = Victim::with(&[("rpc.io.maxAssembly", "1MiB"), ("rpc.message.maxSize", "2MiB")]);
    let mut peer = victim.resolve();
    peer.send(&begin(0x10, 1, 2 * MIB));
    peer.send(&begin(0x12, 2, MIB));
    is_served(&mut peer);
    peer.send(&begin(0x12, 3, 5));
    peer.expect_close(
        WINDOW,
        "large messages of 3145733 bytes are under way at once, over the limit of 1048576 and one message (rpc.io.maxAssembly)",
    );
    victim.is_well();
}

/// The limit of a body holds for those that fit into a frame as well.
#[test]
fn a_body_over_the_limit_in_one_frame() {
    let victim = Victim::with(&[("rpc.message.maxSize", "1000")]);
    let mut peer = victim.resolve();
    let body = echo(&"x".repeat(998));
    assert_eq!(body.len(), 1007);
    peer.send(&ask(ECHO, 1, 10_000, &body[..1000]));
    assert_eq!(peer.frame().unwrap().kind, 0x13, "a body that is cut off costs its call only");
    peer.send(&ask(ECHO, 2, 10_000, &body));
    peer.expect_close(
        TOO_LARGE,
        "a message of 1007 bytes is over the limit of 1000 (rpc.message.maxSize)",
    );
    victim.is_well();
}

/// Random bytes behind a good hello.
#[test]
fn noise() {
    let victim = Victim::start();
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut random = move || {
        // xorshift64
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state
    };
    for _ in 0..300 {
        let mut peer = victim.greet();
        let mut bytes: Vec<u8> = (0..64).flat_map(|_| random().to_be_bytes()).collect();
        // Half of them with a length and a kind that are taken at their word.
        if random() % 2 == 0 {
            bytes[..4].copy_from_slice(&200_u32.to_be_bytes());
            bytes[4] = [0x02, 0x10, 0x11, 0x12, 0x15, 0x20, 0x39][random() as usize % 7];
        }
        peer.send(&bytes);
        drop(peer);
    }
    victim.is_well();
}
