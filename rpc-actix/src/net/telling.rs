//! What the log and the endpoints are told of peers that come, go and misbehave.

use super::node::Node;
use rpc_core::spi::NetworkEvent;
use rpc_core::{EndpointLocation, ErrorKind, RpcAddress, RpcError};
use std::fmt::Display;

impl Node {
    /// Logs what is wrong with a peer, if that was not done just now.
    pub(super) fn complain(&self, peer: &RpcAddress, error: &dyn Display, what: &str) {
        match self.complaints.may_say(peer.host(), self.clock.now()) {
            Some(untold) => tracing::warn!(%peer, %error, untold, "{what}"),
            None => tracing::debug!(%peer, %error, "{what}"),
        }
    }

    /// Logs that a peer comes or goes, as rarely as it is complained of: who comes and goes all the time
    /// does not fill the log.
    pub(super) fn announce(&self, peer: &RpcAddress, what: &dyn Display) {
        let env = self.config.name();
        match self.news.may_say(peer.host(), self.clock.now()) {
            Some(untold) => tracing::info!(%env, %peer, untold, "{what}"),
            None => tracing::debug!(%env, %peer, "{what}"),
        }
    }

    /// Lets endpoints hear of a connection that has ended; of the peer as well, if that was the last one with it.
    pub(super) fn tell_of_end(
        &self,
        whose: &EndpointLocation,
        peer: RpcAddress,
        error: RpcError,
        last: bool,
    ) {
        if self.is_closed() {
            return;
        }
        if error.kind() != ErrorKind::Disconnected {
            self.dispatcher.network_event(whose, &NetworkEvent::Error(error, peer.clone()));
        }
        if last {
            self.dispatcher.network_event(whose, &NetworkEvent::Disconnected(peer));
        }
    }
}
