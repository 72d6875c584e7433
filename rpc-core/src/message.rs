//! Messages: what may be sent, what is answered, and which endpoint accepts what.

use serde::Serialize;
use serde::de::DeserializeOwned;

/// A value that can be sent to an endpoint, here or on another machine.
///
/// Usually derived: `#[derive(Serialize, Deserialize, RpcMessage)]`.
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not an RPC message",
    label = "not an `RpcMessage`",
    note = "derive it: `#[derive(Serialize, Deserialize, RpcMessage)]`"
)]
pub trait RpcMessage: Serialize + DeserializeOwned + Send + 'static {
    /// The name that stands for this type on the wire. Both sides must agree on it; the derive
    /// takes the bare type name, or `#[rpc(name = "..")]`.
    const NAME: &'static str;
    /// The lane it travels in. Messages keep their order within a lane only.
    const LANE: Lane = Lane::Normal;
    /// How its body is written.
    const ENCODING: Encoding = Encoding::Named;
    /// Whether a handler of this message may be dropped in the middle when its caller gives up
    /// (`#[rpc(abort)]`). Without it the handler only sees [`cancelled`](crate::EndpointContext::cancelled).
    const ABORT: bool = false;
}

/// A message without an answer: `send` takes it, `ask` does not.
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot be sent: it is not a one-way message",
    label = "`ask` it, if it has a reply; its handler is then `#[receive_and_reply]`",
    note = "a message without `#[rpc(reply = ..)]` is one-way; what is not a message yet becomes one with `#[derive(Serialize, Deserialize, RpcMessage)]`"
)]
pub trait OneWay: RpcMessage {}

/// A message with an answer: `ask` takes it, `send` does not.
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot be asked: it has no reply to wait for",
    label = "`send` it, if it is one-way; its handler is then `#[receive]`",
    note = "give it a reply with `#[rpc(reply = SomeType)]`; what is not a message yet becomes one with `#[derive(Serialize, Deserialize, RpcMessage)]`"
)]
pub trait Ask: RpcMessage {
    /// What the endpoint answers.
    type Reply: Serialize + DeserializeOwned + Send + 'static;
}

/// The lanes of a connection. Frames of an earlier lane go first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Lane {
    /// What messages travel in unless they say otherwise.
    #[default]
    Normal,
    /// Gives way to normal messages and has no order with them (`#[rpc(lane = "bulk")]`).
    Bulk,
}

/// How a message body is written in MessagePack.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Encoding {
    /// Structs as maps with field names: a field with a default may be added on either side.
    #[default]
    Named,
    /// Structs as arrays (`#[rpc(compact)]`): smaller, and broken by any added field.
    Compact,
}

/// Says that endpoints or protocols of this type take the message `M`.
///
/// The `#[endpoint]` and `protocol!` macros write these.
#[diagnostic::on_unimplemented(
    message = "`{Self}` does not accept the message `{M}`",
    label = "no handler of `{Self}` takes `{M}`",
    note = "add a `#[receive]` or `#[receive_and_reply]` method that takes it, or list it in the protocol"
)]
pub trait Accepts<M> {}

/// A message that endpoints of type `P` accept: the bound of `send` and `ask`.
///
/// It holds for every `M` with `P: Accepts<M>`; as a trait of the message it keeps the compiler
/// from guessing the message type, which makes its errors readable.
pub trait SentTo<P>: RpcMessage {}

impl<M: RpcMessage, P: Accepts<M>> SentTo<P> for M {}

/// A set of messages without an implementation: what a client crate sees of an endpoint.
///
/// Declared with `protocol! { pub MasterApi { Heartbeat, RegisterWorker } }`.
pub trait RpcProtocol: 'static {
    /// The names of its messages.
    const MESSAGES: &'static [&'static str];
}

/// Holds when the endpoint `E` accepts every message of this protocol.
#[diagnostic::on_unimplemented(
    message = "the endpoint `{E}` does not cover the protocol `{Self}`",
    label = "`{Self}` is not a protocol that `{E}` covers"
)]
pub trait CoveredBy<E>: RpcProtocol {}

/// The endpoint type of refs that know nothing about their endpoint: they accept every message,
/// and the receiver checks it.
#[derive(Debug)]
#[non_exhaustive]
pub enum Untyped {}

impl<M: RpcMessage> Accepts<M> for Untyped {}
