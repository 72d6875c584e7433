//! Messages to oneself, later.

use rpc_actix::{OneWay, RpcEndpointRef, SentTo};
use std::time::Duration;

/// Sends `msg` once `delay` is over. Must be called in a handler, whose runtime has the timer; if
/// the endpoint is gone by then, nobody wants the message.
pub(crate) fn after<P: 'static, M: OneWay + SentTo<P>>(
    delay: Duration,
    to: &RpcEndpointRef<P>,
    msg: M,
) {
    let to = to.clone();
    tokio::spawn(async move {
        tokio::time::sleep(delay).await;
        let _ = to.send(msg);
    });
}
