//! What becomes of a target that is relayed for somebody else.

use super::resolution::Resolution;
use crate::remote_failure::RemoteFailure;
use crate::termination::Termination;
use std::collections::VecDeque;
use std::task::Waker;

/// What becomes of a relayed target, to be passed on to whoever asked for it.
#[derive(Debug)]
#[non_exhaustive]
pub enum Notice {
    /// It is there.
    Resolved(Resolution),
    /// It is not there, or the way to it is lost.
    Unresolved(RemoteFailure),
    /// Room for more.
    Credit {
        /// Messages.
        messages: u64,
        /// Bytes of bodies.
        bytes: u64,
    },
    /// It has ended, or the way to it is lost.
    Gone(Termination),
}

/// The side of a relayed target that looks back.
#[derive(Debug)]
pub(crate) struct Relayed {
    notices: VecDeque<Notice>,
    waker: Waker,
    /// The bytes of what waits.
    pub(crate) pending_bytes: usize,
}

impl Relayed {
    pub(crate) fn new(waker: Waker) -> Self {
        Self { notices: VecDeque::new(), waker, pending_bytes: 0 }
    }

    pub(crate) fn take(&mut self) -> VecDeque<Notice> {
        std::mem::take(&mut self.notices)
    }

    /// Notes something; who is to be woken.
    pub(crate) fn tell(&mut self, notice: Notice) -> Waker {
        if let (
            Notice::Credit { messages, bytes },
            Some(Notice::Credit { messages: m, bytes: b }),
        ) = (&notice, self.notices.back_mut())
        {
            *m = m.saturating_add(*messages);
            *b = b.saturating_add(*bytes);
        } else {
            self.notices.push_back(notice);
        }
        self.waker.clone()
    }
}
