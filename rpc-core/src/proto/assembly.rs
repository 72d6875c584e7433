//! Large bodies that arrive in parts.

use super::close::{Close, CloseCode};
use bytes::{Bytes, BytesMut};
use std::collections::BTreeMap;

/// What the first frame of a large body said.
#[derive(Debug)]
pub(crate) struct FirstPart<T> {
    pub(crate) stream: u32,
    pub(crate) total: u64,
    pub(crate) what: T,
}

/// Bodies in the making, by the number of their stream.
#[derive(Debug)]
pub(crate) struct Assemblies<T> {
    open: BTreeMap<u32, Assembly<T>>,
    /// The announced sizes of those together, and how much that may be.
    total: usize,
    budget: usize,
    max_message: usize,
}

#[derive(Debug)]
struct Assembly<T> {
    what: T,
    total: usize,
    body: BytesMut,
}

/// Large bodies that one peer may have open at once.
const MAX_OPEN: usize = 256;
/// What is reserved before a byte has come: a large body's buffer then grows with what arrives.
const FIRST_RESERVE: usize = 1024 * 1024;

impl<T> Assemblies<T> {
    /// Bodies of at most `max_message` bytes, and of `budget` together. As for a window, one of them
    /// may come on top of that.
    pub(crate) fn new(max_message: usize, budget: usize) -> Self {
        Self { open: BTreeMap::new(), total: 0, budget, max_message }
    }

    /// Begins a body, whose first part is still to be added; how large it will be.
    pub(crate) fn begin(&mut self, first: FirstPart<T>) -> Result<usize, Close> {
        let total = usize::try_from(first.total).unwrap_or(usize::MAX);
        self.allow(total)?;
        if self.open.len() >= MAX_OPEN || self.open.contains_key(&first.stream) {
            return Err(Close::protocol(format!(
                "large message {} was begun twice, or {MAX_OPEN} are open",
                first.stream
            )));
        }
        let together = self.total.saturating_add(total);
        if together > self.budget.saturating_add(self.max_message) {
            return Err(Close::new(
                CloseCode::Credit,
                format!(
                    "large messages of {together} bytes are under way at once, over the limit of {} and one message (rpc.io.maxAssembly)",
                    self.budget
                ),
            ));
        }
        self.total = together;
        let body = BytesMut::with_capacity(total.min(FIRST_RESERVE));
        self.open.insert(first.stream, Assembly { what: first.what, total, body });
        Ok(total)
    }

    /// Whether a body may be so large, in one part or in many.
    pub(crate) fn allow(&self, size: usize) -> Result<(), Close> {
        if size <= self.max_message {
            return Ok(());
        }
        Err(Close::new(
            CloseCode::TooLarge,
            format!(
                "a message of {size} bytes is over the limit of {} (rpc.message.maxSize)",
                self.max_message
            ),
        ))
    }

    /// Adds a part; the whole body if that was the last one.
    pub(crate) fn add(&mut self, stream: u32, part: &[u8]) -> Result<Option<(T, Bytes)>, Close> {
        let Some(assembly) = self.open.get_mut(&stream) else {
            return Err(Close::protocol(format!(
                "a part of a large message {stream} that is not open"
            )));
        };
        let length = assembly.body.len().saturating_add(part.len());
        if length > assembly.total {
            return Err(Close::protocol(format!(
                "large message {stream} has more than the {} bytes it was announced with",
                assembly.total
            )));
        }
        if assembly.body.capacity() < length {
            // It has begun to come in earnest: one reservation for the rest.
            assembly.body.reserve(assembly.total.saturating_sub(assembly.body.len()));
        }
        assembly.body.extend_from_slice(part);
        if length < assembly.total {
            return Ok(None);
        }
        Ok(self.close(stream).map(|done| (done.what, done.body.freeze())))
    }

    fn close(&mut self, stream: u32) -> Option<Assembly<T>> {
        let closed = self.open.remove(&stream)?;
        self.total = self.total.saturating_sub(closed.total);
        Some(closed)
    }

    /// The rest of a body will not come; what it was, and how large it was to be.
    pub(crate) fn drop_stream(&mut self, stream: u32) -> Option<(T, usize)> {
        self.close(stream).map(|assembly| (assembly.what, assembly.total))
    }

    /// The announced bytes of all that is open.
    #[cfg(test)]
    pub(crate) fn under_way(&self) -> usize {
        self.total
    }

    pub(crate) fn clear(&mut self) {
        self.open.clear();
        self.total = 0;
    }
}
