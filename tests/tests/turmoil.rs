//! A second opinion on what the simulation says: the same promises on turmoil's network, which others
//! have written. Envs are the shipped ones, each on a host of turmoil's; only the transport is ours.
#![cfg(test)]

use rpc_actix::transport::{ByteStream, Listener, Socket, Transport};
use rpc_actix::{
    ActixRpcEnvFactory, HandlerResult, Outcome, Random, RpcAddress, RpcEndpointRef, RpcEnv,
    RpcEnvConfig, RpcEnvFactory, RpcMessage, endpoint,
};
use rpc_core::spi::BoxFuture;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::future::Future;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::pin::{Pin, pin};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use turmoil::net::{TcpListener, TcpStream};

const SERVER: &str = "server";
const CLIENTS: [&str; 2] = ["client-1", "client-2"];
const PORT: u16 = 7077;
/// How often a client asks, and how long it waits for an answer.
const EVERY: Duration = Duration::from_millis(40);
const TIMEOUT: Duration = Duration::from_secs(2);
/// What a host's clock may be behind: one tick of turmoil's, and one of tokio's timers.
const TICK: Duration = Duration::from_millis(3);
/// When nothing is wrong any more, answers come again after this at the latest: the silence is noticed
/// (3.2 s), and the peer dialled with the longest pause (5 s).
const RECOVERY: Duration = Duration::from_secs(9);

/// Turmoil's network as an env sees it. Its hosts have loopback addresses there, as an env without
/// security listens on no others.
struct Turmoil;

/// The loopback address of a host, by its name, and back.
fn address_of(name: &str) -> Ipv4Addr {
    let place = CLIENTS.iter().position(|client| *client == name);
    Ipv4Addr::new(127, 1, 0, place.map_or(1, |place| u8::try_from(place + 2).unwrap()))
}

fn name_of(address: &RpcAddress) -> &'static str {
    let hosts = [SERVER].into_iter().chain(CLIENTS);
    hosts.into_iter().find(|name| address.ip() == Some(address_of(name).into())).unwrap()
}

fn as_loopback(peer: SocketAddr) -> SocketAddr {
    let name = turmoil::reverse_lookup(peer.ip()).expect("a host");
    SocketAddr::new(IpAddr::V4(address_of(&name)), peer.port())
}

impl Transport for Turmoil {
    fn bind(&self, address: &RpcAddress) -> io::Result<Box<dyn Listener>> {
        let bound = pin!(TcpListener::bind((Ipv4Addr::UNSPECIFIED, address.port())));
        let Poll::Ready(bound) = bound.poll(&mut Context::from_waker(Waker::noop())) else {
            return Err(io::ErrorKind::WouldBlock.into());
        };
        Ok(Box::new(Bound(Arc::new(bound?))))
    }

    fn connect(&self, address: &RpcAddress) -> BoxFuture<io::Result<Box<dyn Socket>>> {
        let (name, port) = (name_of(address), address.port());
        Box::pin(async move { Ok(socket(TcpStream::connect((name, port)).await?)) })
    }
}

fn socket(stream: TcpStream) -> Box<dyn Socket> {
    Box::new(Stream(stream))
}

struct Bound(Arc<TcpListener>);

impl Listener for Bound {
    fn port(&self) -> u16 {
        self.0.local_addr().map_or(0, |address| address.port())
    }

    fn accept(&mut self) -> BoxFuture<io::Result<Box<dyn Socket>>> {
        let listener = self.0.clone();
        Box::pin(async move { Ok(socket(listener.accept().await?.0)) })
    }
}

struct Stream(TcpStream);

impl Socket for Stream {
    fn peer(&self) -> SocketAddr {
        as_loopback(self.0.peer_addr().expect("a connected stream"))
    }

    fn open(self: Box<Self>) -> io::Result<Box<dyn ByteStream>> {
        Ok(self)
    }
}

impl ByteStream for Stream {}

impl AsyncRead for Stream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(cx, into)
    }
}

impl AsyncWrite for Stream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(cx)
    }
}

/// Answered with its number.
#[derive(Debug, Serialize, Deserialize, RpcMessage)]
#[rpc(reply = u32)]
struct Task {
    from: String,
    number: u32,
}

/// One way.
#[derive(Debug, Serialize, Deserialize, RpcMessage)]
struct Mark {
    from: String,
    number: u32,
}

/// What was handled: whose, which, and whether it was an ask.
type Handled = Arc<Mutex<Vec<(String, u32, bool)>>>;

struct Ledger(Handled);

#[endpoint]
impl Ledger {
    #[receive_and_reply]
    fn task(&mut self, msg: Task) -> HandlerResult<u32> {
        self.0.lock().unwrap().push((msg.from, msg.number, true));
        Ok(msg.number)
    }

    #[receive]
    fn mark(&mut self, msg: Mark) -> HandlerResult<()> {
        self.0.lock().unwrap().push((msg.from, msg.number, false));
        Ok(())
    }
}

/// Numbers of envs that follow from a seed.
#[derive(Clone)]
struct Numbers(Arc<AtomicU64>);

impl Random for Numbers {
    fn number(&self) -> io::Result<u64> {
        let last = self.0.fetch_add(0x9e37_79b9_7f4a_7c15, Ordering::Relaxed);
        Ok(last.rotate_left(17) ^ 0x5851_f42d_4c95_7f2d)
    }
}

/// An env on the thread of its host.
async fn env(config: RpcEnvConfig, numbers: &Numbers) -> RpcEnv {
    let config = config.set("rpc.actix.mode", "inline").unwrap();
    let factory = ActixRpcEnvFactory::new().with_transport(Turmoil);
    factory.with_random(numbers.clone()).create(config).await.unwrap()
}

async fn serve(handled: Handled, numbers: Numbers) -> turmoil::Result {
    let at = format!("{}:{PORT}", address_of(SERVER));
    let env = env(RpcEnvConfig::server(SERVER, at), &numbers).await;
    env.setup_endpoint("ledger", Ledger(handled)).await?;
    env.await_termination().await;
    Ok(())
}

/// How an ask ended.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Ended {
    from: &'static str,
    number: u32,
    began: Duration,
    took: Duration,
    /// `None` for an answer.
    failed: Option<Outcome>,
}

/// Asks and sends until the time is over, several asks at a time.
async fn call(
    name: &'static str,
    until: Duration,
    ended: Arc<Mutex<Vec<Ended>>>,
    numbers: Numbers,
) -> turmoil::Result {
    let env = env(RpcEnvConfig::client(name), &numbers).await;
    let uri = format!("rpc://ledger@{}:{PORT}", address_of(SERVER));
    let ledger: RpcEndpointRef<Ledger> = env.endpoint_ref(&uri).await?;
    let mut asks = Vec::new();
    for number in 0.. {
        let began = turmoil::sim_elapsed().unwrap_or_default();
        if began >= until {
            break;
        }
        // One that finds no room or no connection is lost, and says so.
        let _ = ledger.send(Mark { from: name.to_owned(), number });
        let task = Task { from: name.to_owned(), number };
        let ask = ledger.ask_with_timeout(task, TIMEOUT);
        let ended = ended.clone();
        asks.push(tokio::task::spawn_local(async move {
            let failed = match ask.await {
                Ok(answer) => {
                    assert_eq!(answer, number);
                    None
                }
                Err(error) => Some(error.outcome()),
            };
            let took = turmoil::sim_elapsed().unwrap_or_default().saturating_sub(began);
            ended.lock().unwrap().push(Ended { from: name, number, began, took, failed });
        }));
        tokio::time::sleep(EVERY).await;
    }
    for ask in asks {
        ask.await?;
    }
    env.shutdown().await;
    Ok(())
}

/// What happens to the network, and when.
type Fault = (u64, fn(&mut turmoil::Sim<'_>));

/// What came of a run.
#[derive(Debug, PartialEq, Eq)]
struct Run {
    ended: Vec<Ended>,
    handled: Vec<(String, u32, bool)>,
}

/// Runs a cluster for 30 seconds of turmoil's time; the last fault has to be one that mends.
fn run(seed: u64, faults: &[Fault]) -> Run {
    let (handled, ended) = (Handled::default(), Arc::<Mutex<Vec<Ended>>>::default());
    let numbers = Numbers(Arc::new(AtomicU64::new(seed)));
    let until = Duration::from_secs(30);
    let mut sim = turmoil::Builder::new()
        .simulation_duration(Duration::from_secs(60))
        .tick_duration(Duration::from_millis(1))
        .min_message_latency(Duration::from_millis(1))
        .max_message_latency(Duration::from_millis(20))
        .rng_seed(seed)
        .build();
    let (log, random) = (handled.clone(), numbers.clone());
    sim.host(SERVER, move || serve(log.clone(), random.clone()));
    for name in CLIENTS {
        sim.client(name, call(name, until, ended.clone(), numbers.clone()));
    }
    let mut faults = faults.iter().peekable();
    loop {
        while let Some((at, fault)) = faults.peek()
            && sim.elapsed() >= Duration::from_millis(*at)
        {
            fault(&mut sim);
            faults.next();
        }
        if sim.step().unwrap() {
            break;
        }
    }
    drop(sim);
    let mut ended = std::mem::take(&mut *ended.lock().unwrap());
    ended.sort_by_key(|ended| (ended.from, ended.number));
    let handled = std::mem::take(&mut *handled.lock().unwrap());
    Run { ended, handled }
}

/// What holds of every run: each ask ends by its deadline, nothing is handled twice or out of order, what
/// was answered was handled, and what was never sent was not.
fn judge(run: &Run, mended: Duration) {
    let mut last: BTreeMap<(&str, bool), u32> = BTreeMap::new();
    let mut asks = BTreeSet::new();
    for (from, number, ask) in &run.handled {
        let before = last.insert((from, *ask), *number);
        assert!(before.is_none_or(|before| before < *number), "{from}: {number} after {before:?}");
        if *ask {
            asks.insert((from.as_str(), *number));
        }
    }
    let mut answered = 0;
    for ended in &run.ended {
        assert!(ended.took <= TIMEOUT + TICK, "{ended:?}");
        let handled = asks.contains(&(ended.from, ended.number));
        match ended.failed {
            None => assert!(handled, "answered, and not handled: {ended:?}"),
            Some(Outcome::NeverSent) => assert!(!handled, "never sent, and handled: {ended:?}"),
            Some(_) => {}
        }
        answered += usize::from(ended.failed.is_none());
        let well = ended.began >= mended + RECOVERY;
        assert!(!well || ended.failed.is_none(), "all was well again: {ended:?}");
    }
    assert!(answered > 400, "{answered} of {} asks were answered", run.ended.len());
}

/// Runs the scenario with a few seeds, one of them twice.
fn holds(faults: &[Fault]) {
    let mended = Duration::from_millis(faults.last().map_or(0, |(at, _)| *at));
    for seed in 1..=2 {
        let first = run(seed, faults);
        judge(&first, mended);
        assert!(first.ended.iter().any(|ended| ended.failed.is_some()), "no fault was felt");
        if seed == 1 {
            assert_eq!(first, run(seed, faults), "the same seed is another run");
        }
    }
}

#[test]
fn nothing_is_lost_without_a_fault() {
    let all = run(7, &[]);
    judge(&all, Duration::ZERO);
    assert!(all.ended.iter().all(|ended| ended.failed.is_none()));
    assert_eq!(all.handled.len(), all.ended.len() * 2, "each ask and each one-way message, once");
}

#[test]
fn what_is_held_comes_late_and_once() {
    holds(&[
        (4_000, |sim| sim.hold(CLIENTS[0], SERVER)),
        (4_900, |sim| sim.release(CLIENTS[0], SERVER)),
        (8_000, |sim| sim.hold(CLIENTS[0], SERVER)),
        (14_000, |sim| sim.release(CLIENTS[0], SERVER)),
    ]);
}

#[test]
fn a_partition_is_noticed_and_left_behind() {
    holds(&[
        (4_000, |sim| sim.partition(CLIENTS[0], SERVER)),
        (12_000, |sim| sim.repair(CLIENTS[0], SERVER)),
    ]);
}

#[test]
fn a_partition_in_one_direction_is_noticed_by_both_sides() {
    holds(&[
        (3_000, |sim| sim.partition_oneway(CLIENTS[0], SERVER)),
        (8_000, |sim| sim.repair_oneway(CLIENTS[0], SERVER)),
        (12_000, |sim| sim.partition_oneway(SERVER, CLIENTS[1])),
        (17_000, |sim| sim.repair_oneway(SERVER, CLIENTS[1])),
    ]);
}

#[test]
fn a_server_that_crashes_and_comes_back_is_found_again() {
    holds(&[
        (4_000, |sim| sim.crash(SERVER)),
        (7_000, |sim| sim.bounce(SERVER)),
        (14_000, |sim| sim.crash(SERVER)),
        (14_500, |sim| sim.bounce(SERVER)),
    ]);
}
