//! An endpoint of this env, as one connection's peer calls it.

use super::link::Link;
use rpc_core::proto::{Close, CloseCode, Resolution, Session, WireNumber};
use rpc_core::spi::{Inbox, Origin, Window};
use rpc_core::{RpcAddress, RpcError};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll};

/// The way back from an endpoint to the peer, and the peer's window.
pub(crate) struct Binding {
    link: Arc<Link>,
    /// The connection that this belongs to: handlers may answer long after it has ended, when the
    /// link has another one.
    connection: Option<u64>,
    target: WireNumber,
    inbox: Arc<Inbox>,
    sender: RpcAddress,
    window: OnceLock<Window>,
    /// Messages of the peer that are in the inbox now.
    queued: AtomicUsize,
    /// The bytes of their bodies.
    queued_bytes: AtomicUsize,
    max_message: usize,
    /// What has been handled and not been given back as credit yet.
    credit: AtomicUsize,
    credit_bytes: AtomicU64,
    /// Whether the peer knows of the binding, and whether the endpoint is gone; both are changed
    /// under the link's lock, so that the peer hears of them in this order.
    announced: AtomicBool,
    over: AtomicBool,
    /// Set, under that lock as well, when the peer has given the number up: it may mean something
    /// else from then on.
    released: AtomicBool,
    /// Whether the window was given back to the inbox.
    returned: AtomicBool,
}

impl Binding {
    pub(crate) fn new(
        link: Arc<Link>,
        target: WireNumber,
        inbox: Arc<Inbox>,
        sender: RpcAddress,
        max_message: usize,
    ) -> Self {
        let connection = link.with(|session| session.connection());
        Self {
            link,
            connection,
            target,
            inbox,
            sender,
            window: OnceLock::new(),
            queued: AtomicUsize::new(0),
            queued_bytes: AtomicUsize::new(0),
            max_message,
            credit: AtomicUsize::new(0),
            credit_bytes: AtomicU64::new(0),
            announced: AtomicBool::new(false),
            over: AtomicBool::new(false),
            released: AtomicBool::new(false),
            returned: AtomicBool::new(false),
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
            mine.then(|| f(session))
        })
    }

    /// Tells the peer that its endpoint is there, and at once that it is gone if that is so.
    pub(crate) fn announce(&self, session: &mut Session, resolution: &Resolution) {
        session.resolved(self.target, resolution);
        self.announced.store(true, Ordering::Relaxed);
        if self.over.load(Ordering::Relaxed) {
            session.gone(self.target);
        }
    }

    /// The peer uses the number no more. Its calls are still answered, and what is queued is
    /// handled; the window goes back when that is done.
    pub(crate) fn release(&self) {
        self.link.with(|_| self.released.store(true, Ordering::SeqCst));
        self.return_window();
    }

    /// Messages and bytes of the peer that are in the inbox.
    pub(crate) fn queued(&self) -> (usize, usize) {
        (self.queued.load(Ordering::SeqCst), self.queued_bytes.load(Ordering::Relaxed))
    }

    /// Gives the window back as soon as nothing more can come of it.
    fn return_window(&self) {
        let over = self.released.load(Ordering::SeqCst) && self.queued.load(Ordering::SeqCst) == 0;
        if over && !self.returned.swap(true, Ordering::Relaxed) {
            self.window.get().into_iter().for_each(|window| self.inbox.close_window(*window));
        }
    }

    /// Counts a message of the peer.
    ///
    /// # Errors
    /// What to close with: the peer has sent more than its window allows.
    pub(crate) fn arrived(&self, bytes: usize) -> Result<(), Close> {
        let Some(window) = self.window.get() else { return Ok(()) };
        let queued = self.queued.fetch_add(1, Ordering::Relaxed);
        let queued_bytes = self.queued_bytes.fetch_add(bytes, Ordering::Relaxed);
        // The last message that the peer sent may overdraw the bytes. It need not arrive last: a
        // small one of the other lane overtakes it, and so may one that was large before it.
        let most = window.bytes.saturating_add(self.max_message);
        if queued < window.messages && queued_bytes.saturating_add(bytes) <= most {
            return Ok(());
        }
        Err(Close::new(
            CloseCode::Credit,
            format!(
                "more than the window of {} messages and {} bytes was sent to {}",
                window.messages,
                window.bytes,
                self.inbox.name()
            ),
        ))
    }
}

impl Origin for Binding {
    fn reply(&self, id: u64, body: &mut Vec<u8>) -> Result<(), RpcError> {
        self.with(|session| session.reply(id, body)).unwrap_or(Ok(()))
    }

    fn fail(&self, id: u64, error: &RpcError) {
        self.with(|session| session.fail(id, error));
    }

    fn poll_cancelled(&self, id: u64, cx: &mut Context<'_>) -> Poll<()> {
        self.with(|session| session.poll_cancelled(id, cx)).unwrap_or(Poll::Ready(()))
    }

    fn is_cancelled(&self, id: u64) -> bool {
        self.with(|session| session.is_cancelled(id)).unwrap_or(true)
    }

    fn consumed(&self, bytes: usize) {
        self.queued_bytes.fetch_sub(bytes, Ordering::Relaxed);
        self.queued.fetch_sub(1, Ordering::SeqCst);
        if self.released.load(Ordering::SeqCst) {
            return self.return_window();
        }
        let Some(window) = self.window.get() else { return };
        let messages = self.credit.fetch_add(1, Ordering::Relaxed).saturating_add(1);
        let bytes = self
            .credit_bytes
            .fetch_add(bytes as u64, Ordering::Relaxed)
            .saturating_add(bytes as u64);
        // Half a window at a time: rarely enough to cost nothing, soon enough not to stall.
        if messages >= window.messages.div_ceil(2) || bytes >= (window.bytes as u64).div_ceil(2) {
            let messages = self.credit.swap(0, Ordering::Relaxed);
            let bytes = self.credit_bytes.swap(0, Ordering::Relaxed);
            let messages = u32::try_from(messages).unwrap_or(u32::MAX);
            self.with(|session| {
                if !self.released.load(Ordering::SeqCst) {
                    session.grant(self.target, messages, bytes);
                }
            });
        }
    }

    fn gone(&self) {
        self.with(|session| {
            let first = !self.over.swap(true, Ordering::Relaxed);
            let known = self.announced.load(Ordering::Relaxed);
            if first && known && !self.released.load(Ordering::SeqCst) {
                session.gone(self.target);
            }
        });
    }

    fn sender(&self) -> Option<&RpcAddress> {
        Some(&self.sender)
    }
}

impl Drop for Binding {
    fn drop(&mut self) {
        if let Some(window) = self.window.get()
            && !self.returned.load(Ordering::Relaxed)
        {
            self.inbox.close_window(*window);
        }
    }
}
