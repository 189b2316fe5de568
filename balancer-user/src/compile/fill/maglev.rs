//! Maglev's fill (Eisenbud et al., NSDI 2016, section 3.4), with weights.
//!
//! Each target prefers the slots in an order of its own, given by two hashes of its name:
//! `offset`, `offset + skip`, `offset + 2 × skip`, … modulo the size. Targets take turns; at
//! its turn a target takes the first free slot of its order. Names, hashes and the order of
//! turns are those of Envoy (`source/extensions/load_balancing_policies/maglev/maglev_lb.cc`):
//! with equal weights the table is Envoy's, slot by slot.

use xxhash_rust::xxh64::xxh64;

use crate::compile::TableSize;

/// Fills a table. `targets` are the names and how many slots each gets; the counts must add up
/// to the size. Returns, for each slot, an index into `targets`.
///
/// A target with more slots has more turns, spread evenly; the result does not depend on the
/// order of `targets` (but for what the indices mean).
///
/// ```
/// use balancer_user::compile::{TableSize, maglev};
///
/// let size = TableSize::new(7)?;
/// let targets = [("127.0.0.1:90", 3), ("127.0.0.1:91", 2), ("127.0.0.1:92", 2)];
/// let slots = maglev::fill(&targets, size);
/// assert_eq!(slots.len(), 7);
/// assert_eq!(slots.iter().filter(|&&target| target == 0).count(), 3);
/// # Ok::<(), balancer_user::compile::TableSizeError>(())
/// ```
///
/// # Panics
///
/// If the counts do not add up to the size, or there are more than 65,536 targets.
pub fn fill<N: AsRef<str>>(targets: &[(N, u32)], size: TableSize) -> Vec<u16> {
    let total: u64 = targets.iter().map(|t| u64::from(t.1)).sum();
    assert_eq!(total, u64::from(size.slots()), "counts must add up to the number of slots");
    assert!(targets.len() <= balancer_ebpf::abi::TARGETS_MAX, "a slot names at most 65,536");

    let mut order: Vec<u16> = (0..=u16::MAX).take(targets.len()).collect();
    order.sort_by(|&a, &b| name(targets, a).cmp(name(targets, b)));
    let mut walks: Vec<Walk> = Vec::with_capacity(targets.len());
    walks.extend(order.iter().map(|&target| Walk::new(name(targets, target), size)));
    let counts: Vec<u32> = order.iter().map(|&target| targets[usize::from(target)].1).collect();

    let mut board = Board::new(size);
    take_turns(&counts, |turn| board.take(&mut walks[turn], order[turn]));
    board.slots
}

fn name<N: AsRef<str>>(targets: &[(N, u32)], target: u16) -> &str {
    targets[usize::from(target)].0.as_ref()
}

/// Where a target is in its order of preference.
struct Walk {
    /// The next slot to try.
    at: u32,
    /// From 1 to size − 1.
    skip: u32,
    /// The number that makes 1 when multiplied by `skip`, modulo the size; 0: not computed yet.
    inverse: u32,
}

impl Walk {
    fn new(name: &str, size: TableSize) -> Self {
        let slots = u64::from(size.slots());
        // Both remainders are below a u32.
        Self {
            at: (xxh64(name.as_bytes(), 0) % slots) as u32,
            skip: (xxh64(name.as_bytes(), 1) % (slots - 1)) as u32 + 1,
            inverse: 0,
        }
    }
}

/// The table while it is filled.
///
/// While many slots are free a target tries one after the other. Near the end that takes long:
/// with F of M slots free, M ÷ F tries for each turn, more than half of all tries for the last
/// √M slots. From there on the free slots are listed, and a target computes which of them comes
/// first in its order: slot s comes after (s − at) ÷ skip steps, a division modulo a prime.
struct Board {
    slots: Vec<u16>,
    /// A bit for each slot that is taken: 16 times denser than the table itself, so that the
    /// search for a free slot stays in the cache.
    taken: Vec<u64>,
    modulus: Modulus,
    /// Slots still free.
    free: u32,
    /// From how few free slots on they are listed.
    few: u32,
    /// The free slots, once they are few.
    listed: Vec<u32>,
}

impl Board {
    fn new(size: TableSize) -> Self {
        let n = size.slots();
        let few = n.isqrt();
        let mut board = Self {
            slots: vec![0; n as usize],
            taken: vec![0; n.div_ceil(64) as usize],
            modulus: Modulus::new(n),
            free: n,
            few,
            listed: Vec::with_capacity(few as usize),
        };
        // The bits behind the last slot are nobody's.
        if let Some(last) = board.taken.last_mut().filter(|_| !n.is_multiple_of(64)) {
            *last = u64::MAX << (n % 64);
        }
        board
    }

    /// Gives the walk's first free slot to `target`. There must be one: a prime size makes the
    /// walk pass through all slots.
    #[inline]
    fn take(&mut self, walk: &mut Walk, target: u16) {
        let slot =
            if self.free > self.few { self.try_in_turn(walk) } else { self.compute_first(walk) };
        self.slots[slot as usize] = target;
        self.free -= 1;
    }

    #[inline]
    fn try_in_turn(&mut self, walk: &mut Walk) -> u32 {
        let mut slot = walk.at;
        loop {
            let word = &mut self.taken[(slot >> 6) as usize];
            let bit = 1 << (slot & 63);
            let next = self.modulus.add(slot, walk.skip);
            if *word & bit == 0 {
                *word |= bit;
                walk.at = next;
                return slot;
            }
            slot = next;
        }
    }

    #[cold]
    fn list_free(&mut self) {
        for (base, &word) in (0..).step_by(64).zip(&self.taken) {
            let mut free = !word;
            while free != 0 {
                self.listed.push(base + free.trailing_zeros());
                free &= free - 1;
            }
        }
    }

    fn compute_first(&mut self, walk: &mut Walk) -> u32 {
        if self.free == self.few {
            self.list_free();
        }
        if walk.inverse == 0 {
            walk.inverse = self.modulus.inverse(walk.skip);
        }
        let (modulus, behind) = (self.modulus, self.modulus.of - walk.at);
        let steps =
            |slot: u32| modulus.multiply(modulus.add(slot, behind % modulus.of), walk.inverse);
        let mut first = (u32::MAX, 0);
        for (index, &slot) in self.listed.iter().enumerate() {
            first = first.min((steps(slot), index));
        }
        let slot = self.listed.swap_remove(first.1);
        walk.at = self.modulus.add(slot, walk.skip);
        slot
    }
}

/// Arithmetic modulo the size of the table, which is a prime below 2^21.
#[derive(Clone, Copy)]
struct Modulus {
    of: u32,
    /// 2^64 ÷ `of`, rounded up.
    reciprocal: u64,
}

impl Modulus {
    fn new(of: u32) -> Self {
        // `of` is no power of two but for 2, where the quotient would be exact without the 1;
        // the remainder below comes out right for it too.
        Self { of, reciprocal: u64::MAX / u64::from(of) + 1 }
    }

    /// The sum of two numbers below the modulus.
    #[inline]
    fn add(self, a: u32, b: u32) -> u32 {
        let sum = a + b;
        if sum >= self.of { sum - self.of } else { sum }
    }

    /// The product of two numbers below the modulus.
    #[inline]
    fn multiply(self, a: u32, b: u32) -> u32 {
        // The product is below 2^42 and the reciprocal too large by less than 1: the quotient is
        // off by less than 2^42 ÷ 2^64, too little to reach the next whole number.
        let product = u64::from(a) * u64::from(b);
        let quotient = ((u128::from(product) * u128::from(self.reciprocal)) >> 64) as u64;
        (product - quotient * u64::from(self.of)) as u32
    }

    /// What makes 1 when multiplied by `a`, which is not 0 (extended Euclid).
    fn inverse(self, a: u32) -> u32 {
        let (mut r, mut next_r) = (i64::from(self.of), i64::from(a));
        let (mut t, mut next_t) = (0, 1);
        while next_r != 0 {
            let quotient = r / next_r;
            (r, next_r) = (next_r, r - quotient * next_r);
            (t, next_t) = (next_t, t - quotient * next_t);
        }
        t.rem_euclid(i64::from(self.of)) as u32
    }
}

/// Calls `turn` with an index into `counts`, `counts[i]` times for each i.
///
/// Round k (from 1) is a turn for i if it has had j < counts[i] turns and j ÷ counts[i] ≤
/// k ÷ the largest count: the heaviest is in every round, one of half its weight in every other
/// round. Within a round the order is that of the indices.
fn take_turns(counts: &[u32], mut turn: impl FnMut(usize)) {
    let most = counts.iter().copied().max().unwrap_or(0);
    let fewest = counts.iter().copied().min().unwrap_or(0);
    // With (nearly) equal counts all are in every round, until the lower count is used up.
    for _ in 0..if most - fewest <= 1 { fewest } else { 0 } {
        (0..counts.len()).for_each(&mut turn);
    }
    if most - fewest <= 1 {
        (0..counts.len()).filter(|&i| counts[i] > fewest).for_each(&mut turn);
        return;
    }
    // Otherwise sort the turns by round. The j-th turn of i comes in the first round k > j with
    // k × counts[i] ≥ j × most.
    let rounds = |i: usize| {
        let count = u64::from(counts[i]);
        (0..count).map(move |j| ((j * u64::from(most)).div_ceil(count).max(j + 1) - 1) as usize)
    };
    let mut starts = vec![0u32; most as usize + 1];
    for i in 0..counts.len() {
        rounds(i).for_each(|round| starts[round + 1] += 1);
    }
    for round in 0..most as usize {
        starts[round + 1] += starts[round];
    }
    let mut turns = vec![0u32; counts.iter().map(|&n| n as usize).sum()];
    for i in 0..counts.len() {
        for round in rounds(i) {
            turns[starts[round] as usize] = i as u32;
            starts[round] += 1;
        }
    }
    turns.into_iter().for_each(|i| turn(i as usize));
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::compile::{
        apportion::evenly,
        fill::counts_of,
        size::{RUNGS, TableSize},
    };
    use proptest::prelude::*;

    /// The paper's listing, with Envoy's rule for weights, word for word and slowly.
    fn by_the_book(targets: &[(String, u32)], size: TableSize) -> Vec<u16> {
        let m = u64::from(size.slots());
        let mut sorted: Vec<usize> = (0..targets.len()).collect();
        sorted.sort_by_key(|&i| &targets[i].0);
        let most = u64::from(targets.iter().map(|t| t.1).max().unwrap());
        let mut next = vec![0u64; targets.len()];
        let mut turns = vec![0u64; targets.len()];
        let mut table = vec![None; m as usize];
        for round in 1.. {
            for &i in &sorted {
                let (name, count) = (targets[i].0.as_bytes(), u64::from(targets[i].1));
                if turns[i] == count || round * count < turns[i] * most {
                    continue;
                }
                turns[i] += 1;
                loop {
                    let slot = (xxh64(name, 0) % m + (xxh64(name, 1) % (m - 1) + 1) * next[i]) % m;
                    next[i] += 1;
                    let slot = &mut table[slot as usize];
                    if slot.is_none() {
                        *slot = Some(i as u16);
                        break;
                    }
                }
            }
            if table.iter().all(Option::is_some) {
                break;
            }
        }
        table.into_iter().flatten().collect()
    }

    fn names(n: usize) -> Vec<String> {
        (0..n).map(|i| format!("10.0.{}.{}:8080", i / 250, i % 250 + 1)).collect()
    }

    fn equal(names: &[String], size: TableSize) -> Vec<(String, u32)> {
        // The first by name gets the slot left over, as in Envoy.
        let mut names = names.to_vec();
        names.sort();
        let counts = evenly(size.slots(), names.len());
        names.into_iter().zip(counts).collect()
    }

    #[test]
    fn the_sizes_with_large_tables_equal_the_listing_too() {
        for (size, n) in [(RUNGS[3], 7), (RUNGS[4], 100), (TableSize::new(2).unwrap(), 2)] {
            let targets = equal(&names(n), size);
            assert_eq!(fill(&targets, size), by_the_book(&targets, size));
        }
    }

    proptest! {
        #[test]
        fn products_and_inverses_are_those_of_the_modulus(
            size in 0usize..10, a in 1u32..1 << 21, b in 0u32..1 << 21,
        ) {
            let of = [2, 3, 7, 251, 1021, 4093, 16_381, 65_537, 262_147, 1_048_583][size];
            let modulus = Modulus::new(of);
            let (a, b) = (a % of, b % of);
            let product = u64::from(a) * u64::from(b) % u64::from(of);
            prop_assert_eq!(u64::from(modulus.multiply(a, b)), product);
            if a > 0 {
                prop_assert_eq!(modulus.multiply(a, modulus.inverse(a)), 1 % of);
            }
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

        #[test]
        fn equals_the_listing_of_the_paper(
            cuts in prop::collection::vec(0u32..1021, 0..20), rung in 0usize..2,
        ) {
            let size = RUNGS[rung];
            let mut cuts: Vec<u32> = cuts.iter().map(|c| c % size.slots()).collect();
            cuts.extend([0, size.slots()]);
            cuts.sort_unstable();
            cuts.dedup();
            let counts = cuts.windows(2).map(|w| w[1] - w[0]);
            let targets: Vec<_> = names(cuts.len() - 1).into_iter().zip(counts).collect();
            prop_assert_eq!(fill(&targets, size), by_the_book(&targets, size));
        }

        #[test]
        fn each_target_gets_its_count(
            cuts in prop::collection::vec(0u32..4093, 0..200),
        ) {
            let size = RUNGS[2];
            let mut cuts = cuts;
            cuts.extend([0, size.slots()]);
            cuts.sort_unstable();
            cuts.dedup();
            let counts: Vec<u32> = cuts.windows(2).map(|w| w[1] - w[0]).collect();
            let targets: Vec<_> = names(counts.len()).into_iter().zip(counts.clone()).collect();
            prop_assert_eq!(counts_of(&fill(&targets, size), counts.len()), counts);
        }

        #[test]
        fn the_order_of_targets_does_not_matter(
            counts in Just([100u32, 51, 50, 49, 1]).prop_shuffle(),
        ) {
            let size = RUNGS[0];
            let named = |counts: &[u32]| -> Vec<(String, u32)> {
                counts.iter().map(|n| (format!("10.0.0.{n}:80"), *n)).collect()
            };
            let shuffled = named(&counts);
            let sorted = named(&[100, 51, 50, 49, 1]);
            let by_name = |targets: &[(String, u32)]| -> Vec<String> {
                fill(targets, size).iter().map(|&t| targets[usize::from(t)].0.clone()).collect()
            };
            prop_assert_eq!(by_name(&shuffled), by_name(&sorted));
        }
    }

    /// Slots of targets that stay which another target has after one of `n` is removed, in
    /// parts of the table.
    fn moved_by_removal(n: usize, size: TableSize, seed: u32) -> f64 {
        let all: Vec<String> =
            (0..n).map(|i| format!("10.{}.{}.{}:80", seed % 256, i / 250, i % 250 + 1)).collect();
        let mut kept = all.clone();
        let gone = kept.remove(seed as usize % n);
        let (before, after) = (equal(&all, size), equal(&kept, size));
        let (was, is) = (fill(&before, size), fill(&after, size));
        let moved = was.iter().zip(&is).filter(|(was, is)| {
            let was = &before[usize::from(**was)].0;
            *was != gone && *was != after[usize::from(**is)].0
        });
        moved.count() as f64 / f64::from(size.slots())
    }

    /// The bound (decision 004): with N × 100 < M, removing one of N equal targets changes
    /// less than 1 % of a table of 65,537 among the slots of those that stay.
    #[test]
    fn removing_one_target_moves_few_slots_of_the_others() {
        for n in [2, 3, 5, 10, 20, 31, 50, 100, 200, 400, 600, 655] {
            for seed in 0..6 {
                let moved = moved_by_removal(n, RUNGS[4], seed);
                assert!(moved < 0.01, "{n} targets, names {seed}: {moved}");
            }
        }
    }

    /// On the lower rungs there are too few slots for that with Envoy's permutations: less
    /// than 3 % on average over names.
    #[test]
    fn removing_one_target_moves_few_slots_on_small_tables_on_average() {
        for (rung, n) in [(0, 2), (1, 3), (1, 5), (1, 10), (2, 11), (2, 20), (2, 40), (3, 160)] {
            let runs = 40;
            let sum: f64 = (0..runs).map(|seed| moved_by_removal(n, RUNGS[rung], seed)).sum();
            let mean = sum / f64::from(runs);
            assert!(mean < 0.03, "{n} targets on {:?}: {mean}", RUNGS[rung]);
        }
    }

    #[test]
    fn a_target_of_weight_0_gets_no_slot() {
        let slots = fill(&[("a", 0), ("b", 251)], RUNGS[0]);
        assert!(slots.iter().all(|&target| target == 1));
    }

    #[test]
    #[should_panic(expected = "counts must add up")]
    fn counts_that_do_not_add_up_are_a_bug_of_the_caller() {
        fill(&[("a", 1)], RUNGS[0]);
    }
}
