//! What references of policies lead to (semantics 4.3).

use super::{
    super::{Destination, inventory::Inventory, objects::Objects},
    speaks::{self, Nowhere},
};
use crate::policy::{BackendTarget, Meta, ServiceRef, Tags};

/// A MeshService by name alone is a value of `kuma.io/service` first of all, and the object of
/// that name where nobody has the tag; everything else is an object.
pub(in crate::resolve) fn service(
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

/// What a backend of a policy is: the destination, and the tags that its endpoints must have. One
/// that names nothing is [`Destination::Missing`].
pub(in crate::resolve) fn led_to(
    target: &BackendTarget,
    policy: &Meta,
    objects: &Objects<'_>,
    inventory: &Inventory<'_>,
) -> (Destination, Tags) {
    match target {
        BackendTarget::Subset { name, tags } => {
            (Destination::tags(&policy.mesh, name), tags.clone())
        }
        BackendTarget::Service(reference) => {
            let found = service(reference, policy, objects, inventory);
            let missing = |_| missing(reference, &policy.mesh);
            (found.unwrap_or_else(missing), Tags::new())
        }
    }
}
