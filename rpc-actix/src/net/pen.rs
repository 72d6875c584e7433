//! Who writes into a connection: its driver; whoever has the only thing to say, while the driver
//! sleeps; or, for a sign of life, the env's watch. Never two at once, and what was taken from the
//! session first is written first.

use super::transport::SideDoor;
use crate::planted::planted;
use bytes::{Buf, Bytes, BytesMut};
use rpc_core::spi::{Count, Tally};
use rpc_core::wire::frame::{Kind, put_control};
use std::collections::VecDeque;
use std::io::IoSlice;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Slices of one vectored write.
const SLICES: usize = 32;

/// Held by whoever writes. Who holds it may lock the link; not the other way round.
#[derive(Default)]
pub(crate) struct Pen {
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// Which of the link's connections it writes into.
    turn: u64,
    door: Option<Arc<dyn SideDoor>>,
    /// What counts as sent and was not given to the socket yet.
    queue: VecDeque<Bytes>,
    /// Where writes are counted.
    tally: Option<Arc<Tally>>,
}

impl Pen {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A connection is ready; `door` is how it can be written to from outside.
    pub(crate) fn open(&self, turn: u64, door: Option<Arc<dyn SideDoor>>, tally: Arc<Tally>) {
        let mut state = self.lock();
        let queue =
            if planted!(PenKept) { std::mem::take(&mut state.queue) } else { VecDeque::new() };
        *state = State { turn, door, queue, tally: Some(tally) };
    }

    /// That connection is gone: what is kept of it would keep its socket.
    pub(crate) fn close(&self, turn: u64) {
        let mut state = self.lock();
        if state.turn == turn && !planted!(PenKept) {
            *state = State::default();
        }
    }

    /// Takes the pen for the driver.
    pub(crate) fn take(&self) -> Held<'_> {
        Held { state: self.lock() }
    }

    /// Writes a sign of life, if nobody writes and no frame is in the middle.
    pub(crate) fn sign_of_life(&self) -> SideWrite {
        self.write_beside(|queue| {
            let mut frame = BytesMut::new();
            put_control(&mut frame, Kind::Heartbeat, &[], &[]);
            queue.push_back(frame.freeze());
        })
    }

    /// Writes what `fill` has to say, unless somebody writes, or something before it has not gone.
    pub(crate) fn write_beside(&self, fill: impl FnOnce(&mut VecDeque<Bytes>)) -> SideWrite {
        let Ok(mut state) = self.state.try_lock() else { return SideWrite::NotNow };
        let Some(door) = state.door.clone() else { return SideWrite::NoDoor };
        if !state.queue.is_empty() {
            return SideWrite::NotNow;
        }
        fill(&mut state.queue);
        while !state.queue.is_empty() {
            let tried = match (state.queue.front(), state.queue.len()) {
                (Some(only), 1) => door.try_write(&[IoSlice::new(only)]),
                _ => {
                    let (slices, used) = slices(&state.queue);
                    door.try_write(slices.get(..used).unwrap_or_default())
                }
            };
            match tried {
                Ok(written @ 1..) => state.advance(written),
                // A full socket, or a broken connection, which is the driver's to find.
                _ => return SideWrite::Begun,
            }
        }
        SideWrite::Written
    }
}

/// What became of something that was to be written beside the driver.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum SideWrite {
    Written,
    /// The rest of it is the driver's, which has to be woken.
    Begun,
    /// Somebody else writes, or the socket has not taken what was before.
    NotNow,
    /// The stream can be written to by its driver only.
    NoDoor,
}

/// The pen in the driver's hand.
pub(crate) struct Held<'a> {
    state: MutexGuard<'a, State>,
}

impl Held<'_> {
    /// What is to be written, first things first.
    pub(crate) fn queue(&mut self) -> &mut VecDeque<Bytes> {
        &mut self.state.queue
    }

    /// So many bytes of it were written.
    pub(crate) fn advance(&mut self, written: usize) {
        self.state.advance(written);
    }
}

/// The beginning of a queue, to be written at once, and in how many slices.
pub(super) fn slices(queue: &VecDeque<Bytes>) -> ([IoSlice<'_>; SLICES], usize) {
    let mut slices = [IoSlice::new(&[]); SLICES];
    for (slot, bytes) in slices.iter_mut().zip(queue) {
        *slot = IoSlice::new(bytes);
    }
    (slices, queue.len().min(SLICES))
}

impl State {
    fn advance(&mut self, mut written: usize) {
        if let Some(tally) = &self.tally {
            tally.count(Count::Writes);
            tally.add(Count::BytesSent, written as u64);
        }
        while written > 0
            && let Some(front) = self.queue.front_mut()
        {
            let part = written.min(front.len());
            front.advance(part);
            written = written.saturating_sub(part);
            if front.is_empty() {
                self.queue.pop_front();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io;

    /// Takes so many bytes, then no more.
    #[derive(Default)]
    struct Narrow {
        room: Mutex<usize>,
        taken: Mutex<Vec<u8>>,
    }

    impl SideDoor for Narrow {
        fn try_write(&self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
            let mut room = self.room.lock().unwrap();
            let bytes: Vec<u8> = slices.iter().flat_map(|slice| slice.to_vec()).collect();
            let part = bytes.len().min(*room);
            if part == 0 {
                return Err(io::ErrorKind::WouldBlock.into());
            }
            *room -= part;
            self.taken.lock().unwrap().extend_from_slice(&bytes[..part]);
            Ok(part)
        }
    }

    fn open(room: usize) -> (Pen, Arc<Narrow>) {
        let (pen, door) = (Pen::default(), Arc::new(Narrow::default()));
        *door.room.lock().unwrap() = room;
        pen.open(1, Some(door.clone()), Arc::default());
        (pen, door)
    }

    fn write(pen: &Pen, bytes: &'static [u8]) -> SideWrite {
        pen.write_beside(|queue| queue.push_back(Bytes::from_static(bytes)))
    }

    #[test]
    fn what_was_begun_is_in_front_of_all_that_comes_later() {
        let (pen, door) = open(5);
        assert_eq!(write(&pen, b"abc"), SideWrite::Written);
        assert_eq!(write(&pen, b"defg"), SideWrite::Begun);
        *door.room.lock().unwrap() = 100;
        let unasked = |_: &mut VecDeque<Bytes>| panic!("nobody else may write now");
        assert_eq!(pen.write_beside(unasked), SideWrite::NotNow);
        assert_eq!(pen.sign_of_life(), SideWrite::NotNow);
        let mut held = pen.take();
        assert_eq!(held.queue().front().map(|rest| &rest[..]), Some(&b"fg"[..]));
        held.advance(2);
        assert!(held.queue().is_empty());
        assert_eq!(pen.sign_of_life(), SideWrite::NotNow, "the driver holds the pen");
        drop(held);
        assert_eq!(pen.sign_of_life(), SideWrite::Written);
        assert_eq!(door.taken.lock().unwrap()[..5], *b"abcde");
    }

    #[test]
    fn a_pen_is_closed_by_its_own_connection_only() {
        let (pen, _door) = open(100);
        pen.close(2);
        assert_eq!(write(&pen, b"a"), SideWrite::Written);
        pen.close(1);
        assert_eq!(write(&pen, b"a"), SideWrite::NoDoor);
    }
}
