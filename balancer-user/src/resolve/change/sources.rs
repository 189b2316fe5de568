//! Sources that come and go: a new one is of the class of another that is just like it.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    hash::{DefaultHasher, Hash as _, Hasher as _},
    net::IpAddr,
    sync::Arc,
};

use super::{
    super::{
        Resolved, Source, check,
        mesh_policy::ToPolicy,
        names::Names,
        objects::namespace,
        sources::{Sources, tag_sets, workload_addresses},
    },
    Exchanged,
};
use crate::policy::{Dataplane, PolicySet, RouteTarget};

/// Workloads by what policies see of them.
#[derive(Debug, Default)]
pub(super) struct Known {
    /// One of each sort, by a hash of what is seen, with its class.
    examples: HashMap<u64, Vec<(Arc<Dataplane>, usize)>>,
    /// Meshes whose policies tell single Dataplanes apart, by name or label.
    by_name: BTreeSet<String>,
}

impl Known {
    pub(super) fn new(set: &PolicySet, sources: &Sources<'_>, resolved: &Resolved) -> Self {
        let mut known = Self::default();
        known.add_names(set.mesh_tcp_routes.iter());
        known.add_names(set.mesh_http_routes.iter());
        known.add_names(set.mesh_load_balancing_strategies.iter());
        let shared: HashMap<*const Dataplane, &Arc<Dataplane>> =
            set.dataplanes.iter().map(|one| (Arc::as_ptr(one), one)).collect();
        for ((_, dataplanes), source) in sources.iter().zip(&resolved.sources) {
            let [only] = dataplanes else { continue };
            let Some(only) = shared.get(&std::ptr::from_ref(*only)) else { continue };
            if known.is_plain(only) && known.class_of(only).is_none() {
                let examples = known.examples.entry(hash_of(only)).or_default();
                examples.push(((*only).clone(), source.class));
            }
        }
        known
    }

    fn add_names<'a, P: ToPolicy + 'a>(&mut self, policies: impl Iterator<Item = &'a Arc<P>>) {
        let by_name = policies
            .filter(|policy| matches!(policy.target(), RouteTarget::Dataplane(Some(_))))
            .map(|policy| policy.meta().mesh.clone());
        self.by_name.extend(by_name);
    }

    /// Whether policies see of a workload only what others can have too.
    fn is_plain(&self, dataplane: &Dataplane) -> bool {
        dataplane.outbounds.is_empty()
            && dataplane.referring.is_empty()
            && !self.by_name.contains(&dataplane.meta.mesh)
    }

    /// The class of workloads like this one, if one is known.
    fn class_of(&self, dataplane: &Dataplane) -> Option<usize> {
        let examples = self.examples.get(&hash_of(dataplane))?;
        examples.iter().find(|(other, _)| alike(other, dataplane)).map(|(_, class)| *class)
    }

    /// Takes a workload's sources out. `None`: more may change than they.
    pub(super) fn remove(
        &self,
        dataplane: &Dataplane,
        names: &Names,
        resolved: &mut Resolved,
        removed: &mut BTreeSet<IpAddr>,
    ) -> Option<()> {
        if !self.is_plain(dataplane) {
            return None;
        }
        for address in workload_addresses(dataplane, names) {
            let place = resolved.sources.binary_search_by_key(&address, |s| s.address).ok()?;
            let Source { dataplanes, class, .. } = &resolved.sources[place];
            let [(mesh, name)] = dataplanes.as_slice() else { return None };
            if *mesh != dataplane.meta.mesh || *name != dataplane.meta.name {
                return None;
            }
            if *class != 0 {
                let members = &mut resolved.classes[*class].sources;
                match members.binary_search(&address) {
                    // Classes are in the order of their first members.
                    Ok(0) | Err(_) => return None,
                    Ok(place) => _ = members.remove(place),
                }
            }
            resolved.sources.remove(place);
            removed.insert(address);
        }
        Some(())
    }

    /// Puts a workload's sources in. `None`: more may change than they.
    pub(super) fn add(
        &self,
        dataplane: &Dataplane,
        names: &Names,
        resolved: &mut Resolved,
        added: &mut BTreeSet<IpAddr>,
    ) -> Option<()> {
        if !self.is_plain(dataplane) {
            return None;
        }
        let class = self.class_of(dataplane)?;
        for address in workload_addresses(dataplane, names) {
            let place = resolved.sources.binary_search_by_key(&address, |s| s.address).err()?;
            if class != 0 {
                let members = &mut resolved.classes[class].sources;
                match members.binary_search(&address) {
                    Err(0) | Ok(_) => return None,
                    Err(place) => members.insert(place, address),
                }
            }
            let dataplanes = vec![(dataplane.meta.mesh.clone(), dataplane.meta.name.clone())];
            resolved.sources.insert(place, Source { address, dataplanes, class });
            added.insert(address);
        }
        Some(())
    }
}

/// How many workloads have the tags that selectors take any value of: whether nobody has is
/// reported.
#[derive(Debug, Default)]
pub(super) struct Wildcards(BTreeMap<(String, String), u32>);

impl Wildcards {
    pub(super) fn new(set: &PolicySet) -> Self {
        let mut counted = BTreeMap::new();
        for route in &set.traffic_routes {
            for (_, tag) in check::wildcards(route) {
                counted.insert((route.meta.mesh.clone(), tag.clone()), 0);
            }
        }
        for ((mesh, tag), count) in &mut counted {
            let of_mesh = set.dataplanes.iter().filter(|one| one.meta.mesh == *mesh);
            *count = of_mesh.filter(|one| check::has_tag(one, tag)).count() as u32;
        }
        Self(counted)
    }

    /// Counts on. `None`: somebody has a tag now that nobody had, or nobody has it any more.
    pub(super) fn count(&mut self, dataplanes: &[Exchanged<'_, Dataplane>]) -> Option<()> {
        for ((mesh, tag), count) in &mut self.0 {
            let has = |one: &Option<&Arc<Dataplane>>| {
                let one = one.filter(|one| one.meta.mesh == *mesh);
                i64::from(one.is_some_and(|one| check::has_tag(one, tag)))
            };
            let more: i64 = dataplanes.iter().map(|(before, after)| has(after) - has(before)).sum();
            let before = std::mem::replace(count, u32::try_from(i64::from(*count) + more).ok()?);
            if (before == 0) != (*count == 0) {
                return None;
            }
        }
        Some(())
    }
}

/// Whether a workload is the same source after a change as before.
pub(super) fn is_as_before(before: &Dataplane, after: &Dataplane, names: &Names) -> bool {
    alike(before, after)
        && before.meta.name == after.meta.name
        && before.outbounds == after.outbounds
        && before.referring == after.referring
        && workload_addresses(before, names) == workload_addresses(after, names)
}

/// Whether policies see the same in two workloads, but for their names and addresses.
fn alike(a: &Dataplane, b: &Dataplane) -> bool {
    a.meta.mesh == b.meta.mesh
        && namespace(&a.meta) == namespace(&b.meta)
        && a.meta.labels == b.meta.labels
        && a.gateway.is_some() == b.gateway.is_some()
        && tag_sets([a]) == tag_sets([b])
}

fn hash_of(dataplane: &Dataplane) -> u64 {
    let mut hasher = DefaultHasher::new();
    let Dataplane { meta, gateway, .. } = dataplane;
    (&meta.mesh, namespace(meta), &meta.labels, gateway.is_some()).hash(&mut hasher);
    tag_sets([dataplane]).hash(&mut hasher);
    hasher.finish()
}
