//! Which backend takes a request: weights, and what is left of a choice where a backend cannot
//! take any (semantics 3.7, 5.4; decisions D10, D11).

use super::filter::Filter;

/// A backend as whoever builds rules numbers it. The rules know nothing of what it stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BackendId(pub u32);

/// What a reference leads to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Destination {
    /// A service with its endpoints.
    Backend(BackendId),
    /// Nothing that a request could be sent to: an object that is not there or not allowed, or
    /// no HTTP. Its share is answered with 500.
    Invalid,
}

/// Whether what a reference leads to can take a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Readiness {
    /// It has an endpoint that can.
    Ready,
    /// It is there, without an endpoint that can: answered with 503.
    Empty,
    /// There is no such thing: as [`Destination::Invalid`].
    Invalid,
}

/// A weighted reference.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Backend {
    /// Where it leads.
    pub destination: Destination,
    /// Relative; 0 takes nothing.
    pub weight: u32,
    /// Carried out after those of the rule, for requests that it takes.
    pub filters: Vec<Filter>,
    /// The backend expects its own name as host, unless the rule sets one (semantics 2.5).
    pub own_host: bool,
}

impl Backend {
    /// A reference without filters.
    pub fn new(destination: Destination, weight: u32) -> Self {
        Self { destination, weight, filters: Vec::new(), own_host: false }
    }
}

/// What decides between backends. The rules draw no number themselves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Choice {
    /// A number, each of `u64` as likely: at random, or a hash.
    Number(u64),
    /// The how-manieth request it is: every backend gets exactly its share of as many requests in
    /// a row as the sum of weights.
    Turn(u64),
}

/// Backends and their shares.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Split {
    backends: Vec<Backend>,
    /// Sums of weights up to and with each backend; of u32s, so that no list overflows them.
    ends: Vec<u64>,
    /// Distance of neighbouring turns. Without a divisor in common with the sum, so that a
    /// round of turns comes to each point once.
    step: u64,
}

impl Split {
    /// Backends with their weights, in written order.
    pub fn new(backends: Vec<Backend>) -> Self {
        let mut sum = 0;
        let ends: Vec<u64> = backends
            .iter()
            .map(|backend| {
                sum += u64::from(backend.weight);
                sum
            })
            .collect();
        // Near the golden section neighbours in turn are far apart, so that shares mix.
        let golden = (sum as f64 / 1.618_033_988_749_895) as u64;
        let step = (golden..=sum.max(golden)).find(|step| coprime(*step, sum)).unwrap_or(1);
        Self { backends, ends, step }
    }

    /// The same backends with other weights, in written order; `None`: those are more or fewer.
    #[must_use]
    pub fn weighed(&self, weights: &[u32]) -> Option<Self> {
        if weights.len() != self.backends.len() {
            return None;
        }
        let mut backends = self.backends.clone();
        for (backend, weight) in backends.iter_mut().zip(weights) {
            backend.weight = *weight;
        }
        Some(Self::new(backends))
    }

    /// All of them, in written order.
    pub fn backends(&self) -> &[Backend] {
        &self.backends
    }

    /// The backend that takes a request; `None`: there is none with a weight.
    pub fn choose(&self, choice: Choice) -> Option<&Backend> {
        let sum = u128::from(self.sum());
        if sum == 0 {
            return None;
        }
        let point = match choice {
            Choice::Number(number) => (u128::from(number) * sum) >> 64,
            Choice::Turn(turn) => u128::from(turn) % sum * u128::from(self.step) % sum,
        };
        let at = self.ends.partition_point(|end| u128::from(*end) <= point);
        self.backends.get(at)
    }

    /// A choice that falls on the backend at this place; `None`: none does, its weight is 0.
    pub fn choice(&self, at: usize) -> Option<Choice> {
        let weight = self.backends.get(at).filter(|backend| backend.weight > 0)?.weight;
        let begin = u128::from(self.ends[at] - u64::from(weight));
        // The smallest number for which `choose` comes to this point or behind it: the sum is less
        // than 2⁶⁴, so that it is not behind it.
        let number = (begin << 64).div_ceil(u128::from(self.sum()));
        u64::try_from(number).ok().map(Choice::Number)
    }

    /// The share of each, in written order: parts of 1, or 0 for all where no weight is given.
    pub fn shares(&self) -> impl Iterator<Item = f64> {
        let sum = self.sum().max(1) as f64;
        self.backends.iter().map(move |backend| f64::from(backend.weight) / sum)
    }

    /// Sum of the weights.
    pub fn sum(&self) -> u64 {
        self.ends.last().copied().unwrap_or(0)
    }
}

fn coprime(mut a: u64, mut b: u64) -> bool {
    while b != 0 {
        (a, b) = (b, a % b);
    }
    a == 1
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::http::tests::evenly;

    fn split(weights: &[u32]) -> Split {
        let ids = (0..).map(|id| Destination::Backend(BackendId(id)));
        Split::new(ids.zip(weights).map(|(to, weight)| Backend::new(to, *weight)).collect())
    }

    fn counts(split: &Split, choices: impl Iterator<Item = Choice>) -> Vec<u32> {
        let mut counts = vec![0; split.backends().len()];
        for choice in choices {
            match split.choose(choice).unwrap().destination {
                Destination::Backend(BackendId(id)) => counts[id as usize] += 1,
                Destination::Invalid => panic!("no backend is invalid"),
            }
        }
        counts
    }

    #[test]
    fn shares_follow_weights_and_zero_takes_nothing() {
        let numbers = evenly(4000).map(Choice::Number);
        assert_eq!(counts(&split(&[1, 0, 3]), numbers.clone()), [1000, 0, 3000]);
        assert_eq!(counts(&split(&[0, 7]), numbers.clone()), [0, 4000]);
        assert_eq!(split(&[1, 0, 3]).shares().collect::<Vec<_>>(), [0.25, 0.0, 0.75]);
    }

    #[test]
    fn a_split_without_weights_chooses_nothing() {
        for weights in [&[][..], &[0, 0]] {
            assert_eq!(split(weights).choose(Choice::Number(u64::MAX)), None);
            assert_eq!(split(weights).choose(Choice::Turn(3)), None);
            assert!(split(weights).shares().all(|share| share == 0.0));
        }
    }

    #[test]
    fn the_largest_weights_and_numbers_overflow_nothing() {
        let most = split(&[u32::MAX; 5]);
        assert_eq!(most.sum(), 5 * u64::from(u32::MAX));
        let last = most.choose(Choice::Number(u64::MAX)).unwrap();
        assert_eq!(last.destination, Destination::Backend(BackendId(4)));
        assert!(most.choose(Choice::Turn(u64::MAX)).is_some());
    }

    #[test]
    fn neighbours_in_turn_differ_where_weights_are_alike() {
        let two = split(&[50, 50]);
        let turns: Vec<_> =
            (0..100).map(|i| two.choose(Choice::Turn(i)).unwrap().destination).collect();
        let longest = turns.chunk_by(|a, b| a == b).map(<[Destination]>::len).max();
        assert!(longest <= Some(3), "{longest:?}");
    }

    proptest! {
        #[test]
        fn a_choice_falls_on_the_backend_that_it_is_asked_for(
            weights in prop::collection::vec(prop_oneof![0..3u32, any::<u32>()], 0..6),
        ) {
            let split = split(&weights);
            for (at, weight) in weights.iter().enumerate() {
                let choice = split.choice(at);
                prop_assert_eq!(choice.is_some(), *weight > 0);
                let taken = choice.and_then(|choice| split.choose(choice));
                prop_assert_eq!(taken, split.backends().get(at).filter(|_| *weight > 0));
            }
            prop_assert_eq!(split.choice(weights.len()), None);
        }

        #[test]
        fn a_round_of_turns_gives_each_exactly_its_weight(
            weights in prop::collection::vec(0..40u32, 1..6),
            begin in 0..1_000_000u64,
        ) {
            let split = split(&weights);
            prop_assume!(split.sum() > 0);
            let first = begin * split.sum();
            let turns = (first..first + split.sum()).map(Choice::Turn);
            prop_assert_eq!(counts(&split, turns), weights);
        }
    }
}
