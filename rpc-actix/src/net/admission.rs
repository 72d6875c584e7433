//! How many connections there may be, before and after their hello.

use crate::planted::planted;
use rpc_core::Limits;
use rpc_core::proto::{Close, CloseCode};
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio_util::sync::CancellationToken;

/// The connections that came in, counted.
#[derive(Debug, Default)]
pub(crate) struct Admission {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// Connections that are in use.
    established: usize,
    /// Connections without a hello, the oldest first, and how to end each.
    greeting: BTreeMap<u64, (IpAddr, CancellationToken)>,
    /// The same by where they come from.
    by_source: BTreeMap<IpAddr, BTreeSet<u64>>,
    last: u64,
}

/// A connection's place, given back when dropped.
#[derive(Debug)]
pub(crate) struct Admitted {
    admission: Arc<Admission>,
    number: u64,
    established: bool,
    evicted: CancellationToken,
}

impl Admission {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Connections that came in, without a hello and with one.
    #[cfg(feature = "sim")]
    pub(crate) fn counts(&self) -> (usize, usize) {
        let state = self.lock();
        (state.greeting.len(), state.established)
    }

    /// Takes a connection in. If there is no place, the oldest connection without a hello gives
    /// way: of the same source if that has too many, otherwise of the source that has the most.
    /// So whoever floods the port takes places from itself.
    pub(crate) fn admit(self: &Arc<Self>, source: IpAddr, limits: &Limits) -> Admitted {
        let mut state = self.lock();
        let own = state.by_source.get(&source).map_or(0, BTreeSet::len);
        let (most, most_of_one) =
            (limits.max_unauthenticated(), limits.max_unauthenticated_per_source());
        if !source.is_loopback() && own >= most_of_one {
            state.evict(source);
        } else if state.greeting.len() >= most {
            let greediest = state.by_source.iter().max_by_key(|(_, numbers)| numbers.len());
            if let Some(greediest) = greediest.map(|(source, _)| *source) {
                state.evict(greediest);
            }
        }
        state.last = state.last.wrapping_add(1);
        let (number, evicted) = (state.last, CancellationToken::new());
        state.greeting.insert(number, (source, evicted.clone()));
        state.by_source.entry(source).or_default().insert(number);
        drop(state);
        Admitted { admission: self.clone(), number, established: false, evicted }
    }
}

impl State {
    fn evict(&mut self, source: IpAddr) {
        let oldest = self.by_source.get(&source).and_then(BTreeSet::first).copied();
        if let Some((_, token)) = oldest.and_then(|oldest| self.leave_greeting(oldest)) {
            token.cancel();
        }
    }

    fn leave_greeting(&mut self, number: u64) -> Option<(IpAddr, CancellationToken)> {
        let (source, token) = self.greeting.remove(&number)?;
        if let Some(numbers) = self.by_source.get_mut(&source) {
            numbers.remove(&number);
            if numbers.is_empty() {
                self.by_source.remove(&source);
            }
        }
        Some((source, token))
    }
}

impl Admitted {
    /// Ready when the connection has to give way to another one.
    pub(crate) fn evicted(&self) -> CancellationToken {
        self.evicted.clone()
    }

    /// The peer has said hello.
    ///
    /// # Errors
    /// What it is answered if there are as many connections as there may be.
    pub(crate) fn establish(&mut self, limits: &Limits) -> Result<(), Close> {
        let mut state = self.admission.lock();
        let most = limits.max_connections();
        if state.established >= most {
            let text = format!("{most} connections are open (rpc.io.maxConnections)");
            return Err(Close::new(CloseCode::Overloaded, text));
        }
        if state.leave_greeting(self.number).is_none() {
            let text = format!(
                "too many connections were made at once: {} may be without a hello (rpc.io.maxUnauthenticated), {} of one address (rpc.io.maxUnauthenticatedPerSource)",
                limits.max_unauthenticated(),
                limits.max_unauthenticated_per_source()
            );
            return Err(Close::new(CloseCode::Overloaded, text));
        }
        state.established = state.established.saturating_add(1);
        self.established = true;
        Ok(())
    }
}

impl Drop for Admitted {
    fn drop(&mut self) {
        let mut state = self.admission.lock();
        if self.established {
            state.established = state.established.saturating_sub(1);
        } else if !planted!(GreetingKept) {
            state.leave_greeting(self.number);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limits() -> Limits {
        Limits::default()
            .with_max_connections(2)
            .and_then(|limits| limits.with_max_unauthenticated(4))
            .and_then(|limits| limits.with_max_unauthenticated_per_source(3))
            .unwrap()
    }

    fn from(last: u8) -> IpAddr {
        IpAddr::from([10, 0, 0, last])
    }

    #[test]
    fn r6_the_oldest_of_the_greediest_source_gives_way() {
        let (limits, admission) = (limits(), Arc::new(Admission::default()));
        let greedy: Vec<_> = (0..3).map(|_| admission.admit(from(1), &limits)).collect();
        let other = admission.admit(from(2), &limits);
        let newcomer = admission.admit(from(3), &limits);
        let evicted = |admitted: &Admitted| admitted.evicted().is_cancelled();
        assert_eq!(greedy.iter().map(evicted).collect::<Vec<_>>(), [true, false, false]);
        assert!(!evicted(&other) && !evicted(&newcomer));
    }

    #[test]
    fn l4_a_source_that_has_too_many_takes_from_itself_and_loopback_may_have_all() {
        let (limits, admission) = (limits(), Arc::new(Admission::default()));
        let own: Vec<_> = (0..4).map(|_| admission.admit(from(1), &limits)).collect();
        assert!(own[0].evicted().is_cancelled() && !own[1].evicted().is_cancelled());
        drop(own);
        let here = IpAddr::from([127, 0, 0, 1]);
        let local: Vec<_> = (0..4).map(|_| admission.admit(here, &limits)).collect();
        assert!(local.iter().all(|admitted| !admitted.evicted().is_cancelled()));
        // One that gave way when its hello had just come is told so.
        let more = (admission.admit(here, &limits), local).1;
        let mut evicted = more.into_iter().find(|one| one.evicted().is_cancelled()).unwrap();
        let close = evicted.establish(&limits).unwrap_err();
        let text = "too many connections were made at once: 4 may be without a hello (rpc.io.maxUnauthenticated), 3 of one address (rpc.io.maxUnauthenticatedPerSource)";
        assert!(close.is(CloseCode::Overloaded) && close.text == text, "{close}");
    }

    #[test]
    fn l5_who_has_said_hello_is_told_that_there_is_no_place_and_places_come_back() {
        let (limits, admission) = (limits(), Arc::new(Admission::default()));
        let mut first = admission.admit(from(1), &limits);
        let mut second = admission.admit(from(1), &limits);
        let mut third = admission.admit(from(1), &limits);
        assert!(first.establish(&limits).is_ok() && second.establish(&limits).is_ok());
        let close = third.establish(&limits).unwrap_err();
        assert!(close.is(CloseCode::Overloaded));
        assert_eq!(close.text, "2 connections are open (rpc.io.maxConnections)");
        drop(first);
        assert!(third.establish(&limits).is_ok());
        drop((second, third));
        let state = admission.lock();
        assert_eq!((state.established, state.greeting.len(), state.by_source.len()), (0, 0, 0));
    }
}
