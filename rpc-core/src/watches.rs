//! What an endpoint watches.

use crate::terminated::{Terminated, WatchId};
use std::any::Any;
use std::collections::BTreeMap;
use std::sync::Arc;

/// The watches of one endpoint. One that has ended stays until the endpoint has heard of it, so that
/// what waits in the inbox is bounded as they are.
#[derive(Default)]
pub(crate) struct Watches {
    last: u64,
    known: BTreeMap<WatchId, Watch>,
}

enum Watch {
    #[expect(dead_code, reason = "held, so that it goes on")]
    Open(Arc<dyn Any + Send + Sync>),
    Ended(Terminated),
}

impl Watches {
    pub(crate) fn len(&self) -> usize {
        self.known.len()
    }

    /// A number for the next one.
    pub(crate) fn next(&mut self) -> WatchId {
        self.last = self.last.wrapping_add(1);
        WatchId(self.last)
    }

    pub(crate) fn begin(&mut self, id: WatchId, watch: Arc<dyn Any + Send + Sync>) {
        self.known.insert(id, Watch::Open(watch));
    }

    /// Keeps what a watch has ended with. `false` if nobody wants to know any more.
    pub(crate) fn ended(&mut self, event: Terminated) -> bool {
        let Some(watch) = self.known.get_mut(&event.watch) else { return false };
        let open = matches!(watch, Watch::Open(_));
        if open {
            *watch = Watch::Ended(event);
        }
        open
    }

    /// Takes what a watch has ended with.
    pub(crate) fn take(&mut self, id: WatchId) -> Option<Terminated> {
        match self.known.remove(&id)? {
            Watch::Ended(event) => Some(event),
            Watch::Open(_) => None,
        }
    }

    /// Gives a watch up; what is returned is to be dropped outside of the lock.
    pub(crate) fn remove(&mut self, id: WatchId) -> Option<impl Sized + use<>> {
        self.known.remove(&id)
    }

    /// Gives all up; numbers go on.
    pub(crate) fn clear(&mut self) -> impl Sized + use<> {
        std::mem::take(&mut self.known)
    }
}
