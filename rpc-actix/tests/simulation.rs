//! The simulator itself: that it repeats itself, and that its faults are what they say.
#![cfg(test)]
#![cfg(feature = "sim")]

use rpc_actix::sim::{Sim, SimNode, Simulation, Weather};
use rpc_actix::transport::{ByteStream, Transport};
use rpc_actix::{
    EndpointContext, ErrorKind, HandlerResult, Outcome, RpcAddress, RpcEndpointRef, RpcEnvConfig,
    RpcMessage, endpoint,
};
use serde::{Deserialize, Serialize};
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWrite, AsyncWriteExt};

#[derive(Debug, Serialize, Deserialize, RpcMessage)]
#[rpc(reply = u64)]
struct Add(u64);

#[derive(Debug, Serialize, Deserialize, RpcMessage)]
struct Tell(u64);

#[derive(Default)]
struct Sum {
    sum: u64,
    told: Arc<AtomicU64>,
}

#[endpoint]
impl Sum {
    #[receive_and_reply]
    fn add(&mut self, msg: Add) -> HandlerResult<u64> {
        self.sum += msg.0;
        Ok(self.sum)
    }

    #[receive]
    fn tell(&mut self, msg: Tell) -> HandlerResult<()> {
        self.told.fetch_add(msg.0, Ordering::Relaxed);
        Ok(())
    }
}

const PORT: u16 = 7077;

fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

fn server(sim: &Sim, told: &Arc<AtomicU64>) -> SimNode {
    let told = told.clone();
    sim.node("server").runs(move |node| {
        let told = told.clone();
        async move {
            let env = node.create(RpcEnvConfig::server("server", node.address(PORT))).await?;
            env.setup_endpoint("sum", Sum { sum: 0, told }).await?;
            env.await_termination().await;
            Ok(())
        }
    })
}

async fn sum_from(node: &SimNode, uri: &str) -> HandlerResult<RpcEndpointRef<Sum>> {
    let env = node.create(RpcEnvConfig::client("client")).await?;
    let sum = env.endpoint_ref::<Sum>(uri).await?;
    // The env lives as long as the node.
    let keep = node.run(move |_| async move { env.await_termination().await });
    drop(keep);
    Ok(sum)
}

/// Runs something with a ref to the server's endpoint, on a client.
async fn on_client<R, T>(
    sim: &Sim,
    work: impl FnOnce(RpcEndpointRef<Sum>) -> R + 'static,
) -> HandlerResult<T>
where
    R: Future<Output = HandlerResult<T>> + 'static,
    T: 'static,
{
    let server = server(sim, &Arc::default());
    let uri = server.uri("sum", PORT);
    let done = sim.node("client").run(|node| async move {
        node.sim().sleep(ms(10)).await;
        work(sum_from(&node, &uri).await?).await
    });
    done.await?
}

fn a_hundred_asks(seed: u64) -> (u64, u64) {
    let weather = Weather::new().latency(ms(1)..ms(20)).spikes(0.1, ms(300)).chunk(9);
    let report = Simulation::new(seed).weather(weather).run(|sim| async move {
        let asked = on_client(&sim, |sum| async move {
            for number in 1..=100 {
                sum.ask(Add(number)).await?;
            }
            Ok(sum.ask(Add(0)).await?)
        });
        asked.await.unwrap()
    });
    assert_eq!(report.result, 5050);
    (report.trace, report.events)
}

#[test]
fn i11_a_seed_repeats_itself_and_another_one_does_not() {
    let first = a_hundred_asks(1);
    assert_eq!(a_hundred_asks(1), first);
    assert_ne!(a_hundred_asks(2).0, first.0);
}

#[test]
fn an_hour_takes_no_time_and_a_connection_lives() {
    let report = Simulation::new(3).run(|sim| async move {
        let server = server(&sim, &Arc::default());
        let uri = server.uri("sum", PORT);
        let client = sim.node("client");
        let asked = client.run(|node| async move {
            node.sim().sleep(ms(10)).await;
            let sum = sum_from(&node, &uri).await?;
            sum.ask(Add(1)).await?;
            node.sim().sleep(Duration::from_secs(3600)).await;
            HandlerResult::Ok(sum.ask(Add(1)).await?)
        });
        assert_eq!(asked.await.unwrap().unwrap(), 2);
        assert_eq!(sim.connections(&client, &server), 1);
    });
    assert!(report.elapsed >= Duration::from_secs(3600));
}

#[test]
fn a_way_that_is_full_for_long_is_not_one_that_nobody_reads() {
    let weather = Weather::new().bandwidth(1_200).buffer(64);
    let report = Simulation::new(4).weather(weather).run(|sim| async move {
        let asked = on_client(&sim, |sum| async move {
            let minute = Duration::from_secs(60);
            let asks = (0..1000).map(|_| sum.ask_with_timeout(Add(1), minute));
            let asks: Vec<_> = asks.collect();
            let mut last = 0;
            for ask in asks {
                last = ask.await?;
            }
            Ok(last)
        });
        assert_eq!(asked.await.unwrap(), 1000);
    });
    // Twice rpc.io.writeStall, and the socket was full all the time.
    assert!(report.elapsed >= Duration::from_secs(20), "{:?}", report.elapsed);
}

#[test]
fn a_silent_peer_is_gone_after_three_seconds_and_a_late_one_is_not() {
    Simulation::check(0..5, |sim| async move {
        let server = server(&sim, &Arc::default());
        let (uri, client) = (server.uri("sum", PORT), sim.node("client"));
        let (cut, other) = (server.clone(), client.clone());
        let asked = client.run(|node| async move {
            let sim = node.sim();
            sim.sleep(ms(10)).await;
            let sum = sum_from(&node, &uri).await?;
            sum.ask(Add(1)).await?;
            // Shorter than a second: nobody notices.
            sim.partition(&cut, &other);
            let asked = sum.ask(Add(1));
            sim.sleep(ms(900)).await;
            sim.mend_all();
            assert_eq!(asked.await?, 2);
            sim.partition_one_way(&cut, &other);
            let before = sim.elapsed();
            let error = sum.ask(Add(1)).await.unwrap_err();
            let took = sim.elapsed() - before;
            assert_eq!(
                (error.kind(), error.outcome()),
                (ErrorKind::Disconnected, Outcome::Unknown)
            );
            assert!(took > ms(2000) && took < ms(3500), "{took:?}");
            sim.mend_all();
            HandlerResult::Ok(sum.ask(Add(1)).await?)
        });
        assert_eq!(asked.await.unwrap().unwrap(), 4, "the one that was cut off was handled");
    });
}

/// The goodbye does not fit into the socket of a peer that reads nothing, and is waited for.
#[test]
fn a_deadline_that_comes_while_the_env_says_goodbye_ends_its_ask() {
    Simulation::new(1).weather(Weather::new().buffer(200)).run(|sim| async move {
        let server = server(&sim, &Arc::default());
        let (uri, client, deaf) = (server.uri("sum", PORT), sim.node("client"), server.clone());
        let asked = client.run(|node| async move {
            let sim = node.sim();
            sim.sleep(ms(10)).await;
            let env = node.create(RpcEnvConfig::client("client")).await?;
            let sum = env.endpoint_ref::<Sum>(&uri).await?;
            sum.ask(Add(1)).await?;
            deaf.pause_for(Duration::from_secs(2));
            let began = sim.elapsed();
            let asks: Vec<_> = (0..50).map(|_| sum.ask_with_timeout(Add(1), ms(500))).collect();
            sim.sleep(ms(100)).await;
            let closing = env.clone();
            let closed = node.run(move |node| async move {
                closing.shutdown().await;
                node.sim().elapsed()
            });
            let mut timed_out = 0;
            for ask in asks {
                let error = ask.await.unwrap_err();
                let took = sim.elapsed() - began;
                assert!(took < ms(510), "{took:?}: {error:?}");
                timed_out += u32::from(error.is_timeout());
            }
            let goodbye = closed.await? - began;
            assert!(timed_out > 0 && goodbye > ms(1000), "{timed_out}, {goodbye:?}");
            HandlerResult::Ok(())
        });
        asked.await.unwrap().unwrap();
    });
}

/// Takes its time for the first message, and keeps what came.
struct Slow(Arc<Mutex<Vec<u64>>>);

#[endpoint]
impl Slow {
    #[receive]
    async fn tell(&mut self, msg: Tell, cx: &mut EndpointContext<Self>) -> HandlerResult<()> {
        self.0.lock().unwrap().push(msg.0);
        if msg.0 == 0 {
            cx.sleep(Duration::from_secs(5)).await;
        }
        Ok(())
    }
}

/// What a lost connection has brought comes before what the next one brings, even if the env has no
/// port by which it could be known.
#[test]
fn messages_keep_their_order_over_a_lost_connection() {
    let came = Arc::new(Mutex::new(Vec::new()));
    let log = came.clone();
    Simulation::new(1).run(|sim| async move {
        let server = sim.node("server").runs(move |node| {
            let log = log.clone();
            async move {
                let env = node.create(RpcEnvConfig::server("server", node.address(PORT))).await?;
                env.setup_endpoint("slow", Slow(log)).await?;
                env.await_termination().await;
                Ok(())
            }
        });
        let (uri, client, at) = (server.uri("slow", PORT), sim.node("client"), server.clone());
        let sent = client.run(|node| async move {
            let sim = node.sim();
            sim.sleep(ms(10)).await;
            let env = node.create(RpcEnvConfig::client("client")).await?;
            let slow = env.endpoint_ref::<Slow>(&uri).await?;
            (0..40).try_for_each(|number| slow.send(Tell(number)))?;
            sim.sleep(ms(500)).await;
            assert_eq!(sim.reset(&node, &at, None), 1);
            sim.sleep(ms(500)).await;
            // More than one turn of a sender, on a new connection.
            (40..80).try_for_each(|number| slow.send(Tell(number)))?;
            sim.sleep(Duration::from_secs(10)).await;
            HandlerResult::Ok(())
        });
        sent.await.unwrap().unwrap();
    });
    assert_eq!(*came.lock().unwrap(), (0..80).collect::<Vec<_>>());
}

/// When it ends, and when it is dropped, it says so to another one.
struct LastWords {
    to: RpcEndpointRef<Sum>,
    heard: Arc<Mutex<Vec<&'static str>>>,
}

#[derive(Debug, Serialize, Deserialize, RpcMessage)]
#[rpc(reply = ())]
struct Ping;

#[endpoint]
impl LastWords {
    #[receive_and_reply]
    fn ping(&mut self, _: Ping) -> HandlerResult<()> {
        Ok(())
    }

    #[on_stop]
    async fn stopped(&mut self, _cx: &mut EndpointContext<Self>) -> HandlerResult<()> {
        self.heard.lock().unwrap().push("on_stop");
        self.to.send(Tell(1))?;
        Ok(())
    }
}

impl Drop for LastWords {
    fn drop(&mut self) {
        self.heard.lock().unwrap().push("drop");
        let _ = self.to.send(Tell(100));
    }
}

fn last_words(seed: u64, end: fn(&SimNode)) -> (u64, Vec<&'static str>) {
    let (told, heard) = (Arc::new(AtomicU64::new(0)), Arc::new(Mutex::new(Vec::new())));
    let (log, says) = (told.clone(), heard.clone());
    Simulation::new(seed).run(|sim| async move {
        let server = server(&sim, &log);
        let (uri, speaker) = (server.uri("sum", PORT), sim.node("speaker"));
        let ready = speaker.run(|node| async move {
            node.sim().sleep(ms(10)).await;
            let env = node.create(RpcEnvConfig::client("speaker")).await?;
            let to = env.endpoint_ref::<Sum>(&uri).await?;
            to.ask(Add(1)).await?;
            let speaker = env.setup_endpoint("speaker", LastWords { to, heard: says }).await?;
            speaker.ask(Ping).await?;
            let stopping = env.clone();
            drop(node.run(move |_| async move { stopping.await_termination().await }));
            HandlerResult::Ok(env)
        });
        let env = ready.await.unwrap().unwrap();
        end(&speaker);
        if speaker.is_running() {
            env.shutdown().await;
        }
        sim.sleep(Duration::from_secs(10)).await;
        let heard = log.load(Ordering::Relaxed);
        if !speaker.is_running() {
            assert_eq!(heard, 0, "a dead process has spoken");
        }
        drop(env);
    });
    let heard = heard.lock().unwrap().clone();
    (told.load(Ordering::Relaxed), heard)
}

/// Whoever is killed says nothing any more, whatever runs while it is taken down.
#[test]
fn a_kill_is_a_kill() {
    // In order, both words arrive: so the test can hear them.
    let (told, heard) = last_words(1, |_| ());
    assert_eq!((told, heard), (101, vec!["on_stop", "drop"]));
    for seed in 0..5 {
        assert_eq!(last_words(seed, SimNode::crash), (0, vec!["drop"]));
        assert_eq!(last_words(seed, SimNode::power_off), (0, vec!["drop"]));
    }
}

/// Writes when it is dropped.
struct Writes(Box<dyn ByteStream>);

impl Drop for Writes {
    fn drop(&mut self) {
        let mut cx = Context::from_waker(Waker::noop());
        let written = Pin::new(&mut self.0).poll_write(&mut cx, b"after");
        // Who is dead believes that it writes.
        assert!(matches!(written, Poll::Ready(Ok(5))), "{written:?}");
    }
}

/// The gate of a node is closed before its tasks are dropped.
#[test]
fn nothing_that_a_dead_node_writes_arrives() {
    let read_after = |end: fn(&SimNode)| {
        let report = Simulation::new(1).run(|sim| async move {
            let (server, client) = (sim.node("server"), sim.node("client"));
            let address: RpcAddress = server.address(PORT).parse().unwrap();
            let bound = address.clone();
            let reads = server.run(|node| async move {
                let mut listener = node.transport().unwrap().bind(&bound).unwrap();
                let mut stream = listener.accept().await.unwrap().open().unwrap();
                let mut read = Vec::new();
                let _ = stream.read_to_end(&mut read).await;
                String::from_utf8(read).unwrap()
            });
            drop(client.run(|node| async move {
                node.sim().sleep(ms(5)).await;
                let socket = node.transport().unwrap().connect(&address).await.unwrap();
                let mut stream = socket.open().unwrap();
                stream.write_all(b"before ").await.unwrap();
                let _writes = Writes(stream);
                node.sim().sleep(ms(100)).await;
            }));
            sim.sleep(ms(50)).await;
            end(&client);
            reads.await.unwrap()
        });
        report.result
    };
    assert_eq!(read_after(|_| ()), "before after");
    assert_eq!(read_after(SimNode::crash), "before ");
}
