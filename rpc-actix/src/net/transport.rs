//! The seam under the bridge: where byte streams come from.

use rpc_core::RpcAddress;
use rpc_core::spi::BoxFuture;
use std::io::{self, IoSlice};
use std::net::SocketAddr;
use std::sync::Arc;
use tokio::io::{AsyncRead, AsyncWrite};

/// A byte stream on the thread that drives it.
pub trait ByteStream: AsyncRead + AsyncWrite + Unpin {
    /// A way to write without the stream's driver, from any thread: for replies and lone asks, where
    /// they are made, and for signs of life while the driver's thread is blocked by a handler. `None`,
    /// the default, if there is none: then the driver writes all, and a blocked thread is silent.
    fn side_door(&self) -> Option<Arc<dyn SideDoor>> {
        None
    }

    /// Limits what the system holds of the stream in each direction (`rpc.io.socketBuffer`). A
    /// stream without buffers of the system's has nothing to do.
    ///
    /// # Errors
    /// As the system gives them.
    fn limit_buffers(&self, bytes: usize) -> io::Result<()> {
        let _ = bytes;
        Ok(())
    }

    /// When the stream is dropped, the system is to forget what it still holds for the peer, and
    /// to tell the peer at once that the connection has ended. Streams that are gone when they are
    /// dropped have nothing to do.
    ///
    /// # Errors
    /// As the system gives them.
    fn reset_on_drop(&self) -> io::Result<()> {
        Ok(())
    }
}

/// Writes into a stream beside its driver, which is kept from writing meanwhile.
pub trait SideDoor: Send + Sync {
    /// Writes as much as the system takes at once.
    ///
    /// # Errors
    /// `WouldBlock`, and what else the system says.
    fn try_write(&self, slices: &[IoSlice<'_>]) -> io::Result<usize>;
}

/// A connection that no thread drives yet.
pub trait Socket: Send {
    /// Who is at the other end.
    fn peer(&self) -> SocketAddr;

    /// Takes the connection onto the current thread.
    ///
    /// # Errors
    /// When the thread's runtime does not take it.
    fn open(self: Box<Self>) -> io::Result<Box<dyn ByteStream>>;
}

/// A bound port.
pub trait Listener: Send {
    /// The port it is bound to.
    fn port(&self) -> u16;

    /// The next connection.
    fn accept(&mut self) -> BoxFuture<io::Result<Box<dyn Socket>>>;
}

/// Makes connections: TCP, or a simulated network.
pub trait Transport: Send + Sync {
    /// Binds an address.
    ///
    /// # Errors
    /// As the system gives them; `AddrInUse` lets the next port be tried.
    fn bind(&self, address: &RpcAddress) -> io::Result<Box<dyn Listener>>;

    /// Connects to an address.
    fn connect(&self, address: &RpcAddress) -> BoxFuture<io::Result<Box<dyn Socket>>>;
}
