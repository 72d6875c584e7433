//! Bytes in several pieces, none of them copied.

use bytes::Bytes;
use std::collections::VecDeque;

/// Bytes in a row, mostly one piece of them.
#[derive(Debug, Default)]
pub(crate) struct Rope {
    first: Bytes,
    /// What comes behind the first piece: hardly ever anything.
    #[expect(clippy::box_collection, reason = "a message that waits should not be larger for it")]
    rest: Option<Box<VecDeque<Bytes>>>,
    len: usize,
}

impl Rope {
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The first piece: all there is, if it came as one.
    pub(crate) fn first(&self) -> &Bytes {
        &self.first
    }

    pub(crate) fn push(&mut self, piece: Bytes) {
        self.len = self.len.saturating_add(piece.len());
        if self.first.is_empty() {
            self.first = piece;
        } else if !piece.is_empty() {
            self.rest.get_or_insert_default().push_back(piece);
        }
    }

    /// Moves the next `bytes` of them, or all, to the end of `out`.
    pub(crate) fn split_into(&mut self, mut bytes: usize, out: &mut VecDeque<Bytes>) {
        while bytes > 0 && !self.first.is_empty() {
            let piece = self.first.split_to(bytes.min(self.first.len()));
            bytes = bytes.saturating_sub(piece.len());
            self.len = self.len.saturating_sub(piece.len());
            out.push_back(piece);
            if self.first.is_empty()
                && let Some(next) = self.rest.as_mut().and_then(|rest| rest.pop_front())
            {
                self.first = next;
            }
        }
    }
}

impl From<Bytes> for Rope {
    fn from(first: Bytes) -> Self {
        let len = first.len();
        Self { first, rest: None, len }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_are_split_where_it_is_asked_for() {
        let mut rope = Rope::default();
        for piece in [&b"abc"[..], b"", b"d", b"ef"] {
            rope.push(Bytes::from_static(piece));
        }
        let mut out = VecDeque::new();
        rope.split_into(2, &mut out);
        assert_eq!((&out, rope.len()), (&VecDeque::from([Bytes::from_static(b"ab")]), 4));
        out.clear();
        rope.split_into(3, &mut out);
        assert_eq!(out, [&b"c"[..], b"d", b"e"]);
        assert_eq!((rope.first().as_ref(), rope.is_empty()), (&b"f"[..], false));
        rope.split_into(10, &mut out);
        assert!(rope.is_empty());
    }
}
