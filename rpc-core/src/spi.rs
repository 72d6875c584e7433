//! The seams between the env and whatever runs it: what a backend implements, and what it is
//! given. Everything here is object-safe and free of any runtime's types.
//!
//! For backends, and for whoever looks at the protocol: it may change in any release before 1.0, and what programs use
//! is at the top of the crate.

pub use crate::beat::{Beat, Watchdog};
pub use crate::call_alarm::CallAlarm;
pub use crate::core::EnvCore;
pub use crate::counters::{Count, Tally};
pub use crate::credit::Credit;
pub use crate::delivery::{HandlerInfo, NetworkEvent, WireMessage};
pub use crate::dispatcher::Dispatcher;
pub use crate::inbox::Inbox;
pub use crate::memory::{MAX_WINDOWS, READ_SIZE, WRITE_SIZE};
pub use crate::seam::*;
pub use crate::turn_end::{TurnEnd, at_turn_end};
pub use crate::window::Window;
pub use crate::wire::encoded::Encoded;
