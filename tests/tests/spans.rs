//! The span that each message is handled in, as a subscriber of `tracing` sees it.
#![cfg(test)]

use rpc_core::{
    EndpointContext, HandlerResult, LocalWorld, RpcEndpointRef, RpcEnvConfig, RpcEnvFactory,
    RpcError, RpcMessage, TraceContext, endpoint,
};
use rpc_tests::harness::Gate;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard};
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Level, Metadata, Subscriber};

const TRACEPARENT: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
const TRACE_ID: &str = "4bf92f3577b34da6a3ce929d0e0e4736";

/// What the subscriber has seen.
#[derive(Default)]
struct State {
    spans: Vec<Seen>,
    /// Entered and not left, by their places in `spans`.
    inside: Vec<usize>,
    /// The text of each event, and the message of the `rpc.handle` that it is in.
    events: Vec<(String, Option<String>)>,
}

#[derive(Clone, Default)]
struct Seen {
    fields: BTreeMap<&'static str, String>,
    entered: usize,
    closed: bool,
}

impl Seen {
    fn field(&self, name: &str) -> &str {
        self.fields.get(name).map_or("-", String::as_str)
    }
}

/// Takes what is in its level.
#[derive(Clone)]
struct Watcher {
    level: Level,
    state: Arc<Mutex<State>>,
}

impl Watcher {
    fn new(level: Level) -> Self {
        Self { level, state: Arc::default() }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    fn place(id: &Id) -> usize {
        usize::try_from(id.into_u64()).unwrap() - 1
    }

    /// The spans of a message.
    fn of(&self, message: &str) -> Vec<Seen> {
        let state = self.lock();
        let found = state.spans.iter().filter(|span| span.field("message") == message);
        found.cloned().collect()
    }

    /// Which message was handled when the event came that has this in its text.
    fn around(&self, text: &str) -> Option<String> {
        let state = self.lock();
        let found = state.events.iter().find(|(event, _)| event.contains(text));
        found.unwrap_or_else(|| panic!("no event has {text:?}: {:?}", state.events)).1.clone()
    }
}

struct Texts<'a>(&'a mut BTreeMap<&'static str, String>);

impl Visit for Texts<'_> {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.0.insert(field.name(), format!("{value:?}"));
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.0.insert(field.name(), value.to_owned());
    }
}

impl Subscriber for Watcher {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        *metadata.level() <= self.level
    }

    fn new_span(&self, span: &Attributes<'_>) -> Id {
        assert_eq!(span.metadata().name(), "rpc.handle");
        assert_eq!(*span.metadata().level(), Level::DEBUG);
        assert!(span.is_root());
        let mut seen = Seen::default();
        span.record(&mut Texts(&mut seen.fields));
        let mut state = self.lock();
        state.spans.push(seen);
        Id::from_u64(state.spans.len() as u64)
    }

    fn record(&self, span: &Id, values: &Record<'_>) {
        values.record(&mut Texts(&mut self.lock().spans[Self::place(span)].fields));
    }

    fn record_follows_from(&self, _span: &Id, _follows: &Id) {}

    fn event(&self, event: &Event<'_>) {
        let mut fields = BTreeMap::new();
        event.record(&mut Texts(&mut fields));
        let mut state = self.lock();
        let around = state.inside.last().map(|place| state.spans[*place].fields["message"].clone());
        state.events.push((format!("{fields:?}"), around));
    }

    fn enter(&self, span: &Id) {
        let (place, mut state) = (Self::place(span), self.lock());
        state.spans[place].entered += 1;
        state.inside.push(place);
    }

    fn exit(&self, span: &Id) {
        assert_eq!(self.lock().inside.pop(), Some(Self::place(span)));
    }

    fn try_close(&self, span: Id) -> bool {
        self.lock().spans[Self::place(&span)].closed = true;
        true
    }
}

#[derive(Debug, Serialize, Deserialize, RpcMessage)]
#[rpc(reply = ())]
struct Pass {
    to: Option<RpcEndpointRef<Node>>,
}

#[derive(Debug, Serialize, Deserialize, RpcMessage)]
struct Fail {
    text: String,
}

#[derive(Default)]
struct Node {
    gate: Gate,
}

#[endpoint]
impl Node {
    #[receive_and_reply]
    async fn pass(&mut self, msg: Pass, cx: &mut EndpointContext<Self>) -> HandlerResult<()> {
        if let Some(to) = msg.to {
            to.ask(Pass { to: None }).await?;
            self.gate.wait().await;
        }
        tracing::info!(endpoint = %cx.name(), "passed");
        Ok(())
    }

    #[receive]
    async fn fail(&mut self, msg: Fail) -> HandlerResult<()> {
        Err(anyhow::anyhow!(msg.text).into())
    }
}

/// B asks C, in two envs; then one message fails.
fn run(watcher: &Watcher, trace: Option<TraceContext>) {
    let scoped = |call: &mut dyn FnMut()| match &trace {
        Some(trace) => trace.scope(call),
        None => call(),
    };
    let world = LocalWorld::new();
    let gate = Gate::default();
    let done = world.block_on(async {
        let b_env = world.factory().create(RpcEnvConfig::server("b", "b:7077")).await?;
        let c_env = world.factory().create(RpcEnvConfig::server("c", "c:7078")).await?;
        let b = b_env.setup_endpoint("b", Node { gate: gate.clone() }).await?;
        let c = c_env.setup_endpoint("c", Node::default()).await?;
        let mut ask = None;
        scoped(&mut || ask = Some(b.ask(Pass { to: Some(c.clone()) })));
        // B's handler is at its gate.
        c.ask(Pass { to: None }).await?;
        tracing::info!("between");
        gate.open();
        ask.take().unwrap().await?;
        scoped(&mut || b.send(Fail { text: "on purpose".to_owned() }).unwrap());
        b.ask(Pass { to: None }).await?;
        Ok::<(), RpcError>(())
    });
    done.unwrap();
    assert!(watcher.lock().inside.is_empty());
}

#[test]
fn each_message_is_handled_in_a_span_of_its_trace() {
    let watcher = Watcher::new(Level::DEBUG);
    let trace = TraceContext::parse(TRACEPARENT);
    tracing::subscriber::with_default(watcher.clone(), || run(&watcher, trace));
    let passes = watcher.of("Pass");
    // The test's own asks have no trace.
    let of = |span: &&Seen, name: &str| {
        (span.field("endpoint"), span.field("trace_id")) == (name, TRACE_ID)
    };
    let named = |name: &str| passes.iter().find(|span| of(span, name)).unwrap();
    let (b, c) = (named("b"), named("c"));
    assert_eq!(b.field("parent_id"), "00f067aa0ba902b7");
    assert_eq!(c.field("parent_id"), b.field("span_id"));
    assert_eq!(c.field("span_id").len(), 16);
    assert_ne!(c.field("span_id"), b.field("span_id"));
    // It is entered whenever the handler goes on, and only then.
    assert!(b.entered >= 3, "entered {} times", b.entered);
    assert_eq!(watcher.around("passed"), Some("Pass".to_owned()));
    assert_eq!(watcher.around("between"), None);
    assert!(watcher.lock().spans.iter().all(|span| span.closed));
    // What the library logs of an error is inside as well.
    assert_eq!(watcher.around("error in an endpoint"), Some("Fail".to_owned()));
    assert_eq!(watcher.of("Fail")[0].field("trace_id"), TRACE_ID);
}

#[test]
fn without_a_trace_the_span_has_no_ids() {
    let watcher = Watcher::new(Level::DEBUG);
    tracing::subscriber::with_default(watcher.clone(), || run(&watcher, None));
    for span in watcher.of("Pass") {
        assert_eq!(span.fields.keys().copied().collect::<Vec<_>>(), ["endpoint", "message"]);
    }
    assert_eq!(watcher.of("Pass").len(), 4);
}

#[test]
fn who_listens_to_info_gets_no_spans() {
    let watcher = Watcher::new(Level::INFO);
    let trace = TraceContext::parse(TRACEPARENT);
    tracing::subscriber::with_default(watcher.clone(), || run(&watcher, trace));
    assert!(watcher.lock().spans.is_empty());
    assert_eq!(watcher.around("error in an endpoint"), None);
}
