//! A handler answers with the reply type of its message.

use rpc_core::{HandlerResult, RpcCallContext, RpcMessage, endpoint};
use serde::{Deserialize, Serialize};

#[derive(Debug, Serialize, Deserialize, RpcMessage)]
#[rpc(reply = u32)]
pub struct FreeCores;

#[derive(Debug, Serialize, Deserialize, RpcMessage)]
#[rpc(reply = Vec<u32>)]
pub struct Report;

pub struct Master;

#[endpoint]
impl Master {
    #[receive_and_reply]
    async fn free_cores(&mut self, _msg: FreeCores) -> HandlerResult<String> {
        Ok("four".to_owned())
    }

    #[receive_and_reply]
    async fn report(&mut self, _msg: Report, _call: RpcCallContext<u32>) -> HandlerResult<()> {
        Ok(())
    }
}

fn main() {}
