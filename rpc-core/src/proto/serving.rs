//! The peer's calls that this env has to answer.

use super::calls::slot_of;
use super::close::{Close, CloseCode};
use crate::wakers::Wakers;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Waker};

/// Open calls by slot. A peer chooses the numbers, but within its limit of calls in flight, so
/// the table is dense and bounded.
#[derive(Debug)]
pub(crate) struct Serving {
    slots: Vec<Option<Served>>,
    max: usize,
    open: usize,
    /// See [`cancels`](Self::cancels); every connection has its own.
    cancels: Arc<AtomicBool>,
}

#[derive(Debug)]
struct Served {
    id: u64,
    /// Handlers that want to know when it is over.
    waiting: Wakers,
}

impl Serving {
    pub(crate) fn new(max: usize) -> Self {
        Self { slots: Vec::new(), max, open: 0, cancels: Arc::default() }
    }

    /// Set once a call of this connection was given up, or the connection is gone. Until then an
    /// endpoint need not ask, under the lock, whether each call is still open.
    pub(crate) fn cancels(&self) -> &Arc<AtomicBool> {
        &self.cancels
    }

    /// The caller gave up.
    pub(crate) fn cancel(&mut self, id: u64) -> Option<Wakers> {
        let waiting = self.close(id)?;
        self.cancels.store(true, Ordering::Release);
        Some(waiting)
    }

    /// A call has arrived.
    pub(crate) fn open(&mut self, id: u64) -> Result<(), Close> {
        let slot = slot_of(id);
        if slot >= self.max {
            return Err(Close::protocol(format!(
                "call {id:#x} is in slot {slot}, but {} calls may be in flight (rpc.io.maxInFlight)",
                self.max
            )));
        }
        if self.slots.len() <= slot {
            self.slots.resize_with(slot.saturating_add(1), || None);
        }
        let Some(entry) = self.slots.get_mut(slot) else { return Ok(()) };
        if let Some(served) = entry {
            return Err(Close::new(
                CloseCode::DuplicateId,
                format!(
                    "call {id:#x} was made while call {:#x} of the same slot is open",
                    served.id
                ),
            ));
        }
        *entry = Some(Served { id, waiting: Wakers::default() });
        self.open = self.open.saturating_add(1);
        Ok(())
    }

    fn entry(&mut self, id: u64) -> Option<&mut Option<Served>> {
        let entry = self.slots.get_mut(slot_of(id))?;
        entry.as_ref().is_some_and(|served| served.id == id).then_some(entry)
    }

    /// A call is answered, or its caller gave up; the wakers of those who wait for that.
    /// `None` if the call is not open.
    pub(crate) fn close(&mut self, id: u64) -> Option<Wakers> {
        let served = self.entry(id)?.take()?;
        self.open = self.open.saturating_sub(1);
        Some(served.waiting)
    }

    /// Ready once the call is not open any more.
    pub(crate) fn poll_closed(
        &mut self,
        id: u64,
        place: &mut Option<usize>,
        cx: &Context<'_>,
    ) -> Poll<()> {
        match self.entry(id) {
            Some(Some(served)) => {
                served.waiting.add(place, cx);
                Poll::Pending
            }
            _ => Poll::Ready(()),
        }
    }

    /// Takes back the waker that was kept there.
    pub(crate) fn forget(&mut self, id: u64, place: usize) -> Option<Waker> {
        self.entry(id)?.as_mut()?.waiting.remove(place)
    }

    pub(crate) fn is_open(&self, id: u64) -> bool {
        let entry = self.slots.get(slot_of(id));
        entry.and_then(Option::as_ref).is_some_and(|served| served.id == id)
    }

    pub(crate) fn len(&self) -> usize {
        self.open
    }

    /// Whether the count is that of the open slots.
    #[cfg(any(test, fuzzing, feature = "audit"))]
    pub(crate) fn is_counted(&self) -> bool {
        self.slots.len() <= self.max && self.slots.iter().flatten().count() == self.open
    }

    /// The connection is gone, and every caller with it.
    pub(crate) fn clear(&mut self, wakes: &mut Vec<Waker>) {
        self.open = 0;
        self.cancels.store(true, Ordering::Release);
        self.cancels = Arc::default();
        wakes.extend(std::mem::take(&mut self.slots).into_iter().flatten().flat_map(|s| s.waiting));
    }
}
