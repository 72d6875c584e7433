//! Which version speaks with which, from both ends of a connection: the matrix of docs/WIRE.md,
//! section 15, with what each side sees.
#![cfg(test)]

use rpc_actix::proto::{Hello, PeerLimits};
use rpc_actix::{ErrorKind, Outcome, RpcEnv, RpcEnvConfig, RpcError, Untyped};
use serde::{Deserialize, Serialize};
use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::thread;
use std::time::Duration;
use tokio::runtime::Runtime;

const HELLO: u8 = 0x01;
const RESOLVE: u8 = 0x02;
const UNRESOLVED: u8 = 0x04;
const PONG: u8 = 0x31;
const HEARTBEAT: u8 = 0x32;
const CLOSE: u8 = 0x39;

/// The versions of the other side, and what comes of them: the version that both use, or none.
const MATRIX: [((u16, u16), bool); 8] = [
    ((0, 0), false),
    ((0, 1), true),
    ((1, 1), true),
    ((1, 9), true),
    ((2, 3), false),
    ((9, 9), false),
    ((1, 0), false), // upside down: no version is in it
    ((0, u16::MAX), true),
];

/// What a side says that finds no version, the own ones first.
fn mismatch((lowest, highest): (u16, u16)) -> String {
    format!("no common protocol version: this side speaks 1 to 1, the other {lowest} to {highest}")
}

// ---- the other side, byte by byte

struct Peer(TcpStream);

#[derive(Debug, Deserialize)]
struct Reason {
    code: u16,
    text: String,
}

impl Peer {
    fn new(stream: TcpStream) -> Self {
        // A net under tests that would hang; no test waits for it.
        stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        Self(stream)
    }

    fn say(&mut self, kind: u8, payload: &[u8]) {
        let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
        let frame = [&length[..], &[kind, 0, 0, 0], payload].concat();
        self.0.write_all(&frame).unwrap();
    }

    fn say_hello(&mut self, versions: (u16, u16)) {
        let mut bytes = bytes::BytesMut::new();
        let hello = Hello::new(7, None, PeerLimits::default());
        hello.with_versions(versions.0, versions.1).put(&mut bytes);
        self.0.write_all(&bytes).unwrap();
    }

    fn hear_magic(&mut self) {
        let mut magic = [0; 4];
        self.0.read_exact(&mut magic).unwrap();
        assert_eq!(&magic, b"ARPC");
    }

    /// The next frame that is not a heartbeat.
    fn hear(&mut self) -> (u8, Vec<u8>) {
        loop {
            let mut header = [0; 8];
            self.0.read_exact(&mut header).unwrap();
            let length = u32::from_be_bytes([header[0], header[1], header[2], header[3]]);
            let mut payload = vec![0; usize::try_from(length).unwrap()];
            self.0.read_exact(&mut payload).unwrap();
            if header[4] != HEARTBEAT {
                return (header[4], payload);
            }
        }
    }

    /// CLOSE, and nothing behind it.
    fn hear_close(&mut self) -> (u16, String) {
        let (kind, payload) = self.hear();
        assert_eq!(kind, CLOSE);
        let reason: Reason = rmp_serde::from_slice(&payload).unwrap();
        let _ = self.0.shutdown(Shutdown::Write);
        let mut rest = Vec::new();
        assert_eq!(self.0.read_to_end(&mut rest).unwrap(), 0, "nothing follows a close");
        (reason.code, reason.text)
    }
}

fn runtime() -> Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap()
}

// ---- the env listens

fn listening(runtime: &Runtime) -> RpcEnv {
    let config = RpcEnvConfig::server("listener", "127.0.0.1:0");
    runtime.block_on(rpc_actix::create(config)).unwrap()
}

/// A later version may say other things in another form: what counts is that it is another version.
#[test]
fn the_version_is_looked_at_before_all_else() {
    #[derive(Serialize)]
    struct Later {
        versions: (u16, u16),
        env: u64,
        capabilities: Option<u8>,
    }
    let runtime = runtime();
    let env = listening(&runtime);
    let mut peer = Peer::new(TcpStream::connect(env.address().unwrap().to_string()).unwrap());
    peer.0.write_all(b"ARPC").unwrap();
    let later = Later { versions: (9, 9), env: 7, capabilities: None };
    peer.say(HELLO, &rmp_serde::to_vec_named(&later).unwrap());
    peer.hear_magic();
    assert_eq!(peer.hear_close(), (2, mismatch((9, 9))));
    runtime.block_on(env.shutdown());
}

fn dial(env: &RpcEnv) -> Peer {
    Peer::new(TcpStream::connect(env.address().unwrap().to_string()).unwrap())
}

#[test]
fn a_listener_takes_those_who_speak_its_version() {
    let runtime = runtime();
    let env = listening(&runtime);
    for (versions, common) in MATRIX {
        let mut peer = dial(&env);
        peer.say_hello(versions);
        peer.hear_magic();
        if common {
            let (kind, payload) = peer.hear();
            assert_eq!(kind, HELLO);
            let hello: Hello = rmp_serde::from_slice(&payload).unwrap();
            assert_eq!((hello.versions, hello.env), ((1, 1), env.id().as_u64()), "{versions:?}");
            peer.say(0x30, b"12345678");
            assert_eq!(peer.hear(), (PONG, b"12345678".to_vec()));
        } else {
            // In place of its hello.
            assert_eq!(peer.hear_close(), (2, mismatch(versions)));
        }
    }
    runtime.block_on(env.shutdown());
}

#[test]
fn versions_that_are_none() {
    let runtime = runtime();
    let env = listening(&runtime);
    for versions in ["none", "one", "three", "negative", "huge", "text"] {
        let versions: &[u8] = match versions {
            "none" => &[],
            "one" => b"\xa8versions\x91\x01",
            "three" => b"\xa8versions\x93\x01\x01\x01",
            "negative" => b"\xa8versions\x92\xff\x01",
            "huge" => b"\xa8versions\x92\x01\xce\x00\x01\x00\x00",
            _ => b"\xa8versions\xa3one",
        };
        let mut peer = dial(&env);
        let count = if versions.is_empty() { 0x81 } else { 0x82 };
        peer.0.write_all(b"ARPC").unwrap();
        peer.say(HELLO, &[&[count], &b"\xa3env\x07"[..], versions].concat());
        peer.hear_magic();
        assert_eq!(peer.hear_close().0, 4, "{versions:x?}");
    }
    runtime.block_on(env.shutdown());
}

/// A hello as a later version might have it, beside version 1.
#[derive(Serialize)]
struct Later {
    versions: (u16, u16),
    env: u64,
    capabilities: Vec<&'static str>,
    limits: LaterLimits,
    mood: Vec<(String, Option<f64>)>,
}

#[derive(Serialize)]
struct LaterLimits {
    in_flight: u32,
    patience: u64,
}

#[test]
fn what_a_later_version_adds_is_passed_over() {
    let runtime = runtime();
    let env = listening(&runtime);
    let mut peer = dial(&env);
    let hello = Later {
        versions: (1, 2),
        env: 7,
        capabilities: vec!["telepathy", "", "telepathy"],
        limits: LaterLimits { in_flight: 5, patience: u64::MAX },
        mood: vec![("a".into(), Some(0.5)), ("b".into(), None)],
    };
    peer.0.write_all(b"ARPC").unwrap();
    peer.say(HELLO, &rmp_serde::to_vec_named(&hello).unwrap());
    peer.hear_magic();
    assert_eq!(peer.hear().0, HELLO);
    // Kinds from 0x80 up, of any length and with any flags, are as if they were not there.
    for kind in 0x80..=0xff_u8 {
        peer.0.write_all(&[0, 0, 0, 3, kind, 0xff, 0xff, 0xff, 1, 2, 3]).unwrap();
        peer.say(kind, b"");
    }
    peer.say(0x30, b"12345678");
    assert_eq!(peer.hear(), (PONG, b"12345678".to_vec()));
    runtime.block_on(env.shutdown());
}

// ---- the env dials

/// A listener that runs `part` with its one connection, and what an env gets that looks for an
/// endpoint there.
fn dialled(part: impl FnOnce(Peer) + Send + 'static) -> Result<(), RpcError> {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let played = thread::spawn(move || {
        let (stream, _) = listener.accept().unwrap();
        let mut peer = Peer::new(stream);
        peer.hear_magic();
        let (kind, payload) = peer.hear();
        assert_eq!(kind, HELLO);
        let hello: Hello = rmp_serde::from_slice(&payload).unwrap();
        assert_eq!(hello.versions, (1, 1));
        part(peer);
    });
    let runtime = runtime();
    let found = runtime.block_on(async {
        let env = rpc_actix::create(RpcEnvConfig::client("dialler")).await.unwrap();
        let found = env.endpoint_ref::<Untyped>(&format!("rpc://nobody@{address}")).await;
        env.shutdown().await;
        found
    });
    played.join().unwrap();
    found.map(drop)
}

#[test]
fn a_dialler_keeps_those_who_speak_its_version() {
    for (versions, common) in MATRIX {
        let found = dialled(move |mut peer| {
            peer.say_hello(versions);
            if common {
                let (kind, payload) = peer.hear();
                assert_eq!(kind, RESOLVE, "{versions:?}");
                peer.say(UNRESOLVED, &[&payload[..4], b"\x81\xa4code\x03"].concat());
            } else {
                assert_eq!(peer.hear_close(), (2, mismatch(versions)));
            }
        });
        let error = found.unwrap_err();
        assert_eq!(error.outcome(), Outcome::NeverSent, "{versions:?}");
        if common {
            assert!(error.is_not_found(), "{versions:?}: {error:?}");
        } else {
            assert_eq!(error.kind(), ErrorKind::VersionMismatch, "{versions:?}: {error:?}");
            assert!(error.text().contains(&mismatch(versions)), "{error}");
        }
    }
}

#[test]
fn a_dialler_that_is_told_so() {
    // As a listener of version 2 would.
    let error = dialled(|mut peer| {
        peer.0.write_all(b"ARPC").unwrap();
        peer.say(CLOSE, b"\x82\xa4code\x02\xa4text\xa8too old!");
        let mut rest = Vec::new();
        let _ = peer.0.read_to_end(&mut rest);
        assert_eq!(rest, b"", "a refused dialler says nothing more");
    });
    let error = error.unwrap_err();
    assert_eq!((error.kind(), error.outcome()), (ErrorKind::VersionMismatch, Outcome::NeverSent));
    assert!(error.text().contains("too old!"), "{error}");
}
