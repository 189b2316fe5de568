//! Which counter counts for whom, over all the sets that were live.
//!
//! A counter of the maps belongs to one backend of one route as long as the route's list of
//! backends stays as it is; then the route gets other counters, while connections that are open
//! go on counting on the old ones. Long after that the kernel room zeroes those and gives them
//! out anew. What people watch is the backend of the route, by its names: the ledger adds up
//! what each counter gained between two readings, for whoever it belonged to then.

use std::{
    collections::BTreeMap,
    sync::Arc,
    time::{Duration, Instant},
};

use balancer_ebpf::abi::Counter;

use super::carried::Carried;
use crate::compile::CounterRun;

/// How many backends of routes have series of their own (five each).
pub const BACKENDS_MAX: usize = 10_000;

/// How long series stay after their route has gone and the last packet was counted.
pub const RETIRED_FOR: Duration = Duration::from_secs(60 * 60);

/// Whom a counter counts for: the values of the labels.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, serde::Serialize, serde::Deserialize)]
pub(crate) struct Name {
    pub(crate) mesh: Arc<str>,
    pub(crate) service: Arc<str>,
    pub(crate) vip: Arc<str>,
    pub(crate) source_class: Arc<str>,
    pub(crate) backend: String,
    pub(crate) tags: String,
}

/// The counters of a live route.
pub(crate) struct Run<N> {
    /// Route id.
    pub(crate) route: u32,
    pub(crate) run: CounterRun,
    /// Differs where any of the names does.
    pub(crate) fingerprint: u64,
    /// Names of its backends, in the order of the counters. Called where they are not known.
    pub(crate) names: N,
}

/// Series of one name.
#[derive(Debug)]
struct Series {
    total: Counter,
    /// Counters of live routes that count for it.
    live: usize,
    /// When it last gained something, or lost its last live counter.
    moved: Instant,
}

/// A counter of the maps.
#[derive(Debug)]
struct Owned {
    /// Key of `Ledger::series`; `None`: one of those counted together.
    series: Option<u32>,
    /// What it said at the last reading.
    seen: Counter,
    /// It belongs to a live route.
    live: bool,
}

/// A run as the last set had it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Known {
    route: u32,
    run: CounterRun,
    fingerprint: u64,
}

/// What of the counters is another set's: made by whoever publishes, for the ledger, which a
/// reader may hold for a while.
#[derive(Debug, Default)]
pub(crate) struct Change {
    /// Counters that no route of the set has.
    released: Vec<CounterRun>,
    /// Counters, whom they count for, and whether they go on counting for the same route.
    owned: Vec<(CounterRun, Vec<Name>, bool)>,
}

/// The counters of the live set's routes, by first id.
#[derive(Debug, Default)]
pub(crate) struct Roll(BTreeMap<u32, Known>);

impl Roll {
    /// Another set is live: these are the counters of its routes.
    pub(crate) fn call<N: FnOnce() -> Vec<Name>>(
        &mut self,
        routes: impl IntoIterator<Item = Run<N>>,
    ) -> Change {
        let mut before = std::mem::take(&mut self.0);
        let mut change = Change::default();
        for Run { route, run, fingerprint, names } in routes {
            if run.count == 0 {
                continue;
            }
            let known = Known { route, run, fingerprint };
            self.0.insert(run.first, known);
            match before.get(&run.first) {
                Some(same) if *same == known => {
                    before.remove(&run.first);
                }
                // Of the same route, under another name.
                Some(same) if (same.route, same.run) == (route, run) => {
                    change.owned.push((run, names(), true));
                }
                _ => change.owned.push((run, names(), false)),
            }
        }
        change.released = before.into_values().map(|known| known.run).collect();
        change
    }
}

#[derive(Debug)]
pub(crate) struct Ledger {
    limit: usize,
    owned: BTreeMap<u32, Owned>,
    series: BTreeMap<u32, Series>,
    by_name: BTreeMap<Name, u32>,
    next: u32,
    /// Of those counted together; `None`: there never were any.
    other: Option<Counter>,
}

impl Ledger {
    /// Nothing counted; at most `limit` names at a time.
    pub(crate) fn new(limit: usize) -> Self {
        Self {
            limit,
            owned: BTreeMap::new(),
            series: BTreeMap::new(),
            by_name: BTreeMap::new(),
            next: 0,
            other: None,
        }
    }

    /// Another set is live. Counters that are given out anew begin at zero.
    pub(crate) fn apply(&mut self, change: Change, now: Instant) {
        for id in change.released.iter().flat_map(ids) {
            self.release(id, now);
        }
        for (run, names, goes_on) in change.owned {
            for (id, name) in ids(&run).zip(names) {
                self.own(id, name, goes_on, now);
            }
        }
        self.forget(now);
    }

    /// What the counters say now, by id; those beyond the end are left as they are.
    pub(crate) fn read(&mut self, values: &[Counter], now: Instant) {
        for (&id, owned) in &mut self.owned {
            let Some(value) = values.get(id as usize) else { break };
            let gained = gained(value, &owned.seen);
            owned.seen = *value;
            if gained == Counter::default() {
                continue;
            }
            match owned.series.and_then(|series| self.series.get_mut(&series)) {
                Some(series) => {
                    add(&mut series.total, &gained);
                    series.moved = now;
                }
                None => add(self.other.get_or_insert_default(), &gained),
            }
        }
        self.forget(now);
    }

    /// What the maps alone would not tell the next agent; see [`super::carried`].
    pub(crate) fn carried(&self) -> Vec<Carried> {
        let mut of_series = BTreeMap::<u32, (Counter, Vec<_>)>::new();
        for (id, owned) in &self.owned {
            let Some(series) = owned.series else { continue };
            let (held, retired) = of_series.entry(series).or_default();
            if owned.live {
                add(held, &owned.seen);
            } else {
                retired.push((*id, fields(&owned.seen)));
            }
        }
        let row = |(name, series): (&Name, &u32)| {
            let (held, retired) = of_series.remove(series).unwrap_or_default();
            let total = fields(&self.series.get(series)?.total);
            let held = fields(&held);
            // A name that took its counter over from another has counted less than it holds.
            let counted = std::array::from_fn(|at| total[at].saturating_sub(held[at]));
            let name = name.clone();
            (counted != [0; 5] || !retired.is_empty()).then_some(Carried { name, counted, retired })
        };
        self.by_name.iter().filter_map(row).collect()
    }

    /// Begins with what an earlier agent left, before the first set.
    pub(crate) fn restore(&mut self, rows: Vec<Carried>, now: Instant) {
        for Carried { name, counted, retired } in rows {
            let Some(key) = self.series_of(name, now) else { continue };
            if let Some(series) = self.series.get_mut(&key) {
                series.total = of_fields(counted);
            }
            for (id, seen) in retired {
                let seen = of_fields(seen);
                self.owned.insert(id, Owned { series: Some(key), seen, live: false });
            }
        }
    }

    /// Each name with its total, sorted.
    pub(crate) fn totals(&self) -> impl Iterator<Item = (&Name, &Counter)> {
        self.by_name
            .iter()
            .filter_map(|(name, series)| Some((name, &self.series.get(series)?.total)))
    }

    /// The sum of those that have no name of their own.
    pub(crate) fn other(&self) -> Option<&Counter> {
        self.other.as_ref()
    }

    /// Backends of live routes that have no name of their own.
    pub(crate) fn merged(&self) -> usize {
        self.owned.values().filter(|owned| owned.live && owned.series.is_none()).count()
    }

    /// Counter ids that must be read: all below this.
    pub(crate) fn end(&self) -> u32 {
        self.owned.last_key_value().map_or(0, |(id, _)| id + 1)
    }

    fn release(&mut self, id: u32, now: Instant) {
        let Some(owned) = self.owned.get_mut(&id) else { return };
        if std::mem::take(&mut owned.live)
            && let Some(series) = owned.series.and_then(|series| self.series.get_mut(&series))
        {
            series.live = series.live.saturating_sub(1);
            series.moved = now;
        }
    }

    fn own(&mut self, id: u32, name: Name, goes_on: bool, now: Instant) {
        self.release(id, now);
        let seen = match self.owned.get(&id) {
            Some(owned) if goes_on => owned.seen,
            _ => Counter::default(),
        };
        let series = self.series_of(name, now);
        match series.and_then(|series| self.series.get_mut(&series)) {
            Some(series) => series.live += 1,
            None => drop(self.other.get_or_insert_default()),
        }
        self.owned.insert(id, Owned { series, seen, live: true });
    }

    /// The series of a name; `None` where there is no room for another one.
    fn series_of(&mut self, name: Name, now: Instant) -> Option<u32> {
        if let Some(series) = self.by_name.get(&name) {
            return Some(*series);
        }
        if self.series.len() >= self.limit {
            return None;
        }
        self.next += 1;
        self.by_name.insert(name, self.next);
        let series = Series { total: Counter::default(), live: 0, moved: now };
        self.series.insert(self.next, series);
        Some(self.next)
    }

    /// Lets series go that nothing has counted for in a long time. What a counter of theirs may
    /// still gain is counted with those that have no name.
    fn forget(&mut self, now: Instant) {
        let old = |series: &Series| {
            series.live == 0 && now.saturating_duration_since(series.moved) >= RETIRED_FOR
        };
        if !self.series.values().any(old) {
            return;
        }
        self.series.retain(|_, series| !old(series));
        let series = &self.series;
        self.by_name.retain(|_, key| series.contains_key(key));
        for owned in self.owned.values_mut() {
            owned.series = owned.series.filter(|key| series.contains_key(key));
        }
    }
}

fn ids(run: &CounterRun) -> impl Iterator<Item = u32> + use<> {
    run.first..run.first.saturating_add(run.count)
}

/// What a counter gained since it said `seen`: a counter that says less was zeroed.
fn gained(value: &Counter, seen: &Counter) -> Counter {
    let less = |field: fn(&Counter) -> u64| field(value).checked_sub(field(seen));
    let fields = (
        less(|c| c.connections),
        less(|c| c.packets_in),
        less(|c| c.bytes_in),
        less(|c| c.packets_out),
        less(|c| c.bytes_out),
    );
    let (Some(connections), Some(packets_in), Some(bytes_in), Some(packets_out), Some(bytes_out)) =
        fields
    else {
        return *value;
    };
    Counter { connections, packets_in, bytes_in, packets_out, bytes_out }
}

fn fields(counter: &Counter) -> [u64; 5] {
    let Counter { connections, packets_in, bytes_in, packets_out, bytes_out } = *counter;
    [connections, packets_in, bytes_in, packets_out, bytes_out]
}

fn of_fields(fields: [u64; 5]) -> Counter {
    let [connections, packets_in, bytes_in, packets_out, bytes_out] = fields;
    Counter { connections, packets_in, bytes_in, packets_out, bytes_out }
}

fn add(total: &mut Counter, gained: &Counter) {
    total.connections += gained.connections;
    total.packets_in += gained.packets_in;
    total.bytes_in += gained.bytes_in;
    total.packets_out += gained.packets_out;
    total.bytes_out += gained.bytes_out;
}

#[cfg(test)]
#[path = "ledger_tests.rs"]
mod tests;
