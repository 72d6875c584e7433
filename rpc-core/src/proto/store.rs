//! Where the bodies of small messages wait: many in one allocation.

use bytes::{Bytes, BytesMut};

/// Bytes that are allocated at once. A body that waits keeps no more than this from being freed.
const CHUNK: usize = 4096;
/// Larger bodies have an allocation of their own.
const SMALL: usize = CHUNK / 8;

/// A chunk of memory that bodies are copied into, one after the other.
#[derive(Debug, Default)]
pub(crate) struct Store {
    chunk: BytesMut,
}

impl Store {
    /// A copy of `body`.
    pub(crate) fn keep(&mut self, body: &[u8]) -> Bytes {
        if body.len() > SMALL {
            return Bytes::copy_from_slice(body);
        }
        if self.chunk.capacity() < body.len() {
            self.chunk = BytesMut::with_capacity(CHUNK);
        }
        self.chunk.extend_from_slice(body);
        self.chunk.split().freeze()
    }

    /// Gives the last chunk back: nothing waits.
    pub(crate) fn clear(&mut self) {
        if self.chunk.capacity() > 0 {
            self.chunk = BytesMut::new();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn small_bodies_share_and_stay_as_they_are() {
        let mut store = Store::default();
        let bodies: Vec<Vec<u8>> = (0..100_u8).map(|n| vec![n; usize::from(n) * 9]).collect();
        let kept: Vec<Bytes> = bodies.iter().map(|body| store.keep(body)).collect();
        assert!(kept.iter().zip(&bodies).all(|(kept, body)| kept == body));
        let (first, second) = (store.keep(b"one"), store.keep(b"two"));
        assert_eq!(first.as_ptr().wrapping_add(3), second.as_ptr());
        store.clear();
        assert_eq!(store.chunk.capacity(), 0);
        assert_eq!((&*first, &*second), (&b"one"[..], &b"two"[..]));
    }
    #[test]
    fn a_chunk_is_filled_to_its_end_by_bodies_that_are_small() {
        let mut store = Store::default();
        let place = |body: &Bytes| body.as_ptr().addr();
        let first = place(&store.keep(&[1; SMALL]));
        // One that is larger has its own.
        store.keep(&[2; SMALL + 1]);
        for number in 1..8 {
            assert_eq!(place(&store.keep(&[3; SMALL])), first + number * SMALL);
        }
        assert_eq!(store.chunk.capacity(), 0);
        store.keep(&[4]);
        assert_eq!(store.chunk.capacity(), CHUNK - 1);
    }
}
