//! Large bodies that arrive in parts.

use super::close::{Close, CloseCode};
use crate::wire::spare;
use bytes::Bytes;
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
    body: Vec<u8>,
}

/// Large bodies that one peer may have open at once.
const MAX_OPEN: usize = 256;
/// What is reserved for a body before its second part has come, if it is larger than that.
const FIRST_RESERVE: usize = 256 * 1024;
/// Up to this, all of it is.
const WHOLE_RESERVE: usize = 2 * 1024 * 1024;

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
        let first_reserve = if total <= WHOLE_RESERVE { total } else { FIRST_RESERVE };
        let body = spare::take(total).unwrap_or_else(|| Vec::with_capacity(first_reserve));
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

    /// The buffer of a body, with room for a part of so many bytes.
    fn room_for(&mut self, stream: u32, part: usize) -> Result<&mut Vec<u8>, Close> {
        let Some(assembly) = self.open.get_mut(&stream) else {
            return Err(Close::protocol(format!(
                "a part of a large message {stream} that is not open"
            )));
        };
        let length = assembly.body.len().saturating_add(part);
        if length > assembly.total {
            return Err(Close::protocol(format!(
                "large message {stream} has more than the {} bytes it was announced with",
                assembly.total
            )));
        }
        if assembly.body.capacity() < length {
            // It has begun to come in earnest: one reservation for the rest.
            assembly.body.reserve_exact(assembly.total.saturating_sub(assembly.body.len()));
        }
        Ok(&mut assembly.body)
    }

    /// Whether a part of so many bytes may come.
    pub(crate) fn expect(&mut self, stream: u32, part: usize) -> Result<(), Close> {
        self.room_for(stream, part).map(drop)
    }

    /// Adds a part; the whole body if that was the last one.
    pub(crate) fn add(&mut self, stream: u32, part: &[u8]) -> Result<Option<(T, Bytes)>, Close> {
        self.room_for(stream, part.len())?.extend_from_slice(part);
        Ok(self.finished(stream))
    }

    /// Lends the buffer of a body, to be read into.
    pub(crate) fn lend(&mut self, stream: u32) -> Option<Vec<u8>> {
        self.open.get_mut(&stream).map(|assembly| std::mem::take(&mut assembly.body))
    }

    /// Takes it back with what has come; the whole body if that was the last of it.
    pub(crate) fn take_back(&mut self, stream: u32, body: Vec<u8>) -> Option<(T, Bytes)> {
        self.open.get_mut(&stream)?.body = body;
        self.finished(stream)
    }

    fn finished(&mut self, stream: u32) -> Option<(T, Bytes)> {
        let assembly = self.open.get(&stream)?;
        if assembly.body.len() < assembly.total {
            return None;
        }
        self.close(stream).map(|done| (done.what, spare::lend(done.body)))
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

    /// Whether the count is that of the open bodies, within its limit, and no body is larger than it
    /// was announced.
    #[cfg(any(test, fuzzing, feature = "audit"))]
    pub(crate) fn is_counted(&self) -> bool {
        let totals: usize = self.open.values().map(|open| open.total).sum();
        let fits =
            |open: &Assembly<T>| open.body.len() <= open.total && open.total <= self.max_message;
        totals == self.total
            && totals <= self.budget.saturating_add(self.max_message)
            && self.open.len() <= MAX_OPEN
            && self.open.values().all(fits)
    }

    pub(crate) fn clear(&mut self) {
        self.open.clear();
        self.total = 0;
    }
}
