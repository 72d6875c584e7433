//! Whether a connection lives: what has begun must go on, and silence has an end.

use super::close::{Close, CloseCode};
use super::hello::Hello;
use crate::deadline::{Timestamp, duration_text};
use crate::limits::Limits;
use std::time::Duration;

/// What is under way on a connection, since when, and when there was life last.
#[derive(Debug, Default)]
pub(super) struct Pulse {
    /// A frame that has begun to arrive.
    partial_since: Option<Timestamp>,
    /// Output that the socket does not take.
    stalled_since: Option<Timestamp>,
    /// Answers to pings since the last time that anything was written.
    pub(super) pongs: usize,
    /// When something came, and when something went out.
    heard: Timestamp,
    said: Timestamp,
    /// When a peer that promises no heartbeats was pinged, if nothing has come since.
    pinged: Option<Timestamp>,
    /// What the peer promises.
    heartbeat: Option<Duration>,
}

/// What a look at a connection asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Vital {
    /// All is well.
    Fine,
    /// Nothing came for so long that the peer counts as gone, if nothing waits to be read either.
    Silent,
    /// What the connection is to be closed with.
    Broken(Close),
}

impl Pulse {
    /// Of a connection that is ready now.
    pub(super) fn new(now: Timestamp, peer: &Hello) -> Self {
        let heartbeat = peer.heartbeat.map(|millis| Duration::from_millis(u64::from(millis)));
        Self { heard: now, said: now, heartbeat, ..Self::default() }
    }

    /// Something has come.
    pub(super) fn heard(&mut self, now: Timestamp) {
        self.heard = now;
        self.pinged = None;
    }

    /// Something goes out.
    pub(super) fn said(&mut self, now: Timestamp) {
        self.pongs = 0;
        self.said = now;
    }

    /// Time has passed that nobody could use: neither side is to blame for the silence.
    pub(super) fn rearm(&mut self, now: Timestamp) {
        self.heard = now;
        self.pinged = self.pinged.map(|_| now);
        self.partial_since = self.partial_since.map(|_| now);
        self.stalled_since = self.stalled_since.map(|_| now);
    }

    pub(super) fn partial(&mut self, now: Timestamp, partial: bool) {
        self.partial_since = if partial { Some(self.partial_since.unwrap_or(now)) } else { None };
    }

    /// The socket takes no more, or takes something again.
    pub(super) fn stalled(&mut self, now: Timestamp, stalled: bool) {
        self.stalled_since = if stalled { Some(self.stalled_since.unwrap_or(now)) } else { None };
    }

    /// Whether a peer without heartbeats must be pinged, to know whether it lives.
    pub(super) fn must_ping(&mut self, limits: &Limits, now: Timestamp) -> bool {
        let must = self.heartbeat.is_none()
            && self.pinged.is_none()
            && now.since(self.heard) >= limits.heartbeat();
        if must {
            self.pinged = Some(now);
        }
        must
    }

    /// Looks at what is under way.
    pub(super) fn look(&self, limits: &Limits, now: Timestamp) -> Vital {
        let over = |since: Option<Timestamp>, limit| since.is_some_and(|t| now.since(t) > limit);
        let broken = |text: String| Vital::Broken(Close::new(CloseCode::Timeout, text));
        let limit = limits.frame_timeout();
        if over(self.partial_since, limit) {
            let limit = duration_text(limit);
            return broken(format!("a frame was not complete after {limit} (rpc.io.frameTimeout)"));
        }
        let limit = limits.write_stall();
        if over(self.stalled_since, limit) {
            let limit = duration_text(limit);
            return broken(format!(
                "nothing was read at the other end for {limit} (rpc.io.writeStall)"
            ));
        }
        if self.is_silent(limits, now) { Vital::Silent } else { Vital::Fine }
    }

    /// Whether nothing was sent for so long that the peer should have a sign of life.
    pub(super) fn is_quiet(&self, limits: &Limits, now: Timestamp) -> bool {
        now.since(self.said) >= limits.heartbeat()
    }

    /// How long the peer may be silent.
    fn patience(&self, limits: &Limits) -> Duration {
        let promised = self.heartbeat.unwrap_or_default().saturating_mul(3);
        limits.dead_after().max(promised)
    }

    fn is_silent(&self, limits: &Limits, now: Timestamp) -> bool {
        let since = match self.heartbeat {
            Some(_) => self.heard,
            // It owes an answer only to what it was asked.
            None => match self.pinged {
                Some(pinged) => pinged,
                None => return false,
            },
        };
        now.since(since) >= self.patience(limits)
    }

    /// The end of a connection whose peer is silent, when all that came was read.
    pub(super) fn verdict(&self, limits: &Limits, now: Timestamp) -> Option<Close> {
        self.is_silent(limits, now).then(|| {
            let patience = self.patience(limits);
            let why = if patience > limits.dead_after() {
                "three of its own heartbeats"
            } else {
                "rpc.io.deadAfter"
            };
            let limit = duration_text(patience);
            let text = format!("nothing was heard of the peer for {limit} ({why})");
            Close::new(CloseCode::Timeout, text)
        })
    }

    /// A ping is to be answered, unless the peer sends them faster than it reads the answers.
    pub(super) fn pong(&mut self, limits: &Limits) -> Result<(), Close> {
        self.pongs = self.pongs.saturating_add(1);
        let most = limits.outbox_max_control();
        if self.pongs > most {
            return Err(Close::new(
                CloseCode::Overloaded,
                format!("more than {most} pings wait for their answer (rpc.outbox.maxControl)"),
            ));
        }
        Ok(())
    }
}
