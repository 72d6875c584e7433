//! Whether a connection lives: what has begun must go on, and silence has an end.

use super::close::{Close, CloseCode};
use super::hello::Hello;
use crate::deadline::{Timestamp, duration_text};
use crate::limits::Limits;
use crate::plant::planted;
use std::time::Duration;

/// What is under way on a connection, since when, and when there was life last.
#[derive(Debug, Default)]
#[repr(C)]
pub(super) struct Pulse {
    /// When something came, and when something went out.
    heard: Timestamp,
    said: Timestamp,
    /// Answers to pings since the last time that anything was written.
    pub(super) pongs: usize,
    /// When a peer that promises no heartbeats was pinged, if nothing has come since.
    pinged: Option<Timestamp>,
    /// A frame that has begun to arrive.
    partial_since: Option<Timestamp>,
    /// Output that the socket does not take.
    stalled_since: Option<Timestamp>,
    /// The time that the peer's pings have used up: each has its share of it.
    pings: Timestamp,
    /// What the peer promises.
    heartbeat: Option<Duration>,
}

/// So often a peer may ping without end.
const PING_EVERY: Duration = Duration::from_millis(250);
/// The part of a heartbeat that is kept for being late.
const HEADROOM: u32 = 5;

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
        let promised = peer.heartbeat.filter(|millis| *millis > 0);
        let heartbeat = promised.map(|millis| Duration::from_millis(u64::from(millis)));
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

    /// Whether nothing was sent for so long that the peer should have a sign of life: a fifth of
    /// what was promised is for the time until this is looked at again.
    pub(super) fn is_quiet(&self, limits: &Limits, now: Timestamp) -> bool {
        let promised = limits.heartbeat();
        now.since(self.said) >= promised.saturating_sub(promised / HEADROOM)
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
        now.since(since) >= self.patience(limits) && !planted!(SilenceUnseen)
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

    /// A ping is to be answered, unless the peer sends them faster than it reads the answers, or
    /// faster than it needs to.
    pub(super) fn pong(&mut self, limits: &Limits, now: Timestamp) -> Result<(), Close> {
        let too_many = |text: String| Err(Close::new(CloseCode::Overloaded, text));
        self.pongs = self.pongs.saturating_add(1);
        let most = limits.outbox_max_control();
        if self.pongs > most {
            return too_many(format!(
                "more than {most} pings wait for their answer (rpc.outbox.maxControl)"
            ));
        }
        self.pings = self.pings.max(now).saturating_add(PING_EVERY);
        let most = limits.max_pings();
        let spare = PING_EVERY.saturating_mul(u32::try_from(most).unwrap_or(u32::MAX));
        if self.pings.since(now) > spare {
            return too_many(format!(
                "more than {most} pings beyond four a second (rpc.io.maxPings)"
            ));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proto::PeerLimits;

    fn at(millis: u64) -> Timestamp {
        Timestamp::START.saturating_add(Duration::from_millis(millis))
    }

    fn pulse(promise: Option<u32>) -> Pulse {
        let mut hello = Hello::new(1, None, PeerLimits::default());
        hello.heartbeat = promise;
        Pulse::new(Timestamp::START, &hello)
    }

    #[test]
    fn l13_a_sign_of_life_comes_before_it_is_due() {
        let (mut pulse, limits) = (pulse(Some(1000)), Limits::default());
        assert!(!pulse.is_quiet(&limits, at(799)) && pulse.is_quiet(&limits, at(800)));
        pulse.said(at(800));
        assert!(!pulse.is_quiet(&limits, at(1599)));
    }

    #[test]
    fn l13_patience_is_three_of_the_peers_heartbeats_and_not_less_than_the_key() {
        let limits = Limits::default();
        for (promise, patience) in [(100, 3000), (1000, 3000), (2000, 6000)] {
            let pulse = pulse(Some(promise));
            assert_eq!(pulse.look(&limits, at(patience - 1)), Vital::Fine);
            assert_eq!(pulse.look(&limits, at(patience)), Vital::Silent);
        }
    }

    #[test]
    fn l14_pings_faster_than_four_a_second_use_up_what_there_is() {
        let limits = Limits::default().with_max_pings(10).unwrap();
        let taken = |pulse: &mut Pulse, from: u64, every: u64| {
            let mut pings = (0..1000).map(|n| {
                let now = at(from + n * every);
                pulse.said(now);
                pulse.pong(&limits, now)
            });
            pings.position(|pong| pong.is_err())
        };
        assert_eq!(taken(&mut pulse(None), 0, 250), None);
        assert_eq!(taken(&mut pulse(None), 5, 0), Some(10));
        // Five a second are one too many each second.
        assert_eq!(taken(&mut pulse(None), 0, 200), Some(46));
        // What was used up comes back with time.
        let mut pulse = pulse(None);
        assert_eq!(taken(&mut pulse, 0, 0), Some(10));
        let close = pulse.pong(&limits, at(249)).unwrap_err();
        assert_eq!(close.text, "more than 10 pings beyond four a second (rpc.io.maxPings)");
        assert!(close.is(CloseCode::Overloaded));
        assert_eq!(taken(&mut pulse, 100_000, 0), Some(10));
    }

    #[test]
    fn a_promise_of_nothing_is_none() {
        for promise in [None, Some(0)] {
            let (mut pulse, limits) = (pulse(promise), Limits::default());
            assert_eq!(pulse.look(&limits, at(1_000_000)), Vital::Fine);
            assert!(pulse.must_ping(&limits, at(1_000_000)));
            assert_eq!(pulse.look(&limits, at(1_003_000)), Vital::Silent);
            pulse.heard(at(1_003_000));
            assert_eq!(pulse.look(&limits, at(1_003_000)), Vital::Fine);
        }
    }
}
