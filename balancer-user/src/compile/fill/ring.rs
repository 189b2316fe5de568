//! The ring of `ringHash` (Ketama), quantised to slots.
//!
//! Each real has points on a circle of 2⁶⁴, at the hashes of `address:port_0`,
//! `address:port_1`, …; a connection goes to the real of the first point at or after its own.
//! Names, hashes and numbers of points are those of Envoy
//! (`source/extensions/load_balancing_policies/ring_hash/ring_hash_lb.cc`). A slot stands for
//! the middle of its arc.
//!
//! As in Envoy there is a ring for each backend, so a real's share within its backend is the
//! ring's, not exact; more points make it more even. The shares of the backends are exact
//! (decision 003).

use std::io::Write;

use xxhash_rust::xxh64::xxh64;

use super::murmur;
use crate::policy::HashFunction;

/// Size and hash of a ring.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RingShape {
    /// Hash of the points' names.
    pub function: HashFunction,
    /// Fewest points.
    pub min_points: u64,
    /// Most points.
    pub max_points: u64,
}

/// Points sorted by place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ring {
    points: Vec<(u64, u16)>,
}

impl Ring {
    /// Builds the ring of equally weighted targets with these names. Each has
    /// `min_points ÷ n` points, rounded up; where that makes more than `max_points`, the targets
    /// share `max_points` as evenly as whole points allow, and some may have none.
    pub fn new<N: AsRef<str>>(names: &[N], shape: RingShape) -> Self {
        let n = names.len().max(1) as u64;
        let max = shape.max_points.max(1);
        let each = shape.min_points.div_ceil(n).max(1);
        let all = (each.saturating_mul(n)).min(max);
        let mut points = Vec::with_capacity(usize::try_from(all).unwrap_or(0));
        let mut key = Vec::with_capacity(64);
        for (target, name) in names.iter().enumerate() {
            // Points up to and with this target: all × (target + 1) ÷ n, rounded up.
            let up_to = |i: u64| (u128::from(all) * u128::from(i)).div_ceil(u128::from(n)) as u64;
            for i in 0..up_to(target as u64 + 1) - up_to(target as u64) {
                key.clear();
                // Writing to a vector cannot fail.
                let _ = write!(key, "{}_{i}", name.as_ref());
                let hash = match shape.function {
                    HashFunction::XxHash => xxh64(&key, 0),
                    HashFunction::MurmurHash2 => murmur::hash(&key),
                };
                points.push((hash, target as u16));
            }
        }
        points.sort_unstable();
        Self { points }
    }

    /// The target at `place`: that of the first point at or after it, around the circle.
    pub fn at(&self, place: u64) -> Option<u16> {
        let next = self.points.partition_point(|point| point.0 < place);
        self.points.get(next).or(self.points.first()).map(|point| point.1)
    }
}

/// The middle of the arc that slot `slot` of `slots` stands for.
pub fn place(slot: u32, slots: u32) -> u64 {
    // Below 2^64, as 2 × slot + 1 < 2 × slots.
    (((2 * u128::from(slot) + 1) << 63) / u128::from(slots)) as u64
}

/// Gives each of the slots that belong to one backend to one of its targets. `places` are the
/// numbers of those slots, rising, out of `slots` of the whole table; the result is in the same
/// order, indices into `names`.
///
/// A target that would get no slot, because its arcs are narrow or it has no point, takes one
/// from the target that has most: no usable real is left out.
pub(crate) fn fill<N: AsRef<str>>(
    names: &[N],
    shape: RingShape,
    places: &[u32],
    slots: u32,
) -> Vec<u16> {
    let ring = Ring::new(names, shape);
    let mut given: Vec<u16> =
        places.iter().map(|&slot| ring.at(place(slot, slots)).unwrap_or(0)).collect();
    let mut counts = vec![0u32; names.len()];
    for &target in &given {
        counts[usize::from(target)] += 1;
    }
    for poor in 0..names.len() {
        if counts[poor] > 0 {
            continue;
        }
        let rich = (0..names.len()).max_by_key(|&i| (counts[i], std::cmp::Reverse(i)));
        let taken = rich.filter(|&i| counts[i] > 1).and_then(|rich| {
            Some((rich, given.iter().position(|&target| usize::from(target) == rich)?))
        });
        if let Some((rich, at)) = taken {
            given[at] = poor as u16;
            counts[rich] -= 1;
            counts[poor] += 1;
        }
    }
    given
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::compile::fill::counts_of;
    use proptest::prelude::*;

    const USUAL: RingShape =
        RingShape { function: HashFunction::XxHash, min_points: 1024, max_points: 8_388_608 };

    fn names(n: usize) -> Vec<String> {
        (0..n).map(|i| format!("10.0.0.{i}:80")).collect()
    }

    fn points(ring: &Ring, n: usize) -> Vec<u32> {
        let targets: Vec<u16> = ring.points.iter().map(|p| p.1).collect();
        counts_of(&targets, n)
    }

    #[test]
    fn every_target_has_the_same_whole_number_of_points() {
        assert_eq!(points(&Ring::new(&names(3), USUAL), 3), [342, 342, 342]);
        assert_eq!(points(&Ring::new(&names(2), USUAL), 2), [512, 512]);
        let few = RingShape { min_points: 1, ..USUAL };
        assert_eq!(points(&Ring::new(&names(5), few), 5), [1; 5]);
    }

    #[test]
    fn a_small_maximum_is_shared_out() {
        let capped = RingShape { min_points: 1, max_points: 6, ..USUAL };
        assert_eq!(
            points(&Ring::new(&names(4), RingShape { min_points: 8, ..capped }), 4),
            [2, 1, 2, 1]
        );
        // More targets than points: some are on no ring, and still get a slot.
        let slots = fill(&names(10), capped, &(0..251).collect::<Vec<_>>(), 251);
        assert!(counts_of(&slots, 10).iter().all(|&n| n >= 1));
    }

    #[test]
    fn absent_sizes_given_as_zeros_leave_one_point() {
        let none = RingShape { min_points: 0, max_points: 0, ..USUAL };
        assert_eq!(Ring::new(&names(3), none).points.len(), 1);
    }

    #[test]
    fn a_place_belongs_to_the_next_point_around_the_circle() {
        let ring = Ring { points: vec![(10, 1), (20, 2)] };
        assert_eq!([0, 10, 11, 20, 21, u64::MAX].map(|p| ring.at(p).unwrap()), [1, 1, 2, 2, 1, 1]);
        assert_eq!(Ring { points: vec![] }.at(0), None);
    }

    #[test]
    fn slots_stand_for_the_middle_of_their_arcs() {
        assert_eq!(place(0, 2), 1 << 62);
        assert_eq!(place(1, 2), 3 << 62);
        assert_eq!(place(1_048_582, 1_048_583), u64::MAX - (1u64 << 63) / 1_048_583);
    }

    #[test]
    fn the_two_hash_functions_make_different_rings() {
        let murmur = RingShape { function: HashFunction::MurmurHash2, ..USUAL };
        assert_ne!(Ring::new(&names(4), USUAL), Ring::new(&names(4), murmur));
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

        /// Monotone: without a target, only that target's places get another one. (At the
        /// usual sizes, where each target has the same number of points whatever their number,
        /// or loses the last ones.)
        #[test]
        fn removing_a_target_leaves_the_places_of_the_others(
            n in 2usize..12, gone in 0usize..12, places in prop::collection::vec(any::<u64>(), 200),
        ) {
            let all = names(n);
            let mut kept = all.clone();
            let gone = kept.remove(gone % n);
            // The same points for each target in both rings.
            let shape = |n: usize| RingShape { min_points: 100 * n as u64, ..USUAL };
            let (before, after) = (Ring::new(&all, shape(n)), Ring::new(&kept, shape(n - 1)));
            for place in places {
                let was = &all[usize::from(before.at(place).unwrap())];
                let is = &kept[usize::from(after.at(place).unwrap())];
                prop_assert!(was == &gone || was == is);
            }
        }

        #[test]
        fn every_target_gets_a_slot(n in 1usize..60, min in 0u64..2000, max in 0u64..2000) {
            let shape = RingShape { min_points: min, max_points: max, ..USUAL };
            let places: Vec<u32> = (0..6000).step_by(100).collect();
            let slots = fill(&names(n), shape, &places, 6007);
            prop_assert!(counts_of(&slots, n).iter().all(|&c| c >= 1));
        }
    }
}
