//! Deadlines, cancelling and trace context through chains of endpoints: a caller asks B, and B asks
//! C. On both backends, over three envs and within one.
#![cfg(test)]

use rpc_core::{
    AskFuture, EndpointContext, ErrorKind, HandlerResult, RpcCallContext, RpcEndpointRef, RpcEnv,
    RpcError, RpcMessage, TraceContext, endpoint,
};
use rpc_tests::both;
use rpc_tests::harness::{Gate, Harness, Log, Parking};
use serde::{Deserialize, Serialize};
use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Wake, Waker};
use std::time::Duration;

const TRACEPARENT: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

/// What a handler sees of its call.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Seen {
    by: String,
    remaining: Option<Duration>,
    traceparent: Option<String>,
    span: Option<u64>,
    parent: Option<u64>,
    tracestate: Option<String>,
}

impl Seen {
    fn of(cx: &EndpointContext<Node>) -> Self {
        let trace = cx.trace();
        Self {
            by: cx.name().to_string(),
            remaining: cx.remaining(),
            traceparent: trace.as_ref().map(ToString::to_string),
            span: trace.as_ref().map(TraceContext::span_id),
            parent: trace.as_ref().and_then(TraceContext::parent_id),
            tracestate: trace.as_ref().and_then(|trace| trace.tracestate()).map(str::to_owned),
        }
    }
}

/// Goes along the route; the answer is what each has seen.
#[derive(Debug, Serialize, Deserialize, RpcMessage)]
#[rpc(reply = Vec<Seen>)]
struct Pass {
    route: Vec<RpcEndpointRef<Node>>,
    /// How long each but the last waits before it goes on.
    wait: Duration,
}

/// Goes along the route; the last one stays until its gate opens or its caller gives up.
#[derive(Debug, Serialize, Deserialize, RpcMessage)]
#[rpc(reply = ())]
struct Stay {
    route: Vec<RpcEndpointRef<Node>>,
}

/// Posts, and waits for room.
#[derive(Debug, Serialize, Deserialize, RpcMessage)]
#[rpc(reply = ())]
struct Deliver {
    to: RpcEndpointRef<Node>,
}

/// One way along the route.
#[derive(Debug, Serialize, Deserialize, RpcMessage)]
struct Post {
    route: Vec<RpcEndpointRef<Node>>,
}

/// Its call is left to the test, and an ask of its handler as well.
#[derive(Debug, Serialize, Deserialize, RpcMessage)]
#[rpc(reply = ())]
struct Defer {
    asks: Option<RpcEndpointRef<Node>>,
}

/// An ask of its handler is left to the test; it is answered when the gate opens.
#[derive(Debug, Serialize, Deserialize, RpcMessage)]
#[rpc(reply = ())]
struct Lend {
    asks: RpcEndpointRef<Node>,
}

/// Never answered.
#[derive(Debug, Serialize, Deserialize, RpcMessage)]
#[rpc(reply = ())]
struct Never;

/// Fails; `on_error` posts.
#[derive(Debug, Serialize, Deserialize, RpcMessage)]
struct Fail {
    then: RpcEndpointRef<Node>,
}

/// Comes back to the endpoint later, as a post along the route.
#[derive(Debug, Serialize, Deserialize, RpcMessage)]
struct Later {
    route: Vec<RpcEndpointRef<Node>>,
}

/// The endpoint stops; `on_stop` posts.
#[derive(Debug, Serialize, Deserialize, RpcMessage)]
struct Quit {
    then: RpcEndpointRef<Node>,
}

#[derive(Clone, Default)]
struct Watch {
    log: Log,
    seen: Log<Seen>,
    gate: Gate,
    calls: Parking<RpcCallContext<()>>,
    asks: Parking<AskFuture<()>>,
}

#[derive(Default)]
struct Node {
    watch: Watch,
    never: Vec<RpcCallContext<()>>,
    on_error: Option<RpcEndpointRef<Self>>,
    on_stop: Option<RpcEndpointRef<Self>>,
}

#[endpoint]
impl Node {
    #[receive_and_reply]
    async fn pass(
        &mut self,
        msg: Pass,
        cx: &mut EndpointContext<Self>,
    ) -> HandlerResult<Vec<Seen>> {
        let mut all = vec![Seen::of(cx)];
        if let Some((next, rest)) = msg.route.split_first() {
            if !msg.wait.is_zero() {
                // Time passes; the one who never answers is somewhere else, so that nobody is held.
                let error = rest[0].ask_with_timeout(Never, msg.wait).await.unwrap_err();
                assert!(error.is_timeout(), "{error}");
            }
            let route = rest.to_vec();
            all.extend(next.ask(Pass { route, wait: Duration::ZERO }).await?);
        }
        Ok(all)
    }

    #[receive_and_reply]
    async fn stay(&mut self, msg: Stay, cx: &mut EndpointContext<Self>) -> HandlerResult<()> {
        self.watch.seen.push(Seen::of(cx));
        let Some((next, rest)) = msg.route.split_first() else {
            if first(self.watch.gate.wait(), cx.cancelled()).await.is_some() {
                return Ok(());
            }
            assert!(cx.is_cancelled());
            self.watch.log.push("cancelled");
            return Err(anyhow::anyhow!("nobody waits any more").into());
        };
        let asked = next.ask(Stay { route: rest.to_vec() }).await;
        self.watch.log.push(kind_of(&asked));
        Ok(asked?)
    }

    #[receive_and_reply]
    async fn deliver(&mut self, msg: Deliver, cx: &mut EndpointContext<Self>) -> HandlerResult<()> {
        self.watch.seen.push(Seen::of(cx));
        let post = Post { route: Vec::new() };
        let sent = msg.to.send_wait(post).await;
        self.watch.log.push(kind_of(&sent));
        Ok(sent?)
    }

    #[receive]
    async fn post(&mut self, msg: Post, cx: &mut EndpointContext<Self>) -> HandlerResult<()> {
        self.watch.seen.push(Seen::of(cx));
        if let Some((next, rest)) = msg.route.split_first() {
            next.send(Post { route: rest.to_vec() })?;
        }
        Ok(())
    }

    #[receive_and_reply]
    async fn defer(
        &mut self,
        msg: Defer,
        call: RpcCallContext<()>,
        cx: &mut EndpointContext<Self>,
    ) -> HandlerResult<()> {
        self.watch.seen.push(Seen::of(cx));
        if let Some(other) = msg.asks {
            self.watch.asks.leave(other.ask(Stay { route: Vec::new() }));
        }
        self.watch.calls.leave(call);
        Ok(())
    }

    #[receive_and_reply]
    async fn lend(&mut self, msg: Lend) -> HandlerResult<()> {
        self.watch.asks.leave(msg.asks.ask(Stay { route: Vec::new() }));
        self.watch.gate.wait().await;
        Ok(())
    }

    #[receive_and_reply]
    async fn never(&mut self, _msg: Never, call: RpcCallContext<()>) -> HandlerResult<()> {
        self.never.push(call);
        Ok(())
    }

    #[receive]
    async fn fail(&mut self, msg: Fail) -> HandlerResult<()> {
        self.on_error = Some(msg.then);
        Err(anyhow::anyhow!("on purpose").into())
    }

    #[receive]
    async fn later(&mut self, msg: Later, cx: &mut EndpointContext<Self>) -> HandlerResult<()> {
        cx.send_after(Duration::from_millis(1), Post { route: msg.route });
        Ok(())
    }

    #[receive]
    async fn quit(&mut self, msg: Quit, cx: &mut EndpointContext<Self>) -> HandlerResult<()> {
        self.on_stop = Some(msg.then);
        cx.stop();
        Ok(())
    }

    #[on_stop]
    async fn stopped(&mut self) -> HandlerResult<()> {
        if let Some(then) = &self.on_stop {
            then.send(Post { route: Vec::new() })?;
        }
        Ok(())
    }

    #[on_error]
    async fn failed(&mut self, _error: RpcError) -> HandlerResult<()> {
        if let Some(then) = &self.on_error {
            then.send(Post { route: Vec::new() })?;
        }
        Ok(())
    }
}

/// The first's result if it is ready first, otherwise `None`.
async fn first<T>(one: impl Future<Output = T>, other: impl Future<Output = ()>) -> Option<T> {
    let (mut one, mut other) = (pin!(one), pin!(other));
    poll_fn(|cx| match one.as_mut().poll(cx) {
        Poll::Ready(result) => Poll::Ready(Some(result)),
        Poll::Pending => other.as_mut().poll(cx).map(|()| None),
    })
    .await
}

fn kind_of<T>(result: &Result<T, RpcError>) -> String {
    result.as_ref().map_or_else(|error| format!("{:?}", error.kind()), |_| "fine".to_owned())
}

/// A caller's view of B and C.
struct Chain {
    b: RpcEndpointRef<Node>,
    c: RpcEndpointRef<Node>,
    at_b: Watch,
    at_c: Watch,
    /// C as B's env sees it.
    c_from_b: RpcEndpointRef<Node>,
    envs: [RpcEnv; 3],
}

async fn node(env: &RpcEnv, name: &str) -> anyhow::Result<(Watch, RpcEndpointRef<Node>)> {
    let node = Node::default();
    let watch = node.watch.clone();
    Ok((watch, env.setup_endpoint(name, node).await?))
}

impl Chain {
    /// The caller, B and C in envs of their own.
    async fn of_three(h: &Harness) -> anyhow::Result<Self> {
        let envs = [h.client("a").await?, h.server("b").await?, h.server("c").await?];
        Self::of(envs).await
    }

    /// All in one env.
    async fn of_one(h: &Harness) -> anyhow::Result<Self> {
        let env = h.server("one").await?;
        Self::of([env.clone(), env.clone(), env]).await
    }

    async fn of(envs: [RpcEnv; 3]) -> anyhow::Result<Self> {
        let [at, b_env, c_env] = &envs;
        let (at_b, b) = node(b_env, "b").await?;
        let (at_c, c) = node(c_env, "c").await?;
        let (b, c) = (b.endpoint_address().to_string(), c.endpoint_address().to_string());
        let c_from_b = b_env.endpoint_ref(&c).await?;
        let (b, c) = (at.endpoint_ref(&b).await?, at.endpoint_ref(&c).await?);
        Ok(Self { b, c, at_b, at_c, c_from_b, envs })
    }

    async fn both(h: &Harness) -> anyhow::Result<[Self; 2]> {
        Ok([Self::of_three(h).await?, Self::of_one(h).await?])
    }

    fn stay(&self) -> Stay {
        Stay { route: vec![self.c.clone()] }
    }
}

fn trace() -> TraceContext {
    TraceContext::parse(TRACEPARENT).unwrap().with_tracestate("vendor=1")
}

// Deadlines.

async fn the_last_one_sees_what_remains_of_the_first_ones_time(h: &Harness) -> anyhow::Result<()> {
    for chain in Chain::both(h).await? {
        // In real time a short wait will do.
        let wait = Duration::from_millis(if h.is_actix() { 20 } else { 2_000 });
        let (_, never) = node(&chain.envs[1], "never").await?;
        let route = vec![chain.c.clone(), never];
        let timeout = Duration::from_secs(7);
        let route = Pass { route, wait };
        let seen = chain.b.ask_with_timeout(route, timeout).await;
        let seen = seen?;
        let left: Vec<Duration> = seen.iter().filter_map(|seen| seen.remaining).collect();
        assert_eq!(left.len(), 3);
        // Remaining time is rounded up to a millisecond at each hop.
        let hop = Duration::from_millis(1);
        assert!(left[0] <= timeout + hop, "{left:?}");
        assert!(left[1] <= left[0] - wait + hop && left[1] > Duration::ZERO, "{left:?}");
        assert!(left[2] <= left[1] + hop, "{left:?}");
        if !h.is_actix() {
            let after = Duration::from_secs(5);
            assert_eq!(left, [timeout, after, after]);
        }
    }
    Ok(())
}

async fn what_is_over_before_its_turn_is_not_handled(h: &Harness) -> anyhow::Result<()> {
    for chain in Chain::both(h).await? {
        let held = chain.c.ask(Stay { route: Vec::new() });
        chain.at_c.seen.reaches(1).await;
        let error = chain.b.ask_with_timeout(chain.stay(), Duration::from_millis(20)).await;
        assert!(error.unwrap_err().is_timeout());
        // B's own ask ends with the time of B's caller, if B was in time to make it.
        if h.is_actix() {
            chain.b.ask(Pass { route: Vec::new(), wait: Duration::ZERO }).await?;
        } else {
            chain.at_b.log.reaches(1).await;
        }
        chain.at_c.gate.open();
        held.await?;
        chain.c.ask(Pass { route: Vec::new(), wait: Duration::ZERO }).await?;
        assert_eq!(chain.at_c.seen.len(), 1, "an ask that nobody waits for was handled");
    }
    Ok(())
}

// Cancelling.

async fn an_ask_that_is_dropped_ends_the_whole_chain(h: &Harness) -> anyhow::Result<()> {
    for chain in Chain::both(h).await? {
        let ask = chain.b.ask(chain.stay());
        chain.at_c.seen.reaches(1).await;
        drop(ask);
        assert_eq!(chain.at_b.log.reaches(1).await, ["Cancelled"]);
        assert_eq!(chain.at_c.log.reaches(1).await, ["cancelled"]);
    }
    Ok(())
}

async fn a_deadline_ends_the_whole_chain(h: &Harness) -> anyhow::Result<()> {
    for chain in Chain::both(h).await? {
        // On a busy machine the time may be over before C has begun.
        let mut millis = 50;
        let begun = loop {
            let timeout = Duration::from_millis(millis);
            let error = chain.b.ask_with_timeout(chain.stay(), timeout).await.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Timeout);
            chain.b.ask(Pass { route: Vec::new(), wait: Duration::ZERO }).await?;
            if !chain.at_c.seen.is_empty() {
                break chain.at_b.log.all();
            }
            millis *= 2;
        };
        // Whichever is first: the word of B's caller, or B's clock.
        let last = begun.last().map(String::as_str);
        assert!(matches!(last, Some("Cancelled" | "Timeout")), "{begun:?}");
        assert_eq!(chain.at_c.log.reaches(1).await, ["cancelled"]);
    }
    Ok(())
}

/// A `send_wait` that waits for room ends with its handler's caller, and its message is not handled.
async fn a_send_that_waits_ends_with_its_handlers_caller(h: &Harness) -> anyhow::Result<()> {
    let config = h.server_config("full").set("rpc.inbox.maxMessages", "1")?;
    let env = h.create(config).await?;
    let chain = Chain::of([env.clone(), env.clone(), env]).await?;
    let held = chain.c.ask(Stay { route: Vec::new() });
    chain.at_c.seen.reaches(1).await;
    chain.c.send(Post { route: Vec::new() })?;
    let wait = chain.b.ask(Deliver { to: chain.c.clone() });
    chain.at_b.seen.reaches(1).await;
    drop(wait);
    assert_eq!(chain.at_b.log.reaches(1).await, ["Cancelled"]);
    chain.at_c.gate.open();
    held.await?;
    chain.c.ask(Pass { route: Vec::new(), wait: Duration::ZERO }).await?;
    assert_eq!(chain.at_c.seen.len(), 2, "the one that stayed, the one that had room");
    // One that has found room is sent, whatever becomes of its handler's caller.
    chain.b.ask(Deliver { to: chain.c.clone() }).await?;
    chain.at_c.seen.reaches(3).await;
    Ok(())
}

// Calls that are answered later.

async fn work_for_a_deferred_call_inherits_from_it(h: &Harness) -> anyhow::Result<()> {
    for chain in Chain::both(h).await? {
        let timeout = Duration::from_secs(7);
        let ask = trace().scope(|| chain.b.ask_with_timeout(Defer { asks: None }, timeout));
        let call = chain.at_b.calls.next().await;
        assert!(call.remaining() <= timeout + Duration::from_millis(1));
        let own = call.trace().expect("no trace");
        let work = call.scope(|| chain.c_from_b.ask(Stay { route: Vec::new() }));
        let seen = chain.at_c.seen.reaches(1).await;
        let left = seen[0].remaining.expect("no deadline");
        assert!(left <= timeout + Duration::from_millis(2) && left > Duration::ZERO, "{left:?}");
        if !h.is_actix() {
            assert_eq!(left, timeout);
        }
        assert_eq!(seen[0].parent, Some(own.span_id()));
        assert_eq!(own.parent_id(), Some(trace().span_id()));
        // Outside of the scope nothing is inherited.
        let other = chain.c_from_b.ask_with_timeout(Never, Duration::from_secs(60));
        drop(ask);
        assert_eq!(work.await.unwrap_err().kind(), ErrorKind::Cancelled);
        assert_eq!(chain.at_c.log.reaches(1).await, ["cancelled"]);
        call.cancelled().await;
        // Not even what is asked now.
        let late = call.scope(|| chain.c_from_b.ask(Stay { route: Vec::new() })).await;
        assert_eq!(late.unwrap_err().kind(), ErrorKind::Cancelled);
        drop(call);
        assert!(first(other, std::future::ready(())).await.is_none());
    }
    Ok(())
}

async fn work_of_a_scoped_future_inherits_behind_each_await(h: &Harness) -> anyhow::Result<()> {
    for chain in Chain::both(h).await? {
        let timeout = Duration::from_secs(7);
        let ask = trace().scope(|| chain.b.ask_with_timeout(Defer { asks: None }, timeout));
        let call = chain.at_b.calls.next().await;
        let parent = call.trace().map(|own| own.span_id());
        let pass = || Pass { route: Vec::new(), wait: Duration::ZERO };
        let work = call.scoped(async {
            let seen = chain.c_from_b.ask(pass()).await?;
            assert_eq!(seen[0].parent, parent);
            chain.c_from_b.ask(Stay { route: Vec::new() }).await
        });
        let mut work = pin!(work);
        let stays = async { drop(chain.at_c.seen.reaches(1).await) };
        assert!(first(&mut work, stays).await.is_none());
        let seen = &chain.at_c.seen.reaches(1).await[0];
        assert!(seen.remaining.is_some_and(|left| left <= timeout), "{:?}", seen.remaining);
        assert_eq!(seen.parent, parent);
        drop(ask);
        assert_eq!(work.await.unwrap_err().kind(), ErrorKind::Cancelled);
        // A trace alone has a scope as well.
        let second = trace().scoped(async {
            chain.c.ask(pass()).await?;
            chain.c.ask(pass()).await
        });
        assert_eq!(second.await?[0].parent, Some(trace().span_id()));
    }
    Ok(())
}

/// An ask that the handler of a deferred call made belongs to the call, not to the handler.
async fn an_ask_of_a_handler_that_defers_ends_with_the_call(h: &Harness) -> anyhow::Result<()> {
    for chain in Chain::both(h).await? {
        let ask = chain.b.ask(Defer { asks: Some(chain.c.clone()) });
        let (work, call) = (chain.at_b.asks.next().await, chain.at_b.calls.next().await);
        chain.at_c.seen.reaches(1).await;
        // The handler has ended.
        chain.b.ask(Pass { route: Vec::new(), wait: Duration::ZERO }).await?;
        drop(ask);
        assert_eq!(work.await.unwrap_err().kind(), ErrorKind::Cancelled);
        assert_eq!(chain.at_c.log.reaches(1).await, ["cancelled"]);
        assert!(call.is_cancelled());
    }
    Ok(())
}

async fn work_goes_on_when_the_call_has_its_answer(h: &Harness) -> anyhow::Result<()> {
    for answered in [true, false] {
        for chain in Chain::both(h).await? {
            let ask = chain.b.ask(Defer { asks: Some(chain.c.clone()) });
            let mut of_handler = chain.at_b.asks.next().await;
            let call = chain.at_b.calls.next().await;
            let mut scoped = call.scope(|| chain.c_from_b.ask(Stay { route: Vec::new() }));
            // They have been looked at: they wait for the call's end as well.
            for work in [&mut of_handler, &mut scoped] {
                assert!(first(work, std::future::ready(())).await.is_none());
            }
            if answered {
                call.reply(());
                ask.await?;
            } else {
                drop(call);
                assert_eq!(ask.await.unwrap_err().kind(), ErrorKind::NoReply);
            }
            for work in [&mut of_handler, &mut scoped] {
                assert!(first(work, std::future::ready(())).await.is_none());
            }
            chain.at_c.gate.open();
            of_handler.await?;
            scoped.await?;
        }
    }
    Ok(())
}

/// Polls an ask in the very moment in which it is woken.
struct Hasty {
    ask: Mutex<Option<AskFuture<()>>>,
    ended: Log<String>,
}

impl Wake for Hasty {
    fn wake(self: Arc<Self>) {
        let Some(mut ask) = self.ask.lock().unwrap().take() else { return };
        match Pin::new(&mut ask).poll(&mut Context::from_waker(&Waker::from(self.clone()))) {
            Poll::Ready(end) => self.ended.push(kind_of(&end)),
            Poll::Pending => *self.ask.lock().unwrap() = Some(ask),
        }
    }
}

/// An ask that outlives its handler is not ended by the handler's answer.
async fn an_ask_may_outlive_its_handler(h: &Harness) -> anyhow::Result<()> {
    for chain in Chain::both(h).await? {
        let ask = chain.b.ask(Lend { asks: chain.c.clone() });
        let lent = Mutex::new(Some(chain.at_b.asks.next().await));
        let hasty = Arc::new(Hasty { ask: lent, ended: Log::default() });
        hasty.clone().wake();
        chain.at_b.gate.open();
        ask.await?;
        hasty.clone().wake();
        assert_eq!(hasty.ended.all(), [""; 0]);
        chain.at_c.gate.open();
        // Woken where nobody drives a world.
        chain.c.ask(Pass { route: Vec::new(), wait: Duration::ZERO }).await?;
        assert_eq!(hasty.ended.reaches(1).await, ["fine"]);
    }
    Ok(())
}

// Trace context.

#[track_caller]
fn assert_in_trace(seen: &[Seen]) {
    let mut parent = trace().span_id();
    for seen in seen {
        let own = TraceContext::parse(seen.traceparent.as_deref().expect("no trace")).unwrap();
        assert_eq!((own.trace_id(), own.is_sampled()), (trace().trace_id(), true), "{seen:?}");
        assert_eq!((seen.parent, seen.tracestate.as_deref()), (Some(parent), Some("vendor=1")));
        assert_ne!(seen.span, seen.parent);
        parent = own.span_id();
    }
}

async fn a_trace_goes_through_asks(h: &Harness) -> anyhow::Result<()> {
    for chain in Chain::both(h).await? {
        let pass = || Pass { route: vec![chain.c.clone()], wait: Duration::ZERO };
        let seen = trace().scope(|| chain.b.ask(pass())).await?;
        assert_eq!(seen.len(), 2);
        assert_in_trace(&seen);
        // Without a scope there is none, and nothing is left of the one before.
        let seen = chain.b.ask(pass()).await?;
        assert!(seen.iter().all(|seen| seen.traceparent.is_none()), "{seen:?}");
    }
    Ok(())
}

async fn a_trace_goes_through_one_way_messages(h: &Harness) -> anyhow::Result<()> {
    for chain in Chain::both(h).await? {
        let route = vec![chain.c.clone(), chain.b.clone(), chain.c.clone()];
        trace().scope(|| chain.b.send(Post { route }))?;
        let at_b = chain.at_b.seen.reaches(2).await;
        let at_c = chain.at_c.seen.reaches(2).await;
        let in_order = [&at_b[0], &at_c[0], &at_b[1], &at_c[1]].map(Clone::clone);
        assert_in_trace(&in_order);
        assert!(in_order.iter().all(|seen| seen.remaining.is_none()));
        // `send_wait` as well, and what `on_error` sends.
        trace().scope(|| chain.c.send_wait(Post { route: Vec::new() })).await?;
        assert_in_trace(&chain.at_c.seen.reaches(3).await[2..]);
        trace().scope(|| chain.b.send(Fail { then: chain.c.clone() }))?;
        let seen = chain.at_c.seen.reaches(4).await;
        let first = TraceContext::parse(TRACEPARENT).unwrap();
        let got = TraceContext::parse(seen[3].traceparent.as_deref().expect("no trace")).unwrap();
        assert_eq!(got.trace_id(), first.trace_id());
        // What an endpoint sends itself later is part of it, too.
        trace().scope(|| chain.b.send(Later { route: vec![chain.c.clone()] }))?;
        let (at_b, at_c) = (chain.at_b.seen.reaches(3).await, chain.at_c.seen.reaches(5).await);
        assert_eq!(
            at_b[2].traceparent.as_deref().map(|text| &text[..35]),
            Some(&TRACEPARENT[..35])
        );
        assert_eq!(at_c[4].parent, at_b[2].span);
        // The next message has none, and neither have its own.
        chain.b.send(Post { route: vec![chain.c.clone()] })?;
        assert_eq!(chain.at_c.seen.reaches(6).await[5].traceparent, None);
        // Nor has what an endpoint sends at its end.
        trace().scope(|| chain.b.send(Quit { then: chain.c.clone() }))?;
        assert_eq!(chain.at_c.seen.reaches(7).await[6].traceparent, None);
    }
    Ok(())
}

async fn scopes_lie_within_each_other(h: &Harness) -> anyhow::Result<()> {
    let chain = Chain::of_three(h).await?;
    let outer = chain.envs[0].new_trace(false);
    let other = chain.envs[0].new_trace(true);
    assert_ne!(outer.trace_id(), other.trace_id());
    let pass = || chain.b.ask(Pass { route: Vec::new(), wait: Duration::ZERO });
    let (inside, after, panicked) = outer.scope(|| {
        let inside = other.scope(pass);
        let panics = || other.scope(|| std::panic::resume_unwind(Box::new("on purpose")));
        let panicked: Result<(), _> =
            std::panic::catch_unwind(std::panic::AssertUnwindSafe(panics));
        (inside, pass(), panicked.is_err())
    });
    assert!(panicked);
    assert_eq!(inside.await?[0].parent, Some(other.span_id()));
    assert_eq!(after.await?[0].parent, Some(outer.span_id()));
    assert_eq!(pass().await?[0].parent, None);
    Ok(())
}

both! {
    the_last_one_sees_what_remains_of_the_first_ones_time,
    what_is_over_before_its_turn_is_not_handled,
    an_ask_that_is_dropped_ends_the_whole_chain,
    a_deadline_ends_the_whole_chain,
    a_send_that_waits_ends_with_its_handlers_caller,
    work_for_a_deferred_call_inherits_from_it,
    work_of_a_scoped_future_inherits_behind_each_await,
    an_ask_of_a_handler_that_defers_ends_with_the_call,
    work_goes_on_when_the_call_has_its_answer,
    an_ask_may_outlive_its_handler,
    a_trace_goes_through_asks,
    a_trace_goes_through_one_way_messages,
    scopes_lie_within_each_other,
}
