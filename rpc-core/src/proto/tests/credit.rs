//! Windows: how much may be sent to an endpoint before it has handled some.

use super::pair::{A, B, Pair, SMALL, body};
use crate::Lane;
use crate::proto::Submission;

fn left(pair: &Pair, target: u32) -> (i64, i64) {
    let target = pair.nodes[A].session.targets.get(target).unwrap();
    (target.messages_left, target.bytes_left)
}

/// A window of three messages and 100,000 bytes, resolved.
fn resolved() -> (Pair, u32) {
    let mut pair = Pair::new();
    pair.start(B, "narrow", (3, 100_000));
    let target = pair.target(A, "narrow", None);
    let call = pair.nodes[A].session.resolve(pair.now, target).unwrap();
    pair.run();
    assert!(pair.poll(A, call).unwrap().is_ok());
    assert_eq!(left(&pair, target), (3, 100_000));
    (pair, target)
}

#[test]
fn what_is_over_the_window_waits_until_some_of_it_is_handled() {
    let (mut pair, target) = resolved();
    pair.nodes[B].hold = true;
    (0..10).for_each(|number| pair.send(A, target, number, 4));
    pair.run();
    assert_eq!(pair.nodes[B].inbox.len(), 3);
    assert!(pair.handle(B));
    pair.run();
    assert_eq!(pair.nodes[B].inbox.len(), 2, "half a window at a time");
    assert!(pair.handle(B));
    pair.run();
    assert_eq!(pair.nodes[B].inbox.len(), 3);
    pair.nodes[B].hold = false;
    while pair.handle(B) {}
    pair.run();
    assert_eq!(pair.nodes[B].seen.len(), 10);
}

#[test]
fn one_message_may_overdraw_the_bytes() {
    let (mut pair, target) = resolved();
    pair.nodes[B].hold = true;
    pair.send(A, target, 0, 1 << 20);
    pair.send(A, target, 1, 4097);
    pair.run();
    assert_eq!(pair.nodes[B].inbox.len(), 1);
    pair.nodes[B].hold = false;
    while pair.handle(B) {}
    pair.run();
    assert_eq!(pair.nodes[B].seen.len(), 2);
}

/// What is small costs a message only: it does not wait until a large one was handled.
#[test]
fn a_small_message_needs_no_bytes_of_credit() {
    let (mut pair, target) = resolved();
    pair.nodes[B].hold = true;
    let large = (SMALL, Lane::Bulk);
    pair.submit(A, target, large, body(0, 1 << 20), Submission::Send).unwrap();
    pair.run();
    assert!(left(&pair, target).1 < 0);
    pair.send(A, target, 1, 4096);
    pair.run();
    assert_eq!(pair.nodes[B].inbox.len(), 2);
    assert_eq!(pair.nodes[B].owed(0).unwrap(), (2, 1 << 20));
}

#[test]
fn what_is_taken_back_gives_its_credit_back() {
    for size in [4, 60_000, 1 << 20] {
        for transmit in [false, true] {
            let (mut pair, target) = resolved();
            for number in 0..20 {
                let call = pair.ask(A, target, number, size);
                if transmit {
                    // Begun, not ended; what fits into one frame is answered as usual.
                    pair.transmit(A, 1);
                }
                pair.nodes[A].session.abandon(pair.now, call);
                pair.run();
            }
            let (messages, bytes) = left(&pair, target);
            let owed = pair.nodes[B].owed(0).unwrap();
            let owed = (i64::try_from(owed.0).unwrap(), i64::try_from(owed.1).unwrap());
            assert_eq!((messages + owed.0, bytes + owed.1), (3, 100_000), "{size} {transmit}");
        }
    }
}

#[test]
fn credit_that_comes_back_lets_the_next_one_go() {
    let (mut pair, target) = resolved();
    let calls: Vec<u64> = (0..3).map(|number| pair.ask(A, target, number, 4)).collect();
    let last = pair.ask(A, target, 3, 4);
    calls.into_iter().for_each(|call| pair.nodes[A].session.abandon(pair.now, call));
    pair.run();
    assert_eq!(pair.answer(A, last), 3);
}

#[test]
fn taking_back_an_ask_frees_what_waits_behind_it() {
    let (mut pair, target) = resolved();
    pair.nodes[B].hold = true;
    let large = pair.ask(A, target, 0, 1 << 20);
    let small = pair.ask(A, target, 1, 4);
    pair.nodes[A].session.abandon(pair.now, large);
    pair.run();
    assert_eq!(pair.nodes[B].inbox.len(), 1);
    pair.nodes[B].hold = false;
    while pair.handle(B) {}
    pair.run();
    assert_eq!(pair.answer(A, small), 1);
}

#[test]
fn both_lanes_share_the_window() {
    let (mut pair, target) = resolved();
    pair.nodes[B].hold = true;
    for (number, lane) in (0..).zip([Lane::Bulk, Lane::Normal].into_iter().cycle().take(8)) {
        pair.submit(A, target, (SMALL, lane), body(number, 4), Submission::Send).unwrap();
    }
    pair.run();
    assert_eq!(pair.nodes[B].inbox.len(), 3);
    pair.nodes[B].hold = false;
    while pair.handle(B) {}
    pair.run();
    assert_eq!(pair.nodes[B].seen.len(), 8);
}
