//! Which of several MeshTCPRoutes goes first (semantics 4.6).
//!
//! The order is one over all items of `to` of a mesh, whoever connects: sources only choose which
//! items take part.

use std::cmp::Ordering;

use super::super::{SYSTEM_NAMESPACE, objects::namespace};
use crate::policy::{
    MeshTcpRoute, MeshTcpTo, Meta, ReferredBy, RouteTarget, ServiceKind, ToTarget,
};

/// One item of `to`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Item<'a> {
    /// Its policy.
    pub policy: &'a MeshTcpRoute,
    /// Its place in `to`, from 0.
    pub index: usize,
}

impl<'a> Item<'a> {
    /// The item itself.
    pub fn to(&self) -> &'a MeshTcpTo {
        &self.policy.to[self.index]
    }

    /// Its rule says where connections go. One without a rule sends them to what is dialled, and
    /// a rule without backends leaves that to others (semantics 4.6: rules are merged).
    fn says_where(&self) -> bool {
        self.to().rule.as_ref().is_none_or(|rule| !rule.backends.is_empty())
    }
}

/// By which rule one item goes before another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "camelCase")]
pub enum Rule {
    /// It says where connections go; the other names no backend.
    NamesBackends,
    /// `spec.targetRef` is of a narrower kind.
    NarrowerTarget,
    /// It comes from a zone, or from nowhere in particular rather than from global.
    NearerOrigin,
    /// Its role is nearer to the workload.
    NearerRole,
    /// `to[].targetRef` is of a narrower kind, or names a section.
    NarrowerDestination,
    /// All that equal, its policy has the smaller name.
    SmallerName,
    /// It stands later in the same policy.
    LaterInPolicy,
}

/// Which of two items goes first: `Less` if `a` does. `Equal` only for an item and itself.
pub fn precedence(a: &Item<'_>, b: &Item<'_>) -> (Ordering, Rule) {
    let (a_meta, b_meta) = (&a.policy.meta, &b.policy.meta);
    let steps: [(Rule, Ordering); 5] = [
        (Rule::NamesBackends, b.says_where().cmp(&a.says_where())),
        (Rule::NarrowerTarget, target(b.policy).cmp(&target(a.policy))),
        (Rule::NearerOrigin, Origin::of(b_meta).cmp(&Origin::of(a_meta))),
        (Rule::NearerRole, role(b.policy).cmp(&role(a.policy))),
        (Rule::NarrowerDestination, destination(b).cmp(&destination(a))),
    ];
    if let Some((rule, order)) = steps.into_iter().find(|(_, order)| order.is_ne()) {
        return (order, rule);
    }
    let name = |meta: &Meta| (meta.display_name.clone(), meta.name.clone());
    let by_name = name(a_meta).cmp(&name(b_meta));
    if by_name.is_ne() {
        return (by_name, Rule::SmallerName);
    }
    (b.index.cmp(&a.index), Rule::LaterInPolicy)
}

/// Kinds of `spec.targetRef`, the widest first. A Dataplane without name and labels is as wide as
/// one by labels: semantics leave the two equal, and "equal to both" would be no order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Target {
    Mesh,
    DataplaneByLabels,
    DataplaneByName,
    MeshSubset,
    MeshGateway,
    MeshService,
    MeshServiceSubset,
}

fn target(policy: &MeshTcpRoute) -> Target {
    match &policy.target {
        RouteTarget::Mesh { .. } => Target::Mesh,
        RouteTarget::Dataplane(None | Some(ReferredBy::Labels(_))) => Target::DataplaneByLabels,
        RouteTarget::Dataplane(Some(ReferredBy::Name { .. })) => Target::DataplaneByName,
        RouteTarget::MeshSubset { .. } => Target::MeshSubset,
        RouteTarget::MeshGateway { .. } => Target::MeshGateway,
        RouteTarget::MeshService { .. } => Target::MeshService,
        RouteTarget::MeshServiceSubset { .. } => Target::MeshServiceSubset,
    }
}

/// `to[].targetRef`, the widest first.
fn destination(item: &Item<'_>) -> (u8, bool) {
    match &item.to().target {
        ToTarget::Mesh => (0, false),
        ToTarget::Service(to) => match to.kind {
            ServiceKind::MeshService => (1, to.section.is_some()),
            ServiceKind::MeshExternalService => (2, false),
            ServiceKind::MeshMultiZoneService => (3, false),
        },
    }
}

/// Label `kuma.io/origin`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Origin {
    Global,
    Unset,
    Zone,
}

impl Origin {
    pub(super) fn of(meta: &Meta) -> Self {
        match meta.labels.get("kuma.io/origin").map(String::as_str) {
            Some("global") => Self::Global,
            Some("zone") => Self::Zone,
            _ => Self::Unset,
        }
    }
}

/// Whom a policy of a namespace is meant for. In order: later ones go first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Role {
    /// Of the system's namespace, or of none.
    System,
    /// Of the namespace of the services that it speaks of: for everybody who dials them.
    Producer,
    /// Of the namespace of those who dial.
    Consumer,
    /// Of the namespace of the workloads that it is about.
    WorkloadOwner,
}

/// The role of a policy: as a control plane has labelled it, else as one would (semantics 4.6).
pub fn role(policy: &MeshTcpRoute) -> Role {
    match policy.meta.labels.get("kuma.io/policy-role").map(String::as_str) {
        Some("system") => return Role::System,
        Some("producer") => return Role::Producer,
        Some("consumer") => return Role::Consumer,
        Some("workload-owner") => return Role::WorkloadOwner,
        _ => {}
    }
    match policy.meta.namespace.as_deref() {
        None | Some(SYSTEM_NAMESPACE) => Role::System,
        // Of a mix, which is refused, the narrower role.
        Some(_) if policy.to.iter().all(|to| speaks_of_own(&policy.meta, to)) => Role::Producer,
        Some(_) => Role::Consumer,
    }
}

/// The first item of `to` that makes the policy neither a producer's nor a consumer's: it speaks
/// of services of its own namespace and of others. `None` where the role is clear.
pub(super) fn mixed(policy: &MeshTcpRoute) -> Option<&MeshTcpTo> {
    let meta = &policy.meta;
    let namespace = meta.namespace.as_deref()?;
    if namespace == SYSTEM_NAMESPACE || meta.labels.contains_key("kuma.io/policy-role") {
        return None;
    }
    let first = speaks_of_own(meta, policy.to.first()?);
    policy.to.iter().find(|to| speaks_of_own(meta, to) != first)
}

/// Whether an item names a MeshService of the policy's own namespace.
fn speaks_of_own(meta: &Meta, to: &MeshTcpTo) -> bool {
    let ToTarget::Service(to) = &to.target else { return false };
    let there = match &to.by {
        ReferredBy::Name { namespace, .. } => namespace.as_deref(),
        ReferredBy::Labels(labels) => labels.get("k8s.kuma.io/namespace").map(String::as_str),
    };
    to.kind == ServiceKind::MeshService && there.is_none_or(|there| namespace(meta) == Some(there))
}
