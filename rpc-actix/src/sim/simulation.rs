//! Running a simulation from its beginning to its end.

use super::node::panic_text;
use super::trace::{Listener, Trace};
use super::weather::Weather;
use super::world::Sim;
use crate::rt::simulated;
use std::fmt;
use std::ops::Range;
use std::thread;
use std::time::Duration;

/// A simulation that has not begun.
#[must_use = "nothing runs before `run`"]
pub struct Simulation {
    seed: u64,
    weather: Weather,
    limit: Duration,
    listener: Option<Listener>,
}

/// The longest a simulation takes, on its own clock, if nobody says otherwise.
const LIMIT: Duration = Duration::from_secs(24 * 3600);

impl Simulation {
    /// A simulation in which everything random follows from `seed`.
    pub fn new(seed: u64) -> Self {
        Self { seed, weather: Weather::default(), limit: LIMIT, listener: None }
    }

    /// The weather at the beginning.
    pub fn weather(mut self, weather: Weather) -> Self {
        self.weather = weather;
        self
    }

    /// Fails if it takes longer than this on its own clock; a day by default.
    pub fn limit(mut self, limit: Duration) -> Self {
        self.limit = limit;
        self
    }

    /// Calls `listener` with each event, as a line with its time, in seconds.
    pub fn listen(mut self, listener: impl FnMut(&str) + Send + 'static) -> Self {
        self.listener = Some(Box::new(listener));
        self
    }

    /// Runs `body`, which makes the nodes and lets things happen to them. When it is over everything
    /// ends.
    ///
    /// # Errors
    /// What did not hold, or has panicked, with the seed that repeats it.
    pub fn try_run<T, F, R>(self, body: F) -> Result<SimReport<T>, SimFailure>
    where
        F: FnOnce(Sim) -> R + Send,
        R: Future<Output = T>,
        T: Send,
    {
        let seed = self.seed;
        // A thread of its own: nothing that an earlier simulation has left on it is found again.
        let ended = thread::scope(|scope| {
            let builder = thread::Builder::new().name(format!("simulation {seed}"));
            let thread = builder.spawn_scoped(scope, || simulated::block_on(self.carry_out(body)));
            thread.map(thread::ScopedJoinHandle::join)
        });
        let failed = |text: String| SimFailure { seed, at: Duration::ZERO, text };
        match ended {
            Ok(Ok(Ok(result))) => result,
            Ok(Err(panic)) => Err(failed(format!("it panicked: {}", panic_text(&*panic)))),
            Ok(Ok(Err(error))) | Err(error) => Err(failed(format!("it cannot begin: {error}"))),
        }
    }

    /// As [`try_run`](Self::try_run), for tests.
    ///
    /// # Panics
    /// If something did not hold.
    #[expect(clippy::panic, reason = "that is what a test does")]
    pub fn run<T, F, R>(self, body: F) -> SimReport<T>
    where
        F: FnOnce(Sim) -> R + Send,
        R: Future<Output = T>,
        T: Send,
    {
        self.try_run(body).unwrap_or_else(|failure| panic!("{failure}"))
    }

    /// Runs `body` for each of some seeds.
    ///
    /// # Panics
    /// For the first seed with which something did not hold; the text names it.
    pub fn check<F, R>(seeds: Range<u64>, body: F)
    where
        F: Fn(Sim) -> R + Sync,
        R: Future<Output = ()>,
    {
        for seed in seeds {
            Self::new(seed).run(&body);
        }
    }

    async fn carry_out<T, F, R>(self, body: F) -> Result<SimReport<T>, SimFailure>
    where
        F: FnOnce(Sim) -> R,
        R: Future<Output = T>,
    {
        let Self { seed, weather, limit, listener } = self;
        let sim = Sim::new(seed, Trace::new(seed, listener), weather);
        let world = sim.0.clone();
        let (network, told) = (world.network.clone(), world.clone());
        simulated::on_panic(move |panic| {
            told.fail(&format!("a task panicked: {}", panic_text(panic)))
        });
        let after = world.clone();
        let result = tokio::select! {
            biased;
            // Whatever ends first ends all of it.
            () = world.failed.notified() => None,
            () = network.run(|| after.stepped()) => None,
            result = body(sim.clone()) => Some(result),
            () = world.clock.sleep(limit) => {
                world.fail(&format!("it takes longer than {limit:?}"));
                None
            }
        };
        let (at, (trace, events)) = (sim.elapsed(), world.trace.sum());
        sim.end();
        match (world.failure(), result) {
            (None, Some(result)) => Ok(SimReport { seed, trace, events, elapsed: at, result }),
            (text, _) => Err(SimFailure { seed, at, text: text.unwrap_or_default() }),
        }
    }
}

impl fmt::Debug for Simulation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Simulation").field("seed", &self.seed).finish_non_exhaustive()
    }
}

/// A simulation that has ended well.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct SimReport<T> {
    /// The seed it was made from.
    pub seed: u64,
    /// A number that follows from every event, its time and its bytes: the same seed gives the same.
    pub trace: u64,
    /// How many events there were.
    pub events: u64,
    /// How long it took, on its own clock.
    pub elapsed: Duration,
    /// What came out.
    pub result: T,
}

/// A simulation in which something did not hold.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct SimFailure {
    /// The seed that repeats it.
    pub seed: u64,
    /// When it was found, on the simulation's clock; zero if that is not known.
    pub at: Duration,
    /// What did not hold.
    pub text: String,
}

impl fmt::Display for SimFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { seed, at, text } = self;
        let at = at.as_secs_f64();
        write!(
            f,
            "the simulation of seed {seed} failed after {at:.3} s: {text}; Simulation::new({seed}) repeats it"
        )
    }
}

impl std::error::Error for SimFailure {}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rt;

    /// I12: an assertion of the library that does not hold is no lost connection.
    #[test]
    fn i12_a_panic_of_the_library_fails_the_simulation() {
        let failure = Simulation::new(1).try_run(|sim| async move {
            let node = sim.node("node");
            let spawned = node.run(|_| async { rt::spawn(async { panic!("an assertion") }) });
            spawned.await.unwrap();
            sim.sleep(Duration::from_secs(1)).await;
        });
        let text = failure.unwrap_err().to_string();
        assert!(text.contains("failed after 0.000 s: a task panicked: an assertion"), "{text}");
    }

    #[test]
    fn it_fails_with_its_seed_and_its_time() {
        let run = |body: fn(&Sim)| {
            let simulation = Simulation::new(7).limit(Duration::from_secs(60));
            let failure = simulation.try_run(|sim| async move {
                sim.sleep(Duration::from_secs(2)).await;
                body(&sim);
                std::future::pending::<()>().await;
            });
            failure.unwrap_err().to_string()
        };
        let text = run(|sim| sim.fail("no"));
        let expected =
            "the simulation of seed 7 failed after 2.000 s: no; Simulation::new(7) repeats it";
        assert_eq!(text, expected);
        assert!(run(|_| ()).contains("failed after 60.000 s: it takes longer than 60s"));
        let text = run(|sim| sim.invariant("sums", || Err("one is two".to_owned())));
        assert!(text.contains("it takes longer"), "nothing happened to look at: {text}");
        let text = run(|sim| {
            sim.invariant("sums", || Err("one is two".to_owned()));
            drop(sim.node("node").run(|_| async {}));
        });
        assert!(text.contains("failed after 2.000 s: sums: one is two"), "{text}");
    }
}
