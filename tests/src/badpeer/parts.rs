//! Windows that are overrun, and large bodies that are not what was said of them.

#![expect(clippy::too_many_lines, reason = "a table is as long as it is")]

use super::calls::{EMPTY, cancel, case, echo, perhaps_held, release};
use super::case::{Case, End, Step};
use super::victim::number::{ECHO, HOLD};
use crate::raw_peer::{ask, flag, flagged, frame, kind};

const PROTOCOL: u16 = 1;
const TOO_LARGE: u16 = 3;
const CREDIT: u16 = 8;
const MIB: u64 = 1024 * 1024;

/// The first part of a large message to target 0, or of a large reply to call 0.
fn begin(kind: u8, stream: u32, total: u64) -> Vec<u8> {
    let fields = if kind == kind::ONE_WAY { &[0; 4][..] } else { &[0; 8] };
    let fields = [&stream.to_be_bytes()[..], &total.to_be_bytes(), fields, b"part"].concat();
    flagged(kind, flag::FIRST, ECHO, &fields)
}

fn chunk(stream: u32, part: &[u8]) -> Vec<u8> {
    frame(kind::CHUNK, &[&stream.to_be_bytes()[..], part].concat())
}

fn windows(cases: &mut Vec<Case>) {
    let overrun = "more than the window of 64 messages and 1048576 bytes was sent to probe";
    let about = "more than the window allows";
    let held = [("asks_received", 64)];
    let asks: Vec<u8> = (1..=64).flat_map(|call| ask(ECHO, call, 10_000, &echo("x"))).collect();
    let row = case("window/messages", about);
    cases.push(
        row.say([ask(HOLD, 0, 10_000, EMPTY), asks].concat())
            .closed(CREDIT, overrun)
            .step(Step::Do(perhaps_held))
            .counts(&held),
    );
    let pairs: Vec<u8> = (1..=64)
        .flat_map(|call| [ask(ECHO, call, 10_000, &echo("x")), cancel(call)].concat())
        .collect();
    let row = case("window/rapid-cancel", "calls that are taken back at once count all the same");
    let counts = [("cancels_received", 64)];
    cases.push(
        row.say([ask(HOLD, 0, 10_000, EMPTY), pairs].concat())
            .closed(CREDIT, overrun)
            .step(Step::Do(perhaps_held))
            .counts(&held)
            .counts(&counts),
    );
    let row = case("window/bytes-begun", "large messages count when they begin");
    let begun = [
        begin(kind::ONE_WAY, 1, 16 * MIB),
        begin(kind::ONE_WAY, 2, MIB / 2),
        begin(kind::ONE_WAY, 3, MIB),
    ];
    cases.push(row.say(begun.concat()).closed(CREDIT, overrun));
    let row = case("window/number-begun", "large messages count when they begin");
    let begun: Vec<u8> = (0..65).flat_map(|stream| begin(kind::ONE_WAY, stream, 100)).collect();
    cases.push(row.say(begun).closed(CREDIT, overrun));
    let row = case("window/given-up", "what is given up counts no more");
    let dropped = |stream: u32| {
        [begin(kind::ONE_WAY, stream, 16 * MIB), frame(kind::CHUNK_DROP, &stream.to_be_bytes())]
            .concat()
    };
    cases.push(row.say((0..1000).flat_map(dropped).collect::<Vec<_>>()).served());
    let row = case("window/of-own-making", "credit for a target that this side has not resolved");
    let credit = frame(kind::CREDIT, &[0; 16]);
    cases.push(row.say(credit).closed(PROTOCOL, "target 0 was never resolved"));
}

fn chunks(cases: &mut Vec<Case>) {
    let about = "a large body that is not what was said of it";
    let rows: [(&str, Vec<u8>, u16, &str); 10] = [
        (
            "over-the-limit",
            begin(kind::ONE_WAY, 1, 17 * MIB),
            TOO_LARGE,
            "a message of 17825792 bytes is over the limit of 16777216 (rpc.message.maxSize)",
        ),
        (
            "absurd",
            begin(kind::ONE_WAY, 1, u64::MAX),
            TOO_LARGE,
            "a message of 18446744073709551615 bytes is over the limit of 16777216 (rpc.message.maxSize)",
        ),
        (
            "absurd-reply",
            begin(kind::REPLY, 1, u64::MAX),
            TOO_LARGE,
            "a message of 18446744073709551615 bytes is over the limit of 16777216 (rpc.message.maxSize)",
        ),
        (
            "more-than-said",
            [begin(kind::ONE_WAY, 1, 5), chunk(1, b"xyz")].concat(),
            PROTOCOL,
            "large message 1 has more than the 5 bytes it was announced with",
        ),
        (
            "more-at-once",
            begin(kind::ONE_WAY, 1, 3),
            PROTOCOL,
            "large message 1 has more than the 3 bytes it was announced with",
        ),
        (
            "nothing-said",
            begin(kind::ONE_WAY, 1, 0),
            PROTOCOL,
            "large message 1 has more than the 0 bytes it was announced with",
        ),
        (
            "stream-in-use",
            begin(kind::ONE_WAY, 1, 100).repeat(2),
            PROTOCOL,
            "large message 1 was begun twice, or 256 are open",
        ),
        (
            "stream-of-a-reply",
            [begin(kind::ONE_WAY, 1, 100), begin(kind::REPLY, 1, 100)].concat(),
            PROTOCOL,
            "large message 1 was begun twice, or 256 are open",
        ),
        (
            "behind-its-drop",
            [begin(kind::ONE_WAY, 1, 100), frame(kind::CHUNK_DROP, &[0, 0, 0, 1]), chunk(1, b"x")]
                .concat(),
            PROTOCOL,
            "a part of a large message 1 that is not open",
        ),
        (
            "behind-its-end",
            [begin(kind::ONE_WAY, 1, 5), chunk(1, b"x"), chunk(1, b"y")].concat(),
            PROTOCOL,
            "a part of a large message 1 that is not open",
        ),
    ];
    for (name, bytes, code, text) in rows {
        let row = case(format!("chunks/{name}"), about).say(bytes).closed(code, text);
        let whole = [("sends_received", 1), ("messages_undecodable", 0)];
        cases.push(if name == "behind-its-end" {
            row.counts(&whole[..1])
                .counts(&[("errors_unhandled", 1), ("dead_letters_unsupported", 1)])
        } else {
            row
        });
    }
    let row = case("chunks/too-many", "more than 256 large bodies at once");
    let begun: Vec<u8> = (0..257).flat_map(|stream| begin(kind::REPLY, stream, 100)).collect();
    cases.push(
        row.say(begun).closed(PROTOCOL, "large message 256 was begun twice, or 256 are open"),
    );
    let row = case("chunks/too-much", "large bodies over the budget");
    let begun: Vec<u8> = (0..6).flat_map(|stream| begin(kind::REPLY, stream, 16 * MIB)).collect();
    cases.push(row.say(begun).closed(CREDIT, "large messages of 100663296 bytes are under way at once, over the limit of 67108864 and one message (rpc.io.maxAssembly)"));
    let row = case("chunks/empty-parts", "parts of no bytes");
    let body = echo("x");
    let fields = [
        &[0, 0, 0, 1][..],
        &8_u64.to_be_bytes(),
        &1_u64.to_be_bytes(),
        &[0; 4],
        &10_000_u32.to_be_bytes(),
    ]
    .concat();
    let first = flagged(kind::ASK, flag::FIRST, ECHO, &fields);
    let row = row.say([first.clone(), chunk(1, b"").repeat(1000), chunk(1, &body)].concat());
    cases.push(
        row.gets(kind::REPLY, [&1_u64.to_be_bytes()[..], b"\xa1x"].concat())
            .counts(&[("asks_received", 1)]),
    );
    let row = case("chunks/other-lane", "a part in another lane than the first");
    let bulk = flagged(kind::CHUNK, flag::BULK, 0, &[&[0, 0, 0, 1][..], &body].concat());
    let row = row.say([first, bulk].concat());
    cases.push(
        row.gets(kind::REPLY, [&1_u64.to_be_bytes()[..], b"\xa1x"].concat())
            .counts(&[("asks_received", 1)]),
    );
    let row = case("chunks/released", "a target that is released in the middle of a large message");
    let bytes = [begin(kind::ONE_WAY, 1, 100), release(0)].concat();
    cases.push(
        row.say(bytes).closed(PROTOCOL, "target 0 was released within a large message to it"),
    );
    let row = case("chunks/left", "a connection that ends in the middle of a large message");
    cases.push(row.say(begin(kind::ONE_WAY, 1, 16 * MIB)).ends(End::Drops));
}

pub(super) fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    windows(&mut cases);
    chunks(&mut cases);
    cases
}
