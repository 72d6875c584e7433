//! For which env the current thread codes and decodes: entered around synchronous stretches only.

use crate::address::EndpointAddress;
use crate::core::{EnvCore, Opaque, RefBinder};
use crate::error::{ErrorKind, RpcError};
use crate::seam::Incarnation;
use std::cell::{Cell, RefCell};
use std::sync::Weak;

thread_local! {
    /// The env last entered; kept so that entering it again touches no shared counter.
    static KNOWN: RefCell<Option<Weak<dyn RefBinder>>> = const { RefCell::new(None) };
    /// Whether that env's scope is active now.
    static ACTIVE: Cell<bool> = const { Cell::new(false) };
}

/// Runs `f`, which codes or decodes, within the scope of an env: refs in values belong to it.
pub(crate) fn within<R>(core: &EnvCore, f: impl FnOnce() -> R) -> R {
    // Numbers of envs say nothing here: each local world counts its own.
    let before = KNOWN.with_borrow_mut(|known| match (&*known, core.binder()) {
        (Some(known), Some(binder)) if known.ptr_eq(binder) => None,
        (_, binder) => Some(std::mem::replace(known, binder.cloned())),
    });
    let _restore = Restore { active: ACTIVE.replace(true), known: before };
    f()
}

struct Restore {
    active: bool,
    known: Option<Option<Weak<dyn RefBinder>>>,
}

impl Drop for Restore {
    fn drop(&mut self) {
        // Only an outer scope needs its env back; otherwise the new one stays known.
        if self.active
            && let Some(known) = self.known.take()
        {
            KNOWN.replace(known);
        }
        ACTIVE.set(self.active);
    }
}

/// Whether an env's scope is active on this thread.
pub(crate) fn require(what: &str) -> Result<(), RpcError> {
    if ACTIVE.get() { Ok(()) } else { Err(outside(what)) }
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
    require("decoded")?;
    let binder = KNOWN.with_borrow(|known| known.as_ref().and_then(Weak::upgrade));
    let binder = binder
        .ok_or_else(|| RpcError::new(ErrorKind::EnvStopped, "the RpcEnv has been stopped"))?;
    binder.bind(address, pin)
}
