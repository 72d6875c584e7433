//! What a peer may send to an endpoint: its share of the inbox.

use crate::delivery::Window;
use crate::error::RpcError;
use crate::inbox::{Inbox, Phase};
use crate::seam::Origin;
use std::sync::Arc;

/// The largest window of a peer: enough to keep a connection busy for a round trip.
const WINDOW_MESSAGES: usize = 1024;
const WINDOW_BYTES: usize = 16 * 1024 * 1024;
/// The window that every peer gets, whatever the others hold.
const BASE_MESSAGES: usize = 8;
const BASE_BYTES: usize = 256 * 1024;

impl Inbox {
    /// Opens the endpoint to a peer: a window of its own, and word when the endpoint is gone.
    ///
    /// # Errors
    /// `EndpointStopped`.
    pub fn open_window(&self, origin: &Arc<dyn Origin>) -> Result<Window, RpcError> {
        let limits = self.core().config().limits();
        let mut state = self.lock();
        if state.phase != Phase::Open {
            return Err(self.stopped());
        }
        state.origins.retain(|known| known.strong_count() > 0);
        state.origins.push(Arc::downgrade(origin));
        // Half of the inbox is for peers: each gets half of what is left of that, and at least a
        // small base, so that no peer is locked out by those who came before.
        let share = |max: usize, promised: usize, most: usize| {
            let left = (max / 2).saturating_sub(promised);
            (left / 2).min(most)
        };
        let messages = share(self.max_messages(), state.promised, WINDOW_MESSAGES);
        let bytes = share(limits.inbox_max_bytes(), state.promised_bytes, WINDOW_BYTES);
        state.promised = state.promised.saturating_add(messages);
        state.promised_bytes = state.promised_bytes.saturating_add(bytes);
        Ok(Window {
            messages: messages.max(BASE_MESSAGES.min(self.max_messages())),
            bytes: bytes.max(BASE_BYTES.min(limits.inbox_max_bytes())),
            promised: messages,
            promised_bytes: bytes,
        })
    }

    /// Gives a peer's window back, when its connection is gone.
    pub fn close_window(&self, window: Window) {
        let mut state = self.lock();
        state.promised = state.promised.saturating_sub(window.promised);
        state.promised_bytes = state.promised_bytes.saturating_sub(window.promised_bytes);
    }
}
