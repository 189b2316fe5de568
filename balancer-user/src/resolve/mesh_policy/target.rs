//! Whose connections a policy concerns: `spec.targetRef` against workloads (semantics 4.2,
//! decision D1).

use super::{
    super::{
        objects::{has_labels, namespace, plain_name},
        selection::unknown_source,
    },
    ToPolicy,
    order::{Origin, Role, role},
};
use crate::policy::{Dataplane, Meta, Proxies, ReferredBy, RouteTarget, SERVICE_TAG, Tags};

/// One who opens connections, as policies see it. A workload is as many of these as Dataplanes
/// have its address.
#[derive(Clone, Debug, PartialEq)]
pub struct Proxy<'a> {
    /// Tags of each inbound, whatever its state, or those of the gateway.
    pub tag_sets: Vec<Tags>,
    /// It is a gateway.
    pub gateway: bool,
    /// The Dataplane's identity; `None` for one that is known by its tags alone.
    pub meta: Option<&'a Meta>,
}

impl<'a> Proxy<'a> {
    /// A Dataplane.
    pub fn of(dataplane: &'a Dataplane) -> Self {
        let inbounds = dataplane.inbounds.iter().map(|inbound| &inbound.tags);
        Self {
            tag_sets: inbounds.chain(&dataplane.gateway).cloned().collect(),
            gateway: dataplane.gateway.is_some(),
            meta: Some(&dataplane.meta),
        }
    }

    /// A workload with these tags and nothing else.
    pub fn tagged(tag_sets: Vec<Tags>) -> Self {
        Self { tag_sets, gateway: false, meta: None }
    }

    /// An address that no Dataplane of the mesh has (decision D1).
    pub fn unknown() -> Self {
        Self::tagged(vec![unknown_source()])
    }
}

/// What a proxy must be like. All conditions hold together; policies that ask for the same have
/// equal clauses.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(in crate::resolve) struct Clause {
    sidecars: bool,
    gateways: bool,
    /// One of its tag sets has all these.
    tags: Tags,
    /// It is a Dataplane.
    dataplane: bool,
    /// The Dataplane has all these labels.
    labels: Tags,
    /// The Dataplane has this name, in this namespace.
    name: Option<(String, Option<String>)>,
    /// The Dataplane is of this namespace: the policy's, whose role reaches no further.
    namespace: Option<String>,
}

/// A fact without which a clause does not match; clauses are found by one of theirs.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Fact {
    Tag(String, String),
    Label(String, String),
    Name(String),
    Namespace(String),
}

/// Why a policy concerns nobody here, whoever connects.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Nobody {
    /// It is about the listeners of a MeshGateway (decision D24).
    MeshGateway,
    /// It comes from another zone.
    OtherZone,
    /// It is for the workloads of its namespace, and has none.
    NoNamespace,
}

impl Clause {
    /// What `policy` asks for. `zone` is this node's, where it has one.
    pub(in crate::resolve) fn of<P: ToPolicy>(
        policy: &P,
        zone: Option<&str>,
    ) -> Result<Self, Nobody> {
        let meta = policy.meta();
        let role = role(policy);
        let from_zone = meta.labels.get("kuma.io/zone").map(String::as_str);
        if role != Role::Producer
            && Origin::of(meta) == Origin::Zone
            && zone.is_some_and(|zone| from_zone.is_some_and(|from| from != zone))
        {
            return Err(Nobody::OtherZone);
        }
        let mut clause = Self {
            sidecars: true,
            gateways: true,
            tags: Tags::new(),
            dataplane: false,
            labels: Tags::new(),
            name: None,
            namespace: None,
        };
        if matches!(role, Role::Consumer | Role::WorkloadOwner) {
            clause.namespace = Some(namespace(meta).ok_or(Nobody::NoNamespace)?.to_owned());
        }
        let service = |name: &str, tags: &Tags| {
            let mut tags = tags.clone();
            tags.insert(SERVICE_TAG.to_owned(), name.to_owned());
            tags
        };
        match policy.target() {
            RouteTarget::Mesh { proxies } => clause.proxies(*proxies),
            RouteTarget::MeshSubset { tags, proxies } => {
                clause.proxies(*proxies);
                clause.tags.clone_from(tags);
            }
            RouteTarget::MeshService { name } => clause.tags = service(name, &Tags::new()),
            RouteTarget::MeshServiceSubset { name, tags } => clause.tags = service(name, tags),
            RouteTarget::Dataplane(by) => {
                clause.dataplane = true;
                match by {
                    None => {}
                    Some(ReferredBy::Labels(labels)) => clause.labels.clone_from(labels),
                    Some(ReferredBy::Name { name, namespace: given }) => {
                        let inside = given.as_deref().or_else(|| namespace(meta));
                        clause.name = Some((name.clone(), inside.map(str::to_owned)));
                    }
                }
            }
            RouteTarget::MeshGateway { .. } => return Err(Nobody::MeshGateway),
        }
        Ok(clause)
    }

    fn proxies(&mut self, proxies: Proxies) {
        (self.sidecars, self.gateways) = (proxies.sidecars, proxies.gateways);
    }

    /// Whether any of the Dataplanes of one workload is meant.
    pub(super) fn matches(&self, workload: &[Proxy<'_>]) -> bool {
        workload.iter().any(|proxy| self.matches_one(proxy))
    }

    fn matches_one(&self, proxy: &Proxy<'_>) -> bool {
        let kind = if proxy.gateway { self.gateways } else { self.sidecars };
        let has = |tags: &Tags| self.tags.iter().all(|(key, value)| tags.get(key) == Some(value));
        let tags = self.tags.is_empty() || proxy.tag_sets.iter().any(has);
        let identity = match proxy.meta {
            Some(meta) => self.matches_identity(meta),
            None => !self.dataplane && self.namespace.is_none(),
        };
        kind && tags && identity
    }

    fn matches_identity(&self, meta: &Meta) -> bool {
        let own = namespace(meta);
        let named = |(name, inside): &(String, Option<String>)| match inside {
            Some(inside) => plain_name(meta) == name && own == Some(inside),
            None => meta.name == *name || (own.is_none() && plain_name(meta) == name),
        };
        has_labels(meta, &self.labels)
            && self.name.as_ref().is_none_or(named)
            && self.namespace.as_ref().is_none_or(|inside| own == Some(inside))
    }

    /// Facts that must all be true; none: it matches by kind alone.
    pub(super) fn facts(&self) -> Vec<Fact> {
        let tags = self.tags.iter().map(|(key, value)| Fact::Tag(key.clone(), value.clone()));
        let labels = self.labels.iter().map(|(key, value)| Fact::Label(key.clone(), value.clone()));
        let name = self.name.iter().map(|(name, _)| Fact::Name(name.clone()));
        let namespace = self.namespace.iter().cloned().map(Fact::Namespace);
        tags.chain(labels).chain(name).chain(namespace).collect()
    }
}

/// Every fact that is true of a workload.
pub(super) fn facts(workload: &[Proxy<'_>]) -> Vec<Fact> {
    let mut facts = Vec::new();
    for proxy in workload {
        for (key, value) in proxy.tag_sets.iter().flatten() {
            facts.push(Fact::Tag(key.clone(), value.clone()));
        }
        let Some(meta) = proxy.meta else { continue };
        for (key, value) in super::super::objects::labels(meta) {
            facts.push(Fact::Label(key.to_owned(), value.to_owned()));
        }
        facts.push(Fact::Name(plain_name(meta).to_owned()));
        facts.push(Fact::Name(meta.name.clone()));
        facts.extend(namespace(meta).map(|inside| Fact::Namespace(inside.to_owned())));
    }
    facts.sort_unstable();
    facts.dedup();
    facts
}
