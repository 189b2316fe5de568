//! What the backends of a rule are (semantics 4.3), and the route that an item gives.

use super::{
    super::{
        Backend, BackendState, Decision, Destination, PolicyRef, Route, inventory::Inventory,
        objects::Objects, split::Place,
    },
    Item,
    speaks::{self, Nowhere},
};
use crate::policy::{BackendRef, BackendTarget, LoadBalancer, Meta, ServiceRef, Tags};

/// A MeshService by name alone is a value of `kuma.io/service` first of all, and the object of
/// that name where nobody has the tag; everything else is an object.
pub(super) fn service(
    reference: &ServiceRef,
    policy: &Meta,
    objects: &Objects<'_>,
    inventory: &Inventory<'_>,
) -> Result<Destination, Nowhere> {
    let mesh = policy.mesh.as_str();
    let by_tag = reference.tag_service().map(|service| Destination::tags(mesh, service));
    if let Some(by_tag) = by_tag.as_ref().filter(|by_tag| inventory.endpoints(by_tag).is_some()) {
        return Ok(by_tag.clone());
    }
    let Some(object) = objects.meant(reference, policy) else {
        return by_tag.ok_or(Nowhere::NoObject);
    };
    let name = &object.meta.name;
    match object.port_of(reference) {
        Ok(port) => Ok(Destination::port(mesh, reference.kind, name, port)),
        Err(no_port) => Err(Nowhere::NoPort(name.clone(), no_port, object.port_names())),
    }
}

/// What a reference that names nothing is called: `backend:6379`, `app=backend:redis`.
fn missing(reference: &ServiceRef, mesh: &str) -> Destination {
    let name = speaks::written(&reference.by);
    let port = reference.section.clone().or_else(|| Some(reference.port?.to_string()));
    let text = port.map_or_else(|| name.clone(), |port| format!("{name}:{port}"));
    Destination::Missing { mesh: mesh.into(), kind: reference.kind, reference: text.into() }
}

/// Where an item leads: the backends that take connections and are there.
pub(in crate::resolve) fn leads_to(
    item: &Item<'_>,
    objects: &Objects<'_>,
    inventory: &Inventory<'_>,
) -> Vec<Destination> {
    let meta = &item.policy.meta;
    let backends = item.to().rule.iter().flat_map(|rule| &rule.backends);
    let taking = backends.filter(|backend| backend.weight > 0);
    taking
        .filter_map(|backend| match &backend.target {
            BackendTarget::Subset { name, .. } => Some(Destination::tags(&meta.mesh, name)),
            BackendTarget::Service(reference) => service(reference, meta, objects, inventory).ok(),
        })
        .collect()
}

impl Place<'_> {
    /// The route that an item of a MeshTCPRoute gives to connections to `called`. Backends that
    /// name nothing keep their share, which is refused (decision D10); where no weight is left,
    /// connections are.
    pub fn mesh_tcp_route(
        &self,
        item: &Item<'_>,
        objects: &Objects<'_>,
        called: &Destination,
    ) -> Route {
        let meta = &item.policy.meta;
        let backends: Vec<Backend> = match &item.to().rule {
            None => vec![self.backend_of(1, called.clone(), Tags::new())],
            Some(rule) => {
                rule.backends.iter().map(|backend| self.written(backend, meta, objects)).collect()
            }
        };
        let closed = backends.iter().all(|backend| backend.weight == 0);
        Route {
            policy: Some(PolicyRef::of(meta)),
            decision: if closed { Decision::Reject } else { Decision::Forward },
            load_balancer: LoadBalancer::RoundRobin,
            backends,
            http: None,
        }
    }

    fn written(&self, backend: &BackendRef, meta: &Meta, objects: &Objects<'_>) -> Backend {
        let weight = backend.weight;
        let reference = match &backend.target {
            BackendTarget::Service(reference) => reference,
            BackendTarget::Subset { name, tags } => {
                let destination = Destination::tags(&meta.mesh, name);
                return self.backend_of(weight, destination, tags.clone());
            }
        };
        match service(reference, meta, objects, self.inventory) {
            Ok(destination) => self.backend_of(weight, destination, Tags::new()),
            Err(_) => Backend {
                destination: missing(reference, &meta.mesh),
                tags: Tags::new(),
                weight,
                state: if weight == 0 { BackendState::Drained } else { BackendState::Invalid },
                reals: Vec::new(),
            },
        }
    }
}
