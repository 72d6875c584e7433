//! The simulated network: everything that is under way, in the order in which it happens.

use super::connection::{ACCEPTOR, Connection, DIALLER, Dial, Side, other};
use super::host::{Host, Knock};
use super::pipe::Segment;
use super::random::SimRandom;
use super::trace::Trace;
use super::weather::{Map, Weather};
use crate::rt::Clock;
use rpc_core::Timestamp;
use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::Waker;
use std::time::Duration;
use tokio::sync::Notify;

/// A network with its hosts. Shared by the streams of all nodes; only [`run`](Self::run) makes
/// anything arrive.
pub(super) struct Network {
    clock: Clock,
    state: Mutex<State>,
    bell: Notify,
}

pub(super) struct State {
    pub(super) now: Timestamp,
    pub(super) random: SimRandom,
    pub(super) trace: Arc<Trace>,
    pub(super) hosts: BTreeMap<IpAddr, Host>,
    pub(super) connections: BTreeMap<u64, Connection>,
    pub(super) map: Map,
    pub(super) wakes: Vec<Waker>,
    last: u64,
    due: BinaryHeap<Reverse<(Timestamp, u64, Event)>>,
    sequence: u64,
    rings: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Event {
    /// A dial arrives, for the n-th time.
    Knock(u64, u32),
    /// The answer to it arrives.
    Answer(u64, bool),
    /// What an end has written arrives.
    Arrive(u64, usize),
}

/// How long a system waits before it sends something again that was lost.
const RETRY: Duration = Duration::from_secs(1);
const MOST_DOUBLINGS: u32 = 3;

impl Network {
    pub(super) fn new(
        clock: Clock,
        random: SimRandom,
        trace: Arc<Trace>,
        weather: Weather,
    ) -> Self {
        let state = State {
            now: clock.now(),
            random,
            trace,
            hosts: BTreeMap::new(),
            connections: BTreeMap::new(),
            map: Map::new(weather),
            wakes: Vec::new(),
            last: 0,
            due: BinaryHeap::new(),
            sequence: 0,
            rings: false,
        };
        Self { clock, state: Mutex::new(state), bell: Notify::new() }
    }

    /// Works on the state under the lock; wakes what that has made ready, after it.
    pub(super) fn with<R>(&self, f: impl FnOnce(&mut State) -> R) -> R {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.now = self.clock.now();
        let result = f(&mut state);
        let wakes = std::mem::take(&mut state.wakes);
        let rings = std::mem::take(&mut state.rings);
        drop(state);
        wakes.into_iter().for_each(Waker::wake);
        if rings {
            self.bell.notify_one();
        }
        result
    }

    /// Makes things arrive, for ever. `after` is called each time something did.
    pub(super) async fn run(&self, after: impl Fn()) {
        loop {
            let (happened, next) = self.with(|state| (state.step(), state.next()));
            if happened {
                after();
            }
            let due = async {
                match next {
                    Some(next) => self.clock.sleep_until(next).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                biased;
                // Either may be dropped: the next event is looked up again.
                () = self.bell.notified() => {}
                () = due => {}
            }
        }
    }
}

impl State {
    fn schedule(&mut self, at: Timestamp, event: Event) {
        self.rings |= self.next().is_none_or(|next| at < next);
        self.sequence = self.sequence.saturating_add(1);
        self.due.push(Reverse((at, self.sequence, event)));
    }

    fn next(&self) -> Option<Timestamp> {
        self.due.peek().map(|Reverse((at, ..))| *at)
    }

    /// All that happens by now. Whether something did.
    fn step(&mut self) -> bool {
        let mut happened = false;
        while self.next().is_some_and(|at| at <= self.now)
            && let Some(Reverse((_, _, event))) = self.due.pop()
        {
            happened = true;
            match event {
                Event::Knock(connection, tries) => self.knock(connection, tries),
                Event::Answer(connection, taken) => self.answer(connection, taken),
                Event::Arrive(connection, end) => self.deliver(connection, end),
            }
            self.forget_if_over(self.subject(event));
        }
        happened
    }

    fn subject(&self, event: Event) -> u64 {
        let (Event::Knock(connection, _)
        | Event::Answer(connection, _)
        | Event::Arrive(connection, _)) = event;
        connection
    }

    pub(super) fn note(&self, kind: &'static str, numbers: &[u64]) {
        self.trace.event(self.now, kind, numbers);
    }

    pub(super) fn host(&mut self, at: IpAddr) -> &mut Host {
        self.hosts.entry(at).or_insert_with(Host::new)
    }

    fn is_powered(&self, at: IpAddr) -> bool {
        self.hosts.get(&at).is_none_or(|host| host.powered)
    }
}

/// Dials.
impl State {
    /// A process dials. The number of the connection.
    pub(super) fn dial(&mut self, from: IpAddr, life: u64, to: SocketAddr) -> u64 {
        let port = self.host(from).any_port();
        self.last = self.last.saturating_add(1);
        let (number, at) = (self.last, SocketAddr::new(from, port));
        self.note("dial", &[number, last_byte(from), last_byte(to.ip())]);
        self.connections.insert(number, Connection::new(Side { at, life, open: true }, to));
        let at = self.travel_time(from, to.ip());
        self.schedule(at, Event::Knock(number, 0));
        number
    }

    fn travel_time(&mut self, from: IpAddr, to: IpAddr) -> Timestamp {
        let (latency, _) = self.map.at(from, to).travel(&mut self.random, 0);
        self.now.saturating_add(latency)
    }

    fn knock(&mut self, number: u64, tries: u32) {
        let Some(connection) = self.connections.get(&number) else { return };
        let (from, to) = (connection.end(DIALLER).at, connection.end(ACCEPTOR).at);
        if !connection.end(DIALLER).open {
            // It was given up.
            self.connections.remove(&number);
            return;
        }
        let lost = self.map.is_cut(from.ip(), to.ip()) || !self.is_powered(to.ip());
        let refuses = self.map.refuses(to.ip());
        let host = self.hosts.entry(to.ip()).or_insert_with(Host::new);
        let (life, knock) = match lost {
            true => (0, Knock::Full),
            false if refuses => (0, Knock::Closed),
            false => (host.life, host.knock(to.port(), number)),
        };
        match knock {
            Knock::Full => {
                let wait = RETRY.saturating_mul(1 << tries.min(MOST_DOUBLINGS));
                self.schedule(
                    self.now.saturating_add(wait),
                    Event::Knock(number, tries.saturating_add(1)),
                );
            }
            Knock::Closed => {
                self.note("refused", &[number]);
                let at = self.travel_time(to.ip(), from.ip());
                self.schedule(at, Event::Answer(number, false));
            }
            Knock::Heard(acceptor) => {
                self.note("accepted", &[number]);
                self.wakes.extend(acceptor);
                if let Some(connection) = self.connections.get_mut(&number) {
                    (connection.end_mut(ACCEPTOR).life, connection.end_mut(ACCEPTOR).open) =
                        (life, true);
                }
                let at = self.travel_time(to.ip(), from.ip());
                self.schedule(at, Event::Answer(number, true));
            }
        }
    }

    fn answer(&mut self, number: u64, taken: bool) {
        let Some(connection) = self.connections.get_mut(&number) else { return };
        let (from, to) = (connection.end(DIALLER).at.ip(), connection.end(ACCEPTOR).at.ip());
        if self.map.is_cut(to, from) || !self.hosts.get(&from).is_none_or(|host| host.powered) {
            self.schedule(self.now.saturating_add(RETRY), Event::Answer(number, taken));
            return;
        }
        connection.dial = if taken { Dial::Taken } else { Dial::Refused };
        connection.into(DIALLER).read_since = self.now;
        self.wakes.extend(connection.dialler.take());
    }
}

/// What is written and read.
impl State {
    /// An end sends something. Nothing happens if it never arrives.
    pub(super) fn send(&mut self, number: u64, end: usize, segment: Segment) {
        let Some(connection) = self.connections.get_mut(&number) else { return };
        let pipe = connection.out(end);
        let (from, to) = (pipe.from, pipe.to);
        if matches!(segment, Segment::Reset) && self.map.is_cut(from, to) {
            // Nobody sends a reset again.
            return;
        }
        let bytes = if let Segment::Data(data) = &segment { data.len() } else { 0 };
        let travel = self.map.at(from, to).travel(&mut self.random, bytes);
        if let Some(at) = pipe.put(self.now, travel, segment) {
            self.schedule(at, Event::Arrive(number, end));
        }
    }

    /// What `from` has sent arrives.
    fn deliver(&mut self, number: u64, from: usize) {
        let to = other(from);
        while let Some(connection) = self.connections.get_mut(&number) {
            let pipe = connection.out(from);
            let powered = self.hosts.get(&pipe.to).is_none_or(|host| host.powered);
            if self.map.is_cut(pipe.from, pipe.to) || !powered {
                // It sets out again when the way is free.
                return;
            }
            let Some(segment) = pipe.next_arrival(self.now) else { return };
            if !connection.end(to).open {
                // Who writes to nobody is told so.
                if matches!(segment, Segment::Data(_)) && connection.end(from).open {
                    self.send(number, to, Segment::Reset);
                }
                continue;
            }
            self.take(number, from, segment);
        }
    }

    fn take(&mut self, number: u64, from: usize, segment: Segment) {
        let Some(connection) = self.connections.get_mut(&number) else { return };
        let pipe = connection.out(from);
        match segment {
            Segment::Data(mut data) => {
                let breaks = pipe.breaks_after.is_some_and(|left| left <= data.len());
                if let Some(left) = &mut pipe.breaks_after {
                    data.truncate(*left);
                    *left = left.saturating_sub(data.len());
                }
                let bytes = u64::try_from(data.len()).unwrap_or(u64::MAX);
                if !data.is_empty() {
                    pipe.arrive(data);
                }
                self.wakes.extend(pipe.reader.take());
                if breaks {
                    connection.break_now(&mut self.wakes);
                }
                self.note(
                    "arrives",
                    &[number, u64::from(from == DIALLER), bytes, u64::from(breaks)],
                );
            }
            Segment::Fin => {
                pipe.finish(self.now);
                self.wakes.extend(pipe.reader.take());
                self.note("fin", &[number, u64::from(from == DIALLER)]);
            }
            Segment::Reset => {
                connection.break_now(&mut self.wakes);
                self.note("reset", &[number, u64::from(from == DIALLER)]);
            }
        }
    }

    /// A process gives up its end.
    pub(super) fn close(&mut self, number: u64, end: usize) {
        let Some(connection) = self.connections.get_mut(&number) else { return };
        if !std::mem::replace(&mut connection.end_mut(end).open, false) {
            return;
        }
        let word = connection.last_word(end);
        if let Some(Segment::Reset) = word {
            // What the system had not sent yet is thrown away.
            let out = connection.out(end);
            let most = u64::try_from(out.under_way()).unwrap_or(u64::MAX).saturating_add(1);
            out.lose(usize::try_from(self.random.below(most)).unwrap_or(0));
        }
        self.note("closed", &[number, u64::from(end == DIALLER)]);
        if let Some(word) = word {
            self.send(number, end, word);
        }
        // What it had to say may have nowhere to go.
        self.forget_if_over(number);
    }

    fn forget_if_over(&mut self, number: u64) {
        if self.connections.get(&number).is_some_and(Connection::is_over) {
            self.connections.remove(&number);
        }
    }
}

/// What is done to it from outside.
impl State {
    /// Cuts a direction, or mends it: what was written meanwhile arrives after a while.
    pub(super) fn cut(&mut self, from: IpAddr, to: IpAddr, is_cut: bool) {
        if !self.map.cut(from, to, is_cut) {
            return;
        }
        self.note("cut", &[last_byte(from), last_byte(to), u64::from(is_cut)]);
        if !is_cut {
            self.set_out_again(|pipe_from, pipe_to| (pipe_from, pipe_to) == (from, to));
        }
    }

    /// Whatever was held up on ways that are free again sets out again.
    pub(super) fn set_out_again(&mut self, free: impl Fn(IpAddr, IpAddr) -> bool) {
        let mut events = Vec::new();
        for (number, connection) in &mut self.connections {
            for end in [DIALLER, ACCEPTOR] {
                let pipe = connection.out(end);
                if !free(pipe.from, pipe.to) {
                    continue;
                }
                // Systems wait longer and longer before they send again.
                let wait = self.random.duration(Duration::from_millis(1)..RETRY / 4);
                if let Some(at) = pipe.delay(self.now.saturating_add(wait)) {
                    events.push((at, Event::Arrive(*number, end)));
                }
            }
        }
        for (at, event) in events {
            self.schedule(at, event);
        }
    }

    /// The connections between two nodes, and which end `one` has.
    pub(super) fn between(&self, one: IpAddr, two: IpAddr) -> Vec<(u64, usize)> {
        let found = self.connections.iter().filter_map(|(number, connection)| {
            let ends = [connection.end(DIALLER).at.ip(), connection.end(ACCEPTOR).at.ip()];
            match ends {
                [from, to] if (from, to) == (one, two) => Some((*number, DIALLER)),
                [from, to] if (from, to) == (two, one) => Some((*number, ACCEPTOR)),
                _ => None,
            }
        });
        found.collect()
    }

    /// How many connections one node has made to another that one of them has still.
    pub(super) fn made(&self, from: IpAddr, to: IpAddr) -> usize {
        let ends = |c: &Connection| [c.end(DIALLER).at.ip(), c.end(ACCEPTOR).at.ip()];
        let open = |c: &Connection| c.end(DIALLER).open || c.end(ACCEPTOR).open;
        self.connections.values().filter(|c| ends(c) == [from, to] && open(c)).count()
    }

    /// The sockets that a life of a node has.
    pub(super) fn sockets(&self, at: IpAddr, life: Option<u64>) -> usize {
        let ends = self.connections.values().flat_map(|c| [c.end(DIALLER), c.end(ACCEPTOR)]);
        ends.filter(|end| end.open && end.at.ip() == at && Some(end.life) == life).count()
    }

    /// Whether the process on a node has an open connection to another node.
    pub(super) fn is_connected(&self, one: IpAddr, two: IpAddr) -> bool {
        self.between(one, two).into_iter().any(|(number, end)| {
            let connection = self.connections.get(&number);
            connection.is_some_and(|c| c.dial == Dial::Taken && c.end(end).open)
        })
    }

    /// The connections that a life of a node has although their peers have ended them. It stood still
    /// until `stood`.
    pub(super) fn deaf(&mut self, at: IpAddr, life: Option<u64>, stood: Timestamp) -> usize {
        let now = self.now;
        let ends = self.connections.values_mut().flat_map(|c| {
            [DIALLER, ACCEPTOR].map(|end| {
                let own = c.end(end);
                let here = own.open && own.at.ip() == at && Some(own.life) == life;
                here && c.is_deaf(end, now, stood)
            })
        });
        ends.filter(|deaf| *deaf).count()
    }

    /// Breaks a connection, at once or after `end` has sent so many bytes more.
    pub(super) fn break_connection(&mut self, number: u64, end: usize, after: Option<usize>) {
        self.note("breaks", &[number, after.and_then(|n| u64::try_from(n).ok()).unwrap_or(0)]);
        let Some(connection) = self.connections.get_mut(&number) else { return };
        match after {
            Some(bytes) => connection.out(end).breaks_after = Some(bytes),
            None => connection.break_now(&mut self.wakes),
        }
        self.forget_if_over(number);
    }

    /// No connection breaks that was going to.
    pub(super) fn spare(&mut self) {
        for connection in self.connections.values_mut() {
            connection.out(DIALLER).breaks_after = None;
            connection.out(ACCEPTOR).breaks_after = None;
        }
    }

    /// Ends one direction of a connection.
    pub(super) fn half_close(&mut self, number: u64, end: usize) {
        self.note("half-close", &[number, u64::from(end == DIALLER)]);
        self.send(number, end, Segment::Fin);
        if let Some(connection) = self.connections.get_mut(&number) {
            connection.out(end).sever();
        }
    }

    /// A node begins a life.
    pub(super) fn start(&mut self, at: IpAddr) -> u64 {
        let was_off = !self.is_powered(at);
        let life = self.host(at).start();
        self.note("start", &[last_byte(at), life]);
        if was_off {
            self.set_out_again(|_, to| to == at);
        }
        life
    }

    /// A node's process ends. Its system says so to the peers, unless the machine is off.
    pub(super) fn stop(&mut self, at: IpAddr, power_off: bool) {
        self.note("stop", &[last_byte(at), u64::from(power_off)]);
        let host = self.host(at);
        drop(host.stop());
        host.powered = !power_off;
        let numbers: Vec<u64> = self.connections.keys().copied().collect();
        for number in numbers {
            for end in [DIALLER, ACCEPTOR] {
                let Some(connection) = self.connections.get_mut(&number) else { continue };
                if connection.end(end).at.ip() != at {
                    continue;
                }
                if power_off {
                    connection.end_mut(end).open = false;
                    connection.out(end).lose(0);
                } else {
                    self.close(number, end);
                }
            }
        }
        self.connections.retain(|_, connection| !connection.is_over());
    }
}

/// Enough of an address to tell nodes apart.
fn last_byte(at: IpAddr) -> u64 {
    match at {
        IpAddr::V4(at) => u64::from(u32::from(at) & 0xffff),
        IpAddr::V6(_) => 0,
    }
}
