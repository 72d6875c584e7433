//! Bugs that are planted on purpose, to prove that the simulation sees such. They are in a program only
//! if it was compiled with `--cfg plant`, which no feature and no key brings about: `checks plants`
//! compiles such a program for itself. Where each stands it is a line or two, behind `planted!`.

/// Whether a bug is switched on. In every program that users have, this is `false` when it is compiled.
#[cfg(not(plant))]
macro_rules! planted {
    ($bug:ident) => {
        false
    };
}

#[cfg(plant)]
macro_rules! planted {
    ($bug:ident) => {
        $crate::plant::Plant::$bug.is_on()
    };
}

pub(crate) use planted;

#[cfg(plant)]
pub use list::Plant;

#[cfg(plant)]
mod list {
    use std::sync::atomic::{AtomicUsize, Ordering};

    macro_rules! plants {
        ($( $bug:ident, $at:literal, $breaks:literal; )*) => {
            /// A planted bug.
            #[derive(Clone, Copy, Debug, PartialEq, Eq)]
            #[non_exhaustive]
            pub enum Plant {
                $( #[doc = $breaks] $bug, )*
            }

            impl Plant {
                /// All of them.
                pub const ALL: &[Self] = &[$( Self::$bug ),*];

                /// The bug's name.
                #[must_use]
                pub fn name(self) -> &'static str {
                    match self { $( Self::$bug => stringify!($bug), )* }
                }

                /// The file that it is in.
                #[must_use]
                pub fn file(self) -> &'static str {
                    match self { $( Self::$bug => $at, )* }
                }

                /// What is wrong with it.
                #[must_use]
                pub fn breaks(self) -> &'static str {
                    match self { $( Self::$bug => $breaks, )* }
                }
            }
        };
    }

    plants! {
        ReplyTwice, "proto/answering", "a reply goes out twice";
        CallNumberAgain, "proto/calls", "the number of a call is that of the call before it";
        InFlightOneMore, "proto/session", "one more call goes out than the peer allows";
        QueueOvertaken, "proto/session", "a small message passes those that wait for credit";
        LargeOvertaken, "proto/session", "a small message passes the large one before it";
        OutboxOneMore, "proto/admitting", "the queue to a peer takes one message more than its limit";
        ServedKept, "proto/connection", "what a lost connection's peer has asked for stays open";
        MiddleKept, "proto/connection", "a part that a lost connection cut short is waited for on the next";
        AssembliesKept, "proto/connection", "large bodies that a lost connection cut short are kept";
        SentToldUnsent, "proto/connection", "a lost connection's calls are all told that they were never sent";
        FramesKept, "proto/lanes", "frames of a lost connection go out over the next";
        SentAgain, "proto/lanes", "what was written last and may have arrived goes out again over the next connection";
        StreamAgain, "proto/lanes", "two large bulk bodies have the same stream";
        SkipForgotten, "proto/lanes", "a frame that was taken back goes out";
        LargeStuck, "proto/target", "a lane that a large message held is held after the connection is lost";
        NumberTooEarly, "proto/numbers", "a RELEASE passes messages with the number";
        NumberWithinLarge, "proto/numbers", "a RELEASE comes within a large message with the number";
        RefundLost, "proto/ending", "what is taken back does not come back as credit";
        RefundTwice, "proto/ending", "a cancelled call comes back as credit on both sides";
        FlightKept, "proto/ending", "a call that was given up keeps its place among those in flight";
        CancelForgotten, "proto/ending", "the peer is not told that a call was given up";
        WaiterMissed, "proto/admitting", "of those who wait for room one at a time is woken";
        BlockedMissed, "proto/sending", "a place in flight is offered to one target, whether it needs it or not";
        DeadlineForgotten, "proto/sending", "the peer is not told how long a caller waits";
        BytesKept, "proto/incoming", "the bytes of messages that are refused stay in the queue's sum";
        SilenceUnseen, "proto/pulse", "a silent peer counts as alive";
        TimerLost, "timers", "a deadline before the one that is armed rings with it";
        LocalLate, "deadlines", "a local call that is due before an earlier one waits for that";
        AskUnheard, "inbox", "a local ask that sets the alarm does not wake the endpoint";
        TicketMissed, "taking", "who waits for room is not woken when a handler waits";
        EventsOvertake, "turns", "network events pass the messages of their peer";
        StopUnheard, "stopping", "an idle endpoint is not woken to stop";
        PanicEnds, "cell", "a panic ends the endpoint whose policy is to go on";
        CancelledHandled, "context", "a call that was given up in the inbox is handled";
        WindowKept, "window", "the window of a lost connection stays promised";
        StaleReply, "net/binding", "a late reply goes out on the next connection";
        PinIgnored, "net/resolving", "a ref to one life of an endpoint reaches the next";
        CrossingKept, "net/listening", "of two dials that cross, both stay";
        HalfCloseIgnored, "net/driver", "the end of what a peer sends is not noticed";
        PenKept, "net/pen", "bytes for a lost connection go out on the next";
        DoorUnheard, "net/beside", "what the socket did not take beside the driver, the driver is not told of";
        WindowHeld, "net/relay", "a relay keeps the credit that is for the caller";
        CancelHeld, "net/relay", "a relay does not pass on that a call was given up";
        DisconnectedMissing, "net/node", "endpoints are not told of a peer that was silent";
        GreetingKept, "net/admission", "a connection that says no hello keeps its place";
        TaskLeft, "net/node", "an env ends before its last connections are closed";
    }

    /// The one that is on, counted from 1; 0 for none.
    static ON: AtomicUsize = AtomicUsize::new(0);

    impl Plant {
        /// Whether it is switched on.
        #[must_use]
        pub fn is_on(self) -> bool {
            ON.load(Ordering::Relaxed) == self as usize + 1
        }

        /// Switches one on, and all others off.
        pub fn switch(to: Option<Self>) {
            ON.store(to.map_or(0, |bug| bug as usize + 1), Ordering::Relaxed);
        }
    }
}
