//! Whether a connection moves: what has begun must go on.

use super::close::{Close, CloseCode};
use super::session::Session;
use crate::deadline::Timestamp;
use crate::wire::frame::{Kind, put_control};

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
}

impl Session {
    /// The socket takes no more, or takes something again.
    pub fn stalled(&mut self, now: Timestamp, stalled: bool) {
        let since = self.pulse.stalled_since;
        self.pulse.stalled_since = if stalled { Some(since.unwrap_or(now)) } else { None };
    }

    /// Looks at what is under way. To be called from time to time.
    ///
    /// # Errors
    /// What to close the connection with: something has taken too long.
    pub fn check(&self, now: Timestamp) -> Result<(), Close> {
        let over = |since: Option<Timestamp>, limit| since.is_some_and(|t| now.since(t) > limit);
        let limit = self.limits.frame_timeout();
        if over(self.pulse.partial_since, limit) {
            return Err(Close::new(
                CloseCode::Timeout,
                format!("a frame was not complete after {limit:?} (rpc.io.frameTimeout)"),
            ));
        }
        let limit = self.limits.write_stall();
        if over(self.pulse.stalled_since, limit) {
            return Err(Close::new(
                CloseCode::Timeout,
                format!("nothing was read at the other end for {limit:?} (rpc.io.writeStall)"),
            ));
        }
        Ok(())
    }

    /// Answers a ping, unless the peer sends them faster than it reads the answers.
    pub(super) fn pong(&mut self, token: u64) -> Result<(), Close> {
        self.pulse.pongs = self.pulse.pongs.saturating_add(1);
        let most = self.limits.outbox_max_control();
        if self.pulse.pongs > most {
            return Err(Close::new(
                CloseCode::Overloaded,
                format!("more than {most} pings wait for their answer (rpc.outbox.maxControl)"),
            ));
        }
        put_control(self.lanes.control(), Kind::Pong, &token.to_be_bytes(), &[]);
        Ok(())
    }
}
