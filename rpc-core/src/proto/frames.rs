//! Frames are taken off what was read.

use super::arrivals::Arrivals;
use super::bodies::IncomingMessage;
use super::close::{Close, CloseCode};
use super::incoming::{Event, need};
use super::known::{known_kind, plain_kind};
use super::message_frame::{MessageFrame, Plain};
use super::session::Session;
use crate::deadline::Timestamp;
use crate::wire::frame::{FLAG_FIRST, HEADER, Header, Kind, is_alone};
use crate::wire::read::Reader;
use bytes::{Bytes, BytesMut};

impl Session {
    /// Takes what has arrived: whole frames are taken off `bytes`, the rest stays. Events come in
    /// the order of the frames.
    ///
    /// # Errors
    /// What to close the connection with: the peer broke the protocol.
    pub fn receive(
        &mut self,
        now: Timestamp,
        bytes: &mut BytesMut,
        events: &mut Vec<Event>,
    ) -> Result<(), Close> {
        self.take(now, bytes, events, &mut { usize::MAX }).map(drop)
    }

    /// The same, until no work is left; whether whole frames are left then.
    pub(super) fn take(
        &mut self,
        now: Timestamp,
        bytes: &mut BytesMut,
        events: &mut Vec<Event>,
        work: &mut usize,
    ) -> Result<bool, Close> {
        self.pulse.heard(now);
        loop {
            if !self.fill(now, bytes, events)? {
                return Ok(false);
            }
            let (whole, more) = whole_frames(bytes, work);
            if whole > 0 {
                self.pulse.partial(now, false);
                if !self.frames(now, bytes, whole, events)? {
                    // Nothing may follow, and what does is not for us.
                    bytes.clear();
                    return Ok(false);
                }
            }
            if more {
                return Ok(true);
            }
            // The beginning of a frame, or nothing.
            let Some(header) = Header::read(bytes) else {
                self.pulse.partial(now, !bytes.is_empty());
                return Ok(false);
            };
            self.check_length(header)?;
            if !self.land(now, header, bytes, events)? {
                let whole = HEADER.saturating_add(header.length);
                bytes.reserve(whole.saturating_sub(bytes.len()));
                self.pulse.partial(now, true);
                return Ok(false);
            }
        }
    }

    fn check_length(&self, header: Header) -> Result<(), Close> {
        let max = self.limits.frame_max_size();
        if header.length <= max {
            return Ok(());
        }
        let text = format!(
            "a frame of {} bytes is over the limit of {max} (rpc.frame.maxSize)",
            header.length
        );
        Err(Close::new(CloseCode::TooLarge, text))
    }

    /// Takes whole frames off, which share the buffer of all of them; `false` if one of them was the
    /// last that the peer says. A small one that came alone is copied: it costs one allocation, and
    /// the buffer stays whole.
    fn frames(
        &mut self,
        now: Timestamp,
        bytes: &mut BytesMut,
        whole: usize,
        events: &mut Vec<Event>,
    ) -> Result<bool, Close> {
        if is_alone(bytes) {
            let mut found = Found { together: None, events };
            let next = self.frame_at(now, bytes, 0, &mut found);
            bytes.clear();
            return next.map(|next| next.is_some());
        }
        let frames = bytes.split_to(whole).freeze();
        let mut found = Found { together: Some(Arrivals::new(frames.clone())), events };
        let mut at = 0_usize;
        while at < whole {
            match self.frame_at(now, &frames, at, &mut found)? {
                Some(next) => at = next,
                None => return Ok(false),
            }
        }
        Ok(true)
    }

    /// One frame; where the next one begins, if there may be one.
    fn frame_at(
        &mut self,
        now: Timestamp,
        bytes: &[u8],
        at: usize,
        found: &mut Found<'_>,
    ) -> Result<Option<usize>, Close> {
        let rest = bytes.get(at..).unwrap_or_default();
        let Some((header, payload)) = Header::split(rest) else { return Ok(None) };
        self.check_length(header)?;
        let next = at.saturating_add(HEADER).saturating_add(header.length);
        if let Some(kind) = plain_kind(header) {
            self.plain_message(now, kind, header.message, payload, next, found)?;
            return Ok(Some(next));
        }
        let kind = known_kind(header)?;
        if !matches!(kind, Kind::OneWay | Kind::Ask | Kind::Reply) {
            self.frame(now, kind, payload, found.events())?;
            return Ok((kind != Kind::Close).then_some(next));
        }
        let mut reader = Reader::new(payload);
        let frame = need(MessageFrame::read(now, kind, header, &mut reader), kind)??;
        self.message(now, frame, found.keep(reader.rest()), found.events())?;
        Ok(Some(next))
    }

    /// A message as most come: whole, with a number, in the normal lane, without headers.
    #[inline]
    fn plain_message(
        &mut self,
        now: Timestamp,
        kind: Kind,
        number: u16,
        payload: &[u8],
        frame_end: usize,
        found: &mut Found<'_>,
    ) -> Result<(), Close> {
        let plain = need(Plain::read(kind, payload), kind)?;
        self.assemblies.allow(plain.body.len())?;
        if let (Kind::Reply, Some(id)) = (kind, plain.call) {
            return self.answered_by(now, id, false, || Ok(found.keep(plain.body)));
        }
        if let Some(id) = plain.call {
            self.serving.open(id)?;
        }
        found.message(now, number, &plain, frame_end);
        Ok(())
    }
}

/// What was found in frames that were read together. Messages in a row to the same target become one
/// event.
struct Found<'a> {
    /// The row that is not an event yet; none where a frame came alone.
    together: Option<Arrivals>,
    events: &'a mut Vec<Event>,
}

impl Found<'_> {
    /// A body that is needed for longer.
    fn keep(&self, body: &[u8]) -> Bytes {
        match &self.together {
            Some(row) => row.keep(body),
            None => Bytes::copy_from_slice(body),
        }
    }

    fn message(&mut self, now: Timestamp, number: u16, plain: &Plain<'_>, frame_end: usize) {
        let Some(row) = &mut self.together else {
            let (body, deadline) = (Bytes::copy_from_slice(plain.body), plain.deadline(now));
            let message = IncomingMessage::plain(plain.target, number, plain.call, deadline, body);
            return self.events.push(Event::Message(message));
        };
        if !row.takes(plain.target) {
            self.end_row();
        }
        if let Some(row) = &mut self.together {
            row.add(now, number, plain, frame_end);
        }
    }

    /// The messages in a row are an event.
    fn end_row(&mut self) {
        let Some(row) = self.together.as_mut().filter(|row| !row.is_empty()) else { return };
        self.events.push(match row.take_only() {
            Some(only) => Event::Message(only),
            None => Event::Messages(row.take()),
        });
    }

    /// Where an event belongs that comes next.
    fn events(&mut self) -> &mut Vec<Event> {
        self.end_row();
        self.events
    }
}

/// However reading ends, what was found before is told.
impl Drop for Found<'_> {
    fn drop(&mut self) {
        self.end_row();
    }
}

/// How many bytes the whole frames at the front have, as many as there is `work` left for, and whether
/// there are others. Those that are too long are seen when their turn comes.
fn whole_frames(bytes: &[u8], work: &mut usize) -> (usize, bool) {
    let mut end = 0_usize;
    while let Some((header, _)) = bytes.get(end..).and_then(Header::split) {
        if *work == 0 {
            return (end, true);
        }
        *work = work.saturating_sub(work_of(header));
        end = end.saturating_add(HEADER).saturating_add(header.length);
    }
    (end, false)
}

/// What a frame costs whoever reads it, in tens of nanoseconds or so. Nothing, if it carries a whole
/// message: how many of those may come is bounded by windows and calls in flight, and how long by bytes.
/// Replies may come to calls that are over.
fn work_of(header: Header) -> usize {
    match Kind::from_byte(header.kind) {
        Some(Kind::OneWay | Kind::Ask | Kind::Reply) if header.flags & FLAG_FIRST != 0 => 32,
        Some(Kind::OneWay | Kind::Ask) => 0,
        Some(Kind::Reply) => 2,
        Some(Kind::Resolve) => 256,
        Some(Kind::Resolved | Kind::Unresolved | Kind::Gone | Kind::Release | Kind::Failure) => 64,
        _ => 8,
    }
}
