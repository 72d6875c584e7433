//! A ref takes only what its protocol or its endpoint lists.

use rpc_core::{HandlerResult, RpcEndpointRef, RpcMessage, endpoint, protocol};
use serde::{Deserialize, Serialize};

#[derive(Debug, Serialize, Deserialize, RpcMessage)]
pub struct Heartbeat;

#[derive(Debug, Serialize, Deserialize, RpcMessage)]
#[rpc(reply = u32)]
pub struct FreeCores;

protocol! {
    pub MasterApi { Heartbeat }
}

pub struct Worker;

#[endpoint]
impl Worker {
    #[receive]
    async fn heartbeat(&mut self, _msg: Heartbeat) -> HandlerResult<()> {
        Ok(())
    }
}

fn client(master: RpcEndpointRef<MasterApi>, worker: RpcEndpointRef<Worker>) {
    let _ = master.send(Heartbeat);
    let _ = master.ask(FreeCores);
    let _ = worker.ask(FreeCores);
}

fn main() {}
