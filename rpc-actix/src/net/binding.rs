//! An endpoint of this env, as one connection's peer calls it.

use super::link::Link;
use rpc_core::proto::{Close, CloseCode, TargetId};
use rpc_core::spi::{Inbox, Origin, Window};
use rpc_core::{RpcAddress, RpcError};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll};

/// The way back from an endpoint to the peer, and the peer's window.
pub(crate) struct Binding {
    link: Arc<Link>,
    target: TargetId,
    inbox: Arc<Inbox>,
    sender: RpcAddress,
    window: OnceLock<Window>,
    /// Messages of the peer that are in the inbox now.
    queued: AtomicUsize,
    /// The bytes of their bodies.
    queued_bytes: AtomicUsize,
    /// What has been handled and not been given back as credit yet.
    credit: AtomicUsize,
    credit_bytes: AtomicU64,
    over: AtomicBool,
}

impl Binding {
    pub(crate) fn new(
        link: Arc<Link>,
        target: TargetId,
        inbox: Arc<Inbox>,
        sender: RpcAddress,
    ) -> Self {
        Self {
            link,
            target,
            inbox,
            sender,
            window: OnceLock::new(),
            queued: AtomicUsize::new(0),
            queued_bytes: AtomicUsize::new(0),
            credit: AtomicUsize::new(0),
            credit_bytes: AtomicU64::new(0),
            over: AtomicBool::new(false),
        }
    }

    pub(crate) fn inbox(&self) -> &Arc<Inbox> {
        &self.inbox
    }

    pub(crate) fn open(&self, window: Window) {
        let _ = self.window.set(window);
    }

    /// Counts a message of the peer.
    ///
    /// # Errors
    /// What to close with: the peer has sent more than its window allows.
    pub(crate) fn arrived(&self, bytes: usize) -> Result<(), Close> {
        let Some(window) = self.window.get() else { return Ok(()) };
        let queued = self.queued.fetch_add(1, Ordering::Relaxed);
        let queued_bytes = self.queued_bytes.fetch_add(bytes, Ordering::Relaxed);
        // Bytes may be overdrawn by one message.
        if queued < window.messages && queued_bytes < window.bytes {
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
        self.link.with(|session| session.reply(id, body))
    }

    fn fail(&self, id: u64, error: &RpcError) {
        self.link.with(|session| session.fail(id, error));
    }

    fn poll_cancelled(&self, id: u64, cx: &mut Context<'_>) -> Poll<()> {
        self.link.with(|session| session.poll_cancelled(id, cx))
    }

    fn is_cancelled(&self, id: u64) -> bool {
        self.link.with(|session| session.is_cancelled(id))
    }

    fn consumed(&self, bytes: usize) {
        self.queued.fetch_sub(1, Ordering::Relaxed);
        self.queued_bytes.fetch_sub(bytes, Ordering::Relaxed);
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
            self.link.with(|session| session.grant(self.target, messages, bytes));
        }
    }

    fn gone(&self) {
        if !self.over.swap(true, Ordering::Relaxed) {
            self.link.with(|session| session.gone(self.target));
        }
    }

    fn sender(&self) -> Option<&RpcAddress> {
        Some(&self.sender)
    }
}

impl Drop for Binding {
    fn drop(&mut self) {
        if let Some(window) = self.window.get() {
            self.inbox.close_window(*window);
        }
    }
}
