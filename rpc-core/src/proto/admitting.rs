//! What is taken from callers, and sent at once: within the limits of both sides. What waits for room,
//! and what gets it.

use super::hello::PeerInfo;
use super::named::Named;
use super::session::{Request, Session, Submission};
use super::target::TargetId;
use super::waiting::Place;
use crate::error::{ErrorKind, RpcError, shortened};
use crate::plant::planted;
use bytes::Bytes;

/// Messages, and bytes of their bodies.
#[derive(Clone, Copy, Debug)]
pub(super) struct Room {
    pub(super) messages: usize,
    pub(super) bytes: usize,
}

impl Room {
    /// Whether it takes one more beside so many messages and bytes. One that is larger than all of it
    /// goes alone.
    pub(super) fn takes(self, (messages, all): (usize, usize), bytes: usize) -> bool {
        messages < self.messages && (messages == 0 || all.saturating_add(bytes) <= self.bytes)
    }
}

impl Session {
    /// Whether a message has room at once, and not in front of one that waits for it.
    ///
    /// # Errors
    /// If it may not wait, or too much does.
    pub(super) fn admit(&self, request: &Request<'_, '_>, bytes: usize) -> Result<bool, RpcError> {
        if bytes > self.max_message() {
            return Err(self.too_large(&Named::Ours(request.message.name), request.target, bytes));
        }
        // Only a name that was written by hand: the macro refuses others.
        if !(1..=usize::from(u8::MAX)).contains(&request.message.name.len()) {
            return Err(name_does_not_fit(request.message.name));
        }
        let system = self.is_system(request.target);
        let room = self.outbox_for(system);
        // If somebody waits, this is too much: else that one would have room as well.
        if room.takes(self.ahead(system), bytes) {
            return Ok(true);
        }
        match request.submission {
            Submission::Send => Err(self.has_no_room(request, self.ahead(system), room, bytes)),
            Submission::SendWait | Submission::Ask => self.may_wait(request, room, bytes),
        }
    }

    #[cold]
    fn has_no_room(
        &self,
        request: &Request<'_, '_>,
        (messages, all): (usize, usize),
        room: Room,
        bytes: usize,
    ) -> RpcError {
        if messages >= room.messages {
            let limit = self.limit("rpc.outbox.maxMessages", room.messages);
            return self.overloaded(request, "", &format!("{messages} messages wait"), &limit);
        }
        let limit = self.limit("rpc.outbox.maxBytes", room.bytes);
        let what = format!("the {bytes} bytes of ");
        self.overloaded(request, &what, &format!("{all} bytes wait"), &limit)
    }

    /// Whether one more may wait for room.
    #[cold]
    fn may_wait(
        &self,
        request: &Request<'_, '_>,
        room: Room,
        bytes: usize,
    ) -> Result<bool, RpcError> {
        let most = self.limits.outbox_max_waiting();
        let most = most.saturating_add(usize::from(planted!(OutboxOneMore)));
        if self.queued >= room.messages.saturating_add(most) {
            let waiting = self.queued.saturating_sub(room.messages);
            let held = format!("{} messages wait, {waiting} of them for room,", self.queued);
            let limit = self.limit("rpc.outbox.maxWaiting", most);
            return Err(self.overloaded(request, "", &held, &limit));
        }
        let most = self.limits.outbox_max_waiting_bytes();
        let queued_bytes = self.queued_bytes.saturating_add(bytes);
        if self.queued > 0 && queued_bytes > room.bytes.saturating_add(most) {
            let what = format!("the {bytes} bytes of ");
            let waiting = self.queued_bytes.saturating_sub(room.bytes);
            let held = format!("{} bytes wait, {waiting} of them for room,", self.queued_bytes);
            let limit = self.limit("rpc.outbox.maxWaitingBytes", most);
            return Err(self.overloaded(request, &what, &held, &limit));
        }
        Ok(false)
    }

    /// A limit's key and value.
    #[cold]
    pub(super) fn limit(&self, key: &str, value: usize) -> String {
        let whole = match key {
            "rpc.outbox.maxMessages" => self.limits.outbox_max_messages(),
            "rpc.outbox.maxBytes" => self.limits.outbox_max_bytes(),
            _ => value,
        };
        if value < whole {
            format!("{key} ({whole}, less an eighth for endpoints of the system)")
        } else {
            format!("{key} ({value})")
        }
    }

    pub(super) fn is_system(&self, target: TargetId) -> bool {
        self.reserves > 0 && self.targets.get(target).is_some_and(|target| target.system)
    }

    /// What the queue may hold when a message is added to it. The last eighth is for endpoints of
    /// the system, if the peer has one that is called.
    pub(super) fn outbox_for(&self, system: bool) -> Room {
        let (messages, bytes) = (self.limits.outbox_max_messages(), self.limits.outbox_max_bytes());
        if system || self.reserves == 0 {
            return Room { messages, bytes };
        }
        Room {
            messages: messages.saturating_sub(messages / 8),
            bytes: bytes.saturating_sub(bytes / 8),
        }
    }

    /// The messages that are in front of the next one, and their bytes. Those that wait for room
    /// which the system may not take are not in front of it.
    pub(super) fn ahead(&self, system: bool) -> (usize, usize) {
        let (messages, bytes) = if system { self.waiting.of(false) } else { (0, 0) };
        (self.queued.saturating_sub(messages), self.queued_bytes.saturating_sub(bytes))
    }

    /// The room that is taken: messages in the queue that do not wait for it, and their bytes.
    pub(super) fn room_taken(&self) -> (usize, usize) {
        let (messages, bytes) = self.ahead(true);
        let waiting = self.waiting.of(true);
        (messages.saturating_sub(waiting.0), bytes.saturating_sub(waiting.1))
    }

    /// Messages have left the queue: there is room for those that wait.
    pub(super) fn leave(&mut self, messages: usize, bytes: usize) {
        self.queued = self.queued.saturating_sub(messages);
        self.queued_bytes = self.queued_bytes.saturating_sub(bytes);
        if !self.waiting.is_empty() {
            self.give_room();
        }
    }

    /// Gives room to those who wait, each in its turn.
    pub(super) fn give_room(&mut self) {
        while let Some(system) = self.next_has_room() {
            if let Some(call) = self.waiting.pop(system) {
                self.calls.finish(call, Ok(Bytes::new()), &mut self.wakes);
                if planted!(WaiterMissed) {
                    break;
                }
            }
        }
    }

    /// Whether there is room for the next one that waits, and whether that is one of the system.
    pub(super) fn next_has_room(&self) -> Option<bool> {
        for system in [true, false] {
            if let Some(bytes) = self.waiting.next(system) {
                let fits = self.outbox_for(system).takes(self.room_taken(), bytes);
                // The others are behind it.
                return fits.then_some(system);
            }
        }
        None
    }

    /// A message is given up, or was sent as a whole: it does not wait for room any more.
    pub(super) fn waits_no_more(&mut self, place: Option<Place>, sent: bool) {
        let taken = place.and_then(|place| self.waiting.take(place));
        if let Some((_, Some(call))) = taken.filter(|_| sent) {
            self.calls.finish(call, Ok(Bytes::new()), &mut self.wakes);
        }
    }

    /// How many calls may be in flight when one to this target is added to them.
    pub(super) fn in_flight_for(&self, target: TargetId) -> usize {
        let most = self.max_in_flight();
        if self.reserves == 0 || self.is_system(target) {
            return most;
        }
        most.saturating_sub(most / 8)
    }

    /// The error of a message that its receiver would not take.
    #[cold]
    pub(super) fn too_large(&self, message: &Named, target: TargetId, bytes: usize) -> RpcError {
        RpcError::new(
            ErrorKind::TooLarge,
            format!(
                "{message} to {} at {}: {}",
                self.target_name(target),
                self.peer_name,
                self.over_limit(bytes)
            ),
        )
    }

    #[cold]
    pub(super) fn over_limit(&self, bytes: usize) -> String {
        let max = self.max_message();
        let whose = if max < self.limits.message_max_size() { " of the peer" } else { "" };
        format!(
            "its {bytes} bytes are over the limit of {max}{whose}. This limit is controlled by rpc.message.maxSize"
        )
    }

    pub(super) fn target_name(&self, target: TargetId) -> &str {
        self.targets.get(target).map_or("?", |target| target.key.name.as_str())
    }

    #[cold]
    pub(super) fn overloaded(
        &self,
        request: &Request<'_, '_>,
        what: &str,
        held: &str,
        limit: &str,
    ) -> RpcError {
        RpcError::new(
            ErrorKind::Overloaded,
            format!(
                "no room for {what}{} to {} at {}: {held} to be sent there. This limit is controlled by {limit}",
                request.message.name,
                self.target_name(request.target),
                self.peer_name
            ),
        )
    }

    /// A peer is there, or is there no more.
    pub(super) fn set_peer(&mut self, peer: Option<PeerInfo>) {
        let (message, in_flight) = match &peer {
            Some(peer) => (peer.hello.limits.message, peer.hello.limits.in_flight),
            None => (u64::MAX, 0),
        };
        let theirs = usize::try_from(message).unwrap_or(usize::MAX);
        self.max_message = theirs.min(self.limits.message_max_size());
        let theirs = usize::try_from(in_flight).unwrap_or(usize::MAX);
        self.max_in_flight = theirs.min(self.limits.max_in_flight());
        self.connected = peer.is_some();
        self.peer = peer;
    }

    pub(super) fn max_message(&self) -> usize {
        self.max_message
    }

    pub(super) fn max_in_flight(&self) -> usize {
        self.max_in_flight
    }
}

#[cold]
fn name_does_not_fit(name: &str) -> RpcError {
    let (bytes, start) = (name.len(), shortened(name.to_owned(), 64));
    let text = format!("the message name {start:?} has {bytes} bytes, the wire allows 1 to 255");
    RpcError::new(ErrorKind::Encode, text)
}
