//! What an endpoint sends to itself later, on the env's clock.

use crate::core::EnvCore;
use crate::deadline::Timestamp;
use crate::gate::Gate;
use crate::inbox::Inbox;
use crate::local_call::Tell;
use crate::message::OneWay;
use crate::quiet::{drop_quietly, quietly};
use crate::seam::Expire;
use crate::ticket::Ticket;
use crate::timers::TimerKey;
use crate::trace::TraceContext;
use crate::turn;
use std::any::type_name;
use std::fmt;
use std::future::Future;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

/// A message to come, from [`EndpointContext::send_after`](crate::EndpointContext::send_after) or
/// [`send_every`](crate::EndpointContext::send_every). Dropping it changes nothing.
#[derive(Clone)]
pub struct ScheduledSend(Arc<dyn Cancel>);

trait Cancel: Send + Sync {
    fn cancel(&self);
}

impl ScheduledSend {
    /// Takes the message back. One that is in the endpoint's inbox already is handled.
    pub fn cancel(&self) {
        self.0.cancel();
    }
}

impl fmt::Debug for ScheduledSend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ScheduledSend").finish_non_exhaustive()
    }
}

/// How the next message is made: once by giving it away, or each time anew.
enum Source<M> {
    Once(Option<M>),
    Every { make: Box<dyn FnMut() -> M + Send>, period: Duration },
}

struct Schedule<M> {
    me: Weak<Self>,
    core: Weak<EnvCore>,
    inbox: Weak<Inbox>,
    /// Which value of the endpoint wanted it: the next one begins anew.
    value: u32,
    /// What a single message is part of. Those that come again are nobody's.
    trace: Option<TraceContext>,
    state: Mutex<State<M>>,
}

struct State<M> {
    /// `None` when it is over.
    source: Option<Source<M>>,
    due: Timestamp,
    timer: Option<TimerKey>,
    /// The one before, while it is in the inbox.
    last: Weak<Ticket>,
}

/// Sends `msg` to the endpoint once `delay` is over.
pub(crate) fn after<M: OneWay>(inbox: &Arc<Inbox>, delay: Duration, msg: M) -> ScheduledSend {
    schedule(inbox, delay, Source::Once(Some(msg)))
}

/// Sends what `make` makes whenever another `period` is over.
pub(crate) fn every<M: OneWay>(
    inbox: &Arc<Inbox>,
    period: Duration,
    make: impl FnMut() -> M + Send + 'static,
) -> ScheduledSend {
    // A period of nothing would keep the clock from going on.
    let period = period.max(SHORTEST_PERIOD);
    schedule(inbox, period, Source::Every { make: Box::new(make), period })
}

const SHORTEST_PERIOD: Duration = Duration::from_millis(1);

fn schedule<M: OneWay>(inbox: &Arc<Inbox>, delay: Duration, source: Source<M>) -> ScheduledSend {
    let core = inbox.core();
    let due = core.now().saturating_add(delay);
    let trace = if let Source::Once(_) = source { turn::trace() } else { None };
    let state = State { source: Some(source), due, timer: None, last: Weak::new() };
    let schedule = Arc::new_cyclic(|me| Schedule {
        me: me.clone(),
        core: Arc::downgrade(core),
        inbox: Arc::downgrade(inbox),
        value: inbox.behind.restarts(),
        trace,
        state: Mutex::new(state),
    });
    schedule.arm(core, due);
    ScheduledSend(schedule)
}

impl<M: OneWay> Schedule<M> {
    fn lock(&self) -> MutexGuard<'_, State<M>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn arm(&self, core: &EnvCore, due: Timestamp) {
        if let Some(me) = self.me.upgrade() {
            let timer = core.add_timer(due, me, 0);
            self.lock().timer = Some(timer);
        }
    }

    /// The message of this time, if there is one, and when to come again.
    fn next(&self, now: Timestamp) -> (Option<M>, Option<Timestamp>) {
        let mut state = self.lock();
        let (due, waits) = (state.due, state.last.strong_count() > 0);
        match &mut state.source {
            Some(Source::Once(msg)) => (msg.take(), None),
            Some(Source::Every { make, period }) => {
                // An endpoint that is behind gets no pile of them, and neither does a clock that
                // has jumped.
                let msg = if waits { None } else { quietly(M::NAME, make) };
                let next = due.saturating_add(*period);
                let next = if next > now { next } else { now.saturating_add(*period) };
                state.due = next;
                (msg, Some(next))
            }
            None => (None, None),
        }
    }
}

// What users' code does here, it does on the thread that keeps everybody's time.
impl<M: OneWay> Expire for Schedule<M> {
    fn expire(&self, _id: u64) {
        let (Some(core), Some(inbox)) = (self.core.upgrade(), self.inbox.upgrade()) else { return };
        if !inbox.is_open() || inbox.behind.restarts() != self.value {
            self.cancel();
            return;
        }
        let (msg, next) = self.next(core.now());
        if let Some(msg) = msg {
            // With a ticket it takes its place even if the inbox is full.
            let ticket = Arc::new(Ticket::default());
            let (tell, trace) = (Box::new(Tell(msg)), self.trace.clone());
            let forever = Timestamp::MAX;
            let told = quietly(M::NAME, || {
                inbox.tell_in_turn(tell, size_of::<M>(), ticket.clone(), forever, trace)
            });
            match told {
                Some(Ok(())) => self.lock().last = Arc::downgrade(&ticket),
                Some(Err(error)) => {
                    tracing::warn!(message = M::NAME, %error, "a scheduled message was lost")
                }
                None => {}
            }
        }
        if let Some(next) = next {
            self.arm(&core, next);
        }
    }
}

impl<M: OneWay> Cancel for Schedule<M> {
    fn cancel(&self) {
        let mut state = self.lock();
        let (source, timer) = (state.source.take(), state.timer.take());
        drop(state);
        if let (Some(timer), Some(core)) = (timer, self.core.upgrade()) {
            core.cancel_timer(timer);
        }
        drop_quietly(M::NAME, source);
    }
}

impl<M> Drop for Schedule<M> {
    fn drop(&mut self) {
        let state = self.state.get_mut().unwrap_or_else(PoisonError::into_inner);
        drop_quietly(type_name::<M>(), state.source.take());
    }
}

/// Ready when `delay` is over on the env's clock, or when the env has ended.
pub(crate) fn sleep(
    core: &Arc<EnvCore>,
    delay: Duration,
) -> impl Future<Output = ()> + Send + use<> {
    struct Alarm(Gate<()>);

    impl Expire for Alarm {
        fn expire(&self, _id: u64) {
            self.0.open(());
        }
    }

    /// Takes the timer back when the future is dropped.
    struct Armed {
        core: Arc<EnvCore>,
        timer: TimerKey,
    }

    impl Drop for Armed {
        fn drop(&mut self) {
            self.core.cancel_timer(self.timer);
        }
    }

    let alarm = Arc::new(Alarm(Gate::default()));
    let timer = core.add_timer(core.now().saturating_add(delay), alarm.clone(), 0);
    let armed = Armed { core: core.clone(), timer };
    std::future::poll_fn(move |cx| {
        if let Some(backend) = armed.core.backend() {
            backend.drive(cx);
        }
        alarm.0.poll(cx)
    })
}
