//! The endpoints of an env by name.

use crate::address::{EndpointLocation, EndpointName};
use crate::delivery::NetworkEvent;
use crate::error::{ErrorKind, RpcError};
use crate::inbox::Inbox;
use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// The name that a listening env keeps for itself (S24): resolving names is part of the protocol.
pub(crate) const VERIFIER: &str = "endpoint-verifier";

/// Which endpoint answers to which name.
#[derive(Default)]
pub struct Dispatcher {
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    names: BTreeMap<EndpointName, Arc<Inbox>>,
    /// Those that want to know of the network, by the numbers of their lives: few among many.
    watchers: BTreeMap<u64, Arc<Inbox>>,
    last: u64,
    /// Set by `shutdown`: nothing is registered any more.
    stopped: bool,
    reserved: bool,
    finished: bool,
}

impl Dispatcher {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Keeps the verifier's name free of user endpoints.
    pub(crate) fn reserve_verifier(&self) {
        self.lock().reserved = true;
    }

    /// Registers a name; `make` is given the number of the endpoint's life.
    pub(crate) fn register(
        &self,
        name: &EndpointName,
        make: impl FnOnce(u64) -> Arc<Inbox>,
    ) -> Result<Arc<Inbox>, RpcError> {
        let mut state = self.lock();
        if state.stopped {
            return Err(env_stopped());
        }
        let taken = state.names.contains_key(name);
        if taken || (state.reserved && name.as_str() == VERIFIER) {
            return Err(RpcError::new(
                ErrorKind::NameTaken,
                format!("There is already an RpcEndpoint called {name}"),
            ));
        }
        state.last = state.last.wrapping_add(1);
        let inbox = make(state.last);
        state.names.insert(name.clone(), inbox.clone());
        if inbox.wants_network_events() {
            state.watchers.insert(inbox.incarnation().endpoint, inbox.clone());
        }
        Ok(inbox)
    }

    /// Frees a name, if it still belongs to this endpoint.
    pub(crate) fn remove(&self, inbox: &Arc<Inbox>) {
        let mut state = self.lock();
        if state.names.get(inbox.name()).is_some_and(|known| Arc::ptr_eq(known, inbox)) {
            state.names.remove(inbox.name());
            state.watchers.remove(&inbox.incarnation().endpoint);
        }
    }

    /// The endpoint of that name, if it takes messages.
    #[must_use]
    pub fn lookup(&self, name: &str) -> Option<Arc<Inbox>> {
        let state = self.lock();
        let found = state.names.get(name)?;
        Some(found.clone())
    }

    /// All endpoints, in the order of their names.
    #[must_use]
    pub fn endpoints(&self) -> Vec<Arc<Inbox>> {
        self.lock().names.values().cloned().collect()
    }

    /// Tells every endpoint that wants to know, in order with the messages of that env, which
    /// [`Origin::env`](crate::spi::Origin::env) names in the same way.
    pub fn network_event(&self, env: &EndpointLocation, event: &NetworkEvent) {
        let watchers: Vec<_> = self.lock().watchers.values().cloned().collect();
        for inbox in watchers {
            inbox.network_event(env, event);
        }
    }

    /// An endpoint that has not handled the news of the network for so long that there may be no
    /// more: nobody may connect before it has.
    #[must_use]
    pub fn behind(&self) -> Option<Arc<Inbox>> {
        self.lock().watchers.values().find(|inbox| inbox.is_behind()).cloned()
    }

    /// Registers nothing any more. `false` if that was so before.
    pub(crate) fn close(&self) -> bool {
        !std::mem::replace(&mut self.lock().stopped, true)
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.lock().stopped
    }

    /// Whether the env is stopped and its last endpoint gone; says so once.
    pub(crate) fn is_finished(&self) -> bool {
        let mut state = self.lock();
        let finished = state.stopped && state.names.is_empty() && !state.finished;
        state.finished |= finished;
        finished
    }
}

pub(crate) fn env_stopped() -> RpcError {
    RpcError::new(ErrorKind::EnvStopped, "RpcEnv has been stopped")
}

impl fmt::Debug for Dispatcher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<_> = self.lock().names.keys().cloned().collect();
        f.debug_struct("Dispatcher").field("names", &names).finish_non_exhaustive()
    }
}
