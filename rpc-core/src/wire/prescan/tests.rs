use super::*;
use serde::Serialize;
use serde::de::{Deserialize, IgnoredAny};
use serde::ser::{SerializeMap, Serializer};

fn scan(bytes: &[u8]) -> Result<(), PrescanError> {
    prescan(bytes, &PrescanLimits::default())
}

/// Whether rmp-serde reads one value that fills the slice.
fn rmp_serde_reads(bytes: &[u8]) -> bool {
    let mut decoder = rmp_serde::Deserializer::new(bytes);
    IgnoredAny::deserialize(&mut decoder).is_ok() && decoder.get_ref().is_empty()
}

/// A small generator of numbers (xorshift), so that a failure can be repeated.
struct Numbers(u64);

impl Numbers {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn below(&mut self, end: u64) -> u64 {
        self.next() % end
    }
}

enum Tree {
    Nil,
    Bool(bool),
    Signed(i64),
    Unsigned(u64),
    Float(f32),
    Double(f64),
    Text(String),
    Binary(Vec<u8>),
    Array(Vec<Self>),
    Map(Vec<(Self, Self)>),
}

impl Tree {
    fn random(numbers: &mut Numbers, depth: u32) -> Self {
        let (kinds, shift) = (if depth == 0 { 8 } else { 10 }, numbers.below(64));
        let count = numbers.below(if depth > 3 { 20 } else { 4 });
        let length = (numbers.next() & 0x1_ffff) >> numbers.below(18);
        match numbers.below(kinds) {
            0 => Self::Nil,
            1 => Self::Bool(shift > 31),
            2 => Self::Signed((numbers.next() as i64) >> shift),
            3 => Self::Unsigned(numbers.next() >> shift),
            4 => Self::Float(shift as f32),
            5 => Self::Double(shift as f64),
            6 => Self::Text("x".repeat(length as usize)),
            7 => Self::Binary(vec![7; length as usize]),
            8 => Self::Array((0..count).map(|_| Self::random(numbers, depth - 1)).collect()),
            _ => Self::Map(
                (0..count)
                    .map(|_| (Self::random(numbers, 0), Self::random(numbers, depth - 1)))
                    .collect(),
            ),
        }
    }
}

impl Serialize for Tree {
    fn serialize<S: Serializer>(&self, out: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Nil => out.serialize_unit(),
            Self::Bool(value) => out.serialize_bool(*value),
            Self::Signed(value) => out.serialize_i64(*value),
            Self::Unsigned(value) => out.serialize_u64(*value),
            Self::Float(value) => out.serialize_f32(*value),
            Self::Double(value) => out.serialize_f64(*value),
            Self::Text(value) => out.serialize_str(value),
            Self::Binary(value) => out.serialize_bytes(value),
            Self::Array(items) => out.collect_seq(items),
            Self::Map(pairs) => {
                let mut map = out.serialize_map(Some(pairs.len()))?;
                for (key, value) in pairs {
                    map.serialize_entry(key, value)?;
                }
                map.end()
            }
        }
    }
}

#[test]
fn agrees_with_rmp_serde_on_values_cut_and_damaged_ones() {
    let mut numbers = Numbers(0x9e37_79b9_7f4a_7c15);
    let (mut cut_ones, mut refused) = (0, 0);
    for _ in 0..400 {
        let body = rmp_serde::to_vec(&Tree::random(&mut numbers, 6)).unwrap();
        assert_eq!(scan(&body), Ok(()));
        let cut = numbers.below(body.len() as u64) as usize;
        assert!(scan(&body[..cut]).is_err(), "no prefix of a value is a value");
        cut_ones += 1;
        let mut damaged = body.clone();
        damaged[cut] = numbers.next() as u8;
        refused += u32::from(scan(&damaged).is_err());
        assert_eq!(scan(&damaged).is_ok(), rmp_serde_reads(&damaged), "{damaged:x?}");
        let longer = [&body[..], &[0xc0]].concat();
        let end = body.len();
        assert_eq!(scan(&longer), Err(PrescanError::Trailing { offset: end, left: 1 }));
    }
    assert!(cut_ones == 400 && refused > 50);
}

#[test]
fn agrees_with_rmp_serde_on_all_short_strings() {
    assert!(scan(&[]).is_err());
    for first in 0..=255_u8 {
        assert_eq!(scan(&[first]).is_ok(), rmp_serde_reads(&[first]), "{first:x}");
        for second in 0..=255_u8 {
            let body = [first, second];
            assert_eq!(scan(&body).is_ok(), rmp_serde_reads(&body), "{body:x?}");
            for third in (0..=255_u8).step_by(7) {
                let body = [first, second, third];
                assert_eq!(scan(&body).is_ok(), rmp_serde_reads(&body), "{body:x?}");
            }
        }
    }
}

#[test]
fn noise_is_read_or_refused() {
    let mut numbers = Numbers(42);
    for _ in 0..20_000 {
        let length = numbers.below(40) as usize;
        let body: Vec<u8> = (0..length).map(|_| numbers.next() as u8).collect();
        // Nothing is read that rmp-serde would not; it may stop at its own depth limit.
        assert_eq!(scan(&body).is_ok(), rmp_serde_reads(&body), "{body:x?}");
    }
}

#[test]
fn nesting_is_refused_at_the_first_level_too_deep() {
    // R21: 4 MiB of one-element arrays.
    let refused = PrescanError::TooDeep { offset: 64, depth: 65, limit: 64 };
    assert_eq!(scan(&vec![0x91; 4 << 20]), Err(refused));
    let mut body = vec![0x91; 63];
    body.push(0x90);
    assert_eq!(scan(&body), Ok(()), "64 levels are allowed");
    body.insert(0, 0x91);
    assert_eq!(scan(&body), Err(refused), "and an empty collection is a level");
    assert_eq!(PrescanLimits::new(1000, 1).max_depth(), MAX_DEPTH);
    assert_eq!(PrescanLimits::from(&Limits::default()), PrescanLimits::default());
    let tight = Limits::default().with_message_max_depth(3).unwrap();
    let tight = tight.with_message_max_elements(70_000).unwrap();
    let tight = PrescanLimits::from(&tight);
    assert_eq!((tight.max_depth(), tight.max_elements()), (3, 70_000));
    let flat = PrescanLimits::new(0, 10);
    assert_eq!(prescan(&[0x05], &flat), Ok(()));
    assert!(prescan(&[0x90], &flat).is_err());
    // Width is not depth, and leaving a collection gives its level back.
    let wide = [vec![0xdc, 0x04, 0x00], [0x91, 0x91, 0x01].repeat(1024)].concat();
    assert_eq!(prescan(&wide, &PrescanLimits::new(3, 4096)), Ok(()));
    assert!(prescan(&wide, &PrescanLimits::new(2, 4096)).is_err());
}

#[test]
fn what_follows_an_inner_collection_is_counted_at_every_depth() {
    for depth in 1..=MAX_DEPTH {
        // Two collections in each but the innermost one: what is beside them is scanned on both sides.
        let mut bytes = vec![0x91, 7];
        for _ in 1..depth {
            bytes = [&[0x94, 1], &*bytes, &[0x91, 2], &[3]].concat();
        }
        assert_eq!(scan(&bytes), Ok(()), "{depth}");
        let end = bytes.len() - 1;
        assert!(matches!(scan(&bytes[..end]), Err(PrescanError::Truncated { .. })), "{depth}");
        bytes.push(9);
        assert_eq!(scan(&bytes), Err(PrescanError::Trailing { offset: end + 1, left: 1 }));
    }
}

#[test]
fn announced_counts_and_lengths_are_held_against_what_is_left() {
    // R23 and the attacks of reliability.md 1.4.
    for head in [0xdd_u8, 0xdf, 0xc6, 0xdb, 0xc9] {
        let refused = scan(&[head, 0xff, 0xff, 0xff, 0xff, 0x01]);
        assert!(matches!(refused, Err(PrescanError::Truncated { offset: 0, .. })), "{head:x}");
    }
    let refused = scan(&[0x92, 0x01, 0xdc, 0x00, 0x09, 0x01]).unwrap_err();
    assert_eq!(
        refused.to_string(),
        "the array at byte 2 needs at least 9 bytes, but only 1 are left"
    );
    // A map of three pairs needs six bytes.
    assert!(scan(&[0x83, 1, 1, 1, 1, 1]).is_err());
    assert_eq!(scan(&[0x83, 1, 1, 1, 1, 1, 1]), Ok(()));
}

#[test]
fn elements_are_counted_over_all_collections() {
    // msgpackr: each of these arrays fits into what follows it, all together do not.
    let limits = PrescanLimits::new(8, 1000);
    let body = [vec![0xdc, 0x01, 0x90], [0x91, 0x00].repeat(400)].concat();
    assert_eq!(prescan(&body, &limits), Ok(()));
    let body = [vec![0xdc, 0x01, 0x90], [0x92, 0x00, 0x00].repeat(400)].concat();
    let refused = prescan(&body, &limits);
    assert!(
        matches!(refused, Err(PrescanError::TooManyElements { elements: 1002, limit: 1000, .. })),
        "{refused:?}"
    );
    let limits = PrescanLimits::new(8, 3);
    assert!(prescan(&[0x82, 1, 1, 1, 1], &limits).is_err(), "keys and values both count");
}

#[test]
fn extensions_are_leaves_and_0xc1_is_refused() {
    let size = |marker: u8, content: usize| [vec![marker, 5], vec![0xc1; content]].concat();
    for (marker, content) in [(0xd4, 1), (0xd5, 2), (0xd6, 4), (0xd7, 8), (0xd8, 16)] {
        assert_eq!(scan(&size(marker, content)), Ok(()));
        assert!(scan(&size(marker, content - 1)).is_err());
    }
    assert_eq!(scan(&[0xc7, 2, 5, 0xc1, 0xc1]), Ok(()));
    assert_eq!(scan(&[0xc8, 0, 1, 5, 0xc1]), Ok(()));
    assert_eq!(scan(&[0xc9, 0, 0, 0, 0, 5]), Ok(()));
    assert!(scan(&[0xc7, 2, 5, 0xc1]).is_err());
    assert_eq!(scan(&[0x91, 0xc1]), Err(PrescanError::Reserved { offset: 1 }));
}
