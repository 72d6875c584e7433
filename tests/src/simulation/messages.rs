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

impl Deed {
    /// What a trace says of it, and its number.
    pub(super) fn told(self) -> (&'static str, u32) {
        match self {
            Self::Reply => ("asks: reply (stream, number, bytes, bulk)", 0),
            Self::Fail => ("asks: fail (stream, number, bytes, bulk)", 0),
            Self::Panic => ("asks: panic (stream, number, bytes, bulk)", 0),
            Self::Wait(millis) => ("asks: wait (stream, number, bytes, bulk, ms)", millis),
            Self::Block(millis) => ("asks: block (stream, number, bytes, bulk, ms)", millis),
            Self::Later(millis) => ("asks: later (stream, number, bytes, bulk, ms)", millis),
            Self::Drop => ("asks: drop (stream, number, bytes, bulk)", 0),
            Self::Keep => ("asks: keep (stream, number, bytes, bulk)", 0),
            Self::Pass(which) => ("asks: pass (stream, number, bytes, bulk, to)", which),
        }
    }
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
    let mut body = vec![0; bytes];
    let (words, rest) = body.as_chunks_mut::<8>();
    let mut content = content(mark);
    words.iter_mut().zip(&mut content).for_each(|(word, known)| *word = known);
    rest.iter_mut().zip(content.next().unwrap_or_default()).for_each(|(byte, known)| *byte = known);
    body.into()
}

/// Whether these bytes are the body of a message of so many.
pub(super) fn is_body(mark: Mark, bytes: usize, body: &[u8]) -> bool {
    let (words, rest) = body.as_chunks::<8>();
    let mut content = content(mark);
    let same =
        words.iter().zip(&mut content).fold(true, |same, (word, known)| same & (*word == known));
    let last = content.next().unwrap_or_default();
    body.len() == bytes && same && rest.iter().zip(last).all(|(byte, known)| *byte == known)
}

/// What the bodies of a message begin with, eight bytes at a time.
fn content(mark: Mark) -> impl Iterator<Item = [u8; 8]> {
    const STEP: u64 = 0x9e37_79b9_7f4a_7c15;
    let first =
        u64::from(mark.stream).wrapping_mul(0x9e37_79b9).wrapping_add(u64::from(mark.number));
    let mut word = first.wrapping_mul(STEP);
    std::iter::repeat_with(move || {
        let bytes = word.to_le_bytes();
        word = word.wrapping_add(STEP);
        bytes
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_body_is_known_and_no_other_is() {
        let mark = Mark { stream: 3, number: 7 };
        for bytes in [0, 1, 7, 8, 9, 16, 200] {
            let known = body(mark, bytes);
            assert!(known.len() == bytes && is_body(mark, bytes, &known), "{bytes}");
            assert!(
                !is_body(mark, bytes + 1, &known)
                    && !is_body(mark, bytes, &[&known[..], &[0]].concat())
            );
            for place in 0..bytes {
                let mut other = known.to_vec();
                other[place] ^= 1;
                assert!(!is_body(mark, bytes, &other), "{place} of {bytes}");
            }
        }
        assert_ne!(body(mark, 8), body(Mark { number: 8, ..mark }, 8));
    }
}
