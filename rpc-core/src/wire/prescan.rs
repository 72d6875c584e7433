//! A look at the structure of a MessagePack body before anything decodes it.
//!
//! Every body from the network passes here first: one value that fills the slice, no deeper than allowed, no more
//! elements than allowed, and no announced length or count beyond the bytes that are there. After that a decoder
//! cannot be made to recurse or to allocate by a few bytes that lie about what follows. The scan itself neither
//! recurses nor allocates, and costs a few nanoseconds per value. It does not look into strings: whether they are
//! UTF-8 is the decoder's question.

#![cfg_attr(not(test), warn(clippy::indexing_slicing, clippy::arithmetic_side_effects))]

use thiserror::Error;

use crate::limits::Limits;

/// The deepest nesting that any [`PrescanLimits`] can allow: the size of the scan's own stack.
pub const MAX_DEPTH: usize = 64;

/// What [`prescan`] allows.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct PrescanLimits {
    max_depth: usize,
    max_elements: usize,
}

impl PrescanLimits {
    /// Limits of `max_depth` collections within each other (capped to [`MAX_DEPTH`]; 0 allows no collection at all)
    /// and `max_elements` elements: every item of an array and every key and value of a map, over all collections of
    /// the body together.
    pub const fn new(max_depth: usize, max_elements: usize) -> Self {
        let max_depth = if max_depth < MAX_DEPTH { max_depth } else { MAX_DEPTH };
        Self { max_depth, max_elements }
    }

    /// How many collections may lie within each other.
    pub const fn max_depth(&self) -> usize {
        self.max_depth
    }

    /// How many elements all collections may have together.
    pub const fn max_elements(&self) -> usize {
        self.max_elements
    }
}

impl Default for PrescanLimits {
    /// Depth 64 (no message type of a person nests deeper) and 1,048,576 elements (a decoded `String` takes 24 bytes
    /// where its element took one, so this bounds what one body can become in memory).
    fn default() -> Self {
        Self::new(MAX_DEPTH, 1_048_576)
    }
}

impl From<&Limits> for PrescanLimits {
    fn from(limits: &Limits) -> Self {
        Self::new(limits.message_max_depth(), limits.message_max_elements())
    }
}

/// Why a body is not let through to a decoder. Offsets count bytes from the start of the body.
#[non_exhaustive]
#[derive(Clone, Copy, PartialEq, Eq, Debug, Error)]
pub enum PrescanError {
    /// Collections lie within each other more deeply than allowed.
    #[error(
        "the collection at byte {offset} would be nested {depth} deep, the limit is {limit} (rpc.message.maxDepth)"
    )]
    TooDeep {
        /// Where the collection begins that is one too deep.
        offset: usize,
        /// Its depth, where the outermost collection has depth 1.
        depth: usize,
        /// The greatest depth allowed.
        limit: usize,
    },
    /// All collections together have more elements than allowed.
    #[error(
        "with the collection at byte {offset} the body has {elements} elements, the limit is {limit} (rpc.message.maxElements; bytes as bytes::Bytes count as one)"
    )]
    TooManyElements {
        /// Where the collection begins that exceeds the limit.
        offset: usize,
        /// The elements announced so far, its own included.
        elements: usize,
        /// The greatest number allowed.
        limit: usize,
    },
    /// The body ends before the value does, or a length or count is greater than what follows could hold.
    #[error("the {what} at byte {offset} needs at least {needed} bytes, but only {left} are left")]
    Truncated {
        /// What is cut short: "value", "length", "content", "array" or "map".
        what: &'static str,
        /// Where that value begins.
        offset: usize,
        /// How many bytes it needs at least.
        needed: usize,
        /// How many there are.
        left: usize,
    },
    /// Bytes follow the value.
    #[error("{left} bytes follow the value, which ends at byte {offset}")]
    Trailing {
        /// Where the value ends.
        offset: usize,
        /// How many bytes follow.
        left: usize,
    },
    /// The byte 0xc1, which MessagePack never uses.
    #[error("the reserved marker 0xc1 is at byte {offset}")]
    Reserved {
        /// Where it is.
        offset: usize,
    },
}

/// How many bytes a value with this marker takes, its marker included; 0 where the marker alone does not tell.
static FIXED_SIZE: [u8; 256] = fixed_sizes();

#[expect(
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    reason = "runs in the compiler, which refuses what would panic"
)]
const fn fixed_sizes() -> [u8; 256] {
    let mut sizes = [0; 256];
    let mut marker = 0;
    while marker < sizes.len() {
        sizes[marker] = match marker as u8 {
            // fixint, nil, false, true
            0x00..=0x7f | 0xe0..=0xff | 0xc0 | 0xc2 | 0xc3 => 1,
            // fixstr, such as every field name
            string @ 0xa0..=0xbf => 1 + (string & 0x1f),
            // numbers of 1, 2, 4 and 8 bytes
            0xcc | 0xd0 => 2,
            0xcd | 0xd1 => 3,
            0xca | 0xce | 0xd2 => 5,
            0xcb | 0xcf | 0xd3 => 9,
            // fixext: a byte of type and 1, 2, 4, 8 or 16 bytes
            0xd4 => 3,
            0xd5 => 4,
            0xd6 => 6,
            0xd7 => 10,
            0xd8 => 18,
            // collections, and what has a length
            _ => 0,
        };
        marker += 1;
    }
    sizes
}

/// Checks that `bytes` is exactly one MessagePack value within `limits`.
///
/// The work is linear in the length of `bytes`, and a refusal comes at the first byte that breaks a rule. An
/// extension value counts as a leaf.
///
/// # Errors
///
/// The first rule that is broken, with its place: see [`PrescanError`].
pub fn prescan(bytes: &[u8], limits: &PrescanLimits) -> Result<(), PrescanError> {
    let mut scan = Scan { bytes, rest: bytes, limits, elements: 0, depth: 0 };
    // How many values are still to come in each collection around the innermost one, and in that one.
    let mut outer = [0_usize; MAX_DEPTH];
    let mut to_come = 1_usize;
    loop {
        to_come = scan.fixed_size_values(to_come)?;
        if let Some(after_this) = to_come.checked_sub(1) {
            to_come = after_this;
            if let Some(children) = scan.step()? {
                // `open` has refused a depth that has no slot.
                if let Some(slot) = outer.get_mut(scan.depth.saturating_sub(1)) {
                    *slot = to_come;
                }
                to_come = children;
            }
        } else if let Some(above) = scan.depth.checked_sub(1) {
            scan.depth = above;
            to_come = outer.get(above).copied().unwrap_or(0);
        } else {
            return scan.end();
        }
    }
}

/// Where the scan is.
struct Scan<'a> {
    bytes: &'a [u8],
    /// What is not scanned yet, beginning with a marker.
    rest: &'a [u8],
    limits: &'a PrescanLimits,
    elements: usize,
    depth: usize,
}

impl<'a> Scan<'a> {
    /// Goes past up to `to_come` values whose size the marker tells alone, which most are: one look-up each, no
    /// branch to guess wrong, and all in registers. Returns how many values are still to come, the next of another
    /// kind.
    fn fixed_size_values(&mut self, mut to_come: usize) -> Result<usize, PrescanError> {
        let mut rest = self.rest;
        while let Some(fewer) = to_come.checked_sub(1) {
            let Some(&marker) = rest.first() else {
                return Err(self.truncated("value", rest, 1, 0));
            };
            let size = usize::from(FIXED_SIZE.get(usize::from(marker)).copied().unwrap_or(0));
            if size == 0 {
                break;
            }
            rest = match rest.get(size..) {
                Some(after) => after,
                None => return Err(self.truncated("value", rest, size, rest.len())),
            };
            to_come = fewer;
        }
        self.rest = rest;
        Ok(to_come)
    }

    /// Goes past a value of another kind. Of a collection only past its head: the count of the values in it is
    /// returned, and `depth` has grown by one.
    fn step(&mut self) -> Result<Option<usize>, PrescanError> {
        let Some((&marker, after)) = self.rest.split_first() else {
            return Err(self.truncated("value", self.rest, 1, 0));
        };
        let low = usize::from(marker & 0x0f);
        self.rest = match marker {
            0x80..=0x8f => return self.open("map", low.saturating_mul(2), after),
            0x90..=0x9f => return self.open("array", low, after),
            0xdc => {
                let (count, after) = self.number::<2>(after)?;
                return self.open("array", count, after);
            }
            0xdd => {
                let (count, after) = self.number::<4>(after)?;
                return self.open("array", count, after);
            }
            0xde => {
                let (count, after) = self.number::<2>(after)?;
                return self.open("map", count.saturating_mul(2), after);
            }
            0xdf => {
                let (count, after) = self.number::<4>(after)?;
                return self.open("map", count.saturating_mul(2), after);
            }
            0xc1 => return Err(PrescanError::Reserved { offset: self.offset(self.rest) }),
            0xc4 | 0xd9 => self.content::<1>(after, 0)?,
            0xc5 | 0xda => self.content::<2>(after, 0)?,
            0xc6 | 0xdb => self.content::<4>(after, 0)?,
            // The type of an extension is a byte between its length and its content.
            0xc7 => self.content::<1>(after, 1)?,
            0xc8 => self.content::<2>(after, 1)?,
            0xc9 => self.content::<4>(after, 1)?,
            // All others are in `FIXED_SIZE` and do not come here.
            _ => after,
        };
        Ok(None)
    }

    /// Enters a collection of `count` values, each of which takes at least one byte.
    fn open(
        &mut self,
        what: &'static str,
        count: usize,
        after: &'a [u8],
    ) -> Result<Option<usize>, PrescanError> {
        let offset = self.offset(self.rest);
        let (depth, limit) = (self.depth.saturating_add(1), self.limits.max_depth);
        if depth > limit {
            return Err(PrescanError::TooDeep { offset, depth, limit });
        }
        if count > after.len() {
            return Err(self.truncated(what, self.rest, count, after.len()));
        }
        let (elements, limit) = (self.elements.saturating_add(count), self.limits.max_elements);
        if elements > limit {
            return Err(PrescanError::TooManyElements { offset, elements, limit });
        }
        (self.depth, self.elements, self.rest) = (depth, elements, after);
        Ok(Some(count))
    }

    /// Goes past a length of `N` bytes, `more` bytes, and as many bytes as the length says.
    fn content<const N: usize>(
        &self,
        after: &'a [u8],
        more: usize,
    ) -> Result<&'a [u8], PrescanError> {
        let (length, after) = self.number::<N>(after)?;
        let needed = length.saturating_add(more);
        match after.get(needed..) {
            Some(after) => Ok(after),
            None => Err(self.truncated("content", self.rest, needed, after.len())),
        }
    }

    /// Reads a big-endian length or count of `N` bytes.
    fn number<const N: usize>(&self, after: &'a [u8]) -> Result<(usize, &'a [u8]), PrescanError> {
        match after.split_first_chunk::<N>() {
            Some((digits, after)) => {
                let value =
                    digits.iter().fold(0_usize, |sum, &digit| sum << 8 | usize::from(digit));
                Ok((value, after))
            }
            None => Err(self.truncated("length", self.rest, N, after.len())),
        }
    }

    fn end(&self) -> Result<(), PrescanError> {
        match self.rest.len() {
            0 => Ok(()),
            left => Err(PrescanError::Trailing { offset: self.offset(self.rest), left }),
        }
    }

    #[cold]
    fn truncated(&self, what: &'static str, at: &[u8], needed: usize, left: usize) -> PrescanError {
        PrescanError::Truncated { what, offset: self.offset(at), needed, left }
    }

    /// How far into the body this part of it begins, given that it reaches to the body's end.
    fn offset(&self, rest: &[u8]) -> usize {
        self.bytes.len().saturating_sub(rest.len())
    }
}

#[cfg(test)]
mod tests {
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
            matches!(
                refused,
                Err(PrescanError::TooManyElements { elements: 1002, limit: 1000, .. })
            ),
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
}
