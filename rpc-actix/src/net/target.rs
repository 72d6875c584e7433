//! An endpoint of another env, as refs reach it.

use super::link::{Busy, Link};
use super::node::Node;
use rpc_core::proto::{Request, Session, Submission, TargetId};
use rpc_core::spi::{Outgoing, RemoteCall, RemoteTarget};
use rpc_core::{EndpointLocation, ErrorKind, RpcAddress, RpcError, Timestamp};
use std::sync::{Arc, Weak};

pub(crate) struct TcpTarget {
    node: Weak<Node>,
    link: Arc<Link>,
    id: TargetId,
    peer: String,
}

impl TcpTarget {
    pub(crate) fn new(node: &Arc<Node>, link: Arc<Link>, id: TargetId, peer: String) -> Self {
        Self { node: Arc::downgrade(node), link, id, peer }
    }

    /// The number of a call, and the link's new alarm.
    fn submit(
        &self,
        message: Outgoing<'_>,
        how: Submission,
    ) -> Result<(Option<u64>, Option<Timestamp>), RpcError> {
        let made = message.made;
        let now = || made.unwrap_or_else(|| self.link.now());
        let request = Request::new(self.id, message, how);
        let submit = |session: &mut Session| {
            session.submit(now, request).map(|call| (call, session.take_alarm()))
        };
        let (submitted, dial) = self.link.with_dial(how == Submission::Ask, submit)?;
        self.dial(dial);
        submitted
    }

    fn dial(&self, dial: Option<Busy>) {
        if let Some(busy) = dial
            && let Some(node) = self.node.upgrade()
        {
            node.dial(busy);
        }
    }

    fn call(&self, id: Option<u64>) -> Result<RemoteCall, RpcError> {
        let id = id.ok_or_else(|| RpcError::new(ErrorKind::Internal, "a call has no number"))?;
        Ok(RemoteCall::new(self.link.clone(), id))
    }
}

impl Drop for TcpTarget {
    fn drop(&mut self) {
        self.link.with(|session| session.release(self.id));
    }
}

impl RemoteTarget for TcpTarget {
    fn send(&self, message: Outgoing<'_>) -> Result<(), RpcError> {
        self.submit(message, Submission::Send).map(|_| ())
    }

    fn send_wait(&self, message: Outgoing<'_>) -> Result<Option<RemoteCall>, RpcError> {
        let (id, _) = self.submit(message, Submission::SendWait)?;
        Ok(id.map(|id| RemoteCall::new(self.link.clone(), id)))
    }

    fn ask(&self, message: Outgoing<'_>) -> Result<RemoteCall, RpcError> {
        let (id, alarm) = self.submit(message, Submission::Ask)?;
        Ok(self.call(id)?.keeping_time(alarm))
    }

    fn resolve(&self, _deadline: Timestamp) -> Result<RemoteCall, RpcError> {
        let now = self.link.now();
        let (id, dial) = self.link.with_dial(false, |session| session.resolve(now, self.id))?;
        self.dial(dial);
        self.call(Some(id?))
    }

    fn watch(&self) -> Result<RemoteCall, RpcError> {
        let (id, dial) = self.link.with_dial(false, |session| session.watch(self.id))?;
        self.dial(dial);
        self.call(Some(id?))
    }

    fn whose(&self) -> Option<EndpointLocation> {
        self.link.whose()
    }

    fn peer(&self) -> String {
        self.peer.clone()
    }

    fn relay(&self) -> Option<RpcAddress> {
        self.link.listening()
    }
}
