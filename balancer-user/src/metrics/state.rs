//! What the agent says of itself, beside what the maps say.

use std::time::Duration;

use prometheus::{Histogram, HistogramOpts};

use super::families::{self, Family};

/// How the agent and its set are. Times are seconds since 1970.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Health {
    /// Why `/readyz` says no; `None`: a set is live.
    pub not_ready: Option<String>,
    /// Since when the policy files cannot be read or have an error; `None`: they are the live
    /// set.
    pub invalid_since: Option<f64>,
    /// What is wrong with them, in number.
    pub problems: usize,
    /// When this agent last published.
    pub last_publish: Option<f64>,
    /// Sets that were not carried out because something was wrong with them.
    pub refused: u64,
    /// Paths of the key `policies` that are watched.
    pub watched: usize,
    /// Those that are missing or cannot be read.
    pub unreadable: usize,
    /// Host names that have addresses.
    pub resolved: usize,
    /// Host names that have none, or no new ones.
    pub unresolved: usize,
    /// Programs that should be on interfaces.
    pub links_wanted: usize,
    /// Programs that are.
    pub links_attached: usize,
    /// Keys of the configuration whose change waits for a restart.
    pub restart_needed: usize,
    /// Of the HTTP proxy; `None`: there is none.
    pub proxy: Option<Proxied>,
}

/// What the HTTP proxy counts.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Proxied {
    /// What it refused since it began, by cause.
    pub refused: Vec<(&'static str, u64)>,
    /// Connections of clients.
    pub connections: u64,
    /// Requests under way.
    pub requests: u64,
    /// Connections to reals that carry a request.
    pub reals_used: u64,
    /// Connections to reals that are kept for the next one.
    pub reals_idle: u64,
}

/// How a publish ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Packets see another set.
    Changed {
        /// From when the agent noticed the change to the flip; `None`: nothing had changed when
        /// it began.
        change: Option<Duration>,
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
#[derive(Clone, Debug)]
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
                if let Some(change) = change {
                    self.change.observe(change.as_secs_f64());
                }
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
