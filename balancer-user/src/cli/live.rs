//! The live set: what the maps hold, and the names for it.
//!
//! Names are not stored anywhere. The texts that the epoch was made of go through the same pure
//! rooms as when they were loaded, with the ids read back from the maps; what comes out is
//! joined with the maps by address, port and id.

use std::{collections::BTreeMap, net::SocketAddr, path::Path};

use balancer_ebpf::abi::direction;

use super::{args::Global, failure::Failure, inputs, output};
use crate::{
    compile::{self, Tables},
    kernel::{Datapath, FlowRow, KernelError, View},
    policy::{self, PolicySet, ReadOptions},
    resolve::{self, Backend, ResolveSettings, Resolved, Route, Vip, VipKey},
    store::Store,
};

/// The maps, open for reading, and the names of what they hold.
pub(crate) struct LiveSet {
    pub(crate) view: View,
    /// The set that `names` are of.
    pub(crate) epoch: u64,
    pub(crate) names: Names,
}

/// What the live texts resolve and compile to. Empty where they are not at hand: every name is
/// unknown then.
#[derive(Default)]
pub(crate) struct Names {
    pub(crate) set: PolicySet,
    pub(crate) settings: Option<ResolveSettings>,
    pub(crate) resolved: Resolved,
    pub(crate) tables: Tables,
}

/// Opens the maps for reading.
pub(crate) fn view(global: &Global) -> Result<View, Failure> {
    let bpffs = global.bpffs(None);
    Datapath::open_read_only(&bpffs)
        .map_err(|error| inputs::kernel(error, "cannot read the live set"))
}

/// Reads rows from the live set. Where another set is published meanwhile, it reads again: names
/// of one set beside numbers of another would be wrong in silence.
pub(crate) fn read<T>(
    global: &Global,
    mut rows: impl FnMut(&LiveSet) -> Result<T, Failure>,
) -> Result<T, Failure> {
    loop {
        let Some(live) = named(view(global)?, &global.state(None))? else { continue };
        match rows(&live) {
            _ if live.is_replaced() => {}
            rows => return rows,
        }
    }
}

/// The set that is live now, with its names; `None`: another one was published meanwhile.
pub(crate) fn named(view: View, state: &Path) -> Result<Option<LiveSet>, Failure> {
    let epoch = view.epoch();
    let names = match names(state, &view, epoch) {
        Err(_) | Ok(None) if view.epoch() != epoch => return Ok(None),
        Err(failure) => return Err(failure),
        Ok(None) => {
            if epoch > 0 {
                output::say(&format!(
                    "warning: {} has no record of epoch {epoch}, so names are unknown; \
                     was it loaded with another --state?",
                    state.display()
                ));
            }
            Names::default()
        }
        Ok(Some(names)) => names,
    };
    Ok(Some(LiveSet { view, epoch, names }))
}

fn names(state: &Path, view: &View, epoch: u64) -> Result<Option<Names>, Failure> {
    let Some(live) =
        Store::open(state).and_then(|store| store.live(epoch)).map_err(inputs::store)?
    else {
        return Ok(None);
    };
    let failed = |error| inputs::kernel(error, "cannot read the live set");
    let reading = policy::read(live.texts, &ReadOptions::default());
    let resolved = resolve::resolve(&reading.set, &live.settings);
    let (assignment, limits) = (view.assignment().map_err(failed)?, view.limits().map_err(failed)?);
    // It fitted when it was published, and the ids are those it was given.
    let tables = compile::compile(&resolved, &assignment, &limits)
        .map_err(|error| Failure::system(error, "cannot compile the live set again"))?;
    Ok(Some(Names { set: reading.set, settings: Some(live.settings), resolved, tables }))
}

/// What to say where the live set's texts are needed and not at hand.
pub(crate) fn no_record(global: &Global, doing: &str) -> Failure {
    let error = anyhow::anyhow!(
        "{} has no record of what is live at {}",
        global.state(None).display(),
        global.bpffs(None).display()
    );
    Failure::system(error, doing).hint("name the directory that it was loaded with: --state DIR")
}

impl LiveSet {
    /// Packets see another set by now.
    pub(crate) fn is_replaced(&self) -> bool {
        self.view.epoch() != self.epoch
    }

    /// Connections in the order of their clients, each once.
    pub(crate) fn connections(&self) -> Result<Vec<FlowRow>, KernelError> {
        let mut flows = self.view.flows()?;
        // Each connection has a reply entry too; the forward entry's state is the connection's.
        flows.retain(|flow| flow.direction == direction::FORWARD);
        flows.sort_unstable_by_key(|flow| (flow.src, flow.dst, flow.half_open));
        // An entry that moved from half-open to established while the maps were read.
        flows.dedup_by_key(|flow| (flow.src, flow.dst));
        Ok(flows)
    }

    /// (id, generation) → address of each real.
    pub(crate) fn addresses_of_reals(
        &self,
    ) -> Result<BTreeMap<(u32, u32), SocketAddr>, KernelError> {
        let rows = self.view.reals()?.into_iter();
        Ok(rows.map(|row| ((row.id, row.generation), row.addr)).collect())
    }
}

impl Names {
    /// The VIP at an address.
    pub(crate) fn vip(&self, key: VipKey) -> Option<&Vip> {
        let vips = &self.resolved.vips;
        vips.binary_search_by_key(&key, |vip| vip.key).ok().and_then(|at| vips.get(at))
    }

    /// What the route with this id does.
    pub(crate) fn route(&self, id: u32) -> Option<&Route> {
        self.resolved.routes.get(self.tables.routes.get(&id)?.resolved)
    }

    /// The backend with an ordinal of a route's table.
    pub(crate) fn backend(&self, route: u32, ordinal: usize) -> Option<&Backend> {
        let table = self.tables.routes.get(&route)?.table.as_ref()?;
        self.route(route)?.backends.get(*table.backends.get(ordinal)?)
    }

    /// Counter id → the backend that it counts for.
    pub(crate) fn backends_of_counters(&self) -> BTreeMap<u32, String> {
        let mut backends = BTreeMap::new();
        for (id, route) in &self.tables.routes {
            let count = route.table.as_ref().map_or(0, |table| table.backends.len());
            for ordinal in 0..count {
                if let Some(backend) = self.backend(*id, ordinal) {
                    backends.insert(route.counters.first + ordinal as u32, backend_name(backend));
                }
            }
        }
        backends
    }

    /// Dataplanes (`MESH/NAME`) of a class; everybody's is `*`.
    pub(crate) fn sources_of(&self, class: u32) -> Vec<String> {
        if class == 0 {
            return vec!["*".to_owned()];
        }
        let ids = &self.tables.sources;
        self.resolved
            .sources
            .iter()
            .filter(|source| ids.get(&source.address).is_some_and(|spec| spec.class == class))
            .flat_map(|source| {
                source.dataplanes.iter().map(|(mesh, name)| format!("{mesh}/{name}"))
            })
            .collect()
    }

    /// Which services an address stands for, in any route.
    pub(crate) fn services_of_reals(&self) -> BTreeMap<SocketAddr, Vec<String>> {
        let mut services: BTreeMap<SocketAddr, Vec<String>> = BTreeMap::new();
        for backend in self.resolved.routes.iter().flat_map(|route| &route.backends) {
            for real in &backend.reals {
                let names = services.entry(*real).or_default();
                let name = backend.destination.to_string();
                if !names.contains(&name) {
                    names.push(name);
                }
            }
        }
        services.values_mut().for_each(|names| names.sort());
        services
    }
}

/// `redis` and its tags as one word: `redis{version=1.0}`.
pub(crate) fn backend_name(backend: &Backend) -> String {
    if backend.tags.is_empty() {
        return backend.destination.to_string();
    }
    let tags: Vec<String> =
        backend.tags.iter().map(|(key, value)| format!("{key}={value}")).collect();
    format!("{}{{{}}}", backend.destination, tags.join(","))
}
