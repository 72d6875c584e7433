//! The code of the design's section 2, in one process.
#![cfg(test)]

use rpc_actix::{
    EndpointContext, HandlerResult, RpcCallContext, RpcEndpointRef, RpcEnvConfig, RpcMessage,
    endpoint,
};
use serde::{Deserialize, Serialize};

#[derive(Debug, Serialize, Deserialize, PartialEq)]
struct Registered {
    id: u64,
}

#[derive(Debug, Serialize, Deserialize, RpcMessage)]
#[rpc(reply = Registered)]
struct RegisterWorker {
    cores: u32,
    worker: RpcEndpointRef<Worker>,
}

#[derive(Debug, Serialize, Deserialize, RpcMessage)]
struct Heartbeat {
    worker: u64,
}

#[derive(Debug, Serialize, Deserialize, RpcMessage)]
#[rpc(reply = u64)]
struct Report;

#[derive(Debug, Serialize, Deserialize, RpcMessage)]
#[rpc(reply = String)]
struct Ping {
    text: String,
}

struct Master {
    beats: u64,
    workers: Vec<RpcEndpointRef<Worker>>,
}

#[endpoint]
impl Master {
    #[receive]
    async fn heartbeat(&mut self, msg: Heartbeat) -> HandlerResult<()> {
        self.beats += msg.worker;
        Ok(())
    }

    #[receive_and_reply]
    async fn register(
        &mut self,
        msg: RegisterWorker,
        cx: &mut EndpointContext<Self>,
    ) -> HandlerResult<Registered> {
        assert!(cx.sender().is_some());
        let pong = msg.worker.ask(Ping { text: "hello".into() }).await?;
        assert_eq!(pong, "hello, worker");
        self.workers.push(msg.worker);
        Ok(Registered { id: u64::from(msg.cores) })
    }

    #[receive_and_reply]
    async fn report(&mut self, _msg: Report, call: RpcCallContext<u64>) -> HandlerResult<()> {
        let beats = self.beats;
        std::thread::spawn(move || call.reply(beats));
        Ok(())
    }
}

struct Worker;

#[endpoint]
impl Worker {
    #[receive_and_reply]
    async fn ping(&mut self, msg: Ping) -> HandlerResult<String> {
        Ok(format!("{}, worker", msg.text))
    }
}

async fn scenario() -> anyhow::Result<()> {
    let env = rpc_actix::create(RpcEnvConfig::server("master", "127.0.0.1:0")).await?;
    let master = env.setup_endpoint("master", Master { beats: 0, workers: vec![] }).await?;
    let uri = master.endpoint_address().to_string();
    let client = rpc_actix::create(RpcEnvConfig::client("worker")).await?;
    let remote = client.endpoint_ref::<Master>(&uri).await?;
    let worker = client.setup_endpoint("worker", Worker).await?;
    for _ in 0..1000 {
        remote.send(Heartbeat { worker: 1 })?;
        master.send(Heartbeat { worker: 1 })?;
    }
    assert_eq!(
        remote.ask(RegisterWorker { cores: 7, worker: worker.clone() }).await?,
        Registered { id: 7 }
    );
    assert_eq!(remote.ask(Report).await?, 2000);
    assert_eq!(master.ask(Report).await?, 2000);
    let big = "x".repeat(3_000_000);
    assert_eq!(worker.ask(Ping { text: "a".into() }).await?, "a, worker");
    let remote_worker = env.endpoint_ref::<Master>("rpc://nobody@127.0.0.1:1").await;
    println!("{remote_worker:?}");
    let echo = client.endpoint_ref::<Worker>(&uri.replace("master", "nobody")).await;
    println!("{echo:?}");
    let _ = big;
    client.shutdown().await;
    env.shutdown().await;
    println!("{:?}", remote.ask(Report).await);
    Ok(())
}

#[tokio::test]
async fn in_tokio() -> anyhow::Result<()> {
    scenario().await
}
