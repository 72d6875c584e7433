//! A client that costs next to nothing: a socket, and frames put together by hand as
//! `docs/WIRE.md` says.

use anyhow::Context;
use bytes::{Buf, Bytes, BytesMut};
use std::sync::atomic::{AtomicU64, Ordering};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;

const HELLO: u8 = 0x01;
pub(crate) const RESOLVE: u8 = 0x02;
pub(crate) const RESOLVED: u8 = 0x03;
const ASK: u8 = 0x11;
const REPLY: u8 = 0x12;
const PING: u8 = 0x30;
const PONG: u8 = 0x31;

/// How far the number of a call's generation is from that of its slot.
const GENERATION: u64 = 1 << 24;
/// An ask's time, in ms.
const REMAINING: u32 = 10_000;

/// A connection on which a task answers pings.
#[derive(Debug)]
pub(crate) struct RawClient {
    asks: mpsc::Sender<(String, oneshot::Sender<u32>)>,
    task: JoinHandle<anyhow::Result<()>>,
}

impl RawClient {
    pub(crate) async fn connect(server: &str) -> anyhow::Result<Self> {
        static ENVS: AtomicU64 = AtomicU64::new(0);
        let env = (u64::from(std::process::id()) << 32) | ENVS.fetch_add(1, Ordering::Relaxed);
        let stream = greet(server, env).await?;
        let (asks, asked) = mpsc::channel(1);
        Ok(Self { asks, task: tokio::task::spawn_local(serve(stream, asked)) })
    }

    /// Resolves an endpoint as a new target, and asks it for its number.
    pub(crate) async fn ask(&mut self, endpoint: &str) -> anyhow::Result<u32> {
        let (answer, answered) = oneshot::channel();
        if self.asks.send((endpoint.to_owned(), answer)).await.is_ok()
            && let Ok(number) = answered.await
        {
            return Ok(number);
        }
        (&mut self.task).await?.context("the connection has ended")?;
        anyhow::bail!("the connection has ended")
    }
}

/// A connection on which both have said hello, this side as the env of that number. It promises no signs
/// of life.
pub(crate) async fn greet(server: &str, env: u64) -> anyhow::Result<TcpStream> {
    let mut stream = TcpStream::connect(server).await.context("connecting")?;
    stream.set_nodelay(true)?;
    let mut hello = vec![0x82];
    hello.extend_from_slice(b"\xa8versions\x92\x01\x01\xa3env\xcf");
    hello.extend_from_slice(&env.to_be_bytes());
    let mut bytes = b"ARPC".to_vec();
    bytes.extend_from_slice(&frame(HELLO, &hello));
    stream.write_all(&bytes).await?;
    // What the server says in its hello makes no difference here.
    let mut head = [0; 12];
    stream.read_exact(&mut head).await.context("the server's hello")?;
    let [b'A', b'R', b'P', b'C', a, b, c, d, HELLO, ..] = head else {
        anyhow::bail!("the server said {head:?}");
    };
    let mut hello = vec![0; u32::from_be_bytes([a, b, c, d]) as usize];
    stream.read_exact(&mut hello).await.context("the server's hello")?;
    Ok(stream)
}

/// Asks for an endpoint under that number.
pub(crate) fn resolve(target: u32, endpoint: &str) -> anyhow::Result<Vec<u8>> {
    let length = u8::try_from(endpoint.len())?;
    anyhow::ensure!(length < 32, "a longer name has another form");
    let mut resolve = target.to_be_bytes().to_vec();
    resolve.extend_from_slice(b"\x81\xa4name");
    resolve.push(0xa0 | length);
    resolve.extend_from_slice(endpoint.as_bytes());
    Ok(frame(RESOLVE, &resolve))
}

/// An ask of a target for a message without fields.
pub(crate) fn ask(call: u64, target: u32, message: u16) -> Vec<u8> {
    let mut ask = call.to_be_bytes().to_vec();
    ask.extend_from_slice(&target.to_be_bytes());
    ask.extend_from_slice(&REMAINING.to_be_bytes());
    ask.push(0x90);
    let mut bytes = frame(ASK, &ask);
    if let Some(number) = bytes.get_mut(6..8) {
        number.copy_from_slice(&message.to_be_bytes());
    }
    bytes
}

async fn serve(
    stream: TcpStream,
    mut asked: mpsc::Receiver<(String, oneshot::Sender<u32>)>,
) -> anyhow::Result<()> {
    let mut client = Client { stream, target: 0, call: 0, waiting: None };
    let mut buffer = BytesMut::new();
    loop {
        tokio::select! {
            // Dropped, it has read nothing.
            read = client.stream.read_buf(&mut buffer) => {
                anyhow::ensure!(read? > 0, "the server has closed the connection");
                while let Some((kind, payload)) = take(&mut buffer)? {
                    client.received(kind, &payload).await?;
                }
            }
            ask = asked.recv(), if client.waiting.is_none() => {
                let (endpoint, answer) = ask.context("nobody asks any more")?;
                client.resolve(&endpoint).await?;
                client.waiting = Some(answer);
            }
        }
    }
}

struct Client {
    stream: TcpStream,
    target: u32,
    call: u64,
    waiting: Option<oneshot::Sender<u32>>,
}

impl Client {
    async fn resolve(&mut self, endpoint: &str) -> anyhow::Result<()> {
        Ok(self.stream.write_all(&resolve(self.target, endpoint)?).await?)
    }

    async fn received(&mut self, kind: u8, payload: &[u8]) -> anyhow::Result<()> {
        match kind {
            PING => self.stream.write_all(&frame(PONG, payload)).await?,
            RESOLVED => {
                // It is the endpoint's only message.
                self.stream.write_all(&ask(self.call, self.target, 0)).await?;
                self.target += 1;
                self.call += GENERATION;
            }
            REPLY => {
                let number = number(payload.get(8..).unwrap_or_default())?;
                if let Some(waiting) = self.waiting.take() {
                    let _ = waiting.send(number);
                }
            }
            // Credit, signs of life, a goodbye, and what later versions have to say.
            0x20 | 0x32 | 0x38 | 0x80.. => {}
            other => anyhow::bail!("a frame of kind {other}"),
        }
        Ok(())
    }
}

/// Takes a whole frame off what has been read.
pub(crate) fn take(buffer: &mut BytesMut) -> anyhow::Result<Option<(u8, Bytes)>> {
    let Some([a, b, c, d, kind, ..]) = buffer.get(..8) else { return Ok(None) };
    let (length, kind) = (u32::from_be_bytes([*a, *b, *c, *d]) as usize, *kind);
    anyhow::ensure!(length < 1024 * 1024, "a frame of {length} bytes");
    if buffer.len() < 8 + length {
        return Ok(None);
    }
    buffer.advance(8);
    Ok(Some((kind, buffer.split_to(length).freeze())))
}

pub(crate) fn frame(kind: u8, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap_or(u32::MAX);
    let mut bytes = length.to_be_bytes().to_vec();
    bytes.extend_from_slice(&[kind, 0, 0, 0]);
    bytes.extend_from_slice(payload);
    bytes
}

/// An integer of MessagePack that is at most 32 bits.
fn number(body: &[u8]) -> anyhow::Result<u32> {
    match *body {
        [small @ 0..0x80] => Ok(u32::from(small)),
        [0xcc, value] => Ok(u32::from(value)),
        [0xcd, a, b] => Ok(u32::from(u16::from_be_bytes([a, b]))),
        [0xce, a, b, c, d] => Ok(u32::from_be_bytes([a, b, c, d])),
        _ => anyhow::bail!("the answer is not a number: {body:?}"),
    }
}
