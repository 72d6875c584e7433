//! The endpoints that checks talk to, in this process or in another.

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use rpc_actix::{HandlerResult, RpcEndpointRef, RpcMessage, endpoint};
use serde::{Deserialize, Serialize};
use std::time::Duration;

/// A numbered message of a numbered sender.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Mark {
    pub sender: u32,
    pub number: u32,
}

#[derive(Debug, Serialize, Deserialize, RpcMessage)]
pub(crate) struct Tell {
    pub mark: Mark,
}

#[derive(Debug, Serialize, Deserialize, RpcMessage)]
#[rpc(reply = Mark)]
pub(crate) struct Echo {
    pub mark: Mark,
}

/// Part of the log, from an index on.
#[derive(Debug, Serialize, Deserialize, RpcMessage)]
#[rpc(reply = Vec<(bool, Mark)>)]
pub(crate) struct ReadLog {
    pub from: usize,
    pub count: usize,
}

/// Writes down everything it gets, in the order in which it gets it.
#[derive(Debug, Default)]
pub(crate) struct Recorder {
    log: Vec<(bool, Mark)>,
}

#[endpoint]
impl Recorder {
    #[receive]
    async fn tell(&mut self, msg: Tell) -> HandlerResult<()> {
        self.log.push((false, msg.mark));
        Ok(())
    }

    #[receive_and_reply]
    async fn echo(&mut self, msg: Echo) -> HandlerResult<Mark> {
        self.log.push((true, msg.mark));
        Ok(msg.mark)
    }

    #[receive_and_reply]
    async fn read_log(&mut self, msg: ReadLog) -> HandlerResult<Vec<(bool, Mark)>> {
        Ok(self.log.iter().skip(msg.from).take(msg.count).copied().collect())
    }
}

/// The message of the peers' benchmark: a number, a name of 16 bytes, a payload of 64.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, RpcMessage)]
#[rpc(reply = Msg)]
pub(crate) struct Msg {
    pub id: u64,
    pub name: String,
    pub payload: bytes::Bytes,
}

impl Msg {
    pub(crate) fn new(id: u64) -> Self {
        let payload: Vec<u8> = (0..64).collect();
        Self::with(id, payload.into())
    }

    pub(crate) fn with(id: u64, payload: bytes::Bytes) -> Self {
        Self { id, name: "sixteen-byte-nam".to_owned(), payload }
    }
}

/// The same with structs as arrays.
#[derive(Debug, Serialize, Deserialize, RpcMessage)]
#[rpc(reply = Msg, compact)]
pub(crate) struct CompactMsg(pub Msg);

/// Asks how long its payload is.
#[derive(Debug, Serialize, Deserialize, RpcMessage)]
#[rpc(reply = usize)]
pub(crate) struct Measure(pub Msg);

/// The same where the payload may be shared.
#[derive(Debug, Serialize, Deserialize, RpcMessage)]
#[rpc(reply = usize)]
pub(crate) struct MeasureInPlace {
    #[serde(with = "rpc_actix::bytes_in_place")]
    pub payload: bytes::Bytes,
}

#[derive(Debug, Serialize, Deserialize, RpcMessage)]
pub(crate) struct Note {
    pub id: u64,
    pub name: String,
    pub payload: bytes::Bytes,
}

#[derive(Debug, Serialize, Deserialize, RpcMessage)]
#[rpc(reply = u64)]
pub(crate) struct Notes;

/// Answers with what it got.
#[derive(Debug, Default)]
pub(crate) struct Mirror {
    notes: u64,
}

#[endpoint]
impl Mirror {
    #[receive_and_reply]
    async fn mirror(&mut self, msg: Msg) -> HandlerResult<Msg> {
        Ok(msg)
    }

    #[receive_and_reply]
    async fn mirror_compact(&mut self, msg: CompactMsg) -> HandlerResult<Msg> {
        Ok(msg.0)
    }

    #[receive_and_reply]
    async fn measure(&mut self, msg: Measure) -> HandlerResult<usize> {
        Ok(msg.0.payload.len())
    }

    #[receive_and_reply]
    async fn measure_in_place(&mut self, msg: MeasureInPlace) -> HandlerResult<usize> {
        Ok(msg.payload.len())
    }

    #[receive]
    async fn note(&mut self, _msg: Note) -> HandlerResult<()> {
        self.notes += 1;
        Ok(())
    }

    #[receive_and_reply]
    async fn notes(&mut self, _msg: Notes) -> HandlerResult<u64> {
        Ok(self.notes)
    }
}

/// Asks a mirror so many times, so many times at once.
#[derive(Debug, Serialize, Deserialize, RpcMessage)]
#[rpc(reply = u64)]
pub(crate) struct AskMirror {
    pub mirror: RpcEndpointRef<Mirror>,
    pub messages: u64,
    pub at_once: usize,
}

/// Asks in its handlers. It answers how many replies it got.
#[derive(Debug, Default)]
pub(crate) struct Asker;

#[endpoint]
impl Asker {
    #[receive_and_reply]
    async fn ask_mirror(&mut self, msg: AskMirror) -> HandlerResult<u64> {
        let AskMirror { mirror, messages, at_once } = msg;
        if at_once == 1 {
            for id in 0..messages {
                mirror.ask(Msg::new(id)).await?;
            }
            return Ok(messages);
        }
        let (mut replies, mut asks) = (0, FuturesUnordered::new());
        for id in 0..messages {
            asks.push(mirror.ask(Msg::new(id)));
            if asks.len() == at_once {
                replies += u64::from(asks.next().await.transpose()?.is_some());
            }
        }
        while asks.next().await.transpose()?.is_some() {
            replies += 1;
        }
        Ok(replies)
    }
}

#[derive(Debug, Serialize, Deserialize, RpcMessage)]
pub(crate) struct Load {
    pub payload: bytes::Bytes,
}

#[derive(Debug, Serialize, Deserialize, RpcMessage)]
#[rpc(reply = u64)]
pub(crate) struct Handled;

/// Takes 10 ms for every message.
#[derive(Debug, Default)]
pub(crate) struct Slow {
    handled: u64,
}

/// What a message costs the slow endpoint.
pub(crate) const SLOWNESS: Duration = Duration::from_millis(10);

#[endpoint]
impl Slow {
    #[receive]
    async fn load(&mut self, _msg: Load) -> HandlerResult<()> {
        tokio::time::sleep(SLOWNESS).await;
        self.handled += 1;
        Ok(())
    }

    #[receive_and_reply]
    async fn handled(&mut self, _msg: Handled) -> HandlerResult<u64> {
        Ok(self.handled)
    }
}
