//! Whoever waits for the end of an endpoint is told of it once, and how it came.

use super::edges::{frames, resolved};
use super::pair::{A, B, FAIL, Pair, body, hello};
use crate::Lane;
use crate::error::ErrorKind;
use crate::limits::Limits;
use crate::proto::{Submission, TargetId};
use crate::spi::{CallEnd, Incarnation};
use crate::termination::Termination;
use crate::wire::frame::Kind;

fn watch(pair: &mut Pair, target: TargetId) -> u64 {
    let call = pair.nodes[A].session.watch(target).unwrap();
    assert!(pair.poll(A, call).is_none());
    call
}

/// How a watch has ended.
fn end(pair: &mut Pair, call: u64) -> (Option<Incarnation>, Termination, Option<ErrorKind>) {
    match pair.poll(A, call).expect("not ended") {
        Err(CallEnd::Terminated { incarnation, reason, cause }) => {
            (incarnation, reason, cause.map(|error| error.kind()))
        }
        end => panic!("{end:?}"),
    }
}

#[test]
fn the_end_of_an_endpoint_is_told_once_with_its_reason_and_life() {
    let mut pair = Pair::new();
    let life = pair.start(B, "x", (10, 1000));
    let target = pair.target(A, "x", None);
    // It is resolved for that.
    let watches = [watch(&mut pair, target), watch(&mut pair, target)];
    let given_up = watch(&mut pair, target);
    pair.run();
    pair.nodes[A].session.abandon(pair.now, given_up);
    assert!(watches.iter().all(|call| pair.poll(A, *call).is_none()));
    pair.stop(B, "x");
    pair.run();
    for call in watches {
        assert_eq!(end(&mut pair, call), (Some(life), Termination::Stopped, None));
    }
    // A further one waits for the next life.
    let call = watch(&mut pair, target);
    pair.run();
    assert_eq!(pair.error(A, call).kind(), ErrorKind::EndpointNotFound);
    let life = pair.start(B, "x", (10, 1000));
    let call = watch(&mut pair, target);
    pair.run();
    pair.stop(B, "x");
    pair.run();
    assert_eq!(end(&mut pair, call).0, Some(life));
    assert_eq!(pair.nodes[A].session.open_calls().0, 0);
}

#[test]
fn a_watch_ends_with_the_connection() {
    let (mut pair, [target]) = resolved(Limits::default(), Limits::default(), ["x"]);
    let call = watch(&mut pair, target);
    assert!(!pair.nodes[A].session.has_output(), "it is resolved already");
    pair.cut();
    let (incarnation, reason, cause) = end(&mut pair, call);
    assert_eq!((incarnation.is_some(), reason), (true, Termination::NodeLost));
    assert_eq!(cause, Some(ErrorKind::Disconnected));
}

#[test]
fn the_end_comes_behind_what_was_said_last() {
    let (mut pair, [target]) = resolved(Limits::default(), Limits::default(), ["x"]);
    pair.nodes[B].hold = true;
    let call = watch(&mut pair, target);
    let how = Submission::Ask;
    let asks = [1, 2].map(|number| {
        let sent = pair.submit(A, target, (FAIL, Lane::Normal), body(number, 4), how);
        sent.unwrap().unwrap()
    });
    pair.run();
    while pair.handle(B) {}
    pair.stop(B, "x");
    // Failures take the normal lane, a piece at a time here.
    let mut told = 0;
    while pair.transmit(B, 1) {
        pair.deliver(A).unwrap();
        let ended = pair.nodes[A].session.open_calls().0;
        assert!(ended > 0 || told > 0);
        told += 1;
    }
    assert!(told >= 2);
    assert_eq!(asks.map(|ask| pair.error(A, ask).kind()), [ErrorKind::HandlerFailed; 2]);
    assert_eq!(end(&mut pair, call).1, Termination::Stopped);
    // What has nothing before it is said at once.
    pair.nodes[B].session.gone(7, Termination::Crashed);
    assert_eq!(frames(&mut pair, B), [(Kind::Gone, 7)]);
}

#[test]
fn how_an_endpoint_ended_is_said_to_those_who_read_it() {
    for (reads, how) in [(true, Termination::Crashed), (false, Termination::Unknown)] {
        let (mut pair, [target]) = resolved(Limits::default(), Limits::default(), ["x"]);
        let call = watch(&mut pair, target);
        let peer = pair.nodes[B].session.peer.as_mut().unwrap();
        assert_eq!(peer.hello, hello(1, &Limits::default()).hello);
        peer.hello.capabilities.retain(|known| reads || known != "endings");
        pair.nodes[B].session.gone(0, Termination::Crashed);
        pair.run();
        assert_eq!(end(&mut pair, call).1, how);
    }
}
