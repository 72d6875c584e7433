//! Nodes of a simulation whose clocks are fast or slow, and what is granted between nodes.
#![cfg(test)]
#![cfg(feature = "sim")]

use rpc_actix::sim::{Sim, SimNode, Simulation};
use rpc_actix::{
    EndpointContext, ErrorKind, HandlerError, HandlerResult, RpcCallContext, RpcEndpointRef,
    RpcEnv, RpcEnvConfig, RpcError, RpcMessage, endpoint,
};
use serde::{Deserialize, Serialize};
use std::time::Duration;

/// How long its caller is said to wait, in milliseconds.
#[derive(Debug, Serialize, Deserialize, RpcMessage)]
#[rpc(reply = u64)]
struct Remaining;

/// Is never answered.
#[derive(Debug, Serialize, Deserialize, RpcMessage)]
#[rpc(reply = ())]
struct Keep;

/// Fails when the caller's time is over.
#[derive(Debug, Serialize, Deserialize, RpcMessage)]
#[rpc(reply = ())]
struct TakeAll;

#[derive(Debug, Serialize, Deserialize, RpcMessage)]
struct Tell;

#[derive(Default)]
struct Keeper(Vec<RpcCallContext<()>>);

#[endpoint]
impl Keeper {
    #[receive_and_reply]
    fn remaining(&mut self, _: Remaining, cx: &mut EndpointContext<Self>) -> HandlerResult<u64> {
        Ok(cx.remaining().map_or(0, |left| u64::try_from(left.as_millis()).unwrap()))
    }

    #[receive_and_reply]
    fn keep(&mut self, _: Keep, call: RpcCallContext<()>) -> HandlerResult<()> {
        self.0.push(call);
        Ok(())
    }

    #[receive_and_reply]
    async fn take_all(&mut self, _: TakeAll, cx: &mut EndpointContext<Self>) -> HandlerResult<()> {
        cx.cancelled().await;
        Err(HandlerError::from(std::io::Error::other("too late")))
    }

    #[receive]
    fn tell(&mut self, _: Tell) -> HandlerResult<()> {
        Ok(())
    }
}

const PORT: u16 = 7077;
const TIMEOUT: Duration = Duration::from_secs(10);
/// Timers tick in milliseconds.
const TICKS: Duration = Duration::from_millis(3);

fn server(sim: &Sim, clock_rate: f64) -> SimNode {
    let node = sim.node("server");
    node.set_clock_rate(clock_rate);
    node.runs(|node| async move {
        let env = node.create(RpcEnvConfig::server("server", node.address(PORT))).await?;
        env.setup_endpoint("keeper", Keeper::default()).await?;
        env.await_termination().await;
        Ok(())
    })
}

/// Runs something with a ref to the server's endpoint, on a client with a clock of its own.
async fn on_client<R, T>(
    sim: &Sim,
    (server_rate, client_rate): (f64, f64),
    work: impl FnOnce(SimNode, SimNode, RpcEndpointRef<Keeper>) -> R + 'static,
) -> T
where
    R: Future<Output = HandlerResult<T>> + 'static,
    T: 'static,
{
    let (server, client) = (server(sim, server_rate), sim.node("client"));
    client.set_clock_rate(client_rate);
    assert!((client.clock_rate() - client_rate).abs() < f64::EPSILON);
    sim.sleep(Duration::from_millis(10)).await;
    let done = client.run(|node| async move {
        let env = node.create(RpcEnvConfig::client("client")).await?;
        let keeper = env.endpoint_ref::<Keeper>(&server.uri("keeper", PORT)).await?;
        let result = work(node, server, keeper).await;
        env.shutdown().await;
        result
    });
    done.await.unwrap().unwrap()
}

fn is_about(took: Duration, expected: Duration) -> bool {
    took >= expected && took < expected + TICKS
}

#[test]
fn deadlines_and_sleeps_follow_the_clock_of_their_node() {
    for (rate, expected) in [(0.5, 20_000), (1.0, 10_000), (1.25, 8_000)] {
        let expected = Duration::from_millis(expected);
        Simulation::new(1).run(|sim| async move {
            on_client(&sim, (1.0, rate), move |node, _, keeper| async move {
                let begun = node.sim().elapsed();
                let error = keeper.ask_with_timeout(Keep, TIMEOUT).await.unwrap_err();
                let took = node.sim().elapsed() - begun;
                assert!(error.is_timeout() && is_about(took, expected), "{rate}: {took:?}");
                Ok(())
            })
            .await;
            let sleeper = sim.node("sleeper");
            sleeper.set_clock_rate(rate);
            let slept = sleeper.run(|node| async move {
                let env = node.create(RpcEnvConfig::client("sleeper")).await.unwrap();
                let begun = node.sim().elapsed();
                env.sleep(TIMEOUT).await;
                node.sim().elapsed() - begun
            });
            let slept = slept.await.unwrap();
            assert!(is_about(slept, expected), "{rate}: {slept:?}");
        });
    }
}

/// What travels is a duration: the callee counts it by its own clock, and the caller keeps to its own.
#[test]
fn a_deadline_holds_in_the_time_of_who_asks() {
    for rate in [0.5, 1.25] {
        Simulation::new(1).run(|sim| async move {
            on_client(&sim, (rate, 1.0), move |node, _, keeper| async move {
                let left = keeper.ask_with_timeout(Remaining, TIMEOUT).await?;
                assert!((9_900..=10_000).contains(&left), "{rate}: {left} ms");
                let begun = node.sim().elapsed();
                let error = keeper.ask_with_timeout(Keep, TIMEOUT).await.unwrap_err();
                let took = node.sim().elapsed() - begun;
                assert!(error.is_timeout() && is_about(took, TIMEOUT), "{rate}: {took:?}");
                // A handler whose clock is fast takes its caller's time to be over too early.
                let begun = node.sim().elapsed();
                let error = keeper.ask_with_timeout(TakeAll, TIMEOUT).await.unwrap_err();
                let took = node.sim().elapsed() - begun;
                assert_eq!(error.kind(), ErrorKind::Timeout);
                let expected = TIMEOUT.min(TIMEOUT.div_f64(rate));
                assert!(took >= expected && took < expected + 4 * TICKS, "{rate}: {took:?}");
                Ok(())
            })
            .await;
        });
    }
}

#[test]
fn what_is_under_way_is_missing_from_the_credit_and_comes_back() {
    Simulation::new(1).run(|sim| async move {
        on_client(&sim, (1.0, 1.0), |client, server, keeper| async move {
            let sim = client.sim();
            keeper.ask(Remaining).await?;
            assert_eq!(client.audit_credit(&server), Ok(()));
            sim.partition(&client, &server);
            keeper.send(Tell)?;
            sim.sleep(Duration::from_millis(100)).await;
            let text = client.audit_credit(&server).unwrap_err();
            assert!(text.contains("client to") && text.contains("its target 0 has"), "{text}");
            sim.mend_all();
            sim.sleep(Duration::from_secs(1)).await;
            assert_eq!(client.audit_credit(&server), Ok(()));
            Ok(())
        })
        .await;
    });
}

/// Asks an endpoint how long is left, in the handler or in the scope of the handler's call.
#[derive(Debug, Serialize, Deserialize, RpcMessage)]
#[rpc(reply = u64)]
struct Through {
    scoped: bool,
}

/// Has a ref of another env of its process.
struct Between(RpcEndpointRef<Keeper>);

#[endpoint]
impl Between {
    #[receive_and_reply]
    async fn through(&mut self, msg: Through, call: RpcCallContext<u64>) -> HandlerResult<()> {
        let keeper = self.0.clone();
        if !msg.scoped {
            call.reply(keeper.ask(Remaining).await?);
            return Ok(());
        }
        tokio::task::spawn_local(async move {
            match call.scope(|| keeper.ask(Remaining)).await {
                Ok(left) => call.reply(left),
                Err(error) => call.fail(error),
            }
        });
        Ok(())
    }
}

/// Makes an env, waits, and makes another one, whose clock begins then.
async fn envs_apart(node: &SimNode, apart: Duration) -> Result<[RpcEnv; 2], RpcError> {
    let older = node.create(RpcEnvConfig::client("older")).await?;
    node.sim().sleep(apart).await;
    Ok([older, node.create(RpcEnvConfig::client("younger")).await?])
}

/// The clocks of two envs of a process begin when those are made, so no time of one means anything to
/// the other.
#[test]
fn a_deadline_goes_from_env_to_env_of_a_process_as_what_is_left_of_it() {
    const LEFT: Duration = Duration::from_secs(5);
    for apart in [0, 3, 5, 30].map(Duration::from_secs) {
        Simulation::new(1).run(move |sim| async move {
            let server = server(&sim, 1.0);
            let node = sim.node("node");
            sim.sleep(Duration::from_millis(10)).await;
            let done = node.run(move |node| async move {
                let [older, younger] = envs_apart(&node, apart).await?;
                for (number, (of_the_ref, of_the_handler)) in
                    [(&older, &younger), (&younger, &older)].into_iter().enumerate()
                {
                    let near = of_the_ref.setup_endpoint("near", Keeper::default()).await?;
                    let far = of_the_ref.endpoint_ref(&server.uri("keeper", PORT)).await?;
                    for (name, keeper) in [("by-near", near), ("by-far", far)] {
                        let between = of_the_handler.setup_endpoint(name, Between(keeper)).await?;
                        for scoped in [false, true] {
                            let left = between.ask_with_timeout(Through { scoped }, LEFT).await?;
                            let case = format!("{name}, {number}, {apart:?}, {scoped}");
                            assert!((4_900..=5_000).contains(&left), "{case}: {left} ms");
                        }
                    }
                }
                older.shutdown().await;
                younger.shutdown().await;
                Ok::<_, HandlerError>(())
            });
            done.await.unwrap().unwrap();
        });
    }
}
