//! What a network and its hosts do to a connection: two hosts of namespaces, a link that is cut in
//! one direction or in both, a process that is killed or stopped. Meanwhile tasks ask, and what they
//! heard is compared with what the callee wrote down.

mod callers;
mod scene;

use crate::lan::{Host, Lan};
use crate::report::Report;
use scene::Scene;

const BOTH: &[Host] = &[Host::A, Host::B];

/// What is done to the two hosts. The callers are on A, the callee is on B.
#[derive(Clone, Copy, Debug)]
enum Fault {
    /// What these hosts send is lost, for so many ms.
    Cut(&'static [Host], u64),
    /// The same while nothing is asked: there are signs of life only.
    CutInQuiet(&'static [Host], u64),
    /// The same so many times, each for less than a second.
    Blinks(&'static [Host], u32),
    /// So many times, for half a second to five.
    Flaps(u32),
    /// The callee is killed, and started anew.
    Kill,
    /// The callee is stopped for so many ms.
    Stop(u64),
    /// The link is cut within the handshakes of connections that have just been made.
    Handshake,
}

struct Case {
    name: &'static str,
    fault: Fault,
}

fn cases(short: bool) -> Vec<Case> {
    let (away, blinks, flaps) = if short { (5_000, 6, 3) } else { (8_000, 60, 30) };
    let stopped = if short { 5_000 } else { 10_000 };
    let case = |name, fault| Case { name, fault };
    vec![
        case("cut both ways", Fault::Cut(BOTH, away)),
        case("the callers are not heard", Fault::Cut(&[Host::A], away)),
        case("the callee is not heard", Fault::Cut(&[Host::B], away)),
        case("the callers are not heard, in quiet", Fault::CutInQuiet(&[Host::A], away)),
        case("the callee is not heard, in quiet", Fault::CutInQuiet(&[Host::B], away)),
        case("cut both ways for less than 1 s", Fault::Blinks(BOTH, blinks)),
        case("the callee is not heard for less than 1 s", Fault::Blinks(&[Host::B], blinks)),
        case("a link that flaps", Fault::Flaps(flaps)),
        case("the callee is killed", Fault::Kill),
        case("the callee is stopped", Fault::Stop(stopped)),
        case("cut within the handshake", Fault::Handshake),
    ]
}

/// All of them at once, each on a link of its own.
pub(crate) async fn run(short: bool) -> anyhow::Result<Report> {
    let mut report = Report::new("partitions");
    Lan::sweep();
    if let Some(why) = Lan::missing() {
        report.figure(format!("skipped: {why}"));
        return Ok(report);
    }
    let running: Vec<_> = cases(short)
        .into_iter()
        .enumerate()
        .map(|(number, case)| {
            let name = case.name;
            (name, tokio::task::spawn_blocking(move || Scene::set(number, &case)?.play(case.fault)))
        })
        .collect();
    for (name, case) in running {
        let played = case.await?;
        report.absorb(played.unwrap_or_else(|error| Report::failed(name, &error.context(name))));
    }
    Ok(report)
}
