//! A peer that speaks the protocol by hand, to say what no env of the library would.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::exhaustive_structs,
    reason = "this is the hand of tests: what it does not expect is the test's failure"
)]

use rpc_core::proto::{Close, CloseCode, Hello, PeerLimits};
use serde::{Deserialize, Serialize};
use std::io::{self, ErrorKind, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::time::Duration;

/// Frame kinds, as `docs/WIRE.md` numbers them.
#[expect(missing_docs, reason = "the page says what they are")]
pub mod kind {
    pub const HELLO: u8 = 0x01;
    pub const RESOLVE: u8 = 0x02;
    pub const RESOLVED: u8 = 0x03;
    pub const UNRESOLVED: u8 = 0x04;
    pub const GONE: u8 = 0x05;
    pub const RELEASE: u8 = 0x06;
    pub const ONE_WAY: u8 = 0x10;
    pub const ASK: u8 = 0x11;
    pub const REPLY: u8 = 0x12;
    pub const FAILURE: u8 = 0x13;
    pub const CANCEL: u8 = 0x14;
    pub const CHUNK: u8 = 0x15;
    pub const CHUNK_DROP: u8 = 0x16;
    pub const CREDIT: u8 = 0x20;
    pub const PING: u8 = 0x30;
    pub const PONG: u8 = 0x31;
    pub const HEARTBEAT: u8 = 0x32;
    pub const GOODBYE: u8 = 0x38;
    pub const CLOSE: u8 = 0x39;
}

/// Flags of frames.
#[expect(missing_docs, reason = "the page says what they are")]
pub mod flag {
    pub const FIRST: u8 = 0x01;
    pub const NAMED: u8 = 0x02;
    pub const HEADERS: u8 = 0x04;
    pub const BULK: u8 = 0x08;
}

/// A frame that came.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame {
    /// What it is.
    pub kind: u8,
    /// What follows the header.
    pub payload: Vec<u8>,
}

/// What a CLOSE says.
#[derive(Debug, Deserialize)]
pub struct Reason {
    /// Its number.
    pub code: u16,
    /// For people.
    pub text: String,
}

/// One connection, by hand.
#[derive(Debug)]
pub struct RawPeer {
    stream: TcpStream,
    seen: Vec<u8>,
    /// Whether signs of life, and questions for them, are passed over.
    pub skips_liveness: bool,
}

/// The bytes of a frame.
#[must_use]
pub fn frame(kind: u8, payload: &[u8]) -> Vec<u8> {
    flagged(kind, 0, 0, payload)
}

/// The bytes of a frame with flags and a message's number.
#[must_use]
pub fn flagged(kind: u8, flags: u8, message: u16, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap();
    let [high, low] = message.to_be_bytes();
    [&length.to_be_bytes(), &[kind, flags, high, low][..], payload].concat()
}

/// What a hello is on the wire, magic included.
#[must_use]
pub fn bytes_of(hello: &Hello) -> Vec<u8> {
    let mut bytes = bytes::BytesMut::new();
    hello.put(&mut bytes);
    bytes.to_vec()
}

/// A RESOLVE of that name.
#[must_use]
pub fn resolve(target: u32, name: &str) -> Vec<u8> {
    #[derive(Serialize)]
    struct Body<'a> {
        name: &'a str,
    }
    let body = rmp_serde::to_vec_named(&Body { name }).unwrap();
    frame(kind::RESOLVE, &[&target.to_be_bytes()[..], &body].concat())
}

/// An ask of target 0, with that many milliseconds left.
#[must_use]
pub fn ask(message: u16, call: u64, left: u32, body: &[u8]) -> Vec<u8> {
    let fields = [&call.to_be_bytes()[..], &[0; 4], &left.to_be_bytes(), body].concat();
    flagged(kind::ASK, 0, message, &fields)
}

/// A reply to that call.
#[must_use]
pub fn reply(call: u64, body: &[u8]) -> Vec<u8> {
    frame(kind::REPLY, &[&call.to_be_bytes()[..], body].concat())
}

/// The hello of a peer with that number, listening there or nowhere.
#[must_use]
pub fn hello(env: u64, address: Option<&str>) -> Hello {
    Hello::new(env, address.map(str::to_owned), PeerLimits::default())
}

/// The answer to a RESOLVE of that target: an endpoint with those messages and that window.
#[must_use]
pub fn resolved(target: u32, messages: &[&str], credit: u64) -> Vec<u8> {
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
    pub fn connect(address: &str) -> Self {
        Self::new(TcpStream::connect(address).unwrap())
    }

    /// The next connection that comes in.
    pub fn accept(listener: &TcpListener) -> Self {
        Self::new(listener.accept().unwrap().0)
    }

    fn new(stream: TcpStream) -> Self {
        // A net under tests that would hang; no test waits for it.
        stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        stream.set_nodelay(true).unwrap();
        Self { stream, seen: Vec::new(), skips_liveness: true }
    }

    /// Sends something; whether the other side still takes it.
    pub fn try_send(&mut self, bytes: &[u8]) -> bool {
        self.stream.write_all(bytes).is_ok()
    }

    /// Says nothing more, but listens.
    pub fn hang_up(&self) {
        let _ = self.stream.shutdown(Shutdown::Write);
    }

    /// This end of the connection.
    #[must_use]
    pub fn local(&self) -> String {
        self.stream.local_addr().unwrap().to_string()
    }

    /// Sends what the other side still takes.
    pub fn send(&mut self, bytes: &[u8]) {
        let _ = self.stream.write_all(bytes);
    }

    /// Sends magic and hello.
    pub fn say(&mut self, hello: &Hello) {
        self.send(&bytes_of(hello));
    }

    /// Ends the connection at once, and throws away what the other side says.
    pub fn reset(self) {
        self.stream.set_nonblocking(true).unwrap();
        tokio::net::TcpStream::from_std(self.stream).unwrap().set_zero_linger().unwrap();
    }

    /// Answers a hello with a refusal.
    pub fn refuse(&mut self, code: CloseCode) {
        let mut bytes = bytes::BytesMut::new();
        Close::new(code, "by hand").put_answer(&mut bytes);
        self.send(&bytes);
    }

    /// The next frame; none when the connection has ended.
    pub fn frame(&mut self) -> Option<Frame> {
        self.try_frame().expect("something comes")
    }

    /// The same.
    ///
    /// # Errors
    /// When nothing comes.
    pub fn try_frame(&mut self) -> io::Result<Option<Frame>> {
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
                    return Ok(Some(frame));
                }
            }
            let mut more = [0; 4096];
            match self.stream.read(&mut more) {
                Ok(0) => return Ok(None),
                Ok(read) => self.seen.extend(&more[..read]),
                // What we sent and it had not read makes its close a reset.
                Err(error) if error.kind() == ErrorKind::ConnectionReset => return Ok(None),
                Err(error) => return Err(error),
            }
        }
    }

    /// The connection is closed with that reason.
    #[track_caller]
    pub fn expect_close(mut self, code: u16, text: &str) {
        let reason = self.reason().expect("a reason");
        assert_eq!((reason.text.as_str(), reason.code), (text, code));
    }

    /// Whether something has come that was not taken yet.
    pub fn has_bytes(&self) -> bool {
        self.stream.set_nonblocking(true).unwrap();
        let came = self.stream.peek(&mut [0]).is_ok();
        self.stream.set_nonblocking(false).unwrap();
        came || !self.seen.is_empty()
    }

    /// The next frame, which must be of that kind.
    #[track_caller]
    pub fn expect(&mut self, kind: u8) -> Frame {
        let frame = self.frame().expect("a frame");
        assert_eq!(frame.kind, kind, "{frame:?}");
        frame
    }

    /// The connection ends, and this is the reason that was given last, if one was.
    pub fn reason(&mut self) -> Option<Reason> {
        let mut reason = None;
        while let Some(frame) = self.frame() {
            if frame.kind == kind::CLOSE {
                reason = rmp_serde::from_slice(&frame.payload).ok();
            }
        }
        reason
    }
}
