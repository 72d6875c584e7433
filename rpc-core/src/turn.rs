//! In which endpoint's handler the current thread is.

use crate::inbox::Inbox;
use std::cell::RefCell;
use std::sync::Arc;

thread_local! {
    static HANDLER: RefCell<Option<Arc<Inbox>>> = const { RefCell::new(None) };
}

/// Enters an endpoint's handlers on this thread, until what this returns is dropped, panic or not.
pub(crate) fn enter(inbox: Arc<Inbox>) -> Inside {
    Inside { before: HANDLER.replace(Some(inbox)) }
}

#[must_use = "the handler is left again when this is dropped"]
pub(crate) struct Inside {
    before: Option<Arc<Inbox>>,
}

impl Drop for Inside {
    fn drop(&mut self) {
        drop(HANDLER.replace(self.before.take()));
    }
}

/// Looks at the endpoint whose handler this thread is in.
pub(crate) fn with_handler<R>(f: impl FnOnce(Option<&Arc<Inbox>>) -> R) -> R {
    HANDLER.with_borrow(|current| f(current.as_ref()))
}
