//! A process of clients: many envs, each with its tasks, some of which end while others begin.

use super::kinds::{Kinds, Tried};
use super::vitals::Vitals;
use crate::child;
use crate::ledger::{Heard, Ledger, Log};
use crate::messages::Mark;
use crate::random::Random;
use crate::report::say;
use anyhow::Context;
use rpc_actix::{RpcEndpointRef, RpcEnv, RpcEnvConfig};
use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::time::Duration;
use tokio::task::JoinHandle;

pub(crate) const CLIENT: &str = "soak-client";

const PAUSE: Duration = Duration::from_millis(200);
/// Of a hundred envs, so many end in a second, and as many begin.
const CHURN: u64 = 1;

/// What all envs of the process share.
struct Shared {
    servers: Vec<String>,
    log: RefCell<Log>,
    tried: RefCell<Tried>,
    senders: Cell<u32>,
}

/// An env that works until it is told to end.
struct Worker {
    over: Rc<Cell<bool>>,
    task: JoinHandle<anyhow::Result<()>>,
}

/// Servers, envs, the number of the first sender, and where to write down what is heard.
pub(crate) async fn serve(args: &[&str]) -> anyhow::Result<()> {
    let [servers, envs, first, log] = args else { anyhow::bail!("servers, envs, first, log") };
    let shared = Rc::new(Shared {
        servers: servers.split(',').map(str::to_owned).collect(),
        log: RefCell::new(Log::create(log)?),
        tried: RefCell::default(),
        senders: Cell::new(first.parse()?),
    });
    let mut orders = child::orders();
    let before = Vitals::of(std::process::id())?;
    let mut workers: Vec<_> = (0..envs.parse::<u32>()?).map(|_| Worker::start(&shared)).collect();
    say("started");
    let (mut random, mut churned) = (Random::new(u64::from(shared.senders.get())), 0);
    let mut ticks = tokio::time::interval(Duration::from_secs(1));
    loop {
        tokio::select! {
            // Neither loses anything when it is dropped.
            order = orders.recv() => { let _ = order; break }
            _ = ticks.tick() => {}
        }
        let part = workers.len() as u64 * CHURN;
        // Less than one in a second is one in several.
        let ending = part / 100 + u64::from(random.between(0, 100) < part % 100);
        for _ in 0..ending {
            let place = random.below(u32::try_from(workers.len())?);
            let place = workers.get_mut(place as usize).context("an env")?;
            std::mem::replace(place, Worker::start(&shared)).end().await?;
            churned += 1;
        }
    }
    for worker in workers {
        worker.end().await?;
    }
    shared.log.borrow_mut().finish()?;
    let after = Vitals::of(std::process::id())?;
    let tried = shared.tried.borrow();
    say(&format!(
        "{churned} {} {} {} {} {}",
        tried.answered,
        tried.failed,
        tried.wrong,
        after.descriptors.saturating_sub(before.descriptors),
        after.threads.saturating_sub(before.threads)
    ));
    Ok(())
}

impl Worker {
    fn start(shared: &Rc<Shared>) -> Self {
        let over = Rc::new(Cell::new(false));
        let task = tokio::task::spawn_local(work(shared.clone(), over.clone()));
        Self { over, task }
    }

    async fn end(self) -> anyhow::Result<()> {
        self.over.set(true);
        self.task.await?
    }
}

/// One env, with a task for each server.
async fn work(shared: Rc<Shared>, over: Rc<Cell<bool>>) -> anyhow::Result<()> {
    let config = RpcEnvConfig::client("soak").set("rpc.actix.mode", "inline")?;
    let env = rpc_actix::create(config).await?;
    let own = env.setup_endpoint("own", Kinds).await?;
    let mut tasks = Vec::new();
    for server in &shared.servers {
        let sender = shared.senders.get();
        shared.senders.set(sender + 1);
        let task =
            talk(shared.clone(), over.clone(), env.clone(), server.clone(), own.clone(), sender);
        tasks.push(tokio::task::spawn_local(task));
    }
    for task in tasks {
        task.await??;
    }
    env.shutdown().await;
    Ok(())
}

async fn talk(
    shared: Rc<Shared>,
    over: Rc<Cell<bool>>,
    env: RpcEnv,
    server: String,
    own: RpcEndpointRef<Kinds>,
    sender: u32,
) -> anyhow::Result<()> {
    let uri = |name| format!("rpc://{name}@{server}");
    let Some(ledger) = find::<Ledger>(&env, &over, &uri("ledger")).await else { return Ok(()) };
    let Some(kinds) = find::<Kinds>(&env, &over, &uri("kinds")).await else { return Ok(()) };
    let mut heard = Heard::default();
    for round in 0.. {
        if over.get() {
            break;
        }
        heard.note(&ledger, Mark { sender, number: 2 * round });
        let mark = Mark { sender, number: 2 * round + 1 };
        heard.ask(&ledger, mark).await;
        if round % 4 == 0 {
            let mut tried = Tried::default();
            tried.next(Mark { sender, number: round / 4 }, &kinds, &own).await;
            shared.tried.borrow_mut().add(&tried);
        }
        shared.log.borrow_mut().write(&mut heard)?;
        tokio::time::sleep(PAUSE).await;
    }
    Ok(())
}

/// A server that is away is looked for again, until it is over.
async fn find<P>(env: &RpcEnv, over: &Cell<bool>, uri: &str) -> Option<RpcEndpointRef<P>> {
    while !over.get() {
        if let Ok(found) = env.endpoint_ref(uri).await {
            return Some(found);
        }
        tokio::time::sleep(PAUSE).await;
    }
    None
}
