//! The protocol from both of its ends: two sessions, joined by bytes.

mod budgets;
mod calls;
mod credit;
mod landing;
mod lifetimes;
mod pair;
mod relaying;
mod releasing;
mod violations;
mod walk;
