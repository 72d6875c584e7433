//! An inbox as its endpoint's loop sees it: it takes messages out in turns, puts back what it does not
//! get to, and sleeps.

use crate::inbox::{Inbox, Item, Kind, Phase, State};
use crate::plant::planted;
use crate::ticket::Ticket;
use crate::trace::TraceContext;
use std::collections::VecDeque;
use std::sync::atomic::Ordering;
use std::sync::{Arc, MutexGuard};
use std::task::{Context, Poll, Waker};

/// What the endpoint's loop does next.
pub(crate) enum Step {
    Handle,
    Stop,
}

impl Item {
    /// Whether it, or the next one of the row, is an ask: somebody waits for an answer, for some time only.
    pub(crate) fn is_call(&self) -> bool {
        match &self.kind {
            Kind::Ask { .. } => true,
            Kind::Wire(message) => message.call.is_some(),
            Kind::Row(row) => row.is_call(),
            Kind::Tell { .. } | Kind::Network(_) | Kind::Terminated(_) => false,
        }
    }

    /// Whether it is for a handler, and no event.
    pub(crate) fn is_message(&self) -> bool {
        !matches!(self.kind, Kind::Network(_) | Kind::Terminated(_))
    }
}

impl Inbox {
    /// The next messages for the endpoint's loop: a part of one sender's turn. What it does not get
    /// to, because a handler waits, it puts back.
    pub(crate) fn poll_next(&self, cx: &Context<'_>, into: &mut VecDeque<Item>) -> Poll<Step> {
        let mut state = self.lock();
        let granted = self.give_room(&mut state);
        if state.queue.is_empty() {
            state.queue.settle();
        } else {
            state.queue.take(into);
        }
        self.has_taken.store(!into.is_empty(), Ordering::Relaxed);
        let polled = if !into.is_empty() {
            Poll::Ready(Step::Handle)
        } else {
            // What the endpoint sends at its end is part of nothing.
            self.trace_is(&mut state, None);
            if state.phase == Phase::Open {
                if !state.waker.as_ref().is_some_and(|waker| waker.will_wake(cx.waker())) {
                    state.waker = Some(cx.waker().clone());
                }
                Poll::Pending
            } else {
                Poll::Ready(Step::Stop)
            }
        };
        state.idle = polled.is_pending();
        drop(state);
        granted.into_iter().flatten().for_each(|ticket| ticket.grant());
        polled
    }

    /// The loop's own task is polled: a message that comes now has to wake it again.
    pub(crate) fn awake(&self) {
        self.woken.store(false, Ordering::Relaxed);
    }

    /// The loop begins with a message: its place is free. Whether it has taken more.
    #[inline]
    pub(crate) fn begin(&self, item: &mut Item, more: bool) {
        self.has_taken.store(more, Ordering::Relaxed);
        if let Kind::Tell { .. } | Kind::Ask { .. } = item.kind {
            let begun = self.begun.load(Ordering::Relaxed).saturating_add(1);
            self.begun.store(begun, Ordering::Relaxed);
            let bytes = self.begun_bytes.load(Ordering::Relaxed).saturating_add(item.bytes);
            self.begun_bytes.store(bytes, Ordering::Relaxed);
        }
        if let Kind::Network(_) = item.kind {
            let mut state = self.lock();
            state.events = state.events.saturating_sub(1);
        }
        self.span_begins(item.trace.take());
    }

    /// The same of one of a row.
    pub(crate) fn begin_arrived(&self, more: bool) {
        self.has_taken.store(more, Ordering::Relaxed);
        self.span_begins(None);
    }

    #[inline]
    fn span_begins(&self, trace: Option<TraceContext>) {
        if trace.is_some() || self.traced.load(Ordering::Relaxed) {
            self.trace_is(&mut self.lock(), trace);
        }
    }

    /// A handler waits, or others have their turn: what the loop has taken and not begun is queued
    /// again, where others see it.
    pub(crate) fn put_back(&self, unused: &mut VecDeque<Item>) {
        if let Some(Item { kind: Kind::Row(row), .. }) = unused.front_mut() {
            row.settle();
        }
        let mut state = self.lock();
        let granted = self.give_room(&mut state);
        if !self.is_drained() && state.phase != Phase::Closed {
            state.queue.put_back(unused);
            self.has_taken.store(false, Ordering::Relaxed);
        }
        drop(state);
        let granted = granted.filter(|_| !planted!(TicketMissed));
        granted.into_iter().flatten().for_each(|ticket| ticket.grant());
        if !unused.is_empty() {
            self.refuse(unused.drain(..), &self.drained_error());
        }
    }

    /// Gives the places of begun messages to those who wait for room.
    fn give_room(&self, state: &mut State) -> Option<VecDeque<Arc<Ticket>>> {
        let begun = self.begun.load(Ordering::Relaxed);
        (state.held, state.held_bytes) = self.held(state);
        state.left = state.left.wrapping_add(begun as u64);
        let begun_bytes = self.begun_bytes.load(Ordering::Relaxed);
        state.left_bytes = state.left_bytes.wrapping_add(begun_bytes as u64);
        self.begun.store(0, Ordering::Relaxed);
        self.begun_bytes.store(0, Ordering::Relaxed);
        if state.tickets.is_empty() {
            return None;
        }
        Some(self.grant_tickets(state))
    }

    /// Wakes the endpoint's loop after the lock is gone.
    #[inline]
    pub(crate) fn wake(&self, state: MutexGuard<'_, State>) {
        // Under the lock, so that the loop, which looks at its queue there, sees what was put in.
        if state.idle && !self.woken.load(Ordering::Relaxed) {
            self.wake_task(state);
        }
    }

    fn wake_task(&self, state: MutexGuard<'_, State>) {
        self.woken.store(true, Ordering::Relaxed);
        let waker = state.waker.clone();
        drop(state);
        waker.into_iter().for_each(Waker::wake);
    }
}
