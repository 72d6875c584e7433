//! A value as it goes out.

use super::rope::Rope;
use super::spare;
use bytes::Bytes;
use std::borrow::Cow;

/// Bodies up to this many bytes are copied into the connection's buffer; larger ones are moved,
/// and travel in chunks. Below it a copy is cheaper than one more segment of a vectored write.
pub(crate) const SMALL_BODY: usize = 16 * 1024;

/// A value in MessagePack: its bytes, and between them large ones that it shares with the value.
///
/// Only parts above 16 KiB are shared.
#[derive(Debug, Default)]
pub struct Encoded {
    bytes: Vec<u8>,
    /// What is shared, and before which of the bytes it stands.
    shared: Vec<(usize, Bytes)>,
    shared_bytes: usize,
}

impl Encoded {
    /// The size in all.
    #[must_use]
    pub fn len(&self) -> usize {
        self.bytes.len().saturating_add(self.shared_bytes)
    }

    /// Whether there is nothing: no value is written as that.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// What is not shared: all of a small value.
    pub(crate) fn own(&self) -> &[u8] {
        &self.bytes
    }

    pub(crate) fn own_mut(&mut self) -> &mut Vec<u8> {
        &mut self.bytes
    }

    /// Makes it empty. What was not shared keeps its memory.
    pub(crate) fn clear(&mut self) {
        self.bytes.clear();
        if !self.shared.is_empty() {
            self.shared = Vec::new();
            self.shared_bytes = 0;
        }
    }

    /// Adds bytes that it has a part in.
    pub(crate) fn share(&mut self, part: Bytes) {
        self.shared_bytes = self.shared_bytes.saturating_add(part.len());
        self.shared.push((self.bytes.len(), part));
    }

    /// All of it in one piece: a copy, if it shares anything.
    #[must_use]
    pub fn joined(&self) -> Cow<'_, [u8]> {
        if self.shared.is_empty() {
            return Cow::Borrowed(&self.bytes);
        }
        let mut whole = Vec::with_capacity(self.len());
        let mut done = 0;
        for (at, part) in &self.shared {
            whole.extend_from_slice(self.bytes.get(done..*at).unwrap_or_default());
            whole.extend_from_slice(part);
            done = *at;
        }
        whole.extend_from_slice(self.bytes.get(done..).unwrap_or_default());
        Cow::Owned(whole)
    }

    /// A copy of it.
    #[must_use]
    pub fn to_vec(&self) -> Vec<u8> {
        self.joined().into_owned()
    }

    /// Takes it out, without a copy of what is large.
    pub(crate) fn take(&mut self) -> Rope {
        if self.shared.is_empty() {
            return Rope::from(spare::lend(std::mem::take(&mut self.bytes)));
        }
        // Most of it is shared: the rest needs no buffer as large as this one.
        let mut own = Bytes::copy_from_slice(&self.bytes);
        self.bytes.clear();
        self.shared_bytes = 0;
        let (mut rope, mut done) = (Rope::default(), 0_usize);
        for (at, part) in self.shared.drain(..) {
            rope.push(own.split_to(at.saturating_sub(done).min(own.len())));
            rope.push(part);
            done = at;
        }
        rope.push(own);
        rope
    }
}

impl From<Vec<u8>> for Encoded {
    fn from(bytes: Vec<u8>) -> Self {
        Self { bytes, shared: Vec::new(), shared_bytes: 0 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// "ab", then "cd" shared, then "ef" shared, then "g".
    fn encoded() -> Encoded {
        let mut encoded = Encoded::from(b"ab".to_vec());
        encoded.share(Bytes::from_static(b"cd"));
        encoded.share(Bytes::from_static(b"ef"));
        encoded.own_mut().push(b'g');
        encoded
    }

    #[test]
    fn what_is_shared_stands_where_it_was_added() {
        let mut encoded = encoded();
        assert_eq!((encoded.len(), encoded.to_vec()), (7, b"abcdefg".to_vec()));
        assert!(matches!(encoded.joined(), Cow::Owned(_)));
        assert!(!encoded.is_empty());
        let mut rope = encoded.take();
        assert_eq!((encoded.len(), encoded.to_vec()), (0, Vec::new()));
        assert!(encoded.is_empty());
        let mut out = std::collections::VecDeque::new();
        assert_eq!(rope.len(), 7);
        rope.split_into(7, &mut out);
        assert_eq!(out, [&b"ab"[..], b"cd", b"ef", b"g"]);
    }

    #[test]
    fn a_value_that_shares_nothing_is_moved() {
        let mut encoded = Encoded::from(vec![1; 100]);
        let was = encoded.own().as_ptr();
        assert_eq!(encoded.joined().as_ptr(), was, "nor is it copied to be in one piece");
        let mut out = std::collections::VecDeque::new();
        encoded.take().split_into(100, &mut out);
        assert_eq!((out.len(), out[0].as_ptr()), (1, was));
    }
}
