//! A session that looks after itself: signs of life, what it holds, and whether that adds up.

use super::edges::{frames, resolved};
use super::pair::{A, B, FAIL, Pair, SMALL, body, hello};
use crate::Lane;
use crate::counters::{Counters, Tally};
use crate::error::{ErrorKind, Outcome};
use crate::limits::Limits;
use crate::proto::calls::Progress;
use crate::proto::{Close, CloseCode, Hellos, Session, Submission, TargetKey, Vital};
use crate::wire::frame::{Kind, put_control};
use bytes::BytesMut;
use std::sync::Arc;
use std::task::{Context, Waker};
use std::time::Duration;

#[test]
fn the_answer_to_a_hello_that_is_not_taken_begins_as_a_connection_does() {
    let close = Close::new(CloseCode::Version, "too old");
    let mut bytes = BytesMut::new();
    close.put_answer(&mut bytes);
    let ours = hello(1, &Limits::default()).hello;
    let mut hellos = Hellos::new(ours, 1000);
    let read = hellos.receive(&mut bytes).unwrap_err();
    assert!(hellos.closed_by_peer() && bytes.is_empty());
    assert_eq!(read.to_string(), "the peer says: too old (close code 2)");
}

#[test]
fn a_connection_is_looked_after() {
    let (mut pair, _) = resolved(Limits::default(), Limits::default(), ["x"]);
    let start = pair.now;
    let session = &mut pair.nodes[A].session;
    assert_eq!(session.peer().unwrap().hello.env, 2);
    let after = |millis| start + Duration::from_millis(millis);
    assert!(!session.is_quiet(after(799)) && session.is_quiet(after(800)));
    session.said(after(800));
    assert!(!session.is_quiet(after(1599)));
    session.stalled(start, true);
    session.stalled(after(5000), true);
    let stall = |session: &mut Session| match session.look(after(10_001)) {
        Vital::Broken(close) => Some(close.text),
        _ => None,
    };
    assert!(stall(session).unwrap().contains("rpc.io.writeStall"));
    session.stalled(after(5001), false);
    assert_eq!(stall(session), None);
    assert_eq!(session.verdict(after(10_000)), None, "a peer that promises nothing may be silent");
    pair.cut();
    let session = &mut pair.nodes[A].session;
    assert!(session.peer().is_none() && !session.is_quiet(after(20_000)));
    let mut peer = hello(2, &Limits::default());
    peer.hello = peer.hello.with_heartbeat(Duration::from_secs(1));
    session.attach(start, peer);
    assert_eq!((session.verdict(after(2999)), session.look(after(2999))), (None, Vital::Fine));
    assert_eq!(session.look(after(3000)), Vital::Silent);
    let verdict = |session: &Session, millis| session.verdict(after(millis)).unwrap().text;
    assert!(verdict(session, 3000).contains("for 3s (rpc.io.deadAfter)"));
    for (promise, why) in [(1000, "(rpc.io.deadAfter)"), (2000, "(three of its own heartbeats)")] {
        let mut peer = hello(2, &Limits::default());
        peer.hello.heartbeat = Some(promise);
        session.attach(start, peer);
        assert!(verdict(session, 60_000).ends_with(why));
    }
}

#[test]
fn a_silent_peer_that_promises_nothing_is_pinged_once() {
    let (mut pair, _) = resolved(Limits::default(), Limits::default(), ["x"]);
    let start = pair.now;
    let pings = |pair: &mut Pair, millis| {
        pair.nodes[A].session.look(start + Duration::from_millis(millis));
        frames(pair, A).iter().filter(|frame| frame.0 == Kind::Ping).count()
    };
    assert_eq!([999, 1000, 1001, 2500].map(|millis| pings(&mut pair, millis)), [0, 1, 0, 0]);
    // Something has come: it counts anew.
    pair.now = start + Duration::from_millis(2000);
    pair.nodes[B].session.heartbeat();
    pair.transmit(B, usize::MAX);
    pair.deliver(A).unwrap();
    assert_eq!([2999, 3000, 3001].map(|millis| pings(&mut pair, millis)), [0, 1, 0]);
    let mut peer = hello(2, &Limits::default());
    peer.hello.heartbeat = Some(5000);
    pair.nodes[A].session.attach(start, peer);
    assert_eq!([1000, 14_999].map(|millis| pings(&mut pair, millis)), [0, 0]);
}

#[test]
fn there_are_wakers_when_a_call_has_ended_that_somebody_looked_at() {
    let (mut pair, [echo]) = resolved(Limits::default(), Limits::default(), ["x"]);
    pair.nodes[A].session.take_wakes(&mut Vec::new());
    let call = pair.ask(A, echo, 1, 4);
    assert!(pair.poll(A, call).is_none());
    assert!(!pair.nodes[A].session.has_wakes());
    pair.run();
    let mut wakes = Vec::new();
    assert!(pair.nodes[A].session.has_wakes());
    pair.nodes[A].session.take_wakes(&mut wakes);
    assert_eq!((wakes.len(), pair.nodes[A].session.has_wakes()), (1, false));
}

#[test]
fn a_ping_is_answered_with_its_number() {
    let (mut pair, _) = resolved(Limits::default(), Limits::default(), ["x"]);
    let mut bytes = BytesMut::new();
    put_control(&mut bytes, Kind::Ping, &[0, 0, 0, 9, 0, 0, 0, 7], &[]);
    pair.arrive(B, &bytes).unwrap();
    pair.nodes[B].session.heartbeat();
    assert_eq!(frames(&mut pair, B), [(Kind::Pong, 9), (Kind::Heartbeat, 0)]);
}

#[test]
fn pings_that_wait_for_their_answer_have_a_limit() {
    let limits = Limits::default().with_outbox_max_control(2).unwrap();
    let (mut pair, _) = resolved(Limits::default(), limits, ["x"]);
    let mut ping = BytesMut::new();
    put_control(&mut ping, Kind::Ping, &[0; 8], &[]);
    for _ in 0..3 {
        pair.arrive(B, &ping).unwrap();
        pair.arrive(B, &ping).unwrap();
        assert_eq!(frames(&mut pair, B).len(), 2);
    }
    pair.arrive(B, &[&ping[..], &ping].concat()).unwrap();
    let close = pair.arrive(B, &ping).unwrap_err();
    assert!(close.is(CloseCode::Overloaded) && close.text.contains("more than 2 pings"), "{close}");
}

#[test]
fn time_that_nobody_could_use_is_nobodys_fault() {
    let (mut pair, _) = resolved(Limits::default(), Limits::default(), ["x"]);
    let mut peer = hello(2, &Limits::default());
    peer.hello = peer.hello.with_heartbeat(Duration::from_secs(1));
    let after = |millis| pair.now + Duration::from_millis(millis);
    let session = &mut pair.nodes[A].session;
    session.attach(pair.now, peer);
    session.stalled(after(100), true);
    assert_eq!(session.look(after(60_000)), session.look(after(60_000)));
    assert_ne!(session.look(after(60_000)), Vital::Fine);
    session.rearm(after(60_000));
    assert_eq!(session.look(after(60_000)), Vital::Fine);
    // From then on it counts again.
    session.rearm(after(60_001));
    assert_eq!(session.look(after(63_000)), Vital::Fine);
    assert_eq!(session.look(after(63_001)), Vital::Silent);
    assert!(matches!(session.look(after(70_002)), Vital::Broken(_)));
}

#[test]
fn nothing_new_is_sent_to_a_peer_that_leaves() {
    let (mut pair, [echo]) = resolved(Limits::default(), Limits::default(), ["x"]);
    pair.nodes[B].session.goodbye("over");
    pair.run();
    assert_eq!(pair.nodes[A].goodbye.as_deref(), Some("over"));
    let calls = [pair.ask(A, echo, 1, 4), pair.ask(A, echo, 2, 50_000)];
    assert!(!pair.nodes[A].session.has_output());
    pair.cut();
    for call in calls {
        assert_eq!(pair.error(A, call).outcome(), Outcome::NeverSent);
    }
}

/// What an audit says of a session with two messages that wait and two calls in flight.
fn audit(change: impl FnOnce(&mut Session)) -> Option<String> {
    let two = Limits::default().with_max_in_flight(2).unwrap();
    let (mut pair, [echo]) = resolved(two.clone(), two, ["x"]);
    pair.start(A, "y", (10, 100_000));
    pair.nodes[A].hold = true;
    pair.nodes[B].hold = true;
    let back = pair.target(B, "y", None);
    for number in 0..4 {
        pair.ask(A, echo, number, 100);
        pair.ask(B, back, number, 100);
    }
    pair.run();
    let session = &mut pair.nodes[A].session;
    assert_eq!((session.queued, session.queued_bytes, session.flights.len()), (2, 200, 2));
    assert_eq!(session.serving.len(), 2);
    change(session);
    verdict(session)
}

/// What does not add up. Tables that were changed by hand disagree with each other as well, which is
/// told where the feature `audit` is on.
fn verdict(session: &Session) -> Option<String> {
    session.does_not_add_up().map(|text| format!("{}: {text}", session.peer_name()))
}

#[test]
fn an_audit_names_what_does_not_add_up() {
    assert_eq!(audit(|_| {}), None);
    assert_eq!(audit(|session| session.queued = 8192 + 65_536), None);
    let one = |session: &mut Session| {
        session.limits = Limits::default().with_max_in_flight(1).unwrap().into();
        let peer = session.peer.take();
        session.set_peer(peer);
    };
    let refused = [
        audit(|session| session.queued = 8192 + 65_536 + 1),
        audit(|session| session.queued = 1),
        audit(|session| session.queued_bytes = 199),
        audit(one),
        audit(|session| {
            one(session);
            session.flights.land(1);
        }),
    ];
    let texts = [
        "b: 73729 of 73728 messages are queued",
        "b: 1 messages are queued, and 2 wait",
        "b: 199 bytes, and 200 wait",
        "b: 2 of 1 calls are in flight",
        "b: 2 of 1 calls are served",
    ];
    assert_eq!(refused, texts.map(|text| Some(text.to_owned())));
    let mut session = Session::new(Limits::default(), "b");
    assert_eq!((verdict(&session), session.peer_name()), (None, "b"));
    session.queued_bytes = 1;
    assert_eq!(verdict(&session).unwrap(), "b: no message is queued, and has 1 bytes");
}

#[test]
fn an_audit_finds_who_was_not_told_of_room() {
    let place = audit(|session| assert!(session.flights.land(1).is_some()));
    assert_eq!(place.unwrap(), "b: a call waits, and there is a place in flight");
    let lost = audit(|session| {
        session.flights.clear();
        session.set_peer(None);
    });
    assert_eq!(lost, None, "without a connection there is no place");
    for system in [false, true] {
        let limits = Limits::default().with_outbox_max_messages(16).unwrap();
        let mut pair = Pair::with(limits, Limits::default());
        let target = pair.target(A, "x", None);
        pair.nodes[A].session.targets.get_mut(target).unwrap().system = system;
        pair.nodes[A].session.reserves = 1;
        let room = if system { 16 } else { 14 };
        for number in 0..=room {
            let (message, how) = ((SMALL, Lane::Normal), Submission::SendWait);
            let call = pair.submit(A, target, message, body(number, 4), how).unwrap();
            assert_eq!(call.is_some(), number == room);
        }
        let session = &mut pair.nodes[A].session;
        assert_eq!(verdict(session), None);
        session.limits = Limits::default().into();
        let text = verdict(session).unwrap();
        assert_eq!(text, "b: there is room, and who waits for it was not told");
    }
}

#[test]
fn whatever_has_not_ended_is_named() {
    let (mut pair, [echo]) = resolved(Limits::default(), Limits::default(), ["x"]);
    pair.nodes[B].hold = true;
    assert_eq!(pair.nodes.each_ref().map(|node| node.session.unfinished()), [None, None]);
    let call = pair.ask(A, echo, 1, 4);
    let unfinished = |pair: &Pair, side: usize| pair.nodes[side].session.unfinished().unwrap();
    assert_eq!(unfinished(&pair, A), "b: 1 calls, 1 in flight, 0 served, 1 messages queued");
    pair.run();
    assert_eq!(unfinished(&pair, A), "b: 1 calls, 1 in flight, 0 served, 0 messages queued");
    assert_eq!(unfinished(&pair, B), "a: 0 calls, 0 in flight, 1 served, 0 messages queued");
    pair.nodes[A].session.abandon(pair.now, call);
    assert_eq!(pair.nodes[A].session.unfinished(), None);
    pair.send(A, echo, 2, 4);
    assert_eq!(unfinished(&pair, A), "b: 0 calls, 0 in flight, 0 served, 1 messages queued");
    pair.cut();
    let resolving = pair.nodes[A].session.resolve(pair.now, echo).unwrap();
    assert_eq!(unfinished(&pair, A), "b: 1 calls, 0 in flight, 0 served, 0 messages queued");
    pair.nodes[A].session.abandon(pair.now, resolving);
    pair.nodes[A].session.flights.depart(0, false);
    assert_eq!(unfinished(&pair, A), "b: 0 calls, 1 in flight, 0 served, 0 messages queued");
    pair.nodes[A].session.flights.clear();
}

#[test]
fn a_queue_may_be_filled_to_its_last_byte() {
    let limits = Limits::default().with_outbox_max_bytes(100_000).unwrap();
    let limits = limits.with_outbox_max_waiting_bytes(50_000).unwrap();
    for how in [Submission::Send, Submission::SendWait, Submission::Ask] {
        let mut pair = Pair::with(limits.clone(), Limits::default());
        let target = pair.target(A, "x", None);
        let most = if how == Submission::Send { 100_000 } else { 150_000 };
        let mut submit = |bytes| pair.submit(A, target, (SMALL, Lane::Normal), body(0, bytes), how);
        submit(60_000).unwrap();
        assert_eq!(submit(most - 59_999).unwrap_err().kind(), ErrorKind::Overloaded);
        submit(most - 60_000).unwrap();
        assert_eq!(submit(4).unwrap_err().kind(), ErrorKind::Overloaded);
    }
    // What finds the queue empty goes, however large it is.
    for (how, bytes) in [(Submission::Send, 100_001), (Submission::Ask, 150_001)] {
        let mut pair = Pair::with(limits.clone(), Limits::default());
        let target = pair.target(A, "x", None);
        pair.submit(A, target, (SMALL, Lane::Normal), body(0, bytes), how).unwrap();
    }
    let mut session = Session::new(limits, "b");
    session.reserves = 1;
    let room = [false, true].map(|system| session.outbox_for(system));
    assert_eq!(room.map(|room| (room.messages, room.bytes)), [(7168, 87_500), (8192, 100_000)]);
    let kept = |key| [87_500, 100_000].map(|value| session.limit(key, value));
    let less = "rpc.outbox.maxBytes (100000, less an eighth for endpoints of the system)";
    assert_eq!(kept("rpc.outbox.maxBytes"), [less, "rpc.outbox.maxBytes (100000)"]);
    assert_eq!(kept("rpc.outbox.maxWaiting")[0], "rpc.outbox.maxWaiting (87500)");
}

#[test]
fn a_message_that_is_too_large_is_told_whose_limit_it_is() {
    let limits = |bytes| Limits::default().with_message_max_size(bytes).unwrap();
    let text = |ours, theirs| {
        let (mut pair, [echo]) = resolved(limits(ours), limits(theirs), ["x"]);
        let how = Submission::Send;
        pair.submit(A, echo, (SMALL, Lane::Normal), body(0, 100), how).unwrap();
        let refused = pair.submit(A, echo, (SMALL, Lane::Normal), body(0, 101), how).unwrap_err();
        refused.text().to_owned()
    };
    let ours = "Small to x at b: its 101 bytes are over the limit of 100. This limit is controlled by rpc.message.maxSize";
    assert_eq!(text(100, 1000), ours);
    assert_eq!(text(100, 100), ours);
    assert_eq!(text(1000, 100), ours.replace("100.", "100 of the peer."));
}

#[test]
fn a_frame_that_comes_a_byte_at_a_time_has_a_limit_all_the_same() {
    let (mut pair, _) = resolved(Limits::default(), Limits::default(), ["x"]);
    let start = pair.now;
    let mut ping = BytesMut::new();
    put_control(&mut ping, Kind::Ping, &[0; 8], &[]);
    let bytes = [&ping[..], &ping].concat();
    // The first frame and a part of the second; a second between two bytes.
    let (first, rest) = bytes.split_at(17);
    pair.arrive(A, first).unwrap();
    for (second, byte) in (1..).zip(&rest[..14]) {
        pair.now = start + Duration::from_secs(2 * second);
        pair.arrive(A, &[*byte]).unwrap();
    }
    let session = &mut pair.nodes[A].session;
    let after = |millis| start + Duration::from_millis(millis);
    let is_over = |vital| matches!(vital, Vital::Broken(close) if close.text.contains("30s (rpc.io.frameTimeout)"));
    assert!(!is_over(session.look(after(30_000))) && is_over(session.look(after(30_001))));
    // Not the peer's fault if nothing is read.
    session.held(after(30_000));
    assert!(!is_over(session.look(after(60_001))));
    pair.arrive(A, &rest[14..]).unwrap();
    assert!(!is_over(pair.nodes[A].session.look(after(100_000))));
}

#[test]
fn a_promise_of_heartbeats_is_in_whole_milliseconds() {
    let promise = |time| hello(1, &Limits::default()).hello.with_heartbeat(time).heartbeat;
    assert_eq!(promise(Duration::from_millis(1)), Some(1));
    assert_eq!(promise(Duration::from_micros(999)), None);
    assert_eq!(promise(Duration::MAX), None);
}

#[test]
fn whoever_serves_a_call_may_wait_for_its_end() {
    let (mut pair, [echo]) = resolved(Limits::default(), Limits::default(), ["x"]);
    pair.nodes[B].hold = true;
    let cx = Context::from_waker(Waker::noop());
    let calls = [pair.ask(A, echo, 1, 4), pair.ask(A, echo, 2, 4)];
    pair.run();
    let asked = pair.nodes[B].inbox.iter().map(|waiting| waiting.message.call.unwrap());
    let asked: Vec<u64> = asked.collect();
    let ended = |pair: &mut Pair, wakes: bool| {
        let session = &mut pair.nodes[B].session;
        let mut woken = Vec::new();
        session.take_wakes(&mut woken);
        assert_eq!(!woken.is_empty(), wakes);
        [asked[0], asked[1], 99].map(|call| session.poll_cancelled(call, &mut None, &cx).is_ready())
    };
    assert_eq!(ended(&mut pair, false), [false, false, true]);
    pair.nodes[A].session.abandon(pair.now, calls[1]);
    pair.run();
    assert_eq!(ended(&mut pair, true), [false, true, true]);
    pair.handle(B);
    assert_eq!(ended(&mut pair, true), [true, true, true]);
}

#[test]
fn an_endpoint_behind_a_peer_is_asked_for_if_the_peer_relays() {
    for relays in [true, false] {
        let mut pair = Pair::new();
        pair.cut();
        let mut peer = hello(2, &Limits::default());
        assert!(peer.hello.capabilities.iter().any(|known| known == "relay"));
        peer.hello.capabilities.retain(|known| relays || known != "relay");
        let key = TargetKey::new("x", None).at_env(7);
        let target = pair.nodes[A].session.target(&key).unwrap();
        let call = pair.ask(A, target, 1, 4);
        pair.nodes[A].session.attach(pair.now, peer);
        if relays {
            assert_eq!(frames(&mut pair, A), [(Kind::Resolve, 0)]);
            assert!(pair.poll(A, call).is_none());
        } else {
            let error = pair.error(A, call);
            assert_eq!(
                (error.kind(), error.outcome()),
                (ErrorKind::Unreachable, Outcome::NeverSent)
            );
            assert_eq!(
                error.text(),
                "cannot reach rpc-client://x@0000000000000007 through rpc://b: that env does not relay"
            );
        }
    }
}

#[test]
fn a_number_that_comes_free_goes_to_a_target_that_wants_one() {
    let (mut pair, [used]) = resolved(Limits::default(), Limits::default(), ["x"]);
    let [first, second, third] = ["a", "b", "c"].map(|name| pair.target(A, name, None));
    let session = &mut pair.nodes[A].session;
    // As if there had been none: two wait, of which one is not needed any more.
    for id in [first, second, third] {
        session.targets.get_mut(id).unwrap().starved = id != third;
        session.starved.push_back(id);
    }
    let calls = [second, third].map(|id| session.open(id, || Progress::Resolving).unwrap());
    session.targets.get_mut(second).unwrap().resolvers.push(calls[0]);
    session.targets.get_mut(third).unwrap().resolvers.push(calls[1]);
    session.release(used);
    let number = |session: &Session, id| session.targets.get(id).unwrap().number;
    assert_eq!([first, second, third].map(|id| number(session, id)), [None, Some(0), None]);
    let starved = [first, second].map(|id| session.targets.get(id).unwrap().starved);
    assert_eq!((starved, session.starved.len()), ([false, false], 1));
}

#[test]
fn what_a_session_counts_is_its_envs_in_the_end() {
    let tallies = [Arc::<Tally>::default(), Arc::default()];
    let (mut pair, [echo]) = resolved(Limits::default(), Limits::default(), ["x"]);
    for (node, tally) in pair.nodes.iter_mut().zip(&tallies) {
        node.session.tally = tally.clone();
    }
    for (name, how) in
        [(SMALL, Submission::Ask), (FAIL, Submission::Ask), (SMALL, Submission::Send)]
    {
        pair.submit(A, echo, (name, Lane::Normal), body(1, 4), how).unwrap();
    }
    pair.run();
    let counted = |tally: &Tally| {
        let counters = Counters::read(tally);
        let called = (counters.asks_remote, counters.sends_remote);
        let heard = (counters.replies_received, counters.failures_received);
        (called, heard, (counters.replies_sent, counters.failures_sent))
    };
    assert_eq!(counted(&tallies[A]), ((0, 0), (0, 0), (0, 0)));
    pair.nodes[A].session.settle_counts();
    pair.nodes[A].session.settle_counts();
    assert_eq!(counted(&tallies[A]), ((2, 1), (1, 1), (0, 0)));
    // What is lost without anybody who would be told.
    let nowhere = pair.target(A, "nowhere", None);
    (0..3).for_each(|number| pair.send(A, nowhere, number, 4));
    pair.ask(A, nowhere, 3, 4);
    pair.run();
    assert_eq!(Counters::read(&tallies[A]).dead_letters_unsent, 3);
    drop(pair);
    assert_eq!(counted(&tallies[A]), ((3, 4), (1, 1), (0, 0)));
    assert_eq!(counted(&tallies[B]), ((0, 0), (0, 0), (1, 1)), "an UNRESOLVED is no answer");
    let session = Session::new(Limits::default(), "b").counting(&tallies[A]);
    assert!(Arc::ptr_eq(&session.tally, &tallies[A]));
}

#[test]
fn each_message_that_leaves_makes_room_for_one() {
    let limits = Limits::default().with_outbox_max_messages(2).unwrap();
    let mut pair = Pair::with(limits, Limits::default());
    let target = pair.target(A, "x", None);
    let asks = [pair.ask(A, target, 0, 4), pair.ask(A, target, 1, 4)];
    let waiting = [2, 3].map(|number| {
        let (message, how) = ((SMALL, Lane::Normal), Submission::SendWait);
        pair.submit(A, target, message, body(number, 4), how).unwrap().unwrap()
    });
    let told = |pair: &mut Pair| waiting.map(|call| !pair.nodes[A].session.calls.is_open(call));
    assert_eq!(told(&mut pair), [false, false]);
    pair.nodes[A].session.abandon(pair.now, asks[0]);
    assert_eq!(told(&mut pair), [true, false]);
    pair.nodes[A].session.abandon(pair.now, asks[1]);
    assert_eq!(told(&mut pair), [true, true]);
}
