//! The hellos on a new connection, within their limits of bytes and time.

use super::node::Node;
use super::transport::ByteStream;
use crate::rt;
use bytes::BytesMut;
use rpc_core::proto::{Close, CloseCode, Hello, Hellos, PeerInfo, PeerLimits};
use rpc_core::{ErrorKind, RpcError, RpcTimeout};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

/// What the hellos leave: the peer, and what it sent after its hello.
pub(crate) struct Greeted {
    pub(crate) peer: PeerInfo,
    pub(crate) rest: BytesMut,
}

/// Says hello and waits for the peer's.
pub(crate) async fn greet(
    node: &Node,
    stream: &mut Box<dyn ByteStream>,
    peer: &str,
) -> Result<Greeted, RpcError> {
    let limits = node.config().limits();
    let limit = limits.handshake_timeout();
    match rt::within(limit, exchange(node, stream, peer)).await {
        Some(result) => result,
        None => {
            let timeout = RpcTimeout::new(limit, "rpc.io.handshakeTimeout");
            let text = format!("no hello within {timeout}");
            refuse(stream, &Close::new(CloseCode::Timeout, &text)).await;
            Err(RpcError::new(ErrorKind::Timeout, format!("{peer} sent {text}")))
        }
    }
}

async fn exchange(
    node: &Node,
    stream: &mut Box<dyn ByteStream>,
    peer: &str,
) -> Result<Greeted, RpcError> {
    let ours = node.hello();
    let mut out = BytesMut::new();
    ours.put(&mut out);
    let broken = |error: std::io::Error| {
        let text = format!("the connection to {peer} broke during the hello: {error}");
        RpcError::new(ErrorKind::Disconnected, text).with_source(error)
    };
    stream.write_all(&out).await.map_err(broken)?;
    let mut hellos = Hellos::new(ours, node.config().limits().pre_auth_bytes());
    let mut rest = BytesMut::with_capacity(1024);
    loop {
        match hellos.receive(&mut rest) {
            Ok(Some(peer)) => return Ok(Greeted { peer, rest }),
            Ok(None) => {}
            Err(close) => {
                refuse(stream, &close).await;
                return Err(close.to_error(peer));
            }
        }
        if stream.read_buf(&mut rest).await.map_err(broken)? == 0 {
            let text = format!("{peer} closed the connection during the hello");
            return Err(RpcError::new(ErrorKind::Disconnected, text));
        }
    }
}

/// Tells the peer why it is not taken, as far as it listens.
pub(crate) async fn refuse(stream: &mut Box<dyn ByteStream>, close: &Close) {
    let mut out = BytesMut::new();
    close.put(&mut out);
    let _ = stream.write_all(&out).await;
    let _ = stream.shutdown().await;
}

/// This env's hello.
pub(crate) fn hello(node: &Node) -> Hello {
    let address = node.address().map(|address| address.host_port());
    Hello::new(node.id(), address, PeerLimits::of(node.config().limits()))
}
