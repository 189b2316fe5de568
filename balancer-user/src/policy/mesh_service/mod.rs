//! Objects that stand for services: `MeshService`, `MeshExternalService`,
//! `MeshMultiZoneService` (semantics 2.6 to 2.8), and the older `ExternalService` (2.5).

use std::num::NonZeroU16;

use super::{Host, Meta, ServicePort, ServiceStatus, Span, Tags};

/// `MeshService`.
#[derive(Clone, Debug, PartialEq)]
pub struct MeshService {
    /// Identity.
    pub meta: Meta,
    /// `selector`: whose inbounds are its endpoints.
    pub selector: DataplaneSelector,
    /// `ports[]` in written order; (port, protocol) is unique.
    pub ports: Vec<ServicePort>,
    /// `state` is `Available`; absent: it is not.
    pub available: bool,
    /// What the control plane allocated.
    pub status: ServiceStatus,
}

/// `selector` of a MeshService.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DataplaneSelector {
    /// Absent: no endpoints.
    Nothing,
    /// `dataplaneTags`: one inbound of the Dataplane has all these.
    Tags(Tags),
    /// `dataplaneLabels.matchLabels`: the Dataplane has all these labels.
    Labels(Tags),
    /// `dataplaneRef.name`: this Dataplane.
    Name(String),
}

/// `MeshExternalService`.
#[derive(Clone, Debug, PartialEq)]
pub struct MeshExternalService {
    /// Identity.
    pub meta: Meta,
    /// `match.port`: what clients dial.
    pub port: NonZeroU16,
    /// `match.protocol`; `tcp` where absent.
    pub protocol: String,
    /// `endpoints[]` in written order.
    pub endpoints: Vec<ExternalEndpoint>,
    /// `tls.enabled`: the endpoints expect TLS.
    pub tls: bool,
    /// `extension.type`: a plug-in of Kuma's knows the endpoints.
    pub extension: Option<String>,
    /// What the control plane allocated.
    pub status: ServiceStatus,
}

/// One of `endpoints`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExternalEndpoint {
    /// Where it stands.
    pub span: Span,
    /// Its field path: `spec.endpoints[0]`.
    pub field: String,
    /// `address`.
    pub address: Host,
    /// `port`.
    pub port: NonZeroU16,
    /// `priority`: others take over as those of smaller numbers fail; 0 where absent.
    pub priority: u32,
}

/// `MeshMultiZoneService`.
#[derive(Clone, Debug, PartialEq)]
pub struct MeshMultiZoneService {
    /// Identity.
    pub meta: Meta,
    /// `selector.meshService.matchLabels`: MeshServices that have all these labels; at least one.
    pub match_labels: Tags,
    /// `ports[]` in written order, at least one.
    pub ports: Vec<ServicePort>,
    /// What the control plane allocated.
    pub status: ServiceStatus,
}

/// `ExternalService`: an endpoint of a service of the tag `kuma.io/service`.
#[derive(Clone, Debug, PartialEq)]
pub struct ExternalService {
    /// Identity.
    pub meta: Meta,
    /// `tags`, `kuma.io/service` among them.
    pub tags: Tags,
    /// Host of `networking.address`.
    pub address: Host,
    /// Port of `networking.address`.
    pub port: NonZeroU16,
    /// `networking.tls.enabled`: the endpoint expects TLS.
    pub tls: bool,
}
