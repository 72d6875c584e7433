//! The behaviours of Spark's RPC layer, as this library has them.
//!
//! A test's name begins with the numbers of the lines that it shows; `docs/CONFORMANCE.md` has a
//! row for each line, and `table.rs` checks that the rows and the tests know each other.
#![cfg(test)]

mod conformance {
    mod addresses;
    mod connections;
    mod dials;
    mod envs;
    mod inbox;
    mod keys;
    mod lifecycle;
    mod network;
    mod refs;
    mod registry;
    mod replies;
    mod shutdown;
    mod table;
    mod threading;
    mod timeouts;
    mod wire;
}
