//! The protocol from both of its ends: two sessions, joined by bytes.
#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a panic is how a test says what it has found"
)]

#[cfg(test)]
mod budgets;
#[cfg(test)]
mod calls;
#[cfg(test)]
mod credit;
#[cfg(test)]
mod cuts;
#[cfg(test)]
mod edges;
#[cfg(test)]
mod hellos;
#[cfg(test)]
mod landing;
#[cfg(test)]
mod lifetimes;
mod pair;
#[cfg(test)]
mod relaying;
#[cfg(test)]
mod releasing;
#[cfg(test)]
mod upkeep;
#[cfg(test)]
mod violations;
#[cfg(test)]
mod waiting;
pub(crate) mod walk;
#[cfg(test)]
mod watches;
