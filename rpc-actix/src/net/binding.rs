//! An endpoint of this env, as one connection's peer calls it.

use super::link::Link;
use crate::planted::planted;
use rpc_core::proto::{Arrivals, Close, CloseCode, Resolution, Session, WireNumber};
#[cfg(feature = "sim")]
use rpc_core::spi::Granted;
use rpc_core::spi::{Encoded, Inbox, Origin, Window, WireMessage};
use rpc_core::{EndpointLocation, ErrorKind, RpcAddress, RpcError, Termination};
use std::collections::VecDeque;
use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll};

/// The way back from an endpoint to the peer, and the peer's window.
pub(crate) struct Binding {
    link: Arc<Link>,
    /// The connection that this belongs to: handlers may answer long after it has ended, when the
    /// link has another one.
    connection: Option<u64>,
    /// Set once a call of that connection was given up, or the connection is gone.
    cancels: Arc<AtomicBool>,
    target: WireNumber,
    inbox: Arc<Inbox>,
    sender: RpcAddress,
    whose: EndpointLocation,
    window: OnceLock<Window>,
    /// Whether the peer knows of the binding, and how the endpoint has ended; both are changed
    /// under the link's lock, so that the peer hears of them in this order.
    announced: AtomicBool,
    over: OnceLock<Termination>,
    /// Set, under that lock as well, when the peer has given the number up: it may mean something
    /// else from then on.
    released: AtomicBool,
}

impl Binding {
    pub(crate) fn new(
        link: Arc<Link>,
        target: WireNumber,
        inbox: Arc<Inbox>,
        (sender, whose): (RpcAddress, EndpointLocation),
    ) -> Self {
        let (connection, cancels) = link.with(|session| (session.connection(), session.cancels()));
        Self {
            link,
            connection,
            cancels,
            target,
            inbox,
            sender,
            whose,
            window: OnceLock::new(),
            announced: AtomicBool::new(false),
            over: OnceLock::new(),
            released: AtomicBool::new(false),
        }
    }

    pub(crate) fn inbox(&self) -> &Arc<Inbox> {
        &self.inbox
    }

    pub(crate) fn open(&self, window: Window) {
        let _ = self.window.set(window);
    }

    /// Works on the session, unless it has lost the connection that this belongs to.
    fn with<R>(&self, f: impl FnOnce(&mut Session) -> R) -> Option<R> {
        self.link.with(|session| {
            let mine = self.connection.is_some() && session.connection() == self.connection;
            let mine = mine || (planted!(StaleReply) && session.connection().is_some());
            mine.then(|| f(session))
        })
    }

    /// Tells the peer that its endpoint is there, and at once that it is gone if that is so.
    pub(crate) fn announce(&self, session: &mut Session, resolution: &Resolution) {
        session.resolved(self.target, resolution);
        self.announced.store(true, Ordering::Relaxed);
        if let Some(how) = self.over.get() {
            session.gone(self.target, *how);
        }
    }

    /// The peer uses the number no more. Its calls are still answered, and what is queued is
    /// handled; the window goes back when that is done.
    ///
    /// # Errors
    /// What to close with: it is in the middle of a message.
    pub(crate) fn release(&self) -> Result<(), Close> {
        let Some(window) = self.window.get() else { return Ok(()) };
        if window.is_under_way() {
            let text = format!("target {} was released within a large message to it", self.target);
            return Err(Close::new(CloseCode::Protocol, text));
        }
        self.with(|session| {
            self.released.store(true, Ordering::Relaxed);
            session.released(self.target);
        });
        window.release();
        Ok(())
    }

    /// Messages and bytes of the peer that are in the inbox.
    pub(crate) fn queued(&self) -> (usize, usize) {
        let queued = self.window.get().map(Window::queued).unwrap_or_default();
        (queued.messages, queued.bytes)
    }

    /// Counts a large message of the peer, of which the first part has come.
    ///
    /// # Errors
    /// What to close with: the peer has sent more than its window allows.
    pub(crate) fn begun(&self, bytes: usize) -> Result<(), Close> {
        let Some(window) = self.window.get() else { return Ok(()) };
        if window.begun(bytes) { Ok(()) } else { Err(self.overrun(window)) }
    }

    /// The last part of such a message has come.
    pub(crate) fn completed(&self, bytes: usize) {
        if let Some(window) = self.window.get() {
            window.completed(bytes);
        }
    }

    /// The rest of such a message will not come.
    pub(crate) fn given_up(&self, bytes: usize) {
        if let Some(window) = self.window.get() {
            window.given_up(bytes);
        }
    }

    /// The connection is gone.
    pub(crate) fn abandon(&self) {
        if let Some(window) = self.window.get() {
            window.abandon();
        }
    }

    /// Hands the endpoint messages, and counts those that nobody has counted yet; what it does not
    /// take is left.
    ///
    /// # Errors
    /// As [`begun`](Self::begun), for the first one that the window did not allow: those before it
    /// are handed on, it and the others are gone.
    pub(crate) fn deliver(
        &self,
        messages: &mut VecDeque<WireMessage>,
        counted: bool,
    ) -> Result<(), Close> {
        let Some(window) = self.window.get() else { return Ok(()) };
        let all = messages.len();
        let sizes = messages.iter().map(|message| message.body.len());
        let allowed = if counted { all } else { window.arrived_together(sizes) };
        messages.truncate(allowed);
        window.deliver(messages);
        if allowed < all { Err(self.overrun(window)) } else { Ok(()) }
    }

    /// The same of messages that came in a row, and what becomes of those that the endpoint does not
    /// take: the calls that they are, `None` for each one-way message.
    pub(crate) fn deliver_row(
        self: &Arc<Self>,
        mut messages: Arrivals,
    ) -> (Vec<Option<u64>>, Result<(), Close>) {
        let Some(window) = self.window.get() else { return (Vec::new(), Ok(())) };
        let allowed = window.arrived_together(messages.sizes());
        let counted = if allowed < messages.len() { Err(self.overrun(window)) } else { Ok(()) };
        messages.truncate(allowed);
        (window.deliver_row(messages, self.clone()), counted)
    }

    fn overrun(&self, window: &Window) -> Close {
        let size = window.size();
        Close::new(
            CloseCode::Credit,
            format!(
                "more than the window of {} messages and {} bytes was sent to {}",
                size.messages,
                size.bytes,
                self.inbox.name()
            ),
        )
    }
}

impl Origin for Binding {
    fn reply(&self, id: u64, body: &mut Encoded) -> Result<(), RpcError> {
        self.with(|session| session.reply(id, body)).unwrap_or(Ok(()))
    }

    fn fail(&self, id: u64, error: &RpcError) {
        self.with(|session| session.fail(id, error));
    }

    fn poll_cancelled(&self, id: u64, place: &mut Option<usize>, cx: &mut Context<'_>) -> Poll<()> {
        self.with(|session| session.poll_cancelled(id, place, cx)).unwrap_or(Poll::Ready(()))
    }

    fn forget(&self, id: u64, place: usize) {
        drop(self.with(|session| session.forget(id, place)));
    }

    fn is_cancelled(&self, id: u64) -> bool {
        if !self.cancels.load(Ordering::Acquire) && self.connection.is_some() {
            return false;
        }
        self.with(|session| session.is_cancelled(id)).unwrap_or(true)
    }

    fn consumed(&self, bytes: usize) {
        self.consumed_together(&mut std::iter::once(bytes));
    }

    fn consumed_together(&self, bytes: &mut dyn Iterator<Item = usize>) {
        if let Some(credit) = self.window.get().and_then(|window| window.consumed(bytes)) {
            let messages = u32::try_from(credit.messages).unwrap_or(u32::MAX);
            self.with(|session| {
                if !self.released.load(Ordering::Relaxed) {
                    session.grant(self.target, messages, credit.bytes as u64);
                }
            });
        }
    }

    fn gone(&self, how: Termination) {
        self.with(|session| {
            let first = self.over.set(how).is_ok();
            let known = self.announced.load(Ordering::Relaxed);
            if first && known && !self.released.load(Ordering::SeqCst) {
                session.gone(self.target, how);
            }
        });
    }

    fn sender(&self) -> Option<&RpcAddress> {
        Some(&self.sender)
    }

    fn env(&self) -> Option<EndpointLocation> {
        Some(self.whose.clone())
    }

    fn relay(&self) -> Option<RpcAddress> {
        self.link.listening()
    }

    #[cfg(feature = "sim")]
    fn granted(&self) -> Option<Granted> {
        let env = self.with(|session| Some(session.peer()?.hello.env)).flatten()?;
        let known =
            self.announced.load(Ordering::Relaxed) && !self.released.load(Ordering::Relaxed);
        let window = self.window.get().filter(|_| known)?;
        Some(Granted::new(env, self.target, window.left()))
    }
}

/// The error of calls to an endpoint that has ended.
pub(crate) fn stopped(address: impl fmt::Display) -> RpcError {
    RpcError::new(ErrorKind::EndpointStopped, format!("the endpoint {address} has been stopped"))
}
