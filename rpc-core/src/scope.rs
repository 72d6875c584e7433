//! For which env the current thread codes and decodes: entered around synchronous stretches only.

use crate::address::{EndpointAddress, EnvId};
use crate::core::{EnvCore, Opaque, RefBinder};
use crate::error::{ErrorKind, RpcError};
use crate::seam::Incarnation;
use std::cell::{Cell, RefCell};
use std::sync::Weak;

thread_local! {
    /// The env last entered; kept so that entering it again touches no shared counter.
    static KNOWN: RefCell<Option<(EnvId, Weak<dyn RefBinder>)>> = const { RefCell::new(None) };
    static ACTIVE: Cell<Option<EnvId>> = const { Cell::new(None) };
}

/// Runs `f`, which codes or decodes, within the scope of an env: refs in values belong to it.
pub(crate) fn within<R>(core: &EnvCore, f: impl FnOnce() -> R) -> R {
    let before = KNOWN.with_borrow_mut(|known| match known {
        Some((id, _)) if *id == core.id() => None,
        _ => Some(std::mem::replace(known, core.binder().map(|binder| (core.id(), binder)))),
    });
    let _restore = Restore { active: ACTIVE.replace(Some(core.id())), known: before };
    f()
}

struct Restore {
    active: Option<EnvId>,
    known: Option<Option<(EnvId, Weak<dyn RefBinder>)>>,
}

impl Drop for Restore {
    fn drop(&mut self) {
        // Only an outer scope needs its env back; otherwise the new one stays known.
        if self.active.is_some()
            && let Some(known) = self.known.take()
        {
            KNOWN.replace(known);
        }
        ACTIVE.set(self.active);
    }
}

/// Whether an env's scope is active on this thread.
pub(crate) fn require(what: &str) -> Result<(), RpcError> {
    if ACTIVE.get().is_some() { Ok(()) } else { Err(outside(what)) }
}

fn outside(what: &str) -> RpcError {
    RpcError::new(
        ErrorKind::NoEnvScope,
        format!(
            "an RpcEndpointRef can only be {what} within an env: send it in a message, or use RpcEnv::encode and RpcEnv::decode"
        ),
    )
}

/// Makes a ref of the env whose scope is active.
pub(crate) fn bind(address: EndpointAddress, pin: Option<Incarnation>) -> Result<Opaque, RpcError> {
    let active = ACTIVE.get().ok_or_else(|| outside("decoded"))?;
    let binder = KNOWN.with_borrow(|known| match known {
        Some((id, binder)) if *id == active => binder.upgrade(),
        _ => None,
    });
    let binder = binder
        .ok_or_else(|| RpcError::new(ErrorKind::EnvStopped, "the RpcEnv has been stopped"))?;
    binder.bind(address, pin)
}
