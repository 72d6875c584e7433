//! What is handed to an endpoint: messages from here and from peers, and events.

use crate::address::RpcAddress;
use crate::deadline::Timestamp;
use crate::error::RpcError;
use crate::local_call::LocalTell;
use crate::seam::Origin;
use crate::trace::TraceContext;
use bytes::Bytes;
use std::any::TypeId;
use std::fmt;
use std::sync::Arc;

/// A message that an endpoint takes.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct HandlerInfo {
    /// Its wire name.
    pub name: &'static str,
    pub(crate) type_id: TypeId,
    pub(crate) one_way: bool,
}

/// The message that a handler is to be called with.
pub(crate) enum Work {
    Nothing,
    Tell(Box<dyn LocalTell>),
    /// That of the current local ask.
    Ask,
    Wire(Option<Arc<str>>, Bytes),
    /// One of those that came together, by its place among them, and whether it is the last in its row.
    Arrived(usize, bool),
}

/// A message from another env, as a backend hands it over.
#[non_exhaustive]
pub struct WireMessage {
    /// Which of the endpoint's handlers takes it.
    pub handler: usize,
    /// Its name, where no handler takes it.
    pub name: Option<Arc<str>>,
    /// Its body, not looked at yet.
    pub body: Bytes,
    /// The way back.
    pub origin: Arc<dyn Origin>,
    /// The call to answer; `None` for a one-way message.
    pub call: Option<u64>,
    /// When the caller stops waiting.
    pub deadline: Timestamp,
    /// The trace that the sender says it belongs to.
    pub trace: Option<TraceContext>,
}

impl WireMessage {
    /// A message for handler number `handler` of an endpoint.
    pub fn new(handler: usize, body: Bytes, origin: Arc<dyn Origin>) -> Self {
        let (name, call, deadline, trace) = (None, None, Timestamp::MAX, None);
        Self { handler, name, body, origin, call, deadline, trace }
    }
}

/// Something that happened on the network, for endpoints that want to know.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum NetworkEvent {
    /// A connection is ready.
    Connected(RpcAddress),
    /// A connection is gone.
    Disconnected(RpcAddress),
    /// A connection broke; `Disconnected` follows.
    Error(RpcError, RpcAddress),
}

impl fmt::Debug for WireMessage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WireMessage")
            .field("handler", &self.handler)
            .field("bytes", &self.body.len())
            .field("call", &self.call)
            .finish_non_exhaustive()
    }
}
