//! The bad peer: one case for each way to misbehave, against an env that listens and against one
//! that dials. A case says what the peer does, and exactly what has to come of it: the code and text
//! of the CLOSE, or the answers; what a caller of the env is told; and which counters go up, by how
//! much. A peer that behaves is connected all the time and must not notice.

mod answers;
mod bodies;
mod calls;
mod case;
mod frames;
mod hellos;
mod parts;
mod scene;
mod storm;
mod times;
mod victim;

use case::Case;
use std::collections::BTreeMap;
use std::time::Duration;
use victim::Victim;

pub use storm::Damage;

/// All cases, and what they are tried on.
#[derive(Debug)]
pub struct BadPeer {
    cases: Vec<Case>,
}

/// What has come of the cases.
#[derive(Debug, Default)]
#[non_exhaustive]
pub struct Outcome {
    /// How many cases went as they should.
    pub passed: usize,
    /// The others: the name, and what was wrong.
    pub failed: Vec<(String, String)>,
}

impl BadPeer {
    /// All cases.
    #[must_use]
    pub fn new() -> Self {
        let tables = [
            hellos::cases(),
            frames::cases(),
            bodies::cases(),
            calls::cases(),
            parts::cases(),
            answers::cases(),
            times::cases(),
        ];
        Self { cases: tables.into_iter().flatten().collect() }
    }

    /// Plays the cases whose names begin like that, one after the other. Those with the same settings
    /// have the same env before them, which must not show.
    ///
    /// # Errors
    /// When an env could not be made.
    pub fn play(&self, prefix: &str) -> anyhow::Result<Outcome> {
        let mut outcome = Outcome::default();
        let mut by_settings: BTreeMap<_, Vec<&Case>> = BTreeMap::new();
        for case in self.cases.iter().filter(|case| case.name.starts_with(prefix)) {
            by_settings.entry(case.settings).or_default().push(case);
        }
        for (settings, cases) in by_settings {
            let mut victim = Victim::with(settings)?;
            for case in cases {
                match scene::play(case, &victim) {
                    Ok(()) => outcome.passed += 1,
                    Err(error) => {
                        outcome.failed.push((case.name.clone(), format!("{error:#}")));
                        // What it has left is not the next one's.
                        std::mem::replace(&mut victim, Victim::with(settings)?).shut_down();
                    }
                }
            }
            victim.shut_down();
        }
        Ok(outcome)
    }

    /// Plays the cases of a family in turn against an env, `rate` times a second, in every second
    /// slice of time; how long the asks of a peer that behaves take meanwhile.
    ///
    /// # Errors
    /// When an env could not be made, or the peer that behaves is not answered.
    pub fn damage(
        &self,
        family: &str,
        rate: u32,
        slices: u32,
        slice: Duration,
    ) -> anyhow::Result<Damage> {
        let first = self.cases.iter().find(|case| case.family() == family);
        let settings = first.map_or(&[][..], |case| case.settings);
        // Those that wait for a time of their own are quiet for most of it.
        let cases = self.cases.iter();
        let cases = cases.filter(|case| case.family() == family && case.settings == settings);
        let victim = Victim::apart(settings)?;
        let damage = storm::measure(&cases.collect::<Vec<_>>(), &victim, rate, slices, slice);
        victim.shut_down();
        damage
    }

    /// How many cases there are, by the beginning of their names and what they are about.
    #[must_use]
    pub fn families(&self) -> BTreeMap<(&str, &'static str), usize> {
        let mut families = BTreeMap::new();
        for case in &self.cases {
            *families.entry((case.family(), case.about)).or_default() += 1;
        }
        families
    }
}

impl Default for BadPeer {
    fn default() -> Self {
        Self::new()
    }
}
