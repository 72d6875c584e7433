//! Peers that are too slow, silent, or do not read; and floods.

use super::case::{Begin, Case, End, Side, Step};
use super::scene::{ENV, Scene, close};
use super::victim::number::{ECHO, KEEP};
use crate::raw_peer::{ask, bytes_of, frame, hello, kind, reply, resolve};
use anyhow::Context;
use rpc_actix::ErrorKind::Disconnected;
use rpc_actix::Outcome::Unknown;
use std::time::Duration;

const OVERLOADED: u16 = 7;
const TIMEOUT: u16 = 9;
const STALL: &[(&str, &str)] = &[
    ("rpc.io.writeStall", "300ms"),
    ("rpc.io.socketBuffer", "64KiB"),
    ("rpc.io.maxPings", "1000000"),
];
const MANY_PINGS: &[(&str, &str)] = &[("rpc.io.maxPings", "1000000")];
const DEAD: &[(&str, &str)] = &[("rpc.io.heartbeat", "100ms"), ("rpc.io.deadAfter", "400ms")];

fn case(name: &str, about: &'static str) -> Case {
    Case::new(Side::Listening, Begin::Resolved, format!("listening/{name}"), about)
}

fn dialled(name: &str, about: &'static str) -> Case {
    Case::new(Side::Dialling, Begin::Resolved, format!("dialling/{name}"), about)
}

/// Frames that have begun and do not end.
fn frames(cases: &mut Vec<Case>) {
    const FRAME: &[(&str, &str)] = &[("rpc.io.frameTimeout", "200ms")];
    let text = "a frame was not complete after 200ms (rpc.io.frameTimeout)";
    let told = format!("the connection to {{at}} was closed: {text}");
    let announced = |length: u32, rest: &[u8]| {
        [&length.to_be_bytes()[..], &[kind::REPLY, 0, 0, 0], rest].concat()
    };
    let dripped: Vec<u8> = announced(200_000, &[0; 2000]);
    let rows: [(&str, Step); 5] = [
        ("a-byte", Step::Say(vec![0])),
        ("header", Step::Say(announced(200_000, b""))),
        ("ten-bytes", Step::Say(announced(200_000, &[0; 10]))),
        ("all-but-one", Step::Say(announced(1000, &[0; 999]))),
        ("drip", Step::Drip(dripped, Duration::from_millis(5))),
    ];
    for (name, step) in rows {
        let again = match &step {
            Step::Say(bytes) => Step::Say(bytes.clone()),
            Step::Drip(bytes, pause) => Step::Drip(bytes.clone(), *pause),
            _ => continue,
        };
        let about = "a frame that has begun and does not end";
        cases.push(
            case(&format!("unfinished/{name}"), about).with(FRAME).step(step).closed(TIMEOUT, text),
        );
        let row = dialled(&format!("unfinished/{name}"), about).with(FRAME).step(again);
        cases.push(row.closed(TIMEOUT, text).told(Disconnected, Unknown, told.clone()));
    }
}

/// Peers that are not heard of any more.
fn silence(cases: &mut Vec<Case>) {
    let text = "nothing was heard of the peer for 400ms (rpc.io.deadAfter)";
    let told = format!("the connection to {{at}} was closed: {text}");
    let about = "a peer that is silent, and answers no ping";
    cases.push(case("silence/unpromised", about).with(DEAD).closed(TIMEOUT, text));
    cases.push(dialled("silence/unpromised", about).with(DEAD).closed(TIMEOUT, text).told(
        Disconnected,
        Unknown,
        told,
    ));
    let promised =
        |_: &Scene<'_>| bytes_of(&hello(ENV, None).with_heartbeat(Duration::from_millis(100)));
    let row = Case::new(
        Side::Listening,
        Begin::Connected,
        "listening/silence/promised",
        "a peer that promised signs of life",
    );
    let opened = [("connections_opened", 1), ("connections_ended", 1)];
    cases.push(row.with(DEAD).step(Step::Tell(promised)).closed(TIMEOUT, text).counts(&opened));
    // Whoever says anything lives.
    let row = case("silence/half-a-ping", "a peer that says something else than pongs").with(DEAD);
    let noise = frame(0x99, &[]).repeat(50);
    cases.push(
        row.step(Step::Drip(noise, Duration::from_millis(5)))
            .served()
            .counts(&[("frames_skipped", 50)]),
    );
}

/// Peers that do not read.
fn unread(cases: &mut Vec<Case>) {
    let about = "a peer that asks for large answers and does not read them";
    let row =
        case("unread/answers", about).with(STALL).say(large_asks()).step(Step::Do(until_cut_off));
    cases.push(row.ends(End::CutOff(TIMEOUT)).counts(&[("asks_received", 5), ("replies_sent", 5)]));
    let row = case("unread/pongs", "a flood of pings, and nothing is read").with(STALL);
    let pings = frame(kind::PING, &[7; 8]).repeat(4000);
    cases.push(row.step(Step::Flood(pings)).ends(End::CutOff(OVERLOADED)));
    let row = case("unread/resolves", "a flood of RESOLVEs, and nothing is read").with(STALL);
    let long = resolve(1, &"x".repeat(1000)).repeat(64);
    cases.push(
        row.step(Step::Flood(long)).step(Step::Do(perhaps_refused)).ends(End::CutOff(TIMEOUT)),
    );
    let row = dialled("unread/pongs", "a flood of pings, and nothing is read").with(STALL);
    let pings = frame(kind::PING, &[7; 8]).repeat(4000);
    let told = "the connection to {at} was closed: more than 1024 pings wait for their answer (rpc.outbox.maxControl)";
    cases.push(row.step(Step::Flood(pings)).ends(End::CutOff(OVERLOADED)).told(
        rpc_actix::ErrorKind::Overloaded,
        Unknown,
        told,
    ));
}

/// Closes before it has read what it asked for: the env does not wait until that is written.
fn closes_unread(cases: &mut Vec<Case>) {
    let about = "a peer that closes with large answers on the way, and does not read them";
    let row = dialled("unread/close", about).with(STALL).say(resolve(0, "probe"));
    let row = row.gets(kind::RESOLVED, []).step(Step::Do(close_unread)).ends(End::Silently);
    let counts = [("asks_received", 5), ("replies_sent", 5), ("closes_received_shutdown", 1)];
    let told = "the connection to {at} was closed: the peer says: ";
    cases.push(row.counts(&counts).told(Disconnected, Unknown, told));
}

fn close_unread(scene: &mut Scene<'_>) -> anyhow::Result<()> {
    let before = scene.victim.env.counters();
    scene.peer.send(&large_asks());
    while scene.victim.env.counters().since(&before).replies_sent < 5 {
        std::thread::sleep(Duration::from_millis(2));
    }
    scene.peer.send(&close(6));
    while scene.victim.env.counters().since(&before).connections_ended == 0 {
        std::thread::sleep(Duration::from_millis(2));
    }
    anyhow::ensure!(scene.peer.reason().is_none(), "it answered a CLOSE with another one");
    Ok(())
}

/// Five asks whose answers no socket holds.
fn large_asks() -> Vec<u8> {
    let text: String = "x".repeat(200_000);
    let body = [&b"\x81\xa4text\xdb"[..], &200_000_u32.to_be_bytes(), text.as_bytes()].concat();
    (0..5_u64).flat_map(|call| ask(ECHO, call, 60_000, &body)).collect()
}

/// Waits, without reading, until the env has ended the connection.
fn until_cut_off(scene: &mut Scene<'_>) -> anyhow::Result<()> {
    let ended = || scene.victim.env.counters();
    let before = ended();
    while ended().since(&before).connections_ended == 0 {
        std::thread::sleep(Duration::from_millis(2));
    }
    Ok(())
}

/// How many names were looked up before it was cut off is a matter of buffers.
fn perhaps_refused(scene: &mut Scene<'_>) -> anyhow::Result<()> {
    scene.may_count("resolves_refused", u64::MAX);
    Ok(())
}

/// A great deal of what is good.
fn much(cases: &mut Vec<Case>) {
    let row = case("much/pings", "100,000 pings that are read, where they may be");
    cases.push(row.with(MANY_PINGS).step(Step::Do(ping_pong)).served());
    let too_many = "more than 100 pings beyond four a second (rpc.io.maxPings)";
    let row = case("much/pings-in-a-row", "too many pings, each of them read");
    cases.push(row.step(Step::Do(pings_in_a_row)).closed(OVERLOADED, too_many));
    let row = dialled("much/pings-at-once", "too many pings in one piece");
    let told = format!("the connection to {{at}} was closed: {too_many}");
    let pings = frame(kind::PING, &[7; 8]).repeat(1000);
    cases.push(row.say(pings).closed(OVERLOADED, too_many).told(
        rpc_actix::ErrorKind::Overloaded,
        Unknown,
        told,
    ));
    let row = case("much/resolves", "300 windows to one endpoint: no more than 256")
        .step(Step::Do(windows));
    cases.push(row.served().counts(&[("resolves_refused", 43), ("windows_refused", 43)]));
    let row = case("much/kept-calls", "as many calls as may be open, none of them answered")
        .with(MANY_PINGS)
        .step(Step::Do(keep_all));
    cases.push(row.counts(&[("asks_received", 1024)]));
    let row = dialled("much/late-replies", "10,000 answers to a call that is over");
    let bytes = reply(0, b"\xa1x").repeat(10_000);
    cases.push(
        row.say(bytes).answered("x").counts(&[("replies_received", 1), ("answers_late", 9_999)]),
    );
}

fn ping_pong(scene: &mut Scene<'_>) -> anyhow::Result<()> {
    let pings = frame(kind::PING, &[7; 8]).repeat(500);
    for _ in 0..200 {
        scene.peer.send(&pings);
        for _ in 0..500 {
            scene.next(kind::PONG)?;
        }
    }
    Ok(())
}

/// As many as it may send in any time, and more than it may.
fn pings_in_a_row(scene: &mut Scene<'_>) -> anyhow::Result<()> {
    for _ in 0..100 {
        scene.peer.send(&frame(kind::PING, &[7; 8]));
        scene.next(kind::PONG)?;
    }
    scene.peer.send(&frame(kind::PING, &[7; 8]).repeat(1000));
    Ok(())
}

fn windows(scene: &mut Scene<'_>) -> anyhow::Result<()> {
    for target in 1..299 {
        scene.peer.send(&resolve(target, "probe"));
        scene.next(if target < 256 { kind::RESOLVED } else { kind::UNRESOLVED })?;
    }
    Ok(())
}

fn keep_all(scene: &mut Scene<'_>) -> anyhow::Result<()> {
    for call in 0..1024 {
        scene.peer.send(&ask(KEEP, call, 60_000, b"\x90"));
        scene.peer.send(&frame(kind::PING, &[1; 8]));
        loop {
            let frame = scene.peer.try_frame()?.context("the env has ended the connection")?;
            if frame.kind == kind::PONG {
                break;
            }
        }
    }
    Ok(())
}

pub(super) fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    frames(&mut cases);
    silence(&mut cases);
    unread(&mut cases);
    closes_unread(&mut cases);
    much(&mut cases);
    cases
}
