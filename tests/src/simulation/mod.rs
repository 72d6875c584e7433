//! The simulated cluster that this library is tested with: servers and clients that ask and send,
//! under faults, all of it from a seed.
//!
//! ```
//! use rpc_tests::simulation::{Options, run_seed};
//!
//! let report = run_seed(1, &Options::default());
//! assert_eq!(report.wrong, None);
//! assert_eq!(run_seed(1, &Options::default()).trace, report.trace);
//! ```

#![expect(
    clippy::exhaustive_structs,
    clippy::exhaustive_enums,
    reason = "tests make these values and take them apart; nothing of this is published"
)]

mod actor;
mod audit;
mod callers;
mod cluster;
mod history;
mod messages;
mod nemesis;
mod plan;
mod sent;

pub use actor::Actor;
pub use history::{Figures, History};
pub use messages::{Answer, Deed, Do, DoBulk, Enlist, Mark, Tell, TellBulk};

use actor::Way;
use cluster::{Cluster, ENDPOINTS, Member, PORT};
use history::OpenAsk;
use messages::body;
use plan::Plan;
use rpc_actix::sim::{Sim, Simulation};
use sent::Draft;
use std::rc::Rc;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread;
use std::time::Duration;

/// How a seed is run.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Options {
    /// How long there are load and faults, on the simulation's clock.
    pub duration: Duration,
    /// Prints each event.
    pub verbose: bool,
}

impl Default for Options {
    fn default() -> Self {
        Self { duration: Duration::from_secs(300), verbose: false }
    }
}

impl Options {
    /// With load and faults for so long.
    #[must_use]
    pub fn lasting(mut self, duration: Duration) -> Self {
        self.duration = duration;
        self
    }

    /// Printing each event.
    #[must_use]
    pub fn verbose(mut self, verbose: bool) -> Self {
        self.verbose = verbose;
        self
    }
}

/// What came out of a seed.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Report {
    /// The seed.
    pub seed: u64,
    /// What did not hold, if something did not.
    pub wrong: Option<String>,
    /// The number of all its events, and how many there were; 0 if something did not hold.
    pub trace: u64,
    /// See `trace`.
    pub events: u64,
    /// How long it took on its own clock.
    pub elapsed: Duration,
    /// How much was sent and received.
    pub figures: Figures,
}

/// The calm after the faults: longer than any timeout, and than any wait before a dial.
const CALM: Duration = Duration::from_secs(40);
/// After that what was asked at the end of the calm is over, acknowledgements included.
const SETTLED: Duration = Duration::from_secs(2);
/// How long a shutdown may take: the drain timeout, five seconds for a handler, a goodbye.
const SHUTDOWN: Duration = Duration::from_secs(20);

/// Runs one seed, and says what came out.
#[must_use]
pub fn run_seed(seed: u64, options: &Options) -> Report {
    let history = History::default();
    let (shared, duration) = (history.clone(), options.duration);
    let mut simulation = Simulation::new(seed).limit(duration + 10 * CALM);
    if options.verbose {
        simulation = simulation.listen(print);
    }
    let result = simulation.try_run(|sim| live(sim, shared, duration));
    let figures = history.figures();
    match result {
        Ok(report) => Report {
            seed,
            wrong: None,
            trace: report.trace,
            events: report.events,
            elapsed: report.elapsed,
            figures,
        },
        Err(failure) => {
            let (wrong, elapsed) = (Some(failure.to_string()), failure.at);
            Report { seed, wrong, trace: 0, events: 0, elapsed, figures }
        }
    }
}

/// As [`run_seed`], for so much real time at most: what takes longer is hung, in a deadlock or in a loop
/// that gives nobody a turn. Nothing can end it; it is left behind on a thread of its own.
#[must_use]
pub fn run_seed_within(seed: u64, options: &Options, limit: Duration) -> Report {
    let (done, ended) = mpsc::channel();
    let own = options.clone();
    let thread = thread::Builder::new().name(format!("seed {seed}"));
    let begun = thread.spawn(move || drop(done.send(run_seed(seed, &own))));
    let failed = |text: String| {
        let (trace, events, elapsed) = (0, 0, Duration::ZERO);
        let wrong = Some(format!("the simulation of seed {seed} {text}"));
        Report { seed, wrong, trace, events, elapsed, figures: Figures::default() }
    };
    match begun.map(|_| ended.recv_timeout(limit)) {
        Ok(Ok(report)) => report,
        Ok(Err(RecvTimeoutError::Timeout)) => {
            failed(format!("is hung: it has not ended in {limit:?} of real time"))
        }
        Ok(Err(RecvTimeoutError::Disconnected)) => failed("panicked".to_owned()),
        Err(error) => failed(format!("cannot begin: {error}")),
    }
}

#[expect(clippy::print_stdout, reason = "for whoever looks for the cause of a failure")]
fn print(event: &str) {
    println!("{event}");
}

/// A cluster's life: faults, calm, and the end.
async fn live(sim: Sim, history: History, duration: Duration) {
    let plan = Plan::draw(&mut sim.random("plan"), &mut sim.random("modes"));
    sim.note(&format!("{plan:?}"));
    let (log, clock) = (history.clone(), sim.clone());
    sim.invariant("history", move || log.look(&clock));
    history.expects(plan.quiet, !plan.modes.heavy);
    sim.set_weather(plan.usual(&mut sim.random("weather")));
    let cluster = Cluster::build(&sim, plan, &history);
    sim.spawn(audit::watch(cluster.clone()));
    sim.spawn(nemesis::rage(cluster.clone(), sim.random("nemesis")));
    sim.sleep(duration).await;
    cluster.calm.set(true);
    nemesis::relent(&cluster);
    sim.note("calm");
    sim.sleep(CALM).await;
    nemesis::relent(&cluster);
    sim.sleep(CALM).await;
    answered_again(&cluster).await;
    for member in cluster.all() {
        audit::takes_own(&cluster, &member);
    }
    sim.sleep(SETTLED).await;
    audit::look(&cluster);
    audit::at_rest(&cluster);
    let living: Vec<_> = cluster.all().iter().filter_map(|member| Some(member.env()?.0)).collect();
    if let Some(open) = history.open_asks(&living).first() {
        sim.fail(open);
    }
    shut_down(&cluster).await;
    cluster.members.borrow_mut().clear();
}

/// After a calm everybody reaches every server (I8).
async fn answered_again(cluster: &Rc<Cluster>) {
    for member in cluster.all() {
        for server in cluster.servers() {
            let (from, again, to) = (member.clone(), cluster.clone(), server.clone());
            let asked = member.node.run(move |_| async move { ask_all(&again, &from, &to).await });
            match asked.await {
                Ok(Ok(())) => {}
                Ok(Err(text)) => {
                    let (from, to) = (member.node.name(), server.node.name());
                    cluster.sim.fail(&format!("I8: {from} does not reach {to}: {text}"));
                }
                Err(error) => cluster.sim.fail(&format!("I8: {error}")),
            }
        }
    }
}

/// Every endpoint of a server, in both lanes.
async fn ask_all(cluster: &Cluster, from: &Member, server: &Member) -> Result<(), String> {
    for name in ENDPOINTS {
        let uri = server.node.uri(name, PORT);
        for bulk in [false, true] {
            let asked = ask_once(cluster, from, &uri, bulk).await;
            asked.map_err(|text| format!("{name}, bulk {bulk}: {text}"))?;
        }
    }
    Ok(())
}

async fn ask_once(cluster: &Cluster, from: &Member, uri: &str, bulk: bool) -> Result<(), String> {
    let Some((sender, env)) = from.env() else { return Err("it has no env".to_owned()) };
    let found = env.endpoint_ref(uri).await;
    let way = Way::direct(found.map_err(|error| error.to_string())?);
    let key = way.key(sender, bulk);
    let timeout = cluster.plan.ask_timeout;
    let times = (timeout, from.lasts(timeout));
    let draft = Draft::ask(cluster.sim.elapsed(), 10, Deed::Reply, times);
    let mark = cluster.history.sends(&key, draft);
    let (deed, body) = (Deed::Reply, body(mark, 10));
    let asked = match bulk {
        false => way.actor.ask(Do { mark, deed, body }),
        true => way.actor.ask(DoBulk { mark, deed, body }),
    };
    let open = OpenAsk::new(cluster.history.clone(), mark);
    let result = asked.await;
    open.ended(from.time(), &result);
    result.map(drop).map_err(|error| error.to_string())
}

/// Everybody ends in order, and leaves nothing behind (I9).
async fn shut_down(cluster: &Rc<Cluster>) {
    for member in cluster.all() {
        let Some((_, env)) = member.env() else { continue };
        let begun = cluster.sim.elapsed();
        let ended = member.node.run(|_| async move { env.shutdown().await });
        let limit = cluster.sim.sleep(SHUTDOWN);
        let name = member.node.name();
        tokio::select! {
            biased;
            _ = ended => {}
            () = limit => cluster.sim.fail(&format!("I9: {name} has not ended in {SHUTDOWN:?}")),
        }
        if let Some(left) = member.node.leftovers().first() {
            let took = cluster.sim.elapsed() - begun;
            cluster.sim.fail(&format!("I9: {left} are left of {name} after {took:?}"));
        }
    }
}
