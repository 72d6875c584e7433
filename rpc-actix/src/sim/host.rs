//! A simulated machine, as the network knows it.

use std::collections::{BTreeMap, VecDeque};
use std::task::Waker;

/// Connections that wait to be accepted at one port.
const BACKLOG: usize = 128;
/// The first port that is given to whoever wants any.
const FIRST_EPHEMERAL: u16 = 49_152;

#[derive(Debug)]
pub(super) struct Host {
    /// Counts its lives: what belongs to an earlier one is dead.
    pub(super) life: u64,
    /// Whether its process runs.
    pub(super) running: bool,
    /// Whether the machine answers at all.
    pub(super) powered: bool,
    ports: BTreeMap<u16, Port>,
    next: u16,
}

#[derive(Debug, Default)]
struct Port {
    waiting: VecDeque<u64>,
    acceptor: Option<Waker>,
}

/// What a new connection meets.
#[derive(Debug)]
pub(super) enum Knock {
    /// It waits to be accepted; whoever accepts is to be woken.
    Heard(Option<Waker>),
    /// There is no room: try again later.
    Full,
    /// Nobody listens.
    Closed,
}

impl Host {
    pub(super) fn new() -> Self {
        let (ports, next) = (BTreeMap::new(), FIRST_EPHEMERAL);
        Self { life: 0, running: false, powered: true, ports, next }
    }

    /// Begins a life.
    pub(super) fn start(&mut self) -> u64 {
        self.life = self.life.saturating_add(1);
        (self.running, self.powered) = (true, true);
        self.life
    }

    /// Ends it. The connections that nobody has accepted.
    pub(super) fn stop(&mut self) -> Vec<u64> {
        self.running = false;
        let ports = std::mem::take(&mut self.ports);
        ports.into_values().flat_map(|port| port.waiting).collect()
    }

    pub(super) fn is_alive(&self, life: u64) -> bool {
        self.running && self.life == life
    }

    /// A port that nobody has, for a dial or for whoever listens on any.
    pub(super) fn any_port(&mut self) -> u16 {
        loop {
            let port = self.next;
            self.next = self.next.checked_add(1).unwrap_or(FIRST_EPHEMERAL);
            if !self.ports.contains_key(&port) {
                return port;
            }
        }
    }

    /// Takes a port. `false` if somebody has it.
    pub(super) fn listen(&mut self, port: u16) -> bool {
        let free = !self.ports.contains_key(&port);
        self.ports.entry(port).or_default();
        free
    }

    /// Gives it back. The connections that nobody has accepted.
    pub(super) fn unlisten(&mut self, port: u16) -> Vec<u64> {
        self.ports.remove(&port).map(|port| port.waiting.into()).unwrap_or_default()
    }

    pub(super) fn knock(&mut self, port: u16, connection: u64) -> Knock {
        match self.ports.get_mut(&port).filter(|_| self.running) {
            None => Knock::Closed,
            Some(port) if port.waiting.len() >= BACKLOG => Knock::Full,
            Some(port) => {
                port.waiting.push_back(connection);
                Knock::Heard(port.acceptor.take())
            }
        }
    }

    /// The next connection at a port, or somebody to be woken when there is one.
    pub(super) fn accept(&mut self, port: u16, waker: &Waker) -> Option<u64> {
        let port = self.ports.get_mut(&port)?;
        let next = port.waiting.pop_front();
        if next.is_none() {
            port.acceptor = Some(waker.clone());
        }
        next
    }
}
