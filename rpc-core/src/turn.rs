//! Whose turn it is: in which endpoint's handler the current thread is, who waits for it, and what
//! its own asks and sends inherit.

use crate::core::EnvCore;
use crate::deadline::Timestamp;
use crate::inbox::{Asker, Inbox, State};
use crate::open_call::OpenCall;
use crate::reply_sink::Way;
use crate::seam::Origin;
use crate::trace::TraceContext;
use std::cell::{Cell, RefCell};
use std::future::{Future, poll_fn};
use std::pin::pin;
use std::ptr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll};

/// Where the current thread is.
#[derive(Default)]
struct Current {
    handler: Option<Arc<Inbox>>,
    /// A call whose scope it is in.
    call: Option<Arc<OpenCall>>,
    /// A trace whose scope it is in.
    trace: Option<TraceContext>,
}

impl Current {
    fn is_somewhere(&self) -> bool {
        self.handler.is_some() || self.call.is_some() || self.trace.is_some()
    }
}

/// Whom a handler answers.
struct Serving {
    asker: Option<Asker>,
    way: Option<Way>,
    deadline: Timestamp,
}

thread_local! {
    static CURRENT: RefCell<Current> =
        const { RefCell::new(Current { handler: None, call: None, trace: None }) };
    /// What the handler is for, as long as nobody else has to know.
    static SERVING: RefCell<Option<Serving>> = const { RefCell::new(None) };
    /// Whom the handler of another env's ask answers, and the call. The way is kept until the endpoint's
    /// turn is over: mostly the next ask has come the same way.
    static ORIGIN: RefCell<Option<Arc<dyn Origin>>> = const { RefCell::new(None) };
    static CALL: Cell<(u64, Timestamp)> = const { Cell::new((0, Timestamp::MAX)) };
    /// Whether there is such a thing: mostly there is not, and to look at this costs nearly nothing.
    static SERVES: Cell<Serves> = const { Cell::new(Serves::Nothing) };
    /// In the same way, whether the thread is in a handler or a scope.
    static INSIDE: Cell<bool> = const { Cell::new(false) };
}

/// What the thread's handler is for.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Serves {
    /// Nobody has to know, or it is written down.
    Nothing,
    /// A message that nobody waits for.
    OneWay,
    /// What `SERVING` says.
    Somebody,
    /// What `ORIGIN` and `CALL` say.
    Elsewhere,
}

/// The handler of a message begins. It is written down in the inbox only when the handler waits, or
/// hands down what it is for. What comes in pieces is put together where it stays.
#[inline(always)]
pub(crate) fn begin(asker: Option<Asker>, way: Option<Way>, deadline: Timestamp) {
    if SERVES.replace(Serves::Somebody) == Serves::Somebody {
        // Not where it is replaced: users' destructors may run.
        drop(SERVING.take());
    }
    SERVING.with_borrow_mut(|serving| *serving = Some(Serving { asker, way, deadline }));
}

/// The same of an ask of another env.
pub(crate) fn begin_for(origin: &Arc<dyn Origin>, call: u64, deadline: Timestamp) {
    let known = |known: &Option<Arc<dyn Origin>>| {
        known.as_ref().is_some_and(|known| Arc::ptr_eq(known, origin))
    };
    if !ORIGIN.with_borrow(known) {
        drop(ORIGIN.replace(Some(origin.clone())));
    }
    CALL.set((call, deadline));
    if SERVES.replace(Serves::Elsewhere) == Serves::Somebody {
        drop(SERVING.take());
    }
}

/// The same of a message that nobody waits for.
pub(crate) fn begin_one_way() {
    SERVES.set(Serves::OneWay);
}

/// Takes what the current handler is for, if it was not written down.
fn take_serving() -> Option<Serving> {
    match SERVES.replace(Serves::Nothing) {
        Serves::Nothing => None,
        Serves::OneWay => Some(Serving { asker: None, way: None, deadline: Timestamp::MAX }),
        Serves::Somebody => SERVING.try_with(RefCell::take).ok().flatten(),
        Serves::Elsewhere => {
            let origin = ORIGIN.try_with(|origin| origin.borrow().clone()).ok().flatten();
            let (call, deadline) = CALL.get();
            let way = origin.map(|origin| Way::Wire(origin, call));
            Some(Serving { asker: None, way, deadline })
        }
    }
}

/// Enters an endpoint's handlers on this thread, until what this returns is dropped, panic or not.
/// Scopes of whoever drives them do not reach in.
pub(crate) fn enter(inbox: Arc<Inbox>) -> Inside {
    Inside::of(Current { handler: Some(inbox), ..Current::default() })
}

#[must_use = "what was current before is so again when this is dropped"]
pub(crate) struct Inside {
    before: Option<Current>,
}

impl Inside {
    fn of(current: Current) -> Self {
        write_down();
        INSIDE.set(true);
        Self { before: Some(CURRENT.replace(current)) }
    }

    /// As dropping it, and the endpoint comes back, to be entered again.
    pub(crate) fn leave(mut self) -> Option<Arc<Inbox>> {
        self.restore()?.handler
    }

    fn restore(&mut self) -> Option<Current> {
        let before = self.before.take()?;
        // Of a handler that panicked.
        drop(take_serving());
        drop(ORIGIN.try_with(RefCell::take));
        INSIDE.set(before.is_somewhere());
        Some(CURRENT.replace(before))
    }
}

impl Drop for Inside {
    fn drop(&mut self) {
        drop(self.restore());
    }
}

/// Looks at where this thread is; nowhere, while it ends.
#[inline]
fn with_current<R: Default>(f: impl FnOnce(&Current) -> R) -> R {
    if !INSIDE.get() {
        return R::default();
    }
    CURRENT.try_with(|current| f(&current.borrow())).unwrap_or_default()
}

/// Whether this thread is in a handler of such an endpoint.
pub(crate) fn is_inside(such: impl FnOnce(&Arc<Inbox>) -> bool) -> bool {
    with_current(|current| current.handler.as_ref().is_some_and(such))
}

/// Runs `f` in the scope of a call, which stands in for the handler, and of a trace. What is not
/// given stays as it is.
pub(crate) fn within<R>(
    call: Option<Arc<OpenCall>>,
    trace: Option<TraceContext>,
    f: impl FnOnce() -> R,
) -> R {
    let scoped = CURRENT.with_borrow(|current| Current {
        handler: current.handler.clone(),
        call: call.or_else(|| current.call.clone()),
        trace: trace.or_else(|| current.trace.clone()),
    });
    let _inside = Inside::of(scoped);
    f()
}

/// A future each poll of which is in that scope.
pub(crate) async fn within_each_poll<F: Future>(
    call: Option<Arc<OpenCall>>,
    trace: Option<TraceContext>,
    future: F,
) -> F::Output {
    let mut future = pin!(future);
    poll_fn(|cx| within(call.clone(), trace.clone(), || future.as_mut().poll(cx))).await
}

impl TraceContext {
    /// As [`scope`](Self::scope), for a future: whatever it asks and sends, behind any number of awaits.
    ///
    /// # Cancel safety
    /// That of the future.
    pub fn scoped<F: Future>(&self, future: F) -> impl Future<Output = F::Output> + use<F> {
        within_each_poll(None, Some(self.clone()), future)
    }

    /// Runs `f`; what it asks and sends is part of this trace, with this span as the sender's.
    ///
    /// That is decided when `ask` and `send` are *called*, not when a future is polled, so a scope
    /// holds for a synchronous stretch: `trace.scope(|| master.ask(msg)).await`. Handlers need no
    /// scope: what they ask and send is part of the trace of their message. Deadline and
    /// cancelling are not changed by it.
    pub fn scope<R>(&self, f: impl FnOnce() -> R) -> R {
        within(None, Some(self.clone()), f)
    }
}

/// What a call inherits from where it is made.
pub(crate) struct Inherited {
    pub(crate) behalf: Behalf,
    /// When the one on whose behalf it is made needs it no more, by the clock of that one's env.
    deadline: Timestamp,
    pub(crate) trace: Option<TraceContext>,
}

impl Inherited {
    /// The deadline by the clock of the env that the call goes out from. A handler may have a ref of
    /// another env of its process, whose clock began at another time.
    #[inline]
    pub(crate) fn deadline_by(&self, core: &EnvCore) -> Timestamp {
        match self.behalf.core() {
            Some(other) if !ptr::eq(other, core) => self.deadline_from(other, core),
            _ => self.deadline,
        }
    }

    #[cold]
    fn deadline_from(&self, other: &EnvCore, core: &EnvCore) -> Timestamp {
        if self.deadline == Timestamp::MAX {
            return self.deadline;
        }
        // In this order: it must not be over before the other clock says so.
        let left = self.deadline.since(other.now());
        core.now().saturating_add(left)
    }
}

/// On whose behalf a call is made: it ends when that one's caller gives up.
#[derive(Default)]
pub(crate) struct Behalf {
    /// The handler that makes it, which may wait for it.
    pub(crate) asker: Option<Asker>,
    /// The call that it is for, where that need not end with the handler.
    call: Option<Arc<OpenCall>>,
}

impl Behalf {
    /// The env of that one; none if it is made for nobody.
    fn core(&self) -> Option<&EnvCore> {
        match (&self.call, &self.asker) {
            (Some(call), _) => Some(call.core()),
            (None, asker) => asker.as_ref().map(|asker| &**asker.inbox.core()),
        }
    }

    /// Ready when that caller has given up: so is everything that is done for it. Until then the task
    /// is to be woken; `place` is what [`forget`](Self::forget) needs, if it has to be called.
    pub(crate) fn poll_cancelled(
        &self,
        place: &mut Option<usize>,
        cx: &mut Context<'_>,
    ) -> Poll<()> {
        match (&self.call, &self.asker) {
            (Some(call), _) => call.poll_cancelled(place, cx),
            (None, Some(asker)) => asker.inbox.poll_turn_cancelled(asker.turn, place, cx),
            (None, None) => Poll::Pending,
        }
    }

    /// Whether that caller has given up.
    pub(crate) fn is_cancelled(&self) -> bool {
        match (&self.call, &self.asker) {
            (Some(call), _) => call.is_cancelled(),
            (None, Some(asker)) => asker.inbox.is_turn_cancelled(asker.turn),
            (None, None) => false,
        }
    }

    /// What was done for it is over: its task need not be told any more.
    pub(crate) fn forget(&self, place: usize) {
        match (&self.call, &self.asker) {
            (Some(call), _) => call.way().forget(place),
            // If its turn is over, so is its call, and nothing is kept of that.
            (None, Some(asker)) => {
                asker.inbox.way_of(asker.turn).into_iter().for_each(|way| way.forget(place));
            }
            (None, None) => {}
        }
    }
}

/// Writes down in its inbox what the current handler is for.
pub(crate) fn write_down() {
    if let Some(serving) = take_serving()
        && let Some(inbox) = with_current(|current| current.handler.clone())
    {
        inbox.serves(serving);
    }
}

/// The current handler is done, or its answer is on its way: nobody waits for it any more.
pub(crate) fn end(inbox: &Inbox) {
    match SERVES.replace(Serves::Nothing) {
        Serves::Nothing => inbox.end_turn(),
        // What was not written down is nobody's business.
        Serves::OneWay | Serves::Elsewhere => {}
        Serves::Somebody => drop(SERVING.try_with(RefCell::take)),
    }
}

/// What an ask that is made here inherits; nothing outside of handlers and scopes.
#[inline]
pub(crate) fn inherited() -> Option<Inherited> {
    if INSIDE.get() { inherited_inside() } else { None }
}

fn inherited_inside() -> Option<Inherited> {
    write_down();
    with_current(|current| {
        let nobody =
            || Inherited { behalf: Behalf::default(), deadline: Timestamp::MAX, trace: None };
        let mut inherited = current.handler.as_ref().map_or_else(nobody, Inbox::hand_down);
        if let Some(call) = &current.call {
            inherited.deadline = call.deadline_of_work();
            inherited.behalf.call = Some(call.clone());
        }
        if let Some(trace) = &current.trace {
            inherited.trace = Some(trace.clone());
        }
        Some(inherited)
    })
}

/// The trace that a message is part of that is sent here.
#[inline]
pub(crate) fn trace() -> Option<TraceContext> {
    with_current(|current| {
        let own = current.trace.clone();
        own.or_else(|| current.handler.as_ref().and_then(|inbox| inbox.trace()))
    })
}

impl Inbox {
    /// The turn of the current handler, and when its caller stops waiting.
    pub(crate) fn current_call(&self) -> (u64, Timestamp) {
        write_down();
        let state = self.lock();
        (state.turn, state.deadline)
    }

    fn serves(&self, serving: Serving) {
        let Serving { asker, way, deadline } = serving;
        let mut state = self.lock();
        state.turn = state.turn.wrapping_add(1);
        (state.asker, state.way, state.deadline) = (asker, way, deadline);
    }

    /// The next message is part of that trace: its handler is a span of its own.
    pub(crate) fn trace_is(&self, state: &mut State, sender: Option<TraceContext>) {
        if sender.is_some() || state.trace.is_some() {
            self.traced.store(sender.is_some(), Ordering::Relaxed);
            state.trace = sender.map(|sender| sender.child(self.core().next_span()));
        }
    }

    /// The current handler's place in the trace of its message, if it has one.
    pub(crate) fn trace(&self) -> Option<TraceContext> {
        if self.traced.load(Ordering::Relaxed) { self.lock().trace.clone() } else { None }
    }

    /// What the current handler's calls inherit from it.
    fn hand_down(self: &Arc<Self>) -> Inherited {
        let state = self.lock();
        let asker = Asker { inbox: self.clone(), turn: state.turn };
        let behalf = Behalf { asker: Some(asker), call: state.open.clone() };
        Inherited { behalf, deadline: state.deadline, trace: state.trace.clone() }
    }

    /// The current handler's call, whose context it has taken: from here on its asks are for the
    /// call, which may be answered after the handler's end.
    pub(crate) fn deferred(&self, call: Arc<OpenCall>) {
        self.lock().open = Some(call);
    }

    /// The turn of the current handler, and the handler that can do nothing but wait for it.
    pub(crate) fn awaited_by(&self) -> (u64, Option<Asker>) {
        let state = self.lock();
        let (turn, asker, way) = (state.turn, state.asker.clone(), state.way.clone());
        drop(state);
        let awaited = matches!(way, Some(Way::Local(call)) if call.is_awaited());
        (turn, asker.filter(|_| awaited))
    }

    /// The caller of that turn has its answer: it waits no more, and cannot give up either.
    pub(crate) fn answered(&self, turn: u64) {
        let mut state = self.lock();
        if state.turn == turn {
            state.deadline = Timestamp::MAX;
            let waiting = (state.asker.take(), state.way.take(), state.open.take());
            drop(state);
            drop(waiting);
        }
    }

    /// A turn that was written down is over.
    pub(crate) fn end_turn(&self) {
        let mut state = self.lock();
        state.turn = state.turn.wrapping_add(1);
        state.deadline = Timestamp::MAX;
        let waiting = (state.asker.take(), state.way.take(), state.open.take());
        drop(state);
        drop(waiting);
    }

    /// Ready when the caller of the handler with that turn has given up; the task is woken then.
    /// Pending for ever once the handler is done.
    pub(crate) fn poll_turn_cancelled(
        &self,
        turn: u64,
        place: &mut Option<usize>,
        cx: &mut Context<'_>,
    ) -> Poll<()> {
        match self.way_of(turn) {
            Some(way) if way.poll_cancelled(place, cx).is_ready() && self.is_awaited(turn) => {
                Poll::Ready(())
            }
            _ => Poll::Pending,
        }
    }

    /// Whether the caller of the handler with that turn has given up.
    fn is_turn_cancelled(&self, turn: u64) -> bool {
        self.way_of(turn).is_some_and(|way| way.is_cancelled()) && self.is_awaited(turn)
    }

    /// The way back to the caller of the handler with that turn; none once it has its answer.
    fn way_of(&self, turn: u64) -> Option<Way> {
        let state = self.lock();
        if state.turn == turn { state.way.clone() } else { None }
    }

    /// Whether a caller waits for the handler with that turn. To be asked after its way has said
    /// that it does not: on the wire an answered call is over just as one that was given up.
    pub(crate) fn is_awaited(&self, turn: u64) -> bool {
        let state = self.lock();
        state.turn == turn && state.way.is_some()
    }
}
