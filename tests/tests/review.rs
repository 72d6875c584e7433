//! What a review of the first version found, where it shows from outside.
#![cfg(test)]

use rpc_actix::{
    EndpointContext, ErrorKind, HandlerResult, LocalWorld, RpcCallContext, RpcEndpointRef, RpcEnv,
    RpcEnvConfig, RpcEnvFactory, RpcError, RpcMessage, endpoint,
};
use serde::{Deserialize, Serialize};
use std::time::Duration;

#[derive(Debug, Serialize, Deserialize, RpcMessage)]
#[rpc(reply = u64)]
struct Ask {
    to: Option<RpcEndpointRef<Peer>>,
    how: How,
}

#[derive(Debug, Clone, Copy, Serialize, Deserialize, PartialEq)]
enum How {
    /// Answers.
    Now,
    /// Never ends.
    Never,
    /// Asks the other one, and waits for its answer.
    Forward(Then),
    /// Asks the other one, lets go of the answer, and ends.
    Detach(Then),
    /// Answers at once, and asks the other one after that.
    Early,
}

#[derive(Debug, Clone, Copy, Serialize, Deserialize, PartialEq)]
enum Then {
    Now,
    Never,
    /// Asks back.
    Back,
    /// Answers, and asks back after that.
    Early,
}

#[derive(Debug, Serialize, Deserialize, RpcMessage)]
#[rpc(reply = Vec<String>)]
struct Errors;

#[derive(Default)]
struct Peer {
    errors: Vec<String>,
}

#[endpoint]
impl Peer {
    #[receive_and_reply]
    async fn ask(
        &mut self,
        msg: Ask,
        call: RpcCallContext<u64>,
        cx: &mut EndpointContext<Self>,
    ) -> HandlerResult<()> {
        let me = Some(cx.self_ref());
        let next = |then| match then {
            Then::Now => Ask { to: None, how: How::Now },
            Then::Never => Ask { to: None, how: How::Never },
            Then::Back => Ask { to: me, how: How::Forward(Then::Now) },
            Then::Early => Ask { to: me, how: How::Early },
        };
        match (msg.how, msg.to) {
            (How::Never, _) => std::future::pending().await,
            (How::Forward(then), Some(to)) => match to.ask(next(then)).await {
                Ok(reply) => call.reply(reply),
                Err(error) => {
                    self.errors.push(format!("{:?}", error.kind()));
                    call.fail(error);
                }
            },
            (How::Detach(then), Some(to)) => {
                let reply = to.ask(next(then));
                std::thread::spawn(move || {
                    let _ = rpc_actix_block_on(reply);
                });
                // The other one runs before this handler ends.
                for _ in 0..20 {
                    Yield(false).await;
                }
                call.reply(1);
            }
            (How::Early, Some(to)) => {
                call.reply(2);
                if let Err(error) = to.ask(next(Then::Now)).await {
                    self.errors.push(format!("{:?}", error.kind()));
                }
            }
            _ => call.reply(0),
        }
        Ok(())
    }

    #[receive_and_reply]
    async fn errors(&mut self, _: Errors) -> HandlerResult<Vec<String>> {
        Ok(std::mem::take(&mut self.errors))
    }
}

/// Polls a future to its end on a thread of its own.
fn rpc_actix_block_on<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(future)
}

struct Yield(bool);

impl Future for Yield {
    type Output = ();

    fn poll(
        mut self: std::pin::Pin<&mut Self>,
        cx: &mut std::task::Context<'_>,
    ) -> std::task::Poll<()> {
        if std::mem::replace(&mut self.0, true) {
            return std::task::Poll::Ready(());
        }
        cx.waker().wake_by_ref();
        std::task::Poll::Pending
    }
}

fn local(world: &LocalWorld, name: &str, port: u16) -> RpcEnv {
    let config = RpcEnvConfig::server(name, format!("127.0.0.1:{port}"));
    world.block_on(world.factory().create(config)).unwrap()
}

#[test]
fn refs_belong_to_the_env_that_decodes_them() {
    for _ in 0..2 {
        // Each world counts its envs from one.
        let world = LocalWorld::new();
        let (one, two) = (local(&world, "one", 7000), local(&world, "two", 7001));
        let asked = world.block_on(one.setup_endpoint("a", Peer::default())).unwrap();
        let other = world.block_on(two.setup_endpoint("b", Peer::default())).unwrap();
        let uri = asked.endpoint_address().to_string();
        let remote = world.block_on(two.endpoint_ref::<Peer>(&uri)).unwrap();
        let message = Ask { to: Some(other), how: How::Forward(Then::Now) };
        assert_eq!(world.block_on(remote.ask(message)).unwrap(), 0);
    }
}

#[test]
fn what_a_cancelled_handler_waits_for_ends_with_it() {
    let world = LocalWorld::new();
    let env = local(&world, "env", 7000);
    let a = world.block_on(env.setup_endpoint("a", Peer::default())).unwrap();
    let b = world.block_on(env.setup_endpoint("b", Peer::default())).unwrap();
    let message = Ask { to: Some(b), how: How::Forward(Then::Never) };
    let asked = a.ask_with_timeout(message, Duration::from_secs(60));
    let errors = a.ask_with_timeout(Errors, Duration::from_secs(60));
    world.run();
    drop(asked);
    let before = world.now();
    assert_eq!(world.block_on(errors).unwrap(), ["Cancelled"]);
    assert_eq!(world.now(), before, "the handler was told only when its own time was over");
}

#[test]
fn a_cycle_is_seen_and_nothing_else_is_taken_for_one() {
    let world = LocalWorld::new();
    let env = local(&world, "env", 7000);
    let a = world.block_on(env.setup_endpoint("a", Peer::default())).unwrap();
    let b = world.block_on(env.setup_endpoint("b", Peer::default())).unwrap();
    let ask = |to: &RpcEndpointRef<Peer>, how| a.ask(Ask { to: Some(to.clone()), how });
    let error = world.block_on(ask(&b, How::Forward(Then::Back))).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::HandlerFailed, "{error}");
    assert!(error.to_string().contains("a -> b -> a"), "{error}");
    for peer in [&a, &b] {
        world.block_on(peer.ask(Errors)).unwrap();
    }
    // The handler of a does not wait for b, which asks a in the meantime.
    assert_eq!(world.block_on(ask(&b, How::Detach(Then::Back))).unwrap(), 1);
    assert_eq!(world.block_on(b.ask(Errors)).unwrap(), [] as [&str; 0]);
    // a has its answer from b, which asks a after that.
    assert_eq!(world.block_on(ask(&b, How::Forward(Then::Early))).unwrap(), 2);
    assert_eq!(world.block_on(b.ask(Errors)).unwrap(), [] as [&str; 0]);
}

#[test]
fn waiting_for_a_world_inside_of_it_is_an_error() {
    struct Waits(LocalWorld);
    #[endpoint]
    impl Waits {
        #[receive_and_reply]
        async fn ask(&mut self, _: Errors) -> HandlerResult<Vec<String>> {
            Ok(vec![self.0.block_on(async { "deadlock".to_owned() })])
        }
    }
    let world = LocalWorld::new();
    let env = local(&world, "env", 7000);
    let waits = world.block_on(env.setup_endpoint("waits", Waits(world.clone()))).unwrap();
    let error = world.block_on(waits.ask(Errors)).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::HandlerPanicked, "{error}");
}

#[test]
fn an_env_with_two_connections_to_another_lets_it_shut_down() -> Result<(), RpcError> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let server = rpc_actix::create(RpcEnvConfig::server("server", "127.0.0.1:0")).await?;
        server.setup_endpoint("a", Peer::default()).await?;
        let port = server.address().unwrap().port();
        let client = rpc_actix::create(RpcEnvConfig::client("client")).await?;
        let first = client.endpoint_ref::<Peer>(&format!("rpc://a@127.0.0.1:{port}")).await?;
        let second = client.endpoint_ref::<Peer>(&format!("rpc://a@localhost:{port}")).await?;
        assert_eq!(first.ask(Ask { to: None, how: How::Now }).await?, 0);
        assert_eq!(second.ask(Ask { to: None, how: How::Now }).await?, 0);
        let over = tokio::time::timeout(Duration::from_secs(20), server.shutdown()).await;
        assert!(over.is_ok(), "the first connection was forgotten");
        client.shutdown().await;
        Ok(())
    })
}

#[test]
fn an_error_whose_text_panics_costs_its_call_and_not_the_endpoint() {
    #[derive(Debug)]
    struct Unspeakable;
    impl std::fmt::Display for Unspeakable {
        fn fmt(&self, _: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            panic!("speechless")
        }
    }
    impl std::error::Error for Unspeakable {}
    struct Fails;
    #[endpoint]
    impl Fails {
        #[receive_and_reply]
        async fn ask(&mut self, _: Errors) -> HandlerResult<Vec<String>> {
            Err(Unspeakable)?
        }
    }
    let world = LocalWorld::new();
    let env = local(&world, "env", 7000);
    let fails = world.block_on(env.setup_endpoint("fails", Fails)).unwrap();
    for _ in 0..2 {
        let error = world.block_on(fails.ask(Errors)).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::HandlerPanicked, "{error}");
    }
}

#[test]
fn a_handler_that_never_ends_does_not_keep_its_env_from_ending() {
    let world = LocalWorld::new();
    let env = local(&world, "env", 7000);
    let a = world.block_on(env.setup_endpoint("a", Peer::default())).unwrap();
    let message = Ask { to: None, how: How::Never };
    let asked = a.ask_with_timeout(message, Duration::from_secs(3600));
    world.run();
    let drain = world.now() + env.config().drain_timeout() + Duration::from_secs(5);
    world.block_on(env.shutdown());
    assert_eq!(world.now(), drain);
    let error = world.block_on(asked).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::EndpointStopped);
    assert_eq!(error.outcome(), rpc_actix::Outcome::Unknown);
    let text = "the handler still ran after 10s. This timeout is controlled by rpc.shutdown.drainTimeout (5s and 5s more)";
    assert!(error.text().ends_with(text), "{error}");
}

/// A handler of a message marked `abort`, in both forms: its future is dropped in the middle when
/// its caller gives up, but not because the caller has its answer.
mod abort {
    use rpc_actix::{
        EndpointContext, HandlerResult, RpcCallContext, RpcEnvConfig, RpcMessage, endpoint,
    };
    use serde::{Deserialize, Serialize};
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use tokio::sync::Notify;

    #[derive(Debug, Serialize, Deserialize, RpcMessage)]
    #[rpc(reply = (), abort)]
    struct Now;

    #[derive(Debug, Serialize, Deserialize, RpcMessage)]
    #[rpc(reply = (), abort)]
    struct Later {
        answer_first: bool,
    }

    #[derive(Debug, Serialize, Deserialize, RpcMessage)]
    #[rpc(reply = usize)]
    struct Finished;

    #[derive(Clone, Default)]
    struct Worker {
        begun: Arc<Notify>,
        dropped: Arc<Notify>,
        go_on: Arc<Notify>,
        finished: Arc<AtomicUsize>,
    }

    /// Tells when a handler's future is dropped, at its end or in the middle.
    struct Told(Arc<Notify>);

    impl Drop for Told {
        fn drop(&mut self) {
            self.0.notify_one();
        }
    }

    impl Worker {
        async fn work(&self) {
            let _told = Told(self.dropped.clone());
            self.begun.notify_one();
            self.go_on.notified().await;
            self.finished.fetch_add(1, Ordering::Relaxed);
        }
    }

    #[endpoint]
    impl Worker {
        #[receive_and_reply]
        async fn now(&mut self, _msg: Now, _cx: &mut EndpointContext<Self>) -> HandlerResult<()> {
            self.work().await;
            Ok(())
        }

        #[receive_and_reply]
        async fn later(&mut self, msg: Later, call: RpcCallContext<()>) -> HandlerResult<()> {
            if msg.answer_first {
                call.reply(());
                self.work().await;
            } else {
                self.work().await;
                call.reply(());
            }
            Ok(())
        }

        #[receive_and_reply]
        async fn finished(&mut self, _msg: Finished) -> HandlerResult<usize> {
            Ok(self.finished.load(Ordering::Relaxed))
        }
    }

    #[tokio::test]
    async fn only_a_caller_who_gives_up_drops_a_handler_in_the_middle() {
        let server = rpc_actix::create(RpcEnvConfig::server("s", "127.0.0.1:0")).await.unwrap();
        let worker = Worker::default();
        let near = server.setup_endpoint("worker", worker.clone()).await.unwrap();
        let client = rpc_actix::create(RpcEnvConfig::client("c")).await.unwrap();
        let uri = near.endpoint_address().to_string();
        let far = client.endpoint_ref::<Worker>(&uri).await.unwrap();
        for (round, to) in [&far, &near].into_iter().enumerate() {
            let ask = to.ask(Now);
            worker.begun.notified().await;
            drop(ask);
            worker.dropped.notified().await;
            let ask = to.ask(Later { answer_first: false });
            worker.begun.notified().await;
            drop(ask);
            worker.dropped.notified().await;
            assert_eq!(to.ask(Finished).await.unwrap(), round, "both were dropped in the middle");
            to.ask(Later { answer_first: true }).await.unwrap();
            worker.begun.notified().await;
            worker.go_on.notify_one();
            worker.dropped.notified().await;
            assert_eq!(to.ask(Finished).await.unwrap(), round + 1, "this one came to its end");
        }
    }
}
