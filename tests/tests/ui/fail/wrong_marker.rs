//! `#[receive]` is for one-way messages, `#[receive_and_reply]` for asks.

use rpc_core::{HandlerResult, RpcMessage, endpoint};
use serde::{Deserialize, Serialize};

#[derive(Debug, Serialize, Deserialize, RpcMessage)]
pub struct Heartbeat;

#[derive(Debug, Serialize, Deserialize, RpcMessage)]
#[rpc(reply = u32)]
pub struct FreeCores;

pub struct Asked;

#[endpoint]
impl Asked {
    #[receive_and_reply]
    async fn heartbeat(&mut self, _msg: Heartbeat) -> HandlerResult<()> {
        Ok(())
    }
}

pub struct Told;

#[endpoint]
impl Told {
    #[receive]
    async fn free_cores(&mut self, _msg: FreeCores) -> HandlerResult<()> {
        Ok(())
    }
}

fn main() {}
