//! Long random walks: whatever happens in whatever order, every promise holds.

use super::pair::{A, B, Chunks, FAIL, Pair, Random, SMALL, Side, UNLISTED, body, hello};
use crate::Lane;
use crate::error::Outcome;
use crate::limits::Limits;
use crate::proto::{PeerInfo, Submission, TargetId, Vital};
use crate::spi::CallEnd;
use crate::trace::TraceContext;
use std::collections::{BTreeMap, BTreeSet};
use std::num::{NonZeroU64, NonZeroU128};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Wake, Waker};
use std::time::Duration;

const NAMES: [&str; 3] = ["x", "y", "z"];

#[derive(Default)]
struct Flag(AtomicBool);

impl Wake for Flag {
    fn wake(self: Arc<Self>) {
        self.0.store(true, Ordering::Relaxed);
    }
}

struct Open {
    side: Side,
    call: u64,
    number: u32,
    ask: bool,
    woken: Arc<Flag>,
}

struct Walk {
    pair: Pair,
    random: Random,
    limits: Limits,
    targets: [Vec<TargetId>; 2],
    open: Vec<Open>,
    /// The lane of each message, who sent it, and its trace.
    sent: BTreeMap<u32, (Side, Lane, Option<TraceContext>)>,
    never_sent: BTreeSet<u32>,
    answered: usize,
    seen: [usize; 2],
    /// The last number seen, by sender, endpoint, life and lane.
    order: BTreeMap<(Side, String, u64, bool), u32>,
    handled: BTreeSet<u32>,
    /// By side; one seed in four has a side that does not.
    reads_headers: [bool; 2],
}

fn hellos(limits: &Limits, reads_headers: [bool; 2]) -> [PeerInfo; 2] {
    let mut hellos = [hello(1, limits), hello(2, limits)];
    for (hello, reads) in hellos.iter_mut().zip(reads_headers) {
        hello.hello.capabilities.retain(|known| reads || known != "headers");
    }
    hellos
}

impl Walk {
    fn new(seed: u64) -> Self {
        Self::with(Random::new(seed), seed)
    }

    fn with(random: Random, seed: u64) -> Self {
        let limits = Limits::default();
        let limits = limits.with_max_in_flight(6).unwrap();
        let limits = limits.with_outbox_max_messages(12).unwrap();
        let limits = limits.with_outbox_max_waiting(20).unwrap();
        // The least: half of the time would go into copies.
        let frame = if cfg!(fuzzing) { 32 << 10 } else { limits.frame_max_size() };
        let limits = limits.with_frame_max_size(frame).unwrap();
        let reads_headers = [true, !seed.is_multiple_of(4)];
        let mut pair = Pair::with(limits.clone(), limits.clone());
        pair.attach(hellos(&limits, reads_headers));
        pair.chunks = Chunks::Random(Random::new(seed + 1));
        let targets = [A, B].map(|side| {
            pair.nodes[side].hold = true;
            let other = 1 - side;
            for name in NAMES {
                pair.start(other, name, (5, 60_000));
            }
            NAMES.map(|name| pair.target(side, name, None)).to_vec()
        });
        Self {
            pair,
            random,
            limits,
            targets,
            open: Vec::new(),
            sent: BTreeMap::new(),
            never_sent: BTreeSet::new(),
            answered: 0,
            seen: [0, 0],
            order: BTreeMap::new(),
            handled: BTreeSet::new(),
            reads_headers,
        }
    }

    fn one_in(&mut self, many: usize) -> bool {
        self.random.below(many) == 0
    }

    fn step(&mut self) {
        let side = self.random.below(2);
        match self.random.below(100) {
            0..30 => self.submit(side),
            30..36 => self.give_up(),
            36..40 => self.exchange(side),
            40..56 => {
                let budget = [1, 5_000, 50_000, 1_000_000][self.random.below(4)];
                self.pair.transmit(side, budget);
            }
            56..80 => {
                self.pair.deliver(side).expect("closed");
            }
            80..95 => {
                self.pair.handle(side);
            }
            95..97 => self.look(),
            97..99 => self.pass_time(),
            _ => self.disturb(side),
        }
        self.check_seen();
        self.check_tables();
    }

    /// Each table of a session agrees with the others.
    fn check_tables(&self) {
        for side in [A, B] {
            assert_eq!(
                self.pair.nodes[side].session.unsound(),
                Vec::<String>::new(),
                "side {side}"
            );
        }
    }

    /// A side that hears nothing for too long gives the connection up.
    fn pass_time(&mut self) {
        let millis = self.random.below(2_000) as u64;
        self.pair.now = self.pair.now + Duration::from_millis(millis);
        let now = self.pair.now;
        let lives = [A, B].map(|side| self.pair.nodes[side].session.look(now) == Vital::Fine);
        if lives.contains(&false) {
            self.reconnect();
        }
    }

    /// A third of the messages has a trace, half of those a tracestate.
    fn trace(&mut self, number: u32) -> Option<TraceContext> {
        let span = NonZeroU64::MIN.saturating_add(u64::from(number));
        let trace = TraceContext::new(NonZeroU128::from(span), span, true);
        match self.random.below(6) {
            0 => Some(trace),
            1 => Some(trace.with_tracestate(&"s".repeat(1 + self.random.below(512)))),
            _ => None,
        }
    }

    fn submit(&mut self, side: Side) {
        let target = self.targets[side][self.random.below(NAMES.len())];
        let size = match self.random.below(20) {
            0 => self.limits.frame_max_size() + 40_000,
            1..4 => 17_000 + self.random.below(self.limits.frame_max_size() / 3),
            _ => 4 + self.random.below(300),
        };
        let lane = if self.one_in(6) { Lane::Bulk } else { Lane::Normal };
        let name = [SMALL, SMALL, SMALL, FAIL, UNLISTED][self.random.below(5)];
        let how = [Submission::Ask, Submission::Send, Submission::SendWait][self.random.below(3)];
        let number = u32::try_from(self.sent.len()).unwrap();
        let trace = self.trace(number);
        let (message, body) = ((name, lane), body(number, size));
        let traced = trace.clone();
        let submitted = self.pair.submit_traced(side, target, message, body, how, traced);
        self.sent.insert(number, (side, lane, trace));
        match submitted {
            Ok(Some(call)) => {
                let ask = how == Submission::Ask;
                let woken = Arc::new(Flag::default());
                // What is over at once wakes nobody.
                let first = Open { side, call, number, ask, woken };
                if !self.poll(&first) {
                    self.open.push(first);
                }
            }
            Ok(None) => {}
            Err(error) => {
                assert!(error.is_overloaded(), "{error}");
                self.never_sent.insert(number);
            }
        }
    }

    /// Looks at a call; whether it has ended.
    fn poll(&mut self, open: &Open) -> bool {
        let waker = Waker::from(open.woken.clone());
        let session = &mut self.pair.nodes[open.side].session;
        let Poll::Ready(end) = session.poll_call(open.call, &Context::from_waker(&waker)) else {
            return false;
        };
        let never_sent = match end {
            Ok(body) if open.ask => {
                assert_eq!(body[..4], open.number.to_be_bytes(), "the answer to another call");
                assert!(self.handled.contains(&open.number), "answered, not handled");
                self.answered += 1;
                false
            }
            Ok(_) => false,
            Err(CallEnd::TimedOut { sent }) => !sent,
            Err(CallEnd::Failed(error)) => error.outcome() == Outcome::NeverSent,
            Err(end) => panic!("{end:?}"),
        };
        if never_sent {
            self.never_sent.insert(open.number);
        }
        true
    }

    fn wake(&mut self) {
        for node in &mut self.pair.nodes {
            let mut wakes = Vec::new();
            node.session.take_wakes(&mut wakes);
            wakes.into_iter().for_each(Waker::wake);
        }
    }

    /// Looks at every call: those that were woken have ended, and no others.
    fn look(&mut self) {
        self.wake();
        for open in std::mem::take(&mut self.open) {
            let woken = open.woken.0.load(Ordering::Relaxed);
            let ended = self.poll(&open);
            assert_eq!(ended, woken, "call {} of message {}", open.call, open.number);
            if !ended {
                self.open.push(open);
            }
        }
    }

    /// Somebody gives a target up, and somebody else takes one.
    fn exchange(&mut self, side: Side) {
        let place = self.random.below(NAMES.len());
        let old = self.targets[side][place];
        if self.one_in(2) {
            self.pair.nodes[side].session.release(old);
            self.targets[side][place] = self.pair.target(side, NAMES[place], None);
        } else {
            // The new user comes before the old one goes.
            self.targets[side][place] = self.pair.target(side, NAMES[place], None);
            self.pair.nodes[side].session.release(old);
        }
    }

    fn give_up(&mut self) {
        if self.open.is_empty() {
            return;
        }
        let index = self.random.below(self.open.len());
        let now = self.pair.now;
        if self.one_in(2) {
            let open = self.open.swap_remove(index);
            self.pair.nodes[open.side].session.abandon(now, open.call);
        } else {
            let (side, call) = (self.open[index].side, self.open[index].call);
            self.pair.nodes[side].session.expire(now, call);
        }
    }

    /// An endpoint starts anew, or, more rarely, the connection breaks.
    fn disturb(&mut self, side: Side) {
        if self.one_in(3) {
            self.reconnect();
        } else {
            let name = NAMES[self.random.below(NAMES.len())];
            self.pair.start(side, name, (5, 60_000));
        }
    }

    fn reconnect(&mut self) {
        self.pair.cut();
        self.check_tables();
        self.look();
        assert!(self.open.is_empty(), "a call outlived its connection");
        self.pair.attach(hellos(&self.limits, self.reads_headers));
    }

    /// Each message is seen once, and in order.
    fn check_seen(&mut self) {
        for side in [A, B] {
            for seen in &self.pair.nodes[side].seen[self.seen[side]..] {
                let (sender, lane, trace) = &self.sent[&seen.number];
                let (sender, lane) = (*sender, *lane);
                assert_eq!(sender, 1 - side);
                let reads = self.reads_headers[side];
                assert_eq!(&seen.trace, if reads { trace } else { &None }, "{}", seen.number);
                assert!(self.handled.insert(seen.number), "{} was seen twice", seen.number);
                let key = (sender, seen.endpoint.clone(), seen.life, lane == Lane::Bulk);
                let before = self.order.insert(key, seen.number);
                assert!(before.is_none_or(|before| before < seen.number), "out of order: {seen:?}");
            }
            self.seen[side] = self.pair.nodes[side].seen.len();
        }
    }

    /// Nobody uses the targets any more: nothing is left of them on either side.
    fn forget_all(&mut self) {
        for side in [A, B] {
            for target in std::mem::take(&mut self.targets[side]) {
                self.pair.nodes[side].session.release(target);
            }
        }
        self.pair.run();
        for side in [A, B] {
            let session = &self.pair.nodes[side].session;
            assert_eq!((session.known_targets(), session.numbers.taken()), (0, 0));
            assert!(session.numbers.highest() < 40, "{} numbers", session.numbers.highest());
            assert_eq!(self.pair.nodes[side].bound(), 0);
        }
    }

    /// Lets everything come to its end, and checks that nothing is left of it.
    fn finish(mut self) -> usize {
        for side in [A, B] {
            self.pair.nodes[side].hold = false;
            while self.pair.handle(side) {}
        }
        self.pair.run();
        self.check_seen();
        self.look();
        assert!(self.open.is_empty(), "{} calls hang", self.open.len());
        for side in [A, B] {
            let session = &self.pair.nodes[side].session;
            assert_eq!((session.queued, session.queued_bytes), (0, 0));
            assert_eq!((session.flights.len(), session.open_calls()), (0, (0, 0)));
            assert!(session.lanes.is_empty());
            assert!(format!("{:?}", session.assemblies).contains("open: {}"));
            for target in &self.targets[side] {
                let known = session.targets.get(*target).unwrap();
                let owed = known.number.and_then(|number| self.pair.nodes[1 - side].owed(number));
                let Some(owed) = owed else { continue };
                let left = known.messages_left + i64::try_from(owed.0).unwrap();
                let bytes = known.bytes_left + i64::try_from(owed.1).unwrap();
                assert_eq!((left, bytes), (5, 60_000), "credit was lost");
            }
        }
        self.forget_all();
        let wrong: Vec<_> = self.never_sent.intersection(&self.handled).collect();
        assert!(wrong.is_empty(), "said to be never sent, but handled: {wrong:?}");
        self.answered
    }
}

/// The walk that the bytes of an input choose.
pub(crate) fn walk(input: &[u8]) {
    let Some((seed, choices)) = input.split_first() else { return };
    let choices = Random::Bytes(choices.iter().copied().collect());
    let mut walk = Walk::with(choices, u64::from(*seed));
    while !walk.random.is_over() {
        walk.step();
    }
    walk.finish();
}

#[test]
fn every_call_ends_once_in_order_and_leaves_nothing_behind() {
    let mut answered = 0;
    for seed in 0..60 {
        let mut walk = Walk::new(seed);
        for _ in 0..1_500 {
            walk.step();
        }
        answered += walk.finish();
    }
    assert!(answered > 1_000, "only {answered} calls were answered");
}
