//! Which of several policies of one kind goes first (semantics 4.6).
//!
//! The order is one over all items of `to` of a mesh, whoever connects: sources only choose which
//! items take part.

use std::cmp::Ordering;

use super::{
    super::{SYSTEM_NAMESPACE, objects::namespace},
    Spoken, ToPolicy,
};
use crate::policy::{Meta, ReferredBy, RouteTarget, ServiceKind, Span};

/// One item of `to`.
#[derive(Debug)]
pub struct Item<'a, P> {
    /// Its policy.
    pub policy: &'a P,
    /// Its place in `to`, from 0.
    pub index: usize,
}

impl<P> Clone for Item<'_, P> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<P> Copy for Item<'_, P> {}

impl<P: PartialEq> PartialEq for Item<'_, P> {
    fn eq(&self, other: &Self) -> bool {
        self.policy == other.policy && self.index == other.index
    }
}

impl<'a, P: ToPolicy> Item<'a, P> {
    /// The item itself.
    pub fn to(&self) -> &'a P::To {
        &self.policy.to()[self.index]
    }

    /// Its policy's identity.
    pub fn meta(&self) -> &'a Meta {
        self.policy.meta()
    }

    /// What it speaks of.
    pub fn spoken(&self) -> Spoken<'a> {
        P::spoken(self.to())
    }

    /// Where it stands, with its field path.
    pub fn place(&self) -> (Span, &'a str) {
        P::place(self.to())
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
pub fn precedence<P: ToPolicy>(a: &Item<'_, P>, b: &Item<'_, P>) -> (Ordering, Rule) {
    let (a_meta, b_meta) = (a.meta(), b.meta());
    let steps: [(Rule, Ordering); 5] = [
        (Rule::NamesBackends, P::says_where(b.to()).cmp(&P::says_where(a.to()))),
        (Rule::NarrowerTarget, target(b.policy.target()).cmp(&target(a.policy.target()))),
        (Rule::NearerOrigin, Origin::of(b_meta).cmp(&Origin::of(a_meta))),
        (Rule::NearerRole, role(b.policy).cmp(&role(a.policy))),
        (Rule::NarrowerDestination, destination(b.spoken()).cmp(&destination(a.spoken()))),
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

fn target(target: &RouteTarget) -> Target {
    match target {
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
fn destination(spoken: Spoken<'_>) -> (u8, bool) {
    match spoken {
        Spoken::Mesh => (0, false),
        Spoken::Service(to) => match to.kind {
            ServiceKind::MeshService => (1, to.section.is_some()),
            ServiceKind::MeshExternalService => (2, false),
            ServiceKind::MeshMultiZoneService => (3, false),
        },
        Spoken::HttpRoute(_) => (4, false),
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
pub fn role<P: ToPolicy>(policy: &P) -> Role {
    let meta = policy.meta();
    match meta.labels.get("kuma.io/policy-role").map(String::as_str) {
        Some("system") => return Role::System,
        Some("producer") => return Role::Producer,
        Some("consumer") => return Role::Consumer,
        Some("workload-owner") => return Role::WorkloadOwner,
        _ => {}
    }
    match meta.namespace.as_deref() {
        None | Some(SYSTEM_NAMESPACE) => Role::System,
        // Of a mix, which is refused, the narrower role.
        Some(_) if policy.to().iter().all(|to| speaks_of_own(meta, P::spoken(to))) => {
            Role::Producer
        }
        Some(_) => Role::Consumer,
    }
}

/// The first item of `to` that makes the policy neither a producer's nor a consumer's: it speaks
/// of services of its own namespace and of others. `None` where the role is clear.
pub(super) fn mixed<P: ToPolicy>(policy: &P) -> Option<&P::To> {
    let meta = policy.meta();
    let namespace = meta.namespace.as_deref()?;
    if namespace == SYSTEM_NAMESPACE || meta.labels.contains_key("kuma.io/policy-role") {
        return None;
    }
    let of_own = |to: &P::To| speaks_of_own(meta, P::spoken(to));
    let first = of_own(policy.to().first()?);
    policy.to().iter().find(|to| of_own(to) != first)
}

/// Whether an item names a MeshService or a MeshHTTPRoute of the policy's own namespace.
fn speaks_of_own(meta: &Meta, spoken: Spoken<'_>) -> bool {
    let by = match spoken {
        Spoken::Mesh => return false,
        Spoken::Service(to) if to.kind != ServiceKind::MeshService => return false,
        Spoken::Service(to) => &to.by,
        Spoken::HttpRoute(by) => by,
    };
    let there = match by {
        ReferredBy::Name { namespace, .. } => namespace.as_deref(),
        ReferredBy::Labels(labels) => labels.get("k8s.kuma.io/namespace").map(String::as_str),
    };
    there.is_none_or(|there| namespace(meta) == Some(there))
}
