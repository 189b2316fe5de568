//! Documents read ahead of their turn, on all processors: that is most of what a large set costs,
//! and what a document holds depends on nothing but itself.

use std::{
    collections::VecDeque,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
};

use super::{
    ReadOptions,
    found::{Found, found},
    yaml,
};

/// Bytes of text below which other threads are not worth their start.
const WORTH: usize = 256 << 10;
/// Bytes of text that are read before any of it is asked for: what they hold takes memory.
const BATCH: usize = 16 << 20;
/// Documents that a thread takes at a time.
const PORTION: usize = 64;

/// A document that is to be read.
pub(super) struct Turn {
    pub(super) text: Arc<str>,
    /// Where the document begins and ends, in bytes.
    pub(super) begin: u32,
    pub(super) end: u32,
    /// Its number.
    pub(super) document: u32,
}

impl Turn {
    /// What the document holds; `None`: there is none.
    fn read(&self, options: &ReadOptions) -> Option<Vec<Found>> {
        let chunk = self.text.get(self.begin as usize..self.end as usize)?;
        read(chunk, self.document, options)
    }

    fn len(&self) -> usize {
        (self.end - self.begin) as usize
    }
}

/// What the document in `chunk`, of this number, holds; `None`: there is none.
pub(super) fn read(chunk: &str, document: u32, options: &ReadOptions) -> Option<Vec<Found>> {
    yaml::document(chunk, 1, document).map(|content| found(content, document, options))
}

/// Documents in the order in which they will be asked for.
#[derive(Default)]
pub(super) struct Ahead {
    turns: VecDeque<Turn>,
    ready: VecDeque<Option<Vec<Found>>>,
}

impl Ahead {
    /// `turns`: in the order in which they will be asked for.
    pub(super) fn new(turns: VecDeque<Turn>) -> Self {
        let bytes: usize = turns.iter().map(Turn::len).sum();
        if bytes < WORTH { Self::default() } else { Self { turns, ready: VecDeque::new() } }
    }

    /// What the next document holds. `None`: nothing is read ahead.
    pub(super) fn take(&mut self, options: &ReadOptions) -> Option<Option<Vec<Found>>> {
        if self.ready.is_empty() && !self.turns.is_empty() {
            self.fill(options);
        }
        self.ready.pop_front()
    }

    fn fill(&mut self, options: &ReadOptions) {
        let mut bytes = 0;
        let within = |turn: &&Turn| {
            bytes += turn.len();
            bytes <= BATCH
        };
        // At least one, however long it is.
        let count = self.turns.iter().take_while(within).count().max(1).min(self.turns.len());
        let batch: Vec<Turn> = self.turns.drain(..count).collect();
        let threads = thread::available_parallelism().map_or(1, usize::from);
        let next = AtomicUsize::new(0);
        let work = || {
            let mut done = Vec::new();
            loop {
                let begin = next.fetch_add(PORTION, Ordering::Relaxed);
                let Some(portion) = batch.get(begin..) else { return done };
                if portion.is_empty() {
                    return done;
                }
                let found = portion.iter().take(PORTION).map(|turn| turn.read(options));
                done.push((begin, found.collect::<Vec<_>>()));
            }
        };
        let mut portions = thread::scope(|scope| {
            let others: Vec<_> = (1..threads).map(|_| scope.spawn(work)).collect();
            let mut portions = work();
            for other in others {
                match other.join() {
                    Ok(done) => portions.extend(done),
                    Err(panic) => std::panic::resume_unwind(panic),
                }
            }
            portions
        });
        portions.sort_unstable_by_key(|(begin, _)| *begin);
        self.ready.extend(portions.into_iter().flat_map(|(_, found)| found));
    }
}

#[cfg(test)]
mod tests {
    use std::fmt::Write as _;

    use super::*;

    /// Documents of about 500 bytes, each with its number in it, one of ten broken.
    fn text(documents: usize) -> String {
        let mut text = String::new();
        for number in 0..documents {
            let port = if number % 10 == 0 { "none".to_owned() } else { number.to_string() };
            let _ = write!(
                text,
                "---\ntype: Dataplane\nmesh: default\nname: d{number}\nnetworking:\n  \
                 address: 10.0.0.1\n  inbound:\n  - port: {port}\n    tags: \
                 {{kuma.io/service: web}}\n# {}\n",
                "x".repeat(350),
            );
        }
        text
    }

    fn turns(text: &Arc<str>) -> Vec<Turn> {
        let begin = |at: usize| u32::try_from(at).expect("a short text");
        let begins: Vec<u32> = text.match_indices("---\n").map(|(at, _)| begin(at)).collect();
        let ends = begins.iter().skip(1).copied().chain([begin(text.len())]);
        let pairs = begins.iter().zip(ends).zip(0..);
        pairs
            .map(|((&begin, end), document)| Turn { text: Arc::clone(text), begin, end, document })
            .collect()
    }

    #[test]
    fn what_is_read_ahead_is_what_is_read_in_turn() {
        let options = ReadOptions::default();
        let texts: Vec<Arc<str>> = vec![text(1000).into(), text(2).into(), text(700).into()];
        let all = || texts.iter().flat_map(turns);
        let mut ahead = Ahead::new(all().collect());
        for turn in all() {
            let expected = turn.read(&options);
            assert!(expected.as_ref().is_some_and(|found| found.len() == 1));
            assert_eq!(ahead.take(&options), Some(expected), "byte {}", turn.begin);
        }
        assert_eq!(ahead.take(&options), None);
    }

    #[test]
    fn little_is_read_in_turn() {
        let mut ahead = Ahead::new(turns(&text(100).into()).into());
        assert_eq!(ahead.take(&ReadOptions::default()), None);
    }
}
