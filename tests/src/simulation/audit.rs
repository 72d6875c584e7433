//! What must hold of the members, beside what their messages tell.

use super::actor::Way;
use super::cluster::{Cluster, ENDPOINTS, Member, PORT};
use super::messages::{Tell, body};
use super::plan::{Fault, Quiet};
use super::sent::Draft;
use rpc_actix::Counters;
use std::rc::Rc;
use std::time::Duration;

/// The time between two looks, and where queues are short.
const OFTEN: Duration = Duration::from_secs(2);
const OFTENER: Duration = Duration::from_millis(200);

/// How long a connection may be without a hello.
const HELLO: Duration = Duration::from_secs(5);

/// Looks at every member, again and again.
pub(super) async fn watch(cluster: Rc<Cluster>) {
    let often = if cluster.plan.modes.tight { OFTENER } else { OFTEN };
    loop {
        cluster.sim.sleep(often).await;
        look(&cluster);
    }
}

/// Looks at every member.
pub(super) fn look(cluster: &Cluster) {
    for member in cluster.all() {
        if let Err(text) = examine(cluster, &member) {
            cluster.sim.fail(&text);
        }
    }
}

/// Its queues and tables (I7), and what it has counted: members keep to the protocol (I14).
fn examine(cluster: &Cluster, member: &Member) -> Result<(), String> {
    let Some((_, env)) = member.env() else { return Ok(()) };
    member.node.audit().map_err(|text| format!("I7: {text}"))?;
    let counters = env.counters();
    let quiet = cluster.plan.quiet != Quiet::No;
    let mut broken = wrong_counts(&counters, quiet);
    if !cluster.plan.faults.contains(&Fault::Stranger) {
        broken.push((counters.closes_sent_protocol, "connections that broke the protocol"));
        broken.push((counters.closes_sent_too_large, "connections with something too large"));
    }
    match broken.into_iter().find(|(count, _)| *count > 0) {
        Some((count, what)) => Err(format!("I14: {} counts {count} {what}", member.node.name())),
        None => Ok(()),
    }
}

/// What must not be counted among members that keep to the protocol; `quiet` says that nodes and
/// network are well.
fn wrong_counts(counters: &Counters, quiet: bool) -> Vec<(u64, &'static str)> {
    let mut wrong = vec![
        (counters.closes_sent_duplicate_id, "connections with a call number in use"),
        (counters.closes_sent_credit, "connections that overran a window"),
        (counters.messages_undecodable, "messages that could not be read"),
        (counters.replies_undecodable, "replies that could not be read"),
        (
            counters.answers_late.saturating_sub(counters.cancels_sent),
            "answers more than it took calls back",
        ),
    ];
    if quiet {
        wrong.push((counters.closes_sent_timeout, "connections that took too long"));
        wrong.push((counters.connections_broken, "connections that broke"));
    }
    wrong
}

/// After the calm nothing is under way (I1, I9), credit adds up (I7), and no member has made two
/// connections to another (I14). There may be one each way: one that was made before the end of the last
/// was seen.
pub(super) fn at_rest(cluster: &Cluster) {
    let members = cluster.all();
    for member in &members {
        if let Some(open) = member.node.unfinished().first() {
            cluster.sim.fail(&format!("I9: nobody asks, and {open}"));
        }
    }
    for one in &members {
        for two in &members {
            if let Err(text) = one.node.audit_credit(&two.node) {
                cluster.sim.fail(&format!("I7: {text}"));
            }
            let count = cluster.sim.connections(&one.node, &two.node);
            // Where none was ever lost, that was not so.
            let back = match cluster.plan.quiet {
                Quiet::No => 0,
                _ => cluster.sim.connections(&two.node, &one.node),
            };
            if count > 1 || count + back > 1 {
                let (one, two) = (one.node.name(), two.node.name());
                let text = format!("I14: {count} connections from {one} to {two}, {back} back");
                cluster.sim.fail(&text);
            }
        }
    }
    let lost = if cluster.plan.keeps_endpoints() { cluster.history.lost() } else { Vec::new() };
    if let Some(lost) = lost.first() {
        cluster.sim.fail(lost);
    }
}

/// The time after which a member has no connection any more whose link is cut: the patience, a look, and
/// the end, by its clock.
fn notices_after(cluster: &Cluster, member: &Member) -> Duration {
    member.lasts(cluster.plan.dead_after().max(HELLO) + Duration::from_secs(1))
}

/// Two members have not heard of each other for so long: who had the time for it has noticed (P6).
pub(super) fn has_noticed(cluster: &Cluster, one: &Member, two: &Member, lasted: Duration) {
    for (one, two) in [(one, two), (two, one)] {
        let stood = cluster.sim.elapsed().saturating_sub(one.time().1);
        let had_time = lasted.min(stood) > notices_after(cluster, one);
        if had_time && one.env().is_some() && one.node.is_connected(&two.node) {
            let (one, two) = (one.node.name(), two.node.name());
            cluster.sim.fail(&format!("P6: {one} has not noticed that {two} is silent"));
        }
    }
}

/// In a calm an endpoint of a member's own takes a message at once (I8).
pub(super) fn takes_own(cluster: &Cluster, member: &Member) {
    let Some((sender, env)) = member.env() else { return };
    let Some(way) = env.local_ref(ENDPOINTS[0]).map(Way::direct) else {
        return cluster.sim.fail(&format!("I8: {} has lost an endpoint", member.node.name()));
    };
    let mark =
        cluster.history.sends(&way.key(sender, false), Draft::tell(cluster.sim.elapsed(), 1));
    let result = way.actor.send(Tell { mark, body: body(mark, 1) });
    cluster.history.told(mark, &result);
    if let Err(error) = result {
        let uri = member.node.uri(ENDPOINTS[0], PORT);
        cluster.sim.fail(&format!("I8: {uri} takes nothing of its own env: {error}"));
    }
}
