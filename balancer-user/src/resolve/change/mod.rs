//! One set after another: what a small change of the policies changes of what they resolve to.
//!
//! Most changes are endpoints that come and go, or weights. They leave VIPs, classes and most
//! routes as they are, and what they do change can be found again from the few resources that
//! are concerned ([`offers`]), by the same functions as the whole. A change for which that is
//! not certain is resolved as a whole: every doubt ends in [`Change::Whole`].
//!
//! [`tests`](super::tests) holds it to that: what [`Resolution::follow`] makes of an outcome is
//! what [`resolve`](super::resolve) makes of the set.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, SocketAddr},
    sync::Arc,
};

use super::{
    Backend, Destination, HttpRules, Outcome, ResolveSettings, Resolved, VipAssignments, VipKey,
    VipProtocol,
    inventory::{Family, Inventory},
    outcome,
    split::Place,
};
use crate::policy::{
    Dataplane, Edit, Edits, Host, Meta, PolicySet, Severity, kubernetes::EndpointSlice,
};

mod asked;
mod attached;
mod offers;
mod places;
mod policies;
mod routes;
mod sources;

use asked::Asked;
use attached::OfAttached;
use offers::{Offers, Touched};
use places::{documents_of, pointed_of};
use policies::Made;
use routes::Routes;
use sources::{Known, Wildcards};

/// What differs between two outcomes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// Anything may differ.
    Whole,
    /// VIPs, classes but for their members, class routes, and the number and order of routes are
    /// as they were. What may differ is named.
    Parts(Parts),
}

/// What may differ where most is as it was.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Parts {
    /// Routes (index into [`Resolved::routes`](super::Resolved::routes)) whose backends have other
    /// weights, states or reals, or whose requests follow other rules; policies, decisions, load
    /// balancers and the backends' names are as they were. Sorted.
    pub routes: Vec<usize>,
    /// Sources that are new, sorted.
    pub sources_added: Vec<IpAddr>,
    /// Sources that are gone, sorted.
    pub sources_removed: Vec<IpAddr>,
    /// Endpoints that are new in the inventory, sorted.
    pub inventory_added: Vec<SocketAddr>,
    /// Endpoints that are gone from it, sorted.
    pub inventory_removed: Vec<SocketAddr>,
}

/// A resource as it was and as it is.
type Exchanged<'e, T> = (Option<&'e Arc<T>>, Option<&'e Arc<T>>);

/// An outcome that follows the policies it came from.
#[derive(Debug)]
pub struct Resolution {
    resolved: Resolved,
    /// `None`: the next change is resolved as a whole, because the outcome has errors.
    memory: Option<Memory>,
}

/// What small changes are judged and carried out by.
#[derive(Debug)]
struct Memory {
    /// Without assignments: those are the outcome's.
    settings: ResolveSettings,
    /// Documents that something is found in, or that a finding points at.
    documents: BTreeSet<u32>,
    /// Documents that findings about resources of others point at, or second places of findings.
    pointed: BTreeSet<u32>,
    /// Those that are given; none: any will do.
    meshes: BTreeSet<String>,
    /// Locality-aware ones.
    local: BTreeSet<String>,
    /// See [`outcome`].
    bare: BTreeSet<Arc<str>>,
    /// A MeshLoadBalancingStrategy speaks of zones.
    by_zone: bool,
    wildcards: Wildcards,
    offers: Offers,
    asked: Asked,
    routes: Routes,
    made: Made,
    attached: OfAttached,
    known: Known,
    /// How many endpoints have each address of [`Resolved::inventory`].
    counts: Vec<u32>,
}

impl Resolution {
    /// Resolves `set`.
    pub fn new(set: &PolicySet, settings: &ResolveSettings) -> Self {
        let outcome = outcome(set, settings);
        let (made, attached) = (Made::new(&outcome), OfAttached::new(&outcome));
        let Outcome { resolved, resolver, bare, .. } = outcome;
        let errors = resolved.diagnostics.iter().any(|(_, d)| d.severity == Severity::Error);
        let memory = (!errors).then(|| Memory {
            settings: without_assignments(settings),
            documents: documents_of(&resolved),
            pointed: pointed_of(&resolved),
            meshes: set.meshes.iter().map(|mesh| mesh.meta.name.clone()).collect(),
            local: set
                .meshes
                .iter()
                .filter(|mesh| mesh.locality_aware)
                .map(|mesh| mesh.meta.name.clone())
                .collect(),
            bare,
            by_zone: set
                .mesh_load_balancing_strategies
                .iter()
                .any(|policy| policy.to.iter().any(|to| to.locality.is_some())),
            wildcards: Wildcards::new(set),
            offers: Offers::new(set),
            asked: Asked::new(set),
            routes: Routes::new(&resolved),
            made,
            attached,
            known: Known::new(set, &resolver.sources, &resolved),
            counts: counts(&resolver.inventory),
        });
        Self { resolved, memory }
    }

    /// What the set comes to.
    pub fn resolved(&self) -> &Resolved {
        &self.resolved
    }

    /// The same, for good.
    pub fn into_resolved(self) -> Resolved {
        self.resolved
    }

    /// Makes the outcome that of `set`, which `edits` have made of the set before. Assignments in
    /// `settings` are those of the outcome, as [`resolve`](super::resolve) gave them.
    pub fn follow(&mut self, set: &PolicySet, settings: &ResolveSettings, edits: &Edits) -> Change {
        if let Edits::Some(edits) = edits
            && let Some(memory) = &mut self.memory
            && memory.settings == without_assignments(settings)
            && let Some(parts) = memory.follow(&mut self.resolved, set, edits)
        {
            return Change::Parts(parts);
        }
        *self = Self::new(set, settings);
        Change::Whole
    }
}

impl Memory {
    /// Carries out edits. `None`: they may change more than [`Parts`] can say; then the outcome
    /// and this memory are worth nothing any more.
    fn follow(
        &mut self,
        resolved: &mut Resolved,
        set: &PolicySet,
        edits: &[Edit],
    ) -> Option<Parts> {
        let mut dataplanes = Vec::new();
        let mut slices = Vec::new();
        let mut changed = BTreeSet::new();
        for edit in edits {
            match edit {
                Edit::Dataplane { before, after } => {
                    self.is_quiet(edit)?;
                    dataplanes.push((before.as_ref(), after.as_ref()));
                }
                Edit::EndpointSlice { before, after } => {
                    self.is_quiet(edit)?;
                    slices.push((before.as_ref(), after.as_ref()));
                }
                Edit::TrafficRoute { after, .. } => {
                    after.iter().for_each(|policy| self.asked.traffic_route(policy));
                    self.policy(resolved, set, (edit, edits), &mut changed)?;
                }
                Edit::MeshTcpRoute { after, .. } => {
                    after.iter().for_each(|policy| self.asked.mesh_tcp_route(policy));
                    self.policy(resolved, set, (edit, edits), &mut changed)?;
                }
                Edit::MeshHttpRoute { after, .. } => {
                    after.iter().for_each(|policy| self.asked.mesh_http_route(policy));
                    self.policy(resolved, set, (edit, edits), &mut changed)?;
                }
                Edit::HttpRoute { .. } | Edit::GrpcRoute { .. } | Edit::TcpRoute { .. } => {
                    self.policy(resolved, set, (edit, edits), &mut changed)?;
                }
            }
        }
        let mut parts = Parts::default();
        if !dataplanes.is_empty() || !slices.is_empty() {
            self.endpoints(resolved, set, &dataplanes, &slices, &mut changed, &mut parts)?;
            self.sources(resolved, &dataplanes, &mut parts)?;
        }
        parts.routes = changed.into_iter().collect();
        Some(parts)
    }

    /// Nothing is found in the documents of an edit.
    fn is_quiet(&self, edit: &Edit) -> Option<()> {
        let loud = |meta: &Meta| self.documents.contains(&meta.span.document);
        (!metas(edit).into_iter().flatten().any(loud)).then_some(())
    }

    /// What the edit of a policy changes, which is one of several.
    fn policy(
        &mut self,
        resolved: &mut Resolved,
        set: &PolicySet,
        (edit, edits): (&Edit, &[Edit]),
        changed: &mut BTreeSet<usize>,
    ) -> Option<()> {
        let [Some(before), Some(_)] = metas(edit) else { return None };
        // Where it leads decides what those without endpoints are dialled by.
        if self.bare.contains(before.mesh.as_str()) || self.pointed.contains(&before.span.document)
        {
            return None;
        }
        let (offers, settings) = (&self.offers, &self.settings);
        let new = match edit {
            Edit::HttpRoute { .. } | Edit::GrpcRoute { .. } | Edit::TcpRoute { .. } => {
                self.attached.edited((edit, edits), resolved, set, offers, settings)?
            }
            _ => self.made.edited(edit, resolved, set, offers, settings)?,
        };
        changed.extend(new.iter().map(|(route, _)| *route));
        self.routes.replace(resolved, new)
    }

    /// What edits change of endpoints, and of the routes that lead to them.
    fn endpoints(
        &mut self,
        resolved: &mut Resolved,
        set: &PolicySet,
        dataplanes: &[Exchanged<'_, Dataplane>],
        slices: &[Exchanged<'_, EndpointSlice>],
        changed: &mut BTreeSet<usize>,
        parts: &mut Parts,
    ) -> Option<()> {
        let mut touched = Touched::default();
        self.wildcards.count(dataplanes)?;
        // Which zones count is the route's to say then.
        if self.by_zone && !(dataplanes.is_empty() && slices.is_empty()) {
            return None;
        }
        for dataplane in dataplanes.iter().flat_map(|(before, after)| [before, after]).flatten() {
            self.is_understood(set, dataplane)?;
            self.offers.touch(dataplane, &mut touched)?;
        }
        for slice in slices.iter().flat_map(|(before, after)| [before, after]).flatten() {
            self.offers.touch_slice(slice, &mut touched);
        }
        let names = &self.settings.names;
        let set_before = self.offers.set_of(&touched);
        let said = asked::of_mesh_services(set, names, self.offers.selected(&touched));
        for (before, after) in dataplanes {
            before.iter().for_each(|dataplane| self.offers.remove(dataplane));
            after.iter().for_each(|dataplane| self.offers.add(dataplane));
        }
        for (before, after) in slices {
            self.offers.exchange_slice(*before, *after);
        }
        let set_after = self.offers.set_of(&touched);
        if said != asked::of_mesh_services(set, names, self.offers.selected(&touched)) {
            return None;
        }
        let before = Inventory::new(&set_before, &self.settings);
        let after = Inventory::new(&set_after, &self.settings);

        let mut counted: BTreeMap<SocketAddr, i64> = BTreeMap::new();
        let destinations = self.offers.destinations(&touched);
        let mut routes = BTreeSet::new();
        for destination in &destinations {
            if !self.asked.sees_none(&before, &after, destination) {
                return None;
            }
            let of = |inventory: &Inventory<'_>| -> Vec<SocketAddr> {
                let known = inventory.endpoints(destination);
                known
                    .map_or_else(Vec::new, |known| known.endpoints.iter().map(|e| e.addr).collect())
            };
            for addr in of(&before) {
                *counted.entry(addr).or_default() -= 1;
            }
            for addr in of(&after) {
                *counted.entry(addr).or_default() += 1;
            }
            routes.extend(self.routes.users(destination));
        }
        self.recount(resolved, &counted, parts)?;

        let mut new = Vec::new();
        for index in routes {
            let family = self.routes.family(index)?;
            let route = &resolved.routes[index];
            let mut other = route.clone();
            for backend in &mut other.backends {
                if destinations.contains(&backend.destination) {
                    let place = self.place(&after, &backend.destination, family);
                    let (destination, tags) = (backend.destination.clone(), backend.tags.clone());
                    *backend = place.backend_of(backend.weight, destination, tags);
                }
            }
            if let Some(http) = &route.http
                && http.backends.iter().any(|b| destinations.contains(&b.destination))
            {
                let mut http = HttpRules::clone(http);
                let touched = |b: &&mut Backend| destinations.contains(&b.destination);
                for backend in http.backends.iter_mut().filter(touched) {
                    let place = self.place(&after, &backend.destination, family);
                    let (destination, tags) = (backend.destination.clone(), backend.tags.clone());
                    *backend = place.http_backend(destination, tags, http.only_http);
                }
                other.http = Some(Arc::new(http));
            }
            if other != *route {
                new.push((index, other));
            }
        }
        changed.extend(new.iter().map(|(route, _)| *route));
        self.routes.replace(resolved, new)
    }

    /// Where a destination's endpoints are looked for.
    fn place<'p>(
        &'p self,
        inventory: &'p Inventory<'p>,
        destination: &'p Destination,
        family: Family,
    ) -> Place<'p> {
        let (mesh, own_zone) = (destination.mesh(), self.settings.zone.as_deref());
        let zone = own_zone.filter(|_| self.local.contains(mesh));
        Place { inventory, mesh, family, zone, own_zone, locality: None }
    }

    /// A Dataplane of which there is nothing to say, and whose addresses are known.
    fn is_understood(&self, set: &PolicySet, dataplane: &Dataplane) -> Option<()> {
        let names = [Some(&dataplane.address), dataplane.advertised.as_ref()];
        let named = names.into_iter().flatten().any(|host| matches!(host, Host::Name(_)));
        let mesh = self.meshes.is_empty() || self.meshes.contains(&dataplane.meta.mesh);
        let fine = mesh && !named && asked::says_nothing(set, dataplane, &self.settings.names);
        fine.then_some(())
    }

    /// Counts addresses, and keeps the inventory.
    fn recount(
        &mut self,
        resolved: &mut Resolved,
        counted: &BTreeMap<SocketAddr, i64>,
        parts: &mut Parts,
    ) -> Option<()> {
        for (addr, more) in counted.iter().filter(|(_, more)| **more != 0) {
            let place = resolved.inventory.binary_search(addr);
            let had = place.map_or(0, |place| i64::from(self.counts[place]));
            let has = u32::try_from(had + more).ok()?;
            match place {
                Ok(place) if has > 0 => self.counts[place] = has,
                Ok(place) => {
                    self.is_free(resolved, *addr)?;
                    self.counts.remove(place);
                    resolved.inventory.remove(place);
                    parts.inventory_removed.push(*addr);
                }
                Err(place) => {
                    self.is_free(resolved, *addr)?;
                    self.counts.insert(place, has);
                    resolved.inventory.insert(place, *addr);
                    parts.inventory_added.push(*addr);
                }
            }
        }
        Some(())
    }

    /// An address that no VIP has or could be given.
    fn is_free(&self, resolved: &Resolved, addr: SocketAddr) -> Option<()> {
        let is_vip = |protocol| {
            let key = VipKey { addr, protocol };
            resolved.vips.binary_search_by_key(&key, |vip| vip.key).is_ok()
        };
        let vip = VipProtocol::ALL.into_iter().any(is_vip);
        (!vip && !self.is_for_vips(addr.ip())).then_some(())
    }

    /// Whether an address is in the range that VIPs are allocated from.
    fn is_for_vips(&self, address: IpAddr) -> bool {
        match address {
            IpAddr::V4(address) => {
                let (network, len) = self.settings.vips4;
                let mask = u32::MAX.checked_shl(32 - u32::from(len)).unwrap_or(0);
                (u32::from(address) ^ u32::from(network)) & mask == 0
            }
            IpAddr::V6(address) => {
                let (network, len) = self.settings.vips6;
                let mask = u128::MAX.checked_shl(128 - u32::from(len)).unwrap_or(0);
                (u128::from(address) ^ u128::from(network)) & mask == 0
            }
        }
    }

    /// What edits change of sources.
    fn sources(
        &self,
        resolved: &mut Resolved,
        dataplanes: &[Exchanged<'_, Dataplane>],
        parts: &mut Parts,
    ) -> Option<()> {
        let names = &self.settings.names;
        let as_before = |before: Option<&Arc<Dataplane>>, after: Option<&Arc<Dataplane>>| {
            before.zip(after).is_some_and(|(b, a)| sources::is_as_before(b, a, names))
        };
        let others: Vec<_> =
            dataplanes.iter().filter(|(before, after)| !as_before(*before, *after)).collect();
        let (mut removed, mut added) = (BTreeSet::new(), BTreeSet::new());
        for dataplane in others.iter().filter_map(|(before, _)| *before) {
            self.known.remove(dataplane, names, resolved, &mut removed)?;
        }
        for dataplane in others.iter().filter_map(|(_, after)| *after) {
            self.known.add(dataplane, names, resolved, &mut added)?;
        }
        // A VIP that is dialled by an address of a workload's is a finding, or moves.
        let ranges = removed.symmetric_difference(&added);
        if ranges.copied().any(|address| self.is_for_vips(address)) {
            return None;
        }
        parts.sources_removed = removed.into_iter().collect();
        parts.sources_added = added.into_iter().collect();
        Some(())
    }
}

/// Where the resource of an edit stood, and where it stands.
fn metas(edit: &Edit) -> [Option<&Meta>; 2] {
    macro_rules! both {
        ($before:ident, $after:ident) => {
            [$before.as_ref().map(|one| &one.meta), $after.as_ref().map(|one| &one.meta)]
        };
    }
    match edit {
        Edit::Dataplane { before, after } => both!(before, after),
        Edit::TrafficRoute { before, after } => both!(before, after),
        Edit::MeshTcpRoute { before, after } => both!(before, after),
        Edit::MeshHttpRoute { before, after } => both!(before, after),
        Edit::EndpointSlice { before, after } => both!(before, after),
        Edit::HttpRoute { before, after } => both!(before, after),
        Edit::GrpcRoute { before, after } => both!(before, after),
        Edit::TcpRoute { before, after } => both!(before, after),
    }
}

fn without_assignments(settings: &ResolveSettings) -> ResolveSettings {
    ResolveSettings {
        assigned: VipAssignments::new(),
        zone: settings.zone.clone(),
        gateway_controller: settings.gateway_controller.clone(),
        names: settings.names.clone(),
        protocols: settings.protocols.clone(),
        ..*settings
    }
}

fn counts(inventory: &Inventory<'_>) -> Vec<u32> {
    let addresses = inventory.addresses();
    let mut counts = vec![0; addresses.len()];
    let services = inventory.services().map(|(.., service)| service);
    let objects = inventory.objects().map(|(_, service)| service);
    for endpoint in services.chain(objects).flat_map(|service| &service.endpoints) {
        if let Ok(place) = addresses.binary_search(&endpoint.addr) {
            counts[place] += 1;
        }
    }
    counts
}
