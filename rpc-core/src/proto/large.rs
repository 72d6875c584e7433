//! Large bodies on their way out, and the parts that they go in.

use super::waiting::Place;
use crate::wire::frame::{self, FLAG_BULK, FLAG_FIRST, HEADER, Kind};
use crate::wire::rope::Rope;
use bytes::{BufMut, Bytes, BytesMut};
use std::collections::VecDeque;

/// A large body on its way.
#[derive(Debug)]
pub(super) struct Large {
    pub(super) stream: u32,
    /// The fields of its first frame; empty once that has gone.
    pub(super) head: Option<FirstFrame>,
    pub(super) body: Rope,
    /// The size of the whole body.
    pub(super) total: usize,
    /// Whether one frame has room for it.
    pub(super) whole: bool,
    /// Who waits for its end. Nobody for an answer.
    pub(super) then: Option<Then>,
    pub(super) call: Option<u64>,
}

/// Who waits until a large message has gone.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Then {
    /// The target, by its number on the wire, and its lane.
    pub(crate) number: u32,
    pub(crate) lane: usize,
    /// Where the message waits for room.
    pub(crate) place: Option<Place>,
}

#[derive(Debug)]
pub(crate) struct FirstFrame {
    pub(crate) kind: Kind,
    pub(crate) flags: u8,
    pub(crate) message: u16,
    pub(crate) fields: Vec<u8>,
}

/// The flag of what travels in a lane.
pub(super) fn lane_flag(lane: usize) -> u8 {
    if lane == 1 { FLAG_BULK } else { 0 }
}

/// Sends the next part of a large body; what is left of it.
pub(super) fn send_part(
    mut large: Large,
    lane: usize,
    chunk: usize,
    out: &mut VecDeque<Bytes>,
) -> Large {
    let bulk = lane_flag(lane);
    let first = large.head.take();
    let fields = first.as_ref().map_or(&[][..], |first| &first.fields);
    let (stream, size) = (large.stream.to_be_bytes(), (large.body.len() as u64).to_be_bytes());
    let (stream, size) = match (large.whole, &first) {
        (true, _) => (&[][..], &[][..]),
        (false, Some(_)) => (&stream[..], &size[..]),
        (false, None) => (&stream[..], &[][..]),
    };
    let (kind, flags, message) = match &first {
        Some(first) if large.whole => (first.kind, first.flags | bulk, first.message),
        Some(first) => (first.kind, first.flags | bulk | FLAG_FIRST, first.message),
        None => (Kind::Chunk, bulk, 0),
    };
    let fixed = stream.len().saturating_add(size.len()).saturating_add(fields.len());
    let part = large.body.len().min(chunk.saturating_sub(fixed).max(1));
    let mut head = BytesMut::with_capacity(HEADER.saturating_add(fixed));
    frame::put_header(&mut head, fixed.saturating_add(part), kind, flags, message);
    [stream, size, fields].into_iter().for_each(|field| head.put_slice(field));
    out.push_back(head.freeze());
    large.body.split_into(part, out);
    large
}
