//! A protocol lists each of its messages once, and has at least one.

use rpc_core::{RpcMessage, protocol};
use serde::{Deserialize, Serialize};

#[derive(Debug, Serialize, Deserialize, RpcMessage)]
pub struct Heartbeat;

protocol! {
    pub Empty {}
    pub Doubled { Heartbeat, Heartbeat }
}

fn main() {}
