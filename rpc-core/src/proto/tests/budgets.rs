//! What large bodies, waiting asks and endpoints of the system may take of a connection.

use super::pair::{A, B, Chunks, Pair, Random, SMALL, Side, body};
use crate::Lane;
use crate::error::{ErrorKind, Outcome, RpcError};
use crate::limits::Limits;
use crate::proto::{Event, Submission};
use bytes::BytesMut;

const MIB: usize = 1 << 20;

/// A window that is never in the way.
const WIDE: (u64, u64) = (10_000, 1 << 40);

fn assembly(bytes: usize) -> Limits {
    Limits::default().with_max_assembly(bytes).unwrap()
}

/// Two sides, and targets of A at B that are resolved.
fn resolved(a: Limits, b: Limits, names: &[&str]) -> (Pair, Vec<u32>) {
    let mut pair = Pair::with(a, b);
    let targets = names.iter().map(|name| {
        pair.start(B, name, WIDE);
        let target = pair.target(A, name, None);
        let call = pair.nodes[A].session.resolve(pair.now, target).unwrap();
        pair.run();
        assert!(pair.poll(A, call).unwrap().is_ok());
        target
    });
    let targets = targets.collect();
    (pair, targets)
}

fn send(pair: &mut Pair, target: u32, lane: Lane, bytes: usize) -> Result<(), RpcError> {
    pair.submit(A, target, (SMALL, lane), body(0, bytes), Submission::Send).map(|_| ())
}

/// Lets one side's output arrive in small pieces; the most that was under way at the other side.
fn watch(pair: &mut Pair, from: Side) -> usize {
    let mut most = 0;
    while pair.transmit(from, 1) {
        while pair.deliver(1 - from).unwrap() {
            most = most.max(pair.nodes[1 - from].session.assemblies.under_way());
        }
    }
    most
}

#[test]
fn large_bodies_of_both_lanes_keep_within_what_the_peer_takes() {
    let names: Vec<String> = (0..40).map(|number| format!("x{number}")).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let (mut pair, targets) = resolved(Limits::default(), assembly(4 * MIB), &names);
    for (target, lane) in targets.iter().zip([Lane::Normal, Lane::Bulk].into_iter().cycle()) {
        pair.submit(A, *target, (SMALL, lane), body(0, MIB), Submission::SendWait).unwrap();
    }
    let most = watch(&mut pair, A);
    assert_eq!(most, 4 * MIB, "all of it is used, and no more");
    assert_eq!(pair.nodes[B].seen.len(), 40);
}

#[test]
fn replies_count_as_requests_do() {
    let (mut pair, targets) = resolved(assembly(3 * MIB), Limits::default(), &["x"]);
    let calls: Vec<u64> = (0..8).map(|number| pair.ask(A, targets[0], number, MIB)).collect();
    watch(&mut pair, A);
    assert_eq!(watch(&mut pair, B), 3 * MIB);
    for (number, call) in (0..).zip(calls) {
        assert_eq!(pair.answer(A, call), number);
    }
}

#[test]
fn a_body_above_the_budget_goes_alone() {
    for budget in [1, MIB] {
        let (mut pair, targets) =
            resolved(Limits::default(), assembly(budget), &["x", "y", "z", "a", "b"]);
        let lanes = [Lane::Normal, Lane::Bulk, Lane::Bulk, Lane::Normal, Lane::Normal];
        let sizes = [3 * MIB, 5 * MIB, 2 * MIB, 400_000, 4 * MIB];
        for ((target, lane), bytes) in targets.into_iter().zip(lanes).zip(sizes) {
            send(&mut pair, target, lane, bytes).unwrap();
        }
        assert_eq!(watch(&mut pair, A), 5 * MIB);
        assert_eq!(pair.nodes[B].seen.len(), 5, "every one comes to its end");
    }
}

#[test]
fn bulk_leaves_half_of_the_budget_to_the_normal_lane() {
    let names = ["a", "b", "c", "d", "n"];
    let (mut pair, targets) = resolved(Limits::default(), assembly(4 * MIB), &names);
    for target in &targets[..4] {
        send(&mut pair, *target, Lane::Bulk, MIB + 1).unwrap();
    }
    // One of four fits into half of it, and has begun.
    (0..4).for_each(|_| assert!(pair.transmit(A, 1)));
    while pair.deliver(B).unwrap() {}
    assert_eq!(pair.nodes[B].session.assemblies.under_way(), MIB + 1);
    // So the normal lane does not have to wait.
    send(&mut pair, targets[4], Lane::Normal, 2 * MIB).unwrap();
    watch(&mut pair, A);
    let order: Vec<&str> = pair.nodes[B].seen.iter().map(|seen| &*seen.endpoint).collect();
    assert_eq!(order, ["n", "a", "b", "c", "d"]);
}

#[test]
fn a_normal_body_that_waits_for_room_is_next_whatever_bulk_there_is() {
    let names = ["a", "b", "c", "n"];
    let (mut pair, targets) = resolved(Limits::default(), assembly(4 * MIB), &names);
    for target in &targets[..3] {
        send(&mut pair, *target, Lane::Bulk, MIB).unwrap();
    }
    assert!(pair.transmit(A, 1) && pair.transmit(A, 1));
    send(&mut pair, targets[3], Lane::Normal, 4 * MIB).unwrap();
    watch(&mut pair, A);
    let order: Vec<&str> = pair.nodes[B].seen.iter().map(|seen| &*seen.endpoint).collect();
    assert_eq!(order, ["a", "b", "n", "c"]);
}

/// A body that fits into one frame does not travel in parts, so it waits for no room, and is not
/// behind the large ones: they take turns.
#[test]
fn bodies_of_one_frame_go_in_between() {
    let (mut pair, targets) = resolved(Limits::default(), assembly(1), &["x", "y", "z"]);
    send(&mut pair, targets[0], Lane::Normal, MIB).unwrap();
    send(&mut pair, targets[2], Lane::Normal, MIB).unwrap();
    assert!(pair.transmit(A, 1));
    for number in 0..3 {
        pair.send(A, targets[1], number, 200_000);
    }
    pair.nodes[B].hold = true;
    let mut seen = Vec::new();
    while pair.transmit(A, 1) {
        while pair.deliver(B).unwrap() {}
        let arrived = pair.nodes[B].inbox.len();
        let parts = pair.nodes[B].session.assemblies.under_way() > 0;
        seen.push((arrived, parts));
    }
    // The first large one, in five parts, and three whole ones; then the second one, alone.
    let turns = [1, 1, 2, 2, 3].map(|arrived| (arrived, true));
    assert_eq!(seen[..5], turns, "{seen:?}");
    assert_eq!(seen.last(), Some(&(5, false)));
    assert_eq!(pair.nodes[B].inbox.iter().filter(|waiting| waiting.message.in_parts).count(), 2);
}

/// The peer counts requests, not answers: nothing is said of a reply that is given up.
#[test]
fn only_requests_are_events_when_they_begin_and_when_they_are_given_up() {
    let mut pair = Pair::new();
    let mut events = |kind: u8| {
        let fields = [0; 16];
        let fields = [&[0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 100][..], &fields].concat();
        let begin = [&[0, 0, 0, 28, kind, 1, 0, 0][..], &fields].concat();
        let mut bytes =
            BytesMut::from(&*[&*begin, &[0, 0, 0, 4, 0x16, 0, 0, 0, 0, 0, 0, 1]].concat());
        let mut events = Vec::new();
        pair.nodes[B].session.receive(pair.now, &mut bytes, &mut events).unwrap();
        events
    };
    assert!(events(0x12).is_empty());
    for kind in [0x10, 0x11] {
        assert!(matches!(*events(kind), [Event::Begun(0, 100), Event::GivenUp(0, 100)]), "{kind}");
    }
}

/// A read may hold thousands of frames that are short and cost much: others have their turn in between.
#[test]
fn frames_without_a_message_are_taken_as_far_as_the_work_goes() {
    let frame = |kind: u8, payload: &[u8]| {
        let length = u8::try_from(payload.len()).unwrap();
        [&[0, 0, 0, length, kind, 0, 0, 0], payload].concat()
    };
    let resolve =
        |number: u8| frame(0x02, &[&[0, 0, 0, number][..], b"\x81\xa4name\xa1x"].concat());
    let resolves: Vec<u8> = (0..20).flat_map(resolve).collect();
    let cancels = frame(0x14, &[7; 8]).repeat(1000);
    let heartbeats = frame(0x32, &[]).repeat(1000);
    for (bytes, calls, events) in [(resolves, 3, 20), (cancels, 4, 0), (heartbeats, 4, 0)] {
        let mut pair = Pair::new();
        let mut bytes = BytesMut::from(&*bytes);
        let (mut found, mut seen, mut more) = (Vec::new(), 0, true);
        while more {
            let session = &mut pair.nodes[B].session;
            let taken =
                session.receive_with(pair.now, None, &mut bytes, &mut found, &mut 2048).unwrap();
            (more, seen) = (taken.more, seen + 1);
            assert!(found.len() <= seen * 8, "{} in {seen}", found.len());
        }
        assert_eq!((seen, found.len(), bytes.len()), (calls, events, 0));
    }
}

#[test]
fn what_is_given_up_frees_its_budget() {
    let (mut pair, targets) = resolved(Limits::default(), assembly(2 * MIB), &["x", "y"]);
    for _ in 0..5 {
        let call = pair.ask(A, targets[0], 0, 2 * MIB);
        assert!(pair.transmit(A, 1));
        pair.nodes[A].session.abandon(pair.now, call);
        let call = pair.ask(A, targets[1], 1, 2 * MIB);
        pair.run();
        assert_eq!(pair.answer(A, call), 1);
    }
    assert_eq!(pair.nodes[B].session.assemblies.under_way(), 0);
}

/// As random as it gets: whatever sizes and lanes, everything arrives, and nothing is over.
#[test]
fn no_mixture_of_bodies_stands_still() {
    for seed in 0..12 {
        let mut random = Random::new(seed);
        let budget = [1, 100_000, MIB, 3 * MIB][random.below(4)];
        let names = ["a", "b", "c", "d", "e", "f"];
        let (mut pair, targets) = resolved(assembly(MIB), assembly(budget), &names);
        pair.chunks = Chunks::Random(Random::new(seed + 7));
        let mut calls = Vec::new();
        for number in 0..30 {
            let size = [4, 20_000, 300_000, 700_000, 2 * MIB][random.below(5)];
            let lane = if random.below(2) == 0 { Lane::Bulk } else { Lane::Normal };
            let target = targets[random.below(targets.len())];
            let message = body(number, size);
            let call = pair.submit(A, target, (SMALL, lane), message, Submission::Ask);
            calls.push((number, call.unwrap().unwrap()));
            pair.transmit(A, [1, 500_000][random.below(2)]);
            if random.below(4) == 0 {
                let (_, call) = calls.swap_remove(random.below(calls.len()));
                pair.nodes[A].session.abandon(pair.now, call);
            }
        }
        pair.run();
        for (number, call) in calls {
            assert_eq!(pair.answer(A, call), number);
        }
        let session = &pair.nodes[A].session;
        assert_eq!((session.queued, session.queued_bytes), (0, 0));
    }
}

#[test]
fn large_messages_in_the_lanes_count_until_they_are_gone() {
    let names: Vec<String> = (0..40).map(|number| format!("x{number}")).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let limits = Limits::default().with_outbox_max_bytes(4 * MIB).unwrap();
    let (mut pair, targets) = resolved(limits, Limits::default(), &names);
    // Each to another endpoint, so that each goes into a lane at once.
    let sent = targets.iter().filter(|target| send(&mut pair, **target, Lane::Normal, MIB).is_ok());
    assert_eq!(sent.count(), 4);
    let error = send(&mut pair, targets[9], Lane::Normal, MIB).unwrap_err();
    assert_eq!(
        error.text(),
        "no room for the 1048576 bytes of Small to x9 at b: 4194304 bytes wait to be sent there. This limit is controlled by rpc.outbox.maxBytes (4194304)"
    );
    // One that has gone makes room for one.
    while pair.nodes[A].session.queued == 4 {
        assert!(pair.transmit(A, 1));
    }
    assert_eq!(pair.nodes[A].session.queued_bytes, 3 * MIB);
    send(&mut pair, targets[9], Lane::Normal, MIB).unwrap();
    pair.run();
    assert_eq!(pair.nodes[B].seen.len(), 5);
    assert_eq!(pair.nodes[A].session.queued_bytes, 0);
}

#[test]
fn what_waits_for_room_has_a_limit_in_bytes() {
    let limits = Limits::default().with_outbox_max_bytes(100_000).unwrap();
    let limits = limits.with_outbox_max_waiting_bytes(50_000).unwrap();
    let mut pair = Pair::with(limits, Limits::default());
    pair.start(B, "x", WIDE);
    let target = pair.target(A, "x", None);
    for number in 0..15 {
        pair.ask(A, target, number, 10_000);
    }
    for how in [Submission::Ask, Submission::SendWait] {
        let error = pair.submit(A, target, (SMALL, Lane::Normal), body(0, 4), how).unwrap_err();
        assert_eq!(
            error.text(),
            "no room for the 4 bytes of Small to x at b: 150000 bytes wait, 50000 of them for room, to be sent there. This limit is controlled by rpc.outbox.maxWaitingBytes (50000)"
        );
    }
    pair.run();
    assert_eq!(pair.nodes[B].seen.len(), 15);
    let call = pair.ask(A, target, 9, 140_000);
    pair.run();
    assert_eq!(pair.answer(A, call), 9);
}

#[test]
fn answers_about_endpoints_that_wait_have_a_limit_in_bytes() {
    let limits = Limits::default().with_outbox_max_bytes(100_000).unwrap();
    let (mut pair, _) = resolved(Limits::default(), limits, &["x"]);
    let session = &mut pair.nodes[B].session;
    let error = RpcError::new(ErrorKind::EndpointNotFound, "x".repeat(1000));
    let mut answers = 0;
    let close = loop {
        match session.check_control() {
            Ok(()) => session.unresolved(7, &error),
            Err(close) => break close,
        }
        answers += 1;
        assert!(answers < 1000, "no end");
    };
    assert!((190..200).contains(&answers), "{answers}");
    assert!(session.is_flooded() && close.text.contains("rpc.outbox.maxBytes"), "{close}");
}

#[test]
fn replies_that_wait_have_a_limit_in_bytes() {
    for (size, fit) in [(MIB, 3), (1000, 3)] {
        let limits = Limits::default().with_outbox_max_reply_bytes(size * 3 + 100).unwrap();
        let (mut pair, targets) = resolved(Limits::default(), limits, &["x"]);
        for round in 0..2 {
            let calls: Vec<u64> = (0..8).map(|n| pair.ask(A, targets[0], n, size)).collect();
            while pair.transmit(A, MIB) {
                while pair.deliver(B).unwrap() {}
            }
            while pair.handle(B) {}
            pair.run();
            for (number, call) in (0..).zip(calls) {
                if number < fit {
                    assert_eq!(pair.answer(A, call), number, "round {round}");
                } else {
                    let error = pair.error(A, call);
                    assert_eq!(
                        (error.kind(), error.outcome()),
                        (ErrorKind::Overloaded, Outcome::FailedInHandler)
                    );
                    assert!(error.text().contains("rpc.outbox.maxReplyBytes"), "{error}");
                }
            }
        }
        assert_eq!(pair.nodes[B].session.lanes.answer_bytes(), 0, "all of it has gone");
    }
    // One goes, however large.
    let limits = Limits::default().with_outbox_max_reply_bytes(0).unwrap();
    let (mut pair, targets) = resolved(Limits::default(), limits, &["x"]);
    let call = pair.ask(A, targets[0], 7, MIB);
    pair.run();
    assert_eq!(pair.answer(A, call), 7);
}

fn queue(messages: usize, bytes: usize, in_flight: usize) -> Limits {
    let limits = Limits::default().with_outbox_max_messages(messages).unwrap();
    let limits = limits.with_outbox_max_bytes(bytes).unwrap();
    limits.with_max_in_flight(in_flight).unwrap()
}

#[test]
fn a_full_queue_has_room_for_endpoints_of_the_system() {
    let limits = queue(16, 160_000, 64);
    let (mut pair, targets) = resolved(limits, Limits::default(), &["bulk", "system"]);
    let count = |pair: &mut Pair, target, bytes| {
        (0..100).take_while(|_| send(pair, target, Lane::Normal, bytes).is_ok()).count()
    };
    assert_eq!(count(&mut pair, targets[0], 4), 14);
    let error = send(&mut pair, targets[0], Lane::Normal, 4).unwrap_err();
    assert_eq!(
        error.text(),
        "no room for Small to bulk at b: 14 messages wait to be sent there. This limit is controlled by rpc.outbox.maxMessages (16, less an eighth for endpoints of the system)"
    );
    assert_eq!(count(&mut pair, targets[1], 4), 2);
    pair.run();
    assert_eq!(count(&mut pair, targets[0], 10_000), 14);
    assert_eq!(count(&mut pair, targets[1], 10_000), 2);
    pair.run();
    // A `send_wait` is told in the same way.
    assert_eq!(count(&mut pair, targets[0], 4), 14);
    let waits = |pair: &mut Pair, target| {
        let how = Submission::SendWait;
        pair.submit(A, target, (SMALL, Lane::Normal), body(0, 4), how).unwrap()
    };
    let (other, system) = (waits(&mut pair, targets[0]), waits(&mut pair, targets[1]));
    assert_eq!(system, None, "there is room");
    let other = other.unwrap();
    assert!(pair.poll(A, other).is_none());
    pair.run();
    assert!(pair.poll(A, other).unwrap().is_ok());
}

#[test]
fn nothing_is_kept_where_no_endpoint_of_the_system_is_called() {
    let (mut pair, targets) = resolved(queue(16, 1000, 8), Limits::default(), &["x"]);
    assert_eq!(
        (0..100).take_while(|_| send(&mut pair, targets[0], Lane::Normal, 4).is_ok()).count(),
        16
    );
    pair.run();
    // The endpoint's next life is one of the system, and the one after that is not.
    let (mut pair, targets) = resolved(queue(16, 1000, 8), Limits::default(), &["x", "system"]);
    assert_eq!(pair.nodes[A].session.reserves, 1);
    pair.cut();
    assert_eq!(
        pair.nodes[A].session.reserves, 1,
        "what is known of the peer outlives a connection"
    );
    pair.start(B, "system", WIDE);
    pair.nodes[B].endpoints.get_mut("system").unwrap().system = false;
    let limits = Limits::default();
    pair.attach([super::pair::hello(1, &limits), super::pair::hello(2, &limits)]);
    let call = pair.ask(A, targets[1], 3, 4);
    pair.run();
    assert_eq!(pair.answer(A, call), 3);
    assert_eq!(pair.nodes[A].session.reserves, 0);
    // Nor where it is called no more.
    let (mut pair, targets) = resolved(queue(16, 1000, 8), Limits::default(), &["x", "system"]);
    assert_eq!(pair.nodes[A].session.reserves, 1);
    pair.nodes[A].session.release(targets[1]);
    assert_eq!(pair.nodes[A].session.reserves, 0);
}

#[test]
fn calls_in_flight_leave_room_for_endpoints_of_the_system() {
    let limits = queue(1000, MIB, 16);
    let (mut pair, targets) = resolved(limits, Limits::default(), &["slow", "system"]);
    pair.nodes[B].hold = true;
    let slow: Vec<u64> = (0..20).map(|number| pair.ask(A, targets[0], number, 4)).collect();
    assert_eq!(pair.nodes[A].session.flights.len(), 14);
    let urgent: Vec<u64> = (0..3).map(|number| pair.ask(A, targets[1], number, 4)).collect();
    assert_eq!(pair.nodes[A].session.flights.len(), 16);
    pair.run();
    assert_eq!(pair.nodes[B].inbox.len(), 16);
    // The next place is for the endpoint of the system, though others have waited longer.
    assert!(pair.handle(B));
    pair.run();
    let last = pair.nodes[B].inbox.back().unwrap();
    assert_eq!(last.endpoint, "system");
    pair.nodes[B].hold = false;
    while pair.handle(B) {}
    pair.run();
    slow.into_iter().chain(urgent).for_each(|call| {
        pair.answer(A, call);
    });
}

/// Answers that the peer leaves unread are counted, each until it is gone, and nothing else is.
#[test]
fn answers_are_counted_until_they_are_gone() {
    let limits = Limits::default().with_max_in_flight(8).unwrap();
    let (mut pair, targets) = resolved(Limits::default(), limits, &["x"]);
    let sizes = [4, 100_000, 4, 4, 10_000, 10_000, 300_000, 4];
    let calls: Vec<u64> = sizes.iter().map(|size| pair.ask(A, targets[0], 0, *size)).collect();
    while pair.transmit(A, 1 << 20) {
        while pair.deliver(B).unwrap() {}
    }
    let waiting = |pair: &Pair| pair.nodes[B].session.lanes.answers();
    assert_eq!(waiting(&pair), 8);
    assert!(!pair.nodes[B].session.is_flooded(), "it may have asked for all of them");
    pair.nodes[B].session.grant(0, 1, 1);
    let mut counts = vec![8];
    while pair.transmit(B, 10) {
        counts.push(waiting(&pair));
    }
    counts.dedup();
    assert_eq!(counts, [8, 7, 6, 5, 4, 3, 2, 1, 0]);
    while pair.deliver(A).unwrap() {}
    assert!(calls.into_iter().all(|call| pair.poll(A, call).unwrap().is_ok()));

    // A peer that uses its slots again without having read the answers.
    let error = RpcError::new(ErrorKind::HandlerFailed, "no");
    let ask = |call: u64| {
        let fields = [&call.to_be_bytes()[..], &[0; 4], &[0, 0, 1, 0], &[0xc0]].concat();
        [&(fields.len() as u32).to_be_bytes()[..], &[0x11, 0, 0, 0], &fields].concat()
    };
    pair.nodes[B].hold = true;
    for generation in 10..19_u64 {
        assert!(!pair.nodes[B].session.is_flooded());
        pair.arrive(B, &ask(generation << 24)).unwrap();
        pair.nodes[B].session.fail(generation << 24, &error);
    }
    assert!(pair.nodes[B].session.is_flooded());
    pair.transmit(B, 1 << 20);
    assert!(!pair.nodes[B].session.is_flooded());
}
