//! Users' code, where a panic of it must not end what goes on around it: it is logged.

use std::fmt::Display;
use std::panic::{AssertUnwindSafe, catch_unwind};

/// Drops what users made.
#[cold]
pub(crate) fn drop_quietly<T>(what: impl Display, dropped: T) {
    quietly(what, || drop(dropped));
}

/// Runs what users made, or what may drop it; nothing comes of it if it panics.
pub(crate) fn quietly<R>(what: impl Display, run: impl FnOnce() -> R) -> Option<R> {
    match catch_unwind(AssertUnwindSafe(run)) {
        Ok(result) => Some(result),
        Err(panic) => {
            // Its value may have a destructor that panics, and so on: it is leaked instead.
            std::mem::forget(panic);
            tracing::error!(%what, "panic in users' code, a destructor mostly");
            None
        }
    }
}
