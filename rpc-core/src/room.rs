//! Whether there is room in an inbox for a message of this env.

use crate::error::{ErrorKind, RpcError};
use crate::inbox::{Inbox, Phase, State};
use std::sync::MutexGuard;
use std::sync::atomic::Ordering;

impl Inbox {
    /// Whether as many network events wait as messages may. None is ever dropped: nobody connects
    /// meanwhile.
    pub(crate) fn is_behind(&self) -> bool {
        let state = self.lock();
        state.phase == Phase::Open && state.events >= self.max_messages()
    }

    pub(crate) fn max_messages(&self) -> usize {
        self.core().config().limits().inbox_max_messages()
    }

    /// Local messages that have not been begun, and their bytes.
    #[inline]
    pub(crate) fn held(&self, state: &State) -> (usize, usize) {
        let begun = self.begun.load(Ordering::Relaxed);
        let begun_bytes = self.begun_bytes.load(Ordering::Relaxed);
        (state.held.saturating_sub(begun), state.held_bytes.saturating_sub(begun_bytes))
    }

    /// Whether a local message has room without waiting.
    #[inline]
    pub(crate) fn has_room(&self, state: &State, bytes: usize) -> bool {
        let promised = state.pool.promised();
        let limits = self.core().config().limits();
        let room = self.max_messages().saturating_sub(promised.messages);
        let (held, held_bytes) = self.held(state);
        let all_bytes = held_bytes.saturating_add(promised.bytes).saturating_add(bytes);
        held < room && (held == 0 || all_bytes <= limits.inbox_max_bytes())
    }

    /// Checks that a local message may enter. One that can wait may enter above the limit, up to
    /// the number that may wait.
    #[inline]
    pub(crate) fn admit(
        &self,
        message: &str,
        bytes: usize,
        waits: bool,
    ) -> Result<MutexGuard<'_, State>, RpcError> {
        let state = self.open();
        if state.phase == Phase::Open && self.has_room(&state, bytes) {
            return Ok(state);
        }
        self.admit_above(state, message, bytes, waits)
    }

    #[cold]
    fn admit_above<'a>(
        &'a self,
        state: MutexGuard<'a, State>,
        message: &str,
        bytes: usize,
        waits: bool,
    ) -> Result<MutexGuard<'a, State>, RpcError> {
        if state.phase != Phase::Open {
            return Err(self.stopped());
        }
        let limits = self.core().config().limits();
        let max = self.max_messages();
        let promised = state.pool.promised();
        let room = max.saturating_sub(promised.messages);
        let (messages, message_bytes) = self.held(&state);
        let held = || {
            let kept = match promised.messages {
                0 => String::new(),
                kept => format!(", {kept} places are kept for peers"),
            };
            format!("{messages} messages are in its inbox{kept}")
        };
        let waiting = if waits { limits.outbox_max_waiting() } else { 0 };
        if messages >= room.saturating_add(waiting) {
            if !waits {
                let limit = format!("rpc.inbox.maxMessages ({max})");
                return Err(self.overloaded(message, &held(), &limit));
            }
            let held =
                format!("{}, {} of them wait for room", held(), messages.saturating_sub(room));
            let limit = format!("rpc.outbox.maxWaiting ({waiting})");
            return Err(self.overloaded(message, &held, &limit));
        }
        let most = limits.inbox_max_bytes();
        let waiting = if waits { limits.outbox_max_waiting_bytes() } else { 0 };
        let held_bytes = message_bytes.saturating_add(promised.bytes);
        if messages > 0 && held_bytes.saturating_add(bytes) > most.saturating_add(waiting) {
            let kept = match promised.bytes {
                0 => String::new(),
                kept => format!(", {kept} are kept for peers"),
            };
            let held = format!("{message_bytes} bytes are in its inbox{kept}");
            let message = format!("the {bytes} bytes of {message}");
            let limit = match waits {
                true => format!("rpc.outbox.maxWaitingBytes ({waiting})"),
                false => format!("rpc.inbox.maxBytes ({most})"),
            };
            return Err(self.overloaded(&message, &held, &limit));
        }
        Ok(state)
    }

    fn overloaded(&self, message: &str, held: &str, limit: &str) -> RpcError {
        RpcError::new(
            ErrorKind::Overloaded,
            format!(
                "{} has no room for {message}: {held}. This limit is controlled by {limit}",
                self.address()
            ),
        )
    }
}
