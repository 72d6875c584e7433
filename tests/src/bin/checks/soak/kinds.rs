//! Messages of all kinds, beside those that are written down: small and large, answered later, given
//! up, over their time, answered by a call back.

use crate::messages::Mark;
use rpc_actix::{
    EndpointContext, ErrorKind, HandlerResult, RpcCallContext, RpcEndpointRef, RpcMessage, endpoint,
};
use serde::{Deserialize, Serialize};
use std::time::Duration;

/// The bytes of a large message: it travels in parts.
const LARGE: usize = 300 * 1024;

/// Answered with itself, in the lane of the large.
#[derive(Debug, Serialize, Deserialize, RpcMessage)]
#[rpc(reply = (Mark, bytes::Bytes), lane = "bulk")]
struct Large {
    mark: Mark,
    body: bytes::Bytes,
}

/// Answered a little later, from elsewhere.
#[derive(Debug, Serialize, Deserialize, RpcMessage)]
#[rpc(reply = Mark)]
struct Later {
    mark: Mark,
}

/// Answered by a message of its own to whoever asks.
#[derive(Debug, Serialize, Deserialize, RpcMessage)]
#[rpc(reply = Mark)]
struct Back {
    mark: Mark,
    to: RpcEndpointRef<Kinds>,
}

/// Takes 20 ms.
#[derive(Debug, Serialize, Deserialize, RpcMessage)]
#[rpc(reply = Mark)]
struct Slow {
    mark: Mark,
}

/// Set up at servers and at clients.
pub(super) struct Kinds;

#[endpoint]
impl Kinds {
    #[receive_and_reply]
    fn large(&mut self, msg: Large) -> HandlerResult<(Mark, bytes::Bytes)> {
        Ok((msg.mark, msg.body))
    }

    #[receive_and_reply]
    fn later(&mut self, msg: Later, call: RpcCallContext<Mark>) -> HandlerResult<()> {
        actix_rt::spawn(async move {
            tokio::time::sleep(Duration::from_millis(5)).await;
            call.reply(msg.mark);
        });
        Ok(())
    }

    #[receive_and_reply]
    async fn slow(&mut self, msg: Slow, _cx: &mut EndpointContext<Self>) -> HandlerResult<Mark> {
        tokio::time::sleep(Duration::from_millis(20)).await;
        Ok(msg.mark)
    }

    #[receive_and_reply]
    fn back(&mut self, msg: Back, call: RpcCallContext<Mark>) -> HandlerResult<()> {
        let Back { mark, to } = msg;
        actix_rt::spawn(async move {
            match to.ask(Later { mark }).await {
                Ok(mark) => call.reply(mark),
                Err(error) => call.fail(error),
            };
        });
        Ok(())
    }
}

/// What came of messages of all kinds.
#[derive(Debug, Default)]
pub(super) struct Tried {
    pub answered: u64,
    pub failed: u64,
    pub wrong: u64,
}

impl Tried {
    pub(super) fn add(&mut self, more: &Self) {
        self.answered += more.answered;
        self.failed += more.failed;
        self.wrong += more.wrong;
    }

    fn note<E>(&mut self, result: Result<bool, E>) {
        match result {
            Ok(true) => self.answered += 1,
            Ok(false) => self.wrong += 1,
            Err(_) => self.failed += 1,
        }
    }

    /// One of each kind in turn, to a server and to the env itself.
    pub(super) async fn next(
        &mut self,
        mark: Mark,
        server: &RpcEndpointRef<Kinds>,
        own: &RpcEndpointRef<Kinds>,
    ) {
        match mark.number % 7 {
            0 => {
                let body = bytes::Bytes::from(vec![mark.number.to_le_bytes()[0]; LARGE]);
                let answer = server.ask(Large { mark, body: body.clone() }).await;
                self.note(answer.map(|answer| answer == (mark, body)));
            }
            1 => self.note(server.ask(Later { mark }).await.map(|answer| answer == mark)),
            2 => {
                let to = own.clone();
                self.note(server.ask(Back { mark, to }).await.map(|answer| answer == mark));
            }
            3 => {
                // Given up while it is queued, or handled.
                let ask = server.ask(Slow { mark });
                drop(tokio::time::timeout(Duration::from_millis(3), ask).await);
            }
            4 => {
                let over = server.ask_with_timeout(Slow { mark }, Duration::from_millis(10)).await;
                // A process that is paused meanwhile may find the answer first.
                self.note(match over {
                    Err(error) if error.kind() == ErrorKind::Timeout => Ok(true),
                    over => over.map(|answer| answer == mark),
                });
            }
            5 => self.note(own.ask(Later { mark }).await.map(|answer| answer == mark)),
            _ => self.note(server.ask(Slow { mark }).await.map(|answer| answer == mark)),
        }
    }
}
