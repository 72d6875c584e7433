//! The Rust blocks of the pages, as doctests. `tests/tests/docs.rs` checks that none is missing.

#[cfg(doctest)]
mod pages {
    #[doc = include_str!("../../README.md")]
    struct Readme;
    #[doc = include_str!("../../docs/GUIDE.md")]
    struct Guide;
}
