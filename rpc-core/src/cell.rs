//! The life of one endpoint, as a future that any runtime can poll: start, messages, stop.

use crate::behind::HOOK;
use crate::context::EndpointContext;
use crate::delivery::NetworkEvent;
use crate::endpoint::RpcEndpoint;
use crate::env::EnvShared;
use crate::error::{ErrorKind, RpcError};
use crate::gate::Gate;
use crate::guard::{Value, bounded, construct, guarded, poll_handler};
use crate::handlers::HandlerSet;
use crate::inbox::{Inbox, Item, Kind};
use crate::later;
use crate::plant::planted;
use crate::policy::{PanicPolicy, Restarts};
use crate::raw::HandlerResult;
use crate::reply_sink::Way;
use crate::running::{Running, Taken};
use crate::taking::Step;
use crate::termination::Termination;
use crate::yielding::{Turn, yield_now};
use std::future::Future;
use std::rc::Rc;
use std::sync::{Arc, Weak};
use std::task::{Context, Poll};
use tracing::field::Empty;
use tracing::level_filters::LevelFilter;
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
        F: FnMut() -> Option<E> + 'static,
    {
        let Self { inbox, env, make, started } = self;
        let mut end = Ended::new(inbox.clone(), env.clone(), started.clone());
        let taken = Rc::<Taken>::default();
        let run = live(make, inbox.clone(), env, started, taken.clone());
        match Running::new(inbox, taken, run).await {
            Ok(how) => end.how = how,
            Err(failure) => end.failure = Some(failure),
        }
        drop(end);
    }
}

/// Frees the name and tells everyone who waits, however the endpoint's life ends.
pub(crate) struct Ended {
    inbox: Arc<Inbox>,
    env: Weak<EnvShared>,
    started: Arc<Started>,
    /// Why the endpoint did not start, if so.
    failure: Option<RpcError>,
    how: Termination,
}

impl Ended {
    pub(crate) fn new(inbox: Arc<Inbox>, env: Weak<EnvShared>, started: Arc<Started>) -> Self {
        // Whatever ends it other than in order.
        Self { inbox, env, started, failure: None, how: Termination::Crashed }
    }
}

impl Drop for Ended {
    fn drop(&mut self) {
        let env = self.env.upgrade();
        if let Some(env) = &env {
            env.dispatcher.remove(&self.inbox);
        }
        self.inbox.close(self.how);
        // Told last: whoever hears of a failed start finds the name free again.
        let failure = self.failure.take().unwrap_or_else(|| self.inbox.stopped());
        self.started.open(Err(failure));
        if let Some(env) = env {
            env.endpoint_gone();
        }
    }
}

/// Lives an endpoint's life; the error is that of its start.
async fn live<E: RpcEndpoint>(
    mut make: impl FnMut() -> Option<E>,
    inbox: Arc<Inbox>,
    env: Weak<EnvShared>,
    started: Arc<Started>,
    taken: Rc<Taken>,
) -> Result<Termination, RpcError> {
    let mut cx = EndpointContext::new(inbox.clone(), env);
    let mut restarts = Restarts::new(inbox.behind.policy.limit);
    let mut endpoint = begin(&mut make, &inbox, &mut cx).await?;
    inbox.end_turn();
    started.open(Ok(()));
    loop {
        let Some(value) = endpoint.get() else { return Ok(Termination::Crashed) };
        let end = serve(value, &mut cx, &inbox, &taken).await;
        let restarts_again =
            end == End::Panicked && inbox.behind.policy.on_panic == PanicPolicy::Restart;
        if end == End::Panicked && !restarts_again {
            inbox.crash();
        }
        inbox.behind.handles(HOOK);
        let hook = async { value.on_stop(&mut cx).await };
        if let Err(error) = guarded("on_stop", &inbox, hook).await {
            complain(value, error, &inbox, &mut cx).await;
        }
        drop(endpoint);
        if !restarts_again {
            return Ok(if end == End::Stopped {
                Termination::Stopped
            } else {
                Termination::Crashed
            });
        }
        match again(&mut make, &inbox, &mut cx, &mut restarts).await {
            Ok(next) => endpoint = next,
            Err(how) => return Ok(how),
        }
    }
}

/// Makes an endpoint and runs its `on_start`.
async fn begin<E: RpcEndpoint>(
    make: &mut impl FnMut() -> Option<E>,
    inbox: &Inbox,
    cx: &mut EndpointContext<E>,
) -> Result<Value<E>, RpcError> {
    let mut endpoint = construct(inbox, make)?;
    let used = || RpcError::new(ErrorKind::Internal, "the endpoint was made before");
    let value = endpoint.get().ok_or_else(used)?;
    bounded("on_start", inbox, async { value.on_start(cx).await }).await?;
    inbox.behind.take_panic();
    Ok(endpoint)
}

/// Makes the endpoint anew, as often as its limit allows; otherwise how its life ends.
async fn again<E: RpcEndpoint>(
    make: &mut impl FnMut() -> Option<E>,
    inbox: &Arc<Inbox>,
    cx: &mut EndpointContext<E>,
    restarts: &mut Restarts,
) -> Result<Value<E>, Termination> {
    let core = inbox.core().clone();
    loop {
        let Some(delay) = restarts.next(core.now()) else {
            tracing::error!(endpoint = %inbox.name(), "an endpoint panicked too often and ends");
            inbox.crash();
            return Err(Termination::Crashed);
        };
        inbox.forget_value();
        tracing::warn!(endpoint = %inbox.name(), ?delay, restarts = cx.restarts(), "an endpoint is started anew after a panic");
        let mut pause = std::pin::pin!(later::sleep(&core, delay));
        let stopped = std::future::poll_fn(|cx| {
            if inbox.poll_stopping(cx).is_ready() {
                return Poll::Ready(true);
            }
            pause.as_mut().poll(cx).map(|()| false)
        });
        if stopped.await {
            inbox.clear();
            return Err(Termination::Stopped);
        }
        match begin(make, inbox, cx).await {
            Ok(endpoint) => {
                inbox.end_turn();
                return Ok(endpoint);
            }
            Err(error) => cx.report(&error),
        }
    }
}

/// Why an endpoint handles no more messages.
#[derive(Clone, Copy, PartialEq, Eq)]
enum End {
    /// It was stopped, and its queue is empty.
    Stopped,
    /// A panic, and its policy is not to go on after one.
    Panicked,
}

/// Handles messages until the endpoint is stopped and its queue is empty.
async fn serve<E: RpcEndpoint>(
    endpoint: &mut E,
    cx: &mut EndpointContext<E>,
    inbox: &Arc<Inbox>,
    taken: &Taken,
) -> End {
    let (mut turn, mut span) = (Turn::default(), Span::none());
    loop {
        let failed = match next(cx, inbox, taken, &mut turn, &mut span) {
            Next::Refused => continue,
            Next::Nothing => {
                cx.rest();
                let more =
                    |cx: &mut Context<'_>| inbox.poll_next(cx, &mut taken.items.borrow_mut());
                if let Step::Stop = std::future::poll_fn(more).await {
                    return End::Stopped;
                }
                continue;
            }
            Next::Later => {
                turn = Turn::default();
                yield_now(inbox.core()).await;
                continue;
            }
            Next::Event(kind) => {
                inbox.behind.handles(HOOK);
                let result = bounded("a hook", inbox, told(endpoint, &kind, inbox, cx)).await;
                inbox.end_turn();
                complain_of(result, endpoint, inbox, cx).await
            }
            Next::Message(handler) => {
                let result = match handler {
                    Some(handler) => {
                        inbox.behind.handles(handler);
                        handle(endpoint, cx, inbox, handler, &span).await
                    }
                    // Nobody wants it any more, but its turn is over.
                    None => Ok(()),
                };
                match cx.end(result) {
                    Ok(()) => false,
                    Err(error) => {
                        cx.rest();
                        let told = complain_of(Err(error), endpoint, inbox, cx);
                        told.instrument(span.clone()).await
                    }
                }
            }
        };
        if !span.is_none() {
            span = Span::none();
        }
        if failed {
            return End::Panicked;
        }
        if turn.is_over(inbox.core()) {
            turn = Turn::default();
            yield_now(inbox.core()).await;
        }
    }
}

/// What the loop does next.
enum Next {
    /// All that it has taken is done.
    Nothing,
    /// Others have their turn first.
    Later,
    /// The current message, by the number of its handler; none if nobody wants it any more.
    Message(Option<usize>),
    Event(Box<Kind>),
    /// It was too late for that.
    Refused,
}

/// Begins with the next message, in a span of its own.
fn next<E: RpcEndpoint>(
    cx: &mut EndpointContext<E>,
    inbox: &Arc<Inbox>,
    taken: &Taken,
    turn: &mut Turn,
    span: &mut Span,
) -> Next {
    let spans = LevelFilter::current() >= LevelFilter::DEBUG;
    let mut items = taken.items.borrow_mut();
    let more = items.len() > 1;
    let Some(first) = items.front_mut() else { return Next::Nothing };
    if inbox.is_drained() {
        let refused = std::mem::take(&mut *items);
        drop(items);
        inbox.refuse(refused, &inbox.drained_error());
        return Next::Refused;
    }
    if taken.gave_way() {
        *turn = Turn::default();
    }
    if taken.waited() {
        turn.has_waited();
    }
    if turn.is_late(inbox.core(), first.is_call()) {
        return Next::Later;
    }
    if let Kind::Row(row) = &mut first.kind {
        let handler = cx.begin_arrived(row, turn.now());
        let over = row.len() == 0;
        inbox.begin_arrived(!over || more);
        if over {
            // Its peer has its credit then, which must not happen while others need `taken`.
            let row = items.pop_front();
            drop(items);
            drop(row);
        }
        if spans {
            *span = span_of(inbox, || inbox.handlers().get(handler?).map(|info| info.name));
        }
        return Next::Message(handler);
    }
    // It is looked at where it lies, and moved once.
    inbox.begin(first, more);
    if spans && first.is_message() {
        *span = span_of(inbox, || message_of(inbox, &first.kind));
    }
    if !first.is_message() {
        let event = items.pop_front();
        drop(items);
        cx.rest();
        return event.map_or(Next::Nothing, |event| Next::Event(Box::new(event.kind)));
    }
    let Some(Item { kind, .. }) = items.pop_front() else { return Next::Nothing };
    drop(items);
    Next::Message(cx.begin(kind, turn.now()))
}

/// The span that a message is handled in, `on_error` included. Its level is `DEBUG`, because it comes
/// once with every message: who listens to `INFO` neither sees nor pays for it. It has no parent in
/// this process, whoever's task happens to drive the endpoint; the ids say where it belongs.
fn span_of<'a>(inbox: &Inbox, message: impl FnOnce() -> Option<&'a str>) -> Span {
    let span = tracing::debug_span!(
        target: "rpc_core::handle",
        parent: None,
        "rpc.handle",
        endpoint = %inbox.name(),
        message = message().unwrap_or("?"),
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
fn message_of<'a>(inbox: &'a Inbox, kind: &'a Kind) -> Option<&'a str> {
    match kind {
        Kind::Tell { tell, .. } => Some(tell.name()),
        Kind::Ask { sink, .. } => match sink.way() {
            Some(Way::Local(call)) => Some(call.name()),
            _ => None,
        },
        Kind::Wire(message) => match (inbox.handlers().get(message.handler), &message.name) {
            (Some(handler), _) => Some(handler.name),
            (None, name) => name.as_deref(),
        },
        Kind::Row(_) | Kind::Network(_) | Kind::Terminated(_) => None,
    }
}

/// Runs a message's handler. Its future lies where it is made: moving it costs more than most
/// handlers do.
async fn handle<E: RpcEndpoint>(
    endpoint: &mut E,
    cx: &mut EndpointContext<E>,
    inbox: &Inbox,
    handler: usize,
    span: &Span,
) -> Result<(), RpcError> {
    if handler < E::Handlers::LEN {
        let mut run = std::pin::pin!(E::Handlers::dispatch(handler, endpoint, cx));
        let poll = |cx: &mut Context<'_>| {
            let _entered = span.enter();
            poll_handler("a handler", inbox, run.as_mut(), cx)
        };
        std::future::poll_fn(poll).await
    } else {
        let mut run = std::pin::pin!(raw(endpoint, cx));
        let poll = |cx: &mut Context<'_>| {
            let _entered = span.enter();
            poll_handler("receive", inbox, run.as_mut(), cx)
        };
        std::future::poll_fn(poll).await
    }
}

async fn raw<E: RpcEndpoint>(endpoint: &mut E, cx: &mut EndpointContext<E>) -> HandlerResult<()> {
    match cx.take_raw()? {
        (message, None) => endpoint.receive(message, cx).await,
        (message, Some(call)) => endpoint.receive_and_reply(message, call, cx).await,
    }
}

/// Tells the endpoint of something that is no message.
async fn told<E: RpcEndpoint>(
    endpoint: &mut E,
    kind: &Kind,
    inbox: &Inbox,
    cx: &mut EndpointContext<E>,
) -> HandlerResult<()> {
    let event = match kind {
        Kind::Network(event) => event,
        Kind::Terminated(watch) => {
            let ended = inbox.lock().watches.take(*watch);
            return match ended {
                Some(event) => endpoint.on_terminated(event, cx).await,
                // It was taken back.
                None => Ok(()),
            };
        }
        _ => return Ok(()),
    };
    match event {
        NetworkEvent::Connected(peer) => endpoint.on_connected(peer, cx).await,
        NetworkEvent::Disconnected(peer) => endpoint.on_disconnected(peer, cx).await,
        NetworkEvent::Error(cause, peer) => endpoint.on_network_error(cause, peer, cx).await,
    }
}

/// Tells the endpoint of an error; whether that, or something in the course of it, was a panic after
/// which it does not go on.
async fn complain_of<E: RpcEndpoint>(
    result: Result<(), RpcError>,
    endpoint: &mut E,
    inbox: &Inbox,
    cx: &mut EndpointContext<E>,
) -> bool {
    let Err(error) = result else { return false };
    complain(endpoint, error, inbox, cx).await;
    let ends = inbox.behind.policy.on_panic != PanicPolicy::Resume;
    inbox.behind.take_panic() && (ends || planted!(PanicEnds))
}

/// Calls `on_error`; an error of that is ignored (S51).
async fn complain<E: RpcEndpoint>(
    endpoint: &mut E,
    error: RpcError,
    inbox: &Inbox,
    cx: &mut EndpointContext<E>,
) {
    let told = bounded("on_error", inbox, async { endpoint.on_error(error, cx).await }).await;
    if let Err(ignored) = told {
        tracing::warn!(endpoint = %cx.name(), error = %ignored, "Ignoring error");
    }
}
