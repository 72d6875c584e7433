//! What happens to the cluster.

use super::audit;
use super::cluster::{Cluster, ENDPOINTS, Member, PORT};
use super::messages::{Mark, Tell, body};
use super::plan::Fault;
use rpc_actix::sim::{SimRandom, Weather};
use rpc_actix::transport::Transport;
use std::rc::Rc;
use std::time::Duration;
use tokio::io::AsyncWriteExt;

/// One fault after the other, until there is to be calm.
pub(super) async fn rage(cluster: Rc<Cluster>, mut random: SimRandom) {
    while !cluster.calm.get() {
        let pause = random.duration(Duration::from_millis(1)..cluster.plan.between);
        cluster.sim.sleep(pause).await;
        let faults = cluster.plan.faults.clone();
        let members = cluster.all();
        let (one, two) = (random.pick(&members).cloned(), random.pick(&members).cloned());
        if let (Some(fault), Some(one), Some(two)) = (random.pick(&faults), one, two)
            && !cluster.calm.get()
        {
            cluster.sim.note(&format!("{fault:?} of {} and {}", one.node.name(), two.node.name()));
            strike(&cluster, *fault, (&one, &two), &mut random).await;
        }
    }
}

/// Mends everything, and ends what makes it slow.
pub(super) fn relent(cluster: &Cluster) {
    cluster.sim.mend_all();
    cluster.sim.set_weather(Weather::new());
    for member in cluster.all() {
        cluster.sim.refuse(&member.node, false);
        member.node.resume();
        member.node.restart();
    }
}

async fn strike(
    cluster: &Rc<Cluster>,
    fault: Fault,
    (one, two): (&Rc<Member>, &Rc<Member>),
    random: &mut SimRandom,
) {
    let sim = &cluster.sim;
    // Some are over in no time, and some outlive every deadline.
    let most = *random.pick(&[100, 1_000, 3_000, 30_000]).unwrap_or(&100);
    let lasts = random.duration(Duration::from_millis(1)..Duration::from_millis(most));
    match fault {
        Fault::Crash | Fault::PowerOff => {
            one.stop(fault == Fault::PowerOff);
            later(cluster, one, two, lasts, |_, one, _| one.node.restart());
        }
        Fault::Pause => one.node.pause_for(lasts),
        Fault::Partition => cut_both_ways(cluster, one, two, lasts),
        Fault::PartitionOneWay => {
            cluster.cut(one, two);
            sim.partition_one_way(&one.node, &two.node);
            later(cluster, one, two, lasts, |cluster, one, two| {
                cluster.cut(one, two);
                cluster.sim.mend(&one.node, &two.node)
            });
        }
        Fault::Flap => {
            cluster.cut(one, two);
            sim.flap(&one.node, &two.node, lasts / 4, 4).await;
            cluster.cut(one, two);
        }
        Fault::Reset => drop(sim.reset(&one.node, &two.node, None)),
        Fault::ResetInside => {
            let bytes = usize::try_from(random.within(0..2_000)).unwrap_or(0);
            sim.reset(&one.node, &two.node, Some(bytes));
        }
        Fault::HalfClose => drop(sim.half_close(&one.node, &two.node)),
        Fault::Refuse => {
            sim.refuse(&one.node, true);
            later(cluster, one, two, lasts, |cluster, one, _| cluster.sim.refuse(&one.node, false));
        }
        Fault::Weather => {
            sim.set_weather_between(&one.node, &two.node, cluster.plan.weather(random));
            later(cluster, one, two, lasts, |cluster, one, two| {
                cluster.sim.set_weather_between(&one.node, &two.node, Weather::new());
            });
        }
        Fault::Jump => {
            // Every node stands still meanwhile.
            cluster.all().iter().for_each(|member| member.node.pause_for(lasts));
            sim.jump(lasts).await;
        }
        Fault::StopEndpoint => {
            let (member, cluster) = (one.clone(), cluster.clone());
            let name = *random.pick(&ENDPOINTS).unwrap_or(&ENDPOINTS[0]);
            drop(one.node.run(|node| async move {
                if let Err(error) = member.renew(&cluster, name).await {
                    node.sim().fail(&format!("an endpoint cannot be set up again: {error}"));
                }
            }));
        }
        Fault::ShutDown => shut_down(cluster, one, lasts),
        Fault::Stranger => stranger(cluster, one, random),
    }
}

/// Cuts the network between two, for a while. If that is long, both must have noticed.
fn cut_both_ways(cluster: &Rc<Cluster>, one: &Rc<Member>, two: &Rc<Member>, lasts: Duration) {
    cluster.sim.partition(&one.node, &two.node);
    let cut = cluster.cut(one, two);
    later(cluster, one, two, lasts, move |cluster, one, two| {
        let lasted = cluster.cut(one, two) == cut + 1 && !cluster.calm.get();
        if lasted && one.number != two.number {
            audit::has_noticed(cluster, one, two, lasts);
        }
        cluster.sim.mend(&one.node, &two.node);
    });
}

/// Does something after a while, beside everything else.
fn later(
    cluster: &Rc<Cluster>,
    one: &Rc<Member>,
    two: &Rc<Member>,
    wait: Duration,
    what: impl FnOnce(&Cluster, &Member, &Member) + 'static,
) {
    let (one, two, again) = (one.clone(), two.clone(), cluster.clone());
    cluster.sim.spawn(async move {
        again.sim.sleep(wait).await;
        what(&again, &one, &two);
    });
}

/// Ends a member in order, and begins it anew.
fn shut_down(cluster: &Rc<Cluster>, one: &Rc<Member>, wait: Duration) {
    let Some((_, env)) = one.env() else { return };
    let done = one.node.run(|_| async move { env.shutdown().await });
    let (member, again) = (one.clone(), cluster.clone());
    cluster.sim.spawn(async move {
        // It may have been killed on the way.
        let ended = done.await.is_ok();
        if ended && let Some(left) = member.node.leftovers().first() {
            again.sim.fail(&format!("I9: {left} are left after a shutdown"));
        }
        if ended {
            member.stop(false);
        }
        again.sim.sleep(wait).await;
        member.node.restart();
    });
}

/// Somebody who has not said hello, or not all of it, and speaks all the same (I10). What it says
/// was never sent by anyone, so no handler may see it.
fn stranger(cluster: &Rc<Cluster>, at: &Rc<Member>, random: &mut SimRandom) {
    let (Some((_, env)), true) = (at.env(), at.listens) else { return };
    let mark = Mark { stream: u32::MAX, number: 1 };
    let told = env.encode(&Tell { mark, body: body(mark, 8) }).unwrap_or_default();
    let name = ENDPOINTS[0].as_bytes();
    let resolve = [&[0, 0, 0, 0, 0x81, 0xa4], &b"name"[..], &[0xa5], name].concat();
    let message = [&[0, 0, 0, 0][..], &told].concat();
    let frames = [&frame(0x02, &resolve)[..], &frame(0x10, &message)].concat();
    let words = match random.below(4) {
        0 => Vec::new(),
        1 => frames,
        2 => [b"ARPC", &frames[..]].concat(),
        _ => (0..random.below(200)).map(|_| u8::try_from(random.below(256)).unwrap_or(0)).collect(),
    };
    let address = at.node.address(PORT);
    let stays = random.duration(Duration::ZERO..Duration::from_secs(20));
    let stranger = cluster.sim.node("stranger");
    drop(stranger.run(|node| async move {
        let (Ok(transport), Ok(address)) = (node.transport(), address.parse()) else { return };
        let Ok(socket) = transport.connect(&address).await else { return };
        let Ok(mut stream) = socket.open() else { return };
        let _ = stream.write_all(&words).await;
        node.sim().sleep(stays).await;
    }));
}

fn frame(kind: u8, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap_or(0);
    [&length.to_be_bytes(), &[kind, 0, 0, 0][..], payload].concat()
}
