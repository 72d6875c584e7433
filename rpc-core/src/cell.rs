//! The life of one endpoint, as a future that any runtime can poll: start, messages, stop.

use crate::context::EndpointContext;
use crate::core::EnvCore;
use crate::counters::Count;
use crate::deadline::Timestamp;
use crate::delivery::{NetworkEvent, Work};
use crate::endpoint::RpcEndpoint;
use crate::env::EnvShared;
use crate::error::{ErrorKind, RpcError};
use crate::gate::Gate;
use crate::handlers::HandlerSet;
use crate::inbox::{Inbox, Item, Kind, Step};
use crate::raw::HandlerResult;
use crate::reply_sink::Way;
use crate::turn;
use std::any::Any;
use std::cell::RefCell;
use std::collections::VecDeque;
use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::{Arc, Weak};
use std::task::{Context, Poll};
use tracing::field::Empty;
use tracing::{Instrument, Span};

/// How `setup_endpoint` hears of the end of `on_start`.
pub(crate) type Started = Gate<Result<(), RpcError>>;

/// Everything the life of an endpoint needs, before it has begun on its thread.
pub(crate) struct EndpointCell<F> {
    pub(crate) inbox: Arc<Inbox>,
    pub(crate) env: Weak<EnvShared>,
    pub(crate) make: F,
    pub(crate) started: Arc<Started>,
}

impl<F> EndpointCell<F> {
    /// Runs the endpoint. Dropping the future, or the cell, ends the endpoint without `on_stop`.
    pub(crate) async fn run<E: RpcEndpoint>(self)
    where
        F: FnOnce() -> E,
    {
        let Self { inbox, env, make, started } = self;
        let mut end = End::new(inbox.clone(), env.clone(), started.clone());
        let taken = Taken::default();
        let run = live(make, inbox.clone(), env, started, taken.clone());
        end.failure = InHandlers { inbox, taken, run: Box::pin(run) }.await.err();
        drop(end);
    }
}

/// Frees the name and tells everyone who waits, however the endpoint's life ends.
pub(crate) struct End {
    inbox: Arc<Inbox>,
    env: Weak<EnvShared>,
    started: Arc<Started>,
    /// Why the endpoint did not start, if so.
    failure: Option<RpcError>,
}

impl End {
    pub(crate) fn new(inbox: Arc<Inbox>, env: Weak<EnvShared>, started: Arc<Started>) -> Self {
        Self { inbox, env, started, failure: None }
    }
}

impl Drop for End {
    fn drop(&mut self) {
        let env = self.env.upgrade();
        if let Some(env) = &env {
            env.dispatcher.remove(&self.inbox);
        }
        self.inbox.close();
        // Told last: whoever hears of a failed start finds the name free again.
        let failure = self.failure.take().unwrap_or_else(|| self.inbox.stopped());
        self.started.open(Err(failure));
        if let Some(env) = env {
            env.endpoint_gone();
        }
    }
}

/// What the endpoint's loop has taken out of its inbox, and not begun with.
type Taken = Rc<RefCell<VecDeque<Item>>>;

/// Marks the thread as inside this endpoint while it is polled, so that asks know who makes them.
/// While it is not, whatever others may want to see of it is in the inbox.
struct InHandlers<T> {
    inbox: Arc<Inbox>,
    taken: Taken,
    run: Pin<Box<T>>,
}

impl<T> InHandlers<T> {
    fn put_back(&self) {
        let mut taken = self.taken.borrow_mut();
        if !taken.is_empty() {
            self.inbox.put_back(&mut taken);
        }
    }
}

impl<T: Future> Future for InHandlers<T> {
    type Output = T::Output;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<T::Output> {
        let _inside = turn::enter(self.inbox.clone());
        let polled = self.run.as_mut().poll(cx);
        if polled.is_pending() {
            turn::write_down();
            self.put_back();
        }
        polled
    }
}

impl<T> Drop for InHandlers<T> {
    fn drop(&mut self) {
        self.put_back();
    }
}

/// Lives an endpoint's life; the error is that of its start.
async fn live<E: RpcEndpoint>(
    make: impl FnOnce() -> E,
    inbox: Arc<Inbox>,
    env: Weak<EnvShared>,
    started: Arc<Started>,
    taken: Taken,
) -> Result<(), RpcError> {
    let mut cx = EndpointContext::new(inbox.clone(), env);
    let made = std::panic::catch_unwind(AssertUnwindSafe(make));
    let mut endpoint = made.map_err(|panic| {
        let error = panicked("constructor", &*panic);
        count_panic(&error, inbox.core());
        error
    })?;
    if let Err(error) = guarded("on_start", async { endpoint.on_start(&mut cx).await }).await {
        count_panic(&error, inbox.core());
        drop_quietly(endpoint);
        return Err(error);
    }
    inbox.end_turn();
    started.open(Ok(()));
    serve(&mut endpoint, &mut cx, &inbox, &taken).await;
    let stopped = guarded("on_stop", async { endpoint.on_stop(&mut cx).await }).await;
    if let Err(error) = stopped {
        complain(&mut endpoint, error, &mut cx).await;
    }
    drop_quietly(endpoint);
    Ok(())
}

/// A panic in a destructor ends here.
fn drop_quietly<E>(endpoint: E) {
    if std::panic::catch_unwind(AssertUnwindSafe(|| drop(endpoint))).is_err() {
        tracing::error!(endpoint = std::any::type_name::<E>(), "panic while dropping an endpoint");
    }
}

/// Handles messages until the endpoint is stopped and its queue is empty.
async fn serve<E: RpcEndpoint>(
    endpoint: &mut E,
    cx: &mut EndpointContext<E>,
    inbox: &Arc<Inbox>,
    taken: &Taken,
) {
    let mut turn = Turn::default();
    loop {
        let (next, unused) = {
            let mut taken = taken.borrow_mut();
            (taken.pop_front(), taken.len())
        };
        let Some(mut item) = next else {
            let mut waited = false;
            let step = std::future::poll_fn(|cx| {
                let polled = inbox.poll_next(cx, &mut taken.borrow_mut());
                waited |= polled.is_pending();
                polled
            });
            if let Step::Stop = step.await {
                return;
            }
            if waited {
                // Others had their turn meanwhile.
                turn = Turn::default();
            }
            continue;
        };
        if inbox.is_drained() {
            inbox.refuse([item], &inbox.drained_error());
            continue;
        }
        inbox.begin(&mut item, unused);
        if let Kind::Network(event) = &item.kind {
            let result = {
                let mut hook = std::pin::pin!(network(endpoint, event, cx));
                let poll =
                    |cx: &mut Context<'_>| poll_handler("a network hook", inbox, hook.as_mut(), cx);
                std::future::poll_fn(poll).await
            };
            inbox.end_turn();
            if let Err(error) = result {
                complain(endpoint, error, cx).await;
            }
        } else {
            let span = span_of(inbox, &item);
            let ended = match cx.begin(item) {
                Some((handler, work)) => {
                    let result = handle(endpoint, cx, inbox, handler, work, &span).await;
                    cx.end(result)
                }
                // Nobody wants it any more, but its turn is over.
                None => cx.end(Ok(())),
            };
            if let Err(error) = ended {
                complain(endpoint, error, cx).instrument(span).await;
            }
        }
        if turn.is_over(inbox.core()) {
            yield_now(inbox.core()).await;
        }
    }
}

/// What an endpoint has handled since others of its thread had their turn.
#[derive(Default)]
struct Turn {
    messages: usize,
    /// Since when; looked at after the first few messages.
    since: Timestamp,
}

/// Messages between two looks at the clock.
const LOOK_AFTER: usize = 4;

impl Turn {
    /// Counts a message: whether it is the last of its turn.
    fn is_over(&mut self, core: &EnvCore) -> bool {
        let limits = core.config().limits();
        self.messages = self.messages.saturating_add(1);
        let mut over = self.messages >= limits.yield_after();
        if self.messages == LOOK_AFTER {
            self.since = core.now();
        } else if self.messages.is_multiple_of(LOOK_AFTER) {
            over |= core.now().since(self.since) >= limits.max_turn();
        }
        if over {
            self.messages = 0;
        }
        over
    }
}

/// The span that a message is handled in, `on_error` included. Its level is `DEBUG`, because it comes
/// once with every message: who listens to `INFO` neither sees nor pays for it. It has no parent in
/// this process, whoever's task happens to drive the endpoint; the ids say where it belongs.
fn span_of(inbox: &Inbox, item: &Item) -> Span {
    let span = tracing::debug_span!(
        target: "rpc_core::handle",
        parent: None,
        "rpc.handle",
        endpoint = %inbox.name(),
        message = message_of(inbox, item),
        trace_id = Empty,
        span_id = Empty,
        parent_id = Empty,
    );
    if !span.is_disabled()
        && let Some(trace) = inbox.trace()
    {
        span.record("trace_id", format_args!("{:032x}", trace.trace_id()));
        span.record("span_id", format_args!("{:016x}", trace.span_id()));
        if let Some(parent) = trace.parent_id() {
            span.record("parent_id", format_args!("{parent:016x}"));
        }
    }
    span
}

/// The message's wire name.
fn message_of<'a>(inbox: &'a Inbox, item: &'a Item) -> &'a str {
    match &item.kind {
        Kind::Tell { tell, .. } => tell.name(),
        Kind::Ask { sink, .. } => match sink.way() {
            Some(Way::Local(call)) => call.name(),
            _ => "?",
        },
        Kind::Wire(message) => match (inbox.handlers().get(message.handler), &message.name) {
            (Some(handler), _) => handler.name,
            (None, name) => name.as_deref().unwrap_or("?"),
        },
        Kind::Network(_) => "?",
    }
}

/// Runs a message's handler. Its future lies where it is made: moving it costs more than most
/// handlers do.
async fn handle<E: RpcEndpoint>(
    endpoint: &mut E,
    cx: &mut EndpointContext<E>,
    inbox: &Inbox,
    handler: usize,
    work: Work,
    span: &Span,
) -> Result<(), RpcError> {
    if handler < E::Handlers::LEN {
        let mut run = std::pin::pin!(E::Handlers::dispatch(handler, endpoint, work, cx));
        let poll = |cx: &mut Context<'_>| {
            let _entered = span.enter();
            poll_handler("a handler", inbox, run.as_mut(), cx)
        };
        std::future::poll_fn(poll).await
    } else {
        let mut run = std::pin::pin!(raw(endpoint, work, cx));
        let poll = |cx: &mut Context<'_>| {
            let _entered = span.enter();
            poll_handler("receive", inbox, run.as_mut(), cx)
        };
        std::future::poll_fn(poll).await
    }
}

async fn raw<E: RpcEndpoint>(
    endpoint: &mut E,
    work: Work,
    cx: &mut EndpointContext<E>,
) -> HandlerResult<()> {
    match cx.take_raw(work)? {
        (message, None) => endpoint.receive(message, cx).await,
        (message, Some(call)) => endpoint.receive_and_reply(message, call, cx).await,
    }
}

async fn network<E: RpcEndpoint>(
    endpoint: &mut E,
    event: &NetworkEvent,
    cx: &mut EndpointContext<E>,
) -> HandlerResult<()> {
    match event {
        NetworkEvent::Connected(peer) => endpoint.on_connected(peer, cx).await,
        NetworkEvent::Disconnected(peer) => endpoint.on_disconnected(peer, cx).await,
        NetworkEvent::Error(cause, peer) => endpoint.on_network_error(cause, peer, cx).await,
    }
}

/// Calls `on_error`; an error of that is ignored (S51).
async fn complain<E: RpcEndpoint>(endpoint: &mut E, error: RpcError, cx: &mut EndpointContext<E>) {
    count_panic(&error, cx.core());
    let told = guarded("on_error", async { endpoint.on_error(error, cx).await }).await;
    if let Err(ignored) = told {
        count_panic(&ignored, cx.core());
        tracing::warn!(endpoint = %cx.name(), error = %ignored, "Ignoring error");
    }
}

/// Runs user code; a panic becomes an error of the call, never of the actor.
async fn guarded(
    what: &str,
    future: impl Future<Output = HandlerResult<()>>,
) -> Result<(), RpcError> {
    let mut future = std::pin::pin!(future);
    std::future::poll_fn(|cx| poll_guarded(what, future.as_mut(), cx)).await
}

/// An error's own text is user code as well.
fn poll_guarded(
    what: &str,
    future: Pin<&mut impl Future<Output = HandlerResult<()>>>,
    cx: &mut Context<'_>,
) -> Poll<Result<(), RpcError>> {
    let poll = || future.poll(cx).map_err(crate::raw::HandlerError::into_rpc);
    let polled = std::panic::catch_unwind(AssertUnwindSafe(poll));
    polled.unwrap_or_else(|panic| Poll::Ready(Err(panicked(what, &*panic))))
}

/// Drops a handler that still runs some time after the drain deadline: one that never ends must not
/// keep an env from ending. The endpoint is over then, so that nobody sees what is left of its state
/// but its own `on_stop`.
fn poll_handler(
    what: &str,
    inbox: &Inbox,
    handler: Pin<&mut impl Future<Output = HandlerResult<()>>>,
    cx: &mut Context<'_>,
) -> Poll<Result<(), RpcError>> {
    let polled = poll_guarded(what, handler, cx);
    if polled.is_ready() {
        return polled;
    }
    inbox.poll_overdue(cx).map(|()| Err(inbox.overdue()))
}

fn count_panic(error: &RpcError, core: &EnvCore) {
    if error.kind() == ErrorKind::HandlerPanicked {
        core.tally().count(Count::Panics);
    }
}

fn panicked(what: &str, panic: &(dyn Any + Send)) -> RpcError {
    let text = panic
        .downcast_ref::<&str>()
        .copied()
        .or_else(|| panic.downcast_ref::<String>().map(String::as_str))
        .unwrap_or("a panic without a text");
    RpcError::new(ErrorKind::HandlerPanicked, format!("{what} panicked: {text}"))
}

/// Lets the others of the thread have their turn.
async fn yield_now(core: &EnvCore) {
    let mut yielded = false;
    std::future::poll_fn(|cx| {
        if std::mem::replace(&mut yielded, true) {
            return Poll::Ready(());
        }
        match core.backend() {
            Some(backend) => backend.yield_now(cx),
            None => cx.waker().wake_by_ref(),
        }
        Poll::Pending
    })
    .await;
}
