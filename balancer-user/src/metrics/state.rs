//! What the agent says of itself, beside what the maps say.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use prometheus::{Histogram, HistogramOpts};

use super::families::{self, Family};

/// How the agent and its set are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AgentState {
    /// Why `/readyz` says no; `None`: a set is live and the programs are attached.
    pub not_ready: Option<String>,
    /// Since when the policy files cannot be read or have an error; `None`: they are the live
    /// set.
    pub invalid_since: Option<SystemTime>,
    /// When the files last became the live set or were found to be it.
    pub last_success: Option<SystemTime>,
    /// Errors in the files as they were last read.
    pub errors: usize,
    /// Warnings.
    pub warnings: usize,
    /// Paths of the key `policies` that are watched.
    pub watched: usize,
    /// Those that are missing or cannot be read.
    pub unreadable: usize,
    /// Host names that have addresses.
    pub resolved: usize,
    /// Host names that have none.
    pub unresolved: usize,
    /// Programs that should be on interfaces.
    pub links_wanted: usize,
    /// Programs that are.
    pub links_attached: usize,
}

impl Default for AgentState {
    fn default() -> Self {
        Self {
            not_ready: Some("the agent is starting".into()),
            invalid_since: None,
            last_success: None,
            errors: 0,
            warnings: 0,
            watched: 0,
            unreadable: 0,
            resolved: 0,
            unresolved: 0,
            links_wanted: 0,
            links_attached: 0,
        }
    }
}

/// How a publish ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Packets see another set.
    Changed {
        /// From the agent's reading of the change to the flip.
        change: Duration,
        /// From the beginning of the publish to the flip.
        flip: Duration,
        /// From the flip until no packet can see the set before.
        grace: Duration,
    },
    /// The maps held it already.
    Unchanged,
    /// The set before stays live.
    Failed,
}

/// Publishes so far.
#[derive(Debug)]
pub(crate) struct Publishes {
    pub(crate) changed: u64,
    pub(crate) unchanged: u64,
    pub(crate) failed: u64,
    pub(crate) change: Histogram,
    pub(crate) flip: Histogram,
    pub(crate) grace: Histogram,
}

impl Publishes {
    pub(crate) fn none() -> Result<Self, prometheus::Error> {
        Ok(Self {
            changed: 0,
            unchanged: 0,
            failed: 0,
            change: histogram(&families::CHANGE)?,
            flip: histogram(&families::FLIP)?,
            grace: histogram(&families::GRACE)?,
        })
    }

    pub(crate) fn add(&mut self, outcome: Outcome) {
        match outcome {
            Outcome::Changed { change, flip, grace } => {
                self.changed += 1;
                self.change.observe(change.as_secs_f64());
                self.flip.observe(flip.as_secs_f64());
                self.grace.observe(grace.as_secs_f64());
            }
            Outcome::Unchanged => self.unchanged += 1,
            Outcome::Failed => self.failed += 1,
        }
    }
}

/// Buckets from half a millisecond to 10 s: a flip should take less than 10 ms, a change less
/// than 100 ms.
const BUCKETS: [f64; 14] =
    [0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0];

fn histogram(family: &Family) -> Result<Histogram, prometheus::Error> {
    Histogram::with_opts(HistogramOpts::new(family.name, family.help).buckets(BUCKETS.to_vec()))
}

/// Seconds since 1970; 0 for never.
pub(crate) fn seconds(time: Option<SystemTime>) -> f64 {
    time.and_then(|time| time.duration_since(UNIX_EPOCH).ok())
        .map_or(0.0, |since| since.as_secs_f64())
}
