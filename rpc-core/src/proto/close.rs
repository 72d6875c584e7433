//! Why a connection ends, as both sides say it.

use crate::error::{ErrorKind, RpcError, shortened};
use crate::message::Encoding;
use crate::remote_failure::MAX_FAILURE_TEXT;
use crate::wire::frame::{self, Kind};
use crate::wire::payload;
use crate::wire::prescan::PrescanLimits;
use bytes::BytesMut;
use serde::{Deserialize, Serialize};
use std::fmt;

/// The numbers of the reasons; they never change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u16)]
#[non_exhaustive]
pub enum CloseCode {
    /// The peer broke the protocol.
    Protocol = 1,
    /// No common version.
    Version = 2,
    /// A frame or message over the limit.
    TooLarge = 3,
    /// The hello made no sense.
    Hello = 4,
    /// A call number that is in use.
    DuplicateId = 5,
    /// The env shuts down.
    Shutdown = 6,
    /// Too many connections.
    Overloaded = 7,
    /// A window was overrun.
    Credit = 8,
    /// Something took too long.
    Timeout = 9,
    /// Another connection of the two is the one that counts: both sides have dialled at once.
    Duplicate = 10,
}

/// Why a connection ends.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Close {
    /// The reason's number; numbers of later versions are kept as they are.
    pub code: u16,
    /// For people; what a peer says of it is cut to 4096 bytes.
    pub text: String,
}

#[derive(Serialize, Deserialize)]
struct OnTheWire {
    code: u16,
    #[serde(default)]
    text: String,
}

impl Close {
    /// A reason with its text.
    pub fn new(code: CloseCode, text: impl Into<String>) -> Self {
        Self { code: code as u16, text: shortened(text.into(), MAX_FAILURE_TEXT) }
    }

    pub(crate) fn protocol(text: impl Into<String>) -> Self {
        Self::new(CloseCode::Protocol, text)
    }

    /// Whether it is that reason.
    #[must_use]
    pub fn is(&self, code: CloseCode) -> bool {
        self.code == code as u16
    }

    /// Writes the magic and the frame: the answer to a hello that is not taken.
    pub fn put_answer(&self, into: &mut BytesMut) {
        into.extend_from_slice(&frame::MAGIC);
        self.put(into);
    }

    /// Writes the frame.
    pub fn put(&self, into: &mut BytesMut) {
        let wire = OnTheWire { code: self.code, text: self.text.clone() };
        if let Ok(body) = payload::to_vec(&wire, Encoding::Named, usize::MAX) {
            frame::put_control(into, Kind::Close, &[], &body);
        }
    }

    pub(crate) fn read(payload_bytes: &[u8]) -> Self {
        match payload::decode::<OnTheWire>(payload_bytes, &PrescanLimits::default()) {
            Ok(wire) => {
                let text = shortened(format!("the peer says: {}", wire.text), MAX_FAILURE_TEXT);
                Self { code: wire.code, text }
            }
            Err(_) => Self::protocol("the peer closed the connection without a readable reason"),
        }
    }

    /// The error of calls that this ends.
    #[must_use]
    pub fn to_error(&self, peer: &str) -> RpcError {
        let kind = if self.is(CloseCode::Version) {
            ErrorKind::VersionMismatch
        } else if [CloseCode::Shutdown, CloseCode::Timeout, CloseCode::Duplicate]
            .into_iter()
            .any(|code| self.is(code))
        {
            ErrorKind::Disconnected
        } else if self.is(CloseCode::Overloaded) {
            ErrorKind::Overloaded
        } else {
            ErrorKind::Protocol
        };
        RpcError::new(kind, format!("the connection to {peer} was closed: {}", self.text))
    }
}

impl fmt::Display for Close {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} (close code {})", self.text, self.code)
    }
}
