//! Round robin's fill: a smooth weighted sequence.
//!
//! A target with c of M slots has one in each window of M ÷ c (the chairman assignment problem,
//! Tijdeman 1980): its j-th is due between j × M ÷ c and (j + 1) × M ÷ c. At each slot, of the
//! targets whose next window has begun, the one whose window ends first takes it; but never the
//! one that has the slot before, as long as another is left.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BinaryHeap},
};

/// Fills a table in which target i has `counts[i]` slots, spread as evenly as they go. Where no
/// target has more than half of the slots (rounded up), neighbours differ.
pub fn fill(counts: &[u32]) -> Vec<u16> {
    let total: u32 = counts.iter().sum();
    let mut left = Remaining::new(counts);
    // With one target in the majority its surplus has to stand side by side somewhere; then the
    // windows alone decide, which spreads it.
    let apart = u64::from(left.most) * 2 <= u64::from(total) + 1;

    let mut windows = Windows::new(counts, total);
    let mut slots: Vec<u16> = Vec::with_capacity(total as usize);
    for slot in 0..total {
        let next = if apart {
            let last = slots.last().copied();
            left.half_of(total - slot).or_else(|| windows.next(slot, last))
        } else {
            windows.next(slot, None)
        };
        // There is always one: the counts add up to the total.
        let Some(target) = next else { break };
        slots.push(target);
        left.take(target);
        windows.turn_over(target);
    }
    slots
}

/// The windows in which targets are due. Entries of turns that are over are skipped when met.
struct Windows<'a> {
    counts: &'a [u32],
    total: u32,
    /// The turn that each target waits for.
    turns: Vec<u32>,
    /// Windows to come: (begin, end, target, turn).
    waiting: BinaryHeap<Reverse<(u32, u32, u16, u32)>>,
    /// Windows that have begun: (end, target, turn).
    due: BinaryHeap<Reverse<(u32, u16, u32)>>,
}

impl<'a> Windows<'a> {
    fn new(counts: &'a [u32], total: u32) -> Self {
        let mut windows = Self {
            counts,
            total,
            turns: vec![0; counts.len()],
            waiting: BinaryHeap::with_capacity(counts.len()),
            due: BinaryHeap::with_capacity(counts.len()),
        };
        (0..=u16::MAX).take(counts.len()).for_each(|target| windows.queue(target));
        windows
    }

    /// The target that is due first, other than `not`; if none is due, the one whose window
    /// begins first; if there is no other, `not`.
    fn next(&mut self, slot: u32, not: Option<u16>) -> Option<u16> {
        while let Some(&Reverse((begin, end, target, turn))) = self.waiting.peek()
            && begin <= slot
        {
            self.waiting.pop();
            self.due.push(Reverse((end, target, turn)));
        }
        let mut passed_over = None;
        let mut chosen = None;
        while chosen.is_none()
            && let Some(Reverse(entry)) = self.due.pop()
        {
            match entry {
                (_, target, turn) if self.turns[usize::from(target)] != turn => {}
                (_, target, _) if Some(target) == not => passed_over = Some(entry),
                (_, target, _) => chosen = Some(target),
            }
        }
        self.due.extend(passed_over.map(Reverse));
        let mut held_back = None;
        while chosen.is_none()
            && let Some(Reverse(entry)) = self.waiting.pop()
        {
            match entry {
                (_, _, target, turn) if self.turns[usize::from(target)] != turn => {}
                (_, _, target, _) if Some(target) == not => held_back = Some(entry),
                (_, _, target, _) => chosen = Some(target),
            }
        }
        self.waiting.extend(held_back.map(Reverse));
        chosen.or(not.filter(|&target| self.turns[usize::from(target)] < self.count(target)))
    }

    fn turn_over(&mut self, target: u16) {
        self.turns[usize::from(target)] += 1;
        self.queue(target);
    }

    /// Queues the window of the target's next turn, if it has one left.
    fn queue(&mut self, target: u16) {
        let turn = self.turns[usize::from(target)];
        if turn < self.count(target) {
            let (count, total) = (u64::from(self.count(target)), u64::from(self.total));
            let begin = (u64::from(turn) * total).div_ceil(count);
            let end = ((u64::from(turn) + 1) * total).div_ceil(count) - 1;
            // Both below the total, a u32.
            self.waiting.push(Reverse((begin as u32, end as u32, target, turn)));
        }
    }

    fn count(&self, target: u16) -> u32 {
        self.counts[usize::from(target)]
    }
}

/// What each target still has to get, and who has most.
struct Remaining {
    left: Vec<u32>,
    /// Targets by what they have left; the largest key is `most`.
    by_left: BTreeMap<u32, u32>,
    most: u32,
    /// The first of those that had most at the start, and usually still has.
    heaviest: usize,
}

impl Remaining {
    fn new(counts: &[u32]) -> Self {
        let mut by_left = BTreeMap::new();
        for &count in counts {
            *by_left.entry(count).or_insert(0) += 1;
        }
        let most = counts.iter().copied().max().unwrap_or(0);
        let heaviest = counts.iter().position(|&count| count == most).unwrap_or(0);
        Self { left: counts.to_vec(), by_left, most, heaviest }
    }

    fn take(&mut self, target: u16) {
        let left = &mut self.left[usize::from(target)];
        if let Some(n) = self.by_left.get_mut(left) {
            *n -= 1;
            if *n == 0 {
                self.by_left.remove(left);
            }
        }
        *left -= 1;
        *self.by_left.entry(*left).or_insert(0) += 1;
        self.most = self.by_left.last_key_value().map_or(0, |(&left, _)| left);
    }

    /// The target that must come now: it needs every other one of the `slots` left, beginning
    /// with this. As long as it comes, no target can ever be forced next to itself.
    fn half_of(&self, slots: u32) -> Option<u16> {
        if self.most * 2 <= slots {
            return None;
        }
        if self.left[self.heaviest] == self.most {
            return Some(self.heaviest as u16);
        }
        self.left.iter().position(|&left| left == self.most).map(|target| target as u16)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::compile::{apportion::evenly, fill::counts_of};
    use proptest::prelude::*;

    #[test]
    fn equal_counts_go_round() {
        assert_eq!(fill(&[3, 3, 3]), [0, 1, 2, 0, 1, 2, 0, 1, 2]);
    }

    #[test]
    fn a_heavy_target_is_spread_among_the_light_ones() {
        assert_eq!(fill(&[5, 1, 1]), [0, 1, 0, 0, 2, 0, 0]);
        assert_eq!(fill(&[4, 1, 1, 1, 1]), [0, 1, 0, 2, 0, 3, 0, 4]);
        assert_eq!(fill(&[0, 2, 1]), [1, 2, 1]);
    }

    #[test]
    fn one_target_has_all() {
        assert_eq!(fill(&[4]), [0; 4]);
        assert_eq!(fill(&[]), [0; 0]);
    }

    proptest! {
        #[test]
        fn counts_come_out_and_neighbours_differ(
            counts in prop_oneof![
                prop::collection::vec(0u32..60, 1..12),
                prop::collection::vec(0u32..3, 1..40),
                (2usize..30, 30u32..600).prop_map(|(n, slots)| evenly(slots, n).collect()),
            ],
        ) {
            let slots = fill(&counts);
            prop_assert_eq!(counts_of(&slots, counts.len()), counts.clone());
            let most = counts.iter().max().unwrap();
            if u64::from(*most) * 2 <= slots.len() as u64 + 1 {
                for pair in slots.windows(2) {
                    prop_assert_ne!(pair[0], pair[1], "{:?}", slots);
                }
            }
        }

        /// Smooth: wherever one looks, a stretch of the sequence holds a target's share of it,
        /// but for less than two.
        #[test]
        fn every_stretch_holds_its_share(
            counts in prop::collection::vec(1u32..60, 2..10), from in 0usize..300, to in 0usize..300,
        ) {
            let slots = fill(&counts);
            let total = slots.len();
            let (from, to) = (from.min(to) % total, (from.max(to) % total).max(from.min(to) % total));
            let seen = counts_of(&slots[from..to], counts.len());
            for (target, &count) in counts.iter().enumerate() {
                let ideal = f64::from(count) * (to - from) as f64 / total as f64;
                prop_assert!((f64::from(seen[target]) - ideal).abs() < 2.0,
                    "target {} in {}..{} of {:?}", target, from, to, slots);
            }
        }
    }
}
