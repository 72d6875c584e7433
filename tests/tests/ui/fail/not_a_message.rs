//! What is not a message cannot be sent, and what is not an endpoint cannot be registered.

use rpc_core::{HandlerResult, RpcEndpointRef, RpcEnv, RpcMessage, Untyped, endpoint};
use serde::{Deserialize, Serialize};

#[derive(Debug, Serialize, Deserialize)]
pub struct Forgotten;

#[derive(Debug, Serialize, Deserialize, RpcMessage)]
pub struct Heartbeat;

pub struct Plain;

pub struct Master {
    pub beats: std::rc::Rc<u32>,
}

#[endpoint]
impl Master {
    #[receive]
    async fn heartbeat(&mut self, _msg: Heartbeat) -> HandlerResult<()> {
        Ok(())
    }
}

fn program(env: RpcEnv, anyone: RpcEndpointRef<Untyped>) {
    let _ = anyone.send(Forgotten);
    let _ = anyone.ask(Forgotten);
    let _ = env.setup_endpoint("plain", Plain);
    // One that is not `Send` is built where it lives, with `setup_endpoint_with`.
    let _ = env.setup_endpoint("master", Master { beats: std::rc::Rc::new(0) });
}

fn main() {}
