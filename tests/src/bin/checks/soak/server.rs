//! A process that serves, until it is killed or told to end.

use super::kinds::Kinds;
use crate::child;
use crate::ledger::Ledger;
use crate::report::say;
use anyhow::Context;
use rpc_actix::RpcEnvConfig;

pub(crate) const SERVER: &str = "soak-server";

/// At a given port, with a log that the lives before it have begun. At any order it says how many
/// connections and calls are open.
pub(crate) async fn serve(args: &[&str]) -> anyhow::Result<()> {
    let [bind, log, life] = args else { anyhow::bail!("bind, log and life") };
    let env = rpc_actix::create(RpcEnvConfig::server("soak", bind)).await?;
    env.setup_endpoint("ledger", Ledger::open(log, life)?).await?;
    env.setup_endpoint("kinds", Kinds).await?;
    say(&env.address().context("an address")?.to_string());
    let mut orders = child::orders();
    while orders.recv().await.is_some() {
        let counters = env.counters();
        say(&(counters.connections_opened - counters.connections_ended).to_string());
    }
    Ok(())
}
