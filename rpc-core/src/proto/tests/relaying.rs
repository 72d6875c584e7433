//! Targets that are used for somebody else: a caller that is played by hand.

use super::pair::{A, B, Chunks, Pair, Random, body, cost};
use crate::Lane;
use crate::deadline::Timestamp;
use crate::error::{ErrorKind, Outcome};
use crate::limits::Limits;
use crate::proto::{Asker, IncomingMessage, Notice, Refusal, RelayedId, TargetKey};
use crate::spi::CallEnd;
use bytes::Bytes;
use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Wake, Waker};

const WINDOW: (u64, u64) = (6, 100_000);

#[derive(Default)]
struct Bell(AtomicUsize);

impl Wake for Bell {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

/// Somebody whose messages go from A to B.
struct Caller {
    target: RelayedId,
    bell: Arc<Bell>,
    left: (i64, i64),
    resolved: bool,
    gone: bool,
    unresolved: Option<u16>,
}

impl Caller {
    fn new(pair: &mut Pair, name: &str) -> Self {
        Self::of(pair, name, 3)
    }

    /// One of an env.
    fn of(pair: &mut Pair, name: &str, env: u64) -> Self {
        let bell = Arc::<Bell>::default();
        let key = TargetKey::new(name, None);
        let session = &mut pair.nodes[A].session;
        let asker = Asker::new(env, Waker::from(bell.clone()));
        let target = session.relay(&key, asker).unwrap();
        Self { target, bell, left: (0, 0), resolved: false, gone: false, unresolved: None }
    }

    fn release(self, pair: &mut Pair) {
        pair.nodes[A].session.release_relayed(self.target);
    }

    /// One that has been resolved.
    fn resolved(pair: &mut Pair, name: &str) -> Self {
        let mut caller = Self::new(pair, name);
        pair.run();
        caller.look(pair);
        assert!(caller.resolved);
        caller
    }

    /// Reads what there is to be read; whoever is not woken has nothing to read.
    fn look(&mut self, pair: &mut Pair) {
        let session = &mut pair.nodes[A].session;
        let mut wakes = Vec::new();
        session.take_wakes(&mut wakes);
        wakes.into_iter().for_each(Waker::wake);
        let notices = session.notices(self.target);
        let rung = self.bell.0.swap(0, Ordering::Relaxed) > 0;
        assert!(rung || notices.is_empty(), "nobody was told of {notices:?}");
        for notice in notices {
            match notice {
                Notice::Resolved(resolution) => {
                    let (messages, bytes) = (resolution.credit_messages, resolution.credit_bytes);
                    self.left = (messages.cast_signed(), bytes.cast_signed());
                    self.resolved = true;
                }
                Notice::Credit { messages, bytes } => {
                    self.left.0 += messages.cast_signed();
                    self.left.1 += bytes.cast_signed();
                }
                Notice::Gone(_) => self.gone = true,
                Notice::Unresolved(failure) => self.unresolved = Some(failure.code),
            }
        }
    }

    fn forward(
        &mut self,
        pair: &mut Pair,
        (number, bytes): (u32, usize),
        lane: Lane,
        call: Option<u64>,
    ) -> Result<Option<u64>, Refusal> {
        let message = IncomingMessage {
            target: 77,
            number: 0,
            name: None,
            lane,
            call,
            deadline: Timestamp::MAX,
            trace: None,
            in_parts: false,
            body: Bytes::from(body(number, bytes)),
            reply: false,
        };
        self.left.0 -= 1;
        self.left.1 -= i64::try_from(cost(bytes as u64)).unwrap();
        pair.nodes[A].session.forward(pair.now, self.target, message)
    }

    /// Does something or other; the number of a message says its lane.
    fn act(&mut self, pair: &mut Pair, random: &mut Random, number: u32, open: &mut BTreeSet<u64>) {
        match random.below(10) {
            0..4 if self.left.0 > 0 && self.left.1 > 0 => {
                let bytes = [4, 300, 17_000, 90_000][random.below(4)];
                let lane = [Lane::Normal, Lane::Bulk][(number % 2) as usize];
                let ask = [None, Some(1)][random.below(2)];
                open.extend(self.forward(pair, (number, bytes), lane, ask).unwrap());
            }
            4 => {
                if let Some(call) = open.pop_first() {
                    pair.nodes[A].session.abandon(pair.now, call);
                }
            }
            5 => _ = pair.transmit(A, [1, 5_000, 100_000][random.below(3)]),
            6 => _ = pair.transmit(B, 100_000),
            7 => _ = pair.deliver(B).unwrap(),
            8 => _ = pair.deliver(A).unwrap(),
            _ => _ = pair.handle(B),
        }
    }

    fn ask(&mut self, pair: &mut Pair, number: u32, bytes: usize) -> u64 {
        self.forward(pair, (number, bytes), Lane::Normal, Some(5)).unwrap().unwrap()
    }
}

#[test]
fn messages_and_answers_pass_as_they_are() {
    let mut pair = Pair::new();
    pair.start(B, "echo", WINDOW);
    let mut caller = Caller::resolved(&mut pair, "echo");
    let small = caller.ask(&mut pair, 1, 4);
    let large = caller.ask(&mut pair, 2, 50_000);
    caller.forward(&mut pair, (3, 4), Lane::Bulk, None).unwrap();
    pair.run();
    assert_eq!((pair.answer(A, small), pair.answer(A, large)), (1, 2));
    let mut seen: Vec<_> =
        pair.nodes[B].seen.iter().map(|s| (s.number, s.call.is_some())).collect();
    seen.sort_unstable();
    assert_eq!(seen, [(1, true), (2, true), (3, false)]);
    // A failure is kept as it was said.
    pair.nodes[B].hold = true;
    let failing = caller.ask(&mut pair, 4, 4);
    pair.run();
    pair.stop(B, "echo");
    pair.run();
    let Some(Err(CallEnd::Relayed(failure))) = pair.poll(A, failing) else { panic!("no failure") };
    assert_eq!((failure.code, failure.text.as_str()), (4, "stopped"));
    caller.look(&mut pair);
    assert!(caller.gone);
    let refused = caller.forward(&mut pair, (5, 4), Lane::Normal, None);
    assert!(matches!(refused, Err(Refusal::Gone)));
    // And one that is not there.
    let mut nobody = Caller::new(&mut pair, "nobody");
    pair.run();
    nobody.look(&mut pair);
    assert_eq!(nobody.unresolved, Some(3));
}

#[test]
fn more_than_the_window_is_refused_and_nothing_counts_as_this_sides() {
    let limits = Limits::default().with_outbox_max_messages(2);
    let limits = limits.and_then(|limits| limits.with_message_max_size(20_000)).unwrap();
    let mut pair = Pair::with(limits, Limits::default());
    pair.start(B, "echo", WINDOW);
    pair.nodes[B].hold = true;
    let mut caller = Caller::resolved(&mut pair, "echo");
    for number in 0..6 {
        caller.forward(&mut pair, (number, 4), Lane::Normal, None).unwrap();
        assert_eq!(pair.nodes[A].session.queued, 0);
    }
    let over = caller.forward(&mut pair, (6, 4), Lane::Normal, None);
    assert!(matches!(over, Err(Refusal::Overrun)));
    // Two fit into this side's own queue as before, and stay in it whatever else goes.
    pair.start(B, "busy", (1, 1000));
    let own = pair.target(A, "busy", None);
    pair.send(A, own, 0, 4);
    pair.run();
    (1..3).for_each(|number| pair.send(A, own, number, 4));
    pair.start(B, "idle", WINDOW);
    let mut idle = Caller::resolved(&mut pair, "idle");
    for lane in [Lane::Normal, Lane::Bulk] {
        idle.forward(&mut pair, (0, 4), lane, None).unwrap();
        idle.forward(&mut pair, (0, 20_000), lane, None).unwrap();
    }
    pair.run();
    assert_eq!(pair.nodes[A].session.queued, 2);
    // Bytes may be overdrawn by one message of the largest size.
    pair.start(B, "large", (100, 10_000));
    let mut caller = Caller::resolved(&mut pair, "large");
    caller.forward(&mut pair, (0, 10_000), Lane::Normal, None).unwrap();
    caller.forward(&mut pair, (1, 20_000), Lane::Bulk, None).unwrap();
    let over = caller.forward(&mut pair, (2, 4097), Lane::Normal, None);
    assert!(matches!(over, Err(Refusal::Overrun)));
    caller.forward(&mut pair, (3, 4096), Lane::Normal, None).unwrap();
}

/// What overdraws the window overtakes, in the other lane, what was sent before it.
#[test]
fn the_message_that_overdraws_need_not_arrive_last() {
    let mut pair = Pair::new();
    pair.start(B, "large", (100, 100_000));
    let mut caller = Caller::resolved(&mut pair, "large");
    caller.forward(&mut pair, (1, 120_000), Lane::Normal, None).unwrap();
    caller.forward(&mut pair, (0, 50_000), Lane::Bulk, None).unwrap();
    pair.run();
    let mut seen: Vec<_> = pair.nodes[B].seen.iter().map(|seen| seen.number).collect();
    seen.sort_unstable();
    assert_eq!(seen, [0, 1]);
}

#[test]
fn relayed_calls_leave_half_of_the_places() {
    let narrow = Limits::default().with_max_in_flight(4).unwrap();
    let mut pair = Pair::with(Limits::default(), narrow);
    pair.start(B, "slow", (100, 1 << 20));
    pair.nodes[B].hold = true;
    let mut caller = Caller::resolved(&mut pair, "slow");
    let calls: Vec<u64> = (0..20).map(|number| caller.ask(&mut pair, number, 4)).collect();
    pair.run();
    assert_eq!(pair.nodes[B].inbox.len(), 2);
    let own = pair.target(A, "slow", None);
    let own: Vec<u64> = (20..30).map(|number| pair.ask(A, own, number, 4)).collect();
    pair.run();
    assert_eq!(pair.nodes[B].inbox.len(), 4);
    pair.nodes[B].hold = false;
    while pair.handle(B) {}
    pair.run();
    for (number, call) in (0..).zip(calls.into_iter().chain(own)) {
        assert_eq!(pair.answer(A, call), number);
    }
}

#[test]
fn a_lost_connection_ends_all_of_it() {
    let mut pair = Pair::new();
    pair.start(B, "echo", WINDOW);
    pair.start(B, "other", WINDOW);
    pair.nodes[B].hold = true;
    let mut caller = Caller::resolved(&mut pair, "echo");
    let sent = caller.ask(&mut pair, 1, 4);
    pair.run();
    let unsent = caller.ask(&mut pair, 2, 4);
    let mut early = Caller::new(&mut pair, "other");
    pair.cut();
    for caller in [&mut caller, &mut early] {
        caller.look(&mut pair);
    }
    assert!(caller.gone && !early.gone);
    assert_eq!(early.unresolved, Some(ErrorKind::Unreachable.wire_code()));
    assert!(!pair.nodes[A].session.wants_connection(), "nothing of it waits for a connection");
    assert_eq!(pair.error(A, sent).outcome(), Outcome::Unknown);
    assert_eq!(pair.error(A, unsent).outcome(), Outcome::NeverSent);
    let session = &mut pair.nodes[A].session;
    let nobody = Asker::new(3, Waker::noop().clone());
    let error = session.relay(&TargetKey::new("echo", None), nobody).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unreachable);
    for caller in [caller, early] {
        session.release_relayed(caller.target);
    }
    assert!(!session.wants_connection());
    assert_eq!(session.known_targets(), 0);
}

/// What waits for room keeps its place in front of what its sender sends next, over another connection
/// or with another number (seed 23825 of the simulation).
#[test]
fn the_next_connection_of_a_sender_does_not_overtake_the_last_one() {
    let mut pair = Pair::new();
    pair.start(B, "slow", (5, 100_000));
    pair.nodes[B].hold = true;
    let mut first = Caller::of(&mut pair, "slow", 3);
    let mut other = Caller::of(&mut pair, "slow", 4);
    pair.run();
    first.look(&mut pair);
    first.forward(&mut pair, (0, 150_000), Lane::Normal, None).unwrap();
    pair.run();
    // There is no credit for this one, and none for what comes behind it.
    first.forward(&mut pair, (1, 90_000), Lane::Normal, None).unwrap();
    first.release(&mut pair);
    let mut next = Caller::of(&mut pair, "slow", 3);
    pair.run();
    next.look(&mut pair);
    assert_eq!((next.resolved, next.left), (true, (3, 0)));
    next.forward(&mut pair, (2, 4), Lane::Normal, None).unwrap();
    pair.run();
    other.look(&mut pair);
    other.forward(&mut pair, (9, 4), Lane::Normal, None).unwrap();
    pair.run();
    while pair.handle(B) {
        pair.run();
    }
    next.look(&mut pair);
    let seen: Vec<_> = pair.nodes[B].seen.iter().map(|seen| seen.number).collect();
    assert_eq!(seen, [0, 9, 1, 2]);
    let owed = pair.nodes[B].owed(0).unwrap();
    let owed = (owed.0.cast_signed(), owed.1.cast_signed());
    assert_eq!((next.left.0 + owed.0, next.left.1 + owed.1), (5, 100_000));
}

/// An env may have several connections, and each its own window.
#[test]
fn an_asker_that_is_there_keeps_its_target() {
    let mut pair = Pair::new();
    pair.start(B, "echo", WINDOW);
    let mut callers = [(); 3].map(|()| Caller::resolved(&mut pair, "echo"));
    assert_eq!(pair.nodes[A].session.known_targets(), 3);
    for number in 0..6 {
        for caller in &mut callers {
            caller.forward(&mut pair, (number, 4), Lane::Normal, None).unwrap();
        }
    }
    pair.run();
    pair.stop(B, "echo");
    pair.run();
    for caller in &mut callers {
        caller.look(&mut pair);
        assert!(caller.gone);
    }
}

/// Whatever is sent, given up and handled in whatever order, and whoever goes and comes again: no
/// credit is lost or made, and nothing overtakes in its lane.
#[test]
fn credit_comes_back_for_all_that_was_taken() {
    for seed in 0..40 {
        let narrow = Limits::default().with_max_in_flight(3).unwrap();
        let mut pair = Pair::with(Limits::default(), narrow);
        pair.chunks = Chunks::Random(Random::new(seed));
        pair.nodes[B].hold = true;
        pair.start(B, "x", WINDOW);
        let mut caller = Caller::resolved(&mut pair, "x");
        let mut random = Random::new(seed + 100);
        let mut open = BTreeSet::new();
        for number in 0..800 {
            caller.look(&mut pair);
            match random.below(50) {
                45 | 46 => {
                    caller.release(&mut pair);
                    caller = Caller::of(&mut pair, "x", 3);
                }
                _ => caller.act(&mut pair, &mut random, number, &mut open),
            }
        }
        pair.nodes[B].hold = false;
        while pair.handle(B) {}
        pair.run();
        while pair.handle(B) {}
        pair.run();
        caller.look(&mut pair);
        for call in open {
            assert!(pair.poll(A, call).is_some(), "a call hangs");
        }
        for lane in [0, 1] {
            let seen = pair.nodes[B].seen.iter().map(|seen| seen.number);
            let seen: Vec<_> = seen.filter(|number| number % 2 == lane).collect();
            assert!(seen.is_sorted(), "{seed}: {seen:?}");
        }
        let target = pair.nodes[A].session.targets.get(caller.target.target);
        let owed = pair.nodes[B].owed(target.and_then(|target| target.number).unwrap()).unwrap();
        let (messages, bytes) = (owed.0.cast_signed(), owed.1.cast_signed());
        assert_eq!((caller.left.0 + messages, caller.left.1 + bytes), (6, 100_000), "{seed}");
        caller.release(&mut pair);
        pair.run();
        let session = &pair.nodes[A].session;
        assert_eq!((session.known_targets(), session.flights.len()), (0, 0));
        assert_eq!(pair.nodes[B].bound(), 0);
    }
}
