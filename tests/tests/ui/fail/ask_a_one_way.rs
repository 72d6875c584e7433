//! A message without a reply cannot be asked.

use rpc_core::{HandlerResult, RpcEndpointRef, RpcMessage, endpoint};
use serde::{Deserialize, Serialize};

#[derive(Debug, Serialize, Deserialize, RpcMessage)]
pub struct Heartbeat;

pub struct Master;

#[endpoint]
impl Master {
    #[receive]
    async fn heartbeat(&mut self, _msg: Heartbeat) -> HandlerResult<()> {
        Ok(())
    }
}

async fn client(master: RpcEndpointRef<Master>) {
    let _ = master.ask(Heartbeat).await;
}

fn main() {}
