//! The calls of this env to one peer, from their making to the end of their future.

use crate::plant::planted;
use crate::seam::CallEnd;
use bytes::Bytes;
use std::task::{Context, Poll, Waker};

/// The low bits of a call's number say which slot it is in; the rest, how often the slot was used
/// before. So a number is never used twice, and finding its slot costs nothing.
pub(crate) const SLOT_BITS: u32 = 24;
const SLOT_MASK: u64 = (1 << SLOT_BITS) - 1;

/// The slot of a call's number.
pub(crate) fn slot_of(id: u64) -> usize {
    usize::try_from(id & SLOT_MASK).unwrap_or(usize::MAX)
}

fn generation_of(id: u64) -> u64 {
    id >> SLOT_BITS
}

/// The calls that the peer may be working on, by the numbers that it knows them by. Their slots are
/// not those of [`Calls`]: a call that waits in a queue has no number yet, so the slots stay below
/// the peer's limit of calls in flight, however many wait.
#[derive(Debug, Default)]
pub(crate) struct Flights {
    slots: Vec<Flight>,
    free: Vec<u32>,
    /// How many of them are relayed.
    relayed: usize,
}

#[derive(Debug, Default)]
struct Flight {
    generation: u64,
    relayed: bool,
    call: Option<u64>,
}

impl Flights {
    /// A number for a call that goes out.
    pub(crate) fn depart(&mut self, call: u64, relayed: bool) -> u64 {
        let slot = self.free.pop().unwrap_or_else(|| {
            self.slots.push(Flight::default());
            u32::try_from(self.slots.len().saturating_sub(1)).unwrap_or(u32::MAX)
        });
        let Some(flight) = self.slots.get_mut(slot as usize) else { return u64::MAX };
        (flight.call, flight.relayed) = (Some(call), relayed);
        self.relayed = self.relayed.saturating_add(usize::from(relayed));
        (flight.generation << SLOT_BITS) | u64::from(slot)
    }

    /// Frees a number; the call that had it.
    pub(crate) fn land(&mut self, number: u64) -> Option<u64> {
        let flight = self.slots.get_mut(slot_of(number))?;
        if flight.generation != generation_of(number) {
            return None;
        }
        let call = flight.call.take()?;
        self.relayed = self.relayed.saturating_sub(usize::from(flight.relayed));
        flight.generation = flight.generation.wrapping_add(u64::from(!planted!(CallNumberAgain)));
        self.free.push(u32::try_from(slot_of(number)).unwrap_or(u32::MAX));
        Some(call)
    }

    /// The call that has a number now.
    pub(crate) fn call_of(&self, number: u64) -> Option<u64> {
        let flight = self.slots.get(slot_of(number))?;
        flight.call.filter(|_| flight.generation == generation_of(number))
    }

    pub(crate) fn known(&self, number: u64) -> Known {
        match self.slots.get(slot_of(number)) {
            Some(flight) if generation_of(number) < flight.generation => Known::Past,
            Some(flight) if generation_of(number) == flight.generation => match flight.call {
                Some(_) => Known::Open,
                None => Known::Never,
            },
            _ => Known::Never,
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.slots.len().saturating_sub(self.free.len())
    }

    /// Whether another call may go, where `max` may be out at once. Relayed ones have half of the
    /// places, so that those of this env find some.
    pub(crate) fn have_room(&self, max: usize, relayed: bool) -> bool {
        self.len() < max && (!relayed || self.relayed < max.div_ceil(2))
    }

    /// Whether the counts are those of the slots.
    #[cfg(any(test, fuzzing, feature = "audit"))]
    pub(crate) fn is_counted(&self) -> bool {
        let open = || self.slots.iter().filter(|flight| flight.call.is_some());
        let relayed = open().filter(|flight| flight.relayed).count();
        open().count() == self.len() && relayed == self.relayed
    }

    /// The connection is gone; the next one begins anew.
    pub(crate) fn clear(&mut self) {
        self.slots.clear();
        self.free.clear();
        self.relayed = 0;
    }
}

/// Where an open call is.
#[derive(Debug)]
pub(crate) enum Progress {
    /// In the queue of its target, not encoded into a frame.
    Pending,
    /// In a lane's buffer, at this offset of all that ever went through it.
    Ready {
        lane: usize,
        offset: u64,
        bytes: usize,
        /// The target's number that the frame has.
        number: u32,
    },
    /// Given to the socket, wholly or in part.
    Sent,
    /// Waits for a name to be resolved.
    Resolving,
    /// Waits for the end of the endpoint.
    Watching,
    /// A one-way message that has not found room yet.
    Waiting,
    Done(Result<Bytes, CallEnd>),
}

#[derive(Debug)]
pub(crate) struct Call {
    pub(crate) progress: Progress,
    pub(crate) target: u32,
    /// The number that the peer knows it by, once it is in flight.
    pub(crate) flight: Option<u64>,
    /// Whether it is somebody else's, who is told of its end as it was said.
    pub(crate) relayed: bool,
    waker: Option<Waker>,
}

impl Call {
    pub(crate) fn ended(progress: Progress, target: u32, flight: Option<u64>) -> Self {
        Self { progress, target, flight, relayed: false, waker: None }
    }

    pub(crate) fn take_waker(&mut self) -> Option<Waker> {
        self.waker.take()
    }
}

#[derive(Debug, Default)]
struct Slot {
    generation: u64,
    call: Option<Call>,
}

impl Slot {
    /// Whether it has that call, or had it last.
    fn has(&self, id: u64) -> bool {
        self.generation == generation_of(id)
    }
}

/// A slab of calls.
#[derive(Debug, Default)]
pub(crate) struct Calls {
    slots: Vec<Slot>,
    free: Vec<u32>,
}

/// What a number from the peer stands for.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Known {
    Open,
    /// It was a call once.
    Past,
    /// It never was.
    Never,
}

impl Calls {
    #[inline]
    pub(crate) fn open(&mut self, target: u32, begins: impl FnOnce() -> Progress) -> Option<u64> {
        let slot = match self.free.pop() {
            Some(slot) => slot,
            None => self.add_slot()?,
        };
        let entry = self.slots.get_mut(slot as usize)?;
        // Made where it lies: it is large.
        let progress = begins();
        entry.call = Some(Call { progress, target, flight: None, relayed: false, waker: None });
        Some((entry.generation << SLOT_BITS) | u64::from(slot))
    }

    fn add_slot(&mut self) -> Option<u32> {
        let slot =
            u32::try_from(self.slots.len()).ok().filter(|slot| u64::from(*slot) <= SLOT_MASK)?;
        self.slots.push(Slot::default());
        Some(slot)
    }

    fn slot(&mut self, id: u64) -> Option<&mut Slot> {
        self.slots.get_mut(slot_of(id)).filter(|slot| slot.has(id))
    }

    pub(crate) fn get(&mut self, id: u64) -> Option<&mut Call> {
        self.slot(id)?.call.as_mut()
    }

    /// Whether a call has not ended.
    pub(crate) fn is_open(&self, id: u64) -> bool {
        let slot = self.slots.get(slot_of(id)).filter(|slot| slot.generation == generation_of(id));
        let call = slot.and_then(|slot| slot.call.as_ref());
        call.is_some_and(|call| !matches!(call.progress, Progress::Done(_)))
    }

    /// Frees the slot of a call; its number will not be used again.
    pub(crate) fn close(&mut self, id: u64) -> Option<Call> {
        let slot = self.slot(id)?;
        let call = slot.call.take()?;
        slot.generation = slot.generation.wrapping_add(1);
        self.free.push(u32::try_from(slot_of(id)).unwrap_or(u32::MAX));
        Some(call)
    }

    /// Ends a call with its answer, if it is open, as [`finish`](Self::finish) does. The number by
    /// which the peer knew it is over as well.
    #[inline]
    pub(crate) fn answer(
        &mut self,
        id: u64,
        result: impl FnOnce() -> Result<Bytes, CallEnd>,
        wakes: &mut Vec<Waker>,
    ) {
        let Some(call) = self.get(id) else { return };
        if !matches!(call.progress, Progress::Done(_)) {
            call.flight = None;
            call.progress = Progress::Done(result());
            wakes.extend(call.waker.take());
        }
    }

    /// Ends a call, if it is open; its future finds the result. Its waker goes into `wakes`.
    pub(crate) fn finish(
        &mut self,
        id: u64,
        result: Result<Bytes, CallEnd>,
        wakes: &mut Vec<Waker>,
    ) -> Option<Progress> {
        let call = self.get(id)?;
        if matches!(call.progress, Progress::Done(_)) {
            return None;
        }
        let before = std::mem::replace(&mut call.progress, Progress::Done(result));
        wakes.extend(call.waker.take());
        Some(before)
    }

    pub(crate) fn poll(&mut self, id: u64, cx: &Context<'_>) -> Poll<Result<Bytes, CallEnd>> {
        let Some(slot) = self.slots.get_mut(slot_of(id)).filter(|slot| slot.has(id)) else {
            return Poll::Ready(Err(CallEnd::TimedOut { sent: true }));
        };
        match &mut slot.call {
            Some(Call { progress: Progress::Done(result), .. }) => {
                // Out of where it lies: a call that is moved first is moved as a whole.
                let over = Err(CallEnd::TimedOut { sent: true });
                let result = Poll::Ready(std::mem::replace(result, over));
                (slot.generation, slot.call) = (slot.generation.wrapping_add(1), None);
                self.free.push(u32::try_from(slot_of(id)).unwrap_or(u32::MAX));
                result
            }
            Some(call) => {
                if !call.waker.as_ref().is_some_and(|waker| waker.will_wake(cx.waker())) {
                    call.waker = Some(cx.waker().clone());
                }
                Poll::Pending
            }
            None => Poll::Ready(Err(CallEnd::TimedOut { sent: true })),
        }
    }

    /// The numbers of the open calls for which `pick` says so.
    pub(crate) fn ids(&self, pick: impl Fn(&Call) -> bool) -> Vec<u64> {
        let numbered = self.slots.iter().enumerate();
        let open = numbered.filter(|(_, slot)| slot.call.as_ref().is_some_and(&pick));
        open.map(|(index, slot)| (slot.generation << SLOT_BITS) | index as u64).collect()
    }

    /// Every call in the table, with its number.
    #[cfg(any(test, fuzzing, feature = "audit"))]
    pub(crate) fn iter(&self) -> impl Iterator<Item = (u64, &Call)> {
        let numbered = (0_u64..).zip(&self.slots);
        numbered.filter_map(|(index, slot)| {
            Some(((slot.generation << SLOT_BITS) | index, slot.call.as_ref()?))
        })
    }

    /// Open calls that have not ended.
    pub(crate) fn unfinished(&self) -> usize {
        self.ids(|call| !matches!(call.progress, Progress::Done(_))).len()
    }
}
