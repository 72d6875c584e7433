//! In which endpoint's handler the current thread is.

use crate::inbox::Inbox;
use std::cell::RefCell;
use std::sync::Arc;

thread_local! {
    static HANDLER: RefCell<Option<Arc<Inbox>>> = const { RefCell::new(None) };
}

/// Enters or leaves an endpoint's handlers on this thread: swaps `inbox` with the current one.
pub(crate) fn swap_handler(inbox: &mut Option<Arc<Inbox>>) {
    HANDLER.with_borrow_mut(|current| std::mem::swap(current, inbox));
}

/// Looks at the endpoint whose handler this thread is in.
pub(crate) fn with_handler<R>(f: impl FnOnce(Option<&Arc<Inbox>>) -> R) -> R {
    HANDLER.with_borrow(|current| f(current.as_ref()))
}
