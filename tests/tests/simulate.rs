//! A few seeds of the simulated cluster; `checks simulate` runs thousands.
#![cfg(test)]

use rpc_tests::simulation::{Options, run_seed, run_seed_within};
use std::time::Duration;

fn options() -> Options {
    Options::default().lasting(Duration::from_secs(60))
}

/// With debug assertions on, which `checks` is built without (I12).
#[test]
fn every_invariant_holds() {
    let mut answered = 0;
    for seed in 0..24 {
        let report = run_seed(seed, &options());
        assert_eq!(report.wrong, None);
        answered += report.figures.answered;
    }
    // They have done something.
    assert!(answered > 500, "{answered}");
}

#[test]
fn a_seed_that_does_not_end_is_told_by_name() {
    let report = run_seed_within(3, &options(), Duration::ZERO);
    let expected = "the simulation of seed 3 is hung: it has not ended in 0ns of real time";
    assert_eq!(report.wrong.as_deref(), Some(expected));
    let report = run_seed_within(3, &options(), Duration::from_secs(600));
    assert_eq!((report.wrong, report.trace), (None, run_seed(3, &options()).trace));
}

#[test]
fn i11_a_seed_repeats_itself() {
    for seed in [1, 7, 1 << 40, u64::MAX] {
        let (first, second) = (run_seed(seed, &options()), run_seed(seed, &options()));
        assert_eq!(first.wrong, None);
        assert_eq!((first.trace, first.events), (second.trace, second.events), "seed {seed}");
    }
    assert_ne!(run_seed(1, &options()).trace, run_seed(2, &options()).trace);
}
