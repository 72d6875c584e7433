//! Tasks of the members that ask and send.

use super::actor::{Actor, Way};
use super::cluster::{Cluster, ENDPOINTS, Member, PORT};
use super::history::OpenAsk;
use super::messages::{Deed, Do, DoBulk, Enlist, Tell, TellBulk, body};
use super::sent::Draft;
use rpc_actix::sim::SimRandom;
use rpc_actix::{RpcEndpointRef, RpcEnv};
use std::rc::{Rc, Weak};
use std::time::Duration;

/// Refs that a caller knows.
const KNOWN: usize = 6;

/// One task.
pub(super) struct Caller {
    cluster: Weak<Cluster>,
    member: Rc<Member>,
    sender: u32,
    env: RpcEnv,
    random: SimRandom,
    known: Vec<Way>,
}

impl Caller {
    pub(super) fn new(
        cluster: &Rc<Cluster>,
        member: &Rc<Member>,
        (sender, env): (u32, RpcEnv),
        number: usize,
    ) -> Self {
        let random = cluster.sim.random(&format!("caller {sender} {number}"));
        let (cluster, member) = (Rc::downgrade(cluster), member.clone());
        Self { cluster, member, sender, env, random, known: Vec::new() }
    }

    /// Asks and sends until there is to be calm.
    pub(super) async fn run(mut self) {
        self.meet().await;
        while let Some(cluster) = self.cluster.upgrade().filter(|cluster| !cluster.calm.get()) {
            let pause = self.random.duration(Duration::ZERO..2 * cluster.plan.think);
            cluster.sim.sleep(pause).await;
            if self.known.is_empty() || self.random.chance(0.1) {
                self.look_up(&cluster).await;
                continue;
            }
            let Some(way) = self.random.pick(&self.known).cloned() else { continue };
            if self.random.chance(0.1) {
                self.enlist(&cluster, &way.actor).await;
                continue;
            }
            let burst = cluster.plan.habits.bursts && self.random.chance(0.05);
            let times = if burst { self.random.within(10..150) } else { 1 };
            for _ in 0..times {
                self.say(&cluster, &way, burst).await;
            }
        }
    }

    /// Dials everybody, if everybody does that at once.
    async fn meet(&self) {
        let Some(cluster) = self.cluster.upgrade().filter(|c| c.plan.modes.eager) else { return };
        for server in cluster.servers() {
            let uri = server.node.uri(ENDPOINTS[0], PORT);
            let (env, member) = (self.env.clone(), &self.member);
            drop(member.node.run(|_| async move { env.endpoint_ref::<Actor>(&uri).await.is_ok() }));
        }
    }

    /// Finds an endpoint by its name.
    async fn look_up(&mut self, cluster: &Cluster) {
        let servers = cluster.servers();
        let (server, name) = (self.random.pick(&servers), self.random.pick(&ENDPOINTS));
        let (Some(server), Some(name)) = (server, name) else { return };
        let uri = server.node.uri(name, PORT);
        if let Ok(actor) = self.env.endpoint_ref(&uri).await {
            self.learn(Way::new(actor, &cluster.history));
        }
    }

    fn learn(&mut self, way: Way) {
        if self.known.len() >= KNOWN {
            let at = usize::try_from(self.random.below(KNOWN as u64)).unwrap_or(0);
            self.known.swap_remove(at);
        }
        self.known.push(way);
    }

    /// Makes itself known to another one, and learns whom that knows.
    async fn enlist(&mut self, cluster: &Cluster, to: &RpcEndpointRef<Actor>) {
        let own = self.random.pick(&ENDPOINTS).and_then(|name| self.env.local_ref(name));
        let Some(actor) = own else { return };
        if let Ok(others) = to.ask(Enlist { member: self.member.number, actor }).await
            && let Some(other) = self.random.pick(&others).cloned()
        {
            self.learn(Way::new(other, &cluster.history));
        }
    }

    /// Sends or asks something.
    async fn say(&mut self, cluster: &Rc<Cluster>, way: &Way, burst: bool) {
        let habits = cluster.plan.habits;
        let bulk = habits.bulk && self.random.chance(0.3);
        let often = if cluster.plan.modes.heavy { 5.0 } else { 1.0 };
        let large = often * if burst { 0.01 } else { 0.1 };
        let bytes = match habits.large && self.random.chance(large) {
            true => self.random.within(10_000..300_000),
            false => self.random.within(0..200),
        };
        let bytes = usize::try_from(bytes).unwrap_or(0);
        if self.random.chance(0.4) {
            self.tell(cluster, way, bulk, bytes, burst).await;
        } else {
            self.ask(cluster, way, bulk, bytes, burst).await;
        }
    }

    async fn tell(&mut self, cluster: &Cluster, way: &Way, bulk: bool, bytes: usize, burst: bool) {
        let (key, actor) = (way.key(self.sender, bulk), &way.actor);
        let mark = cluster.history.sends(&key, Draft::tell(cluster.sim.elapsed(), bytes));
        let (waits, body) = (self.random.chance(0.3), body(mark, bytes));
        let waiting = match (bulk, waits) {
            (false, false) => return cluster.history.told(mark, &actor.send(Tell { mark, body })),
            (true, false) => {
                return cluster.history.told(mark, &actor.send(TellBulk { mark, body }));
            }
            (false, true) => actor.send_wait(Tell { mark, body }),
            (true, true) => actor.send_wait(TellBulk { mark, body }),
        };
        let history = cluster.history.clone();
        let waiting = async move { history.told(mark, &waiting.await) };
        if burst && cluster.plan.modes.tight {
            // It has its place, and many wait.
            drop(self.member.node.run(|_| waiting));
        } else {
            waiting.await;
        }
    }

    async fn ask(
        &mut self,
        cluster: &Rc<Cluster>,
        way: &Way,
        bulk: bool,
        bytes: usize,
        burst: bool,
    ) {
        let habits = cluster.plan.habits;
        let short = habits.short_deadlines && self.random.chance(0.2);
        let timeout = match short {
            true => Duration::from_millis(self.random.within(1..500)),
            false => cluster.plan.ask_timeout,
        };
        let deed = self.deed(cluster);
        let (key, actor) = (way.key(self.sender, bulk), &way.actor);
        let times = (timeout, self.member.lasts(timeout));
        let draft = Draft::ask(cluster.sim.elapsed(), bytes, deed, times);
        let mark = cluster.history.sends(&key, draft);
        let body = body(mark, bytes);
        let asked = match bulk {
            false => actor.ask_with_timeout(Do { mark, deed, body }, timeout),
            true => actor.ask_with_timeout(DoBulk { mark, deed, body }, timeout),
        };
        let open = OpenAsk::new(cluster.history.clone(), mark);
        let gives_up = habits.cancels && self.random.chance(0.2);
        let patience = Duration::from_millis(self.random.within(0..2_000));
        let lazy = cluster.plan.modes.lazy && self.random.chance(0.3);
        let (member, sim) = (self.member.clone(), cluster.sim.clone());
        let waiting = async move {
            if lazy {
                // Nothing depends on whether somebody looks.
                sim.sleep(3 * patience).await;
                let (looked, result) = (sim.elapsed(), asked.await);
                let (now, stood) = member.time();
                open.ended((now, stood.max(looked)), &result);
            } else if gives_up {
                tokio::select! {
                    biased;
                    result = asked => open.ended(member.time(), &result),
                    () = sim.sleep(patience) => drop(open),
                }
            } else {
                let result = asked.await;
                open.ended(member.time(), &result);
            }
        };
        if burst || self.random.chance(0.3) {
            drop(self.member.node.run(|_| waiting));
        } else {
            waiting.await;
        }
    }

    /// What the handler is to do.
    fn deed(&mut self, cluster: &Cluster) -> Deed {
        let habits = cluster.plan.habits;
        let millis =
            |random: &mut SimRandom, most| u32::try_from(random.within(0..most)).unwrap_or(0);
        match self.random.below(20) {
            0 if habits.fails => Deed::Fail,
            1 if habits.panics => Deed::Panic,
            2 if habits.blocks => Deed::Block(millis(&mut self.random, 4_000)),
            3 if habits.keeps => Deed::Keep,
            4 if habits.drops => Deed::Drop,
            5 | 6 if habits.passes => Deed::Pass(millis(&mut self.random, 8)),
            7 | 8 if habits.slow => Deed::Wait(millis(&mut self.random, 500)),
            9 | 10 if habits.slow => Deed::Later(millis(&mut self.random, 2_000)),
            _ => Deed::Reply,
        }
    }
}
