//! The one way back to a caller, used once.

use crate::address::RpcAddress;
use crate::core::EnvCore;
use crate::deadline::Timestamp;
use crate::error::{ErrorKind, Outcome, RpcError};
use crate::local_call::{BRIDGE_ENCODING, LocalAsk};
use crate::message::Encoding;
use crate::scope::{self, For};
use crate::seam::Origin;
use crate::wire::payload;
use serde::Serialize;
use std::sync::Arc;
use std::task::{Context, Poll};

/// Answers one call. Dropped unused, it fails the call: nobody waits for nothing.
pub(crate) struct ReplySink {
    way: Option<Way>,
}

#[derive(Clone)]
pub(crate) enum Way {
    Local(Arc<dyn LocalAsk>),
    Wire(Arc<dyn Origin>, u64),
}

impl ReplySink {
    pub(crate) fn local(call: Arc<dyn LocalAsk>) -> Self {
        Self { way: Some(Way::Local(call)) }
    }

    pub(crate) fn wire(origin: Arc<dyn Origin>, call: u64) -> Self {
        Self { way: Some(Way::Wire(origin, call)) }
    }

    /// Hands on the way of the one that lies there: moved with it, it would be moved twice.
    #[inline]
    pub(crate) fn take_from(place: &mut Option<Self>) -> Option<Way> {
        let way = place.as_mut()?.way.take();
        *place = None;
        way
    }

    /// Hands the way on, to be used elsewhere.
    pub(crate) fn take(mut self) -> Option<Way> {
        self.way.take()
    }

    pub(crate) fn way(&self) -> Option<&Way> {
        self.way.as_ref()
    }

    pub(crate) fn fail(mut self, error: &RpcError) {
        if let Some(way) = self.way.take() {
            way.fail(error);
        }
    }
}

impl Drop for ReplySink {
    fn drop(&mut self) {
        if let Some(way) = self.way.take() {
            // Its handler may have run in part.
            let error = RpcError::new(
                ErrorKind::EndpointStopped,
                "the endpoint has been stopped before it replied",
            );
            way.fail(&error.with_outcome(Outcome::Unknown));
        }
    }
}

/// What the caller gets of a handler's error. A handler that fails when the time of its caller is
/// over has mostly failed because of that: its own asks have no more time. Its error must not come
/// before the caller's own clock says the same.
pub(crate) fn in_time(error: RpcError, deadline: Timestamp, core: &EnvCore) -> RpcError {
    if error.kind() != ErrorKind::HandlerFailed
        || deadline == Timestamp::MAX
        || core.now() < deadline
    {
        return error;
    }
    let text = format!("the time of the ask was over when its handler failed: {}", error.text());
    RpcError::new(ErrorKind::Timeout, text).with_outcome(Outcome::FailedInHandler)
}

impl Way {
    pub(crate) fn fail(&self, error: &RpcError) {
        match self {
            Self::Local(call) => call.fail(error.clone()),
            Self::Wire(origin, id) => origin.fail(*id, error),
        }
    }

    /// Encodes a reply and sends it; if it cannot be sent, the caller is told that, and so is
    /// this side. `of` names the reply in the error.
    pub(crate) fn reply<R: Serialize>(
        &self,
        core: &EnvCore,
        reply: &R,
        encoding: Encoding,
        of: impl FnOnce() -> String,
    ) -> Result<(), RpcError> {
        let max = core.config().limits().message_max_size();
        let sent = match self {
            Self::Local(call) => scope::within(core, || {
                let mut encoded = payload::encoded(reply, BRIDGE_ENCODING, max)?;
                call.reply_bytes(&encoded.body().joined(), core.prescan())
            }),
            Self::Wire(origin, id) => scope::within_for(core, For::Origin(origin), || {
                let mut encoded = payload::encoded(reply, encoding, max)?;
                origin.reply(*id, encoded.body())
            }),
        };
        sent.map_err(|error: RpcError| {
            // The handler has run, whatever kind of error its reply meets.
            let error = RpcError::new(error.kind(), format!("{}: {error}", of()))
                .with_outcome(Outcome::FailedInHandler);
            self.fail(&error);
            error
        })
    }

    pub(crate) fn poll_cancelled(
        &self,
        place: &mut Option<usize>,
        cx: &mut Context<'_>,
    ) -> Poll<()> {
        match self {
            Self::Local(call) => call.poll_cancelled(place, cx),
            Self::Wire(origin, id) => origin.poll_cancelled(*id, place, cx),
        }
    }

    /// Whoever has that place waits no more.
    pub(crate) fn forget(&self, place: usize) {
        match self {
            Self::Local(call) => call.forget(place),
            Self::Wire(origin, id) => origin.forget(*id, place),
        }
    }

    pub(crate) fn is_cancelled(&self) -> bool {
        match self {
            Self::Local(call) => call.is_cancelled(),
            Self::Wire(origin, id) => origin.is_cancelled(*id),
        }
    }

    /// The same for a caller who waits until `deadline`: a peer that cannot be heard any more gives
    /// up as well.
    pub(crate) fn is_cancelled_by(&self, deadline: Timestamp, core: &EnvCore) -> bool {
        self.is_cancelled()
            || (matches!(self, Self::Wire(..))
                && deadline != Timestamp::MAX
                && deadline <= core.now())
    }

    /// The sender's address: `None` stands for this env.
    pub(crate) fn sender(&self) -> Option<RpcAddress> {
        match self {
            Self::Local(_) => None,
            Self::Wire(origin, _) => origin.sender().cloned(),
        }
    }
}
