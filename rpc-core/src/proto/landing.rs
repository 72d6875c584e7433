//! Parts of large bodies that are taken before their frame is whole: read straight into the buffer in
//! which the body is put together.

use super::assembly::FirstPart;
use super::close::Close;
use super::incoming::Event;
use super::known::known_kind;
use super::message_frame::MessageFrame;
use super::session::Session;
use crate::deadline::Timestamp;
use crate::wire::frame::{FLAG_FIRST, HEADER, Header, Kind};
use crate::wire::read::Reader;
use bytes::buf::Limit;
use bytes::{Buf, BufMut, BytesMut};

/// A place for the rest of a frame that is a part of a large body.
#[derive(Debug)]
pub struct Landing {
    stream: u32,
    buffer: Vec<u8>,
    /// The length of `buffer` when the frame is whole.
    end: usize,
}

/// How far what has come was taken.
#[derive(Debug, Default)]
#[non_exhaustive]
pub struct Taken {
    /// Where what comes next is to be read into.
    pub landing: Option<Landing>,
    /// Whether whole frames are left: they are more work than was allowed.
    pub more: bool,
}

impl Landing {
    /// Room for what is still to come, and for no more.
    pub fn room(&mut self) -> Limit<&mut Vec<u8>> {
        let left = self.left();
        (&mut self.buffer).limit(left)
    }

    fn left(&self) -> usize {
        self.end.saturating_sub(self.buffer.len())
    }
}

impl Session {
    /// As [`receive`](Self::receive), for whoever reads into a landing as long as there is one: what
    /// comes next belongs into the one that is returned, instead of behind `bytes`. Frames are taken as
    /// long as there is `work` left, in tens of nanoseconds or so, which they use up: control frames are
    /// small, and a read of them could keep others waiting for long. If there are more, call it again
    /// before anything is read.
    ///
    /// # Errors
    /// As [`receive`](Self::receive).
    pub fn receive_with(
        &mut self,
        now: Timestamp,
        landing: Option<Landing>,
        bytes: &mut BytesMut,
        events: &mut Vec<Event>,
        work: &mut usize,
    ) -> Result<Taken, Close> {
        if let Some(landing) = landing {
            let left = landing.left();
            if left > 0 {
                self.pulse.heard(now);
                return Ok(Taken { landing: Some(landing), more: false });
            }
            self.middle = None;
            if let Some((message, body)) = self.assemblies.take_back(landing.stream, landing.buffer)
            {
                self.arrived(now, message, body, events)?;
            }
        }
        let more = self.take(now, bytes, events, work)?;
        let landing = self.middle.and_then(|(stream, left)| {
            let buffer = self.assemblies.lend(stream)?;
            Some(Landing { stream, end: buffer.len().saturating_add(left), buffer })
        });
        Ok(Taken { landing, more })
    }

    /// Begins with a frame that is not whole, if it is a part of a large body.
    pub(super) fn land(
        &mut self,
        now: Timestamp,
        header: Header,
        bytes: &mut BytesMut,
        events: &mut Vec<Event>,
    ) -> Result<bool, Close> {
        let kind = known_kind(header)?;
        let mut reader = Reader::new(bytes);
        let _ = reader.take(HEADER);
        let stream = match kind {
            Kind::Chunk => reader.u32(),
            Kind::OneWay | Kind::Ask | Kind::Reply if header.flags & FLAG_FIRST != 0 => {
                match MessageFrame::read(now, kind, header, &mut reader).transpose()? {
                    Some(MessageFrame { message: what, large: Some((stream, total)) }) => {
                        self.begin(FirstPart { stream, total, what }, events)?;
                        Some(stream)
                    }
                    _ => None,
                }
            }
            _ => None,
        };
        let Some(stream) = stream else { return Ok(false) };
        let left = HEADER.saturating_add(header.length).saturating_sub(reader.position());
        self.assemblies.expect(stream, left)?;
        bytes.advance(reader.position());
        self.middle = Some((stream, left));
        self.pulse.partial(now, true);
        Ok(true)
    }

    /// Takes what has come of a frame that was begun with. `false` if it is in the middle still.
    pub(super) fn fill(
        &mut self,
        now: Timestamp,
        bytes: &mut BytesMut,
        events: &mut Vec<Event>,
    ) -> Result<bool, Close> {
        let Some((stream, left)) = self.middle else { return Ok(true) };
        let length = left.min(bytes.len());
        let part = bytes.get(..length).unwrap_or_default();
        self.middle = (length < left).then(|| (stream, left.saturating_sub(length)));
        let done = self.assemblies.add(stream, part)?;
        bytes.advance(length);
        if let Some((message, body)) = done {
            self.arrived(now, message, body, events)?;
        }
        if self.middle.is_none() {
            self.pulse.partial(now, false);
        }
        Ok(self.middle.is_none())
    }
}
