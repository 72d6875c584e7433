//! What goes out: control frames first, then normal ones, then bulk, large bodies in chunks.

use super::large::{FirstFrame, Large, Then, send_part};
use crate::plant::planted;
use crate::wire::frame::{self, HEADER, Header, Kind};
use crate::wire::rope::Rope;
use bytes::{BufMut, Bytes, BytesMut};
use std::collections::VecDeque;

/// The buffers of one connection's direction. In this order: small frames of the normal lane touch the
/// beginning only.
#[derive(Debug)]
#[repr(C)]
pub(crate) struct Lanes {
    control: BytesMut,
    /// The bytes of small frames, and the large bodies, that wait in all lanes.
    small: usize,
    large: usize,
    /// Answers that have not gone out, and their bytes.
    answers: usize,
    answer_bytes: usize,
    lanes: [LaneBuffer; 2],
    last_stream: u32,
    chunk: usize,
    /// What the peer takes of large bodies under way at once, and how much is, by lane.
    budget: usize,
    under_way: [usize; 2],
}

#[derive(Debug, Default)]
#[repr(C)]
struct LaneBuffer {
    ready: BytesMut,
    /// How many bytes of them went out together last, which is how much room the next ones get.
    usual: usize,
    /// The answers among its frames, and their bytes.
    answers: usize,
    answer_bytes: usize,
    /// How many bytes have left `ready` so far: offsets in it stay valid.
    gone: u64,
    /// Large bodies that fit into one frame.
    whole: VecDeque<Large>,
    /// Those that do not, and of which nothing has gone.
    waiting: VecDeque<Large>,
    /// Those in the middle, taking turns.
    begun: VecDeque<Large>,
    /// Whether a whole one went last, so that the others have their turn.
    whole_was_last: bool,
    /// What went last.
    #[cfg(plant)]
    again: BytesMut,
}

impl LaneBuffer {
    #[cfg(any(test, fuzzing, feature = "audit"))]
    fn large(&self) -> impl Iterator<Item = &Large> {
        self.whole.iter().chain(&self.waiting).chain(&self.begun)
    }

    fn large_queues(&mut self) -> [&mut VecDeque<Large>; 3] {
        [&mut self.whole, &mut self.waiting, &mut self.begun]
    }
}

/// What a call of `transmit` has let go.
#[derive(Debug, Default)]
pub(crate) struct Transmitted {
    /// Large messages that have gone completely: who waited for that, and their size.
    pub(crate) finished: Vec<(Then, usize)>,
}

/// A large body that will not be sent to its end.
#[derive(Debug)]
pub(crate) struct Dropped {
    /// Whether the peer has seen the beginning.
    pub(crate) begun: bool,
    /// The size of the whole body.
    pub(crate) total: usize,
    /// Who waited for its end.
    pub(crate) then: Option<Then>,
}

/// Control frames and small ones behind them are copied together up to this: one slice to write
/// costs less than two.
const JOINED: usize = 2048;
/// A buffer that has sent no more than this is used again, and kept by an idle connection.
const KEPT: usize = 1024;

/// The room that a buffer has at first is not more than this.
const MOST_USUAL: usize = 64 * 1024;

/// Large bodies of a lane that are under way at once. A peer takes 256, of both lanes together.
const MAX_BEGUN: usize = 64;

impl Lanes {
    pub(crate) fn new() -> Self {
        Self {
            control: BytesMut::new(),
            small: 0,
            large: 0,
            answers: 0,
            answer_bytes: 0,
            lanes: [LaneBuffer::default(), LaneBuffer::default()],
            last_stream: 0,
            chunk: 0,
            budget: 0,
            under_way: [0; 2],
        }
    }

    /// What the peer takes: the payload of a frame, and large bodies under way at once.
    pub(crate) fn set_limits(&mut self, frame: usize, assembly: usize) {
        self.chunk = frame;
        self.budget = assembly;
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
        let whole = HEADER.saturating_add(length);
        if is_answer(kind as u8) {
            buffer.answers = buffer.answers.saturating_add(1);
            buffer.answer_bytes = buffer.answer_bytes.saturating_add(whole);
            self.answers = self.answers.saturating_add(1);
            self.answer_bytes = self.answer_bytes.saturating_add(whole);
        }
        self.small = self.small.saturating_add(whole);
        if buffer.ready.capacity() == 0 {
            buffer.ready.reserve(whole.max(buffer.usual));
        }
        frame::put_header(&mut buffer.ready, length, kind, flags, message);
        buffer.ready.put_slice(fields);
        buffer.ready.put_slice(body);
        offset
    }

    /// Writes small frames that are ready into a lane: none of them is an answer.
    pub(crate) fn put_frames(&mut self, lane: usize, frames: &[u8]) {
        let Some(buffer) = self.lanes.get_mut(lane) else { return };
        if buffer.ready.capacity() == 0 {
            buffer.ready.reserve(frames.len().max(buffer.usual));
        }
        buffer.ready.put_slice(frames);
        self.small = self.small.saturating_add(frames.len());
    }

    pub(crate) fn put_large(
        &mut self,
        lane: usize,
        head: FirstFrame,
        body: Rope,
        then: Option<Then>,
        call: Option<u64>,
    ) {
        let next = lane == 0 || !planted!(StreamAgain);
        self.last_stream = self.last_stream.wrapping_add(u32::from(next));
        let (stream, total) = (self.last_stream, body.len());
        if is_answer(head.kind as u8) {
            self.answers = self.answers.saturating_add(1);
            self.answer_bytes = self.answer_bytes.saturating_add(total);
        }
        let whole = head.fields.len().saturating_add(total) <= self.chunk;
        let large = Large { stream, head: Some(head), body, total, whole, then, call };
        if let Some(buffer) = self.lanes.get_mut(lane) {
            let queue = if whole { &mut buffer.whole } else { &mut buffer.waiting };
            queue.push_back(large);
            self.large = self.large.saturating_add(1);
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
                *byte = if planted!(SkipForgotten) { *byte } else { Kind::Skip as u8 };
                true
            }
            None => false,
        }
    }

    /// Stops sending a large message. `None` if it has gone, or was none.
    pub(crate) fn drop_large(&mut self, call: u64) -> Option<Dropped> {
        let numbered = self.lanes.iter_mut().enumerate();
        let queues = numbered.flat_map(|(i, lane)| lane.large_queues().map(|queue| (i, queue)));
        for (lane, queue) in queues {
            if let Some(place) = queue.iter().position(|large| large.call == Some(call)) {
                let large = queue.remove(place)?;
                self.large = self.large.saturating_sub(1);
                let begun = large.head.is_none();
                if begun {
                    sub(&mut self.under_way, lane, large.total);
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
        let mut waiting = self.lanes.iter().flat_map(|lane| lane.whole.iter().chain(&lane.waiting));
        waiting.any(|large| large.call == Some(call))
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.control.is_empty() && self.small == 0 && self.large == 0
    }

    /// Whether every small frame of a lane has gone out.
    pub(crate) fn ready_is_empty(&self, lane: usize) -> bool {
        self.lanes.get(lane).is_none_or(|buffer| buffer.ready.is_empty())
    }

    /// Bytes of control frames that wait for the socket.
    pub(crate) fn control_len(&self) -> usize {
        self.control.len()
    }

    /// Answers that wait for the socket.
    pub(crate) fn answers(&self) -> usize {
        self.answers
    }

    /// Their bytes. A large one counts until its last byte has gone.
    pub(crate) fn answer_bytes(&self) -> usize {
        self.answer_bytes
    }

    /// Moves about `budget` bytes out, in the order of the lanes.
    pub(crate) fn transmit(&mut self, budget: usize, out: &mut VecDeque<Bytes>) -> Transmitted {
        let mut result = Transmitted::default();
        let mut left = budget;
        let mut before = std::mem::take(&mut self.control);
        for lane in 0..self.lanes.len() {
            if left <= before.len() || self.small == 0 && self.large == 0 {
                break;
            }
            if !self.ready_is_empty(lane) {
                let part = self.take_ready(lane, left.saturating_sub(before.len()));
                if !before.is_empty() && before.len().saturating_add(part.len()) <= JOINED {
                    before.put_slice(&part);
                } else {
                    push(out, &mut left, std::mem::replace(&mut before, part));
                }
            }
            push(out, &mut left, std::mem::take(&mut before));
            if self.large > 0 {
                left = self.transmit_large(lane, left, out, &mut result);
            }
        }
        push(out, &mut left, before);
        result
    }

    /// Parts of a lane's large bodies, up to `left` bytes; what is left of those.
    #[inline(never)]
    fn transmit_large(
        &mut self,
        lane: usize,
        mut left: usize,
        out: &mut VecDeque<Bytes>,
        result: &mut Transmitted,
    ) -> usize {
        while left > 0
            && let Some(large) = self.next_large(lane)
        {
            let before = large.body.len();
            let large = send_part(large, lane, self.chunk, out);
            left = left.saturating_sub(before.saturating_sub(large.body.len()).max(1));
            if large.body.is_empty() {
                self.finished(lane, &large, result);
            } else if let Some(buffer) = self.lanes.get_mut(lane) {
                buffer.begun.push_back(large);
            }
        }
        left
    }

    /// Small frames of a lane that go now.
    fn take_ready(&mut self, lane: usize, left: usize) -> BytesMut {
        let Some(buffer) = self.lanes.get_mut(lane) else { return BytesMut::new() };
        let (answers, answer_bytes) = (buffer.answers, buffer.answer_bytes);
        let part = take_ready(buffer, left);
        let answers = answers.saturating_sub(buffer.answers);
        let answer_bytes = answer_bytes.saturating_sub(buffer.answer_bytes);
        self.answers = self.answers.saturating_sub(answers);
        self.answer_bytes = self.answer_bytes.saturating_sub(answer_bytes);
        self.small = self.small.saturating_sub(part.len());
        part
    }

    fn finished(&mut self, lane: usize, large: &Large, result: &mut Transmitted) {
        self.large = self.large.saturating_sub(1);
        if !large.whole {
            sub(&mut self.under_way, lane, large.total);
        }
        match large.then {
            Some(then) => result.finished.push((then, large.total)),
            None => {
                self.answers = self.answers.saturating_sub(1);
                self.answer_bytes = self.answer_bytes.saturating_sub(large.total);
            }
        }
    }

    /// The large body whose turn it is. Those of one frame go in between the others, of which new
    /// ones begin as long as the peer has room for them.
    fn next_large(&mut self, lane: usize) -> Option<Large> {
        let begins = self.may_begin(lane);
        let buffer = self.lanes.get_mut(lane)?;
        let others = begins || !buffer.begun.is_empty();
        let yields = buffer.whole.is_empty() || buffer.whole_was_last && others;
        buffer.whole_was_last = !yields;
        if !yields {
            return buffer.whole.pop_front();
        }
        if begins && let Some(large) = buffer.waiting.pop_front() {
            if let Some(under_way) = self.under_way.get_mut(lane) {
                *under_way = under_way.saturating_add(large.total);
            }
            return Some(large);
        }
        buffer.begun.pop_front()
    }

    /// Whether the next large body of a lane may begin: within what the peer takes, or alone. Bulk
    /// leaves half of that to the normal lane, and all of it while a normal body waits for room: so
    /// what is under way comes to its end, and that one's turn.
    fn may_begin(&self, lane: usize) -> bool {
        let Some(buffer) = self.lanes.get(lane) else { return false };
        let Some(next) = buffer.waiting.front() else { return false };
        let [normal, bulk] = self.under_way;
        let together = normal.saturating_add(bulk);
        if buffer.begun.len() >= MAX_BEGUN {
            return false;
        }
        if together == 0 {
            return true;
        }
        let normal_waits = self.lanes.first().is_some_and(|normal| !normal.waiting.is_empty());
        let fits = |under_way: usize, most| under_way.saturating_add(next.total) <= most;
        let yields = lane == 1 && (normal_waits || !fits(bulk, self.budget / 2));
        fits(together, self.budget) && !yields
    }

    /// The large messages that have not gone out wholly: who waits for that, and their size.
    #[cfg(any(test, fuzzing, feature = "audit"))]
    pub(crate) fn requests(&self) -> impl Iterator<Item = (Then, usize)> {
        let large = self.lanes.iter().flat_map(LaneBuffer::large);
        large.filter_map(|large| large.then.map(|then| (then, large.total)))
    }

    /// Whether what is under way is what has begun, and the answers are those that wait.
    #[cfg(any(test, fuzzing, feature = "audit"))]
    pub(crate) fn is_counted(&self) -> bool {
        let begun = |lane: &LaneBuffer| lane.begun.iter().map(|large| large.total).sum::<usize>();
        let large = || self.lanes.iter().flat_map(LaneBuffer::large);
        let answers: usize = self.lanes.iter().map(|lane| lane.answers).sum();
        let large_answers = large().filter(|large| large.then.is_none()).count();
        self.lanes.each_ref().map(begun) == self.under_way
            && answers.saturating_add(large_answers) == self.answers
            && large().count() == self.large
            && self.lanes.iter().map(|lane| lane.ready.len()).sum::<usize>() == self.small
            && self.lanes.iter().all(|lane| lane.begun.len() <= MAX_BEGUN)
    }

    /// Forgets everything: the connection is gone.
    pub(crate) fn clear(&mut self) {
        self.control.clear();
        self.under_way = [0; 2];
        (self.answers, self.answer_bytes) = (0, 0);
        for lane in &mut self.lanes {
            // What was ready has not gone; the offsets of its frames must not look as if it had.
            if !planted!(FramesKept) {
                lane.ready.clear();
            }
            #[cfg(plant)]
            if planted!(SentAgain) {
                lane.ready = std::mem::take(&mut lane.again);
            }
            (lane.answers, lane.answer_bytes) = (0, 0);
            lane.large_queues().into_iter().for_each(VecDeque::clear);
        }
        self.small = self.lanes.iter().map(|lane| lane.ready.len()).sum();
        self.large = 0;
    }
}

fn sub(under_way: &mut [usize; 2], lane: usize, bytes: usize) {
    if let Some(under_way) = under_way.get_mut(lane) {
        *under_way = under_way.saturating_sub(bytes);
    }
}

fn push(out: &mut VecDeque<Bytes>, left: &mut usize, bytes: BytesMut) {
    if !bytes.is_empty() {
        *left = left.saturating_sub(bytes.len());
        out.push_back(bytes.freeze());
    }
}

fn is_answer(kind: u8) -> bool {
    kind == Kind::Reply as u8 || kind == Kind::Failure as u8
}

/// Takes whole frames out of a lane's buffer, all of them if they fit.
fn take_ready(lane: &mut LaneBuffer, left: usize) -> BytesMut {
    let part = if lane.ready.len() <= left.saturating_mul(2) {
        (lane.answers, lane.answer_bytes) = (0, 0);
        lane.usual = lane.ready.len().min(MOST_USUAL);
        if lane.ready.len() <= KEPT {
            lane.ready.split()
        } else {
            // What stayed of it would keep its memory.
            std::mem::take(&mut lane.ready)
        }
    } else {
        let mut end = 0_usize;
        while end < left
            && let Some(header) = lane.ready.get(end..).and_then(Header::read)
        {
            let whole = HEADER.saturating_add(header.length);
            end = end.saturating_add(whole);
            if is_answer(header.kind) {
                lane.answers = lane.answers.saturating_sub(1);
                lane.answer_bytes = lane.answer_bytes.saturating_sub(whole);
            }
        }
        lane.ready.split_to(end.min(lane.ready.len()))
    };
    lane.gone = lane.gone.saturating_add(part.len() as u64);
    #[cfg(plant)]
    if planted!(SentAgain) {
        lane.again = part.clone();
    }
    part
}
