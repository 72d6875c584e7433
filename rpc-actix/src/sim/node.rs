//! A simulated machine and the process on it.

use super::blocking::Blocking;
use super::random::SimRandom;
use super::transport::Gate;
use super::world::{Sim, World};
use crate::dispatch::host::ActixHost;
use crate::factory::{self, ActixRpcEnvFactory, Random};
use crate::net::node::Node;
use crate::net::transport::Transport;
use crate::rt::{self, Clock, simulated::Rate, simulated::Tasks};
use futures_util::FutureExt;
use rpc_core::spi::LocalBoxFuture;
use rpc_core::{ErrorKind, HandlerResult, RpcEnv, RpcEnvConfig, RpcError, Timestamp};
use std::any::Any;
use std::cell::{Cell, RefCell};
use std::fmt;
use std::io;
use std::net::IpAddr;
use std::panic::AssertUnwindSafe;
use std::rc::Rc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::task::{Context, Poll, Waker};
use std::time::Duration;
use tokio::sync::oneshot;

/// A node of a simulation. Cheap to clone.
#[derive(Clone)]
pub struct SimNode(Rc<Inner>);

struct Inner {
    world: Rc<World>,
    name: String,
    at: IpAddr,
    /// Until when the process stands still, in nanoseconds of the simulation.
    stands_until: Arc<AtomicU64>,
    /// How many times as fast as the simulation's its clock runs.
    clock_rate: Cell<f64>,
    state: RefCell<State>,
}

type Program = Rc<dyn Fn(SimNode) -> LocalBoxFuture<HandlerResult<()>>>;

#[derive(Default)]
struct State {
    program: Option<Program>,
    /// Which life of the node this is. Set as long as its process runs.
    life: Option<u64>,
    /// Away while they run.
    tasks: Option<Tasks>,
    runner: Option<Waker>,
    envs: Vec<Weak<Node>>,
    /// Envs made so far, in all lives.
    made: u64,
}

impl SimNode {
    pub(super) fn new(sim: &Sim, name: &str, at: IpAddr) -> Self {
        let node = Self(Rc::new(Inner {
            world: sim.0.clone(),
            name: name.to_owned(),
            at,
            stands_until: Arc::default(),
            clock_rate: Cell::new(1.0),
            state: RefCell::default(),
        }));
        node.start();
        rt::spawn(run_node(Rc::downgrade(&node.0)));
        node
    }

    /// What the node runs: begun now, and at each [`restart`](Self::restart). An error that it
    /// returns, or a panic, fails the simulation.
    ///
    /// The process goes on when the program is over. An env lives until its last clone is dropped.
    #[must_use = "a clone of the node is what the test works with"]
    pub fn runs<F, R>(&self, program: F) -> Self
    where
        F: Fn(Self) -> R + 'static,
        R: Future<Output = HandlerResult<()>> + 'static,
    {
        let program: Program = Rc::new(move |node| program(node).boxed_local());
        self.0.state.borrow_mut().program = Some(program);
        self.begin();
        self.clone()
    }

    /// Runs something on the node, beside its program. The future that this returns says what came
    /// out, or that the process has ended before; it need not be polled. A panic fails the simulation.
    pub fn run<F, R>(&self, work: F) -> impl Future<Output = Result<R::Output, RpcError>> + 'static
    where
        F: FnOnce(Self) -> R,
        R: Future<Output: 'static> + 'static,
    {
        let (done, result) = oneshot::channel();
        let work = work(self.clone());
        self.spawn(async move {
            let _ = done.send(work.await);
        });
        let name = self.0.name.clone();
        async move {
            result.await.map_err(|_| {
                RpcError::new(ErrorKind::EnvStopped, format!("the process of {name} has ended"))
            })
        }
    }

    fn spawn(&self, work: impl Future<Output = ()> + 'static) {
        let work = watched(self.0.world.clone(), &self.0.name, work);
        let state = self.0.state.borrow();
        match (&state.tasks, state.life) {
            (Some(tasks), _) => tasks.spawn(work),
            // They are running: this is one of them.
            (None, Some(_)) => rt::spawn(work),
            (None, None) => {}
        }
    }

    /// Makes an env on the node. Its number follows from the seed. Only what runs on the node can
    /// make one: its program, or what [`run`](Self::run) was given.
    ///
    /// A simulated env polls busily for nothing (`rpc.io.busyPoll` is 0): time would stand still.
    ///
    /// # Errors
    /// As [`create`](crate::create); `Bind` for an address that is not the node's.
    ///
    /// # Cancel safety
    /// Dropped in the middle, no env is left behind.
    pub async fn create(&self, config: RpcEnvConfig) -> Result<RpcEnv, RpcError> {
        let ended =
            || RpcError::new(ErrorKind::EnvStopped, format!("{} does not run", self.0.name));
        let (life, made) = {
            let mut state = self.0.state.borrow_mut();
            if state.tasks.is_some() {
                let text =
                    format!("an env of {} is made by what runs on it: SimNode::run", self.0.name);
                return Err(RpcError::new(ErrorKind::InvalidConfig, text));
            }
            state.made = state.made.saturating_add(1);
            (state.life.ok_or_else(ended)?, state.made)
        };
        let numbers = self.0.world.random.fork("envs").fork(&format!("{} {made}", self.0.name));
        let gate = Gate::new(self.0.world.network.clone(), self.0.at, life);
        let host = ActixHost::inline()?;
        let factory = ActixRpcEnvFactory::on(&host)
            .with_transport(gate)
            .with_random(Numbers(Mutex::new(numbers)));
        let limits = config.limits().clone().with_busy_poll(Duration::ZERO)?;
        let clock = Clock::start().at_rate(Rate::new(self.0.clock_rate.get()));
        let (env, inside) =
            factory::create(factory, Some(host), config.with_limits(limits), clock).await?;
        self.0.state.borrow_mut().envs.push(inside);
        Ok(env)
    }

    /// The node's clock runs so many times as fast as the simulation's: with 1.1 it gains six minutes in
    /// an hour. Whatever an env measures or waits for follows the node's clock: deadlines, signs of life,
    /// `sleep`, `send_after`. That is so for envs that are made from now on; call this before
    /// [`runs`](Self::runs).
    ///
    /// From 0.01 to 100; 1 at the beginning. What is done to a node from outside, [`Sim::sleep`],
    /// [`Blocking`] and tokio's own timers keep the simulation's time.
    pub fn set_clock_rate(&self, times: f64) {
        self.0.clock_rate.set(times);
    }

    /// What [`set_clock_rate`](Self::set_clock_rate) was told last. A second by the node's clock takes one
    /// of the simulation's, divided by it.
    #[must_use]
    pub fn clock_rate(&self) -> f64 {
        self.0.clock_rate.get()
    }

    /// What the node was called.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.0.name
    }

    /// The simulation that it is part of.
    #[must_use]
    pub fn sim(&self) -> Sim {
        Sim(self.0.world.clone())
    }

    /// The node's address.
    #[must_use]
    pub fn ip(&self) -> IpAddr {
        self.0.at
    }

    /// A port of the node, to bind or to reach: `127.1.0.1:7077`.
    #[must_use]
    pub fn address(&self, port: u16) -> String {
        format!("{}:{port}", self.0.at)
    }

    /// An endpoint of the node: `rpc://master@127.1.0.1:7077`.
    #[must_use]
    pub fn uri(&self, endpoint: &str, port: u16) -> String {
        format!("rpc://{endpoint}@{}", self.address(port))
    }

    /// Whether its process runs; one that stands still does.
    #[must_use]
    pub fn is_running(&self) -> bool {
        self.0.state.borrow().life.is_some()
    }
}

/// Faults.
impl SimNode {
    /// Kills the process: no code of it runs any more, not even to say goodbye. What is dropped with
    /// it cannot reach the network. Its system closes its connections.
    pub fn crash(&self) {
        self.stop(false);
    }

    /// Switches the machine off: as [`crash`](Self::crash), but nobody is told anything.
    pub fn power_off(&self) {
        self.stop(true);
    }

    /// Begins the program anew, if the process does not run.
    pub fn restart(&self) {
        if !self.is_running() {
            self.start();
            self.begin();
        }
    }

    /// The process stands still from now on, as one that was stopped or whose machine swaps:
    /// nothing of it runs, its connections stay. If it does already, the later end counts.
    pub fn pause_for(&self, duration: Duration) {
        self.blocking().begin(self.0.world.now(), duration);
        self.wake();
    }

    /// It goes on.
    pub fn resume(&self) {
        self.0.stands_until.fetch_min(self.0.world.now().as_nanos(), Ordering::AcqRel);
        self.wake();
    }

    /// The end of the last time that it stood still, or stands still now, on the simulation's clock.
    /// What was due on it before may be late by that.
    #[must_use]
    pub fn stood_until(&self) -> Duration {
        self.0.stands_until().since(Timestamp::START)
    }

    /// The network as the process on the node has it, for what speaks by hand.
    ///
    /// # Errors
    /// `EnvStopped` if there is no process.
    pub fn transport(&self) -> Result<impl Transport + use<>, RpcError> {
        let ended =
            || RpcError::new(ErrorKind::EnvStopped, format!("{} does not run", self.0.name));
        let life = self.0.state.borrow().life.ok_or_else(ended)?;
        Ok(Gate::new(self.0.world.network.clone(), self.0.at, life))
    }

    /// For endpoints, which may be sent to other threads, and nodes may not: blocks the node's thread.
    #[must_use]
    pub fn blocking(&self) -> Blocking {
        Blocking { until: self.0.stands_until.clone(), clock: self.0.world.clock }
    }

    /// What is left of the envs that the node made in this life and that are shut down: tasks,
    /// connections and, if all of them are, sockets. Nothing should be.
    #[must_use]
    pub fn leftovers(&self) -> Vec<String> {
        let nodes = self.envs();
        let closed = nodes.iter().filter(|node| node.is_closed());
        let mut left: Vec<_> = closed.filter_map(|node| node.leftovers()).collect();
        if nodes.iter().all(|node| node.is_closed()) {
            let life = self.0.state.borrow().life;
            let sockets = self.0.world.network.with(|state| state.sockets(self.0.at, life));
            left.extend((sockets > 0).then(|| format!("{sockets} sockets")));
        }
        left.into_iter().map(|left| format!("{}: {left}", self.0.name)).collect()
    }

    /// Whether the process on the node has an open connection to another one.
    #[must_use]
    pub fn is_connected(&self, other: &Self) -> bool {
        self.0.world.network.with(|state| state.is_connected(self.0.at, other.0.at))
    }

    /// Whether what the node's envs hold for their peers is within the limits, and adds up: queues,
    /// calls in flight, calls that are served. Nor may they keep a connection for more than two seconds
    /// that its peer has ended.
    ///
    /// # Errors
    /// What does not.
    pub fn audit(&self) -> Result<(), String> {
        let envs = self.envs();
        let audited = envs.iter().try_for_each(|node| node.audit());
        audited.map_err(|text| format!("{} to {text}", self.0.name))?;
        let (life, stood) = (self.0.state.borrow().life, self.0.stands_until());
        let deaf = self.0.world.network.with(|state| state.deaf(self.0.at, life, stood));
        if envs.is_empty() || deaf == 0 {
            return Ok(());
        }
        Err(format!("{} keeps {deaf} connections that their peers have ended", self.0.name))
    }

    /// Whether what the node's envs may send to the endpoints of another node's is what those have
    /// granted and not had back. It need not be so while something is under way between them.
    ///
    /// # Errors
    /// Where credit was lost, or made.
    pub fn audit_credit(&self, to: &Self) -> Result<(), String> {
        let (own, others) = (self.envs(), to.envs());
        let mut pairs = own.iter().flat_map(|one| others.iter().map(move |two| (one, two)));
        let audited = pairs.try_for_each(|(one, two)| one.audit_credit(two));
        audited.map_err(|text| format!("{} to {text}", self.0.name))
    }

    /// What the node's envs have begun with their peers and not ended: nothing, when nobody asks or
    /// sends any more and every deadline is over.
    #[must_use]
    pub fn unfinished(&self) -> Vec<String> {
        let nodes = self.envs();
        let open = nodes.iter().flat_map(|node| node.unfinished());
        open.map(|open| format!("{} to {open}", self.0.name)).collect()
    }

    fn envs(&self) -> Vec<Arc<Node>> {
        self.0.state.borrow().envs.iter().filter_map(Weak::upgrade).collect()
    }

    fn stop(&self, power_off: bool) {
        if !self.is_running() {
            return;
        }
        // First nothing of it reaches the network any more; then it is dropped.
        self.0.world.network.with(|state| state.stop(self.0.at, power_off));
        self.end();
        self.resume();
    }

    /// Drops all that runs on it.
    pub(super) fn end(&self) {
        let tasks = {
            let mut state = self.0.state.borrow_mut();
            state.life = None;
            state.envs.clear();
            state.tasks.take()
        };
        drop(tasks);
    }

    /// The simulation is over.
    pub(super) fn forget(&self) {
        self.end();
        let program = self.0.state.borrow_mut().program.take();
        drop(program);
    }

    fn start(&self) {
        let life = self.0.world.network.with(|state| state.start(self.0.at));
        let mut state = self.0.state.borrow_mut();
        (state.life, state.tasks) = (Some(life), Some(Tasks::default()));
    }

    /// Begins the program.
    fn begin(&self) {
        let program = self.0.state.borrow().program.clone();
        let Some(program) = program else { return };
        let (node, program) = (self.clone(), program(self.clone()));
        self.spawn(async move {
            if let Err(error) = program.await {
                node.sim().fail(&format!("the program of {} failed: {error}", node.name()));
            }
        });
        self.wake();
    }

    fn wake(&self) {
        let runner = self.0.state.borrow_mut().runner.take();
        runner.into_iter().for_each(Waker::wake);
    }
}

/// Runs a node's tasks, whenever there are some and it does not stand still.
async fn run_node(node: std::rc::Weak<Inner>) {
    loop {
        let Some(inner) = node.upgrade() else { return };
        let (clock, until, stands) = (inner.world.clock, inner.stands_until(), inner.stands());
        drop(inner);
        let mut moved = std::pin::pin!(async {
            if stands { clock.sleep_until(until).await } else { std::future::pending().await }
        });
        std::future::poll_fn(|cx| {
            let Some(inner) = node.upgrade() else { return Poll::Ready(()) };
            if moved.as_mut().poll(cx).is_ready() || inner.stands_until() != until && stands {
                return Poll::Ready(());
            }
            inner.poll(cx, stands)
        })
        .await;
    }
}

impl Inner {
    fn stands_until(&self) -> Timestamp {
        Timestamp::from_nanos(self.stands_until.load(Ordering::Acquire))
    }

    /// Whether it stands still. Most nodes never did: then no clock is looked at.
    fn stands(&self) -> bool {
        let until = self.stands_until();
        until > Timestamp::START && until > self.world.now()
    }

    /// Ready when it has begun to stand still.
    fn poll(&self, cx: &mut Context<'_>, stands: bool) -> Poll<()> {
        let (life, tasks) = {
            let mut state = self.state.borrow_mut();
            if !state.runner.as_ref().is_some_and(|runner| runner.will_wake(cx.waker())) {
                state.runner = Some(cx.waker().clone());
            }
            if stands {
                return Poll::Pending;
            }
            if self.stands() {
                return Poll::Ready(());
            }
            (state.life, state.tasks.take())
        };
        let Some(mut tasks) = tasks else { return Poll::Pending };
        let _ = tasks.poll(cx);
        let mut state = self.state.borrow_mut();
        let over = if state.life == life && state.tasks.is_none() {
            state.tasks = Some(tasks);
            None
        } else {
            // It has ended itself.
            Some(tasks)
        };
        drop(state);
        drop(over);
        self.world.stepped();
        if self.stands() { Poll::Ready(()) } else { Poll::Pending }
    }
}

/// A future whose panic fails the simulation.
pub(super) fn watched(
    world: Rc<World>,
    who: &str,
    future: impl Future<Output = ()> + 'static,
) -> impl Future<Output = ()> + 'static {
    let who = who.to_owned();
    async move {
        if let Err(panic) = AssertUnwindSafe(future).catch_unwind().await {
            world.fail(&format!("{who} panicked: {}", panic_text(&*panic)));
        }
    }
}

/// What a panic said.
pub(super) fn panic_text(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
    let text = text.or_else(|| panic.downcast_ref::<String>().cloned());
    text.unwrap_or_else(|| "something that is no text".to_owned())
}

/// The numbers of a node's env.
struct Numbers(Mutex<SimRandom>);

impl Random for Numbers {
    fn number(&self) -> io::Result<u64> {
        Ok(self.0.lock().unwrap_or_else(PoisonError::into_inner).number())
    }
}

impl fmt::Debug for SimNode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SimNode").field("name", &self.0.name).field("at", &self.0.at).finish()
    }
}
