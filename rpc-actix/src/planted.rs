//! Bugs that are planted on purpose: `plant.rs` of rpc-core lists them, these too.

#[cfg(not(plant))]
macro_rules! planted {
    ($bug:ident) => {
        false
    };
}

#[cfg(plant)]
macro_rules! planted {
    ($bug:ident) => {
        rpc_core::plant::Plant::$bug.is_on()
    };
}

pub(crate) use planted;
