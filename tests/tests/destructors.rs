//! Messages of users whose destructors panic where the library drops them: that is logged, and costs
//! nobody else anything. On both backends.
#![cfg(test)]

use rpc_actix::sim::{Blocking, Simulation};
use rpc_core::{
    AskFuture, EndpointContext, EndpointOptions, ErrorKind, HandlerResult, PanicPolicy,
    RpcEndpointRef, RpcEnv, RpcEnvConfig, RpcError, RpcMessage, ScheduledSend, endpoint,
};
use rpc_tests::both;
use rpc_tests::harness::{Backend, Gate, Harness, Log};
use serde::{Deserialize, Serialize};
use std::io;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Wake, Waker};
use std::thread;
use std::time::Duration;

const SHORT: Duration = Duration::from_millis(20);

/// Panics when it is dropped.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Bomb;

impl Drop for Bomb {
    fn drop(&mut self) {
        // Within a panic it would end the process.
        assert!(thread::panicking(), "boom in a destructor");
    }
}

/// An ask: the answer is how many came before.
#[derive(Debug, Serialize, Deserialize, RpcMessage)]
#[rpc(reply = usize)]
struct Ask(Bomb);

/// One way.
#[derive(Clone, Debug, Serialize, Deserialize, RpcMessage)]
struct Tell(Bomb);

/// An ask: waits for the gate, and panics then if it is to.
#[derive(Clone, Copy, Debug, Serialize, Deserialize, RpcMessage)]
#[rpc(reply = ())]
struct Hold {
    panics: bool,
}

/// An ask: what a healthy endpoint answers.
#[derive(Clone, Copy, Debug, Serialize, Deserialize, RpcMessage)]
#[rpc(reply = usize)]
struct Handled;

/// An ask: waits for the gate; the answer is a bomb.
#[derive(Clone, Copy, Debug, Serialize, Deserialize, RpcMessage)]
#[rpc(reply = Bomb)]
struct Answer;

/// An ask: sends the endpoint a bomb later.
#[derive(Clone, Copy, Debug, Serialize, Deserialize, RpcMessage)]
#[rpc(reply = ())]
enum Schedule {
    Once,
    Every,
    CancelAll,
}

#[derive(Clone, Default)]
struct Seen {
    log: Log,
    gate: Gate,
}

#[derive(Default)]
struct Keeper {
    seen: Seen,
    handled: usize,
    scheduled: Vec<ScheduledSend>,
    blocking: Option<Blocking>,
}

impl Keeper {
    async fn at(
        env: &RpcEnv,
        options: impl Into<EndpointOptions>,
    ) -> Result<(Seen, RpcEndpointRef<Self>), RpcError> {
        let seen = Seen::default();
        let keeper = Self { seen: seen.clone(), ..Self::default() };
        Ok((seen, env.setup_endpoint(options, keeper).await?))
    }

    /// One that is busy until its gate is opened.
    async fn busy(
        env: &RpcEnv,
        options: impl Into<EndpointOptions>,
        panics: bool,
    ) -> Result<(Seen, RpcEndpointRef<Self>, AskFuture<()>), RpcError> {
        let (seen, keeper) = Self::at(env, options).await?;
        let held = keeper.ask(Hold { panics });
        seen.log.has(|entry| entry == "held").await;
        Ok((seen, keeper, held))
    }
}

#[endpoint]
impl Keeper {
    #[receive_and_reply]
    fn ask(&mut self, msg: Ask) -> HandlerResult<usize> {
        std::mem::forget(msg);
        self.handled += 1;
        Ok(self.handled)
    }

    #[receive]
    fn tell(&mut self, msg: Tell) -> HandlerResult<()> {
        std::mem::forget(msg);
        self.handled += 1;
        self.seen.log.push("told");
        Ok(())
    }

    #[receive_and_reply]
    async fn hold(&mut self, msg: Hold) -> HandlerResult<()> {
        self.seen.log.push("held");
        self.seen.gate.wait().await;
        if let Some(blocking) = &self.blocking {
            blocking.block(2 * SHORT).await;
            tokio::task::yield_now().await;
        }
        assert!(!msg.panics, "boom in a handler");
        Ok(())
    }

    #[receive_and_reply]
    fn handled(&mut self, _: Handled) -> HandlerResult<usize> {
        Ok(self.handled)
    }

    #[receive_and_reply]
    async fn answer(&mut self, _: Answer) -> HandlerResult<Bomb> {
        self.seen.log.push("held");
        self.seen.gate.wait().await;
        Ok(Bomb)
    }

    #[receive_and_reply]
    fn schedule(&mut self, msg: Schedule, cx: &mut EndpointContext<Self>) -> HandlerResult<()> {
        match msg {
            Schedule::Once => self.scheduled.push(cx.send_after(SHORT, Tell(Bomb))),
            Schedule::Every => self.scheduled.push(cx.send_every(SHORT, Tell(Bomb))),
            Schedule::CancelAll => self.scheduled.drain(..).for_each(|send| send.cancel()),
        }
        Ok(())
    }
}

/// Whether a task was woken.
#[derive(Default)]
struct Task(AtomicBool);

impl Wake for Task {
    fn wake(self: Arc<Self>) {
        self.0.store(true, Ordering::Release);
    }
}

impl Task {
    fn poll<R>(self: &Arc<Self>, ask: &mut AskFuture<R>) -> Poll<Result<R, RpcError>> {
        let waker = Waker::from(self.clone());
        Pin::new(ask).poll(&mut Context::from_waker(&waker))
    }

    fn was_woken(&self) -> bool {
        self.0.load(Ordering::Acquire)
    }
}

async fn an_ask_that_times_out_in_the_queue(h: &Harness) -> anyhow::Result<()> {
    let env = h.client("env").await?;
    let (seen, keeper, held) = Keeper::busy(&env, "keeper", false).await?;
    // All of one time, and one after it.
    let asks = [(); 3].map(|()| keeper.ask_with_timeout(Ask(Bomb), SHORT));
    for ask in asks {
        let error = ask.await.unwrap_err();
        assert!(error.is_timeout() && error.is_never_sent(), "{error}");
    }
    let error = keeper.ask_with_timeout(Handled, SHORT).await.unwrap_err();
    assert!(error.is_timeout(), "{error}");
    seen.gate.open();
    held.await?;
    assert_eq!(keeper.ask(Handled).await?, 0);
    assert_eq!(keeper.ask(Ask(Bomb)).await?, 1);
    Ok(())
}

async fn an_ask_that_is_given_up_in_the_queue(h: &Harness) -> anyhow::Result<()> {
    let env = h.client("env").await?;
    let (seen, keeper, held) = Keeper::busy(&env, "keeper", false).await?;
    drop(keeper.ask(Ask(Bomb)));
    seen.gate.open();
    held.await?;
    assert_eq!(keeper.ask(Handled).await?, 0);
    Ok(())
}

async fn an_ask_whose_endpoint_ends_before_its_turn(h: &Harness) -> anyhow::Result<()> {
    let env = h.client("env").await?;
    let options = EndpointOptions::new("keeper").on_panic(PanicPolicy::Stop);
    let (seen, keeper, held) = Keeper::busy(&env, options, true).await?;
    let task = Arc::<Task>::default();
    let mut ask = keeper.ask(Ask(Bomb));
    assert!(task.poll(&mut ask).is_pending());
    keeper.send(Tell(Bomb))?;
    seen.gate.open();
    assert_eq!(held.await.unwrap_err().kind(), ErrorKind::HandlerPanicked);
    env.stopped(&keeper).await?;
    assert!(task.was_woken(), "whoever waits hears of it");
    let Poll::Ready(Err(error)) = task.poll(&mut ask) else { panic!("it has ended") };
    assert_eq!(error.kind(), ErrorKind::EndpointStopped);
    Ok(())
}

async fn a_reply_that_nobody_wants(h: &Harness) -> anyhow::Result<()> {
    let env = h.client("env").await?;
    let options = EndpointOptions::new("keeper").on_panic(PanicPolicy::Stop);
    let (seen, keeper) = Keeper::at(&env, options).await?;
    let ask = keeper.ask(Answer);
    seen.log.has(|entry| entry == "held").await;
    let unseen = keeper.ask(Answer);
    drop(ask);
    seen.gate.open();
    assert_eq!(keeper.ask(Handled).await?, 0, "the endpoint goes on");
    drop(unseen);
    Ok(())
}

async fn a_send_wait_that_is_given_up(h: &Harness) -> anyhow::Result<()> {
    let env = h.create(h.client_config("env").set("rpc.inbox.maxMessages", "2")?).await?;
    let (seen, keeper, held) = Keeper::busy(&env, "keeper", false).await?;
    let task = Arc::<Task>::default();
    let mut waiting: Vec<_> = (0..4).map(|_| keeper.send_wait(Tell(Bomb))).collect();
    let given = waiting.iter_mut().map(|sent| task.poll(sent)).filter(Poll::is_ready).count();
    assert_eq!(given, 2);
    drop(waiting);
    seen.gate.open();
    held.await?;
    assert_eq!(keeper.ask(Handled).await?, 2, "those that had room were handled");
    assert!(env.local_ref::<Keeper>("keeper").is_some(), "the endpoint goes on");
    Ok(())
}

async fn what_is_sent_later(h: &Harness) -> anyhow::Result<()> {
    let env = h.create(h.client_config("env").set("rpc.shutdown.drainTimeout", "1ms")?).await?;
    let (_, cancels) = Keeper::at(&env, "cancels").await?;
    for what in [Schedule::Once, Schedule::Every, Schedule::CancelAll, Schedule::CancelAll] {
        cancels.ask(what).await?;
    }
    assert_eq!(cancels.ask(Handled).await?, 0);
    // Its endpoint has ended when its time comes, and nobody else has it.
    let (seen, ends) = Keeper::at(&env, "ends").await?;
    ends.ask(Schedule::Every).await?;
    ends.ask(Schedule::Once).await?;
    seen.log.has(|entry| entry == "told").await;
    env.stop(&ends)?;
    env.stopped(&ends).await?;
    let (seen, keeper, held) = Keeper::busy(&env, "keeper", false).await?;
    for _ in 0..3 {
        let error = keeper.ask_with_timeout(Handled, SHORT).await.unwrap_err();
        assert!(error.is_timeout(), "{error}");
    }
    seen.gate.open();
    Ok(held.await?)
}

async fn what_is_sent_later_when_its_env_ends(h: &Harness) -> anyhow::Result<()> {
    let env = h.client("env").await?;
    let (_, keeper) = Keeper::at(&env, "keeper").await?;
    for what in [Schedule::Every, Schedule::Once, Schedule::Every] {
        keeper.ask(what).await?;
    }
    env.shutdown().await;
    Ok(())
}

both! {
    an_ask_that_times_out_in_the_queue,
    an_ask_that_is_given_up_in_the_queue,
    an_ask_whose_endpoint_ends_before_its_turn,
    a_reply_that_nobody_wants,
    a_send_wait_that_is_given_up,
    what_is_sent_later,
    what_is_sent_later_when_its_env_ends,
}

#[derive(Clone, Default)]
struct Written(Arc<Mutex<Vec<u8>>>);

impl io::Write for Written {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[test]
fn the_log_says_what_panicked_and_where() {
    let written = Written::default();
    let writer = written.clone();
    let log = tracing_subscriber::fmt().with_ansi(false).with_writer(move || writer.clone());
    tracing::subscriber::with_default(log.finish(), || {
        let harness = Harness::new(Backend::Local);
        harness.block_on(an_ask_whose_endpoint_ends_before_its_turn(&harness)).unwrap();
    });
    let log = String::from_utf8(written.0.lock().unwrap().clone()).unwrap();
    let panics: Vec<_> = log.lines().filter(|line| line.contains("panic in")).collect();
    let [ask, tell] = panics[..] else { panic!("{log}") };
    assert!(ask.contains("what=Ask: the endpoint rpc-client://keeper@"), "{ask}");
    assert!(ask.ends_with("has panicked and ends (PanicPolicy)"), "{ask}");
    assert!(tell.contains("what=Tell to rpc-client://keeper@"), "{tell}");
}

/// Its turn comes before the env's clock has looked: so the endpoint finds it.
#[test]
fn an_ask_whose_time_is_over_when_its_turn_comes() {
    Simulation::new(1).run(|sim| async move {
        let node = sim.node("node");
        let done = node.run(|node| async move {
            let env = node.create(RpcEnvConfig::client("env")).await?;
            let keeper = Keeper { blocking: Some(node.blocking()), ..Keeper::default() };
            let gate = keeper.seen.gate.clone();
            let keeper = env.setup_endpoint("keeper", keeper).await?;
            let held = keeper.ask(Hold { panics: false });
            let ask = keeper.ask_with_timeout(Ask(Bomb), SHORT);
            gate.open();
            let error = ask.await.unwrap_err();
            assert!(error.is_timeout() && error.is_never_sent(), "{error}");
            held.await?;
            assert_eq!(env.counters().asks_expired, 1, "the endpoint has found it");
            assert_eq!(keeper.ask(Handled).await?, 0);
            env.shutdown().await;
            Ok::<_, RpcError>(())
        });
        done.await.unwrap().unwrap();
    });
}
