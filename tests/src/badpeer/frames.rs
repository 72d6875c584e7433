//! Frames that break the protocol once both have said hello. Both directions of a connection are
//! alike, so every case is played on both sides.

#![expect(clippy::too_many_lines, reason = "a table is as long as it is")]

use super::case::{Begin, Case, Side};
use crate::raw_peer::{bytes_of, flag, flagged, frame, hello, kind, resolve, resolved};
use rpc_actix::ErrorKind::Protocol;
use rpc_actix::Outcome::NeverSent;

const PROTOCOL: u16 = 1;
const TOO_LARGE: u16 = 3;

/// A row: the name, what is said, and what it is closed with.
type Row = (String, Vec<u8>, u16, String);

fn row(name: impl Into<String>, bytes: Vec<u8>, text: impl Into<String>) -> Row {
    (name.into(), bytes, PROTOCOL, text.into())
}

/// The kinds whose payload begins with fields of fixed width: the name in messages to people, and
/// their bytes.
pub(super) const FIELDS: &[(u8, &str, usize)] = &[
    (kind::RESOLVE, "Resolve", 4),
    (kind::RESOLVED, "Resolved", 4),
    (kind::UNRESOLVED, "Unresolved", 4),
    (kind::GONE, "Gone", 4),
    (kind::RELEASE, "Release", 4),
    (kind::ONE_WAY, "OneWay", 4),
    (kind::ASK, "Ask", 16),
    (kind::REPLY, "Reply", 8),
    (kind::FAILURE, "Failure", 8),
    (kind::CANCEL, "Cancel", 8),
    (kind::CHUNK, "Chunk", 4),
    (kind::CHUNK_DROP, "ChunkDrop", 4),
    (kind::PING, "Ping", 8),
    (kind::PONG, "Pong", 8),
];

fn short(rows: &mut Vec<Row>) {
    for (kind, name, length) in FIELDS {
        for short in 0..*length {
            let bytes = frame(*kind, &vec![0; short]);
            rows.push(row(
                format!("short/{name}/{short}"),
                bytes,
                format!("a {name} frame ends early"),
            ));
        }
    }
    for (kind, name, fixed) in
        [(kind::ONE_WAY, "OneWay", 4), (kind::ASK, "Ask", 16), (kind::REPLY, "Reply", 8)]
    {
        // Stream and total come first.
        for short in [0, 3, 4, 11, 12, 12 + fixed - 1] {
            let bytes = flagged(kind, flag::FIRST, 0, &vec![0; short]);
            rows.push(row(
                format!("short/{name}-first/{short}"),
                bytes,
                format!("a {name} frame ends early"),
            ));
        }
    }
    for (kind, name, fixed) in [(kind::ONE_WAY, "OneWay", 4), (kind::ASK, "Ask", 16)] {
        let bytes = flagged(kind, flag::NAMED, 0, &[&vec![0; fixed][..], b"\x00\xc0"].concat());
        rows.push(row(format!("name/{name}/empty"), bytes, "a message with a name of no bytes"));
        let with =
            |flags: u8, rest: &[u8]| flagged(kind, flags, 0, &[&vec![0; fixed][..], rest].concat());
        let early = format!("a {name} frame ends early");
        for (what, rest) in [
            ("no-name", &b""[..]),
            ("name-cut", b"\x05ab"),
            ("name-255", b"\xffab"),
            ("name-not-utf8", b"\x02\xc3\x28"),
        ] {
            rows.push(row(format!("name/{name}/{what}"), with(flag::NAMED, rest), early.clone()));
        }
        for (what, rest) in [("none", &b""[..]), ("one-byte", b"\0"), ("cut", b"\x00\x05ab")] {
            rows.push(row(
                format!("headers/{name}/{what}"),
                with(flag::HEADERS, rest),
                early.clone(),
            ));
        }
    }
}

fn unknown(rows: &mut Vec<Row>) {
    for kind in (0..0x80_u8).filter(|kind| !is_known(*kind)) {
        let text = format!("unknown frame kind {kind:#04x}");
        rows.push(row(format!("unknown-kind/{kind:#04x}"), frame(kind, &[0; 16]), text));
    }
    for (kind, name, length) in FIELDS {
        for flags in [0x10, 0x20, 0x40, 0x80] {
            let text = format!("flags {flags:#04x} in a frame of version 1");
            let bytes = flagged(*kind, flags, 0, &vec![0; *length]);
            rows.push(row(format!("reserved-flags/{name}/{flags:#04x}"), bytes, text));
        }
        if ![kind::ONE_WAY, kind::ASK].contains(kind) {
            let bytes = flagged(*kind, flag::HEADERS, 0, &vec![0; *length]);
            rows.push(row(
                format!("headers-elsewhere/{name}"),
                bytes,
                "flags 0x04 in a frame of version 1",
            ));
        }
    }
}

/// Whether version 1 has that kind.
fn is_known(byte: u8) -> bool {
    let maps = [kind::HELLO, kind::CREDIT, kind::HEARTBEAT, kind::GOODBYE, kind::CLOSE];
    maps.contains(&byte) || FIELDS.iter().any(|(kind, ..)| *kind == byte)
}

fn lengths(rows: &mut Vec<Row>) {
    for length in [262_145_u32, 1 << 24, u32::MAX] {
        for (kind, name) in [
            (kind::ASK, "ask"),
            (kind::CHUNK, "chunk"),
            (kind::RESOLVE, "resolve"),
            (0x80, "ignorable"),
        ] {
            let bytes = [&length.to_be_bytes()[..], &[kind, 0, 0, 0]].concat();
            let text = format!(
                "a frame of {length} bytes is over the limit of 262144 (rpc.frame.maxSize)"
            );
            rows.push((format!("too-long/{name}/{length}"), bytes, TOO_LARGE, text));
        }
    }
}

/// Numbers of what is not there.
fn nothing(rows: &mut Vec<Row>) {
    let failure = b"\x82\xa4code\x03\xa4text\xa1x";
    for call in [0_u64, 77, 1 << 24, u64::MAX] {
        let text = format!("an answer to call {call:#x}, which was never made");
        let answer = |kind, body: &[u8]| frame(kind, &[&call.to_be_bytes()[..], body].concat());
        rows.push(row(
            format!("answer-to-nothing/reply-{call:#x}"),
            answer(kind::REPLY, b"\xc0"),
            text.clone(),
        ));
        rows.push(row(
            format!("answer-to-nothing/failure-{call:#x}"),
            answer(kind::FAILURE, failure),
            text,
        ));
    }
    for target in [9_u32, 65_535, 65_536, u32::MAX] {
        let text = format!("target {target} was never resolved");
        let about = |kind, rest: &[u8]| frame(kind, &[&target.to_be_bytes()[..], rest].concat());
        let credit = about(kind::CREDIT, &[0; 12]);
        let rest = [
            ("resolved", resolved(target, &[], 1)),
            ("unresolved", about(kind::UNRESOLVED, failure)),
            ("gone", about(kind::GONE, b"")),
            ("credit", credit),
        ];
        for (name, bytes) in rest {
            rows.push(row(format!("word-of-nothing/{name}-{target}"), bytes, text.clone()));
        }
        let text = format!("a message for target {target}, which is not resolved");
        rows.push(row(
            format!("message-for-nobody/one-way-{target}"),
            about(kind::ONE_WAY, b"\xc0"),
            text.clone(),
        ));
        let ask = [&[0; 8][..], &target.to_be_bytes(), &[0, 0, 0x27, 0x10, 0xc0]].concat();
        rows.push(row(format!("message-for-nobody/ask-{target}"), frame(kind::ASK, &ask), text));
        let text = format!("target {target} was released, which was not resolved");
        rows.push(row(format!("release-of-nothing/{target}"), about(kind::RELEASE, b""), text));
    }
    for target in [65_536, u32::MAX] {
        let text = format!("target {target} is over the limit of 65536");
        rows.push(row(format!("target-too-high/{target}"), resolve(target, "probe"), text));
    }
    for stream in [0_u32, 1, u32::MAX] {
        let text = format!("a part of a large message {stream} that is not open");
        let bytes = frame(kind::CHUNK, &[&stream.to_be_bytes()[..], b"xyz"].concat());
        rows.push(row(format!("chunk-of-nothing/{stream}"), bytes, text));
    }
    let bytes = bytes_of(&hello(8, None)).get(4..).unwrap_or_default().to_vec();
    rows.push(row("second-hello/good", bytes, "a second hello"));
    rows.push(row("second-hello/empty", frame(kind::HELLO, &[]), "a second hello"));
}

/// Maps of frames that cannot be read.
fn maps(rows: &mut Vec<Row>) {
    let deep = [&[0x91_u8; 100][..], &[0xc0]].concat();
    let bad: [(&str, &[u8], &str); 9] = [
        ("empty", b"", "the value at byte 0 needs at least 1 bytes, but only 0 are left"),
        ("reserved-marker", b"\xc1", "the reserved marker 0xc1 is at byte 0"),
        (
            "huge-array",
            b"\xdd\xff\xff\xff\xff",
            "the array at byte 0 needs at least 4294967295 bytes, but only 0 are left",
        ),
        (
            "huge-map",
            b"\xdf\xff\xff\xff\xff",
            "the map at byte 0 needs at least 8589934590 bytes, but only 0 are left",
        ),
        (
            "huge-binary",
            b"\xc6\xff\xff\xff\xff",
            "the content at byte 0 needs at least 4294967295 bytes, but only 0 are left",
        ),
        (
            "huge-ext",
            b"\xc9\xff\xff\xff\xff\x01",
            "the content at byte 0 needs at least 4294967296 bytes, but only 1 are left",
        ),
        (
            "deep",
            &deep,
            "the collection at byte 64 would be nested 65 deep, the limit is 64 (rpc.message.maxDepth)",
        ),
        ("trailing", b"\x80\x00", "1 bytes follow the value, which ends at byte 1"),
        ("cut", b"\x81\xa4na", "the value at byte 1 needs at least 5 bytes, but only 3 are left"),
    ];
    for (name, body, why) in bad {
        let text = |kind: &str, of: &str| {
            let size = body.len();
            format!(
                "a {kind} frame is not readable: {size} bytes do not decode as rpc_core::proto::bodies::{of}: {why}"
            )
        };
        let bytes = frame(kind::RESOLVE, &[&[0; 4], body].concat());
        rows.push(row(format!("map/resolve/{name}"), bytes, text("Resolve", "ResolveBody")));
        rows.push(row(
            format!("map/goodbye/{name}"),
            frame(kind::GOODBYE, body),
            text("Goodbye", "GoodbyeBody"),
        ));
    }
    let keys: [(&str, &[u8], &str); 8] = [
        ("no-name", b"\x80", "missing field `name`"),
        ("name-a-number", b"\x81\xa4name\x07", "invalid type: integer `7`, expected a string"),
        (
            "name-not-utf8",
            b"\x81\xa4name\xa2\xc3\x28",
            "string found to be invalid utf8: invalid utf-8 sequence of 1 bytes from index 0",
        ),
        ("name-twice", b"\x82\xa4name\xa1x\xa4name\xa1x", "duplicate field `name`"),
        (
            "pin-of-one",
            b"\x82\xa4name\xa1x\xa3pin\x91\x01",
            "invalid length 1, expected a tuple of size 2",
        ),
        (
            "pin-a-number",
            b"\x82\xa4name\xa1x\xa3pin\x01",
            "invalid type: integer `1`, expected a tuple of size 2",
        ),
        (
            "pin-negative",
            b"\x82\xa4name\xa1x\xa3pin\x92\xff\x01",
            "invalid value: integer `-1`, expected u64",
        ),
        ("env-a-text", b"\x82\xa4name\xa1x\xa3env\xa1x", "wrong msgpack marker FixStr(1)"),
    ];
    for (name, body, why) in keys {
        let size = body.len();
        let text = format!(
            "a Resolve frame is not readable: {size} bytes do not decode as rpc_core::proto::bodies::ResolveBody: {why}"
        );
        let bytes = frame(kind::RESOLVE, &[&[0; 4], body].concat());
        rows.push(row(format!("map/resolve/{name}"), bytes, text));
    }
}

/// Headers of messages that cannot be read: the target need not be there for that.
fn headers(rows: &mut Vec<Row>) {
    let long = [&[0x04_u8, 0x01][..], &[0xc0; 1025]].concat();
    let bad: [(&str, &[u8], &str); 5] = [
        ("too-long", &long, "headers of 1025 bytes are over the limit of 1024"),
        (
            "empty",
            b"\0\0",
            "headers are not readable: 0 bytes do not decode as rpc_core::proto::headers::Incoming: the value at byte 0 needs at least 1 bytes, but only 0 are left",
        ),
        (
            "no-map",
            b"\0\x01\xc0",
            "headers are not readable: 1 bytes do not decode as rpc_core::proto::headers::Incoming: invalid type: unit value, expected a map with string keys",
        ),
        (
            "number-as-key",
            b"\0\x03\x81\x01\x02",
            "headers are not readable: 3 bytes do not decode as rpc_core::proto::headers::Incoming: invalid type: integer `1`, expected a string",
        ),
        (
            "trailing",
            b"\0\x02\x80\x00",
            "headers are not readable: 2 bytes do not decode as rpc_core::proto::headers::Incoming: 1 bytes follow the value, which ends at byte 1",
        ),
    ];
    for (name, rest, why) in bad {
        let one_way = [&[0; 4], rest].concat();
        rows.push(row(
            format!("headers/OneWay/{name}"),
            flagged(kind::ONE_WAY, flag::HEADERS, 0, &one_way),
            why,
        ));
        let ask = [&[0; 16], rest].concat();
        rows.push(row(
            format!("headers/Ask/{name}"),
            flagged(kind::ASK, flag::HEADERS, 0, &ask),
            why,
        ));
    }
}

/// A name, what is said, and what is counted for it.
type Harmless = (String, Vec<u8>, Vec<(&'static str, u64)>);

/// What is passed over, on both sides.
fn harmless() -> Vec<Harmless> {
    let mut rows = Vec::new();
    for kind in [0x80_u8, 0x81, 0xc0, 0xff] {
        for (name, payload) in [("empty", vec![]), ("full", vec![0xc1; 1000])] {
            let bytes = flagged(kind, 0xff, 7, &payload);
            rows.push((
                format!("ignorable/{kind:#04x}-{name}"),
                bytes,
                vec![("frames_skipped", 1)],
            ));
        }
    }
    let bytes = flagged(0x99, 0, 0, &[]).repeat(10_000);
    rows.push(("ignorable/10000".to_owned(), bytes, vec![("frames_skipped", 10_000)]));
    rows.push(("pong-for-nobody".to_owned(), frame(kind::PONG, &[1; 8]), vec![]));
    rows.push(("heartbeat/empty".to_owned(), frame(kind::HEARTBEAT, &[]), vec![]));
    rows.push(("heartbeat/full".to_owned(), frame(kind::HEARTBEAT, &[0xc1; 100]), vec![]));
    rows.push(("heartbeat/10000".to_owned(), frame(kind::HEARTBEAT, &[]).repeat(10_000), vec![]));
    let cancel = frame(kind::CANCEL, &[7; 8]);
    rows.push(("cancel-of-nothing".to_owned(), cancel.clone(), vec![("cancels_received", 1)]));
    rows.push((
        "cancel-flood".to_owned(),
        cancel.repeat(10_000),
        vec![("cancels_received", 10_000)],
    ));
    rows.push(("chunk-drop-of-nothing".to_owned(), frame(kind::CHUNK_DROP, &[7; 4]), vec![]));
    rows.push(("longer-than-its-fields".to_owned(), frame(kind::PING, &[0; 100]), vec![]));
    rows
}

fn both(name: &str, about: &'static str) -> [Case; 2] {
    [
        Case::new(Side::Listening, Begin::Greeted, format!("listening/{name}"), about),
        Case::new(Side::Dialling, Begin::Greeted, format!("dialling/{name}"), about),
    ]
}

fn about(name: &str) -> &'static str {
    match name.split('/').next().unwrap_or_default() {
        "short" => "a frame that ends before its last field",
        "name" => "a message's name that ends early, or is no text",
        "headers" => "headers that end early, or are no map of texts",
        "headers-elsewhere" => "headers in a frame that has none",
        "unknown-kind" => "a kind below 0x80 that version 1 has not",
        "reserved-flags" => "a flag that means nothing",
        "too-long" => "a frame that announces too much: nothing is kept for it",
        "answer-to-nothing" => "an answer to a call that was never made",
        "word-of-nothing" => "word of a target that was never asked for",
        "message-for-nobody" => "a message to a target that is not resolved",
        "release-of-nothing" => "a release of a target that is not resolved",
        "target-too-high" => "a target's number above the limit",
        "chunk-of-nothing" => "a part of a large body that was never begun",
        "second-hello" => "another hello",
        "map" => "a map that cannot be read",
        _ => "what does no harm, and is passed over",
    }
}

pub(super) fn cases() -> Vec<Case> {
    let mut rows = Vec::new();
    short(&mut rows);
    unknown(&mut rows);
    lengths(&mut rows);
    nothing(&mut rows);
    maps(&mut rows);
    headers(&mut rows);
    let mut cases = Vec::new();
    for (name, bytes, code, text) in rows {
        let told = format!("the connection to {{at}} was closed: {text}");
        for case in both(&name, about(&name)) {
            let dials = case.side == Side::Dialling;
            let case = case.say(bytes.clone()).closed(code, text.clone());
            cases.push(if dials { case.told(Protocol, NeverSent, told.clone()) } else { case });
        }
    }
    for (name, bytes, counts) in harmless() {
        for case in both(&name, about(&name)) {
            let dials = case.side == Side::Dialling;
            let mut case = case.say(bytes.clone()).counts(&counts);
            if name.starts_with("longer") {
                case = case.gets(kind::PONG, [0; 8]);
            }
            // The env still waits for the answer to its RESOLVE.
            let found = |case: Case| case.say(resolved(0, &["Echo"], 1)).answered("found");
            cases.push(if dials { found(case) } else { case });
        }
    }
    cases
}
