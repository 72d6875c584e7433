//! Frames: eight bytes of header, then fields of fixed width, then a body. See `docs/WIRE.md`.

use bytes::{BufMut, BytesMut};

/// The first bytes in each direction of every connection.
pub const MAGIC: [u8; 4] = *b"ARPC";
/// Bytes before a frame's payload: length (u32), kind (u8), flags (u8), message number (u16),
/// all big-endian.
pub const HEADER: usize = 8;
/// A message whose frame comes alone and is no longer than this is copied out of the buffer that
/// it was read into, which is at once free for the next one.
pub const ALONE: usize = 4096;

/// Whether that is all there is.
#[must_use]
pub fn is_alone(bytes: &[u8]) -> bool {
    let header = Header::read(bytes);
    header.is_some_and(|header| HEADER.saturating_add(header.length) == bytes.len())
        && bytes.len() <= ALONE
}

/// What a frame is. Unknown kinds of 0x80 and above are skipped, others end the connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
#[non_exhaustive]
pub enum Kind {
    /// Who each side is; the first frame.
    Hello = 0x01,
    /// Asks for an endpoint by name.
    Resolve = 0x02,
    /// The endpoint is there: its messages, and a window.
    Resolved = 0x03,
    /// The endpoint is not there.
    Unresolved = 0x04,
    /// A resolved endpoint has ended.
    Gone = 0x05,
    /// The caller will use a target's number no more.
    Release = 0x06,
    /// A one-way message.
    OneWay = 0x10,
    /// A message that wants an answer.
    Ask = 0x11,
    /// An answer.
    Reply = 0x12,
    /// An error instead of an answer.
    Failure = 0x13,
    /// The caller gives up.
    Cancel = 0x14,
    /// A further part of a large body.
    Chunk = 0x15,
    /// The rest of a large body will not come.
    ChunkDrop = 0x16,
    /// More room in an endpoint's window.
    Credit = 0x20,
    /// Are you there?
    Ping = 0x30,
    /// Yes.
    Pong = 0x31,
    /// Nothing but a sign of life.
    Heartbeat = 0x32,
    /// The sender is going to close, in order.
    Goodbye = 0x38,
    /// The connection ends, and why.
    Close = 0x39,
    /// Nothing: a frame taken back before it was sent.
    Skip = 0x80,
}

impl Kind {
    /// The kind with that number.
    #[must_use]
    pub fn from_byte(byte: u8) -> Option<Self> {
        Some(match byte {
            0x01 => Self::Hello,
            0x02 => Self::Resolve,
            0x03 => Self::Resolved,
            0x04 => Self::Unresolved,
            0x05 => Self::Gone,
            0x06 => Self::Release,
            0x10 => Self::OneWay,
            0x11 => Self::Ask,
            0x12 => Self::Reply,
            0x13 => Self::Failure,
            0x14 => Self::Cancel,
            0x15 => Self::Chunk,
            0x16 => Self::ChunkDrop,
            0x20 => Self::Credit,
            0x30 => Self::Ping,
            0x31 => Self::Pong,
            0x32 => Self::Heartbeat,
            0x38 => Self::Goodbye,
            0x39 => Self::Close,
            byte if byte >= 0x80 => Self::Skip,
            _ => return None,
        })
    }
}

/// The body is the first part of a larger one: a stream number (u32) and the whole length (u64)
/// come before the frame's own fields.
pub const FLAG_FIRST: u8 = 0x01;
/// The message has no number: its name (u8 length, UTF-8) comes after the fixed fields.
pub const FLAG_NAMED: u8 = 0x02;
/// Headers (u16 length, a MessagePack map) come before the body of a message.
pub const FLAG_HEADERS: u8 = 0x04;
/// The message travels in the bulk lane.
pub const FLAG_BULK: u8 = 0x08;

/// Every flag that has a meaning.
pub const KNOWN_FLAGS: u8 = FLAG_FIRST | FLAG_NAMED | FLAG_HEADERS | FLAG_BULK;

/// The first eight bytes of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Header {
    /// Bytes that follow the header.
    pub length: usize,
    /// The kind's number.
    pub kind: u8,
    /// See the `FLAG_` constants.
    pub flags: u8,
    /// The number of the message, in frames that carry one.
    pub message: u16,
}

impl Header {
    /// Reads a header; `None` if there are fewer than eight bytes.
    #[must_use]
    pub fn read(bytes: &[u8]) -> Option<Self> {
        let [a, b, c, d, kind, flags, high, low] = *bytes.first_chunk::<HEADER>()?;
        let length = usize::try_from(u32::from_be_bytes([a, b, c, d])).ok()?;
        Some(Self { length, kind, flags, message: u16::from_be_bytes([high, low]) })
    }

    /// The first frame's header and payload; `None` if it is not whole.
    pub(crate) fn split(bytes: &[u8]) -> Option<(Self, &[u8])> {
        let header = Self::read(bytes)?;
        let payload = bytes.get(HEADER..HEADER.checked_add(header.length)?)?;
        Some((header, payload))
    }
}

/// Writes a frame's header for a payload of `length` bytes.
pub fn put_header(into: &mut BytesMut, length: usize, kind: Kind, flags: u8, message: u16) {
    into.put_slice(&header(length, kind, flags, message));
}

/// A frame's header for a payload of `length` bytes.
pub(crate) fn header(length: usize, kind: Kind, flags: u8, message: u16) -> [u8; HEADER] {
    let [a, b, c, d] = u32::try_from(length).unwrap_or(u32::MAX).to_be_bytes();
    let [high, low] = message.to_be_bytes();
    [a, b, c, d, kind as u8, flags, high, low]
}

/// Writes a whole frame whose payload is a number and a body.
pub fn put_control(into: &mut BytesMut, kind: Kind, fields: &[u8], body: &[u8]) {
    put_header(into, fields.len().saturating_add(body.len()), kind, 0, 0);
    into.put_slice(fields);
    into.put_slice(body);
}
