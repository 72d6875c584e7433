//! A third backend, written from `rpc_core::spi` alone: one plain thread per env, a small executor,
//! the real clock, no network and no runtime. It keeps the seam honest.
#![cfg(test)]

use rpc_core::spi::{
    BoxFuture, EndpointTask, EnvBackend, EnvCore, EnvParts, Incarnation, LocalBoxFuture,
    RemoteTarget,
};
use rpc_core::{
    EndpointAddress, EndpointContext, ErrorKind, HandlerError, HandlerResult, LocalWorld, Outcome,
    RpcCallContext, RpcEndpointRef, RpcEnv, RpcEnvConfig, RpcEnvFactory, RpcEnvFactoryRegistry,
    RpcError, RpcMessage, Timestamp, Untyped, endpoint,
};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::future::Future;
use std::pin::pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Weak};
use std::task::{Context, Poll, Wake, Waker};
use std::thread::{self, ThreadId};
use std::time::{Duration, Instant};

// The backend.

const NAME: &str = "one-thread";

struct OneThread;

impl RpcEnvFactory for OneThread {
    fn name(&self) -> &'static str {
        NAME
    }

    fn create(&self, config: RpcEnvConfig) -> BoxFuture<Result<RpcEnv, RpcError>> {
        Box::pin(std::future::ready(create(config)))
    }
}

static LAST_ENV: AtomicU64 = AtomicU64::new(0);

fn create(config: RpcEnvConfig) -> Result<RpcEnv, RpcError> {
    config.validate()?;
    if !config.is_client_mode() {
        let text = format!("rpc.env {NAME:?} has no network: leave rpc.bind out");
        return Err(RpcError::new(ErrorKind::InvalidConfig, text));
    }
    let parts = EnvParts::new(config, LAST_ENV.fetch_add(1, Ordering::Relaxed) + 1);
    RpcEnv::assemble(parts, None, |core, _dispatcher| {
        let (jobs, queue) = channel();
        let clock = Clock(Instant::now());
        let thread = Loop { jobs: jobs.clone(), core: Arc::downgrade(core), clock };
        let thread = thread::spawn(move || thread.run(&queue)).thread().id();
        Ok(Arc::new(Backend { jobs, clock, thread }))
    })
}

#[derive(Clone, Copy)]
struct Clock(Instant);

impl Clock {
    fn now(self) -> Timestamp {
        Timestamp::START + self.0.elapsed()
    }
}

struct Backend {
    jobs: Sender<Job>,
    clock: Clock,
    thread: ThreadId,
}

enum Job {
    Start(EndpointTask),
    Poll(u64),
    Arm(Timestamp),
    Close,
}

impl EnvBackend for Backend {
    fn kind(&self) -> &'static str {
        NAME
    }

    fn now(&self) -> Timestamp {
        self.clock.now()
    }

    fn spawn(&self, task: EndpointTask) -> Result<(), RpcError> {
        let ended = |_| RpcError::new(ErrorKind::EnvStopped, "the thread of the env has ended");
        self.jobs.send(Job::Start(task)).map_err(ended)
    }

    fn arm_timer(&self, at: Timestamp) {
        let _ = self.jobs.send(Job::Arm(at));
    }

    fn remote(
        &self,
        address: &EndpointAddress,
        _pin: Option<Incarnation>,
    ) -> Result<Arc<dyn RemoteTarget>, RpcError> {
        let text = format!("cannot reach {address}: rpc.env {NAME:?} has no network");
        Err(RpcError::new(ErrorKind::Unreachable, text))
    }

    fn refuses_blocking(&self) -> Option<String> {
        (thread::current().id() == self.thread).then(|| "it is the env's only thread".to_owned())
    }

    fn close(&self) {
        let _ = self.jobs.send(Job::Close);
    }
}

/// What runs on the thread.
struct Loop {
    jobs: Sender<Job>,
    core: Weak<EnvCore>,
    clock: Clock,
}

impl Loop {
    fn run(self, queue: &Receiver<Job>) {
        let mut tasks: BTreeMap<u64, LocalBoxFuture<()>> = BTreeMap::new();
        let (mut last, mut due) = (0, None::<Timestamp>);
        loop {
            let wait = due.map_or(Duration::MAX, |due| due.since(self.clock.now()));
            match queue.recv_timeout(wait) {
                Ok(Job::Start(task)) => {
                    last += 1;
                    tasks.insert(last, task.start());
                    self.poll(last, &mut tasks);
                }
                Ok(Job::Poll(id)) => self.poll(id, &mut tasks),
                Ok(Job::Arm(at)) => due = Some(due.map_or(at, |due| due.min(at))),
                Ok(Job::Close) | Err(RecvTimeoutError::Disconnected) => break,
                Err(RecvTimeoutError::Timeout) => {
                    due = self.core.upgrade().and_then(|core| core.fire_timers(self.clock.now()));
                }
            }
        }
        drop(tasks);
        if let Some(core) = self.core.upgrade() {
            core.terminated();
        }
    }

    fn poll(&self, id: u64, tasks: &mut BTreeMap<u64, LocalBoxFuture<()>>) {
        let waker = Waker::from(Arc::new(TaskWaker { jobs: self.jobs.clone(), id }));
        let Some(task) = tasks.get_mut(&id) else { return };
        if task.as_mut().poll(&mut Context::from_waker(&waker)).is_ready() {
            tasks.remove(&id);
        }
    }
}

struct TaskWaker {
    jobs: Sender<Job>,
    id: u64,
}

impl Wake for TaskWaker {
    fn wake(self: Arc<Self>) {
        let _ = self.jobs.send(Job::Poll(self.id));
    }
}

// What runs on it.

#[derive(Debug, Serialize, Deserialize, RpcMessage)]
struct Add {
    number: u64,
}

#[derive(Debug, Serialize, Deserialize, RpcMessage)]
#[rpc(reply = u64)]
struct Sum;

/// Answered from another thread.
#[derive(Debug, Serialize, Deserialize, RpcMessage)]
#[rpc(reply = u64)]
struct SumLater;

#[derive(Debug, Serialize, Deserialize, RpcMessage)]
#[rpc(reply = ())]
struct Never;

#[derive(Debug, Serialize, Deserialize, RpcMessage)]
#[rpc(reply = ())]
struct Panic;

#[derive(Debug, Serialize, Deserialize, RpcMessage)]
#[rpc(reply = u64)]
struct Relay {
    to: RpcEndpointRef<Adder>,
    blocking: bool,
}

#[derive(Default)]
struct Adder {
    sum: u64,
    /// Not `Send`: it is made where it lives.
    _home: std::rc::Rc<()>,
    ended: Option<Sender<u64>>,
}

#[endpoint]
impl Adder {
    #[receive]
    async fn add(&mut self, msg: Add) -> HandlerResult<()> {
        self.sum += msg.number;
        Ok(())
    }

    #[receive_and_reply]
    async fn sum(&mut self, _msg: Sum) -> HandlerResult<u64> {
        Ok(self.sum)
    }

    #[receive_and_reply]
    async fn sum_later(&mut self, _msg: SumLater, call: RpcCallContext<u64>) -> HandlerResult<()> {
        let sum = self.sum;
        thread::spawn(move || call.reply(sum));
        Ok(())
    }

    #[receive_and_reply]
    async fn never(&mut self, _msg: Never, cx: &mut EndpointContext<Self>) -> HandlerResult<()> {
        cx.cancelled().await;
        Ok(())
    }

    #[receive_and_reply]
    async fn panic(&mut self, _msg: Panic) -> HandlerResult<()> {
        panic!("on purpose")
    }

    #[receive_and_reply]
    async fn relay(&mut self, msg: Relay) -> HandlerResult<u64> {
        let answer = if msg.blocking { msg.to.ask_blocking(Sum) } else { msg.to.ask(Sum).await };
        Ok(answer?)
    }

    #[on_stop]
    async fn stopped(&mut self, _cx: &mut EndpointContext<Self>) -> HandlerResult<()> {
        if let Some(ended) = self.ended.take() {
            ended.send(self.sum)?;
        }
        Ok(())
    }
}

struct Unlucky;

#[endpoint]
impl Unlucky {
    #[on_start]
    async fn started(&mut self, _cx: &mut EndpointContext<Self>) -> HandlerResult<()> {
        Err(HandlerError::msg("no luck"))
    }
}

/// Waits for a future on a thread without a runtime.
fn wait<F: Future>(future: F) -> F::Output {
    struct Unpark(thread::Thread);
    impl Wake for Unpark {
        fn wake(self: Arc<Self>) {
            self.0.unpark();
        }
    }
    let mut future = pin!(future);
    let waker = Waker::from(Arc::new(Unpark(thread::current())));
    loop {
        match future.as_mut().poll(&mut Context::from_waker(&waker)) {
            Poll::Ready(output) => return output,
            Poll::Pending => thread::park(),
        }
    }
}

fn registry() -> RpcEnvFactoryRegistry {
    RpcEnvFactoryRegistry::new().with(LocalWorld::new().factory()).with(OneThread)
}

fn env() -> RpcEnv {
    let config = RpcEnvConfig::from_pairs([("rpc.env", NAME), ("rpc.askTimeout", "1h")]).unwrap();
    wait(registry().create(config)).unwrap()
}

fn adder(env: &RpcEnv, name: &str) -> RpcEndpointRef<Adder> {
    wait(env.setup_endpoint_with(name, Adder::default)).unwrap()
}

#[test]
fn the_configuration_picks_it() {
    assert_eq!(registry().names().collect::<Vec<_>>(), ["local", NAME]);
    let env = env();
    assert_eq!((env.config().factory(), env.address()), (NAME, None));
    let server = RpcEnvConfig::server("server", "127.0.0.1:0").with_factory(NAME);
    let error = wait(registry().create(server)).unwrap_err();
    assert_eq!(error.text(), "rpc.env \"one-thread\" has no network: leave rpc.bind out");
}

#[test]
fn sends_and_asks_are_in_order() {
    let env = env();
    let adder = adder(&env, "adder");
    for round in 1..=1000 {
        adder.send(Add { number: 1 }).unwrap();
        assert_eq!(adder.ask_blocking(Sum).unwrap(), round);
    }
    assert_eq!(wait(adder.ask(SumLater)).unwrap(), 1000);
    wait(adder.send_wait(Add { number: 1 })).unwrap();
    assert_eq!(wait(adder.ask(Sum)).unwrap(), 1001);
}

#[test]
fn endpoints_ask_each_other_on_the_one_thread() {
    let env = env();
    let (near, far) = (adder(&env, "near"), adder(&env, "far"));
    far.send(Add { number: 7 }).unwrap();
    assert_eq!(wait(near.ask(Relay { to: far.clone(), blocking: false })).unwrap(), 7);

    let error = wait(near.ask(Relay { to: far, blocking: true })).unwrap_err();
    let place = format!("rpc-client://far@{}", env.id());
    let text = format!("a blocking ask of Sum to {place} was refused: it is the env's only thread");
    assert_eq!(error.text(), text);

    let error = wait(near.ask(Relay { to: near.clone(), blocking: false })).unwrap_err();
    assert!(error.text().contains("near -> near"), "{error}");
}

#[test]
fn an_ask_times_out_and_a_panic_costs_one_call() {
    let env = env();
    let adder = adder(&env, "adder");
    let error = wait(adder.ask_with_timeout(Never, Duration::from_millis(10))).unwrap_err();
    assert_eq!((error.kind(), error.outcome()), (ErrorKind::Timeout, Outcome::Unknown));
    let error = wait(adder.ask(Panic)).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::HandlerPanicked);
    assert_eq!(wait(adder.ask(Sum)).unwrap(), 0, "the endpoint goes on");
    assert_eq!(env.unhandled_errors(), 1);
}

#[test]
fn there_is_no_way_out() {
    let env = env();
    let uri = "rpc://adder@127.0.0.1:7077";
    let error = wait(env.endpoint_ref::<Untyped>(uri)).unwrap_err();
    let text = format!("cannot reach {uri}: rpc.env \"one-thread\" has no network");
    assert_eq!((error.text(), error.kind()), (&*text, ErrorKind::Unreachable));
}

#[test]
fn an_endpoint_stops_and_its_name_is_free() {
    let env = env();
    let (ended, end) = channel();
    let make = move || Adder { ended: Some(ended), ..Adder::default() };
    let first = wait(env.setup_endpoint_with("adder", make)).unwrap();
    for _ in 0..100 {
        first.send(Add { number: 1 }).unwrap();
    }
    env.stop(&first).unwrap();
    wait(env.stopped(&first)).unwrap();
    assert_eq!(end.try_recv(), Ok(100), "on_stop ran after what was queued");
    let error = wait(first.ask(Sum)).unwrap_err();
    assert_eq!((error.kind(), error.outcome()), (ErrorKind::EndpointStopped, Outcome::NeverSent));

    let error = wait(env.setup_endpoint("adder", Unlucky)).unwrap_err();
    assert_eq!(error.text(), "no luck");
    assert_eq!(adder(&env, "adder").ask_blocking(Sum).unwrap(), 0);
}

#[test]
fn shutdown_ends_everything() {
    let env = env();
    let (ended, end) = channel();
    let make = move || Adder { ended: Some(ended), ..Adder::default() };
    let adder = wait(env.setup_endpoint_with("adder", make)).unwrap();
    let (asked, open) = (adder.clone(), channel());
    let asking = thread::spawn(move || {
        let mut ask = pin!(asked.ask(Sum));
        open.0.send(()).unwrap();
        wait(ask.as_mut())
    });
    open.1.recv().unwrap();
    wait(env.shutdown());
    assert_eq!(end.try_recv(), Ok(0));
    let answer = asking.join().unwrap();
    assert!(answer.as_ref().is_ok_and(|sum| *sum == 0), "what was queued was handled: {answer:?}");
    assert!(wait(adder.ask(Sum)).unwrap_err().is_stopped());
    let late = wait(env.setup_endpoint_with("late", Adder::default)).unwrap_err();
    assert_eq!((late.text(), late.kind()), ("RpcEnv has been stopped", ErrorKind::EnvStopped));
    wait(env.await_termination());
}

/// The last clone of the env ends it, though the endpoint's ref is still held.
#[test]
fn dropping_the_env_ends_it() {
    let env = env();
    let (ended, end) = channel();
    let make = move || Adder { ended: Some(ended), ..Adder::default() };
    let adder = wait(env.setup_endpoint_with("adder", make)).unwrap();
    adder.send(Add { number: 3 }).unwrap();
    drop(env);
    assert_eq!(end.recv(), Ok(3));
}
