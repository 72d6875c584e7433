//! What frames carry.

use super::target::WireNumber;
use crate::deadline::Timestamp;
use crate::message::Lane;
use crate::trace::TraceContext;
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use std::sync::Arc;

/// A message from the peer.
#[derive(Debug)]
#[non_exhaustive]
pub struct IncomingMessage {
    /// What the peer calls the endpoint.
    pub target: WireNumber,
    /// The number of the message among those of the resolution.
    pub number: u16,
    /// Its name instead, where it has no number.
    pub name: Option<Arc<str>>,
    /// Its lane.
    pub lane: Lane,
    /// The call to answer; `None` for a one-way message.
    pub call: Option<u64>,
    /// When the caller stops waiting.
    pub deadline: Timestamp,
    /// The trace that the peer says it belongs to.
    pub trace: Option<TraceContext>,
    /// The body, not looked at.
    pub body: Bytes,
    /// Whether it came in parts: its beginning was an event before.
    pub in_parts: bool,
    pub(super) reply: bool,
}

impl IncomingMessage {
    /// A message in the normal lane that came whole, with a number and nothing else.
    pub(super) fn plain(
        target: WireNumber,
        number: u16,
        call: Option<u64>,
        deadline: Timestamp,
        body: Bytes,
    ) -> Self {
        let (name, lane, trace) = (None, Lane::Normal, None);
        let (in_parts, reply) = (false, false);
        Self { target, number, name, lane, call, deadline, trace, body, in_parts, reply }
    }
}

#[derive(Serialize, Deserialize)]
pub(super) struct ResolveBody {
    pub(super) name: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) pin: Option<(u64, u64)>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) env: Option<u64>,
}

#[derive(Serialize, Deserialize)]
pub(super) struct ResolvedBody {
    pub(super) incarnation: (u64, u64),
    pub(super) messages: Vec<String>,
    pub(super) credit: (u64, u64),
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(super) system: bool,
}

#[derive(Serialize, Deserialize)]
pub(super) struct FailureBody {
    pub(super) code: u16,
    #[serde(default)]
    pub(super) text: String,
}

#[derive(Deserialize)]
pub(super) struct GoodbyeBody {
    #[serde(default)]
    pub(super) reason: String,
}

/// What a GONE says beyond the target.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(crate) struct GoneBody {
    pub(crate) reason: u64,
}
