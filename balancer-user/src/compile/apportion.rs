//! Dividing slots in proportion to weights, by largest remainder (Hamilton's method).
//!
//! Works in whole numbers throughout, so that every node of a zone gets the same answer.

/// What one claimant brings.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Share {
    /// Relative weight. With 0 it gets nothing, whatever `at_least` says.
    pub weight: u64,
    /// The fewest slots that it must get if its weight is not 0.
    pub at_least: u32,
}

/// Divides `slots` exactly: the result adds up to `slots`, and where no minimum interferes each
/// claimant gets its quota `slots × weight / sum` rounded down or up, the largest fractions up.
/// Equal fractions: the earlier claimant first.
///
/// A claimant whose quota is below its minimum gets the minimum; the others share what is left
/// by the same rule. `None` if the minimums do not fit, or if no weight is above 0.
///
/// ```
/// use balancer_user::compile::apportion::{Share, apportion};
///
/// let split = |weights: &[u64]| {
///     let shares: Vec<_> =
///         weights.iter().map(|&weight| Share { weight, at_least: 1 }).collect();
///     apportion(&shares, 251)
/// };
/// assert_eq!(split(&[90, 10]), Some(vec![226, 25]));
/// // Nothing for a weight of 0, and at least one slot for any other.
/// assert_eq!(split(&[1_000_000, 0, 1]), Some(vec![250, 0, 1]));
/// assert_eq!(split(&[1, 1, 1]), Some(vec![84, 84, 83]));
/// ```
pub fn apportion(shares: &[Share], slots: u32) -> Option<Vec<u32>> {
    let mut given = vec![0u32; shares.len()];
    let mut open: Vec<usize> = (0..shares.len()).filter(|&i| shares[i].weight > 0).collect();
    if open.is_empty() {
        return None;
    }
    let least: u64 = open.iter().map(|&i| u64::from(shares[i].at_least)).sum();
    if least > u64::from(slots) {
        return None;
    }

    let mut left = u128::from(slots);
    let mut sum: u128 = open.iter().map(|&i| u128::from(shares[i].weight)).sum();
    // Whoever is lifted to its minimum takes more than its quota, so the others' quotas only
    // shrink: a claimant once lifted stays lifted, and the loop ends.
    loop {
        let (kept, lifted): (Vec<_>, Vec<_>) = open.iter().copied().partition(|&i| {
            u128::from(shares[i].weight) * left >= u128::from(shares[i].at_least) * sum
        });
        open = kept;
        if lifted.is_empty() {
            break;
        }
        for i in lifted {
            given[i] = shares[i].at_least;
            left -= u128::from(shares[i].at_least);
            sum -= u128::from(shares[i].weight);
        }
    }

    let mut fractions = Vec::with_capacity(open.len());
    let mut over = left;
    for i in open {
        let product = u128::from(shares[i].weight) * left;
        let whole = product / sum;
        given[i] = u32::try_from(whole).ok()?;
        over -= whole;
        fractions.push((product % sum, i));
    }
    fractions.sort_unstable_by(|a, b| b.0.cmp(&a.0).then(a.1.cmp(&b.1)));
    for (_, i) in fractions.into_iter().take(usize::try_from(over).ok()?) {
        given[i] += 1;
    }
    Some(given)
}

/// Divides `slots` evenly among `n`: the first ones get one more where it does not come out.
pub fn evenly(slots: u32, n: usize) -> impl Iterator<Item = u32> {
    let n = n as u32;
    let each = slots.checked_div(n).unwrap_or(0);
    let over = slots - each * n;
    (0..n).map(move |i| each + u32::from(i < over))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn of(weights: &[u64]) -> Vec<Share> {
        weights.iter().map(|&weight| Share { weight, at_least: 1 }).collect()
    }

    #[test]
    fn largest_fractions_round_up() {
        // Quotas 3.69, 23.99, 204.86, 18.46.
        assert_eq!(apportion(&of(&[2, 13, 111, 10]), 251), Some(vec![4, 24, 205, 18]));
    }

    #[test]
    fn one_heavy_claimant_leaves_a_slot_for_each_of_many_light_ones() {
        let mut weights = vec![127 * 1023];
        weights.extend([1; 1023]);
        let given = apportion(&of(&weights), 65_537).unwrap();
        assert_eq!(given[0], 64_514);
        assert!(given[1..].iter().all(|&n| n == 1));
    }

    #[test]
    fn more_minimums_than_slots_do_not_fit() {
        assert_eq!(apportion(&of(&[1; 8]), 7), None);
        assert_eq!(apportion(&of(&[0, 0]), 7), None);
        assert_eq!(apportion(&[], 7), None);
    }

    #[test]
    fn extreme_weights_do_not_overflow() {
        let given = apportion(&of(&[u64::MAX, u64::MAX, 1]), 1_048_583).unwrap();
        assert_eq!(given, [524_291, 524_291, 1]);
    }

    proptest! {
        #[test]
        fn every_slot_is_given_and_no_quota_missed_by_a_slot(
            weights in prop::collection::vec(
                prop_oneof![Just(0u64), 1..200u64, 1..=u64::from(u32::MAX)], 1..60),
            slots in 60u32..70_000,
        ) {
            prop_assume!(weights.iter().any(|&w| w > 0));
            let given = apportion(&of(&weights), slots).unwrap();
            prop_assert_eq!(given.iter().map(|&n| u64::from(n)).sum::<u64>(), u64::from(slots));
            let sum: u128 = weights.iter().map(|&w| u128::from(w)).sum();
            let no_minimum_interferes =
                weights.iter().all(|&w| w == 0 || u128::from(w) * u128::from(slots) >= sum);
            for (&weight, &n) in weights.iter().zip(&given) {
                prop_assert_eq!(weight == 0, n == 0);
                let quota = u128::from(weight) * u128::from(slots);
                if no_minimum_interferes {
                    prop_assert!((u128::from(n) * sum).abs_diff(quota) < sum);
                } else {
                    // Lifting others can only take from a claimant that is above its minimum.
                    prop_assert!(n <= 1 || u128::from(n - 1) * sum < quota);
                }
            }
        }

        #[test]
        fn more_weight_never_gets_fewer_slots(
            weights in prop::collection::vec(1..1000u64, 2..40), slots in 40u32..5000,
        ) {
            let given = apportion(&of(&weights), slots).unwrap();
            for (i, a) in weights.iter().enumerate() {
                for (j, b) in weights.iter().enumerate() {
                    prop_assert!(a <= b || given[i] >= given[j]);
                }
            }
        }

        #[test]
        fn even_shares_differ_by_one_at_most(slots in 0u32..100_000, n in 1usize..500) {
            let all: Vec<u32> = evenly(slots, n).collect();
            prop_assert_eq!(all.iter().sum::<u32>(), slots);
            prop_assert!(all.iter().max().unwrap() - all.iter().min().unwrap() <= 1);
        }
    }
}
