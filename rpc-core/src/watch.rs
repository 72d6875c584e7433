//! Waiting for the end of an endpoint, here or elsewhere.

use crate::address::{EndpointAddress, EndpointLocation};
use crate::core::EnvCore;
use crate::error::{ErrorKind, RpcError};
use crate::inbox::{Inbox, Item, Kind, Phase};
use crate::raw_ref::RawRef;
use crate::seam::{Incarnation, RemoteCall, RemoteTarget};
use crate::terminated::{Ending, Terminated, WatchId};
use crate::turns::HERE;
use std::future::Future;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::task::{Context, Poll, Wake, Waker};

/// A watch that has begun. It holds neither the endpoint nor its env; dropped, it is over.
struct Watching {
    id: WatchId,
    address: EndpointAddress,
    pin: Option<Incarnation>,
    source: Source,
}

enum Source {
    Here {
        inbox: Arc<Inbox>,
        place: Option<u64>,
    },
    There {
        call: RemoteCall,
        target: Arc<dyn RemoteTarget>,
    },
    /// It is over before it has begun.
    Known(Option<Ending>),
}

impl Watching {
    fn new(endpoint: &RawRef, id: WatchId) -> Self {
        let found = endpoint.find().map(|inbox| inbox.map(std::borrow::Cow::into_owned));
        let source = match (found, endpoint.remote_target()) {
            (Ok(Some(inbox)), _) => Source::Here { inbox, place: None },
            (Ok(None), Some(target)) => match target.watch() {
                Ok(call) => Source::There { call, target: target.clone() },
                Err(error) => Source::Known(Some(Ending::failed(error))),
            },
            (Ok(None), None) => {
                let error = RpcError::new(ErrorKind::Internal, "the ref leads nowhere");
                Source::Known(Some(Ending::failed(error)))
            }
            (Err(error), _) => Source::Known(Some(Ending::failed(error))),
        };
        Self { id, address: endpoint.address().clone(), pin: endpoint.pin(), source }
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Terminated> {
        let ending = match &mut self.source {
            Source::Here { inbox, place } => match inbox.poll_ended(place, cx) {
                Poll::Ready(how) => Ending::known(inbox.incarnation(), how),
                Poll::Pending => return Poll::Pending,
            },
            Source::There { call, .. } => match call.calls.poll(call.id, cx) {
                Poll::Ready(Ok(_)) => {
                    let text = "the end of a watch came without a reason";
                    Ending::failed(RpcError::new(ErrorKind::Internal, text))
                }
                Poll::Ready(Err(end)) => Ending::from(end),
                Poll::Pending => return Poll::Pending,
            },
            Source::Known(ending) => match ending.take() {
                Some(ending) => ending,
                None => return Poll::Pending,
            },
        };
        let incarnation = ending.incarnation.or(self.pin);
        let Ending { reason, cause, .. } = ending;
        let (watch, address) = (self.id, self.address.clone());
        let source = std::mem::replace(&mut self.source, Source::Known(None));
        drop(source);
        Poll::Ready(Terminated { watch, address, incarnation, reason, cause })
    }

    /// As whose messages those of the endpoint's env come.
    fn whose(&self) -> Option<EndpointLocation> {
        match &self.source {
            Source::There { target, .. } => target.whose(),
            _ => None,
        }
    }
}

impl Drop for Source {
    fn drop(&mut self) {
        match self {
            Self::Here { inbox, place: Some(place) } => inbox.unwatched(*place),
            Self::There { call, .. } => call.calls.abandon(call.id),
            _ => {}
        }
    }
}

impl RawRef {
    /// Ready when the endpoint has ended; the watch begins now.
    pub(crate) fn terminated(&self) -> impl Future<Output = Terminated> + Send + use<> {
        let mut watching = Watching::new(self, WatchId::default());
        let core = self.core().ok();
        std::future::poll_fn(move |cx| {
            if let Some(backend) = core.as_deref().and_then(EnvCore::backend) {
                backend.drive(cx);
            }
            watching.poll(cx)
        })
    }
}

/// An endpoint's watch: whatever has news of it wakes this, and it tells the endpoint's inbox.
struct Watched {
    inbox: Weak<Inbox>,
    /// `None` when it is over.
    watching: Mutex<Option<Watching>>,
}

impl Watched {
    fn look(self: &Arc<Self>) {
        let waker = Waker::from(self.clone());
        let mut slot = self.watching.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(watching) = slot.as_mut() else { return };
        let whose = watching.whose();
        let Poll::Ready(event) = watching.poll(&mut Context::from_waker(&waker)) else { return };
        let over = slot.take();
        drop(slot);
        drop(over);
        if let Some(inbox) = self.inbox.upgrade() {
            inbox.watch_ended(event, whose.as_ref());
        }
    }
}

impl Wake for Watched {
    fn wake(self: Arc<Self>) {
        self.look();
    }
}

/// Held by the endpoint: the watch ends when this is dropped.
struct Held(Arc<Watched>);

impl Drop for Held {
    fn drop(&mut self) {
        // Whoever would wake it holds it, until it is taken back.
        let over = self.0.watching.lock().unwrap_or_else(PoisonError::into_inner).take();
        drop(over);
    }
}

impl Inbox {
    /// Begins to watch an endpoint for this one.
    ///
    /// # Errors
    /// `Overloaded` when it watches too many already.
    pub(crate) fn watch(self: &Arc<Self>, endpoint: &RawRef) -> Result<WatchId, RpcError> {
        let most = self.core().config().limits().max_watches();
        let mut state = self.lock();
        if state.watches.len() >= most {
            drop(state);
            return Err(RpcError::new(
                ErrorKind::Overloaded,
                format!(
                    "{} watches {most} endpoints already, those included whose end it has not heard of yet. This limit is controlled by rpc.dispatcher.maxWatches ({most})",
                    self.address()
                ),
            ));
        }
        let id = state.watches.next();
        drop(state);
        let watching = Mutex::new(Some(Watching::new(endpoint, id)));
        let watched = Arc::new(Watched { inbox: Arc::downgrade(self), watching });
        self.lock().watches.begin(id, Arc::new(Held(watched.clone())));
        watched.look();
        Ok(id)
    }

    /// Watches no more: nothing comes of it, even if it is queued already.
    pub(crate) fn unwatch(&self, id: WatchId) {
        let over = self.lock().watches.remove(id);
        drop(over);
    }

    /// The endpoint's value is gone, and a new one is to come: what the old one had set up for later
    /// is not for that.
    pub(crate) fn forget_value(&self) {
        self.behind.is_replaced();
        let watches = self.lock().watches.clear();
        drop(watches);
    }

    /// A watch has ended: that is queued behind what came from the endpoint's env, or from
    /// this one.
    fn watch_ended(&self, event: Terminated, env: Option<&EndpointLocation>) {
        let mut state = self.open();
        let watch = event.watch;
        if state.phase == Phase::Open && state.watches.ended(event) {
            let item = Item { kind: Kind::Terminated(watch), bytes: 0, trace: None };
            match env {
                Some(env) => state.queue.push_about(env, item),
                None => state.queue.push(HERE, item),
            }
            self.wake(state);
        }
    }
}
