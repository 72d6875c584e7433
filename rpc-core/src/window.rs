//! What a peer may send to an endpoint, and its place among the senders.

use crate::address::EndpointLocation;
use crate::credit::{Account, Credit};
use crate::delivery::WireMessage;
use crate::error::{ErrorKind, RpcError};
use crate::inbox::{Inbox, Phase, State};
use crate::plant::planted;
use crate::proto::Arrivals;
use crate::row::Row;
#[cfg(feature = "audit")]
use crate::seam::Granted;
use crate::seam::Origin;
use std::collections::VecDeque;
use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

/// A sender's place in an inbox: senders take turns, and each one's messages keep their order.
pub(crate) struct Sender {
    inbox: Weak<Inbox>,
    line: usize,
}

impl Sender {
    /// Takes messages of this sender, all at once. What cannot be taken because the endpoint is
    /// gone comes back.
    pub(crate) fn deliver(&self, messages: &mut VecDeque<WireMessage>) {
        if let Some(inbox) = self.inbox.upgrade() {
            inbox.deliver(self.line, messages);
        }
    }

    pub(crate) fn is_over(&self) -> bool {
        self.inbox.strong_count() == 0
    }
}

impl Drop for Sender {
    fn drop(&mut self) {
        if let Some(inbox) = self.inbox.upgrade() {
            inbox.lock().queue.leave(self.line);
        }
    }
}

/// A peer's window: how much it may have in an inbox, and what of that it has. It grows and shrinks
/// with what the peer uses and what others want. Dropped when the peer's connection is gone.
pub struct Window {
    inbox: Arc<Inbox>,
    sender: Sender,
    account: Mutex<Account>,
    released: AtomicBool,
    returned: AtomicBool,
    /// Whether its peer is gone: what came through it counts among what the inbox has of such.
    abandoned: AtomicBool,
}

impl Window {
    fn account(&self) -> MutexGuard<'_, Account> {
        self.account.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// All that the peer may have in the inbox now: at the beginning, what it is to be granted.
    #[must_use]
    pub fn size(&self) -> Credit {
        self.account().window()
    }

    /// Counts a message of the peer. `false` if it had no credit for it. One message may overdraw
    /// the bytes.
    #[must_use]
    pub fn arrived(&self, bytes: usize) -> bool {
        self.account().arrived(bytes)
    }

    /// Counts messages of the peer that came together, by their bytes; how many of them it had credit
    /// for.
    #[must_use]
    pub fn arrived_together(&self, bytes: impl Iterator<Item = usize>) -> usize {
        let mut account = self.account();
        bytes.take_while(|bytes| account.arrived(*bytes)).count()
    }

    /// Counts a message of which the first part has come: as a whole. `false` if the peer had no
    /// credit for it.
    #[must_use]
    pub fn begun(&self, bytes: usize) -> bool {
        self.account().begun(bytes)
    }

    /// The last part of such a message has come.
    pub fn completed(&self, bytes: usize) {
        self.account().completed(bytes);
    }

    /// The rest of such a message will not come, and its sender knows that it has its credit again.
    pub fn given_up(&self, bytes: usize) {
        self.account().given_up(bytes);
    }

    /// What the peer has in the inbox.
    #[must_use]
    pub fn queued(&self) -> Credit {
        self.account().queued()
    }

    /// What the peer may send, as it knows it when nothing is under way: messages and bytes.
    #[cfg(feature = "audit")]
    #[must_use]
    pub fn left(&self) -> (i64, i64) {
        self.account().left
    }

    /// The peer sends nothing more: its part of the inbox is for others as soon as what is there
    /// was taken out.
    pub fn release(&self) {
        let account = self.account();
        self.released.store(true, Ordering::Relaxed);
        self.give_back_if_empty(&account);
    }

    /// The peer is gone. What came through its window is still handled, and until then it counts
    /// against what an inbox may have of peers that are gone.
    pub fn abandon(&self) {
        let account = self.account();
        self.released.store(true, Ordering::Relaxed);
        let queued = account.queued();
        if planted!(WindowKept) {
            self.returned.store(true, Ordering::Relaxed);
        }
        if queued != Credit::default() && !self.abandoned.swap(true, Ordering::Relaxed) {
            self.inbox.lock().abandoned.add(queued);
        }
        self.give_back_if_empty(&account);
    }

    fn give_back_if_empty(&self, account: &Account) {
        if account.queued() == Credit::default() && !self.returned.swap(true, Ordering::Relaxed) {
            self.inbox.lock().pool.close(account);
        }
    }

    /// Whether a message has begun and not ended.
    #[must_use]
    pub fn is_under_way(&self) -> bool {
        self.account().is_under_way()
    }

    /// Messages of these bytes have left the inbox. What the peer is to be granted, if it is time
    /// for that.
    pub fn consumed(&self, bytes: impl Iterator<Item = usize>) -> Option<Credit> {
        let mut account = self.account();
        let (mut round_is_over, mut gone) = (false, Credit::default());
        for bytes in bytes {
            round_is_over |= account.consumed(bytes);
            gone.add(Credit { messages: 1, bytes });
        }
        if self.released.load(Ordering::Relaxed) {
            if self.abandoned.load(Ordering::Relaxed) {
                self.inbox.lock().abandoned.sub(gone);
            }
            self.give_back_if_empty(&account);
            return None;
        }
        if !round_is_over {
            return None;
        }
        // The account before the inbox, here and nowhere the other way round.
        let credit = account.round(&mut self.inbox.lock().pool);
        (credit != Credit::default()).then_some(credit)
    }

    /// Hands the endpoint messages of the peer, all at once. What cannot be taken because the
    /// endpoint is gone comes back.
    pub fn deliver(&self, messages: &mut VecDeque<WireMessage>) {
        self.inbox.deliver(self.sender.line, messages);
    }

    /// The same of messages that came in a row. Those that come back are over: the calls among them are
    /// to be told, `None` stands for a one-way message.
    pub fn deliver_row(&self, messages: Arrivals, origin: Arc<dyn Origin>) -> Vec<Option<u64>> {
        if messages.is_empty() {
            return Vec::new();
        }
        let (asks, row) = (messages.asks(), Row::new(messages, origin));
        match self.inbox.deliver_row(self.sender.line, asks, row) {
            Ok(()) => Vec::new(),
            Err(refused) => refused.refuse().map(|(_, call)| call).collect(),
        }
    }
}

impl Drop for Window {
    fn drop(&mut self) {
        if !*self.returned.get_mut() {
            let account = self.account.get_mut().unwrap_or_else(PoisonError::into_inner);
            self.inbox.lock().pool.close(account);
        }
    }
}

impl fmt::Debug for Window {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Window").field("size", &self.size()).finish_non_exhaustive()
    }
}

impl Inbox {
    /// Whether peers have something of an endpoint that has handled all that came: nobody must, when
    /// no peer is connected.
    #[must_use]
    pub fn is_promised(&self) -> bool {
        let state = self.lock();
        state.idle && state.queue.is_empty() && !state.pool.is_unused()
    }

    /// What peers may send to the endpoint, when nothing is under way.
    #[cfg(feature = "audit")]
    #[must_use]
    pub fn granted(&self) -> Vec<Granted> {
        let origins: Vec<_> = self.lock().origins.iter().filter_map(Weak::upgrade).collect();
        origins.iter().filter_map(|origin| origin.granted()).collect()
    }

    /// A place for the senders of another env.
    pub(crate) fn sender(self: &Arc<Self>, env: Option<&EndpointLocation>) -> Sender {
        Sender { inbox: Arc::downgrade(self), line: self.lock().queue.join(env) }
    }

    /// Each new peer has a base that nobody takes from it. If peers came, sent that, and went, again
    /// and again, their messages would add up: from an inbox full of such on, nobody gets a window.
    fn admit_newcomer(&self, state: &State) -> Result<(), RpcError> {
        let limits = self.core().config().limits();
        let (most, most_bytes) = (limits.inbox_max_messages(), limits.inbox_max_bytes());
        let Credit { messages, bytes } = state.abandoned;
        if messages < most && bytes < most_bytes {
            return Ok(());
        }
        Err(RpcError::new(
            ErrorKind::Overloaded,
            format!(
                "{} has no room for another peer: {messages} messages and {bytes} bytes of peers that are gone are in its inbox. This limit is controlled by rpc.inbox.maxMessages ({most}) and rpc.inbox.maxBytes ({most_bytes})",
                self.address()
            ),
        ))
    }

    /// Opens the endpoint to a peer: a place among the senders, a window of its own, and word when
    /// the endpoint is gone. Connections of one env share a place.
    ///
    /// # Errors
    /// `EndpointStopped`, `Overloaded` if messages of peers that are gone fill the inbox.
    pub fn open_window(self: &Arc<Self>, origin: &Arc<dyn Origin>) -> Result<Window, RpcError> {
        let largest = self.core().config().limits().message_max_size();
        let mut state = self.lock();
        if state.phase != Phase::Open {
            return Err(self.stopped());
        }
        self.admit_newcomer(&state)?;
        state.origins.retain(|known| known.strong_count() > 0);
        state.origins.push(Arc::downgrade(origin));
        let account = state.pool.open(largest);
        drop(state);
        let sender = self.sender(origin.env().as_ref());
        Ok(Window {
            inbox: self.clone(),
            sender,
            account: Mutex::new(account),
            released: AtomicBool::new(false),
            returned: AtomicBool::new(false),
            abandoned: AtomicBool::new(false),
        })
    }
}
