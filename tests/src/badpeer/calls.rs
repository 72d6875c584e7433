//! Calls and targets misused by a peer that has resolved an endpoint.

use super::case::{Begin, Case, End, Side, Step};
use super::scene::{Scene, close};
use super::victim::number::{ABORT, BOOM, ECHO, HOLD, KEEP, NOTE, REMAINING};
use crate::raw_peer::{ask, flag, flagged, frame, kind, resolve};
use serde::Serialize;

const PROTOCOL: u16 = 1;
const DUPLICATE_ID: u16 = 5;
/// A struct without fields.
pub(super) const EMPTY: &[u8] = b"\x90";

pub(super) fn case(name: impl Into<String>, about: &'static str) -> Case {
    Case::new(Side::Listening, Begin::Resolved, format!("listening/{}", name.into()), about)
}

pub(super) fn echo(text: &str) -> Vec<u8> {
    #[derive(Serialize)]
    struct Echo<'a> {
        text: &'a str,
    }
    rmp_serde::to_vec_named(&Echo { text }).unwrap_or_default()
}

pub(super) fn one_way(message: u16, body: &[u8]) -> Vec<u8> {
    flagged(kind::ONE_WAY, 0, message, &[&[0; 4], body].concat())
}

pub(super) fn cancel(call: u64) -> Vec<u8> {
    frame(kind::CANCEL, &call.to_be_bytes())
}

pub(super) fn release(target: u32) -> Vec<u8> {
    frame(kind::RELEASE, &target.to_be_bytes())
}

fn messages(cases: &mut Vec<Case>) {
    let named = |name: &str, body: &[u8]| {
        let length = u8::try_from(name.len()).unwrap_or_default();
        let fields = [&1_u64.to_be_bytes()[..], &[0; 4], &10_000_u32.to_be_bytes(), &[length]];
        flagged(kind::ASK, flag::NAMED, 0, &[&fields.concat(), name.as_bytes(), body].concat())
    };
    let about = "a message that the endpoint does not take";
    let counts = [("asks_received", 1), ("errors_unhandled", 1)];
    let from = "from {me} to rpc://probe@{at}";
    let asks = [
        ("number", ask(999, 1, 10_000, EMPTY), format!("Unsupported message ? {from}")),
        (
            "highest-number",
            ask(u16::MAX, 1, 10_000, EMPTY),
            format!("Unsupported message ? {from}"),
        ),
        ("name", named("Other", EMPTY), format!("Unsupported message Other {from}")),
        (
            "longest-name",
            named(&"x".repeat(255), EMPTY),
            format!("Unsupported message {} {from}", "x".repeat(255)),
        ),
        (
            "one-way",
            ask(NOTE, 1, 10_000, EMPTY),
            "Unsupported message Note to rpc://probe@{at}: it is one-way, but it was asked"
                .to_owned(),
        ),
    ];
    for (name, bytes, text) in asks {
        let row = case(format!("unsupported/ask/{name}"), about).say(bytes);
        cases.push(row.fails(1, 6, text).served().counts(&counts));
    }
    let counts = [("sends_received", 1), ("errors_unhandled", 1), ("dead_letters_unsupported", 1)];
    for (name, number) in [("number", 999), ("an-ask", ECHO)] {
        let row = case(format!("unsupported/one-way/{name}"), about);
        cases.push(row.say(one_way(number, EMPTY)).served().counts(&counts));
    }
    let row = case("named/listed", "a name that has a number").say(named("Echo", &echo("x")));
    cases.push(
        row.gets(kind::REPLY, [&1_u64.to_be_bytes()[..], b"\xa1x"].concat())
            .served()
            .counts(&[("asks_received", 1)]),
    );
    let row =
        case("panic", "a message that makes its handler panic").say(ask(BOOM, 1, 10_000, EMPTY));
    let counts = [("asks_received", 1), ("panics", 1), ("errors_unhandled", 1)];
    cases.push(
        row.fails(1, 15, "a handler panicked: boom (Boom at rpc://probe@{at})")
            .served()
            .counts(&counts),
    );
}

fn calls(cases: &mut Vec<Case>) {
    let row = case("call/number-in-use", "a call number that is in use");
    let bytes = [ask(HOLD, 5, 10_000, EMPTY), ask(ECHO, 5, 10_000, &echo("x"))].concat();
    let text = "call 0x5 was made while call 0x5 of the same slot is open";
    let held = [("asks_received", 1)];
    cases
        .push(row.say(bytes).closed(DUPLICATE_ID, text).step(Step::Do(perhaps_held)).counts(&held));
    let row = case("call/slot-in-use", "the slot of a call that is open, in a later generation");
    let bytes = [ask(KEEP, 5, 10_000, EMPTY), ask(ECHO, 0x100_0005, 10_000, &echo("x"))].concat();
    let text = "call 0x1000005 was made while call 0x5 of the same slot is open";
    cases.push(row.say(bytes).closed(DUPLICATE_ID, text).counts(&[("asks_received", 1)]));
    for (slot, shown) in [(1024_u64, "0x400"), (0xff_ffff, "0xffffff")] {
        let row = case(format!("call/slot-{slot}"), "a slot above the limit");
        let text = format!(
            "call {shown} is in slot {slot}, but 1024 calls may be in flight (rpc.io.maxInFlight)"
        );
        cases.push(row.say(ask(ECHO, slot, 10_000, &echo("x"))).closed(PROTOCOL, text));
    }
    let row = case("call/highest-generation", "the highest number that a call can have");
    let call = u64::MAX << 24;
    let row = row.say(ask(ECHO, call, 10_000, &echo("x")));
    cases.push(
        row.gets(kind::REPLY, [&call.to_be_bytes()[..], b"\xa1x"].concat())
            .served()
            .counts(&[("asks_received", 1)]),
    );
    let row = case("call/generation-falls", "generations that fall: nobody need check that");
    let row = row
        .say(ask(ECHO, 7 << 24, 10_000, &echo("x")))
        .gets(kind::REPLY, (7_u64 << 24).to_be_bytes());
    let row = row
        .say(ask(ECHO, 3 << 24, 10_000, &echo("x")))
        .gets(kind::REPLY, (3_u64 << 24).to_be_bytes());
    cases.push(row.counts(&[("asks_received", 2)]));
    let row = case("call/no-time", "an ask whose time is over").say(ask(ECHO, 1, 0, &echo("x")));
    let text = "the time of the ask was over when rpc://probe@{at} got to it";
    cases.push(
        row.fails(1, 1001, text).served().counts(&[("asks_received", 1), ("asks_expired", 1)]),
    );
    let row = case("call/all-time", "an ask with 49 days left: it has one");
    let row = row.say(ask(REMAINING, 1, u32::MAX, EMPTY)).step(Step::Do(has_a_day));
    cases.push(row.counts(&[("asks_received", 1), ("replies_sent", 1)]));
    let row = case("cancel/running", "a call that is taken back while its handler runs");
    let row = row.say([ask(HOLD, 1, 10_000, EMPTY), cancel(1)].concat()).served();
    cases.push(
        row.step(Step::Do(perhaps_held)).counts(&[("asks_received", 1), ("cancels_received", 1)]),
    );
    let row = case("cancel/twice", "a call that is taken back twice");
    let row = row.say([ask(KEEP, 1, 10_000, EMPTY), cancel(1), cancel(1)].concat()).served();
    cases.push(row.counts(&[("asks_received", 1), ("cancels_received", 2)]));
    let row = case("cancel/abort", "a handler that may be dropped");
    let row = row.say([ask(ABORT, 1, 10_000, EMPTY), cancel(1)].concat()).served();
    cases.push(row.counts(&[("asks_received", 1), ("cancels_received", 1)]));
}

fn has_a_day(scene: &mut Scene<'_>) -> anyhow::Result<()> {
    let reply = scene.next(kind::REPLY)?;
    let left: Option<std::time::Duration> =
        rmp_serde::from_slice(reply.payload.get(8..).unwrap_or_default())?;
    let day = std::time::Duration::from_secs(24 * 3600);
    anyhow::ensure!(left.is_some_and(|left| left <= day), "{left:?}");
    Ok(())
}

/// Whether a handler had begun, and so has failed when its caller was gone, is a matter of threads.
pub(super) fn perhaps_held(scene: &mut Scene<'_>) -> anyhow::Result<()> {
    scene.may_count("errors_unhandled", 1);
    Ok(())
}

fn targets(cases: &mut Vec<Case>) {
    let about = "a target's number that is in use, or is not";
    let rows = [
        ("in-use", resolve(0, "own"), "target 0 was resolved again before its release"),
        ("released-twice", release(0).repeat(2), "target 0 was released, which was not resolved"),
        (
            "used-behind-its-release",
            [release(0), ask(ECHO, 1, 10_000, &echo("x"))].concat(),
            "a message for target 0, which is not resolved",
        ),
    ];
    for (name, bytes, text) in rows {
        cases.push(case(format!("target/{name}"), about).say(bytes).closed(PROTOCOL, text));
    }
    let row = case("target/highest", "the highest number of a target");
    let row = row.say(resolve(65_535, "own")).gets(kind::RESOLVED, 65_535_u32.to_be_bytes());
    cases.push(row.served());
    for name in ["nobody", "", "a@b/c", "\u{0}", "\u{1f980}", "endpoint-verifier"] {
        let row =
            case(format!("nobody/{}", name.escape_default()), "an endpoint that is not there");
        cases.push(row.say(resolve(1, name)).gets(kind::UNRESOLVED, 1_u32.to_be_bytes()).served());
    }
    let row =
        case("nobody/long", "an endpoint that is not there").say(resolve(1, &"x".repeat(200_000)));
    cases.push(row.gets(kind::UNRESOLVED, 1_u32.to_be_bytes()).served());
    let map = |rest: &[u8]| frame(kind::RESOLVE, &[&1_u32.to_be_bytes(), rest].concat());
    let row = case("nobody/pin", "a life of an endpoint that is over");
    let row = row.say(map(b"\x82\xa4name\xa5probe\xa3pin\x92\x01\x02"));
    cases.push(row.gets(kind::UNRESOLVED, 1_u32.to_be_bytes()).served());
    let row = case("relay/nobody", "an env that is not connected")
        .say(map(b"\x82\xa4name\xa1x\xa3env\xcd\x12\x34"));
    cases.push(row.gets(kind::UNRESOLVED, 1_u32.to_be_bytes()).served());
    let row = case("relay/itself", "the peer's own env").say(map(b"\x82\xa4name\xa1x\xa3env\x07"));
    // It is asked back, and says nothing before it leaves.
    cases.push(row.gets(kind::RESOLVE, *b"").served());
    let row = case("resolve/and-release", "the same number again and again");
    let turn = [release(0), resolve(0, "probe")].concat().repeat(1000);
    cases.push(row.say(turn).step(Step::Do(thousand_times)).served());
}

fn thousand_times(scene: &mut Scene<'_>) -> anyhow::Result<()> {
    for _ in 0..1000 {
        scene.next(kind::RESOLVED)?;
    }
    Ok(())
}

fn ends(cases: &mut Vec<Case>) {
    let late = ask(ECHO, 1, 10_000, &echo("late"));
    let goodbye = frame(kind::GOODBYE, b"\x81\xa6reason\xa3why");
    let row = case("goodbye/and-more", "a goodbye, and then more: it is still answered");
    let row = row.say([goodbye.clone(), late.clone()].concat());
    cases.push(row.gets(kind::REPLY, 1_u64.to_be_bytes()).counts(&[("asks_received", 1)]));
    cases.push(case("goodbye/1000", "many goodbyes").say(goodbye.repeat(1000)).served());
    cases.push(case("goodbye/only", "a goodbye without an end").say(goodbye).ends(End::Drops));
    for code in [1_u16, 6, 10, 77, u16::MAX] {
        let row = case(
            format!("close/{code}-and-more"),
            "a CLOSE, and then more: nothing of it is handled",
        );
        let counted = super::case::close_count(code, false);
        cases.push(
            row.say([close(code), late.clone()].concat())
                .ends(End::Silently)
                .counts(&[(counted, 1)]),
        );
    }
    let row = case("close/and-nonsense", "a CLOSE, and then what breaks the protocol");
    cases.push(
        row.say([close(6), vec![0xff; 1000]].concat())
            .ends(End::Silently)
            .counts(&[("closes_received_shutdown", 1)]),
    );
    for (name, map) in [
        ("reserved-marker", &b"\xc1"[..]),
        ("empty", b""),
        ("no-code", b"\x80"),
        ("code-too-large", b"\x81\xa4code\xce\x00\x01\x00\x00"),
    ] {
        let row = case(
            format!("close/unreadable/{name}"),
            "a CLOSE that cannot be read is one without a reason",
        );
        cases.push(
            row.say(frame(kind::CLOSE, map))
                .ends(End::Silently)
                .counts(&[("closes_received_protocol", 1)]),
        );
    }
    let row = case("end/with-calls", "an end in the middle of calls: their handlers are told");
    let row = row
        .say([ask(HOLD, 1, 10_000, EMPTY), ask(KEEP, 2, 10_000, EMPTY)].concat())
        .step(Step::Do(two_taken));
    cases.push(row.ends(End::Drops).counts(&[("asks_received", 2), ("errors_unhandled", 1)]));
}

/// The handler of the first of two asks runs, so that it sees the end.
fn two_taken(scene: &mut Scene<'_>) -> anyhow::Result<()> {
    scene.peer.send(&frame(kind::PING, &[5; 8]));
    scene.next(kind::PONG).map(|_| ())
}

pub(super) fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    messages(&mut cases);
    calls(&mut cases);
    targets(&mut cases);
    ends(&mut cases);
    cases
}
