//! The most memory that the limits of an env let its peers and its callers take.

use crate::limits::Limits;
use std::fmt;

/// What a connection reads at a time: a message that waits may hold all of the read that brought it.
pub const READ_SIZE: usize = 64 * 1024;
/// Messages of one read that are handed on together: who holds one holds what is said of all of them.
pub(crate) const MOST_IN_A_ROW: usize = 64;
/// What that is, beside their bodies.
const ROW: u64 = 4096;
/// What a connection takes out of its queues at a time, to give it to the socket.
pub const WRITE_SIZE: usize = 256 * 1024;
/// Windows to one endpoint that a peer may have at once: each has a base of its own, and what a peer
/// may have in an inbox must not grow with the numbers it takes. A caller has one or two; a relay has
/// one for each ref of those behind it.
pub const MAX_WINDOWS: usize = 256;
/// The messages and bytes that every window has, whatever others hold; the first at an endpoint of
/// the system, which has the most.
const BASE: (u64, u64) = (64, 256 * 1024);

/// A message that waits, beside its body: its entry and its call, and the chunk of memory that it may
/// keep from being freed.
const WAITING: u64 = 4096 + 512;
/// An answer that waits, if it is a failure: its text, in a buffer that has doubled.
const FAILURE: u64 = 2 * (4096 + 256);
/// An entry of a table.
const ENTRY: u64 = 512;
/// A connection that has nothing to do, and one that has not said hello.
const CONNECTION: u64 = 16 * 1024;
const HANDSHAKE: u64 = 8 * 1024;
/// Buffers of large bodies that are kept for the next one, and what threads keep: 64 of them.
const PROCESS: u64 = 16 * 1024 * 1024 + 64 * 192 * 1024;

/// The most memory that an env's limits let its peers and its callers take, by what takes it
/// ([`Limits::memory_bound`]).
///
/// All sizes are bytes. They are what can be held at the very worst: usually it is a small part. What is
/// not in it: the program itself, its stacks, what handlers keep and what their messages become when
/// they are decoded, what the system holds of a socket (`rpc.io.socketBuffer`), and what an allocator
/// needs for itself. A message within one env counts with the size of its type, not with what that
/// points to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct MemoryBound {
    /// Of the process, whatever it does.
    pub process: u64,
    /// Of all connections that have not said hello.
    pub handshakes: u64,
    /// Of each connection, whoever has made it.
    pub connection: u64,
    /// How many connections may come in. Those that the program makes are as many as the peers that
    /// it calls.
    pub connections: u64,
    /// Of each endpoint: what is in its inbox of this env's own messages, of what its peers share, and of
    /// peers that are gone.
    pub endpoint: u64,
    /// Of each endpoint for each connection whose peer calls it.
    pub endpoint_of_connection: u64,
}

impl MemoryBound {
    /// Of an env with so many endpoints, which calls so many peers that have not connected to it.
    #[must_use]
    pub fn total(&self, endpoints: u64, dialled: u64) -> u64 {
        let connections = self.connections.saturating_add(dialled);
        let of_one = self.endpoint_of_connection.saturating_mul(endpoints);
        let of_one = of_one.saturating_add(self.connection);
        self.process
            .saturating_add(self.handshakes)
            .saturating_add(of_one.saturating_mul(connections))
            .saturating_add(self.endpoint.saturating_mul(endpoints))
    }
}

impl fmt::Display for MemoryBound {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mib = |bytes: u64| format!("{:.1} MiB", bytes as f64 / (1024.0 * 1024.0));
        write!(
            f,
            "{} with {} connections of {} each; an endpoint adds {}, and {} for each connection that calls it",
            mib(self.total(0, 0)),
            self.connections,
            mib(self.connection),
            mib(self.endpoint),
            mib(self.endpoint_of_connection)
        )
    }
}

fn wide(count: usize) -> u64 {
    u64::try_from(count).unwrap_or(u64::MAX)
}

fn sum<const N: usize>(terms: [u64; N]) -> u64 {
    terms.into_iter().fold(0, u64::saturating_add)
}

impl Limits {
    /// The most memory that these limits let peers and callers take. `docs/SEMANTICS.md` has the terms.
    #[must_use]
    pub fn memory_bound(&self) -> MemoryBound {
        let handshake = sum([wide(self.pre_auth_bytes()).saturating_mul(2), HANDSHAKE]);
        MemoryBound {
            process: PROCESS,
            handshakes: handshake.saturating_mul(wide(self.max_unauthenticated())),
            connection: self.connection_bound(),
            connections: wide(self.max_connections()),
            endpoint: self.endpoint_bound(),
            endpoint_of_connection: self.window_bound(),
        }
    }

    /// Control frames that wait for one peer, which is not read from any more at half of that.
    pub(crate) fn max_control_bytes(&self) -> usize {
        self.outbox_max_bytes().max(READ_SIZE).saturating_mul(2)
    }

    /// Buffers double as they grow, hence the twos.
    fn connection_bound(&self) -> u64 {
        let (message, frame) = (wide(self.message_max_size()), wide(self.frame_max_size()));
        let (outbox, calls) = (wide(self.outbox_max_bytes()), wide(self.max_in_flight()));
        let waiting = sum([outbox, wide(self.outbox_max_waiting_bytes())]).max(message);
        let messages = sum([wide(self.outbox_max_messages()), wide(self.outbox_max_waiting())]);
        let queue = sum([waiting.saturating_mul(2), messages.saturating_mul(WAITING)]);
        let replies = wide(self.outbox_max_reply_bytes()).max(message).saturating_mul(2);
        // As many as may be in flight wait to be sent, and as many are still being handled.
        let answers = sum([replies, calls.saturating_mul(2).saturating_mul(FAILURE)]);
        let control = sum([wide(self.max_control_bytes()), frame]).saturating_mul(2);
        let written = sum([wide(WRITE_SIZE).saturating_mul(2), frame]);
        let read = sum([wide(READ_SIZE), frame.saturating_mul(2)]);
        let begun = sum([wide(self.max_assembly()), message]).saturating_mul(2);
        let tables = calls.saturating_mul(2).saturating_mul(ENTRY);
        let out = sum([queue, answers, control]);
        sum([CONNECTION, out, written.min(out), read, begun, tables])
    }

    fn endpoint_bound(&self) -> u64 {
        let (messages, bytes) = (wide(self.inbox_max_messages()), wide(self.inbox_max_bytes()));
        let waiting = wide(self.outbox_max_waiting());
        let own = sum([bytes, wide(self.outbox_max_waiting_bytes())]);
        let entries = sum([messages.saturating_mul(2), waiting]).saturating_mul(ENTRY);
        // Half an inbox is shared by peers, and as much as all of it may be of peers that are gone.
        let (remote, remote_bytes) =
            (messages.saturating_add(messages / 2), bytes.saturating_add(bytes / 2));
        let remote = remote.saturating_mul(sum([wide(READ_SIZE), ROW, ENTRY]));
        sum([own, entries, remote, remote_bytes])
    }

    /// One message may overdraw the bytes of a window.
    fn window_bound(&self) -> u64 {
        let (messages, bytes) = BASE;
        let messages = messages.min(wide(self.inbox_max_messages()));
        let bytes = bytes.min(wide(self.inbox_max_bytes()));
        let held = messages.saturating_mul(sum([wide(READ_SIZE), ROW, ENTRY]));
        let window = sum([held, bytes, wide(self.message_max_size()), ENTRY]);
        window.saturating_mul(wide(MAX_WINDOWS))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bound(limits: Limits) -> MemoryBound {
        limits.memory_bound()
    }

    #[test]
    fn p2_every_limit_of_bytes_or_pieces_is_in_the_bound() {
        let base = bound(Limits::default());
        type Grow = fn(Limits) -> Limits;
        let grown: [(&str, Grow); 13] = [
            ("frame", |limits| limits.with_frame_max_size(1 << 20).unwrap()),
            ("message", |limits| limits.with_message_max_size(1 << 28).unwrap()),
            ("pre-auth", |limits| limits.with_pre_auth_bytes(1 << 20).unwrap()),
            ("connections", |limits| limits.with_max_connections(5000).unwrap()),
            ("handshakes", |limits| limits.with_max_unauthenticated(5000).unwrap()),
            ("in flight", |limits| limits.with_max_in_flight(5000).unwrap()),
            ("assembly", |limits| limits.with_max_assembly(1 << 30).unwrap()),
            ("inbox", |limits| limits.with_inbox_max_messages(10_000).unwrap()),
            ("inbox bytes", |limits| limits.with_inbox_max_bytes(1 << 30).unwrap()),
            ("outbox", |limits| limits.with_outbox_max_messages(10_000).unwrap()),
            ("outbox bytes", |limits| limits.with_outbox_max_bytes(1 << 30).unwrap()),
            ("waiting", |limits| limits.with_outbox_max_waiting(100_000).unwrap()),
            ("replies", |limits| limits.with_outbox_max_reply_bytes(1 << 30).unwrap()),
        ];
        for (name, grow) in grown {
            let larger = bound(grow(Limits::default()));
            assert!(larger.total(1, 0) > base.total(1, 0), "{name}");
        }
    }

    #[test]
    fn p2_the_total_is_the_sum_of_its_parts() {
        let bound = MemoryBound {
            process: 1,
            handshakes: 10,
            connection: 100,
            connections: 2,
            endpoint: 10_000,
            endpoint_of_connection: 1_000_000,
        };
        assert_eq!(bound.total(0, 0), 211);
        assert_eq!(bound.total(0, 1), 311);
        assert_eq!(bound.total(3, 1), 9_030_311);
        let huge = MemoryBound { connection: u64::MAX, ..bound };
        assert_eq!(huge.total(1, 1), u64::MAX);
    }
}
