//! An ask whose time is over is not begun: how exactly that is known. A backend whose two clocks are set by
//! hand, whose timers never ring, and whose endpoints run when the test says so.
#![cfg(test)]

use rpc_core::spi::{
    EndpointTask, EnvBackend, EnvParts, Incarnation, LocalBoxFuture, RemoteTarget,
};
use rpc_core::{
    AskFuture, EndpointAddress, ErrorKind, HandlerResult, Outcome, RpcEndpointRef, RpcEnv,
    RpcEnvConfig, RpcError, RpcMessage, Timestamp, endpoint,
};
use serde::{Deserialize, Serialize};
use std::future::Future;
use std::pin::pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

#[derive(Default)]
struct Hand {
    seconds: AtomicU64,
    tick: AtomicU64,
    tasks: Mutex<Vec<EndpointTask>>,
}

impl EnvBackend for Hand {
    fn kind(&self) -> &'static str {
        "by-hand"
    }

    fn now(&self) -> Timestamp {
        Timestamp::START + Duration::from_secs(self.seconds.load(Ordering::Relaxed))
    }

    fn tick(&self) -> Option<u64> {
        Some(self.tick.load(Ordering::Relaxed))
    }

    fn spawn(&self, task: EndpointTask) -> Result<(), RpcError> {
        self.tasks.lock().unwrap().push(task);
        Ok(())
    }

    fn polls_in_place(&self) -> bool {
        true
    }

    fn arm_timer(&self, _: Timestamp) {}

    fn remote(
        &self,
        _: &EndpointAddress,
        _: Option<Incarnation>,
    ) -> Result<Arc<dyn RemoteTarget>, RpcError> {
        Err(RpcError::new(ErrorKind::Unreachable, "there is no network"))
    }

    fn close(&self) {}
}

/// Takes ten seconds, in which so many ticks go by: of the thread, or of somebody else's.
#[derive(Debug, Serialize, Deserialize, RpcMessage)]
#[rpc(reply = ())]
struct Take {
    ticks: u64,
    waits: bool,
}

struct Slow(Arc<Hand>);

#[endpoint]
impl Slow {
    #[receive_and_reply]
    async fn take(&mut self, msg: Take) -> HandlerResult<()> {
        if msg.waits {
            let mut waited = false;
            std::future::poll_fn(|_| match std::mem::replace(&mut waited, true) {
                true => Poll::Ready(()),
                false => Poll::Pending,
            })
            .await;
        } else {
            self.0.seconds.fetch_add(10, Ordering::Relaxed);
        }
        self.0.tick.fetch_add(msg.ticks, Ordering::Relaxed);
        Ok(())
    }
}

struct Bench {
    hand: Arc<Hand>,
    slow: RpcEndpointRef<Slow>,
    run: LocalBoxFuture<()>,
    _env: RpcEnv,
}

fn poll<F: Future + Unpin>(future: &mut F) -> Poll<F::Output> {
    pin!(future).poll(&mut Context::from_waker(Waker::noop()))
}

impl Bench {
    fn new() -> Self {
        let hand = Arc::new(Hand::default());
        let parts = EnvParts::new(RpcEnvConfig::client("env"), 1);
        let env = RpcEnv::assemble(parts, None, |_, _| Ok(hand.clone())).unwrap();
        let mut set_up = Box::pin(env.setup_endpoint("slow", Slow(hand.clone())));
        assert!(poll(&mut set_up).is_pending());
        let mut run = hand.tasks.lock().unwrap().pop().unwrap().start();
        assert!(poll(&mut run).is_pending());
        let Poll::Ready(slow) = poll(&mut set_up) else { panic!("it has started") };
        drop(set_up);
        Self { hand, slow: slow.unwrap(), run, _env: env }
    }

    /// An ask with five seconds.
    fn ask(&self, ticks: u64, waits: bool) -> AskFuture<()> {
        self.slow.ask_with_timeout(Take { ticks, waits }, Duration::from_secs(5))
    }

    fn run(&mut self) {
        assert!(poll(&mut self.run).is_pending());
    }
}

fn end(ask: &mut AskFuture<()>) -> Result<(), (ErrorKind, Outcome)> {
    let Poll::Ready(end) = poll(ask) else { panic!("it has ended") };
    end.map_err(|error| (error.kind(), error.outcome()))
}

const LATE: Result<(), (ErrorKind, Outcome)> = Err((ErrorKind::Timeout, Outcome::NeverSent));

#[test]
fn time_that_a_handler_takes_of_its_thread_is_seen_with_the_next_tick() {
    for (ticks, second) in [(0, Ok(())), (1, LATE)] {
        let mut bench = Bench::new();
        let mut asks = [bench.ask(ticks, false), bench.ask(0, false)];
        bench.run();
        // The turn was too long as well, if that was seen.
        bench.run();
        assert_eq!(asks.each_mut().map(end), [Ok(()), second], "{ticks} ticks");
    }
}

#[test]
fn time_that_a_handler_waits_is_seen_at_once() {
    for in_place in [false, true] {
        let mut bench = Bench::new();
        let mut asks = [bench.ask(0, true), bench.ask(0, false)];
        if in_place {
            // The first one's handler waits within this; others of the thread have had no turn then.
            assert!(poll(&mut asks[0]).is_pending());
        } else {
            bench.run();
        }
        bench.hand.seconds.fetch_add(10, Ordering::Relaxed);
        bench.run();
        bench.run();
        assert_eq!(asks.each_mut().map(end), [Ok(()), LATE], "in place: {in_place}");
    }
}

#[test]
fn the_time_is_read_for_every_fourth_message() {
    let mut bench = Bench::new();
    let mut asks = [(); 5].map(|()| bench.ask(0, false));
    bench.run();
    // The first is on time, the next three are seen with the first one's reading.
    bench.run();
    assert_eq!(asks.each_mut().map(end), [Ok(()), Ok(()), Ok(()), Ok(()), LATE]);
}
