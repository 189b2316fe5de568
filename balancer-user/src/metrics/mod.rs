//! What the agent shows to Prometheus: what the maps count, by names, and how the agent is.
//!
//! ```text
//! agent ──> Exporter::live, published, health ──┐
//! maps ───> View ───────────────────────────────┴──> page ──> serve: /metrics
//! ```
//!
//! Belongs here: the families, whom a counter counts for over all sets ([`ledger`]), the text
//! and the server of it. Reads maps and never writes them; decides nothing. The docs of the
//! families are generated from [`families`].
#![forbid(unsafe_code)]

use std::{
    num::NonZeroU32,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Instant, SystemTime, UNIX_EPOCH},
};

use crate::{
    compile::Tables,
    kernel::{KernelError, View},
    policy::PolicySet,
    resolve::Resolved,
};

mod carried;
pub mod families;
mod ledger;
mod names;
mod page;
mod serve;
mod state;

pub use carried::CARRIED_FILE;
pub use ledger::{BACKENDS_MAX, RETIRED_FOR};
pub use serve::serve;
pub use state::{Health, Outcome, Proxied};

use ledger::{Change, Ledger, Roll};
use page::{Maps, Shown};
use state::Publishes;

/// Why there is no page.
#[derive(Debug, thiserror::Error)]
pub enum MetricsError {
    /// The maps cannot be read.
    #[error(transparent)]
    Kernel(#[from] KernelError),
    /// The page cannot be written.
    #[error("cannot write metrics")]
    Text(#[from] prometheus::Error),
    /// Counts of earlier sets cannot be written.
    #[error("cannot write what was counted")]
    Carried(#[from] serde_json::Error),
}

/// Where the agent says what happened, and where pages come from. Clones are one.
#[derive(Clone)]
pub struct Exporter(Arc<Inner>);

struct Inner {
    limit: usize,
    /// Seconds since 1970.
    started: f64,
    health: Box<dyn Fn() -> Health + Send + Sync>,
    told: Mutex<Told>,
    woken: tokio::sync::Notify,
    counted: Mutex<Counted>,
    publishes: Mutex<Publishes>,
}

/// What the publisher says: never locked for long, so that a page makes no publish wait.
#[derive(Default)]
struct Told {
    /// `None`: nothing is loaded yet.
    view: Option<Arc<View>>,
    roll: Roll,
    /// Sets that became live and are not in the ledger yet: epoch and what is another's.
    changes: Vec<(u64, Change)>,
}

struct Counted {
    ledger: Ledger,
    /// The set whose counters the ledger knows; `None`: of none yet.
    epoch: Option<u64>,
    /// What was last asked for by [`Exporter::carried`].
    carried: Vec<u8>,
}

impl Exporter {
    /// Pages that speak of `health` only, until there are [maps](Self::maps). At most `limit`
    /// ([`BACKENDS_MAX`]) backends of routes have series of their own. `health` is asked for
    /// each page and must answer at once.
    ///
    /// # Errors
    /// The families contradict the rules of the text format.
    pub fn new(
        limit: usize,
        health: impl Fn() -> Health + Send + Sync + 'static,
    ) -> Result<Self, MetricsError> {
        let started = SystemTime::now().duration_since(UNIX_EPOCH);
        Ok(Self(Arc::new(Inner {
            limit,
            started: started.map_or(0.0, |since| since.as_secs_f64()),
            health: Box::new(health),
            told: Mutex::default(),
            woken: tokio::sync::Notify::new(),
            counted: Mutex::new(Counted {
                ledger: Ledger::new(limit),
                epoch: None,
                carried: Vec::new(),
            }),
            publishes: Mutex::new(Publishes::none()?),
        })))
    }

    /// Where to read from: when the agent has opened the datapath, or made it (again).
    pub fn maps(&self, view: Arc<View>) {
        lock(&self.0.told).view = Some(view);
    }

    /// Takes over what an earlier agent left of these [maps](Self::maps), before the first set.
    ///
    /// # Errors
    /// The bytes are not those of [`CARRIED_FILE`].
    pub fn restore(&self, bytes: &[u8]) -> serde_json::Result<()> {
        let Some(view) = self.view() else { return Ok(()) };
        carried::read(bytes, view.made_at_ns(), &mut lock(&self.0.counted).ledger)
    }

    /// What the next agent needs for totals that go on, for [`CARRIED_FILE`]; `None` where that
    /// is what it was. While a page is being made it waits, or gives `None` without `wait`.
    ///
    /// # Errors
    /// The maps cannot be read.
    pub fn carried(&self, wait: bool) -> Result<Option<Vec<u8>>, MetricsError> {
        let mut counted = match self.0.counted.try_lock() {
            Ok(counted) => counted,
            Err(_) if wait => lock(&self.0.counted),
            Err(_) => return Ok(None),
        };
        self.take_in(&mut counted)?;
        let Some(view) = self.view() else { return Ok(None) };
        let bytes = carried::write(&counted.ledger, view.made_at_ns())?;
        if bytes == counted.carried {
            return Ok(None);
        }
        counted.carried.clone_from(&bytes);
        Ok(Some(bytes))
    }

    /// A set is live: after each publish, also one that found that the maps hold it already
    /// (names may differ) or that failed after its flip. Of 10,000 routes this takes a few
    /// milliseconds.
    pub fn live(&self, epoch: u64, set: &PolicySet, resolved: &Resolved, tables: &Tables) {
        let mut told = lock(&self.0.told);
        let change = told.roll.call(names::runs(set, resolved, tables));
        told.changes.push((epoch, change));
        drop(told);
        self.0.woken.notify_one();
    }

    /// A publish ended.
    pub fn published(&self, outcome: Outcome) {
        lock(&self.0.publishes).add(outcome);
    }

    fn health(&self) -> Health {
        (self.0.health)()
    }

    fn view(&self) -> Option<Arc<View>> {
        lock(&self.0.told).view.clone()
    }

    /// Brings the ledger up to the live set. Blocks for some milliseconds; [`serve()`] calls it.
    ///
    /// # Errors
    /// A system call on a map failed.
    pub fn catch_up(&self) -> Result<(), KernelError> {
        self.caught_up().map(|_| ())
    }

    fn caught_up(&self) -> Result<MutexGuard<'_, Counted>, KernelError> {
        let mut counted = lock(&self.0.counted);
        self.take_in(&mut counted)?;
        Ok(counted)
    }

    fn take_in(&self, counted: &mut Counted) -> Result<(), KernelError> {
        let changes = std::mem::take(&mut lock(&self.0.told).changes);
        for (epoch, change) in changes {
            counted.ledger.apply(change, Instant::now());
            counted.epoch = Some(epoch);
        }
        // What a counter said last must be known before it may be zeroed, which the next
        // publish could do.
        if let Some(view) = self.view() {
            counted.read(&view)?;
        }
        Ok(())
    }

    /// The page, in text format 0.0.4. Reads the maps, so it blocks for some milliseconds.
    ///
    /// # Errors
    /// See [`MetricsError`].
    pub fn page(&self) -> Result<String, MetricsError> {
        let begun = Instant::now();
        let counted = self.caught_up()?;
        let maps = match self.view() {
            Some(view) => Some(Maps {
                epoch: view.epoch(),
                reasons: view.reasons()?,
                fill: view.fill_of_set()?,
                new_flows_limit: view.new_flows().map_or(0, NonZeroU32::get),
                tables: view.table_sizes()?,
                established: view.active(),
                took: begun.elapsed(),
            }),
            None => None,
        };
        let health = self.health();
        let publishes = lock(&self.0.publishes).clone();
        let shown = Shown {
            ledger: &counted.ledger,
            limit: self.0.limit,
            maps: maps.as_ref(),
            health: &health,
            publishes: &publishes,
            started: self.0.started,
        };
        Ok(page::text(&shown)?)
    }
}

impl Counted {
    /// Reads the counters, unless a set is live that the ledger does not know: the agent is
    /// about to tell of it, and totals that are a moment old are better than wrong ones.
    fn read(&mut self, view: &View) -> Result<(), KernelError> {
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
}

/// A panic elsewhere leaves plain numbers behind, which are still the best there are.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
