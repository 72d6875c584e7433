//! The members of the simulated cluster, and what each of them runs.

use super::actor::{Actor, Place};
use super::callers::Caller;
use super::history::History;
use super::plan::Plan;
use rpc_actix::sim::{Sim, SimNode, SimRandom};
use rpc_actix::{ErrorKind, HandlerResult, RpcEnv, RpcEnvConfig, RpcError};
use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::rc::{Rc, Weak};
use std::time::Duration;

pub(super) const PORT: u16 = 7077;
/// The endpoints of each server.
pub(super) const ENDPOINTS: [&str; 2] = ["first", "second"];

/// A simulated cluster.
pub(super) struct Cluster {
    pub(super) sim: Sim,
    pub(super) plan: Plan,
    pub(super) history: History,
    pub(super) members: RefCell<Vec<Rc<Member>>>,
    /// How often the network between two members was cut or mended.
    pub(super) cuts: RefCell<BTreeMap<(u32, u32), u64>>,
    /// Set when no caller is to begin anything any more.
    pub(super) calm: Cell<bool>,
}

/// A node of the cluster.
pub(super) struct Member {
    pub(super) number: u32,
    pub(super) listens: bool,
    pub(super) node: SimNode,
    cluster: Weak<Cluster>,
    /// The env that runs there, and who it is as a sender.
    env: RefCell<Option<(u32, RpcEnv)>>,
}

impl Cluster {
    pub(super) fn build(sim: &Sim, plan: Plan, history: &History) -> Rc<Self> {
        let cluster = Rc::new(Self {
            sim: sim.clone(),
            history: history.clone(),
            members: RefCell::default(),
            cuts: RefCell::default(),
            calm: Cell::new(false),
            plan,
        });
        let all = cluster.plan.servers + cluster.plan.clients;
        let mut rates = sim.random("clocks");
        let right = !rates.chance(0.3);
        for number in 0..all {
            let listens = number < cluster.plan.servers;
            let name =
                if listens { format!("server-{number}") } else { format!("client-{number}") };
            let member = Rc::new(Member {
                number: u32::try_from(number).unwrap_or(u32::MAX),
                listens,
                node: sim.node(&name),
                cluster: Rc::downgrade(&cluster),
                env: RefCell::default(),
            });
            cluster.members.borrow_mut().push(member.clone());
            member.node.set_clock_rate(if right { 1.0 } else { clock_rate(&mut rates) });
            history.clock_runs(member.node.clock_rate());
            let weak = Rc::downgrade(&member);
            drop(member.node.runs(move |_| run(weak.clone())));
        }
        cluster
    }

    pub(super) fn servers(&self) -> Vec<Rc<Member>> {
        self.members.borrow().iter().filter(|member| member.listens).cloned().collect()
    }

    /// The network between two members is cut or mended: how often that was.
    pub(super) fn cut(&self, one: &Member, two: &Member) -> u64 {
        let pair = (one.number.min(two.number), one.number.max(two.number));
        let mut cuts = self.cuts.borrow_mut();
        let count = cuts.entry(pair).or_default();
        *count += 1;
        *count
    }

    pub(super) fn all(&self) -> Vec<Rc<Member>> {
        self.members.borrow().clone()
    }
}

impl Member {
    /// Its env, if its process runs and has one.
    pub(super) fn env(&self) -> Option<(u32, RpcEnv)> {
        let env = self.env.borrow().clone();
        env.filter(|_| self.node.is_running())
    }

    pub(super) fn place(&self, cluster: &Cluster, sender: u32) -> Place {
        Place { history: cluster.history.clone(), blocking: self.node.blocking(), sender }
    }

    /// How long something takes that takes so long by its clock.
    pub(super) fn lasts(&self, duration: Duration) -> Duration {
        duration.div_f64(self.node.clock_rate())
    }

    /// Its time, and until when it stood still.
    pub(super) fn time(&self) -> (Duration, Duration) {
        (self.node.sim().elapsed(), self.node.stood_until())
    }

    /// Ends its process for good or for a while. Nothing of its env is kept.
    pub(super) fn stop(&self, power_off: bool) {
        if power_off {
            self.node.power_off();
        } else {
            self.node.crash();
        }
        let env = self.env.borrow_mut().take();
        drop(env);
    }

    /// Stops an endpoint and sets it up anew.
    pub(super) async fn renew(&self, cluster: &Cluster, name: &'static str) -> HandlerResult<()> {
        let Some((sender, env)) = self.env() else { return Ok(()) };
        if let Some(actor) = env.local_ref::<Actor>(name) {
            env.stop(&actor)?;
            env.stopped(&actor).await?;
        }
        set_up(&env, name, self.place(cluster, sender)).await
    }
}

/// A clock that is wrong by up to a tenth, and often by all of it.
fn clock_rate(random: &mut SimRandom) -> f64 {
    let parts = random.within(900..1_101);
    let parts = *random.pick(&[900, 1_100, parts]).unwrap_or(&1_000);
    f64::from(u32::try_from(parts).unwrap_or(1_000)) / 1_000.0
}

/// What a member runs.
async fn run(member: Weak<Member>) -> HandlerResult<()> {
    let Some(member) = member.upgrade() else { return Ok(()) };
    let Some(cluster) = member.cluster.upgrade() else { return Ok(()) };
    let name = member.node.name();
    let config = match member.listens {
        true => RpcEnvConfig::server(name, member.node.address(PORT)),
        false => RpcEnvConfig::client(name),
    };
    let env = member.node.create(cluster.plan.configure(config)?).await?;
    let sender = cluster.history.new_life();
    *member.env.borrow_mut() = Some((sender, env.clone()));
    for endpoint in ENDPOINTS {
        set_up(&env, endpoint, member.place(&cluster, sender)).await?;
    }
    for number in 0..cluster.plan.callers {
        let caller = Caller::new(&cluster, &member, (sender, env.clone()), number);
        drop(member.node.run(|_| caller.run()));
    }
    drop((cluster, member));
    env.await_termination().await;
    Ok(())
}

/// Sets an endpoint up, unless the env ends meanwhile.
async fn set_up(env: &RpcEnv, name: &str, place: Place) -> HandlerResult<()> {
    match env.setup_endpoint(name, Actor::new(place)).await {
        Ok(_) => Ok(()),
        Err(error) if is_no_fault(&error) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

fn is_no_fault(error: &RpcError) -> bool {
    matches!(
        error.kind(),
        ErrorKind::EnvStopped | ErrorKind::EndpointStopped | ErrorKind::NameTaken
    )
}
