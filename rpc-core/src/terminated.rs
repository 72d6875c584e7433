//! The event at the end of a watch.

use crate::address::EndpointAddress;
use crate::error::{ErrorKind, RpcError};
use crate::seam::{CallEnd, Incarnation};
use crate::termination::Termination;

/// The end of a watch: of [`EndpointContext::watch`](crate::EndpointContext::watch) or
/// [`RpcEndpointRef::terminated`](crate::RpcEndpointRef::terminated).
#[derive(Clone, Debug)]
pub struct Terminated {
    pub(crate) watch: WatchId,
    pub(crate) address: EndpointAddress,
    pub(crate) incarnation: Option<Incarnation>,
    pub(crate) reason: Termination,
    pub(crate) cause: Option<RpcError>,
}

/// Which of an endpoint's watches it is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct WatchId(pub(crate) u64);

impl Terminated {
    /// What [`EndpointContext::watch`](crate::EndpointContext::watch) returned.
    #[must_use]
    pub fn watch(&self) -> WatchId {
        self.watch
    }

    /// The address of the ref that was watched.
    #[must_use]
    pub fn endpoint_address(&self) -> &EndpointAddress {
        &self.address
    }

    /// Which life of the endpoint has ended: the one that the ref is pinned to, or that had the name
    /// when the watch began. `None` if there was none by that name, or its env was not reached.
    #[must_use]
    pub fn incarnation(&self) -> Option<Incarnation> {
        self.incarnation
    }

    /// How it has ended.
    #[must_use]
    pub fn reason(&self) -> Termination {
        self.reason
    }

    /// The error behind [`NodeLost`](Termination::NodeLost), say: what became of the connection.
    #[must_use]
    pub fn cause(&self) -> Option<&RpcError> {
        self.cause.as_ref()
    }
}

/// How a watch has ended, before it is known whose it is.
pub(crate) struct Ending {
    pub(crate) incarnation: Option<Incarnation>,
    pub(crate) reason: Termination,
    pub(crate) cause: Option<RpcError>,
}

impl Ending {
    pub(crate) fn known(incarnation: Incarnation, reason: Termination) -> Self {
        Self { incarnation: Some(incarnation), reason, cause: None }
    }

    /// There is no way to the endpoint, and why.
    pub(crate) fn failed(error: RpcError) -> Self {
        let reason = match error.kind() {
            ErrorKind::EndpointNotFound | ErrorKind::EndpointStopped => Termination::NotFound,
            ErrorKind::Disconnected
            | ErrorKind::Unreachable
            | ErrorKind::EnvStopped
            | ErrorKind::Timeout
            | ErrorKind::Protocol
            | ErrorKind::VersionMismatch
            | ErrorKind::SecurityRequired => Termination::NodeLost,
            _ => Termination::Unknown,
        };
        Self { incarnation: None, reason, cause: Some(error) }
    }
}

impl From<CallEnd> for Ending {
    fn from(end: CallEnd) -> Self {
        match end {
            CallEnd::Terminated { incarnation, reason, cause } => {
                Self { incarnation, reason, cause }
            }
            CallEnd::Failed(error) => Self::failed(error),
            CallEnd::Relayed(failure) => Self::failed(failure.into_error()),
            CallEnd::TimedOut { .. } => {
                Self::failed(RpcError::new(ErrorKind::Timeout, "the time of a watch was over"))
            }
        }
    }
}
