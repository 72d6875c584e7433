//! The value behind an inbox: what becomes of it when it panics, and what it is doing.

use crate::policy::{PanicPolicy, RestartLimit};
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicUsize, Ordering};

/// What becomes of an endpoint that panics.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Policy {
    pub(crate) on_panic: PanicPolicy,
    pub(crate) limit: RestartLimit,
}

/// What is known of the value. Only the endpoint's loop writes here.
#[derive(Debug)]
pub(crate) struct Behind {
    pub(crate) policy: Policy,
    /// Whether users' code has panicked since somebody has asked.
    panicked: AtomicBool,
    /// How often it was replaced.
    restarts: AtomicU32,
    /// The number of the handler that was begun last, for who looks at a thread that is blocked.
    handling: AtomicUsize,
}

/// In place of a handler's number: a hook runs.
pub(crate) const HOOK: usize = usize::MAX;

impl Behind {
    pub(crate) fn new(policy: Policy) -> Self {
        let (panicked, restarts) = (AtomicBool::new(false), AtomicU32::new(0));
        Self { policy, panicked, restarts, handling: AtomicUsize::new(HOOK) }
    }

    /// A handler begins, or a [`HOOK`].
    pub(crate) fn handles(&self, handler: usize) {
        self.handling.store(handler, Ordering::Relaxed);
    }

    /// What was begun last.
    pub(crate) fn handled(&self) -> usize {
        self.handling.load(Ordering::Relaxed)
    }

    pub(crate) fn note_panic(&self) {
        self.panicked.store(true, Ordering::Relaxed);
    }

    /// Whether users' code has panicked since this was asked last.
    pub(crate) fn take_panic(&self) -> bool {
        self.panicked.swap(false, Ordering::Relaxed)
    }

    /// How often the value was replaced.
    pub(crate) fn restarts(&self) -> u32 {
        self.restarts.load(Ordering::Relaxed)
    }

    pub(crate) fn is_replaced(&self) {
        self.restarts.fetch_add(1, Ordering::Relaxed);
    }
}
