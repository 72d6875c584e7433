//! Whether a connection moves: what has begun must go on.

use super::close::{Close, CloseCode};
use crate::deadline::Timestamp;
use crate::limits::Limits;

/// What is under way on a connection, and since when.
#[derive(Debug, Default)]
pub(super) struct Pulse {
    /// A frame that has begun to arrive.
    partial_since: Option<Timestamp>,
    /// Output that the socket does not take.
    stalled_since: Option<Timestamp>,
    /// Answers to pings since the last time that anything was written.
    pub(super) pongs: usize,
}

impl Pulse {
    pub(super) fn partial(&mut self, now: Timestamp, partial: bool) {
        self.partial_since = if partial { Some(self.partial_since.unwrap_or(now)) } else { None };
    }

    /// The socket takes no more, or takes something again.
    pub(super) fn stalled(&mut self, now: Timestamp, stalled: bool) {
        self.stalled_since = if stalled { Some(self.stalled_since.unwrap_or(now)) } else { None };
    }

    /// What is under way must not have taken too long.
    pub(super) fn check(&self, limits: &Limits, now: Timestamp) -> Result<(), Close> {
        let over = |since: Option<Timestamp>, limit| since.is_some_and(|t| now.since(t) > limit);
        let limit = limits.frame_timeout();
        if over(self.partial_since, limit) {
            return Err(Close::new(
                CloseCode::Timeout,
                format!("a frame was not complete after {limit:?} (rpc.io.frameTimeout)"),
            ));
        }
        let limit = limits.write_stall();
        if over(self.stalled_since, limit) {
            return Err(Close::new(
                CloseCode::Timeout,
                format!("nothing was read at the other end for {limit:?} (rpc.io.writeStall)"),
            ));
        }
        Ok(())
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
