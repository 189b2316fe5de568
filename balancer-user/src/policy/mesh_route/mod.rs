//! `MeshTCPRoute` (semantics 4).

use super::{Meta, ReferredBy, ServiceRef, Span, Tags};

/// `MeshTCPRoute`.
#[derive(Clone, Debug, PartialEq)]
pub struct MeshTcpRoute {
    /// Identity.
    pub meta: Meta,
    /// `targetRef`: whose connections it concerns. Absent: everybody's.
    pub target: RouteTarget,
    /// `to[]` in written order.
    pub to: Vec<MeshTcpTo>,
}

/// `spec.targetRef` of a route policy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RouteTarget {
    /// Every workload.
    Mesh {
        /// Of which kind.
        proxies: Proxies,
    },
    /// Workloads one inbound of which has all these tags.
    MeshSubset {
        /// Exact values; empty: every workload.
        tags: Tags,
        /// Of which kind.
        proxies: Proxies,
    },
    /// Dataplanes by their labels, an object by its name, or all (`None`).
    Dataplane(Option<ReferredBy>),
    /// Workloads that offer this `kuma.io/service`.
    MeshService {
        /// The service.
        name: String,
    },
    /// The same, on an inbound that has these tags too.
    MeshServiceSubset {
        /// The service.
        name: String,
        /// Exact values.
        tags: Tags,
    },
    /// Listeners of a built-in gateway. Reported; concerns nobody here (decision D24).
    MeshGateway {
        /// The MeshGateway.
        name: String,
        /// Tags of its listeners.
        tags: Tags,
    },
}

/// `proxyTypes`: which Dataplanes; both where absent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Proxies {
    /// Those without `networking.gateway`.
    pub sidecars: bool,
    /// Those with it.
    pub gateways: bool,
}

impl Default for Proxies {
    fn default() -> Self {
        Self { sidecars: true, gateways: true }
    }
}

/// One item of `to`.
#[derive(Clone, Debug, PartialEq)]
pub struct MeshTcpTo {
    /// Where it stands.
    pub span: Span,
    /// Its field path: `spec.to[0]`.
    pub field: String,
    /// `targetRef`: what is dialled.
    pub target: ToTarget,
    /// The only item of `rules`. `None`: connections go to what is dialled.
    pub rule: Option<MeshTcpRule>,
}

/// What an item of `to` speaks of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ToTarget {
    /// Everything; only where the policy's own target is a MeshGateway.
    Mesh,
    /// A service.
    Service(ServiceRef),
}

/// One item of `rules`.
#[derive(Clone, Debug, PartialEq)]
pub struct MeshTcpRule {
    /// Where it stands.
    pub span: Span,
    /// Its field path: `spec.to[0].rules[0]`.
    pub field: String,
    /// `default.backendRefs` in written order, those of weight 0 included. Empty: connections
    /// are refused (semantics 4.3).
    pub backends: Vec<BackendRef>,
}

/// One of `backendRefs`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BackendRef {
    /// Where it stands.
    pub span: Span,
    /// Its field path: `spec.to[0].rules[0].default.backendRefs[0]`.
    pub field: String,
    /// Relative weight, 1 where absent; 0: takes nothing.
    pub weight: u32,
    /// What it names.
    pub target: BackendTarget,
}

/// What a backend is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BackendTarget {
    /// A service, or one of its ports.
    Service(ServiceRef),
    /// `MeshServiceSubset`: endpoints of a `kuma.io/service` that have all these tags.
    Subset {
        /// The service.
        name: String,
        /// Exact values.
        tags: Tags,
    },
}
