//! For fields of type `Bytes` that are large: `#[serde(with = "rpc_core::bytes_in_place")]`.
//!
//! Such a field is not copied on its way to the network, and not out of the body of a message that
//! came from there: it shares their memory. Copying 64 MiB takes 40 ms, in which the endpoint and all
//! others of its thread wait. The bytes on the wire are the same as without it.
//!
//! What is sent is shared above 16 KiB, and kept in memory until the socket has it, together with all
//! that its `Bytes` is a part of. Of what is received, a field that is less than half of its body is copied
//! all the same, and so is one of a body below 128 KiB: a small part would keep the whole body.

use super::encoded::SMALL_BODY;
use bytes::Bytes;
use serde::de::{Deserializer, Error, SeqAccess, Visitor};
use serde::ser::Serializer;
use std::cell::RefCell;
use std::fmt;
use std::thread::LocalKey;

thread_local! {
    /// The body that this thread decodes.
    static BODY: RefCell<Bytes> = const { RefCell::new(Bytes::new()) };
    /// The field that this thread encodes, if it may be shared.
    static OFFERED: RefCell<Bytes> = const { RefCell::new(Bytes::new()) };
}

/// Bodies below this share a buffer with others, which a field of one would keep.
pub(crate) const SMALLEST_BODY: usize = 128 * 1024;

/// Runs `f`, which decodes `body`.
pub(crate) fn within<R>(body: &Bytes, f: impl FnOnce() -> R) -> R {
    if body.len() < SMALLEST_BODY {
        return f();
    }
    let _restore = Restore(&BODY, BODY.replace(body.clone()));
    f()
}

struct Restore(&'static LocalKey<RefCell<Bytes>>, Bytes);

impl Drop for Restore {
    fn drop(&mut self) {
        self.0.set(std::mem::take(&mut self.1));
    }
}

/// A part of the body that is decoded, shared if that is worth it.
fn share(part: &[u8]) -> Bytes {
    BODY.with_borrow(|body| {
        let at = part.as_ptr().addr().checked_sub(body.as_ptr().addr());
        let range = at.and_then(|at| Some(at..at.checked_add(part.len())?));
        match range {
            Some(range) if range.end <= body.len() && part.len() >= body.len() / 2 => {
                body.slice(range)
            }
            _ => Bytes::copy_from_slice(part),
        }
    })
}

/// Writes the bytes, as `Bytes` itself does; a message on its way to another env shares large ones.
///
/// # Errors
/// Those of the serializer.
pub fn serialize<S: Serializer>(bytes: &Bytes, serializer: S) -> Result<S::Ok, S::Error> {
    if bytes.len() <= SMALL_BODY {
        return serializer.serialize_bytes(bytes);
    }
    let _restore = Restore(&OFFERED, OFFERED.replace(bytes.clone()));
    serializer.serialize_bytes(bytes)
}

/// What a field offers to share, if `bytes` are that.
pub(crate) fn offered(bytes: &[u8]) -> Option<Bytes> {
    OFFERED.with_borrow(|offered| std::ptr::eq(&offered[..], bytes).then(|| offered.clone()))
}

/// Reads the bytes, in place where that is possible.
///
/// # Errors
/// Those of the deserializer, and when the value is not a string of bytes.
pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Bytes, D::Error> {
    deserializer.deserialize_byte_buf(InPlace)
}

struct InPlace;

impl<'de> Visitor<'de> for InPlace {
    type Value = Bytes;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("bytes")
    }

    fn visit_bytes<E: Error>(self, part: &[u8]) -> Result<Bytes, E> {
        Ok(share(part))
    }

    fn visit_byte_buf<E: Error>(self, bytes: Vec<u8>) -> Result<Bytes, E> {
        Ok(Bytes::from(bytes))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut sequence: A) -> Result<Bytes, A::Error> {
        // Not reserved by what is announced: that is not to be trusted.
        let mut bytes = Vec::new();
        while let Some(byte) = sequence.next_element()? {
            bytes.push(byte);
        }
        Ok(Bytes::from(bytes))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::{ErrorKind, RpcError};
    use crate::message::Encoding;
    use crate::wire::payload;
    use crate::wire::prescan::PrescanLimits;
    use serde::{Deserialize, Serialize};
    use std::collections::VecDeque;

    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    struct Parts {
        #[serde(with = "super")]
        large: Bytes,
        #[serde(with = "super")]
        small: Bytes,
    }

    fn decoded(large: usize, small: usize) -> (Bytes, Parts) {
        let parts = Parts { large: vec![7; large].into(), small: vec![8; small].into() };
        let body = payload::to_vec(&parts, Encoding::Named, usize::MAX).unwrap();
        let body = Bytes::from(body);
        let back: Parts = payload::decode_body(&body, &PrescanLimits::default()).unwrap();
        assert_eq!(back, parts);
        (body, back)
    }

    fn is_part_of(part: &Bytes, body: &Bytes) -> bool {
        body.as_ptr_range().contains(&part.as_ptr())
    }

    #[test]
    fn the_larger_part_of_a_large_body_is_shared_and_a_small_part_is_not() {
        let (body, parts) = decoded(131_072, 1000);
        assert!(is_part_of(&parts.large, &body) && !is_part_of(&parts.small, &body));
        assert_eq!(BODY.take().len(), 0, "the body is not kept by the thread");
    }

    #[test]
    fn a_small_body_is_not_shared() {
        // Two names, a map, and the heads of two strings.
        let more = decoded(131_072 / 2, 0).0.len() - 131_072 / 2;
        for (bytes, shared) in [(131_072, true), (131_072 - 1, false)] {
            let (body, parts) = decoded(bytes - more, 0);
            assert_eq!((body.len(), is_part_of(&parts.large, &body)), (bytes, shared));
        }
    }

    #[test]
    fn a_format_may_give_its_bytes_away_or_none() {
        let given = InPlace.visit_byte_buf::<serde::de::value::Error>(vec![1, 2]);
        assert_eq!(given.unwrap(), [1, 2][..]);
        let body = payload::to_vec(&(true, true), Encoding::Named, usize::MAX).unwrap();
        let error = payload::decode::<Parts>(&body, &PrescanLimits::default()).unwrap_err();
        assert!(error.to_string().contains("expected bytes"), "{error}");
    }

    fn pieces(value: &impl Serialize, max: usize) -> Result<VecDeque<Bytes>, RpcError> {
        let mut out = VecDeque::new();
        payload::encoded(value, Encoding::Named, max)?
            .body()
            .take()
            .split_into(usize::MAX, &mut out);
        Ok(out)
    }

    #[test]
    fn a_large_field_is_sent_from_where_it_is_and_a_small_one_is_copied() {
        let large = Bytes::from(vec![7; 16_384 + 1]);
        let small = large.slice(1..);
        let parts = [Parts { large: large.clone(), small }, Parts { large, small: Bytes::new() }];
        let mut out = pieces(&parts, usize::MAX).unwrap();
        let shared = |part: &&Bytes| is_part_of(part, &parts[0].large);
        assert_eq!(out.iter().filter(shared).map(Bytes::len).collect::<Vec<_>>(), [16_384 + 1; 2]);
        assert_eq!(out.len(), 5);
        let whole = payload::to_vec(&parts, Encoding::Named, usize::MAX).unwrap();
        assert_eq!(out.make_contiguous().concat(), whole);
        assert_eq!(OFFERED.take().len(), 0, "the field is not kept by the thread");
    }

    #[test]
    fn what_is_shared_counts_as_part_of_the_size() {
        let parts = Parts { large: vec![7; 20_000].into(), small: vec![8; 20_000].into() };
        let size = payload::to_vec(&parts, Encoding::Named, usize::MAX).unwrap().len();
        assert!(pieces(&parts, size).is_ok());
        for max in [size - 1, 39_999, 20_010, 1] {
            assert_eq!(pieces(&parts, max).unwrap_err().kind(), ErrorKind::TooLarge, "{max}");
        }
    }

    /// A field that changes what it is given before it is written.
    #[test]
    fn other_bytes_than_the_offered_ones_are_copied() {
        struct Doubled(Bytes);
        impl Serialize for Doubled {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                let _restore = Restore(&OFFERED, OFFERED.replace(self.0.clone()));
                serializer.serialize_bytes(&[&self.0[..], &self.0[..]].concat())
            }
        }
        let field = Bytes::from(vec![7; 16_384 + 1]);
        let out = pieces(&Doubled(field.clone()), usize::MAX).unwrap();
        assert!(out.len() == 1 && out[0].ends_with(&[&field[..], &field[..]].concat()));
    }

    #[test]
    fn an_array_of_integers_is_bytes_as_well() {
        let body = payload::to_vec(&([1, 2, 200], [3]), Encoding::Named, usize::MAX).unwrap();
        let back: Parts = payload::decode(&body, &PrescanLimits::default()).unwrap();
        assert_eq!((&back.large[..], &back.small[..]), (&[1, 2, 200][..], &[3][..]));
    }
}
