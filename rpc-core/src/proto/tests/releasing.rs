//! Targets that nobody needs any more, and the numbers that they had on the wire.

use super::pair::{A, B, Pair, SMALL, body};
use crate::Lane;
use crate::error::ErrorKind;
use crate::limits::Limits;
use crate::proto::{Asker, CloseCode, Notice, Submission, TargetKey};
use crate::wire::frame::{Kind, put_control};
use bytes::BytesMut;
use std::task::Waker;

const WINDOW: (u64, u64) = (1024, 64 << 20);

/// What is left of all targets: on the calling side, and on the other.
fn left(pair: &Pair) -> (usize, usize, usize) {
    let session = &pair.nodes[A].session;
    (session.known_targets(), session.numbers.taken(), pair.nodes[B].bound())
}

fn arrive(pair: &mut Pair, kind: Kind, fields: &[u8]) -> Result<(), crate::proto::Close> {
    let mut bytes = BytesMut::new();
    put_control(&mut bytes, kind, fields, &[]);
    pair.arrive(A, &bytes)
}

#[test]
fn two_hundred_thousand_endpoints_one_after_the_other_leave_nothing() {
    let mut pair = Pair::new();
    for round in 0..200_000_u32 {
        let name = format!("e{round}");
        pair.start(B, &name, WINDOW);
        let target = pair.target(A, &name, None);
        let call = pair.ask(A, target, round, 4);
        pair.run();
        assert_eq!(pair.answer(A, call), round);
        pair.nodes[A].session.release(target);
        pair.stop(B, &name);
        pair.nodes[B].seen.clear();
    }
    pair.run();
    assert_eq!(left(&pair), (0, 0, 0));
    assert!(pair.nodes[A].session.numbers.highest() <= 2);
}

/// RESOLVE overtakes what waits in the lanes, RELEASE does not: the peer would have two ways to the endpoint.
#[test]
fn what_is_reached_through_the_peer_is_not_resolved_anew_before_its_release() {
    let mut pair = Pair::new();
    pair.start(B, "x", WINDOW);
    let key = TargetKey::new("x", None).at_env(7);
    let mut target = pair.nodes[A].session.target(&key).unwrap();
    pair.send(A, target, 0, 4);
    pair.run();
    for number in 1..4 {
        pair.send(A, target, number, 4);
        pair.nodes[A].session.release(target);
        assert_eq!(left(&pair), (1, 1, 1), "it has not gone out");
        target = pair.nodes[A].session.target(&key).unwrap();
    }
    pair.run();
    let seen: Vec<_> = pair.nodes[B].seen.iter().map(|seen| seen.number).collect();
    assert_eq!((seen, left(&pair)), (vec![0, 1, 2, 3], (1, 1, 1)));
    pair.nodes[A].session.release(target);
    pair.run();
    assert_eq!(left(&pair), (0, 0, 0));
}

#[test]
fn a_target_lives_as_long_as_anyone_needs_it() {
    let mut pair = Pair::new();
    pair.start(B, "echo", WINDOW);
    let first = pair.target(A, "echo", None);
    assert_eq!(pair.target(A, "echo", None), first);
    let call = pair.ask(A, first, 1, 4);
    pair.nodes[A].session.release(first);
    pair.run();
    assert_eq!(left(&pair), (1, 1, 1), "it has another user");
    pair.nodes[A].session.release(first);
    pair.run();
    assert_eq!(left(&pair), (1, 1, 1), "nobody has looked at the call");
    assert_eq!(pair.answer(A, call), 1);
    pair.run();
    assert_eq!(left(&pair), (0, 0, 0));
    // A call that is given up, and one that its target never answers.
    pair.nodes[B].hold = true;
    for give_up in [true, false] {
        let target = pair.target(A, "echo", None);
        let call = pair.ask(A, target, 2, 4);
        pair.nodes[A].session.release(target);
        pair.run();
        assert_eq!(left(&pair), (1, 1, 1));
        if !give_up {
            pair.nodes[A].session.expire(pair.now, call);
            assert!(pair.poll(A, call).is_some());
        }
        pair.nodes[A].session.abandon(pair.now, call);
        pair.run();
        assert_eq!(left(&pair), (0, 0, 0));
    }
}

#[test]
fn a_release_comes_behind_all_that_was_sent() {
    for size in [4, 50_000, 1 << 20] {
        let mut pair = Pair::new();
        pair.start(B, "echo", (4, 64 << 20));
        let target = pair.target(A, "echo", None);
        for (number, lane) in (0..30).zip([Lane::Bulk, Lane::Normal].into_iter().cycle()) {
            let body = body(number, size);
            pair.submit(A, target, (SMALL, lane), body, Submission::Send).unwrap();
        }
        pair.nodes[A].session.release(target);
        // A step at a time: a release that came early would be a message for nobody.
        while pair.transmit(A, 1) | pair.deliver(B).unwrap() | pair.transmit(B, 1) {
            pair.deliver(A).unwrap();
        }
        assert_eq!((pair.nodes[B].seen.len(), left(&pair)), (30, (0, 0, 0)), "{size}");
    }
}

/// A target whose call was taken back while it waited for a place in flight, or for a number, leaves
/// no place behind: neither to grow, nor for the target that has its id next.
#[test]
fn a_target_that_is_forgotten_leaves_the_queues_that_it_was_in() {
    let limits = Limits::default().with_max_in_flight(1).unwrap();
    let mut pair = Pair::with(limits.clone(), limits);
    pair.start(B, "busy", WINDOW);
    pair.start(B, "other", WINDOW);
    pair.nodes[B].hold = true;
    let busy = pair.target(A, "busy", None);
    let open = pair.ask(A, busy, 0, 4);
    pair.run();
    for round in 1..100 {
        let other = pair.target(A, "other", None);
        let call = pair.ask(A, other, round, 4);
        pair.run();
        let session = &mut pair.nodes[A].session;
        assert!(session.targets.get(other).unwrap().blocked);
        session.release(other);
        session.abandon(pair.now, call);
        assert!(session.targets.get(other).is_none() && session.blocked[0].is_empty());
        // Whoever has the id next waits for nothing.
        assert_eq!(pair.target(A, "next", None), other);
        assert_eq!(pair.nodes[A].session.unsound(), Vec::<String>::new());
        pair.nodes[A].session.release(other);
    }
    let starved = pair.target(A, "other", None);
    let session = &mut pair.nodes[A].session;
    session.targets.get_mut(starved).unwrap().starved = true;
    session.starved.push_back(starved);
    session.release(starved);
    assert!(session.targets.get(starved).is_none() && session.starved.is_empty());
    pair.nodes[B].hold = false;
    while pair.handle(B) {}
    pair.run();
    assert_eq!(pair.answer(A, open), 0);
}

/// Order is that of the calls, whoever holds the target in between.
#[test]
fn a_target_made_again_waits_behind_a_large_message_of_the_old_one() {
    let mut pair = Pair::new();
    pair.start(B, "echo", WINDOW);
    let target = pair.target(A, "echo", None);
    let call = pair.ask(A, target, 0, 4);
    pair.run();
    pair.answer(A, call);
    pair.send(A, target, 1, 1 << 20);
    pair.transmit(A, 1);
    pair.nodes[A].session.release(target);
    let target = pair.target(A, "echo", None);
    pair.send(A, target, 2, 4);
    pair.run();
    let seen: Vec<u32> = pair.nodes[B].seen.iter().map(|seen| seen.number).collect();
    assert_eq!(seen, [0, 1, 2]);
}

#[test]
fn what_crosses_a_release_is_ignored() {
    let mut pair = Pair::new();
    pair.start(B, "echo", WINDOW);
    let target = pair.target(A, "echo", None);
    let call = pair.ask(A, target, 0, 4);
    pair.run();
    pair.answer(A, call);
    let credit = |number: u32| [&number.to_be_bytes()[..], &[0; 11], &[9]].concat();
    for resolving in [false, true] {
        pair.nodes[A].session.release(target);
        if resolving {
            // The number is on its way to mean something else.
            let other = pair.target(A, "none", None);
            pair.nodes[A].session.resolve(pair.now, other).unwrap();
        }
        arrive(&mut pair, Kind::Credit, &credit(0)).unwrap();
        arrive(&mut pair, Kind::Gone, &0_u32.to_be_bytes()).unwrap();
    }
    pair.run();
    // What was never used cannot have been released.
    let close = arrive(&mut pair, Kind::Credit, &credit(5)).unwrap_err();
    assert!(close.is(CloseCode::Protocol) && close.text.contains("never resolved"), "{close}");
    for kind in [Kind::Resolved, Kind::Unresolved] {
        let mut bytes = BytesMut::new();
        let resolved = b"\x83\xabincarnation\x92\x01\x01\xa8messages\x90\xa6credit\x92\x01\x01";
        put_control(&mut bytes, kind, &[0; 4], resolved);
        let close = pair.arrive(A, &bytes).unwrap_err();
        assert!(close.text.contains("unasked"), "{close}");
    }
}

#[test]
fn a_successor_is_resolved_at_once_under_a_number_of_its_own() {
    let mut pair = Pair::new();
    pair.start(B, "echo", WINDOW);
    let target = pair.target(A, "echo", None);
    let call = pair.ask(A, target, 0, 4);
    pair.run();
    pair.answer(A, call);
    let early = pair.ask(A, target, 1, 1 << 20);
    pair.transmit(A, 1);
    pair.start(B, "echo", WINDOW);
    pair.transmit(B, usize::MAX);
    pair.deliver(A).unwrap();
    // Part of the large one is still here when the successor answers.
    let late = pair.ask(A, target, 2, 4);
    for _ in 0..3 {
        pair.transmit(A, 1);
        pair.deliver(B).unwrap();
        pair.transmit(B, usize::MAX);
        pair.deliver(A).unwrap();
    }
    assert!(pair.poll(A, early).is_none());
    assert_eq!((pair.answer(A, late), pair.nodes[A].session.numbers.taken()), (2, 2));
    pair.run();
    assert_eq!(pair.error(A, early).kind(), ErrorKind::EndpointStopped);
    assert_eq!(left(&pair), (1, 1, 1));
}

#[test]
fn there_are_65536_numbers_and_whoever_finds_none_waits_for_one() {
    let mut pair = Pair::new();
    let mut targets = Vec::new();
    for number in 0..65_536 {
        let name = format!("e{number}");
        pair.start(B, &name, WINDOW);
        let target = pair.target(A, &name, None);
        let call = pair.nodes[A].session.resolve(pair.now, target).unwrap();
        targets.push((target, call));
    }
    pair.run();
    for (_, call) in &targets {
        assert!(matches!(pair.poll(A, *call), Some(Ok(_))));
    }
    let error = pair.nodes[A].session.target(&TargetKey::new("more", None)).unwrap_err();
    assert!(error.is_overloaded(), "{error}");
    // The first one's endpoint is replaced while its number is in the lanes.
    let large = pair.ask(A, targets[0].0, 1, 1 << 20);
    pair.start(B, "e0", WINDOW);
    pair.transmit(B, usize::MAX);
    pair.deliver(A).unwrap();
    let late = pair.ask(A, targets[0].0, 2, 4);
    assert_eq!(pair.nodes[B].bound(), 65_536);
    pair.run();
    assert_eq!(pair.error(A, large).kind(), ErrorKind::EndpointStopped);
    assert_eq!(pair.answer(A, late), 2);
    // One that is released makes room.
    pair.nodes[A].session.release(targets[9].0);
    pair.start(B, "more", WINDOW);
    let more = pair.target(A, "more", None);
    let call = pair.ask(A, more, 3, 4);
    pair.run();
    assert_eq!(pair.answer(A, call), 3);
    assert_eq!(left(&pair), (65_536, 65_536, 65_536));
    // Somebody else's waits for a number as well: that of a target whose last message has not gone out.
    pair.send(A, targets[1].0, 4, 4);
    pair.nodes[A].session.release(targets[1].0);
    let asker = Asker::new(3, Waker::noop().clone());
    let relayed = pair.nodes[A].session.relay(&TargetKey::new("more", None), asker).unwrap();
    pair.run();
    let notices = pair.nodes[A].session.notices(relayed);
    assert!(matches!(notices.front(), Some(Notice::Resolved(_))), "{notices:?}");
}

#[test]
fn targets_released_without_a_connection_leave_with_it() {
    let mut pair = Pair::new();
    pair.start(B, "echo", WINDOW);
    let target = pair.target(A, "echo", None);
    pair.send(A, target, 0, 4);
    pair.nodes[A].session.release(target);
    pair.transmit(A, usize::MAX);
    assert_eq!(pair.nodes[A].session.known_targets(), 1);
    pair.cut();
    assert_eq!(left(&pair), (0, 0, 0));
    let target = pair.target(A, "echo", None);
    pair.nodes[A].session.release(target);
    assert_eq!(left(&pair), (0, 0, 0));
}
