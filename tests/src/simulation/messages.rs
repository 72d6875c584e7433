//! What the members of the simulated cluster say to each other.

use bytes::Bytes;
use rpc_actix::{RpcEndpointRef, RpcMessage};
use serde::{Deserialize, Serialize};

use super::actor::Actor;

/// Which message this is: its stream, and its place in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Mark {
    /// One sender, one endpoint, one lane.
    pub stream: u32,
    /// Counts from 1.
    pub number: u32,
}

/// What the handler of an ask is to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Deed {
    /// Answers at once.
    Reply,
    /// Answers with an error.
    Fail,
    /// Panics.
    Panic,
    /// Waits so many milliseconds, then answers.
    Wait(u32),
    /// Waits without giving way to anything on its node.
    Block(u32),
    /// Hands the call to another task, which answers so much later.
    Later(u32),
    /// Drops the call.
    Drop,
    /// Keeps the call and never answers.
    Keep,
    /// Asks another member that is enlisted here, and answers what came out.
    Pass(u32),
}

/// A one-way message.
#[derive(Debug, Serialize, Deserialize, RpcMessage)]
pub struct Tell {
    /// Which one it is.
    pub mark: Mark,
    /// Follows from the mark.
    #[serde(with = "rpc_actix::bytes_in_place")]
    pub body: Bytes,
}

/// The same in the other lane.
#[derive(Debug, Serialize, Deserialize, RpcMessage)]
#[rpc(lane = "bulk")]
pub struct TellBulk {
    /// Which one it is.
    pub mark: Mark,
    /// Follows from the mark.
    #[serde(with = "rpc_actix::bytes_in_place")]
    pub body: Bytes,
}

/// An ask.
#[derive(Debug, Serialize, Deserialize, RpcMessage)]
#[rpc(reply = Answer)]
pub struct Do {
    /// Which one it is.
    pub mark: Mark,
    /// What to do.
    pub deed: Deed,
    /// Follows from the mark.
    #[serde(with = "rpc_actix::bytes_in_place")]
    pub body: Bytes,
}

/// The same in the other lane; the answer is as large as the message.
#[derive(Debug, Serialize, Deserialize, RpcMessage)]
#[rpc(reply = Answer, lane = "bulk")]
pub struct DoBulk {
    /// Which one it is.
    pub mark: Mark,
    /// What to do.
    pub deed: Deed,
    /// Follows from the mark.
    #[serde(with = "rpc_actix::bytes_in_place")]
    pub body: Bytes,
}

/// The answer to an ask.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Answer {
    /// What was asked.
    pub mark: Mark,
    /// Follows from the mark.
    #[serde(with = "rpc_actix::bytes_in_place")]
    pub body: Bytes,
}

/// Makes a member known to another one.
#[derive(Debug, Serialize, Deserialize, RpcMessage)]
#[rpc(reply = Vec<RpcEndpointRef<Actor>>)]
pub struct Enlist {
    /// Its number.
    pub member: u32,
    /// Its endpoint: the answer has those of the others.
    pub actor: RpcEndpointRef<Actor>,
}

/// The body of a message: `bytes` bytes, which tell it from others, and each place in it from others.
pub(super) fn body(mark: Mark, bytes: usize) -> Bytes {
    const STEP: u64 = 0x9e37_79b9_7f4a_7c15;
    let word =
        u64::from(mark.stream).wrapping_mul(0x9e37_79b9).wrapping_add(u64::from(mark.number));
    let mut word = word.wrapping_mul(STEP);
    let mut body = Vec::with_capacity(bytes.next_multiple_of(8));
    while body.len() < bytes {
        body.extend_from_slice(&word.to_le_bytes());
        word = word.wrapping_add(STEP);
    }
    body.truncate(bytes);
    body.into()
}
