//! Messages that an endpoint sends to itself later, and waiting on the env's clock.
#![cfg(test)]

use rpc_actix::{
    EndpointContext, HandlerResult, LocalWorld, RpcEndpointRef, RpcEnv, RpcEnvConfig,
    RpcEnvFactory, RpcMessage, ScheduledSend, endpoint,
};
use rpc_tests::harness::{Gate, Log};
use serde::{Deserialize, Serialize};
use std::time::Duration;

#[derive(Clone, Debug, Serialize, Deserialize, RpcMessage)]
struct Tick(u64);

#[derive(Clone, Debug, Serialize, Deserialize, RpcMessage)]
#[rpc(reply = ())]
struct After(u64, u64);

#[derive(Clone, Debug, Serialize, Deserialize, RpcMessage)]
#[rpc(reply = ())]
struct Every(u64);

#[derive(Clone, Debug, Serialize, Deserialize, RpcMessage)]
#[rpc(reply = ())]
struct Cancel;

/// Holds the endpoint for that long.
#[derive(Clone, Debug, Serialize, Deserialize, RpcMessage)]
#[rpc(reply = ())]
struct Hold(u64);

#[derive(Default)]
struct Clock {
    log: Log<u64>,
    scheduled: Vec<ScheduledSend>,
    ended: Gate,
}

#[endpoint]
impl Clock {
    #[receive]
    fn tick(&mut self, msg: Tick) -> HandlerResult<()> {
        self.log.push(msg.0);
        Ok(())
    }

    #[receive_and_reply]
    fn after(&mut self, msg: After, cx: &mut EndpointContext<Self>) -> HandlerResult<()> {
        self.scheduled.push(cx.send_after(millis(msg.0), Tick(msg.1)));
        Ok(())
    }

    #[receive_and_reply]
    fn every(&mut self, msg: Every, cx: &mut EndpointContext<Self>) -> HandlerResult<()> {
        self.scheduled.push(cx.send_every(millis(msg.0), Tick(msg.0)));
        Ok(())
    }

    #[receive_and_reply]
    fn cancel(&mut self, _msg: Cancel) -> HandlerResult<()> {
        self.scheduled.drain(..).for_each(|scheduled| scheduled.cancel());
        Ok(())
    }

    #[receive_and_reply]
    async fn hold(&mut self, msg: Hold, cx: &mut EndpointContext<Self>) -> HandlerResult<()> {
        cx.sleep(millis(msg.0)).await;
        Ok(())
    }

    #[on_stop]
    fn stopping(&mut self) -> HandlerResult<()> {
        self.ended.open();
        Ok(())
    }
}

fn millis(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

/// Runs a test in a world of its own, where time is exact.
fn in_a_world<F: Future<Output = ()>>(
    settings: &[(&str, &str)],
    test: impl FnOnce(LocalWorld, RpcEnv, RpcEndpointRef<Clock>, Log<u64>) -> F,
) {
    let world = LocalWorld::new();
    world.clone().block_on(async {
        let config = RpcEnvConfig::client("env").set_all(settings.iter().copied()).unwrap();
        let env = world.factory().create(config).await.unwrap();
        let log = Log::default();
        let clock = Clock { log: log.clone(), ..Clock::default() };
        let clock = env.setup_endpoint("clock", clock).await.unwrap();
        // Kept, because an env ends with its last handle.
        test(world, env.clone(), clock, log).await;
    });
}

#[test]
fn messages_come_when_their_time_has_come_in_its_order() {
    in_a_world(&[], |world, env, clock, log| async move {
        for (delay, number) in [(30, 3), (10, 1), (20, 2)] {
            clock.ask(After(delay, number)).await.unwrap();
        }
        env.sleep(millis(29)).await;
        assert_eq!((log.all(), world.now()), (vec![1, 2], millis(29)));
        assert_eq!(log.reaches(3).await, [1, 2, 3]);
        assert_eq!(world.now(), millis(30));
    });
}

#[test]
fn a_period_is_kept_until_it_is_cancelled() {
    in_a_world(&[], |world, env, clock, log| async move {
        clock.ask(Every(10)).await.unwrap();
        assert_eq!(log.reaches(100).await.len(), 100);
        assert_eq!(world.now(), millis(1000));
        clock.ask(Cancel).await.unwrap();
        env.sleep(millis(500)).await;
        assert_eq!(log.len(), 100);
    });
}

#[test]
fn a_message_taken_back_does_not_come() {
    in_a_world(&[], |_, env, clock, log| async move {
        clock.ask(After(10, 1)).await.unwrap();
        clock.ask(Cancel).await.unwrap();
        env.sleep(millis(20)).await;
        assert!(log.is_empty());
    });
}

#[test]
fn an_endpoint_that_is_behind_gets_one_and_not_a_pile() {
    in_a_world(&[], |_, _, clock, log| async move {
        clock.ask(Every(10)).await.unwrap();
        clock.ask(Hold(95)).await.unwrap();
        assert_eq!(log.reaches(1).await, [10]);
        // The first one waited; the next one comes with the period.
        clock.ask(Cancel).await.unwrap();
        assert_eq!(log.len(), 1);
    });
}

#[test]
fn a_full_inbox_keeps_a_place_for_it() {
    in_a_world(&[("rpc.inbox.maxMessages", "1")], |_, _, clock, log| async move {
        clock.ask(After(5, 7)).await.unwrap();
        let held = clock.ask(Hold(20));
        let queued = clock.ask(Hold(0));
        held.await.unwrap();
        queued.await.unwrap();
        assert_eq!(log.reaches(1).await, [7]);
    });
}

#[test]
fn what_is_scheduled_ends_with_its_endpoint() {
    in_a_world(&[], |_, env, clock, log| async move {
        clock.ask(Every(10)).await.unwrap();
        clock.ask(After(50, 1)).await.unwrap();
        assert_eq!(log.reaches(1).await.len(), 1);
        env.stop(&clock).unwrap();
        env.stopped(&clock).await.unwrap();
        env.sleep(millis(100)).await;
        assert_eq!(log.len(), 1);
        env.shutdown().await;
        // The clock of an env that has ended stands still for nobody.
        env.sleep(Duration::from_secs(3600)).await;
    });
}

#[tokio::test]
async fn on_threads_as_well() {
    let env = rpc_actix::create(RpcEnvConfig::client("env")).await.unwrap();
    let log = Log::default();
    let ended = Gate::default();
    let clock = Clock { log: log.clone(), ended: ended.clone(), ..Clock::default() };
    let clock = env.setup_endpoint("clock", clock).await.unwrap();
    clock.ask(Every(2)).await.unwrap();
    clock.ask(After(1, 1)).await.unwrap();
    log.has(|number| *number == 1).await;
    assert_eq!(log.reaches(5).await.iter().filter(|number| **number == 1).count(), 1);
    env.sleep(millis(1)).await;
    env.shutdown().await;
    ended.wait().await;
}
