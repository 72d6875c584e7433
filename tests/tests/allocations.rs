//! How often the heap is asked for memory per message: counted, with a message and a reply of two
//! numbers, which need none themselves. Caller and endpoint are on one thread, so a count is that of
//! both sides.
#![cfg(test)]

use rpc_actix::{HandlerResult, RpcEndpointRef, RpcEnv, RpcEnvConfig, RpcMessage, endpoint};
use serde::{Deserialize, Serialize};
use tokio::runtime::{Builder, Runtime};
use tokio::task::LocalSet;

const MESSAGES: u64 = 1_000;

const IN_FLIGHT: u64 = 100;

#[derive(Debug, Serialize, Deserialize)]
struct Pair {
    one: u64,
    two: u64,
}

#[derive(Debug, Serialize, Deserialize, RpcMessage)]
#[rpc(reply = Pair)]
struct Swap {
    one: u64,
    two: u64,
}

#[derive(Debug, Serialize, Deserialize, RpcMessage)]
struct Add {
    one: u64,
    two: u64,
}

#[derive(Debug, Serialize, Deserialize, RpcMessage)]
#[rpc(reply = u64)]
struct Sum;

#[derive(Debug, Default)]
struct Numbers {
    sum: u64,
}

#[endpoint]
impl Numbers {
    #[receive_and_reply]
    async fn swap(&mut self, msg: Swap) -> HandlerResult<Pair> {
        Ok(Pair { one: msg.two, two: msg.one })
    }

    #[receive]
    async fn add(&mut self, msg: Add) -> HandlerResult<()> {
        self.sum += msg.one + msg.two;
        Ok(())
    }

    #[receive_and_reply]
    async fn sum(&mut self, _msg: Sum) -> HandlerResult<u64> {
        Ok(self.sum)
    }
}

/// An endpoint, a ref to it, and what both run on.
struct Bench {
    numbers: RpcEndpointRef<Numbers>,
    _envs: Vec<RpcEnv>,
    tasks: LocalSet,
    runtime: Runtime,
}

impl Bench {
    fn local() -> Self {
        Self::new(async || {
            let env = rpc_actix::create(inline(RpcEnvConfig::client("here"))).await.unwrap();
            let numbers = env.setup_endpoint("numbers", Numbers::default()).await.unwrap();
            (numbers, vec![env])
        })
    }

    fn remote() -> Self {
        Self::new(async || {
            let server = inline(RpcEnvConfig::server("server", "127.0.0.1:0"));
            let server = rpc_actix::create(server).await.unwrap();
            server.setup_endpoint("numbers", Numbers::default()).await.unwrap();
            let client = rpc_actix::create(inline(RpcEnvConfig::client("client"))).await.unwrap();
            let uri = format!("rpc://numbers@{}", server.address().unwrap());
            (client.endpoint_ref(&uri).await.unwrap(), vec![server, client])
        })
    }

    fn new(made: impl AsyncFn() -> (RpcEndpointRef<Numbers>, Vec<RpcEnv>)) -> Self {
        let runtime = Builder::new_current_thread().enable_all().build().unwrap();
        let tasks = LocalSet::new();
        let (numbers, envs) = tasks.block_on(&runtime, made());
        Self { numbers, _envs: envs, tasks, runtime }
    }

    /// The allocations of [`MESSAGES`] messages, after as many to warm up.
    fn count(&self, messages: impl AsyncFn(&RpcEndpointRef<Numbers>)) -> u64 {
        let run = || self.tasks.block_on(&self.runtime, messages(&self.numbers));
        run();
        allocation_counter::measure(run).count_total
    }
}

fn inline(config: RpcEnvConfig) -> RpcEnvConfig {
    config.set("rpc.actix.mode", "inline").unwrap()
}

async fn asks(numbers: &RpcEndpointRef<Numbers>) {
    for one in 0..MESSAGES {
        let reply = numbers.ask(Swap { one, two: 7 }).await.unwrap();
        assert_eq!((reply.one, reply.two), (7, one));
    }
}

async fn asks_in_flight(numbers: &RpcEndpointRef<Numbers>) {
    for _ in 0..MESSAGES / IN_FLIGHT {
        let mut asks = Vec::new();
        for one in 0..IN_FLIGHT {
            asks.push(numbers.ask(Swap { one, two: 7 }));
        }
        for ask in asks {
            assert_eq!(ask.await.unwrap().one, 7);
        }
    }
}

async fn sends(numbers: &RpcEndpointRef<Numbers>) {
    let before = numbers.ask(Sum).await.unwrap();
    for _ in 0..MESSAGES {
        numbers.send(Add { one: 1, two: 2 }).unwrap();
    }
    assert_eq!(numbers.ask(Sum).await.unwrap() - before, 3 * MESSAGES);
}

async fn waiting_sends(numbers: &RpcEndpointRef<Numbers>) {
    let before = numbers.ask(Sum).await.unwrap();
    for _ in 0..MESSAGES {
        numbers.send_wait(Add { one: 1, two: 2 }).await.unwrap();
    }
    assert_eq!(numbers.ask(Sum).await.unwrap() - before, 3 * MESSAGES);
}

/// What buffers and lists may take anew now and then, of [`MESSAGES`] messages.
const NOW_AND_THEN: u64 = 250;

fn assert_each(count: u64, each: u64) {
    assert!(
        (each * MESSAGES..=each * MESSAGES + NOW_AND_THEN).contains(&count),
        "{count} allocations for {MESSAGES} messages, not {each} for each: if it is less, say so here"
    );
}

#[test]
fn a_local_ask() {
    // The call: message, reply and wakers.
    assert_each(Bench::local().count(asks), 1);
}

#[test]
fn a_local_send() {
    // The message on its way.
    assert_each(Bench::local().count(sends), 1);
}

#[test]
fn a_local_send_that_may_wait() {
    // The message on its way: with room it needs no ticket.
    assert_each(Bench::local().count(waiting_sends), 1);
}

#[test]
fn a_remote_ask() {
    // The body that was received, on each side, and the message that came alone into the inbox.
    assert_each(Bench::remote().count(asks), 3);
}

#[test]
fn a_remote_ask_among_others() {
    // Buffers and bodies are shared by what comes together; the lists of this test are counted.
    assert_each(Bench::remote().count(asks_in_flight), 0);
}

#[test]
fn a_remote_send() {
    assert_each(Bench::remote().count(sends), 0);
}

#[test]
fn a_remote_send_that_may_wait() {
    assert_each(Bench::remote().count(waiting_sends), 0);
}
