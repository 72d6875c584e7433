//! Users' code, and what a panic in it is: an error of the one call, never of the thread.

use crate::beat::message_of;
use crate::counters::Count;
use crate::error::{ErrorKind, RpcError};
use crate::inbox::Inbox;
use crate::quiet::drop_quietly;
use crate::raw::{HandlerError, HandlerResult};
use std::any::Any;
use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::task::{Context, Poll};

/// Runs a hook to its end, however long that takes; a panic becomes an error.
pub(crate) async fn guarded(
    what: &str,
    inbox: &Inbox,
    future: impl Future<Output = HandlerResult<()>>,
) -> Result<(), RpcError> {
    let mut future = std::pin::pin!(future);
    std::future::poll_fn(|cx| poll_guarded(what, inbox, future.as_mut(), cx)).await
}

/// An error's own text is user code as well.
fn poll_guarded(
    what: &str,
    inbox: &Inbox,
    future: Pin<&mut impl Future<Output = HandlerResult<()>>>,
    cx: &mut Context<'_>,
) -> Poll<Result<(), RpcError>> {
    let poll = || future.poll(cx).map_err(HandlerError::into_rpc);
    let polled = catch_unwind(AssertUnwindSafe(poll));
    polled.unwrap_or_else(|panic| {
        note_panic(inbox);
        Poll::Ready(Err(panicked(what, inbox, panic)))
    })
}

fn note_panic(inbox: &Inbox) {
    inbox.core().tally().count(Count::Panics);
    inbox.behind.note_panic();
}

/// Drops a handler that still runs some time after the drain deadline: one that never ends must not
/// keep an env from ending. The endpoint is over then, so that nobody sees what is left of its state
/// but its own `on_stop`.
pub(crate) fn poll_handler(
    what: &str,
    inbox: &Inbox,
    handler: Pin<&mut impl Future<Output = HandlerResult<()>>>,
    cx: &mut Context<'_>,
) -> Poll<Result<(), RpcError>> {
    let polled = poll_guarded(what, inbox, handler, cx);
    if polled.is_ready() {
        return polled;
    }
    inbox.poll_overdue(cx).map(|()| Err(inbox.overdue(what)))
}

/// Runs a handler, or a hook, that is dropped in this way.
pub(crate) async fn bounded(
    what: &str,
    inbox: &Inbox,
    future: impl Future<Output = HandlerResult<()>>,
) -> Result<(), RpcError> {
    let mut future = std::pin::pin!(future);
    std::future::poll_fn(|cx| poll_handler(what, inbox, future.as_mut(), cx)).await
}

/// Makes an endpoint.
pub(crate) fn construct<E>(
    inbox: &Inbox,
    make: impl FnOnce() -> Option<E>,
) -> Result<Value<E>, RpcError> {
    catch_unwind(AssertUnwindSafe(make)).map(Value).map_err(|panic| {
        note_panic(inbox);
        panicked("constructor", inbox, panic)
    })
}

fn panicked(what: &str, inbox: &Inbox, panic: Box<dyn Any + Send>) -> RpcError {
    let text = panic
        .downcast_ref::<&str>()
        .copied()
        .or_else(|| panic.downcast_ref::<String>().map(String::as_str))
        .unwrap_or("a panic without a text");
    let at = match message_of(inbox) {
        Some(message) => format!("{message} at {}", inbox.address()),
        None => inbox.address().to_string(),
    };
    let text = format!("{what} panicked: {text} ({at})");
    let error = RpcError::new(ErrorKind::HandlerPanicked, text);
    // What it was called with is a value of users, too.
    drop_quietly("a panic's value", panic);
    error
}

/// An endpoint's value. A panic in its destructor ends here, even if the destructor runs because of
/// another one.
pub(crate) struct Value<E>(Option<E>);

impl<E> Value<E> {
    /// `None` never happens before the value is dropped.
    pub(crate) fn get(&mut self) -> Option<&mut E> {
        self.0.as_mut()
    }
}

impl<E> Drop for Value<E> {
    fn drop(&mut self) {
        let endpoint = self.0.take();
        drop_quietly(std::any::type_name::<E>(), endpoint);
    }
}
