//! Ports of objects that stand for services: which inbounds a MeshService means (semantics 2.6),
//! which MeshServices a MeshMultiZoneService joins (2.8), where a MeshExternalService leads
//! (2.7).

use std::collections::{BTreeMap, BTreeSet};

use super::{
    super::{Destination, Names, ResolveSettings, objects::has_labels},
    Endpoint, Inventory, NO_TAGS, Protocol, Service,
    workloads::{Dialled, addresses, dialled_host, endpoint_addresses, outside_name, unanswered},
};
use crate::policy::{
    Dataplane, DataplaneSelector, Inbound, MeshExternalService, MeshMultiZoneService, MeshService,
    PolicySet, ServiceKind, ServicePort, Tags, TargetPort, ZONE_TAG,
};

impl<'a> Inventory<'a> {
    /// Adds every port of an object of a mesh that stands for a service.
    pub(super) fn add_mesh_objects(&mut self, set: &'a PolicySet, settings: &ResolveSettings) {
        let dataplanes = Selectable::new(set);
        for service in &set.mesh_services {
            let selected = dataplanes.selected(service);
            for port in &service.ports {
                let found = mesh_service_port(port, &selected, &settings.names);
                // Of two ports of one number, told apart by their protocols, the first counts.
                self.objects.entry(destination(service, port)).or_insert(found);
            }
        }
        for service in &set.mesh_external_services {
            let (mesh, kind) = (&service.meta.mesh, ServiceKind::MeshExternalService);
            let port = Destination::port(mesh, kind, &service.meta.name, service.port);
            self.objects.insert(port, external_port(service, settings));
        }
        let of_zones = Joinable::new(set);
        for service in &set.mesh_multi_zone_services {
            let joined = of_zones.joined(service, settings.zone.as_deref());
            for port in &service.ports {
                let found = multi_zone_port(port, &joined, &self.objects);
                let (mesh, kind) = (&service.meta.mesh, ServiceKind::MeshMultiZoneService);
                let port = Destination::port(mesh, kind, &service.meta.name, port.port);
                self.objects.entry(port).or_insert(found);
            }
        }
    }
}

fn destination(service: &MeshService, port: &ServicePort) -> Destination {
    let (mesh, kind) = (&service.meta.mesh, ServiceKind::MeshService);
    Destination::port(mesh, kind, &service.meta.name, port.port)
}

/// A port of a MeshService that selects these Dataplanes: every inbound that it targets, also one
/// that has not the tags by which another inbound selects the Dataplane.
fn mesh_service_port<'a>(
    port: &ServicePort,
    selected: &[&'a Dataplane],
    names: &Names,
) -> Service<'a> {
    let mut service = declaring(&port.protocol);
    for dataplane in selected {
        let zone = dataplane.meta.labels.get(ZONE_TAG).map(String::as_str);
        for inbound in dataplane.inbounds.iter().filter(|inbound| targets(port, inbound)) {
            let port = inbound.port.get();
            service.waiting.extend(unanswered(dialled_host(dataplane, inbound), port, names));
            service.endpoints.extend(endpoint_addresses(dataplane, inbound, names).map(|addr| {
                let endpoint = Endpoint::new(addr, &inbound.tags, inbound.ready);
                Endpoint { zone: endpoint.zone.or(zone), ..endpoint }
            }));
        }
    }
    service
}

/// Whether a port leads to an inbound. Without a target it leads to none.
pub(in super::super) fn targets(port: &ServicePort, inbound: &Inbound) -> bool {
    match &port.target {
        Some(TargetPort::Number(number)) => inbound.port == *number,
        Some(TargetPort::Name(name)) => inbound.name.as_ref() == Some(name),
        None => false,
    }
}

fn external_port<'a>(service: &'a MeshExternalService, settings: &ResolveSettings) -> Service<'a> {
    let mut port = declaring(&service.protocol);
    // Where an extension leads is the extension's business.
    if service.extension.is_some() {
        return port;
    }
    let refused = service.tls && !settings.allow_plain;
    for endpoint in &service.endpoints {
        let (priority, number) = (endpoint.priority, endpoint.port.get());
        port.waiting.extend(unanswered(Dialled::Host(&endpoint.address), number, &settings.names));
        let addresses = addresses(Dialled::Host(&endpoint.address), number, &settings.names);
        port.endpoints.extend(addresses.map(|addr| Endpoint {
            priority,
            refused,
            host: outside_name(&endpoint.address),
            ..Endpoint::new(addr, &NO_TAGS, true)
        }));
    }
    port
}

fn multi_zone_port<'a>(
    port: &ServicePort,
    joined: &[&'a MeshService],
    objects: &BTreeMap<Destination, Service<'a>>,
) -> Service<'a> {
    let mut service = declaring(&port.protocol);
    for mesh_service in joined {
        let Some(of_zone) = objects.get(&destination(mesh_service, port)) else { continue };
        service.waiting.extend(&of_zone.waiting);
        let zone = mesh_service.meta.labels.get(ZONE_TAG).map(String::as_str);
        service.endpoints.extend(
            of_zone
                .endpoints
                .iter()
                .map(|endpoint| Endpoint { zone: endpoint.zone.or(zone), ..*endpoint }),
        );
    }
    service
}

fn declaring<'a>(protocol: &str) -> Service<'a> {
    Service { declared: Some(Protocol::parse(Some(protocol))), ..Service::default() }
}

/// Dataplanes, found by what the selectors of a set ask for.
pub(in super::super) struct Selectable<'a> {
    by_name: BTreeMap<(&'a str, &'a str), &'a Dataplane>,
    /// Mesh, key, value → those with an inbound of that tag.
    by_tag: BTreeMap<(&'a str, &'a str, &'a str), Vec<&'a Dataplane>>,
    /// Mesh, key, value → those with that label.
    by_label: BTreeMap<(&'a str, &'a str, &'a str), Vec<&'a Dataplane>>,
}

impl<'a> Selectable<'a> {
    pub(in super::super) fn new(set: &'a PolicySet) -> Self {
        let mut found =
            Self { by_name: BTreeMap::new(), by_tag: BTreeMap::new(), by_label: BTreeMap::new() };
        // What nobody asks for needs no place.
        for service in &set.mesh_services {
            let mesh = service.meta.mesh.as_str();
            let pairs = |tags: &'a Tags| {
                tags.iter().map(move |(key, value)| ((mesh, &**key, &**value), Vec::new()))
            };
            match &service.selector {
                DataplaneSelector::Tags(tags) => found.by_tag.extend(pairs(tags)),
                DataplaneSelector::Labels(labels) => found.by_label.extend(pairs(labels)),
                DataplaneSelector::Name(_) | DataplaneSelector::Nothing => {}
            }
        }
        if set.mesh_services.is_empty() {
            return found;
        }
        for dataplane in &set.dataplanes {
            let mesh = dataplane.meta.mesh.as_str();
            found.by_name.insert((mesh, &dataplane.meta.name), dataplane);
            if !found.by_tag.is_empty() {
                let tags: BTreeSet<(&str, &str)> = dataplane
                    .inbounds
                    .iter()
                    .flat_map(|inbound| &inbound.tags)
                    .map(|(key, value)| (&**key, &**value))
                    .collect();
                for (key, value) in tags {
                    if let Some(having) = found.by_tag.get_mut(&(mesh, key, value)) {
                        having.push(dataplane);
                    }
                }
            }
            if !found.by_label.is_empty() {
                for (key, value) in super::super::objects::labels(&dataplane.meta) {
                    if let Some(having) = found.by_label.get_mut(&(mesh, key, value)) {
                        having.push(dataplane);
                    }
                }
            }
        }
        found
    }

    /// The Dataplanes that a MeshService selects.
    pub(in super::super) fn selected(&self, service: &MeshService) -> Vec<&'a Dataplane> {
        let mesh = service.meta.mesh.as_str();
        match &service.selector {
            DataplaneSelector::Nothing => Vec::new(),
            DataplaneSelector::Name(name) => {
                let namespace = super::super::objects::namespace(&service.meta);
                let inside = namespace.map(|namespace| format!("{name}.{namespace}"));
                let names = std::iter::once(name).chain(&inside);
                names
                    .filter_map(|name| self.by_name.get(&(mesh, name.as_str())))
                    .take(1)
                    .copied()
                    .collect()
            }
            DataplaneSelector::Tags(tags) => rarest(&self.by_tag, mesh, tags)
                .iter()
                .filter(|dataplane| selects(&service.selector, dataplane))
                .copied()
                .collect(),
            DataplaneSelector::Labels(labels) => rarest(&self.by_label, mesh, labels)
                .iter()
                .filter(|dataplane| selects(&service.selector, dataplane))
                .copied()
                .collect(),
        }
    }
}

/// Whether a selector by tags or labels selects a Dataplane of its mesh. Which one a name means
/// is not for one Dataplane to say.
pub(in super::super) fn selects(selector: &DataplaneSelector, dataplane: &Dataplane) -> bool {
    match selector {
        DataplaneSelector::Tags(tags) => dataplane
            .inbounds
            .iter()
            .any(|inbound| tags.iter().all(|(key, value)| inbound.tags.get(key) == Some(value))),
        DataplaneSelector::Labels(labels) => has_labels(&dataplane.meta, labels),
        DataplaneSelector::Name(_) | DataplaneSelector::Nothing => false,
    }
}

/// Whoever has the pair that the fewest have.
fn rarest<'f, T>(
    having: &'f BTreeMap<(&'f str, &'f str, &'f str), Vec<T>>,
    mesh: &'f str,
    wanted: &'f Tags,
) -> &'f [T] {
    wanted
        .iter()
        .map(|(key, value)| {
            having.get(&(mesh, key.as_str(), value.as_str())).map_or(&[][..], Vec::as_slice)
        })
        .min_by_key(|having| having.len())
        .unwrap_or_default()
}

/// MeshServices, found by the labels that MeshMultiZoneServices ask for.
pub(in super::super) struct Joinable<'a> {
    by_label: BTreeMap<(&'a str, &'a str, &'a str), Vec<&'a MeshService>>,
}

impl<'a> Joinable<'a> {
    pub(in super::super) fn new(set: &'a PolicySet) -> Self {
        let mut by_label: BTreeMap<_, Vec<&'a MeshService>> = BTreeMap::new();
        if !set.mesh_multi_zone_services.is_empty() {
            for service in &set.mesh_services {
                let mesh = service.meta.mesh.as_str();
                for (key, value) in super::super::objects::labels(&service.meta) {
                    by_label.entry((mesh, key, value)).or_default().push(service);
                }
            }
        }
        Self { by_label }
    }

    /// The MeshServices with all labels, available or not.
    pub(in super::super) fn matched(&self, service: &MeshMultiZoneService) -> Vec<&'a MeshService> {
        let wanted = &service.match_labels;
        rarest(&self.by_label, &service.meta.mesh, wanted)
            .iter()
            .filter(|other| has_labels(&other.meta, wanted))
            .copied()
            .collect()
    }

    /// Those that it joins on a node of this zone: a remote one only while it is available.
    fn joined(&self, service: &MeshMultiZoneService, zone: Option<&str>) -> Vec<&'a MeshService> {
        let mut joined = self.matched(service);
        joined.retain(|other| {
            let theirs = other.meta.labels.get(ZONE_TAG).map(String::as_str);
            let remote = zone.zip(theirs).is_some_and(|(ours, theirs)| ours != theirs);
            !remote || other.available
        });
        joined
    }
}
