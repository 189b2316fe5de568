//! Objects that stand for services, found as references name them (semantics 4.2, 4.3).

use std::{collections::BTreeMap, num::NonZeroU16};

use crate::policy::{Meta, PolicySet, ReferredBy, ServiceKind, ServicePort, ServiceRef, Tags};

/// The label that gives an object's namespace where its document is Universal; of workloads it
/// can be a tag too.
pub const NAMESPACE_LABEL: &str = "k8s.kuma.io/namespace";
/// The label that gives the name by which people know an object.
const DISPLAY_NAME_LABEL: &str = "kuma.io/display-name";

/// The namespace that a Kuma object is of. One that was copied from another zone stands in the
/// system's namespace, and a label says where it is from.
pub fn namespace(meta: &Meta) -> Option<&str> {
    meta.labels.get(NAMESPACE_LABEL).or(meta.namespace.as_ref()).map(String::as_str)
}

/// The name of a Kuma object inside its namespace.
pub fn plain_name(meta: &Meta) -> &str {
    if let Some(name) = meta.labels.get(DISPLAY_NAME_LABEL) {
        return name;
    }
    let in_namespace = meta.namespace.as_ref().and_then(|namespace| {
        meta.name.strip_suffix(namespace.as_str()).and_then(|name| name.strip_suffix('.'))
    });
    in_namespace.unwrap_or(&meta.name)
}

/// A label, be it one that a control plane would have added.
pub fn label<'m>(meta: &'m Meta, key: &str) -> Option<&'m str> {
    match key {
        NAMESPACE_LABEL => namespace(meta),
        DISPLAY_NAME_LABEL => Some(plain_name(meta)),
        "kuma.io/mesh" => Some(meta.labels.get(key).unwrap_or(&meta.mesh)),
        _ => meta.labels.get(key).map(String::as_str),
    }
}

/// Whether an object has all these labels.
pub fn has_labels(meta: &Meta, wanted: &Tags) -> bool {
    wanted.iter().all(|(key, value)| label(meta, key) == Some(value))
}

/// All labels of an object, those that a control plane would have added too.
pub(super) fn labels(meta: &Meta) -> impl Iterator<Item = (&str, &str)> {
    let added = [NAMESPACE_LABEL, DISPLAY_NAME_LABEL, "kuma.io/mesh"];
    let written = meta.labels.keys().map(String::as_str).filter(move |key| !added.contains(key));
    written.chain(added).filter_map(|key| Some((key, label(meta, key)?)))
}

/// An object that stands for a service.
#[derive(Clone, Debug, PartialEq)]
pub struct Object<'a> {
    /// What it is.
    pub kind: ServiceKind,
    /// Its identity.
    pub meta: &'a Meta,
    /// Its ports in written order.
    pub ports: Vec<Port<'a>>,
}

/// A port of an object that clients dial.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Port<'a> {
    /// Its number.
    pub number: NonZeroU16,
    /// Its name; a section may mean it by the number too.
    pub name: Option<&'a str>,
    /// What is spoken there, in lower case.
    pub protocol: &'a str,
}

impl Object<'_> {
    /// The port that a section names: by name first, else by number.
    pub fn section(&self, section: &str) -> Option<NonZeroU16> {
        let named = self.ports.iter().find(|port| port.name == Some(section));
        let by_number = || self.ports.iter().find(|port| port.number.to_string() == section);
        named.or_else(by_number).map(|port| port.number)
    }

    /// The port that a reference means. Without section and port it is the only one.
    pub fn port_of(&self, reference: &ServiceRef) -> Result<NonZeroU16, NoPort> {
        if let Some(section) = &reference.section {
            return self.section(section).ok_or_else(|| NoPort::Unknown(section.clone()));
        }
        if let Some(port) = reference.port {
            let numbered = self.ports.iter().find(|other| other.number == port);
            let text = port.to_string();
            let found = numbered.map(|port| port.number).or_else(|| self.section(&text));
            return found.ok_or(NoPort::Unknown(text));
        }
        match self.ports.as_slice() {
            [only] => Ok(only.number),
            ports => Err(NoPort::Which(ports.len())),
        }
    }

    /// How references may name its ports.
    pub fn port_names(&self) -> Vec<String> {
        let name = |port: &Port<'_>| match port.name {
            Some(name) => format!("{name} ({})", port.number),
            None => port.number.to_string(),
        };
        self.ports.iter().map(name).collect()
    }
}

/// Why a reference means no port of an object that is there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NoPort {
    /// It names one that the object has not.
    Unknown(String),
    /// It names none, and the object has this many.
    Which(usize),
}

/// Every MeshService, MeshExternalService and MeshMultiZoneService.
#[derive(Debug, Default)]
pub struct Objects<'a> {
    /// Sorted by (mesh, kind, name).
    all: Vec<Object<'a>>,
    /// Mesh, kind and internal name.
    by_name: BTreeMap<(&'a str, ServiceKind, &'a str), usize>,
    /// Mesh, kind, namespace and the name there. A valid set may have several: the first counts.
    by_identity: BTreeMap<(&'a str, ServiceKind, Option<&'a str>, &'a str), usize>,
    /// Mesh, kind, label.
    by_label: BTreeMap<(&'a str, ServiceKind, &'a str, &'a str), Vec<usize>>,
}

impl<'a> Objects<'a> {
    /// The objects of `set`, whatever its order.
    pub fn new(set: &'a PolicySet) -> Self {
        let of = |kind, meta, ports: &'a [ServicePort]| {
            let port = |port: &'a ServicePort| Port {
                number: port.port,
                name: port.name.as_deref(),
                protocol: &port.protocol,
            };
            Object { kind, meta, ports: ports.iter().map(port).collect() }
        };
        let mesh_services = set
            .mesh_services
            .iter()
            .map(|service| of(ServiceKind::MeshService, &service.meta, &service.ports));
        let multi_zone = set
            .mesh_multi_zone_services
            .iter()
            .map(|service| of(ServiceKind::MeshMultiZoneService, &service.meta, &service.ports));
        let external = set.mesh_external_services.iter().map(|service| Object {
            kind: ServiceKind::MeshExternalService,
            meta: &service.meta,
            ports: vec![Port { number: service.port, name: None, protocol: &service.protocol }],
        });
        let mut all: Vec<Object<'a>> = mesh_services.chain(multi_zone).chain(external).collect();
        all.sort_by_key(|object| (&object.meta.mesh, object.kind, &object.meta.name));
        let mut objects = Self { all, ..Self::default() };
        for (index, object) in objects.all.iter().enumerate() {
            let (meta, kind) = (object.meta, object.kind);
            let mesh = meta.mesh.as_str();
            objects.by_name.insert((mesh, kind, meta.name.as_str()), index);
            let identity = (mesh, kind, namespace(meta), plain_name(meta));
            objects.by_identity.entry(identity).or_insert(index);
            for (key, value) in labels(meta) {
                objects.by_label.entry((mesh, kind, key, value)).or_default().push(index);
            }
        }
        objects
    }

    /// All of a mesh, sorted by kind and name.
    pub fn of_mesh(&self, mesh: &str) -> impl Iterator<Item = &Object<'a>> {
        let from = self.all.partition_point(|object| object.meta.mesh.as_str() < mesh);
        self.all[from..].iter().take_while(move |object| object.meta.mesh == mesh)
    }

    /// The object with this internal name.
    pub fn named(&self, mesh: &str, kind: ServiceKind, name: &str) -> Option<&Object<'a>> {
        self.by_name.get(&(mesh, kind, name)).map(|index| &self.all[*index])
    }

    /// The object with this name in this namespace.
    pub fn identified(
        &self,
        mesh: &str,
        kind: ServiceKind,
        namespace: Option<&str>,
        name: &str,
    ) -> Option<&Object<'a>> {
        self.by_identity.get(&(mesh, kind, namespace, name)).map(|index| &self.all[*index])
    }

    /// Every object that a reference of `referrer` means, sorted by name. Several only by labels.
    pub fn all_meant(&self, reference: &ServiceRef, referrer: &Meta) -> Vec<&Object<'a>> {
        let (mesh, kind) = (referrer.mesh.as_str(), reference.kind);
        match &reference.by {
            ReferredBy::Name { name, namespace: given } => {
                let inside = given.as_deref().or_else(|| namespace(referrer));
                let identified = self.identified(mesh, kind, inside, name);
                let found = identified.or_else(|| match inside {
                    Some(inside) => self.named(mesh, kind, &format!("{name}.{inside}")),
                    None => self.named(mesh, kind, name),
                });
                found.into_iter().collect()
            }
            ReferredBy::Labels(wanted) => self.labelled(mesh, kind, &pinned(wanted, referrer)),
        }
    }

    /// The object that a reference of `referrer` means; of several with these labels the oldest,
    /// one without a creation time being older than any that has one, then the first by name.
    pub fn meant(&self, reference: &ServiceRef, referrer: &Meta) -> Option<&Object<'a>> {
        let age = |object: &Object<'_>| object.meta.created.unwrap_or(f64::NEG_INFINITY);
        let all = self.all_meant(reference, referrer);
        all.into_iter()
            .min_by(|a, b| age(a).total_cmp(&age(b)).then_with(|| a.meta.name.cmp(&b.meta.name)))
    }

    fn labelled(&self, mesh: &str, kind: ServiceKind, wanted: &Tags) -> Vec<&Object<'a>> {
        let mut rarest: Option<&Vec<usize>> = None;
        for (key, value) in wanted {
            let Some(having) = self.by_label.get(&(mesh, kind, key.as_str(), value.as_str()))
            else {
                return Vec::new();
            };
            rarest =
                Some(rarest.map_or(having, |other| {
                    if having.len() < other.len() { having } else { other }
                }));
        }
        let candidates = rarest.into_iter().flatten().map(|index| &self.all[*index]);
        candidates.filter(|object| has_labels(object.meta, wanted)).collect()
    }
}

/// Labels that a reference asks for: a display name is one of the referrer's own namespace where
/// nothing else is said (semantics 4.2). A policy of the system's namespace has no services there.
fn pinned(wanted: &Tags, referrer: &Meta) -> Tags {
    let mut wanted = wanted.clone();
    let system = referrer.labels.get("kuma.io/policy-role").is_some_and(|role| role == "system");
    if let Some(own) = namespace(referrer)
        && wanted.contains_key(DISPLAY_NAME_LABEL)
        && !system
        && own != super::SYSTEM_NAMESPACE
    {
        wanted.entry(NAMESPACE_LABEL.to_owned()).or_insert_with(|| own.to_owned());
    }
    wanted
}

/// The parts of a name as Kubernetes gave it to a service: `redis_shop_svc_6379` is port 6379 of
/// `redis` in namespace `shop`.
pub fn kubernetes_name(service: &str) -> Option<(&str, &str, NonZeroU16)> {
    let parts: Vec<&str> = service.split('_').collect();
    let [name, namespace, "svc", port] = parts[..] else { return None };
    let digits = port.bytes().all(|byte| byte.is_ascii_digit());
    Some((name, namespace, port.parse().ok().filter(|_| digits)?))
}
