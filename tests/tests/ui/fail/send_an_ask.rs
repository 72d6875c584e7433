//! A message with a reply cannot be sent without waiting for it.

use rpc_core::{HandlerResult, RpcEndpointRef, RpcMessage, endpoint};
use serde::{Deserialize, Serialize};

#[derive(Debug, Serialize, Deserialize, RpcMessage)]
#[rpc(reply = u32)]
pub struct FreeCores;

pub struct Master;

#[endpoint]
impl Master {
    #[receive_and_reply]
    async fn free_cores(&mut self, _msg: FreeCores) -> HandlerResult<u32> {
        Ok(4)
    }
}

fn client(master: RpcEndpointRef<Master>) {
    let _ = master.send(FreeCores);
}

fn main() {}
