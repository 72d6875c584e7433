//! TCP.

use super::transport::{ByteStream, Listener, SideDoor, Socket, Transport};
use rpc_core::RpcAddress;
use rpc_core::spi::BoxFuture;
use std::io::{self, IoSlice};
use std::net::{SocketAddr, ToSocketAddrs};
use std::os::fd::AsRawFd;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};

pub(crate) struct Tcp;

/// What waits to be sent is kept to this part of what waits to be read: the reader takes all there is
/// in one go, and so rarely sleeps, while a small message stands behind whatever was given to the
/// system before it.
const SENT: usize = 4;

/// Connections that the system keeps ready while the env is busy. It takes what it allows of that
/// (`net.core.somaxconn`, 4,096 by default); one that finds no place is tried again after a second.
const BACKLOG: i32 = 4096;

impl Transport for Tcp {
    fn bind(&self, address: &RpcAddress) -> io::Result<Box<dyn Listener>> {
        // Bound here and now, so that an error is the caller's; registered where it is polled.
        let resolved = (address.bare_host(), address.port()).to_socket_addrs()?;
        let mut last = io::Error::from(io::ErrorKind::AddrNotAvailable);
        for candidate in resolved {
            match listen(candidate) {
                Ok(listener) => {
                    let port = listener.local_addr()?.port();
                    return Ok(Box::new(TcpListener {
                        port,
                        listener: Some(listener),
                        registered: None,
                    }));
                }
                Err(error) => last = error,
            }
        }
        Err(last)
    }

    fn connect(&self, address: &RpcAddress) -> BoxFuture<io::Result<Box<dyn Socket>>> {
        let address = address.clone();
        Box::pin(async move {
            // The name is resolved anew each time: addresses change (S119).
            let candidates = tokio::net::lookup_host((address.bare_host(), address.port())).await?;
            let mut last = io::Error::from(io::ErrorKind::AddrNotAvailable);
            for candidate in candidates {
                match TcpStream::connect(candidate).await {
                    Ok(stream) => {
                        let stream = stream.into_std()?;
                        return Ok(
                            Box::new(TcpSocket { stream, peer: candidate }) as Box<dyn Socket>
                        );
                    }
                    Err(error) => last = error,
                }
            }
            Err(last)
        })
    }
}

fn listen(address: SocketAddr) -> io::Result<std::net::TcpListener> {
    let domain = socket2::Domain::for_address(address);
    let socket = socket2::Socket::new(domain, socket2::Type::STREAM, None)?;
    // A restart on the same port must not wait for the old connections to fade.
    socket.set_reuse_address(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

struct TcpListener {
    port: u16,
    listener: Option<std::net::TcpListener>,
    registered: Option<Arc<tokio::net::TcpListener>>,
}

impl TcpListener {
    /// The listener, known to the current thread's runtime.
    fn registered(&mut self) -> io::Result<Arc<tokio::net::TcpListener>> {
        if let Some(listener) = self.listener.take() {
            self.registered = Some(Arc::new(tokio::net::TcpListener::from_std(listener)?));
        }
        self.registered.clone().ok_or_else(|| io::Error::from(io::ErrorKind::NotConnected))
    }
}

impl Listener for TcpListener {
    fn port(&self) -> u16 {
        self.port
    }

    fn accept(&mut self) -> BoxFuture<io::Result<Box<dyn Socket>>> {
        let listener = self.registered();
        Box::pin(async move {
            let listener = listener?;
            let (stream, peer) = listener.accept().await?;
            keep_in_reserve(&stream)?;
            // Unregistered again: another thread may be the one to drive it.
            let stream = stream.into_std()?;
            Ok(Box::new(TcpSocket { stream, peer }) as Box<dyn Socket>)
        })
    }
}

/// Descriptors that connections which come in leave to others: files, and dials of our own.
const RESERVE: u64 = 64;

/// Refuses a connection that has one of the last descriptors: the system hands out the lowest
/// that is free, so its number says how many are left.
fn keep_in_reserve(stream: &TcpStream) -> io::Result<()> {
    let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile).current;
    let number = u64::try_from(stream.as_raw_fd()).unwrap_or(u64::MAX);
    if limit.is_some_and(|limit| number >= limit.saturating_sub(RESERVE)) {
        return Err(rustix::io::Errno::MFILE.into());
    }
    Ok(())
}

struct TcpSocket {
    stream: std::net::TcpStream,
    peer: SocketAddr,
}

impl Socket for TcpSocket {
    fn peer(&self) -> SocketAddr {
        self.peer
    }

    fn open(self: Box<Self>) -> io::Result<Box<dyn ByteStream>> {
        Ok(Box::new(TcpBytes::new(self.stream)?))
    }
}

/// A connection whose writing half can be reached from other threads as well.
struct TcpBytes {
    read: OwnedReadHalf,
    write: Arc<Writer>,
}

impl TcpBytes {
    fn new(stream: std::net::TcpStream) -> io::Result<Self> {
        stream.set_nodelay(true)?;
        let (read, write) = TcpStream::from_std(stream)?.into_split();
        Ok(Self { read, write: Arc::new(Writer(Mutex::new(write))) })
    }
}

struct Writer(Mutex<OwnedWriteHalf>);

impl Writer {
    fn lock(&self) -> MutexGuard<'_, OwnedWriteHalf> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl ByteStream for TcpBytes {
    fn side_door(&self) -> Option<Arc<dyn SideDoor>> {
        Some(self.write.clone())
    }

    fn limit_buffers(&self, bytes: usize) -> io::Result<()> {
        let stream: &TcpStream = self.read.as_ref();
        let socket = socket2::SockRef::from(stream);
        socket.set_recv_buffer_size(bytes)?;
        socket.set_send_buffer_size(bytes / SENT)
    }

    fn reset_on_drop(&self) -> io::Result<()> {
        let stream: &TcpStream = self.read.as_ref();
        socket2::SockRef::from(stream).set_linger(Some(Duration::ZERO))
    }
}

impl SideDoor for Writer {
    fn try_write(&self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        match slices {
            [only] => self.lock().try_write(only),
            _ => self.lock().try_write_vectored(slices),
        }
    }
}

impl AsyncRead for TcpBytes {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.read).poll_read(cx, into)
    }
}

impl AsyncWrite for TcpBytes {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut *self.write.lock()).poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut *self.write.lock()).poll_write_vectored(cx, slices)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut *self.write.lock()).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut *self.write.lock()).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn less_waits_to_be_sent_than_to_be_read() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build().unwrap();
        let _inside = runtime.enter();
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let stream = std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        stream.set_nonblocking(true).unwrap();
        let bytes = TcpBytes::new(stream).unwrap();
        bytes.limit_buffers(128 * 1024).unwrap();
        let stream: &TcpStream = bytes.read.as_ref();
        let socket = socket2::SockRef::from(stream);
        let (read, sent) = (socket.recv_buffer_size().unwrap(), socket.send_buffer_size().unwrap());
        assert_eq!(sent, read / SENT);
    }

    #[test]
    fn s120_small_messages_are_not_held_back() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build().unwrap();
        let _inside = runtime.enter();
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let dialled = std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        for stream in [dialled, listener.accept().unwrap().0] {
            stream.set_nonblocking(true).unwrap();
            let bytes = TcpBytes::new(stream).unwrap();
            assert!(bytes.read.as_ref().nodelay().unwrap());
        }
    }
}
