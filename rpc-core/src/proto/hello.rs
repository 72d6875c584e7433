//! The first thing both sides say: who they are and what they take.

use super::close::{Close, CloseCode};
use super::known::known_kind;
use crate::message::Encoding;
use crate::wire::frame::{self, HEADER, Header, Kind, MAGIC};
use crate::wire::payload;
use crate::wire::prescan::PrescanLimits;
use bytes::BytesMut;
use serde::{Deserialize, Serialize};
use std::time::Duration;

/// The version of the protocol that this library speaks, and the only one so far.
pub const PROTOCOL_VERSION: u16 = 1;

/// The smallest limit of a frame that a side may have: failures, and bodies that do not travel in
/// parts, fit into it whatever their fields are.
const LEAST_FRAME: u64 = 32 * 1024;

/// The capability of passing messages on to envs that are connected to this one.
pub(super) const RELAY: &str = "relay";

/// The capability of reading how an endpoint has ended.
pub(super) const ENDINGS: &str = "endings";

/// What this side can do besides version 1.
const CAPABILITIES: [&str; 3] = [super::headers::CAPABILITY, RELAY, ENDINGS];

/// What one side says of itself. Unknown keys are ignored, so that later versions may add some.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Hello {
    /// The lowest and highest version it speaks.
    pub versions: (u16, u16),
    /// The env's number, new at each start.
    pub env: u64,
    /// Where the env listens; `None` if it does not.
    #[serde(default)]
    pub address: Option<String>,
    /// What it can do besides the version's common part.
    #[serde(default)]
    pub capabilities: Vec<String>,
    /// What it takes.
    #[serde(default)]
    pub limits: PeerLimits,
    /// It sends something at least this often, in milliseconds; `None` if it may be silent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub heartbeat: Option<u32>,
    /// The address by which it has dialled the other side: it has no other connection by that one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dialled: Option<String>,
    /// The number of this connection, which no other has, if it has dialled.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub number: Option<u64>,
    /// The number of the connection that the other side had dialled, and that it has lost: this one takes its place.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub follows: Option<u64>,
}

/// What a side takes. The other side keeps to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
#[non_exhaustive]
pub struct PeerLimits {
    /// The largest frame, in bytes after the header.
    pub frame: u64,
    /// The largest body of a message or reply, in bytes.
    pub message: u64,
    /// Calls that may wait for their answer at once.
    pub in_flight: u32,
    /// The bytes of large bodies that may be under way at once.
    pub assembly: u64,
}

impl Default for PeerLimits {
    fn default() -> Self {
        let (message, assembly) = (16 * 1024 * 1024, 64 * 1024 * 1024);
        Self { frame: 256 * 1024, message, in_flight: 1024, assembly }
    }
}

impl PeerLimits {
    /// The limits of an env.
    #[must_use]
    pub fn of(limits: &crate::limits::Limits) -> Self {
        Self {
            frame: limits.frame_max_size() as u64,
            message: limits.message_max_size() as u64,
            in_flight: u32::try_from(limits.max_in_flight()).unwrap_or(u32::MAX),
            assembly: limits.max_assembly() as u64,
        }
    }
}

/// What both sides have agreed on.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct PeerInfo {
    /// The version in use.
    pub version: u16,
    /// The peer's hello.
    pub hello: Hello,
}

impl Hello {
    /// A hello of this library's version.
    #[must_use]
    pub fn new(env: u64, address: Option<String>, limits: PeerLimits) -> Self {
        let versions = (PROTOCOL_VERSION, PROTOCOL_VERSION);
        let capabilities = CAPABILITIES.map(str::to_owned).to_vec();
        let (heartbeat, dialled, number, follows) = (None, None, None, None);
        Self { versions, env, address, capabilities, limits, heartbeat, dialled, number, follows }
    }

    /// The same of a side that promises to send something at least this often.
    #[must_use]
    pub fn with_heartbeat(mut self, interval: Duration) -> Self {
        self.heartbeat = u32::try_from(interval.as_millis()).ok().filter(|millis| *millis > 0);
        self
    }

    /// The same of a side that has dialled this address.
    #[must_use]
    pub fn with_dialled(mut self, address: impl Into<String>) -> Self {
        self.dialled = Some(address.into());
        self
    }

    /// The same for a connection of that number, in the place of one that the other side had dialled.
    #[must_use]
    pub fn with_number(mut self, number: u64, follows: Option<u64>) -> Self {
        (self.number, self.follows) = (Some(number), follows);
        self
    }

    /// The same, speaking other versions: for tests of other versions.
    #[must_use]
    pub fn with_versions(mut self, lowest: u16, highest: u16) -> Self {
        self.versions = (lowest, highest);
        self
    }

    /// Whether the side can do that.
    pub(super) fn has(&self, capability: &str) -> bool {
        self.capabilities.iter().any(|known| known == capability)
    }

    /// Writes magic and hello.
    pub fn put(&self, into: &mut BytesMut) {
        into.extend_from_slice(&MAGIC);
        if let Ok(body) = payload::to_vec(self, Encoding::Named, usize::MAX) {
            frame::put_control(into, Kind::Hello, &[], &body);
        }
    }

    /// Looks at nothing but the version: what else a hello says may be of another one.
    fn agree_on_version(&self, body: &[u8]) -> Result<(), Close> {
        #[derive(Deserialize)]
        struct Versions {
            versions: (u16, u16),
        }
        match payload::decode::<Versions>(body, &PrescanLimits::default()) {
            Ok(theirs) => self.common_version(theirs.versions).map(|_| ()),
            // What is wrong with it is said of the whole.
            Err(_) => Ok(()),
        }
    }

    /// The highest version that both speak.
    fn common_version(&self, theirs: (u16, u16)) -> Result<u16, Close> {
        let lowest = self.versions.0.max(theirs.0);
        let highest = self.versions.1.min(theirs.1);
        if lowest > highest {
            return Err(Close::new(
                CloseCode::Version,
                format!(
                    "no common protocol version: this side speaks {} to {}, the other {} to {}",
                    self.versions.0, self.versions.1, theirs.0, theirs.1
                ),
            ));
        }
        Ok(highest)
    }

    /// What both have agreed on.
    fn agree(&self, theirs: Self) -> Result<PeerInfo, Close> {
        let version = self.common_version(theirs.versions)?;
        if theirs.env == self.env {
            // A proxy or a mirror, a TCP connection to itself, or another name of our own address:
            // calls over it would be answered by ourselves (R75).
            return Err(Close::new(CloseCode::Hello, "this address leads back to the env itself"));
        }
        if theirs.limits.frame < LEAST_FRAME || theirs.limits.in_flight == 0 {
            return Err(Close::new(
                CloseCode::Hello,
                "the limits in the hello are too small to work with",
            ));
        }
        Ok(PeerInfo { version, hello: theirs })
    }
}

/// The exchange of hellos on one connection.
#[derive(Debug)]
pub struct Hellos {
    ours: Hello,
    magic_seen: bool,
    closed_by_peer: bool,
    max: usize,
}

impl Hellos {
    /// Waits for the peer's hello, within `max` bytes.
    #[must_use]
    pub fn new(ours: Hello, max: usize) -> Self {
        Self { ours, magic_seen: false, closed_by_peer: false, max }
    }

    /// Whether the peer speaks this protocol at all: to others nothing is said.
    #[must_use]
    pub fn magic_seen(&self) -> bool {
        self.magic_seen
    }

    /// Whether the error is what the peer has said, and not this side's.
    #[must_use]
    pub fn closed_by_peer(&self) -> bool {
        self.closed_by_peer
    }

    /// Looks at what has arrived; `None` means that more is needed. What follows the hello stays
    /// in `bytes`.
    ///
    /// # Errors
    /// What to close the connection with.
    pub fn receive(&mut self, bytes: &mut BytesMut) -> Result<Option<PeerInfo>, Close> {
        if !self.magic_seen {
            let seen = bytes.len().min(MAGIC.len());
            if bytes.get(..seen) != MAGIC.get(..seen) {
                return Err(Close::protocol(not_our_protocol(bytes)));
            }
            if seen < MAGIC.len() {
                return Ok(None);
            }
            let _ = bytes.split_to(MAGIC.len());
            self.magic_seen = true;
        }
        let Some(header) = Header::read(bytes) else { return Ok(None) };
        if header.length > self.max {
            return Err(Close::new(
                CloseCode::TooLarge,
                format!(
                    "a hello of {} bytes is over the limit of {} (rpc.io.preAuthBytes)",
                    header.length, self.max
                ),
            ));
        }
        let kind = Kind::from_byte(header.kind);
        if !matches!(kind, Some(Kind::Hello | Kind::Close)) {
            return Err(Close::protocol(format!(
                "frame kind {:#04x} came before the hello",
                header.kind
            )));
        }
        let whole = HEADER.saturating_add(header.length);
        if bytes.len() < whole {
            return Ok(None);
        }
        let frame = bytes.split_to(whole);
        let body = frame.get(HEADER..).unwrap_or_default();
        if kind == Some(Kind::Close) {
            self.closed_by_peer = true;
            return Err(Close::read(body));
        }
        self.ours.agree_on_version(body)?;
        known_kind(header)?;
        let theirs =
            payload::decode::<Hello>(body, &PrescanLimits::default()).map_err(|error| {
                Close::new(CloseCode::Hello, format!("the hello is not readable: {error}"))
            })?;
        self.ours.agree(theirs).map(Some)
    }
}

/// How HTTP begins, in either direction.
const HTTP: [&str; 9] =
    ["HTTP/", "GET ", "HEAD ", "POST ", "PUT ", "DELETE ", "OPTIONS ", "PATCH ", "PRI * "];

fn not_our_protocol(bytes: &[u8]) -> String {
    let start: String = bytes
        .iter()
        .take(16)
        .flat_map(|b| std::ascii::escape_default(*b))
        .map(char::from)
        .collect();
    let looks_like =
        |starts: &[&str]| starts.iter().any(|start| bytes.starts_with(start.as_bytes()));
    let guess = if bytes.first() == Some(&0x16) {
        " (that looks like TLS)"
    } else if looks_like(&HTTP) {
        " (that looks like HTTP)"
    } else if looks_like(&["SSH-"]) {
        " (that looks like SSH)"
    } else {
        ""
    };
    format!("the peer does not speak this protocol: it began with \"{start}\"{guess}")
}
