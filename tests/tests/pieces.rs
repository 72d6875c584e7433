//! Sessions that come in pieces: how bytes come together does not matter. That connections may be lost at
//! every byte is shown in `rpc-core/src/proto/tests/cuts.rs`; here it is shown of their hellos.
#![cfg(test)]

use bytes::{BufMut, BytesMut};
use rpc_core::proto::{
    Close, Event, Hello, Hellos, PeerInfo, PeerLimits, Request, Session, Submission, TargetKey,
};
use rpc_core::spi::{CallEnd, Outgoing};
use rpc_core::{ErrorKind, Lane, Limits, Outcome, RpcError, Timestamp};
use rpc_tests::raw_peer::{
    ask, bytes_of, flag, flagged, frame, hello, kind, reply, resolve, resolved,
};
use std::collections::VecDeque;
use std::task::{Context, Poll, Waker};

const NOW: Timestamp = Timestamp::START;
/// The calls that the env has open when answers are cut.
const CALLS: u64 = 20;

/// What one side of a connection said, frame by frame.
struct Recorded {
    name: &'static str,
    /// Whether they are answers to the calls of the side that reads them.
    answers: bool,
    frames: Vec<Vec<u8>>,
}

fn text(length: usize) -> Vec<u8> {
    let length = u32::try_from(length).unwrap();
    [&[0xdb][..], &length.to_be_bytes(), &vec![b'x'; length as usize]].concat()
}

/// A message or a reply in parts of 4 KiB.
fn in_parts(kind: u8, stream: u32, fields: &[u8], body: &[u8]) -> Vec<Vec<u8>> {
    let mut parts = body.chunks(4096);
    let first = parts.next().unwrap_or_default();
    let total = (body.len() as u64).to_be_bytes();
    let fields = [&stream.to_be_bytes()[..], &total, fields, first].concat();
    let chunk = |part: &[u8]| frame(kind::CHUNK, &[&stream.to_be_bytes()[..], part].concat());
    std::iter::once(flagged(kind, flag::FIRST, 0, &fields)).chain(parts.map(chunk)).collect()
}

fn failure(call: u64) -> Vec<u8> {
    frame(kind::FAILURE, &[&call.to_be_bytes()[..], b"\x82\xa4code\x0e\xa4text\xa3why"].concat())
}

/// The frames of several large bodies, in turns.
fn mixed(bodies: Vec<Vec<Vec<u8>>>) -> Vec<Vec<u8>> {
    let most = bodies.iter().map(Vec::len).max().unwrap_or_default();
    (0..most)
        .flat_map(|turn| bodies.iter().filter_map(move |body| body.get(turn).cloned()))
        .collect()
}

/// Ten sessions, as they are said.
#[expect(clippy::too_many_lines, reason = "a table is as long as it is")]
fn recorded() -> Vec<Recorded> {
    let one_way = |body: &[u8]| flagged(kind::ONE_WAY, 0, 3, &[&[0; 4], body].concat());
    let named = |call: u64| {
        let fields = [&call.to_be_bytes()[..], &[0; 4], &[0, 0, 0x27, 0x10], b"\x05Drain\x90"];
        flagged(kind::ASK, flag::NAMED, 0, &fields.concat())
    };
    let trace = b"\x00\x46\x81\xabtraceparent\xd9\x3700-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01\x90";
    let traced = flagged(kind::ONE_WAY, flag::HEADERS, 0, &[&[0; 4][..], trace].concat());
    let cancel = |call: u64| frame(kind::CANCEL, &call.to_be_bytes());
    let drop = |stream: u32| frame(kind::CHUNK_DROP, &stream.to_be_bytes());
    let target = |kind: u8, target: u32, rest: &[u8]| {
        frame(kind, &[&target.to_be_bytes()[..], rest].concat())
    };
    let large = |stream: u32| in_parts(kind::ONE_WAY, stream, &[0; 4], &text(6_000));
    let large_reply =
        |call: u64| in_parts(kind::REPLY, call as u32, &call.to_be_bytes(), &text(6_000));
    let calls = || 0..CALLS;
    let record = |name, answers, frames| Recorded { name, answers, frames };
    vec![
        record("asks", false, (0..300).map(|call| ask(1, call, 10_000, &text(20))).collect()),
        record("asks by name", false, (0..300).map(named).collect()),
        record("one way", false, (0..300).map(|size| one_way(&text(size % 50))).collect()),
        record("traced", false, vec![traced; 120]),
        record("large messages", false, mixed((0..3).map(large).collect())),
        record(
            "asks taken back",
            false,
            (0..200).flat_map(|call| [ask(1, call, 10_000, b"\x90"), cancel(call)]).collect(),
        ),
        record(
            "targets, dropped bodies, signs of life",
            false,
            (0..60)
                .flat_map(|number| {
                    let begun =
                        in_parts(kind::ONE_WAY, number, &[0; 4], &text(5_000)).swap_remove(0);
                    let rest = [
                        frame(kind::PING, &[1; 8]),
                        frame(kind::HEARTBEAT, &[]),
                        frame(0x91, &[1; 9]),
                    ];
                    [
                        resolve(number, "probe"),
                        target(kind::RELEASE, number, b""),
                        begun,
                        drop(number),
                    ]
                    .into_iter()
                    .chain(rest)
                })
                .take(40)
                .collect(),
        ),
        record("replies", true, calls().map(|call| reply(call, &text(600))).collect()),
        record("failures, credit and an end", true, {
            let credit = || target(kind::CREDIT, 0, &[0; 12]);
            let mut frames: Vec<_> = calls().flat_map(|call| [failure(call), credit()]).collect();
            frames.push(target(kind::GONE, 0, b""));
            frames.push(frame(kind::GOODBYE, b"\x81\xa6reason\xa3why"));
            frames.push(frame(kind::CLOSE, b"\x81\xa4code\x06"));
            frames
        }),
        record("large replies", true, mixed(calls().take(2).map(large_reply).collect())),
    ]
}

/// A session in which the peer has resolved nothing, or one with calls that are open there.
fn session(answers: bool) -> (Session, Vec<u64>) {
    let mut session = Session::new(Limits::default(), "peer");
    let calls = connect(&mut session, answers);
    (session, calls)
}

fn connect(session: &mut Session, answers: bool) -> Vec<u64> {
    session.attach(NOW, peer());
    if !answers {
        return Vec::new();
    }
    let target = session.target(&TargetKey::new("probe", None)).unwrap();
    let calls = (0..CALLS).map(|_| {
        let mut body = b"\x90".to_vec().into();
        let mut message = Outgoing::new("Echo", Lane::Normal, &mut body, Timestamp::MAX);
        let request = Request::new(target, &mut message, Submission::Ask);
        session.submit(|| NOW, request).unwrap().unwrap()
    });
    let calls = calls.collect();
    transmit(session);
    take(session, &resolved(0, &["Echo"], CALLS)).unwrap();
    transmit(session);
    calls
}

fn peer() -> PeerInfo {
    let mut bytes = BytesMut::from(&bytes_of(&hello(7, None))[..]);
    let ours = Hello::new(8, None, PeerLimits::default());
    Hellos::new(ours, 1 << 16).receive(&mut bytes).unwrap().unwrap()
}

fn transmit(session: &mut Session) {
    let mut out = VecDeque::new();
    while session.has_output() {
        session.transmit(|| NOW, usize::MAX, &mut out);
    }
}

/// Takes bytes as they come in one read.
fn take(session: &mut Session, bytes: &[u8]) -> Result<Vec<String>, Close> {
    let (mut bytes, mut events) = (BytesMut::from(bytes), Vec::new());
    session.receive(NOW, &mut bytes, &mut events)?;
    Ok(shown(events))
}

/// What the events say, but for that a large body has begun, which is known before its frame is whole.
fn shown(events: Vec<Event>) -> Vec<String> {
    let whole = |event: &Event| !matches!(event, Event::Begun(..));
    let each = |event| match event {
        Event::Messages(row) => row.into_messages().map(Event::Message).collect(),
        other => vec![other],
    };
    let each = events.into_iter().flat_map(each);
    each.filter(whole).map(|event| format!("{event:?}")).collect()
}

/// How each of the calls has ended, if it has.
fn ended(session: &mut Session, calls: &[u64]) -> Vec<Option<bool>> {
    let cx = Context::from_waker(Waker::noop());
    let mut poll = |call: &u64| match session.poll_call(*call, &cx) {
        Poll::Ready(Ok(_)) => Some(true),
        Poll::Ready(Err(CallEnd::Failed(error))) if error.kind() == ErrorKind::Disconnected => {
            assert_eq!(error.outcome(), Outcome::Unknown);
            None
        }
        Poll::Ready(Err(_)) => Some(false),
        Poll::Pending => panic!("a call that nothing will end"),
    };
    calls.iter().map(&mut poll).collect()
}

/// What comes of a session that arrives in one read.
fn at_once(recorded: &Recorded) -> (Vec<String>, Vec<Option<bool>>) {
    let (mut session, calls) = session(recorded.answers);
    let events = take(&mut session, &recorded.frames.concat()).unwrap();
    session.detach(&RpcError::new(ErrorKind::Disconnected, "cut"), false);
    let ended = ended(&mut session, &calls);
    assert!(events.len() + ended.iter().flatten().count() >= 2, "{}", recorded.name);
    (events, ended)
}

#[test]
fn r16_every_hello_is_cut_at_every_byte() {
    let ours = || Hellos::new(Hello::new(8, None, PeerLimits::default()), 1 << 16);
    let address = Some("10.0.0.7:7077");
    for whole in [bytes_of(&hello(7, None)), bytes_of(&hello(7, address))] {
        for at in 0..whole.len() {
            let mut bytes = BytesMut::from(&whole[..at]);
            assert!(ours().receive(&mut bytes).unwrap().is_none(), "cut at byte {at}");
        }
        assert!(ours().receive(&mut BytesMut::from(&whole[..])).unwrap().is_some());
    }
}

/// Takes bytes in pieces, as a driver does: parts of large bodies are read to where they belong.
fn in_pieces(
    recorded: &Recorded,
    mut size: impl FnMut() -> usize,
) -> (Vec<String>, Vec<Option<bool>>) {
    let (mut session, calls) = session(recorded.answers);
    let whole = recorded.frames.concat();
    let (mut rest, mut buffer) = (&whole[..], BytesMut::new());
    let (mut landing, mut all) = (None, Vec::new());
    while !rest.is_empty() {
        let mut length = size().min(rest.len());
        if let Some(landing) = &mut landing {
            let mut room = rpc_core::proto::Landing::room(landing);
            length = length.min(room.remaining_mut());
            room.put_slice(&rest[..length]);
        } else {
            buffer.extend_from_slice(&rest[..length]);
        }
        rest = &rest[length..];
        let mut events = Vec::new();
        loop {
            let taken =
                session.receive_with(NOW, landing, &mut buffer, &mut events, &mut 100).unwrap();
            landing = taken.landing;
            if !taken.more {
                break;
            }
        }
        all.extend(shown(events));
    }
    session.detach(&RpcError::new(ErrorKind::Disconnected, "cut"), false);
    (all, ended(&mut session, &calls))
}

#[test]
fn r17_how_bytes_come_together_does_not_matter() {
    for recorded in recorded() {
        let whole = at_once(&recorded);
        for size in [1, 2, 3, 5, 7, 8, 9, 64, 1000, 4096, 5000] {
            let pieces = in_pieces(&recorded, || size);
            assert!(pieces == whole, "{} in pieces of {size}", recorded.name);
        }
        for seed in 1..50_u64 {
            let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15);
            let random = || {
                // xorshift64
                state ^= state << 13;
                state ^= state >> 7;
                state ^= state << 17;
                1 + usize::try_from(state >> 52).unwrap() % 700
            };
            let pieces = in_pieces(&recorded, random);
            assert!(pieces == whole, "{} in pieces by seed {seed}", recorded.name);
        }
    }
}
