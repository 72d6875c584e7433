//! What handlers return, and messages whose type the endpoint learns only when it looks.

use crate::core::EnvCore;
use crate::error::{ErrorKind, RpcError};
use crate::local_call::{self, LocalTell};
use crate::message::RpcMessage;
use crate::scope;
use crate::wire::payload;
use bytes::Bytes;
use std::fmt;
use std::sync::Arc;

/// What a handler returns.
pub type HandlerResult<T> = Result<T, HandlerError>;

/// Any error of a handler: `?` turns every error into one.
///
/// The caller gets its text, with the causes, as [`ErrorKind::HandlerFailed`]; an [`RpcError`]
/// raised by the library inside the dispatch (an undecodable body, say) keeps its kind.
pub struct HandlerError(anyhow::Error);

impl HandlerError {
    /// An error that is only a text.
    pub fn msg(text: impl fmt::Display + fmt::Debug + Send + Sync + 'static) -> Self {
        Self(anyhow::Error::msg(text))
    }

    /// The error as its caller gets it.
    pub(crate) fn into_rpc(self) -> RpcError {
        match self.0.downcast::<Refused>() {
            Ok(Refused(error)) => error,
            Err(error) => RpcError::new(ErrorKind::HandlerFailed, format!("{error:#}")),
        }
    }

    /// An error of the dispatch, not of user code: its kind survives.
    pub(crate) fn refused(error: RpcError) -> Self {
        Self(anyhow::Error::new(Refused(error)))
    }
}

impl<E: Into<anyhow::Error>> From<E> for HandlerError {
    fn from(error: E) -> Self {
        Self(error.into())
    }
}

impl fmt::Debug for HandlerError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}

impl fmt::Display for HandlerError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(crate) struct Refused(pub(crate) RpcError);

/// A message that no typed handler takes, as [`RpcEndpoint::receive`](crate::RpcEndpoint::receive)
/// gets it.
pub struct RawMessage {
    name: String,
    body: Body,
    /// The env that refs in it become refs of.
    core: Arc<EnvCore>,
}

enum Body {
    Value(Box<dyn LocalTell>),
    Bytes(Bytes),
}

impl RawMessage {
    pub(crate) fn from_value(value: Box<dyn LocalTell>, core: Arc<EnvCore>) -> Self {
        Self { name: value.name().to_owned(), body: Body::Value(value), core }
    }

    pub(crate) fn from_bytes(name: String, body: Bytes, core: Arc<EnvCore>) -> Self {
        Self { name, body: Body::Bytes(body), core }
    }

    /// The message's wire name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The message as an `M`: the value itself if it came from this process as that type,
    /// otherwise decoded from its bytes.
    ///
    /// # Errors
    /// `Decode` if it is not an `M`.
    pub fn decode<M: RpcMessage>(self) -> Result<M, RpcError> {
        let limits = self.core.prescan();
        scope::within(&self.core, || match self.body {
            Body::Bytes(bytes) => payload::decode_body(&bytes, limits),
            Body::Value(value) => local_call::into_message(value, limits),
        })
    }

    /// The body in MessagePack.
    ///
    /// # Errors
    /// `Encode` if the message came by value and cannot be encoded.
    pub fn bytes(&self) -> Result<Bytes, RpcError> {
        match &self.body {
            Body::Bytes(bytes) => Ok(bytes.clone()),
            Body::Value(value) => scope::within(&self.core, || value.encode()),
        }
    }
}

impl fmt::Debug for RawMessage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RawMessage").field("name", &self.name).finish_non_exhaustive()
    }
}

/// The reply type of a call whose ask no typed handler takes: anything that can be encoded.
///
/// See [`RpcCallContext::reply_with`](crate::RpcCallContext::reply_with).
#[derive(Debug)]
#[non_exhaustive]
pub enum RawReply {}
