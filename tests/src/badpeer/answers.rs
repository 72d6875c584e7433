//! Answers of a bad peer to an env that has dialled it, resolved an endpoint, and asked.

#![expect(clippy::too_many_lines, reason = "a table is as long as it is")]

use super::bodies::bad_bodies;
use super::case::{Begin, Case, End, Side, Step};
use super::scene::{Scene, close};
use crate::raw_peer::{flag, flagged, frame, kind, reply, resolved};
use rpc_actix::ErrorKind::{
    Decode, Disconnected, EndpointNotFound, EndpointStopped, HandlerFailed, Internal, Overloaded,
    Protocol, Timeout,
};
use rpc_actix::Outcome::{FailedInHandler, NeverSent, Unknown};
use rpc_actix::{ErrorKind, Outcome};
use std::time::Duration;

const PROTOCOL: u16 = 1;
const TOO_LARGE: u16 = 3;
const MIB: u64 = 1024 * 1024;
/// What a caller waits who gets no answer.
const SHORT: Duration = Duration::from_millis(200);

fn case(name: impl Into<String>, about: &'static str) -> Case {
    Case::new(Side::Dialling, Begin::Resolved, format!("dialling/{}", name.into()), about)
}

/// One that has said hello, and is asked for an endpoint.
fn asked_for(name: impl Into<String>, about: &'static str) -> Case {
    Case::new(Side::Dialling, Begin::Greeted, format!("dialling/{}", name.into()), about)
}

fn failure(call: u64, map: &[u8]) -> Vec<u8> {
    frame(kind::FAILURE, &[&call.to_be_bytes()[..], map].concat())
}

fn code(code: u16) -> Vec<u8> {
    let [high, low] = code.to_be_bytes();
    [&b"\x82\xa4code\xcd"[..], &[high, low], b"\xa4text\xa3why"].concat()
}

fn begin(call: u64, stream: u32, total: u64, part: &[u8]) -> Vec<u8> {
    let fields = [&stream.to_be_bytes()[..], &total.to_be_bytes(), &call.to_be_bytes(), part];
    flagged(kind::REPLY, flag::FIRST, 0, &fields.concat())
}

fn chunk(stream: u32, part: &[u8]) -> Vec<u8> {
    frame(kind::CHUNK, &[&stream.to_be_bytes()[..], part].concat())
}

const FINE: &[u8] = b"\xa1x";

fn replies(cases: &mut Vec<Case>) {
    let about = "a reply that cannot be read: it costs its call, the connection stays";
    let counts = [("replies_received", 1), ("replies_undecodable", 1)];
    // Those that are well-formed, but no text, are so in another way.
    for (name, body, why) in bad_bodies() {
        let why = match name {
            "missing-field" | "field-twice" | "field-a-number" | "field-not-utf8" | "field-nan"
            | "key-a-number" => "invalid type: map, expected a string",
            "an-array" => "invalid type: sequence, expected a string",
            "nil" => "invalid type: unit value, expected a string",
            "a-number" => "invalid type: integer `7`, expected a string",
            "ext" | "fixext" => "invalid type: newtype struct, expected a string",
            _ => why,
        };
        let text = format!(
            "the reply to Echo from rpc://probe@{{at}}: {} bytes do not decode as alloc::string::String: {why}",
            body.len()
        );
        let row = case(format!("reply/{name}"), about).say(reply(0, &body));
        cases.push(row.told(Decode, FailedInHandler, text).counts(&counts));
    }
    let good = [("replies_received", 1)];
    let late = [("answers_late", 1)];
    let row = case("reply/twice", "a second reply: the first one counts");
    cases.push(
        row.say([reply(0, FINE), reply(0, b"\xa1y")].concat())
            .answered("x")
            .counts(&good)
            .counts(&late),
    );
    let row = case("reply/and-failure", "a failure behind a reply");
    cases.push(
        row.say([reply(0, FINE), failure(0, &code(14))].concat())
            .answered("x")
            .counts(&good)
            .counts(&late),
    );
    let row = case("reply/1000", "a thousand replies to one call");
    cases.push(
        row.say(reply(0, FINE).repeat(1000))
            .answered("x")
            .counts(&good)
            .counts(&[("answers_late", 999)]),
    );
    let row = case("reply/empty-text", "an unusual reply that is good");
    cases.push(row.say(reply(0, b"\xdb\0\0\0\0")).answered("").counts(&good));
    let row = case("reply/bulk", "flags that a reply has no use for: bulk").say(flagged(
        kind::REPLY,
        flag::BULK,
        0,
        &[&[0; 8][..], FINE].concat(),
    ));
    cases.push(row.answered("x").counts(&good));
    for (name, call) in [("generation", 1_u64 << 24), ("slot", 1), ("both", u64::MAX)] {
        let text = format!("an answer to call {call:#x}, which was never made");
        let told = format!("the connection to {{at}} was closed: {text}");
        let row = case(format!("reply/other-{name}"), "a reply to another call than was made");
        cases.push(row.say(reply(call, FINE)).closed(PROTOCOL, text).told(Protocol, Unknown, told));
    }
    let row = case("reply/too-late", "a reply when the caller's time is over").patience(SHORT);
    let row = row.gets(kind::CANCEL, [0; 8]).say(reply(0, FINE));
    cases.push(
        row.told(Timeout, Unknown, "Cannot receive any reply from rpc://probe@{at} in 200ms. This timeout is controlled by the caller")
            .counts(&[("timeouts", 1), ("cancels_sent", 1)])
            .counts(&late),
    );
    let row = case("reply/none", "no reply").patience(SHORT).gets(kind::CANCEL, [0; 8]);
    cases.push(row.told(Timeout, Unknown, "Cannot receive any reply from rpc://probe@{at} in 200ms. This timeout is controlled by the caller").counts(&[("timeouts", 1), ("cancels_sent", 1)]));
}

fn large_replies(cases: &mut Vec<Case>) {
    let lost = |text: &str| format!("the connection to {{at}} was closed: {text}");
    let rows: [(&str, Vec<u8>, u16, &str); 5] = [
        (
            "over-the-limit",
            begin(0, 1, 17 * MIB, b"x"),
            TOO_LARGE,
            "a message of 17825792 bytes is over the limit of 16777216 (rpc.message.maxSize)",
        ),
        (
            "absurd",
            begin(0, 1, u64::MAX, b"x"),
            TOO_LARGE,
            "a message of 18446744073709551615 bytes is over the limit of 16777216 (rpc.message.maxSize)",
        ),
        (
            "more-than-said",
            [begin(0, 1, 5, b"\xa1"), chunk(1, b"xxxxxxxx")].concat(),
            PROTOCOL,
            "large message 1 has more than the 5 bytes it was announced with",
        ),
        (
            "stream-in-use",
            begin(0, 1, 100, b"x").repeat(2),
            PROTOCOL,
            "large message 1 was begun twice, or 256 are open",
        ),
        (
            "behind-its-drop",
            [begin(0, 1, 100, b"x"), frame(kind::CHUNK_DROP, &[0, 0, 0, 1]), chunk(1, b"x")]
                .concat(),
            PROTOCOL,
            "a part of a large message 1 that is not open",
        ),
    ];
    for (name, bytes, code, text) in rows {
        let row =
            case(format!("large-reply/{name}"), "a large reply that is not what was said of it");
        cases.push(row.say(bytes).closed(code, text).told(Protocol, Unknown, lost(text)));
    }
    let row = case("large-reply/in-parts", "a small reply in parts, some of them empty");
    let bytes = [begin(0, 1, 2, b""), chunk(1, b""), chunk(1, b"\xa1"), chunk(1, b"x")].concat();
    cases.push(row.say(bytes).answered("x").counts(&[("replies_received", 1)]));
    let row = case("large-reply/of-nothing", "a large reply to a call that was never made");
    let text = "an answer to call 0x7, which was never made";
    cases.push(row.say(begin(7, 1, 2, FINE)).closed(PROTOCOL, text).told(
        Protocol,
        Unknown,
        lost(text),
    ));
    let row = case(
        "large-reply/dropped",
        "a large reply that is dropped: the call waits for its failure",
    );
    let bytes =
        [begin(0, 1, 100, b"x"), frame(kind::CHUNK_DROP, &[0, 0, 0, 1]), failure(0, &code(14))]
            .concat();
    cases.push(
        row.say(bytes)
            .told(HandlerFailed, FailedInHandler, "why")
            .counts(&[("failures_received", 1)]),
    );
    let row = case("large-reply/never-ended", "a large reply that has no end").patience(SHORT);
    let row = row.say(begin(0, 1, MIB, b"x")).gets(kind::CANCEL, [0; 8]);
    cases.push(row.told(Timeout, Unknown, "Cannot receive any reply from rpc://probe@{at} in 200ms. This timeout is controlled by the caller").counts(&[("timeouts", 1), ("cancels_sent", 1)]));
}

/// The text of a failure that cannot be read.
fn unreadable(bytes: usize, why: &str) -> String {
    format!(
        "the peer sent a failure that is not readable: {bytes} bytes do not decode as rpc_core::proto::bodies::FailureBody: {why}"
    )
}

fn failures(cases: &mut Vec<Case>) {
    let counts = [("failures_received", 1)];
    let rows: [(u16, ErrorKind, Outcome); 9] = [
        (0, Internal, Unknown),
        (2, Overloaded, NeverSent),
        (3, EndpointNotFound, NeverSent),
        (14, HandlerFailed, FailedInHandler),
        (2014, HandlerFailed, Unknown),
        (999, Internal, Unknown),
        (1999, Internal, NeverSent),
        (9014, HandlerFailed, Unknown),
        (65_535, Internal, Unknown),
    ];
    for (number, kind, outcome) in rows {
        let row = case(format!("failure/{number}"), "failures of all kinds of codes")
            .say(failure(0, &code(number)));
        let text = match number % 1000 {
            0..=20 => "why".to_owned(),
            _ => format!("why (failure code {number} is not known here)"),
        };
        cases.push(row.told(kind, outcome, text).counts(&counts));
    }
    let row = case(
        "failure/timeout",
        "a failure that says that the time was over: the caller has not said so",
    );
    cases.push(
        row.say(failure(0, &code(1001)))
            .told(Timeout, NeverSent, "Cannot receive any reply from rpc://probe@{at} in 30s. This timeout is controlled by the caller")
            .counts(&counts)
            .counts(&[("timeouts", 1)]),
    );
    for (name, map, why) in [
        ("empty", &b""[..], "the value at byte 0 needs at least 1 bytes, but only 0 are left"),
        ("reserved-marker", b"\xc1", "the reserved marker 0xc1 is at byte 0"),
        ("no-code", b"\x81\xa4text\xa1x", "missing field `code`"),
        (
            "code-too-large",
            b"\x81\xa4code\xce\x00\x01\x00\x00",
            "invalid value: integer `65536`, expected u16",
        ),
        ("trailing", b"\x81\xa4code\x01\x00", "1 bytes follow the value, which ends at byte 7"),
        (
            "huge",
            b"\xdf\xff\xff\xff\xff",
            "the map at byte 0 needs at least 8589934590 bytes, but only 0 are left",
        ),
    ] {
        let text = unreadable(map.len(), why);
        let row = case(
            format!("failure/unreadable/{name}"),
            "a failure that cannot be read is one all the same",
        );
        cases.push(row.say(failure(0, map)).told(Protocol, Unknown, text).counts(&counts));
    }
    let long = [&b"\x82\xa4code\x0e\xa4text\xdb\x00\x03\x00\x00"[..], &[b'x'; 0x3_0000]].concat();
    let row =
        case("failure/long", "a failure with a text of 192 KiB: it is cut").say(failure(0, &long));
    cases.push(row.told(HandlerFailed, FailedInHandler, "x".repeat(4096)).counts(&counts));
}

fn resolutions(cases: &mut Vec<Case>) {
    let lost = |text: &str| format!("the connection to {{at}} was closed: {text}");
    let map = |rest: &[u8]| frame(kind::RESOLVED, &[&[0; 4], rest].concat());
    let about = "an answer to a RESOLVE that makes no sense";
    let senseless = [
        ("empty", &b""[..], "the value at byte 0 needs at least 1 bytes, but only 0 are left"),
        (
            "no-incarnation",
            b"\x82\xa8messages\x90\xa6credit\x92\x01\x01",
            "missing field `incarnation`",
        ),
        (
            "no-messages",
            b"\x82\xabincarnation\x92\x01\x01\xa6credit\x92\x01\x01",
            "missing field `messages`",
        ),
        ("no-credit", b"\x82\xabincarnation\x92\x01\x01\xa8messages\x90", "missing field `credit`"),
        (
            "credit-negative",
            b"\x83\xabincarnation\x92\x01\x01\xa8messages\x90\xa6credit\x92\xff\x01",
            "invalid value: integer `-1`, expected u64",
        ),
        (
            "messages-of-numbers",
            b"\x83\xabincarnation\x92\x01\x01\xa8messages\x91\x01\xa6credit\x92\x01\x01",
            "invalid type: integer `1`, expected a string",
        ),
        (
            "huge-list",
            b"\x81\xa8messages\xdd\xff\xff\xff\xff",
            "the array at byte 10 needs at least 4294967295 bytes, but only 0 are left",
        ),
    ];
    for (name, rest, why) in senseless {
        let text = format!(
            "a Resolved frame is not readable: {} bytes do not decode as rpc_core::proto::bodies::ResolvedBody: {why}",
            rest.len()
        );
        let row = asked_for(format!("resolved/{name}"), about).say(map(rest));
        cases.push(row.closed(PROTOCOL, text.clone()).told(Protocol, NeverSent, lost(&text)));
    }
    let row =
        case("resolved/twice", "a second answer to one RESOLVE").say(resolved(0, &["Echo"], 1));
    let text = "target 0 was resolved unasked";
    cases.push(row.closed(PROTOCOL, text).told(Protocol, Unknown, lost(text)));
    let row = case("resolved/and-unresolved", "a second answer to one RESOLVE");
    let unresolved = frame(kind::UNRESOLVED, &[&[0; 4][..], &code(3)].concat());
    cases.push(row.say(unresolved.clone()).closed(PROTOCOL, text).told(
        Protocol,
        Unknown,
        lost(text),
    ));
    let row = asked_for("unresolved/not-found", "an endpoint that is not there").say(unresolved);
    cases.push(row.told(EndpointNotFound, NeverSent, "why"));
    let row = asked_for(
        "unresolved/unreadable",
        "an answer that cannot be read is a failure all the same",
    );
    cases.push(row.say(frame(kind::UNRESOLVED, &[0, 0, 0, 0, 0xc1])).told(
        Protocol,
        NeverSent,
        unreadable(1, "the reserved marker 0xc1 is at byte 0"),
    ));
    let many: Vec<String> = (0..12_000).map(|number| format!("M{number}")).collect();
    let names: Vec<&str> = many.iter().map(String::as_str).collect();
    let row = asked_for("resolved/12000-messages", "an endpoint that takes many messages");
    cases.push(row.say(resolved(0, &names, u64::MAX)).answered("found"));
    let row = asked_for("resolved/one-message-twice", "an endpoint that names a message twice");
    cases.push(row.say(resolved(0, &["Echo", "Echo"], 1)).answered("found"));
    let row = asked_for("resolved/never", "a RESOLVE that is not answered")
        .with(&[("rpc.lookupTimeout", "200ms")]);
    cases.push(
        row.step(Step::Do(lookup_is_over)).told(Timeout, NeverSent, "Cannot receive any reply from rpc://probe@{at} in 200ms. This timeout is controlled by rpc.lookupTimeout").counts(&[("timeouts", 1)]),
    );
    let row = case("credit/absurd", "more credit than there is");
    let credit = frame(kind::CREDIT, &[&[0; 4][..], &[0xff; 12]].concat()).repeat(100);
    cases.push(
        row.say([credit, reply(0, FINE)].concat()).answered("x").counts(&[("replies_received", 1)]),
    );
    let row = case("gone/and-reply", "an endpoint that has ended, and then answers");
    cases.push(
        row.say([frame(kind::GONE, &[0; 4]), reply(0, FINE)].concat())
            .answered("x")
            .counts(&[("replies_received", 1)]),
    );
    let row = case("gone/1000", "word of an end, again and again");
    let gone = frame(kind::GONE, &[0; 4]).repeat(1000);
    cases.push(
        row.say([gone, reply(0, FINE)].concat()).answered("x").counts(&[("replies_received", 1)]),
    );
    let row = case("gone/and-failure", "an endpoint that has ended")
        .say([frame(kind::GONE, &[0; 4]), failure(0, &code(4))].concat());
    cases.push(row.told(EndpointStopped, NeverSent, "why").counts(&[("failures_received", 1)]));
}

/// Waits for what the env says when its caller has given up, if anything.
fn lookup_is_over(scene: &mut Scene<'_>) -> anyhow::Result<()> {
    while scene.victim.env.counters().timeouts == 0 {
        std::thread::sleep(Duration::from_millis(1));
    }
    Ok(())
}

fn ends(cases: &mut Vec<Case>) {
    let row = case("end/in-a-call", "an end in the middle of a call").ends(End::Drops);
    cases.push(row.told(Disconnected, Unknown, "the connection to {at} was closed by the peer"));
    for (name, bytes) in [
        ("header", vec![0, 0, 0, 9, kind::REPLY]),
        ("reply", reply(0, FINE).get(..17).unwrap_or_default().to_vec()),
        ("large", begin(0, 1, 100, b"x")),
    ] {
        let row = case(format!("end/in-a-{name}"), "an end in the middle of a frame")
            .say(bytes)
            .ends(End::Drops);
        cases.push(row.told(
            Disconnected,
            Unknown,
            "the connection to {at} was closed by the peer",
        ));
    }
    for (code, kind) in [
        (1_u16, Protocol),
        (3, Protocol),
        (6, Disconnected),
        (7, Overloaded),
        (8, Protocol),
        (9, Disconnected),
        (77, Protocol),
    ] {
        let row = case(format!("close/{code}-in-a-call"), "a CLOSE in the middle of a call");
        let counted = super::case::close_count(code, false);
        let row = row.say([close(code), reply(0, FINE)].concat()).ends(End::Silently);
        cases.push(
            row.told(kind, Unknown, "the connection to {at} was closed: the peer says: ")
                .counts(&[(counted, 1)]),
        );
    }
    let goodbye = frame(kind::GOODBYE, b"\x81\xa6reason\xa3why");
    let row = case("goodbye/and-reply", "a goodbye, and then the answer")
        .say([goodbye.clone(), reply(0, FINE)].concat());
    cases.push(row.answered("x").counts(&[("replies_received", 1)]));
    let row = case("goodbye/and-nothing", "a goodbye, and then no answer")
        .patience(SHORT)
        .say(goodbye)
        .gets(kind::CANCEL, [0; 8]);
    cases.push(row.told(Timeout, Unknown, "Cannot receive any reply from rpc://probe@{at} in 200ms. This timeout is controlled by the caller").counts(&[("timeouts", 1), ("cancels_sent", 1)]));
}

pub(super) fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    replies(&mut cases);
    large_replies(&mut cases);
    failures(&mut cases);
    resolutions(&mut cases);
    ends(&mut cases);
    cases
}
