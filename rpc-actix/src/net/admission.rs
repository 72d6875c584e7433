//! How many connections there may be, before and after their hello.

use rpc_core::Limits;
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// The connections that came in, counted.
#[derive(Debug, Default)]
pub(crate) struct Admission {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    connections: usize,
    greeting: usize,
    /// Connections without a hello, by where they come from; loopback is not counted.
    by_source: BTreeMap<IpAddr, usize>,
}

/// A connection's place, given back when dropped.
#[derive(Debug)]
pub(crate) struct Admitted {
    admission: Arc<Admission>,
    source: IpAddr,
    greeting: bool,
}

impl Admission {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes a connection in, or names the key whose limit is reached.
    pub(crate) fn admit(
        self: &Arc<Self>,
        source: IpAddr,
        limits: &Limits,
    ) -> Result<Admitted, &'static str> {
        let mut state = self.lock();
        if state.connections >= limits.max_connections() {
            return Err("rpc.io.maxConnections");
        }
        if state.greeting >= limits.max_unauthenticated() {
            return Err("rpc.io.maxUnauthenticated");
        }
        if !source.is_loopback() {
            let count = state.by_source.entry(source).or_default();
            if *count >= limits.max_unauthenticated_per_source() {
                return Err("rpc.io.maxUnauthenticatedPerSource");
            }
            *count = count.saturating_add(1);
        }
        state.connections = state.connections.saturating_add(1);
        state.greeting = state.greeting.saturating_add(1);
        drop(state);
        Ok(Admitted { admission: self.clone(), source, greeting: true })
    }
}

impl Admitted {
    /// The hellos are exchanged.
    pub(crate) fn greeted(&mut self) {
        if std::mem::take(&mut self.greeting) {
            self.admission.lock().leave_greeting(self.source);
        }
    }
}

impl State {
    fn leave_greeting(&mut self, source: IpAddr) {
        self.greeting = self.greeting.saturating_sub(1);
        if let Some(count) = self.by_source.get_mut(&source) {
            *count = count.saturating_sub(1);
            if *count == 0 {
                self.by_source.remove(&source);
            }
        }
    }
}

impl Drop for Admitted {
    fn drop(&mut self) {
        self.greeted();
        let mut state = self.admission.lock();
        state.connections = state.connections.saturating_sub(1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_limit_is_named_and_places_come_back() {
        let limits = Limits::default()
            .with_max_connections(3)
            .and_then(|limits| limits.with_max_unauthenticated(2))
            .and_then(|limits| limits.with_max_unauthenticated_per_source(1))
            .unwrap();
        let admission = Arc::new(Admission::default());
        let here = IpAddr::from([127, 0, 0, 1]);
        let there = IpAddr::from([10, 0, 0, 1]);
        let mut first = admission.admit(there, &limits).unwrap();
        let refused = admission.admit(there, &limits).unwrap_err();
        assert_eq!(refused, "rpc.io.maxUnauthenticatedPerSource");
        let mut second = admission.admit(here, &limits).unwrap();
        assert_eq!(admission.admit(here, &limits).unwrap_err(), "rpc.io.maxUnauthenticated");
        first.greeted();
        second.greeted();
        let third = admission.admit(there, &limits).unwrap();
        assert_eq!(admission.admit(here, &limits).unwrap_err(), "rpc.io.maxConnections");
        drop((first, second, third));
        let state = admission.lock();
        assert_eq!((state.connections, state.greeting, state.by_source.len()), (0, 0, 0));
    }
}
