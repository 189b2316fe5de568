//! What a proxy counts: what it refused and why, and what it has at the moment.
//!
//! Each shard has cells of its own, written by its thread alone, so that counting costs no
//! shard anything of another's. They are summed when somebody reads.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering::Relaxed},
};

macro_rules! causes {
    ($($(#[doc = $doc:literal])* $cause:ident = $name:literal,)*) => {
        /// Why the proxy, and no backend, answered a request with an error, or ended a connection.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum Cause {
            $($(#[doc = $doc])* $cause,)*
        }

        impl Cause {
            /// Every one.
            pub const ALL: &[Self] = &[$(Self::$cause,)*];

            /// What metrics and docs call it.
            pub fn name(self) -> &'static str {
                match self {
                    $(Self::$cause => $name,)*
                }
            }
        }
    };
}

causes! {
    /// All of `connections` were there: the next one waits in the kernel's queue. Counted once for
    /// each time that accepting stops.
    Connections = "connections",
    /// The client has `connections_of_one` already: closed at once.
    ConnectionsOfOne = "connections_of_one",
    /// A head beyond `head_bytes` or `head_fields`: 431, or 414 for a target beyond 64 KiB.
    HeadSize = "head_size",
    /// A head that took longer than `head_within`: the connection is closed.
    HeadWithin = "head_within",
    /// A connection without a request for `idle`.
    Idle = "idle",
    /// A request of which not a byte moved for `stalled`: its connection is closed, or its stream
    /// reset.
    Stalled = "stalled",
    /// What is no HTTP, or contradicts itself: 400.
    Malformed = "malformed",
    /// CONNECT, TRACE that is to end here, or a transfer coding beside `chunked`: 501.
    NotImplemented = "not_implemented",
    /// No VIP has this address: 421.
    Misdirected = "misdirected",
    /// More resets, continued heads or empty frames than any client sends: GOAWAY with
    /// ENHANCE_YOUR_CALM.
    Flood = "flood",
    /// Frames that HTTP/2 forbids: GOAWAY with another error.
    Frames = "frames",
    /// The backend cannot be reached: 503.
    Unreachable = "unreachable",
    /// The backend broke off before it answered: 502.
    Broken = "broken",
    /// The backend did not answer in time: 504.
    TooLate = "too_late",
}

/// Cells of one shard.
#[derive(Debug, Default)]
pub(super) struct Counts {
    refused: [AtomicU64; Cause::ALL.len()],
    connections: AtomicU64,
    requests: AtomicU64,
    reals_used: AtomicU64,
    reals_idle: AtomicU64,
}

impl Counts {
    /// One more; by the shard's thread.
    pub(super) fn add(&self, cause: Cause) {
        if let Some(cell) = self.refused.get(cause as usize) {
            cell.store(cell.load(Relaxed) + 1, Relaxed);
        }
    }

    /// What the shard has right now; by its thread.
    pub(super) fn has(&self, connections: u64, requests: u64, reals: (u64, u64)) {
        self.connections.store(connections, Relaxed);
        self.requests.store(requests, Relaxed);
        self.reals_used.store(reals.0, Relaxed);
        self.reals_idle.store(reals.1, Relaxed);
    }
}

/// Where to read what a proxy counts. Clones are one; it may outlive the proxy.
#[derive(Clone, Debug, Default)]
pub struct Counters(pub(super) Arc<[Arc<Counts>]>);

/// What was counted, over all shards.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Counted {
    /// Since the proxy began, of each cause in the order of [`Cause::ALL`].
    pub refused: Vec<(Cause, u64)>,
    /// Connections of clients, those that changed their protocol included. This and what follows
    /// is as of the last tick of the shard's clock, up to 100 ms ago.
    pub connections: u64,
    /// Requests under way, copies for mirrors not among them.
    pub requests: u64,
    /// Connections to reals that carry a request.
    pub reals_used: u64,
    /// Connections to reals that are kept for the next one.
    pub reals_idle: u64,
}

impl Counted {
    /// How often that was the cause.
    pub fn of(&self, cause: Cause) -> u64 {
        self.refused.iter().filter(|(known, _)| *known == cause).map(|(_, number)| number).sum()
    }
}

impl Counters {
    /// Sums what the shards have counted.
    pub fn read(&self) -> Counted {
        let sum = |cell: fn(&Counts) -> &AtomicU64| {
            self.0.iter().map(|counts| cell(counts).load(Relaxed)).sum()
        };
        let refused = |cause: &Cause| {
            let of = self.0.iter().filter_map(|counts| counts.refused.get(*cause as usize));
            (*cause, of.map(|cell| cell.load(Relaxed)).sum())
        };
        Counted {
            refused: Cause::ALL.iter().map(refused).collect(),
            connections: sum(|counts| &counts.connections),
            requests: sum(|counts| &counts.requests),
            reals_used: sum(|counts| &counts.reals_used),
            reals_idle: sum(|counts| &counts.reals_idle),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_of_all_shards_are_summed_by_cause() {
        let shards: [Arc<Counts>; 2] = Default::default();
        for shard in &shards {
            shard.add(Cause::Idle);
            shard.has(1, 2, (3, 4));
        }
        shards[0].add(Cause::TooLate);
        let counted = Counters(Arc::from(shards)).read();
        let some: Vec<_> = counted.refused.iter().filter(|(_, count)| *count > 0).collect();
        assert_eq!(some, [&(Cause::Idle, 2), &(Cause::TooLate, 1)]);
        let Counted { connections, requests, reals_used, reals_idle, .. } = counted;
        assert_eq!((connections, requests, reals_used, reals_idle), (2, 4, 6, 8));
    }

    #[test]
    fn every_cause_has_its_row_in_the_docs() {
        let docs = include_str!("../../../docs/security.md");
        for cause in Cause::ALL {
            let row = format!("| `{}` |", cause.name());
            assert!(docs.lines().any(|line| line.starts_with(&row)), "{row} is missing");
        }
    }
}
