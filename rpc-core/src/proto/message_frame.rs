//! The frame of a message as it comes: what it says before the body, and the body.

use super::bodies::IncomingMessage;
use super::close::Close;
use super::headers;
use crate::deadline::Timestamp;
use crate::message::Lane;
use crate::wire::frame::{FLAG_BULK, FLAG_FIRST, FLAG_HEADERS, FLAG_NAMED, Header, Kind};
use crate::wire::read::Reader;
use bytes::Bytes;
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
        let deadline =
            if kind == Kind::Ask { deadline(now, reader.u32()?) } else { Timestamp::MAX };
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

/// The same of a frame without flags, which most are.
pub(super) struct Plain<'a> {
    pub(super) call: Option<u64>,
    pub(super) target: u32,
    /// The time that is left, in milliseconds; none of a message that is not an ask.
    left: Option<u32>,
    pub(super) body: &'a [u8],
}

impl<'a> Plain<'a> {
    /// `None` if the frame ends early.
    pub(super) fn read(kind: Kind, payload: &'a [u8]) -> Option<Self> {
        match kind {
            Kind::Reply => {
                let (call, body) = payload.split_first_chunk()?;
                let call = Some(u64::from_be_bytes(*call));
                Some(Self { call, target: 0, left: None, body })
            }
            Kind::Ask => {
                let (call, rest) = payload.split_first_chunk()?;
                let (target, rest) = rest.split_first_chunk()?;
                let (left, body) = rest.split_first_chunk()?;
                let (call, target) = (u64::from_be_bytes(*call), u32::from_be_bytes(*target));
                Some(Self { call: Some(call), target, left: Some(u32::from_be_bytes(*left)), body })
            }
            _ => {
                let (target, body) = payload.split_first_chunk()?;
                Some(Self { call: None, target: u32::from_be_bytes(*target), left: None, body })
            }
        }
    }

    /// When its caller stops waiting.
    pub(super) fn deadline(&self, now: Timestamp) -> Timestamp {
        self.left.map_or(Timestamp::MAX, |left| deadline(now, left))
    }
}

/// When a caller stops waiting who has so many milliseconds left.
fn deadline(now: Timestamp, left: u32) -> Timestamp {
    now.saturating_add(Duration::from_millis(u64::from(left)).min(MAX_REMAINING))
}
