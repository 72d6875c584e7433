//! Turns: how long an endpoint handles messages before others of its thread have theirs, and how
//! much a connection reads and writes, over a network that takes and gives everything at once.
#![cfg(test)]

use bytes::Bytes;
use rpc_actix::spi::BoxFuture;
use rpc_actix::transport::{ByteStream, Listener, Socket, Transport};
use rpc_actix::{
    ActixRpcEnvFactory, HandlerResult, RpcAddress, RpcEnv, RpcEnvConfig, RpcEnvFactory, RpcMessage,
    endpoint,
};
use rpc_tests::harness::Log;
use serde::{Deserialize, Serialize};
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};
use tokio::io::{AsyncRead, AsyncWrite, DuplexStream, ReadBuf, duplex};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

const LARGE: usize = 8 * 1024 * 1024;
/// A turn, and one frame that it may end in.
const MOST: usize = 2 * 256 * 1024 + 1024;

#[derive(Serialize, Deserialize, RpcMessage)]
#[rpc(reply = usize)]
struct Blob {
    #[serde(with = "rpc_actix::bytes_in_place")]
    payload: Bytes,
}

struct Store;

#[endpoint]
impl Store {
    #[receive_and_reply]
    fn blob(&mut self, msg: Blob) -> HandlerResult<usize> {
        Ok(msg.payload.len())
    }
}

/// A network with one port, whose streams hold all that is written.
#[derive(Clone)]
struct Roomy {
    door: UnboundedSender<DuplexStream>,
    listener: Arc<Mutex<Option<UnboundedReceiver<DuplexStream>>>>,
    most: Arc<Most>,
}

/// The most that one side has written before it read, and read before it wrote.
#[derive(Default)]
struct Most {
    written: AtomicUsize,
    read: AtomicUsize,
}

fn anywhere() -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], 1))
}

impl Transport for Roomy {
    fn bind(&self, _: &RpcAddress) -> io::Result<Box<dyn Listener>> {
        let coming = self.listener.lock().unwrap().take().unwrap();
        Ok(Box::new(Door {
            coming: Arc::new(tokio::sync::Mutex::new(coming)),
            most: self.most.clone(),
        }))
    }

    fn connect(&self, _: &RpcAddress) -> BoxFuture<io::Result<Box<dyn Socket>>> {
        let (here, there) = duplex(2 * LARGE);
        self.door.send(there).unwrap();
        let socket =
            End { stream: here, most: self.most.clone(), written: 0, read: Arc::default() };
        Box::pin(async move { Ok(Box::new(socket) as Box<dyn Socket>) })
    }
}

struct Door {
    coming: Arc<tokio::sync::Mutex<UnboundedReceiver<DuplexStream>>>,
    most: Arc<Most>,
}

impl Listener for Door {
    fn port(&self) -> u16 {
        1
    }

    fn accept(&mut self) -> BoxFuture<io::Result<Box<dyn Socket>>> {
        let (coming, most) = (self.coming.clone(), self.most.clone());
        Box::pin(async move {
            let stream = coming.lock().await.recv().await;
            let stream = stream.ok_or_else(|| io::Error::from(io::ErrorKind::NotConnected))?;
            Ok(Box::new(End { stream, most, written: 0, read: Arc::default() }) as Box<dyn Socket>)
        })
    }
}

struct End {
    stream: DuplexStream,
    most: Arc<Most>,
    /// Since the last read.
    written: usize,
    /// Since other tasks of the thread had their turn.
    read: Arc<AtomicUsize>,
}

impl Socket for End {
    fn peer(&self) -> SocketAddr {
        anywhere()
    }

    fn open(self: Box<Self>) -> io::Result<Box<dyn ByteStream>> {
        Ok(self)
    }
}

impl ByteStream for End {}

impl AsyncRead for End {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.written = 0;
        let before = into.filled().len();
        ready!(Pin::new(&mut self.stream).poll_read(cx, into))?;
        let read = into.filled().len() - before;
        let earlier = self.read.fetch_add(read, Ordering::Relaxed);
        self.most.read.fetch_max(earlier + read, Ordering::Relaxed);
        if earlier == 0 {
            let since = self.read.clone();
            tokio::task::spawn_local(async move { since.store(0, Ordering::Relaxed) });
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for End {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = ready!(Pin::new(&mut self.stream).poll_write(cx, bytes))?;
        self.written += written;
        self.most.written.fetch_max(self.written, Ordering::Relaxed);
        Poll::Ready(Ok(written))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

async fn env(network: &Roomy, config: RpcEnvConfig) -> RpcEnv {
    ActixRpcEnvFactory::new().with_transport(network.clone()).create(config).await.unwrap()
}

#[tokio::test]
async fn a_large_message_is_written_and_read_in_turns() {
    let (door, coming) = unbounded_channel();
    let listener = Arc::new(Mutex::new(Some(coming)));
    let network = Roomy { door, listener, most: Arc::default() };
    let server = env(&network, RpcEnvConfig::server("server", "127.0.0.1:0")).await;
    server.setup_endpoint("store", Store).await.unwrap();
    let client = env(&network, RpcEnvConfig::client("client")).await;
    let store = client.endpoint_ref::<Store>("rpc://store@127.0.0.1:1").await.unwrap();
    let payload = Bytes::from(vec![7; LARGE]);
    assert_eq!(store.ask(Blob { payload }).await.unwrap(), LARGE);
    let [written, read] =
        [&network.most.written, &network.most.read].map(|most| most.load(Ordering::Relaxed));
    assert!(written <= MOST, "{written} bytes were written in one turn");
    assert!(read <= MOST, "{read} bytes were read in one turn");
    client.shutdown().await;
    server.shutdown().await;
}

#[derive(Serialize, Deserialize, RpcMessage)]
struct Work;

/// Takes 1 ms for each message, and holds its thread meanwhile.
struct Worker {
    name: &'static str,
    log: Log,
}

#[endpoint]
impl Worker {
    #[receive]
    fn work(&mut self, _: Work) -> HandlerResult<()> {
        let start = Instant::now();
        while start.elapsed() < Duration::from_millis(1) {
            std::hint::spin_loop();
        }
        self.log.push(self.name);
        Ok(())
    }
}

#[test]
fn an_endpoint_whose_messages_take_long_gives_way_after_few() {
    actix_rt::System::new().block_on(async {
        let config = RpcEnvConfig::client("env").set("rpc.actix.mode", "inline").unwrap();
        let env = rpc_actix::create(config).await.unwrap();
        let log = Log::default();
        let busy = Worker { name: "busy", log: log.clone() };
        let busy = env.setup_endpoint("busy", busy).await.unwrap();
        let other = Worker { name: "other", log: log.clone() };
        let other = env.setup_endpoint("other", other).await.unwrap();
        // Fewer than rpc.dispatcher.yieldAfter.
        for _ in 0..60 {
            busy.send(Work).unwrap();
        }
        other.send(Work).unwrap();
        let order = log.reaches(61).await;
        let place = order.iter().position(|name| name == "other").unwrap();
        assert!(place <= 8, "the other endpoint had its turn after {place} messages");
        env.shutdown().await;
    });
}
