//! The receiving half of a driver: messages that have come are handed to endpoints, or passed on.

use super::binding::{Binding, stopped};
use super::bindings::Bound;
use super::driver::Driver;
use rpc_core::proto::{Arrivals, Close, IncomingMessage};
use rpc_core::spi::{Count, Origin, WireMessage};
use std::sync::Arc;

impl Driver {
    pub(super) fn message(&mut self, message: IncomingMessage) -> Result<(), Close> {
        let binding = match self.bound(message.target)? {
            Bound::Here(binding) => binding,
            Bound::There(passage) => return passage.forward(message),
        };
        if message.in_parts {
            binding.completed(message.body.len());
        }
        let counted = message.in_parts;
        let same = self.batch_for.as_ref().is_some_and(|current| Arc::ptr_eq(current, binding));
        if !same || counted != self.counted_before {
            let binding = binding.clone();
            self.deliver_batch()?;
            (self.batch_for, self.counted_before) = (Some(binding), counted);
            self.parties = self.parties.saturating_add(usize::from(!same));
        }
        let Some(binding) = &self.batch_for else { return Ok(()) };
        let handlers = binding.inbox().handlers();
        let number = usize::from(message.number);
        let handler = match &message.name {
            Some(name) => handlers.iter().position(|info| info.name == &**name),
            None => (number < handlers.len()).then_some(number),
        };
        let origin: Arc<dyn Origin> = binding.clone();
        let mut wire = WireMessage::new(handler.unwrap_or(handlers.len()), message.body, origin);
        wire.name = message.name;
        wire.call = message.call;
        wire.deadline = message.deadline;
        wire.trace = message.trace;
        self.batch.push_back(wire);
        Ok(())
    }

    /// Messages for one endpoint, or for one that is passed on to.
    pub(super) fn row(&mut self, messages: Arrivals) -> Result<(), Close> {
        let binding = match self.bound(messages.target())? {
            Bound::Here(binding) => binding.clone(),
            Bound::There(passage) => {
                return messages.into_messages().try_for_each(|message| passage.forward(message));
            }
        };
        let same = self.batch_for.as_ref().is_some_and(|current| Arc::ptr_eq(current, &binding));
        self.deliver_batch()?;
        self.parties = self.parties.saturating_add(usize::from(!same));
        let (refused, delivered) = binding.deliver_row(messages);
        refused.into_iter().for_each(|call| self.dead(&binding, call));
        // What comes next for the same endpoint is no other party.
        (self.batch_for, self.counted_before) = (Some(binding), false);
        delivered
    }

    /// What came for an endpoint that has stopped.
    fn dead(&self, binding: &Binding, call: Option<u64>) {
        match call {
            Some(call) => binding.fail(call, &stopped(binding.inbox().address())),
            None => self.node.tally.count(Count::DeadLettersStopped),
        }
    }

    /// Hands an endpoint everything that came for it in a row.
    pub(super) fn deliver_batch(&mut self) -> Result<(), Close> {
        let Some(binding) = self.batch_for.take() else { return Ok(()) };
        let delivered = binding.deliver(&mut self.batch, self.counted_before);
        // What is left came for an endpoint that has stopped.
        while let Some(message) = self.batch.pop_front() {
            message.origin.consumed(message.body.len());
            self.dead(&binding, message.call);
        }
        delivered
    }
}
