//! Endpoints that are called and forgotten, over real TCP: nothing is left of them on either side.
#![cfg(test)]

use rpc_actix::{
    EndpointContext, ErrorKind, HandlerResult, RpcCallContext, RpcEndpointRef, RpcEnv,
    RpcEnvConfig, RpcMessage, endpoint,
};
use serde::{Deserialize, Serialize};
use std::sync::Arc;
use tokio::sync::Notify;

#[derive(Debug, Serialize, Deserialize, RpcMessage)]
#[rpc(reply = u64)]
struct Count;

#[derive(Debug, Serialize, Deserialize, RpcMessage)]
struct Add {
    number: u64,
}

/// Answered when the test says so.
#[derive(Debug, Serialize, Deserialize, RpcMessage)]
#[rpc(reply = ())]
struct Later;

/// Holds the endpoint until its caller gives up.
#[derive(Debug, Serialize, Deserialize, RpcMessage)]
#[rpc(reply = ())]
struct Block;

#[derive(Default)]
struct Counter {
    sum: u64,
    later: Option<RpcCallContext<()>>,
    asked: Arc<Notify>,
}

#[endpoint]
impl Counter {
    #[receive]
    async fn add(&mut self, msg: Add) -> HandlerResult<()> {
        self.sum += msg.number;
        if let Some(call) = self.later.take() {
            call.reply(());
        }
        Ok(())
    }

    #[receive_and_reply]
    async fn count(&mut self, _msg: Count) -> HandlerResult<u64> {
        Ok(self.sum)
    }

    #[receive_and_reply]
    async fn block(&mut self, _msg: Block, cx: &mut EndpointContext<Self>) -> HandlerResult<()> {
        self.asked.notify_one();
        cx.cancelled().await;
        Ok(())
    }

    #[receive_and_reply]
    async fn later(
        &mut self,
        _msg: Later,
        call: RpcCallContext<()>,
        _cx: &mut EndpointContext<Self>,
    ) -> HandlerResult<()> {
        self.later = Some(call);
        self.asked.notify_one();
        Ok(())
    }
}

async fn envs() -> (RpcEnv, RpcEnv) {
    let server = rpc_actix::create(RpcEnvConfig::server("server", "127.0.0.1:0")).await.unwrap();
    let client = rpc_actix::create(RpcEnvConfig::client("client")).await.unwrap();
    (server, client)
}

async fn find(env: &RpcEnv, at: &RpcEnv, name: &str) -> RpcEndpointRef<Counter> {
    env.endpoint_ref(&format!("rpc://{name}@{}", at.address().unwrap())).await.unwrap()
}

#[tokio::test]
async fn many_endpoints_one_after_the_other_over_one_connection() {
    let (server, client) = envs().await;
    for round in 0..3_000_u64 {
        // Every hundredth time it is another endpoint.
        let name = format!("e{}", round / 100);
        if round % 100 == 0 {
            server.setup_endpoint(name.as_str(), Counter::default()).await.unwrap();
        }
        let counter = find(&client, &server, &name).await;
        counter.send(Add { number: 1 }).unwrap();
        if round % 100 == 99 {
            assert_eq!(counter.ask(Count).await.unwrap(), 100, "{name}");
            server.stop(&server.local_ref::<Counter>(&name).unwrap()).unwrap();
        }
    }
}

/// More than there is room for at once.
#[tokio::test]
async fn refs_that_are_dropped_take_no_room() {
    #[derive(Serialize)]
    struct Pinned<'a> {
        at: &'a str,
        pin: (u64, u64),
    }
    let (server, client) = envs().await;
    let at = format!("rpc://c@{}", server.address().unwrap());
    for life in 0..70_000 {
        let bytes = client.encode(&Pinned { at: &at, pin: (1, life) }).unwrap();
        let _: RpcEndpointRef<Counter> = client.decode(&bytes).unwrap();
    }
}

#[tokio::test]
async fn a_window_goes_back_to_the_inbox_with_the_last_ref() {
    let (server, client) = envs().await;
    let other = rpc_actix::create(RpcEnvConfig::client("other")).await.unwrap();
    let asked = Arc::<Notify>::default();
    let counter = Counter { asked: asked.clone(), ..Counter::default() };
    let own = server.setup_endpoint("c", counter).await.unwrap();
    // Each takes half of what is left of 2048 places.
    for _ in 0..20 {
        find(&client, &server, "c").await.send(Add { number: 0 }).unwrap();
        find(&other, &server, "c").await.ask(Count).await.unwrap();
    }
    // Whoever still owes an answer does not keep the window.
    let remote = find(&client, &server, "c").await;
    let later = remote.ask(Later);
    asked.notified().await;
    drop(remote);
    // The release has arrived when this is answered.
    own.ask(Count).await.unwrap();
    find(&client, &server, "c").await.ask(Count).await.unwrap();
    own.send(Add { number: 0 }).unwrap();
    later.await.unwrap();
    // If nothing had come back, 2048 places would be left for local messages.
    let blocked = own.ask(Block);
    asked.notified().await;
    for _ in 0..2500 {
        own.send(Add { number: 0 }).unwrap();
    }
    drop(blocked);
}

#[tokio::test]
async fn a_ref_that_is_made_again_finds_the_endpoint_again() {
    let (server, client) = envs().await;
    let first = server.setup_endpoint("c", Counter::default()).await.unwrap();
    find(&client, &server, "c").await.send(Add { number: 7 }).unwrap();
    // Behind it, though by another resolution.
    assert_eq!(find(&client, &server, "c").await.ask(Count).await.unwrap(), 7);
    server.stop(&first).unwrap();
    server.stopped(&first).await.unwrap();
    let gone = client.endpoint_ref::<Counter>(&format!("{first}")).await.unwrap_err();
    assert_eq!(gone.kind(), ErrorKind::EndpointNotFound);
    server.setup_endpoint("c", Counter::default()).await.unwrap();
    assert_eq!(find(&client, &server, "c").await.ask(Count).await.unwrap(), 0);
}
