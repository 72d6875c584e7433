//! TCP.

use super::transport::{ByteStream, Listener, Socket, Transport};
use rpc_core::RpcAddress;
use rpc_core::spi::BoxFuture;
use std::io;
use std::net::{SocketAddr, ToSocketAddrs};
use std::sync::Arc;
use tokio::net::TcpStream;

pub(crate) struct Tcp;

/// Connections that the system keeps ready while the env is busy.
const BACKLOG: i32 = 1024;

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
            // Unregistered again: another thread may be the one to drive it.
            let stream = stream.into_std()?;
            Ok(Box::new(TcpSocket { stream, peer }) as Box<dyn Socket>)
        })
    }
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
        self.stream.set_nodelay(true)?;
        Ok(Box::new(TcpStream::from_std(self.stream)?))
    }
}
