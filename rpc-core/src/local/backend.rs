//! One env of a world.

use super::World;
use super::link::{Link, LocalTarget};
use crate::address::{EndpointAddress, RpcAddress};
use crate::config::RpcEnvConfig;
use crate::core::EnvCore;
use crate::counters::Tally;
use crate::deadline::Timestamp;
use crate::dispatcher::Dispatcher;
use crate::error::{ErrorKind, RpcError};
use crate::seam::{EndpointTask, EnvBackend, Incarnation, RemoteTarget};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::task::Context;

pub(crate) struct LocalBackend {
    world: Arc<World>,
    id: u64,
    address: Option<RpcAddress>,
    config: RpcEnvConfig,
    core: Weak<EnvCore>,
    tally: Arc<Tally>,
    dispatcher: Arc<Dispatcher>,
    /// Where it listens, as it was told to.
    bound: Option<RpcAddress>,
    next: Mutex<Option<Timestamp>>,
    /// Calls to other envs, by their number.
    links: Mutex<BTreeMap<u64, Arc<Link>>>,
}

impl LocalBackend {
    pub(crate) fn new(
        world: Arc<World>,
        core: &Arc<EnvCore>,
        dispatcher: Arc<Dispatcher>,
        bound: Option<RpcAddress>,
    ) -> Arc<Self> {
        Arc::new(Self {
            world,
            id: core.id().as_u64(),
            address: core.address().cloned(),
            config: core.config().clone(),
            core: Arc::downgrade(core),
            tally: core.tally().clone(),
            dispatcher,
            bound,
            next: Mutex::new(None),
            links: Mutex::new(BTreeMap::new()),
        })
    }

    pub(crate) fn address(&self) -> Option<&RpcAddress> {
        self.address.as_ref()
    }

    pub(crate) fn config(&self) -> &RpcEnvConfig {
        &self.config
    }

    pub(crate) fn tally(&self) -> &Tally {
        &self.tally
    }

    pub(crate) fn dispatcher(&self) -> &Arc<Dispatcher> {
        &self.dispatcher
    }

    pub(crate) fn listens_at(&self, address: &RpcAddress) -> bool {
        self.address.as_ref() == Some(address)
    }

    pub(crate) fn is_bound_to(&self, address: &RpcAddress) -> bool {
        self.bound.as_ref() == Some(address)
    }

    pub(crate) fn next_deadline(&self) -> Option<Timestamp> {
        *self.next.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn fire(&self, now: Timestamp) {
        if self.next_deadline().is_some_and(|next| next <= now) {
            *self.next.lock().unwrap_or_else(PoisonError::into_inner) = None;
            let next = self.core.upgrade().and_then(|core| core.fire_timers(now));
            let mut slot = self.next.lock().unwrap_or_else(PoisonError::into_inner);
            // Something armed while firing may be earlier.
            *slot = match (*slot, next) {
                (Some(a), Some(b)) => Some(a.min(b)),
                (a, b) => a.or(b),
            };
        }
    }

    /// The link to an env of the world.
    pub(crate) fn link(&self, to: &Self) -> Arc<Link> {
        let mut links = self.links.lock().unwrap_or_else(PoisonError::into_inner);
        let tallies = || [self.tally.clone(), to.tally.clone()];
        let make = || Arc::new(Link::new(self.address.clone(), tallies()));
        links.entry(to.id).or_insert_with(make).clone()
    }

    /// Another env is gone: so are the calls to it.
    pub(crate) fn peer_gone(&self, id: u64) {
        let link = self.links.lock().unwrap_or_else(PoisonError::into_inner).remove(&id);
        if let Some(link) = link {
            link.break_off(&RpcError::new(ErrorKind::Disconnected, "the env has been shut down"));
        }
    }
}

impl EnvBackend for LocalBackend {
    fn kind(&self) -> &'static str {
        "local"
    }

    fn now(&self) -> Timestamp {
        self.world.now()
    }

    fn spawn(&self, task: EndpointTask) -> Result<(), RpcError> {
        self.world.executor().spawn(task);
        Ok(())
    }

    fn arm_timer(&self, at: Timestamp) {
        let mut next = self.next.lock().unwrap_or_else(PoisonError::into_inner);
        *next = Some(next.map_or(at, |next| next.min(at)));
    }

    fn remote(
        &self,
        address: &EndpointAddress,
        pin: Option<Incarnation>,
    ) -> Result<Arc<dyn RemoteTarget>, RpcError> {
        Ok(Arc::new(LocalTarget::new(self.world.clone(), self.id, address.clone(), pin)))
    }

    fn refuses_blocking(&self) -> Option<String> {
        self.world.executor().is_inside().then(|| {
            "a handler of this world is running, and the answer needs its thread; use ask(..).await"
                .to_owned()
        })
    }

    fn drive(&self, cx: &mut Context<'_>) {
        self.world.executor().drive(cx);
    }

    fn close(&self) {
        self.world.remove(self.id);
        let links = std::mem::take(&mut *self.links.lock().unwrap_or_else(PoisonError::into_inner));
        for link in links.values() {
            link.break_off(&crate::dispatcher::env_stopped());
        }
        if let Some(core) = self.core.upgrade() {
            core.terminated();
        }
    }
}
