//! What `#[rpc(..)]` does not know it refuses, all at once.

use rpc_core::RpcMessage;
use serde::{Deserialize, Serialize};

#[derive(Debug, Serialize, Deserialize, RpcMessage)]
#[rpc(replay = Vec<u32>, compact, compact)]
pub struct Misspelled;

#[derive(Debug, Serialize, Deserialize, RpcMessage)]
#[rpc(name = "", lane = "control", reply)]
pub struct BadValues;

#[derive(Debug, Serialize, Deserialize, RpcMessage)]
#[rpc(abort)]
pub struct NothingToAbort;

#[derive(Debug, Serialize, Deserialize, RpcMessage)]
pub struct OnAField {
    #[rpc(compact)]
    cores: u32,
}

fn main() {}
