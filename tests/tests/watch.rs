//! Death watch: who watches an endpoint, here or elsewhere, hears of its end once, with the reason, and
//! behind what it has said last.
#![cfg(test)]

use rpc_core::{
    EndpointContext, EndpointOptions, ErrorKind, HandlerResult, Incarnation, PanicPolicy,
    RestartLimit, RpcAddress, RpcEndpointRef, RpcEnv, RpcError, RpcMessage, Terminated,
    Termination, WatchId, endpoint,
};
use rpc_tests::harness::{Boom, Echo, Harness, Log, Me, Probe, ProbeWatch, Quit, block_on};
use rpc_tests::{actix_only, both};
use serde::{Deserialize, Serialize};
use std::io;
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

/// An ask: watches it, that many times.
#[derive(Debug, Serialize, Deserialize, RpcMessage)]
#[rpc(reply = Result<(), String>)]
struct Watch(RpcEndpointRef<Mortal>, u32);

/// An ask: ends the watch that was begun last.
#[derive(Debug, Serialize, Deserialize, RpcMessage)]
#[rpc(reply = ())]
struct Unwatch;

/// An ask: whether all is quiet.
#[derive(Debug, Serialize, Deserialize, RpcMessage)]
#[rpc(reply = ())]
struct Flush;

/// One way: panics.
#[derive(Debug, Serialize, Deserialize, RpcMessage)]
struct Die;

/// One way: a word.
#[derive(Debug, Serialize, Deserialize, RpcMessage)]
struct Word(u32, Vec<u8>);

/// Writes down what it is told.
#[derive(Default)]
struct Mourner {
    log: Log,
    events: Log<Seen>,
    last: Option<WatchId>,
}

#[derive(Clone, Debug, PartialEq)]
struct Seen {
    watch: WatchId,
    address: String,
    incarnation: Option<Incarnation>,
    reason: Termination,
    cause: Option<ErrorKind>,
}

impl From<Terminated> for Seen {
    fn from(event: Terminated) -> Self {
        Self {
            watch: event.watch(),
            address: event.endpoint_address().to_string(),
            incarnation: event.incarnation(),
            reason: event.reason(),
            cause: event.cause().map(RpcError::kind),
        }
    }
}

#[endpoint]
impl Mourner {
    #[receive_and_reply]
    fn watch(
        &mut self,
        msg: Watch,
        cx: &mut EndpointContext<Self>,
    ) -> HandlerResult<Result<(), String>> {
        for _ in 0..msg.1 {
            match cx.watch(&msg.0) {
                Ok(watch) => self.last = Some(watch),
                Err(error) => return Ok(Err(error.to_string())),
            }
        }
        Ok(Ok(()))
    }

    #[receive_and_reply]
    fn unwatch(&mut self, _msg: Unwatch, cx: &mut EndpointContext<Self>) -> HandlerResult<()> {
        self.last.take().into_iter().for_each(|watch| cx.unwatch(watch));
        Ok(())
    }

    #[receive_and_reply]
    fn flush(&mut self, _msg: Flush) -> HandlerResult<()> {
        Ok(())
    }

    #[receive]
    fn word(&mut self, msg: Word) -> HandlerResult<()> {
        self.log.push(format!("word {}", msg.0));
        Ok(())
    }

    #[on_terminated]
    fn terminated(&mut self, event: Terminated) -> HandlerResult<()> {
        self.log.push(format!("{:?}", event.reason()));
        self.events.push(Seen::from(event));
        Ok(())
    }
}

/// Says its last words, and ends.
struct Mortal(Option<RpcEndpointRef<Mourner>>);

#[endpoint]
impl Mortal {
    #[receive]
    fn die(&mut self, _msg: Die) -> HandlerResult<()> {
        panic!("dies");
    }

    #[receive_and_reply]
    fn watches(&mut self, msg: Watch) -> HandlerResult<Result<(), String>> {
        Err(anyhow::anyhow!("not {:?}", msg.1).into())
    }

    #[on_stop]
    fn stopped(&mut self) -> HandlerResult<()> {
        for number in 0..20 {
            if let Some(mourner) = &self.0 {
                mourner.send(Word(number, vec![0; 100]))?;
            }
        }
        Ok(())
    }
}

struct Scene {
    mourner: RpcEndpointRef<Mourner>,
    log: Log,
    events: Log<Seen>,
}

impl Scene {
    async fn at(env: &RpcEnv, name: &str) -> anyhow::Result<Self> {
        let mourner = Mourner::default();
        let (log, events) = (mourner.log.clone(), mourner.events.clone());
        let mourner = env.setup_endpoint(name, mourner).await?;
        Ok(Self { mourner, log, events })
    }
}

/// A ref to it as `env` has it.
async fn seen_from<P>(
    env: &RpcEnv,
    endpoint: &RpcEndpointRef<P>,
) -> anyhow::Result<RpcEndpointRef<P>> {
    Ok(env.endpoint_ref(&endpoint.endpoint_address().to_string()).await?)
}

async fn the_end_comes_once_behind_the_last_words(h: &Harness) -> anyhow::Result<()> {
    let (one, two) = (h.server("one").await?, h.server("two").await?);
    let scene = Scene::at(&one, "mourner").await?;
    for (round, env) in [&one, &two].into_iter().enumerate() {
        let mourner = seen_from(env, &scene.mourner).await?;
        let mortal = env.setup_endpoint("mortal", Mortal(Some(mourner))).await?;
        let seen = seen_from(&one, &mortal).await?;
        scene.mourner.ask(Watch(seen, 1)).await?.unwrap();
        env.stop(&mortal)?;
        let log = scene.log.reaches(21).await;
        let mut expected: Vec<_> = (0..20).map(|number| format!("word {number}")).collect();
        expected.push("Stopped".to_owned());
        assert_eq!(log, expected, "round {round}");
        let [seen] = &scene.events.reaches(1).await[..] else { panic!("one event") };
        assert_eq!(seen.address, mortal.endpoint_address().to_string());
        let incarnation = seen.incarnation.unwrap();
        assert_eq!(incarnation.env, env.id().as_u64());
        assert_eq!(seen.cause, None);
        scene.mourner.ask(Flush).await?;
        let _ = scene.log.take();
        assert_eq!(scene.events.take().len(), 1, "once");
    }
    Ok(())
}

async fn a_crash_is_told_from_a_stop(h: &Harness) -> anyhow::Result<()> {
    let (one, two) = (h.server("one").await?, h.server("two").await?);
    let scene = Scene::at(&one, "mourner").await?;
    for env in [&one, &two] {
        let options = EndpointOptions::new("mortal").on_panic(PanicPolicy::Stop);
        let mortal = env.setup_endpoint(options, Mortal(None)).await?;
        // By name, and as it travels in a message: pinned.
        let named = seen_from(&one, &mortal).await?;
        let outside = named.terminated();
        scene.mourner.ask(Watch(mortal.clone(), 1)).await?.unwrap();
        mortal.send(Die)?;
        let events = scene.events.reaches(1).await;
        assert_eq!(events[0].reason, Termination::Crashed);
        assert_eq!(outside.await.reason(), Termination::Crashed);
        assert_eq!(mortal.terminated().await.reason(), Termination::Crashed);
        let _ = scene.events.take();
    }
    Ok(())
}

async fn a_restart_is_no_end(h: &Harness) -> anyhow::Result<()> {
    let (one, two) = (h.server("one").await?, h.server("two").await?);
    let scene = Scene::at(&one, "mourner").await?;
    let options = EndpointOptions::new("mortal")
        .on_panic(PanicPolicy::Restart)
        .restart_limit(RestartLimit::new(1, Duration::MAX).backoff(Duration::ZERO, Duration::ZERO));
    let mortal = two.setup_endpoint_again(options, || Mortal(None)).await?;
    scene.mourner.ask(Watch(mortal.clone(), 1)).await?.unwrap();
    mortal.send(Die)?;
    // It answers again, so it was started anew.
    assert!(mortal.ask(Watch(mortal.clone(), 1)).await.is_err());
    scene.mourner.ask(Flush).await?;
    assert!(scene.events.is_empty());
    mortal.send(Die)?;
    assert_eq!(scene.events.reaches(1).await[0].reason, Termination::Crashed);
    Ok(())
}

async fn what_is_not_there_has_ended(h: &Harness) -> anyhow::Result<()> {
    let (one, two) = (h.server("one").await?, h.server("two").await?);
    let scene = Scene::at(&one, "mourner").await?;
    for env in [&one, &two] {
        let mortal = env.setup_endpoint("mortal", Mortal(None)).await?;
        let named = seen_from(&one, &mortal).await?;
        env.stop(&mortal)?;
        env.stopped(&mortal).await?;
        // What a ref of the same env knows is how it ended; of another one, that it is not there.
        let local = mortal.terminated().await;
        assert_eq!(local.reason(), Termination::Stopped);
        let event = named.terminated().await;
        // Word of its end may be under way, and is what comes then.
        match event.incarnation() {
            None => assert_eq!(event.reason(), Termination::NotFound, "{event:?}"),
            known => assert_eq!((event.reason(), known), (local.reason(), local.incarnation())),
        }
        // The message pins it: its life is over, whoever has the name now.
        let successor = env.setup_endpoint("mortal", Mortal(None)).await?;
        let remote = seen_from(&two, &scene.mourner).await?;
        remote.ask(Watch(mortal.clone(), 1)).await?.unwrap();
        let [event] = &scene.events.reaches(1).await[..] else { panic!("one event") };
        assert!(matches!(event.reason, Termination::NotFound | Termination::Stopped), "{event:?}");
        assert_eq!(event.incarnation, local.incarnation());
        let _ = scene.events.take();
        let event = named.terminated();
        // It answers, so it is known here.
        assert!(named.ask(Watch(named.clone(), 1)).await.is_err());
        env.stop(&successor)?;
        let event = event.await;
        assert_eq!(event.reason(), Termination::Stopped);
        assert_ne!(event.incarnation(), local.incarnation());
    }
    Ok(())
}

async fn each_watch_is_told_and_those_taken_back_are_not(h: &Harness) -> anyhow::Result<()> {
    let (one, two) = (h.server("one").await?, h.server("two").await?);
    for env in [&one, &two] {
        let scene = Scene::at(&one, "mourner").await?;
        let mortal = env.setup_endpoint("mortal", Mortal(None)).await?;
        scene.mourner.ask(Watch(mortal.clone(), 3)).await?.unwrap();
        scene.mourner.ask(Unwatch).await?;
        // Nobody waits for that one.
        drop(mortal.terminated());
        env.stop(&mortal)?;
        let events = scene.events.reaches(2).await;
        assert_ne!(events[0].watch, events[1].watch);
        scene.mourner.ask(Flush).await?;
        assert_eq!(scene.events.len(), 2);
        one.stop(&scene.mourner)?;
        one.stopped(&scene.mourner).await?;
    }
    Ok(())
}

async fn watches_have_a_limit(h: &Harness) -> anyhow::Result<()> {
    let config = h.server_config("one").set("rpc.dispatcher.maxWatches", "2")?;
    let env = h.create(config).await?;
    let scene = Scene::at(&env, "mourner").await?;
    let mortal = env.setup_endpoint("mortal", Mortal(None)).await?;
    scene.mourner.ask(Watch(mortal.clone(), 2)).await?.unwrap();
    let refused = scene.mourner.ask(Watch(mortal.clone(), 1)).await?.unwrap_err();
    assert!(refused.contains("rpc.dispatcher.maxWatches (2)"), "{refused}");
    scene.mourner.ask(Unwatch).await?;
    scene.mourner.ask(Watch(mortal.clone(), 1)).await?.unwrap();
    env.stop(&mortal)?;
    scene.events.reaches(2).await;
    // Those that have been told are over.
    scene.mourner.ask(Watch(mortal, 2)).await?.unwrap();
    scene.events.reaches(4).await;
    Ok(())
}

async fn an_env_that_shuts_down_has_stopped_its_endpoints(h: &Harness) -> anyhow::Result<()> {
    let (one, two) = (h.server("one").await?, h.server("two").await?);
    let scene = Scene::at(&one, "mourner").await?;
    let mortal = two.setup_endpoint("mortal", Mortal(None)).await?;
    scene.mourner.ask(Watch(mortal, 1)).await?.unwrap();
    two.shutdown().await;
    assert_eq!(scene.events.reaches(1).await[0].reason, Termination::Stopped);
    Ok(())
}

async fn a_watch_keeps_nothing_alive(h: &Harness) -> anyhow::Result<()> {
    let one = h.server("one").await?;
    // Not remembered by the harness: this is the only handle.
    let two = h.registry().create(h.server_config("two")).await?;
    let watched = {
        let mortal = two.setup_endpoint("mortal", Mortal(None)).await?;
        seen_from(&one, &mortal).await?.terminated()
    };
    let scene = Scene::at(&one, "mourner").await?;
    let own = one.setup_endpoint("own", Mortal(None)).await?;
    scene.mourner.ask(Watch(own.clone(), 1)).await?.unwrap();
    // The last handle: the env shuts down although its endpoint is watched.
    drop(two);
    assert_eq!(watched.await.reason(), Termination::Stopped);
    // One that watches ends like any other.
    one.stop(&scene.mourner)?;
    one.stopped(&scene.mourner).await?;
    one.stop(&own)?;
    one.stopped(&own).await?;
    Ok(())
}

async fn a_lost_connection_ends_the_watch_for_good(h: &Harness) -> anyhow::Result<()> {
    // What is between them can be cut: both live on.
    let server = h.server("server").await?;
    let (watch, probe) = Probe::at(&server, "probe").await?;
    let cable = Cable::to(server.address().unwrap())?;
    let client = h.client("client").await?;
    let through = format!("rpc://probe@{}", cable.address);
    let remote: RpcEndpointRef<Probe> = client.endpoint_ref(&through).await?;
    let pinned = remote.ask(Me).await?;
    let lost = [remote.terminated(), remote.terminated()];
    cable.cut();
    for lost in lost {
        let event = lost.await;
        assert_eq!(event.reason(), Termination::NodeLost);
        assert_eq!(event.cause().map(RpcError::kind), Some(ErrorKind::Disconnected));
        assert_eq!(event.incarnation().map(|of| of.env), Some(server.id().as_u64()));
    }
    // It is back, and a new watch is one of its own.
    assert_eq!(remote.ask(Echo::of("again")).await?, "again");
    let again = remote.terminated();
    probe.send(Quit)?;
    assert_eq!(again.await.reason(), Termination::Stopped);
    drop((watch, pinned));
    Ok(())
}

async fn an_env_that_is_not_reached_is_lost(h: &Harness) -> anyhow::Result<()> {
    let client = h.client("client").await?;
    let server = h.server("server").await?;
    let (_, probe) = Probe::at(&server, "probe").await?;
    let remote = seen_from(&client, &probe).await?;
    server.shutdown().await;
    let event = remote.terminated().await;
    assert_eq!(event.reason(), Termination::NodeLost, "{event:?}");
    assert!(matches!(
        event.cause().map(RpcError::kind),
        Some(ErrorKind::Unreachable | ErrorKind::Disconnected)
    ));
    Ok(())
}

async fn an_end_is_relayed(h: &Harness) -> anyhow::Result<()> {
    let middle = h.server("middle").await?;
    let (one, two) = (h.client("one").await?, h.client("two").await?);
    let (_, probe) = Probe::at(&middle, "probe").await?;
    // Both are connected to the one in the middle.
    for env in [&one, &two] {
        seen_from(env, &probe).await?.ask(Echo::of("hello")).await?;
    }
    for (policy, reason) in
        [(PanicPolicy::Resume, Termination::Stopped), (PanicPolicy::Stop, Termination::Crashed)]
    {
        let at = middle.address().unwrap();
        let options = EndpointOptions::new("far").on_panic(policy);
        let far = two.setup_endpoint(options, Probe::new(&ProbeWatch::default())).await?;
        let text = Ref { at: far.endpoint_address().to_string(), relay: at.host_port() };
        let bytes = rmp_serde::to_vec_named(&text)?;
        let seen: RpcEndpointRef<Probe> = one.decode(&bytes)?;
        assert_eq!(seen.ask(Echo::of("far")).await?, "far");
        let event = seen.terminated();
        if policy == PanicPolicy::Stop {
            let _ = far.ask(Boom).await;
        } else {
            far.send(Quit)?;
        }
        assert_eq!(event.await.reason(), reason);
        two.stopped(&far).await?;
    }
    Ok(())
}

/// A ref as it travels.
#[derive(Serialize)]
struct Ref {
    at: String,
    relay: String,
}

/// Passes bytes between two sockets, until it is cut.
struct Cable {
    address: SocketAddr,
    ends: Arc<Mutex<Vec<TcpStream>>>,
}

impl Cable {
    fn to(server: &RpcAddress) -> io::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let (address, server) = (listener.local_addr()?, server.host_port());
        let ends: Arc<Mutex<Vec<TcpStream>>> = Arc::default();
        let known = ends.clone();
        // It ends with the process: nobody connects any more.
        thread::spawn(move || {
            while let Ok((near, _)) = listener.accept() {
                let far = TcpStream::connect(&server)?;
                for (mut from, mut to) in [(near.try_clone()?, far.try_clone()?), (far, near)] {
                    known.lock().unwrap().push(from.try_clone()?);
                    thread::spawn(move || io::copy(&mut from, &mut to));
                }
            }
            io::Result::Ok(())
        });
        Ok(Self { address, ends })
    }

    fn cut(&self) {
        for end in self.ends.lock().unwrap().drain(..) {
            let _ = end.shutdown(Shutdown::Both);
        }
    }
}

#[test]
fn a_watch_outside_of_endpoints_may_be_awaited_by_any_thread() {
    let env = block_on(rpc_actix::create(rpc_core::RpcEnvConfig::client("env"))).unwrap();
    let mortal = block_on(env.setup_endpoint("mortal", Mortal(None))).unwrap();
    let waiting = thread::spawn({
        let ended = mortal.terminated();
        move || block_on(ended)
    });
    env.stop(&mortal).unwrap();
    assert_eq!(waiting.join().unwrap().reason(), Termination::Stopped);
    block_on(env.shutdown());
}

both! {
    the_end_comes_once_behind_the_last_words,
    a_crash_is_told_from_a_stop,
    a_restart_is_no_end,
    what_is_not_there_has_ended,
    each_watch_is_told_and_those_taken_back_are_not,
    watches_have_a_limit,
    an_env_that_shuts_down_has_stopped_its_endpoints,
    a_watch_keeps_nothing_alive,
    an_env_that_is_not_reached_is_lost,
}

actix_only! {
    a_lost_connection_ends_the_watch_for_good,
    an_end_is_relayed,
}
