//! What a test holds of a simulation.

use super::network::{Network, State};
use super::node::SimNode;
use super::random::SimRandom;
use super::trace::Trace;
use super::weather::Weather;
use crate::rt::{self, Clock};
use rpc_core::Timestamp;
use std::cell::{Cell, RefCell};
use std::fmt;
use std::net::{IpAddr, Ipv4Addr};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Notify;

/// A running simulation: its nodes, its network and its clock. Cheap to clone.
#[derive(Clone)]
pub struct Sim(pub(super) Rc<World>);

pub(super) struct World {
    pub(super) seed: u64,
    pub(super) clock: Clock,
    pub(super) network: Arc<Network>,
    pub(super) trace: Arc<Trace>,
    pub(super) random: SimRandom,
    nodes: RefCell<Vec<SimNode>>,
    invariants: RefCell<Vec<Invariant>>,
    failure: RefCell<Option<String>>,
    pub(super) failed: Notify,
    /// How often something happened at the same time in a row.
    busy: Cell<(Timestamp, u64)>,
}

struct Invariant {
    name: String,
    holds: Box<dyn FnMut() -> Result<(), String>>,
}

/// Steps without any time going by after which a simulation is taken to run in a circle.
const MOST_STEPS_AT_ONCE: u64 = 1_000_000;

impl World {
    pub(super) fn now(&self) -> Timestamp {
        self.clock.now()
    }

    /// Something has happened: everything that must hold is looked at.
    pub(super) fn stepped(&self) {
        let (now, (at, steps)) = (self.now(), self.busy.get());
        let steps = if now == at { steps.saturating_add(1) } else { 0 };
        self.busy.set((now, steps));
        if steps > MOST_STEPS_AT_ONCE {
            self.fail("it runs in a circle: no time goes by");
        }
        // An invariant may add another one.
        let mut invariants = std::mem::take(&mut *self.invariants.borrow_mut());
        for Invariant { name, holds } in &mut invariants {
            if let Err(text) = holds() {
                self.fail(&format!("{name}: {text}"));
            }
        }
        let mut all = self.invariants.borrow_mut();
        invariants.append(&mut all);
        *all = invariants;
    }

    pub(super) fn fail(&self, text: &str) {
        let mut failure = self.failure.borrow_mut();
        if failure.is_none() {
            self.trace.text(self.now(), &format!("FAILED {text}"));
            *failure = Some(text.to_owned());
            self.failed.notify_one();
        }
    }

    pub(super) fn failure(&self) -> Option<String> {
        self.failure.borrow().clone()
    }
}

impl Sim {
    pub(super) fn new(seed: u64, trace: Trace, weather: Weather) -> Self {
        let (random, clock, trace) = (SimRandom::new(seed), Clock::start(), Arc::new(trace));
        let network = Network::new(clock, random.fork("network"), trace.clone(), weather);
        Self(Rc::new(World {
            seed,
            clock,
            network: Arc::new(network),
            trace,
            random,
            nodes: RefCell::default(),
            invariants: RefCell::default(),
            failure: RefCell::default(),
            failed: Notify::new(),
            busy: Cell::new((Timestamp::START, 0)),
        }))
    }

    /// Ends everything, so that nothing of it is left.
    pub(super) fn end(&self) {
        let nodes = std::mem::take(&mut *self.0.nodes.borrow_mut());
        nodes.iter().for_each(SimNode::forget);
        self.0.invariants.borrow_mut().clear();
    }

    /// A new node: a machine with an address of its own, which is switched on and has nothing to do
    /// yet. See [`SimNode::runs`] and [`SimNode::run`].
    #[must_use]
    pub fn node(&self, name: &str) -> SimNode {
        let number = u32::try_from(self.0.nodes.borrow().len()).unwrap_or(u32::MAX);
        // All of 127.0.0.0/8 is this machine's own, so no rule about networks has to be lifted.
        let first = u32::from(Ipv4Addr::new(127, 1, 0, 1));
        let at = Ipv4Addr::from(first.saturating_add(number));
        let node = SimNode::new(self, name, IpAddr::V4(at));
        self.0.nodes.borrow_mut().push(node.clone());
        node
    }

    /// The seed that all follows from.
    #[must_use]
    pub fn seed(&self) -> u64 {
        self.0.seed
    }

    /// Random numbers for the test itself, which follow from the seed and the label.
    #[must_use]
    pub fn random(&self, label: &str) -> SimRandom {
        self.0.random.fork("tests").fork(label)
    }

    /// The time since the simulation began, on its virtual clock.
    #[must_use]
    pub fn elapsed(&self) -> Duration {
        self.0.now().since(Timestamp::START)
    }

    /// Waits on the virtual clock, which ticks in milliseconds.
    ///
    /// # Cancel safety
    /// It may be dropped at any time.
    pub async fn sleep(&self, duration: Duration) {
        self.0.clock.sleep(duration).await;
    }

    /// Runs something beside the test, on no node, until the simulation ends.
    pub fn spawn(&self, future: impl Future<Output = ()> + 'static) {
        rt::spawn(super::node::watched(self.0.clone(), "a task of the test", future));
    }

    /// The clock jumps, as after a suspended machine wakes up: nothing runs meanwhile, on any node,
    /// and what was under way has long arrived.
    pub async fn jump(&self, by: Duration) {
        self.note(&format!("the clock jumps by {by:?}"));
        rt::simulated::jump(by).await;
    }

    /// Adds words to the trace.
    pub fn note(&self, text: &str) {
        self.0.trace.text(self.0.now(), text);
    }

    /// Adds an event to the trace: what it is, and numbers that tell it from others. They are put into
    /// words only if somebody listens, so this costs less than [`note`](Self::note).
    pub fn note_numbers(&self, kind: &'static str, numbers: &[u64]) {
        self.0.trace.event(self.0.now(), kind, numbers);
    }

    /// Adds something that must hold after every event, on a node and in the network. If it does
    /// not, the simulation ends with the text.
    pub fn invariant(&self, name: &str, holds: impl FnMut() -> Result<(), String> + 'static) {
        let (name, holds) = (name.to_owned(), Box::new(holds));
        self.0.invariants.borrow_mut().push(Invariant { name, holds });
    }

    /// Ends the simulation: it has failed.
    pub fn fail(&self, text: &str) {
        self.0.fail(text);
    }
}

/// The network.
impl Sim {
    fn network<R>(&self, f: impl FnOnce(&mut State) -> R) -> R {
        self.0.network.with(f)
    }

    /// The weather everywhere, from now on.
    pub fn set_weather(&self, weather: Weather) {
        self.network(|state| state.map.set_usual(weather));
    }

    /// The weather from one node to another, in that direction only.
    pub fn set_weather_between(&self, from: &SimNode, to: &SimNode, weather: Weather) {
        self.network(|state| state.map.set(from.ip(), to.ip(), weather));
    }

    /// Cuts the network between two nodes, in silence: nothing arrives, and nobody is told. What is
    /// written meanwhile arrives when it is mended, as over TCP.
    pub fn partition(&self, one: &SimNode, two: &SimNode) {
        self.partition_one_way(one, two);
        self.partition_one_way(two, one);
    }

    /// The same in one direction only.
    pub fn partition_one_way(&self, from: &SimNode, to: &SimNode) {
        self.network(|state| state.cut(from.ip(), to.ip(), true));
    }

    /// Mends what was cut between two nodes, in both directions.
    pub fn mend(&self, one: &SimNode, two: &SimNode) {
        self.network(|state| {
            state.cut(one.ip(), two.ip(), false);
            state.cut(two.ip(), one.ip(), false);
        });
    }

    /// Mends all that was cut, and lets live what was going to break.
    pub fn mend_all(&self) {
        self.network(|state| {
            let cut = state.map.mend();
            state.note("mended", &[u64::try_from(cut.len()).unwrap_or(u64::MAX)]);
            state.set_out_again(|from, to| cut.contains(&(from, to)));
            state.spare();
        });
    }

    /// Cuts and mends the network between two nodes, again and again, for `times` of `each`.
    ///
    /// # Cancel safety
    /// Dropped in the middle, it may be left cut.
    pub async fn flap(&self, one: &SimNode, two: &SimNode, each: Duration, times: u32) {
        for _ in 0..times {
            self.partition(one, two);
            self.sleep(each).await;
            self.mend(one, two);
            self.sleep(each).await;
        }
    }

    /// Breaks every connection between two nodes, as a reset does: at once, or when `one` has sent
    /// so many bytes more, which may be in the middle of a frame. How many there were.
    pub fn reset(&self, one: &SimNode, two: &SimNode, after: Option<usize>) -> usize {
        self.network(|state| {
            let found = state.between(one.ip(), two.ip());
            found.iter().for_each(|(number, end)| state.break_connection(*number, *end, after));
            found.len()
        })
    }

    /// Ends one direction of every connection between two nodes: `to` reads an end of file, what
    /// `from` writes from now on is lost, and the other direction stays.
    pub fn half_close(&self, from: &SimNode, to: &SimNode) -> usize {
        self.network(|state| {
            let found = state.between(from.ip(), to.ip());
            found.iter().for_each(|(number, end)| state.half_close(*number, *end));
            found.len()
        })
    }

    /// From now on every new connection to a node is refused, or not any more.
    pub fn refuse(&self, at: &SimNode, refuses: bool) {
        self.network(|state| state.map.refuse(at.ip(), refuses));
    }

    /// The number of connections that one node has made to another, and that at least one of them
    /// has.
    #[must_use]
    pub fn connections(&self, from: &SimNode, to: &SimNode) -> usize {
        self.network(|state| state.made(from.ip(), to.ip()))
    }
}

impl fmt::Debug for Sim {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sim").field("seed", &self.0.seed).field("at", &self.elapsed()).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::transport::{ByteStream, Transport};
    use crate::sim::Simulation;
    use tokio::io::AsyncWriteExt;

    /// Two machines, and a connection that one has made to the other: the ends of both.
    async fn connected(sim: &Sim) -> (SimNode, SimNode, Box<dyn ByteStream>, Box<dyn ByteStream>) {
        let (one, two) = (sim.node("one"), sim.node("two"));
        let at = two.address(7).parse().unwrap();
        let mut listener = two.transport().unwrap().bind(&at).unwrap();
        let dialled = one.transport().unwrap().connect(&at).await.unwrap().open().unwrap();
        let accepted = listener.accept().await.unwrap().open().unwrap();
        (one, two, dialled, accepted)
    }

    #[test]
    fn what_both_sides_have_given_up_is_forgotten_behind_a_cut() {
        Simulation::new(1).run(|sim| async move {
            let (one, two, mut dialled, accepted) = connected(&sim).await;
            dialled.write_all(b"unread").await.unwrap();
            sim.sleep(Duration::from_secs(1)).await;
            let known = || sim.network(|state| state.connections.len());
            sim.partition(&one, &two);
            drop(dialled);
            assert_eq!(known(), 1, "its end is under way");
            sim.mend(&one, &two);
            sim.sleep(Duration::from_secs(1)).await;
            sim.partition(&one, &two);
            // Something is unread: it says so by a reset, which nobody sends again.
            drop(accepted);
            assert_eq!(known(), 0);
        });
    }

    #[test]
    fn a_connection_that_its_peer_has_ended_is_deaf_after_a_while() {
        Simulation::new(1).run(|sim| async move {
            let (_one, two, dialled, accepted) = connected(&sim).await;
            let deaf = || {
                let (at, life) = (two.ip(), Some(1));
                let stood = Timestamp::from_nanos(two.stood_until().as_nanos() as u64);
                sim.network(|state| state.deaf(at, life, stood))
            };
            drop(dialled);
            sim.sleep(Duration::from_secs(1)).await;
            assert_eq!(deaf(), 0);
            sim.sleep(Duration::from_secs(2)).await;
            assert_eq!(deaf(), 1);
            // It could not have noticed.
            two.pause_for(Duration::from_secs(1));
            assert_eq!(deaf(), 0);
            drop(accepted);
            sim.sleep(Duration::from_secs(4)).await;
            assert_eq!(deaf(), 0);
        });
    }
}
