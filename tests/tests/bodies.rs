//! What the Rust side writes, and what it reads of what other languages write: the table of
//! docs/WIRE.md, section 12.
#![cfg(test)]

use bytes::Bytes;
use rpc_actix::{ErrorKind, LocalWorld, RpcEnv, RpcEnvConfig, RpcEnvFactory};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fmt::Debug;
use std::time::Duration;

#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct Fields {
    a: u8,
    b: Option<u8>,
}

#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct Nothing;

#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct Empty {}

#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct One(u8);

#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct Two(u8, u8);

#[derive(Debug, PartialEq, Serialize, Deserialize)]
enum Choice {
    Bare,
    One(u8),
    Two(u8, u8),
    Fields { a: u8 },
}

fn env() -> RpcEnv {
    let world = LocalWorld::new();
    world.block_on(world.factory().create(RpcEnvConfig::client("bodies"))).unwrap()
}

/// The bytes of hex digits; a text in quotes stands for its characters.
fn bytes(text: &str) -> Vec<u8> {
    let hex = |digits: &str| u8::from_str_radix(digits, 16).unwrap();
    let mut bytes = Vec::new();
    for word in text.split_whitespace() {
        match word.strip_prefix('"') {
            Some(quoted) => bytes.extend(quoted.trim_end_matches('"').bytes()),
            None => bytes.push(hex(word)),
        }
    }
    bytes
}

/// Written as those bytes, and read from them.
#[track_caller]
fn is<T: Serialize + DeserializeOwned + PartialEq + Debug>(env: &RpcEnv, value: T, text: &str) {
    assert_eq!(env.encode(&value).unwrap(), bytes(text), "{value:?}");
    reads(env, text, value);
}

/// Read from those bytes.
#[track_caller]
fn reads<T: DeserializeOwned + PartialEq + Debug>(env: &RpcEnv, text: &str, expected: T) {
    assert_eq!(env.decode::<T>(&bytes(text)).unwrap(), expected, "{text}");
}

/// Not read from those bytes.
#[track_caller]
fn refuses<T: DeserializeOwned + Debug>(env: &RpcEnv, text: &str) {
    let error = env.decode::<T>(&bytes(text)).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Decode, "{text}");
}

#[test]
fn structs() {
    let env = &env();
    is(env, Fields { a: 1, b: None }, r#"82 a1 "a" 01 a1 "b" c0"#);
    is(env, Fields { a: 1, b: Some(2) }, r#"82 a1 "a" 01 a1 "b" 02"#);
    is(env, Nothing, "90");
    is(env, Empty {}, "80");
    is(env, One(1), "01");
    is(env, Two(1, 2), "92 01 02");
    is(env, [1_u8, 2], "92 01 02");
    is(env, (), "c0");
    // In any order, without what is optional, with what nobody knows, and as an array.
    reads(env, r#"83 a1 "z" 91 c3 a1 "b" 02 a1 "a" 01"#, Fields { a: 1, b: Some(2) });
    reads(env, r#"81 a1 "a" 01"#, Fields { a: 1, b: None });
    reads(env, "92 01 02", Fields { a: 1, b: Some(2) });
    reads(env, "c0", Nothing);
    reads(env, "90", Empty {});
    for text in ["91 01", "93 01 02 03", r#"81 a1 "b" 02"#, r#"82 a1 "a" 01 a1 "a" 01"#, "c0"] {
        refuses::<Fields>(env, text);
    }
    refuses::<Nothing>(env, "80");
    refuses::<Empty>(env, "c0");
    refuses::<()>(env, "90");
    refuses::<One>(env, "91 01");
}

#[test]
fn enums() {
    let env = &env();
    is(env, Choice::Bare, r#"a4 "Bare""#);
    is(env, Choice::One(1), r#"81 a3 "One" 01"#);
    is(env, Choice::Two(1, 2), r#"81 a3 "Two" 92 01 02"#);
    is(env, Choice::Fields { a: 1 }, r#"81 a6 "Fields" 81 a1 "a" 01"#);
    is(env, Ok::<u8, String>(1), r#"81 a2 "Ok" 01"#);
    is(env, Err::<u8, String>("x".into()), r#"81 a3 "Err" a1 "x""#);
    reads(env, r#"81 a4 "Bare" c0"#, Choice::Bare);
    reads(env, r#"81 a6 "Fields" 91 01"#, Choice::Fields { a: 1 });
    for text in [r#"81 a3 "One" 91 01"#, r#"92 a3 "One" 01"#, r#"a4 "bare""#, r#"a3 "One""#] {
        refuses::<Choice>(env, text);
    }
}

#[test]
fn numbers() {
    let env = &env();
    is(env, 1_u64 << 63, "cf 80 00 00 00 00 00 00 00");
    is(env, -200_i64, "d1 ff 38");
    is(env, 1.5_f32, "ca 3f c0 00 00");
    is(env, 1.5_f64, "cb 3f f8 00 00 00 00 00 00");
    // Integers in any width that they fit, and for floats as well; floats for floats only.
    reads(env, "cf 00 00 00 00 00 00 00 05", 5_u8);
    reads(env, "d3 00 00 00 00 00 00 00 05", 5_u8);
    reads(env, "05", 5.0_f64);
    reads(env, "ca 3f c0 00 00", 1.5_f64);
    reads(env, "cb 3f f8 00 00 00 00 00 00", 1.5_f32);
    refuses::<u8>(env, "cd 01 00");
    refuses::<u8>(env, "ff");
    refuses::<i64>(env, "cb 3f f0 00 00 00 00 00 00");
    refuses::<bool>(env, "01");
}

#[test]
fn texts_and_collections() {
    let env = &env();
    is(env, 'x', r#"a1 "x""#);
    is(env, Bytes::from_static(b"ab"), r#"c4 02 "ab""#);
    is(env, vec![1_u8, 200], "92 01 cc c8");
    is(env, BTreeMap::from([(1_u8, 2_u8)]), "81 01 02");
    is(env, Duration::from_secs(1), r#"82 a4 "secs" 01 a5 "nanos" 00"#);
    // Binary and text stand in for each other, and either for a list of bytes where that is sound.
    reads(env, r#"a2 "ab""#, Bytes::from_static(b"ab"));
    reads(env, "92 61 62", Bytes::from_static(b"ab"));
    reads(env, r#"c4 02 "ab""#, vec![0x61_u8, 0x62]);
    reads(env, r#"c4 02 "ab""#, "ab".to_owned());
    refuses::<Vec<u8>>(env, r#"a2 "ab""#);
    refuses::<String>(env, "a1 ff");
    // An extension type is passed over where nobody looks, and nothing else.
    reads(env, r#"82 a1 "a" 01 a1 "z" d4 01 02"#, Fields { a: 1, b: None });
    refuses::<Bytes>(env, "d4 01 02");
}
