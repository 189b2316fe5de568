//! Who offers what: the few resources that the endpoints of a destination come from.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::Arc,
};

use super::super::{
    Destination,
    inventory::{Joinable, Selectable, selects},
    kubernetes,
    objects::{has_labels, labels, namespace, plain_name},
};
use crate::policy::{
    Dataplane, DataplaneSelector, ExternalService, MeshExternalService, MeshMultiZoneService,
    MeshService, Meta, PolicySet, ReferredBy, SERVICE_TAG, ServiceKind, ServiceRef, Tags,
    kubernetes::{EndpointSlice, Service},
};

/// Namespace and name of a Service of Kubernetes.
type ServiceName = (String, String);

/// What a selector asks for first: mesh, key, value.
type Pair = (String, String, String);

/// Every destination with those who offer it.
#[derive(Debug, Default)]
pub(super) struct Offers {
    /// Services by their tag.
    services: BTreeMap<Destination, Offered>,
    mesh_services: Vec<Selected>,
    by_tag: HashMap<Pair, Vec<usize>>,
    by_label: HashMap<Pair, Vec<usize>>,
    /// Mesh and name that a MeshService selects by.
    by_name: BTreeSet<(String, String)>,
    multi_zone: Vec<Joined>,
    external: Vec<Arc<MeshExternalService>>,
    /// Objects by mesh, kind and name, that by which people know them too, as indices into the
    /// list of their kind.
    objects: HashMap<(String, ServiceKind, String), Vec<usize>>,
    slices: BTreeMap<ServiceName, Vec<Arc<EndpointSlice>>>,
    kubernetes: BTreeMap<ServiceName, Arc<Service>>,
}

#[derive(Debug, Default)]
struct Offered {
    /// By name.
    dataplanes: Vec<Arc<Dataplane>>,
    external: Vec<Arc<ExternalService>>,
}

/// A MeshService with the Dataplanes that it selects.
#[derive(Debug)]
struct Selected {
    service: Arc<MeshService>,
    /// By name.
    dataplanes: Vec<Arc<Dataplane>>,
    /// Which MeshMultiZoneServices match it.
    joined_by: Vec<usize>,
}

/// A MeshMultiZoneService with the MeshServices that it matches.
#[derive(Debug)]
struct Joined {
    service: Arc<MeshMultiZoneService>,
    of: Vec<usize>,
}

/// What edits are about.
#[derive(Debug, Default)]
pub(super) struct Touched {
    services: BTreeSet<Destination>,
    mesh_services: BTreeSet<usize>,
    multi_zone: BTreeSet<usize>,
    external: BTreeSet<usize>,
    kubernetes: BTreeSet<ServiceName>,
}

impl Touched {
    /// Adds a service by its tag.
    pub(super) fn add_service(&mut self, service: Destination) {
        self.services.insert(service);
    }
}

impl Offers {
    pub(super) fn new(set: &PolicySet) -> Self {
        let mut offers = Self::default();
        for dataplane in &set.dataplanes {
            for service in services_of(dataplane) {
                insert(&mut offers.services.entry(service).or_default().dataplanes, dataplane);
            }
        }
        for external in &set.external_services {
            if let Some(service) = external.tags.get(SERVICE_TAG) {
                let service = Destination::tags(&external.meta.mesh, service);
                offers.services.entry(service).or_default().external.push(external.clone());
            }
        }
        offers.add_mesh_services(set);
        offers.external.extend(set.mesh_external_services.iter().cloned());
        let (mesh, zones) = (set.mesh_services.iter(), set.mesh_multi_zone_services.iter());
        offers.add_objects(ServiceKind::MeshService, mesh.map(|one| &one.meta));
        offers.add_objects(ServiceKind::MeshMultiZoneService, zones.map(|one| &one.meta));
        let external = set.mesh_external_services.iter().map(|one| &one.meta);
        offers.add_objects(ServiceKind::MeshExternalService, external);
        for service in &set.services {
            let (namespace, name) = service.meta.object();
            offers.kubernetes.insert((namespace.to_owned(), name.to_owned()), service.clone());
        }
        for slice in &set.endpoint_slices {
            if let Some(service) = service_of(slice) {
                offers.slices.entry(service).or_default().push(slice.clone());
            }
        }
        offers
    }

    fn add_objects<'m>(&mut self, kind: ServiceKind, metas: impl Iterator<Item = &'m Meta>) {
        for (index, meta) in metas.enumerate() {
            for name in BTreeSet::from([meta.name.as_str(), plain_name(meta)]) {
                let key = (meta.mesh.clone(), kind, name.to_owned());
                self.objects.entry(key).or_default().push(index);
            }
        }
    }

    /// Adds to `touched` whatever a reference of `referrer` could mean, and perhaps more.
    pub(super) fn refer(&self, referrer: &Meta, to: &ServiceRef, touched: &mut Touched) {
        match &to.by {
            ReferredBy::Name { name, namespace: given } => {
                if let Some(service) = to.tag_service() {
                    touched.add_service(Destination::tags(&referrer.mesh, service));
                }
                let inside = given.as_deref().or_else(|| namespace(referrer));
                let full = inside.map(|inside| format!("{name}.{inside}"));
                for name in std::iter::once(name.clone()).chain(full) {
                    self.touch_object(&referrer.mesh, to.kind, name, touched);
                }
            }
            ReferredBy::Labels(wanted) => {
                let meant = |meta: &Meta| meta.mesh == referrer.mesh && has_labels(meta, wanted);
                match to.kind {
                    ServiceKind::MeshService => {
                        let all = self.mesh_services.iter().map(|one| &one.service.meta);
                        touched.mesh_services.extend(places(all, meant));
                    }
                    ServiceKind::MeshMultiZoneService => {
                        let all = self.multi_zone.iter().map(|one| &one.service.meta);
                        touched.multi_zone.extend(places(all, meant));
                    }
                    ServiceKind::MeshExternalService => {
                        let all = self.external.iter().map(|one| &one.meta);
                        touched.external.extend(places(all, meant));
                    }
                }
            }
        }
    }

    /// Adds to `touched` what is called. `None`: it is no business of a mesh.
    pub(super) fn touch_called(&self, called: &Destination, touched: &mut Touched) -> Option<()> {
        match called {
            Destination::Tags { .. } => touched.add_service(called.clone()),
            Destination::Port { mesh, kind, name, .. } => {
                self.touch_object(mesh, *kind, name.to_string(), touched);
            }
            _ => return None,
        }
        Some(())
    }

    fn touch_object(&self, mesh: &str, kind: ServiceKind, name: String, touched: &mut Touched) {
        let found = self.objects.get(&(mesh.to_owned(), kind, name)).into_iter().flatten();
        match kind {
            ServiceKind::MeshService => touched.mesh_services.extend(found),
            ServiceKind::MeshMultiZoneService => touched.multi_zone.extend(found),
            ServiceKind::MeshExternalService => touched.external.extend(found),
        }
    }

    fn add_mesh_services(&mut self, set: &PolicySet) {
        if set.mesh_services.is_empty() {
            return;
        }
        let by_name: HashMap<(&str, &str), &Arc<Dataplane>> = set
            .dataplanes
            .iter()
            .map(|dataplane| {
                ((dataplane.meta.mesh.as_str(), dataplane.meta.name.as_str()), dataplane)
            })
            .collect();
        let selectable = Selectable::new(set);
        let mut places: HashMap<(&str, &str), usize> = HashMap::new();
        for (index, service) in set.mesh_services.iter().enumerate() {
            let mesh = service.meta.mesh.as_str();
            places.insert((mesh, &service.meta.name), index);
            let first = |tags: &Tags| {
                let (key, value) = tags.first_key_value()?;
                Some((mesh.to_owned(), key.clone(), value.clone()))
            };
            match &service.selector {
                DataplaneSelector::Nothing => {}
                DataplaneSelector::Name(name) => {
                    let namespace = namespace(&service.meta);
                    let inside = namespace.map(|namespace| format!("{name}.{namespace}"));
                    let names = std::iter::once(name.clone()).chain(inside);
                    self.by_name.extend(names.map(|name| (mesh.to_owned(), name)));
                }
                DataplaneSelector::Tags(tags) => {
                    let pair = first(tags);
                    pair.into_iter().for_each(|p| self.by_tag.entry(p).or_default().push(index));
                }
                DataplaneSelector::Labels(labels) => {
                    let pair = first(labels);
                    pair.into_iter().for_each(|p| self.by_label.entry(p).or_default().push(index));
                }
            }
            let mut dataplanes = Vec::new();
            for dataplane in selectable.selected(service) {
                if let Some(own) = by_name.get(&(mesh, dataplane.meta.name.as_str())) {
                    insert(&mut dataplanes, own);
                }
            }
            let service = service.clone();
            self.mesh_services.push(Selected { service, dataplanes, joined_by: Vec::new() });
        }
        let joinable = Joinable::new(set);
        for (index, service) in set.mesh_multi_zone_services.iter().enumerate() {
            let matched = joinable.matched(service);
            let of: Vec<usize> = matched
                .iter()
                .filter_map(|other| places.get(&(&*other.meta.mesh, &*other.meta.name)).copied())
                .collect();
            for place in &of {
                self.mesh_services[*place].joined_by.push(index);
            }
            self.multi_zone.push(Joined { service: service.clone(), of });
        }
    }

    /// Adds to `touched` what a Dataplane offers. `None`: more may depend on it.
    pub(super) fn touch(&self, dataplane: &Dataplane, touched: &mut Touched) -> Option<()> {
        touched.services.extend(services_of(dataplane));
        if self.mesh_services.is_empty() {
            return Some(());
        }
        let meta = &dataplane.meta;
        if self.by_name.contains(&(meta.mesh.clone(), meta.name.clone())) {
            return None;
        }
        for place in self.selecting(dataplane) {
            touched.mesh_services.insert(place);
            touched.multi_zone.extend(&self.mesh_services[place].joined_by);
        }
        Some(())
    }

    /// Adds to `touched` what an EndpointSlice is for.
    pub(super) fn touch_slice(&self, slice: &EndpointSlice, touched: &mut Touched) {
        let service = service_of(slice);
        touched.kubernetes.extend(service.filter(|name| self.kubernetes.contains_key(name)));
    }

    /// Adds a Service of Kubernetes to `touched`, if there is one of this name.
    pub(super) fn touch_kubernetes(&self, namespace: &str, name: &str, touched: &mut Touched) {
        let name = (namespace.to_owned(), name.to_owned());
        if self.kubernetes.contains_key(&name) {
            touched.kubernetes.insert(name);
        }
    }

    /// The MeshServices, by their place, that select a Dataplane by tags or labels.
    fn selecting(&self, dataplane: &Dataplane) -> Vec<usize> {
        let pair = |(key, value): (&str, &str)| {
            (dataplane.meta.mesh.clone(), key.to_owned(), value.to_owned())
        };
        let tags = dataplane.inbounds.iter().flat_map(|inbound| &inbound.tags);
        let by_tag = tags.filter_map(|(key, value)| self.by_tag.get(&pair((key, value)))).flatten();
        let by_label =
            labels(&dataplane.meta).filter_map(|label| self.by_label.get(&pair(label))).flatten();
        let mut places: Vec<usize> = by_tag
            .chain(by_label)
            .copied()
            .filter(|place| selects(&self.mesh_services[*place].service.selector, dataplane))
            .collect();
        places.sort_unstable();
        places.dedup();
        places
    }

    /// Forgets a Dataplane.
    pub(super) fn remove(&mut self, dataplane: &Dataplane) {
        for service in services_of(dataplane) {
            if let Some(offered) = self.services.get_mut(&service) {
                remove(&mut offered.dataplanes, dataplane);
                if offered.dataplanes.is_empty() && offered.external.is_empty() {
                    self.services.remove(&service);
                }
            }
        }
        for place in self.selecting(dataplane) {
            remove(&mut self.mesh_services[place].dataplanes, dataplane);
        }
    }

    /// Adds a Dataplane.
    pub(super) fn add(&mut self, dataplane: &Arc<Dataplane>) {
        for service in services_of(dataplane) {
            insert(&mut self.services.entry(service).or_default().dataplanes, dataplane);
        }
        for place in self.selecting(dataplane) {
            insert(&mut self.mesh_services[place].dataplanes, dataplane);
        }
    }

    /// Puts an EndpointSlice in the place of another.
    pub(super) fn exchange_slice(
        &mut self,
        before: Option<&Arc<EndpointSlice>>,
        after: Option<&Arc<EndpointSlice>>,
    ) {
        if let Some((before, service)) = before.and_then(|slice| Some((slice, service_of(slice)?)))
            && let Some(of) = self.slices.get_mut(&service)
        {
            of.retain(|other| other.meta.name != before.meta.name);
        }
        if let Some((after, service)) = after.and_then(|slice| Some((slice, service_of(slice)?))) {
            self.slices.entry(service).or_default().push(after.clone());
        }
    }

    /// All that the endpoints of what is touched come from, and some more.
    pub(super) fn set_of(&self, touched: &Touched) -> PolicySet {
        let mut set = PolicySet::default();
        let mut dataplanes: BTreeMap<(&str, &str), &Arc<Dataplane>> = BTreeMap::new();
        fn named(dataplane: &Arc<Dataplane>) -> ((&str, &str), &Arc<Dataplane>) {
            ((&dataplane.meta.mesh, &dataplane.meta.name), dataplane)
        }
        for offered in touched.services.iter().filter_map(|service| self.services.get(service)) {
            dataplanes.extend(offered.dataplanes.iter().map(named));
            set.external_services.extend(offered.external.iter().cloned());
        }
        let joined = touched.multi_zone.iter().flat_map(|place| &self.multi_zone[*place].of);
        let mesh_services: BTreeSet<usize> =
            touched.mesh_services.iter().chain(joined).copied().collect();
        for place in mesh_services {
            let selected = &self.mesh_services[place];
            dataplanes.extend(selected.dataplanes.iter().map(named));
            set.mesh_services.push_back(selected.service.clone());
        }
        for place in &touched.multi_zone {
            set.mesh_multi_zone_services.push_back(self.multi_zone[*place].service.clone());
        }
        for place in &touched.external {
            set.mesh_external_services.push_back(self.external[*place].clone());
        }
        for name in &touched.kubernetes {
            set.services.extend(self.kubernetes.get(name).cloned());
            set.endpoint_slices.extend(self.slices.get(name).into_iter().flatten().cloned());
        }
        set.dataplanes = dataplanes.into_values().cloned().collect();
        set
    }

    /// Every destination that is touched.
    pub(super) fn destinations(&self, touched: &Touched) -> BTreeSet<Destination> {
        let mut destinations = touched.services.clone();
        for place in &touched.mesh_services {
            let service = &self.mesh_services[*place].service;
            let (meta, kind) = (&service.meta, ServiceKind::MeshService);
            let ports = service.ports.iter();
            destinations
                .extend(ports.map(|p| Destination::port(&meta.mesh, kind, &meta.name, p.port)));
        }
        for place in &touched.multi_zone {
            let service = &self.multi_zone[*place].service;
            let (meta, kind) = (&service.meta, ServiceKind::MeshMultiZoneService);
            let ports = service.ports.iter();
            destinations
                .extend(ports.map(|p| Destination::port(&meta.mesh, kind, &meta.name, p.port)));
        }
        for name in &touched.kubernetes {
            if let Some(service) = self.kubernetes.get(name) {
                let ports = service.ports.iter();
                destinations
                    .extend(ports.filter_map(|port| kubernetes::destination(service, port)));
            }
        }
        destinations
    }

    /// The MeshServices that are touched, each with what it selects.
    pub(super) fn selected<'o>(
        &'o self,
        touched: &'o Touched,
    ) -> impl Iterator<Item = (&'o MeshService, Vec<&'o Dataplane>)> {
        touched.mesh_services.iter().map(|place| {
            let selected = &self.mesh_services[*place];
            (&*selected.service, selected.dataplanes.iter().map(Arc::as_ref).collect())
        })
    }
}

/// The services by their tag that a Dataplane is of, be it without endpoints.
fn services_of(dataplane: &Dataplane) -> BTreeSet<Destination> {
    let inbounds = dataplane.inbounds.iter().map(|inbound| &inbound.tags);
    let named = inbounds.chain(&dataplane.gateway).filter_map(|tags| tags.get(SERVICE_TAG));
    named.map(|service| Destination::tags(&dataplane.meta.mesh, service)).collect()
}

/// The places of those that are meant.
fn places<'m>(
    all: impl Iterator<Item = &'m Meta>,
    meant: impl Fn(&Meta) -> bool,
) -> impl Iterator<Item = usize> {
    all.enumerate().filter(move |(_, meta)| meant(meta)).map(|(place, _)| place)
}

fn service_of(slice: &EndpointSlice) -> Option<ServiceName> {
    Some((slice.meta.namespace.clone()?, slice.service.clone()?))
}

fn insert(dataplanes: &mut Vec<Arc<Dataplane>>, dataplane: &Arc<Dataplane>) {
    match dataplanes.binary_search_by(|other| other.meta.name.cmp(&dataplane.meta.name)) {
        Ok(place) => dataplanes[place] = dataplane.clone(),
        Err(place) => dataplanes.insert(place, dataplane.clone()),
    }
}

fn remove(dataplanes: &mut Vec<Arc<Dataplane>>, dataplane: &Dataplane) {
    if let Ok(place) =
        dataplanes.binary_search_by(|other| other.meta.name.cmp(&dataplane.meta.name))
    {
        dataplanes.remove(place);
    }
}
