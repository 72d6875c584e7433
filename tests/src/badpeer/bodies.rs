//! Bodies of messages that cannot be read, or are much of little.

#![expect(clippy::too_many_lines, reason = "a table is as long as it is")]

use super::calls::{case, echo, one_way};
use super::case::Case;
use super::victim::number::{ECHO, NAMES, NOTE, TREE};
use crate::raw_peer::{ask, kind};

/// Bodies that are no `Echo`, and why.
pub(super) fn bad_bodies() -> Vec<(&'static str, Vec<u8>, &'static str)> {
    let array = |count: u32, of: u8| {
        let elements = vec![of; usize::try_from(count).unwrap_or_default()];
        [&[0xdd][..], &count.to_be_bytes(), &elements].concat()
    };
    let nested: Vec<u8> = [0xdc, 0xff, 0xff].repeat(20_000);
    vec![
        ("empty", vec![], "the value at byte 0 needs at least 1 bytes, but only 0 are left"),
        ("reserved-marker", vec![0xc1], "the reserved marker 0xc1 is at byte 0"),
        (
            "cut-in-a-length",
            b"\x81\xa4text\xda".to_vec(),
            "the length at byte 6 needs at least 2 bytes, but only 0 are left",
        ),
        (
            "cut-in-a-text",
            b"\x81\xa4text\xa5ab".to_vec(),
            "the value at byte 6 needs at least 6 bytes, but only 3 are left",
        ),
        (
            "trailing",
            [echo("x"), vec![0]].concat(),
            "1 bytes follow the value, which ends at byte 8",
        ),
        (
            "deep-arrays",
            vec![0x91; 200_000],
            "the collection at byte 64 would be nested 65 deep, the limit is 64 (rpc.message.maxDepth)",
        ),
        (
            "deep-maps",
            [0x81, 0xa0].repeat(100_000),
            "the collection at byte 128 would be nested 65 deep, the limit is 64 (rpc.message.maxDepth)",
        ),
        (
            "huge-array",
            b"\xdd\xff\xff\xff\xff".to_vec(),
            "the array at byte 0 needs at least 4294967295 bytes, but only 0 are left",
        ),
        (
            "huge-map",
            b"\xdf\xff\xff\xff\xff".to_vec(),
            "the map at byte 0 needs at least 8589934590 bytes, but only 0 are left",
        ),
        (
            "huge-binary",
            b"\xc6\xff\xff\xff\xff".to_vec(),
            "the content at byte 0 needs at least 4294967295 bytes, but only 0 are left",
        ),
        (
            "huge-text",
            b"\xdb\xff\xff\xff\xff".to_vec(),
            "the content at byte 0 needs at least 4294967295 bytes, but only 0 are left",
        ),
        (
            "huge-ext",
            b"\xc9\xff\xff\xff\xff\x01".to_vec(),
            "the content at byte 0 needs at least 4294967296 bytes, but only 1 are left",
        ),
        (
            "nested-counts",
            nested,
            "the array at byte 0 needs at least 65535 bytes, but only 59997 are left",
        ),
        ("an-array", array(100_000, 0xc0), "invalid type: unit value, expected a string"),
        ("ext", b"\xc7\x03\x01abc".to_vec(), "invalid type: newtype struct, expected struct Echo"),
        ("fixext", b"\xd4\x01\x02".to_vec(), "invalid type: newtype struct, expected struct Echo"),
        ("nil", vec![0xc0], "invalid type: unit value, expected struct Echo"),
        ("a-number", vec![0x07], "invalid type: integer `7`, expected struct Echo"),
        ("missing-field", b"\x80".to_vec(), "missing field `text`"),
        ("field-twice", b"\x82\xa4text\xa1x\xa4text\xa1y".to_vec(), "duplicate field `text`"),
        (
            "field-a-number",
            b"\x81\xa4text\x07".to_vec(),
            "invalid type: integer `7`, expected a string",
        ),
        (
            "field-not-utf8",
            b"\x81\xa4text\xa2\xc3\x28".to_vec(),
            "string found to be invalid utf8: invalid utf-8 sequence of 1 bytes from index 0",
        ),
        (
            "field-nan",
            b"\x81\xa4text\xca\x7f\xc0\x00\x00".to_vec(),
            "invalid type: floating point `NaN`, expected a string",
        ),
        ("key-a-number", b"\x81\x07\xa1x".to_vec(), "missing field `text`"),
    ]
}

pub(super) fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    let about = "a body that cannot be read: it costs its call, the connection stays";
    for (name, body, why) in bad_bodies() {
        let text = format!(
            "Echo to rpc://probe@{{at}}: {} bytes do not decode as rpc_tests::badpeer::victim::Echo: {why}",
            body.len()
        );
        let counts = [("asks_received", 1), ("messages_undecodable", 1), ("errors_unhandled", 1)];
        let row = case(format!("body/ask/{name}"), about).say(ask(ECHO, 1, 10_000, &body));
        cases.push(row.fails(1, 1007, text).served().counts(&counts));
        let counts = [("sends_received", 1), ("messages_undecodable", 1), ("errors_unhandled", 1)];
        let row =
            case(format!("body/one-way/{name}"), "a body that cannot be read, and nobody asked");
        let row = row.say(one_way(NOTE, &body)).served().counts(&counts);
        cases.push(row.counts(&[("dead_letters_undecodable", 1)]));
    }
    let names = |count: u32, of: &[u8]| {
        let all = of.repeat(usize::try_from(count).unwrap_or_default());
        [&b"\x81\xa5names\xdd"[..], &count.to_be_bytes(), &all].concat()
    };
    // In one frame; the limit of elements is that of a message in several.
    let about = "many values of one byte";
    for (name, of, reply) in [
        ("names/nil", &b"\xc0"[..], b"\xce\x00\x03\xd0\x90"),
        ("names/empty", b"\xa0", b"\xce\x00\x03\xd0\x90"),
    ] {
        let row = case(name, about).say(ask(NAMES, 1, 10_000, &names(250_000, of)));
        cases.push(
            row.gets(kind::REPLY, [&1_u64.to_be_bytes()[..], reply].concat())
                .served()
                .counts(&[("asks_received", 1)]),
        );
    }
    let deep = |levels: usize| [b"\x81\xa5below".repeat(levels), b"\xc0".to_vec()].concat();
    let row = case("tree/64", "a type within itself, as deep as may be").say(ask(
        TREE,
        1,
        10_000,
        &deep(64),
    ));
    cases.push(row.gets(kind::REPLY, 1_u64.to_be_bytes()).served().counts(&[("asks_received", 1)]));
    for levels in [65, 1000, 37_000] {
        let body = deep(levels);
        let text = format!(
            "Tree to rpc://probe@{{at}}: {} bytes do not decode as rpc_tests::badpeer::victim::Tree: the collection at byte 448 would be nested 65 deep, the limit is 64 (rpc.message.maxDepth)",
            body.len()
        );
        let counts = [("asks_received", 1), ("messages_undecodable", 1), ("errors_unhandled", 1)];
        let row = case(format!("tree/{levels}"), "a type within itself, deeper than may be")
            .say(ask(TREE, 1, 10_000, &body));
        cases.push(row.fails(1, 1007, text).served().counts(&counts));
    }
    cases
}
