//! What the env, its backend and its network are to each other: object-safe, and free of any
//! runtime's types. Backends see it as [`spi`](crate::spi).

use crate::address::{EndpointAddress, EndpointLocation, RpcAddress};
use crate::call_alarm::CallAlarm;
use crate::config::RpcEnvConfig;
use crate::deadline::Timestamp;
use crate::error::{ErrorKind, RpcError};
use crate::message::Lane;
use crate::remote_failure::RemoteFailure;
use crate::termination::Termination;
use crate::trace::TraceContext;
use crate::wire::encoded::Encoded;
use bytes::Bytes;
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

/// A boxed future that may move between threads.
pub type BoxFuture<T> = Pin<Box<dyn Future<Output = T> + Send>>;

/// A boxed future that stays on its thread.
pub type LocalBoxFuture<T> = Pin<Box<dyn Future<Output = T>>>;

/// What runs an env: where endpoints live, what time it is, and how to reach other envs.
pub trait EnvBackend: Send + Sync {
    /// The name of the factory that made it, for messages to people.
    fn kind(&self) -> &'static str;

    /// Now, on a monotonic clock that starts when the env does.
    fn now(&self) -> Timestamp;

    /// The tick of a clock that is cheap to read, which changes every few milliseconds: while it is the
    /// same, hardly any time has gone by. Without it the time is read for each ask that is begun.
    fn tick(&self) -> Option<u64> {
        None
    }

    /// Runs an endpoint until its task ends, on the thread the placement says. Dropping the task
    /// ends the endpoint without its `on_stop`.
    ///
    /// # Errors
    /// When the env's threads are gone.
    fn spawn(&self, task: EndpointTask) -> Result<(), RpcError>;

    /// The next deadline of the env's timers has become `at`: call `EnvCore::fire_timers` then.
    /// Called rarely: only when the earliest deadline moves forward in time.
    fn arm_timer(&self, at: Timestamp);

    /// A way to the endpoint at an address of another env.
    ///
    /// # Errors
    /// When the address cannot be reached by construction: no network, or no security for it.
    fn remote(
        &self,
        address: &EndpointAddress,
        pin: Option<Incarnation>,
    ) -> Result<Arc<dyn RemoteTarget>, RpcError>;

    /// As [`remote`](Self::remote), for an endpoint of an env that does not listen: `relay` is
    /// where an env listens that is connected to it, and passes messages on.
    ///
    /// # Errors
    /// As [`remote`](Self::remote).
    fn remote_through(
        &self,
        address: &EndpointAddress,
        pin: Option<Incarnation>,
        relay: Option<&RpcAddress>,
    ) -> Result<Arc<dyn RemoteTarget>, RpcError> {
        let _ = relay;
        self.remote(address, pin)
    }

    /// Why this thread must not block on a reply, if it must not.
    fn refuses_blocking(&self) -> Option<String> {
        None
    }

    /// Gives a backend without threads of its own the chance to run endpoints on the thread that
    /// polls for a reply. `cx` is woken when there is more to run.
    fn drive(&self, cx: &mut Context<'_>) {
        let _ = cx;
    }

    /// Somebody wants to see what the env has counted: what was counted under the backend's locks is
    /// to be added to [`EnvCore::tally`](crate::spi::EnvCore::tally) now.
    fn settle_counts(&self) {}

    /// Whether an endpoint's loop, which [`spawn`](Self::spawn) has put on a thread, may be polled by
    /// another task of that thread as well. An ask whose endpoint has nothing to do is then handled
    /// where it is awaited. Nothing changes for the endpoint's own task: what the loop waits for
    /// wakes that one.
    fn polls_in_place(&self) -> bool {
        false
    }

    /// An endpoint has had its turn, or some short ones, of `rpc.dispatcher.yieldAfter` messages: wakes
    /// `cx` when the others of its thread, and what comes from outside, had theirs.
    fn yield_now(&self, cx: &mut Context<'_>) {
        cx.waker().wake_by_ref();
    }

    /// Begins to close connections and to end threads: the env has stopped its endpoints. When
    /// that is done the backend calls [`EnvCore::terminated`](crate::spi::EnvCore::terminated).
    fn close(&self);
}

/// An endpoint that waits for its thread.
#[must_use = "dropping an endpoint's task ends the endpoint"]
pub struct EndpointTask {
    pub(crate) name: String,
    pub(crate) isolated: bool,
    pub(crate) start: Box<dyn FnOnce() -> LocalBoxFuture<()> + Send>,
}

impl EndpointTask {
    /// The endpoint's name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Whether the endpoint asked for a thread of its own.
    #[must_use]
    pub fn isolated(&self) -> bool {
        self.isolated
    }

    /// The same, keeping `guard` until the endpoint has ended.
    pub fn keeping<T: Send + 'static>(self, guard: T) -> Self {
        let start = self.start;
        let start = move || -> LocalBoxFuture<()> {
            let run = start();
            Box::pin(async move {
                run.await;
                drop(guard);
            })
        };
        Self { name: self.name, isolated: self.isolated, start: Box::new(start) }
    }

    /// Builds the endpoint on this thread; the future runs it from `on_start` to `on_stop`.
    #[must_use]
    pub fn start(self) -> LocalBoxFuture<()> {
        (self.start)()
    }
}

impl fmt::Debug for EndpointTask {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EndpointTask")
            .field("name", &self.name)
            .field("isolated", &self.isolated)
            .finish_non_exhaustive()
    }
}

/// Which life of which env's endpoint: never used twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct Incarnation {
    /// The env, new at each start.
    pub env: u64,
    /// The endpoint, counted within the env.
    pub endpoint: u64,
}

impl Incarnation {
    /// Names the life of an endpoint.
    #[must_use]
    pub fn new(env: u64, endpoint: u64) -> Self {
        Self { env, endpoint }
    }
}

/// A message on its way to another env, encoded.
#[derive(Debug)]
#[non_exhaustive]
pub struct Outgoing<'a> {
    /// The message's wire name.
    pub name: &'static str,
    /// Its lane.
    pub lane: Lane,
    /// Its body; a large one may be taken out, a small one is copied.
    pub body: &'a mut Encoded,
    /// When its caller stops waiting.
    pub deadline: Timestamp,
    /// The trace that it belongs to.
    pub trace: Option<TraceContext>,
    /// When it was made, if somebody has looked: the clock is read once per message at most.
    pub made: Option<Timestamp>,
}

impl<'a> Outgoing<'a> {
    /// A message for [`RemoteTarget`].
    pub fn new(name: &'static str, lane: Lane, body: &'a mut Encoded, deadline: Timestamp) -> Self {
        Self { name, lane, body, deadline, trace: None, made: None }
    }

    /// The same, as part of a trace.
    #[must_use]
    pub fn traced(mut self, trace: Option<TraceContext>) -> Self {
        self.trace = trace;
        self
    }
}

/// An endpoint of another env, as its senders reach it.
pub trait RemoteTarget: Send + Sync {
    /// Queues a one-way message, without waiting.
    ///
    /// # Errors
    /// `Overloaded` when there is no room, `TooLarge`, or what ended the way to the peer.
    fn send(&self, message: &mut Outgoing<'_>) -> Result<(), RpcError>;

    /// Queues a one-way message that waits for room. `None` if there is some; otherwise the call
    /// ends, with an empty body, when it has found some.
    ///
    /// # Errors
    /// As [`send`](Self::send), and `Overloaded` when too many are waiting already.
    fn send_wait(&self, message: &mut Outgoing<'_>) -> Result<Option<RemoteCall>, RpcError>;

    /// Queues an ask, in order behind what was queued before.
    ///
    /// # Errors
    /// As [`send_wait`](Self::send_wait).
    fn ask(&self, message: &mut Outgoing<'_>) -> Result<RemoteCall, RpcError>;

    /// Asks the peer whether the endpoint exists; the call ends with an empty body.
    ///
    /// # Errors
    /// As [`ask`](Self::ask).
    fn resolve(&self, deadline: Timestamp) -> Result<RemoteCall, RpcError>;

    /// A call that ends as [`CallEnd::Terminated`] when the endpoint has, whatever life of it the
    /// peer has now, or when the way to it is lost; or that fails because it is not there.
    ///
    /// # Errors
    /// As [`ask`](Self::ask); `Unsupported` of a backend that does not watch.
    fn watch(&self) -> Result<RemoteCall, RpcError> {
        let text = format!("{} cannot be watched: this backend does not", self.peer());
        Err(RpcError::new(ErrorKind::Unsupported, text))
    }

    /// As whose messages those of the endpoint's env are queued here: see [`Origin::env`]. What is
    /// said of the endpoint's end is queued behind them.
    fn whose(&self) -> Option<EndpointLocation> {
        None
    }

    /// Who is at the other end, for messages to people: the listening address, or the socket's.
    fn peer(&self) -> String;

    /// Where the env listens that messages go to first, if it does: through it this env can be
    /// reached, even if it does not listen itself.
    fn relay(&self) -> Option<RpcAddress> {
        None
    }
}

/// A call that another env is to answer.
#[derive(Clone)]
#[non_exhaustive]
pub struct RemoteCall {
    /// The table that holds it.
    pub calls: Arc<dyn RemoteCalls>,
    /// Its number there.
    pub id: u64,
    /// Whether the table keeps its deadline, and when it must be told of the time for that.
    pub(crate) kept: bool,
    pub(crate) alarm: Option<Timestamp>,
}

impl RemoteCall {
    /// Call number `id` of a table, which is told when its deadline is over.
    #[must_use]
    pub fn new(calls: Arc<dyn RemoteCalls>, id: u64) -> Self {
        Self { calls, id, kept: false, alarm: None }
    }

    /// The same of a table that keeps the deadlines of its calls itself, as it was given them with the
    /// messages. It must be told of the time at `alarm`, if that is before all alarms that it asked
    /// for: see [`RemoteCalls::expire_due`] and [`RemoteCalls::alarm`].
    #[must_use]
    pub fn keeping_time(mut self, alarm: Option<Timestamp>) -> Self {
        debug_assert!(self.calls.alarm().is_some(), "a table that keeps time has an alarm");
        (self.kept, self.alarm) = (true, alarm);
        self
    }
}

impl fmt::Debug for RemoteCall {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RemoteCall").field("id", &self.id).finish_non_exhaustive()
    }
}

/// The calls to one peer.
pub trait RemoteCalls: Expire {
    /// The reply, or why there is none. The waker is kept until then.
    fn poll(&self, id: u64, cx: &mut Context<'_>) -> Poll<Result<Bytes, CallEnd>>;

    /// The caller gives up: takes the call out of the queue, or tells the peer.
    fn abandon(&self, id: u64);

    /// Ends the calls whose deadline is over at `now`, which is far away when the env has ended; when
    /// to be called again. Of a table whose calls are [`keeping_time`](RemoteCall::keeping_time).
    fn expire_due(&self, now: Timestamp) -> Option<Timestamp> {
        let _ = now;
        None
    }

    /// Where such a table keeps the alarm that it has asked for: there is never more than one, and none
    /// without it.
    fn alarm(&self) -> Option<&CallAlarm> {
        None
    }
}

/// Why a call ended without a reply.
#[derive(Debug)]
#[non_exhaustive]
pub enum CallEnd {
    /// Its time was over.
    TimedOut {
        /// Whether it had left this process, or reached its endpoint.
        sent: bool,
    },
    /// Anything else.
    Failed(RpcError),
    /// What its callee reported, as it was said: of a call that is relayed for another env.
    Relayed(RemoteFailure),
    /// What a watch was for: the life of an endpoint is over, or the way to it is lost.
    Terminated {
        /// Which life of it, if that was known.
        incarnation: Option<Incarnation>,
        /// How.
        reason: Termination,
        /// What became of the way to it.
        cause: Option<RpcError>,
    },
}

impl CallEnd {
    /// The end of a call that its callee reports. That its time was over when its turn came is no
    /// failure of its own: the caller's timeout says how long it was and what controls it.
    pub(crate) fn reported(error: RpcError) -> Self {
        if error.is_timeout() && error.is_never_sent() {
            Self::TimedOut { sent: false }
        } else {
            Self::Failed(error)
        }
    }
}

/// Something with a deadline in the env's timers.
pub trait Expire: Send + Sync {
    /// The deadline of `id` is over.
    fn expire(&self, id: u64);

    /// What it is for will not begin. Nothing happens if it has.
    fn refuse(&self, error: &RpcError) {
        let _ = error;
    }
}

/// Where a message from another env came from: the way back.
pub trait Origin: Send + Sync {
    /// Sends the reply to call `id`.
    ///
    /// # Errors
    /// `TooLarge` if the peer does not take it; the call is still open.
    fn reply(&self, id: u64, body: &mut Encoded) -> Result<(), RpcError>;

    /// Sends a failure as the answer to call `id`.
    fn fail(&self, id: u64, error: &RpcError);

    /// Ready when the caller of `id` gave up or is gone. Until then the waker is kept: several tasks may
    /// wait, and come and go. `place` is `None` at first; what is put there is where the waker lies, for
    /// the next poll, and for [`forget`](Self::forget).
    fn poll_cancelled(&self, id: u64, place: &mut Option<usize>, cx: &mut Context<'_>) -> Poll<()>;

    /// Whoever has that place waits no more.
    fn forget(&self, id: u64, place: usize) {
        let _ = (id, place);
    }

    /// Whether the caller of `id` gave up or is gone.
    fn is_cancelled(&self, id: u64) -> bool;

    /// The endpoint took a message of `bytes` bytes out of its inbox: room for another.
    fn consumed(&self, bytes: usize);

    /// The same of several messages, by their bytes.
    fn consumed_together(&self, bytes: &mut dyn Iterator<Item = usize>) {
        bytes.for_each(|bytes| self.consumed(bytes));
    }

    /// The endpoint is gone, and how it ended.
    fn gone(&self, how: Termination);

    /// The sender's listening address, or its socket's if it does not listen.
    fn sender(&self) -> Option<&RpcAddress>;

    /// Which env the sender is: where it listens, or its number if it does not. What one env sends
    /// keeps its order by this, whatever connection it comes on.
    fn env(&self) -> Option<EndpointLocation> {
        self.sender().cloned().map(EndpointLocation::Listening)
    }

    /// Where the env listens that answers go to first, if it does; see [`RemoteTarget::relay`].
    fn relay(&self) -> Option<RpcAddress> {
        None
    }

    /// What the sender may send, for audits.
    #[cfg(feature = "audit")]
    fn granted(&self) -> Option<Granted> {
        None
    }
}

/// What an endpoint has granted to a peer and the peer has not used.
#[cfg(feature = "audit")]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Granted {
    /// The peer's env.
    pub env: u64,
    /// The number by which the peer knows the endpoint.
    pub number: u32,
    /// Messages and bytes. Bytes may be below zero by a message.
    pub left: (i64, i64),
}

#[cfg(feature = "audit")]
impl Granted {
    /// To that peer, for the endpoint of that number.
    #[must_use]
    pub fn new(env: u64, number: u32, left: (i64, i64)) -> Self {
        Self { env, number, left }
    }
}

/// What a factory hands to the env it makes, besides the backend.
#[derive(Debug)]
#[non_exhaustive]
pub struct EnvParts {
    /// The configuration, validated.
    pub config: RpcEnvConfig,
    /// A number that no other env has: random, or from the seed of a simulation.
    pub id: u64,
}

impl EnvParts {
    /// Names the env.
    #[must_use]
    pub fn new(config: RpcEnvConfig, id: u64) -> Self {
        Self { config, id }
    }
}
