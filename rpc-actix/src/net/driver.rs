//! One connection: reads all that has come, hands it on together, writes all that is pending.

use super::binding::Binding;
use super::bindings::{Bindings, Bound};
use super::buffer;
use super::busy::BusyPoll;
use super::link::{Link, Orders};
use super::node::Node;
use super::transport::ByteStream;
use crate::planted::planted;
use crate::rt;
use bytes::{BufMut, BytesMut};
use rpc_core::proto::{Close, CloseCode, Event, Landing, WireNumber};
use rpc_core::spi::{Count, WireMessage};
use rpc_core::{EndpointLocation, ErrorKind, RpcAddress, RpcError};
use std::collections::VecDeque;
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio_util::io::poll_read_buf;

/// Reads before other tasks of the thread get their turn.
const READS_PER_TURN: usize = 16;
/// Bytes to read, and bytes to write, in a turn: what a small message waits for behind a large one
/// of the other direction. A copy of so much takes about 0.1 ms.
pub(super) const TURN: usize = 256 * 1024;
/// What a turn does about frames that carry no message, in tens of nanoseconds or so: what others wait
/// for while one peer resolves or cancels very much. Between two turns other sockets are looked at.
const WORK: usize = 2048;
/// How long, and how often, a connection that this side ends is still read from.
const LINGER: Duration = Duration::from_millis(500);
const LINGER_READS: usize = 64;
/// The same for a peer that is silent or takes nothing: it has had its time.
const LINGER_FOR_LOST: Duration = Duration::from_millis(50);
/// A connection at work. Ready when it has ended, with the reason.
#[must_use = "a driver does nothing unless polled"]
pub(crate) struct Driver {
    pub(super) node: Arc<Node>,
    pub(super) link: Arc<Link>,
    pub(super) stream: Box<dyn ByteStream>,
    pub(super) sender: RpcAddress,
    /// Which env it is, whatever it is called.
    pub(super) whose: EndpointLocation,
    read: BytesMut,
    /// Where the rest of a large body's part is read into, instead of `read`.
    landing: Option<Landing>,
    /// Whether the last read went there: then the next part's header comes first.
    landed: bool,
    /// Whether `read` has whole frames, which were too much for one turn.
    unread: bool,
    /// How much of that this turn may do.
    work: usize,
    events: Vec<Event>,
    pub(super) wakes: Vec<Waker>,
    pub(super) bindings: Bindings,
    pub(super) batch: VecDeque<WireMessage>,
    pub(super) batch_for: Option<Arc<Binding>>,
    /// Whether the messages of the batch were counted when they began to arrive.
    pub(super) counted_before: bool,
    /// How many have something to do because of what was read last: callers, and endpoints.
    pub(super) parties: usize,
    /// Why this side is closing: the rest of the output is written, then it ends.
    ending: Option<RpcError>,
    /// Whether the peer has closed: it reads nothing more, so nothing waits to be written.
    left: bool,
    /// Whether the connection's end was counted: it has one cause.
    counted: bool,
    /// Whether the peer has given no sign of life, or taken nothing, for too long.
    pub(super) lost: bool,
    /// The first poll has not been.
    fresh: bool,
    /// Whether the peer seems to be gone, unless something waits to be read.
    probe: Option<rt::Looked>,
    /// Whether something was left to write the last time.
    pub(super) backlog: bool,
    pub(super) stalled: bool,
    /// Whether the socket has taken something since that was looked at.
    pub(super) moved: bool,
    /// Whether something was written since the stream was flushed.
    pub(super) unflushed: bool,
    /// The waker that the link knows for orders.
    watched: Option<Waker>,
    pub(super) busy: BusyPoll,
}

impl Driver {
    pub(crate) fn new(
        node: Arc<Node>,
        link: Arc<Link>,
        stream: Box<dyn ByteStream>,
        (sender, whose): (RpcAddress, EndpointLocation),
        rest: BytesMut,
    ) -> Self {
        let busy = BusyPoll::new(node.config().limits().busy_poll());
        Self {
            node,
            link,
            stream,
            sender,
            whose,
            read: rest,
            landing: None,
            landed: false,
            unread: false,
            work: WORK,
            events: Vec::new(),
            wakes: Vec::new(),
            bindings: Bindings::default(),
            batch: VecDeque::new(),
            batch_for: None,
            counted_before: false,
            parties: 0,
            ending: None,
            left: false,
            counted: false,
            lost: false,
            fresh: true,
            probe: None,
            backlog: false,
            stalled: false,
            moved: false,
            unflushed: false,
            watched: None,
            busy,
        }
    }

    /// Takes frames off what has been read, and acts on them.
    fn process(&mut self) {
        let now = self.link.now();
        let (landing, read, events) = (self.landing.take(), &mut self.read, &mut self.events);
        let work = &mut self.work;
        let received = self.link.drive(&mut self.wakes, |session| {
            session.receive_with(now, landing, read, events, work)
        });
        // Each of those who are woken is somebody else, as far as is known here.
        self.parties = self.wakes.len();
        let mut events = std::mem::take(&mut self.events);
        for event in events.drain(..) {
            if let Err(close) = self.act(event) {
                self.end(&close);
                break;
            }
        }
        self.events = events;
        self.link.is_spread(self.parties > 1);
        if let Err(close) = self.deliver_batch() {
            self.end(&close);
        }
        // Only now: who hears of an endpoint's end has what it said last.
        self.wakes.drain(..).for_each(Waker::wake);
        match received {
            Ok(taken) => (self.landing, self.unread) = (taken.landing, taken.more),
            Err(close) => self.end(&close),
        }
        buffer::forget(&mut self.read);
    }

    /// What the peer said before the connection broke counts, and the reason above all.
    fn process_all(&mut self) {
        while self.unread && self.ending.is_none() {
            self.work = WORK;
            self.process();
        }
    }

    fn act(&mut self, event: Event) -> Result<(), Close> {
        match event {
            Event::Message(message) => self.message(message),
            Event::Messages(messages) => self.row(messages),
            Event::Begun(target, bytes) => {
                self.deliver_batch()?;
                match self.bound(target)? {
                    Bound::Here(binding) => binding.begun(bytes),
                    // It counts when it is passed on.
                    Bound::There(_) => Ok(()),
                }
            }
            Event::GivenUp(target, bytes) => {
                self.deliver_batch()?;
                if let Bound::Here(binding) = self.bound(target)? {
                    binding.given_up(bytes);
                }
                Ok(())
            }
            Event::Resolve(target, key) => {
                self.deliver_batch()?;
                self.resolve(target, &key)
            }
            Event::Release(target) => {
                self.deliver_batch()?;
                self.bindings.release(target)
            }
            Event::Goodbye(reason) => {
                tracing::debug!(peer = %self.sender, %reason, "the peer is going to close");
                Ok(())
            }
            Event::Closed(close) => {
                self.note_end(Count::close_received(close.code));
                self.ending = Some(close.to_error(&self.sender.to_string()));
                self.left = true;
                Ok(())
            }
            _ => Ok(()),
        }
    }

    pub(super) fn bound(&self, target: WireNumber) -> Result<&Bound, Close> {
        self.bindings.get(target).ok_or_else(|| {
            let text = format!("a message for target {target}, which is not resolved");
            Close::new(CloseCode::Protocol, text)
        })
    }

    fn note_end(&mut self, cause: Count) {
        if !std::mem::replace(&mut self.counted, true) {
            self.node.tally.count(cause);
        }
    }

    /// Ends the connection with a reason that the peer is told.
    fn end(&mut self, close: &Close) {
        if self.ending.is_none() {
            self.node.complain(&self.sender, close, "closing a connection");
            self.note_end(Count::close_sent(close.code));
            self.link.drive(&mut self.wakes, |session| session.close(close));
            self.ending = Some(close.to_error(&self.sender.to_string()));
        }
    }

    /// Reads until there is nothing, or its turn is over.
    fn poll_read(&mut self, cx: &mut Context<'_>) -> io::Result<Reading> {
        let mut taken = 0_usize;
        self.work = WORK;
        for _ in 0..READS_PER_TURN {
            if taken >= TURN {
                break;
            }
            if self.ending.is_some() {
                return Ok(Reading::Done);
            }
            if self.is_flooded() {
                let now = self.link.now();
                self.link.drive(&mut self.wakes, |session| session.held(now));
                return Ok(Reading::Held);
            }
            if self.unread {
                self.process();
                if self.unread {
                    break;
                }
                continue;
            }
            match self.poll_read_some(cx) {
                Poll::Ready(Ok(0)) if planted!(HalfCloseIgnored) => return Ok(Reading::Done),
                Poll::Ready(Ok(0)) => {
                    let text = format!("the connection to {} was closed by the peer", self.sender);
                    return Err(io::Error::new(io::ErrorKind::UnexpectedEof, text));
                }
                Poll::Ready(Ok(read)) => {
                    self.node.tally.count(Count::Reads);
                    self.node.tally.add(Count::BytesReceived, read as u64);
                    taken = taken.saturating_add(read);
                    self.busy.note();
                    buffer::compact(&mut self.read);
                    self.process();
                    if self.unread {
                        break;
                    }
                }
                Poll::Ready(Err(error)) => return Err(error),
                Poll::Pending => {
                    buffer::compact(&mut self.read);
                    return Ok(Reading::Done);
                }
            }
        }
        Ok(Reading::More)
    }

    fn poll_read_some(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        let stream = Pin::new(&mut self.stream);
        if let Some(landing) = &mut self.landing {
            self.landed = true;
            return poll_read_buf(stream, cx, &mut landing.room());
        }
        buffer::make_room(&mut self.read);
        let most = if self.landed { buffer::SMALL_READ } else { usize::MAX };
        let polled = poll_read_buf(stream, cx, &mut (&mut self.read).limit(most));
        self.landed &= polled.is_pending();
        polled
    }

    /// A peer that asks more and more, and does not read its answers, is not read from either.
    fn is_flooded(&mut self) -> bool {
        self.backlog && self.link.drive(&mut self.wakes, |session| session.is_flooded())
    }

    /// Ends at once if something has taken too long; says goodbye, once, if the env shuts down,
    /// and ends when that is written.
    fn follow_orders(&mut self, cx: &Context<'_>) -> Option<RpcError> {
        if !self.link.has_orders() {
            return None;
        }
        match self.link.take_orders()? {
            Orders::Break(close) => Some(self.break_off(&close)),
            Orders::Probe => {
                // One that is under way is kept: on a slow thread the next comes before it is over.
                self.probe.get_or_insert_with(|| rt::Looked::from_now(cx));
                None
            }
            Orders::Shutdown => {
                let close = Close::new(CloseCode::Shutdown, "the env has been shut down");
                self.link.drive(&mut self.wakes, |session| {
                    session.goodbye("shutdown");
                    session.close(&close);
                });
                self.note_end(Count::ClosesSentShutdown);
                let text = "this RpcEnv has been shut down";
                self.ending = Some(RpcError::new(ErrorKind::EnvStopped, text));
                None
            }
        }
    }
}

impl Driver {
    /// Ends the connection without waiting for the peer to read all of it.
    fn break_off(&mut self, close: &Close) -> RpcError {
        self.node.complain(&self.sender, close, "breaking a connection");
        self.note_end(Count::close_sent(close.code));
        self.lost = close.is(CloseCode::Timeout);
        self.link.drive(&mut self.wakes, |session| session.close(close));
        close.to_error(&self.sender.to_string())
    }

    /// Closes the connection so that the peer can read to its end what was said last. If it were
    /// closed with something unread, the system would reset it, and the peer lose all that.
    ///
    /// A peer that is lost has its connection reset. An end in order would wait behind what is not
    /// acknowledged: it would never reach a peer that is heard no more but hears us, and the system
    /// would keep all that a peer does not read.
    pub(crate) async fn linger(mut self) {
        let limit = if self.lost { LINGER_FOR_LOST } else { LINGER };
        let clock = self.node.clock;
        let read = async {
            let _ = self.stream.shutdown().await;
            for _ in 0..LINGER_READS {
                self.read.clear();
                match self.stream.read_buf(&mut self.read).await {
                    Ok(1..) => {}
                    _ => return,
                }
            }
        };
        let _ = clock.within(limit, read).await;
        if self.lost
            && let Err(error) = self.stream.reset_on_drop()
        {
            tracing::debug!(peer = %self.sender, %error, "a connection could not be reset");
        }
    }

    /// All that the runtime knows of was read: whether the peer is gone.
    fn judge(&mut self) -> Option<RpcError> {
        if !self.probe.as_ref().is_some_and(rt::Looked::is_over) {
            return None;
        }
        self.probe = None;
        let now = self.link.now();
        let verdict = self.link.drive(&mut self.wakes, |session| session.verdict(now))?;
        Some(self.break_off(&verdict))
    }
}

impl Future for Driver {
    type Output = RpcError;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<RpcError> {
        let this = self.get_mut();
        if !this.watched.as_ref().is_some_and(|known| known.will_wake(cx.waker())) {
            this.link.watch(cx);
            this.watched = Some(cx.waker().clone());
        }
        if std::mem::take(&mut this.fresh) {
            // What came right behind the hello.
            this.process();
        }
        loop {
            if let Some(error) = this.follow_orders(cx) {
                // The peer is told why, if its socket takes that at once.
                let _ = this.poll_write(cx);
                return Poll::Ready(error);
            }
            let reading = match this.poll_read(cx) {
                Ok(reading) => reading,
                Err(error) => return Poll::Ready(this.broken(&error)),
            };
            if this.left
                && let Some(error) = this.ending.take()
            {
                return Poll::Ready(error);
            }
            if reading == Reading::Done
                && let Some(error) = this.judge()
            {
                let _ = this.poll_write(cx);
                return Poll::Ready(error);
            }
            if reading == Reading::Done && this.is_at_rest() && this.link.park(cx) {
                return this.rest(cx);
            }
            let written = this.poll_write(cx);
            let more = matches!(written, Poll::Ready(Ok(Writing::More)));
            if more || reading == Reading::More {
                rt::yield_now(cx);
            }
            match written {
                Poll::Ready(Err(error)) => {
                    this.process_all();
                    return Poll::Ready(this.broken(&error));
                }
                Poll::Ready(Ok(Writing::More)) => return Poll::Pending,
                Poll::Ready(Ok(Writing::Done)) => {
                    if let Some(error) = this.ending.take() {
                        return Poll::Ready(error);
                    }
                    // Reading goes on as soon as what held it up has been written.
                    if reading == Reading::Held {
                        continue;
                    }
                    if reading == Reading::More {
                        return Poll::Pending;
                    }
                    if this.link.park(cx) {
                        return this.rest(cx);
                    }
                }
                // The socket is full, and wakes the driver when it is not.
                Poll::Pending if this.link.has_orders() => {}
                Poll::Pending => return Poll::Pending,
            }
        }
    }
}

/// How far reading got.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Reading {
    /// To the end of what is there; the socket wakes the driver.
    Done,
    /// There may be more, but others have their turn first.
    More,
    /// Not at all, because too much waits to be written.
    Held,
}

/// How far writing got.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Writing {
    /// To the end of what there is.
    Done,
    /// There may be more, but others have their turn first.
    More,
}

impl Driver {
    /// Whether nothing keeps it from sleeping but what there may be to write.
    fn is_at_rest(&self) -> bool {
        self.ending.is_none() && !self.backlog && !self.unflushed
    }

    /// All is read and written: it sleeps, or polls busily for a while.
    fn rest(&mut self, cx: &mut Context<'_>) -> Poll<RpcError> {
        let link = &self.link;
        if self.busy.goes_on(|| link.now()) {
            rt::yield_now(cx);
        }
        Poll::Pending
    }

    fn broken(&mut self, error: &io::Error) -> RpcError {
        self.note_end(Count::ConnectionsBroken);
        self.ending.take().unwrap_or_else(|| {
            let text = if error.kind() == io::ErrorKind::UnexpectedEof {
                error.to_string()
            } else {
                format!("the connection to {} broke: {error}", self.sender)
            };
            RpcError::new(ErrorKind::Disconnected, text)
        })
    }
}
