//! What the agent shows to Prometheus: what the maps count, by names, and how the agent is.
//!
//! ```text
//! agent ──> Exporter::live, published, update ──┐
//! maps ───> View (own descriptors) ─────────────┴──> page ──> serve: /metrics
//! ```
//!
//! Belongs here: the families, whom a counter counts for over all sets ([`ledger`]), the text
//! and the server of it. Reads maps and never writes them; decides nothing. The docs of the
//! families are generated from [`families`].
#![forbid(unsafe_code)]

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Instant, SystemTime},
};

use crate::{
    compile::Tables,
    kernel::{KernelError, View},
    policy::PolicySet,
    resolve::Resolved,
};

pub mod families;
mod ledger;
mod names;
mod page;
mod serve;
mod state;

pub use ledger::{BACKENDS_MAX, RETIRED_FOR};
pub use serve::serve;
pub use state::{AgentState, Outcome};

use ledger::Ledger;
use page::{Maps, Shown};
use state::Publishes;

/// The live set, for its names.
#[derive(Clone, Debug)]
pub struct Live {
    /// Its number.
    pub epoch: u64,
    /// What it was made of.
    pub set: Arc<PolicySet>,
    /// Its routes.
    pub resolved: Arc<Resolved>,
    /// Its ids.
    pub tables: Arc<Tables>,
}

/// Why there is no page.
#[derive(Debug, thiserror::Error)]
pub enum MetricsError {
    /// The maps cannot be read.
    #[error(transparent)]
    Kernel(#[from] KernelError),
    /// The page cannot be written.
    #[error("cannot write metrics")]
    Text(#[from] prometheus::Error),
}

/// Where the agent says what happened, and where pages come from. Clones are one.
#[derive(Clone, Debug)]
pub struct Exporter(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    limit: usize,
    started: SystemTime,
    /// Sets that became live and are not in the ledger yet.
    queue: Mutex<VecDeque<Live>>,
    woken: tokio::sync::Notify,
    counted: Mutex<Counted>,
    agent: Mutex<AgentState>,
    publishes: Mutex<Publishes>,
}

#[derive(Debug)]
struct Counted {
    /// `None`: nothing is loaded yet.
    view: Option<View>,
    ledger: Ledger,
    /// The set whose counters the ledger knows; `None`: of none yet.
    epoch: Option<u64>,
}

impl Exporter {
    /// Pages that speak of the agent only, until there are [maps](Self::maps). At most `limit`
    /// ([`BACKENDS_MAX`]) backends of routes have series of their own.
    ///
    /// # Errors
    /// The families contradict the rules of the text format.
    pub fn new(limit: usize) -> Result<Self, MetricsError> {
        let counted = Counted { view: None, ledger: Ledger::new(limit), epoch: None };
        Ok(Self(Arc::new(Inner {
            limit,
            started: SystemTime::now(),
            queue: Mutex::default(),
            woken: tokio::sync::Notify::new(),
            counted: Mutex::new(counted),
            agent: Mutex::default(),
            publishes: Mutex::new(Publishes::none()?),
        })))
    }

    /// Where to read from, opened by whoever still has the privileges for it: when the agent has
    /// opened the datapath or made it (again).
    pub fn maps(&self, view: View) {
        lock(&self.0.counted).view = Some(view);
    }

    /// A set is live: after each publish that flipped or found that the maps hold it already
    /// (names may differ), and for the set that the agent adopts when it starts. Returns at
    /// once.
    pub fn live(&self, live: Live) {
        lock(&self.0.queue).push_back(live);
        self.0.woken.notify_one();
    }

    /// A publish ended.
    pub fn published(&self, outcome: Outcome) {
        lock(&self.0.publishes).add(outcome);
    }

    /// Changes what the agent says of itself.
    pub fn update(&self, change: impl FnOnce(&mut AgentState)) {
        change(&mut lock(&self.0.agent));
    }

    /// What the agent says of itself.
    pub fn agent(&self) -> AgentState {
        lock(&self.0.agent).clone()
    }

    /// Brings the ledger up to the live set. Blocks for some milliseconds; [`serve()`] calls it.
    ///
    /// # Errors
    /// A system call on a map failed.
    pub fn catch_up(&self) -> Result<(), KernelError> {
        let mut counted = lock(&self.0.counted);
        loop {
            let Some(live) = lock(&self.0.queue).pop_front() else { return Ok(()) };
            let runs = names::runs(&live.set, &live.resolved, &live.tables);
            counted.ledger.live(runs, Instant::now());
            counted.epoch = Some(live.epoch);
            // What a counter said last must be known before it may be zeroed, which the next
            // publish could do.
            counted.read()?;
        }
    }

    /// The page, in text format 0.0.4. Reads the maps, so it blocks for some milliseconds.
    ///
    /// # Errors
    /// See [`MetricsError`].
    pub fn page(&self) -> Result<String, MetricsError> {
        self.catch_up()?;
        let mut counted = lock(&self.0.counted);
        let maps = counted.maps()?;
        let agent = self.agent();
        let publishes = lock(&self.0.publishes);
        let shown = Shown {
            ledger: &counted.ledger,
            limit: self.0.limit,
            maps: maps.as_ref(),
            agent: &agent,
            publishes: &publishes,
            started: self.0.started,
        };
        Ok(page::text(&shown)?)
    }
}

impl Counted {
    /// Reads the counters, unless a set is live that the ledger does not know: the agent is
    /// about to tell of it, and totals that are a moment old are better than wrong ones.
    fn read(&mut self) -> Result<(), KernelError> {
        let Some(view) = &self.view else { return Ok(()) };
        let epoch = view.epoch();
        if self.epoch != Some(epoch) {
            return Ok(());
        }
        let values = view.counters_below(self.ledger.end())?;
        if view.epoch() == epoch {
            self.ledger.read(&values, Instant::now());
        }
        Ok(())
    }

    /// Reads everything else too.
    fn maps(&mut self) -> Result<Option<Maps>, KernelError> {
        let begun = Instant::now();
        self.read()?;
        let Some(view) = &self.view else { return Ok(None) };
        Ok(Some(Maps {
            epoch: view.epoch(),
            reasons: view.reasons()?,
            fill: view.fill_of_set()?,
            tables: view.table_sizes()?,
            established: view.active(),
            took: begun.elapsed(),
        }))
    }
}

/// A panic elsewhere leaves plain numbers behind, which are still the best there are.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
