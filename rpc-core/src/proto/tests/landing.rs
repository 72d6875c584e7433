//! Parts of large bodies that are read straight into the buffer of the body.

use super::pair::{B, Pair, hello};
use crate::limits::Limits;
use crate::proto::{Close, Event, Landing, Vital};
use crate::wire::frame::{FLAG_FIRST, Kind, put_control, put_header};
use bytes::{BufMut, BytesMut};
use std::time::Duration;

const TOTAL: usize = 600_000;
const PART: usize = 200_000;

/// A one-way message of three parts: what comes before each part.
fn heads() -> [BytesMut; 3] {
    let mut first = BytesMut::new();
    put_header(&mut first, 12 + 4 + PART, Kind::OneWay, FLAG_FIRST, 0);
    first.put_u32(1);
    first.put_u64(TOTAL as u64);
    first.put_u32(0);
    let mut next = BytesMut::new();
    put_header(&mut next, 4 + PART, Kind::Chunk, 0, 0);
    next.put_u32(1);
    [first, next.clone(), next]
}

/// Gives side B what has come.
fn receive(
    pair: &mut Pair,
    landing: Option<Landing>,
    bytes: &mut BytesMut,
    events: &mut Vec<Event>,
) -> Result<Option<Landing>, Close> {
    let session = &mut pair.nodes[B].session;
    let taken = session.receive_with(pair.now, landing, bytes, events, &mut { usize::MAX });
    taken.map(|taken| taken.landing)
}

#[test]
fn the_rest_of_a_part_is_read_into_its_body() {
    let (mut pair, mut events) = (Pair::new(), Vec::new());
    let content: Vec<u8> = (0..TOTAL).map(|at| (at % 251) as u8).collect();
    let mut place = 0;
    for (mut head, part) in heads().into_iter().zip(content.chunks(PART)) {
        head.extend_from_slice(&part[..10]);
        let mut landing = receive(&mut pair, None, &mut head, &mut events).unwrap();
        assert!(head.is_empty(), "what has come is in its place");
        let mut left = PART - 10;
        for piece in part[10..].chunks(70_000) {
            let mut landed = landing.take().expect("there is more to come");
            let mut room = landed.room();
            assert_eq!(room.remaining_mut(), left, "as much as the frame has");
            left -= piece.len();
            place = room.chunk_mut().as_mut_ptr().addr();
            room.put_slice(piece);
            let none = &mut BytesMut::new();
            landing = receive(&mut pair, Some(landed), none, &mut events).unwrap();
        }
        assert!(landing.is_none());
    }
    let [Event::Begun(0, TOTAL), Event::Message(message)] = &*events else { panic!("{events:?}") };
    assert!(message.body == content);
    let start = message.body.as_ptr().addr();
    assert!((start..start + TOTAL).contains(&place), "the body is what was read into");
}

#[test]
fn fields_that_have_not_come_are_waited_for() {
    let [first, next, _] = heads();
    for head in [first, next] {
        let (mut pair, mut events) = (Pair::new(), Vec::new());
        for end in 0..head.len() {
            let mut bytes = BytesMut::from(&head[..end]);
            assert!(receive(&mut pair, None, &mut bytes, &mut events).unwrap().is_none());
            assert_eq!(bytes, head[..end], "nothing was taken");
        }
        assert!(events.is_empty());
    }
}

/// What the header of a third part is answered with.
fn close_of(stream: u32, part: usize) -> String {
    let (mut pair, mut events) = (Pair::new(), Vec::new());
    let [mut bytes, second, _] = heads();
    bytes.extend_from_slice(&[0; PART]);
    bytes.extend_from_slice(&second);
    bytes.extend_from_slice(&[0; PART]);
    put_header(&mut bytes, 4 + part, Kind::Chunk, 0, 0);
    bytes.put_u32(stream);
    receive(&mut pair, None, &mut bytes, &mut events).expect_err("it was taken").text
}

/// No room is made for what must not come.
#[test]
fn a_part_that_must_not_come_is_refused_by_its_header() {
    let text = close_of(1, PART + 1);
    assert!(text.contains("announced with"), "{text}");
    let text = close_of(2, PART);
    assert!(text.contains("not open"), "{text}");
}

#[test]
fn a_part_of_which_nothing_comes_is_given_up() {
    let (mut pair, mut events) = (Pair::new(), Vec::new());
    let broken = |pair: &Pair| {
        matches!(
            pair.nodes[B].session.pulse.look(&pair.nodes[B].session.limits, pair.now),
            Vital::Broken(_)
        )
    };
    let [mut first, mut second, _] = heads();
    let none = &mut BytesMut::new();
    let mut landing = receive(&mut pair, None, &mut first, &mut events).unwrap().unwrap();
    pair.now = pair.now.saturating_add(Duration::from_secs(29));
    // Some of it comes, and it is the same frame still.
    landing.room().put_slice(&[0; PART - 1]);
    let mut landing = receive(&mut pair, Some(landing), none, &mut events).unwrap().unwrap();
    assert!(!broken(&pair));
    pair.now = pair.now.saturating_add(Duration::from_secs(2));
    assert!(broken(&pair));
    // The next one has a time of its own.
    landing.room().put_slice(&[0]);
    assert!(receive(&mut pair, Some(landing), none, &mut events).unwrap().is_none());
    assert!(receive(&mut pair, None, &mut second, &mut events).unwrap().is_some());
    assert!(!broken(&pair));
}

/// What comes over the next connection begins with a frame.
#[test]
fn a_lost_connection_leaves_nothing_in_the_middle() {
    let (mut pair, mut events) = (Pair::new(), Vec::new());
    let [mut first, ..] = heads();
    assert!(receive(&mut pair, None, &mut first, &mut events).unwrap().is_some());
    pair.cut();
    pair.attach([hello(1, &Limits::default()), hello(2, &Limits::default())]);
    let mut bytes = BytesMut::new();
    put_control(&mut bytes, Kind::Release, &[0; 4], &[]);
    events.clear();
    assert!(receive(&mut pair, None, &mut bytes, &mut events).unwrap().is_none());
    assert!(matches!(*events, [Event::Release(0)]), "{events:?}");
}
