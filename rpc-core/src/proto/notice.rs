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

/// Whoever a target is relayed for.
#[derive(Clone, Debug)]
pub struct Asker {
    pub(super) env: u64,
    waker: Waker,
}

impl Asker {
    /// An env. `waker` is woken whenever there are [`notices`](super::Session::notices).
    #[must_use]
    pub fn new(env: u64, waker: Waker) -> Self {
        Self { env, waker }
    }
}

/// The side of a relayed target that looks back.
#[derive(Debug)]
pub(crate) struct Relayed {
    pub(super) asker: Asker,
    pub(super) turn: u64,
    notices: VecDeque<Notice>,
    /// Bytes of credit that were used up before the asker asked: what comes pays them first.
    debt: u64,
    /// The bytes of what waits.
    pub(crate) pending_bytes: usize,
}

impl Relayed {
    pub(crate) fn new(asker: Asker) -> Self {
        Self { asker, turn: 0, notices: VecDeque::new(), debt: 0, pending_bytes: 0 }
    }

    pub(crate) fn take(&mut self) -> VecDeque<Notice> {
        std::mem::take(&mut self.notices)
    }

    /// Somebody else asks from now on, and owes so many bytes.
    pub(super) fn hand_over(&mut self, asker: Asker, debt: u64) {
        self.asker = asker;
        self.turn = self.turn.wrapping_add(1);
        self.notices.clear();
        self.debt = debt;
    }

    /// Notes something; who is to be woken.
    pub(crate) fn tell(&mut self, mut notice: Notice) -> Waker {
        if let Notice::Credit { bytes, .. } = &mut notice {
            let paid = self.debt.min(*bytes);
            self.debt = self.debt.saturating_sub(paid);
            *bytes = bytes.saturating_sub(paid);
        }
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
        self.asker.waker.clone()
    }
}
