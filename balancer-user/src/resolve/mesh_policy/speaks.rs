//! What an item of `to` speaks of (semantics 4.3, 4.6).

use std::num::NonZeroU16;

use super::{
    super::{
        Destination,
        objects::{NoPort, Objects, kubernetes_name},
    },
    Item, Spoken, ToPolicy,
};
use crate::policy::{ReferredBy, ServiceKind};

/// What is dialled, as items name it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Key {
    /// Everything.
    Mesh,
    /// Requests that certain MeshHTTPRoutes take, whatever is dialled.
    HttpRoutes,
    /// A value of `kuma.io/service`.
    Tags(String),
    /// Every port of an object.
    Whole(ServiceKind, String),
    /// A port of an object.
    Port(ServiceKind, String, NonZeroU16),
}

/// What connections to `called` are looked up by: its port, the object that has it, and that it
/// is something of the mesh.
pub(super) fn keys_of(called: &Destination) -> Vec<Key> {
    match called {
        Destination::Tags { service, .. } => vec![Key::Tags(service.to_string()), Key::Mesh],
        Destination::Port { kind, name, port, .. } => vec![
            Key::Port(*kind, name.to_string(), *port),
            Key::Whole(*kind, name.to_string()),
            Key::Mesh,
        ],
        _ => Vec::new(),
    }
}

/// What an item speaks of. By labels it may be several objects; a MeshService by name alone is
/// both a value of `kuma.io/service` and the object of that name.
pub(super) fn keys<P: ToPolicy>(item: &Item<'_, P>, objects: &Objects<'_>) -> Vec<Key> {
    let to = match item.spoken() {
        Spoken::Mesh => return vec![Key::Mesh],
        Spoken::HttpRoute(_) => return vec![Key::HttpRoutes],
        Spoken::Service(to) => to,
    };
    let meta = item.meta();
    let mut keys = Vec::new();
    for object in objects.all_meant(to, meta) {
        let name = object.meta.name.clone();
        match &to.section {
            None => keys.push(Key::Whole(to.kind, name)),
            Some(section) => {
                keys.extend(object.section(section).map(|port| Key::Port(to.kind, name, port)));
            }
        }
    }
    if let Some(service) = to.tag_service() {
        keys.push(Key::Tags(service.to_owned()));
        let port = kubernetes_name(service).and_then(|(name, namespace, port)| {
            let object = objects.identified(&meta.mesh, to.kind, Some(namespace), name)?;
            let port = object.section(&port.to_string())?;
            Some(Key::Port(to.kind, object.meta.name.clone(), port))
        });
        keys.extend(port);
    }
    keys
}

/// Whether an item names an object that is there, be it by the name that Kubernetes gave it.
pub(in crate::resolve) fn names_object<P: ToPolicy>(
    item: &Item<'_, P>,
    objects: &Objects<'_>,
) -> bool {
    keys(item, objects).iter().any(|key| matches!(key, Key::Whole(..) | Key::Port(..)))
}

/// Why a reference names nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::resolve) enum Nowhere {
    /// There is no such object.
    NoObject,
    /// The object of this name has no such port, or several to choose from; it has these.
    NoPort(String, NoPort, Vec<String>),
}

/// Whether an item speaks of nothing that is there. A value of `kuma.io/service` is taken at its
/// word: it may be dialled without anybody offering it.
pub(in crate::resolve) fn nowhere<P: ToPolicy>(
    item: &Item<'_, P>,
    objects: &Objects<'_>,
) -> Option<Nowhere> {
    let Spoken::Service(to) = item.spoken() else { return None };
    if !keys(item, objects).is_empty() {
        return None;
    }
    let there = objects.meant(to, item.meta()).zip(to.section.as_ref());
    Some(there.map_or(Nowhere::NoObject, |(object, section)| {
        let no_port = NoPort::Unknown(section.clone());
        Nowhere::NoPort(object.meta.name.clone(), no_port, object.port_names())
    }))
}

/// How a reference says which object it means, for people: `backend`, `backend of namespace
/// shop`, `app=backend`.
pub(in crate::resolve) fn written(by: &ReferredBy) -> String {
    match by {
        ReferredBy::Name { name, namespace: None } => name.clone(),
        ReferredBy::Name { name, namespace: Some(namespace) } => {
            format!("{name} of namespace {namespace}")
        }
        ReferredBy::Labels(labels) => super::super::tags_text(labels),
    }
}
