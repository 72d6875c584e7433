//! What plain actix 0.13.5 does where its names promise something else: the reasons why rpc-actix
//! has bounds, panic safety, fairness and sockets of its own. The findings are numbered as in
//! section 0 of the reliability research.
//!
//! These tests assert what actix does, not what it should do. One that fails after an update of
//! actix says that a layer of ours may have become unnecessary.

#![cfg(test)]

use std::cell::{Cell, RefCell};
use std::future::{Future, poll_fn};
use std::io;
use std::pin::pin;
use std::process::Command;
use std::rc::Rc;
use std::task::Poll;
use std::time::Duration;

use actix::fut::wrap_future;
use actix::io::{FramedWrite, SinkWrite, WriteHandler, Writer};
use actix::prelude::*;
use bytes::Bytes;
use tokio::io::{AsyncReadExt, DuplexStream, duplex};
use tokio::task::yield_now;
use tokio_util::codec::{self, BytesCodec};

// Finding 0.1: an actix mailbox has no bound.

const CAPACITY: usize = 16;
const MESSAGES: usize = 10_000;

/// Finding 0.1: `do_send` ignores the capacity. 10,000 messages enter a mailbox of 16 before the
/// actor sees the first.
#[test]
fn do_send_ignores_the_capacity() {
    on_arbiter(async {
        let (addr, handled) = Counter::start_with_capacity();
        for _ in 0..MESSAGES {
            addr.do_send(Count);
        }
        assert_eq!(handled.get(), 0, "nothing has yielded to the actor yet");
        assert_eq!(addr.send(Handled).await, Ok(MESSAGES));
    });
}

/// Finding 0.1: `send` does not wait for room. A request that finds the mailbox full clones the
/// address, and a clone always has a free slot, so polling each request once is enough to put
/// 10,000 messages into a mailbox of 16.
#[test]
fn send_never_waits_for_room() {
    on_arbiter(async {
        let (addr, handled) = Counter::start_with_capacity();
        let mut asks: Vec<_> = (0..MESSAGES).map(|_| Box::pin(addr.send(Count))).collect();
        poll_fn(|cx| {
            assert!(asks.iter_mut().all(|ask| ask.as_mut().poll(cx).is_pending()));
            Poll::Ready(())
        })
        .await;
        assert_eq!(handled.get(), 0, "nothing has yielded to the actor yet");
        assert_eq!(addr.send(Handled).await, Ok(MESSAGES), "no request was polled a second time");
    });
}

/// Finding 0.1: `try_send` does honour the capacity, but counts it for one `Addr`: each clone
/// brings a slot of its own.
#[test]
fn try_send_honours_the_capacity_of_one_addr_only() {
    on_arbiter(async {
        let (addr, handled) = Counter::start_with_capacity();
        let accepted = |addr: &Addr<Counter>| {
            (0..MESSAGES).take_while(|_| addr.try_send(Count).is_ok()).count()
        };
        assert_eq!(accepted(&addr), CAPACITY);
        assert!(matches!(addr.try_send(Count), Err(SendError::Full(_))));

        let clones: Vec<_> = (0..100).map(|_| addr.clone()).collect();
        assert!(clones.iter().all(|clone| accepted(clone) == 1));

        assert_eq!(handled.get(), 0, "nothing has yielded to the actor yet");
        assert_eq!(addr.send(Handled).await, Ok(CAPACITY + clones.len()));
    });
}

struct Counter {
    handled: Rc<Cell<usize>>,
}

impl Counter {
    fn start_with_capacity() -> (Addr<Self>, Rc<Cell<usize>>) {
        let handled = Rc::new(Cell::new(0));
        let addr = Self::create(|ctx| {
            ctx.set_mailbox_capacity(CAPACITY);
            Self { handled: handled.clone() }
        });
        (addr, handled)
    }
}

impl Actor for Counter {
    type Context = Context<Self>;
}

struct Count;

impl Message for Count {
    type Result = ();
}

impl Handler<Count> for Counter {
    type Result = ();

    fn handle(&mut self, _: Count, _: &mut Context<Self>) {
        self.handled.set(self.handled.get() + 1);
    }
}

struct Handled;

impl Message for Handled {
    type Result = usize;
}

impl Handler<Handled> for Counter {
    type Result = usize;

    fn handle(&mut self, _: Handled, _: &mut Context<Self>) -> usize {
        self.handled.get()
    }
}

// Finding 0.2: the writers of `actix::io` give no back-pressure.

const CHUNK: usize = 64 * 1024;
const CHUNKS: usize = 64;

/// Finding 0.2: `Writer` takes 4 MiB while the peer reads nothing and the connection holds 1 KiB;
/// its high-water mark of 16 KiB pauses nobody.
#[test]
fn writer_takes_everything_while_the_peer_reads_nothing() {
    takes_everything::<Writer<DuplexStream, io::Error>>(Writer::new);
}

/// Finding 0.2: `FramedWrite` takes 4 MiB while the peer reads nothing and the connection holds 1
/// KiB.
#[test]
fn framed_write_takes_everything_while_the_peer_reads_nothing() {
    takes_everything::<FramedWrite<Bytes, DuplexStream, BytesCodec>>(|near, ctx| {
        FramedWrite::new(near, BytesCodec::new(), ctx)
    });
}

/// Finding 0.2: `SinkWrite` takes 4 MiB while the peer reads nothing, although the sink below it
/// does report that it is not ready.
#[test]
fn sink_write_takes_everything_while_the_peer_reads_nothing() {
    takes_everything::<SinkWrite<Bytes, Sink>>(|near, ctx| {
        SinkWrite::new(Sink::new(near, BytesCodec::new()), ctx)
    });
}

type Sink = codec::FramedWrite<DuplexStream, BytesCodec>;

fn takes_everything<W: Output>(build: impl FnOnce(DuplexStream, &mut Context<Pusher<W>>) -> W) {
    on_arbiter(async {
        let (near, far) = duplex(1024);
        let addr = Pusher::create(|ctx| Pusher { output: build(near, ctx) });
        for _ in 0..CHUNKS {
            // An answer means that the actor was not paused.
            assert_eq!(soon(addr.send(Chunk)).await, Some(Ok(())));
        }
        // No more is written, so all that the peer can read from here on was in the writer's
        // buffer.
        let mut read = Vec::new();
        far.take((CHUNK * CHUNKS) as u64).read_to_end(&mut read).await.unwrap();
        assert_eq!(read.len(), CHUNK * CHUNKS);
    });
}

/// What `ask` resolves to, or none if it has not after 1,000 turns of the arbiter.
async fn soon<T>(ask: impl Future<Output = T>) -> Option<T> {
    let mut ask = pin!(ask);
    for _ in 0..1_000 {
        if let Poll::Ready(answer) = poll_fn(|cx| Poll::Ready(ask.as_mut().poll(cx))).await {
            return Some(answer);
        }
        yield_now().await;
    }
    None
}

trait Output: Unpin + 'static {
    fn put(&mut self, chunk: Bytes);
}

impl Output for Writer<DuplexStream, io::Error> {
    fn put(&mut self, chunk: Bytes) {
        self.write(&chunk);
    }
}

impl Output for FramedWrite<Bytes, DuplexStream, BytesCodec> {
    fn put(&mut self, chunk: Bytes) {
        self.write(chunk);
    }
}

impl Output for SinkWrite<Bytes, Sink> {
    fn put(&mut self, chunk: Bytes) {
        assert!(self.write(chunk).is_ok(), "only a closed sink refuses");
    }
}

struct Pusher<W> {
    output: W,
}

impl<W: Output> Actor for Pusher<W> {
    type Context = Context<Self>;
}

impl<W: Output> WriteHandler<io::Error> for Pusher<W> {}

struct Chunk;

impl Message for Chunk {
    type Result = ();
}

impl<W: Output> Handler<Chunk> for Pusher<W> {
    type Result = ();

    fn handle(&mut self, _: Chunk, _: &mut Context<Self>) {
        self.output.put(Bytes::from_static(&[7; CHUNK]));
    }
}

// Finding 0.3: a panic in a handler ends the actor, and its hooks run while the stack unwinds.

/// Finding 0.3: a panic in a handler ends the actor, and `stopping` and `stopped` run in the middle
/// of the unwinding.
#[test]
fn a_panic_ends_the_actor_and_runs_its_hooks_while_unwinding() {
    on_arbiter(async {
        let log = Log::default();
        let addr = Fragile::new(&log).start();
        assert_eq!(addr.send(Panic).await, Err(MailboxError::Closed));
        assert!(!addr.connected());
        assert_eq!(log.take(), [("stopping", UNWINDING), ("stopped", UNWINDING)]);
    });
}

/// Finding 0.3: an actor that answers `Running::Continue` handles the rest of its mailbox in the
/// middle of the unwinding and is then dropped all the same, without `stopped`.
#[test]
fn an_actor_that_continues_handles_messages_while_unwinding() {
    on_arbiter(async {
        let log = Log::default();
        let addr = Fragile { verdict: Running::Continue, ..Fragile::new(&log) }.start();
        addr.do_send(Panic);
        assert_eq!(addr.send(Note).await, Ok(()), "answered by an actor that is being dropped");
        assert!(!addr.connected());
        assert_eq!(log.take(), [("stopping", UNWINDING), ("message", UNWINDING)]);
    });
}

/// Finding 0.3: `Supervisor` restarts an actor that stopped itself, but not one that panicked.
#[test]
fn a_supervisor_does_not_restart_after_a_panic() {
    on_arbiter(async {
        let log = Log::default();
        let fragile = Fragile::new(&log);
        let addr = Supervisor::start(|_| fragile);
        assert_eq!(addr.send(Stop).await, Ok(()));
        assert_eq!(addr.send(Note).await, Ok(()), "restarted after a stop");
        assert_eq!(
            log.take(),
            [("stopping", false), ("stopped", false), ("restarting", false), ("message", false)]
        );

        assert_eq!(addr.send(Panic).await, Err(MailboxError::Closed));
        assert_eq!(addr.send(Note).await, Err(MailboxError::Closed), "not restarted after a panic");
        assert_eq!(log.take(), [("stopping", UNWINDING), ("stopped", UNWINDING)]);
    });
}

/// Finding 0.3: a hook that panics while it runs because of a panic aborts the process.
#[test]
fn a_hook_that_panics_while_unwinding_aborts_the_process() {
    aborts("a_hook_that_panics_while_unwinding_aborts_the_process", async |log| {
        let addr = Fragile { hook_panics: true, ..Fragile::new(&log) }.start();
        let _ = addr.send(Panic).await;
    });
}

/// Finding 0.3: so does a message that is handled in the middle of the unwinding, if its handler
/// panics too.
#[test]
fn a_message_that_panics_while_unwinding_aborts_the_process() {
    aborts("a_message_that_panics_while_unwinding_aborts_the_process", async |log| {
        let addr = Fragile { verdict: Running::Continue, ..Fragile::new(&log) }.start();
        addr.do_send(Panic);
        let _ = addr.send(Panic).await;
    });
}

/// Runs `body` in a child process, which is the test called `name` once more, and expects that it
/// reaches `stopping` and then dies by an abort.
fn aborts(name: &str, body: impl AsyncFnOnce(Log)) {
    const CHILD: &str = "ACTIX_FINDINGS_CHILD";
    if std::env::var_os(CHILD).is_some() {
        return on_arbiter(body(Log::default()));
    }
    let child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", name, "--nocapture"])
        .env(CHILD, "1")
        .output()
        .unwrap();
    let (stdout, stderr) =
        (String::from_utf8_lossy(&child.stdout), String::from_utf8_lossy(&child.stderr));
    assert!(stdout.contains("stopping while unwinding: true"), "{stdout}\n{stderr}");
    assert!(!child.status.success(), "{stdout}\n{stderr}");
    #[cfg(unix)]
    {
        const SIGABRT: i32 = 6;
        let signal = std::os::unix::process::ExitStatusExt::signal(&child.status);
        assert_eq!(signal, Some(SIGABRT), "{stdout}\n{stderr}");
    }
}

/// What an actor went through, and for each step whether the thread was unwinding.
type Log = Rc<RefCell<Vec<(&'static str, bool)>>>;

const UNWINDING: bool = true;

struct Fragile {
    log: Log,
    verdict: Running,
    hook_panics: bool,
}

impl Fragile {
    fn new(log: &Log) -> Self {
        Self { log: log.clone(), verdict: Running::Stop, hook_panics: false }
    }

    fn record(&self, step: &'static str) {
        let unwinding = std::thread::panicking();
        println!("{step} while unwinding: {unwinding}");
        self.log.borrow_mut().push((step, unwinding));
    }
}

impl Actor for Fragile {
    type Context = Context<Self>;

    fn stopping(&mut self, _: &mut Context<Self>) -> Running {
        self.record("stopping");
        assert!(!self.hook_panics, "the hook panics too");
        self.verdict
    }

    fn stopped(&mut self, _: &mut Context<Self>) {
        self.record("stopped");
    }
}

impl Supervised for Fragile {
    fn restarting(&mut self, _: &mut Context<Self>) {
        self.record("restarting");
    }
}

struct Panic;

impl Message for Panic {
    type Result = ();
}

impl Handler<Panic> for Fragile {
    type Result = ();

    fn handle(&mut self, _: Panic, _: &mut Context<Self>) {
        panic!("the handler panics");
    }
}

struct Note;

impl Message for Note {
    type Result = ();
}

impl Handler<Note> for Fragile {
    type Result = ();

    fn handle(&mut self, _: Note, _: &mut Context<Self>) {
        self.record("message");
    }
}

struct Stop;

impl Message for Stop {
    type Result = ();
}

impl Handler<Stop> for Fragile {
    type Result = ();

    fn handle(&mut self, _: Stop, ctx: &mut Context<Self>) {
        ctx.stop();
    }
}

// Finding 0.4: a flooded actor starves its arbiter.

const FLOOD: usize = 100_000;
const PAUSE: usize = 64;

/// Finding 0.4: an actor with a full mailbox handles all of it before any other task of its arbiter
/// runs.
#[test]
fn a_full_mailbox_shuts_out_the_other_tasks_of_the_arbiter() {
    let seen = what_a_task_sees(Flooded { self_feeding: false, ..Flooded::default() }, FLOOD);
    assert_eq!(seen.iter().find(|&&handled| handled != 0 && handled != FLOOD), None);
}

/// Finding 0.4: an actor that keeps sending messages to itself runs alone for as long as it does
/// so; tokio's budget for a task does not apply to the mailbox.
#[test]
fn a_self_feeding_actor_shuts_out_the_other_tasks_of_the_arbiter() {
    let seen = what_a_task_sees(Flooded::default(), 1);
    assert_eq!(seen.iter().find(|&&handled| handled != 0 && handled != FLOOD), None);
}

/// Finding 0.4: timers that are due wait as well, those of the arbiter (a heartbeat) and the
/// actor's own.
#[test]
fn a_self_feeding_actor_shuts_out_the_timers_of_the_arbiter() {
    on_arbiter(async {
        let (heartbeat, own_timer) = (Rc::new(Cell::new(None)), Rc::new(Cell::new(None)));
        let flooded = Flooded {
            heartbeat: heartbeat.clone(),
            own_timer: own_timer.clone(),
            ..Flooded::default()
        };
        let addr = flooded.start();
        assert_eq!(addr.send(StartTimers).await, Ok(()));
        while heartbeat.get().is_none() || own_timer.get().is_none() {
            yield_now().await;
        }
        assert_eq!((heartbeat.get(), own_timer.get()), (Some(FLOOD), Some(FLOOD)));
    });
}

/// Finding 0.4, the way out: `ctx.wait` on one yield ends the mailbox's loop, so an actor that does
/// so after every 64 messages lets the other tasks run.
#[test]
fn waiting_for_one_yield_lets_the_other_tasks_run() {
    let seen = what_a_task_sees(Flooded { pauses: true, ..Flooded::default() }, 1);
    let longest = seen.windows(2).map(|pair| pair[1] - pair[0]).max();
    // Twice, because tokio wakes the tasks that have yielded in reverse order.
    assert!(longest <= Some(2 * PAUSE), "{longest:?}");
}

/// Floods the actor with `first` messages and returns how many it had handled, at first (none) and
/// then each time that another task of the arbiter had its turn.
fn what_a_task_sees(flooded: Flooded, first: usize) -> Vec<usize> {
    on_arbiter(async {
        let handled = flooded.handled.clone();
        let addr = flooded.start();
        let observer = actix_rt::spawn(async move {
            let mut seen = vec![0, handled.get()];
            while handled.get() < FLOOD {
                yield_now().await;
                seen.push(handled.get());
            }
            seen
        });
        for _ in 0..first {
            addr.do_send(Next);
        }
        observer.await.unwrap()
    })
}

struct Flooded {
    handled: Rc<Cell<usize>>,
    self_feeding: bool,
    pauses: bool,
    heartbeat: Rc<Cell<Option<usize>>>,
    own_timer: Rc<Cell<Option<usize>>>,
}

impl Default for Flooded {
    fn default() -> Self {
        Self {
            handled: Rc::default(),
            self_feeding: true,
            pauses: false,
            heartbeat: Rc::default(),
            own_timer: Rc::default(),
        }
    }
}

impl Actor for Flooded {
    type Context = Context<Self>;
}

struct Next;

impl Message for Next {
    type Result = ();
}

impl Handler<Next> for Flooded {
    type Result = ();

    fn handle(&mut self, _: Next, ctx: &mut Context<Self>) {
        let handled = self.handled.get() + 1;
        self.handled.set(handled);
        if self.self_feeding && handled < FLOOD {
            ctx.address().do_send(Next);
        }
        if self.pauses && handled.is_multiple_of(PAUSE) {
            ctx.wait(wrap_future(yield_now()));
        }
    }
}

/// Starts two timers that are due at once, and then the flood; each timer notes how many messages
/// were handled before it had its turn.
struct StartTimers;

impl Message for StartTimers {
    type Result = ();
}

impl Handler<StartTimers> for Flooded {
    type Result = ();

    fn handle(&mut self, _: StartTimers, ctx: &mut Context<Self>) {
        let (handled, heartbeat) = (self.handled.clone(), self.heartbeat.clone());
        actix_rt::spawn(async move {
            actix_rt::time::interval(Duration::from_secs(1)).tick().await;
            heartbeat.set(Some(handled.get()));
        });
        ctx.run_later(Duration::ZERO, |actor, _| actor.own_timer.set(Some(actor.handled.get())));
        ctx.address().do_send(Next);
    }
}

fn on_arbiter<T>(test: impl Future<Output = T>) -> T {
    System::new().block_on(test)
}
