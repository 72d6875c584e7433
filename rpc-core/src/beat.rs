//! What a thread shows of the endpoints that it runs, for a look at it from outside: a thread whose
//! endpoint does not give way is seen, and the endpoint named.

use crate::behind::HOOK;
use crate::counters::Count;
use crate::deadline::{Timestamp, duration_text};
use crate::dispatcher::Dispatcher;
use crate::inbox::Inbox;
use std::cell::OnceCell;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

/// One thread. Only that thread writes here: a few plain stores whenever it begins or ends to poll an
/// endpoint, and no look at a clock.
#[derive(Debug, Default)]
pub struct Beat {
    /// Counts the beginnings and ends.
    turns: AtomicU64,
    /// Where the inbox lies whose endpoint is polled, to know it by; 0 if none is.
    inbox: AtomicUsize,
}

thread_local! {
    static BEAT: OnceCell<Arc<Beat>> = const { OnceCell::new() };
}

impl Beat {
    /// That of the current thread, which shows what it runs from now on.
    #[must_use]
    pub fn of_this_thread() -> Arc<Self> {
        BEAT.with(|beat| beat.get_or_init(Arc::default).clone())
    }

    fn turn(&self, inbox: usize) {
        let turns = self.turns.load(Ordering::Relaxed).wrapping_add(1);
        self.turns.store(turns, Ordering::Relaxed);
        self.inbox.store(inbox, Ordering::Release);
    }

    fn seen(&self) -> (u64, usize) {
        let inbox = self.inbox.load(Ordering::Acquire);
        (self.turns.load(Ordering::Relaxed), inbox)
    }
}

fn place_of(inbox: &Inbox) -> usize {
    std::ptr::from_ref(inbox) as usize
}

/// The message that the endpoint has begun last, by its name. `None` while it runs a hook.
pub(crate) fn message_of(inbox: &Inbox) -> Option<&str> {
    match inbox.behind.handled() {
        HOOK => None,
        handler => {
            Some(inbox.handlers().get(handler).map_or("an untyped message", |info| info.name))
        }
    }
}

/// The current thread polls the endpoint until what this returns is dropped, panic or not.
pub(crate) fn enter(inbox: &Inbox) -> Inside {
    let before = BEAT.try_with(|beat| {
        let beat = beat.get()?;
        let before = beat.inbox.load(Ordering::Relaxed);
        beat.turn(place_of(inbox));
        Some(before)
    });
    Inside { before: before.ok().flatten() }
}

#[must_use = "the endpoint is polled until this is dropped"]
pub(crate) struct Inside {
    /// What the thread was in before; `None` if it shows nothing.
    before: Option<usize>,
}

impl Drop for Inside {
    fn drop(&mut self) {
        if let Some(before) = self.before {
            let _ = BEAT.try_with(|beat| beat.get().into_iter().for_each(|beat| beat.turn(before)));
        }
    }
}

/// Names endpoints of an env that do not give way: whose handlers block their thread, with a
/// computation, a lock or a sleep. They are logged and counted; nothing is done to them.
pub struct Watchdog {
    /// How long that takes.
    after: Duration,
    known: Vec<Known>,
}

/// What was seen of a thread.
struct Known {
    beat: Arc<Beat>,
    seen: (u64, usize),
    /// When that was seen first.
    since: Timestamp,
    /// When to speak of it; later each time.
    next: Duration,
    /// When something of this thread was said last.
    said: Option<Timestamp>,
}

/// A thread is spoken of no more often.
const QUIET: Duration = Duration::from_secs(1);

impl Watchdog {
    /// A watchdog for `rpc.dispatcher.blockedAfter`.
    #[must_use]
    pub fn new(after: Duration) -> Self {
        Self { after, known: Vec::new() }
    }

    /// How often it should look.
    #[must_use]
    pub fn interval(&self) -> Duration {
        (self.after / 4).max(Duration::from_millis(1))
    }

    /// Looks at all threads that may run endpoints of the env.
    pub fn look(&mut self, now: Timestamp, threads: &[Arc<Beat>], endpoints: &Dispatcher) {
        self.known.retain(|known| threads.iter().any(|beat| Arc::ptr_eq(beat, &known.beat)));
        for beat in threads {
            match self.known.iter_mut().find(|known| Arc::ptr_eq(beat, &known.beat)) {
                Some(known) => known.look(now, self.after, endpoints),
                None => {
                    let seen = beat.seen();
                    let (beat, since, next) = (beat.clone(), now, self.after);
                    self.known.push(Known { beat, seen, since, next, said: None });
                }
            }
        }
    }
}

impl Known {
    fn look(&mut self, now: Timestamp, after: Duration, endpoints: &Dispatcher) {
        let seen = self.beat.seen();
        if seen != self.seen || seen.1 == 0 {
            (self.seen, self.since, self.next) = (seen, now, after);
            return;
        }
        let time = now.since(self.since);
        if time < self.next {
            return;
        }
        let found = endpoints.endpoints().into_iter().find(|inbox| place_of(inbox) == seen.1);
        let Some(inbox) = found else { return };
        // What was read of it is worth something only if it is still in there.
        let message = message_of(&inbox).unwrap_or("a hook");
        if self.beat.seen() != seen {
            return;
        }
        if self.next == after {
            inbox.core().tally().count(Count::HandlersBlocked);
        }
        self.next = time.saturating_mul(2);
        if self.said.is_some_and(|said| now.since(said) < QUIET) {
            return;
        }
        self.said = Some(now);
        tracing::warn!(
            endpoint = %inbox.name(),
            message,
            "the endpoint {} has run {message} for more than {} without giving way: it blocks its thread, and every endpoint and connection there. Await instead, give it a thread of its own (EndpointOptions::isolated), or reply later from a blocking task (rpc.dispatcher.blockedAfter)",
            inbox.address(),
            duration_text(Duration::from_millis(u64::try_from(time.as_millis()).unwrap_or(u64::MAX))),
        );
    }
}

impl fmt::Debug for Watchdog {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Watchdog").field("after", &self.after).finish_non_exhaustive()
    }
}
