//! Calls, answers, order, cancelling.

use super::pair::{A, B, Chunks, FAIL, Pair, Random, SMALL, UNLISTED, Waiting, body};
use crate::Lane;
use crate::error::{ErrorKind, Outcome};
use crate::limits::Limits;
use crate::proto::Submission;
use crate::spi::CallEnd;
use std::time::Duration;

const WINDOW: (u64, u64) = (1024, 64 << 20);

fn with_echo() -> (Pair, u32) {
    let mut pair = Pair::new();
    pair.start(B, "echo", WINDOW);
    let target = pair.target(A, "echo", None);
    (pair, target)
}

/// A pair whose target is resolved already.
fn resolved() -> (Pair, u32) {
    let (mut pair, target) = with_echo();
    let call = pair.ask(A, target, 0, 4);
    pair.run();
    assert_eq!(pair.answer(A, call), 0);
    pair.nodes[B].seen.clear();
    (pair, target)
}

fn numbers(pair: &Pair) -> Vec<u32> {
    pair.nodes[B].seen.iter().map(|seen| seen.number).collect()
}

fn at_rest(pair: &Pair) {
    for node in &pair.nodes {
        let session = &node.session;
        assert_eq!((session.queued, session.queued_bytes, session.flights.len()), (0, 0, 0));
        assert_eq!(session.open_calls(), (0, 0));
        assert!(!session.has_output());
    }
}

#[test]
fn an_ask_is_answered_and_a_name_is_resolved_once() {
    let (mut pair, target) = with_echo();
    let call = pair.ask(A, target, 7, 100);
    let named = body(8, 4);
    let named = pair.submit(A, target, (UNLISTED, Lane::Normal), named, Submission::Ask);
    pair.run();
    assert_eq!(pair.answer(A, call), 7);
    assert_eq!(pair.answer(A, named.unwrap().unwrap()), 8);
    assert_eq!(pair.nodes[B].seen[1].message, UNLISTED);
    at_rest(&pair);
}

#[test]
fn failures_arrive_with_their_kind() {
    let (mut pair, target) = with_echo();
    let call = pair.submit(A, target, (FAIL, Lane::Normal), body(1, 4), Submission::Ask);
    let none = pair.target(A, "none", None);
    let lost = pair.ask(A, none, 2, 4);
    pair.run();
    let error = pair.error(A, call.unwrap().unwrap());
    assert_eq!(
        (error.kind(), error.outcome()),
        (ErrorKind::HandlerFailed, Outcome::FailedInHandler)
    );
    let error = pair.error(A, lost);
    assert_eq!((error.kind(), error.outcome()), (ErrorKind::EndpointNotFound, Outcome::NeverSent));
    at_rest(&pair);
}

#[test]
fn bodies_of_every_size_arrive_in_any_chunks_both_ways() {
    let sizes = [4, 16 << 10, (16 << 10) + 1, 256 << 10, (256 << 10) + 1, 1 << 20];
    for chunks in [Chunks::Whole, Chunks::Random(Random::new(3)), Chunks::Single] {
        let (mut pair, target) = with_echo();
        pair.start(A, "echo", WINDOW);
        let back = pair.target(B, "echo", None);
        let single = matches!(chunks, Chunks::Single);
        pair.chunks = chunks;
        for (number, size) in (0..).zip(sizes).take(if single { 3 } else { sizes.len() }) {
            let calls = [pair.ask(A, target, number, size), pair.ask(B, back, number, size)];
            pair.run();
            for (side, call) in [A, B].into_iter().zip(calls) {
                assert_eq!(pair.poll(side, call).unwrap().unwrap(), body(number, size));
            }
        }
        at_rest(&pair);
    }
}

#[test]
fn order_holds_within_a_lane_and_a_target_whatever_the_sizes() {
    let (mut pair, target) = with_echo();
    pair.chunks = Chunks::Random(Random::new(5));
    let sizes = [4, 600_000, 4, 4, 17_000, 300_000, 4];
    for (number, size) in (0..).zip(sizes) {
        pair.send(A, target, number, size);
    }
    pair.run();
    for (number, size) in (7..).zip(sizes) {
        pair.send(A, target, number, size);
    }
    pair.run();
    assert_eq!(numbers(&pair), (0..14).collect::<Vec<_>>());
}

#[test]
fn a_large_message_lets_those_to_other_targets_and_lanes_past() {
    let (mut pair, target) = resolved();
    pair.start(B, "other", WINDOW);
    let other = pair.target(A, "other", None);
    let call = pair.ask(A, other, 0, 4);
    pair.run();
    pair.answer(A, call);
    pair.nodes[B].seen.clear();
    let bulk = body(1, 2 << 20);
    pair.submit(A, target, (SMALL, Lane::Bulk), bulk, Submission::Send).unwrap();
    pair.send(A, target, 2, 1 << 20);
    pair.transmit(A, 1);
    pair.send(A, target, 3, 4);
    pair.send(A, other, 4, 4);
    pair.run();
    assert_eq!(numbers(&pair), [4, 2, 3, 1]);
}

#[test]
fn a_call_taken_back_is_not_seen_at_any_stage_before_the_socket() {
    for (size, stage) in [(4, "pending"), (4, "ready"), (1 << 20, "pending"), (1 << 20, "ready")] {
        let (mut pair, target) = if stage == "pending" { with_echo() } else { resolved() };
        let first = pair.ask(A, target, 1, size);
        let second = pair.ask(A, target, 2, 4);
        pair.nodes[A].session.abandon(pair.now, first);
        pair.run();
        assert_eq!(numbers(&pair), [2], "{size} {stage}");
        assert_eq!(pair.answer(A, second), 2);
        at_rest(&pair);
    }
}

#[test]
fn a_call_given_up_after_the_socket_is_cancelled_there() {
    for size in [4, 100_000, 1 << 20] {
        let (mut pair, target) = resolved();
        pair.nodes[B].hold = true;
        let call = pair.ask(A, target, 1, size);
        pair.transmit(A, 1);
        while pair.deliver(B).unwrap() {}
        pair.nodes[A].session.abandon(pair.now, call);
        let next = pair.ask(A, target, 2, 4);
        pair.run();
        pair.nodes[B].hold = false;
        while pair.handle(B) {}
        pair.run();
        assert_eq!(numbers(&pair), [2], "{size}");
        assert_eq!(pair.answer(A, next), 2);
        at_rest(&pair);
    }
}

#[test]
fn expiry_says_whether_the_call_was_sent() {
    let stages: [(&str, usize, bool); 6] = [
        ("pending", 4, false),
        ("ready", 4, false),
        ("sent", 4, true),
        ("pending", 1 << 20, false),
        ("ready", 1 << 20, false),
        ("sent", 1 << 20, true),
    ];
    for (stage, size, expected) in stages {
        let (mut pair, target) = if stage == "pending" { with_echo() } else { resolved() };
        pair.nodes[B].hold = true;
        let call = pair.ask(A, target, 1, size);
        if stage == "sent" {
            pair.transmit(A, 1);
        }
        pair.now = pair.now + Duration::from_secs(11);
        pair.nodes[A].session.expire(pair.now, call);
        match pair.poll(A, call) {
            Some(Err(CallEnd::TimedOut { sent })) => assert_eq!(sent, expected, "{stage} {size}"),
            end => panic!("{end:?}"),
        }
        pair.run();
        pair.nodes[B].hold = false;
        while pair.handle(B) {}
        pair.run();
        assert_eq!(numbers(&pair), [] as [u32; 0]);
        at_rest(&pair);
    }
}

#[test]
fn a_call_that_ends_hands_its_place_to_one_that_can_use_it() {
    let limits = Limits::default().with_max_in_flight(1).unwrap();
    let mut pair = Pair::with(limits.clone(), limits);
    let targets = ["x", "y"].map(|name| {
        pair.start(B, name, WINDOW);
        pair.target(A, name, None)
    });
    let mut resolving = targets.map(|target| pair.ask(A, target, 0, 4)).to_vec();
    pair.run();
    assert!(resolving.drain(..).all(|call| pair.answer(A, call) == 0));
    pair.nodes[B].hold = true;
    let first = pair.ask(A, targets[0], 1, 4);
    let taken_back = pair.ask(A, targets[0], 2, 4);
    let last = pair.ask(A, targets[1], 3, 4);
    pair.nodes[A].session.abandon(pair.now, taken_back);
    pair.run();
    assert_eq!(pair.nodes[B].inbox.len(), 1, "one call may be in flight");
    pair.nodes[B].hold = false;
    while pair.handle(B) {}
    pair.run();
    assert_eq!((pair.answer(A, first), pair.answer(A, last)), (1, 3));
    at_rest(&pair);
}

#[test]
fn more_calls_than_may_be_in_flight_wait_for_their_turn() {
    let limits = Limits::default().with_max_in_flight(4).unwrap();
    let mut pair = Pair::with(limits.clone(), limits);
    pair.start(B, "echo", WINDOW);
    let target = pair.target(A, "echo", None);
    let calls: Vec<u64> = (0..50).map(|number| pair.ask(A, target, number, 4)).collect();
    pair.run();
    for (number, call) in (0..).zip(calls) {
        assert_eq!(pair.answer(A, call), number);
    }
    at_rest(&pair);
}

#[test]
fn hundreds_of_large_bodies_may_be_under_way() {
    let (mut pair, target) = resolved();
    pair.nodes[B].hold = true;
    let calls: Vec<u64> = (0..300).map(|number| pair.ask(A, target, number, 4)).collect();
    pair.run();
    // Every answer is larger than a frame.
    while let Some(Waiting { message, .. }) = pair.nodes[B].inbox.pop_front() {
        let number = u32::from_be_bytes(message.body[..4].try_into().unwrap());
        let large = body(number, 300_000);
        pair.nodes[B].session.reply(message.call.unwrap(), &mut large.into()).unwrap();
    }
    pair.run();
    for (number, call) in (0..).zip(calls) {
        assert_eq!(pair.answer(A, call), number);
    }
}

#[test]
fn a_send_that_waits_ends_when_there_is_room_and_says_what_became_of_it() {
    let limits = Limits::default().with_outbox_max_messages(2).unwrap();
    let mut pair = Pair::with(limits, Limits::default());
    pair.start(B, "echo", WINDOW);
    let target = pair.target(A, "echo", None);
    let wait = |pair: &mut Pair, number| {
        let body = body(number, 4);
        pair.submit(A, target, (SMALL, Lane::Normal), body, Submission::SendWait).unwrap()
    };
    // The first two find room, and are no calls.
    let waiting = |calls: Vec<Option<u64>>| match calls[..] {
        [None, None, Some(first), Some(second)] => [first, second],
        ref other => panic!("{other:?}"),
    };
    let calls = waiting((0..4).map(|number| wait(&mut pair, number)).collect());
    assert!(pair.poll(A, calls[0]).is_none());
    // Taken back while it waits, also once it is in the buffer of its lane.
    pair.nodes[A].session.expire(pair.now, calls[1]);
    assert!(matches!(pair.poll(A, calls[1]), Some(Err(CallEnd::TimedOut { sent: false }))));
    pair.run();
    assert!(pair.poll(A, calls[0]).is_some_and(|end| end.is_ok()));
    assert_eq!(numbers(&pair), [0, 1, 2]);
    let calls = waiting((4..8).map(|number| wait(&mut pair, number)).collect());
    assert!(pair.poll(A, calls[0]).is_none(), "the lane has no room either");
    pair.nodes[A].session.expire(pair.now, calls[0]);
    pair.transmit(A, 1);
    pair.run();
    assert!(matches!(pair.poll(A, calls[0]), Some(Err(CallEnd::TimedOut { sent: false }))));
    assert!(pair.poll(A, calls[1]).is_some_and(|end| end.is_ok()));
    assert_eq!(numbers(&pair), [0, 1, 2, 4, 5, 7]);
}

#[test]
fn the_session_ends_its_asks_at_their_deadlines_when_it_is_told_of_the_time() {
    let (mut pair, target) = resolved();
    pair.nodes[B].hold = true;
    // The one that resolved the target was the first: it set the alarm.
    let first = pair.nodes[A].session.take_alarm();
    assert!(first.is_some());
    pair.now = pair.now + Duration::from_secs(1);
    let calls = [1, 2].map(|number| pair.ask(A, target, number, 4));
    assert_eq!(pair.nodes[A].session.take_alarm(), None, "an earlier one is set");
    // At that time nothing is due, and the next alarm is that of the two.
    let at = first.unwrap();
    let next = pair.nodes[A].session.expire_due(pair.now, at);
    assert_eq!(next, Some(at + Duration::from_secs(1)));
    assert!(calls.iter().all(|call| pair.poll(A, *call).is_none()));
    pair.transmit(A, 1 << 20);
    assert_eq!(pair.nodes[A].session.expire_due(pair.now, next.unwrap()), None);
    for call in calls {
        let end = pair.poll(A, call);
        assert!(matches!(end, Some(Err(CallEnd::TimedOut { sent: true }))), "{end:?}");
    }
    pair.ask(A, target, 3, 4);
    assert!(pair.nodes[A].session.take_alarm().is_some());
}

/// One of 256 bytes had its length written as 255, and its last byte was read as the first of the body.
#[test]
fn a_name_that_fits_into_no_frame_is_refused_and_the_longest_one_passes() {
    let (mut pair, target) = resolved();
    let longest: &'static str = "x".repeat(255).leak();
    let too_long: &'static str = "x".repeat(256).leak();
    for name in ["", too_long] {
        for how in [Submission::Send, Submission::SendWait, Submission::Ask] {
            let refused = pair.submit(A, target, (name, Lane::Normal), body(1, 4), how);
            let error = refused.expect_err("it was taken");
            assert_eq!((error.kind(), error.outcome()), (ErrorKind::Encode, Outcome::NeverSent));
            assert!(error.text().contains("1 to 255") && error.text().len() < 200, "{error}");
        }
    }
    let message = (longest, Lane::Normal);
    let call = pair.submit(A, target, message, body(2, 4), Submission::Ask).unwrap().unwrap();
    pair.run();
    assert_eq!(pair.answer(A, call), 2);
    assert_eq!(pair.nodes[B].seen.last().unwrap().message, longest);
}
