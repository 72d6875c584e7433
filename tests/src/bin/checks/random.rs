//! Numbers that look random, and are the same in each run.

/// A generator with its state.
#[derive(Debug)]
pub(crate) struct Random(u64);

impl Random {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// At least `from`, and below `to`.
    pub(crate) fn between(&mut self, from: u64, to: u64) -> u64 {
        // The constants of Knuth's MMIX generator; the upper bits are the good ones.
        self.0 =
            self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        from + (self.0 >> 33) % to.saturating_sub(from).max(1)
    }

    pub(crate) fn below(&mut self, end: u32) -> u32 {
        u32::try_from(self.between(0, u64::from(end))).unwrap_or_default()
    }
}
