//! Fields that are not copied on their way out: what arrives is what was sent, whatever lies around
//! them, however they are cut into frames, and by every way that a message can go.
#![cfg(test)]

use bytes::Bytes;
use rpc_actix::{HandlerResult, RpcEndpointRef, RpcEnv, RpcEnvConfig, RpcMessage, endpoint};
use rpc_core::{ErrorKind, LocalWorld, RpcEnvFactory};
use serde::{Deserialize, Serialize};

const KIB: usize = 1024;

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Part {
    name: String,
    #[serde(with = "rpc_actix::bytes_in_place")]
    bytes: Bytes,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, RpcMessage)]
#[rpc(reply = Parts)]
struct Parts {
    parts: Vec<Part>,
    number: u64,
}

#[derive(Serialize, Deserialize, RpcMessage)]
struct Keep(Parts);

#[derive(Serialize, Deserialize, RpcMessage)]
#[rpc(reply = Option<Parts>)]
struct Kept;

#[derive(Default)]
struct Mirror(Option<Parts>);

#[endpoint]
impl Mirror {
    #[receive_and_reply]
    fn parts(&mut self, msg: Parts) -> HandlerResult<Parts> {
        Ok(msg)
    }

    #[receive]
    fn keep(&mut self, msg: Keep) -> HandlerResult<()> {
        self.0 = Some(msg.0);
        Ok(())
    }

    #[receive_and_reply]
    fn kept(&mut self, _: Kept) -> HandlerResult<Option<Parts>> {
        Ok(self.0.take())
    }
}

/// Fields of so many bytes, each part of one buffer.
fn parts(sizes: &[usize]) -> Parts {
    let whole: Bytes = (0..sizes.iter().sum()).map(|n: usize| (n / 7) as u8).collect();
    let mut rest = whole.clone();
    let part = |&size: &usize| Part { name: format!("{size} bytes"), bytes: rest.split_to(size) };
    Parts { parts: sizes.iter().map(part).collect(), number: whole.len() as u64 }
}

/// Around the sizes from which a part is shared, travels in frames, and is large.
fn all_sizes() -> Vec<Vec<usize>> {
    let edges = [16 * KIB, 64 * KIB, 128 * KIB, 256 * KIB].into_iter();
    let mut sizes: Vec<_> =
        edges.flat_map(|edge| (0..3).map(move |n| vec![edge - 1 + n])).collect();
    sizes.push(vec![0, 1, 100 * KIB, 10, 20 * KIB, 0, 3]);
    sizes.push([17 * KIB; 40].to_vec());
    sizes.push(vec![3 * KIB * KIB, 20 * KIB, 5 * KIB * KIB]);
    sizes
}

async fn check(mirror: &RpcEndpointRef<Mirror>) {
    for sizes in all_sizes() {
        let message = parts(&sizes);
        assert!(mirror.ask(message.clone()).await.unwrap() == message, "{sizes:?}");
        mirror.send_wait(Keep(message.clone())).await.unwrap();
        assert!(mirror.ask(Kept).await.unwrap().as_ref() == Some(&message), "{sizes:?}, one way");
    }
}

async fn envs(settings: &[(&str, &str)]) -> (RpcEnv, RpcEnv, RpcEndpointRef<Mirror>) {
    let set = |config: RpcEnvConfig| config.set_all(settings.iter().copied()).unwrap();
    let server = RpcEnvConfig::server("server", "127.0.0.1:0");
    let server = rpc_actix::create(set(server)).await.unwrap();
    server.setup_endpoint("mirror", Mirror::default()).await.unwrap();
    let client = rpc_actix::create(set(RpcEnvConfig::client("client"))).await.unwrap();
    let uri = format!("rpc://mirror@{}", server.address().unwrap());
    let mirror = client.endpoint_ref(&uri).await.unwrap();
    (server, client, mirror)
}

#[tokio::test]
async fn over_tcp() {
    let (_server, _client, mirror) = envs(&[]).await;
    check(&mirror).await;
}

#[tokio::test]
async fn between_envs_of_one_process() {
    let world = LocalWorld::new();
    let server =
        world.factory().create(RpcEnvConfig::server("server", "10.0.0.1:7077")).await.unwrap();
    server.setup_endpoint("mirror", Mirror::default()).await.unwrap();
    let client = world.factory().create(RpcEnvConfig::client("client")).await.unwrap();
    check(&client.endpoint_ref("rpc://mirror@10.0.0.1:7077").await.unwrap()).await;
}

#[tokio::test]
async fn what_is_shared_counts_against_the_size_of_a_message() {
    let (_server, _client, mirror) = envs(&[("rpc.message.maxSize", "1MiB")]).await;
    for sizes in [vec![KIB * KIB], vec![500 * KIB; 3]] {
        let error = mirror.ask(parts(&sizes)).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::TooLarge, "{sizes:?}");
        assert!(error.to_string().contains("rpc.message.maxSize"), "{error}");
    }
    let fits = parts(&[500 * KIB, 500 * KIB]);
    assert!(mirror.ask(fits.clone()).await.unwrap() == fits);
}

/// A sender may drop its message as soon as it is queued.
#[tokio::test]
async fn many_at_once_are_not_mixed_up() {
    let (_server, _client, mirror) = envs(&[]).await;
    let messages: Vec<_> = (0..32).map(|n| parts(&[20 * KIB + n, n, 300 * KIB + n])).collect();
    let asks: Vec<_> = messages.iter().cloned().map(|message| mirror.ask(message)).collect();
    for (ask, message) in asks.into_iter().zip(messages) {
        assert!(ask.await.unwrap() == message);
    }
}
