//! How an inbox stops and ends: what is queued is handled until the drain deadline, the rest is
//! told why not, and so is whoever waits for the end.

use crate::counters::Count;
use crate::deadline::duration_text;
use crate::delivery::WireMessage;
use crate::error::{ErrorKind, Outcome, RpcError};
use crate::inbox::{Inbox, Item, Kind, Phase};
use crate::plant::planted;
use crate::quiet::drop_quietly;
use crate::seam::Expire;
use crate::termination::Termination;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Weak};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

/// What a handler may still run when its endpoint's drain deadline is over.
const HANDLER_GRACE: Duration = Duration::from_secs(5);
const DRAINED: u64 = 0;
const OVERDUE: u64 = 1;

impl Inbox {
    /// The error of calls that the endpoint will not handle.
    pub(crate) fn stopped(&self) -> RpcError {
        RpcError::new(
            ErrorKind::EndpointStopped,
            format!("the endpoint {} has been stopped", self.address()),
        )
    }

    /// The error of a handler, or a hook, that was given up.
    pub(crate) fn overdue(&self, what: &str) -> RpcError {
        let known = what.strip_prefix("a ").map(|what| format!("the {what}"));
        let ran = format!("{} still ran", known.as_deref().unwrap_or(what));
        let error = self.stopped_after(&ran, HANDLER_GRACE);
        error.with_outcome(Outcome::Unknown)
    }

    /// The error of messages to an endpoint that ends because of a panic.
    pub(crate) fn crashed_error(&self) -> RpcError {
        RpcError::new(
            ErrorKind::EndpointStopped,
            format!("the endpoint {} has panicked and ends (PanicPolicy)", self.address()),
        )
    }

    /// The error of messages that the endpoint did not get to before its drain deadline.
    pub(crate) fn drained_error(&self) -> RpcError {
        if self.crashed.load(Ordering::Acquire) {
            return self.crashed_error();
        }
        self.stopped_after("the message still waited", Duration::ZERO)
    }

    fn stopped_after(&self, what: &str, grace: Duration) -> RpcError {
        let timeout = self.core().config().drain_timeout();
        let after = duration_text(timeout.saturating_add(grace));
        let of = if grace.is_zero() { "" } else { " and 5s more" };
        let text = format!(
            "the endpoint {} has been stopped: {what} after {after}. This timeout is controlled by rpc.shutdown.drainTimeout ({}{of})",
            self.address(),
            duration_text(timeout)
        );
        RpcError::new(ErrorKind::EndpointStopped, text)
    }

    /// Takes no more messages; what is queued is still handled, until the drain deadline.
    pub(crate) fn stop(self: &Arc<Self>) {
        let mut state = self.lock();
        if state.phase != Phase::Open {
            return;
        }
        state.phase = Phase::Stopping;
        if planted!(StopUnheard) {
            drop(state);
        } else {
            self.wake(state);
        }
        let drained = self.core().now().saturating_add(self.core().config().drain_timeout());
        let overdue = drained.saturating_add(HANDLER_GRACE);
        let timers = [(drained, DRAINED), (overdue, OVERDUE)];
        let timers = timers.map(|(at, id)| self.core().add_timer(at, self.clone(), id));
        let mut state = self.lock();
        if state.phase == Phase::Closed {
            drop(state);
            timers.into_iter().for_each(|timer| self.core().cancel_timer(timer));
        } else {
            state.drain.extend(timers);
        }
    }

    /// Takes no more messages, and handles none of those that are queued: a panic ends the endpoint.
    pub(crate) fn crash(&self) {
        let mut state = self.lock();
        if state.phase == Phase::Open {
            state.phase = Phase::Stopping;
        }
        drop(state);
        self.crashed.store(true, Ordering::Release);
        self.drained.store(true, Ordering::Release);
        self.fail_queued(&self.crashed_error());
    }

    /// Ready when the endpoint has been stopped; otherwise its loop is woken when that is so.
    pub(crate) fn poll_stopping(&self, cx: &Context<'_>) -> Poll<()> {
        let mut state = self.lock();
        if state.phase != Phase::Open {
            return Poll::Ready(());
        }
        state.idle = true;
        state.waker = Some(cx.waker().clone());
        Poll::Pending
    }

    /// Whether what is queued is not handled any more.
    pub(crate) fn is_drained(&self) -> bool {
        self.drained.load(Ordering::Acquire)
    }

    /// Ready when the endpoint has been stopped and the time of its handler is over.
    pub(crate) fn poll_overdue(&self, cx: &Context<'_>) -> Poll<()> {
        let mut state = self.lock();
        if state.overdue {
            return Poll::Ready(());
        }
        if !state.running.as_ref().is_some_and(|waker| waker.will_wake(cx.waker())) {
            state.running = Some(cx.waker().clone());
        }
        Poll::Pending
    }

    /// Fails what is still queued.
    pub(crate) fn clear(&self) {
        self.fail_queued(&self.stopped());
    }

    fn fail_queued(&self, error: &RpcError) {
        let mut state = self.lock();
        let queue = state.queue.drain();
        let tickets = std::mem::take(&mut state.tickets);
        drop(state);
        for placed in tickets {
            placed.ticket.fail(error.clone());
        }
        self.refuse(queue, error);
    }

    /// Fails messages that will not be handled.
    pub(crate) fn refuse(&self, items: impl IntoIterator<Item = Item>, error: &RpcError) {
        let mut dropped = 0_usize;
        for item in items {
            match item.kind {
                Kind::Ask { sink, .. } => sink.fail(error),
                Kind::Wire(message) => {
                    let WireMessage { origin, body, call, .. } = *message;
                    // Its room, so that what the peer holds back comes, and is refused as well.
                    origin.consumed(body.len());
                    match call {
                        Some(call) => origin.fail(call, error),
                        None => dropped = dropped.saturating_add(1),
                    }
                }
                Kind::Row(row) => {
                    for (together, call) in row.refuse() {
                        match call {
                            Some(call) => together.origin.fail(call, error),
                            None => dropped = dropped.saturating_add(1),
                        }
                    }
                }
                Kind::Tell { tell, .. } => {
                    let what = tell.name();
                    drop_quietly(format_args!("{what} to {}", self.address()), tell);
                    dropped = dropped.saturating_add(1);
                }
                Kind::Network(_) | Kind::Terminated(_) => {}
            }
        }
        if dropped > 0 {
            self.core().tally().add(Count::DeadLettersStopped, dropped as u64);
            tracing::warn!(endpoint = %self.name(), dropped, "one-way messages dropped because the endpoint is stopped");
        }
    }

    /// The endpoint is gone: everyone who waits for it is told. Called once, last.
    pub(crate) fn close(&self, how: Termination) {
        let mut state = self.lock();
        state.phase = Phase::Closed;
        let how = *state.how.get_or_insert(how);
        // The handler was dropped in the middle. Its caller's connection may be gone: then this is the
        // last that is left of it, and it gives its window back to this inbox.
        let waiting = (state.asker.take(), state.way.take(), state.open.take());
        let origins = std::mem::take(&mut state.origins);
        let closed = std::mem::take(&mut state.closed);
        let (watchers, watches) =
            (std::mem::take(&mut state.watchers), std::mem::take(&mut state.watches));
        let drain = std::mem::take(&mut state.drain);
        drop(state);
        drop(waiting);
        // The timers hold the inbox, and the inbox the timers.
        drain.into_iter().for_each(|timer| self.core().cancel_timer(timer));
        self.clear();
        for origin in origins.iter().filter_map(Weak::upgrade) {
            origin.gone(how);
        }
        self.settle_counts();
        // Those who watch others hold the endpoint, and it holds them.
        drop(watches);
        closed.into_iter().chain(watchers.into_values()).for_each(Waker::wake);
    }

    /// Ready when the endpoint is gone, with how it ended; until then the waker is kept under a number
    /// of the caller's, if it has one.
    pub(crate) fn poll_ended(
        &self,
        place: &mut Option<u64>,
        cx: &Context<'_>,
    ) -> Poll<Termination> {
        let mut state = self.lock();
        if state.phase == Phase::Closed {
            return Poll::Ready(state.how.unwrap_or(Termination::Unknown));
        }
        let number = *place.get_or_insert_with(|| {
            state.last_watcher = state.last_watcher.wrapping_add(1);
            state.last_watcher
        });
        state.watchers.insert(number, cx.waker().clone());
        Poll::Pending
    }

    /// The waker of [`poll_ended`](Self::poll_ended) is needed no more.
    pub(crate) fn unwatched(&self, place: u64) {
        let waker = self.lock().watchers.remove(&place);
        drop(waker);
    }

    /// Ready when the endpoint is gone and its `on_stop` has run. Keeps the waker at `place`, to be
    /// taken back from there.
    pub(crate) fn poll_closed(&self, place: &mut Option<usize>, cx: &Context<'_>) -> Poll<()> {
        let mut state = self.lock();
        if state.phase == Phase::Closed {
            return Poll::Ready(());
        }
        state.closed.add(place, cx);
        Poll::Pending
    }

    /// The waker of [`poll_closed`](Self::poll_closed) is needed no more.
    pub(crate) fn waits_no_more(&self, place: usize) {
        let waker = self.lock().closed.remove(place);
        drop(waker);
    }
}

impl Expire for Inbox {
    /// At the drain deadline, what is still queued is not handled any more; later, what is still
    /// being handled is given up.
    fn expire(&self, id: u64) {
        if id == DRAINED {
            self.drained.store(true, Ordering::Release);
            let error = self.drained_error();
            self.fail_queued(&error);
            // Those that the loop has taken are out of reach while a handler blocks its thread.
            let calls: Vec<_> = self.lock().deadlines.calls().filter_map(Weak::upgrade).collect();
            return calls.iter().for_each(|call| call.refuse(&error));
        }
        let mut state = self.lock();
        state.overdue = true;
        let running = state.running.take();
        drop(state);
        running.into_iter().for_each(Waker::wake);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::address::RpcAddress;
    use crate::config::RpcEnvConfig;
    use crate::context::EndpointContext;
    use crate::endpoint::RpcEndpoint;
    use crate::factory::RpcEnvFactory;
    use crate::local::LocalWorld;
    use crate::message::{OneWay, RpcMessage};
    use crate::raw::{HandlerResult, RawMessage};
    use crate::reply_sink::Way;
    use crate::seam::Origin;
    use crate::wire::encoded::Encoded;
    use serde::{Deserialize, Serialize};
    use std::sync::atomic::AtomicBool;

    #[derive(Serialize, Deserialize)]
    struct Nothing;

    impl RpcMessage for Nothing {
        const NAME: &'static str = "Nothing";
    }

    impl OneWay for Nothing {}

    struct Idle;

    impl RpcEndpoint for Idle {
        type Handlers = ();
    }

    /// The last that is left of a connection.
    struct Last {
        inbox: Arc<Inbox>,
        free: Arc<AtomicBool>,
    }

    impl Drop for Last {
        fn drop(&mut self) {
            self.free.store(!self.inbox.is_locked(), Ordering::Relaxed);
        }
    }

    impl Origin for Last {
        fn reply(&self, _: u64, _: &mut Encoded) -> Result<(), RpcError> {
            Ok(())
        }

        fn fail(&self, _: u64, _: &RpcError) {}

        fn poll_cancelled(&self, _: u64, _: &mut Option<usize>, _: &mut Context<'_>) -> Poll<()> {
            Poll::Pending
        }

        fn is_cancelled(&self, _: u64) -> bool {
            false
        }

        fn consumed(&self, _: usize) {}

        fn gone(&self, _: Termination) {}

        fn sender(&self) -> Option<&RpcAddress> {
            None
        }
    }

    #[test]
    fn what_is_left_of_a_connection_is_dropped_outside_of_the_lock() {
        let world = LocalWorld::new();
        let env = world.block_on(world.factory().create(RpcEnvConfig::client("env"))).unwrap();
        let idle = world.block_on(env.setup_endpoint("idle", Idle)).unwrap();
        let inbox = idle.raw().local_inbox().unwrap();
        let free = Arc::new(AtomicBool::new(false));
        let last = Arc::new(Last { inbox: inbox.clone(), free: free.clone() });
        // As if a handler of a remote call were dropped with its endpoint.
        inbox.lock().way = Some(Way::Wire(last, 1));
        inbox.close(Termination::Stopped);
        assert!(free.load(Ordering::Relaxed));
    }

    /// Its hooks never end.
    struct Endless {
        starts: bool,
    }

    impl RpcEndpoint for Endless {
        type Handlers = ();

        async fn on_start(&mut self, _cx: &mut EndpointContext<Self>) -> HandlerResult<()> {
            if self.starts { Ok(()) } else { std::future::pending().await }
        }

        async fn receive(
            &mut self,
            _msg: RawMessage,
            _cx: &mut EndpointContext<Self>,
        ) -> HandlerResult<()> {
            Err(RpcError::new(ErrorKind::HandlerFailed, "no").into())
        }

        async fn on_error(
            &mut self,
            _error: RpcError,
            _cx: &mut EndpointContext<Self>,
        ) -> HandlerResult<()> {
            std::future::pending().await
        }
    }

    #[test]
    fn hooks_that_never_end_do_not_hold_the_env() {
        for starts in [false, true] {
            let world = LocalWorld::new();
            let env = world.block_on(world.factory().create(RpcEnvConfig::client("env"))).unwrap();
            let mut setup = Box::pin(env.setup_endpoint("endless", Endless { starts }));
            let mut cx = Context::from_waker(Waker::noop());
            let set_up = setup.as_mut().poll(&mut cx);
            assert_eq!(set_up.is_ready(), starts);
            if let Poll::Ready(endpoint) = set_up {
                endpoint.unwrap().into_untyped().send(Nothing).unwrap();
                world.run();
            }
            let mut over = Box::pin(env.shutdown());
            assert!(over.as_mut().poll(&mut cx).is_pending());
            world.advance(Duration::from_secs(9));
            assert!(over.as_mut().poll(&mut cx).is_pending(), "{starts}");
            world.advance(Duration::from_secs(1));
            assert!(over.as_mut().poll(&mut cx).is_ready(), "{starts}");
            if !starts {
                let Poll::Ready(Err(error)) = setup.as_mut().poll(&mut cx) else {
                    panic!("no end")
                };
                let text = "on_start still ran after 10s. This timeout is controlled by rpc.shutdown.drainTimeout";
                assert!(error.text().contains(text), "{error}");
            }
        }
    }
}
