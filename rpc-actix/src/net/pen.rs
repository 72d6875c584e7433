//! Who writes into a connection: its driver, or, for a sign of life while that is blocked, the
//! env's watch. Never both, and never in the middle of a frame.

use super::transport::SideDoor;
use bytes::{Bytes, BytesMut};
use rpc_core::wire::frame::{Kind, put_control};
use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Held by whoever writes.
#[derive(Default)]
pub(crate) struct Pen {
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    door: Option<Arc<dyn SideDoor>>,
    /// Whether a frame of the driver's may be written in part.
    mid_frame: bool,
    /// What is left of a sign of life that the socket took in part.
    rest: Bytes,
}

impl Pen {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A connection is ready to be written to from outside.
    pub(crate) fn open(&self, door: Option<Arc<dyn SideDoor>>) {
        *self.lock() = State { door, ..State::default() };
    }

    /// The connection is gone: what is kept of it would keep its socket.
    pub(crate) fn close(&self) {
        *self.lock() = State::default();
    }

    /// Takes the pen for the driver, which then writes `queue` from its front.
    pub(crate) fn take(&self, queue: &mut VecDeque<Bytes>) -> Held<'_> {
        let mut state = self.lock();
        if !state.rest.is_empty() {
            queue.push_front(std::mem::take(&mut state.rest));
        }
        Held { state }
    }

    /// Writes a sign of life, if nobody writes and no frame is in the middle.
    pub(crate) fn sign_of_life(&self) -> SignOfLife {
        let Ok(mut state) = self.state.try_lock() else { return SignOfLife::NotNow };
        let Some(door) = state.door.clone() else { return SignOfLife::NoDoor };
        if state.mid_frame || !state.rest.is_empty() {
            return SignOfLife::NotNow;
        }
        let mut frame = BytesMut::new();
        put_control(&mut frame, Kind::Heartbeat, &[], &[]);
        match door.try_write(&frame) {
            Ok(written) => {
                let _ = frame.split_to(written.min(frame.len()));
                state.rest = frame.freeze();
                SignOfLife::Written
            }
            // A full socket, or a broken connection, which is the driver's to find.
            Err(_) => SignOfLife::NotNow,
        }
    }
}

/// What became of a sign of life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum SignOfLife {
    Written,
    /// Somebody else writes, or the socket takes nothing.
    NotNow,
    /// The stream can be written to by its driver only.
    NoDoor,
}

/// The pen in the driver's hand.
pub(crate) struct Held<'a> {
    state: MutexGuard<'a, State>,
}

impl Held<'_> {
    /// Puts it down; `all_written` says whether the driver is at the end of a frame.
    pub(crate) fn put_down(mut self, all_written: bool) {
        self.state.mid_frame = !all_written;
    }
}
