//! Bodies that are made to cost much: deep ones, wide ones, and those that lie about what follows. They
//! are decoded on a stack of 2 MiB, in a process of its own: an overflow would end it.
#![cfg(test)]

use rpc_core::{ErrorKind, LocalWorld, RpcEnv, RpcEnvConfig, RpcEnvFactory, assert_wire_type};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::process::Command;

const LEVELS: usize = 200_000;
const MIB: u64 = 1 << 20;
const ELEMENTS: usize = 1 << 20;
/// Set in the process that decodes.
const CHILD: &str = "RPC_TESTS_DECODES_BOMBS";

#[derive(Debug, Serialize, Deserialize)]
enum Tree {
    Leaf,
    Same(Box<Self>),
    Maybe(Option<Box<Self>>),
    Pair(Box<Self>, Box<Self>),
}

#[derive(Debug, Serialize, Deserialize)]
struct List {
    next: Option<Box<Self>>,
}

#[derive(Debug, Serialize, Deserialize)]
struct Wrapped(Vec<Self>);

#[derive(Debug, Serialize, Deserialize)]
struct Named {
    inner: BTreeMap<String, Self>,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(untagged)]
enum Either {
    Number(u32),
    List(Vec<Self>),
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(tag = "t")]
enum Tagged {
    A { inner: Option<Box<Self>> },
}

#[derive(Debug, Serialize, Deserialize)]
struct Wide {
    a: Option<String>,
    b: Option<[u64; 8]>,
}

fn env() -> (LocalWorld, RpcEnv) {
    let world = LocalWorld::new();
    let env = world.block_on(world.factory().create(RpcEnvConfig::client("bombs")));
    (world, env.unwrap())
}

/// A body of one value in another, so many times.
fn nested(level: &[u8], levels: usize, last: &[u8]) -> Vec<u8> {
    let mut body = level.repeat(levels);
    body.extend_from_slice(last);
    body
}

/// The bytes that decoding held at its peak, and how it ended.
fn decode<T: DeserializeOwned>(env: &RpcEnv, body: &[u8]) -> (u64, Result<T, ErrorKind>) {
    let mut result = None;
    let measured = allocation_counter::measure(|| {
        result = Some(env.decode::<T>(body).map_err(|error| error.kind()));
    });
    (measured.bytes_max, result.unwrap())
}

/// As deep as a body can be: an error, at the price of its text. As deep as is allowed: a value, unless
/// the type is another.
fn deep<T: DeserializeOwned>(env: &RpcEnv, level: &[u8], last: &[u8], allowed: usize) {
    let name = std::any::type_name::<T>();
    for levels in [allowed + 1, 1_000, 1_024, 5_000, LEVELS] {
        let (peak, result) = decode::<T>(env, &nested(level, levels, last));
        assert_eq!(result.err(), Some(ErrorKind::Decode), "{name}, {levels} levels");
        assert!(peak < 64 * 1024, "{name}, {levels} levels: {peak} bytes");
    }
    let (peak, result) = decode::<T>(env, &nested(level, allowed, last));
    assert!(result.is_ok(), "{name} with {allowed} levels: {:?}", result.err());
    assert!(peak < MIB, "{name}: {peak} bytes");
}

/// Many small elements: twice what they are in memory, since a list doubles as it grows, and a MiB.
fn wide<T: DeserializeOwned>(env: &RpcEnv, element: &[u8]) {
    let name = std::any::type_name::<T>();
    let mut body = vec![0xdd];
    body.extend_from_slice(&(ELEMENTS as u32).to_be_bytes());
    body.extend_from_slice(&element.repeat(ELEMENTS));
    let (peak, result) = decode::<Vec<T>>(env, &body);
    assert_eq!(result.map(|all| all.len()), Ok(ELEMENTS), "{name}");
    let most = body.len() + 3 * ELEMENTS * size_of::<T>();
    assert!(peak <= most as u64 + MIB, "{name}: {peak} bytes, not {most}");
    // One more is more than is allowed.
    body.extend_from_slice(element);
    body[1..5].copy_from_slice(&(ELEMENTS as u32 + 1).to_be_bytes());
    let (peak, result) = decode::<Vec<T>>(env, &body);
    assert_eq!(result.err(), Some(ErrorKind::Decode));
    assert!(peak < 64 * 1024, "{name}: {peak} bytes for nothing");
}

fn liars(env: &RpcEnv) {
    let mut bodies: Vec<Vec<u8>> = Vec::new();
    for head in [0xdd_u8, 0xdf, 0xc6, 0xdb, 0xc9] {
        bodies.push(vec![head, 0xff, 0xff, 0xff, 0xff]);
        bodies.push(vec![head, 0x7f, 0xff, 0xff, 0xff, 1]);
    }
    // Each of these lists fits into what follows it; all of them together do not.
    let mut lists = Vec::new();
    for _ in 0..24_000 {
        lists.extend_from_slice(&[0xdc, 0x11, 0x11]);
    }
    bodies.push(lists);
    for body in bodies {
        for peak in [
            decode::<Vec<Vec<u64>>>(env, &body),
            decode::<Vec<Vec<u64>>>(env, &[&[0x91][..], &body].concat()),
        ]
        .map(|(peak, result)| {
            assert_eq!(result.err(), Some(ErrorKind::Decode), "{:x?}", &body[..5]);
            peak
        }) {
            assert!(peak < 64 * 1024, "{:x?}: {peak} bytes", &body[..5]);
        }
        let (peak, result) = decode::<BTreeMap<String, bytes::Bytes>>(env, &body);
        assert!(result.is_err() && peak < 64 * 1024, "{:x?}: {peak} bytes", &body[..5]);
    }
}

fn bombs() {
    let (_world, env) = env();
    deep::<Tree>(&env, b"\x81\xa4Same", b"\xa4Leaf", 64);
    deep::<Tree>(&env, b"\x81\xa5Maybe", b"\xa4Leaf", 64);
    deep::<List>(&env, b"\x81\xa4next", b"\xc0", 64);
    deep::<Wrapped>(&env, b"\x91", b"\x90", 63);
    deep::<Named>(&env, b"\x81\xa5inner\x81\xa1x", b"\x81\xa5inner\x80", 31);
    deep::<Either>(&env, b"\x91", b"\x01", 64);
    deep::<Tagged>(&env, b"\x82\xa1t\xa1A\xa5inner", b"\xc0", 64);
    deep::<serde::de::IgnoredAny>(&env, b"\x91", b"\x01", 64);
    wide::<String>(&env, b"\xa0");
    wide::<Option<u128>>(&env, b"\xc0");
    wide::<Vec<u8>>(&env, b"\x90");
    wide::<BTreeMap<u8, u8>>(&env, b"\x80");
    liars(&env);
}

#[test]
fn bombs_are_errors_within_their_memory_on_a_small_stack() {
    const NAME: &str = "bombs_are_errors_within_their_memory_on_a_small_stack";
    if std::env::var_os(CHILD).is_some() {
        let small = std::thread::Builder::new().stack_size(2 << 20);
        return small.spawn(bombs).unwrap().join().unwrap();
    }
    let child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", NAME, "--nocapture"])
        .env(CHILD, "1")
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&child.stderr);
    assert!(child.status.success(), "{}: {said}", child.status);
}

#[test]
fn the_types_that_are_tried_are_wire_types() {
    assert_wire_type::<Tree>();
    assert_wire_type::<List>();
    assert_wire_type::<Wrapped>();
    assert_wire_type::<Named>();
    assert_wire_type::<Either>();
    assert_wire_type::<Tagged>();
    assert_wire_type::<Wide>();
}
