//! The frame of a message as it comes: what it says before the body, and the body.

use super::bodies::IncomingMessage;
use super::close::Close;
use super::headers;
use crate::deadline::Timestamp;
use crate::message::Lane;
use crate::wire::frame::{
    ALONE, FLAG_BULK, FLAG_FIRST, FLAG_HEADERS, FLAG_NAMED, HEADER, Header, Kind,
};
use crate::wire::read::Reader;
use bytes::{Buf, Bytes, BytesMut};
use std::sync::Arc;
use std::time::Duration;

/// A remaining time above this is cut to it (R38).
const MAX_REMAINING: Duration = crate::deadline::MAX_TIMEOUT;

/// What a message's frame says before the body.
pub(super) struct MessageFrame {
    pub(super) message: IncomingMessage,
    /// The number of its stream and the size of the whole body, if this is a first part.
    pub(super) large: Option<(u32, u64)>,
}

impl MessageFrame {
    /// `None` if the frame ends early.
    pub(super) fn read(
        now: Timestamp,
        kind: Kind,
        header: Header,
        reader: &mut Reader<'_>,
    ) -> Option<Result<Self, Close>> {
        let large = if header.flags & FLAG_FIRST != 0 {
            Some((reader.u32()?, reader.u64()?))
        } else {
            None
        };
        let call = if kind == Kind::OneWay { None } else { Some(reader.u64()?) };
        let target = if kind == Kind::Reply { 0 } else { reader.u32()? };
        let deadline = if kind == Kind::Ask {
            let left = Duration::from_millis(u64::from(reader.u32()?)).min(MAX_REMAINING);
            now.saturating_add(left)
        } else {
            Timestamp::MAX
        };
        let name = match header.flags & FLAG_NAMED {
            0 => None,
            _ => Some(Arc::from(reader.short_text()?)),
        };
        if name.as_deref() == Some("") {
            return Some(Err(Close::protocol("a message with a name of no bytes")));
        }
        let trace = if header.flags & FLAG_HEADERS != 0 {
            match headers::read(reader)? {
                Ok(trace) => trace,
                Err(close) => return Some(Err(close)),
            }
        } else {
            None
        };
        let message = IncomingMessage {
            target,
            number: header.message,
            name,
            lane: if header.flags & FLAG_BULK != 0 { Lane::Bulk } else { Lane::Normal },
            call,
            deadline,
            trace,
            body: Bytes::new(),
            in_parts: large.is_some(),
            reply: kind == Kind::Reply,
        };
        Some(Ok(Self { message, large }))
    }
}

/// Takes a frame off the bytes that have come; its body, which begins at `at` of the payload. A
/// small one that came alone is copied: it costs one allocation, and the buffer stays whole.
pub(super) fn take_body(bytes: &mut BytesMut, at: usize, whole: usize) -> Bytes {
    let begin = HEADER.saturating_add(at);
    if whole == bytes.len() && whole <= ALONE {
        let body = Bytes::copy_from_slice(bytes.get(begin..).unwrap_or_default());
        bytes.clear();
        return body;
    }
    bytes.advance(begin);
    bytes.split_to(whole.saturating_sub(begin)).freeze()
}
