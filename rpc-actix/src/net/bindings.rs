//! What one connection's peer has resolved here, by the peer's numbers.

use super::binding::Binding;
use super::relay::Passage;
use rpc_core::proto::{Close, CloseCode, WireNumber};
use rpc_core::spi::{Inbox, MAX_WINDOWS};
use rpc_core::{ErrorKind, Limits, RpcError};
use std::collections::BTreeMap;
use std::sync::{Arc, Weak};

/// Numbers that a peer may have resolved at once.
const MAX_NUMBERS: usize = 65_536;
/// What a number stands for.
pub(crate) enum Bound {
    /// An endpoint of this env.
    Here(Arc<Binding>),
    /// An endpoint of another peer.
    There(Passage),
}

#[derive(Default)]
pub(crate) struct Bindings {
    slots: Vec<Option<Bound>>,
    /// Windows that are open, by endpoint.
    windows: BTreeMap<u64, usize>,
    /// Those that were released while messages of theirs were queued, by endpoint.
    lingering: BTreeMap<u64, Vec<Weak<Binding>>>,
    sweep_at: usize,
}

impl Bindings {
    pub(crate) fn get(&self, number: WireNumber) -> Option<&Bound> {
        let bound = self.slots.get(number as usize)?.as_ref()?;
        let free = matches!(bound, Bound::There(passage) if passage.is_refused());
        (!free).then_some(bound)
    }

    /// Checks that a number may be resolved.
    ///
    /// # Errors
    /// What to close with: it is too high, or resolved already.
    pub(crate) fn check_free(&self, number: WireNumber) -> Result<(), Close> {
        if number as usize >= MAX_NUMBERS {
            return Err(Close::new(
                CloseCode::Protocol,
                format!("target {number} is over the limit of {MAX_NUMBERS}"),
            ));
        }
        if self.get(number).is_some() {
            return Err(Close::new(
                CloseCode::Protocol,
                format!("target {number} was resolved again before its release"),
            ));
        }
        Ok(())
    }

    pub(crate) fn put(&mut self, number: WireNumber, bound: Bound) {
        let place = number as usize;
        if let Bound::Here(binding) = &bound {
            let windows = self.windows.entry(binding.inbox().incarnation().endpoint).or_default();
            *windows = windows.saturating_add(1);
        }
        if self.slots.len() <= place {
            self.slots.resize_with(place.saturating_add(1), || None);
        }
        if let Some(slot) = self.slots.get_mut(place) {
            *slot = Some(bound);
        }
    }

    /// The peer uses a number no more.
    ///
    /// # Errors
    /// What to close with: it was not resolved.
    pub(crate) fn release(&mut self, number: WireNumber) -> Result<(), Close> {
        let known = self.get(number).is_some();
        let bound = self.slots.get_mut(number as usize).and_then(Option::take);
        let binding = match bound.filter(|_| known) {
            Some(Bound::Here(binding)) => binding,
            Some(Bound::There(_)) => return Ok(()),
            None => {
                return Err(Close::new(
                    CloseCode::Protocol,
                    format!("target {number} was released, which was not resolved"),
                ));
            }
        };
        binding.release()?;
        let endpoint = binding.inbox().incarnation().endpoint;
        if let Some(windows) = self.windows.get_mut(&endpoint) {
            *windows = windows.saturating_sub(1);
            if *windows == 0 {
                self.windows.remove(&endpoint);
            }
        }
        if binding.queued().0 > 0 {
            self.lingering.entry(endpoint).or_default().push(Arc::downgrade(&binding));
            self.sweep();
        }
        Ok(())
    }

    /// Windows must not add up, neither those that are open nor those that were released full: a peer
    /// could fill an inbox with them.
    ///
    /// # Errors
    /// `Overloaded`: no further window to that endpoint.
    pub(crate) fn admit(&mut self, inbox: &Inbox, limits: &Limits) -> Result<(), RpcError> {
        let endpoint = inbox.incarnation().endpoint;
        if self.windows.get(&endpoint).is_some_and(|windows| *windows >= MAX_WINDOWS) {
            let text =
                format!("this peer has {MAX_WINDOWS} windows to {} already", inbox.address());
            return Err(RpcError::new(ErrorKind::Overloaded, text));
        }
        let Some(bindings) = self.lingering.get_mut(&endpoint) else { return Ok(()) };
        let (mut messages, mut bytes) = (0_usize, 0_usize);
        bindings.retain(|binding| {
            let queued = binding.upgrade().map_or((0, 0), |binding| binding.queued());
            messages = messages.saturating_add(queued.0);
            bytes = bytes.saturating_add(queued.1);
            queued.0 > 0
        });
        let (most, most_bytes) = (limits.inbox_max_messages(), limits.inbox_max_bytes());
        if messages < most.div_ceil(2) && bytes < most_bytes.div_ceil(2) {
            return Ok(());
        }
        Err(RpcError::new(
            ErrorKind::Overloaded,
            format!(
                "{} has no room for another window of this peer: {messages} messages and {bytes} bytes that came through earlier ones are in the inbox. This limit is controlled by rpc.inbox.maxMessages ({most}) and rpc.inbox.maxBytes ({most_bytes})",
                inbox.address()
            ),
        ))
    }

    /// The connection is gone: what came over it and waits is of nobody any more.
    pub(crate) fn abandon(&mut self) {
        for bound in self.slots.drain(..).flatten() {
            if let Bound::Here(binding) = bound {
                binding.abandon();
            }
        }
        let lingering = std::mem::take(&mut self.lingering);
        for binding in lingering.into_values().flatten().filter_map(|known| known.upgrade()) {
            binding.abandon();
        }
    }

    /// Forgets endpoints for which nothing is queued, whenever there are twice as many.
    fn sweep(&mut self) {
        if self.lingering.len() > self.sweep_at.max(64) {
            let queued = |known: &Weak<Binding>| known.upgrade().is_some_and(|b| b.queued().0 > 0);
            self.lingering.retain(|_, bindings| {
                bindings.retain(queued);
                !bindings.is_empty()
            });
            self.sweep_at = self.lingering.len().saturating_mul(2);
        }
    }
}
