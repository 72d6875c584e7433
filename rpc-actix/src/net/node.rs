//! The network side of an env: it listens, dials, and knows its peers.

use super::admission::Admission;
use super::complaints::Complaints;
use super::driver::Driver;
use super::handshake::{self, Greeted};
use super::link::{Busy, Link, Orders, env_stopped};
use super::peers::Peers;
use super::target::TcpTarget;
use super::transport::{ByteStream, Transport};
use crate::dispatch::host::ActixHost;
use crate::planted::planted;
use crate::rt::{self, Clock};
use rpc_core::proto::{Close, CloseCode, Detached, Hello, Session, TargetKey};
use rpc_core::spi::{Count, Dispatcher, Incarnation, NetworkEvent, RemoteTarget, Tally, Watchdog};
use rpc_core::wire::spare;
use rpc_core::{
    EndpointAddress, EndpointLocation, ErrorKind, Limits, RpcAddress, RpcEnvConfig, RpcError,
};
#[cfg(feature = "sim")]
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

pub(crate) struct Node {
    pub(super) id: u64,
    pub(super) config: RpcEnvConfig,
    /// Those of `config`, which all connections share.
    limits: Arc<Limits>,
    address: Option<RpcAddress>,
    pub(super) clock: Clock,
    pub(super) host: ActixHost,
    pub(super) dispatcher: Arc<Dispatcher>,
    pub(super) tally: Arc<Tally>,
    pub(super) transport: Arc<dyn Transport>,
    pub(super) peers: Peers,
    /// Set when the env closes: nothing new is accepted or dialled.
    pub(super) closed: CancellationToken,
    /// Everything that the node runs, to be waited for at the end.
    pub(super) tasks: TaskTracker,
    pub(super) admission: Arc<Admission>,
    pub(super) complaints: Complaints,
    /// The same for peers that come and go.
    pub(super) news: Complaints,
    /// For what is random about a link: follows from the env's number.
    seeds: AtomicU64,
    /// What the next connection that is dialled is called. The first is that of the env, which is random.
    numbers: AtomicU64,
}

/// The parts that a node is made of.
pub(crate) struct NodeParts {
    pub(crate) id: u64,
    pub(crate) config: RpcEnvConfig,
    pub(crate) address: Option<RpcAddress>,
    pub(crate) clock: Clock,
    pub(crate) host: ActixHost,
    pub(crate) dispatcher: Arc<Dispatcher>,
    pub(crate) tally: Arc<Tally>,
    pub(crate) transport: Arc<dyn Transport>,
}

/// How long a closing env waits for goodbyes to be written.
const GOODBYE: Duration = Duration::from_secs(1);

impl Node {
    pub(crate) fn new(parts: NodeParts) -> Arc<Self> {
        let NodeParts { id, config, address, clock, host, dispatcher, tally, transport } = parts;
        Arc::new(Self {
            id,
            limits: Arc::new(config.limits().clone()),
            config,
            address,
            clock,
            host,
            dispatcher,
            tally,
            transport,
            peers: Peers::default(),
            closed: CancellationToken::new(),
            tasks: TaskTracker::new(),
            admission: Arc::default(),
            complaints: Complaints::default(),
            news: Complaints::default(),
            seeds: AtomicU64::new(id),
            numbers: AtomicU64::new(id),
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

    pub(crate) fn is_closed(&self) -> bool {
        self.closed.is_cancelled()
    }

    pub(crate) fn hello(&self) -> Hello {
        handshake::hello(self)
    }

    /// What a connection that this env dials is called: no other has the same, of this env or another.
    pub(super) fn next_number(&self) -> u64 {
        self.numbers.fetch_add(1, Ordering::Relaxed)
    }

    pub(super) fn link(&self, address: Option<RpcAddress>, peer: String) -> Link {
        let session = Session::new(self.limits.clone(), peer).counting(&self.tally);
        let seed = self.seeds.fetch_add(0x9e37_79b9_7f4a_7c15, Ordering::Relaxed);
        Link::new(self.clock, address, session, self.limits.clone(), seed)
    }

    /// A way to an endpoint of another env.
    pub(crate) fn target(
        self: &Arc<Self>,
        address: &EndpointAddress,
        pin: Option<Incarnation>,
        relay: Option<&RpcAddress>,
    ) -> Result<Arc<dyn RemoteTarget>, RpcError> {
        let mut key = TargetKey::new(address.name().as_str(), pin);
        let link = match address.location() {
            EndpointLocation::Listening(at) => self.link_to(at)?,
            EndpointLocation::Client(env) => {
                let direct = self.connected(env.as_u64());
                match (direct, relay.filter(|relay| Some(*relay) != self.address())) {
                    (Some(link), _) => link,
                    (None, Some(relay)) => {
                        key = key.at_env(env.as_u64());
                        match self.link_to_listening(relay) {
                            Some(link) => link,
                            None => self.link_to(relay)?,
                        }
                    }
                    (None, None) => {
                        let why = "its env does not listen, and has no connection to this one";
                        return Err(unreachable(address, why));
                    }
                }
            }
            _ => return Err(unreachable(address, "an address of a later version")),
        };
        let through = key.env.is_some();
        let id = link.with(|session| session.target(&key))?;
        // A client's own address says little: its socket's address is what people know (S96).
        let peer = match address.location() {
            EndpointLocation::Client(_) if through => {
                format!("{address} through rpc://{}", link.with(|s| s.peer_name().to_owned()))
            }
            EndpointLocation::Client(_) => {
                format!("{address} ({})", link.with(|session| session.peer_name().to_owned()))
            }
            _ => address.to_string(),
        };
        Ok(Arc::new(TcpTarget::new(self, link, id, peer)))
    }

    /// The link to where an env listens.
    fn link_to(&self, at: &RpcAddress) -> Result<Arc<Link>, RpcError> {
        require_loopback(at, "reach")?;
        Ok(self.peers.at(at, || self.link(Some(at.clone()), at.to_string())))
    }

    /// A connected link to an env that says it listens there, whatever name it was dialled by: a
    /// relay need not be dialled again.
    fn link_to_listening(&self, at: &RpcAddress) -> Option<Arc<Link>> {
        let mut links = self.peers.connections().into_iter();
        links.find(|link| link.address().is_some() && link.listening().as_ref() == Some(at))
    }

    /// The link to an env that is connected.
    pub(crate) fn connected(&self, env: u64) -> Option<Arc<Link>> {
        self.peers.env(env)
    }

    /// Why nobody can connect just now: an endpoint has not handled what it was told of others.
    pub(super) fn behind(&self) -> Option<String> {
        let inbox = self.dispatcher.behind()?;
        let most = self.config.limits().inbox_max_messages();
        Some(format!(
            "{} has {most} network events to handle first (rpc.inbox.maxMessages)",
            inbox.address()
        ))
    }

    /// Drives a connection to its end.
    pub(super) async fn run(
        self: Arc<Self>,
        mut busy: Busy,
        mut stream: Box<dyn ByteStream>,
        greeted: Greeted,
        sender: RpcAddress,
    ) {
        let (env, whose) = (greeted.peer.hello.env, handshake::whose(&greeted.peer.hello));
        let link = busy.link().clone();
        for former in self.peers.others(&sender, env) {
            former.give_way(address_taken()).await;
        }
        if !busy.connects(greeted.peer, greeted.number) {
            return handshake::displaced(&self, &mut stream).await;
        }
        self.tally.count(Count::ConnectionsOpened);
        if link.with(|session| session.connection()) > Some(1) {
            self.tally.count(Count::ConnectionsReopened);
        }
        self.limit_buffers(&*stream, &sender);
        // A driver that polls busily sees for itself what there is to write.
        let beside = self.config.limits().busy_poll().is_zero();
        busy.opens(stream.side_door(), &self.tally, beside);
        let (first, sender) = self.peers.connected(env, &link, sender);
        link.belongs_to(&whose);
        if self.is_closed() {
            // `close` may have looked at the peers just before this one was among them.
            link.close(Orders::Shutdown);
        }
        self.announce(&sender, &"connected");
        if first {
            self.dispatcher.network_event(&whose, &NetworkEvent::Connected(sender.clone()));
        }
        let mut driver = Driver::new(
            self.clone(),
            link.clone(),
            stream,
            (sender.clone(), whose.clone()),
            greeted.rest,
        );
        let error = (&mut driver).await;
        self.tally.count(Count::ConnectionsEnded);
        driver.bindings.abandon();
        busy.closes();
        let last = self.peers.disconnected(env, &link);
        let broke = error.kind() == ErrorKind::Disconnected;
        let keep = link.address().is_some() && broke;
        let ended = busy.lost(|session| session.detach(&error, keep && !self.is_closed()));
        let Detached { unknown, never_sent, .. } = ended.unwrap_or_default();
        let calls = format_args!("{unknown} calls unknown, {never_sent} never sent");
        self.announce(&sender, &format_args!("disconnected: {error} ({calls})"));
        let missing = driver.lost && planted!(DisconnectedMissing);
        self.tell_of_end(&whose, sender, error, last && !missing);
        // Only now may a successor come: its events follow these.
        drop(busy);
        self.dial_if_wanted(&link);
        if planted!(TaskLeft) {
            rt::spawn(driver.linger());
            return;
        }
        // In a box: a connection that lives would keep the room for its end.
        Box::pin(driver.linger()).await;
    }

    fn limit_buffers(&self, stream: &dyn ByteStream, peer: &RpcAddress) {
        let bytes = self.config.limits().socket_buffer();
        if bytes > 0
            && let Err(error) = stream.limit_buffers(bytes)
        {
            tracing::debug!(%peer, %error, "the system keeps its own buffers");
        }
    }

    /// Names endpoints that block their thread, until the env closes. In inline mode there is no thread
    /// that could look.
    pub(crate) async fn watch_threads(self: Arc<Self>) {
        if self.host.is_inline() {
            return;
        }
        let mut watchdog = Watchdog::new(self.config.limits().blocked_after());
        loop {
            tokio::select! {
                biased;
                // Both may be dropped: the next round looks at everything again.
                () = self.clock.sleep(watchdog.interval()) => {}
                () = self.closed.cancelled() => return,
            }
            // There may be none for a moment, while an arbiter starts or has a successor.
            watchdog.look(self.clock.now(), &self.host.beats(), &self.dispatcher);
        }
    }

    /// Sends signs of life, and ends connections whose peer is silent or slow, until the env
    /// closes.
    pub(crate) async fn watch(self: Arc<Self>) {
        let limits = self.config.limits();
        let often = look_every(limits);
        let (mut before, mut rested) = (self.clock.now(), self.clock.now());
        loop {
            tokio::select! {
                biased;
                // Both may be dropped: the next round looks at everything again.
                () = self.clock.sleep(often) => {}
                () = self.closed.cancelled() => return,
            }
            let links = self.peers.connections();
            let now = self.clock.now();
            // A process that was stopped, or a machine that slept, has heard nothing either.
            let most = limits.heartbeat().min(limits.dead_after());
            let stood_still = now.since(before) > most.saturating_add(often);
            before = now;
            if now.since(rested) >= limits.heartbeat() {
                rested = now;
                spare::rest();
            }
            for link in links {
                if stood_still {
                    link.rearm();
                }
                link.look();
            }
        }
    }

    /// Adds what was counted under the links' locks to what the env has counted.
    pub(crate) fn settle_counts(&self) {
        for link in self.peers.all() {
            link.with(Session::settle_counts);
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
        if self.clock.within(GOODBYE, self.tasks.wait()).await.is_none() {
            tracing::warn!(tasks = self.tasks.len(), "connections did not end in time");
            for link in self.peers.all() {
                let close = Close::new(CloseCode::Shutdown, "the env has been shut down");
                link.close(Orders::Break(close));
            }
            self.tasks.wait().await;
        }
        self.abandon();
    }

    /// Ends every call: there are no connections any more.
    pub(crate) fn abandon(&self) {
        for link in self.peers.all() {
            link.with(|session| {
                session.fail_queued(&env_stopped());
                session.detach(&env_stopped(), false)
            });
        }
    }
}

#[cfg(feature = "sim")]
impl Node {
    /// Whether what the sessions hold is within their limits, and nothing is kept for peers that are gone.
    pub(crate) fn audit(&self) -> Result<(), String> {
        self.peers.all().iter().try_for_each(|link| link.with(|session| session.audit()))?;
        let endpoints = self.dispatcher.endpoints();
        let kept = endpoints.iter().find(|inbox| inbox.is_promised());
        match kept.filter(|_| self.peers.connections().is_empty()) {
            Some(inbox) => Err(format!("nobody: {} is promised to peers", inbox.address())),
            None => Ok(()),
        }
    }

    /// Whether what may be sent to another env's endpoints is what those have granted: so it is when
    /// nothing is under way. Nothing is compared where there are two connections, or none.
    pub(crate) fn audit_credit(&self, to: &Self) -> Result<(), String> {
        let (there, back) = (self.peers.of(to.id), to.peers.of(self.id));
        let ([link], [_]) = (&there[..], &back[..]) else { return Ok(()) };
        let endpoints = to.dispatcher.endpoints();
        let granted = endpoints.iter().flat_map(|inbox| inbox.granted());
        let granted = granted.filter(|granted| granted.env == self.id);
        let granted: BTreeMap<_, _> = granted.map(|known| (known.number, known.left)).collect();
        let left = link.with(|session| session.credit_left());
        let wrong = left.iter().find(|(number, left)| granted.get(number) != Some(left));
        match wrong {
            None => Ok(()),
            Some((number, left)) => Err(format!(
                "{}: its target {number} has {left:?} messages and bytes left, and is granted {:?}",
                link.with(|session| session.peer_name().to_owned()),
                granted.get(number)
            )),
        }
    }

    /// What has begun and not ended.
    pub(crate) fn unfinished(&self) -> Vec<String> {
        let links = self.peers.all();
        let open = links.iter().filter_map(|link| link.with(|session| session.unfinished()));
        let (greeting, _) = self.admission.counts();
        let unheard = (greeting > 0).then(|| format!("{greeting} connections without a hello"));
        open.chain(unheard).collect()
    }

    /// What a node holds that must be gone when it is closed.
    pub(crate) fn leftovers(&self) -> Option<String> {
        let (tasks, connections) = (self.tasks.len(), self.peers.connections().len());
        let (greeting, established) = self.admission.counts();
        let left = [tasks, connections, greeting, established];
        left.iter().any(|count| *count > 0).then(|| {
            format!(
                "{tasks} tasks, {connections} connections, {greeting} of them without a hello, {established} that came in"
            )
        })
    }
}

/// Why a connection ends whose peer is not at its address any more.
pub(super) fn address_taken() -> Close {
    Close::new(CloseCode::Shutdown, "another env has taken the address of this one")
}

/// How often connections are looked at: the tenth part of the shortest time that is kept by looking is
/// the error of all of them.
fn look_every(limits: &Limits) -> Duration {
    let silence = limits.heartbeat().min(limits.dead_after());
    let shortest = silence.min(limits.write_stall()).min(limits.frame_timeout());
    (shortest / LOOKS).max(SHORTEST_LOOK)
}

const LOOKS: u32 = 10;
const SHORTEST_LOOK: Duration = Duration::from_millis(5);

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
            "cannot {what} {address} without security: a plaintext RpcEnv listens on and dials loopback addresses only (127.0.0.0/8, ::1, localhost), unless it is built with the feature `dangerous-plaintext` for a network that nobody else can reach"
        ),
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connections_are_looked_at_as_often_as_the_shortest_limit_needs() {
        let limits = || Limits::default().with_heartbeat(Duration::from_secs(600)).unwrap();
        let second = Duration::from_secs(1);
        let dead = limits().with_dead_after(second).unwrap();
        let stalls = limits().with_write_stall(second).unwrap();
        let frames = limits().with_frame_timeout(second).unwrap();
        let short = limits().with_write_stall(Duration::from_millis(1)).unwrap();
        let every = [Limits::default(), limits(), dead, stalls, frames, short];
        let every = every.map(|limits| look_every(&limits).as_millis());
        assert_eq!(every, [100, 300, 100, 100, 100, 5]);
    }
}
