//! A simulated connection: its two ends and the pipes between them.

use super::pipe::{Pipe, Segment};
use rpc_core::Timestamp;
use std::net::SocketAddr;
use std::task::Waker;
use std::time::Duration;

/// Which end: the one that has dialled, or the one that has accepted.
pub(super) const DIALLER: usize = 0;
pub(super) const ACCEPTOR: usize = 1;

/// How long an env may keep a connection that its peer has ended.
const DEAF: Duration = Duration::from_secs(2);

/// How far a dial has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Dial {
    UnderWay,
    Taken,
    Refused,
}

#[derive(Debug)]
pub(super) struct Connection {
    pub(super) dial: Dial,
    pub(super) dialler: Option<Waker>,
    ends: [Side; 2],
    /// From the dialler, and to it.
    pipes: [Pipe; 2],
}

/// What is at one end.
#[derive(Debug)]
pub(super) struct Side {
    pub(super) at: SocketAddr,
    /// Which life of its node it belongs to.
    pub(super) life: u64,
    /// Whether a process has it.
    pub(super) open: bool,
}

impl Connection {
    pub(super) fn new(from: Side, to: SocketAddr) -> Self {
        let pipes = [Pipe::new(from.at.ip(), to.ip()), Pipe::new(to.ip(), from.at.ip())];
        let ends = [from, Side { at: to, life: 0, open: false }];
        Self { dial: Dial::UnderWay, dialler: None, ends, pipes }
    }

    pub(super) fn end(&self, end: usize) -> &Side {
        let [dialler, acceptor] = &self.ends;
        if end == DIALLER { dialler } else { acceptor }
    }

    pub(super) fn end_mut(&mut self, end: usize) -> &mut Side {
        let [dialler, acceptor] = &mut self.ends;
        if end == DIALLER { dialler } else { acceptor }
    }

    /// The pipe into which an end writes.
    pub(super) fn out(&mut self, end: usize) -> &mut Pipe {
        let [from_dialler, to_dialler] = &mut self.pipes;
        if end == DIALLER { from_dialler } else { to_dialler }
    }

    /// The pipe from which an end reads.
    pub(super) fn into(&mut self, end: usize) -> &mut Pipe {
        self.out(other(end))
    }

    /// Ends it at once for both.
    pub(super) fn break_now(&mut self, wakes: &mut Vec<Waker>) {
        self.pipes.iter_mut().for_each(|pipe| pipe.break_now(wakes));
    }

    /// Whether a process keeps an end that its peer has ended, with nothing left to read or to write. It
    /// stood still until `stood`.
    pub(super) fn is_deaf(&mut self, end: usize, now: Timestamp, stood: Timestamp) -> bool {
        // Who has dialled knows nothing before the answer.
        let idle = self.out(end).held() == 0 && (end == ACCEPTOR || self.dial == Dial::Taken);
        let since = self.into(end).over_since().filter(|_| idle);
        since.is_some_and(|since| now.since(since.max(stood)) > DEAF)
    }

    /// Whether nobody will ever look at it again.
    pub(super) fn is_over(&self) -> bool {
        self.ends.iter().all(|end| !end.open) && self.pipes.iter().all(Pipe::is_empty)
    }

    /// What the end of a process, or a stream that is dropped, says to the other side: a reset if
    /// something was not read, as systems do.
    pub(super) fn last_word(&mut self, end: usize) -> Option<Segment> {
        if self.into(end).end == Some(super::pipe::End::Reset) {
            return None;
        }
        if self.into(end).has_unread() {
            return Some(Segment::Reset);
        }
        let out = self.out(end);
        (!std::mem::replace(&mut out.finished, true)).then_some(Segment::Fin)
    }
}

pub(super) fn other(end: usize) -> usize {
    if end == DIALLER { ACCEPTOR } else { DIALLER }
}
