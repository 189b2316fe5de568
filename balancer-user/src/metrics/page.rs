//! Values into the text format.

use std::{collections::BTreeMap, time::Duration};

use balancer_ebpf::{
    abi::{ABI_VERSION, Counter},
    reason::Reason,
};
use prometheus::{
    TextEncoder,
    core::Collector as _,
    proto::{self, LabelPair, Metric, MetricFamily, MetricType},
};

use super::{
    families::{self, Family, Kind},
    ledger::{Ledger, Name},
    state::{Health, Proxied, Publishes},
};
use crate::{compile::RUNGS, kernel::MapFill};

/// What labels say of backends that are counted together.
const OTHER: &str = "other";

/// What the maps said.
#[derive(Debug, Default)]
pub(crate) struct Maps {
    pub(crate) epoch: u64,
    pub(crate) reasons: Vec<(Reason, u64)>,
    pub(crate) fill: Vec<MapFill>,
    /// 0: any number.
    pub(crate) new_flows_limit: u32,
    /// Slots → routes with such a table.
    pub(crate) tables: BTreeMap<u32, u64>,
    pub(crate) established: u64,
    pub(crate) took: Duration,
}

/// Everything that one page shows.
pub(crate) struct Shown<'a> {
    pub(crate) ledger: &'a Ledger,
    pub(crate) limit: usize,
    /// `None`: nothing is loaded yet.
    pub(crate) maps: Option<&'a Maps>,
    pub(crate) health: &'a Health,
    pub(crate) publishes: &'a Publishes,
    /// When the agent started, seconds since 1970.
    pub(crate) started: f64,
}

/// The page in text format 0.0.4.
pub(crate) fn text(shown: &Shown<'_>) -> Result<String, prometheus::Error> {
    let mut page = Page::default();
    page.counted(shown.ledger, shown.limit);
    if let Some(maps) = shown.maps {
        page.maps(maps);
    }
    page.publishes(shown.publishes, shown.health.refused);
    page.health(shown.health);
    page.value(&families::STARTED, shown.started);
    let labels = [env!("CARGO_PKG_VERSION"), &ABI_VERSION.to_string()];
    page.add(&families::BUILD, [(labels.as_slice(), 1.0)]);
    TextEncoder::new().encode_to_string(&page.families)
}

/// Families, by and by.
#[derive(Default)]
struct Page {
    families: Vec<MetricFamily>,
}

impl Page {
    /// A family with a value for each list of labels; none where there is no value.
    fn add<'l>(
        &mut self,
        family: &Family,
        values: impl IntoIterator<Item = (impl AsRef<[&'l str]>, f64)>,
    ) {
        let metrics: Vec<Metric> = values
            .into_iter()
            .map(|(labels, value)| metric(family, labels.as_ref(), value))
            .collect();
        if metrics.is_empty() {
            return;
        }
        let mut made = MetricFamily::default();
        made.set_name(family.name.to_owned());
        made.set_help(family.help.to_owned());
        made.set_field_type(match family.kind {
            Kind::Counter => MetricType::COUNTER,
            Kind::Gauge => MetricType::GAUGE,
            Kind::Histogram => MetricType::HISTOGRAM,
        });
        made.set_metric(metrics);
        self.families.push(made);
    }

    /// A family with one value and no label.
    fn value(&mut self, family: &Family, value: f64) {
        self.add(family, [([], value)]);
    }

    /// A family whose only label takes these values.
    fn values<'l>(&mut self, family: &Family, values: impl IntoIterator<Item = (&'l str, f64)>) {
        self.add(family, values.into_iter().map(|(label, value)| ([label], value)));
    }

    fn counted(&mut self, ledger: &Ledger, limit: usize) {
        let other = Name {
            mesh: OTHER.into(),
            service: OTHER.into(),
            vip: OTHER.into(),
            source_class: OTHER.into(),
            backend: OTHER.into(),
            tags: OTHER.into(),
        };
        let rows = || ledger.totals().chain(ledger.other().map(|total| (&other, total)));
        self.add(
            &families::CONNECTIONS,
            rows().map(|(name, total)| (labels(name), total.connections as f64)),
        );
        type Way = (&'static str, fn(&Counter) -> u64);
        let both: [(&Family, [Way; 2]); 2] = [
            (&families::PACKETS, [("in", |c| c.packets_in), ("out", |c| c.packets_out)]),
            (&families::BYTES, [("in", |c| c.bytes_in), ("out", |c| c.bytes_out)]),
        ];
        for (family, ways) in both {
            let of = |(name, total)| {
                ways.map(|(way, field)| {
                    let mut labels: Vec<&str> = labels(name).into();
                    labels.push(way);
                    (labels, field(total) as f64)
                })
            };
            self.add(family, rows().flat_map(of));
        }
        self.value(&families::BACKENDS, ledger.totals().count() as f64);
        self.value(&families::BACKENDS_LIMIT, limit as f64);
        self.value(&families::BACKENDS_MERGED, ledger.merged() as f64);
    }

    fn maps(&mut self, maps: &Maps) {
        self.add(
            &families::REASON_PACKETS,
            maps.reasons
                .iter()
                .map(|(reason, packets)| ([reason.name(), reason.fate().name()], *packets as f64)),
        );
        self.value(&families::ESTABLISHED, maps.established as f64);
        let rows = |field: fn(&MapFill) -> u64| {
            maps.fill.iter().map(move |row| ([row.name, row.setting], field(row) as f64))
        };
        self.add(&families::MAP_USED, rows(|row| row.used));
        self.add(&families::MAP_CAPACITY, rows(|row| row.capacity));
        self.value(&families::NEW_FLOWS_LIMIT, f64::from(maps.new_flows_limit));
        let rungs: Vec<(String, u64)> = RUNGS
            .iter()
            .map(|size| {
                (size.slots().to_string(), maps.tables.get(&size.slots()).copied().unwrap_or(0))
            })
            .collect();
        let all: u64 = maps.tables.values().sum();
        let own = all - rungs.iter().map(|(_, routes)| routes).sum::<u64>();
        let rungs = rungs.iter().map(|(slots, routes)| (slots.as_str(), *routes));
        self.values(
            &families::TABLES,
            rungs.chain([(OTHER, own)]).map(|(slots, routes)| (slots, routes as f64)),
        );
        self.value(&families::EPOCH, maps.epoch as f64);
        self.value(&families::READ, maps.took.as_secs_f64());
    }

    fn publishes(&mut self, publishes: &Publishes, refused: u64) {
        self.values(
            &families::PUBLISHES,
            [
                ("changed", publishes.changed as f64),
                ("unchanged", publishes.unchanged as f64),
                ("refused", refused as f64),
                ("failed", publishes.failed as f64),
            ],
        );
        for histogram in [&publishes.change, &publishes.flip, &publishes.grace] {
            self.families.extend(histogram.collect());
        }
    }

    fn health(&mut self, health: &Health) {
        let valid = if health.invalid_since.is_none() { 1.0 } else { 0.0 };
        self.value(&families::SET_VALID, valid);
        self.value(&families::SET_INVALID_SINCE, health.invalid_since.unwrap_or_default());
        self.value(&families::SET_PROBLEMS, health.problems as f64);
        self.value(&families::LAST_PUBLISH, health.last_publish.unwrap_or_default());
        let paths = [("watched", health.watched), ("unreadable", health.unreadable)];
        let names = [("resolved", health.resolved), ("unresolved", health.unresolved)];
        let links = [("wanted", health.links_wanted), ("attached", health.links_attached)];
        for (family, states) in
            [(&families::POLICY_PATHS, paths), (&families::NAMES, names), (&families::LINKS, links)]
        {
            self.values(family, states.map(|(state, number)| (state, number as f64)));
        }
        self.value(&families::RESTART, health.restart_needed as f64);
        if let Some(proxy) = &health.proxy {
            self.proxy(proxy);
        }
    }

    fn proxy(&mut self, proxy: &Proxied) {
        let refused = proxy.refused.iter().map(|(cause, number)| (*cause, *number as f64));
        self.values(&families::PROXY_REFUSED, refused);
        self.value(&families::PROXY_CONNECTIONS, proxy.connections as f64);
        self.value(&families::PROXY_REQUESTS, proxy.requests as f64);
        let reals = [("used", proxy.reals_used as f64), ("idle", proxy.reals_idle as f64)];
        self.values(&families::PROXY_REALS, reals);
    }
}

fn labels(name: &Name) -> [&str; 6] {
    [&name.mesh, &name.service, &name.vip, &name.source_class, &name.backend, &name.tags]
}

fn metric(family: &Family, labels: &[&str], value: f64) -> Metric {
    debug_assert_eq!(family.labels.len(), labels.len(), "{}", family.name);
    let pairs = family.labels.iter().zip(labels).map(|(name, value)| {
        let mut pair = LabelPair::default();
        pair.set_name((*name).to_owned());
        pair.set_value((*value).to_owned());
        pair
    });
    let mut metric = Metric::from_label(pairs.collect());
    if family.kind == Kind::Counter {
        let mut counter = proto::Counter::default();
        counter.set_value(value);
        metric.set_counter(counter);
    } else {
        let mut gauge = proto::Gauge::default();
        gauge.set_value(value);
        metric.set_gauge(gauge);
    }
    metric
}

#[cfg(test)]
#[path = "page_tests.rs"]
mod tests;
