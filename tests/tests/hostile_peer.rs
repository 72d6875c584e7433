//! Raw bytes against a listening env: whatever comes, the process lives, other peers are not
//! disturbed, and the sender is told what was wrong. The rows are those of the reliability research.
#![cfg(test)]

use rpc_actix::proto::{Hello, PeerLimits};
use rpc_actix::{
    EndpointContext, HandlerResult, RpcCallContext, RpcEndpointRef, RpcEnv, RpcEnvConfig,
    RpcMessage, endpoint,
};
use serde::{Deserialize, Serialize};
use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::sync::Arc;
use std::thread;
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

    fn connect(&self) -> Peer {
        let stream = TcpStream::connect(self.env.address().unwrap().to_string()).unwrap();
        // A net under tests that would hang; no test waits for it.
        stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        stream.set_nodelay(true).unwrap();
        Peer { stream, seen: Vec::new() }
    }

    /// A peer that has said hello, and has heard one.
    fn greet(&self) -> Peer {
        let mut peer = self.connect();
        peer.send(&hello());
        let hello = peer.frame().unwrap();
        assert_eq!(hello.kind, 0x01);
        peer
    }

    /// A peer that has resolved the probe as target 0.
    fn resolve(&self) -> Peer {
        let mut peer = self.greet();
        peer.send(&resolve("probe"));
        assert_eq!(peer.frame().unwrap().kind, 0x03);
        peer
    }
}

// The bytes.

fn hello() -> Vec<u8> {
    let mut bytes = bytes::BytesMut::new();
    Hello::new(7, None, PeerLimits::default()).put(&mut bytes);
    bytes.to_vec()
}

fn frame(kind: u8, flags: u8, message: u16, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap();
    let mut bytes = length.to_be_bytes().to_vec();
    bytes.extend([kind, flags]);
    bytes.extend(message.to_be_bytes());
    bytes.extend(payload);
    bytes
}

fn resolve(name: &str) -> Vec<u8> {
    resolve_as(0, name)
}

fn release(target: u32) -> Vec<u8> {
    frame(0x06, 0, 0, &target.to_be_bytes())
}

fn resolve_as(target: u32, name: &str) -> Vec<u8> {
    #[derive(Serialize)]
    struct Body<'a> {
        name: &'a str,
    }
    let body = rmp_serde::to_vec_named(&Body { name }).unwrap();
    frame(0x02, 0, 0, &[&target.to_be_bytes(), &*body].concat())
}

/// An ask of target 0, with that many milliseconds left.
fn ask(message: u16, call: u64, left: u32, body: &[u8]) -> Vec<u8> {
    let fields = [&call.to_be_bytes()[..], &[0; 4], &left.to_be_bytes(), body].concat();
    frame(0x11, 0, message, &fields)
}

fn echo(text: &str) -> Vec<u8> {
    rmp_serde::to_vec_named(&Echo { text: text.to_owned() }).unwrap()
}

#[derive(Debug)]
struct Frame {
    kind: u8,
    payload: Vec<u8>,
}

#[derive(Debug, Deserialize)]
struct Reason {
    code: u16,
    text: String,
}

struct Peer {
    stream: TcpStream,
    seen: Vec<u8>,
}

impl Peer {
    /// Sends what the other side still takes.
    fn send(&mut self, bytes: &[u8]) {
        let _ = self.stream.write_all(bytes);
    }

    /// The next frame; none when the connection has ended.
    fn frame(&mut self) -> Option<Frame> {
        loop {
            let bytes = self.seen.strip_prefix(b"ARPC").unwrap_or(&self.seen);
            if let Some(header) = bytes.get(..8) {
                let length = u32::from_be_bytes([header[0], header[1], header[2], header[3]]);
                let whole = 8 + usize::try_from(length).unwrap();
                if let Some(payload) = bytes.get(8..whole) {
                    let frame = Frame { kind: header[4], payload: payload.to_vec() };
                    self.seen = bytes[whole..].to_vec();
                    // Signs of life and questions for them come when they come.
                    if matches!(frame.kind, 0x30 | 0x32) {
                        continue;
                    }
                    return Some(frame);
                }
            }
            let mut more = [0; 4096];
            match self.stream.read(&mut more) {
                Ok(0) => return None,
                Ok(read) => self.seen.extend(&more[..read]),
                // What we sent and it had not read makes its close a reset.
                Err(error) if error.kind() == ErrorKind::ConnectionReset => return None,
                Err(error) => panic!("nothing came: {error}"),
            }
        }
    }

    /// The connection is closed with that reason.
    #[track_caller]
    fn expect_close(mut self, code: u16, text: &str) {
        while let Some(frame) = self.frame() {
            if frame.kind == 0x39 {
                let reason: Reason = rmp_serde::from_slice(&frame.payload).unwrap();
                assert_eq!((reason.text.as_str(), reason.code), (text, code));
                return assert!(self.frame().is_none(), "nothing follows a close");
            }
        }
        panic!("the connection was closed without a reason; expected {text:?}");
    }

    /// A call is answered with that failure.
    #[track_caller]
    fn fails(&mut self, call: u64, code: u16, text: &str) {
        let frame = self.frame().unwrap();
        assert_eq!((frame.kind, &frame.payload[..8]), (0x13, &call.to_be_bytes()[..]));
        let reason: Reason = rmp_serde::from_slice(&frame.payload[8..]).unwrap();
        assert_eq!((reason.text.as_str(), reason.code), (text, code));
    }

    /// The connection is as good as before.
    #[track_caller]
    fn is_served(&mut self) {
        self.send(&ask(ECHO, 9, 10_000, &echo("fine")));
        let reply = self.frame().unwrap();
        assert_eq!((reply.kind, &reply.payload[8..]), (0x12, &b"\xa4fine"[..]));
    }
}

const PROTOCOL: u16 = 1;
const TOO_LARGE: u16 = 3;
const HELLO: u16 = 4;
const DUPLICATE_ID: u16 = 5;
const OVERLOADED: u16 = 7;
const WINDOW: u16 = 8;
const TIMEOUT: u16 = 9;

// Before the hello.

#[test]
fn r2_a_peer_that_is_silent() {
    let victim = Victim::with(&[("rpc.io.handshakeTimeout", "200ms")]);
    let mut peer = victim.connect();
    assert!(peer.frame().is_none(), "closed without a word: who is silent is no peer yet");
    victim.is_well();
}

/// The limit is on the whole time, whatever progress is made.
#[test]
fn r3_a_hello_that_drips() {
    let victim = Victim::with(&[("rpc.io.handshakeTimeout", "200ms")]);
    let peer = victim.connect();
    let mut drip = peer.stream.try_clone().unwrap();
    let dripping = thread::spawn(move || {
        // Less than the whole hello, so that only the time can end it.
        for byte in hello().iter().take(40).cycle().take(4000) {
            if drip.write_all(&[*byte]).is_err() {
                return true;
            }
            thread::sleep(Duration::from_millis(5));
        }
        false
    });
    let mut peer = peer;
    while peer.frame().is_some() {}
    drop(peer);
    assert!(dripping.join().unwrap(), "the connection was closed while it dripped");
    victim.is_well();
}

#[test]
fn r4_a_hello_that_is_too_fat() {
    let victim = Victim::start();
    let mut peer = victim.connect();
    peer.send(b"ARPC");
    peer.send(&70_000_u32.to_be_bytes());
    peer.send(&[0x01, 0, 0, 0]);
    peer.expect_close(
        TOO_LARGE,
        "a hello of 70000 bytes is over the limit of 65536 (rpc.io.preAuthBytes)",
    );
    victim.is_well();
}

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

#[test]
fn r11_a_hello_that_makes_no_sense() {
    let victim = Victim::start();
    let mut peer = victim.connect();
    peer.send(&[b"ARPC".to_vec(), frame(0x01, 0, 0, &[0xc1])].concat());
    peer.expect_close(HELLO, "the hello is not readable: 1 bytes do not decode as rpc_core::proto::hello::Hello: the reserved marker 0xc1 is at byte 0");

    let mut limits = PeerLimits::default();
    limits.in_flight = 0;
    let mut bytes = bytes::BytesMut::new();
    Hello::new(7, None, limits).put(&mut bytes);
    let mut peer = victim.connect();
    peer.send(&bytes);
    peer.expect_close(HELLO, "the limits in the hello are too small to work with");
    victim.is_well();
}

#[test]
fn r12_a_request_before_the_hello() {
    let victim = Victim::start();
    for (kind, shown) in [(0x11, "0x11"), (0x02, "0x02"), (0x30, "0x30"), (0x7f, "0x7f")] {
        let mut peer = victim.connect();
        peer.send(&[b"ARPC".to_vec(), frame(kind, 0, 0, &[0; 16])].concat());
        peer.expect_close(PROTOCOL, &format!("frame kind {shown} came before the hello"));
    }
    victim.is_well();
}

// Frames.

#[test]
fn r13_a_frame_that_announces_too_much() {
    let victim = Victim::start();
    for length in [262_145, u32::MAX] {
        let mut peer = victim.greet();
        peer.send(&length.to_be_bytes());
        peer.send(&[0x11, 0, 0, 0]);
        let text =
            format!("a frame of {length} bytes is over the limit of 262144 (rpc.frame.maxSize)");
        peer.expect_close(TOO_LARGE, &text);
    }
    victim.is_well();
}

#[test]
fn r14_frames_without_their_fields() {
    let victim = Victim::start();
    for (kind, name) in [
        (0x02, "Resolve"),
        (0x06, "Release"),
        (0x10, "OneWay"),
        (0x11, "Ask"),
        (0x12, "Reply"),
        (0x13, "Failure"),
        (0x14, "Cancel"),
        (0x15, "Chunk"),
        (0x16, "ChunkDrop"),
        (0x20, "Credit"),
        (0x30, "Ping"),
    ] {
        for length in [0, 3] {
            let mut peer = victim.greet();
            peer.send(&frame(kind, 0, 0, &vec![0; length]));
            peer.expect_close(PROTOCOL, &format!("a {name} frame ends early"));
        }
    }
    victim.is_well();
}

#[test]
fn r15_a_frame_that_never_comes() {
    let victim = Victim::with(&[("rpc.io.frameTimeout", "200ms")]);
    let mut peers: Vec<_> = (0..50).map(|_| victim.greet()).collect();
    for peer in &mut peers {
        peer.send(&200_000_u32.to_be_bytes());
        peer.send(&[0x11, 0, 0, 0, 1, 2]);
    }
    for peer in peers {
        peer.expect_close(TIMEOUT, "a frame was not complete after 200ms (rpc.io.frameTimeout)");
    }
    victim.is_well();
}

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

#[test]
fn r19_unknown_kinds_and_flags() {
    let victim = Victim::start();
    for kind in [0x00, 0x07, 0x3a, 0x7f] {
        let mut peer = victim.greet();
        peer.send(&frame(kind, 0, 0, &[0; 16]));
        peer.expect_close(PROTOCOL, &format!("unknown frame kind {kind:#04x}"));
    }
    let mut peer = victim.resolve();
    for kind in [0x80, 0x81, 0xff] {
        peer.send(&frame(kind, 0xff, 7, &[0xc1; 100]));
    }
    peer.is_served();
    // Headers are for messages only.
    for (kind, flags) in [(0x11, 0x10), (0x11, 0x80), (0x12, 0x04), (0x15, 0x04)] {
        let mut peer = victim.resolve();
        peer.send(&frame(kind, flags, 0, &[0; 16]));
        peer.expect_close(PROTOCOL, &format!("flags {flags:#04x} in a frame of version 1"));
    }
    let mut peer = victim.greet();
    peer.send(&hello()[4..]);
    peer.expect_close(PROTOCOL, "a second hello");
    victim.is_well();
}

// Bodies.

/// A body that cannot be read costs its call; the connection stays.
#[test]
fn r20_r21_r23_bodies_that_cannot_be_read() {
    let victim = Victim::start();
    let mut peer = victim.resolve();
    let deep = [0x91; 1000];
    let trailing = [echo("x"), vec![0]].concat();
    for (body, why) in [
        (&b"\xc1"[..], "the reserved marker 0xc1 is at byte 0"),
        (b"", "the value at byte 0 needs at least 1 bytes, but only 0 are left"),
        (b"\x81\xa4text\xda", "the length at byte 6 needs at least 2 bytes, but only 0 are left"),
        (&trailing, "1 bytes follow the value, which ends at byte 8"),
        (
            &deep,
            "the collection at byte 64 would be nested 65 deep, the limit is 64 (rpc.message.maxDepth)",
        ),
        (
            b"\xdd\xff\xff\xff\xff",
            "the array at byte 0 needs at least 4294967295 bytes, but only 0 are left",
        ),
        (
            b"\xdf\xff\xff\xff\xff",
            "the map at byte 0 needs at least 8589934590 bytes, but only 0 are left",
        ),
        (
            b"\xc6\xff\xff\xff\xff",
            "the content at byte 0 needs at least 4294967295 bytes, but only 0 are left",
        ),
    ] {
        peer.send(&ask(ECHO, 1, 10_000, body));
        let address = victim.env.address().unwrap();
        let size = body.len();
        let text = format!(
            "Echo to rpc://probe@{address}: {size} bytes do not decode as hostile_peer::Echo: {why}"
        );
        peer.fails(1, 1007, &text);
    }
    peer.is_served();
    victim.is_well();
}

/// In a frame of the protocol itself it is the end of the connection.
#[test]
fn r20_r23_control_frames_that_cannot_be_read() {
    let victim = Victim::start();
    for body in [&b"\xc1"[..], b"\xdd\xff\xff\xff\xff", &[0x91; 200], b"\x80"] {
        let mut peer = victim.greet();
        peer.send(&frame(0x02, 0, 0, &[&[0; 4], body].concat()));
        let close = loop {
            let frame = peer.frame().unwrap();
            if frame.kind == 0x39 {
                break rmp_serde::from_slice::<Reason>(&frame.payload).unwrap();
            }
        };
        assert_eq!(close.code, PROTOCOL);
        assert!(close.text.starts_with("a Resolve frame is not readable: "), "{}", close.text);
    }
    victim.is_well();
}

#[test]
fn r27_a_message_that_the_endpoint_does_not_take() {
    let victim = Victim::start();
    let mut peer = victim.resolve();
    let address = victim.env.address().unwrap().to_string();
    let own = peer.stream.local_addr().unwrap();
    peer.send(&ask(999, 1, 10_000, &echo("x")));
    peer.fails(1, 6, &format!("Unsupported message ? from {own} to rpc://probe@{address}"));
    let named = [&1_u64.to_be_bytes()[..], &[0; 4], &10_000_u32.to_be_bytes(), b"\x05Other\xc0"];
    peer.send(&frame(0x11, 0x02, 0, &named.concat()));
    peer.fails(1, 6, &format!("Unsupported message Other from {own} to rpc://probe@{address}"));
    peer.is_served();
    victim.is_well();
}

// Targets.

#[test]
fn numbers_that_are_in_use_or_are_not() {
    let victim = Victim::start();
    let cases: [(Vec<u8>, &str); 5] = [
        (resolve("own"), "target 0 was resolved again before its release"),
        (resolve_as(65_536, "own"), "target 65536 is over the limit of 65536"),
        (release(1), "target 1 was released, which was not resolved"),
        (release(0).repeat(2), "target 0 was released, which was not resolved"),
        (
            [release(0), ask(ECHO, 1, 10_000, &echo("x"))].concat(),
            "a message for target 0, which is not resolved",
        ),
    ];
    for (bytes, text) in cases {
        let mut peer = victim.resolve();
        peer.send(&bytes);
        peer.expect_close(PROTOCOL, text);
    }
    let mut peer = victim.resolve();
    peer.send(&[release(0), resolve_as(65_535, "own"), resolve("probe")].concat());
    assert_eq!([(); 2].map(|()| peer.frame().unwrap().kind), [0x03, 0x03]);
    peer.is_served();
    victim.is_well();
}

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
    peer.is_served();
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
    peer.is_served();
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
    greet().is_served();
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

#[test]
fn r29_endpoints_that_are_not_there() {
    let victim = Victim::start();
    let mut peer = victim.greet();
    for name in ["nobody", "", "a@b/c", &"x".repeat(5000)] {
        peer.send(&resolve(name));
        let unresolved = peer.frame().unwrap();
        assert_eq!((unresolved.kind, &unresolved.payload[..4]), (0x04, &[0; 4][..]));
    }
    // A message for what was not resolved breaks the protocol.
    peer.send(&ask(ECHO, 1, 10_000, &echo("x")));
    peer.expect_close(PROTOCOL, "a message for target 0, which is not resolved");
    victim.is_well();
}

#[test]
fn r32_a_call_number_that_is_in_use() {
    let victim = Victim::start();
    let mut peer = victim.resolve();
    peer.send(&ask(HOLD, 5, 10_000, b"\xc0"));
    peer.send(&ask(ECHO, 5, 10_000, &echo("x")));
    peer.expect_close(DUPLICATE_ID, "call 0x5 was made while call 0x5 of the same slot is open");
    victim.is_well();
}

#[test]
fn a_call_number_beyond_the_limit() {
    let victim = Victim::start();
    let mut peer = victim.resolve();
    peer.send(&ask(ECHO, 1024, 10_000, &echo("x")));
    peer.expect_close(
        PROTOCOL,
        "call 0x400 is in slot 1024, but 1024 calls may be in flight (rpc.io.maxInFlight)",
    );
    victim.is_well();
}

#[test]
fn r33_answers_to_nothing() {
    let victim = Victim::start();
    let failure = b"\x82\xa4code\x01\xa4text\xa1x";
    for (kind, body) in [(0x12, &b"\xc0"[..]), (0x13, failure)] {
        let mut peer = victim.greet();
        peer.send(&frame(kind, 0, 0, &[&77_u64.to_be_bytes(), body].concat()));
        peer.expect_close(PROTOCOL, "an answer to call 0x4d, which was never made");
    }
    // A cancel of nothing is what a cancel that crosses its answer is.
    let mut peer = victim.resolve();
    peer.send(&frame(0x14, 0, 0, &77_u64.to_be_bytes()));
    peer.is_served();
    victim.is_well();
}

#[test]
fn r33_word_of_endpoints_that_were_never_asked_for() {
    let victim = Victim::start();
    for kind in [0x03, 0x04, 0x05, 0x20] {
        let mut peer = victim.greet();
        let body: &[u8] = if kind == 0x03 {
            b"\x83\xabincarnation\x92\x01\x01\xa8messages\x90\xa6credit\x92\x01\x01"
        } else if kind == 0x04 {
            b"\x82\xa4code\x03\xa4text\xa1x"
        } else {
            &[0; 12]
        };
        peer.send(&frame(kind, 0, 0, &[&[0, 0, 0, 9], body].concat()));
        peer.expect_close(PROTOCOL, "target 9 was never resolved");
    }
    victim.is_well();
}

#[test]
fn r38_remaining_times_of_all_kinds() {
    let victim = Victim::start();
    let mut peer = victim.resolve();
    let address = victim.env.address().unwrap().to_string();
    peer.send(&ask(ECHO, 1, 0, &echo("x")));
    let text = format!("the time of the ask was over when rpc://probe@{address} got to it");
    peer.fails(1, 1001, &text);
    peer.send(&ask(REMAINING, 2, u32::MAX, b"\xc0"));
    let reply = peer.frame().unwrap();
    assert_eq!(reply.kind, 0x12);
    let left: Option<Duration> = rmp_serde::from_slice(&reply.payload[8..]).unwrap();
    assert!(left.unwrap() <= Duration::from_secs(24 * 3600), "{left:?}");
    victim.is_well();
}

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
    peer.is_served();
    victim.is_well();
}

#[test]
fn r44_a_window_that_is_overrun() {
    let victim = Victim::with(&[("rpc.inbox.maxMessages", "64")]);
    let mut peer = victim.resolve();
    let asks: Vec<_> = (1..100).flat_map(|call| ask(ECHO, call, 10_000, &echo("x"))).collect();
    peer.send(&[ask(HOLD, 0, 10_000, b"\xc0"), asks].concat());
    let close = loop {
        let frame = peer.frame().unwrap();
        if frame.kind == 0x39 {
            break rmp_serde::from_slice::<Reason>(&frame.payload).unwrap();
        }
    };
    assert_eq!(close.code, 8);
    let text = "more than the window of 12 messages and 1048576 bytes was sent to probe";
    assert_eq!(close.text, text);
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

/// A large message counts against the window when it begins, not when it is there.
#[test]
fn r44_large_messages_announced_over_the_window() {
    let victim = Victim::start();
    let mut peer = victim.resolve();
    peer.send(&begin(0x10, 1, 16 * MIB));
    peer.send(&begin(0x10, 2, MIB / 2));
    peer.is_served();
    peer.send(&begin(0x10, 3, MIB));
    peer.expect_close(
        WINDOW,
        "more than the window of 64 messages and 1048576 bytes was sent to probe",
    );
    // The number counts as well.
    let mut peer = victim.resolve();
    let begun: Vec<_> = (0..65).flat_map(|stream| begin(0x10, stream, 100)).collect();
    peer.send(&begun);
    peer.expect_close(
        WINDOW,
        "more than the window of 64 messages and 1048576 bytes was sent to probe",
    );
    // What is given up counts no more.
    let mut peer = victim.resolve();
    for stream in 0..100_u32 {
        peer.send(&begin(0x10, stream, 16 * MIB));
        peer.send(&frame(0x16, 0, 0, &stream.to_be_bytes()));
    }
    peer.is_served();
    victim.is_well();
}

/// Large bodies have a budget together, replies as well, whatever they answer.
#[test]
fn r15_large_bodies_announced_over_the_budget() {
    let victim = Victim::start();
    let mut peer = victim.resolve();
    (0..5).for_each(|stream| peer.send(&begin(0x12, stream, 16 * MIB)));
    peer.is_served();
    peer.send(&begin(0x12, 5, 5));
    peer.expect_close(
        WINDOW,
        "large messages of 83886085 bytes are under way at once, over the limit of 67108864 and one message (rpc.io.maxAssembly)",
    );
    let victim = Victim::with(&[("rpc.io.maxAssembly", "1MiB"), ("rpc.message.maxSize", "2MiB")]);
    let mut peer = victim.resolve();
    peer.send(&begin(0x10, 1, 2 * MIB));
    peer.send(&begin(0x12, 2, MIB));
    peer.is_served();
    peer.send(&begin(0x12, 3, 5));
    peer.expect_close(
        WINDOW,
        "large messages of 3145733 bytes are under way at once, over the limit of 1048576 and one message (rpc.io.maxAssembly)",
    );
    victim.is_well();
}

/// A number that changes its meaning in the middle of a message would confuse two windows.
#[test]
fn a_target_that_is_released_within_a_large_message() {
    let victim = Victim::start();
    let mut peer = victim.resolve();
    peer.send(&begin(0x10, 1, 100));
    peer.send(&frame(0x06, 0, 0, &[0; 4]));
    peer.expect_close(PROTOCOL, "target 0 was released within a large message to it");
    victim.is_well();
}

#[test]
fn r48_a_flood_of_pings() {
    let victim = Victim::start();
    let mut peer = victim.greet();
    let ping = frame(0x30, 0, 0, &7_u64.to_be_bytes());
    peer.send(&ping);
    let pong = peer.frame().unwrap();
    assert_eq!((pong.kind, pong.payload), (0x31, 7_u64.to_be_bytes().to_vec()));
    let mut flood = peer.stream.try_clone().unwrap();
    let flooding = thread::spawn(move || {
        let pings = ping.repeat(4000);
        while flood.write_all(&pings).is_ok() {}
    });
    // It reads nothing until it is cut off.
    flooding.join().unwrap();
    victim.is_well();
    let reason = std::iter::from_fn(|| peer.frame()).find(|frame| frame.kind == 0x39);
    if let Some(reason) = reason {
        let reason: Reason = rmp_serde::from_slice(&reason.payload).unwrap();
        assert_eq!(reason.code, OVERLOADED);
        let text = "more than 1024 pings wait for their answer (rpc.outbox.maxControl)";
        assert_eq!(reason.text, text);
    }
    victim.is_well();
}

/// Large messages that are begun and never ended, as many as there may be.
#[test]
fn large_messages_without_an_end() {
    let victim = Victim::start();
    let mut peer = victim.resolve();
    peer.send(&begin(0x10, 1, 17 * MIB));
    peer.expect_close(
        TOO_LARGE,
        "a message of 17825792 bytes is over the limit of 16777216 (rpc.message.maxSize)",
    );
    let mut peer = victim.resolve();
    peer.send(&frame(0x15, 0, 0, &[0, 0, 0, 3, 1, 2, 3]));
    peer.expect_close(PROTOCOL, "a part of a large message 3 that is not open");
    let mut peer = victim.resolve();
    peer.send(&begin(0x10, 1, 5));
    peer.send(&frame(0x15, 0, 0, &[0, 0, 0, 1, 1, 2, 3]));
    peer.expect_close(PROTOCOL, "large message 1 has more than the 5 bytes it was announced with");
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
