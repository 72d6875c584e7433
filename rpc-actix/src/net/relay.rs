//! Messages between two peers of this env, of which one does not listen: passed on from the
//! connection of the one to that of the other, and answers back. There is no task for that: what
//! has news on one connection wakes these, and they act on the other. Never are the locks of both
//! held at once.

use super::link::Link;
use crate::planted::planted;
use bytes::Bytes;
use rpc_core::proto::{
    Asker, Close, CloseCode, IncomingMessage, Notice, Refusal, RelayedId, Session, TargetKey,
    WireNumber,
};
use rpc_core::spi::{CallEnd, RemoteCalls};
use rpc_core::{ErrorKind, Outcome, RpcError};
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll, Wake, Waker};

/// An endpoint of one peer, as another has resolved it through this env.
pub(crate) struct Relayed {
    back: Back,
    number: WireNumber,
    /// The endpoint and the way to it, for messages to people.
    what: String,
    onward: Arc<Link>,
    target: OnceLock<RelayedId>,
    turn: Turnstile,
    /// Whether the asking peer knows of it; changed, as the next two, under its link's lock.
    announced: AtomicBool,
    /// Whether the asking peer was told that there is no such endpoint.
    refused: AtomicBool,
    /// Whether the asking peer has given it up.
    released: AtomicBool,
}

/// The connection of whoever asked.
struct Back {
    link: Arc<Link>,
    connection: Option<u64>,
}

impl Back {
    /// Works on the session, unless it has lost the connection that this belongs to.
    fn with<R>(&self, f: impl FnOnce(&mut Session) -> R) -> Option<R> {
        self.link.with(|session| {
            let mine = self.connection.is_some() && session.connection() == self.connection;
            mine.then(|| f(session))
        })
    }
}

/// Holds a place among what a peer has resolved; dropped, the way is given up.
pub(crate) struct Passage(Arc<Relayed>);

impl Passage {
    /// Asks the env at the other end of `onward` for an endpoint.
    ///
    /// # Errors
    /// Why it cannot be asked: the answer to the peer.
    pub(crate) fn open(
        back: &Arc<Link>,
        number: WireNumber,
        onward: Arc<Link>,
        mut key: TargetKey,
        what: String,
    ) -> Result<Self, RpcError> {
        // It goes no further from there.
        key.env = None;
        let (env, connection) = back.with(|session| {
            let env = session.peer().map(|peer| peer.hello.env);
            (env.unwrap_or_default(), session.connection())
        });
        let relayed = Arc::new(Relayed {
            back: Back { link: back.clone(), connection },
            number,
            what,
            onward,
            target: OnceLock::new(),
            turn: Turnstile::default(),
            announced: AtomicBool::new(false),
            refused: AtomicBool::new(false),
            released: AtomicBool::new(false),
        });
        let asker = Asker::new(env, Waker::from(relayed.clone()));
        let target = relayed.onward.with(|session| session.relay(&key, asker))?;
        let _ = relayed.target.set(target);
        // What came before the number was known here.
        relayed.clone().wake();
        Ok(Self(relayed))
    }

    /// Whether its number is free: the peer was told that there is no such endpoint.
    pub(crate) fn is_refused(&self) -> bool {
        self.0.refused.load(Ordering::Acquire)
    }

    /// Passes a message on.
    ///
    /// # Errors
    /// What to close with: the peer broke the protocol.
    pub(crate) fn forward(&self, message: IncomingMessage) -> Result<(), Close> {
        let relayed = &self.0;
        if !relayed.announced.load(Ordering::Acquire) {
            return Err(Close::new(
                CloseCode::Protocol,
                format!("a message for target {}, which is not resolved", relayed.number),
            ));
        }
        let Some(target) = relayed.target.get().copied() else { return Ok(()) };
        let call = message.call;
        let now = relayed.onward.now();
        match relayed.onward.with(|session| session.forward(now, target, message)) {
            Ok(Some(onward)) => {
                if let Some(call) = call {
                    Passing::begin(relayed, call, onward);
                }
            }
            Ok(None) => {}
            Err(Refusal::Overrun) => {
                let text = format!("more than its window allows was sent to {}", relayed.what);
                return Err(Close::new(CloseCode::Credit, text));
            }
            Err(refusal) => {
                let error = match refusal {
                    Refusal::Failed(error) => relayed.explain(&error),
                    _ => relayed.gone(),
                };
                relayed.refuse(call, &error);
            }
        }
        Ok(())
    }
}

impl Drop for Passage {
    fn drop(&mut self) {
        let relayed = &self.0;
        relayed.released.store(true, Ordering::Release);
        relayed.back.with(|session| session.released(relayed.number));
        if let Some(target) = relayed.target.get() {
            relayed.onward.with(|session| session.release_relayed(*target));
        }
    }
}

impl Relayed {
    /// Why there is no way to the endpoint any more.
    fn gone(&self) -> RpcError {
        if self.onward.with(|session| session.peer().is_none()) {
            return not_connected(&self.what);
        }
        let text = format!("the endpoint {} has been stopped", self.what);
        RpcError::new(ErrorKind::EndpointStopped, text)
    }

    /// An error of this env's, as the asking peer is told.
    fn explain(&self, error: &RpcError) -> RpcError {
        RpcError::new(error.kind(), format!("{}: {}", self.what, error.text()))
            .with_outcome(error.outcome())
    }

    fn refuse(&self, call: Option<u64>, error: &RpcError) {
        match call {
            Some(call) => {
                let error = error.clone().with_outcome(Outcome::NeverSent);
                self.back.with(|session| session.fail(call, &error));
            }
            None => {
                // Counted; a line for each could be made to fill the log.
                tracing::debug!(endpoint = %self.what, %error, "a relayed one-way message was lost");
            }
        }
    }

    /// Tells the asking peer what has become of the endpoint.
    fn pass_on(&self) {
        let Some(target) = self.target.get().copied() else { return };
        let notices = self.onward.with(|session| session.notices(target));
        if notices.is_empty() {
            return;
        }
        self.back.with(|session| {
            for notice in notices {
                if !self.released.load(Ordering::Acquire) {
                    self.tell(session, notice);
                }
            }
        });
    }

    fn tell(&self, session: &mut Session, notice: Notice) {
        match notice {
            Notice::Resolved(resolution) => {
                session.resolved(self.number, &resolution);
                self.announced.store(true, Ordering::Release);
            }
            Notice::Unresolved(failure) => {
                self.refused.store(true, Ordering::Release);
                session.unresolved_as(self.number, failure);
            }
            Notice::Credit { .. } if planted!(WindowHeld) => {}
            Notice::Credit { messages, bytes } => {
                let messages = u32::try_from(messages).unwrap_or(u32::MAX);
                session.grant(self.number, messages, bytes);
            }
            Notice::Gone(how) => session.gone(self.number, how),
            _ => {}
        }
    }
}

/// The error of an endpoint whose env has no connection to this one; `what` names both.
pub(crate) fn not_connected(what: &str) -> RpcError {
    let text = format!("cannot reach {what}: that env is not connected to it");
    RpcError::new(ErrorKind::Unreachable, text)
}

impl Wake for Relayed {
    fn wake(self: Arc<Self>) {
        self.turn.run(|| self.pass_on());
    }
}

/// A call that is passed on: woken when it is answered, and when its caller gives up.
struct Passing {
    relayed: Arc<Relayed>,
    call: u64,
    onward_call: u64,
    turn: Turnstile,
    over: AtomicBool,
}

impl Passing {
    fn begin(relayed: &Arc<Relayed>, call: u64, onward_call: u64) {
        let passing = Self {
            relayed: relayed.clone(),
            call,
            onward_call,
            turn: Turnstile::default(),
            over: AtomicBool::new(false),
        };
        Arc::new(passing).wake();
    }

    fn look(self: &Arc<Self>) {
        if self.over.load(Ordering::Acquire) {
            return;
        }
        let waker = Waker::from(self.clone());
        let mut cx = Context::from_waker(&waker);
        let Relayed { onward, back, .. } = &*self.relayed;
        if let Poll::Ready(end) = onward.poll(self.onward_call, &mut cx) {
            self.over.store(true, Ordering::Release);
            return self.answer(end);
        }
        let call = self.call;
        let cancelled =
            back.with(|session| session.poll_cancelled(call, &mut None, &cx).is_ready());
        if cancelled.unwrap_or(true) {
            self.over.store(true, Ordering::Release);
            if !planted!(CancelHeld) {
                onward.abandon(self.onward_call);
            }
        }
    }

    fn answer(&self, end: Result<Bytes, CallEnd>) {
        let (call, relayed) = (self.call, &self.relayed);
        relayed.back.with(|session| match end {
            Ok(body) => {
                if let Err(error) = session.reply_bytes(call, body) {
                    // The handler has run.
                    let error = relayed.explain(&error).with_outcome(Outcome::FailedInHandler);
                    session.fail(call, &error);
                }
            }
            Err(CallEnd::Relayed(failure)) => session.fail_as(call, failure),
            Err(CallEnd::Failed(error)) => session.fail(call, &relayed.explain(&error)),
            Err(_) => {
                let error = RpcError::new(ErrorKind::Internal, "the call has no end");
                session.fail(call, &relayed.explain(&error));
            }
        });
    }
}

impl Wake for Passing {
    fn wake(self: Arc<Self>) {
        self.turn.run(|| self.look());
    }
}

/// Lets one thread at a time through, without anyone waiting: whoever finds somebody inside leaves
/// word, and that one goes round again. So what is done inside may lead back to it.
#[derive(Default)]
struct Turnstile(AtomicU8);

const NOBODY: u8 = 0;
const INSIDE: u8 = 1;
const AGAIN: u8 = 2;

impl Turnstile {
    fn run(&self, mut round: impl FnMut()) {
        let enter = |state| Some(if state == NOBODY { INSIDE } else { AGAIN });
        let before = self.0.fetch_update(Ordering::AcqRel, Ordering::Acquire, enter);
        if before != Ok(NOBODY) {
            return;
        }
        loop {
            round();
            let leave = |state| Some(if state == AGAIN { INSIDE } else { NOBODY });
            let before = self.0.fetch_update(Ordering::AcqRel, Ordering::Acquire, leave);
            if before != Ok(AGAIN) {
                return;
            }
        }
    }
}
