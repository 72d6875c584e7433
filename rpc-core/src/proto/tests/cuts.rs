//! Connections that are lost at every byte: whatever had come, each call ends with what is known of it,
//! nothing is left, and the next connection works.

use super::pair::{A, B, FAIL, Pair, SMALL, Side, UNLISTED, body, hello};
use crate::Lane;
use crate::error::{ErrorKind, Outcome};
use crate::limits::Limits;
use crate::proto::{Submission, TargetId};
use crate::spi::CallEnd;
use crate::trace::TraceContext;
use std::collections::BTreeMap;
use std::num::{NonZeroU64, NonZeroU128};

const WINDOW: (u64, u64) = (4, 60_000);

/// A session that is being played, and its calls.
struct Play {
    pair: Pair,
    targets: Vec<(Side, TargetId)>,
    /// Calls that nobody has given up: their side, and the number of their message.
    calls: BTreeMap<(Side, u64), u32>,
    last: u32,
}

impl Play {
    /// `reach` bytes arrive at `side`.
    fn new(side: Side, reach: usize) -> Self {
        let mut pair = Pair::new();
        pair.reach[side] = reach;
        for side in [A, B] {
            pair.start(side, "echo", WINDOW);
        }
        Self { pair, targets: Vec::new(), calls: BTreeMap::new(), last: 0 }
    }

    fn target(&mut self, side: Side, name: &str) -> TargetId {
        let target = self.pair.target(side, name, None);
        self.targets.push((side, target));
        target
    }

    fn message(
        &mut self,
        (side, target): (Side, TargetId),
        message: (&'static str, Lane),
        bytes: usize,
        how: Submission,
    ) -> Option<u64> {
        self.last += 1;
        let number = self.last;
        let span = NonZeroU64::MIN.saturating_add(u64::from(number));
        let traced = number.is_multiple_of(3);
        let trace = traced.then(|| TraceContext::new(NonZeroU128::from(span), span, true));
        let body = body(number, bytes);
        let call = self.pair.submit_traced(side, target, message, body, how, trace).unwrap();
        self.calls.extend(call.map(|call| ((side, call), number)));
        call
    }

    fn ask(&mut self, side: Side, target: TargetId, bytes: usize) -> Option<u64> {
        self.message((side, target), (SMALL, Lane::Normal), bytes, Submission::Ask)
    }

    fn send(&mut self, side: Side, target: TargetId, lane: Lane, bytes: usize) {
        self.message((side, target), (SMALL, lane), bytes, Submission::Send);
    }

    /// The connection is lost now.
    fn end(mut self) {
        self.pair.cut();
        for ((side, call), number) in std::mem::take(&mut self.calls) {
            let handled = self.pair.nodes[1 - side].seen.iter().any(|seen| seen.number == number);
            match self.pair.poll(side, call).expect("a call outlived its connection") {
                Ok(answer) => {
                    assert_eq!(answer[..4], number.to_be_bytes());
                    assert!(handled, "answered, not handled");
                }
                Err(CallEnd::Failed(error)) => {
                    let told = [
                        ErrorKind::HandlerFailed,
                        ErrorKind::EndpointNotFound,
                        ErrorKind::EndpointStopped,
                    ];
                    let lost = error.kind() == ErrorKind::Disconnected;
                    assert!(lost || told.contains(&error.kind()), "{error}");
                    assert!(!handled || error.outcome() != Outcome::NeverSent, "{error}");
                }
                end => panic!("{end:?}"),
            }
            let again = self.pair.poll(side, call);
            assert!(matches!(again, Some(Err(CallEnd::TimedOut { sent: true }))), "told twice");
        }
        self.leaves_nothing();
        self.works_again();
        for (side, target) in std::mem::take(&mut self.targets) {
            self.pair.nodes[side].session.release(target);
        }
        self.pair.run();
        for node in &self.pair.nodes {
            assert_eq!((node.session.known_targets(), node.bound()), (0, 0));
        }
    }

    fn leaves_nothing(&self) {
        for node in &self.pair.nodes {
            assert_eq!(node.session.unsound(), Vec::<String>::new());
            assert_eq!(node.session.open_calls(), (0, 0));
            assert_eq!(node.session.queued(), (0, 0));
            assert_eq!(node.session.assemblies.under_way(), 0);
        }
    }

    fn works_again(&mut self) {
        let limits = Limits::default();
        self.pair.reach = [usize::MAX; 2];
        self.pair.attach([hello(1, &limits), hello(2, &limits)]);
        self.pair.nodes.iter_mut().for_each(|node| node.hold = false);
        for side in [A, B] {
            let target = self.target(side, "echo");
            let call = self.ask(side, target, 4).unwrap();
            self.pair.run();
            assert_eq!(self.pair.answer(side, call), self.last);
        }
    }
}

fn asks(play: &mut Play) {
    let target = play.target(A, "echo");
    for bytes in [4, 300, 20] {
        play.ask(A, target, bytes);
        play.pair.run();
    }
}

fn many_at_once(play: &mut Play) {
    let target = play.target(A, "echo");
    for _ in 0..9 {
        play.ask(A, target, 10);
    }
    play.pair.run();
}

fn one_way(play: &mut Play) {
    let target = play.target(A, "echo");
    for _ in 0..6 {
        play.send(A, target, Lane::Normal, 30);
    }
    play.message((A, target), (SMALL, Lane::Normal), 8, Submission::SendWait);
    play.pair.run();
    play.ask(A, target, 4);
    play.pair.run();
}

fn failures(play: &mut Play) {
    let target = play.target(A, "echo");
    for name in [FAIL, UNLISTED, SMALL] {
        play.message((A, target), (name, Lane::Normal), 12, Submission::Ask);
    }
    play.pair.run();
}

fn nobody_there(play: &mut Play) {
    let (missing, target) = (play.target(A, "missing"), play.target(A, "echo"));
    play.ask(A, missing, 4);
    play.ask(A, target, 4);
    play.pair.run();
}

fn both_lanes(play: &mut Play) {
    let target = play.target(A, "echo");
    play.pair.run();
    for lane in [Lane::Bulk, Lane::Normal, Lane::Bulk] {
        play.message((A, target), (SMALL, lane), 40, Submission::Ask);
    }
    play.pair.run();
}

fn given_up(play: &mut Play) {
    let target = play.target(A, "echo");
    play.pair.nodes[B].hold = true;
    let call = play.ask(A, target, 16).unwrap();
    play.ask(A, target, 16);
    play.pair.run();
    play.calls.remove(&(A, call));
    play.pair.nodes[A].session.abandon(play.pair.now, call);
    play.pair.run();
    while play.pair.handle(B) {}
    play.pair.run();
}

fn made_anew(play: &mut Play) {
    let target = play.target(A, "echo");
    play.ask(A, target, 4);
    play.pair.run();
    play.pair.start(B, "echo", WINDOW);
    play.ask(A, target, 4);
    play.pair.run();
    play.ask(A, target, 4);
    play.pair.run();
}

fn both_ways(play: &mut Play) {
    for side in [A, B] {
        let target = play.target(side, "echo");
        play.ask(side, target, 25);
        play.ask(side, target, 25);
    }
    play.pair.run();
}

fn signs_of_life(play: &mut Play) {
    let target = play.target(A, "echo");
    play.pair.nodes[B].session.heartbeat();
    play.ask(A, target, 4);
    play.pair.run();
    play.pair.nodes[B].session.goodbye("enough");
    play.pair.run();
    play.ask(A, target, 4);
    play.pair.run();
}

/// A body in parts there, and its echo in parts back; another one that is given up in the middle.
fn in_parts(play: &mut Play) {
    let target = play.target(A, "echo");
    play.ask(A, target, 300_000);
    play.pair.run();
    let call = play.ask(A, target, 300_000).unwrap();
    play.pair.transmit(A, 1);
    play.pair.nodes[A].session.abandon(play.pair.now, call);
    play.calls.remove(&(A, call));
    play.ask(A, target, 20_000);
    play.pair.run();
}

const SESSIONS: [fn(&mut Play); 11] = [
    asks,
    many_at_once,
    one_way,
    failures,
    nobody_there,
    both_lanes,
    given_up,
    made_anew,
    both_ways,
    signs_of_life,
    in_parts,
];

/// Plays a session of which so many bytes arrive at one side; how many there were.
fn play(session: fn(&mut Play), side: Side, reach: usize) -> usize {
    let mut play = Play::new(side, reach);
    session(&mut play);
    let arrived = reach - play.pair.reach[side];
    play.end();
    arrived
}

/// F24. Within a long body one byte is as the next: there every few thousandth is tried, and each of those
/// around the ends of frames is.
#[test]
fn a_connection_may_be_lost_at_every_byte() {
    let mut cuts = 0;
    for session in SESSIONS {
        for side in [A, B] {
            let all = play(session, side, usize::MAX >> 1);
            assert!(all > 50, "{all} bytes");
            let long = all > 10_000;
            let near = |reach: usize| {
                let ends = [0, 262_144, 300_000, 562_144, 600_000, all];
                ends.iter().any(|end| reach.abs_diff(*end) < 60)
            };
            for reach in
                (0..=all).filter(|reach| !long || near(*reach) || reach.is_multiple_of(9_973))
            {
                play(session, side, reach);
                cuts += 1;
            }
        }
    }
    assert!(cuts > 6_000, "only {cuts} cuts");
}
