//! Who waits for room in the queue to a peer: in messages and in bytes, in the order of coming.

use super::pair::{A, B, Pair, Random, SMALL, body};
use crate::Lane;
use crate::limits::Limits;
use crate::proto::{Submission, TargetId};
use crate::seam::CallEnd;

/// No window at all: what is sent waits here.
const NONE: (u64, u64) = (0, 0);
/// One that is never in the way.
const WIDE: (u64, u64) = (10_000, 1 << 40);

fn room(messages: usize, bytes: usize) -> Limits {
    let limits = Limits::default().with_outbox_max_messages(messages).unwrap();
    limits.with_outbox_max_bytes(bytes).unwrap()
}

/// A resolved target of A at B.
fn target(pair: &mut Pair, name: &str, window: (u64, u64)) -> TargetId {
    pair.start(B, name, window);
    let target = pair.target(A, name, None);
    let call = pair.nodes[A].session.resolve(pair.now, target).unwrap();
    pair.run();
    assert!(pair.poll(A, call).unwrap().is_ok());
    target
}

/// The call, if it waits.
fn wait(pair: &mut Pair, target: TargetId, number: u32, bytes: usize) -> Option<u64> {
    let message = (SMALL, Lane::Normal);
    pair.submit(A, target, message, body(number, bytes), Submission::SendWait).unwrap()
}

fn is_refused(pair: &mut Pair, target: TargetId, bytes: usize) -> bool {
    let message = (SMALL, Lane::Normal);
    pair.submit(A, target, message, body(0, bytes), Submission::Send).is_err()
}

/// Which calls have ended.
fn ended<const N: usize>(pair: &Pair, calls: [u64; N]) -> [bool; N] {
    calls.map(|call| !pair.nodes[A].session.calls.is_open(call))
}

#[test]
fn who_waits_is_ready_when_its_bytes_have_room() {
    let mut pair = Pair::with(room(8192, 100_000), Limits::default());
    let x = target(&mut pair, "x", NONE);
    let calls: Vec<Option<u64>> = (0..10).map(|n| wait(&mut pair, x, n, 20_000)).collect();
    let waiting: Vec<u64> = calls.iter().flatten().copied().collect();
    assert_eq!((calls.len(), waiting.len()), (10, 5), "100,000 bytes of 20,000 are ready at once");
    let told = |pair: &mut Pair| {
        waiting.iter().filter(|call| !pair.nodes[A].session.calls.is_open(**call)).count()
    };
    pair.run();
    assert_eq!(told(&mut pair), 0, "nothing has left");
    for gone in 1..=5 {
        pair.nodes[A].session.targets.get_mut(x).unwrap().refund(1, 20_000);
        pair.nodes[A].session.pump(pair.now, x);
        assert_eq!(told(&mut pair), gone - 1, "in the lane it is not gone yet");
        while pair.transmit(A, 1 << 20) {}
        assert_eq!(told(&mut pair), gone);
    }
    for call in waiting {
        assert!(pair.poll(A, call).unwrap().is_ok());
    }
}

/// Nobody passes one that waits for room, however small: not a `send`, not another that waits.
#[test]
fn nobody_passes_one_that_waits() {
    let mut pair = Pair::with(room(100, 100_000), Limits::default());
    let x = target(&mut pair, "x", NONE);
    let held = pair.ask(A, x, 0, 60_000);
    let large = wait(&mut pair, x, 1, 50_000).unwrap();
    let small = wait(&mut pair, x, 2, 4).unwrap();
    assert!(is_refused(&mut pair, x, 4));
    assert_eq!(ended(&pair, [large, small]), [false, false]);
    pair.nodes[A].session.abandon(pair.now, held);
    assert_eq!(ended(&pair, [large, small]), [true, true]);
    assert!(!is_refused(&mut pair, x, 4));
    // An ask keeps its place among them as well.
    let ask = pair.ask(A, x, 3, 60_000);
    let behind = wait(&mut pair, x, 4, 4).unwrap();
    assert_eq!(ended(&pair, [behind]), [false]);
    pair.nodes[A].session.abandon(pair.now, ask);
    assert_eq!(ended(&pair, [behind]), [true]);
}

#[test]
fn one_that_is_larger_than_all_room_goes_when_nothing_is_before_it() {
    let mut pair = Pair::with(room(100, 1000), Limits::default());
    let x = target(&mut pair, "x", NONE);
    assert_eq!(wait(&mut pair, x, 0, 5000), None);
    let [next, last] = [1, 2].map(|number| wait(&mut pair, x, number, 5000).unwrap());
    for told in [[true, false], [true, true]] {
        pair.nodes[A].session.targets.get_mut(x).unwrap().refund(1, 5000);
        pair.nodes[A].session.pump(pair.now, x);
        while pair.transmit(A, 1 << 20) {}
        assert_eq!(ended(&pair, [next, last]), told);
    }
}

/// What has gone to one endpoint makes no room for more to one that takes nothing: else all that may
/// wait would be let in, and the next one refused.
#[test]
fn what_passes_by_makes_no_room() {
    let mut pair = Pair::with(room(2, 1 << 20), Limits::default());
    let (stuck, well) = (target(&mut pair, "stuck", NONE), target(&mut pair, "well", WIDE));
    assert_eq!([0, 1].map(|number| wait(&mut pair, stuck, number, 4)), [None; 2]);
    let waiting = [2, 3].map(|number| wait(&mut pair, stuck, number, 4).unwrap());
    for number in 0..10 {
        let call = pair.ask(A, well, number, 4);
        pair.run();
        assert_eq!(pair.answer(A, call), number);
    }
    assert_eq!(ended(&pair, waiting), [false, false]);
}

/// It was handled, and told that its time was over: whoever then sends it again has it handled twice.
#[test]
fn one_whose_frame_has_gone_has_waited_enough() {
    for size in [4, 100_000, 1 << 20] {
        let mut pair = Pair::with(room(2, 1 << 22), Limits::default());
        let (stuck, well) = (target(&mut pair, "stuck", NONE), target(&mut pair, "well", WIDE));
        for number in 0..5 {
            pair.ask(A, stuck, number, 4);
        }
        let calls = [6, 7].map(|number| wait(&mut pair, well, number, size).unwrap());
        assert_eq!(ended(&pair, calls), [false, false], "they are in the lane");
        pair.run();
        assert_eq!(pair.nodes[B].seen.len(), 2);
        for call in calls {
            pair.nodes[A].session.expire(pair.now, call);
            assert!(pair.poll(A, call).unwrap().is_ok());
        }
    }
}

/// Nor is one told that its time is over between its frame's going and that of those behind it.
#[test]
fn one_whose_frame_has_gone_does_not_wait_for_those_behind_it() {
    let mut pair = Pair::with(room(2, 1 << 22), Limits::default());
    let (stuck, well) = (target(&mut pair, "stuck", NONE), target(&mut pair, "well", WIDE));
    for number in 0..5 {
        pair.ask(A, stuck, number, 4);
    }
    let calls = [6, 7, 8].map(|number| wait(&mut pair, well, number, 4000).unwrap());
    pair.transmit(A, 1);
    assert_eq!(ended(&pair, calls), [true, false, false]);
    calls.into_iter().for_each(|call| pair.nodes[A].session.expire(pair.now, call));
    assert!(pair.poll(A, calls[0]).unwrap().is_ok());
    for call in [calls[1], calls[2]] {
        assert!(matches!(pair.poll(A, call), Some(Err(CallEnd::TimedOut { sent: false }))));
    }
    pair.run();
    let seen: Vec<u32> = pair.nodes[B].seen.iter().map(|seen| seen.number).collect();
    assert_eq!(seen, [6]);
}

/// A part of it has gone, and the rest will not: no handler sees it.
#[test]
fn a_large_one_that_is_given_up_on_its_way_is_not_handled() {
    let mut pair = Pair::with(room(2, 1 << 30), Limits::default());
    let (stuck, well) = (target(&mut pair, "stuck", NONE), target(&mut pair, "well", WIDE));
    for number in 0..2 {
        pair.ask(A, stuck, number, 4);
    }
    let call = wait(&mut pair, well, 1, 1 << 20).unwrap();
    pair.transmit(A, 1);
    pair.nodes[A].session.expire(pair.now, call);
    assert!(matches!(pair.poll(A, call), Some(Err(CallEnd::TimedOut { sent: false }))));
    pair.run();
    assert!(pair.nodes[B].seen.is_empty());
}

/// What was kept free for endpoints of the system is anyone's when none is called any more.
#[test]
fn room_that_is_kept_no_more_is_given_to_who_waits() {
    let mut pair = Pair::with(room(16, 1 << 20), Limits::default());
    let (x, system) = (target(&mut pair, "x", NONE), target(&mut pair, "system", WIDE));
    (0..14).for_each(|number| pair.send(A, x, number, 4));
    let waiting = [1, 2, 3].map(|number| wait(&mut pair, x, number, 4).unwrap());
    assert_eq!(ended(&pair, waiting), [false; 3]);
    assert_eq!(wait(&mut pair, system, 0, 4), None, "that is for the system, whoever waits");
    pair.run();
    pair.nodes[A].session.release(system);
    assert_eq!(ended(&pair, waiting), [true, true, false]);
}

/// Whoever passes those that wait leaves nothing behind.
#[test]
fn those_that_pass_leave_no_trace() {
    let mut pair = Pair::with(room(2, 1 << 20), Limits::default());
    let (stuck, well) = (target(&mut pair, "stuck", NONE), target(&mut pair, "well", WIDE));
    for number in 0..3 {
        pair.ask(A, stuck, number, 4);
    }
    for number in 0..10_000 {
        let call = wait(&mut pair, well, number, 4).unwrap();
        while pair.transmit(A, 1 << 20) {}
        assert!(pair.poll(A, call).unwrap().is_ok());
    }
    assert!(pair.nodes[A].session.waiting.kept() <= 66);
}

/// Whatever comes and goes, what has room is within it, and whoever waits does so for a reason.
#[test]
fn what_waits_adds_up_in_any_order() {
    for seed in 0..50 {
        let mut random = Random::new(seed);
        let mut pair = Pair::with(room(4, 40_000), Limits::default());
        let targets = ["stuck", "well", "slow"]
            .map(|name| (name, if name == "well" { WIDE } else { (2, 10_000) }))
            .map(|(name, window)| target(&mut pair, name, window));
        pair.nodes[B].hold = true;
        let mut calls: Vec<u64> = Vec::new();
        for number in 0..200 {
            let size = [4, 500, 9000, 30_000, 300_000][random.below(5)];
            match random.below(8) {
                0..4 => {
                    let how =
                        [Submission::Ask, Submission::SendWait, Submission::Send][random.below(3)];
                    let message = (SMALL, [Lane::Normal, Lane::Bulk][random.below(2)]);
                    let to = targets[random.below(3)];
                    let sent = pair.submit(A, to, message, body(number, size), how);
                    calls.extend(sent.ok().flatten());
                }
                4 => drop(pair.transmit(A, [1, 5000, 1 << 20][random.below(3)])),
                5 => drop(pair.handle(B)),
                6 if random.below(10) == 0 => {
                    let limits = room(4, 40_000);
                    pair.cut();
                    pair.attach([super::pair::hello(1, &limits), super::pair::hello(2, &limits)]);
                }
                6 => pair.run(),
                _ if calls.is_empty() => {}
                _ => {
                    let call = calls.swap_remove(random.below(calls.len()));
                    let session = &mut pair.nodes[A].session;
                    match random.below(2) {
                        0 => session.expire(pair.now, call),
                        _ => session.abandon(pair.now, call),
                    }
                }
            }
            assert_eq!(pair.nodes[A].session.unsound(), Vec::<String>::new(), "{seed} {number}");
            assert_eq!(pair.nodes[A].session.does_not_add_up(), None, "{seed} {number}");
        }
    }
}
