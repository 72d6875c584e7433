//! A peer that speaks the protocol by hand, to say what no env of the library would.

use rpc_core::proto::{Close, CloseCode, Hello, PeerLimits};
use serde::{Deserialize, Serialize};
use std::io::{ErrorKind, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::time::Duration;

/// Frame kinds, as `docs/WIRE.md` numbers them.
pub(crate) mod kind {
    pub(crate) const HELLO: u8 = 0x01;
    pub(crate) const RESOLVE: u8 = 0x02;
    pub(crate) const RESOLVED: u8 = 0x03;
    pub(crate) const ONE_WAY: u8 = 0x10;
    pub(crate) const ASK: u8 = 0x11;
    pub(crate) const REPLY: u8 = 0x12;
    pub(crate) const PING: u8 = 0x30;
    pub(crate) const PONG: u8 = 0x31;
    pub(crate) const HEARTBEAT: u8 = 0x32;
    pub(crate) const GOODBYE: u8 = 0x38;
    pub(crate) const CLOSE: u8 = 0x39;
}

/// A frame that came.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Frame {
    /// What it is.
    pub(crate) kind: u8,
    /// What follows the header.
    pub(crate) payload: Vec<u8>,
}

/// What a CLOSE says.
#[derive(Debug, Deserialize)]
pub(crate) struct Reason {
    /// Its number.
    pub(crate) code: u16,
    /// For people.
    pub(crate) text: String,
}

/// One connection, by hand.
pub(crate) struct RawPeer {
    stream: TcpStream,
    seen: Vec<u8>,
    /// Whether signs of life, and questions for them, are passed over.
    pub(crate) skips_liveness: bool,
}

/// The bytes of a frame.
pub(crate) fn frame(kind: u8, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap();
    [&length.to_be_bytes(), &[kind, 0, 0, 0][..], payload].concat()
}

/// Magic and hello of a peer with that number, listening there or nowhere.
pub(crate) fn hello(env: u64, address: Option<&str>) -> Hello {
    Hello::new(env, address.map(str::to_owned), PeerLimits::default())
}

/// The answer to a RESOLVE of that target: an endpoint with those messages and that window.
pub(crate) fn resolved(target: u32, messages: &[&str], credit: u64) -> Vec<u8> {
    #[derive(Serialize)]
    struct Body<'a> {
        incarnation: (u64, u64),
        messages: &'a [&'a str],
        credit: (u64, u64),
    }
    let body = Body { incarnation: (1, 1), messages, credit: (credit, 1 << 24) };
    let body = rmp_serde::to_vec_named(&body).unwrap();
    frame(kind::RESOLVED, &[&target.to_be_bytes()[..], &body].concat())
}

impl RawPeer {
    /// A connection to that address.
    pub(crate) fn connect(address: &str) -> Self {
        Self::new(TcpStream::connect(address).unwrap())
    }

    /// The next connection that comes in.
    pub(crate) fn accept(listener: &TcpListener) -> Self {
        Self::new(listener.accept().unwrap().0)
    }

    fn new(stream: TcpStream) -> Self {
        // A net under tests that would hang; no test waits for it.
        stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        stream.set_nodelay(true).unwrap();
        Self { stream, seen: Vec::new(), skips_liveness: true }
    }

    /// Sends what the other side still takes.
    pub(crate) fn send(&mut self, bytes: &[u8]) {
        let _ = self.stream.write_all(bytes);
    }

    /// Sends magic and hello.
    pub(crate) fn say(&mut self, hello: &Hello) {
        let mut bytes = bytes::BytesMut::new();
        hello.put(&mut bytes);
        self.send(&bytes);
    }

    /// Ends the connection at once, and throws away what the other side says.
    pub(crate) fn reset(self) {
        self.stream.set_nonblocking(true).unwrap();
        tokio::net::TcpStream::from_std(self.stream).unwrap().set_zero_linger().unwrap();
    }

    /// Answers a hello with a refusal.
    pub(crate) fn refuse(&mut self, code: CloseCode) {
        let mut bytes = bytes::BytesMut::new();
        Close::new(code, "by hand").put_answer(&mut bytes);
        self.send(&bytes);
    }

    /// The next frame; none when the connection has ended.
    pub(crate) fn frame(&mut self) -> Option<Frame> {
        loop {
            let bytes = self.seen.strip_prefix(b"ARPC").unwrap_or(&self.seen);
            if let Some(header) = bytes.get(..8) {
                let length = u32::from_be_bytes([header[0], header[1], header[2], header[3]]);
                let whole = 8 + usize::try_from(length).unwrap();
                if let Some(payload) = bytes.get(8..whole) {
                    let frame = Frame { kind: header[4], payload: payload.to_vec() };
                    self.seen = bytes[whole..].to_vec();
                    if self.skips_liveness && matches!(frame.kind, kind::PING | kind::HEARTBEAT) {
                        continue;
                    }
                    return Some(frame);
                }
            }
            let mut more = [0; 4096];
            match self.stream.read(&mut more) {
                Ok(0) => return None,
                Ok(read) => self.seen.extend(&more[..read]),
                // What we sent and it had not read makes its close a reset.
                Err(error) if error.kind() == ErrorKind::ConnectionReset => return None,
                Err(error) => panic!("nothing came: {error}"),
            }
        }
    }

    /// Whether something has come that was not taken yet.
    pub(crate) fn has_bytes(&self) -> bool {
        self.stream.set_nonblocking(true).unwrap();
        let came = self.stream.peek(&mut [0]).is_ok();
        self.stream.set_nonblocking(false).unwrap();
        came || !self.seen.is_empty()
    }

    /// The next frame, which must be of that kind.
    #[track_caller]
    pub(crate) fn expect(&mut self, kind: u8) -> Frame {
        let frame = self.frame().expect("a frame");
        assert_eq!(frame.kind, kind, "{frame:?}");
        frame
    }

    /// The connection ends, and this is the reason that was given last, if one was.
    pub(crate) fn reason(&mut self) -> Option<Reason> {
        let mut reason = None;
        while let Some(frame) = self.frame() {
            if frame.kind == kind::CLOSE {
                reason = rmp_serde::from_slice(&frame.payload).ok();
            }
        }
        reason
    }
}
