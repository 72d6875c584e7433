//! Blocks: kept where they were made, and fetched by those who need them.

use crate::protocol::{BlockId, FetchBlock, ShuffleApi};
use bytes::{Bytes, BytesMut};
use rpc_actix::{ErrorKind, HandlerResult, RpcEndpointRef, RpcError, endpoint};
use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

/// How much of a block goes into one reply: far below `rpc.message.maxSize`, and enough that the
/// way there and back does not count.
const CHUNK: usize = 1024 * 1024;

/// The blocks of one executor, in memory.
#[derive(Clone, Debug, Default)]
pub(crate) struct BlockStore(Arc<Mutex<HashMap<BlockId, Bytes>>>);

impl BlockStore {
    pub(crate) fn put(&self, id: BlockId, block: Bytes) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(id, block);
    }

    fn find(&self, id: BlockId) -> Option<Bytes> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).get(&id).cloned()
    }
}

/// Gives blocks to other executors, and to the driver.
#[derive(Debug)]
pub(crate) struct Shuffle {
    store: BlockStore,
}

#[endpoint(protocol = ShuffleApi)]
impl Shuffle {
    pub(crate) fn new(store: BlockStore) -> Self {
        Self { store }
    }

    #[receive_and_reply]
    fn fetch(&self, msg: FetchBlock) -> HandlerResult<Bytes> {
        let FetchBlock { block: id, offset } = msg;
        let found = self.store.find(id);
        let block = found.ok_or_else(|| anyhow::anyhow!("there is no block {id:?} here"))?;
        let start = usize::try_from(offset)?.min(block.len());
        let end = start.saturating_add(CHUNK).min(block.len());
        Ok(block.slice(start..end))
    }
}

/// Fetches a whole block. From the executor's own store it comes by the same way, without
/// being copied: a local ref is just a ref.
pub(crate) async fn fetch(
    shuffle: &RpcEndpointRef<ShuffleApi>,
    block: BlockId,
    size: u64,
) -> Result<Bytes, RpcError> {
    let mut all = BytesMut::new();
    loop {
        let offset = u64::try_from(all.len()).unwrap_or(u64::MAX);
        let chunk = shuffle.ask(FetchBlock { block, offset }).await?;
        let complete = offset.saturating_add(u64::try_from(chunk.len()).unwrap_or(u64::MAX));
        if offset == 0 && complete == size {
            return Ok(chunk);
        }
        if chunk.is_empty() || complete > size {
            let text = format!("{} has {complete} bytes of a block of {}", shuffle, size);
            return Err(RpcError::new(ErrorKind::Internal, text));
        }
        all.extend_from_slice(&chunk);
        if complete == size {
            return Ok(all.freeze());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::TaskId;
    use rpc_actix::RpcEnvConfig;

    #[tokio::test]
    async fn blocks_of_any_size_arrive_whole() -> anyhow::Result<()> {
        let env = rpc_actix::create(RpcEnvConfig::server("blocks", "127.0.0.1:0")).await?;
        let store = BlockStore::default();
        let local = env.setup_endpoint("Shuffle", Shuffle::new(store.clone())).await?;
        let far = rpc_actix::create(RpcEnvConfig::client("far")).await?;
        let remote = far.endpoint_ref::<ShuffleApi>(&local.to_string()).await?;
        for (partition, size) in (0..).zip([0, 1, CHUNK, CHUNK + 1, 5 * CHUNK / 2]) {
            let block = BlockId { task: TaskId::Map(1), attempt: 0, partition };
            let bytes: Bytes = (0..size).map(|i| (i % 251) as u8).collect::<Vec<_>>().into();
            store.put(block, bytes.clone());
            for shuffle in [local.clone().into_protocol(), remote.clone()] {
                let size = size as u64;
                assert_eq!(fetch(&shuffle, block, size).await?, bytes);
                assert!(fetch(&shuffle, block, size + 1).await.is_err(), "it is too short");
            }
        }
        far.shutdown().await;
        env.shutdown().await;
        Ok(())
    }
}
