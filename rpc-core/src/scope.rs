//! For which env the current thread codes and decodes: entered around synchronous stretches only.

use crate::address::{EndpointAddress, EndpointLocation, RpcAddress};
use crate::core::{EnvCore, Opaque, Owner};
use crate::error::{ErrorKind, RpcError};
use crate::seam::{Incarnation, Origin, RemoteTarget};
use std::cell::{Cell, RefCell};
use std::ptr;
use std::sync::{Arc, Weak};

thread_local! {
    /// The env last entered; kept so that entering it again touches no shared counter.
    static KNOWN: RefCell<Option<Weak<dyn Owner>>> = const { RefCell::new(None) };
    /// Which one that is: what is known cannot be another one at the same place.
    static PLACE: Cell<*const ()> = const { Cell::new(ptr::null()) };
    /// Whether that env's scope is active now.
    static ACTIVE: Cell<bool> = const { Cell::new(false) };
    /// Whom the value goes to, where that matters: for envs that do not listen. As with `KNOWN`, it
    /// stays when the scope ends, and counts only within one.
    static TO: RefCell<Option<To>> = const { RefCell::new(None) };
    /// Whether there is such a one now.
    static ADDRESSED: Cell<bool> = const { Cell::new(false) };
}

/// Whom a value is encoded for.
#[derive(Clone)]
enum To {
    Target(Weak<dyn RemoteTarget>),
    Origin(Weak<dyn Origin>),
}

/// The same, borrowed.
#[derive(Clone, Copy)]
pub(crate) enum For<'a> {
    Target(&'a Arc<dyn RemoteTarget>),
    Origin(&'a Arc<dyn Origin>),
}

impl To {
    fn relay(&self) -> Option<RpcAddress> {
        match self {
            Self::Target(target) => target.upgrade()?.relay(),
            Self::Origin(origin) => origin.upgrade()?.relay(),
        }
    }

    fn is(&self, whom: For<'_>) -> bool {
        match (self, whom) {
            (Self::Target(known), For::Target(target)) => {
                ptr::addr_eq(known.as_ptr(), Arc::as_ptr(target))
            }
            (Self::Origin(known), For::Origin(origin)) => {
                ptr::addr_eq(known.as_ptr(), Arc::as_ptr(origin))
            }
            _ => false,
        }
    }
}

impl From<For<'_>> for To {
    fn from(whom: For<'_>) -> Self {
        match whom {
            For::Target(target) => Self::Target(Arc::downgrade(target)),
            For::Origin(origin) => Self::Origin(Arc::downgrade(origin)),
        }
    }
}

/// As [`within`], for a value that goes to another env.
pub(crate) fn within_for<R>(core: &EnvCore, whom: For<'_>, f: impl FnOnce() -> R) -> R {
    if core.address().is_some() {
        return within(core, f);
    }
    // One that is known costs no shared counter.
    let same = TO.with_borrow(|to| to.as_ref().is_some_and(|to| to.is(whom)));
    let before = if same { None } else { TO.replace(Some(whom.into())) };
    let addressed = Addressed(ADDRESSED.replace(true));
    if same || !addressed.0 {
        return within(core, f);
    }
    // Only an outer scope needs its own back.
    let _restore = RestoreTo(before);
    within(core, f)
}

/// Whether somebody was addressed before.
struct Addressed(bool);

impl Drop for Addressed {
    fn drop(&mut self) {
        ADDRESSED.set(self.0);
    }
}

/// Who was addressed before.
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
    let owner = KNOWN.with_borrow(|known| known.as_ref().and_then(Weak::upgrade))?;
    match owner.location() {
        EndpointLocation::Listening(own) => Some(own.clone()),
        own if own == location => {
            let to = if ADDRESSED.get() { TO.with_borrow(Clone::clone) } else { None };
            to.and_then(|to| to.relay())
        }
        _ => None,
    }
}

/// Runs `f`, which codes or decodes, within the scope of an env: refs in values belong to it.
pub(crate) fn within<R>(core: &EnvCore, f: impl FnOnce() -> R) -> R {
    // Numbers of envs say nothing here: each local world counts its own.
    let place = core.owner().map_or(ptr::null(), |owner| owner.as_ptr().cast());
    let same = place == PLACE.get();
    let known = if same { None } else { know(core.owner().cloned()) };
    let active = Active(ACTIVE.replace(true));
    if same || !active.0 {
        return f();
    }
    // Only an outer scope needs its env back; otherwise the new one stays known.
    let _restore = Restore(known);
    f()
}

/// Keeps an env; what was known before.
fn know(owner: Option<Weak<dyn Owner>>) -> Option<Weak<dyn Owner>> {
    PLACE.set(owner.as_ref().map_or(ptr::null(), |owner| owner.as_ptr().cast()));
    KNOWN.replace(owner)
}

/// Whether a scope was active before.
struct Active(bool);

impl Drop for Active {
    fn drop(&mut self) {
        ACTIVE.set(self.0);
    }
}

/// The env that was known before.
struct Restore(Option<Weak<dyn Owner>>);

impl Drop for Restore {
    fn drop(&mut self) {
        know(self.0.take());
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
    let owner = KNOWN.with_borrow(|known| known.as_ref().and_then(Weak::upgrade));
    let owner =
        owner.ok_or_else(|| RpcError::new(ErrorKind::EnvStopped, "the RpcEnv has been stopped"))?;
    owner.bind(address, pin, relay)
}
