//! The protocol without I/O: what two envs say to each other, as a machine that is given bytes
//! and the time and gives back bytes and events.
//!
//! For backends, and for whoever looks at the protocol: it may change in any release before 1.0, and what programs use
//! is at the top of the crate.

mod admitting;
mod answering;
mod arrivals;
mod assembly;
mod bodies;
mod calls;
mod close;
mod connection;
mod counting;
mod ending;
mod frames;
mod headers;
mod hello;
mod incoming;
mod known;
mod landing;
mod lanes;
mod large;
mod message_frame;
mod named;
mod notice;
mod numbers;
mod pulse;
mod queue;
mod relaying;
mod releasing;
mod resolution;
mod sending;
mod serving;
mod session;
#[cfg(any(test, fuzzing, feature = "audit"))]
mod sound;
mod store;
mod target;
mod targets;
mod transmitting;
mod waiting;
mod watching;

pub(crate) use arrivals::Arrival;
pub use arrivals::Arrivals;
pub use bodies::IncomingMessage;
pub use close::{Close, CloseCode};
pub use connection::Detached;
pub use hello::{Hello, Hellos, PROTOCOL_VERSION, PeerInfo, PeerLimits};
pub use incoming::Event;
pub use landing::{Landing, Taken};
pub use notice::{Asker, Notice};
pub use pulse::Vital;
pub use relaying::{Refusal, RelayedId};
pub use resolution::Resolution;
pub use session::{Request, Session, Submission};
pub use target::{TargetId, TargetKey, WireNumber};

#[cfg(any(test, fuzzing))]
#[cfg_attr(fuzzing, allow(dead_code, reason = "tests use more of it"))]
pub(crate) mod tests;
