//! The plain behaviours of Spark's RPC layer, S1-S104, S132-S138 and S139-S150, as this library
//! has them.
//!
//! A test's name begins with the numbers of the lines that it shows; `docs/CONFORMANCE.md` has a
//! row for each line, and `table.rs` checks that the rows and the tests know each other.
#![cfg(test)]

mod conformance {
    mod addresses;
    mod envs;
    mod lifecycle;
    mod refs;
    mod registry;
    mod replies;
    mod shutdown;
    mod table;
    mod threading;
    mod timeouts;
    mod wire;
}
