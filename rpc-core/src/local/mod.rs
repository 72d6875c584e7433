//! The `local` backend: envs in one process and one thread, on a clock that is set by hand.
//!
//! It shares no scheduler with actix. Endpoints run on the thread that made the world, whenever
//! someone there waits for the world: in [`LocalWorld::block_on`], or while a future of a ref is
//! polled by any other executor. Nothing happens behind the caller's back, so a run is repeated
//! exactly.

mod backend;
mod executor;
mod link;

use crate::address::RpcAddress;
use crate::config::RpcEnvConfig;
use crate::deadline::Timestamp;
use crate::env::RpcEnv;
use crate::error::RpcError;
use crate::factory::RpcEnvFactory;
use crate::seam::{BoxFuture, EnvParts};
use backend::LocalBackend;
use executor::Executor;
use std::collections::BTreeMap;
use std::fmt;
use std::future::Future;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::Poll;
use std::time::Duration;

/// A clock, a scheduler, and the envs that can reach each other.
///
/// There is no queue between two of them: a message to another env is in the endpoint's inbox at once. So a
/// `send_wait` to another env has not to wait, and is refused only where what may wait is too much.
#[derive(Clone)]
pub struct LocalWorld(Arc<World>);

pub(crate) struct World {
    executor: Arc<Executor>,
    state: Mutex<State>,
}

struct State {
    now: Timestamp,
    last_env: u64,
    last_port: u16,
    /// In the order of their making, so that timers fire in an order that repeats.
    envs: BTreeMap<u64, Arc<LocalBackend>>,
}

/// The first port that stands for "any free port".
const FIRST_FREE_PORT: u16 = 49_152;

impl LocalWorld {
    /// A world whose clock stands at zero, for the current thread.
    #[must_use]
    pub fn new() -> Self {
        let state = State {
            now: Timestamp::default(),
            last_env: 0,
            last_port: FIRST_FREE_PORT,
            envs: BTreeMap::new(),
        };
        Self(Arc::new(World { executor: Executor::new(), state: Mutex::new(state) }))
    }

    /// What has passed on the world's clock.
    #[must_use]
    pub fn now(&self) -> Duration {
        self.0.now().since(Timestamp::default())
    }

    /// Moves the clock, firing what falls due on the way in the order of its time, and runs
    /// everything that can run.
    pub fn advance(&self, by: Duration) {
        let end = self.0.now().saturating_add(by);
        self.run();
        while let Some(next) = self.0.next_deadline()
            && next <= end
        {
            self.0.fire(next);
            self.run();
        }
        self.0.fire(end);
        self.run();
    }

    /// Runs everything that can run now, without moving the clock.
    pub fn run(&self) {
        self.0.executor.run();
    }

    /// Runs the world until `future` is ready. When nothing can run, the clock jumps to the next
    /// deadline; when there is none, the thread sleeps until something from outside wakes it.
    ///
    /// # Panics
    /// Inside an endpoint of the world, which would wait for itself; that handler's caller gets
    /// the panic as an error.
    pub fn block_on<F: Future>(&self, future: F) -> F::Output {
        let world = &self.0;
        assert!(!world.executor.is_inside(), "LocalWorld::block_on inside of an endpoint");
        let mut future = std::pin::pin!(future);
        crate::block::block_on(std::future::poll_fn(|cx| {
            loop {
                if let Poll::Ready(output) = future.as_mut().poll(cx) {
                    return Poll::Ready(output);
                }
                world.executor.drive(cx);
                if let Poll::Ready(output) = future.as_mut().poll(cx) {
                    return Poll::Ready(output);
                }
                if world.executor.is_busy() {
                    continue;
                }
                match world.next_deadline() {
                    Some(next) => world.fire(next),
                    None => return Poll::Pending,
                }
            }
        }))
    }

    /// A factory whose envs live in this world.
    #[must_use]
    pub fn factory(&self) -> LocalRpcEnvFactory {
        LocalRpcEnvFactory { world: self.clone() }
    }
}

impl Default for LocalWorld {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for LocalWorld {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LocalWorld").field("now", &self.now()).finish_non_exhaustive()
    }
}

impl World {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn now(&self) -> Timestamp {
        self.lock().now
    }

    pub(crate) fn executor(&self) -> &Arc<Executor> {
        &self.executor
    }

    fn next_deadline(&self) -> Option<Timestamp> {
        let envs: Vec<_> = self.lock().envs.values().cloned().collect();
        envs.iter().filter_map(|env| env.next_deadline()).min()
    }

    fn fire(&self, now: Timestamp) {
        let envs: Vec<_> = {
            let mut state = self.lock();
            state.now = state.now.max(now);
            state.envs.values().cloned().collect()
        };
        envs.iter().for_each(|env| env.fire(now));
    }

    /// The env that listens at an address.
    pub(crate) fn find(&self, address: &RpcAddress) -> Option<Arc<LocalBackend>> {
        self.lock().envs.values().find(|env| env.listens_at(address)).cloned()
    }

    /// The env with that number.
    pub(crate) fn find_id(&self, id: u64) -> Option<Arc<LocalBackend>> {
        self.lock().envs.get(&id).cloned()
    }

    /// Forgets an env; every other env hears of it.
    pub(crate) fn remove(&self, id: u64) {
        let others: Vec<_> = {
            let mut state = self.lock();
            state.envs.remove(&id);
            state.envs.values().cloned().collect()
        };
        others.iter().for_each(|env| env.peer_gone(id));
    }

    /// Finds where to listen, as a socket would; each name of a host is a machine of its own.
    fn bind(state: &mut State, config: &RpcEnvConfig) -> Result<Option<RpcAddress>, RpcError> {
        let Some(wanted) = config.bind_address() else { return Ok(None) };
        let taken = |state: &State, port| {
            let at = wanted.with_port(port);
            state.envs.values().any(|env| env.is_bound_to(&at))
        };
        for port in config.candidate_ports() {
            if port == 0 {
                while taken(state, state.last_port) {
                    state.last_port = state.last_port.checked_add(1).unwrap_or(FIRST_FREE_PORT);
                }
                return Ok(Some(wanted.with_port(state.last_port)));
            }
            if !taken(state, port) {
                return Ok(Some(wanted.with_port(port)));
            }
        }
        Err(config.bind_error(wanted, "the port is taken"))
    }
}

/// Makes envs of a [`LocalWorld`]; the key `rpc.env` picks it by `"local"`.
#[derive(Clone, Debug)]
pub struct LocalRpcEnvFactory {
    world: LocalWorld,
}

impl RpcEnvFactory for LocalRpcEnvFactory {
    fn name(&self) -> &'static str {
        "local"
    }

    fn create(&self, config: RpcEnvConfig) -> BoxFuture<Result<RpcEnv, RpcError>> {
        let world = self.world.0.clone();
        Box::pin(std::future::ready(create(&world, config)))
    }
}

fn create(world: &Arc<World>, config: RpcEnvConfig) -> Result<RpcEnv, RpcError> {
    config.validate()?;
    let (id, bound) = {
        let mut state = world.lock();
        let bound = World::bind(&mut state, &config)?;
        state.last_env += 1;
        (state.last_env, bound)
    };
    let address = bound.as_ref().and_then(|bound| config.advertised_address(bound.port()));
    let parts = EnvParts::new(config, id);
    RpcEnv::assemble(parts, address, |core, dispatcher| {
        let backend = LocalBackend::new(world.clone(), core, dispatcher.clone(), bound);
        world.lock().envs.insert(id, backend.clone());
        Ok(backend)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Untyped;
    use crate::address::EndpointLocation;
    use crate::call_context::RpcCallContext;
    use crate::context::EndpointContext;
    use crate::credit::Credit;
    use crate::delivery::NetworkEvent;
    use crate::endpoint::RpcEndpoint;
    use crate::message::{Ask, OneWay, RpcMessage};
    use crate::raw::{HandlerResult, RawMessage, RawReply};
    use crate::seam::Origin;
    use serde::{Deserialize, Serialize};
    use std::future::Future;
    use std::pin::Pin;
    use std::task::{Context, Poll, Waker};
    use std::time::Duration;

    struct Idle;

    impl RpcEndpoint for Idle {
        type Handlers = ();
    }

    #[derive(Serialize, Deserialize)]
    struct Note;

    impl RpcMessage for Note {
        const NAME: &'static str = "Note";
    }

    impl OneWay for Note {}

    #[derive(Serialize, Deserialize)]
    struct Question;

    impl RpcMessage for Question {
        const NAME: &'static str = "Question";
    }

    impl Ask for Question {
        type Reply = ();
    }

    /// Never done with its first message.
    struct Stuck;

    impl RpcEndpoint for Stuck {
        type Handlers = ();

        async fn receive_and_reply(
            &mut self,
            _msg: RawMessage,
            _call: RpcCallContext<RawReply>,
            _cx: &mut EndpointContext<Self>,
        ) -> HandlerResult<()> {
            std::future::pending().await
        }
    }

    #[test]
    fn what_came_with_a_message_whose_handler_waits_ends_at_the_drain_deadline() {
        let world = LocalWorld::new();
        let config = RpcEnvConfig::client("env").set("rpc.shutdown.drainTimeout", "1s").unwrap();
        let env = world.block_on(world.factory().create(config)).unwrap();
        let stuck = world.block_on(env.setup_endpoint("stuck", Stuck)).unwrap();
        let to = stuck.into_untyped();
        // All of them are there when the endpoint's loop looks.
        let mut asks = [Question, Question, Question].map(|question| to.ask(question));
        world.run();
        env.stop(&to).unwrap();
        world.advance(Duration::from_secs(1));
        let mut cx = Context::from_waker(Waker::noop());
        let ends = asks.each_mut().map(|ask| Pin::new(ask).poll(&mut cx));
        assert!(ends[0].is_pending(), "{ends:?}");
        for end in &ends[1..] {
            let Poll::Ready(Err(error)) = end else { panic!("{end:?}") };
            assert!(error.text().contains("the message still waited after 1s"), "{error}");
        }
    }

    #[derive(Clone, Default)]
    struct Watcher(Arc<Mutex<Vec<String>>>);

    impl RpcEndpoint for Watcher {
        type Handlers = ();
        const NETWORK_EVENTS: bool = true;

        async fn receive(
            &mut self,
            _msg: RawMessage,
            cx: &mut EndpointContext<Self>,
        ) -> HandlerResult<()> {
            self.0.lock().unwrap().push(format!("note {}", cx.sender().unwrap()));
            Ok(())
        }

        async fn on_disconnected(
            &mut self,
            peer: &RpcAddress,
            _cx: &mut EndpointContext<Self>,
        ) -> HandlerResult<()> {
            self.0.lock().unwrap().push(format!("down {peer}"));
            Ok(())
        }
    }

    #[test]
    fn events_of_a_peer_are_in_order_with_its_messages_and_no_others() {
        let world = LocalWorld::new();
        let env = |port: u16| {
            let config = RpcEnvConfig::server("env", format!("10.0.0.1:{port}"));
            world.block_on(world.factory().create(config)).unwrap()
        };
        let (server, peers) = (env(7001), [env(7002), env(7003)]);
        let watcher = Watcher::default();
        let log = watcher.0.clone();
        let watched = world.block_on(server.setup_endpoint("w", watcher)).unwrap();
        let uri = watched.to_string();
        let refs = peers
            .each_ref()
            .map(|peer| world.block_on(peer.endpoint_ref::<Untyped>(&uri)).unwrap());
        let event = |port: u16| {
            let peer: RpcAddress = format!("10.0.0.1:{port}").parse().unwrap();
            let event = NetworkEvent::Disconnected(peer.clone());
            let env = EndpointLocation::Listening(peer);
            server.shared().dispatcher.network_event(&env, &event);
        };
        let send = |peer: usize, count| (0..count).for_each(|_| refs[peer].send(Note).unwrap());
        send(0, 40);
        send(1, 40);
        event(7002);
        event(7009);
        send(0, 3);
        world.run();
        let log = log.lock().unwrap();
        let of = |host| log.iter().filter(|entry| entry.contains(host)).collect::<Vec<_>>();
        let of_peer = of("7002");
        let down = of_peer.iter().position(|entry| entry.starts_with("down"));
        assert_eq!((of_peer.len(), down), (44, Some(40)));
        // That of a peer without messages waits for a turn of the others, not for their end.
        assert_eq!(log.iter().position(|entry| entry == "down 10.0.0.1:7009"), Some(32));
        assert_eq!((log.len(), of("7003").len()), (85, 40));
    }

    #[test]
    fn messages_of_other_envs_are_bounded_in_bytes() {
        let world = LocalWorld::new();
        let limits = crate::Limits::default().with_inbox_max_bytes(3).unwrap();
        let limits = limits.with_outbox_max_waiting_bytes(2).unwrap();
        let config = RpcEnvConfig::server("a", "10.0.0.1:7001").with_limits(limits);
        let server = world.block_on(world.factory().create(config)).unwrap();
        let client = world.block_on(world.factory().create(RpcEnvConfig::client("b"))).unwrap();
        let idle = world.block_on(server.setup_endpoint("idle", Idle)).unwrap();
        let uri = idle.to_string();
        let far = world.block_on(client.endpoint_ref::<Untyped>(&uri)).unwrap();
        // A body of one byte each.
        assert_eq!((0..9).take_while(|_| far.send(Note).is_ok()).count(), 3);
        let error = far.send(Note).unwrap_err();
        assert!(
            error.text().ends_with(
                "3 bytes are queued. This limit is controlled by rpc.inbox.maxBytes (3)"
            ),
            "{error}"
        );
        let waiting = [far.send_wait(Note), far.send_wait(Note)];
        let error = world.block_on(far.send_wait(Note)).unwrap_err();
        assert!(error.text().ends_with("rpc.outbox.maxWaitingBytes (2)"), "{error}");
        waiting.into_iter().for_each(|sent| world.block_on(sent).unwrap());
    }

    #[test]
    fn a_released_window_goes_back_when_what_came_through_it_is_handled() {
        let world = LocalWorld::new();
        let env = world.block_on(world.factory().create(RpcEnvConfig::client("env"))).unwrap();
        let idle = world.block_on(env.setup_endpoint("idle", Idle)).unwrap();
        let inbox = env.shared().dispatcher.lookup("idle").unwrap();
        let origin: Arc<dyn Origin> = Arc::new(link::Link::new(None, Default::default()));
        let promised = || inbox.lock().pool.promised();
        for queued in 0..3 {
            let window = inbox.open_window(&origin).unwrap();
            assert!(promised().messages > 0);
            (0..queued).for_each(|_| assert!(window.arrived(10)));
            window.release();
            for left in (0..queued).rev() {
                assert!(promised().messages > 0, "{left}");
                assert_eq!(window.consumed(std::iter::once(10)), None);
                assert_eq!((window.queued().messages, window.queued().bytes), (left, 10 * left));
            }
            assert_eq!(promised(), Credit::default());
            drop(window);
            assert_eq!(promised(), Credit::default());
        }
        // Dropped with something in the inbox, when its connection is gone.
        let window = inbox.open_window(&origin).unwrap();
        assert!(window.arrived(10));
        drop(window);
        assert_eq!(promised(), Credit::default());
        drop(idle);
    }

    #[test]
    fn endpoints_that_come_and_go_leave_nothing_in_the_tables() {
        let world = LocalWorld::new();
        let [here, there] = [("here", "h:7001"), ("there", "h:7002")].map(|(name, at)| {
            world.block_on(world.factory().create(RpcEnvConfig::server(name, at))).unwrap()
        });
        let core = here.shared().core.clone();
        let watcher = world.block_on(here.setup_endpoint("watcher", Idle)).unwrap();
        let watcher = watcher.raw().local_inbox().unwrap();
        let mut inboxes = Vec::new();
        for cycle in 0..1000 {
            let options = crate::EndpointOptions::new("idle").on_panic(crate::PanicPolicy::Stop);
            let local = world.block_on(here.setup_endpoint(options, Idle)).unwrap();
            let uri = local.endpoint_address().to_string();
            let far = world.block_on(there.endpoint_ref::<Idle>(&uri)).unwrap();
            let inbox = local.raw().local_inbox().unwrap();
            let later = crate::later::after(&inbox, Duration::from_secs(3600), Note);
            let watch = watcher.watch(local.raw()).unwrap();
            let (near, far) = (local.terminated(), far.terminated());
            let given_up = local.terminated();
            drop(given_up);
            if cycle % 2 == 0 {
                watcher.unwatch(watch);
            }
            // Its deadline is still far away when the endpoint is gone.
            let asked = world.block_on(local.clone().into_untyped().ask(Question));
            assert_eq!(asked.unwrap_err().kind(), crate::ErrorKind::Unsupported);
            here.stop(&local).unwrap();
            world.block_on(here.stopped(&local)).unwrap();
            assert_eq!(world.block_on(near).reason(), crate::Termination::Stopped);
            assert_eq!(world.block_on(far).reason(), crate::Termination::Stopped);
            later.cancel();
            inboxes.push(Arc::downgrade(&inbox));
        }
        world.run();
        assert_eq!(watcher.lock().watches.len(), 0, "watches");
        assert_eq!(here.shared().dispatcher.endpoints().len(), 1, "names");
        assert_eq!(core.timers_left(), 0, "timers");
        let left = inboxes.iter().filter(|inbox| inbox.strong_count() > 0).count();
        assert_eq!(left, 0, "inboxes");
    }

    #[test]
    fn nothing_of_an_env_outlives_it() {
        let world = LocalWorld::new();
        let env = world.block_on(world.factory().create(RpcEnvConfig::client("env"))).unwrap();
        let core = Arc::downgrade(&env.shared().core);
        drop(world.block_on(env.setup_endpoint("idle", Idle)).unwrap());
        world.block_on(env.shutdown());
        drop((env, world));
        assert_eq!(core.strong_count(), 0);
    }
}
