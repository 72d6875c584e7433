//! The trait behind `#[endpoint]`, as it can be written by hand.

use crate::address::RpcAddress;
use crate::call_context::RpcCallContext;
use crate::context::EndpointContext;
use crate::error::RpcError;
use crate::handlers::{HandlerSet, sealed};
use crate::raw::{HandlerResult, RawMessage, RawReply};
use crate::terminated::Terminated;
use std::future::Future;

/// State with handlers, one message at a time.
///
/// Usually written by `#[endpoint]`. Its life is exactly: constructor, [`on_start`](Self::on_start),
/// messages, [`on_stop`](Self::on_stop). A handler holds the endpoint until its future is done,
/// across awaits, so fields need no locks; work that takes long replies later, through an
/// [`RpcCallContext`] moved to another task.
///
/// A panic or an error in a handler costs that one call: the caller is told,
/// [`on_error`](Self::on_error) is called, and the next message is handled. After a panic its
/// [`PanicPolicy`](crate::PanicPolicy) may want something else.
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not an RPC endpoint",
    label = "not an `RpcEndpoint`",
    note = "put `#[endpoint]` on an `impl {Self} {{ .. }}` block with its handlers"
)]
#[expect(unused_variables, reason = "the names of default arguments are documentation")]
pub trait RpcEndpoint: Sized + 'static {
    /// The typed handlers: a tuple of [`Receives`](crate::Receives), [`Replies`](crate::Replies)
    /// and [`RepliesLater`](crate::RepliesLater).
    type Handlers: HandlerSet<Self>;

    /// Whether the endpoint gets network events. The macro sets it when one of the three hooks
    /// is there; other endpoints are not woken for them.
    const NETWORK_EVENTS: bool = false;

    /// Runs before any message. An error stops the endpoint: its name is free again and
    /// `setup_endpoint` returns the error.
    fn on_start(
        &mut self,
        cx: &mut EndpointContext<Self>,
    ) -> impl Future<Output = HandlerResult<()>> {
        async { Ok(()) }
    }

    /// Runs last, after every message that was taken before the stop.
    fn on_stop(
        &mut self,
        cx: &mut EndpointContext<Self>,
    ) -> impl Future<Output = HandlerResult<()>> {
        async { Ok(()) }
    }

    /// Called with every error and panic of the other methods. By default it passes the error on
    /// to the env, which logs and counts it.
    fn on_error(
        &mut self,
        error: RpcError,
        cx: &mut EndpointContext<Self>,
    ) -> impl Future<Output = HandlerResult<()>> {
        cx.report(&error);
        async { Ok(()) }
    }

    /// A one-way message that no typed handler takes.
    fn receive(
        &mut self,
        msg: RawMessage,
        cx: &mut EndpointContext<Self>,
    ) -> impl Future<Output = HandlerResult<()>> {
        let error = cx.unsupported(&msg, true);
        async { Err(error) }
    }

    /// An ask that no typed handler takes.
    fn receive_and_reply(
        &mut self,
        msg: RawMessage,
        call: RpcCallContext<RawReply>,
        cx: &mut EndpointContext<Self>,
    ) -> impl Future<Output = HandlerResult<()>> {
        let error = cx.unsupported(&msg, false);
        async { Err(error) }
    }

    /// An endpoint that this one [watches](EndpointContext::watch) has ended, or its env is lost.
    fn on_terminated(
        &mut self,
        event: Terminated,
        cx: &mut EndpointContext<Self>,
    ) -> impl Future<Output = HandlerResult<()>> {
        async { Ok(()) }
    }

    /// A peer is connected: its listening address, or its socket address if it does not listen.
    fn on_connected(
        &mut self,
        peer: &RpcAddress,
        cx: &mut EndpointContext<Self>,
    ) -> impl Future<Output = HandlerResult<()>> {
        async { Ok(()) }
    }

    /// The connection to a peer is gone.
    fn on_disconnected(
        &mut self,
        peer: &RpcAddress,
        cx: &mut EndpointContext<Self>,
    ) -> impl Future<Output = HandlerResult<()>> {
        async { Ok(()) }
    }

    /// The connection to a peer broke; [`on_disconnected`](Self::on_disconnected) follows.
    fn on_network_error(
        &mut self,
        cause: &RpcError,
        peer: &RpcAddress,
        cx: &mut EndpointContext<Self>,
    ) -> impl Future<Output = HandlerResult<()>> {
        async { Ok(()) }
    }
}

// An endpoint may be its own set, naming its handlers in function bodies only, so that they may
// take messages that are less visible than the endpoint.
impl<E: RpcEndpoint> sealed::Sealed for E {}
