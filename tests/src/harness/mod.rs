//! One test, two backends.
//!
//! A behaviour is written once, as `async fn s40_..(h: &Harness) -> anyhow::Result<()>`, and
//! `both! { s40_.. }` makes a test of it for each of the factories. [`Harness`] makes envs;
//! [`Log`], [`Gate`] and [`Parking`] let a test and the endpoints wait for each other, on any
//! executor, so that no test sleeps; [`Probe`] is an endpoint that says what happens to it.
//!
//! ```
//! use rpc_tests::harness::{Backend, Echo, Harness, Probe};
//!
//! async fn s69_an_echo(h: &Harness) -> anyhow::Result<()> {
//!     let pair = h.pair().await?;
//!     let (_probe, local) = pair.probe("echo").await?;
//!     let remote = pair.from_client(&local).await?;
//!     assert_eq!(remote.ask(Echo::of("hello")).await?, "hello");
//!     Ok(())
//! }
//!
//! Backend::Local.run("s69", s69_an_echo);
//! Backend::Actix.run("s69", s69_an_echo);
//! ```

#![expect(
    clippy::exhaustive_structs,
    clippy::exhaustive_enums,
    reason = "tests make these values and take them apart; nothing of this is published"
)]

mod backend;
mod block;
mod probe;
mod sync;

pub use backend::{Backend, Harness, Pair, WATCHDOG};
pub use block::block_on;
pub use probe::{
    Boom, Echo, Fail, Hold, Me, Note, NoteBoom, NoteFail, Probe, ProbeWatch, Quit, Relay, Script,
    Wait, Who,
};
pub use sync::{Gate, Log, Parking};

/// Makes a test for each backend of each `async fn(&Harness) -> anyhow::Result<()>`.
#[macro_export]
macro_rules! both {
    ($($name:ident),* $(,)?) => {
        mod actix {
            $(#[test] fn $name() {
                $crate::harness::Backend::Actix.run(stringify!($name), super::$name);
            })*
        }
        mod local {
            $(#[test] fn $name() {
                $crate::harness::Backend::Local.run(stringify!($name), super::$name);
            })*
        }
    };
}

/// As [`both!`](crate::both), for what only the actix backend has: threads and sockets.
#[macro_export]
macro_rules! actix_only {
    ($($name:ident),* $(,)?) => {
        mod actix_only {
            $(#[test] fn $name() {
                $crate::harness::Backend::Actix.run(stringify!($name), super::$name);
            })*
        }
    };
}
