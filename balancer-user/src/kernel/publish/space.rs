//! Which words of the arena are free.

use std::collections::BTreeMap;

use balancer_ebpf::abi::Table;

/// Free extents, first word → number of words; neighbours are always merged.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Space {
    free: BTreeMap<u32, u32>,
    /// Words there are; the arena may grow to `capacity`.
    words: u32,
    capacity: u32,
}

/// More words than the arena may ever have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Full {
    /// Words in use if there were room.
    pub(crate) needed: u64,
}

impl Space {
    /// An arena of `words` that may grow to `capacity`, with these tables in it. Tables may
    /// lie on each other (one that several routes share).
    pub(crate) fn new(words: u32, capacity: u32, used: impl Iterator<Item = Table>) -> Self {
        let mut used: Vec<(u32, u32)> =
            used.filter(|t| t.slots > 0).map(|t| (t.offset, t.words())).collect();
        used.sort_unstable();
        let mut space = Self { free: BTreeMap::new(), words, capacity };
        let mut end = 0;
        for (offset, length) in used {
            if offset > end {
                space.free.insert(end, offset - end);
            }
            end = end.max(offset.saturating_add(length));
        }
        if words > end {
            space.free.insert(end, words - end);
        }
        space
    }

    /// Words that exist.
    pub(crate) fn words(&self) -> u32 {
        self.words
    }

    /// Takes `length` words: the first free extent that fits, else the end of the arena, which
    /// grows in steps of `step` then.
    pub(crate) fn take(&mut self, length: u32, step: u32) -> Result<u32, Full> {
        let fits = self.free.iter().find(|(_, free)| **free >= length).map(|(at, n)| (*at, *n));
        if let Some((at, free)) = fits {
            self.free.remove(&at);
            if free > length {
                self.free.insert(at + length, free - length);
            }
            return Ok(at);
        }
        // The free words at the end count.
        let tail = self.free.last_key_value().filter(|(at, n)| **at + **n == self.words);
        let at = tail.map_or(self.words, |(at, _)| *at);
        let end = u64::from(at) + u64::from(length);
        if end > u64::from(self.capacity) {
            let free: u64 = self.free.values().map(|n| u64::from(*n)).sum();
            return Err(Full { needed: u64::from(self.words) - free + u64::from(length) });
        }
        let grown = end.next_multiple_of(u64::from(step)).min(u64::from(self.capacity)) as u32;
        self.free.remove(&at);
        self.words = grown;
        let end = end as u32;
        if grown > end {
            self.free.insert(end, grown - end);
        }
        Ok(at)
    }

    /// Gives words back.
    pub(crate) fn give(&mut self, table: &Table) {
        if table.slots == 0 {
            return;
        }
        let (mut at, mut length) = (table.offset, table.words());
        if let Some((before, n)) = self.free.range(..at).next_back().map(|(a, n)| (*a, *n))
            && before + n == at
        {
            self.free.remove(&before);
            (at, length) = (before, length + n);
        }
        if let Some(n) = self.free.remove(&(at + length)) {
            length += n;
        }
        self.free.insert(at, length);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn table(offset: u32, words: u32) -> Table {
        // One backend and one target; the rest are slots.
        Table { offset, slots: (words - 2) * 4, targets: 1, backends: 1 }
    }

    #[test]
    fn gaps_are_filled_before_the_arena_grows() {
        let used = [table(0, 10), table(20, 10)];
        let mut space = Space::new(100, 200, used.into_iter());
        assert_eq!(space.take(10, 100), Ok(10));
        assert_eq!(space.take(70, 100), Ok(30));
        assert_eq!(space.take(50, 100), Ok(100));
        assert_eq!(space.words(), 200);
        assert_eq!(space.take(51, 100), Err(Full { needed: 150 + 51 }));
        space.give(&table(10, 10));
        space.give(&table(0, 10));
        assert_eq!(space.take(20, 100), Ok(0));
    }

    #[test]
    fn free_words_at_the_end_count_when_it_grows() {
        let mut space = Space::new(100, 300, [table(0, 60)].into_iter());
        assert_eq!(space.take(80, 100), Ok(60));
        assert_eq!(space.words(), 200);
        assert_eq!(space.take(60, 100), Ok(140));
    }

    proptest! {
        #[test]
        fn tables_never_overlap_and_all_space_comes_back(
            steps in prop::collection::vec((3u32..40, any::<prop::sample::Index>(), any::<bool>()), 1..200)
        ) {
            let mut space = Space::new(0, 4096, std::iter::empty());
            let mut live: Vec<Table> = Vec::new();
            for (words, which, give) in steps {
                if give && !live.is_empty() {
                    let gone = live.swap_remove(which.index(live.len()));
                    space.give(&gone);
                } else if let Ok(offset) = space.take(words, 64) {
                    let new = table(offset, words);
                    prop_assert!(offset + words <= space.words());
                    for old in &live {
                        prop_assert!(
                            offset + words <= old.offset || old.offset + old.words() <= offset
                        );
                    }
                    live.push(new);
                }
            }
            let rebuilt = Space::new(space.words(), 4096, live.iter().copied());
            prop_assert_eq!(&rebuilt, &space);
        }
    }
}
