//! What an env counts: one number for each cause, from its start on.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};

macro_rules! counters {
    ($( $(#[doc = $doc:literal])+ $count:ident $name:ident, )*) => {
        /// Something that is counted; backends count what they see.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        #[non_exhaustive]
        pub enum Count {
            $( $(#[doc = $doc])+ $count, )*
        }

        const COUNTS: &[Count] = &[$( Count::$count ),*];

        /// What an env has counted since it was made. Numbers only grow; the difference of two
        /// snapshots is what happened between them ([`since`](Self::since)).
        ///
        /// The names never change. Later versions may have more of them.
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
        #[non_exhaustive]
        pub struct Counters {
            $( $(#[doc = $doc])+ pub $name: u64, )*
        }

        impl Counters {
            /// All numbers with their names, in a fixed order.
            pub fn iter(&self) -> impl Iterator<Item = (&'static str, u64)> + use<> {
                [$( (stringify!($name), self.$name) ),*].into_iter()
            }

            /// All names, and what they count.
            pub fn meanings() -> impl Iterator<Item = (&'static str, &'static str)> {
                [$( (stringify!($name), concat!($($doc),+).trim_ascii()) ),*].into_iter()
            }

            /// What was counted since an earlier snapshot of the same env.
            #[must_use]
            pub fn since(&self, earlier: &Self) -> Self {
                Self { $( $name: self.$name.saturating_sub(earlier.$name) ),* }
            }

            pub(crate) fn read(tally: &Tally) -> Self {
                Self { $( $name: tally.get(Count::$count) ),* }
            }
        }
    };
}

counters! {
    /// Asks made to endpoints of this env.
    AsksLocal asks_local,
    /// One-way messages sent to endpoints of this env.
    SendsLocal sends_local,
    /// Asks made to endpoints of other envs.
    AsksRemote asks_remote,
    /// One-way messages sent to endpoints of other envs.
    SendsRemote sends_remote,
    /// Asks of other envs that were passed on to a third one.
    AsksRelayed asks_relayed,
    /// One-way messages of other envs that were passed on to a third one.
    SendsRelayed sends_relayed,
    /// Asks of other envs that were queued for an endpoint here.
    AsksReceived asks_received,
    /// One-way messages of other envs that were queued for an endpoint here.
    SendsReceived sends_received,
    /// Replies to asks of other envs.
    RepliesSent replies_sent,
    /// Failures as answers to asks of other envs.
    FailuresSent failures_sent,
    /// Replies of other envs to open asks.
    RepliesReceived replies_received,
    /// Failures of other envs as answers to open asks.
    FailuresReceived failures_received,

    /// Calls of this env whose time was over before an answer came.
    Timeouts timeouts,
    /// Asks whose time was over when their endpoint got to them: they were not handled.
    AsksExpired asks_expired,
    /// Answers to calls that were over already: dropped.
    AnswersLate answers_late,
    /// Calls of this env that were taken back after they had been sent.
    CancelsSent cancels_sent,
    /// Calls that other envs took back.
    CancelsReceived cancels_received,
    /// Messages and calls of this env that were refused for want of room, here.
    Overloads overloads,
    /// Windows that other envs were not given for want of room.
    WindowsRefused windows_refused,
    /// Endpoints that other envs asked for and did not get, windows included.
    ResolvesRefused resolves_refused,
    /// Message bodies that could not be read as what they were sent for.
    MessagesUndecodable messages_undecodable,
    /// Replies that could not be read as what was asked for.
    RepliesUndecodable replies_undecodable,
    /// Panics of handlers and hooks.
    Panics panics,
    /// Handlers and hooks that were seen to block their thread.
    HandlersBlocked handlers_blocked,
    /// Errors that no endpoint handled.
    ErrorsUnhandled errors_unhandled,

    /// One-way messages that reached nobody: their endpoint had stopped.
    DeadLettersStopped dead_letters_stopped,
    /// One-way messages that reached nobody: their endpoint has no handler for them.
    DeadLettersUnsupported dead_letters_unsupported,
    /// One-way messages that reached nobody: their body could not be read.
    DeadLettersUndecodable dead_letters_undecodable,
    /// One-way messages that reached nobody: they waited for a peer that was not reached, or has no
    /// such endpoint. What was lost on a connection that broke is not known, and not counted.
    DeadLettersUnsent dead_letters_unsent,

    /// Connections that came in.
    ConnectionsAccepted connections_accepted,
    /// Connections that were made.
    ConnectionsDialed connections_dialed,
    /// Dials that found nobody.
    DialsFailed dials_failed,
    /// Times that the listener failed to accept a connection.
    AcceptErrors accept_errors,
    /// Connections on which both have said hello.
    ConnectionsOpened connections_opened,
    /// Those among them that followed an earlier one to the same peer.
    ConnectionsReopened connections_reopened,
    /// Connections that had been opened and are over.
    ConnectionsEnded connections_ended,
    /// Opened connections that ended without a CLOSE of either side.
    ConnectionsBroken connections_broken,
    /// Connections whose first bytes were not those of the protocol.
    HellosForeign hellos_foreign,
    /// Connections on which the hellos took longer than `rpc.io.handshakeTimeout`.
    HellosTimedOut hellos_timed_out,
    /// Connections that broke before both had said hello.
    HellosBroken hellos_broken,
    /// Connections that were closed before their hello to make room for others.
    HellosEvicted hellos_evicted,

    /// Connections that this side closed: the protocol was broken.
    ClosesSentProtocol closes_sent_protocol,
    /// Connections that this side closed: no common version.
    ClosesSentVersion closes_sent_version,
    /// Connections that this side closed: a frame or a message over the limit.
    ClosesSentTooLarge closes_sent_too_large,
    /// Connections that this side closed: a hello that made no sense.
    ClosesSentHello closes_sent_hello,
    /// Connections that this side closed: a call number that was in use.
    ClosesSentDuplicateId closes_sent_duplicate_id,
    /// Connections that this side closed: the env shut down, or the peer's had been started anew.
    ClosesSentShutdown closes_sent_shutdown,
    /// Connections that this side closed: too many of them, or too many pings.
    ClosesSentOverloaded closes_sent_overloaded,
    /// Connections that this side closed: a window was overrun, or the room for large bodies.
    ClosesSentCredit closes_sent_credit,
    /// Connections that this side closed: a frame, a write or a sign of life took too long.
    ClosesSentTimeout closes_sent_timeout,
    /// Connections that this side closed: both had dialled.
    ClosesSentDuplicate closes_sent_duplicate,

    /// Connections that the peer closed: the protocol was broken.
    ClosesReceivedProtocol closes_received_protocol,
    /// Connections that the peer closed: no common version.
    ClosesReceivedVersion closes_received_version,
    /// Connections that the peer closed: a frame or a message over the limit.
    ClosesReceivedTooLarge closes_received_too_large,
    /// Connections that the peer closed: a hello that made no sense.
    ClosesReceivedHello closes_received_hello,
    /// Connections that the peer closed: a call number that was in use.
    ClosesReceivedDuplicateId closes_received_duplicate_id,
    /// Connections that the peer closed: its env shut down.
    ClosesReceivedShutdown closes_received_shutdown,
    /// Connections that the peer closed: too many of them, or too many pings.
    ClosesReceivedOverloaded closes_received_overloaded,
    /// Connections that the peer closed: a window was overrun, or the room for large bodies.
    ClosesReceivedCredit closes_received_credit,
    /// Connections that the peer closed: something took too long.
    ClosesReceivedTimeout closes_received_timeout,
    /// Connections that the peer closed: both had dialled.
    ClosesReceivedDuplicate closes_received_duplicate,
    /// Connections that the peer closed for a reason of a later version.
    ClosesReceivedOther closes_received_other,

    /// Frames that mean nothing to this version, and were passed over.
    FramesSkipped frames_skipped,
    /// Bytes read from peers.
    BytesReceived bytes_received,
    /// Bytes written to peers.
    BytesSent bytes_sent,
    /// Reads that brought something.
    Reads reads,
    /// Writes that took something.
    Writes writes,
}

impl Count {
    /// What is counted when this side closes a connection with that code.
    #[must_use]
    pub fn close_sent(code: u16) -> Self {
        match code {
            2 => Self::ClosesSentVersion,
            3 => Self::ClosesSentTooLarge,
            4 => Self::ClosesSentHello,
            5 => Self::ClosesSentDuplicateId,
            6 => Self::ClosesSentShutdown,
            7 => Self::ClosesSentOverloaded,
            8 => Self::ClosesSentCredit,
            9 => Self::ClosesSentTimeout,
            10 => Self::ClosesSentDuplicate,
            _ => Self::ClosesSentProtocol,
        }
    }

    /// What is counted when a peer closes a connection with that code.
    #[must_use]
    pub fn close_received(code: u16) -> Self {
        match code {
            1 => Self::ClosesReceivedProtocol,
            2 => Self::ClosesReceivedVersion,
            3 => Self::ClosesReceivedTooLarge,
            4 => Self::ClosesReceivedHello,
            5 => Self::ClosesReceivedDuplicateId,
            6 => Self::ClosesReceivedShutdown,
            7 => Self::ClosesReceivedOverloaded,
            8 => Self::ClosesReceivedCredit,
            9 => Self::ClosesReceivedTimeout,
            10 => Self::ClosesReceivedDuplicate,
            _ => Self::ClosesReceivedOther,
        }
    }
}

/// The numbers of an env, as its parts add to them. What comes with every message is counted
/// without atomics, under locks that are held anyway, and added here when somebody looks.
pub struct Tally {
    counts: [AtomicU64; COUNTS.len()],
}

impl Tally {
    /// Counts one.
    pub fn count(&self, what: Count) {
        self.add(what, 1);
    }

    /// Counts several.
    pub fn add(&self, what: Count, how_many: u64) {
        if let Some(count) = self.counts.get(what as usize) {
            count.fetch_add(how_many, Ordering::Relaxed);
        }
    }

    pub(crate) fn get(&self, what: Count) -> u64 {
        self.counts.get(what as usize).map_or(0, |count| count.load(Ordering::Relaxed))
    }
}

impl Default for Tally {
    fn default() -> Self {
        Self { counts: [const { AtomicU64::new(0) }; COUNTS.len()] }
    }
}

impl fmt::Debug for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let counts = COUNTS.iter().map(|count| (count, self.get(*count)));
        f.debug_map().entries(counts.filter(|(_, count)| *count > 0)).finish()
    }
}

/// What is counted with every message, under a lock.
#[derive(Debug, Default)]
pub(crate) struct Traffic {
    pub(crate) asks: u64,
    pub(crate) sends: u64,
    pub(crate) replies: u64,
    pub(crate) failures: u64,
}

impl Traffic {
    /// Counts a message.
    pub(crate) fn message(&mut self, ask: bool) {
        let count = if ask { &mut self.asks } else { &mut self.sends };
        *count = count.wrapping_add(1);
    }

    /// Counts so many messages, some of them asks.
    pub(crate) fn messages(&mut self, asks: usize, all: usize) {
        self.asks = self.asks.wrapping_add(asks as u64);
        self.sends = self.sends.wrapping_add(all.saturating_sub(asks) as u64);
    }

    /// Counts an answer.
    pub(crate) fn answer(&mut self, failed: bool) {
        let count = if failed { &mut self.failures } else { &mut self.replies };
        *count = count.wrapping_add(1);
    }

    /// Hands in what was counted: asks, sends, replies and failures, as what they count here.
    pub(crate) fn settle(&mut self, tally: &Tally, what: [Option<Count>; 4]) {
        let Self { asks, sends, replies, failures } = std::mem::take(self);
        for (count, how_many) in what.into_iter().zip([asks, sends, replies, failures]) {
            if let (Some(count), 1..) = (count, how_many) {
                tally.add(count, how_many);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn each_number_has_its_place_and_its_name() {
        let tally = Tally::default();
        for (place, count) in COUNTS.iter().enumerate() {
            assert_eq!(*count as usize, place);
            tally.add(*count, place as u64 + 1);
        }
        let read = Counters::read(&tally);
        let numbers: Vec<u64> = read.iter().map(|(_, number)| number).collect();
        assert_eq!(numbers, (1..=COUNTS.len() as u64).collect::<Vec<_>>());
        let names: BTreeSet<_> = read.iter().map(|(name, _)| name).collect();
        assert_eq!(names.len(), COUNTS.len());
        assert_eq!(read.since(&read), Counters::default());
        assert!(Counters::meanings().all(|(_, meaning)| meaning.ends_with('.')));
    }
}
