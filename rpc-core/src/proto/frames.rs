//! Frames are taken off what was read.

use super::close::{Close, CloseCode};
use super::incoming::{Event, need};
use super::known::known_kind;
use super::message_frame::{MessageFrame, Plain};
use super::session::Session;
use crate::deadline::Timestamp;
use crate::wire::frame::{HEADER, Header, Kind, is_alone};
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
        self.pulse.heard(now);
        loop {
            if !self.fill(now, bytes, events)? {
                return Ok(());
            }
            let whole = whole_frames(bytes);
            if whole > 0 {
                self.pulse.partial(now, false);
                if !self.frames(now, bytes, whole, events)? {
                    // Nothing may follow, and what does is not for us.
                    bytes.clear();
                    return Ok(());
                }
            }
            // The beginning of a frame, or nothing.
            let Some(header) = Header::read(bytes) else {
                self.pulse.partial(now, !bytes.is_empty());
                return Ok(());
            };
            self.check_length(header)?;
            if !self.land(now, header, bytes, events)? {
                let whole = HEADER.saturating_add(header.length);
                bytes.reserve(whole.saturating_sub(bytes.len()));
                self.pulse.partial(now, true);
                return Ok(());
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
            let next = self.frame_at(now, bytes, 0, Bytes::copy_from_slice, events);
            bytes.clear();
            return next.map(|next| next.is_some());
        }
        let frames = bytes.split_to(whole).freeze();
        let mut at = 0_usize;
        while at < whole {
            match self.frame_at(now, &frames, at, |body| frames.slice_ref(body), events)? {
                Some(next) => at = next,
                None => return Ok(false),
            }
        }
        Ok(true)
    }

    /// One frame, whose body is kept by `keep`; where the next one begins, if there may be one.
    fn frame_at(
        &mut self,
        now: Timestamp,
        bytes: &[u8],
        at: usize,
        keep: impl FnOnce(&[u8]) -> Bytes,
        events: &mut Vec<Event>,
    ) -> Result<Option<usize>, Close> {
        let rest = bytes.get(at..).unwrap_or_default();
        let Some((header, payload)) = Header::split(rest) else { return Ok(None) };
        self.check_length(header)?;
        let kind = known_kind(header)?;
        let next = at.saturating_add(HEADER).saturating_add(header.length);
        if !matches!(kind, Kind::OneWay | Kind::Ask | Kind::Reply) {
            self.frame(now, kind, payload, events)?;
            return Ok((kind != Kind::Close).then_some(next));
        }
        if header.flags == 0 {
            self.plain_message(now, kind, header.message, payload, keep, events)?;
        } else {
            let mut reader = Reader::new(payload);
            let frame = need(MessageFrame::read(now, kind, header, &mut reader), kind)??;
            self.message(now, frame, keep(reader.rest()), events)?;
        }
        Ok(Some(next))
    }

    /// A message as most come: whole, with a number, in the normal lane, without headers.
    fn plain_message(
        &mut self,
        now: Timestamp,
        kind: Kind,
        number: u16,
        payload: &[u8],
        keep: impl FnOnce(&[u8]) -> Bytes,
        events: &mut Vec<Event>,
    ) -> Result<(), Close> {
        let plain = need(Plain::read(kind, payload), kind)?;
        self.assemblies.allow(plain.body.len())?;
        if let (Kind::Reply, Some(id)) = (kind, plain.call) {
            return self.answered(now, id, Ok(keep(plain.body)));
        }
        if let Some(id) = plain.call {
            self.serving.open(id)?;
        }
        let body = keep(plain.body);
        events.push(Event::Message(plain.into_message(now, number, body)));
        Ok(())
    }
}

/// How many bytes the whole frames at the front have. Those that are too long are seen when their turn
/// comes.
fn whole_frames(bytes: &[u8]) -> usize {
    let mut end = 0_usize;
    while let Some((header, _)) = bytes.get(end..).and_then(Header::split) {
        end = end.saturating_add(HEADER).saturating_add(header.length);
    }
    end
}
