//! The hex blocks of docs/WIRE.md, held against the implementation in both directions: what we
//! send for a given call is these bytes, and what we make of these bytes is this event.
#![cfg(test)]

use bytes::{Bytes, BytesMut};
use rpc_core::proto::{
    Close, CloseCode, Event, Hello, Hellos, IncomingMessage, PeerInfo, PeerLimits, Request,
    Resolution, Session, Submission, TargetId, TargetKey,
};
use rpc_core::spi::{CallEnd, Incarnation, Outgoing};
use rpc_core::wire::frame::{HEADER, Header, Kind};
use rpc_core::{
    ErrorKind, Lane, Limits, LocalWorld, Outcome, RemoteFailure, RpcEndpointRef, RpcEnvConfig,
    RpcEnvFactory, RpcError, Termination, Timestamp, TraceContext, Untyped,
};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, VecDeque};
use std::sync::LazyLock;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

const CLIENT: u64 = 0x1122_3344_5566_7788;
const SERVER: u64 = 0xa1a2_a3a4_a5a6_a7a8;
const MESSAGES: [&str; 3] = ["Heartbeat", "RegisterWorker", "Journal"];

/// The example of the W3C's text.
const TRACEPARENT: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

/// The hand's clock: it stands.
const NOW: Timestamp = Timestamp::from_nanos(5_000_000_000);
const IN_TEN_SECONDS: Timestamp = Timestamp::from_nanos(15_000_000_000);

/// The blocks of the page by their names.
static GOLDEN: LazyLock<BTreeMap<String, Vec<u8>>> = LazyLock::new(|| {
    let page = include_str!("../../docs/WIRE.md");
    let mut blocks = BTreeMap::new();
    let mut open: Option<(String, Vec<u8>)> = None;
    for line in page.lines() {
        if let Some(name) = line.strip_prefix("```hex name=") {
            open = Some((name.trim().to_owned(), Vec::new()));
        } else if line.starts_with("```") {
            if let Some((name, bytes)) = open.take() {
                assert!(blocks.insert(name.clone(), bytes).is_none(), "{name} is there twice");
            }
        } else if let Some((name, bytes)) = &mut open {
            read_line(name, line, bytes);
        }
    }
    assert!(open.is_none(), "a block is not closed");
    blocks
});

/// Reads `61 62 # text`, and `61 x3` for a byte that is there three times.
fn read_line(name: &str, line: &str, bytes: &mut Vec<u8>) {
    let code = line.split('#').next().unwrap_or_default();
    for word in code.split_whitespace() {
        if let Some(times) = word.strip_prefix('x') {
            let last = *bytes.last().unwrap();
            let more = times.parse::<usize>().unwrap() - 1;
            bytes.resize(bytes.len() + more, last);
        } else {
            assert_eq!(word.len(), 2, "{name}: {word:?} is not a byte");
            bytes.push(u8::from_str_radix(word, 16).unwrap());
        }
    }
}

fn golden(name: &str) -> &'static [u8] {
    GOLDEN.get(name).unwrap_or_else(|| panic!("WIRE.md has no block {name}"))
}

/// The payload of a block with one frame.
fn payload(name: &str) -> &'static [u8] {
    &golden(name)[HEADER..]
}

#[track_caller]
fn assert_bytes(got: &[u8], name: &str) {
    let want = golden(name);
    let differs = got.iter().zip(want).position(|(got, want)| got != want);
    let at = differs.unwrap_or_else(|| got.len().min(want.len()));
    let end = |bytes: &[u8]| (at + 16).min(bytes.len());
    assert!(
        got == want,
        "{name}: from byte {at} on it is {:02x?}.. ({} bytes), WIRE.md has {:02x?}.. ({})",
        &got[at..end(got)],
        got.len(),
        &want[at..end(want)],
        want.len()
    );
}

fn client_hello() -> Hello {
    Hello::new(CLIENT, None, PeerLimits::default())
}

fn server_hello() -> Hello {
    Hello::new(SERVER, Some("10.0.0.7:7077".into()), PeerLimits::default())
        .with_heartbeat(Duration::from_secs(1))
}

/// What a side with the hello `ours` learns from the block `theirs`.
fn meet(ours: Hello, theirs: &str) -> PeerInfo {
    let mut bytes = BytesMut::from(golden(theirs));
    let met = Hellos::new(ours, 64 * 1024).receive(&mut bytes).unwrap().unwrap();
    assert!(bytes.is_empty());
    met
}

/// One side of the session of the page, connected.
struct Side(Session);

impl Side {
    fn client() -> Self {
        let mut session = Session::new(Limits::default(), "10.0.0.7:7077");
        session.attach(Timestamp::START, meet(client_hello(), "hello-server"));
        Self(session)
    }

    fn server() -> Self {
        let mut session = Session::new(Limits::default(), "10.0.0.99:50000");
        session.attach(Timestamp::START, meet(server_hello(), "hello-client"));
        Self(session)
    }

    /// A client that has resolved target 0.
    fn resolved_client() -> Self {
        let mut client = Self::client();
        let _ = client.target("master", None);
        client.send("Heartbeat", &[0x80]);
        assert_bytes(&client.output(), "resolve");
        assert!(client.input("resolved").is_empty());
        let _ = client.output();
        client
    }

    fn target(&mut self, name: &str, pin: Option<Incarnation>) -> TargetId {
        self.0.target(&TargetKey::new(name, pin)).unwrap()
    }

    /// All that this side has to say.
    fn output(&mut self) -> Vec<u8> {
        let mut all = Vec::new();
        let mut out = VecDeque::new();
        loop {
            self.0.transmit(|| NOW, 64 * 1024, &mut out);
            if out.is_empty() {
                return all;
            }
            for part in out.drain(..) {
                all.extend_from_slice(&part);
            }
        }
    }

    /// What it makes of a block.
    fn input(&mut self, name: &str) -> Vec<Event> {
        self.receive(golden(name)).unwrap()
    }

    fn receive(&mut self, bytes: &[u8]) -> Result<Vec<Event>, Close> {
        let (mut bytes, mut events) = (BytesMut::from(bytes), Vec::new());
        self.0.receive(NOW, &mut bytes, &mut events)?;
        assert!(bytes.is_empty());
        Ok(events)
    }

    fn message(&mut self, name: &str) -> IncomingMessage {
        match self.input(name).pop() {
            Some(Event::Message(message)) => message,
            other => panic!("{name}: {other:?}"),
        }
    }

    fn submit(
        &mut self,
        message: &'static str,
        lane: Lane,
        body: &[u8],
        how: Submission,
    ) -> Option<u64> {
        let mut body = body.to_vec().into();
        let mut message = Outgoing::new(message, lane, &mut body, IN_TEN_SECONDS);
        self.0.submit(|| NOW, Request::new(0, &mut message, how)).unwrap()
    }

    /// The same as part of a trace.
    fn submit_traced(
        &mut self,
        message: &'static str,
        body: &[u8],
        how: Submission,
        trace: &TraceContext,
    ) {
        let mut body = body.to_vec().into();
        let mut message = Outgoing::new(message, Lane::Normal, &mut body, IN_TEN_SECONDS)
            .traced(Some(trace.clone()));
        self.0.submit(|| NOW, Request::new(0, &mut message, how)).unwrap();
    }

    fn send(&mut self, message: &'static str, body: &[u8]) {
        assert!(self.submit(message, Lane::Normal, body, Submission::Send).is_none());
    }

    fn ask(&mut self) -> u64 {
        let body = &payload("ask")[16..];
        self.submit("RegisterWorker", Lane::Normal, body, Submission::Ask).unwrap()
    }

    fn poll(&mut self, call: u64) -> Poll<Result<Bytes, CallEnd>> {
        self.0.poll_call(call, &Context::from_waker(Waker::noop()))
    }

    fn answer(&mut self, call: u64) -> Result<Bytes, CallEnd> {
        match self.poll(call) {
            Poll::Ready(answer) => answer,
            Poll::Pending => panic!("call {call:#x} has no answer"),
        }
    }

    fn failure(&mut self, call: u64) -> RpcError {
        match self.answer(call) {
            Err(CallEnd::Failed(error)) => error,
            other => panic!("{other:?}"),
        }
    }
}

#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct Heartbeat {
    worker: u64,
}

#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct Drain;

#[derive(Debug, Serialize, Deserialize)]
struct RegisterWorker {
    cores: u32,
    worker: RpcEndpointRef<Untyped>,
}

#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct Registered {
    id: u64,
}

#[test]
fn every_block_is_whole_frames_of_the_kind_it_says() {
    assert!(GOLDEN.len() >= 24, "{:?}", GOLDEN.keys());
    for (name, bytes) in &*GOLDEN {
        let frame = if name.starts_with("hello") {
            bytes.strip_prefix(b"ARPC").unwrap()
        } else {
            &bytes[..]
        };
        let header = Header::read(frame).unwrap();
        assert_eq!(header.length, frame.len() - HEADER, "{name}: the length is wrong");
        assert!(Kind::from_byte(header.kind).is_some(), "{name}: unknown kind");
    }
}

#[test]
fn hellos() {
    for (hello, name) in [(client_hello(), "hello-client"), (server_hello(), "hello-server")] {
        let mut out = BytesMut::new();
        hello.put(&mut out);
        assert_bytes(&out, name);
    }
    let peer = meet(server_hello(), "hello-client");
    assert_eq!((peer.version, peer.hello), (1, client_hello()));
    let peer = meet(client_hello(), "hello-server");
    assert_eq!((peer.version, peer.hello), (1, server_hello()));
    // A peer of another version: both sides find that there is none in common.
    let mut bytes = BytesMut::from(golden("hello-client"));
    let close = Hellos::new(server_hello().with_versions(2, 9), 64 * 1024).receive(&mut bytes);
    assert!(close.unwrap_err().is(CloseCode::Version));
    // The first byte over the limit of a hello ends it.
    let mut bytes = BytesMut::from(golden("hello-client"));
    let close = Hellos::new(server_hello(), 121).receive(&mut bytes).unwrap_err();
    assert!(close.is(CloseCode::TooLarge));
}

#[test]
fn resolving() {
    let mut client = Side::client();
    let _ = client.target("master", None);
    let call = client.0.resolve(NOW, 0).unwrap();
    assert_bytes(&client.output(), "resolve");

    let mut server = Side::server();
    match server.input("resolve").pop() {
        Some(Event::Resolve(0, key)) => assert_eq!(key, TargetKey::new("master", None)),
        other => panic!("{other:?}"),
    }
    let names = MESSAGES.map(str::to_owned).to_vec();
    let resolution = Resolution::new(Incarnation::new(SERVER, 1), names, 1024, 16 << 20);
    server.0.resolved(0, &resolution);
    assert_bytes(&server.output(), "resolved");

    assert!(client.poll(call).is_pending());
    assert!(client.input("resolved").is_empty());
    assert!(client.answer(call).unwrap().is_empty());
    // A second answer to one question ends the connection.
    assert!(client.receive(golden("resolved")).unwrap_err().is(CloseCode::Protocol));
}

#[test]
fn resolving_an_endpoint_of_the_system() {
    let mut resolution = Resolution::new(Incarnation::new(SERVER, 2), Vec::new(), 64, 1 << 20);
    resolution.system = true;
    let mut server = Side::server();
    server.0.resolved(1, &resolution);
    assert_bytes(&server.output(), "resolved-system");

    let limits = Limits::default().with_outbox_max_messages(16).unwrap();
    let mut client = Side(Session::new(limits, "10.0.0.7:7077"));
    client.0.attach(NOW, meet(client_hello(), "hello-server"));
    let (other, target) = (client.target("other", None), client.target("master", None));
    client.0.resolve(NOW, other).unwrap();
    client.0.resolve(NOW, target).unwrap();
    assert!(client.input("resolved-system").is_empty());
    let mut submit = |target| {
        let mut body = vec![0xc0].into();
        let mut message = Outgoing::new("Heartbeat", Lane::Normal, &mut body, IN_TEN_SECONDS);
        client.0.submit(|| NOW, Request::new(target, &mut message, Submission::Send)).is_ok()
    };
    assert_eq!((0..20).take_while(|_| submit(other)).count(), 14);
    assert_eq!((0..20).take_while(|_| submit(target)).count(), 2);
}

#[test]
fn resolving_one_life_of_an_endpoint() {
    let pin = Incarnation::new(SERVER, 3);
    let mut client = Side::resolved_client();
    let pinned = client.target("worker-7", Some(pin));
    client.0.resolve(NOW, pinned).unwrap();
    assert_bytes(&client.output(), "resolve-pinned");
    match Side::server().input("resolve-pinned").pop() {
        Some(Event::Resolve(1, key)) => assert_eq!(key, TargetKey::new("worker-7", Some(pin))),
        other => panic!("{other:?}"),
    }
}

#[test]
fn resolving_through_a_relay() {
    let key = TargetKey::new("worker-7", None).at_env(CLIENT);
    let mut client = Side::client();
    let target = client.0.target(&key).unwrap();
    client.0.resolve(NOW, target).unwrap();
    assert_bytes(&client.output(), "resolve-relayed");
    match Side::server().input("resolve-relayed").pop() {
        Some(Event::Resolve(0, found)) => assert_eq!(found, key),
        other => panic!("{other:?}"),
    }
    // Only to a peer that can do it.
    let mut session = Session::new(Limits::default(), "10.0.0.7:7077");
    let mut peer = meet(client_hello(), "hello-server");
    peer.hello.capabilities.clear();
    session.attach(NOW, peer);
    let mut client = Side(session);
    let target = client.0.target(&key).unwrap();
    let call = client.0.resolve(NOW, target).unwrap();
    assert!(client.output().is_empty());
    let error = client.failure(call);
    let text = "cannot reach rpc-client://worker-7@1122334455667788 through rpc://10.0.0.7:7077: that env does not relay";
    assert_eq!((error.kind(), error.text()), (ErrorKind::Unreachable, text));
    assert_eq!(error.outcome(), Outcome::NeverSent);
}

#[test]
fn a_ref_with_a_relay() {
    #[derive(Serialize, Deserialize)]
    struct Watch {
        worker: RpcEndpointRef<Untyped>,
    }
    let world = LocalWorld::new();
    let env = world.block_on(world.factory().create(RpcEnvConfig::client("c"))).unwrap();
    let body = &payload("one-way-relay")[10..];
    let watch: Watch = env.decode(body).unwrap();
    assert_eq!(watch.worker.to_string(), "rpc-client://worker-7@1122334455667788");
    assert_eq!(env.encode(&watch).unwrap(), body, "it keeps its relay");
    // A server puts itself, where there is none.
    let bare = b"\x81\xa6worker\x81\xa2at\xd9\x26rpc-client://worker-7@1122334455667788";
    let bare: Watch = env.decode(bare).unwrap();
    let server = RpcEnvConfig::server("s", "10.0.0.7:7077");
    let server = world.block_on(world.factory().create(server)).unwrap();
    let bare: Watch = server.decode(&env.encode(&bare).unwrap()).unwrap();
    assert_eq!(server.encode(&bare).unwrap(), body);
    let mut client = Side::resolved_client();
    client.send("Watch", body);
    assert_bytes(&client.output(), "one-way-relay");
}

#[test]
fn unresolved() {
    let text = "Cannot find endpoint: rpc://nobody@10.0.0.7:7077";
    let mut server = Side::server();
    server.0.unresolved(2, &RpcError::new(ErrorKind::EndpointNotFound, text));
    assert_bytes(&server.output(), "unresolved");

    let mut client = Side::client();
    let mut calls = Vec::new();
    for name in ["master", "worker-7", "nobody"] {
        let target = client.target(name, None);
        calls.push(client.0.resolve(NOW, target).unwrap());
    }
    assert!(client.input("unresolved").is_empty());
    let error = client.failure(calls[2]);
    assert_eq!((error.kind(), error.text()), (ErrorKind::EndpointNotFound, text));
    assert_eq!(error.outcome(), Outcome::NeverSent);
}

#[test]
fn one_way() {
    let mut client = Side::resolved_client();
    client.send("Heartbeat", &payload("one-way-number")[4..]);
    assert_bytes(&client.output(), "one-way-number");
    client.send("Drain", &payload("one-way-name")[10..]);
    assert_bytes(&client.output(), "one-way-name");

    let mut server = Side::server();
    let message = server.message("one-way-number");
    assert_eq!((message.target, message.number, message.name), (0, 0, None));
    assert_eq!((message.call, message.deadline), (None, Timestamp::MAX));
    assert_eq!(message.body, payload("one-way-number")[4..]);
    let message = server.message("one-way-name");
    assert_eq!((message.target, message.number), (0, 0));
    assert_eq!(message.name.as_deref(), Some("Drain"));
    assert_eq!(message.body[..], [0x90]);
}

#[test]
fn headers() {
    let trace = TraceContext::parse(TRACEPARENT).unwrap();
    let with_state = trace.clone().with_tracestate("vendor=1");
    let heartbeat = &payload("one-way-number")[4..];
    let mut client = Side::resolved_client();
    client.submit_traced("Heartbeat", heartbeat, Submission::Send, &trace);
    assert_bytes(&client.output(), "one-way-headers");
    client.submit_traced("Drain", &[0x90], Submission::Ask, &with_state);
    assert_bytes(&client.output(), "ask-headers");

    let mut server = Side::server();
    let message = server.message("one-way-headers");
    assert_eq!((message.number, message.trace), (0, Some(trace.clone())));
    assert_eq!(message.body, heartbeat);
    let message = server.message("ask-headers");
    assert_eq!((message.call, message.deadline), (Some(0), IN_TEN_SECONDS));
    assert_eq!((message.name.as_deref(), message.trace), (Some("Drain"), Some(with_state)));
    assert_eq!(message.body[..], [0x90]);
    assert_eq!(server.message("one-way-number").trace, None);

    // A peer that does not say that it reads them gets none.
    let mut session = Session::new(Limits::default(), "10.0.0.7:7077");
    let mut peer = meet(client_hello(), "hello-server");
    peer.hello.capabilities.clear();
    session.attach(NOW, peer);
    let mut client = Side(session);
    let _ = client.target("master", None);
    client.submit_traced("Heartbeat", heartbeat, Submission::Send, &trace);
    assert_bytes(&client.output(), "resolve");
    assert!(client.input("resolved").is_empty());
    assert_bytes(&client.output(), "one-way-number");
}

#[test]
fn headers_of_a_large_body_are_in_its_first_frame() {
    let trace = TraceContext::parse(TRACEPARENT).unwrap();
    let body = [&payload("first-chunk")[16..], &payload("chunk")[4..]].concat();
    let mut client = Side::resolved_client();
    client.submit_traced("Journal", &body, Submission::Send, &trace);
    let said = client.output();
    let header = Header::read(&said).unwrap();
    assert_eq!((header.length, header.flags), (256 * 1024, 0x05));
    // Behind stream, total and target: what is behind the target elsewhere.
    let headers = &payload("one-way-headers")[4..4 + 2 + 70];
    assert_eq!(&said[HEADER + 16..HEADER + 16 + headers.len()], headers);
    let events = Side::server().receive(&said).unwrap();
    let [Event::Begun(0, 300_011), Event::Message(message)] = &events[..] else {
        panic!("{events:?}")
    };
    assert_eq!((message.number, &message.trace), (2, &Some(trace)));
    assert_eq!(message.body, body);
}

/// A Heartbeat with these headers, behind that length.
fn with_headers(length: usize, headers: &[u8]) -> Vec<u8> {
    let heartbeat = payload("one-way-number");
    let bytes = heartbeat.len() + 2 + headers.len();
    let mut frame = golden("one-way-headers")[..HEADER + 4].to_vec();
    frame[..4].copy_from_slice(&u32::try_from(bytes).unwrap().to_be_bytes());
    frame.extend_from_slice(&u16::try_from(length).unwrap().to_be_bytes());
    [&frame[..], headers, &heartbeat[4..]].concat()
}

#[test]
fn headers_that_mean_nothing_are_ignored() {
    let parent = [b"\xabtraceparent\xd9\x37", TRACEPARENT.as_bytes()].concat();
    let state = |text: &str| {
        let length = u16::try_from(text.len()).unwrap().to_be_bytes();
        [&b"\xaatracestate\xda"[..], &length, text.as_bytes()].concat()
    };
    let read = |entries: &[&[u8]]| {
        let map = [&[0x80 | u8::try_from(entries.len()).unwrap()][..], &entries.concat()].concat();
        let events = Side::server().receive(&with_headers(map.len(), &map)).unwrap();
        let [Event::Message(message)] = &events[..] else { panic!("{events:?}") };
        assert_eq!(message.body, payload("one-way-number")[4..]);
        message.trace.clone()
    };
    let trace = TraceContext::parse(TRACEPARENT).unwrap();
    let full = "s".repeat(512);
    assert_eq!(read(&[]), None);
    assert_eq!(read(&[b"\xa1x\x92\xc0\x07", &parent]), Some(trace.clone()));
    assert_eq!(read(&[&parent, &state(&full)]), Some(trace.clone().with_tracestate(&full)));
    assert_eq!(read(&[&state(&full)]), None);
    // Too long, not printable, no string at all.
    assert_eq!(read(&[&parent, &state(&"s".repeat(513))]), Some(trace.clone()));
    assert_eq!(read(&[&parent, &state("a\u{1b}b")]), Some(trace.clone()));
    assert_eq!(read(&[&parent, b"\xaatracestate\x07"]), Some(trace));
    assert_eq!(read(&[b"\xabtraceparent\x93\x01\x02\x03"]), None);
    let mut malformed = parent.clone();
    malformed[16] = b'F';
    assert_eq!(read(&[&malformed]), None);
}

#[test]
fn headers_that_make_no_sense_end_the_connection() {
    let close = |length: usize, headers: &[u8]| {
        Side::server().receive(&with_headers(length, headers)).unwrap_err()
    };
    let padded = |bytes: usize| {
        let text = bytes - 1 - 2 - 3;
        let length = u16::try_from(text).unwrap().to_be_bytes();
        [&b"\x81\xa1x\xda"[..], &length, &vec![b'a'; text]].concat()
    };
    assert!(Side::server().receive(&with_headers(1024, &padded(1024))).is_ok());
    for (text, close) in [
        ("over the limit of 1024", close(1025, &padded(1025))),
        ("ends early", close(100, &[0x80])),
        ("not readable", close(0, &[])),
        ("not readable", close(2, &[0x80, 0x80])),
        ("not readable", close(1, &[0x90])),
        ("not readable", close(1, &[0xc1])),
        ("not readable", close(3, &[0x81, 0x01, 0x02])),
    ] {
        assert!(close.is(CloseCode::Protocol) && close.text.contains(text), "{close:?}");
    }
    // In a frame that has none.
    let mut reply = golden("reply").to_vec();
    reply[5] = 0x04;
    assert!(Side::client().receive(&reply).unwrap_err().text.contains("flags"));
}

#[test]
fn ask_and_reply() {
    let mut client = Side::resolved_client();
    let call = client.ask();
    assert_bytes(&client.output(), "ask");

    let mut server = Side::server();
    let message = server.message("ask");
    assert_eq!((message.target, message.number, message.name), (0, 1, None));
    assert_eq!((message.call, message.deadline), (Some(0), IN_TEN_SECONDS));
    assert_eq!(message.body, payload("ask")[16..]);
    server.0.reply(0, &mut payload("reply")[8..].to_vec().into()).unwrap();
    assert_bytes(&server.output(), "reply");

    assert!(client.poll(call).is_pending());
    assert!(client.input("reply").is_empty());
    assert_eq!(client.answer(call).unwrap(), payload("reply")[8..]);
    // The same slot again, one generation up.
    let _ = client.ask();
    let second = client.output();
    assert_eq!(second[HEADER..HEADER + 8], payload("cancel")[..]);
    // An answer to a call that is over is ignored, to one that never was it is not.
    assert!(client.input("reply").is_empty());
    let never = client.receive(golden("failure-never-sent")).unwrap_err();
    assert!(never.is(CloseCode::Protocol));
    // A slot that is in use.
    let mut server = Side::server();
    let _ = server.message("ask");
    assert!(server.receive(golden("ask")).unwrap_err().is(CloseCode::DuplicateId));
}

#[test]
fn failures() {
    let mut client = Side::resolved_client();
    let mut server = Side::server();
    // Call 0 is answered; the next one is in the same slot.
    let call = client.ask();
    let _ = client.output();
    let _ = client.input("reply");
    let _ = client.answer(call);
    let cases = [
        ("failure", RpcError::new(ErrorKind::HandlerFailed, "no room")),
        (
            "failure-never-sent",
            RpcError::new(ErrorKind::Timeout, "too late").with_outcome(Outcome::NeverSent),
        ),
    ];
    for (name, error) in cases {
        let call = client.ask();
        let on_the_wire = match server.receive(&client.output()).unwrap().pop() {
            Some(Event::Message(message)) => message.call.unwrap(),
            other => panic!("{other:?}"),
        };
        server.0.fail(on_the_wire, &error);
        assert_bytes(&server.output(), name);
        assert!(client.input(name).is_empty());
        // That the time was over there is no failure of its own: the caller words its timeout.
        if error.is_timeout() {
            assert!(matches!(client.answer(call), Err(CallEnd::TimedOut { sent: false })));
            continue;
        }
        let got = client.failure(call);
        assert_eq!(got.kind(), error.kind());
        assert_eq!((got.text(), got.outcome()), (error.text(), error.outcome()));
    }
}

#[test]
fn cancel() {
    let mut client = Side::resolved_client();
    let call = client.ask();
    let _ = client.output();
    let _ = client.input("reply");
    let _ = client.answer(call);
    let call = client.ask();
    let asked = client.output();
    client.0.abandon(NOW, call);
    assert_bytes(&client.output(), "cancel");

    let mut server = Side::server();
    server.receive(&asked).unwrap();
    let number = 1 << 24;
    assert!(!server.0.is_cancelled(number));
    assert!(server.input("cancel").is_empty());
    assert!(server.0.is_cancelled(number));
    // An answer would go nowhere, so it does not go; and a call may be cancelled twice.
    server.0.reply(number, &mut vec![0xc0].into()).unwrap();
    assert!(server.output().is_empty());
    assert!(server.input("cancel").is_empty());
}

#[test]
fn an_ask_taken_back_is_skipped() {
    let mut client = Side::resolved_client();
    let call = client.ask();
    client.0.abandon(NOW, call);
    let said = client.output();
    assert_eq!(said.get(4), Some(&0x80), "only the kind is changed: {said:02x?}");
    let mut server = Side::server();
    assert!(server.receive(&said).unwrap().is_empty());
    assert!(server.input("skip").is_empty());
}

#[test]
fn credit() {
    let mut server = Side::server();
    server.0.grant(0, 512, 524_288);
    assert_bytes(&server.output(), "credit");

    // A window of one message lets a second one go only after more credit.
    let mut client = Side::client();
    let _ = client.target("master", None);
    client.0.resolve(NOW, 0).unwrap();
    let _ = client.output();
    server.0.resolved(0, &Resolution::new(Incarnation::new(SERVER, 1), Vec::new(), 1, 1));
    client.receive(&server.output()).unwrap();
    client.send("Drain", &[0x90]);
    client.send("Drain", &[0x90]);
    assert_bytes(&client.output(), "one-way-name");
    assert!(client.input("credit").is_empty());
    assert_bytes(&client.output(), "one-way-name");
    // For a target that was never resolved.
    assert!(Side::client().receive(golden("credit")).unwrap_err().is(CloseCode::Protocol));
}

#[test]
fn large_bodies() {
    let body = [&payload("first-chunk")[16..], &payload("chunk")[4..]].concat();
    assert_eq!(body.len(), 300_011);
    let mut client = Side::resolved_client();
    assert!(client.submit("Journal", Lane::Bulk, &body, Submission::Send).is_none());
    let said = client.output();
    let (first, chunk) = said.split_at(golden("first-chunk").len());
    assert_bytes(first, "first-chunk");
    assert_bytes(chunk, "chunk");

    let mut server = Side::server();
    assert!(matches!(*server.input("first-chunk"), [Event::Begun(0, 300_011)]));
    // Smaller frames may come between.
    assert!(server.input("ping").is_empty());
    let message = server.message("chunk");
    assert_eq!((message.target, message.number, message.call), (0, 2, None));
    assert_eq!(message.body, body);
    // The stream is over.
    assert!(server.receive(golden("chunk")).unwrap_err().is(CloseCode::Protocol));
}

#[test]
fn a_large_body_given_up() {
    let mut client = Side::resolved_client();
    let body = vec![0xc0; 300_011];
    let call = client.submit("Journal", Lane::Bulk, &body, Submission::Ask).unwrap();
    let mut out = VecDeque::new();
    client.0.transmit(|| NOW, 1, &mut out);
    assert!(!out.is_empty());
    client.0.abandon(NOW, call);
    let said = client.output();
    let (dropped, cancelled) = said.split_at(golden("chunk-drop").len());
    assert_bytes(dropped, "chunk-drop");
    assert_eq!(cancelled.get(4), Some(&(Kind::Cancel as u8)));

    let mut server = Side::server();
    assert!(matches!(*server.input("first-chunk"), [Event::Begun(0, 300_011)]));
    assert!(matches!(*server.input("chunk-drop"), [Event::GivenUp(0, 300_011)]));
    assert!(server.receive(golden("chunk")).unwrap_err().is(CloseCode::Protocol));
}

#[test]
fn ping_and_pong() {
    let mut server = Side::server();
    assert!(server.input("ping").is_empty());
    assert_bytes(&server.output(), "pong");
    assert!(server.input("pong").is_empty());
    assert!(server.input("heartbeat").is_empty());
    server.0.heartbeat();
    assert_bytes(&server.output(), "heartbeat");
    assert!(server.output().is_empty());
}

#[test]
fn gone() {
    let mut server = Side::server();
    server.0.gone(0, Termination::Unknown);
    assert_bytes(&server.output(), "gone");

    // By name, the next message looks for the successor, under a number that is free.
    let mut client = Side::resolved_client();
    assert!(client.input("gone").is_empty());
    assert_bytes(&client.output(), "release");
    client.send("Heartbeat", &payload("one-way-number")[4..]);
    assert_bytes(&client.output(), "resolve");
    assert!(client.input("resolved").is_empty());
    assert_bytes(&client.output(), "one-way-number");
}

#[test]
fn gone_with_a_reason() {
    let mut server = Side::server();
    server.0.gone(0, Termination::Crashed);
    assert_bytes(&server.output(), "gone-crashed");
    // A peer that has not said that it reads that gets none.
    let mut hello = client_hello();
    hello.capabilities.retain(|known| known != "endings");
    let mut session = Session::new(Limits::default(), "10.0.0.99:50000");
    let mut peer = meet(server_hello(), "hello-client");
    peer.hello = hello;
    session.attach(Timestamp::START, peer);
    let mut old = Side(session);
    old.0.gone(0, Termination::Crashed);
    assert_bytes(&old.output(), "gone");

    for (said, expected) in [("gone", Termination::Unknown), ("gone-crashed", Termination::Crashed)]
    {
        let mut client = Side::resolved_client();
        let target = client.target("master", None);
        let watch = client.0.watch(target).unwrap();
        assert!(client.input(said).is_empty());
        let Err(CallEnd::Terminated { incarnation, reason, cause: None }) = client.answer(watch)
        else {
            panic!("the watch has another end");
        };
        assert_eq!((incarnation, reason), (Some(Incarnation::new(SERVER, 1)), expected));
        // A watch looks for no successor.
        assert_bytes(&client.output(), "release");
    }
}

#[test]
fn word_of_an_end_waits_for_the_last_words() {
    let mut server = Side::server();
    server.0.gone(7, Termination::Crashed);
    assert_eq!(server.output().len(), golden("gone-crashed").len(), "nothing to wait for");
    let answers = |server: &mut Side| {
        assert!(matches!(server.input("ask").pop(), Some(Event::Message(_))));
        server.0.reply(0, &mut payload("reply")[8..].to_vec().into()).unwrap();
    };
    answers(&mut server);
    server.0.gone(0, Termination::Crashed);
    let said = server.output();
    let (reply, gone) = said.split_at(golden("reply").len());
    assert_bytes(reply, "reply");
    assert_bytes(gone, "gone-crashed");
    // A number that was released meanwhile may mean something else by then.
    let mut server = Side::server();
    answers(&mut server);
    server.0.gone(0, Termination::Crashed);
    server.0.released(0);
    assert_bytes(&server.output(), "reply");
}

#[test]
fn release() {
    let mut client = Side::resolved_client();
    client.send("Heartbeat", &payload("one-way-number")[4..]);
    client.0.release(0);
    // What was sent leaves the lanes first.
    let said = client.output();
    let (message, release) = said.split_at(golden("one-way-number").len());
    assert_bytes(message, "one-way-number");
    assert_bytes(release, "release");
    // What crosses it is ignored.
    assert!(client.input("credit").is_empty());
    assert!(client.input("gone").is_empty());
    // And the number is free.
    let target = client.target("master", None);
    client.0.resolve(NOW, target).unwrap();
    assert_bytes(&client.output(), "resolve");
    assert!(matches!(Side::server().input("release").pop(), Some(Event::Release(0))));
}

#[test]
fn the_end() {
    let text = "the env has been shut down";
    let mut server = Side::server();
    server.0.goodbye("shutdown");
    assert_bytes(&server.output(), "goodbye");
    server.0.close(&Close::new(CloseCode::Shutdown, text));
    assert_bytes(&server.output(), "close");

    let mut client = Side::client();
    match client.input("goodbye").pop() {
        Some(Event::Goodbye(reason)) => assert_eq!(reason, "shutdown"),
        other => panic!("{other:?}"),
    }
    match client.input("close").pop() {
        Some(Event::Closed(close)) => {
            assert!(close.is(CloseCode::Shutdown));
            assert_eq!(close.text, format!("the peer says: {text}"));
        }
        other => panic!("{other:?}"),
    }
    // Instead of a hello as well.
    let mut bytes = BytesMut::from(&[b"ARPC", golden("close")].concat()[..]);
    let closed = Hellos::new(client_hello(), 64 * 1024).receive(&mut bytes).unwrap_err();
    assert!(closed.is(CloseCode::Shutdown));
}

#[test]
fn bodies_are_what_the_page_says_of_types() {
    let world = LocalWorld::new();
    let factory = world.factory();
    let env = world.block_on(factory.create(RpcEnvConfig::client("c"))).unwrap();
    let encoded = |value: Result<Vec<u8>, RpcError>| value.unwrap();

    assert_eq!(encoded(env.encode(&Heartbeat { worker: 7 })), payload("one-way-number")[4..]);
    assert_eq!(encoded(env.encode(&Drain)), payload("one-way-name")[10..]);
    assert_eq!(encoded(env.encode(&Registered { id: 7 })), payload("reply")[8..]);
    assert_eq!(env.decode::<Drain>(&[0x90]).unwrap(), Drain);

    // A ref of another env goes through unchanged.
    let body = &payload("ask")[16..];
    let message: RegisterWorker = env.decode(body).unwrap();
    assert_eq!(message.cores, 8);
    assert_eq!(message.worker.to_string(), "rpc-client://worker-7@1122334455667788");
    assert_eq!(message.worker.incarnation(), Some(Incarnation::new(CLIENT, 3)));
    assert_eq!(encoded(env.encode(&message)), body);
}

/// A value encoded, and what it should be.
type Row = (Result<Vec<u8>, RpcError>, &'static [u8]);

#[test]
fn the_table_of_types() {
    #[derive(Serialize)]
    struct Id(u64);
    #[derive(Serialize)]
    struct Pair(u8, bool);
    #[derive(Serialize)]
    enum Job {
        Idle,
        Count(u8),
        Move(u8, u8),
        Run { id: u8 },
    }
    let world = LocalWorld::new();
    let env = world.block_on(world.factory().create(RpcEnvConfig::client("c"))).unwrap();
    let bytes: [Row; 17] = [
        (env.encode(&Id(5)), &[5]),
        (env.encode(&Pair(1, true)), &[0x92, 1, 0xc3]),
        (env.encode(&Job::Idle), b"\xa4Idle"),
        (env.encode(&Job::Count(1)), b"\x81\xa5Count\x01"),
        (env.encode(&Job::Move(1, 2)), b"\x81\xa4Move\x92\x01\x02"),
        (env.encode(&Job::Run { id: 1 }), b"\x81\xa3Run\x81\xa2id\x01"),
        (env.encode(&None::<u8>), &[0xc0]),
        (env.encode(&Some(1_u8)), &[1]),
        (env.encode(&()), &[0xc0]),
        (env.encode(&false), &[0xc2]),
        (env.encode(&200_i64), &[0xcc, 200]),
        (env.encode(&-1_i64), &[0xff]),
        (env.encode(&1.0_f32), &[0xca, 0x3f, 0x80, 0, 0]),
        (env.encode(&'a'), &[0xa1, b'a']),
        (env.encode(&vec![1_u8, 2]), &[0x92, 1, 2]),
        (env.encode(&Bytes::from_static(&[1, 2])), &[0xc4, 2, 1, 2]),
        (env.encode(&BTreeMap::from([(1_u8, "a")])), &[0x81, 1, 0xa1, b'a']),
    ];
    for (encoded, want) in bytes {
        assert_eq!(encoded.unwrap(), want);
    }
    // A struct is read from a map in any order with keys too many, and from an array.
    let heartbeat = Heartbeat { worker: 7 };
    let with_more = b"\x82\xa4more\xc0\xa6worker\xcd\x00\x07";
    assert_eq!(env.decode::<Heartbeat>(with_more).unwrap(), heartbeat);
    assert_eq!(env.decode::<Heartbeat>(&[0x91, 7]).unwrap(), heartbeat);
}

/// The cells of the tables' rows whose first cell is `first`.
fn rows(first: impl Fn(&str) -> bool) -> Vec<Vec<&'static str>> {
    let page = include_str!("../../docs/WIRE.md");
    let rows = page.lines().filter_map(|line| line.strip_prefix("| ")?.strip_suffix(" |"));
    let cells =
        rows.map(|row| row.split(" | ").map(|cell| cell.trim().trim_matches('`')).collect());
    cells.filter(|cells: &Vec<&str>| first(cells[0])).collect()
}

#[test]
fn the_table_of_kinds() {
    let in_words = |kind: Kind| {
        let name = format!("{kind:?}");
        let word = |(place, letter): (usize, char)| {
            let gap = if place > 0 && letter.is_uppercase() { "_" } else { "" };
            format!("{gap}{}", letter.to_ascii_uppercase())
        };
        name.char_indices().map(word).collect::<String>()
    };
    let rows = rows(|cell| cell.len() == 4 && cell.starts_with("0x"));
    for byte in 0..0x80 {
        let hex = format!("{byte:#04x}");
        // The flags are in a table of the same form.
        let found =
            rows.iter().find(|cells| cells[0] == hex && cells.len() == 4 && cells[1] != "FIRST");
        let on_the_page = found.filter(|cells| !matches!(cells[1], "NAMED" | "HEADERS" | "BULK"));
        let known = Kind::from_byte(byte).map(in_words);
        assert_eq!(on_the_page.map(|cells| cells[1]), known.as_deref(), "{hex}");
    }
}

#[test]
fn the_table_of_failures() {
    let outcomes = [
        ("never sent", Outcome::NeverSent),
        ("unknown", Outcome::Unknown),
        ("failed in the handler", Outcome::FailedInHandler),
    ];
    let rows = rows(|cell| cell.parse::<u16>().is_ok());
    let outcome_of = |cells: &[&str]| {
        let named = outcomes.iter().find(|(text, _)| cells.get(2) == Some(text));
        named.map(|(_, outcome)| *outcome)
    };
    let rows: Vec<_> = rows.into_iter().filter(|cells| outcome_of(cells).is_some()).collect();
    let usual =
        |code: &str| rows.iter().find(|cells| cells[0] == code).and_then(|cells| outcome_of(cells));
    for kind in ErrorKind::ALL {
        let code = kind.wire_code();
        let got = RemoteFailure::new(code, "").into_error().outcome();
        assert_eq!(usual(&code.to_string()), Some(got), "{kind:?}");
        for (thousands, outcome) in [1, 2, 3, 4].into_iter().zip([
            Outcome::NeverSent,
            Outcome::Unknown,
            Outcome::FailedInHandler,
            Outcome::Unknown,
        ]) {
            let failure = RemoteFailure::new(thousands * 1000 + code, "");
            assert_eq!(failure.into_error().outcome(), outcome);
        }
    }
    let most = ErrorKind::ALL.into_iter().map(ErrorKind::wire_code).max();
    assert_eq!(rows.len(), usize::from(most.unwrap()) + 1, "codes are numbered without gaps");
}

#[test]
fn no_block_is_forgotten() {
    let source = include_str!("wire_golden.rs");
    for name in GOLDEN.keys() {
        assert!(source.contains(&format!("\"{name}\"")), "nothing tests the block {name}");
    }
}
