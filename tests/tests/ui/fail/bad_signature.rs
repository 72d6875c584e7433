//! A marked method that is not what its marker expects is told what that is.

use rpc_core::{EndpointContext, HandlerResult, RpcAddress, RpcMessage, endpoint};
use serde::{Deserialize, Serialize};

#[derive(Debug, Serialize, Deserialize, RpcMessage)]
pub struct Heartbeat;

#[derive(Debug, Serialize, Deserialize, RpcMessage)]
#[rpc(reply = u32)]
pub struct FreeCores;

pub struct Master;

#[endpoint]
impl Master {
    #[receive]
    async fn no_message(&mut self, _cx: &mut EndpointContext<Self>) -> HandlerResult<()> {
        Ok(())
    }

    #[receive]
    async fn no_self(_msg: Heartbeat) -> HandlerResult<()> {
        Ok(())
    }

    #[receive]
    async fn takes_itself(self, _msg: Heartbeat) -> HandlerResult<()> {
        Ok(())
    }

    #[receive]
    async fn by_reference(&mut self, _msg: &Heartbeat) -> HandlerResult<()> {
        Ok(())
    }

    #[receive]
    async fn no_result(&mut self, _msg: Heartbeat) {}

    #[receive_and_reply]
    async fn too_many(&mut self, _msg: FreeCores, _a: u8, _b: u8) -> HandlerResult<u32> {
        Ok(4)
    }

    #[on_stop]
    async fn not_a_message(&mut self, _peer: &RpcAddress) -> HandlerResult<()> {
        Ok(())
    }

    #[receive]
    #[on_start]
    async fn twice(&mut self, _msg: Heartbeat) -> HandlerResult<()> {
        Ok(())
    }

    #[on_error]
    const NOT_A_METHOD: u32 = 1;
}

pub struct Worker;

#[endpoint]
impl Worker {
    #[receive]
    async fn foreign_context(
        &mut self,
        _msg: Heartbeat,
        _cx: &mut EndpointContext<Master>,
    ) -> HandlerResult<()> {
        Ok(())
    }
}

pub struct Typo;

#[endpoint]
impl Typo {
    #[recieve]
    async fn heartbeat(&mut self, _msg: Heartbeat) -> HandlerResult<()> {
        Ok(())
    }
}

#[endpoint]
pub struct NotABlock;

fn main() {}
