//! Who writes what a session has to say: whoever said it, where that saves a wakeup and no company;
//! otherwise the driver.

use super::link::{Link, State};
use super::pen::SideWrite;
use crate::planted::planted;
use crate::rt;
use bytes::Bytes;
use rpc_core::spi::{TurnEnd, WRITE_SIZE, at_turn_end};
use std::collections::VecDeque;
use std::sync::atomic::Ordering;
use std::sync::{Arc, MutexGuard};
use std::task::Waker;

impl Link {
    /// Has written what there is: at the end of the turn of the endpoint that this thread runs; or
    /// here and now, if that is a lone ask; otherwise by the driver, together with what comes
    /// meanwhile.
    pub(super) fn write_soon(self: &Arc<Self>, mut state: MutexGuard<'_, State>, is_ask: bool) {
        if state.driver.is_none() || state.put_off || !state.session.has_output() {
            return wake_all(state);
        }
        let at_home = state.home == Some(rt::thread()) && !self.spread.load(Ordering::Relaxed);
        if at_home && at_turn_end(|| self.clone()) {
            state.put_off = true;
            wake_all(state);
        } else if is_ask && state.home.is_some() && state.session.is_lone_ask() {
            wake_all(state);
            self.write_now();
        } else {
            wake_with_driver(state);
        }
    }

    /// Writes what there is from this thread, and leaves to the driver what the socket does not take.
    fn write_now(&self) {
        let (mut wakes, mut more) = (Vec::new(), false);
        let written = self.pen.write_beside(|queue| {
            let mut state = self.lock();
            state.put_off = false;
            state.session.transmit(|| self.now(), WRITE_SIZE, queue);
            more = state.session.has_output();
            state.session.take_wakes(&mut wakes);
        });
        wakes.into_iter().for_each(Waker::wake);
        let rest = written != SideWrite::Written || more;
        if rest && !planted!(DoorUnheard) {
            let mut state = self.lock();
            state.put_off = false;
            state.begun |= written == SideWrite::Begun;
            let driver = state.driver.take();
            drop(state);
            driver.into_iter().for_each(Waker::wake);
        }
    }

    /// The driver goes on with whatever was written in part, and with all that comes after it.
    pub(crate) fn take_up(&self, wakes: &mut Vec<Waker>, queue: &mut VecDeque<Bytes>) -> bool {
        let mut state = self.lock();
        state.begun = false;
        if queue.is_empty() {
            state.session.transmit(|| self.now(), WRITE_SIZE, queue);
            state.session.take_wakes(wakes);
        }
        state.session.has_output()
    }
}

impl TurnEnd for Link {
    fn turn_ended(&self) {
        self.write_now();
    }
}

/// As [`wake_all`], and the driver if it has something to write.
pub(super) fn wake_with_driver(mut state: MutexGuard<'_, State>) {
    let asleep = state.driver.is_some() && state.session.has_output();
    let driver = if asleep { state.driver.take() } else { None };
    wake_all(state);
    if let Some(driver) = driver {
        driver.wake();
    }
}

/// Wakes what the session has made ready, after the lock is gone.
pub(super) fn wake_all(mut state: MutexGuard<'_, State>) {
    if !state.session.has_wakes() {
        return;
    }
    let mut wakes = Vec::new();
    state.session.take_wakes(&mut wakes);
    drop(state);
    wakes.into_iter().for_each(Waker::wake);
}
