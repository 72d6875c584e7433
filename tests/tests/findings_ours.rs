//! The counterpart of `actix_findings.rs`: where actix does something else than its names promise,
//! what ours does instead. The findings have the same numbers.
#![cfg(test)]

use rpc_actix::{
    EndpointContext, ErrorKind, HandlerResult, RpcAddress, RpcEndpointRef, RpcEnv, RpcEnvConfig,
    RpcError, RpcMessage, endpoint,
};
use serde::{Deserialize, Serialize};
use std::io::{Read, Write};
use std::net::TcpListener;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::mpsc;
use std::thread;
use tokio::sync::Notify;

async fn env(bind: bool, settings: &[(&str, &str)]) -> RpcEnv {
    let config = RpcEnvConfig::client("env");
    let config = if bind { config.with_bind("127.0.0.1:0") } else { config };
    rpc_actix::create(config.set_all(settings.iter().copied()).unwrap()).await.unwrap()
}

fn uri(env: &RpcEnv, name: &str) -> String {
    format!("rpc://{name}@{}", env.address().unwrap())
}

// Finding 0.1: an inbox has a bound.

const CAPACITY: usize = 16;
const MESSAGES: usize = 10_000;

#[derive(Debug, Serialize, Deserialize, RpcMessage)]
struct Count;

#[derive(Debug, Serialize, Deserialize, RpcMessage)]
#[rpc(reply = u64)]
struct CountAsked;

#[derive(Debug, Serialize, Deserialize, RpcMessage)]
#[rpc(reply = ())]
struct Hold;

#[derive(Default)]
struct Counter {
    handled: Arc<AtomicU64>,
    holding: Arc<Notify>,
    release: Arc<Notify>,
}

#[endpoint]
impl Counter {
    #[receive]
    async fn count(&mut self, _msg: Count) -> HandlerResult<()> {
        self.handled.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }

    #[receive_and_reply]
    async fn count_asked(&mut self, _msg: CountAsked) -> HandlerResult<u64> {
        Ok(self.handled.fetch_add(1, Ordering::Relaxed) + 1)
    }

    #[receive_and_reply]
    async fn hold(&mut self, _msg: Hold) -> HandlerResult<()> {
        self.holding.notify_one();
        self.release.notified().await;
        Ok(())
    }
}

/// An endpoint that handles nothing until it is released.
struct Held {
    env: RpcEnv,
    counter: RpcEndpointRef<Counter>,
    handled: Arc<AtomicU64>,
    release: Arc<Notify>,
    hold: tokio::task::JoinHandle<Result<(), RpcError>>,
}

impl Held {
    async fn new(settings: &[(&str, &str)]) -> Self {
        let env = env(true, settings).await;
        let counter = Counter::default();
        let (handled, release) = (counter.handled.clone(), counter.release.clone());
        let holding = counter.holding.clone();
        let counter = env.setup_endpoint("counter", counter).await.unwrap();
        let asked = counter.clone();
        let hold = tokio::spawn(async move { asked.ask(Hold).await });
        holding.notified().await;
        Self { env, counter, handled, release, hold }
    }

    async fn release(self) -> u64 {
        self.release.notify_one();
        self.hold.await.unwrap().unwrap();
        // Behind all that was accepted.
        self.counter.ask(CountAsked).await.unwrap() - 1
    }
}

const BOUND: (&str, &str) = ("rpc.inbox.maxMessages", "16");

/// Finding 0.1: no message enters beyond the capacity, whichever clone sends it.
#[tokio::test]
async fn send_honours_the_capacity_for_all_clones_together() {
    let held = Held::new(&[BOUND]).await;
    let clones: Vec<_> = (0..100).map(|_| held.counter.clone()).collect();
    let tries = clones.iter().cycle().take(MESSAGES);
    let accepted = tries.filter(|clone| clone.send(Count).is_ok()).count();
    assert_eq!(accepted, CAPACITY);
    let error = clones[0].send(Count).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Overloaded);
    assert_eq!(held.handled.load(Ordering::Relaxed), 0, "nothing was handled in between");
    assert_eq!(held.release().await, CAPACITY as u64);
}

/// Finding 0.1: asks wait for room in their place, and the number that may wait has a bound.
#[tokio::test]
async fn asks_wait_for_room_within_a_bound() {
    let held = Held::new(&[BOUND, ("rpc.outbox.maxWaiting", "100")]).await;
    let mut asks: Vec<_> = (0..MESSAGES).map(|_| held.counter.ask(CountAsked)).collect();
    let refused = asks.split_off(CAPACITY + 100);
    for ask in refused {
        assert_eq!(ask.await.unwrap_err().kind(), ErrorKind::Overloaded);
    }
    assert_eq!(held.handled.load(Ordering::Relaxed), 0);
    held.release.notify_one();
    for (number, ask) in asks.into_iter().enumerate() {
        assert_eq!(ask.await.unwrap(), number as u64 + 1);
    }
}

/// Finding 0.1: a peer has a window within the same capacity, and a bounded queue before it.
#[tokio::test]
async fn a_peer_cannot_fill_the_inbox_either() {
    const QUEUE: usize = 32;
    let held = Held::new(&[BOUND]).await;
    let client = env(false, &[("rpc.outbox.maxMessages", "32")]).await;
    let far: RpcEndpointRef<Counter> =
        client.endpoint_ref(&uri(&held.env, "counter")).await.unwrap();
    let clones: Vec<_> = (0..100).map(|_| far.clone()).collect();
    let tries = clones.iter().cycle().take(MESSAGES);
    let accepted = tries.filter(|clone| clone.send(Count).is_ok()).count();
    assert!((QUEUE..=QUEUE + CAPACITY).contains(&accepted), "{accepted}");
    assert_eq!(held.handled.load(Ordering::Relaxed), 0);
    held.release.notify_one();
    assert_eq!(far.ask(CountAsked).await.unwrap(), accepted as u64 + 1, "none was lost");
}

// Finding 0.2: what waits for a peer has a bound.

const CHUNK: usize = 64 * 1024;
const QUEUE_BYTES: usize = 4 * 1024 * 1024;

#[derive(Debug, Serialize, Deserialize, RpcMessage)]
struct Chunk {
    load: String,
}

/// Takes every chunk there is.
struct Sink;

#[endpoint]
impl Sink {
    #[receive]
    async fn chunk(&mut self, _msg: Chunk) -> HandlerResult<()> {
        Ok(())
    }
}

/// Passes bytes on in both directions until it is told to stop reading from the dialler.
fn proxy(to: String, deaf: &Arc<AtomicBool>) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let deaf = deaf.clone();
    thread::spawn(move || {
        let (near, _) = listener.accept().unwrap();
        let far = std::net::TcpStream::connect(to).unwrap();
        let (mut back_from, mut back_to) = (far.try_clone().unwrap(), near.try_clone().unwrap());
        thread::spawn(move || std::io::copy(&mut back_from, &mut back_to));
        let (mut near, mut far, mut buffer) = (near, far, vec![0; 64 * 1024]);
        while let Ok(read @ 1..) = near.read(&mut buffer) {
            if far.write_all(buffer.get(..read).unwrap()).is_err() {
                return;
            }
            while deaf.load(Ordering::Acquire) {
                thread::yield_now();
            }
        }
    });
    address
}

/// Finding 0.2: a peer that does not read costs what the queue to it may hold, and no more.
#[tokio::test]
async fn a_peer_that_does_not_read_does_not_fill_our_memory() {
    let server = env(true, &[]).await;
    server.setup_endpoint("sink", Sink).await.unwrap();
    let deaf = Arc::new(AtomicBool::new(false));
    let address = proxy(server.address().unwrap().to_string(), &deaf);
    let client = env(false, &[("rpc.outbox.maxBytes", "4MiB")]).await;
    let far: RpcEndpointRef<Sink> =
        client.endpoint_ref(&format!("rpc://sink@{address}")).await.unwrap();
    deaf.store(true, Ordering::Release);

    let load = "x".repeat(CHUNK);
    let (mut sent, mut refused) = (0, 0);
    // The window and the buffers of the kernel take some as well, then it is refused for good.
    while refused < 200 {
        match far.send(Chunk { load: load.clone() }) {
            Ok(()) => (sent, refused) = (sent + CHUNK, 0),
            Err(error) => {
                assert_eq!(error.kind(), ErrorKind::Overloaded);
                refused += 1;
                tokio::time::sleep(std::time::Duration::from_millis(1)).await;
            }
        }
        let window = 16 * 1024 * 1024;
        assert!(sent < QUEUE_BYTES + window + 16 * 1024 * 1024, "{sent} bytes were taken");
    }
    assert!(sent >= QUEUE_BYTES, "{sent}");
    deaf.store(false, Ordering::Release);
    client.shutdown().await;
}

// Finding 0.3: a panic costs one call.

#[derive(Debug, Serialize, Deserialize, RpcMessage)]
#[rpc(reply = ())]
struct Panic;

#[derive(Debug, Serialize, Deserialize, RpcMessage)]
struct PanicOneWay;

#[derive(Debug, Serialize, Deserialize, RpcMessage)]
#[rpc(reply = u64)]
struct Note;

#[derive(Default, Clone, Copy, PartialEq)]
enum PanicIn {
    #[default]
    Handlers,
    Constructor,
    Start,
    Stop,
    Error,
    Connected,
    Drop,
}

/// What an endpoint went through, and for each step whether the thread was unwinding.
type Log = mpsc::Sender<(&'static str, bool)>;

struct Fragile {
    log: Log,
    panics: PanicIn,
    notes: u64,
}

impl Fragile {
    fn new(log: &Log, panics: PanicIn) -> Self {
        let log = log.clone();
        let fragile = Self { log, panics, notes: 0 };
        fragile.step("made", PanicIn::Constructor);
        fragile
    }

    fn step(&self, name: &'static str, place: PanicIn) {
        self.log.send((name, thread::panicking())).unwrap();
        assert!(self.panics != place, "{name} panics");
    }
}

#[endpoint]
impl Fragile {
    #[receive_and_reply]
    async fn panic(&mut self, _msg: Panic) -> HandlerResult<()> {
        tokio::task::yield_now().await;
        panic!("the handler panics")
    }

    #[receive]
    async fn panic_one_way(&mut self, _msg: PanicOneWay) -> HandlerResult<()> {
        panic!("the one-way handler panics")
    }

    #[receive_and_reply]
    async fn note(&mut self, _msg: Note) -> HandlerResult<u64> {
        self.notes += 1;
        Ok(self.notes)
    }

    #[on_start]
    async fn started(&mut self, _cx: &mut EndpointContext<Self>) -> HandlerResult<()> {
        self.step("start", PanicIn::Start);
        Ok(())
    }

    #[on_stop]
    async fn stopped(&mut self, _cx: &mut EndpointContext<Self>) -> HandlerResult<()> {
        self.step("stop", PanicIn::Stop);
        Ok(())
    }

    #[on_error]
    async fn error(&mut self, error: RpcError) -> HandlerResult<()> {
        assert_eq!(error.kind(), ErrorKind::HandlerPanicked);
        self.step("error", PanicIn::Error);
        Ok(())
    }

    #[on_connected]
    async fn connected(&mut self, _peer: &RpcAddress) -> HandlerResult<()> {
        self.step("connected", PanicIn::Connected);
        Ok(())
    }
}

impl Drop for Fragile {
    fn drop(&mut self) {
        if !thread::panicking() {
            self.step("dropped", PanicIn::Drop);
        }
    }
}

/// Finding 0.3: the call fails, its endpoint keeps its state and goes on, and no hook runs while
/// the stack unwinds.
#[tokio::test]
async fn a_panic_costs_one_call_and_no_hook_runs_while_unwinding() {
    let (log, steps) = mpsc::channel();
    let (server, client) = (env(true, &[]).await, env(false, &[]).await);
    let near =
        server.setup_endpoint("fragile", Fragile::new(&log, PanicIn::Handlers)).await.unwrap();
    let neighbour = server.setup_endpoint("counter", Counter::default()).await.unwrap();
    let far: RpcEndpointRef<Fragile> = client.endpoint_ref(&uri(&server, "fragile")).await.unwrap();
    for (round, fragile) in [&near, &far].into_iter().enumerate() {
        let queued = (fragile.ask(Note), fragile.ask(Panic), fragile.ask(Note));
        let before = 3 * round as u64;
        assert_eq!(queued.0.await.unwrap(), before + 1);
        let error = queued.1.await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::HandlerPanicked);
        let text = format!("a handler panicked: the handler panics (Panic at {fragile})");
        assert_eq!(error.text(), text);
        assert_eq!(queued.2.await.unwrap(), before + 2, "with its state, behind the panic");
        fragile.send(PanicOneWay).unwrap();
        assert_eq!(fragile.ask(Note).await.unwrap(), before + 3);
    }
    assert_eq!(neighbour.ask(CountAsked).await.unwrap(), 1, "its arbiter goes on");
    server.shutdown().await;
    drop(log);
    let steps: Vec<_> = steps.iter().collect();
    assert!(steps.iter().all(|(_, unwinding)| !unwinding), "{steps:?}");
    assert_eq!(steps.iter().filter(|(step, _)| *step == "error").count(), 4, "{steps:?}");
    assert_eq!(steps.iter().filter(|(step, _)| *step == "stop").count(), 1, "{steps:?}");
}

/// Finding 0.3: a panic in any hook ends neither the process nor the arbiter.
#[test]
fn a_panic_in_a_hook_ends_nothing_else() {
    survives("a_panic_in_a_hook_ends_nothing_else", async {
        let (log, _steps) = mpsc::channel();
        let server = env(true, &[]).await;
        let neighbour = server.setup_endpoint("counter", Counter::default()).await.unwrap();

        for (place, text) in [
            (PanicIn::Constructor, "constructor panicked: made panics"),
            (PanicIn::Start, "on_start panicked: start panics"),
        ] {
            let log = log.clone();
            let made = server.setup_endpoint_with("fragile", move || Fragile::new(&log, place));
            let error = made.await.unwrap_err();
            let text = format!("{text} ({})", uri(&server, "fragile"));
            assert_eq!((error.text(), error.kind()), (&*text, ErrorKind::HandlerPanicked));
        }
        for place in [PanicIn::Error, PanicIn::Connected, PanicIn::Stop, PanicIn::Drop] {
            // A client of its own, which connects once the endpoint is there to hear of it.
            let client = env(false, &[]).await;
            let fragile = Fragile::new(&log, place);
            let fragile = server.setup_endpoint("fragile", fragile).await.unwrap();
            let far: RpcEndpointRef<Fragile> =
                client.endpoint_ref(&uri(&server, "fragile")).await.unwrap();
            assert_eq!(far.ask(Panic).await.unwrap_err().kind(), ErrorKind::HandlerPanicked);
            assert_eq!(far.ask(Note).await.unwrap(), 1);
            server.stop(&fragile).unwrap();
            server.stopped(&fragile).await.unwrap();
            client.shutdown().await;
        }
        assert_eq!(neighbour.ask(CountAsked).await.unwrap(), 1);
        server.shutdown().await;
    });
}

/// Finding 0.3: what aborts an actor's process, a panic in the destructor of a state that panics,
/// is an error here.
#[test]
fn a_message_that_panics_when_dropped_ends_nothing_else() {
    #[derive(Debug, Serialize, Deserialize, RpcMessage)]
    #[rpc(reply = ())]
    struct Grenade;
    impl Drop for Grenade {
        fn drop(&mut self) {
            assert!(thread::panicking(), "the message panics when it is dropped");
        }
    }
    struct Careless;
    #[endpoint]
    impl Careless {
        #[receive_and_reply]
        async fn grenade(&mut self, msg: Grenade) -> HandlerResult<()> {
            drop(msg);
            Ok(())
        }
    }
    survives("a_message_that_panics_when_dropped_ends_nothing_else", async {
        let server = env(true, &[]).await;
        let careless = server.setup_endpoint("careless", Careless).await.unwrap();
        for _ in 0..3 {
            let error = careless.ask(Grenade).await.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::HandlerPanicked);
        }
        server.shutdown().await;
    });
}

/// Runs `body` in a child process, which is the test called `name` once more, and expects that it
/// ends as a test that has passed.
fn survives(name: &str, body: impl Future<Output = ()>) {
    const CHILD: &str = "FINDINGS_OURS_CHILD";
    if std::env::var_os(CHILD).is_some() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        return runtime.block_on(body);
    }
    let child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", name, "--nocapture"])
        .env(CHILD, "1")
        .output()
        .unwrap();
    let output = String::from_utf8_lossy(&child.stdout);
    let errors = String::from_utf8_lossy(&child.stderr);
    assert!(child.status.success(), "{:?}\n{output}\n{errors}", child.status);
    assert!(output.contains("1 passed"), "{output}");
}

// Finding 0.4: a flooded endpoint yields.

const FLOOD: usize = 100_000;
const YIELD_AFTER: usize = 64;

#[derive(Debug, Serialize, Deserialize, RpcMessage)]
struct Next;

/// Goes on by itself: each message brings the next.
struct Flooded {
    handled: Arc<AtomicUsize>,
    done: Arc<Notify>,
    self_feeding: bool,
}

#[endpoint]
impl Flooded {
    #[receive]
    async fn next(&mut self, _msg: Next, cx: &mut EndpointContext<Self>) -> HandlerResult<()> {
        let handled = self.handled.fetch_add(1, Ordering::Relaxed) + 1;
        if handled >= FLOOD {
            self.done.notify_one();
        } else if self.self_feeding {
            cx.self_ref().send(Next)?;
        }
        Ok(())
    }
}

/// Looks at the flooded one in each of its turns, and takes another turn.
struct Observer {
    handled: Arc<AtomicUsize>,
    seen: Vec<usize>,
}

#[derive(Debug, Serialize, Deserialize, RpcMessage)]
struct Look;

#[derive(Debug, Serialize, Deserialize, RpcMessage)]
#[rpc(reply = Vec<usize>)]
struct Seen;

#[endpoint]
impl Observer {
    #[receive]
    async fn look(&mut self, _msg: Look, cx: &mut EndpointContext<Self>) -> HandlerResult<()> {
        let handled = self.handled.load(Ordering::Relaxed);
        self.seen.push(handled);
        if handled < FLOOD {
            // Lets the others of the arbiter have their turn, as any await that waits would.
            tokio::task::yield_now().await;
            cx.self_ref().send(Look)?;
        }
        Ok(())
    }

    #[receive_and_reply]
    async fn seen(&mut self, _msg: Seen) -> HandlerResult<Vec<usize>> {
        Ok(std::mem::take(&mut self.seen))
    }
}

/// How many messages the flooded endpoint had handled at each turn of another one on its arbiter.
async fn what_another_endpoint_sees(self_feeding: bool) -> Vec<usize> {
    let env = env(false, &[("rpc.inbox.maxMessages", "200000")]).await;
    let (handled, done) = (Arc::<AtomicUsize>::default(), Arc::<Notify>::default());
    let observer = Observer { handled: handled.clone(), seen: vec![0] };
    let observer = env.setup_endpoint("observer", observer).await.unwrap();
    let flooded = Flooded { handled, done: done.clone(), self_feeding };
    let flooded = env.setup_endpoint("flooded", flooded).await.unwrap();
    observer.send(Look).unwrap();
    for _ in 0..if self_feeding { 1 } else { FLOOD } {
        flooded.send(Next).unwrap();
    }
    done.notified().await;
    observer.ask(Seen).await.unwrap()
}

/// Finding 0.4: another endpoint of the arbiter has its turn at least every 64 messages.
#[tokio::test]
async fn a_flooded_endpoint_yields_to_the_others_of_its_arbiter() {
    for self_feeding in [false, true] {
        let seen = what_another_endpoint_sees(self_feeding).await;
        let longest = seen.windows(2).map(|pair| pair[1] - pair[0]).max().unwrap();
        // Twice, because tokio wakes the tasks that have yielded in reverse order.
        assert!(longest <= 2 * YIELD_AFTER, "{longest} messages without a turn");
    }
}

/// Finding 0.4: timers are kept on a thread that no handler holds, so an ask to a flooded endpoint
/// ends by its deadline although the endpoint never gets to it.
#[tokio::test]
async fn a_flooded_endpoint_does_not_hold_up_deadlines() {
    let env = env(false, &[("rpc.inbox.maxMessages", "200000")]).await;
    let counter = Counter::default();
    let held = env.setup_endpoint("held", counter).await.unwrap();
    let (handled, done) = (Arc::<AtomicUsize>::default(), Arc::<Notify>::default());
    let flooded = Flooded { handled, done, self_feeding: true };
    let flooded = env.setup_endpoint("flooded", flooded).await.unwrap();
    flooded.send(Next).unwrap();
    let limit = std::time::Duration::from_millis(5);
    let error = held.ask_with_timeout(Hold, limit).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Timeout);
}
