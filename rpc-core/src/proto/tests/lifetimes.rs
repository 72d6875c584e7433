//! Connections and endpoints that end.

use super::pair::{A, B, FAIL, Pair, SMALL, UNLISTED, body, hello};
use crate::Lane;
use crate::error::{ErrorKind, Outcome, RpcError};
use crate::limits::Limits;
use crate::proto::{Close, CloseCode, Submission};
use crate::spi::CallEnd;
use crate::trace::TraceContext;

const WINDOW: (u64, u64) = (1024, 64 << 20);

#[test]
fn a_lost_connection_says_what_had_been_sent() {
    let mut pair = Pair::new();
    let targets = ["x", "y"].map(|name| {
        pair.start(B, name, WINDOW);
        let target = pair.target(A, name, None);
        let call = pair.ask(A, target, 0, 4);
        pair.run();
        pair.answer(A, call);
        target
    });
    pair.nodes[B].hold = true;
    let mut calls = vec![(pair.ask(A, targets[0], 1, 4), Outcome::Unknown)];
    calls.push((pair.ask(A, targets[0], 2, 1 << 20), Outcome::Unknown));
    pair.transmit(A, 1);
    pair.transmit(A, 1);
    calls.push((pair.ask(A, targets[0], 3, 4), Outcome::NeverSent));
    calls.push((pair.ask(A, targets[1], 4, 4), Outcome::NeverSent));
    calls.push((pair.ask(A, targets[1], 5, 1 << 20), Outcome::NeverSent));
    calls.push((pair.ask(A, targets[1], 6, 4), Outcome::NeverSent));
    pair.cut();
    for (index, (call, outcome)) in calls.into_iter().enumerate() {
        let error = pair.error(A, call);
        assert_eq!((error.kind(), error.outcome()), (ErrorKind::Disconnected, outcome), "{index}");
    }
    let session = &pair.nodes[A].session;
    assert_eq!((session.queued, session.queued_bytes, session.flights.len()), (0, 0, 0));
    assert_eq!(session.open_calls(), (0, 0));
}

#[test]
fn waiting_sends_end_with_the_connection_and_leave_nothing_behind() {
    let limits = Limits::default().with_outbox_max_messages(2).unwrap();
    let mut pair = Pair::with(limits.clone(), Limits::default());
    pair.start(B, "echo", WINDOW);
    let target = pair.target(A, "echo", None);
    let call = pair.ask(A, target, 0, 4);
    pair.run();
    pair.answer(A, call);
    let wait = |pair: &mut Pair, number| {
        let body = body(number, 4);
        pair.submit(A, target, (SMALL, Lane::Normal), body, Submission::SendWait).unwrap()
    };
    for round in 0..5 {
        let calls: Vec<Option<u64>> = (0..4).map(|number| wait(&mut pair, number)).collect();
        pair.cut();
        assert!(matches!(calls[..], [None, None, Some(_), Some(_)]), "{calls:?} in round {round}");
        for call in calls.into_iter().flatten() {
            assert!(pair.poll(A, call).is_some(), "round {round}");
        }
        pair.attach([hello(1, &limits), hello(2, &Limits::default())]);
    }
    // Losses in the past take no room.
    let calls: Vec<Option<u64>> = (0..3).map(|number| wait(&mut pair, number)).collect();
    pair.run();
    assert!(matches!(calls[..], [None, None, Some(call)] if pair.poll(A, call).unwrap().is_ok()));
}

#[test]
fn a_target_by_name_finds_its_successor_and_a_pinned_one_fails() {
    let mut pair = Pair::new();
    let first = pair.start(B, "echo", WINDOW);
    let named = pair.target(A, "echo", None);
    let pinned = pair.target(A, "echo", Some(first));
    let calls = [pair.ask(A, named, 1, 4), pair.ask(A, pinned, 2, 4)];
    pair.run();
    assert_eq!(calls.map(|call| pair.answer(A, call)), [1, 2]);
    pair.start(B, "echo", WINDOW);
    pair.run();
    let calls = [pair.ask(A, named, 3, 4), pair.ask(A, pinned, 4, 4)];
    pair.run();
    assert_eq!(pair.answer(A, calls[0]), 3);
    assert_eq!(pair.error(A, calls[1]).outcome(), Outcome::NeverSent);
    let lives: Vec<u64> = pair.nodes[B].seen.iter().map(|seen| seen.life).collect();
    assert_eq!(lives, [1, 1, 2]);
}

#[test]
fn what_was_on_its_way_to_an_endpoint_never_reaches_its_successor() {
    for size in [4, 1 << 20] {
        let mut pair = Pair::new();
        pair.start(B, "echo", WINDOW);
        let target = pair.target(A, "echo", None);
        let call = pair.ask(A, target, 0, 4);
        pair.run();
        pair.answer(A, call);
        // The peer's word that the endpoint is gone arrives while these are in the buffers.
        let early = [pair.ask(A, target, 1, size), pair.ask(A, target, 2, 4)];
        if size > 4 {
            pair.transmit(A, 1);
        }
        pair.start(B, "echo", (1, 1));
        pair.transmit(B, usize::MAX);
        pair.deliver(A).unwrap();
        let late = pair.ask(A, target, 3, 4);
        pair.run();
        assert_eq!(pair.error(A, early[0]).kind(), ErrorKind::EndpointStopped, "{size}");
        assert_eq!(pair.answer(A, late), 3);
        let seen: Vec<_> = pair.nodes[B].seen.iter().map(|seen| (seen.number, seen.life)).collect();
        let second = pair.poll(A, early[1]).expect("ended");
        let expected = match second {
            Ok(_) => vec![(0, 1), (2, 2), (3, 2)],
            Err(_) => vec![(0, 1), (3, 2)],
        };
        assert_eq!(seen, expected);
    }
}

#[test]
fn a_large_message_taken_back_lets_its_target_be_resolved_anew() {
    let mut pair = Pair::new();
    pair.start(B, "echo", WINDOW);
    let target = pair.target(A, "echo", None);
    let call = pair.ask(A, target, 0, 4);
    pair.run();
    pair.answer(A, call);
    let large = pair.ask(A, target, 1, 1 << 20);
    pair.start(B, "echo", WINDOW);
    pair.transmit(B, usize::MAX);
    pair.deliver(A).unwrap();
    let late = pair.ask(A, target, 2, 4);
    pair.nodes[A].session.abandon(pair.now, large);
    assert!(pair.nodes[A].session.has_output(), "nobody would wake the driver");
    pair.run();
    assert_eq!(pair.answer(A, late), 2);
}

#[test]
fn an_env_that_closes_gives_its_answers_first() {
    let mut pair = Pair::new();
    pair.start(B, "echo", WINDOW);
    let target = pair.target(A, "echo", None);
    let calls = [pair.ask(A, target, 1, 4), pair.ask(A, target, 2, 1 << 20)];
    pair.transmit(A, usize::MAX);
    pair.deliver(B).unwrap();
    pair.transmit(B, usize::MAX);
    pair.deliver(A).unwrap();
    pair.transmit(A, usize::MAX);
    pair.deliver(B).unwrap();
    let session = &mut pair.nodes[B].session;
    session.goodbye("shutdown");
    session.close(&Close::new(CloseCode::Shutdown, "over"));
    while pair.transmit(B, 1) {
        pair.deliver(A).unwrap();
        let answered = pair.nodes[A].session.open_calls().0 == 0;
        assert!(answered || pair.nodes[A].closed.is_none(), "closed before the answers");
    }
    assert_eq!(pair.nodes[A].goodbye.as_deref(), Some("shutdown"));
    assert!(pair.nodes[A].closed.as_ref().is_some_and(|close| close.is(CloseCode::Shutdown)));
    assert_eq!(calls.map(|call| pair.answer(A, call)), [1, 2]);
}

#[test]
fn what_an_earlier_connection_still_owes_means_nothing_to_the_next() {
    let mut pair = Pair::new();
    pair.start(B, "echo", WINDOW);
    pair.nodes[B].hold = true;
    let target = pair.target(A, "echo", None);
    let call = pair.ask(A, target, 0, 4);
    pair.run();
    let connection = pair.nodes[B].session.connection();
    assert!(connection.is_some());
    pair.cut();
    assert_eq!(pair.nodes[B].session.connection(), None);
    assert!(pair.poll(A, call).is_some());
    pair.attach([hello(1, &Limits::default()), hello(2, &Limits::default())]);
    assert_ne!(pair.nodes[B].session.connection(), connection);
    assert!(pair.nodes[B].session.connection().is_some());
}

#[test]
fn what_waits_for_a_connection_ends_as_never_sent_when_there_is_none() {
    let mut pair = Pair::new();
    pair.cut();
    let target = pair.target(A, "echo", None);
    let resolving = pair.nodes[A].session.resolve(pair.now, target).unwrap();
    let asked = pair.ask(A, target, 1, 1 << 20);
    assert!(pair.nodes[A].session.wants_connection());
    let error = RpcError::new(ErrorKind::Unreachable, "nobody there");
    assert_eq!(pair.nodes[A].session.fail_queued(&error), 2);
    for call in [resolving, asked] {
        assert_eq!(pair.error(A, call).outcome(), Outcome::NeverSent);
    }
    assert!(!pair.nodes[A].session.wants_connection());
    assert_eq!(pair.nodes[A].session.queued_bytes, 0);
}

#[test]
fn a_message_that_the_peer_does_not_take_fails_alone() {
    let narrow = Limits::default().with_message_max_size(1000).unwrap();
    let mut pair = Pair::with(Limits::default(), narrow.clone());
    pair.start(B, "echo", WINDOW);
    pair.cut();
    let target = pair.target(A, "echo", None);
    let calls = [pair.ask(A, target, 1, 1001), pair.ask(A, target, 2, 1000)];
    pair.attach([hello(1, &Limits::default()), hello(2, &narrow)]);
    pair.run();
    let error = pair.error(A, calls[0]);
    assert_eq!((error.kind(), error.outcome()), (ErrorKind::TooLarge, Outcome::NeverSent));
    assert_eq!(pair.answer(A, calls[1]), 2);
    let expired = pair.ask(A, target, 3, 4);
    pair.nodes[A].session.expire(pair.now, expired);
    assert!(matches!(pair.poll(A, expired), Some(Err(CallEnd::TimedOut { sent: false }))));
}

#[test]
fn what_waits_for_credit_reaches_the_successor_in_order_and_as_it_was() {
    let mut pair = Pair::new();
    pair.start(B, "echo", (2, 100_000));
    let target = pair.target(A, "echo", None);
    let call = pair.ask(A, target, 0, 4);
    pair.run();
    pair.answer(A, call);
    pair.nodes[B].hold = true;
    let messages = [SMALL, FAIL, FAIL, UNLISTED, SMALL, FAIL];
    let mut number = 0;
    let mut send = |pair: &mut Pair, name, bytes| {
        number += 1;
        let body = body(number, bytes);
        pair.submit(A, target, (name, Lane::Normal), body, Submission::Send).unwrap();
    };
    for bytes in [4, 3000, 5000] {
        messages.into_iter().for_each(|name| send(&mut pair, name, bytes));
        let trace =
            TraceContext::parse("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01").unwrap();
        let traced = (SMALL, Lane::Normal);
        pair.submit_traced(A, target, traced, body(100, 4), Submission::Send, Some(trace)).unwrap();
    }
    pair.run();
    assert_eq!(pair.nodes[B].inbox.len(), 2, "as the window says");
    // The third one gets credit and is in the lane when the endpoint ends: so the next number is
    // another one.
    assert!(pair.handle(B));
    pair.start(B, "echo", WINDOW);
    pair.nodes[B].hold = false;
    pair.nodes[B].seen.clear();
    pair.transmit(B, usize::MAX);
    pair.deliver(A).unwrap();
    assert_eq!(pair.nodes[A].session.unsound(), [""; 0]);
    pair.run();
    let seen = pair.nodes[B].seen.iter();
    let seen: Vec<_> = seen.map(|seen| (seen.life, seen.message.as_str(), seen.number)).collect();
    let mut all = Vec::new();
    for round in 0..3_u32 {
        let numbers = round * 6 + 1..;
        all.extend(messages.into_iter().zip(numbers).map(|(name, number)| (2, name, number)));
        all.push((2, SMALL, 100));
    }
    assert_eq!(seen, all[3..]);
    assert_eq!(pair.nodes[A].session.unsound(), [""; 0]);
}
