//! How much of everything: [`Limits`], each with a number, the reason for it, and the key that changes it.
//!
//! Whatever a peer or a caller can make grow has its limit here. One table (the call of `limits!` below) makes the
//! fields, the defaults, the getters, the setters, the reading from text and the documentation of the keys.

use std::fmt;
use std::time::Duration;

use crate::deadline::{duration_text, parse_duration, split_number};
use crate::error::{ErrorKind, RpcError};

const KIB: u64 = 1024;
const MIB: u64 = 1024 * KIB;
const GIB: u64 = 1024 * MIB;
const SECOND: u64 = 1_000_000_000;
const DAY: u64 = 24 * 60 * 60 * SECOND;
/// Where a count has no upper bound of its own: what 32 bits can hold.
const MOST: u64 = u32::MAX as u64;
/// Where a size has no upper bound of its own.
const LARGEST: u64 = 1024 * GIB;

/// What a value of a configuration key is, and so how it is written.
#[non_exhaustive]
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Unit {
    /// A whole number with `ms`, `s`, `min` or `h`.
    Duration,
    /// A whole number of bytes, or with `k`, `m` or `g` (1,024 each; also as `KiB`, `kb`, ...).
    Bytes,
    /// A whole number.
    Count,
    /// Text.
    Text,
}

impl fmt::Display for Unit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Duration => "duration",
            Self::Bytes => "size",
            Self::Count => "number",
            Self::Text => "text",
        })
    }
}

/// A configuration key: everything that the parser, the error texts and the documentation know of it.
#[non_exhaustive]
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ConfigKey {
    /// The key, as in `rpc.askTimeout`.
    pub name: &'static str,
    /// The value that holds when the key is not set, as it would be written; empty if there is none.
    pub default: &'static str,
    /// What its value is.
    pub unit: Unit,
    /// What it does, and why the default is what it is.
    pub meaning: &'static str,
    /// The lines of `behaviours.md` and `reliability.md` that it answers to.
    pub answers: &'static str,
    /// The smallest value, in nanoseconds, bytes or pieces.
    min: u64,
    /// The greatest value.
    max: u64,
}

impl ConfigKey {
    /// A key whose value is a number between `min` and `max`.
    pub(crate) const fn number(
        (name, unit, default): (&'static str, Unit, &'static str),
        (min, max): (u64, u64),
        meaning: &'static str,
        answers: &'static str,
    ) -> Self {
        Self { name, default, unit, meaning, answers, min, max }
    }

    /// A key whose value is text.
    pub(crate) const fn text(
        name: &'static str,
        default: &'static str,
        meaning: &'static str,
        answers: &'static str,
    ) -> Self {
        Self { name, default, unit: Unit::Text, meaning, answers, min: 0, max: u64::MAX }
    }

    /// What a value looks like, for error texts and documentation: `a size from 1KiB to 16MiB`.
    pub fn expected(&self) -> String {
        if self.unit == Unit::Text {
            return "text".to_owned();
        }
        let (min, max) = (self.number_text(self.min), self.number_text(self.max));
        let example = match self.unit {
            Unit::Duration => ", as in 500ms, 10s, 2min or 1h",
            Unit::Bytes => ", as in 4096, 64k, 256KiB or 4MiB",
            _ => "",
        };
        format!("a {} from {min} to {max}{example}", self.unit)
    }

    /// Reads a value of this key: nanoseconds, bytes or pieces.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::InvalidConfig`], which names the key, the value and what is expected.
    pub(crate) fn read(&self, value: &str) -> Result<u64, RpcError> {
        let number = match self.unit {
            Unit::Duration => {
                parse_duration(value).and_then(|duration| u64::try_from(duration.as_nanos()).ok())
            }
            Unit::Bytes => parse_bytes(value),
            Unit::Count | Unit::Text => value.trim().parse().ok(),
        };
        match number.filter(|number| self.allows(*number)) {
            Some(number) => Ok(number),
            None => Err(self.invalid(&format!("{value:?}"))),
        }
    }

    /// Checks a number that was not written as text.
    pub(crate) fn check(&self, number: u64) -> Result<(), RpcError> {
        if self.allows(number) { Ok(()) } else { Err(self.invalid(&self.number_text(number))) }
    }

    fn allows(&self, number: u64) -> bool {
        (self.min..=self.max).contains(&number)
    }

    fn invalid(&self, value: &str) -> RpcError {
        let text = format!("{} cannot be {value}; expected {}", self.name, self.expected());
        RpcError::new(ErrorKind::InvalidConfig, text)
    }

    fn number_text(&self, number: u64) -> String {
        match self.unit {
            Unit::Duration => duration_text(Duration::from_nanos(number)),
            Unit::Bytes => bytes_text(number),
            Unit::Count | Unit::Text => number.to_string(),
        }
    }
}

/// A size in the greatest unit that leaves no fraction.
fn bytes_text(bytes: u64) -> String {
    match [(GIB, "GiB"), (MIB, "MiB"), (KIB, "KiB")]
        .into_iter()
        .find(|(size, _)| bytes.is_multiple_of(*size))
    {
        Some((size, unit)) if bytes != 0 => {
            format!("{}{unit}", bytes.checked_div(size).unwrap_or(bytes))
        }
        _ => format!("{bytes}B"),
    }
}

fn parse_bytes(text: &str) -> Option<u64> {
    let (number, unit) = split_number(text)?;
    let size = match unit.to_ascii_lowercase().as_str() {
        "" | "b" => 1,
        "k" | "kb" | "kib" => KIB,
        "m" | "mb" | "mib" => MIB,
        "g" | "gb" | "gib" => GIB,
        _ => return None,
    };
    number.checked_mul(size)
}

/// What a limit can be: a number of pieces or bytes, or a time.
trait Amount: Copy {
    fn from_base(base: u64) -> Self;
    fn base(self) -> u64;
}

impl Amount for usize {
    fn from_base(base: u64) -> Self {
        Self::try_from(base).unwrap_or(Self::MAX)
    }

    fn base(self) -> u64 {
        u64::try_from(self).unwrap_or(u64::MAX)
    }
}

impl Amount for Duration {
    fn from_base(base: u64) -> Self {
        Self::from_nanos(base)
    }

    fn base(self) -> u64 {
        u64::try_from(self.as_nanos()).unwrap_or(u64::MAX)
    }
}

macro_rules! limits {
    ($(
        $field:ident, $with:ident: $type:ty = $key:literal, $unit:ident, $default:literal,
        $number:expr, in $min:expr, $max:expr; $answers:literal; $meaning:literal;
    )*) => {
        /// How much of everything, per env. The defaults fit a cluster of a few hundred nodes; every number can be
        /// changed with its setter, or with its key through `RpcEnvConfig`.
        #[derive(Clone, PartialEq, Eq, Debug)]
        pub struct Limits {
            $($field: $type,)*
        }

        impl Default for Limits {
            fn default() -> Self {
                Self { $($field: Amount::from_base($number),)* }
            }
        }

        impl Limits {
            /// The keys of the limits.
            pub(crate) const KEYS: &[ConfigKey] = &[$(
                ConfigKey::number(($key, Unit::$unit, $default), ($min, $max), $meaning, $answers),
            )*];

            $(
                #[doc = concat!($meaning, "\n\nDefault ", $default, ", key `", $key, "`.")]
                pub fn $field(&self) -> $type {
                    self.$field
                }

                #[doc = concat!("Sets [`", stringify!($field), "`](Self::", stringify!($field), ").")]
                ///
                /// # Errors
                ///
                /// [`ErrorKind::InvalidConfig`] if the value is out of the range that the text of the error names.
                pub fn $with(mut self, value: $type) -> Result<Self, RpcError> {
                    Self::check($key, value.base())?;
                    self.$field = value;
                    Ok(self)
                }
            )*

            /// Sets the limit of this key from the base unit of its value; None if no limit has this key.
            pub(crate) fn with_key(self, key: &str, number: u64) -> Option<Result<Self, RpcError>> {
                match key {
                    $($key => Some(self.$with(Amount::from_base(number))),)*
                    _ => None,
                }
            }
        }
    };
}

limits! {
    frame_max_size, with_frame_max_size: usize = "rpc.frame.maxSize", Bytes, "256KiB",
        256 * KIB, in 32 * KIB, 16 * MIB; "R13, L1";
        "The body of one frame. A larger message travels in several, so this is how long a small one may have to wait behind a large one: 256 KiB are 2 ms at 1 Gbit/s.";
    message_max_size, with_message_max_size: usize = "rpc.message.maxSize", Bytes, "16MiB",
        16 * MIB, in 1, 2047 * MIB; "S150, S187";
        "The encoded body of one message or reply. Larger ones are refused where they are encoded. Control messages are small; larger data goes in several messages, in the bulk lane.";
    message_max_depth, with_message_max_depth: usize = "rpc.message.maxDepth", Count, "64",
        64, in 1, 64; "L11, R21";
        "How deeply collections may lie within each other in a message from the network. Types written by people nest less, and decoders recurse.";
    message_max_elements, with_message_max_elements: usize = "rpc.message.maxElements", Count, "1048576",
        1_048_576, in 1, MOST; "L12, R23, R24";
        "The elements of all collections of one message from the network together. An element of one byte can become a value of many, so bytes alone do not bound memory.";
    pre_auth_bytes, with_pre_auth_bytes: usize = "rpc.io.preAuthBytes", Bytes, "64KiB",
        64 * KIB, in KIB, 16 * MIB; "L2, R4";
        "What is read from a peer before it is authenticated. A handshake with certificates needs a few KiB.";
    handshake_timeout, with_handshake_timeout: Duration = "rpc.io.handshakeTimeout", Duration, "5s",
        5 * SECOND, in SECOND / 1000, DAY; "L3, R2, R3, S197";
        "The time from accept to the end of the handshake, whatever progress is made.";
    max_connections, with_max_connections: usize = "rpc.io.maxConnections", Count, "4096",
        4096, in 1, MOST; "L5, R8";
        "Connections that came in. Each one needs a descriptor: keep the system's limit above it; the last 64 are not given to connections that come in.";
    max_unauthenticated, with_max_unauthenticated: usize = "rpc.io.maxUnauthenticated", Count, "1024",
        1024, in 1, MOST; "L4, R6";
        "Connections whose handshake is not done. Beyond it the oldest of the address that has the most is closed.";
    max_unauthenticated_per_source, with_max_unauthenticated_per_source: usize = "rpc.io.maxUnauthenticatedPerSource", Count, "64",
        64, in 1, MOST; "L4, R6";
        "Connections from one address whose handshake is not done, except from loopback. Beyond it the oldest of them is closed: one host cannot take all the places.";
    max_in_flight, with_max_in_flight: usize = "rpc.io.maxInFlight", Count, "1024",
        1024, in 1, 1_000_000; "L6, R37";
        "Calls per connection and direction that are not answered yet. Each costs an entry on both sides.";
    max_assembly, with_max_assembly: usize = "rpc.io.maxAssembly", Bytes, "64MiB",
        64 * MIB, in 1, LARGEST; "R15, R44";
        "The announced bytes of large messages and replies that one peer may have under way at once: a message above it goes alone. Four messages of the greatest size.";
    inbox_max_messages, with_inbox_max_messages: usize = "rpc.inbox.maxMessages", Count, "4096",
        4096, in 1, MOST; "L7";
        "Messages that wait in the inbox of one endpoint: at 1 µs each, 4 ms of work.";
    inbox_max_bytes, with_inbox_max_bytes: usize = "rpc.inbox.maxBytes", Bytes, "64MiB",
        64 * MIB, in 1, LARGEST; "L7";
        "The bytes of the messages that wait in the inbox of one endpoint: four messages of the greatest size.";
    outbox_max_messages, with_outbox_max_messages: usize = "rpc.outbox.maxMessages", Count, "8192",
        8192, in 1, MOST; "L8, R42";
        "Messages that wait to be sent to one peer. What has no room is refused with Overloaded, or waits if the caller says so.";
    outbox_max_bytes, with_outbox_max_bytes: usize = "rpc.outbox.maxBytes", Bytes, "32MiB",
        32 * MIB, in 1, LARGEST; "L8, R42";
        "The bytes of the messages that wait to be sent to one peer: two messages of the greatest size, or a quarter of a second at 1 Gbit/s.";
    outbox_max_control, with_outbox_max_control: usize = "rpc.outbox.maxControl", Count, "1024",
        1024, in 1, MOST; "L8, R48";
        "Control frames that wait to be sent to one peer. They have a queue of their own that goes first; a peer that fills it does not read, and is disconnected.";
    max_pings, with_max_pings: usize = "rpc.io.maxPings", Count, "100",
        100, in 1, MOST; "L14, R48";
        "Pings that a peer may send faster than four a second. One that sends more wants to be answered and nothing else, and is disconnected.";
    outbox_max_waiting, with_outbox_max_waiting: usize = "rpc.outbox.maxWaiting", Count, "65536",
        65_536, in 0, MOST; "L8, R42";
        "Asks and one-way messages (`send_wait`) that wait for room in the queue to one peer, or in an inbox. More than that are refused at once.";
    outbox_max_waiting_bytes, with_outbox_max_waiting_bytes: usize = "rpc.outbox.maxWaitingBytes", Bytes, "128MiB",
        128 * MIB, in 0, LARGEST; "L8, R42";
        "The bytes of asks and one-way messages that wait for room in the queue to one peer, or in an inbox, above what those may hold. More than that are refused at once.";
    outbox_max_reply_bytes, with_outbox_max_reply_bytes: usize = "rpc.outbox.maxReplyBytes", Bytes, "128MiB",
        128 * MIB, in 0, LARGEST; "P2, R43";
        "The bytes of the replies that wait to be sent to one peer: eight of the greatest size. One that finds others there and no room is not sent, and its caller hears Overloaded.";
    yield_after, with_yield_after: usize = "rpc.dispatcher.yieldAfter", Count, "64",
        64, in 1, MOST; "L15, R47";
        "Messages that an endpoint handles before it lets others of its thread have a turn.";
    max_turn, with_max_turn: Duration = "rpc.dispatcher.maxTurn", Duration, "1ms",
        SECOND / 1000, in 0, DAY; "L15, R47";
        "How long an endpoint handles messages, if they are fewer, before it lets others of its thread have a turn. A handler is not interrupted.";
    blocked_after, with_blocked_after: Duration = "rpc.dispatcher.blockedAfter", Duration, "1s",
        SECOND, in SECOND / 100, DAY; "R56";
        "An endpoint that runs for this long without giving way, because a handler of it blocks its thread, is logged and counted (handlers_blocked). Seen by the env's own thread, within a quarter more; not in inline mode, where there is none.";
    max_watches, with_max_watches: usize = "rpc.dispatcher.maxWatches", Count, "65536",
        65_536, in 1, MOST; "P2";
        "Endpoints that one endpoint may watch at once, those included whose end it has not been told yet. As many as a peer may have in use at once.";
    write_stall, with_write_stall: Duration = "rpc.io.writeStall", Duration, "10s",
        10 * SECOND, in SECOND / 1000, DAY; "L10, R42";
        "How long the socket of a connection may take no byte while there is something to send. Then the connection is closed.";
    frame_timeout, with_frame_timeout: Duration = "rpc.io.frameTimeout", Duration, "30s",
        30 * SECOND, in SECOND / 1000, DAY; "L9, R15";
        "How long a frame may take from its first byte to its last.";
    heartbeat, with_heartbeat: Duration = "rpc.io.heartbeat", Duration, "1s",
        SECOND, in SECOND / 100, DAY; "L13, R61";
        "A connection on which nothing was sent for this long sends a sign of life. Peers are told of it, so that they know what silence means.";
    dead_after, with_dead_after: Duration = "rpc.io.deadAfter", Duration, "3s",
        3 * SECOND, in SECOND / 50, DAY; "L13, R61, R63";
        "A peer of which nothing was heard for this long is gone: its connection is closed. Never less than three of the peer's own heartbeats.";
    reconnect_min, with_reconnect_min: Duration = "rpc.io.reconnectMin", Duration, "50ms",
        SECOND / 20, in SECOND / 1000, DAY; "L16, S111, S118";
        "After a connection could not be made, the next try comes after a random time up to this; with each failure in a row the bound grows by 1.6.";
    reconnect_max, with_reconnect_max: Duration = "rpc.io.reconnectMax", Duration, "5s",
        5 * SECOND, in SECOND / 1000, DAY; "L16, R66";
        "The bound of the time between two tries to connect grows up to this.";
    busy_poll, with_busy_poll: Duration = "rpc.io.busyPoll", Duration, "0s",
        0, in 0, DAY; "S192";
        "How long a thread goes on looking at a connection before it sleeps, after something was last read from it or written to it. An ask that is answered in this time does not wait for a sleeping processor, which is most of what a lone ask costs; the thread uses a whole processor meanwhile. Off.";
    socket_buffer, with_socket_buffer: usize = "rpc.io.socketBuffer", Bytes, "512KiB",
        512 * KIB, in 0, 64 * MIB; "L1";
        "What the system may hold of a connection that has come and is not read, and of which a quarter may wait to be sent: nothing can overtake that, so it is what a small message waits for behind a large one. A fast line over a long way needs more: 24 MiB for 1 Gbit/s at 50 ms. 0 leaves it to the system.";
}

impl Limits {
    fn check(key: &str, number: u64) -> Result<(), RpcError> {
        match Self::KEYS.iter().find(|row| row.name == key) {
            Some(row) => row.check(number),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn defaults_are_what_the_table_says_in_text() {
        for row in Limits::KEYS {
            let number = row.read(row.default).unwrap();
            let set = Limits::default().with_key(row.name, number).unwrap().unwrap();
            assert_eq!(set, Limits::default(), "{}", row.name);
            assert!(row.meaning.ends_with('.') && !row.answers.is_empty());
        }
        let limits = Limits::default();
        assert_eq!(limits.frame_max_size(), 262_144);
        assert_eq!(limits.message_max_size(), 16_777_216);
        assert_eq!(limits.handshake_timeout(), Duration::from_secs(5));
        assert!(limits.clone().with_key("rpc.askTimeout", 1).is_none());
    }

    #[test]
    fn each_key_changes_one_limit() {
        let mut seen = std::collections::HashSet::from([format!("{:?}", Limits::default())]);
        for row in Limits::KEYS {
            let default = row.read(row.default).unwrap();
            let other = if default == row.min { row.max } else { row.min };
            let set = Limits::default().with_key(row.name, other).unwrap().unwrap();
            assert!(seen.insert(format!("{set:?}")), "{}", row.name);
            assert!(row.min < row.max);
        }
    }

    #[test]
    fn s187_bad_values_are_refused_with_key_value_and_range() {
        let error = Limits::default().with_message_max_size(2048 << 20).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidConfig);
        assert_eq!(
            error.text(),
            "rpc.message.maxSize cannot be 2GiB; expected a size from 1B to 2047MiB, as in 4096, 64k, 256KiB or 4MiB"
        );
        let limits = Limits::default();
        assert!(limits.clone().with_message_max_size(2047 << 20).is_ok());
        assert!(limits.clone().with_max_in_flight(1_000_000).is_ok());
        assert!(limits.clone().with_max_in_flight(1_000_001).is_err());
        assert!(limits.clone().with_max_in_flight(0).is_err());
        let error = limits.with_write_stall(Duration::ZERO).unwrap_err();
        assert_eq!(
            error.text(),
            "rpc.io.writeStall cannot be 0s; expected a duration from 1ms to 24h, as in 500ms, 10s, 2min or 1h"
        );
    }

    #[test]
    fn sizes_are_read_and_written() {
        for (text, bytes) in [
            ("4096", 4096),
            ("256KiB", 262_144),
            ("64k", 65_536),
            ("64 kb", 65_536),
            ("4MiB", 4 << 20),
            ("1g", 1 << 30),
            ("0", 0),
            ("7B", 7),
        ] {
            assert_eq!(parse_bytes(text), Some(bytes), "{text}");
            assert_eq!(parse_bytes(&bytes_text(bytes)), Some(bytes));
        }
        for bad in ["", "k", "-1", "1.5m", "10s", "1 2", "99999999999g", "1e3"] {
            assert_eq!(parse_bytes(bad), None, "{bad}");
        }
    }
}
