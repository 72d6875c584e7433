//! What was sent, received and answered, and what must hold of that.

use super::messages::{Answer, Deed, Mark, is_body};
use super::plan::Quiet;
use super::sent::{Draft, Fate, Sent};
use rpc_actix::sim::Sim;
use rpc_actix::{ErrorKind, Outcome, RpcError};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// How late an ask may end: timers tick in milliseconds, and a deadline is two of them at most.
const TICK: Duration = Duration::from_millis(3);

/// How late a message may be handled that its caller has given up, where nothing holds it up.
const LATE: Duration = Duration::from_millis(200);

/// How long something may take where nothing is slow.
const PROMPT: Duration = Duration::from_millis(500);

/// Everything that has happened, shared by all members.
#[derive(Clone, Debug, Default)]
pub struct History(Arc<Mutex<State>>);

#[derive(Debug, Default)]
struct State {
    streams: Vec<Stream>,
    by_key: BTreeMap<Key, u32>,
    lives: u32,
    wrong: Vec<String>,
    figures: Figures,
    quiet: Option<Quiet>,
    /// Whether large bodies hold nothing up.
    fast: bool,
    /// How many times as fast as the simulation's the fastest clock of a member runs.
    fastest: f64,
    /// What has happened since somebody took it.
    news: Vec<News>,
    /// The time, as whoever records something has seen it last.
    now: Duration,
}

/// How much has happened.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Figures {
    /// Messages that were sent, asks included.
    pub sent: u64,
    /// Messages that were handled.
    pub received: u64,
    /// Asks that were made.
    pub asks: u64,
    /// Asks that were answered as asked.
    pub answered: u64,
    /// Asks and messages that ended as never sent.
    pub never_sent: u64,
    /// Asks that ended with the outcome unknown.
    pub unknown: u64,
    /// Asks that failed in the handler.
    pub failed: u64,
    /// Asks that were dropped.
    pub dropped: u64,
}

/// Something that has happened: in numbers, or in words if it is seldom.
#[derive(Debug)]
enum News {
    Numbers(&'static str, [u64; 5]),
    Words(String),
}

impl News {
    fn of(kind: &'static str, mark: Mark) -> Self {
        Self::Numbers(kind, [mark.stream, mark.number, 0, 0, 0].map(u64::from))
    }
}

/// A sender, an endpoint and a lane.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Key {
    pub(super) sender: u32,
    pub(super) endpoint: Arc<str>,
    pub(super) bulk: bool,
    /// Whether it means one life of the endpoint.
    pub(super) pinned: bool,
}

#[derive(Debug)]
struct Stream {
    key: Key,
    sent: Vec<Sent>,
    /// The last number that each life of the endpoint has received.
    last: BTreeMap<u32, u32>,
}

impl History {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How much may go wrong without being anybody's fault.
    pub(super) fn expects(&self, quiet: Quiet, fast: bool) {
        let mut state = self.lock();
        (state.quiet, state.fast) = (Some(quiet), fast);
    }

    /// The clock of a member runs so many times as fast as the simulation's.
    pub(super) fn clock_runs(&self, rate: f64) {
        let mut state = self.lock();
        state.fastest = state.fastest.max(rate);
    }

    /// Something does not hold.
    pub(super) fn broken(&self, text: String) {
        self.lock().wrong(text);
    }

    /// Messages that were taken, and that no handler has seen.
    pub(super) fn lost(&self) -> Vec<String> {
        let state = self.lock();
        let lost = state.streams.iter().flat_map(|stream| {
            let sent = stream.sent.iter().enumerate();
            sent.filter(|(_, sent)| sent.fate == Fate::Taken && !sent.received)
                .map(|(at, _)| format!("I2: {} of {:?} was taken, and is lost", at + 1, stream.key))
        });
        lost.collect()
    }

    /// The time, as whoever has recorded something has seen it last.
    pub(super) fn now(&self) -> Duration {
        self.lock().now
    }

    /// A number for the life of an env or of an endpoint.
    pub(super) fn new_life(&self) -> u32 {
        let mut state = self.lock();
        state.lives += 1;
        state.lives
    }

    /// Adds what has happened to the trace of a simulation, and says what is wrong.
    pub(super) fn look(&self, sim: &Sim) -> Result<(), String> {
        let mut state = self.lock();
        state.now = sim.elapsed();
        for news in state.news.drain(..) {
            match news {
                News::Numbers(kind, numbers) => sim.note_numbers(kind, &numbers),
                News::Words(text) => sim.note(&text),
            }
        }
        state.wrong.first().map_or(Ok(()), |text| Err(text.clone()))
    }

    /// A message is about to be sent: its mark.
    pub(super) fn sends(&self, key: &Key, draft: Draft) -> Mark {
        let mut state = self.lock();
        let stream = state.by_key.get(key).copied().unwrap_or_else(|| state.begin(key));
        state.figures.sent += 1;
        state.figures.asks += u64::from(draft.deed.is_some());
        // Between two events nobody tells the audit the time: one that is dropped at once is not dropped before
        // it was made.
        state.now = state.now.max(draft.at);
        let sent = Sent { draft, fate: Fate::Open, dropped: None, received: false };
        let number = state.streams.get_mut(stream as usize).map_or(0, |stream| {
            stream.sent.push(sent);
            u32::try_from(stream.sent.len()).unwrap_or(u32::MAX)
        });
        let (kind, detail) =
            draft.deed.map_or(("tells (stream, number, bytes, bulk)", 0), Deed::told);
        let (bytes, bulk) = (u64::try_from(draft.bytes).unwrap_or(u64::MAX), u64::from(key.bulk));
        let numbers = [stream.into(), number.into(), bytes, bulk, detail.into()];
        state.news.push(News::Numbers(kind, numbers));
        Mark { stream, number }
    }

    /// A handler has got a message (I2).
    pub(super) fn receives(&self, life: u32, mark: Mark, content: &[u8], asked: Option<Asked>) {
        let mut state = self.lock();
        state.figures.received += 1;
        let numbers = [mark.stream, mark.number, life, 0, 0].map(u64::from);
        state.news.push(News::Numbers("receives (stream, number, life)", numbers));
        if let Err(text) = state.receive(life, mark, content, asked.map(|asked| asked.deed)) {
            state.wrong(format!("I2: {mark:?}: {text}"));
        }
        if let Some(asked) = asked
            && let Err(text) = state.wait(mark, asked.remaining)
        {
            state.wrong(format!("I1: {mark:?}: {text}"));
        }
    }

    /// A one-way message was taken, or not.
    pub(super) fn told(&self, mark: Mark, result: &Result<(), RpcError>) {
        let mut state = self.lock();
        state.news.push(match result {
            Ok(()) => News::of("is taken (stream, number)", mark),
            Err(error) => News::Words(format!("told {mark:?}: {error:?}")),
        });
        match result {
            Ok(()) => state.end(mark, Fate::Taken),
            Err(error) => state.never_sent_if(mark, error),
        }
    }

    /// The caller has dropped an ask.
    pub(super) fn dropped(&self, mark: Mark) {
        let mut state = self.lock();
        state.figures.dropped += 1;
        state.news.push(News::of("is dropped (stream, number)", mark));
        state.end(mark, Fate::Ended);
        let now = state.now;
        if let Some(sent) = state.sent(mark) {
            sent.dropped = Some(now);
        }
    }

    /// An ask has ended (I1). Its caller's node stood still until `stood`.
    pub(super) fn answered(
        &self,
        mark: Mark,
        (now, stood): (Duration, Duration),
        result: &Result<Answer, RpcError>,
    ) {
        let mut state = self.lock();
        state.news.push(match result {
            Ok(_) => News::of("is answered (stream, number)", mark),
            Err(error) => News::Words(format!("ended {mark:?}: {error:?}")),
        });
        if let Err(text) = state.answer(mark, now, stood, result) {
            state.wrong(format!("I1: {mark:?}: {text}; {result:?}"));
        }
    }

    /// The asks of senders that have not ended, although they are all over.
    pub(super) fn open_asks(&self, living: &[u32]) -> Vec<String> {
        let state = self.lock();
        let streams = state.streams.iter().filter(|stream| living.contains(&stream.key.sender));
        let open = streams.flat_map(|stream| {
            let sent = stream.sent.iter().enumerate();
            sent.filter(|(_, sent)| sent.draft.deed.is_some() && sent.fate == Fate::Open)
                .map(|(at, sent)| format!("I1: no end of {:?} {}: {sent:?}", stream.key, at + 1))
        });
        open.collect()
    }

    /// How much has happened.
    #[must_use]
    pub fn figures(&self) -> Figures {
        self.lock().figures
    }
}

/// An ask that somebody waits for. Dropped before its end, it is recorded as dropped.
#[derive(Debug)]
pub(super) struct OpenAsk(Option<(History, Mark)>);

impl OpenAsk {
    pub(super) fn new(history: History, mark: Mark) -> Self {
        Self(Some((history, mark)))
    }

    /// It has ended, at this time; the node stood still until that time.
    pub(super) fn ended(mut self, at: (Duration, Duration), result: &Result<Answer, RpcError>) {
        if let Some((history, mark)) = self.0.take() {
            history.answered(mark, at, result);
        }
    }
}

impl Drop for OpenAsk {
    fn drop(&mut self) {
        if let Some((history, mark)) = self.0.take() {
            history.dropped(mark);
        }
    }
}

/// An ask, as its handler sees it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Asked {
    pub(super) deed: Deed,
    /// How long its caller is said to wait.
    pub(super) remaining: Option<Duration>,
}

impl State {
    /// A handler is told how long its caller waits: no longer than it did at first.
    fn wait(&mut self, mark: Mark, remaining: Option<Duration>) -> Result<(), String> {
        let Some(sent) = self.sent(mark) else { return Ok(()) };
        let Some(timeout) = sent.draft.timeout else { return Ok(()) };
        match remaining {
            Some(remaining) if remaining <= timeout + TICK => Ok(()),
            _ => Err(format!("its handler has {remaining:?}, and its caller had {timeout:?}")),
        }
    }

    /// A stream that is new.
    fn begin(&mut self, key: &Key) -> u32 {
        let stream = u32::try_from(self.streams.len()).unwrap_or(u32::MAX);
        self.by_key.insert(key.clone(), stream);
        self.news.push(News::Words(format!("stream {stream} is {key:?}")));
        self.streams.push(Stream { key: key.clone(), sent: Vec::new(), last: BTreeMap::new() });
        stream
    }

    fn wrong(&mut self, text: String) {
        let at = self.now.as_secs_f64();
        self.wrong.push(format!("{text} (at {at:.3} s)"));
    }

    fn is_quiet(&self) -> bool {
        self.quiet.is_some_and(|quiet| quiet != Quiet::No)
    }

    /// Whether neither endpoints nor ways are slow.
    fn is_prompt(&self) -> bool {
        self.quiet == Some(Quiet::Peace) && self.fast
    }

    fn sent(&mut self, mark: Mark) -> Option<&mut Sent> {
        let stream = self.streams.get_mut(mark.stream as usize)?;
        stream.sent.get_mut((mark.number as usize).checked_sub(1)?)
    }

    fn end(&mut self, mark: Mark, fate: Fate) {
        if let Some(sent) = self.sent(mark) {
            sent.fate = fate;
        }
    }

    fn receive(
        &mut self,
        life: u32,
        mark: Mark,
        content: &[u8],
        deed: Option<Deed>,
    ) -> Result<(), String> {
        let (now, quiet, prompt) = (self.now, self.is_quiet() && self.fast, self.is_prompt());
        let sent = self.sent(mark).ok_or("it was never sent")?;
        if std::mem::replace(&mut sent.received, true) {
            return Err("it was received twice".to_owned());
        }
        if sent.fate == Fate::NeverSent {
            return Err(
                "it was received, and its sender was told that it was never sent".to_owned()
            );
        }
        if !is_body(mark, sent.draft.bytes, content) || sent.draft.deed != deed {
            return Err(format!("it is not as it was sent: {} bytes, {deed:?}", content.len()));
        }
        if prompt && now > sent.draft.at + PROMPT {
            let late = now.saturating_sub(sent.draft.at);
            return Err(format!("it was handled {late:?} after it was sent"));
        }
        let until = sent.deadline().into_iter().chain(sent.dropped).min();
        if let Some(until) = until.filter(|until| quiet && now > *until + LATE) {
            let late = now.saturating_sub(until);
            return Err(format!("it was handled {late:?} after its caller stopped waiting"));
        }
        let stream = self.streams.get_mut(mark.stream as usize).ok_or("no stream")?;
        if stream.key.pinned && stream.last.keys().any(|known| *known != life) {
            return Err(format!("it was for another life of {:?}", stream.key));
        }
        let last = stream.last.entry(life).or_default();
        let before = std::mem::replace(last, mark.number);
        if before > mark.number {
            return Err(format!("it came behind {before} of {:?}", stream.key));
        }
        Ok(())
    }

    fn never_sent_if(&mut self, mark: Mark, error: &RpcError) {
        let received = self.sent(mark).is_some_and(|sent| sent.received);
        if error.outcome() != Outcome::NeverSent {
            return self.end(mark, Fate::Ended);
        }
        self.figures.never_sent += 1;
        self.end(mark, Fate::NeverSent);
        if received {
            self.wrong(format!(
                "I1: {mark:?} was received, and then ended as never sent: {error:?}"
            ));
        }
    }

    fn answer(
        &mut self,
        mark: Mark,
        now: Duration,
        stood: Duration,
        result: &Result<Answer, RpcError>,
    ) -> Result<(), String> {
        let (prompt, fastest) = (self.is_prompt(), self.fastest);
        let sent = self.sent(mark).ok_or("it was never asked")?;
        let earliest = sent.earliest_end(fastest);
        let (deed, deadline, received) = (sent.draft.deed, sent.deadline(), sent.received);
        if sent.fate != Fate::Open {
            return Err("it ended twice".to_owned());
        }
        sent.fate = Fate::Ended;
        let size = sent.draft.bytes;
        if let Some(deadline) = deadline
            && now > deadline.max(stood) + TICK
        {
            return Err(format!("it ended {:?} after its deadline", now.saturating_sub(deadline)));
        }
        if prompt && now > stood.max(sent.draft.at) + PROMPT {
            return Err(format!("it took {:?}", now.saturating_sub(sent.draft.at)));
        }
        match result {
            Ok(answer) => {
                self.figures.answered += 1;
                let answers =
                    !matches!(deed, Some(Deed::Fail | Deed::Panic | Deed::Drop | Deed::Keep));
                let right = answer.mark == mark && is_body(mark, size, &answer.body);
                if !received || !answers || !right {
                    return Err("that is not what was asked for".to_owned());
                }
                Ok(())
            }
            Err(error) => {
                match error.outcome() {
                    Outcome::NeverSent => self.never_sent_if(mark, error),
                    Outcome::FailedInHandler => self.figures.failed += 1,
                    _ => self.figures.unknown += 1,
                }
                plausible(deed, received, error)?;
                let at_peace = self.quiet == Some(Quiet::Peace) && error.is_timeout();
                if at_peace || self.is_quiet() && error.kind() == ErrorKind::Disconnected {
                    return Err("nothing was in its way".to_owned());
                }
                match earliest.and_then(|earliest| earliest.checked_sub(now + TICK)) {
                    // A dial has time of its own.
                    Some(early) if is_timeout(error) => {
                        Err(format!("it timed out {early:?} early"))
                    }
                    _ => Ok(()),
                }
            }
        }
    }
}

/// Whether the ask's own time is said to be over.
fn is_timeout(error: &RpcError) -> bool {
    error.is_timeout() && !error.text().contains("rpc.io.handshakeTimeout")
}

/// Whether an ask can end like this.
fn plausible(deed: Option<Deed>, received: bool, error: &RpcError) -> Result<(), String> {
    let failed = error.outcome() == Outcome::FailedInHandler;
    if failed && !received {
        return Err("no handler has seen it".to_owned());
    }
    let fits = match error.kind() {
        ErrorKind::HandlerFailed => matches!(deed, Some(Deed::Fail | Deed::Pass(_))),
        ErrorKind::HandlerPanicked => deed == Some(Deed::Panic),
        ErrorKind::NoReply => matches!(deed, Some(Deed::Drop | Deed::Later(_) | Deed::Keep)),
        ErrorKind::Timeout
        | ErrorKind::Overloaded
        | ErrorKind::Disconnected
        | ErrorKind::Unreachable
        | ErrorKind::EndpointStopped
        | ErrorKind::EndpointNotFound
        | ErrorKind::EnvStopped => true,
        ErrorKind::Cancelled | ErrorKind::AskCycle => true,
        _ => false,
    };
    if fits { Ok(()) } else { Err(format!("it cannot end as {:?} with {deed:?}", error.kind())) }
}
