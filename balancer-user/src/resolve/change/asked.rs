//! What findings depend on: whom policies ask for which endpoints.

use std::collections::{BTreeMap, BTreeSet};

use super::super::{
    Destination,
    check::{self, mesh_service, not_http, subset},
    findings::Findings,
    inventory::{Endpoint, Inventory, MESH_TAG},
    names::Names,
    selection::ANY,
    split::{http_splits, outer_split},
};
use crate::policy::{
    BackendRef, BackendTarget, Dataplane, Diagnostic, MeshHttpRoute, MeshService, MeshTcpRoute,
    Meta, PolicySet, SERVICE_TAG, Tags, TrafficRoute, http_route::RouteFilter,
};

/// What policies ask of services by their tag.
#[derive(Debug, Default)]
pub(super) struct Asked {
    /// The tags that endpoints must have, for each share that takes connections.
    subsets: BTreeMap<Destination, BTreeSet<Tags>>,
    /// Destinations of TrafficRoutes with an http section.
    http: BTreeSet<Destination>,
}

impl Asked {
    pub(super) fn new(set: &PolicySet) -> Self {
        let mut asked = Self::default();
        set.traffic_routes.iter().for_each(|route| asked.traffic_route(route));
        set.mesh_tcp_routes.iter().for_each(|policy| asked.mesh_tcp_route(policy));
        set.mesh_http_routes.iter().for_each(|policy| asked.mesh_http_route(policy));
        asked
    }

    /// Adds what a TrafficRoute asks for.
    pub(super) fn traffic_route(&mut self, route: &TrafficRoute) {
        let mesh = &route.meta.mesh;
        let shares = outer_split(&route.conf).iter().chain(http_splits(&route.conf));
        for entry in shares.filter(|entry| entry.weight > 0) {
            let Some(name) = entry.destination.get(SERVICE_TAG) else { continue };
            let of_endpoints = |(key, value): &(&String, &String)| {
                *key != SERVICE_TAG && *key != MESH_TAG && *value != ANY
            };
            let tags = entry.destination.iter().filter(of_endpoints);
            let tags = tags.map(|(key, value)| (key.clone(), value.clone())).collect();
            self.ask(mesh, name, tags);
        }
        if !route.conf.http.is_empty() {
            self.http.extend(route.destinations.iter().map(|name| Destination::tags(mesh, name)));
        }
    }

    /// Adds what a MeshTCPRoute asks for.
    pub(super) fn mesh_tcp_route(&mut self, policy: &MeshTcpRoute) {
        let mesh = &policy.meta.mesh;
        let backends = policy.to.iter().flat_map(|to| &to.rule).flat_map(|rule| &rule.backends);
        backends.filter(|backend| backend.weight > 0).for_each(|one| self.backend(mesh, one));
    }

    /// Adds what a MeshHTTPRoute asks for.
    pub(super) fn mesh_http_route(&mut self, policy: &MeshHttpRoute) {
        let mesh = &policy.meta.mesh;
        for rule in policy.to.iter().flat_map(|to| &to.rules) {
            let backends = rule.backends.iter().flatten();
            backends.filter(|backend| backend.weight > 0).for_each(|one| self.backend(mesh, one));
            for filter in rule.filters.iter().flatten() {
                if let RouteFilter::Mirror(mirror) = &filter.value {
                    self.backend(mesh, &mirror.backend);
                }
            }
        }
    }

    fn backend(&mut self, mesh: &str, backend: &BackendRef) {
        match &backend.target {
            BackendTarget::Subset { name, tags } => self.ask(mesh, name, tags.clone()),
            BackendTarget::Service(reference) => {
                if let Some(name) = reference.tag_service() {
                    self.ask(mesh, name, Tags::new());
                }
            }
        }
    }

    fn ask(&mut self, mesh: &str, service: &str, tags: Tags) {
        self.subsets.entry(Destination::tags(mesh, service)).or_default().insert(tags);
    }

    /// Whether findings, VIPs and protocols see no difference between a destination before and
    /// after: it is there in both, with endpoints of the same families and ports.
    pub(super) fn sees_none(
        &self,
        before: &Inventory<'_>,
        after: &Inventory<'_>,
        destination: &Destination,
    ) -> bool {
        let (Some(old), Some(new)) = (before.endpoints(destination), after.endpoints(destination))
        else {
            return false;
        };
        let ready = |endpoints: &[Endpoint<'_>]| endpoints.iter().any(|endpoint| endpoint.ready);
        if old.has_endpoints() != new.has_endpoints()
            || old.waiting != new.waiting
            || ready(&old.endpoints) != ready(&new.endpoints)
            || old.families() != new.families()
            || old.ports() != new.ports()
            || old.protocol() != new.protocol()
        {
            return false;
        }
        let Destination::Tags { mesh, service } = destination else { return true };
        let same_subsets = self.subsets.get(destination).into_iter().flatten().all(|tags| {
            let says = |inventory| subset(inventory, mesh, service, tags, ("", ""));
            says(before) == says(after)
        });
        let http = |inventory| not_http(mesh, service, inventory);
        same_subsets && (!self.http.contains(destination) || http(before) == http(after))
    }
}

/// What there is to say about a Dataplane by itself.
pub(super) fn says_nothing(set: &PolicySet, dataplane: &Dataplane, names: &Names) -> bool {
    let mut findings = Findings::new(set, names);
    check::dataplanes(&[dataplane], names, &mut findings);
    findings.into_sorted().is_empty()
}

/// What there is to say about MeshServices and what they select.
pub(super) fn of_mesh_services<'s>(
    set: &PolicySet,
    names: &Names,
    services: impl Iterator<Item = (&'s MeshService, Vec<&'s Dataplane>)>,
) -> Vec<(Meta, Diagnostic)> {
    let mut findings = Findings::new(set, names);
    for (service, selected) in services {
        mesh_service(service, &selected, set, &mut findings);
    }
    findings.into_sorted()
}
