//! Asks of endpoints that idle on the asker's own thread: they are handled where the asker waits.
#![cfg(test)]

use rpc_actix::{
    EndpointContext, ErrorKind, HandlerResult, RpcEndpointRef, RpcEnv, RpcEnvConfig, RpcMessage,
    endpoint,
};
use rpc_tests::harness::Gate;
use serde::{Deserialize, Serialize};
use std::cell::Cell;
use std::future::Future;
use std::pin::pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

/// How many messages were handled before.
#[derive(Debug, Serialize, Deserialize, RpcMessage)]
#[rpc(reply = u64)]
struct Count;

#[derive(Debug, Serialize, Deserialize, RpcMessage)]
struct Note;

/// Waits until the gate is open.
#[derive(Debug, Serialize, Deserialize, RpcMessage)]
#[rpc(reply = ())]
struct Wait;

/// Asks the next one of the route; the answer is how many have been asked.
#[derive(Debug, Serialize, Deserialize, RpcMessage)]
#[rpc(reply = usize)]
struct Pass {
    route: Vec<RpcEndpointRef<Node>>,
}

/// Stops the endpoint.
#[derive(Debug, Serialize, Deserialize, RpcMessage)]
#[rpc(reply = ())]
struct Stop;

#[derive(Default)]
struct Node {
    handled: u64,
    gate: Gate,
}

#[endpoint]
impl Node {
    #[receive_and_reply]
    fn count(&mut self, _: Count) -> HandlerResult<u64> {
        self.handled += 1;
        Ok(self.handled - 1)
    }

    #[receive]
    fn note(&mut self, _: Note) -> HandlerResult<()> {
        self.handled += 1;
        Ok(())
    }

    #[receive_and_reply]
    async fn wait(&mut self, _: Wait) -> HandlerResult<()> {
        self.gate.wait().await;
        Ok(())
    }

    #[receive_and_reply]
    async fn pass(&mut self, msg: Pass) -> HandlerResult<usize> {
        let mut route = msg.route;
        let Some(next) = route.pop() else { return Ok(0) };
        Ok(1 + next.ask(Pass { route }).await?)
    }

    #[receive_and_reply]
    fn stop(&mut self, _: Stop, cx: &mut EndpointContext<Self>) -> HandlerResult<()> {
        cx.stop();
        Ok(())
    }
}

fn config() -> RpcEnvConfig {
    RpcEnvConfig::client("here").set("rpc.actix.mode", "inline").unwrap()
}

/// Runs a test on one thread, with an endpoint that idles.
fn run<F: Future<Output = ()>>(test: impl FnOnce(RpcEnv, RpcEndpointRef<Node>, Gate) -> F) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    tokio::task::LocalSet::new().block_on(&runtime, async {
        let env = rpc_actix::create(config()).await.unwrap();
        let gate = Gate::default();
        let node = Node { gate: gate.clone(), ..Node::default() };
        let node = env.setup_endpoint("node", node).await.unwrap();
        node.ask(Count).await.unwrap();
        tokio::task::yield_now().await;
        test(env.clone(), node, gate).await;
        env.shutdown().await;
    });
}

fn poll_once<T>(future: impl Future<Output = T>) -> Poll<T> {
    pin!(future).as_mut().poll(&mut Context::from_waker(Waker::noop()))
}

#[test]
fn an_idle_endpoint_answers_where_its_asker_waits() {
    run(|_, node, _| async move {
        for count in 1..50 {
            let Poll::Ready(Ok(handled)) = poll_once(node.ask(Count)) else { panic!("at once") };
            assert_eq!(handled, count);
        }
    });
}

#[test]
fn an_ask_keeps_its_place_behind_what_was_sent_before() {
    run(|_, node, _| async move {
        node.send(Note).unwrap();
        let mut ask = pin!(node.ask(Count));
        assert!(poll_once(ask.as_mut()).is_pending(), "its endpoint has something else to do");
        node.send(Note).unwrap();
        assert_eq!(ask.await.unwrap(), 2);
        assert_eq!(node.ask(Count).await.unwrap(), 4);
    });
}

#[test]
fn who_asks_again_and_again_lets_others_have_their_turn() {
    run(|_, node, _| async move {
        let (asked, longest) = (Rc::new(Cell::new(0_u64)), Rc::new(Cell::new(0_u64)));
        let (seen, most) = (asked.clone(), longest.clone());
        let other = tokio::task::spawn_local(async move {
            loop {
                most.set(most.get().max(seen.replace(0)));
                tokio::task::yield_now().await;
            }
        });
        for _ in 0..1000 {
            node.ask(Count).await.unwrap();
            asked.set(asked.get() + 1);
        }
        other.abort();
        let longest = longest.get();
        assert!((2..=65).contains(&longest), "{longest} asks without a turn of others'");
    });
}

#[test]
fn what_comes_from_outside_has_its_turn_too() {
    run(|_, node, _| async move {
        let (here, there) = std::os::unix::net::UnixStream::pair().unwrap();
        here.set_nonblocking(true).unwrap();
        let here = tokio::net::UnixStream::from_std(here).unwrap();
        let heard = Rc::new(Cell::new(false));
        let hears = heard.clone();
        let listener = tokio::task::spawn_local(async move {
            here.readable().await.unwrap();
            hears.set(true);
        });
        tokio::task::yield_now().await;
        std::io::Write::write_all(&mut &there, b"!").unwrap();
        // In a task of its own: what `block_on` is given looks at sockets whenever it waits.
        let asker = tokio::task::spawn_local(async move {
            let mut asked = 0;
            while !heard.get() && asked < 10_000 {
                node.ask(Count).await.unwrap();
                asked += 1;
            }
            asked
        });
        let asked = asker.await.unwrap();
        assert!(asked < 200, "a busy asker kept the thread to itself for {asked} asks");
        listener.await.unwrap();
    });
}

#[test]
fn a_handler_that_waits_goes_on_by_itself() {
    run(|_, node, gate| async move {
        let mut ask = Box::pin(node.ask(Wait));
        assert!(poll_once(ask.as_mut()).is_pending());
        let mut second = Box::pin(node.ask(Count));
        assert!(poll_once(second.as_mut()).is_pending());
        gate.open();
        // Nobody polls the first one: its endpoint's own task has to be woken.
        assert_eq!(second.await.unwrap(), 1);
        ask.await.unwrap();
    });
}

#[test]
fn chains_are_followed_however_deep_and_a_cycle_is_seen() {
    run(|env, node, _| async move {
        let mut route = vec![node];
        for number in 0..20 {
            let name = format!("node-{number}");
            route.push(env.setup_endpoint(name.as_str(), Node::default()).await.unwrap());
        }
        tokio::task::yield_now().await;
        let first = route[20].clone();
        let asked = first.ask(Pass { route: route[..20].to_vec() }).await;
        assert_eq!(asked.unwrap(), 20);
        for length in 1..8 {
            tokio::task::yield_now().await;
            let mut circle = route[..length].to_vec();
            circle.insert(0, first.clone());
            let error = first.ask(Pass { route: circle }).await.unwrap_err();
            assert!(error.to_string().contains("can never be answered"), "{error}");
        }
    });
}

#[test]
fn an_endpoint_may_stop_itself_there() {
    run(|env, node, _| async move {
        let Poll::Ready(Ok(())) = poll_once(node.ask(Stop)) else { panic!("at once") };
        let error = node.ask(Count).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::EndpointStopped);
        env.stopped(&node).await.unwrap();
        env.setup_endpoint("node", Node::default()).await.unwrap();
    });
}

#[test]
fn a_handler_is_in_no_span_of_its_askers() {
    run(|_, node, _| async move {
        let ask = tracing::subscriber::with_default(tracing_subscriber::registry(), || {
            let _span = tracing::info_span!("asker").entered();
            let mut ask = Box::pin(node.ask(Count));
            assert!(poll_once(ask.as_mut()).is_pending());
            ask
        });
        assert_eq!(ask.await.unwrap(), 1);
    });
}
