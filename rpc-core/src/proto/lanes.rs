//! What goes out: control frames first, then normal ones, then bulk, large bodies in chunks.

use crate::wire::frame::{self, FLAG_BULK, FLAG_FIRST, HEADER, Header, Kind};
use bytes::{BufMut, Bytes, BytesMut};
use std::collections::VecDeque;

/// The buffers of one connection's direction.
#[derive(Debug)]
pub(crate) struct Lanes {
    control: BytesMut,
    lanes: [LaneBuffer; 2],
    last_stream: u32,
    /// Bytes of large bodies that have not gone out.
    large_bytes: usize,
    chunk: usize,
}

#[derive(Debug, Default)]
struct LaneBuffer {
    ready: BytesMut,
    /// How many bytes have left `ready` so far: offsets in it stay valid.
    gone: u64,
    /// Large bodies of which nothing has gone.
    waiting: VecDeque<Large>,
    /// Large bodies in the middle, taking turns.
    begun: VecDeque<Large>,
}

/// A large body on its way.
#[derive(Debug)]
struct Large {
    stream: u32,
    /// The fields of its first frame; empty once that has gone.
    head: Option<FirstFrame>,
    body: Bytes,
    /// The size of the whole body.
    total: usize,
    /// Who waits for its end: the target's number on the wire, and the lane.
    then: Option<(u32, usize)>,
    call: Option<u64>,
}

#[derive(Debug)]
pub(crate) struct FirstFrame {
    pub(crate) kind: Kind,
    pub(crate) flags: u8,
    pub(crate) message: u16,
    pub(crate) fields: Vec<u8>,
}

/// What a call of `transmit` has let go.
#[derive(Debug, Default)]
pub(crate) struct Transmitted {
    /// Targets whose large message has gone completely: their number on the wire, and the lane.
    pub(crate) finished: Vec<(u32, usize)>,
    /// Calls whose large message has begun to go.
    pub(crate) begun: Vec<u64>,
}

/// A large body that will not be sent to its end.
#[derive(Debug)]
pub(crate) struct Dropped {
    /// Whether the peer has seen the beginning.
    pub(crate) begun: bool,
    /// The size of the whole body.
    pub(crate) total: usize,
    /// Who waited for its end: the target's number on the wire, and the lane.
    pub(crate) then: Option<(u32, usize)>,
}

/// Large bodies of a lane that are under way at once. A peer takes 256, of both lanes together.
const MAX_BEGUN: usize = 64;

/// Bytes of the fixed fields of a chunk: its stream's number.
const CHUNK_FIELDS: usize = 4;

impl Lanes {
    pub(crate) fn new() -> Self {
        Self {
            control: BytesMut::new(),
            lanes: [LaneBuffer::default(), LaneBuffer::default()],
            last_stream: 0,
            large_bytes: 0,
            chunk: 0,
        }
    }

    /// How large the payload of a frame may be, as the peer said.
    pub(crate) fn set_frame_size(&mut self, bytes: usize) {
        self.chunk = bytes;
    }

    pub(crate) fn frame_size(&self) -> usize {
        self.chunk
    }

    pub(crate) fn control(&mut self) -> &mut BytesMut {
        &mut self.control
    }

    /// Writes a small frame into a lane; where it begins among all that goes through the lane.
    pub(crate) fn put_small(
        &mut self,
        lane: usize,
        kind: Kind,
        flags: u8,
        message: u16,
        fields: &[u8],
        body: &[u8],
    ) -> u64 {
        let Some(buffer) = self.lanes.get_mut(lane) else { return 0 };
        let offset = buffer.gone.saturating_add(buffer.ready.len() as u64);
        let length = fields.len().saturating_add(body.len());
        buffer.ready.reserve(HEADER.saturating_add(length));
        frame::put_header(&mut buffer.ready, length, kind, flags, message);
        buffer.ready.put_slice(fields);
        buffer.ready.put_slice(body);
        offset
    }

    pub(crate) fn put_large(
        &mut self,
        lane: usize,
        head: FirstFrame,
        body: Bytes,
        then: Option<(u32, usize)>,
        call: Option<u64>,
    ) {
        self.last_stream = self.last_stream.wrapping_add(1);
        self.large_bytes = self.large_bytes.saturating_add(body.len());
        let (stream, total) = (self.last_stream, body.len());
        let large = Large { stream, head: Some(head), body, total, then, call };
        if let Some(buffer) = self.lanes.get_mut(lane) {
            buffer.waiting.push_back(large);
        }
    }

    /// Where the lanes end now.
    pub(crate) fn ends(&self) -> [u64; 2] {
        self.lanes.each_ref().map(|lane| lane.gone.saturating_add(lane.ready.len() as u64))
    }

    /// How far the lanes have gone out.
    pub(crate) fn gone(&self) -> [u64; 2] {
        self.lanes.each_ref().map(|lane| lane.gone)
    }

    /// Whether a frame put at `offset` has gone out.
    pub(crate) fn has_gone(&self, lane: usize, offset: u64) -> bool {
        self.lanes.get(lane).is_none_or(|buffer| offset < buffer.gone)
    }

    /// Turns a frame that has not gone out into one that says nothing.
    pub(crate) fn take_back(&mut self, lane: usize, offset: u64) -> bool {
        let Some(buffer) = self.lanes.get_mut(lane) else { return false };
        let Some(place) = offset.checked_sub(buffer.gone) else { return false };
        let kind = usize::try_from(place).ok().and_then(|place| place.checked_add(4));
        match kind.and_then(|kind| buffer.ready.get_mut(kind)) {
            Some(byte) => {
                *byte = Kind::Skip as u8;
                true
            }
            None => false,
        }
    }

    /// Stops sending a large message. `None` if it has gone, or was none.
    pub(crate) fn drop_large(&mut self, call: u64) -> Option<Dropped> {
        let queues = self.lanes.iter_mut().flat_map(|lane| [&mut lane.waiting, &mut lane.begun]);
        for queue in queues {
            if let Some(place) = queue.iter().position(|large| large.call == Some(call)) {
                let large = queue.remove(place)?;
                self.large_bytes = self.large_bytes.saturating_sub(large.body.len());
                let begun = large.head.is_none();
                if begun {
                    let stream = large.stream.to_be_bytes();
                    frame::put_control(&mut self.control, Kind::ChunkDrop, &stream, &[]);
                }
                return Some(Dropped { begun, total: large.total, then: large.then });
            }
        }
        None
    }

    /// Whether a large message waits to begin.
    pub(crate) fn waits(&self, call: u64) -> bool {
        self.lanes.iter().flat_map(|lane| &lane.waiting).any(|large| large.call == Some(call))
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.control.is_empty()
            && self.lanes.iter().all(|lane| {
                lane.ready.is_empty() && lane.waiting.is_empty() && lane.begun.is_empty()
            })
    }

    /// Whether every small frame of a lane has gone out.
    pub(crate) fn ready_is_empty(&self, lane: usize) -> bool {
        self.lanes.get(lane).is_none_or(|buffer| buffer.ready.is_empty())
    }

    /// Bytes that wait for the socket.
    pub(crate) fn len(&self) -> usize {
        let ready: usize = self.lanes.iter().map(|lane| lane.ready.len()).sum();
        self.control.len().saturating_add(ready).saturating_add(self.large_bytes)
    }

    /// Moves about `budget` bytes out, in the order of the lanes.
    pub(crate) fn transmit(&mut self, budget: usize, out: &mut VecDeque<Bytes>) -> Transmitted {
        let mut result = Transmitted::default();
        let mut left = budget;
        push(out, &mut left, self.control.split());
        for (index, lane) in self.lanes.iter_mut().enumerate() {
            if left == 0 {
                break;
            }
            push_ready(lane, &mut left, out);
            while left > 0
                && let Some(large) = lane.next_large()
            {
                let sent = large.body.len();
                let rest = send_part(large, index, self.chunk, out, &mut result);
                let kept = rest.as_ref().map_or(0, |rest| rest.body.len());
                let sent = sent.saturating_sub(kept);
                self.large_bytes = self.large_bytes.saturating_sub(sent);
                left = left.saturating_sub(sent.max(1));
                lane.begun.extend(rest);
            }
        }
        result
    }

    /// Forgets everything: the connection is gone.
    pub(crate) fn clear(&mut self) {
        self.control.clear();
        self.large_bytes = 0;
        for lane in &mut self.lanes {
            // What was ready has not gone; the offsets of its frames must not look as if it had.
            lane.ready.clear();
            lane.waiting.clear();
            lane.begun.clear();
        }
    }
}

impl LaneBuffer {
    /// The large body whose turn it is: new ones begin as long as few are under way.
    fn next_large(&mut self) -> Option<Large> {
        let begins = self.begun.len() < MAX_BEGUN;
        let new = if begins { self.waiting.pop_front() } else { None };
        new.or_else(|| self.begun.pop_front())
    }
}

fn push(out: &mut VecDeque<Bytes>, left: &mut usize, bytes: BytesMut) {
    if !bytes.is_empty() {
        *left = left.saturating_sub(bytes.len());
        out.push_back(bytes.freeze());
    }
}

/// Moves whole frames out of a lane's buffer, all of them if they fit.
fn push_ready(lane: &mut LaneBuffer, left: &mut usize, out: &mut VecDeque<Bytes>) {
    let mut end = lane.ready.len();
    if end > left.saturating_mul(2) {
        end = 0;
        while end < *left
            && let Some(header) = lane.ready.get(end..).and_then(Header::read)
        {
            end = end.saturating_add(HEADER).saturating_add(header.length);
        }
    }
    let part = lane.ready.split_to(end.min(lane.ready.len()));
    lane.gone = lane.gone.saturating_add(part.len() as u64);
    push(out, left, part);
}

/// Sends the next chunk of a large body; what is left of it.
fn send_part(
    mut large: Large,
    lane: usize,
    chunk: usize,
    out: &mut VecDeque<Bytes>,
    result: &mut Transmitted,
) -> Option<Large> {
    let mut head = BytesMut::new();
    let fields = large.head.as_ref().map_or(CHUNK_FIELDS, |first| {
        CHUNK_FIELDS.saturating_add(8).saturating_add(first.fields.len())
    });
    let part = large.body.len().min(chunk.saturating_sub(fields).max(1));
    let length = fields.saturating_add(part);
    let bulk = if lane == 1 { FLAG_BULK } else { 0 };
    match large.head.take() {
        Some(first) => {
            let flags = first.flags | FLAG_FIRST | bulk;
            frame::put_header(&mut head, length, first.kind, flags, first.message);
            head.put_u32(large.stream);
            head.put_u64(large.body.len() as u64);
            head.put_slice(&first.fields);
            result.begun.extend(large.call);
        }
        None => {
            frame::put_header(&mut head, length, Kind::Chunk, bulk, 0);
            head.put_u32(large.stream);
        }
    }
    out.push_back(head.freeze());
    out.push_back(large.body.split_to(part));
    if large.body.is_empty() {
        result.finished.extend(large.then);
        return None;
    }
    Some(large)
}
