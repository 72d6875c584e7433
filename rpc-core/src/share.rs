//! How the room of an inbox is shared among its peers: the policy, in messages or in bytes.
//!
//! Half of the inbox is a pool. Every peer has a base that nobody can take from it; above that its
//! window grows as it is used up, while the pool has room, and shrinks towards a fair share when
//! others want some. Credit that a peer holds cannot be called in: a window shrinks by what is not
//! given back.

/// What peers share, in messages or in bytes.
#[derive(Debug)]
pub(crate) struct Measure {
    pub(crate) base: usize,
    start: usize,
    most: usize,
    pool: usize,
    /// What windows have above their bases.
    pub(crate) promised: usize,
    /// What those below their fair share want and have not got.
    wanted: usize,
    /// Windows above their bases, or that want to be.
    sharing: usize,
}

/// One peer's part of a measure.
#[derive(Debug, Default)]
pub(crate) struct Part {
    pub(crate) window: usize,
    wants: usize,
}

/// What a peer has sent in a round, compared with what it might have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Used {
    /// It has not had the time: what it wants is what it wanted.
    Nothing,
    Partly,
    Up,
}

impl Measure {
    pub(crate) fn new(limit: usize, base: usize, start: usize, most: usize) -> Self {
        let base = base.min(limit);
        let pool = limit / 2;
        Self { base, start, most, pool, promised: 0, wanted: 0, sharing: 0 }
    }

    pub(crate) fn free(&self) -> usize {
        self.pool.saturating_sub(self.promised)
    }

    /// Whether nobody has or wants anything of it.
    pub(crate) fn is_unused(&self) -> bool {
        (self.promised, self.wanted, self.sharing) == (0, 0, 0)
    }

    fn shares(&self, part: &Part) -> usize {
        usize::from(part.window > self.base || part.wants > 0)
    }

    /// Newcomers take from the upper half of the pool only: those that never send keep what they
    /// were given.
    pub(crate) fn open(&mut self) -> Part {
        let upper = self.free().saturating_sub(self.pool / 2);
        let extra = self.start.saturating_sub(self.base).min(upper / 4);
        let part = Part { window: self.base.saturating_add(extra), wants: 0 };
        self.promised = self.promised.saturating_add(extra);
        self.sharing = self.sharing.saturating_add(self.shares(&part));
        part
    }

    pub(crate) fn close(&mut self, part: &Part) {
        self.sharing = self.sharing.saturating_sub(self.shares(part));
        self.wanted = self.wanted.saturating_sub(part.wants);
        self.promised = self.promised.saturating_sub(part.window.saturating_sub(self.base));
    }

    /// A round of a peer is over: what it gets of the `owed` that it has used, and on top of it.
    pub(crate) fn round(&mut self, part: &mut Part, owed: usize, used: Used) -> usize {
        self.sharing = self.sharing.saturating_sub(self.shares(part));
        self.wanted = self.wanted.saturating_sub(part.wants);
        let among = self.sharing.saturating_add(1);
        let fair = self.base.saturating_add(self.pool.checked_div(among).unwrap_or(0));
        let mut given = owed;
        match used {
            Used::Up => given = given.saturating_add(self.grow(part, fair)),
            Used::Partly => part.wants = 0,
            Used::Nothing => {}
        }
        // What the others miss, and the free part of the pool does not cover.
        let missing = self.wanted.saturating_sub(self.free());
        let cut = part.window.saturating_sub(fair).min(missing).min(given);
        part.window = part.window.saturating_sub(cut);
        self.promised = self.promised.saturating_sub(cut);
        self.wanted = self.wanted.saturating_add(part.wants);
        self.sharing = self.sharing.saturating_add(self.shares(part));
        given.saturating_sub(cut)
    }

    /// Doubles a window as far as there is room. What of that is above the fair share goes back in
    /// the same round if others want it.
    fn grow(&mut self, part: &mut Part, fair: usize) -> usize {
        let wish = part.window.min(self.most.saturating_sub(part.window));
        let below = wish.min(fair.saturating_sub(part.window));
        let extra = wish.min(self.free());
        part.wants = below.saturating_sub(extra);
        part.window = part.window.saturating_add(extra);
        self.promised = self.promised.saturating_add(extra);
        extra
    }
}
