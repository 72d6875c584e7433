//! Endpoints of the peer, as this side calls them.

use super::named::{MessageName, Named};
use super::notice::{Asker, Relayed};
use super::queue::{Entry, Queue};
use super::resolution::Resolution;
use crate::message::Lane;
use crate::plant::planted;
use crate::seam::Incarnation;
use crate::wire::payload::charged;
use std::collections::BTreeSet;

/// A target's number within its session, for as long as somebody uses it. The peer knows it by
/// another one, fresh for each resolution.
pub type TargetId = u32;

/// The number by which the peer knows a target on one connection, chosen by the caller.
pub type WireNumber = u32;

/// Which endpoint a target is.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[non_exhaustive]
pub struct TargetKey {
    /// The endpoint's name.
    pub name: String,
    /// The life of the endpoint that the caller means; `None` takes whoever has the name.
    pub pin: Option<(u64, u64)>,
    /// The env that has it, if that is not the peer itself: the peer relays.
    pub env: Option<u64>,
}

impl TargetKey {
    /// Names a target.
    pub fn new(name: impl Into<String>, pin: Option<Incarnation>) -> Self {
        Self { name: name.into(), pin: pin.map(|pin| (pin.env, pin.endpoint)), env: None }
    }

    /// The same, at another env that the peer is connected to.
    #[must_use]
    pub fn at_env(mut self, env: u64) -> Self {
        self.env = Some(env);
        self
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Phase {
    /// Nothing was asked.
    Unknown,
    /// The peer was asked.
    Resolving,
    Resolved,
}

/// In this order: what every message touches is at the beginning.
#[derive(Debug)]
#[repr(C)]
pub(crate) struct Target {
    pub(crate) phase: Phase,
    /// Whether a large message of the lane is on its way: others wait behind it.
    pub(crate) large: [bool; 2],
    /// Whether it is in the queue for a place among the calls in flight.
    pub(crate) blocked: bool,
    /// Whether it is in the queue for a number.
    pub(crate) starved: bool,
    /// Whether room is kept for messages to it: what the peer said last.
    pub(crate) system: bool,
    /// What the peer knows it by, while it is resolved or being resolved.
    pub(crate) number: Option<WireNumber>,
    /// What may be sent; bytes may go below zero by one message.
    pub(crate) messages_left: i64,
    pub(crate) bytes_left: i64,
    /// Those who may send to it.
    pub(crate) users: usize,
    /// Open calls to it, those included that nobody has looked at since they ended.
    pub(crate) calls: usize,
    /// Numbers found before, by the address of the name: names are constants.
    numbers: Vec<(&'static str, MessageName<'static>)>,
    /// By lane.
    pub(crate) pending: [Queue; 2],
    /// Set if it is somebody else's, who is told what becomes of it.
    pub(crate) relayed: Option<Relayed>,
    pub(crate) key: TargetKey,
    pub(crate) resolvers: Vec<u64>,
    /// Calls that wait for its end.
    pub(crate) watchers: BTreeSet<u64>,
    /// Which life of the endpoint is resolved.
    pub(crate) incarnation: Option<Incarnation>,
    names: Vec<String>,
}

/// A count that is compared with credit.
pub(super) fn signed(count: usize) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}

/// The index of a lane.
pub(crate) fn lane_index(lane: Lane) -> usize {
    match lane {
        Lane::Normal => 0,
        Lane::Bulk => 1,
    }
}

impl Target {
    pub(crate) fn new(key: TargetKey) -> Self {
        Self {
            key,
            phase: Phase::Unknown,
            pending: Default::default(),
            large: [false; 2],
            messages_left: 0,
            bytes_left: 0,
            resolvers: Vec::new(),
            watchers: BTreeSet::new(),
            incarnation: None,
            number: None,
            users: 0,
            calls: 0,
            blocked: false,
            starved: false,
            system: false,
            relayed: None,
            names: Vec::new(),
            numbers: Vec::new(),
        }
    }

    /// What it is found by.
    pub(super) fn index(&self) -> (TargetKey, Option<u64>) {
        (self.key.clone(), self.relayed.as_ref().map(|relayed| relayed.asker.env))
    }

    /// Hands a relayed target to the next asker of the same env, who has what is left of the window; the
    /// resolution as that one sees it, if there is one.
    pub(super) fn hand_over(&mut self, asker: Asker) -> Option<Resolution> {
        let waiting = self.pending.iter().map(Queue::len).sum::<usize>();
        let messages = self.messages_left.saturating_sub(signed(waiting));
        let relayed = self.relayed.as_mut()?;
        let bytes = self.bytes_left.saturating_sub(signed(relayed.pending_bytes));
        relayed.hand_over(asker, u64::try_from(bytes.saturating_neg()).unwrap_or(0));
        self.users = self.users.saturating_add(1);
        let incarnation = self.incarnation.filter(|_| self.phase == Phase::Resolved)?;
        let [messages, bytes] = [messages, bytes].map(|left| u64::try_from(left).unwrap_or(0));
        let mut resolution = Resolution::new(incarnation, self.names.clone(), messages, bytes);
        resolution.system = self.system;
        Some(resolution)
    }

    pub(crate) fn resolved(&mut self, resolution: Resolution) {
        self.phase = Phase::Resolved;
        self.incarnation = Some(resolution.incarnation);
        self.messages_left = i64::try_from(resolution.credit_messages).unwrap_or(i64::MAX);
        self.bytes_left = i64::try_from(resolution.credit_bytes).unwrap_or(i64::MAX);
        self.names = resolution.messages;
        self.system = resolution.system;
        self.numbers.clear();
    }

    /// The connection or the endpoint is gone; the number it had.
    pub(crate) fn unresolve(&mut self) -> Option<WireNumber> {
        self.phase = Phase::Unknown;
        self.incarnation = None;
        if !planted!(LargeStuck) {
            self.large = [false; 2];
        }
        self.names.clear();
        let numbers = std::mem::take(&mut self.numbers);
        let name = |message| numbers.iter().find(|(_, name)| *name == MessageName::Number(message));
        for queue in &mut self.pending {
            queue.take_apart(|message| {
                name(message).map_or(Named::Number(message), |(name, _)| Named::Ours(name))
            });
        }
        self.number.take()
    }

    /// Whether credit allows one more message of that size. Bytes may be overdrawn by one message,
    /// so that a message larger than the window can be sent at all.
    pub(crate) fn has_credit(&self, bytes: usize) -> bool {
        self.messages_left > 0 && (self.bytes_left > 0 || charged(bytes) == 0)
    }

    pub(crate) fn spend(&mut self, bytes: usize) {
        self.messages_left = self.messages_left.saturating_sub(1);
        let bytes = i64::try_from(charged(bytes)).unwrap_or(i64::MAX);
        self.bytes_left = self.bytes_left.saturating_sub(bytes);
    }

    /// The same of so many messages that cost no bytes.
    pub(crate) fn spend_messages(&mut self, messages: usize) {
        let messages = i64::try_from(messages).unwrap_or(i64::MAX);
        self.messages_left = self.messages_left.saturating_sub(messages);
    }

    pub(crate) fn refund(&mut self, messages: u64, bytes: u64) {
        self.messages_left =
            self.messages_left.saturating_add(i64::try_from(messages).unwrap_or(i64::MAX));
        self.bytes_left = self.bytes_left.saturating_add(i64::try_from(bytes).unwrap_or(i64::MAX));
    }

    /// The number of a message, found by the address of its name after the first time.
    pub(crate) fn message<'a>(&mut self, name: &'a Named) -> MessageName<'a> {
        match name {
            Named::Ours(name) => self.own_message(name),
            Named::Number(number) => MessageName::Number(*number),
            Named::Text(name) => MessageName::Text(name),
        }
    }

    pub(crate) fn own_message(&mut self, name: &'static str) -> MessageName<'static> {
        // By address and length.
        let same = |known: &&str| std::ptr::eq(*known, name);
        if let Some((_, number)) = self.numbers.iter().find(|(known, _)| same(known)) {
            return *number;
        }
        let place = self.names.iter().position(|known| known == name);
        let number = place
            .and_then(|place| u16::try_from(place).ok())
            .map_or(MessageName::Text(name), MessageName::Number);
        self.numbers.push((name, number));
        number
    }

    /// Takes a call out of the queue.
    pub(crate) fn withdraw(&mut self, call: u64) -> Option<Entry> {
        let entry = self.pending.iter_mut().find_map(|queue| queue.withdraw(call))?;
        self.left_queue(entry.bytes());
        Some(entry)
    }

    /// A message of that size waits no more.
    pub(crate) fn left_queue(&mut self, bytes: usize) {
        if let Some(relayed) = &mut self.relayed {
            relayed.pending_bytes = relayed.pending_bytes.saturating_sub(charged(bytes));
        }
    }

    /// Whether something waits for it to be resolved.
    pub(crate) fn is_wanted(&self) -> bool {
        self.has_pending() || !self.resolvers.is_empty() || !self.watchers.is_empty()
    }

    pub(crate) fn has_pending(&self) -> bool {
        self.pending.iter().any(|queue| !queue.is_empty())
    }
}
