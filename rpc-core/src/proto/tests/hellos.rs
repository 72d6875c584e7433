//! The first exchange: who is taken, and what is said to those who are not.

use crate::limits::Limits;
use crate::message::Encoding;
use crate::proto::{Close, CloseCode, Hello, Hellos, PeerInfo, PeerLimits};
use crate::wire::frame::{Kind, MAGIC, put_control, put_header};
use crate::wire::payload;
use bytes::BytesMut;

const KIB: u64 = 1024;

fn hello(env: u64) -> Hello {
    Hello::new(env, Some("10.0.0.7:7077".to_owned()), PeerLimits::default())
}

fn bytes_of(hello: &Hello) -> BytesMut {
    let mut bytes = BytesMut::new();
    hello.put(&mut bytes);
    bytes
}

/// What one side makes of the other's hello.
fn meet(ours: Hello, theirs: &Hello) -> Result<PeerInfo, Close> {
    let mut bytes = bytes_of(theirs);
    let met = Hellos::new(ours, 64 << 10).receive(&mut bytes);
    met.map(|info| info.expect("it is whole"))
}

/// What a side says to bytes that are no hello.
fn refusal(bytes: &[u8]) -> Close {
    let mut bytes = BytesMut::from(bytes);
    Hellos::new(hello(1), 1000).receive(&mut bytes).expect_err("it was taken")
}

#[test]
fn a_hello_says_who_somebody_is_in_whatever_pieces_it_comes() {
    let theirs = hello(2);
    let mut whole = bytes_of(&theirs);
    whole.extend_from_slice(b"next");
    let mut hellos = Hellos::new(hello(1), 1000);
    let mut bytes = BytesMut::new();
    let last = whole.len() - 5;
    for (place, byte) in whole[..=last].iter().enumerate() {
        bytes.extend_from_slice(&[*byte]);
        let met = hellos.receive(&mut bytes).unwrap();
        assert_eq!((met.is_some(), hellos.magic_seen()), (place == last, place >= 3), "{place}");
        if let Some(met) = met {
            assert_eq!((met.version, met.hello), (1, theirs.clone()));
        }
    }
    let met = Hellos::new(hello(1), 1000).receive(&mut whole).unwrap().unwrap();
    assert_eq!((met.hello, &whole[..]), (theirs, &b"next"[..]));
}

#[test]
fn the_highest_version_that_both_speak_is_spoken() {
    for (ours, theirs, spoken) in [
        ((1, 1), (1, 1), Some(1)),
        ((1, 3), (2, 5), Some(3)),
        ((2, 5), (1, 3), Some(3)),
        ((2, 2), (1, 2), Some(2)),
        ((1, 2), (2, 2), Some(2)),
        ((1, 2), (3, 4), None),
        ((3, 4), (1, 2), None),
    ] {
        let ours_hello = hello(1).with_versions(ours.0, ours.1);
        let met = meet(ours_hello, &hello(2).with_versions(theirs.0, theirs.1));
        match met {
            Ok(info) => assert_eq!(Some(info.version), spoken),
            Err(close) => {
                assert!(spoken.is_none() && close.is(CloseCode::Version), "{close}");
                let text = format!(
                    "no common protocol version: this side speaks {} to {}, the other {} to {}",
                    ours.0, ours.1, theirs.0, theirs.1
                );
                assert_eq!(close.text, text);
            }
        }
    }
}

/// What else a hello of another version says may have another form.
#[test]
fn the_version_is_looked_at_before_all_else() {
    let said = |versions: (u16, u16)| {
        let body = payload::to_vec(&("versions", versions), Encoding::Named, 1000).unwrap();
        // As a map of that key and one whose value is no number.
        let body = [&[0x82], &body[1..], b"\xa3env\xa3new"].concat();
        let mut bytes = BytesMut::from(&MAGIC[..]);
        put_control(&mut bytes, Kind::Hello, &[], &body);
        refusal(&bytes)
    };
    assert!(said((2, 9)).is(CloseCode::Version));
    assert!(said((1, 1)).is(CloseCode::Hello));
}

#[test]
fn limits_that_nobody_could_work_with_are_refused() {
    let limits = |frame, in_flight| {
        let limits = PeerLimits { frame, in_flight, ..PeerLimits::default() };
        meet(hello(1), &Hello::new(2, None, limits)).map(|info| info.hello.limits)
    };
    for (frame, in_flight, taken) in [
        (32 * KIB, 1, true),
        (32 * KIB - 1, 1, false),
        (32 * KIB, 0, false),
        (0, 0, false),
        (u64::MAX, u32::MAX, true),
    ] {
        match limits(frame, in_flight) {
            Ok(limits) => {
                assert_eq!((limits.frame, limits.in_flight, taken), (frame, in_flight, true))
            }
            Err(close) => assert!(!taken && close.is(CloseCode::Hello), "{close}"),
        }
    }
    let ours = Limits::default().with_frame_max_size(40_000).unwrap();
    let ours = ours.with_message_max_size(50_000).unwrap().with_max_in_flight(60).unwrap();
    let ours = PeerLimits::of(&ours.with_max_assembly(70_000).unwrap());
    let said = (ours.frame, ours.message, ours.in_flight, ours.assembly);
    assert_eq!(said, (40_000, 50_000, 60, 70_000));
    let usual = PeerLimits::default();
    let usual = (usual.frame, usual.message, usual.in_flight, usual.assembly);
    // What a peer takes that does not say so (docs/WIRE.md).
    assert_eq!(usual, (256 * KIB, 16 * KIB * KIB, 1024, 64 * KIB * KIB));
}

#[test]
fn an_address_that_leads_back_is_found() {
    let close = meet(hello(1), &hello(1)).unwrap_err();
    assert!(close.is(CloseCode::Hello) && close.text.contains("leads back"), "{close}");
}

#[test]
fn a_hello_may_be_as_large_as_the_limit() {
    let bytes = bytes_of(&hello(2));
    let body = bytes.len() - 12;
    for (max, taken) in [(body, true), (body - 1, false)] {
        // The header is enough to know.
        let mut bytes = if taken { bytes.clone() } else { BytesMut::from(&bytes[..12]) };
        match Hellos::new(hello(1), max).receive(&mut bytes) {
            Ok(info) => assert!(taken && info.is_some()),
            Err(close) => {
                assert!(!taken && close.is(CloseCode::TooLarge), "{close}");
                assert!(close.text.contains("(rpc.io.preAuthBytes)"), "{close}");
            }
        }
    }
}

#[test]
fn who_speaks_another_protocol_is_told_which_it_looks_like() {
    let http = "HTTP/1.1 200|GET / |HEAD /|POST /|PUT /x|DELETE /|OPTIONS *|PATCH /|PRI * HTTP/2";
    for start in http.split('|') {
        assert!(refusal(start.as_bytes()).text.ends_with("(that looks like HTTP)"), "{start}");
    }
    let text = |bytes: &[u8]| refusal(bytes).text;
    assert!(text(b"SSH-2.0").ends_with("(that looks like SSH)"));
    assert!(text(&[0x16, 3, 1]).ends_with("(that looks like TLS)"));
    assert_eq!(
        text(b"\x00\"0123456789abcdefgh"),
        "the peer does not speak this protocol: it began with \"\\x00\\\"0123456789abcd\""
    );
    assert!(refusal(b"ARPX").is(CloseCode::Protocol));
    let mut begun = BytesMut::from(&b"AR"[..]);
    assert!(Hellos::new(hello(1), 1000).receive(&mut begun).unwrap().is_none());
}

#[test]
fn what_else_may_come_first() {
    let frame = |write: &dyn Fn(&mut BytesMut)| {
        let mut bytes = BytesMut::from(&MAGIC[..]);
        write(&mut bytes);
        bytes
    };
    let close = refusal(&frame(&|bytes| put_control(bytes, Kind::Ping, &[0; 8], &[])));
    assert_eq!(close.text, "frame kind 0x30 came before the hello");
    let close = refusal(&frame(&|bytes| put_control(bytes, Kind::Hello, &[], &[0xc1])));
    assert!(close.is(CloseCode::Hello) && close.text.contains("not readable"), "{close}");
    let body = &bytes_of(&hello(2))[12..];
    let flagged = frame(&|bytes| {
        put_header(bytes, body.len(), Kind::Hello, 0x40, 0);
        bytes.extend_from_slice(body);
    });
    assert!(refusal(&flagged).text.contains("flags 0x40"));
    // A close is the peer's own.
    let mut bytes = frame(&|bytes| Close::new(CloseCode::Overloaded, "full").put(bytes));
    let mut hellos = Hellos::new(hello(1), 1000);
    assert!(!hellos.closed_by_peer());
    let close = hellos.receive(&mut bytes).unwrap_err();
    assert!(close.is(CloseCode::Overloaded) && hellos.closed_by_peer(), "{close}");
}
