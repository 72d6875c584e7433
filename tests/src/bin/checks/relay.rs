//! Two envs without ports talk to each other through a third one, which both have dialled: each
//! asks the other, and what each has heard is compared with what the other has asked.

use crate::child::{self, Process, Server};
use crate::messages::Mark;
use crate::report::{Report, say};
use crate::spread::Spread;
use anyhow::Context;
use rpc_actix::{
    HandlerResult, RpcCallContext, RpcEndpointRef, RpcEnvConfig, RpcMessage, endpoint,
};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

pub(crate) const MIDDLE: &str = "relay";
pub(crate) const END: &str = "end";

/// Tasks of each end that ask.
const ASKERS: u32 = 16;
/// Asks of a task that are under way at once, so that there is an order to keep.
const BATCH: usize = 8;

/// Hands over a ref, and asks for the other end's: answered when both are there.
#[derive(Debug, Serialize, Deserialize, RpcMessage)]
#[rpc(reply = RpcEndpointRef<Heard>)]
struct Meet {
    me: RpcEndpointRef<Heard>,
}

/// The answer is what was asked.
#[derive(Debug, Serialize, Deserialize, RpcMessage)]
#[rpc(reply = Mark)]
struct Say {
    mark: Mark,
}

#[derive(Default)]
struct Middle {
    first: Option<(RpcEndpointRef<Heard>, RpcCallContext<RpcEndpointRef<Heard>>)>,
}

#[endpoint]
impl Middle {
    #[receive_and_reply]
    fn meet(
        &mut self,
        msg: Meet,
        call: RpcCallContext<RpcEndpointRef<Heard>>,
    ) -> HandlerResult<()> {
        match self.first.take() {
            None => self.first = Some((msg.me, call)),
            Some((first, waiting)) => {
                waiting.reply(msg.me);
                call.reply(first);
            }
        }
        Ok(())
    }
}

/// What an end has heard: how many marks of each sender, and how many out of turn.
#[derive(Clone, Default)]
struct Heard {
    heard: Arc<Mutex<(BTreeMap<u32, u32>, u32)>>,
}

#[endpoint]
impl Heard {
    #[receive_and_reply]
    fn say(&mut self, msg: Say) -> HandlerResult<Mark> {
        let mut heard = self.heard.lock().unwrap_or_else(PoisonError::into_inner);
        let next = heard.0.entry(msg.mark.sender).or_default();
        let in_turn = *next == msg.mark.number;
        *next += 1;
        heard.1 += u32::from(!in_turn);
        Ok(msg.mark)
    }
}

pub(crate) async fn serve() -> anyhow::Result<()> {
    let env = rpc_actix::create(RpcEnvConfig::server("middle", "127.0.0.1:0")).await?;
    env.setup_endpoint("middle", Middle::default()).await?;
    child::listen(env).await
}

/// An end: says how many of its asks were answered rightly, how long they took, and, when it is
/// asked a second time, what it has heard.
pub(crate) async fn talk(args: &[&str]) -> anyhow::Result<()> {
    let [middle, asks] = args else { anyhow::bail!("middle and number of asks") };
    let each = asks.parse::<u32>()? / ASKERS;
    let env = rpc_actix::create(RpcEnvConfig::client("end")).await?;
    let heard = Heard::default();
    let me = env.setup_endpoint("heard", heard.clone()).await?;
    let middle = env.endpoint_ref::<Middle>(&format!("rpc://middle@{middle}")).await?;
    let mut orders = child::orders();
    let other = middle.ask(Meet { me }).await?;
    let start = Instant::now();
    let tasks: Vec<_> = (0..ASKERS)
        .map(|sender| {
            let other = other.clone();
            tokio::task::spawn_local(ask_in_turn(other, sender, each))
        })
        .collect();
    let mut times = Vec::new();
    for task in tasks {
        times.extend(task.await??);
    }
    let rate = times.len() as f64 / start.elapsed().as_secs_f64();
    let times: Spread = times.into_iter().collect();
    say(&format!("{} {rate:.0} {times}", times.len()));
    orders.recv().await.context("an order")?;
    let heard = heard.heard.lock().unwrap_or_else(PoisonError::into_inner).clone();
    let complete = heard.0.len() == ASKERS as usize && heard.0.values().all(|next| *next == each);
    say(&format!("{} {} {complete}", heard.0.values().sum::<u32>(), heard.1));
    // The other end may still be at it.
    std::future::pending().await
}

async fn ask_in_turn(
    other: RpcEndpointRef<Heard>,
    sender: u32,
    each: u32,
) -> anyhow::Result<Vec<Duration>> {
    let mut times = Vec::new();
    for from in (0..each).step_by(BATCH) {
        let marks = (from..each).take(BATCH).map(|number| Mark { sender, number });
        let start = Instant::now();
        let asks: Vec<_> = marks.map(|mark| (mark, other.ask(Say { mark }))).collect();
        for (mark, ask) in asks {
            anyhow::ensure!(ask.await? == mark, "another's answer");
            times.push(start.elapsed());
        }
    }
    Ok(times)
}

/// Makes so many asks each way.
pub(crate) async fn run(asks: u32) -> anyhow::Result<Report> {
    let mut report = Report::new("relay");
    let asks = asks / ASKERS * ASKERS;
    let middle = Server::start_as(MIDDLE, &[])?;
    let count = asks.to_string();
    let args = [middle.address.as_str(), &count];
    let ends = [Process::start(END, &args)?, Process::start(END, &args)?];
    let (mut ends, said) = child::lines(ends.into()).await?;
    for line in said {
        let (answered, rest) = line.split_once(' ').context("a short line")?;
        let (rate, times) = rest.split_once(' ').context("a short line")?;
        report.require(
            answered.parse() == Ok(asks),
            &format!(
                "an end without a port asked {asks} times, {answered} answered: {rate}/s, {times}"
            ),
        );
    }
    for end in &mut ends {
        end.tell("count")?;
    }
    for line in child::lines(ends).await?.1 {
        let [heard, out_of_turn, complete] = line.split(' ').collect::<Vec<_>>()[..] else {
            anyhow::bail!("an end said {line}")
        };
        report.require(
            heard.parse() == Ok(asks) && out_of_turn == "0" && complete == "true",
            &format!("an end heard {heard} asks, {out_of_turn} of them out of turn"),
        );
    }
    Ok(report)
}
