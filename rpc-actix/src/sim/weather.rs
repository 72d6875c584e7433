//! What the way from one node to another is like.

use super::random::SimRandom;
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::ops::Range;
use std::time::Duration;

/// How bytes travel in one direction between two nodes. The default is a quiet local network.
#[derive(Clone, Debug)]
pub struct Weather {
    pub(super) latency: Range<Duration>,
    pub(super) spikes: (f64, Duration),
    pub(super) bandwidth: u64,
    pub(super) chunk: usize,
    pub(super) buffer: usize,
}

impl Default for Weather {
    fn default() -> Self {
        Self {
            latency: Duration::from_micros(200)..Duration::from_millis(2),
            spikes: (0.0, Duration::ZERO),
            bandwidth: u64::MAX,
            chunk: usize::MAX,
            buffer: 256 * 1024,
        }
    }
}

impl Weather {
    /// The default: 0.2 to 2 ms, as fast as it gets, no faults.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// How long bytes are under way. The clock of a simulation ticks in milliseconds.
    #[must_use]
    pub fn latency(mut self, latency: Range<Duration>) -> Self {
        self.latency = latency;
        self
    }

    /// With this probability a write is under way for so much longer. What follows waits behind it.
    #[must_use]
    pub fn spikes(mut self, probability: f64, longer: Duration) -> Self {
        self.spikes = (probability, longer);
        self
    }

    /// Bytes in a second, which each connection has for itself.
    #[must_use]
    pub fn bandwidth(mut self, bytes: u64) -> Self {
        self.bandwidth = bytes.max(1);
        self
    }

    /// The most bytes that one read or one write takes; how many it is each time is random. With 1
    /// they come one by one.
    #[must_use]
    pub fn chunk(mut self, bytes: usize) -> Self {
        self.chunk = bytes.max(1);
        self
    }

    /// Bytes that a connection holds between a write and its read: a reader that is slow makes the
    /// writer wait when they are full.
    #[must_use]
    pub fn buffer(mut self, bytes: usize) -> Self {
        self.buffer = bytes.max(1);
        self
    }

    /// How long something of this size is under way, and for how long it keeps the way busy.
    pub(super) fn travel(&self, random: &mut SimRandom, bytes: usize) -> (Duration, Duration) {
        let mut latency = random.duration(self.latency.clone());
        if self.spikes.0 > 0.0 && random.chance(self.spikes.0) {
            latency = latency.saturating_add(self.spikes.1);
        }
        let bytes = u64::try_from(bytes).unwrap_or(u64::MAX);
        let nanos = u128::from(bytes).saturating_mul(1_000_000_000) / u128::from(self.bandwidth);
        (latency, Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX)))
    }

    /// How many of so many bytes one read or write takes.
    pub(super) fn piece(&self, random: &mut SimRandom, bytes: usize) -> usize {
        if self.chunk >= bytes {
            return bytes;
        }
        let most = u64::try_from(self.chunk).unwrap_or(u64::MAX);
        usize::try_from(random.below(most)).unwrap_or(0).saturating_add(1)
    }
}

/// The weather everywhere.
#[derive(Debug, Default)]
pub(super) struct Map {
    usual: Weather,
    special: BTreeMap<(IpAddr, IpAddr), Weather>,
    /// Directions in which nothing arrives.
    cut: BTreeSet<(IpAddr, IpAddr)>,
    /// Nodes at which every new connection is refused.
    refusing: BTreeSet<IpAddr>,
}

impl Map {
    pub(super) fn new(usual: Weather) -> Self {
        Self { usual, ..Self::default() }
    }

    pub(super) fn at(&self, from: IpAddr, to: IpAddr) -> &Weather {
        self.special.get(&(from, to)).unwrap_or(&self.usual)
    }

    pub(super) fn set_usual(&mut self, weather: Weather) {
        self.special.clear();
        self.usual = weather;
    }

    pub(super) fn set(&mut self, from: IpAddr, to: IpAddr, weather: Weather) {
        self.special.insert((from, to), weather);
    }

    /// Cuts a direction, or mends it. Whether that changed something.
    pub(super) fn cut(&mut self, from: IpAddr, to: IpAddr, is_cut: bool) -> bool {
        if is_cut { self.cut.insert((from, to)) } else { self.cut.remove(&(from, to)) }
    }

    pub(super) fn is_cut(&self, from: IpAddr, to: IpAddr) -> bool {
        self.cut.contains(&(from, to))
    }

    /// Mends every direction; those that were cut.
    pub(super) fn mend(&mut self) -> BTreeSet<(IpAddr, IpAddr)> {
        std::mem::take(&mut self.cut)
    }

    pub(super) fn refuse(&mut self, at: IpAddr, refuses: bool) {
        if refuses {
            self.refusing.insert(at);
        } else {
            self.refusing.remove(&at);
        }
    }

    pub(super) fn refuses(&self, at: IpAddr) -> bool {
        self.refusing.contains(&at)
    }
}
