//! Limits at their edge: what just fits, and what just does not.

use super::pair::{A, B, FAIL, Pair, body, hello};
use crate::Lane;
use crate::error::ErrorKind;
use crate::limits::Limits;
use crate::proto::assembly::{Assemblies, FirstPart};
use crate::proto::named::{MessageName, Named};
use crate::proto::target::Target;
use crate::proto::{Close, CloseCode, Resolution, Session, Submission, TargetId, TargetKey};
use crate::spi::Incarnation;
use crate::termination::Termination;
use crate::wire::encoded::{Encoded, SMALL_BODY};
use crate::wire::frame::{Header, Kind, put_control};
use bytes::BytesMut;
use std::collections::VecDeque;
use std::sync::atomic::Ordering;
use std::time::Duration;

const WINDOW: (u64, u64) = (1024, 64 << 20);

/// A pair whose targets are resolved already.
pub(super) fn resolved<const N: usize>(
    a: Limits,
    b: Limits,
    names: [&str; N],
) -> (Pair, [TargetId; N]) {
    let mut pair = Pair::with(a, b);
    let targets = names.map(|name| {
        pair.start(B, name, WINDOW);
        let target = pair.target(A, name, None);
        let call = pair.nodes[A].session.resolve(pair.now, target).unwrap();
        pair.run();
        pair.poll(A, call).unwrap().unwrap();
        target
    });
    (pair, targets)
}

/// The kinds of the frames that a side has to say, and the number that each begins with.
pub(super) fn frames(pair: &mut Pair, side: usize) -> Vec<(Kind, u32)> {
    let mut out = VecDeque::new();
    pair.nodes[side].session.transmit(|| pair.now, usize::MAX, &mut out);
    let bytes: Vec<u8> = out.iter().flatten().copied().collect();
    let mut rest = &bytes[..];
    let mut frames = Vec::new();
    while let Some((header, payload)) = Header::split(rest) {
        let number = payload.first_chunk().map_or(0, |number| u32::from_be_bytes(*number));
        frames.push((Kind::from_byte(header.kind).unwrap(), number));
        rest = &rest[8 + header.length..];
    }
    frames
}

#[test]
fn an_ask_is_alone_if_nothing_else_is_under_way() {
    let alone = |pair: &Pair| pair.nodes[A].session.is_lone_ask();
    let (mut pair, [echo, other]) = resolved(Limits::default(), Limits::default(), ["x", "y"]);
    assert!(!alone(&pair));
    for round in 0..3 {
        let call = pair.ask(A, echo, round, 4);
        assert!(alone(&pair), "round {round}");
        pair.run();
        assert!(!alone(&pair));
        pair.answer(A, call);
    }
    let calls = [pair.ask(A, echo, 1, 4), pair.ask(A, other, 2, 4)];
    assert!(!alone(&pair));
    pair.run();
    assert_eq!(calls.map(|call| pair.answer(A, call)), [1, 2]);
    // They went together the last time: this one may have company as well.
    let call = pair.ask(A, echo, 3, 4);
    assert!(!alone(&pair));
    pair.run();
    pair.answer(A, call);
    let call = pair.ask(A, echo, 4, 4);
    pair.nodes[A].session.heartbeat();
    assert!(!alone(&pair));
    pair.run();
    pair.answer(A, call);
    pair.send(A, echo, 5, 4);
    assert!(!alone(&pair));
}

#[test]
fn a_peer_may_leave_as_many_answers_unread_as_it_may_ask_for() {
    let two = Limits::default().with_max_in_flight(2).unwrap();
    let (mut pair, [echo]) = resolved(Limits::default(), two, ["x"]);
    let ask = |pair: &mut Pair| {
        let call = pair.ask(A, echo, 0, 4);
        pair.transmit(A, usize::MAX);
        pair.deliver(B).unwrap();
        call
    };
    let calls = [ask(&mut pair), ask(&mut pair)];
    assert!(!pair.nodes[B].session.is_flooded());
    pair.nodes[A].session.abandon(pair.now, calls[0]);
    ask(&mut pair);
    assert!(pair.nodes[B].session.is_flooded());
    let control = Limits::default().with_outbox_max_bytes(16).unwrap();
    let mut session = Session::new(control, "b");
    // Eight bytes each.
    for flooded in [false, false, true] {
        session.heartbeat();
        assert_eq!(session.is_flooded(), flooded);
    }
}

#[test]
fn replies_may_fill_their_room() {
    for size in [SMALL_BODY + 1, 100_000, 300_000] {
        let limits = Limits::default().with_outbox_max_reply_bytes(2 * size).unwrap();
        let (mut pair, [echo]) = resolved(Limits::default(), limits, ["x"]);
        let calls = [0, 1, 2].map(|number| pair.ask(A, echo, number, size));
        while pair.transmit(A, usize::MAX) {
            pair.deliver(B).unwrap();
        }
        pair.run();
        assert_eq!([pair.answer(A, calls[0]), pair.answer(A, calls[1])], [0, 1]);
        assert_eq!(pair.error(A, calls[2]).kind(), ErrorKind::Overloaded, "{size}");
    }
}

#[test]
fn a_reply_takes_the_body_only_if_it_is_large_and_goes() {
    let limits = Limits::default().with_message_max_size(100_000).unwrap();
    let (mut pair, [echo]) = resolved(Limits::default(), limits, ["x"]);
    pair.nodes[B].hold = true;
    for (size, left) in [(SMALL_BODY, SMALL_BODY), (100_001, 100_001), (100_000, 0)] {
        let call = pair.ask(A, echo, 0, 4);
        pair.run();
        let asked = pair.nodes[B].inbox.pop_front().unwrap().message.call.unwrap();
        let mut body = Encoded::from(body(1, size));
        let replied = pair.nodes[B].session.reply(asked, &mut body);
        assert_eq!((replied.is_ok(), body.len()), (size <= 100_000, left));
        if let Err(error) = replied {
            assert!(!pair.nodes[B].session.is_cancelled(asked), "the call is open still");
            pair.nodes[B].session.fail(asked, &error);
        }
        pair.run();
        assert!(pair.poll(A, call).is_some());
    }
}

#[test]
fn whoever_serves_a_connection_is_told_that_a_call_of_it_was_given_up() {
    let (mut pair, [echo]) = resolved(Limits::default(), Limits::default(), ["x"]);
    pair.nodes[B].hold = true;
    let given_up = pair.nodes[B].session.cancels();
    let calls = [pair.ask(A, echo, 1, 4), pair.ask(A, echo, 2, 4)];
    pair.run();
    assert!(!given_up.load(Ordering::Acquire));
    pair.nodes[A].session.abandon(pair.now, calls[0]);
    pair.run();
    assert!(given_up.load(Ordering::Acquire));
    pair.cut();
    let given_up = pair.nodes[B].session.cancels();
    assert!(!given_up.load(Ordering::Acquire), "each connection has its own");
}

#[test]
fn nothing_follows_a_close() {
    let (mut pair, _) = resolved(Limits::default(), Limits::default(), ["x"]);
    pair.nodes[B].session.grant(0, 1, 1);
    pair.nodes[B].session.close(&Close::new(CloseCode::Protocol, "enough"));
    assert!(pair.nodes[B].session.has_output());
    assert_eq!(frames(&mut pair, B).iter().map(|frame| frame.0).collect::<Vec<_>>(), [Kind::Close]);
    pair.nodes[B].session.grant(0, 1, 1);
    assert!(!pair.nodes[B].session.has_output());
    assert_eq!(frames(&mut pair, B), []);
}

#[test]
fn the_end_of_an_endpoint_that_was_released_is_not_said() {
    let (mut pair, [first, _]) = resolved(Limits::default(), Limits::default(), ["x", "y"]);
    pair.nodes[B].hold = true;
    let body = body(1, 4);
    pair.submit(A, first, (FAIL, Lane::Normal), body, Submission::Ask).unwrap();
    pair.run();
    // Behind the answer.
    pair.handle(B);
    let session = &mut pair.nodes[B].session;
    session.gone(0, Termination::Stopped);
    session.gone(1, Termination::Stopped);
    session.released(0);
    let said = frames(&mut pair, B);
    assert_eq!(said.iter().map(|frame| frame.0).collect::<Vec<_>>(), [Kind::Failure]);
    assert_eq!(frames(&mut pair, B), [(Kind::Gone, 1)]);
}

#[test]
fn one_large_body_may_come_on_top_of_the_budget() {
    let first = |stream, total| FirstPart { stream, total, what: () };
    let mut bodies = Assemblies::new(100, 200);
    for stream in 0..3 {
        assert_eq!(bodies.begin(first(stream, 100)).unwrap(), 100);
    }
    let close = bodies.begin(first(3, 1)).unwrap_err();
    assert!(close.is(CloseCode::Credit) && close.text.contains("301 bytes"), "{close}");
    assert!(bodies.begin(first(3, 101)).unwrap_err().is(CloseCode::TooLarge));
    assert_eq!(bodies.drop_stream(1), Some(((), 100)));
    assert_eq!(bodies.begin(first(3, 100)).unwrap(), 100);
    assert!(bodies.begin(first(4, 0)).is_ok());
}

/// A peer gets memory for what it announces only when it has sent some of it.
#[test]
fn a_large_body_is_not_reserved_before_it_comes() {
    const KIB: usize = 1024;
    let mut bodies = Assemblies::new(64 << 20, 64 << 20);
    // No spare buffer is as large as the first, and one of the others may have come from there.
    for (stream, total, room) in [
        (1, 17 << 20, 256 * KIB),
        (2, (2 << 20) + 1, 256 * KIB),
        (3, 2 << 20, 2 << 20),
        (4, 256 * KIB + 1, 256 * KIB + 1),
    ] {
        bodies.begin(FirstPart { stream, total: total as u64, what: () }).unwrap();
        let buffer = bodies.lend(stream).unwrap();
        let capacity = buffer.capacity();
        assert!(capacity == room || stream > 1 && (total..=2 * total).contains(&capacity));
        assert!(bodies.take_back(stream, buffer).is_none());
    }
    assert!(bodies.add(1, &[0; 256 * KIB]).unwrap().is_none());
    assert_eq!(bodies.lend(1).unwrap().capacity(), 256 * KIB, "it is just full");
    bodies.take_back(1, Vec::with_capacity(256 * KIB));
    bodies.add(1, &[0; 256 * KIB + 1]).unwrap();
    assert_eq!(bodies.lend(1).unwrap().capacity(), 17 << 20, "then all of it at once");
}

#[test]
fn an_answer_to_a_call_of_the_future_is_one_to_none() {
    let (mut pair, [echo]) = resolved(Limits::default(), Limits::default(), ["x"]);
    pair.nodes[B].hold = true;
    let call = pair.ask(A, echo, 0, 4);
    pair.run();
    let mut bytes = BytesMut::new();
    // The slot of that call, used once more.
    put_control(&mut bytes, Kind::Reply, &(1_u64 << 24).to_be_bytes(), &[]);
    let close = pair.arrive(A, &bytes).unwrap_err();
    assert!(close.text.contains("call 0x1000000, which was never made"), "{close}");
    assert!(pair.poll(A, call).is_none());
}

#[test]
fn whoever_asks_for_an_endpoint_without_a_connection_is_told_when_there_is_one() {
    let mut pair = Pair::new();
    pair.start(B, "x", WINDOW);
    pair.cut();
    let resolving = pair.target(A, "x", None);
    let call = pair.nodes[A].session.resolve(pair.now, resolving).unwrap();
    let watched = pair.target(A, "y", None);
    let watch = pair.nodes[A].session.watch(watched).unwrap();
    assert!(pair.nodes[A].session.wants_connection());
    pair.attach([hello(1, &Limits::default()), hello(2, &Limits::default())]);
    assert!(!pair.nodes[A].session.wants_connection());
    pair.run();
    assert!(pair.poll(A, call).unwrap().is_ok());
    assert_eq!(pair.error(A, watch).kind(), ErrorKind::EndpointNotFound);
}

fn target(messages: &[&str], credit: (u64, u64)) -> Target {
    let messages = messages.iter().map(|&name| name.to_owned()).collect();
    let mut target = Target::new(TargetKey::new("x", None));
    target.resolved(Resolution::new(Incarnation::new(1, 1), messages, credit.0, credit.1));
    target
}

#[test]
fn messages_are_told_apart_by_their_whole_names() {
    let mut target = target(&["Add", "Put", "PutAll"], (1, 1));
    let all: &'static str = "PutAll";
    let names = ["Add", "Put", &all[..3], all, "Get", "Add"];
    let numbers = names.map(|name| match target.message(&Named::Ours(name)) {
        MessageName::Number(number) => Ok(number),
        MessageName::Text(name) => Err(name.to_owned()),
    });
    assert_eq!(numbers, [Ok(0), Ok(1), Ok(1), Ok(2), Err("Get".to_owned()), Ok(0)]);
    // What was found is kept, once for each.
    let kept = |target: &Target| format!("{target:?}").matches("(\"Get\", ").count();
    assert_eq!(kept(&target), 1);
    let get = Named::Ours(names[4]);
    (0..9).for_each(|_| assert_eq!(target.message(&get), MessageName::Text("Get")));
    assert_eq!(kept(&target), 1);
    let shown = [Named::Ours("Add"), Named::Number(7), Named::Text("Get".into())];
    assert_eq!(shown.map(|name| name.to_string()), ["Add", "message number 7", "Get"]);
}

#[test]
fn bytes_of_credit_may_be_overdrawn_once() {
    let mut target = target(&[], (10, 100_000));
    let may = |target: &Target| [4096, 4097].map(|bytes| target.has_credit(bytes));
    target.spend(99_999);
    assert_eq!(may(&target), [true, true]);
    target.refund(1, 99_999);
    target.spend(100_000);
    assert_eq!(may(&target), [true, false]);
    target.refund(0, 1);
    target.spend(50_000);
    assert_eq!((target.bytes_left, may(&target)), (-49_999, [true, false]));
    (0..8).for_each(|_| target.spend(4));
    assert_eq!((target.messages_left, may(&target)), (0, [false, false]));
}

#[test]
fn deadlines_of_calls_that_have_ended_do_not_pile_up() {
    let (mut pair, [echo]) = resolved(Limits::default(), Limits::default(), ["x"]);
    for number in 0..2000 {
        let call = pair.ask(A, echo, number, 4);
        pair.run();
        assert_eq!(pair.answer(A, call), number);
    }
    let deadlines = format!("{:?}", pair.nodes[A].session.deadlines);
    let deadlines = deadlines.matches("Entry").count();
    assert!(deadlines <= 130, "{deadlines}");
}

/// An endpoint may take more messages than a frame has room to name.
#[test]
fn messages_that_the_resolution_has_no_room_for_are_sent_by_name() {
    let limits = || Limits::default().with_frame_max_size(32 << 10).unwrap();
    let mut pair = Pair::with(limits(), limits());
    let target = pair.target(A, "x", None);
    pair.nodes[A].session.resolve(pair.now, target).unwrap();
    // Each takes 102 bytes there, and 1 KiB is for all else.
    let fit = ((32 << 10) - 1024) / 102;
    let names: Vec<String> = (0..400).map(|number| format!("{number:0100}")).collect();
    let resolution = Resolution::new(Incarnation::new(1, 1), names.clone(), 1, 1);
    pair.nodes[B].session.resolved(0, &resolution);
    pair.transmit(B, usize::MAX);
    pair.deliver(A).unwrap();
    let target = pair.nodes[A].session.targets.get_mut(target).unwrap();
    let by_number = names.into_iter().filter(|name| {
        let name = Named::Ours(name.clone().leak());
        matches!(target.message(&name), MessageName::Number(_))
    });
    assert_eq!(by_number.count(), fit);
}

#[test]
fn a_message_says_its_lane_and_the_time_that_is_left() {
    let (mut pair, [echo]) = resolved(Limits::default(), Limits::default(), ["x"]);
    pair.nodes[B].hold = true;
    // Small, in one frame, in parts.
    for size in [4, 100_000, 600_000] {
        for lane in [Lane::Normal, Lane::Bulk] {
            let how = Submission::Ask;
            pair.submit(A, echo, (FAIL, lane), body(1, size), how).unwrap();
            pair.run();
            let message = pair.nodes[B].inbox.pop_front().unwrap().message;
            assert_eq!((message.lane, message.body.len()), (lane, size));
            assert_eq!(message.deadline, pair.now + Duration::from_secs(10), "{size}");
        }
    }
}

#[test]
fn a_number_that_was_never_used_means_nothing() {
    let (mut pair, _) = resolved(Limits::default(), Limits::default(), ["x", "y"]);
    let credit = |number: u8| {
        let mut bytes = BytesMut::new();
        put_control(&mut bytes, Kind::Credit, &[0, 0, 0, number, 0, 0, 0, 1], &[0; 8]);
        bytes
    };
    pair.arrive(A, &credit(1)).unwrap();
    let close = pair.arrive(A, &credit(2)).unwrap_err();
    assert_eq!(close.text, "target 2 was never resolved");
}
