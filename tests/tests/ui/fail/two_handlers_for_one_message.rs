//! One handler for a message, one method for a hook.

use rpc_core::{HandlerResult, RpcMessage, endpoint};
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

    #[receive]
    async fn another(&mut self, _msg: Heartbeat) -> HandlerResult<()> {
        Ok(())
    }

    #[on_start]
    async fn started(&mut self) -> HandlerResult<()> {
        Ok(())
    }

    #[on_start]
    async fn again(&mut self) -> HandlerResult<()> {
        Ok(())
    }
}

fn main() {}
