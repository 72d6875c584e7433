#![expect(dead_code, reason = "only types matter")]

use super::*;
use serde::Deserialize;
use std::collections::BTreeMap;
use std::panic::catch_unwind;

fn refusal<T: DeserializeOwned>() -> String {
    let panic = catch_unwind(assert_wire_type::<T>).expect_err("it is taken");
    let text = panic.downcast_ref::<String>().cloned();
    text.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned())).unwrap()
}

#[derive(Deserialize)]
struct Bare(Box<Self>);

#[derive(Deserialize)]
struct Perhaps(Option<Box<Self>>);

#[derive(Deserialize)]
struct Hidden {
    name: std::num::NonZeroU8,
    address: crate::address::EndpointAddress,
    inner: Vec<BTreeMap<u8, Deeper>>,
}

#[derive(Deserialize)]
enum Deeper {
    One,
    Two(u8),
    Three { bad: Perhaps },
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Doubling {
    Number(u32),
    Pair(Box<Self>, Box<Self>),
    List(Vec<Self>),
}

#[derive(Deserialize)]
enum Of<T> {
    One(T),
}

#[derive(Deserialize)]
enum With<T> {
    Two(u8, T),
}

#[test]
fn types_that_no_bytes_end_are_named() {
    let within = [refusal::<Of<Perhaps>>(), refusal::<With<Perhaps>>()];
    let bare = [refusal::<Bare>(), refusal::<Perhaps>(), refusal::<Hidden>()];
    for text in bare.into_iter().chain(within) {
        assert!(text.contains("contains itself without a collection"), "{text}");
    }
    assert!(refusal::<Perhaps>().contains("::Perhaps"));
}

/// Found by the target `body_decode`: sixty-two bytes, and no end.
#[test]
fn variants_that_each_try_the_same_bytes_are_found() {
    for text in [refusal::<Doubling>(), refusal::<Vec<Option<Doubling>>>()] {
        assert!(text.contains("::Doubling") && text.contains("several of its"), "{text}");
    }
}

#[derive(Deserialize)]
struct Level<T>(T);

type Levels4<T> = Level<Level<Level<Level<T>>>>;
type Levels16<T> = Levels4<Levels4<Levels4<Levels4<T>>>>;
type Levels64<T> = Levels16<Levels16<Levels16<Levels16<T>>>>;

struct Check;

impl crate::fuzz::Visit for Check {
    fn shape<T: DeserializeOwned + serde::Serialize + fmt::Debug>(&mut self, _: &'static str) {
        assert_wire_type::<T>();
    }
}

#[test]
fn types_as_people_write_them_are_taken() {
    (0..crate::fuzz::COUNT).for_each(|number| crate::fuzz::visit(number, &mut Check));
    assert_wire_type::<()>();
    assert_wire_type::<String>();
    // As many levels as may come without a byte, and again behind a byte.
    assert_wire_type::<Levels64<Vec<Levels4<u8>>>>();
}
