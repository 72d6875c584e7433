//! What comes before both have said hello: other protocols, silence, hellos that make no sense.

#![expect(clippy::too_many_lines, reason = "a table is as long as it is")]

use super::case::Step;
use super::case::{Begin, Case, End, Side};
use super::scene::{ENV, close};
use crate::raw_peer::{bytes_of, flagged, frame, hello, kind};
use rpc_actix::ErrorKind::{Disconnected, Overloaded, Protocol, Timeout, VersionMismatch};
use rpc_actix::Outcome::NeverSent;
use std::time::Duration;

const MAGIC: &[u8] = b"ARPC";
const SOON: &[(&str, &str)] = &[("rpc.io.handshakeTimeout", "100ms")];

/// What other programs say first, and how that is shown to people.
const FOREIGN: &[(&str, &[u8], &str)] = &[
    ("http", b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", r"GET / HTTP/1.1\r\n"),
    ("http2", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", r"PRI * HTTP/2.0\r\n"),
    ("http-answer", b"HTTP/1.1 400 Bad Request\r\n\r\n", "HTTP/1.1 400 Bad"),
    (
        "tls",
        b"\x16\x03\x01\x00\xc5\x01\x00\x00\xc1\x03\x03",
        r"\x16\x03\x01\x00\xc5\x01\x00\x00\xc1\x03\x03",
    ),
    ("tls-alert", b"\x15\x03\x03\x00\x02\x02\x28", r"\x15\x03\x03\x00\x02\x02("),
    ("ssh", b"SSH-2.0-OpenSSH_9.6\r\n", "SSH-2.0-OpenSSH_"),
    ("zeros", &[0; 64], r"\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00"),
    ("ones", &[0xff; 64], r"\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff"),
    ("one-byte", b"B", "B"),
    ("nearly", b"ARPD\0\0\0\0\x01\0\0\0", r"ARPD\x00\x00\x00\x00\x01\x00\x00\x00"),
    ("lower-case", b"arpc\0\0\0\0\x01\0\0\0", r"arpc\x00\x00\x00\x00\x01\x00\x00\x00"),
    ("frame-first", b"\0\0\0\x01\x32\0\0\0", r"\x00\x00\x00\x012\x00\x00\x00"),
];

/// What a hello's frame may be instead: its name, what is sent behind the magic, and what that is
/// closed with.
fn frames() -> Vec<(String, Vec<u8>, u16, String)> {
    let mut rows = Vec::new();
    let fat = |length: u32| [&length.to_be_bytes()[..], &[kind::HELLO, 0, 0, 0]].concat();
    for length in [65_537, 1 << 24, u32::MAX] {
        let text =
            format!("a hello of {length} bytes is over the limit of 65536 (rpc.io.preAuthBytes)");
        rows.push((format!("hello/fat-{length}"), fat(length), 3, text));
    }
    let early = (0..=255_u8).filter(|kind| {
        ![kind::HELLO, kind::CLOSE].contains(kind) && (*kind < 0x40 || *kind >= 0xf8)
    });
    for kind in early {
        let text = format!("frame kind {kind:#04x} came before the hello");
        rows.push((format!("hello/early-frame/{kind:#04x}"), frame(kind, &[0; 16]), 1, text));
    }
    rows
}

/// A map of a hello, with a key in place of another.
fn map(versions: &[u8], env: &[u8], rest: &[(&str, &[u8])]) -> Vec<u8> {
    let keys = [("versions", versions), ("env", env)];
    let present = keys.iter().chain(rest).filter(|(_, value)| !value.is_empty());
    let mut bytes = vec![0x80 | u8::try_from(present.clone().count()).unwrap_or(0)];
    for (key, value) in present {
        bytes.push(0xa0 | u8::try_from(key.len()).unwrap_or(0));
        bytes.extend_from_slice(key.as_bytes());
        bytes.extend_from_slice(value);
    }
    bytes
}

const ONE: &[u8] = b"\x92\x01\x01";
const OTHER: &[u8] = b"\xcd\x12\x34";

/// Maps that are no hello: what is wrong with it, the map, and how that is said.
fn senseless() -> Vec<(&'static str, Vec<u8>, &'static str)> {
    let limits = |name: &str, value: &[u8]| {
        let inner = [&[0x81, 0xa0 | name.len() as u8][..], name.as_bytes(), value].concat();
        map(ONE, OTHER, &[("limits", &inner)])
    };
    let deep = [&[0x91_u8; 100][..], &[0xc0]].concat();
    vec![
        ("empty", vec![], "the value at byte 0 needs at least 1 bytes, but only 0 are left"),
        ("reserved-marker", vec![0xc1], "the reserved marker 0xc1 is at byte 0"),
        ("a-number", vec![0x07], "invalid type: integer `7`, expected struct Hello"),
        ("a-text", b"\xa5hello".to_vec(), "invalid type: string \"hello\", expected struct Hello"),
        (
            "huge-map",
            b"\xdf\xff\xff\xff\xff".to_vec(),
            "the map at byte 0 needs at least 8589934590 bytes, but only 0 are left",
        ),
        (
            "huge-text",
            b"\x81\xdb\xff\xff\xff\xff".to_vec(),
            "the content at byte 1 needs at least 4294967295 bytes, but only 0 are left",
        ),
        (
            "trailing",
            [map(ONE, OTHER, &[]), vec![0]].concat(),
            "1 bytes follow the value, which ends at byte 20",
        ),
        (
            "deep",
            map(ONE, OTHER, &[("x", &deep)]),
            "the collection at byte 85 would be nested 65 deep, the limit is 64 (rpc.message.maxDepth)",
        ),
        ("no-versions", map(b"", OTHER, &[]), "missing field `versions`"),
        ("no-env", map(ONE, b"", &[]), "missing field `env`"),
        (
            "versions-a-number",
            map(b"\x01", OTHER, &[]),
            "invalid type: integer `1`, expected a tuple of size 2",
        ),
        (
            "versions-of-one",
            map(b"\x91\x01", OTHER, &[]),
            "invalid length 1, expected a tuple of size 2",
        ),
        (
            "versions-of-three",
            map(b"\x93\x01\x01\x01", OTHER, &[]),
            "array had incorrect length, expected 2",
        ),
        (
            "versions-too-large",
            map(b"\x92\x01\xce\x00\x01\x00\x00", OTHER, &[]),
            "invalid value: integer `65536`, expected u16",
        ),
        (
            "versions-negative",
            map(b"\x92\xff\x01", OTHER, &[]),
            "invalid value: integer `-1`, expected u16",
        ),
        ("env-a-text", map(ONE, b"\xa17", &[]), "wrong msgpack marker FixStr(1)"),
        ("env-negative", map(ONE, b"\xff", &[]), "invalid value: integer `-1`, expected u64"),
        (
            "env-a-float",
            map(ONE, b"\xca\x3f\x80\x00\x00", &[]),
            "invalid type: floating point `1.0`, expected u64",
        ),
        ("env-nil", map(ONE, b"\xc0", &[]), "invalid type: unit value, expected u64"),
        ("versions-twice", map(ONE, OTHER, &[("versions", ONE)]), "duplicate field `versions`"),
        ("env-twice", map(ONE, OTHER, &[("env", OTHER)]), "duplicate field `env`"),
        (
            "address-a-number",
            map(ONE, OTHER, &[("address", b"\x07")]),
            "invalid type: integer `7`, expected a string",
        ),
        (
            "address-not-utf8",
            map(ONE, OTHER, &[("address", b"\xa2\xc3\x28")]),
            "string found to be invalid utf8: invalid utf-8 sequence of 1 bytes from index 0",
        ),
        (
            "capabilities-a-text",
            map(ONE, OTHER, &[("capabilities", b"\xa1x")]),
            "invalid type: string \"x\", expected a sequence",
        ),
        (
            "capabilities-of-numbers",
            map(ONE, OTHER, &[("capabilities", b"\x92\x01\x02")]),
            "invalid type: integer `1`, expected a string",
        ),
        (
            "limits-a-number",
            map(ONE, OTHER, &[("limits", b"\x07")]),
            "invalid type: integer `7`, expected struct PeerLimits",
        ),
        ("limit-a-text", limits("frame", b"\xa1x"), "wrong msgpack marker FixStr(1)"),
        ("limit-negative", limits("message", b"\xff"), "invalid value: integer `-1`, expected u64"),
        (
            "in-flight-too-large",
            limits("in_flight", b"\xcf\x00\x00\x00\x01\x00\x00\x00\x00"),
            "invalid value: integer `4294967296`, expected u32",
        ),
        (
            "heartbeat-too-large",
            map(ONE, OTHER, &[("heartbeat", b"\xcf\x00\x00\x00\x01\x00\x00\x00\x00")]),
            "invalid value: integer `4294967296`, expected u32",
        ),
        (
            "heartbeat-negative",
            map(ONE, OTHER, &[("heartbeat", b"\xff")]),
            "invalid value: integer `-1`, expected u32",
        ),
    ]
}

/// Maps that can be read, and make no sense all the same.
fn unfit() -> Vec<(String, Vec<u8>, u16, String)> {
    let mut rows = Vec::new();
    let limit = |name: &str, value: &[u8]| {
        let inner = [&[0x81, 0xa0 | name.len() as u8][..], name.as_bytes(), value].concat();
        map(ONE, OTHER, &[("limits", &inner)])
    };
    let small = "the limits in the hello are too small to work with".to_owned();
    rows.push(("hello/limits/frame".to_owned(), limit("frame", b"\xcd\x7f\xff"), 4, small.clone()));
    rows.push(("hello/limits/frame-zero".to_owned(), limit("frame", b"\x00"), 4, small.clone()));
    rows.push(("hello/limits/in-flight".to_owned(), limit("in_flight", b"\x00"), 4, small));
    for (low, high) in [(0, 0), (2, 2), (2, 9), (99, 99), (1, 0), (2, 1), (0xff, 0xff)] {
        let versions = [&[0x92][..], &[0xcc, low, 0xcc, high]].concat();
        let text = format!(
            "no common protocol version: this side speaks 1 to 1, the other {low} to {high}"
        );
        rows.push((format!("hello/version/{low}-{high}"), map(&versions, OTHER, &[]), 2, text));
    }
    // The rest of a hello of another version may be anything.
    let later = [&b"\x82\xa8versions\x92\x02\x03\xa3env"[..], b"\xa1x"].concat();
    let text = "no common protocol version: this side speaks 1 to 1, the other 2 to 3".to_owned();
    rows.push(("hello/version/of-another-form".to_owned(), later, 2, text));
    rows
}

/// Hellos that are unusual, and good.
fn good() -> Vec<(&'static str, Vec<u8>)> {
    let many: Vec<u8> = [&[0xdd, 0, 0, 0x27, 0x10][..], &b"\xa1x".repeat(10_000)].concat();
    vec![
        ("least", map(ONE, OTHER, &[])),
        ("unknown-key", map(ONE, OTHER, &[("later", b"\x81\xa1x\x93\x01\x02\x03")])),
        ("wide-integers", map(b"\x92\xcf\0\0\0\0\0\0\0\x01\xd3\0\0\0\0\0\0\0\x01", OTHER, &[])),
        ("address-nil", map(ONE, OTHER, &[("address", b"\xc0")])),
        ("address-empty", map(ONE, OTHER, &[("address", b"\xa0")])),
        ("address-senseless", map(ONE, OTHER, &[("address", b"\xa7no one!")])),
        ("capabilities-many", map(ONE, OTHER, &[("capabilities", &many)])),
        ("heartbeat-zero", map(ONE, OTHER, &[("heartbeat", b"\x00")])),
        ("versions-wide", map(b"\x92\x00\xcd\xff\xff", OTHER, &[])),
    ]
}

fn said(map: &[u8]) -> Vec<u8> {
    [MAGIC, &frame(kind::HELLO, map)].concat()
}

fn both(name: &str, about: &'static str) -> [Case; 2] {
    [
        Case::new(Side::Listening, Begin::Connected, format!("listening/{name}"), about),
        Case::new(Side::Dialling, Begin::Connected, format!("dialling/{name}"), about),
    ]
}

/// What is the same on both sides: the first bytes of the peer, and what they are closed with.
fn refused(
    rows: &mut Vec<Case>,
    name: &str,
    about: &'static str,
    bytes: &[u8],
    code: u16,
    text: &str,
) {
    let [listening, dialling] = both(name, about);
    rows.push(listening.say(bytes).closed(code, text));
    let kind = match code {
        2 => VersionMismatch,
        7 => Overloaded,
        _ => Protocol,
    };
    let told = format!("the connection to {{at}} was closed: {text}");
    rows.push(dialling.say(bytes).closed(code, text).told(kind, NeverSent, told));
}

pub(super) fn cases() -> Vec<Case> {
    let mut rows = Vec::new();
    for (name, bytes, shown) in FOREIGN {
        let [listening, dialling] =
            both(&format!("foreign/{name}"), "another protocol: nothing is said to it");
        let foreign = [("hellos_foreign", 1)];
        rows.push(listening.say(*bytes).ends(End::Silently).counts(&foreign));
        let guess = match *name {
            "tls" => " (that looks like TLS)",
            "ssh" => " (that looks like SSH)",
            "http" | "http2" | "http-answer" => " (that looks like HTTP)",
            _ => "",
        };
        let told = format!(
            "the connection to {{at}} was closed: the peer does not speak this protocol: it began with \"{shown}\"{guess}"
        );
        rows.push(
            dialling
                .say(*bytes)
                .ends(End::Silently)
                .counts(&foreign)
                .told(Protocol, NeverSent, told),
        );
    }
    for (name, bytes, code, text) in frames() {
        refused(
            &mut rows,
            &name,
            "a frame that is no hello, or too much of one",
            &[MAGIC, &bytes].concat(),
            code,
            &text,
        );
    }
    for (name, map, text) in senseless() {
        let why = format!(
            "the hello is not readable: {} bytes do not decode as rpc_core::proto::hello::Hello: {text}",
            map.len()
        );
        refused(
            &mut rows,
            &format!("hello/unreadable/{name}"),
            "a hello that cannot be read",
            &said(&map),
            4,
            &why,
        );
    }
    for (name, map, code, text) in unfit() {
        refused(
            &mut rows,
            &name,
            "a hello that can be read, and is not taken",
            &said(&map),
            code,
            &text,
        );
    }
    for flags in [0x04, 0x10, 0x20, 0x40, 0x80] {
        let bytes = [MAGIC, &flagged(kind::HELLO, flags, 0, &map(ONE, OTHER, &[]))].concat();
        let text = format!("flags {flags:#04x} in a frame of version 1");
        refused(
            &mut rows,
            &format!("hello/reserved-flags/{flags:#04x}"),
            "a hello with flags that mean nothing",
            &bytes,
            1,
            &text,
        );
    }
    for (name, map) in good() {
        let case = Case::new(
            Side::Listening,
            Begin::Connected,
            format!("listening/hello/good/{name}"),
            "an unusual hello that is good",
        );
        let bytes = [said(&map), crate::raw_peer::resolve(0, "probe")].concat();
        let opened = [("connections_opened", 1), ("connections_ended", 1)];
        rows.push(
            case.say(bytes)
                .gets(kind::HELLO, *b"")
                .gets(kind::RESOLVED, *b"")
                .served()
                .counts(&opened),
        );
    }
    slow(&mut rows);
    cut(&mut rows);
    closes(&mut rows);
    mirrors(&mut rows);
    rows
}

/// Hellos that take too long: the limit is on the whole time, whatever progress is made.
fn slow(rows: &mut Vec<Case>) {
    let hello = bytes_of(&hello(ENV, None));
    let pause = Duration::from_millis(5);
    let dripped: Vec<u8> =
        hello.iter().copied().take(40).chain(std::iter::repeat_n(0, 4000)).collect();
    let late: [(&str, Vec<Step>); 5] = [
        ("silent", vec![]),
        ("magic-only", vec![Step::Say(MAGIC.to_vec())]),
        ("header-only", vec![Step::Say(hello.iter().copied().take(12).collect())]),
        ("half", vec![Step::Say(hello.iter().copied().take(40).collect())]),
        ("drip", vec![Step::Drip(dripped, pause)]),
    ];
    for (name, steps) in late {
        for mut case in both(&format!("slow/{name}"), "a hello that is not there in time") {
            case.steps.extend(steps.iter().map(|step| match step {
                Step::Drip(bytes, pause) => Step::Drip(bytes.clone(), *pause),
                Step::Say(bytes) => Step::Say(bytes.clone()),
                _ => Step::HangUp,
            }));
            let told = "{at} sent no hello within 100ms (rpc.io.handshakeTimeout)";
            let case = case.with(SOON).ends(End::Silently).counts(&[("hellos_timed_out", 1)]);
            rows.push(if case.side == Side::Dialling {
                case.told(Timeout, NeverSent, told)
            } else {
                case
            });
        }
    }
}

/// Connections that end in the middle of the hello.
fn cut(rows: &mut Vec<Case>) {
    let hello = bytes_of(&hello(ENV, None));
    for (name, length) in [
        ("at-once", 0),
        ("in-the-magic", 2),
        ("behind-the-magic", 4),
        ("in-the-header", 9),
        ("in-the-map", 50),
        ("before-the-last-byte", hello.len() - 1),
    ] {
        for case in both(&format!("cut/{name}"), "an end in the middle of the hello") {
            let bytes: Vec<u8> = hello.iter().copied().take(length).collect();
            let case = case
                .say(bytes)
                .step(Step::HangUp)
                .ends(End::Silently)
                .counts(&[("hellos_broken", 1)]);
            let told = "{at} closed the connection during the hello";
            rows.push(if case.side == Side::Dialling {
                case.told(Disconnected, NeverSent, told)
            } else {
                case
            });
        }
    }
}

/// A CLOSE in place of a hello.
fn closes(rows: &mut Vec<Case>) {
    let counted = |code: u16| [(super::case::close_count(code, false), 1)];
    for code in (1..=11).chain([99, 65_535]) {
        let bytes = [MAGIC, &close(code)].concat();
        let [listening, dialling] =
            both(&format!("closes-first/{code}"), "a CLOSE in place of a hello");
        rows.push(listening.say(bytes.clone()).ends(End::Silently).counts(&counted(code)));
        let kind = match code {
            2 => VersionMismatch,
            6 | 9 => Disconnected,
            7 => Overloaded,
            // That the other dial counts is no error: the connection is waited for.
            10 => continue,
            _ => Protocol,
        };
        let told = "the connection to {at} was closed: the peer says: ";
        rows.push(
            dialling
                .say(bytes)
                .ends(End::Silently)
                .counts(&counted(code))
                .told(kind, NeverSent, told),
        );
    }
    let bytes = [MAGIC, &frame(kind::CLOSE, &[0xc1])].concat();
    let [listening, dialling] = both("closes-first/unreadable", "a CLOSE in place of a hello");
    rows.push(listening.say(bytes.clone()).ends(End::Silently).counts(&counted(1)));
    let told = "the connection to {at} was closed: the peer closed the connection without a readable reason";
    rows.push(
        dialling.say(bytes).ends(End::Silently).counts(&counted(1)).told(Protocol, NeverSent, told),
    );
}

/// Peers that are the env itself, in a way.
fn mirrors(rows: &mut Vec<Case>) {
    let own = |scene: &super::scene::Scene<'_>| {
        let hello = hello(scene.victim.env.id().as_u64(), None);
        bytes_of(&hello)
    };
    let text = "this address leads back to the env itself";
    let told = format!("the connection to {{at}} was closed: {text}");
    for case in both("mirror/number", "the env's own number") {
        let case = case.step(Step::Tell(own)).closed(4, text);
        rows.push(if case.side == Side::Dialling {
            case.told(Protocol, NeverSent, told.clone())
        } else {
            case
        });
    }
    let reflected = |scene: &super::scene::Scene<'_>| {
        let hello = scene.hello.as_ref().map(|hello| frame(kind::HELLO, &hello.payload));
        [MAGIC, &hello.unwrap_or_default()].concat()
    };
    let case = Case::new(
        Side::Dialling,
        Begin::Connected,
        "dialling/mirror/reflection",
        "everything is sent back",
    );
    rows.push(case.step(Step::Tell(reflected)).closed(4, text).told(Protocol, NeverSent, told));
    let address = |scene: &super::scene::Scene<'_>| bytes_of(&hello(ENV, Some(&scene.at)));
    let case = Case::new(
        Side::Listening,
        Begin::Connected,
        "listening/mirror/address",
        "the env's own address",
    );
    rows.push(
        case.step(Step::Tell(address))
            .closed(4, "the address {at} in the hello is that of this env"),
    );
}
