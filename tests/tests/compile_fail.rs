//! What the compiler refuses, and the words it finds for it.
//!
//! The texts are those of the toolchain in `rust-toolchain.toml`; after an update of it they are
//! written anew with `TRYBUILD=overwrite`, and read.
#![cfg(test)]

#[test]
fn the_compiler_refuses_it_and_says_why() {
    let cases = trybuild::TestCases::new();
    cases.pass("tests/ui/pass/*.rs");
    cases.compile_fail("tests/ui/fail/*.rs");
}
