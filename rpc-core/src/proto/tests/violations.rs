//! Peers that break the rules: each is told which.

use super::pair::{A, B, Pair};
use crate::proto::{Close, CloseCode};
use crate::wire::frame::{FLAG_FIRST, FLAG_HEADERS, Kind, put_control, put_header};
use bytes::{BufMut, BytesMut};

/// What a side closes with when these bytes arrive.
fn close_of(write: impl FnOnce(&mut BytesMut)) -> (u16, String) {
    let mut pair = Pair::new();
    pair.start(A, "echo", (5000, 1 << 20));
    let target = pair.target(B, "echo", None);
    pair.nodes[A].hold = true;
    let call = pair.ask(B, target, 0, 4);
    pair.run();
    assert!(pair.poll(B, call).is_none());
    let mut bytes = BytesMut::new();
    write(&mut bytes);
    let close = pair.arrive(A, &bytes).expect_err("it was taken");
    (close.code, close.text)
}

fn assert_close(code: CloseCode, part: &str, write: impl FnOnce(&mut BytesMut)) {
    let (number, text) = close_of(write);
    assert_eq!(number, code as u16, "{text}");
    assert!(text.contains(part), "{text}");
}

fn ask(into: &mut BytesMut, call: u64) {
    put_header(into, 16 + 4, Kind::Ask, 0, 0);
    into.put_u64(call);
    into.put_u32(0);
    into.put_u32(1000);
    into.put_u32(1);
}

#[test]
fn frames_that_make_no_sense() {
    let protocol = CloseCode::Protocol;
    assert_close(protocol, "unknown frame kind 0x7f", |b| {
        b.put_slice(&[0, 0, 0, 0, 0x7f, 0, 0, 0])
    });
    assert_close(protocol, "flags", |b| b.put_slice(&[0, 0, 0, 0, 0x10, 0x40, 0, 0]));
    for kind in [Kind::Reply, Kind::Cancel, Kind::Chunk, Kind::Credit, Kind::Ping] {
        assert_close(protocol, "flags", |b| put_header(b, 0, kind, FLAG_HEADERS, 0));
    }
    assert_close(protocol, "second hello", |b| put_control(b, Kind::Hello, &[], &[]));
    assert_close(protocol, "ends early", |b| put_control(b, Kind::Ask, &[0; 7], &[]));
    assert_close(protocol, "ends early", |b| put_control(b, Kind::Credit, &[0; 4], &[]));
    assert_close(protocol, "not readable", |b| put_control(b, Kind::Resolve, &[0; 4], &[0xc1]));
    assert_close(CloseCode::TooLarge, "rpc.frame.maxSize", |b| {
        b.put_slice(&[0xff, 0xff, 0xff, 0xff, 0x10, 0, 0, 0]);
    });
}

/// Found by the target `preauth`: a text where a number belongs was quoted whole, and a close frame was
/// larger than any frame may be.
#[test]
fn what_a_peer_wrote_is_quoted_in_part() {
    let mut body = b"\x82\xa4name\xa1x\xa3pin\xda\xff\xff".to_vec();
    body.resize(body.len() + 0xffff, 1);
    let (_, text) = close_of(|b| put_control(b, Kind::Resolve, &[0; 4], &body));
    assert!(text.contains("not readable") && text.len() < 2048, "{} bytes", text.len());
    let long = "x".repeat(100_000);
    assert_eq!(Close::new(CloseCode::Protocol, long).text.len(), 4096);
}

#[test]
fn headers_that_do_not_fit() {
    let one_way = |b: &mut BytesMut, length: u16, rest: &[u8]| {
        put_header(b, 4 + 2 + rest.len(), Kind::OneWay, FLAG_HEADERS, 0);
        b.put_u32(0);
        b.put_u16(length);
        b.put_slice(rest);
    };
    let protocol = CloseCode::Protocol;
    assert_close(protocol, "ends early", |b| put_header(b, 0, Kind::OneWay, FLAG_HEADERS, 0));
    assert_close(protocol, "ends early", |b| one_way(b, 5, &[0x80; 4]));
    assert_close(protocol, "1025 bytes are over the limit of 1024", |b| {
        one_way(b, 1025, &[0; 2000])
    });
    assert_close(protocol, "headers are not readable", |b| one_way(b, 1, &[0xc1, 0, 0, 0, 0]));
    assert_close(protocol, "expected a map with string keys", |b| {
        one_way(b, 1, &[0x90, 0, 0, 0, 0])
    });
    // As many as there may be, of a key that is not known.
    let mut pair = Pair::new();
    pair.start(A, "echo", (1, 1));
    let target = pair.target(B, "echo", None);
    pair.nodes[B].session.resolve(pair.now, target).unwrap();
    pair.run();
    let map = [&[0x81, 0xa1, b'x', 0xc5, 3, 250], &[7; 1018][..]].concat();
    let mut bytes = BytesMut::new();
    one_way(&mut bytes, 1024, &[&map[..], &[0, 0, 0, 9]].concat());
    pair.arrive(A, &bytes).unwrap();
    assert_eq!(pair.nodes[A].seen[0].number, 9);
}

#[test]
fn answers_nobody_asked_for() {
    let protocol = CloseCode::Protocol;
    assert_close(protocol, "never made", |b| put_control(b, Kind::Reply, &[0; 8], &[1]));
    assert_close(protocol, "never made", |b| put_control(b, Kind::Failure, &[9; 8], &[0x80]));
    for kind in [Kind::Gone, Kind::Unresolved, Kind::Resolved, Kind::Credit] {
        let body = [0x93, 0x92, 0, 0, 0x90, 0x92, 1, 1];
        let fields = if kind == Kind::Credit { vec![7; 16] } else { vec![7; 4] };
        let fits = if kind == Kind::Resolved { &body[..] } else { &[] };
        assert_close(protocol, "never resolved", |b| put_control(b, kind, &fields, fits));
    }
}

#[test]
fn calls_beyond_what_was_agreed() {
    assert_close(CloseCode::DuplicateId, "is open", |b| ask(b, 0));
    assert_close(CloseCode::Protocol, "rpc.io.maxInFlight", |b| {
        (1..=1024).for_each(|call| ask(b, call));
    });
}

#[test]
fn large_messages_that_do_not_add_up() {
    let first = |b: &mut BytesMut, stream: u32, total: u64| {
        put_header(b, 12 + 4 + 10, Kind::OneWay, FLAG_FIRST, 0);
        b.put_u32(stream);
        b.put_u64(total);
        b.put_u32(0);
        b.put_slice(&[0; 10]);
    };
    let chunk = |b: &mut BytesMut, stream: u32| {
        put_control(b, Kind::Chunk, &stream.to_be_bytes(), &[0; 10])
    };
    assert_close(CloseCode::TooLarge, "rpc.message.maxSize", |b| first(b, 1, 1 << 40));
    assert_close(CloseCode::Protocol, "begun twice", |b| {
        first(b, 1, 100);
        first(b, 1, 100);
    });
    assert_close(CloseCode::Protocol, "are open", |b| (0..300).for_each(|n| first(b, n, 100)));
    assert_close(CloseCode::Protocol, "not open", |b| chunk(b, 1));
    assert_close(CloseCode::Protocol, "more than the 15 bytes", |b| {
        first(b, 1, 15);
        chunk(b, 1);
    });
}

#[test]
fn frames_of_later_versions_are_skipped() {
    let mut pair = Pair::new();
    pair.arrive(A, &[0, 0, 0, 2, 0xfe, 0xff, 1, 2, 3, 4]).unwrap();
    pair.arrive(A, &[0, 0, 0, 1]).unwrap();
    pair.arrive(A, &[0x80, 0, 0, 0, 9]).unwrap();
    assert!(!pair.nodes[A].session.has_output());
}
