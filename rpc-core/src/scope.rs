//! For which env the current thread codes and decodes: entered around synchronous stretches only.

use crate::address::{EndpointAddress, EndpointLocation, RpcAddress};
use crate::core::{EnvCore, Opaque, RefBinder};
use crate::error::{ErrorKind, RpcError};
use crate::seam::{Incarnation, Origin, RemoteTarget};
use std::cell::{Cell, RefCell};
use std::sync::{Arc, Weak};

thread_local! {
    /// The env last entered; kept so that entering it again touches no shared counter.
    static KNOWN: RefCell<Option<Weak<dyn RefBinder>>> = const { RefCell::new(None) };
    /// Whether that env's scope is active now.
    static ACTIVE: Cell<bool> = const { Cell::new(false) };
    /// Whom the value goes to, where that matters: for envs that do not listen.
    static TO: RefCell<Option<To>> = const { RefCell::new(None) };
}

/// Whom a value is encoded for.
#[derive(Clone)]
pub(crate) enum To {
    Target(Arc<dyn RemoteTarget>),
    Origin(Arc<dyn Origin>),
}

impl To {
    fn relay(&self) -> Option<RpcAddress> {
        match self {
            Self::Target(target) => target.relay(),
            Self::Origin(origin) => origin.relay(),
        }
    }
}

/// As [`within`], for a value that goes to another env.
pub(crate) fn within_for<R>(core: &EnvCore, to: impl FnOnce() -> To, f: impl FnOnce() -> R) -> R {
    if core.address().is_some() {
        return within(core, f);
    }
    let _restore = RestoreTo(TO.replace(Some(to())));
    within(core, f)
}

struct RestoreTo(Option<To>);

impl Drop for RestoreTo {
    fn drop(&mut self) {
        // What was there is dropped outside of the cell.
        let _over = TO.replace(self.0.take());
    }
}

/// Who passes messages on to an endpoint of an env that does not listen, as others are told:
/// this env, if it listens, or whom the message goes to, if the endpoint is here.
pub(crate) fn relay_for(location: &EndpointLocation) -> Option<RpcAddress> {
    let binder = KNOWN.with_borrow(|known| known.as_ref().and_then(Weak::upgrade))?;
    match binder.location() {
        EndpointLocation::Listening(own) => Some(own.clone()),
        own if own == location => {
            let to = TO.with_borrow(Clone::clone);
            to.and_then(|to| to.relay())
        }
        _ => None,
    }
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
pub(crate) fn bind(
    address: EndpointAddress,
    pin: Option<Incarnation>,
    relay: Option<RpcAddress>,
) -> Result<Opaque, RpcError> {
    require("decoded")?;
    let binder = KNOWN.with_borrow(|known| known.as_ref().and_then(Weak::upgrade));
    let binder = binder
        .ok_or_else(|| RpcError::new(ErrorKind::EnvStopped, "the RpcEnv has been stopped"))?;
    binder.bind(address, pin, relay)
}
