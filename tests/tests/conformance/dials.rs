//! TCP by way of the test: it sees what is dialled, and says what comes of each dial.

use rpc_actix::ActixRpcEnvFactory;
use rpc_actix::transport::{ByteStream, Listener, Socket, Transport};
use rpc_core::spi::BoxFuture;
use rpc_core::{RpcAddress, RpcEnv, RpcEnvConfig, RpcEnvFactory, RpcError};
use rpc_tests::harness::{Gate, Log};
use std::collections::VecDeque;
use std::io;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// What comes of a dial.
pub(super) enum Dial {
    Connects,
    /// When the gate is open.
    Waits(Gate),
    Fails(io::ErrorKind),
    /// The same, when the gate is open.
    FailsLater(io::ErrorKind, Gate),
    Never,
}

type Decide = dyn Fn(usize) -> Dial + Send + Sync;

#[derive(Clone)]
pub(super) struct Dials {
    /// The addresses that were dialled.
    pub(super) log: Log,
    /// What the buffers of their sockets were limited to.
    pub(super) buffers: Log<usize>,
    decide: Arc<Decide>,
    /// The system's errors that come out of `accept` before the first connection.
    errors: Vec<i32>,
}

impl Dials {
    /// What comes of the first, second, ... dial, counted from 0.
    pub(super) fn new(decide: impl Fn(usize) -> Dial + Send + Sync + 'static) -> Self {
        let decide = Arc::new(decide);
        Self { log: Log::default(), buffers: Log::default(), decide, errors: Vec::new() }
    }

    pub(super) fn all_connect() -> Self {
        Self::new(|_| Dial::Connects)
    }

    /// The same, with a listener that fails like this at first.
    pub(super) fn accepts_after(mut self, errors: impl IntoIterator<Item = i32>) -> Self {
        self.errors = errors.into_iter().collect();
        self
    }

    /// An env on these. It has to be shut down by hand.
    pub(super) async fn env(&self, config: RpcEnvConfig) -> Result<RpcEnv, RpcError> {
        ActixRpcEnvFactory::new().with_transport(self.clone()).create(config).await
    }
}

impl Transport for Dials {
    fn bind(&self, address: &RpcAddress) -> io::Result<Box<dyn Listener>> {
        let listener = TcpListener::bind((address.host(), address.port()))?;
        listener.set_nonblocking(true)?;
        let port = listener.local_addr()?.port();
        let buffers = self.buffers.clone();
        let errors = self.errors.clone().into();
        Ok(Box::new(Bound { port, listener: Some(listener), registered: None, buffers, errors }))
    }

    fn connect(&self, address: &RpcAddress) -> BoxFuture<io::Result<Box<dyn Socket>>> {
        let dial = (self.decide)(self.log.len());
        self.log.push(address.to_string());
        let (address, buffers) = (address.clone(), self.buffers.clone());
        Box::pin(async move {
            match dial {
                Dial::Connects => {}
                Dial::Waits(gate) => gate.wait().await,
                Dial::Fails(kind) => return Err(kind.into()),
                Dial::FailsLater(kind, gate) => {
                    gate.wait().await;
                    return Err(kind.into());
                }
                Dial::Never => std::future::pending().await,
            }
            let stream = TcpStream::connect((address.host(), address.port()))?;
            stream.set_nonblocking(true)?;
            Ok(Box::new(Made(stream, buffers)) as Box<dyn Socket>)
        })
    }
}

struct Bound {
    port: u16,
    listener: Option<TcpListener>,
    registered: Option<Arc<tokio::net::TcpListener>>,
    buffers: Log<usize>,
    errors: VecDeque<i32>,
}

impl Listener for Bound {
    fn port(&self) -> u16 {
        self.port
    }

    fn accept(&mut self) -> BoxFuture<io::Result<Box<dyn Socket>>> {
        if let Some(errno) = self.errors.pop_front() {
            return Box::pin(async move { Err(io::Error::from_raw_os_error(errno)) });
        }
        if let Some(listener) = self.listener.take() {
            let registered = tokio::net::TcpListener::from_std(listener);
            self.registered = registered.ok().map(Arc::new);
        }
        let (listener, buffers) = (self.registered.clone(), self.buffers.clone());
        Box::pin(async move {
            let listener = listener.ok_or(io::ErrorKind::NotConnected)?;
            let (stream, _) = listener.accept().await?;
            Ok(Box::new(Made(stream.into_std()?, buffers)) as Box<dyn Socket>)
        })
    }
}

struct Made(TcpStream, Log<usize>);

impl Socket for Made {
    fn peer(&self) -> SocketAddr {
        self.0.peer_addr().unwrap_or_else(|_| SocketAddr::from(([0, 0, 0, 0], 0)))
    }

    fn open(self: Box<Self>) -> io::Result<Box<dyn ByteStream>> {
        self.0.set_nodelay(true)?;
        Ok(Box::new(Bytes(tokio::net::TcpStream::from_std(self.0)?, self.1)))
    }
}

struct Bytes(tokio::net::TcpStream, Log<usize>);

impl ByteStream for Bytes {
    fn limit_buffers(&self, bytes: usize) -> io::Result<()> {
        self.1.push(bytes);
        Ok(())
    }
}

impl AsyncRead for Bytes {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(cx, into)
    }
}

impl AsyncWrite for Bytes {
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
