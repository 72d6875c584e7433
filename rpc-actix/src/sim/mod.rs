//! Deterministic simulation: whole clusters in one thread, on a virtual clock, with faults.
//!
//! A [`Simulation`] is made from a seed. Its nodes run the shipped endpoints, actors, connections and
//! timers; only the network, the clock and the random numbers are others. Each node is a machine
//! with an address of its own, whose process can crash, stand still and start anew, and each way
//! between two nodes has its [`Weather`] and can be cut. The same seed gives the same run, down to the
//! last byte on the network: a failure is repeated by its seed alone.
//!
//! Idle time costs nearly nothing: when no task can run, the clock jumps to the next timer. So a
//! test of an hour in a cluster takes about a second.
//!
//! ```
//! use rpc_actix::sim::Simulation;
//! use rpc_actix::{HandlerResult, RpcEnvConfig, RpcMessage, endpoint};
//! use serde::{Deserialize, Serialize};
//! use std::time::Duration;
//!
//! #[derive(Debug, Serialize, Deserialize, RpcMessage)]
//! #[rpc(reply = u32)]
//! struct Next;
//!
//! #[derive(Default)]
//! struct Counter(u32);
//!
//! #[endpoint]
//! impl Counter {
//!     #[receive_and_reply]
//!     fn next(&mut self, _: Next) -> HandlerResult<u32> {
//!         self.0 += 1;
//!         Ok(self.0)
//!     }
//! }
//!
//! Simulation::new(7).run(|sim| async move {
//!     // What a node runs is begun anew whenever the node is.
//!     let server = sim.node("server").runs(|node| async move {
//!         let env = node.create(RpcEnvConfig::server("server", node.address(7077))).await?;
//!         env.setup_endpoint("counter", Counter::default()).await?;
//!         env.await_termination().await;
//!         Ok(())
//!     });
//!     let (client, uri) = (sim.node("client"), server.uri("counter", 7077));
//!     sim.sleep(Duration::from_millis(10)).await;
//!     let asked = client.run(|node| async move {
//!         let env = node.create(RpcEnvConfig::client("client")).await?;
//!         let counter = env.endpoint_ref::<Counter>(&uri).await?;
//!         assert_eq!(counter.ask(Next).await?, 1);
//!         server.crash();
//!         assert!(counter.ask(Next).await.is_err());
//!         server.restart();
//!         node.sim().sleep(Duration::from_secs(10)).await;
//!         counter.ask(Next).await
//!     });
//!     assert_eq!(asked.await.unwrap().unwrap(), 1, "a process that starts anew has forgotten all");
//! });
//! ```
//!
//! # What follows from the seed, and what does not
//!
//! Everything of this library does. Of your own code all does that takes its time from the env or
//! from tokio, and its random numbers from [`Sim::random`]. What does not: the order of a `HashMap`
//! (use a `BTreeMap`), `tokio::select!` without `biased;`, threads, files and sockets of your own, and
//! the time of the system. [`SimReport::trace`] of two runs shows whether something was overlooked.

mod blocking;
mod connection;
mod host;
mod network;
mod node;
mod pipe;
mod random;
mod simulation;
mod trace;
mod transport;
mod weather;
mod world;

pub use blocking::Blocking;
pub use node::SimNode;
pub use random::SimRandom;
pub use simulation::{SimFailure, SimReport, Simulation};
pub use weather::Weather;
pub use world::Sim;
