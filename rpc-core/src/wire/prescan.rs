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
    let mut outer = Outer { near: [0; SHALLOW], far: None };
    let mut to_come = 1_usize;
    loop {
        to_come = scan.fixed_size_values(to_come)?;
        if let Some(after_this) = to_come.checked_sub(1) {
            to_come = after_this;
            if let Some(children) = scan.step()? {
                outer.keep(scan.depth.saturating_sub(1), to_come);
                to_come = children;
            }
        } else if let Some(above) = scan.depth.checked_sub(1) {
            scan.depth = above;
            to_come = outer.kept(above);
        } else {
            return scan.end();
        }
    }
}

/// Nesting that most bodies do not exceed: to clear a stack of `MAX_DEPTH` costs as much as to scan a small body.
const SHALLOW: usize = 8;

/// How many values are still to come in each collection around the innermost one.
struct Outer {
    near: [usize; SHALLOW],
    /// The same of more, once there are.
    far: Option<[usize; MAX_DEPTH]>,
}

impl Outer {
    #[inline]
    fn keep(&mut self, depth: usize, to_come: usize) {
        match self.near.get_mut(depth) {
            Some(slot) => *slot = to_come,
            None => self.keep_far(depth, to_come),
        }
    }

    #[cold]
    fn keep_far(&mut self, depth: usize, to_come: usize) {
        // `open` has refused a depth that has no slot.
        if let Some(slot) = self.far.get_or_insert([0; MAX_DEPTH]).get_mut(depth) {
            *slot = to_come;
        }
    }

    #[inline]
    fn kept(&self, depth: usize) -> usize {
        let far = || self.far.as_ref().and_then(|far| far.get(depth));
        self.near.get(depth).or_else(far).copied().unwrap_or(0)
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
mod tests;
