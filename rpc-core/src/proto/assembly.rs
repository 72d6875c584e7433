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
    pub(crate) fn new(max_message: usize) -> Self {
        Self { open: BTreeMap::new(), max_message }
    }

    /// Begins a body with its first part; the whole one if that is all of it.
    pub(crate) fn begin(
        &mut self,
        first: FirstPart<T>,
        part: &[u8],
    ) -> Result<Option<(T, Bytes)>, Close> {
        let total = usize::try_from(first.total).unwrap_or(usize::MAX);
        self.allow(total)?;
        if self.open.len() >= MAX_OPEN || self.open.contains_key(&first.stream) {
            return Err(Close::protocol(format!(
                "large message {} was begun twice, or {MAX_OPEN} are open",
                first.stream
            )));
        }
        let body = BytesMut::with_capacity(total.min(FIRST_RESERVE));
        self.open.insert(first.stream, Assembly { what: first.what, total, body });
        self.add(first.stream, part)
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
        Ok(self.open.remove(&stream).map(|done| (done.what, done.body.freeze())))
    }

    /// The rest of a body will not come.
    pub(crate) fn drop_stream(&mut self, stream: u32) -> Option<T> {
        self.open.remove(&stream).map(|assembly| assembly.what)
    }

    pub(crate) fn clear(&mut self) {
        self.open.clear();
    }
}
