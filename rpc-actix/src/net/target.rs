//! An endpoint of another env, as refs reach it.

use super::link::Link;
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

    /// Queues a message; what `then` makes of the number of its call.
    fn submit<R>(
        &self,
        message: &mut Outgoing<'_>,
        how: Submission,
        then: impl FnOnce(&mut Session, Option<u64>) -> R,
    ) -> Result<R, RpcError> {
        let made = message.made;
        let now = || made.unwrap_or_else(|| self.link.now());
        let request = Request::new(self.id, message, how);
        self.with_dial(how == Submission::Ask, |session| {
            let call = session.submit(now, request)?;
            Ok(then(session, call))
        })
    }

    fn with_dial<R>(
        &self,
        is_ask: bool,
        f: impl FnOnce(&mut Session) -> Result<R, RpcError>,
    ) -> Result<R, RpcError> {
        let dial = |busy| {
            if let Some(node) = self.node.upgrade() {
                node.dial(busy);
            }
        };
        self.link.with_dial(is_ask, dial, f)
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
    fn send(&self, message: &mut Outgoing<'_>) -> Result<(), RpcError> {
        self.submit(message, Submission::Send, |_, _| ())
    }

    fn send_wait(&self, message: &mut Outgoing<'_>) -> Result<Option<RemoteCall>, RpcError> {
        let id = self.submit(message, Submission::SendWait, |_, id| id)?;
        Ok(id.map(|id| RemoteCall::new(self.link.clone(), id)))
    }

    fn ask(&self, message: &mut Outgoing<'_>) -> Result<RemoteCall, RpcError> {
        let with_alarm = |session: &mut Session, id| (id, session.take_alarm());
        let (id, alarm) = self.submit(message, Submission::Ask, with_alarm)?;
        Ok(self.call(id)?.keeping_time(alarm))
    }

    fn resolve(&self, _deadline: Timestamp) -> Result<RemoteCall, RpcError> {
        let now = self.link.now();
        let id = self.with_dial(false, |session| session.resolve(now, self.id))?;
        self.call(Some(id))
    }

    fn watch(&self) -> Result<RemoteCall, RpcError> {
        let id = self.with_dial(false, |session| session.watch(self.id))?;
        self.call(Some(id))
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
