//! The simulated network, as the bridge sees it.

use super::connection::{ACCEPTOR, DIALLER, Dial};
use super::network::{Network, State};
use super::pipe::{End, Segment};
use super::trace::bytes_hash;
use crate::net::transport::{ByteStream, Listener, SideDoor, Socket, Transport};
use bytes::Bytes;
use rpc_core::RpcAddress;
use rpc_core::spi::BoxFuture;
use std::io::{self, IoSlice};
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// The most that one write takes.
const SEGMENT: usize = 64 * 1024;
/// The most that one read takes: what fits must not depend on how large the reader's buffer is.
const READ: usize = 16 * 1024;

/// The network as one life of one node has it. When that life is over, nothing that is left of it
/// reaches the network: what it writes is swallowed, and what it waits for never comes.
#[derive(Clone)]
pub(super) struct Gate {
    network: Arc<Network>,
    at: IpAddr,
    life: u64,
}

impl Gate {
    pub(super) fn new(network: Arc<Network>, at: IpAddr, life: u64) -> Self {
        Self { network, at, life }
    }

    /// Works on the network; `None` when this life is over.
    fn with<R>(&self, f: impl FnOnce(&mut State) -> R) -> Option<R> {
        self.network.with(|state| state.host(self.at).is_alive(self.life).then(|| f(state)))
    }
}

impl Transport for Gate {
    fn bind(&self, address: &RpcAddress) -> io::Result<Box<dyn Listener>> {
        if address.ip() != Some(self.at) {
            let text = format!("a simulated node listens on its own address, {}, only", self.at);
            return Err(io::Error::new(io::ErrorKind::AddrNotAvailable, text));
        }
        let bound = self.with(|state| {
            let host = state.host(self.at);
            let port = if address.port() == 0 { host.any_port() } else { address.port() };
            host.listen(port).then_some(port)
        });
        let port = bound.flatten().ok_or(io::ErrorKind::AddrInUse)?;
        Ok(Box::new(Listening { gate: self.clone(), port }))
    }

    fn connect(&self, address: &RpcAddress) -> BoxFuture<io::Result<Box<dyn Socket>>> {
        let (gate, to) = (self.clone(), address.ip().map(|ip| SocketAddr::new(ip, address.port())));
        Box::pin(async move {
            let to = to.ok_or_else(|| {
                io::Error::new(
                    io::ErrorKind::NotFound,
                    "a simulated network has no names, only addresses",
                )
            })?;
            let dialled = gate.with(|state| state.dial(gate.at, gate.life, to));
            let Some(number) = dialled else { return std::future::pending().await };
            let held = Held(Place { gate, number, end: DIALLER });
            std::future::poll_fn(|cx| held.0.poll_dial(cx)).await?;
            Ok(Box::new(Accepted { held, peer: to }) as Box<dyn Socket>)
        })
    }
}

struct Listening {
    gate: Gate,
    port: u16,
}

impl Listener for Listening {
    fn port(&self) -> u16 {
        self.port
    }

    fn accept(&mut self) -> BoxFuture<io::Result<Box<dyn Socket>>> {
        let (gate, port) = (self.gate.clone(), self.port);
        Box::pin(async move {
            let (number, peer) = std::future::poll_fn(|cx| {
                let next = gate.with(|state| {
                    let number = state.host(gate.at).accept(port, cx.waker())?;
                    let connection = state.connections.get(&number)?;
                    Some((number, connection.end(DIALLER).at))
                });
                next.flatten().map_or(Poll::Pending, Poll::Ready)
            })
            .await;
            let held = Held(Place { gate, number, end: ACCEPTOR });
            Ok(Box::new(Accepted { held, peer }) as Box<dyn Socket>)
        })
    }
}

impl Drop for Listening {
    fn drop(&mut self) {
        self.gate.with(|state| {
            let waiting = state.host(self.gate.at).unlisten(self.port);
            waiting.into_iter().for_each(|number| state.close(number, ACCEPTOR));
        });
    }
}

/// One end of a connection.
#[derive(Clone)]
struct Place {
    gate: Gate,
    number: u64,
    end: usize,
}

/// The same, given up when dropped.
struct Held(Place);

impl Place {
    fn poll_dial(&self, cx: &Context<'_>) -> Poll<io::Result<()>> {
        let polled = self.gate.with(|state| {
            let Some(connection) = state.connections.get_mut(&self.number) else {
                return Poll::Ready(Err(io::ErrorKind::ConnectionReset.into()));
            };
            match connection.dial {
                Dial::Taken => Poll::Ready(Ok(())),
                Dial::Refused => Poll::Ready(Err(io::ErrorKind::ConnectionRefused.into())),
                Dial::UnderWay => {
                    connection.dialler = Some(cx.waker().clone());
                    Poll::Pending
                }
            }
        });
        polled.unwrap_or(Poll::Pending)
    }

    fn poll_read(&self, cx: &Context<'_>, most: usize) -> Poll<io::Result<Bytes>> {
        let polled = self.gate.with(|state| {
            let Some(connection) = state.connections.get_mut(&self.number) else {
                return Poll::Ready(Err(io::ErrorKind::ConnectionReset.into()));
            };
            let pipe = connection.into(self.end);
            let readable = pipe.readable().min(READ).min(most);
            if readable > 0 {
                let weather = state.map.at(pipe.from, pipe.to);
                let taken = pipe.take(state.now, weather.piece(&mut state.random, readable));
                state.wakes.extend(pipe.writer.take());
                return Poll::Ready(Ok(taken));
            }
            match pipe.end {
                Some(End::Fin) => Poll::Ready(Ok(Bytes::new())),
                Some(End::Reset) => Poll::Ready(Err(io::ErrorKind::ConnectionReset.into())),
                None => {
                    pipe.reader = Some(cx.waker().clone());
                    Poll::Pending
                }
            }
        });
        polled.unwrap_or(Poll::Pending)
    }

    /// Writes, or has the waker woken when there is room.
    fn write(&self, waker: Option<&Waker>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let polled = self.gate.with(|state| {
            let Some(connection) = state.connections.get_mut(&self.number) else {
                return Poll::Ready(Err(io::ErrorKind::ConnectionReset.into()));
            };
            if connection.into(self.end).end == Some(End::Reset) {
                return Poll::Ready(Err(io::ErrorKind::ConnectionReset.into()));
            }
            let pipe = connection.out(self.end);
            if pipe.finished {
                return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
            }
            let weather = state.map.at(pipe.from, pipe.to);
            let room = weather.buffer.saturating_sub(pipe.held()).min(SEGMENT).min(bytes.len());
            if room == 0 && !bytes.is_empty() {
                pipe.writer = waker.cloned().or_else(|| pipe.writer.take());
                return Poll::Pending;
            }
            let piece = weather.piece(&mut state.random, room);
            let data = Bytes::copy_from_slice(bytes.get(..piece).unwrap_or_default());
            state.note("writes", &[self.number, u64::from(self.end == DIALLER), bytes_hash(&data)]);
            state.send(self.number, self.end, Segment::Data(data));
            Poll::Ready(Ok(piece))
        });
        // Who is dead believes that it writes.
        polled.unwrap_or(Poll::Ready(Ok(bytes.len())))
    }

    fn shutdown(&self) {
        self.gate.with(|state| {
            let Some(connection) = state.connections.get_mut(&self.number) else { return };
            let out = connection.out(self.end);
            if !std::mem::replace(&mut out.finished, true) {
                state.send(self.number, self.end, Segment::Fin);
            }
        });
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.0.gate.with(|state| state.close(self.0.number, self.0.end));
    }
}

/// A connection that nobody drives yet.
struct Accepted {
    held: Held,
    peer: SocketAddr,
}

impl Socket for Accepted {
    fn peer(&self) -> SocketAddr {
        self.peer
    }

    fn open(self: Box<Self>) -> io::Result<Box<dyn ByteStream>> {
        Ok(Box::new(Stream(self.held)))
    }
}

struct Stream(Held);

impl ByteStream for Stream {
    fn side_door(&self) -> Option<Arc<dyn SideDoor>> {
        Some(Arc::new(self.0.0.clone()))
    }
}

impl SideDoor for Place {
    fn try_write(&self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        let first = slices.iter().find(|slice| !slice.is_empty());
        match self.write(None, first.map_or(&[], |slice| slice)) {
            Poll::Ready(written) => written,
            Poll::Pending => Err(io::ErrorKind::WouldBlock.into()),
        }
    }
}

impl AsyncRead for Stream {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.0.0.poll_read(cx, into.remaining()).map_ok(|bytes| into.put_slice(&bytes))
    }
}

impl AsyncWrite for Stream {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.0.0.write(Some(cx.waker()), bytes)
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.0.0.shutdown();
        Poll::Ready(Ok(()))
    }
}
