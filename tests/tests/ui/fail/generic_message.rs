//! A message has one wire name, so it has one type.

use rpc_core::RpcMessage;
use serde::{Deserialize, Serialize};

#[derive(Debug, Serialize, Deserialize, RpcMessage)]
pub struct Put<T>(T);

#[derive(Debug, Serialize, RpcMessage)]
pub struct Get<'a> {
    key: &'a str,
}

fn main() {}
