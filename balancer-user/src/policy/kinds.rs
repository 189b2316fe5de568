//! The kinds of resource that exist, and what becomes of each (decision D20).

use super::{fields::Form, mesh_kinds::MeshKind, object::ObjectKind};

/// What is done with a kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// Read.
    Mesh,
    /// Read.
    Dataplane,
    /// Read.
    TrafficRoute,
    /// Read: another kind of Kuma's.
    Kuma(MeshKind),
    /// Read: a kind of Kubernetes or the Gateway API.
    Object(ObjectKind),
    /// Known, and not carried out.
    Other(&'static str),
}

/// Kinds of the group `kuma.io` that are read.
pub(super) fn read() -> impl Iterator<Item = Kind> {
    [Kind::Mesh, Kind::Dataplane, Kind::TrafficRoute]
        .into_iter()
        .chain(MeshKind::ALL.into_iter().map(Kind::Kuma))
}

/// Kinds of Kubernetes and the Gateway API that are read.
pub(super) fn objects() -> impl Iterator<Item = Kind> {
    ObjectKind::ALL.into_iter().map(Kind::Object)
}

/// Every kind of the group `kuma.io`, read or not.
pub(super) fn of_kuma() -> Vec<&'static str> {
    read().map(Kind::name).chain(KUMA.iter().copied()).collect()
}

/// Every kind of the Gateway API, read or not.
pub(super) fn of_the_gateway_api() -> Vec<&'static str> {
    let group = super::gateway::GROUP;
    let read = ObjectKind::ALL.into_iter().filter(|object| object.is(group, object.name()));
    read.map(ObjectKind::name).chain(GATEWAY.iter().copied()).collect()
}

impl Kind {
    /// `type:`, `kind:`.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Mesh => "Mesh",
            Self::Dataplane => "Dataplane",
            Self::TrafficRoute => "TrafficRoute",
            Self::Kuma(kind) => kind.name(),
            Self::Object(object) => object.name(),
            Self::Other(name) => name,
        }
    }

    /// Whether all its fields stand under `spec`, in both envelopes, and paths say so.
    pub(super) fn has_schema(self) -> bool {
        matches!(self, Self::Kuma(kind) if kind.form() == Form::Schema)
    }

    /// Whether a namespace is part of its internal name.
    pub(super) fn has_internal_name(self) -> bool {
        self == Self::Dataplane || self.has_schema()
    }

    /// What Kuma 3 has instead, if it has not this kind.
    pub(super) fn instead_in_kuma_3(self) -> Option<&'static str> {
        match self {
            Self::TrafficRoute => Some("MeshTCPRoute"),
            Self::Kuma(kind) => kind.instead_in_kuma_3(),
            Self::Mesh | Self::Dataplane | Self::Object(_) | Self::Other(_) => None,
        }
    }
}

/// [`Kind::has_internal_name`] of the kind of this name.
pub(super) fn has_internal_name(name: &str) -> bool {
    read().any(|kind| kind.name() == name && kind.has_internal_name())
}

/// Kinds of the group `kuma.io` of any version that are not read.
const KUMA: &[&str] = &[
    "AccessRole",
    "AccessRoleBinding",
    "CircuitBreaker",
    "Config",
    "ContainerPatch",
    "DataplaneInsight",
    "FaultInjection",
    "GlobalSecret",
    "HealthCheck",
    "HostnameGenerator",
    "MeshAccessLog",
    "MeshCircuitBreaker",
    "MeshFaultInjection",
    "MeshGateway",
    "MeshGatewayConfig",
    "MeshGatewayInstance",
    "MeshGatewayRoute",
    "MeshGlobalRateLimit",
    "MeshHealthCheck",
    "MeshIdentity",
    "MeshInsight",
    "MeshMetric",
    "MeshOPA",
    "MeshOpenTelemetryBackend",
    "MeshPassthrough",
    "MeshProxyPatch",
    "MeshRateLimit",
    "MeshRetry",
    "MeshTLS",
    "MeshTimeout",
    "MeshTrace",
    "MeshTrafficPermission",
    "MeshTrust",
    "ProxyTemplate",
    "RateLimit",
    "Retry",
    "Secret",
    "ServiceInsight",
    "Timeout",
    "TrafficLog",
    "TrafficPermission",
    "TrafficTrace",
    "VirtualOutbound",
    "Workload",
    "Zone",
    "ZoneEgress",
    "ZoneEgressInsight",
    "ZoneIngress",
    "ZoneIngressInsight",
    "ZoneInsight",
];

/// Kinds of the group `gateway.networking.k8s.io` that are not read.
const GATEWAY: &[&str] = &["BackendTLSPolicy", "ListenerSet", "TLSRoute", "UDPRoute"];

/// A kind, as its document names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Lookup {
    /// One that we know.
    Known(Kind),
    /// None of our group's.
    Unknown {
        /// What was probably meant.
        meant: Option<&'static str>,
        /// Another group of ours has this very kind: what to write.
        elsewhere: Option<&'static str>,
    },
    /// Of an API group that is none of ours.
    Foreign,
    /// Of our group, in a version that does not exist or is not read.
    UnknownVersion {
        /// The `apiVersion`s to write.
        known: &'static [&'static str],
    },
}

/// Looks up a `type` of the Universal form.
pub(super) fn universal(kind: &str) -> Lookup {
    kuma(kind)
}

/// Looks up an `apiVersion` and `kind`.
pub(super) fn kubernetes(api_version: &str, kind: &str) -> Lookup {
    let (group, version) = api_version.rsplit_once('/').unwrap_or(("", api_version));
    if let Some(object) = ObjectKind::ALL.into_iter().find(|object| object.is(group, kind)) {
        let known = object.api_versions();
        return if known.contains(&api_version) {
            Lookup::Known(Kind::Object(object))
        } else {
            Lookup::UnknownVersion { known }
        };
    }
    match group {
        "kuma.io" if version != "v1alpha1" => {
            Lookup::UnknownVersion { known: &["kuma.io/v1alpha1"] }
        }
        "kuma.io" => kuma(kind),
        super::gateway::GROUP => match among(GATEWAY, kind) {
            Lookup::Unknown { .. } => {
                let names = of_the_gateway_api();
                let elsewhere = kuma_has(kind).then_some("apiVersion: kuma.io/v1alpha1");
                Lookup::Unknown { meant: super::words::nearest(kind, &names), elsewhere }
            }
            found => found,
        },
        _ => Lookup::Foreign,
    }
}

fn kuma(kind: &str) -> Lookup {
    if let Some(found) = read().find(|found| found.name() == kind) {
        return Lookup::Known(found);
    }
    match among(KUMA, kind) {
        Lookup::Unknown { .. } => {
            let names = of_kuma();
            let elsewhere = gateway_has(kind).then_some(GATEWAY_VERSION);
            Lookup::Unknown { meant: super::words::nearest(kind, &names), elsewhere }
        }
        found => found,
    }
}

const GATEWAY_VERSION: &str = "apiVersion: gateway.networking.k8s.io/v1";

fn kuma_has(kind: &str) -> bool {
    KUMA.contains(&kind) || read().any(|found| found.name() == kind)
}

fn gateway_has(kind: &str) -> bool {
    let is = |object: &ObjectKind| object.is(super::gateway::GROUP, kind);
    GATEWAY.contains(&kind) || ObjectKind::ALL.iter().any(is)
}

fn among(names: &[&'static str], kind: &str) -> Lookup {
    match names.iter().find(|name| **name == kind) {
        Some(name) => Lookup::Known(Kind::Other(name)),
        None => Lookup::Unknown { meant: super::words::nearest(kind, names), elsewhere: None },
    }
}
