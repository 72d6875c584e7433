//! Whether there is room in an inbox for a message of this env.

use crate::error::{ErrorKind, RpcError};
use crate::inbox::{Inbox, Phase, State};
use crate::ticket::Ticket;
use std::collections::VecDeque;
use std::sync::atomic::Ordering;
use std::sync::{Arc, MutexGuard};

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
        let (held, held_bytes) = self.held(state);
        self.takes(state, held, held_bytes.saturating_add(bytes))
    }

    /// Whether there is room for a message with so many in front of it, where all of them have so many
    /// bytes.
    #[inline]
    fn takes(&self, state: &State, before: usize, bytes: usize) -> bool {
        let promised = state.pool.promised();
        let limits = self.core().config().limits();
        let room = self.max_messages().saturating_sub(promised.messages);
        let all_bytes = bytes.saturating_add(promised.bytes);
        before < room && (before == 0 || all_bytes <= limits.inbox_max_bytes())
    }

    /// Takes the tickets off whose messages are within the limits now.
    pub(crate) fn grant_tickets(&self, state: &mut State) -> VecDeque<Arc<Ticket>> {
        let begun = self.begun.load(Ordering::Relaxed) as u64;
        let begun_bytes = self.begun_bytes.load(Ordering::Relaxed) as u64;
        let left = state.left.wrapping_add(begun);
        let left_bytes = state.left_bytes.wrapping_add(begun_bytes);
        let count =
            |all: u64, left| usize::try_from(all.saturating_sub(left)).unwrap_or(usize::MAX);
        let mut granted = VecDeque::new();
        while let Some(next) = state.tickets.front()
            && self.takes(state, count(next.before, left), count(next.end, left_bytes))
        {
            granted.extend(state.tickets.pop_front().map(|next| next.ticket));
        }
        granted
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

#[cfg(test)]
mod tests {
    use crate::config::RpcEnvConfig;
    use crate::context::EndpointContext;
    use crate::endpoint::RpcEndpoint;
    use crate::factory::RpcEnvFactory;
    use crate::limits::Limits;
    use crate::local::LocalWorld;
    use crate::message::{OneWay, RpcMessage};
    use crate::raw::{HandlerResult, RawMessage};
    use serde::{Deserialize, Serialize};
    use std::future::{Future, poll_fn};
    use std::pin::Pin;
    use std::sync::{Arc, Mutex};
    use std::task::{Context, Poll, Waker};

    /// 1,024 bytes, as messages within an env are counted.
    #[derive(Serialize, Deserialize)]
    struct Kilobyte([[u64; 16]; 8]);

    impl RpcMessage for Kilobyte {
        const NAME: &'static str = "Kilobyte";
    }

    impl OneWay for Kilobyte {}

    #[derive(Serialize, Deserialize)]
    struct Byte(u8);

    impl RpcMessage for Byte {
        const NAME: &'static str = "Byte";
    }

    impl OneWay for Byte {}

    /// Handles as many messages as it is let.
    #[derive(Clone, Default)]
    struct Slow(Arc<Mutex<(usize, Option<Waker>)>>);

    impl Slow {
        fn may_end_one(&self) {
            let mut state = self.0.lock().unwrap();
            state.0 += 1;
            let waker = state.1.take();
            drop(state);
            waker.into_iter().for_each(Waker::wake);
        }
    }

    impl RpcEndpoint for Slow {
        type Handlers = ();

        async fn receive(
            &mut self,
            _msg: RawMessage,
            _cx: &mut EndpointContext<Self>,
        ) -> HandlerResult<()> {
            let may_end = |cx: &mut Context<'_>| {
                let mut state = self.0.lock().unwrap();
                if state.0 == 0 {
                    state.1 = Some(cx.waker().clone());
                    return Poll::Pending;
                }
                state.0 -= 1;
                Poll::Ready(Ok(()))
            };
            poll_fn(may_end).await
        }
    }

    #[test]
    fn who_waits_is_ready_when_its_bytes_have_room() {
        let world = LocalWorld::new();
        let limits = Limits::default().with_inbox_max_bytes(5 * 1024).unwrap();
        let config = RpcEnvConfig::client("env").with_limits(limits);
        let env = world.block_on(world.factory().create(config)).unwrap();
        let slow = Slow::default();
        let to = world.block_on(env.setup_endpoint("slow", slow.clone())).unwrap().into_untyped();
        // It has begun with the first.
        to.send(Byte(0)).unwrap();
        world.run();
        let mut sent: Vec<_> =
            (0..10).map(|_| to.send_wait(Kilobyte(Default::default()))).collect();
        let mut cx = Context::from_waker(Waker::noop());
        let mut ready = || {
            sent.retain_mut(|sent| Pin::new(sent).poll(&mut cx).is_pending());
            10 - sent.len()
        };
        assert_eq!(ready(), 5);
        let error = to.send(Byte(1)).unwrap_err();
        assert!(error.text().contains("rpc.inbox.maxBytes (5120)"), "{error}");
        let mut behind = std::pin::pin!(to.send_wait(Byte(1)));
        for begun in 1..=5 {
            assert!(behind.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending());
            slow.may_end_one();
            world.run();
            assert_eq!(ready(), 5 + begun);
        }
    }
}
