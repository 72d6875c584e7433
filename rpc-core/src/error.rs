//! What callers get when a call fails: [`RpcError`].
//!
//! An error answers two questions. Its [kind](ErrorKind) says what went wrong, its [outcome](Outcome) says what the
//! caller knows about the handler: whether it is safe to send the message again.

use std::error::Error as StdError;
use std::fmt;
use std::sync::Arc;

/// What went wrong.
///
/// The list grows with the library, so a `match` needs a `_` arm; the `is_*` questions of [`RpcError`] do not.
#[non_exhaustive]
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
pub enum ErrorKind {
    /// No reply came within the time that the caller allowed. The text names the key that controls the time.
    Timeout,
    /// A queue, an inbox or a credit window has no room. Send less, wait for room, or raise the limit in the text.
    Overloaded,
    /// The env is there, but no endpoint of that name (or that incarnation of it) is.
    EndpointNotFound,
    /// The endpoint stopped before it handled the message.
    EndpointStopped,
    /// The env, this one or the peer's, is shutting down or shut down.
    EnvStopped,
    /// The endpoint has no handler for the message.
    Unsupported,
    /// Bytes could not be read as the type that was expected.
    Decode,
    /// A value could not be written as bytes.
    Encode,
    /// A message is larger than `rpc.message.maxSize`, here or at the peer.
    TooLarge,
    /// The connection was lost while the call was under way.
    Disconnected,
    /// No connection to the peer could be made.
    Unreachable,
    /// The two sides have no version of the protocol in common.
    VersionMismatch,
    /// The peer broke the rules of the protocol, and the connection was closed.
    Protocol,
    /// The handler ran and returned an error; the text is the handler's.
    HandlerFailed,
    /// The handler panicked. The endpoint lives on, unless its `PanicPolicy` says otherwise.
    HandlerPanicked,
    /// The handler ended, or dropped its call context, without a reply.
    NoReply,
    /// The call was taken back before it was answered.
    Cancelled,
    /// The ask would wait for itself: the text has the chain of endpoints.
    AskCycle,
    /// A blocking call was made on the thread that would have to do the work.
    WouldBlockArbiter,
    /// A text is not an address, a name or an env id.
    InvalidAddress,
    /// A setting is unknown, unreadable or out of range.
    InvalidConfig,
    /// An endpoint of that name is registered already.
    NameTaken,
    /// The address could not be bound: it is in use, not local, or not permitted.
    Bind,
    /// The connection would need a security that is not configured.
    SecurityRequired,
    /// A ref was encoded or decoded outside of the scope of an env.
    NoEnvScope,
    /// No factory is registered under the name that `rpc.env` asks for.
    UnknownFactory,
    /// A ref was used for an endpoint, an incarnation or an env that it does not belong to.
    WrongRef,
    /// A fault of the library itself, or a failure of the peer that this version does not know.
    Internal,
}

impl ErrorKind {
    /// Every kind, in the order of declaration.
    pub const ALL: [Self; 28] = [
        Self::Timeout,
        Self::Overloaded,
        Self::EndpointNotFound,
        Self::EndpointStopped,
        Self::EnvStopped,
        Self::Unsupported,
        Self::Decode,
        Self::Encode,
        Self::TooLarge,
        Self::Disconnected,
        Self::Unreachable,
        Self::VersionMismatch,
        Self::Protocol,
        Self::HandlerFailed,
        Self::HandlerPanicked,
        Self::NoReply,
        Self::Cancelled,
        Self::AskCycle,
        Self::WouldBlockArbiter,
        Self::InvalidAddress,
        Self::InvalidConfig,
        Self::NameTaken,
        Self::Bind,
        Self::SecurityRequired,
        Self::NoEnvScope,
        Self::UnknownFactory,
        Self::WrongRef,
        Self::Internal,
    ];

    /// What an error of this kind says about the handler when nobody said otherwise.
    ///
    /// A kind that can arise both before and after the handler gets the careful answer, [`Outcome::Unknown`].
    pub const fn default_outcome(self) -> Outcome {
        match self {
            Self::Timeout
            | Self::Disconnected
            | Self::Cancelled
            | Self::Decode
            | Self::Protocol
            | Self::Internal => Outcome::Unknown,
            Self::HandlerFailed | Self::HandlerPanicked | Self::NoReply => Outcome::FailedInHandler,
            _ => Outcome::NeverSent,
        }
    }

    /// The number of this kind on the wire; 0 for those that mean nothing to another process.
    ///
    /// These numbers are part of the protocol (`docs/WIRE.md`): they are never changed and never used again.
    pub const fn wire_code(self) -> u16 {
        match self {
            Self::Timeout => 1,
            Self::Overloaded => 2,
            Self::EndpointNotFound => 3,
            Self::EndpointStopped => 4,
            Self::EnvStopped => 5,
            Self::Unsupported => 6,
            Self::Decode => 7,
            Self::Encode => 8,
            Self::TooLarge => 9,
            Self::Disconnected => 10,
            Self::Unreachable => 11,
            Self::VersionMismatch => 12,
            Self::Protocol => 13,
            Self::HandlerFailed => 14,
            Self::HandlerPanicked => 15,
            Self::NoReply => 16,
            Self::Cancelled => 17,
            Self::AskCycle => 18,
            Self::WrongRef => 19,
            Self::SecurityRequired => 20,
            Self::WouldBlockArbiter
            | Self::InvalidAddress
            | Self::InvalidConfig
            | Self::NameTaken
            | Self::Bind
            | Self::NoEnvScope
            | Self::UnknownFactory
            | Self::Internal => 0,
        }
    }

    /// The kind of a number that came over the wire; [`ErrorKind::Internal`] for 0 and for unknown numbers.
    pub fn from_wire_code(code: u16) -> Self {
        Self::ALL
            .into_iter()
            .find(|kind| code != 0 && kind.wire_code() == code)
            .unwrap_or(Self::Internal)
    }

    /// As [`ErrorKind::default_outcome`], for a failure that a peer reports about a message that reached it.
    ///
    /// Only a reply can fail to be encoded there, and too large may be the message or its reply.
    pub(crate) const fn default_outcome_at_peer(self) -> Outcome {
        match self {
            Self::Encode => Outcome::FailedInHandler,
            Self::TooLarge => Outcome::Unknown,
            _ => self.default_outcome(),
        }
    }
}

/// What the caller knows about whether a handler ran.
#[non_exhaustive]
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
pub enum Outcome {
    /// No handler has seen the message; sending it again is safe.
    NeverSent,
    /// The message was given to the socket and no answer came: a handler may have run, be running, or run later.
    Unknown,
    /// A handler took the message and failed.
    FailedInHandler,
}

/// By its name, as for the label of a metric.
impl fmt::Display for ErrorKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NeverSent => "never sent",
            Self::Unknown => "outcome unknown",
            Self::FailedInHandler => "failed in the handler",
        })
    }
}

/// Why a call, a registration or a start failed. A clone is one reference count.
///
/// `Display` says what went wrong, the cause included; so [`source`](std::error::Error::source) is what is behind the
/// cause, and a chain of errors is printed without doubles. The cause itself is [`cause`](Self::cause). `{error:#}`
/// has the kind and the outcome as well.
#[derive(Clone)]
pub struct RpcError {
    inner: Arc<Inner>,
}

#[derive(Clone)]
struct Inner {
    kind: ErrorKind,
    outcome: Outcome,
    text: String,
    source: Option<Arc<dyn StdError + Send + Sync>>,
}

impl RpcError {
    /// An error of this kind with the kind's [default outcome](ErrorKind::default_outcome).
    pub fn new(kind: ErrorKind, text: impl Into<String>) -> Self {
        let (outcome, text) = (kind.default_outcome(), text.into());
        Self { inner: Arc::new(Inner { kind, outcome, text, source: None }) }
    }

    /// The same error with its cause, which the text names already.
    #[must_use]
    pub fn with_source(mut self, source: impl StdError + Send + Sync + 'static) -> Self {
        Arc::make_mut(&mut self.inner).source = Some(Arc::new(source));
        self
    }

    /// What the system or a library said, if that is behind the error: an [`std::io::Error`], say.
    pub fn cause(&self) -> Option<&(dyn StdError + Send + Sync + 'static)> {
        self.inner.source.as_deref()
    }

    /// The same error with another outcome, for whoever knows more than the kind says.
    #[must_use]
    pub fn with_outcome(mut self, outcome: Outcome) -> Self {
        if self.inner.outcome != outcome {
            Arc::make_mut(&mut self.inner).outcome = outcome;
        }
        self
    }

    /// What went wrong.
    pub fn kind(&self) -> ErrorKind {
        self.inner.kind
    }

    /// What is known about the handler.
    pub fn outcome(&self) -> Outcome {
        self.inner.outcome
    }

    /// The text that `Display` writes.
    pub fn text(&self) -> &str {
        &self.inner.text
    }

    /// No reply came in time.
    pub fn is_timeout(&self) -> bool {
        self.kind() == ErrorKind::Timeout
    }

    /// There was no room, here or at the peer.
    pub fn is_overloaded(&self) -> bool {
        self.kind() == ErrorKind::Overloaded
    }

    /// No such endpoint.
    pub fn is_not_found(&self) -> bool {
        self.kind() == ErrorKind::EndpointNotFound
    }

    /// The endpoint or its env has stopped.
    pub fn is_stopped(&self) -> bool {
        matches!(self.kind(), ErrorKind::EndpointStopped | ErrorKind::EnvStopped)
    }

    /// The endpoint has no handler for the message.
    pub fn is_unsupported(&self) -> bool {
        self.kind() == ErrorKind::Unsupported
    }

    /// The connection was lost while the call was under way.
    pub fn is_disconnected(&self) -> bool {
        self.kind() == ErrorKind::Disconnected
    }

    /// No connection could be made.
    pub fn is_unreachable(&self) -> bool {
        self.kind() == ErrorKind::Unreachable
    }

    /// The handler took the message and failed: it returned an error, panicked, or ended without a reply.
    pub fn is_remote(&self) -> bool {
        matches!(
            self.kind(),
            ErrorKind::HandlerFailed | ErrorKind::HandlerPanicked | ErrorKind::NoReply
        )
    }

    /// The call was taken back.
    pub fn is_cancelled(&self) -> bool {
        self.kind() == ErrorKind::Cancelled
    }

    /// A value could not be written, or bytes could not be read, or they were too many.
    pub fn is_codec(&self) -> bool {
        matches!(self.kind(), ErrorKind::Decode | ErrorKind::Encode | ErrorKind::TooLarge)
    }

    /// No handler has seen the message, so sending it again cannot make it run twice.
    pub fn is_never_sent(&self) -> bool {
        self.outcome() == Outcome::NeverSent
    }
}

impl fmt::Display for RpcError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.inner.text)?;
        if f.alternate() {
            write!(f, " [{:?}, {}]", self.inner.kind, self.inner.outcome)?;
        }
        Ok(())
    }
}

impl fmt::Debug for RpcError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Inner { kind, outcome, text, source } = &*self.inner;
        let mut out = f.debug_struct("RpcError");
        out.field("kind", kind).field("outcome", outcome).field("text", text);
        if let Some(source) = source {
            out.field("source", source);
        }
        out.finish()
    }
}

impl StdError for RpcError {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        match &self.inner.source {
            Some(source) => source.source(),
            None => None,
        }
    }
}

/// A text of at most `most` bytes: what a peer has written may be quoted in it.
pub(crate) fn shortened(mut text: String, most: usize) -> String {
    // A character has at most four bytes, so one of these is its border.
    let cut = (0..=text.len().min(most)).rev().find(|&at| text.is_char_boundary(at));
    text.truncate(cut.unwrap_or(0));
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_source_and_outcome_are_kept() {
        let cause = std::io::Error::other("reset");
        let error = RpcError::new(ErrorKind::Disconnected, "lost b:1").with_source(cause);
        assert_eq!(error.to_string(), "lost b:1");
        assert_eq!(error.cause().unwrap().to_string(), "reset");
        assert!(error.source().is_none(), "a chain would say it twice");
        assert_eq!(error.outcome(), Outcome::Unknown);
        let other = error.clone().with_outcome(Outcome::NeverSent);
        assert!(other.is_never_sent() && !error.is_never_sent(), "a clone is changed alone");
        assert!(format!("{error:?}").contains("reset"));
        assert_eq!(size_of::<Result<(), RpcError>>(), size_of::<usize>());
    }

    #[test]
    fn all_lists_each_kind_once_and_numbers_are_unique() {
        let mut seen = std::collections::HashSet::new();
        let mut codes = std::collections::HashSet::new();
        for kind in ErrorKind::ALL {
            assert!(seen.insert(kind));
            let code = kind.wire_code();
            assert!(code == 0 || codes.insert(code), "{kind:?}");
            assert!(code < 1000);
            if code != 0 {
                assert_eq!(ErrorKind::from_wire_code(code), kind);
            }
        }
        // The last one declared is the last one listed, so none is missing.
        assert_eq!(ErrorKind::Internal as usize, ErrorKind::ALL.len() - 1);
    }

    #[test]
    fn questions_match_kinds() {
        let is = |kind| RpcError::new(kind, "");
        assert!(is(ErrorKind::EnvStopped).is_stopped() && is(ErrorKind::NoReply).is_remote());
        assert!(is(ErrorKind::EndpointNotFound).is_not_found());
        assert!(is(ErrorKind::Overloaded).is_overloaded() && is(ErrorKind::Timeout).is_timeout());
        assert!(!is(ErrorKind::Unreachable).is_disconnected());
    }
}
