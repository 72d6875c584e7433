//! The links of an env, by where their peers listen and by who they are.

use super::link::Link;
use rpc_core::RpcAddress;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

/// Links live as long as a ref or a connection needs them; this only finds them.
#[derive(Debug, Default)]
pub(crate) struct Peers {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    by_address: BTreeMap<RpcAddress, Weak<Link>>,
    /// An env may have several connections: under two names of this one, or one each way.
    by_env: BTreeMap<u64, Connected>,
    /// Envs that do not listen, connected now or before: their refs live on over a new connection.
    clients: BTreeMap<u64, Weak<Link>>,
    sweep_at: usize,
}

/// An env that is connected.
#[derive(Debug)]
struct Connected {
    /// What endpoints know it by, whatever connection its messages come on.
    name: RpcAddress,
    links: Vec<Weak<Link>>,
}

impl Peers {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The link to an address, new if need be.
    pub(crate) fn at(&self, address: &RpcAddress, make: impl FnOnce() -> Link) -> Arc<Link> {
        let mut state = self.lock();
        if let Some(link) = state.by_address.get(address).and_then(Weak::upgrade) {
            return link;
        }
        let link = Arc::new(make());
        state.by_address.insert(address.clone(), Arc::downgrade(&link));
        state.sweep();
        link
    }

    /// The link for an env that does not listen, new if nobody holds the one it had.
    pub(crate) fn client(&self, id: u64, make: impl FnOnce() -> Link) -> Arc<Link> {
        let mut state = self.lock();
        if let Some(link) = state.clients.get(&id).and_then(Weak::upgrade) {
            return link;
        }
        let link = Arc::new(make());
        state.clients.insert(id, Arc::downgrade(&link));
        state.sweep();
        link
    }

    /// The link to an env that is connected: the one that its next connection will have as well, if it does
    /// not listen and that one is connected.
    pub(crate) fn env(&self, id: u64) -> Option<Arc<Link>> {
        let state = self.lock();
        let links = &state.by_env.get(&id)?.links;
        let lasting =
            state.clients.get(&id).filter(|lasting| links.iter().any(|link| link.ptr_eq(lasting)));
        lasting.into_iter().chain(links.iter().rev()).find_map(Weak::upgrade)
    }

    /// The connections with envs that are known by that name, but for one env.
    pub(crate) fn others(&self, name: &RpcAddress, but: u64) -> Vec<Arc<Link>> {
        let state = self.lock();
        let others = state.by_env.iter().filter(|(id, known)| **id != but && known.name == *name);
        others.flat_map(|(_, known)| &known.links).filter_map(Weak::upgrade).collect()
    }

    /// The connections with an env.
    pub(crate) fn of(&self, id: u64) -> Vec<Arc<Link>> {
        let state = self.lock();
        let links = state.by_env.get(&id).into_iter().flat_map(|known| &known.links);
        links.filter_map(Weak::upgrade).collect()
    }

    /// Remembers which env a link leads to. Whether it is the first connection with that env, and
    /// what endpoints know the env by: the name of the first one.
    pub(crate) fn connected(
        &self,
        id: u64,
        link: &Arc<Link>,
        name: RpcAddress,
    ) -> (bool, RpcAddress) {
        let mut state = self.lock();
        let fresh = || Connected { name: name.clone(), links: Vec::new() };
        let known = state.by_env.entry(id).or_insert_with(fresh);
        known.links.retain(|link| link.strong_count() > 0);
        known.links.push(Arc::downgrade(link));
        let first = known.links.len() == 1;
        if first {
            known.name = name;
        }
        let name = known.name.clone();
        state.sweep();
        (first, name)
    }

    /// Forgets it. Whether it was the last connection with that env.
    pub(crate) fn disconnected(&self, id: u64, link: &Arc<Link>) -> bool {
        let mut state = self.lock();
        let Some(Connected { links, .. }) = state.by_env.get_mut(&id) else { return false };
        links.retain(|known| known.strong_count() > 0 && known.as_ptr() != Arc::as_ptr(link));
        let last = links.is_empty();
        if last {
            state.by_env.remove(&id);
        }
        last
    }

    /// Every link with a connection.
    pub(crate) fn connections(&self) -> Vec<Arc<Link>> {
        let state = self.lock();
        let links = state.by_env.values().flat_map(|known| &known.links);
        links.filter_map(Weak::upgrade).collect()
    }

    /// Every link there is.
    pub(crate) fn all(&self) -> Vec<Arc<Link>> {
        let state = self.lock();
        let connected = state.by_env.values().flat_map(|known| &known.links);
        let links = state.by_address.values().chain(connected);
        links.filter_map(Weak::upgrade).collect()
    }
}

impl State {
    /// Forgets links that are gone, whenever the tables have doubled.
    fn sweep(&mut self) {
        if self.len() > self.sweep_at {
            self.by_address.retain(|_, link| link.strong_count() > 0);
            self.clients.retain(|_, link| link.strong_count() > 0);
            self.by_env.retain(|_, Connected { links, .. }| {
                links.retain(|link| link.strong_count() > 0);
                !links.is_empty()
            });
            self.sweep_at = self.len().saturating_mul(2).max(64);
        }
    }

    fn len(&self) -> usize {
        let listening = self.by_address.len();
        listening.saturating_add(self.by_env.len()).saturating_add(self.clients.len())
    }
}
