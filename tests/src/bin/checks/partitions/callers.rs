//! The callers of a scene: in a thread on host A, until it is over.

use crate::lan::{Host, Lan};
use crate::ledger::{Heard, Ledger, clock};
use crate::messages::Mark;
use rpc_actix::{HandlerResult, RpcAddress, RpcEndpointRef, RpcEnv, RpcEnvConfig, endpoint};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

const ASKERS: u32 = 8;
const ASK_EVERY: Duration = Duration::from_millis(10);

/// What the callers know, and when they were answered last.
#[derive(Default)]
pub(super) struct Seen {
    events: Mutex<Vec<(bool, u64)>>,
    answered: AtomicU64,
    /// Whether nothing is asked for now.
    pub(super) quiet: AtomicBool,
    pub(super) over: AtomicBool,
}

impl Seen {
    /// When the callee came, or was lost.
    pub(super) fn events(&self) -> Vec<(bool, u64)> {
        self.events.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn note(&self, connected: bool) {
        let mut events = self.events.lock().unwrap_or_else(PoisonError::into_inner);
        events.push((connected, clock()));
    }

    /// When an ask was first answered after `since`, which it must be in the end.
    pub(super) fn back(&self, since: u64) -> anyhow::Result<u64> {
        let end = clock() + 30_000;
        while clock() < end {
            let answered = self.answered.load(Ordering::Relaxed);
            if answered > since {
                return Ok(answered - since);
            }
            std::thread::sleep(Duration::from_millis(2));
        }
        anyhow::bail!("no ask was answered for 30 s")
    }
}

struct Observer(Arc<Seen>);

#[endpoint]
impl Observer {
    #[on_connected]
    fn connected(&mut self, _peer: &RpcAddress) -> HandlerResult<()> {
        self.0.note(true);
        Ok(())
    }

    #[on_disconnected]
    fn disconnected(&mut self, _peer: &RpcAddress) -> HandlerResult<()> {
        self.0.note(false);
        Ok(())
    }
}

/// The callers: in a thread of host A, until it is over.
pub(super) fn call(lan: &Lan, server: &str, seen: Arc<Seen>) -> anyhow::Result<Vec<Heard>> {
    lan.enter(Host::A)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let env = rpc_actix::create(RpcEnvConfig::client("caller")).await?;
        env.setup_endpoint("observer", Observer(seen.clone())).await?;
        let ledger = ledger_of(&env, server).await?;
        let askers: Vec<_> = (0..ASKERS)
            .map(|sender| tokio::spawn(ask_on(ledger.clone(), sender, seen.clone())))
            .collect();
        let mut heard = Vec::new();
        for asker in askers {
            heard.push(asker.await?);
        }
        env.shutdown().await;
        Ok(heard)
    })
}

async fn ledger_of(env: &RpcEnv, server: &str) -> anyhow::Result<RpcEndpointRef<Ledger>> {
    Ok(env.endpoint_ref(&format!("rpc://ledger@{server}")).await?)
}

/// Notes and asks in turn.
async fn ask_on(ledger: RpcEndpointRef<Ledger>, sender: u32, seen: Arc<Seen>) -> Heard {
    let mut heard = Heard::default();
    for round in 0.. {
        if seen.over.load(Ordering::Relaxed) {
            break;
        }
        if seen.quiet.load(Ordering::Relaxed) {
            tokio::time::sleep(ASK_EVERY).await;
            continue;
        }
        heard.note(&ledger, Mark { sender, number: 2 * round });
        if heard.ask(&ledger, Mark { sender, number: 2 * round + 1 }).await.is_some() {
            seen.answered.store(clock(), Ordering::Relaxed);
        }
        tokio::time::sleep(ASK_EVERY).await;
    }
    heard
}
