//! Which worker gives how many cores to an application: a pure function (D46-D48).

/// What a worker has to give.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Offer {
    pub(crate) cores: u32,
    pub(crate) memory_mb: u64,
}

/// What an application still wants.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Demand {
    pub(crate) cores: u32,
    /// Unset: one executor per worker takes all the cores that it is given (D47).
    pub(crate) cores_per_executor: Option<u32>,
    pub(crate) memory_per_executor_mb: u64,
}

/// In which order workers are filled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Placement {
    /// One step on each worker in turn.
    SpreadOut,
    /// One worker before the next.
    Pack,
}

/// An executor to launch: on which of the offers, with how many cores.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Launch {
    pub(crate) offer: usize,
    pub(crate) cores: u32,
}

/// Allots cores in steps of one executor (or one core, where its size is open), and turns what
/// each worker was given into executors.
pub(crate) fn assign(offers: &[Offer], demand: &Demand, placement: Placement) -> Vec<Launch> {
    let step = demand.cores_per_executor.unwrap_or(1).max(1);
    let mut left = demand.cores;
    let mut given = vec![0; offers.len()];
    loop {
        let mut progress = false;
        for (offer, given) in offers.iter().zip(&mut given) {
            while left >= step && fits(offer, *given, step, demand) {
                left -= step;
                *given += step;
                progress = true;
                if placement == Placement::SpreadOut {
                    break;
                }
            }
        }
        if !progress {
            break;
        }
    }
    let executors = given.into_iter().enumerate().flat_map(|(offer, cores)| {
        let each = demand.cores_per_executor.map_or(cores, |_| step);
        let count = cores.checked_div(each).unwrap_or(0);
        (0..count).map(move |_| Launch { offer, cores: each })
    });
    executors.collect()
}

/// Whether a worker that has given some cores already has room for one more step.
fn fits(offer: &Offer, given: u32, step: u32, demand: &Demand) -> bool {
    let enough_cores = offer.cores.saturating_sub(given) >= step;
    let executors = match demand.cores_per_executor {
        Some(_) => given / step,
        None if given > 0 => return enough_cores,
        None => 0,
    };
    let used = u64::from(executors).saturating_mul(demand.memory_per_executor_mb);
    enough_cores && offer.memory_mb.saturating_sub(used) >= demand.memory_per_executor_mb
}

#[cfg(test)]
mod tests {
    use super::Placement::{Pack, SpreadOut};
    use super::*;

    const THREE: [Offer; 3] = [Offer { cores: 10, memory_mb: 4096 }; 3];

    fn demand(cores: u32, each: Option<u32>, memory: u64) -> Demand {
        Demand { cores, cores_per_executor: each, memory_per_executor_mb: memory }
    }

    /// Cores per worker, and how many executors they make.
    fn run(demand: Demand, placement: Placement) -> (Vec<u32>, usize) {
        let launches = assign(&THREE, &demand, placement);
        let on = |offer| launches.iter().filter(|l| l.offer == offer).map(|l| l.cores).sum();
        ((0..3).map(on).collect(), launches.len())
    }

    #[test]
    fn all_cores_are_taken_either_way() {
        for placement in [SpreadOut, Pack] {
            assert_eq!(run(demand(u32::MAX, None, 1024), placement), (vec![10, 10, 10], 3));
        }
    }

    #[test]
    fn max_cores_are_spread_or_packed() {
        assert_eq!(run(demand(8, None, 1024), SpreadOut), (vec![3, 3, 2], 3));
        assert_eq!(run(demand(16, None, 1024), SpreadOut), (vec![6, 5, 5], 3));
        assert_eq!(run(demand(8, None, 1024), Pack), (vec![8, 0, 0], 1));
        assert_eq!(run(demand(16, None, 1024), Pack), (vec![10, 6, 0], 2));
    }

    #[test]
    fn executors_of_a_given_size() {
        // Memory for four of them on each worker, cores for five.
        for placement in [SpreadOut, Pack] {
            assert_eq!(run(demand(u32::MAX, Some(2), 1024), placement), (vec![8, 8, 8], 12));
            assert_eq!(run(demand(u32::MAX, Some(3), 256), placement), (vec![9, 9, 9], 9));
        }
        assert_eq!(run(demand(8, Some(2), 256), SpreadOut), (vec![4, 2, 2], 4));
        assert_eq!(run(demand(20, Some(2), 256), Pack), (vec![10, 10, 0], 10));
        // What is left is less than an executor.
        assert_eq!(run(demand(7, Some(3), 256), SpreadOut), (vec![3, 3, 0], 2));
    }

    #[test]
    fn too_much_is_not_given() {
        assert_eq!(run(demand(4, None, 5000), SpreadOut), (vec![0, 0, 0], 0));
        assert_eq!(run(demand(40, Some(11), 1), Pack), (vec![0, 0, 0], 0));
        assert_eq!(run(demand(0, None, 1), Pack), (vec![0, 0, 0], 0));
        assert_eq!(assign(&[], &demand(4, None, 1), Pack), []);
    }

    #[test]
    fn memory_counts_once_for_an_executor_that_grows() {
        let offers = [Offer { cores: 4, memory_mb: 1000 }];
        assert_eq!(
            assign(&offers, &demand(4, None, 1000), SpreadOut),
            [Launch { offer: 0, cores: 4 }]
        );
    }
}
