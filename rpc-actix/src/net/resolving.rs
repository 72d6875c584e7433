//! What a peer asks for by name: an endpoint of this env, or of another peer of it.

use super::binding::{Binding, stopped};
use super::bindings::Bound;
use super::driver::Driver;
use super::relay::{self, Passage};
use crate::planted::planted;
use rpc_core::proto::{Close, Resolution, TargetKey, WireNumber};
use rpc_core::spi::{Count, Inbox, Incarnation, Origin};
use rpc_core::{EnvId, ErrorKind, RpcAddress, RpcError};
use std::sync::Arc;

impl Driver {
    /// Answers a RESOLVE.
    ///
    /// # Errors
    /// What to close with: the peer broke the protocol.
    pub(super) fn resolve(&mut self, target: WireNumber, key: &TargetKey) -> Result<(), Close> {
        self.bindings.check_free(target)?;
        self.link.drive(&mut self.wakes, |session| session.check_control())?;
        if let Some(env) = key.env.filter(|env| *env != self.node.id()) {
            match self.pass(target, env, key) {
                Ok(passage) => self.bindings.put(target, Bound::There(passage)),
                Err(error) => self.refuse(target, &error),
            }
            return Ok(());
        }
        let found = match self.find(key) {
            Ok(inbox) => self.bind(target, inbox),
            Err(error) => Err(error),
        };
        match found {
            Ok((binding, resolution)) => {
                self.link.drive(&mut self.wakes, |s| binding.announce(s, &resolution));
                self.bindings.put(target, Bound::Here(binding));
            }
            Err(error) => self.refuse(target, &error),
        }
        Ok(())
    }

    fn refuse(&mut self, target: WireNumber, error: &RpcError) {
        self.node.tally.count(Count::ResolvesRefused);
        if error.kind() == ErrorKind::Overloaded {
            self.node.tally.count(Count::WindowsRefused);
        }
        self.link.drive(&mut self.wakes, |session| session.unresolved(target, error));
    }

    /// A way to an endpoint of another peer.
    fn pass(&self, number: WireNumber, env: u64, key: &TargetKey) -> Result<Passage, RpcError> {
        let own = self.node.address().map_or_else(|| "a client".to_owned(), RpcAddress::to_url);
        let what = format!("rpc-client://{}@{} through {own}", key.name, EnvId::new(env));
        if let Some(onward) = self.node.connected(env) {
            match Passage::open(&self.link, number, onward, key.clone(), what.clone()) {
                Err(error) if error.kind() == ErrorKind::Unreachable => {}
                opened => return opened,
            }
        }
        Err(relay::not_connected(&what))
    }

    fn find(&self, key: &TargetKey) -> Result<Arc<Inbox>, RpcError> {
        let pinned = key.pin.map(|(env, endpoint)| Incarnation::new(env, endpoint));
        let inbox = self.node.dispatcher().lookup(&key.name);
        let inbox = inbox.filter(|inbox| {
            pinned.is_none_or(|pin| pin == inbox.incarnation() || planted!(PinIgnored))
        });
        match inbox {
            Some(inbox) if inbox.is_open() => Ok(inbox),
            Some(inbox) => Err(stopped(inbox.address())),
            None => {
                let address = self.address_of(key);
                if pinned.is_some() {
                    return Err(stopped(&address));
                }
                let text = format!("Cannot find endpoint: {address}");
                Err(RpcError::new(ErrorKind::EndpointNotFound, text))
            }
        }
    }

    /// What an endpoint that is not there would be called.
    fn address_of(&self, key: &TargetKey) -> String {
        match self.node.address() {
            Some(address) => format!("rpc://{}@{address}", key.name),
            None => format!("rpc-client://{}@{}", key.name, EnvId::new(self.node.id())),
        }
    }

    fn bind(
        &mut self,
        target: WireNumber,
        inbox: Arc<Inbox>,
    ) -> Result<(Arc<Binding>, Resolution), RpcError> {
        self.bindings.admit(&inbox, self.node.config().limits())?;
        let sender = (self.sender.clone(), self.whose.clone());
        let binding = Arc::new(Binding::new(self.link.clone(), target, inbox.clone(), sender));
        let origin: Arc<dyn Origin> = binding.clone();
        let window = inbox.open_window(&origin)?;
        let credit = window.size();
        binding.open(window);
        let messages = inbox.handlers().iter().map(|info| info.name.to_owned()).collect();
        let (most, bytes) = (credit.messages as u64, credit.bytes as u64);
        let mut resolution = Resolution::new(inbox.incarnation(), messages, most, bytes);
        resolution.system = inbox.is_system();
        Ok((binding, resolution))
    }
}
