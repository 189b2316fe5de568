//! How many slots a table has.
//!
//! Sizes come from a fixed ladder of primes. A size computed freely from the need would change
//! with every real and move nearly every connection that is found by hash; on a ladder most
//! changes keep the rung. Prime, because Maglev's permutations need it.

use super::apportion::{Share, apportion};

/// A number of slots: a prime from 2 to [`LARGEST`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TableSize(u32);

/// Why a number cannot be a table's size.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TableSizeError {
    /// A permutation that steps by a divisor of the size would not reach every slot.
    #[error("a table of {0} slots is not possible: the size must be a prime number")]
    NotPrime(u32),
    /// Beyond what the arena and the picks are made for.
    #[error("a table of {0} slots is not possible: {largest} is the largest", largest = LARGEST.slots())]
    TooLarge(u32),
}

impl TableSize {
    /// Checks that `slots` can be a size.
    pub fn new(slots: u32) -> Result<Self, TableSizeError> {
        if slots > LARGEST.0 {
            return Err(TableSizeError::TooLarge(slots));
        }
        let divides = |d: &u32| slots.is_multiple_of(*d);
        let divisors = 2..=slots.isqrt();
        if slots < 2 || divisors.into_iter().any(|d| divides(&d)) {
            return Err(TableSizeError::NotPrime(slots));
        }
        Ok(Self(slots))
    }

    /// The number of slots.
    pub const fn slots(self) -> u32 {
        self.0
    }
}

/// The ladder.
pub const RUNGS: [TableSize; 7] = [
    TableSize(251),
    TableSize(1_021),
    TableSize(4_093),
    TableSize(16_381),
    TableSize(65_537),
    TableSize(262_147),
    TableSize(1_048_583),
];

/// The top of the ladder.
pub const LARGEST: TableSize = RUNGS[RUNGS.len() - 1];

/// Slots that a target gets on average, at least.
const SLOTS_PER_TARGET: u64 = 100;

/// A size and what each backend gets of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Division {
    pub(super) size: TableSize,
    /// Slots of each backend, in the order of the shares.
    pub(super) slots: Vec<u32>,
}

/// Chooses the lowest rung on which `shares` (of the backends; `at_least` is the number of
/// targets) have 100 slots for each target on average and the smallest share is within 1 % of
/// what its weight says; the top one if none is. `None`: more targets than slots even there.
///
/// Judged by backends, not by single reals, so that moving weight between two backends of
/// several reals keeps the rung (decision 002).
pub(super) fn divide(shares: &[Share]) -> Option<Division> {
    let targets: u64 = shares.iter().filter(|s| s.weight > 0).map(|s| u64::from(s.at_least)).sum();
    let smallest = shares.iter().map(|s| s.weight).filter(|&w| w > 0).min()?;
    for size in RUNGS {
        if targets * SLOTS_PER_TARGET > u64::from(size.0) && size != LARGEST {
            continue;
        }
        let slots = apportion(shares, size.0)?;
        let fits = shares
            .iter()
            .zip(&slots)
            .filter(|(share, _)| share.weight == smallest)
            .all(|(share, &given)| within_1_percent(share.weight, sum(shares), size, given));
        if fits || size == LARGEST {
            return Some(Division { size, slots });
        }
    }
    None
}

/// Divides a size that is given.
pub(super) fn divide_by(shares: &[Share], size: TableSize) -> Option<Division> {
    Some(Division { size, slots: apportion(shares, size.0)? })
}

/// A share that even the largest table cannot give as asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Moved {
    /// Index of the share.
    pub(super) share: usize,
    /// Slots that a table needs to be within 1 % for sure.
    pub(super) slots_needed: u128,
}

/// The share that is furthest from reach, if any is more than 1 % off.
pub(super) fn moved(shares: &[Share], division: &Division) -> Option<Moved> {
    let sum = sum(shares);
    shares
        .iter()
        .zip(&division.slots)
        .enumerate()
        .filter(|(_, (share, given))| {
            share.weight > 0 && !within_1_percent(share.weight, sum, division.size, **given)
        })
        .map(|(i, (share, _))| {
            let least = u128::from(share.at_least).max(u128::from(SLOTS_PER_TARGET));
            Moved { share: i, slots_needed: (least * sum).div_ceil(u128::from(share.weight)) }
        })
        .max_by_key(|m| (m.slots_needed, std::cmp::Reverse(m.share)))
}

fn sum(shares: &[Share]) -> u128 {
    shares.iter().map(|s| u128::from(s.weight)).sum()
}

fn within_1_percent(weight: u64, sum: u128, size: TableSize, given: u32) -> bool {
    let asked = u128::from(weight) * u128::from(size.0);
    (u128::from(given) * sum).abs_diff(asked) * 100 <= asked
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn rung(backends: &[(u64, u32)]) -> u32 {
        let shares: Vec<_> =
            backends.iter().map(|&(weight, at_least)| Share { weight, at_least }).collect();
        divide(&shares).unwrap().size.slots()
    }

    #[test]
    fn every_rung_is_a_size() {
        for size in RUNGS {
            assert_eq!(TableSize::new(size.slots()), Ok(size));
        }
    }

    #[test]
    fn a_size_that_is_not_prime_is_refused() {
        for slots in [0, 1, 4, 8, 251 * 241, 65_536] {
            assert_eq!(TableSize::new(slots), Err(TableSizeError::NotPrime(slots)));
        }
        assert_eq!(TableSize::new(2_000_003), Err(TableSizeError::TooLarge(2_000_003)));
        assert_eq!(
            TableSize::new(8).unwrap_err().to_string(),
            "a table of 8 slots is not possible: the size must be a prime number"
        );
    }

    #[test]
    fn reals_need_a_hundred_slots_each() {
        assert_eq!(rung(&[(1, 1)]), 251);
        assert_eq!(rung(&[(1, 2)]), 251);
        assert_eq!(rung(&[(1, 3)]), 1_021);
        assert_eq!(rung(&[(1, 10)]), 1_021);
        assert_eq!(rung(&[(1, 11)]), 4_093);
        assert_eq!(rung(&[(1, 1000)]), 262_147);
        assert_eq!(rung(&[(1, 60_000)]), 1_048_583);
    }

    #[test]
    fn a_small_share_needs_a_larger_table() {
        assert_eq!(rung(&[(90, 1), (10, 1)]), 251);
        assert_eq!(rung(&[(99, 1), (1, 1)]), 4_093);
        assert_eq!(rung(&[(9_999, 1), (1, 1)]), 262_147);
    }

    #[test]
    fn usual_weight_changes_keep_the_rung() {
        for reals in [1, 2, 5] {
            let sizes: Vec<u32> = [(90, 10), (80, 20), (75, 25), (70, 30), (60, 40), (50, 50)]
                .map(|(a, b)| rung(&[(a, reals), (b, reals)]))
                .to_vec();
            assert!(sizes.iter().all(|s| *s == sizes[0]), "{reals} reals each: {sizes:?}");
        }
    }

    #[test]
    fn a_share_out_of_reach_names_the_size_that_would_do() {
        let shares = [Share { weight: 9_999_999, at_least: 1 }, Share { weight: 1, at_least: 1 }];
        let division = divide(&shares).unwrap();
        assert_eq!((division.size, division.slots[1]), (LARGEST, 1));
        assert_eq!(
            moved(&shares, &division),
            Some(Moved { share: 1, slots_needed: 1_000_000_000 })
        );
    }

    proptest! {
        #[test]
        fn the_chosen_rung_is_the_lowest_that_will_do(
            backends in prop::collection::vec((1..2000u64, 1..30u32), 1..12),
        ) {
            let shares: Vec<_> =
                backends.iter().map(|&(weight, at_least)| Share { weight, at_least }).collect();
            let division = divide(&shares).unwrap();
            let targets: u64 = backends.iter().map(|b| u64::from(b.1)).sum();
            let smallest = backends.iter().map(|b| b.0).min().unwrap();
            let all: u64 = backends.iter().map(|b| b.0).sum();
            let will_do = |size: TableSize| {
                let slots = u64::from(size.slots());
                // Fewer slots than targets.
                let Some(given) = apportion(&shares, size.slots()) else { return false };
                targets * 100 <= slots
                    && shares.iter().zip(given).filter(|(s, _)| s.weight == smallest).all(
                        |(s, n)| {
                            let quota = s.weight * slots;
                            (u64::from(n) * all).abs_diff(quota) * 100 <= quota
                        },
                    )
            };
            prop_assert!(division.size == LARGEST || will_do(division.size));
            for size in RUNGS.into_iter().filter(|&s| s < division.size) {
                prop_assert!(!will_do(size), "{} would do", size.slots());
            }
        }
    }
}
