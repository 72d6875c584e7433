//! What a seed switches on: its cluster, its limits, its load and its faults.

use rpc_actix::sim::{SimRandom, Weather};
use rpc_actix::{RpcEnvConfig, RpcError};
use std::time::Duration;

/// A fault that may come at any time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fault {
    Crash,
    PowerOff,
    Pause,
    Partition,
    PartitionOneWay,
    Flap,
    Reset,
    ResetInside,
    HalfClose,
    Refuse,
    Weather,
    Jump,
    StopEndpoint,
    ShutDown,
    Stranger,
}

impl Fault {
    const ALL: [Self; 15] = [
        Self::Crash,
        Self::PowerOff,
        Self::Pause,
        Self::Partition,
        Self::PartitionOneWay,
        Self::Flap,
        Self::Reset,
        Self::ResetInside,
        Self::HalfClose,
        Self::Refuse,
        Self::Weather,
        Self::Jump,
        Self::StopEndpoint,
        Self::ShutDown,
        Self::Stranger,
    ];
}

/// What callers do, beside asking and sending.
#[derive(Clone, Copy, Debug)]
pub(super) struct Habits {
    pub(super) panics: bool,
    pub(super) fails: bool,
    pub(super) blocks: bool,
    pub(super) keeps: bool,
    pub(super) drops: bool,
    pub(super) cancels: bool,
    pub(super) bursts: bool,
    pub(super) large: bool,
    pub(super) bulk: bool,
    pub(super) passes: bool,
    pub(super) short_deadlines: bool,
    /// Handlers that take a while, or answer later.
    pub(super) slow: bool,
}

/// What some seeds do beside: each of these is there for what ordinary load seldom meets.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Modes {
    /// Many bodies are large, and ways are narrow: one or the other is always under way.
    pub(super) heavy: bool,
    /// Queues have few places, and callers do not wait for each other.
    pub(super) tight: bool,
    /// At the beginning everybody dials everybody.
    pub(super) eager: bool,
    /// Whoever asks looks at the answer when it is long there.
    pub(super) lazy: bool,
    /// Sockets take little at once.
    pub(super) narrow: bool,
}

impl Modes {
    fn draw(random: &mut SimRandom) -> Self {
        let mut seldom = || random.chance(0.15);
        Self { heavy: seldom(), tight: seldom(), eager: seldom(), lazy: seldom(), narrow: seldom() }
    }
}

/// How much there is that can go wrong without being anybody's fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Quiet {
    No,
    /// The network and the nodes are well: what is late is somebody's fault.
    Calm,
    /// Endpoints answer at once as well: nothing is late.
    Peace,
}

/// What one seed does.
#[derive(Clone, Debug)]
pub(super) struct Plan {
    pub(super) servers: usize,
    pub(super) clients: usize,
    pub(super) callers: usize,
    pub(super) think: Duration,
    pub(super) faults: Vec<Fault>,
    /// The time from one fault to the next, at most.
    pub(super) between: Duration,
    pub(super) habits: Habits,
    pub(super) modes: Modes,
    pub(super) ask_timeout: Duration,
    pub(super) quiet: Quiet,
    keys: Vec<(&'static str, String)>,
}

impl Plan {
    /// Draws a plan: of faults, habits and limits each seed has a part, so that each has its peace
    /// from the others in some seed. `modes` is a source of its own.
    pub(super) fn draw(random: &mut SimRandom, modes: &mut SimRandom) -> Self {
        let faults = Fault::ALL.into_iter().filter(|_| random.chance(0.3)).collect();
        let mut often = || random.chance(0.5);
        let habits = Habits {
            panics: often(),
            fails: often(),
            blocks: often(),
            keeps: often(),
            drops: often(),
            cancels: often(),
            bursts: often(),
            large: often(),
            bulk: often(),
            passes: often(),
            short_deadlines: often(),
            slow: true,
        };
        let keys = keys(random);
        let count =
            |random: &mut SimRandom, range| usize::try_from(random.within(range)).unwrap_or(1);
        let plan = Self {
            servers: count(random, 1..4),
            clients: count(random, 1..4),
            callers: count(random, 1..4),
            think: Duration::from_millis(random.within(200..20_000)),
            faults,
            between: Duration::from_millis(random.within(2_000..60_000)),
            habits,
            modes: Modes::draw(modes),
            ask_timeout: Duration::from_millis(random.within(500..20_000)),
            quiet: Quiet::No,
            keys,
        };
        let plan = match random.below(20) {
            0..3 => plan.calm(),
            3..5 => plan.calm().peaceful(),
            _ => plan,
        };
        plan.in_modes(modes)
    }

    /// With what its modes need.
    fn in_modes(mut self, random: &mut SimRandom) -> Self {
        let Modes { heavy, tight, .. } = self.modes;
        if heavy {
            (self.habits.large, self.habits.bulk) = (true, true);
            self.between = self.between.min(Duration::from_secs(5));
            self.keys.retain(|(key, _)| *key != "rpc.frame.maxSize");
            self.keys.push(("rpc.frame.maxSize", random.within(32_768..65_536).to_string()));
            // Endpoints that stop, and connections that break, in the middle of a message.
            let most = [Fault::StopEndpoint, Fault::ResetInside];
            let more = &most[..if self.quiet == Quiet::No { 2 } else { 1 }];
            self.faults.extend(more.iter().filter(|_| random.chance(0.7)));
        }
        if tight {
            (self.habits.bursts, self.habits.cancels) = (true, true);
            self.callers = self.callers.max(3);
            self.keys.retain(|(key, _)| !TIGHT.iter().any(|(tight, _)| tight == key));
            for (key, range) in TIGHT {
                self.keys.push((key, random.within(range).to_string()));
            }
        }
        self
    }

    /// Without what makes links and nodes slow.
    fn calm(mut self) -> Self {
        self.faults.retain(|fault| matches!(fault, Fault::StopEndpoint | Fault::Stranger));
        self.habits.blocks = false;
        self.quiet = Quiet::Calm;
        self
    }

    /// Without what makes endpoints slow.
    fn peaceful(mut self) -> Self {
        self.habits = Habits {
            keeps: false,
            passes: false,
            short_deadlines: false,
            slow: false,
            bursts: true,
            ..self.habits
        };
        self.ask_timeout = self.ask_timeout.max(Duration::from_secs(10));
        self.quiet = Quiet::Peace;
        self
    }

    /// How long a peer may be silent.
    pub(super) fn dead_after(&self) -> Duration {
        let key = self.keys.iter().find(|(key, _)| *key == "rpc.io.deadAfter");
        let millis = key.and_then(|(_, value)| value.strip_suffix("ms")?.parse().ok());
        Duration::from_millis(millis.unwrap_or(3_000))
    }

    /// Whether endpoints never end.
    pub(super) fn keeps_endpoints(&self) -> bool {
        self.quiet != Quiet::No && !self.faults.contains(&Fault::StopEndpoint)
    }

    /// What an env of this seed is configured with.
    pub(super) fn configure(&self, config: RpcEnvConfig) -> Result<RpcEnvConfig, RpcError> {
        let keys = self.keys.iter().map(|(key, value)| (*key, value.as_str()));
        config.with_ask_timeout(self.ask_timeout).set_all(keys)
    }

    /// The weather of every day.
    pub(super) fn usual(&self, random: &mut SimRandom) -> Weather {
        let mut weather = Weather::new();
        if self.modes.heavy {
            // At peace nothing is late: a burst of large bodies and their answers are gone before
            // the time of an ask is over.
            let least = if self.quiet == Quiet::Peace { 1_000_000 } else { 100_000 };
            weather = weather.bandwidth(random.within(least..2_000_000));
        }
        // What is in a socket is out of the sender's hands: it is not under way any more.
        if self.modes.narrow || self.modes.heavy {
            let least = if self.habits.large { 16_384 } else { 256 };
            let bytes = random.within(least..4 * least);
            weather = weather.buffer(usize::try_from(bytes).unwrap_or(usize::MAX));
        }
        weather
    }

    /// The weather of a bad day.
    pub(super) fn weather(&self, random: &mut SimRandom) -> Weather {
        let slowest = Duration::from_millis(random.within(1..400));
        let mut weather = Weather::new().latency(slowest / 4..slowest);
        if random.chance(0.5) {
            weather = weather.spikes(0.02, Duration::from_millis(random.within(10..5_000)));
        }
        if random.chance(0.3) {
            weather = weather.bandwidth(random.within(20_000..2_000_000));
        }
        if random.chance(0.3) {
            weather = weather.chunk(match self.habits.large {
                // A large message, byte by byte, would take more of the time than all the rest.
                true => 4_096,
                false if random.chance(0.3) => 1,
                false => 64,
            });
        }
        if random.chance(0.3) {
            let least = if self.habits.large { 4_096 } else { 1 };
            let bytes = usize::try_from(random.within(least..20_000)).unwrap_or(1);
            weather = weather.buffer(bytes);
        }
        weather
    }
}

/// Keys that make queues short.
const TIGHT: [(&str, std::ops::Range<u64>); 3] = [
    ("rpc.outbox.maxMessages", 4..12),
    ("rpc.outbox.maxWaiting", 2..8),
    ("rpc.io.maxInFlight", 2..6),
];

/// Limits that are nearer than the defaults, some of them.
fn keys(random: &mut SimRandom) -> Vec<(&'static str, String)> {
    let mut keys = Vec::new();
    let mut maybe =
        |probability: f64, key: &'static str, range: std::ops::Range<u64>, unit: &str| {
            if random.chance(probability) {
                keys.push((key, format!("{}{unit}", random.within(range))));
            }
        };
    maybe(0.3, "rpc.inbox.maxMessages", 32..256, "");
    maybe(0.3, "rpc.inbox.maxBytes", 1_048_576..4_194_304, "");
    maybe(0.3, "rpc.outbox.maxMessages", 16..128, "");
    maybe(0.3, "rpc.outbox.maxBytes", 1_048_576..4_194_304, "");
    maybe(0.3, "rpc.outbox.maxWaiting", 16..256, "");
    maybe(0.3, "rpc.io.maxInFlight", 2..64, "");
    maybe(0.3, "rpc.frame.maxSize", 32_768..65_536, "");
    maybe(0.3, "rpc.io.reconnectMax", 100..5_000, "ms");
    maybe(0.3, "rpc.shutdown.drainTimeout", 1..5_000, "ms");
    maybe(0.2, "rpc.dispatcher.yieldAfter", 1..8, "");
    if random.chance(0.5) {
        let beat = random.within(300..3_000);
        keys.push(("rpc.io.heartbeat", format!("{beat}ms")));
        keys.push(("rpc.io.deadAfter", format!("{}ms", 3 * beat)));
    }
    keys
}
