//! Only benches: `cargo bench -p micro`.
