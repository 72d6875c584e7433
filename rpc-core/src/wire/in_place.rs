//! For fields of type `Bytes` that are large: `#[serde(with = "rpc_core::bytes_in_place")]`.
//!
//! Such a field of a message that came over the network is not copied out of the message's body but
//! shares it. Copying 64 MiB takes 40 ms, in which the endpoint and all others of its thread wait.
//! The bytes on the wire are the same as without it.
//!
//! A field that is less than half of its body is copied all the same, and so is one of a body below
//! 128 KiB: a small part would keep the whole body in memory.

use bytes::Bytes;
use serde::de::{Deserializer, Error, SeqAccess, Visitor};
use serde::ser::Serializer;
use std::cell::RefCell;
use std::fmt;

thread_local! {
    /// The body that this thread decodes.
    static BODY: RefCell<Bytes> = const { RefCell::new(Bytes::new()) };
}

/// Bodies below this share a buffer with others, which a field of one would keep.
const SMALLEST_BODY: usize = 128 * 1024;

/// Runs `f`, which decodes `body`.
pub(crate) fn within<R>(body: &Bytes, f: impl FnOnce() -> R) -> R {
    if body.len() < SMALLEST_BODY {
        return f();
    }
    let _restore = Restore(BODY.replace(body.clone()));
    f()
}

struct Restore(Bytes);

impl Drop for Restore {
    fn drop(&mut self) {
        BODY.set(std::mem::take(&mut self.0));
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

/// Writes the bytes, as `Bytes` itself does.
///
/// # Errors
/// Those of the serializer.
pub fn serialize<S: Serializer>(bytes: &Bytes, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_bytes(bytes)
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
    use crate::message::Encoding;
    use crate::wire::payload;
    use crate::wire::prescan::PrescanLimits;
    use serde::{Deserialize, Serialize};

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
        let (body, parts) = decoded(SMALLEST_BODY, 1000);
        assert!(is_part_of(&parts.large, &body) && !is_part_of(&parts.small, &body));
        assert_eq!(BODY.take().len(), 0, "the body is not kept by the thread");
    }

    #[test]
    fn a_small_body_is_not_shared() {
        // Two names, a map, and the heads of two strings.
        let more = decoded(SMALLEST_BODY / 2, 0).0.len() - SMALLEST_BODY / 2;
        for (bytes, shared) in [(SMALLEST_BODY, true), (SMALLEST_BODY - 1, false)] {
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

    #[test]
    fn an_array_of_integers_is_bytes_as_well() {
        let body = payload::to_vec(&([1, 2, 200], [3]), Encoding::Named, usize::MAX).unwrap();
        let back: Parts = payload::decode(&body, &PrescanLimits::default()).unwrap();
        assert_eq!((&back.large[..], &back.small[..]), (&[1, 2, 200][..], &[3][..]));
    }
}
