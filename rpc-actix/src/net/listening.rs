//! Connections that come in.

use super::admission::Admitted;
use super::handshake::{self, Greeted, Unheard};
use super::link::{Busy, Link, Occupied};
use super::node::{Node, address_taken};
use super::transport::{ByteStream, Listener, Socket};
use crate::planted::planted;
use crate::rt;
use rpc_core::proto::{Close, CloseCode, Hello, PeerInfo};
use rpc_core::spi::Count;
use rpc_core::{RpcAddress, RpcError};
use std::io;
use std::sync::Arc;
use std::time::Duration;

impl Node {
    /// Accepts until the env closes. An error of one connection, or a lack of descriptors, never
    /// ends it.
    pub(crate) async fn accept(self: Arc<Self>, mut listener: Box<dyn Listener>) {
        let mut rest = Rest(SHORTEST_PAUSE);
        loop {
            let accepted = tokio::select! {
                biased;
                // An accept that is dropped leaves its connection in the system's queue.
                () = self.closed.cancelled() => return,
                accepted = listener.accept() => accepted,
            };
            match accepted {
                Ok(socket) => {
                    rest.0 = SHORTEST_PAUSE;
                    self.accepted(socket);
                }
                Err(error) => {
                    self.tally.count(Count::AcceptErrors);
                    if let Some(untold) = self.complaints.may_say("", self.clock.now()) {
                        tracing::warn!(%error, untold, "accepting a connection failed");
                    }
                    if !is_of_one_connection(&error) {
                        self.clock.sleep(rest.next()).await;
                    }
                }
            }
        }
    }

    fn accepted(self: &Arc<Self>, socket: Box<dyn Socket>) {
        self.tally.count(Count::ConnectionsAccepted);
        let admitted = self.admission.admit(socket.peer().ip(), self.config.limits());
        let node = self.clone();
        let started = self.host.pick().run(move || {
            let tasks = node.tasks.clone();
            rt::spawn(tasks.track_future(async move { node.serve(socket, admitted).await }));
        });
        if let Err(error) = started {
            tracing::debug!(%error, "a connection came while the env was closing");
        }
    }

    async fn serve(self: Arc<Self>, socket: Box<dyn Socket>, mut admitted: Admitted) {
        let from = RpcAddress::from(socket.peer());
        let mut stream = match socket.open() {
            Ok(stream) => stream,
            Err(error) => {
                self.tally.count(Count::HellosBroken);
                return self.complain(&from, &error, "a connection was lost");
            }
        };
        let (closed, evicted) = (self.closed.clone(), admitted.evicted());
        let greeted = tokio::select! {
            biased;
            // Nothing was promised to the peer before its hello is answered. In a box: a connection
            // would keep the room for what is larger than all that comes after it.
            greeted = Box::pin(self.take(&mut stream, &from, &mut admitted)) => greeted,
            () = closed.cancelled() => return,
            () = evicted.cancelled() => {
                self.tally.count(Count::HellosEvicted);
                let why = "rpc.io.maxUnauthenticated, rpc.io.maxUnauthenticatedPerSource";
                return self.complain(&from, &why, "a connection without a hello gave way to another");
            }
        };
        match greeted {
            Ok((greeted, busy, sender)) => {
                self.run(busy, stream, greeted, sender).await;
            }
            Err(error) => self.complain(&from, &error, "a connection was refused"),
        }
    }

    /// Hears the hello of a peer that has connected, finds its link, and answers.
    async fn take(
        self: &Arc<Self>,
        stream: &mut Box<dyn ByteStream>,
        from: &RpcAddress,
        admitted: &mut Admitted,
    ) -> Result<(Greeted, Busy, RpcAddress), RpcError> {
        let name = from.to_string();
        handshake::in_time(self, &name, async {
            let unheard = match handshake::hear(self, stream, &name).await {
                Ok(greeted) => match self.place_of(&greeted.peer, from, admitted).await {
                    Ok((busy, sender)) => {
                        if let Err(error) = handshake::answer(self, stream, &name).await {
                            // What waits for the peer may have given up its own dial for this one.
                            let link = busy.link().clone();
                            drop(busy);
                            self.dial_if_wanted(&link);
                            return Err(error);
                        }
                        return Ok((greeted, busy, sender));
                    }
                    Err(close) => {
                        let error = close.to_error(&name);
                        Unheard { error, tell: Some(close), declined: false }
                    }
                },
                Err(unheard) => unheard,
            };
            if let Some(close) = &unheard.tell {
                handshake::refuse(self, stream, close).await;
            }
            Err(unheard.error)
        })
        .await
    }

    /// The place of a peer that has said hello: among the connections, and its link.
    async fn place_of(
        self: &Arc<Self>,
        peer: &PeerInfo,
        from: &RpcAddress,
        admitted: &mut Admitted,
    ) -> Result<(Busy, RpcAddress), Close> {
        if let Some(text) = self.behind() {
            return Err(Close::new(CloseCode::Overloaded, text));
        }
        admitted.establish(self.config.limits())?;
        self.end_former(&peer.hello).await;
        self.link_of(peer, from).await
    }

    /// Who dials where it had a connection has lost that one: what is still under way on it must not come
    /// behind what it says now.
    async fn end_former(&self, hello: &Hello) {
        for link in self.peers.of(hello.env) {
            if link.was_lost_by(hello) {
                let text = "the env at the other end has dialled again";
                link.give_way(Close::new(CloseCode::Duplicate, text)).await;
            }
        }
    }

    /// The link for a peer that has connected, and how endpoints know it: its listening address
    /// if it has one, otherwise its socket's.
    async fn link_of(
        self: &Arc<Self>,
        peer: &PeerInfo,
        from: &RpcAddress,
    ) -> Result<(Busy, RpcAddress), Close> {
        let listening: Option<RpcAddress> =
            peer.hello.address.as_deref().and_then(|text| text.parse().ok());
        let Some(listening) = listening else {
            return Ok((self.link_of_client(peer, from), from.clone()));
        };
        if self.address() == Some(&listening) {
            let text = format!("the address {listening} in the hello is that of this env");
            return Err(Close::new(CloseCode::Hello, text));
        }
        let make = || self.link(Some(listening.clone()), listening.to_string());
        let known = self.peers.at(&listening, make);
        loop {
            // Of two envs that dial each other at once, the one with the smaller number keeps its
            // dial.
            match known.occupy(self.id > peer.hello.env) {
                Occupied::Taken(busy) => return Ok((busy, listening)),
                Occupied::Dialing if planted!(CrossingKept) => {
                    return Ok((self.link_for_peer(&listening), listening));
                }
                Occupied::Dialing => {
                    let text = "both sides have dialled, and the other dial is the one that counts";
                    return Err(Close::new(CloseCode::Duplicate, text));
                }
                Occupied::Closing => {
                    let text = "the env has been shut down";
                    return Err(Close::new(CloseCode::Shutdown, text));
                }
                // A second connection of the same env, under another name of ours, say: it is the
                // peer's to use.
                Occupied::Connected(env) if env == peer.hello.env => {
                    return Ok((self.link_for_peer(&listening), listening));
                }
                Occupied::Connected(_) => {
                    // The env that was there before is gone: its end comes first.
                    known.give_way(address_taken()).await;
                }
            }
        }
    }

    /// The link for an env that does not listen: the one that refs to its endpoints hold, if it
    /// was connected before. Nobody can dial it, so every dial of this side's gives way.
    fn link_of_client(&self, peer: &PeerInfo, from: &RpcAddress) -> Busy {
        let make = || self.link(None, from.to_string());
        match self.peers.client(peer.hello.env, make).occupy(true) {
            Occupied::Taken(busy) => busy,
            _ => self.link_for_peer(from),
        }
    }

    /// A link that cannot be dialled: what goes out on it goes over the peer's connection.
    fn link_for_peer(&self, peer: &RpcAddress) -> Busy {
        Link::taken(Arc::new(self.link(None, peer.to_string())))
    }
}

/// Pauses after a failed accept, so that a lack of descriptors does not become a busy loop.
const SHORTEST_PAUSE: Duration = Duration::from_millis(5);
const LONGEST_PAUSE: Duration = Duration::from_millis(100);

/// How long the listener rests after an error.
struct Rest(Duration);

impl Rest {
    fn next(&mut self) -> Duration {
        let next = self.0.saturating_mul(2).min(LONGEST_PAUSE);
        std::mem::replace(&mut self.0, next)
    }
}

/// Whether only that connection is lost, and the next one may be fine.
fn is_of_one_connection(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionReset, Interrupted, PermissionDenied};
    use io::ErrorKind::{HostUnreachable, NetworkDown, NetworkUnreachable};
    let of_one = [ConnectionAborted, ConnectionReset, Interrupted, PermissionDenied];
    // What waits in the network for the connection comes out of accept as well.
    let of_its_network = [HostUnreachable, NetworkDown, NetworkUnreachable];
    of_one.contains(&error.kind())
        || of_its_network.contains(&error.kind())
        || error.raw_os_error() == Some(EPROTO)
}

/// It has no kind of its own.
const EPROTO: i32 = rustix::io::Errno::PROTO.raw_os_error();

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn r7_pauses_grow_to_their_limit() {
        let mut rest = Rest(SHORTEST_PAUSE);
        let pauses: Vec<_> = (0..7).map(|_| rest.next().as_millis()).collect();
        assert_eq!(pauses, [5, 10, 20, 40, 80, 100, 100]);
    }
}
