//! Types of messages as people write them, and as they should not.

use bytes::Bytes;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, HashMap};
use std::fmt::Debug;
use std::net::IpAddr;
use std::time::Duration;

/// Whatever a shape is used for.
pub(crate) trait Visit {
    fn shape<T: DeserializeOwned + Serialize + Debug>(&mut self, name: &'static str);
}

/// How many shapes there are.
pub(crate) const COUNT: usize = 14;

/// Shows the shape with that number.
pub(crate) fn visit(number: usize, visitor: &mut impl Visit) {
    match number % COUNT {
        0 => visitor.shape::<Plain>("plain fields"),
        1 => visitor.shape::<Tree>("a recursive enum"),
        2 => visitor.shape::<List>("a list of options of itself"),
        3 => visitor.shape::<Maps>("maps"),
        4 => visitor.shape::<Blobs>("bytes"),
        5 => visitor.shape::<Meters>("a newtype of a newtype"),
        6 => visitor.shape::<Flat>("flattened"),
        7 => visitor.shape::<Either>("untagged"),
        8 => visitor.shape::<Tagged>("internally tagged"),
        9 => visitor.shape::<Beside>("adjacently tagged"),
        10 => visitor.shape::<(u8, Option<String>, Vec<(i64, f64)>)>("tuples"),
        11 => visitor.shape::<Vec<Option<()>>>("nothing, many times"),
        12 => visitor.shape::<Times>("std's own types"),
        _ => visitor.shape::<Vec<Vec<Vec<Plain>>>>("lists of lists of structs"),
    }
}

#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Plain {
    pub(super) id: u64,
    pub(super) name: String,
    #[serde(default)]
    pub(super) share: Option<f64>,
    #[serde(default)]
    pub(super) on: bool,
}

#[derive(Debug, Serialize, Deserialize)]
pub(super) enum Tree {
    Leaf,
    Number(i64),
    Node(Box<Self>, Box<Self>),
    Same(Box<Self>),
    Maybe(Option<Box<Self>>),
    Named { children: Vec<Self> },
}

#[derive(Debug, Serialize, Deserialize)]
pub(super) struct List {
    pub(super) value: u32,
    pub(super) next: Option<Box<Self>>,
}

#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Maps {
    #[serde(default)]
    sorted: BTreeMap<String, i32>,
    #[serde(default)]
    hashed: HashMap<u64, Vec<u8>>,
    #[serde(default)]
    nested: BTreeMap<u8, BTreeMap<u8, String>>,
}

#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Blobs {
    #[serde(with = "crate::wire::in_place")]
    in_place: Bytes,
    copied: Bytes,
}

#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Meters(Length);

#[derive(Debug, Serialize, Deserialize)]
struct Length(Vec<f32>);

#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Flat {
    id: u32,
    #[serde(flatten)]
    inner: Inner,
    #[serde(flatten)]
    more: BTreeMap<String, String>,
}

#[derive(Debug, Serialize, Deserialize)]
struct Inner {
    x: i16,
    #[serde(default)]
    y: Vec<i16>,
}

/// One variant alone holds its own kind: with two of them, each level of a body would be read twice as
/// often as the one above it.
#[derive(Debug, Serialize, Deserialize)]
#[serde(untagged)]
pub(super) enum Either {
    Number(u32),
    Text(String),
    Pair(u8, bool),
    Named { either: Option<f32> },
    List(Vec<Self>),
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(tag = "kind")]
pub(super) enum Tagged {
    Empty,
    Point { x: i32, y: i32 },
    Of(List),
    Group { members: Vec<Self> },
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(tag = "t", content = "c")]
pub(super) enum Beside {
    Unit,
    One(String),
    Two(u8, Box<Self>),
    Fields { a: char, b: Option<Box<Self>> },
}

#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Times {
    elapsed: Duration,
    from: IpAddr,
    result: Result<u8, String>,
    letters: [char; 2],
}
