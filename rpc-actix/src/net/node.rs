//! The network side of an env: it listens, dials, and knows its peers.

use super::admission::{Admission, Admitted};
use super::driver::Driver;
use super::handshake::{self, Greeted, NotTaken, Unheard, introduce};
use super::link::{Busy, Link, Occupied, Orders};
use super::peers::Peers;
use super::target::TcpTarget;
use super::transport::{ByteStream, Listener, Socket, Transport};
use crate::dispatch::host::ActixHost;
use crate::rt::{self, Clock};
use rpc_core::proto::{Close, CloseCode, Hello, PeerInfo, Session, TargetKey};
use rpc_core::spi::{Dispatcher, Incarnation, NetworkEvent, RemoteTarget};
use rpc_core::{
    EndpointAddress, EndpointLocation, EnvId, ErrorKind, Outcome, RpcAddress, RpcEnvConfig,
    RpcError,
};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

pub(crate) struct Node {
    id: u64,
    config: RpcEnvConfig,
    address: Option<RpcAddress>,
    clock: Clock,
    host: ActixHost,
    dispatcher: Arc<Dispatcher>,
    transport: Arc<dyn Transport>,
    peers: Peers,
    /// Set when the env closes: nothing new is accepted or dialled.
    closed: CancellationToken,
    /// Everything that the node runs, to be waited for at the end.
    tasks: TaskTracker,
    admission: Arc<Admission>,
    /// For what is random about a link: follows from the env's number.
    seeds: AtomicU64,
}

/// The parts that a node is made of.
pub(crate) struct NodeParts {
    pub(crate) id: u64,
    pub(crate) config: RpcEnvConfig,
    pub(crate) address: Option<RpcAddress>,
    pub(crate) clock: Clock,
    pub(crate) host: ActixHost,
    pub(crate) dispatcher: Arc<Dispatcher>,
    pub(crate) transport: Arc<dyn Transport>,
}

/// How long a closing env waits for goodbyes to be written.
const GOODBYE: Duration = Duration::from_secs(1);

impl Node {
    pub(crate) fn new(parts: NodeParts) -> Arc<Self> {
        let NodeParts { id, config, address, clock, host, dispatcher, transport } = parts;
        Arc::new(Self {
            id,
            config,
            address,
            clock,
            host,
            dispatcher,
            transport,
            peers: Peers::default(),
            closed: CancellationToken::new(),
            tasks: TaskTracker::new(),
            admission: Arc::default(),
            seeds: AtomicU64::new(id),
        })
    }

    pub(crate) fn id(&self) -> u64 {
        self.id
    }

    pub(crate) fn config(&self) -> &RpcEnvConfig {
        &self.config
    }

    pub(crate) fn address(&self) -> Option<&RpcAddress> {
        self.address.as_ref()
    }

    pub(crate) fn clock(&self) -> Clock {
        self.clock
    }

    pub(crate) fn host(&self) -> &ActixHost {
        &self.host
    }

    pub(crate) fn dispatcher(&self) -> &Dispatcher {
        &self.dispatcher
    }

    pub(crate) fn tasks(&self) -> &TaskTracker {
        &self.tasks
    }

    pub(crate) fn closed(&self) -> &CancellationToken {
        &self.closed
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.closed.is_cancelled()
    }

    pub(crate) fn hello(&self) -> Hello {
        handshake::hello(self)
    }

    fn link(&self, address: Option<RpcAddress>, peer: String) -> Link {
        let limits = self.config.limits();
        let session = Session::new(limits.clone(), peer);
        let seed = self.seeds.fetch_add(0x9e37_79b9_7f4a_7c15, Ordering::Relaxed);
        Link::new(self.clock, address, session, limits.clone(), seed)
    }

    /// A way to an endpoint of another env.
    pub(crate) fn target(
        self: &Arc<Self>,
        address: &EndpointAddress,
        pin: Option<Incarnation>,
    ) -> Result<Arc<dyn RemoteTarget>, RpcError> {
        let link = match address.location() {
            EndpointLocation::Listening(at) => {
                require_loopback(at, "reach")?;
                self.peers.at(at, || self.link(Some(at.clone()), at.to_string()))
            }
            EndpointLocation::Client(env) => self.client_link(*env, address)?,
            _ => return Err(unreachable(address, "an address of a later version")),
        };
        let key = TargetKey::new(address.name().as_str(), pin);
        let id = link.with(|session| session.target(&key))?;
        // A client's own address says little: its socket's address is what people know (S96).
        let peer = match address.location() {
            EndpointLocation::Client(_) => {
                format!("{address} ({})", link.with(|session| session.peer_name().to_owned()))
            }
            _ => address.to_string(),
        };
        Ok(Arc::new(TcpTarget::new(self, link, id, peer)))
    }

    fn client_link(&self, env: EnvId, address: &EndpointAddress) -> Result<Arc<Link>, RpcError> {
        self.peers.env(env.as_u64()).ok_or_else(|| {
            unreachable(address, "its env does not listen, and has no connection to this one")
        })
    }

    /// Connects a link that wants it, on an arbiter.
    pub(crate) fn dial(self: &Arc<Self>, busy: Busy) {
        let node = self.clone();
        // Dropped with the job if the thread is gone: then nothing waits for the link.
        let started = self.host.pick().run(move || {
            let tasks = node.tasks.clone();
            rt::spawn(tasks.track_future(async move { node.dial_here(busy).await }));
        });
        if let Err(error) = started {
            tracing::debug!(%error, "could not dial");
        }
    }

    async fn dial_here(self: Arc<Self>, mut busy: Busy) {
        let link = busy.link().clone();
        let closed = self.closed.clone();
        let connected = tokio::select! {
            // Both may be dropped: a half-made connection is closed, and nothing was sent.
            connected = self.connect(&busy) => connected,
            () = closed.cancelled() => Err(NotTaken::Failed(env_stopped())),
        };
        match connected {
            Ok((stream, greeted, sender)) => {
                return self.run(busy, stream, greeted, sender).await;
            }
            Err(NotTaken::Declined) if busy.declined() < MOST_DECLINES => {
                tracing::debug!(peer = ?link.address(), "both sides have dialled; the peer's dial counts");
            }
            Err(end) => {
                let error = match end {
                    NotTaken::Declined => declined(link.address()),
                    NotTaken::Failed(error) => error,
                };
                let error = error.with_outcome(Outcome::NeverSent);
                let ended = busy.failed(&error, |session| session.fail_queued(&error));
                tracing::debug!(peer = ?link.address(), ended, %error, "could not connect");
            }
        }
        drop(busy);
        self.dial_if_wanted(&link);
    }

    /// What has not been sent goes out over the next connection.
    fn dial_if_wanted(self: &Arc<Self>, link: &Arc<Link>) {
        if let ((), Some(busy)) = link.with_dial(|_| ())
            && !self.is_closed()
        {
            self.dial(busy);
        }
    }

    async fn connect(
        &self,
        busy: &Busy,
    ) -> Result<(Box<dyn ByteStream>, Greeted, RpcAddress), NotTaken> {
        let link = busy.link();
        let Some(address) = link.address() else {
            return Err(NotTaken::Failed(RpcError::new(
                ErrorKind::Unreachable,
                "Cannot send message to client endpoint with no listen address.",
            )));
        };
        self.clock.sleep_until(link.not_before()).await;
        if !busy.dials() {
            // The peer was faster.
            return Err(NotTaken::Declined);
        }
        let timeout = self.config.connect_timeout();
        let failed = |cause: String| {
            RpcError::new(
                ErrorKind::Unreachable,
                format!("Failed to connect to {address}: {cause}"),
            )
        };
        let socket = rt::within(timeout.duration(), self.transport.connect(address))
            .await
            .ok_or_else(|| failed(format!("timed out after {timeout}")))?
            .map_err(|error| failed(error.to_string()).with_source(error))?;
        let mut stream = socket.open().map_err(|error| failed(error.to_string()))?;
        let greeted = introduce(self, &mut stream, &address.to_string()).await?;
        Ok((stream, greeted, address.clone()))
    }

    /// Accepts until the env closes. An error of one connection, or a lack of descriptors, never
    /// ends it.
    pub(crate) async fn accept(self: Arc<Self>, mut listener: Box<dyn Listener>) {
        loop {
            let accepted = tokio::select! {
                // An accept that is dropped leaves its connection in the system's queue.
                accepted = listener.accept() => accepted,
                () = self.closed.cancelled() => return,
            };
            match accepted {
                Ok(socket) => self.accepted(socket),
                Err(error) => {
                    tracing::warn!(%error, "accepting a connection failed");
                    rt::sleep(ACCEPT_BACKOFF).await;
                }
            }
        }
    }

    fn accepted(self: &Arc<Self>, socket: Box<dyn Socket>) {
        let admitted = match self.admission.admit(socket.peer().ip(), self.config.limits()) {
            Ok(admitted) => admitted,
            Err(key) => {
                return tracing::warn!(peer = %socket.peer(), key, "too many connections: refused");
            }
        };
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
            Err(error) => return tracing::warn!(peer = %from, %error, "a connection was lost"),
        };
        let closed = self.closed.clone();
        let greeted = tokio::select! {
            // Nothing was promised to the peer before its hello is answered.
            greeted = self.take(&mut stream, &from) => greeted,
            () = closed.cancelled() => return,
        };
        match greeted {
            Ok((greeted, busy, sender)) => {
                admitted.greeted();
                self.run(busy, stream, greeted, sender).await;
            }
            Err(error) => tracing::warn!(peer = %from, %error, "a connection was refused"),
        }
    }

    /// Hears the hello of a peer that has connected, finds its link, and answers.
    async fn take(
        self: &Arc<Self>,
        stream: &mut Box<dyn ByteStream>,
        from: &RpcAddress,
    ) -> Result<(Greeted, Busy, RpcAddress), RpcError> {
        let name = from.to_string();
        handshake::in_time(self, &name, async {
            let unheard = match handshake::hear(self, stream, &name).await {
                Ok(greeted) => match self.link_of(&greeted.peer, from).await {
                    Ok((busy, sender)) => {
                        handshake::answer(self, stream, &name).await?;
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
                handshake::refuse(stream, close).await;
            }
            Err(unheard.error)
        })
        .await
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
            return Ok((self.link_for_peer(from), from.clone()));
        };
        let make = || self.link(Some(listening.clone()), listening.to_string());
        let known = self.peers.at(&listening, make);
        loop {
            // Of two envs that dial each other at once, the one with the smaller number keeps its
            // dial.
            match known.occupy(self.id > peer.hello.env) {
                Occupied::Taken(busy) => return Ok((busy, listening)),
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
                    let text = "another env has taken the address of this one";
                    known.break_off(Close::new(CloseCode::Shutdown, text));
                    std::future::poll_fn(|cx| known.poll_idle(cx)).await;
                }
            }
        }
    }

    /// A link that cannot be dialled: what goes out on it goes over the peer's connection.
    fn link_for_peer(&self, peer: &RpcAddress) -> Busy {
        Link::taken(Arc::new(self.link(None, peer.to_string())))
    }

    /// Drives a connection to its end.
    async fn run(
        self: Arc<Self>,
        mut busy: Busy,
        stream: Box<dyn ByteStream>,
        greeted: Greeted,
        sender: RpcAddress,
    ) {
        let env = greeted.peer.hello.env;
        let link = busy.link().clone();
        if !busy.connects(greeted.peer) {
            return;
        }
        link.pen().open(stream.side_door());
        let first = self.peers.connected(env, &link);
        if self.is_closed() {
            // `close` may have looked at the peers just before this one was among them.
            link.close(Orders::Shutdown);
        }
        if first {
            self.dispatcher.network_event(&NetworkEvent::Connected(sender.clone()));
        }
        let driver = Driver::new(self.clone(), link.clone(), stream, sender.clone(), greeted.rest);
        let error = driver.await;
        link.pen().close();
        let last = self.peers.disconnected(env, &link);
        let keep = link.address().is_some() && error.kind() == ErrorKind::Disconnected;
        let ended = busy.lost(|session| session.detach(&error, keep && !self.is_closed()));
        tracing::debug!(peer = %sender, ?ended, %error, "a connection has ended");
        if !self.is_closed() {
            if error.kind() != ErrorKind::Disconnected {
                let event = NetworkEvent::Error(error, sender.clone());
                self.dispatcher.network_event(&event);
            }
            if last {
                self.dispatcher.network_event(&NetworkEvent::Disconnected(sender));
            }
        }
        // Only now may a successor come: its events follow these.
        drop(busy);
        self.dial_if_wanted(&link);
    }

    /// Sends signs of life, and ends connections whose peer is silent or slow, until the env
    /// closes.
    pub(crate) async fn watch(self: Arc<Self>) {
        let limits = self.config.limits();
        let often = (limits.heartbeat() / LOOKS_PER_HEARTBEAT).max(SHORTEST_LOOK);
        let mut before = self.clock.now();
        loop {
            tokio::select! {
                // Both may be dropped: the next round looks at everything again.
                () = rt::sleep(often) => {}
                () = self.closed.cancelled() => return,
            }
            let links = self.peers.connections();
            let now = self.clock.now();
            // A process that was stopped, or a machine that slept, has heard nothing either.
            let stood_still = now.since(before) > limits.heartbeat().saturating_add(often);
            before = now;
            for link in links {
                if stood_still {
                    link.rearm();
                }
                link.look();
            }
        }
    }

    /// Says goodbye to every peer, ends every call, and waits for the node's tasks.
    pub(crate) async fn close(&self) {
        self.closed.cancel();
        for link in self.peers.all() {
            link.with(|session| session.fail_queued(&env_stopped()));
            link.close(Orders::Shutdown);
        }
        self.tasks.close();
        if rt::within(GOODBYE, self.tasks.wait()).await.is_none() {
            tracing::warn!(tasks = self.tasks.len(), "connections did not end in time");
            for link in self.peers.all() {
                let close = Close::new(CloseCode::Shutdown, "the env has been shut down");
                link.close(Orders::Break(close));
            }
            self.tasks.wait().await;
        }
        for link in self.peers.all() {
            link.with(|session| session.detach(&env_stopped(), false));
        }
    }
}

/// How often connections are looked at: the tenth part of a heartbeat is the error of all that
/// follows from silence.
const LOOKS_PER_HEARTBEAT: u32 = 10;
const SHORTEST_LOOK: Duration = Duration::from_millis(5);

/// Dials in a row that may give way to the peer's, whose own dial then does not come.
const MOST_DECLINES: u32 = 8;

fn declined(address: Option<&RpcAddress>) -> RpcError {
    let at = address.map(|address| format!(" to {address}")).unwrap_or_default();
    let text =
        format!("Failed to connect{at}: the peer says that it dials as well, but no dial comes");
    RpcError::new(ErrorKind::Unreachable, text)
}

/// A pause after a failed accept, so that a lack of descriptors does not become a busy loop.
const ACCEPT_BACKOFF: Duration = Duration::from_millis(5);

pub(crate) fn env_stopped() -> RpcError {
    RpcError::new(ErrorKind::EnvStopped, "RpcEnv has been stopped")
}

fn unreachable(address: &EndpointAddress, why: &str) -> RpcError {
    RpcError::new(ErrorKind::Unreachable, format!("cannot reach {address}: {why}"))
}

/// Plaintext stays on this machine.
pub(crate) fn require_loopback(address: &RpcAddress, what: &str) -> Result<(), RpcError> {
    if address.is_loopback() || cfg!(feature = "dangerous-plaintext") {
        return Ok(());
    }
    Err(RpcError::new(
        ErrorKind::SecurityRequired,
        format!(
            "cannot {what} {address} without security: a plaintext RpcEnv listens on and dials loopback addresses only (127.0.0.0/8, ::1, localhost)"
        ),
    ))
}
