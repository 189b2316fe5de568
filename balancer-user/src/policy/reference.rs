//! References from policies and Dataplanes to objects that stand for services (semantics 4.2,
//! 4.3), and what all such objects have in common.

use std::{net::IpAddr, num::NonZeroU16};

use super::{Span, Tags};

/// A kind of object that stands for a service.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ServiceKind {
    /// A service of one zone.
    MeshService,
    /// A service outside the mesh.
    MeshExternalService,
    /// One service made of MeshServices in several zones.
    MeshMultiZoneService,
}

/// How a reference says which object it means.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ReferredBy {
    /// By name.
    Name {
        /// As written. For a MeshService without port and section it is a value of
        /// `kuma.io/service` first of all ([`ServiceRef::tag_service`]).
        name: String,
        /// As written; absent: that of the document that refers.
        namespace: Option<String>,
    },
    /// By labels, at least one.
    Labels(Tags),
}

/// A reference to an object that stands for a service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServiceRef {
    /// Where it stands.
    pub span: Span,
    /// Its field path: `spec.to[0].targetRef`.
    pub field: String,
    /// What it names.
    pub kind: ServiceKind,
    /// Which one.
    pub by: ReferredBy,
    /// `sectionName`: the name or number of a port. Wins over `port`.
    pub section: Option<String>,
    /// `port`: that of the service, not that of its endpoints.
    pub port: Option<NonZeroU16>,
}

impl ServiceRef {
    /// The value of `kuma.io/service` that the reference names, up to Kuma 2.14: a MeshService
    /// by name, without port and section.
    pub fn tag_service(&self) -> Option<&str> {
        match (self.kind, &self.by) {
            (ServiceKind::MeshService, ReferredBy::Name { name, .. })
                if self.section.is_none() && self.port.is_none() =>
            {
                Some(name)
            }
            _ => None,
        }
    }
}

/// One port of an object that stands for a service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServicePort {
    /// Where it stands.
    pub span: Span,
    /// Its field path: `spec.ports[0]`.
    pub field: String,
    /// The port that clients dial and references name.
    pub port: NonZeroU16,
    /// `name`; a `sectionName` means either this or the decimal port.
    pub name: Option<String>,
    /// `targetPort`. Absent: no inbound matches (semantics 2.6). A MeshMultiZoneService has none.
    pub target: Option<TargetPort>,
    /// `appProtocol` in lower case; `tcp` where absent.
    pub protocol: String,
}

/// Which inbounds a port of a MeshService leads to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TargetPort {
    /// Those with this `port`.
    Number(NonZeroU16),
    /// Those with this `name`.
    Name(String),
}

/// What a control plane has written below `status`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ServiceStatus {
    /// `vips[].ip`, `vip.ip`.
    pub vips: Vec<IpAddr>,
    /// `addresses[].hostname`.
    pub hostnames: Vec<String>,
}
