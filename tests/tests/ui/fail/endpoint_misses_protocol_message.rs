//! `#[endpoint(protocol = ..)]` names the message that has no handler.

use rpc_core::{HandlerResult, RpcMessage, endpoint, protocol};
use serde::{Deserialize, Serialize};

#[derive(Debug, Serialize, Deserialize, RpcMessage)]
pub struct Heartbeat;

#[derive(Debug, Serialize, Deserialize, RpcMessage)]
#[rpc(reply = u32)]
pub struct FreeCores;

protocol! {
    pub MasterApi { Heartbeat, FreeCores }
}

pub struct Master;

#[endpoint(protocol = MasterApi)]
impl Master {
    #[receive]
    async fn heartbeat(&mut self, _msg: Heartbeat) -> HandlerResult<()> {
        Ok(())
    }
}

pub struct Generic<T>(T);

#[endpoint(protocol = MasterApi)]
impl<T: 'static> Generic<T> {
    #[receive_and_reply]
    async fn free_cores(&mut self, _msg: FreeCores) -> HandlerResult<u32> {
        Ok(4)
    }
}

fn main() {}
