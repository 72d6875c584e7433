//! The hellos on a new connection, within their limits of bytes and time. The side that has
//! dialled speaks first; the other one answers only a hello that it has seen, so a stranger
//! learns nothing, and its answer means that the connection is taken.

use super::node::Node;
use super::transport::ByteStream;
use bytes::BytesMut;
use rpc_core::proto::{Close, CloseCode, Hello, Hellos, PeerInfo, PeerLimits};
use rpc_core::spi::Count;
use rpc_core::{EndpointLocation, EnvId, ErrorKind, RpcError, RpcTimeout};
use std::future::Future;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

/// What the hellos leave: the peer, and what it sent after its hello.
pub(crate) struct Greeted {
    pub(crate) peer: PeerInfo,
    pub(crate) rest: BytesMut,
    /// What this side has called the connection, if it has dialled.
    pub(crate) number: Option<u64>,
}

/// Why a dial came to nothing.
pub(crate) enum NotTaken {
    /// The peer dials as well, and its dial is the one that counts.
    Declined,
    Failed(RpcError),
}

impl From<RpcError> for NotTaken {
    fn from(error: RpcError) -> Self {
        Self::Failed(error)
    }
}

/// A hello that did not come, or is not taken.
pub(crate) struct Unheard {
    pub(crate) error: RpcError,
    /// What the peer is to be told.
    pub(crate) tell: Option<Close>,
    /// Whether the peer said that its own dial is the one that counts.
    pub(crate) declined: bool,
}

impl From<RpcError> for Unheard {
    fn from(error: RpcError) -> Self {
        Self { error, tell: None, declined: false }
    }
}

/// Bounds a handshake in time.
pub(crate) async fn in_time<T, E: From<RpcError>>(
    node: &Node,
    peer: &str,
    exchange: impl Future<Output = Result<T, E>>,
) -> Result<T, E> {
    let limit = node.config().limits().handshake_timeout();
    let timeout = RpcTimeout::new(limit, "rpc.io.handshakeTimeout");
    node.clock.within(limit, exchange).await.unwrap_or_else(|| {
        node.tally.count(Count::HellosTimedOut);
        let text = format!("{peer} sent no hello within {timeout}");
        Err(E::from(RpcError::new(ErrorKind::Timeout, text)))
    })
}

fn broken(node: &Node, peer: &str, error: std::io::Error) -> RpcError {
    node.tally.count(Count::HellosBroken);
    let text = format!("the connection to {peer} broke during the hello: {error}");
    RpcError::new(ErrorKind::Disconnected, text).with_source(error)
}

/// Says hello to whoever was dialled, and hears the answer.
pub(crate) async fn introduce(
    node: &Node,
    stream: &mut Box<dyn ByteStream>,
    peer: &str,
    follows: Option<u64>,
) -> Result<Greeted, NotTaken> {
    in_time(node, peer, async {
        let number = node.next_number();
        let hello = node.hello().with_dialled(peer).with_number(number, follows);
        say(node, stream, peer, &hello).await?;
        match hear(node, stream, peer).await {
            Ok(greeted) => Ok(Greeted { number: Some(number), ..greeted }),
            Err(unheard) if unheard.declined => Err(NotTaken::Declined),
            Err(unheard) => {
                if let Some(close) = &unheard.tell {
                    node.tally.count(Count::close_sent(close.code));
                    let mut out = BytesMut::new();
                    close.put(&mut out);
                    let _ = stream.write_all(&out).await;
                }
                Err(NotTaken::Failed(unheard.error))
            }
        }
    })
    .await
}

/// Waits for the peer's hello.
pub(crate) async fn hear(
    node: &Node,
    stream: &mut Box<dyn ByteStream>,
    peer: &str,
) -> Result<Greeted, Unheard> {
    let mut hellos = Hellos::new(node.hello(), node.config().limits().pre_auth_bytes());
    let mut rest = BytesMut::with_capacity(1024);
    loop {
        match hellos.receive(&mut rest) {
            Ok(Some(peer)) => return Ok(Greeted { peer, rest, number: None }),
            Ok(None) => {}
            Err(close) => {
                let (error, theirs) = (close.to_error(peer), hellos.closed_by_peer());
                let declined = theirs && close.is(CloseCode::Duplicate);
                match (theirs, hellos.magic_seen()) {
                    (true, _) => node.tally.count(Count::close_received(close.code)),
                    (false, false) => node.tally.count(Count::HellosForeign),
                    // What is told is counted then.
                    (false, true) => {}
                }
                let tell = (hellos.magic_seen() && !theirs).then_some(close);
                return Err(Unheard { error, tell, declined });
            }
        }
        let read = stream.read_buf(&mut rest).await;
        let read = read.map_err(|error| broken(node, peer, error))?;
        node.tally.count(Count::Reads);
        node.tally.add(Count::BytesReceived, read as u64);
        if read == 0 {
            node.tally.count(Count::HellosBroken);
            let text = format!("{peer} closed the connection during the hello");
            return Err(RpcError::new(ErrorKind::Disconnected, text).into());
        }
    }
}

/// Says this env's hello.
pub(crate) async fn answer(
    node: &Node,
    stream: &mut Box<dyn ByteStream>,
    peer: &str,
) -> Result<(), RpcError> {
    say(node, stream, peer, &node.hello()).await
}

async fn say(
    node: &Node,
    stream: &mut Box<dyn ByteStream>,
    peer: &str,
    hello: &Hello,
) -> Result<(), RpcError> {
    let mut out = BytesMut::new();
    hello.put(&mut out);
    stream.write_all(&out).await.map_err(|error| broken(node, peer, error))?;
    node.tally.count(Count::Writes);
    node.tally.add(Count::BytesSent, out.len() as u64);
    Ok(())
}

/// Tells the peer why its hello is not taken, as far as it listens.
pub(crate) async fn refuse(node: &Node, stream: &mut Box<dyn ByteStream>, close: &Close) {
    let mut out = BytesMut::new();
    close.put_answer(&mut out);
    last_words(node, stream, close, &out).await;
}

/// Tells a peer that has answered that another connection with it counts, or none.
pub(crate) async fn displaced(node: &Node, stream: &mut Box<dyn ByteStream>) {
    let close = if node.is_closed() {
        Close::new(CloseCode::Shutdown, "the env has been shut down")
    } else {
        Close::new(
            CloseCode::Duplicate,
            "another connection came first, and is the one that counts",
        )
    };
    let mut out = BytesMut::new();
    close.put(&mut out);
    last_words(node, stream, &close, &out).await;
}

async fn last_words(node: &Node, stream: &mut Box<dyn ByteStream>, close: &Close, words: &[u8]) {
    node.tally.count(Count::close_sent(close.code));
    let _ = stream.write_all(words).await;
    let _ = stream.shutdown().await;
}

/// This env's hello.
pub(crate) fn hello(node: &Node) -> Hello {
    let address = node.address().map(|address| address.host_port());
    let limits = node.config().limits();
    Hello::new(node.id(), address, PeerLimits::of(limits)).with_heartbeat(limits.heartbeat())
}

/// Which env has said that: where it listens, or its number.
pub(crate) fn whose(hello: &Hello) -> EndpointLocation {
    let listening = hello.address.as_deref().and_then(|text| text.parse().ok());
    listening.map_or_else(
        || EndpointLocation::Client(EnvId::new(hello.env)),
        EndpointLocation::Listening,
    )
}
