//! What can be seen of an endpoint from outside.

use crate::address::EndpointName;
use crate::beat::message_of;
use crate::inbox::Inbox;
use crate::seam::Incarnation;

/// An endpoint of an env at one moment: for an exporter of metrics, and for whoever asks why something is slow.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct EndpointStatus {
    /// The name that it is registered by.
    pub name: EndpointName,
    /// Which life of it this is.
    pub incarnation: Incarnation,
    /// Messages that wait in its inbox, of this env and of others. It may have taken up to 16 more.
    pub queued: usize,
    /// Their bytes, as they are counted against `rpc.inbox.maxBytes`.
    pub queued_bytes: usize,
    /// The message that it has begun last, by its wire name: the one that it is at, if it is at one. `None` in a
    /// hook.
    pub message: Option<String>,
    /// How often its value was replaced because it had panicked.
    pub restarts: u32,
    /// Whether it takes messages: it was not stopped.
    pub is_open: bool,
}

impl EndpointStatus {
    pub(crate) fn of(inbox: &Inbox) -> Self {
        let (queued, queued_bytes) = inbox.queued();
        Self {
            name: inbox.name().clone(),
            incarnation: inbox.incarnation(),
            queued,
            queued_bytes,
            message: message_of(inbox).map(str::to_owned),
            restarts: inbox.behind.restarts(),
            is_open: inbox.is_open(),
        }
    }
}
