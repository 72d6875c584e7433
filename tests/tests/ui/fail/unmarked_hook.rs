//! A method with the name of a hook needs its marker: without it, it would never be called.

use rpc_core::{EndpointContext, HandlerResult, RawMessage, RpcMessage, endpoint};
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

    pub async fn on_start(&mut self, _cx: &mut EndpointContext<Self>) -> HandlerResult<()> {
        Ok(())
    }

    pub async fn receive(&mut self, _msg: RawMessage) -> HandlerResult<()> {
        Ok(())
    }
}

fn main() {}
