//! From a message to the handler that takes it, without a table of boxed closures: the handlers
//! of an endpoint are a tuple type, and dispatch is a `match` that the compiler sees through.

use crate::call_context::{ReplyKind, RpcCallContext};
use crate::context::EndpointContext;
use crate::delivery::HandlerInfo;
use crate::local_call::{LocalCall, Taken};
use crate::message::{Ask, OneWay, RpcMessage};
use crate::raw::HandlerResult;
use std::any::TypeId;
use std::future::Future;
use std::marker::PhantomData;

/// Takes the one-way message `M`.
pub trait Receive<M: OneWay>: Sized {
    /// Handles one message. The endpoint is held until the future is done, across awaits.
    fn handle(
        &mut self,
        msg: M,
        cx: &mut EndpointContext<Self>,
    ) -> impl Future<Output = HandlerResult<()>>;
}

/// Takes the ask `M` and returns its answer.
pub trait ReceiveAndReply<M: Ask>: Sized {
    /// Handles one ask; what it returns is sent to the caller, an error as a failure.
    fn handle_and_reply(
        &mut self,
        msg: M,
        cx: &mut EndpointContext<Self>,
    ) -> impl Future<Output = HandlerResult<M::Reply>>;
}

/// Takes the ask `M` and answers it through the call context, now or later, from anywhere.
pub trait ReceiveAndReplyLater<M: Ask>: Sized {
    /// Handles one ask. An error is sent to the caller unless `call` was answered before.
    fn handle_and_reply_later(
        &mut self,
        msg: M,
        call: RpcCallContext<M::Reply>,
        cx: &mut EndpointContext<Self>,
    ) -> impl Future<Output = HandlerResult<()>>;
}

/// The handlers of an endpoint: one of the markers below, or a tuple (of tuples) of them.
///
/// Sealed in effect: it is implemented for [`Receives`], [`Replies`], [`RepliesLater`] and tuples.
pub trait HandlerSet<E>: sealed::Sealed {
    /// How many handlers there are.
    const LEN: usize;
    /// Appends what senders need to know of each, in the order of dispatch.
    #[doc(hidden)]
    fn describe(into: &mut Vec<HandlerInfo>);
    /// Runs handler number `index` on the current message.
    #[doc(hidden)]
    fn dispatch(
        index: usize,
        endpoint: &mut E,
        cx: &mut EndpointContext<E>,
    ) -> impl Future<Output = HandlerResult<()>>;
}

pub(crate) mod sealed {
    #[expect(unnameable_types, reason = "that is what seals the trait")]
    pub trait Sealed {}
}

/// Marks that the endpoint implements [`Receive<M>`].
#[derive(Debug)]
pub struct Receives<M>(PhantomData<fn(M)>);

/// Marks that the endpoint implements [`ReceiveAndReply<M>`].
#[derive(Debug)]
pub struct Replies<M>(PhantomData<fn(M)>);

/// Marks that the endpoint implements [`ReceiveAndReplyLater<M>`].
#[derive(Debug)]
pub struct RepliesLater<M>(PhantomData<fn(M)>);

impl<M> sealed::Sealed for Receives<M> {}
impl<M> sealed::Sealed for Replies<M> {}
impl<M> sealed::Sealed for RepliesLater<M> {}

fn info<M: RpcMessage>(one_way: bool) -> HandlerInfo {
    HandlerInfo { name: M::NAME, type_id: TypeId::of::<M>(), one_way }
}

impl<E: Receive<M>, M: OneWay> HandlerSet<E> for Receives<M> {
    const LEN: usize = 1;

    fn describe(into: &mut Vec<HandlerInfo>) {
        into.push(info::<M>(true));
    }

    async fn dispatch(
        _index: usize,
        endpoint: &mut E,
        cx: &mut EndpointContext<E>,
    ) -> HandlerResult<()> {
        let msg = match cx.decode::<M>() {
            Ok(msg) => msg,
            Err(error) => return Err(cx.undecodable::<M>(&error)),
        };
        endpoint.handle(msg, cx).await
    }
}

impl<E: ReceiveAndReply<M>, M: Ask> HandlerSet<E> for Replies<M> {
    const LEN: usize = 1;

    fn describe(into: &mut Vec<HandlerInfo>) {
        into.push(info::<M>(false));
    }

    async fn dispatch(
        _index: usize,
        endpoint: &mut E,
        cx: &mut EndpointContext<E>,
    ) -> HandlerResult<()> {
        let msg = match cx.take_ask::<M>() {
            Taken::Message(msg) => msg,
            Taken::GivenUp => return Ok(()),
            Taken::Other => match cx.decode::<M>() {
                Ok(msg) => msg,
                Err(error) => return Err(cx.undecodable::<M>(&error)),
            },
        };
        let reply = if M::ABORT {
            let cancelled = cx.turn_cancelled();
            let handler = endpoint.handle_and_reply(msg, cx);
            match unless_cancelled(handler, cancelled).await {
                Some(reply) => reply?,
                None => {
                    cx.aborted();
                    return Ok(());
                }
            }
        } else {
            endpoint.handle_and_reply(msg, cx).await?
        };
        cx.reply::<M>(reply);
        Ok(())
    }
}

impl<E: ReceiveAndReplyLater<M>, M: Ask> HandlerSet<E> for RepliesLater<M> {
    const LEN: usize = 1;

    fn describe(into: &mut Vec<HandlerInfo>) {
        into.push(info::<M>(false));
    }

    async fn dispatch(
        _index: usize,
        endpoint: &mut E,
        cx: &mut EndpointContext<E>,
    ) -> HandlerResult<()> {
        let msg = match cx.take_ask::<M>() {
            Taken::Message(msg) => msg,
            Taken::GivenUp => return Ok(()),
            Taken::Other => match cx.decode::<M>() {
                Ok(msg) => msg,
                Err(error) => return Err(cx.undecodable::<M>(&error)),
            },
        };
        let kind = ReplyKind { message: Some(M::NAME), encoding: M::ENCODING };
        let call = cx.take_call::<M::Reply, LocalCall<M>>(kind)?;
        if !M::ABORT {
            return endpoint.handle_and_reply_later(msg, call, cx).await;
        }
        let cancelled = cx.turn_cancelled();
        let handler = endpoint.handle_and_reply_later(msg, call, cx);
        unless_cancelled(handler, cancelled).await.unwrap_or(Ok(()))
    }
}

/// The handler's result, or `None` when the caller gave up first.
async fn unless_cancelled<T>(
    handler: impl Future<Output = T>,
    cancelled: impl Future<Output = ()>,
) -> Option<T> {
    let mut handler = std::pin::pin!(handler);
    let mut cancelled = std::pin::pin!(cancelled);
    std::future::poll_fn(|cx| {
        if let std::task::Poll::Ready(done) = handler.as_mut().poll(cx) {
            return std::task::Poll::Ready(Some(done));
        }
        cancelled.as_mut().poll(cx).map(|()| None)
    })
    .await
}

macro_rules! tuples {
    ($( ($($set:ident),*) )*) => { $(
        impl<$($set: sealed::Sealed),*> sealed::Sealed for ($($set,)*) {}

        impl<Endpoint, $($set: HandlerSet<Endpoint>),*> HandlerSet<Endpoint> for ($($set,)*) {
            const LEN: usize = 0 $(+ $set::LEN)*;

            fn describe(_into: &mut Vec<HandlerInfo>) {
                $($set::describe(_into);)*
            }

            async fn dispatch(
                index: usize,
                _endpoint: &mut Endpoint,
                _cx: &mut EndpointContext<Endpoint>,
            ) -> HandlerResult<()> {
                let mut _index = index;
                $(
                    if _index < $set::LEN {
                        return $set::dispatch(_index, _endpoint, _cx).await;
                    }
                    _index = _index.wrapping_sub($set::LEN);
                )*
                Err(anyhow::anyhow!("no handler number {index}").into())
            }
        }
    )* };
}

tuples! {
    ()
    (A)
    (A, B)
    (A, B, C)
    (A, B, C, D)
    (A, B, C, D, E)
    (A, B, C, D, E, F)
    (A, B, C, D, E, F, G)
    (A, B, C, D, E, F, G, H)
    (A, B, C, D, E, F, G, H, I)
    (A, B, C, D, E, F, G, H, I, J)
    (A, B, C, D, E, F, G, H, I, J, K)
    (A, B, C, D, E, F, G, H, I, J, K, L)
}
