//! YAML and JSON text into typed policies, with the position of everything.
//!
//! Belongs here: reading files and documents, envelopes (Universal, Kubernetes), field
//! spellings of each version, validation, diagnostics. Does not know which policy wins, what
//! an id is, or that there is a kernel. The meaning of every field is that of Kuma's
//! documentation; deviations have a decision record.
//!
//! Stages are types: text → [`yaml::Node`] (a tree with positions) → typed resources in a
//! [`PolicySet`]. A value that exists is valid: a weight is a number, a port is not 0.

#![forbid(unsafe_code)]

use std::{net::IpAddr, num::NonZeroU16, sync::Arc};

mod ahead;
mod dataplane;
pub mod diagnostic;
mod documents;
mod edits;
mod envelope;
mod external_service;
mod fields;
mod found;
pub mod gateway;
pub mod http;
pub mod http_route;
pub mod input;
mod kinds;
pub mod kubernetes;
mod mesh;
mod mesh_kinds;
mod mesh_route;
mod mesh_service;
mod metadata;
mod names;
mod object;
mod objects;
mod pattern;
mod read;
mod reader;
mod reference;
pub mod render;
pub mod report;
mod scalar;
pub mod schema;
mod strategy;
pub mod suggest;
mod tag_map;
mod tags;
#[cfg(test)]
mod taken;
#[cfg(test)]
mod testing;
mod text;
mod time;
mod traffic_route;
mod whole;
mod words;
pub mod yaml;

pub use diagnostic::{Diagnostic, Severity};
pub use documents::{Documents, Position, Stand};
pub use edits::{Edit, Edits};
pub use http::{HttpMatch, HttpModify};
pub use input::{InputError, gather};
pub use mesh_route::{
    BackendRef, BackendTarget, MeshHttpRoute, MeshHttpRule, MeshHttpTo, MeshTcpRoute, MeshTcpRule,
    MeshTcpTo, Proxies, RouteTarget, ToTarget,
};
pub use mesh_service::{
    DataplaneSelector, ExternalEndpoint, ExternalService, MeshExternalService,
    MeshMultiZoneService, MeshService,
};
pub use names::is_domain_prefixed;
pub use read::read;
pub use reader::Reader;
pub use reference::{ReferredBy, ServiceKind, ServicePort, ServiceRef, ServiceStatus, TargetPort};
pub use report::{Api, Note, Place, ReadOptions, Reading, Report, ResourceReport};
pub use strategy::{
    AffinityTag, Failover, FailoverTo, HashKey, HashPolicy, Locality, MeshLoadBalancingStrategy,
    StrategyBalancer, StrategyTarget, StrategyTo,
};
pub use tag_map::Tags;

/// The tag that names a service.
pub const SERVICE_TAG: &str = "kuma.io/service";
/// The tag that names a protocol.
pub const PROTOCOL_TAG: &str = "kuma.io/protocol";
/// The tag that names a zone.
pub const ZONE_TAG: &str = "kuma.io/zone";
/// The service of an address that no Dataplane has (decision D1).
pub const UNKNOWN_SERVICE: &str = "unknown";

/// One input text: a file, or standard input.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct SourceText {
    /// The path as given, or `-`.
    pub name: String,
    /// The whole text.
    pub text: Arc<str>,
}

/// A place in a document: [`Documents`] has where that is. Lines and columns count from 1, columns
/// in characters.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Span {
    /// Number of the document in [`Documents`].
    pub document: u32,
    /// Line, from 1 for that in which the document begins.
    pub line: u32,
    /// Column, from 1.
    pub column: u32,
    /// Length in characters on that line, at least 1.
    pub len: u32,
}

/// Who a resource is and where it stands.
#[derive(Clone, Debug, PartialEq)]
pub struct Meta {
    /// `TrafficRoute`, `Dataplane`, …
    pub kind: &'static str,
    /// The mesh; for a `Mesh` its own name. Empty for kinds of Kubernetes and the Gateway API,
    /// which are in no mesh.
    pub mesh: String,
    /// Kubernetes namespace; of namespaced kinds of Kubernetes and the Gateway API always there.
    pub namespace: Option<String>,
    /// The internal name: `<name>.<namespace>` for namespaced Kuma objects on Kubernetes, the
    /// plain name for kinds of Kubernetes and the Gateway API.
    pub name: String,
    /// What ordering goes by: label `kuma.io/display-name`, else the internal name.
    pub display_name: String,
    /// Labels.
    pub labels: Tags,
    /// Creation time, seconds since 1970 with a fraction; absent: unknown (decision D12).
    pub created: Option<f64>,
    /// Index in the `items` of a `List`, from 0; 0 where the document is none.
    pub item: u32,
    /// Where the document begins.
    pub span: Span,
}

impl Meta {
    /// Which document it is.
    pub fn place(&self) -> Place {
        Place { document: self.span.document, item: self.item }
    }

    /// The name without what makes it the internal one.
    fn written_name(&self) -> &str {
        let of_namespace =
            self.namespace.as_deref().filter(|_| kinds::has_internal_name(self.kind));
        let plain = of_namespace.and_then(|namespace| self.name.strip_suffix(namespace));
        plain.and_then(|plain| plain.strip_suffix('.')).unwrap_or(&self.name)
    }

    /// What names are unique in, of one kind: the mesh, or the namespace.
    fn scope(&self) -> &str {
        if self.mesh.is_empty() { self.object().0 } else { &self.mesh }
    }

    /// Namespace and name: the identity of kinds of Kubernetes and the Gateway API. Kinds that
    /// are in no namespace have an empty one.
    pub fn object(&self) -> (&str, &str) {
        (self.namespace.as_deref().unwrap_or_default(), &self.name)
    }
}

/// `Mesh` (semantics 2.2).
#[derive(Clone, Debug, PartialEq)]
pub struct Mesh {
    /// Its name is the mesh.
    pub meta: Meta,
    /// `routing.localityAwareLoadBalancing`.
    pub locality_aware: bool,
}

/// An address that may be a name still to be resolved.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Host {
    /// An IP address.
    Ip(IpAddr),
    /// A DNS name.
    Name(String),
}

/// `Dataplane` (semantics 2.3).
#[derive(Clone, Debug, PartialEq)]
pub struct Dataplane {
    /// Identity.
    pub meta: Meta,
    /// `networking.address`.
    pub address: Host,
    /// `networking.advertisedAddress`.
    pub advertised: Option<Host>,
    /// Inbounds in written order.
    pub inbounds: Vec<Inbound>,
    /// Tags of `networking.gateway`.
    pub gateway: Option<Tags>,
    /// Outbounds by tags, in written order.
    pub outbounds: Vec<Outbound>,
    /// Outbounds by `backendRef`, in written order.
    pub referring: Vec<ReferringOutbound>,
}

/// One inbound of a Dataplane.
#[derive(Clone, Debug, PartialEq)]
pub struct Inbound {
    /// Where it stands.
    pub span: Span,
    /// `address`, else the Dataplane's.
    pub address: Option<IpAddr>,
    /// Port that others dial.
    pub port: NonZeroU16,
    /// `name`, which a MeshService's `targetPort` may give.
    pub name: Option<String>,
    /// `serviceAddress`.
    pub service_address: Option<IpAddr>,
    /// `servicePort`, else `port`.
    pub service_port: Option<NonZeroU16>,
    /// Tags. Without `kuma.io/service` (Kuma 3 only) the inbound is an endpoint of no service.
    pub tags: Tags,
    /// `state` is `Ready` and `health` is absent or ready: it is an endpoint.
    pub ready: bool,
}

/// One outbound of a Dataplane that names a service by tags.
#[derive(Clone, Debug, PartialEq)]
pub struct Outbound {
    /// Where it stands.
    pub span: Span,
    /// Its place in the written list, those with a `backendRef` counted.
    pub index: u32,
    /// Address to intercept; 127.0.0.1 where absent.
    pub address: IpAddr,
    /// Port.
    pub port: NonZeroU16,
    /// Tags, `kuma.io/service` among them.
    pub tags: Tags,
}

/// One outbound of a Dataplane that names an object.
#[derive(Clone, Debug, PartialEq)]
pub struct ReferringOutbound {
    /// Where it stands.
    pub span: Span,
    /// Its place in the written list, those by tags counted.
    pub index: u32,
    /// Address to intercept; 127.0.0.1 where absent.
    pub address: IpAddr,
    /// Port.
    pub port: NonZeroU16,
    /// `backendRef`; its `port` is given, except for a MeshExternalService.
    pub to: ServiceRef,
}

/// `TrafficRoute`, K0.5 form already turned into the K1 form (semantics 3, decision D5).
#[derive(Clone, Debug, PartialEq)]
pub struct TrafficRoute {
    /// Identity.
    pub meta: Meta,
    /// `sources[].match`.
    pub sources: Vec<Tags>,
    /// `destinations[].match`: the service names, `*` among them.
    pub destinations: Vec<String>,
    /// `conf`.
    pub conf: TrafficRouteConf,
}

/// `TrafficRoute.conf`.
#[derive(Clone, Debug, PartialEq)]
pub struct TrafficRouteConf {
    /// `loadBalancer`; absent: round robin.
    pub load_balancer: Option<LoadBalancer>,
    /// Outer `split`, or `destination` as one entry of weight 1, in written order, zero weights
    /// included. Empty only where decision D3 allows it to be missing: then the last `http`
    /// entry has no match and takes whatever no other takes.
    pub split: Vec<SplitEntry>,
    /// `http` entries.
    pub http: Vec<HttpEntry>,
    /// Where `http` stands.
    pub http_span: Option<Span>,
}

/// A weighted destination.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SplitEntry {
    /// Where it stands.
    pub span: Span,
    /// Field path of its destination as written: `conf.split[0].destination`,
    /// `conf[0].destination` (0.5 form), `conf.destination`, `conf.http[1].destination`.
    pub field: String,
    /// Relative weight; 0: takes nothing.
    pub weight: u32,
    /// Destination tags, `kuma.io/service` among them, `*` not yet replaced.
    pub destination: Tags,
}

/// One entry of `conf.http`.
#[derive(Clone, Debug, PartialEq)]
pub struct HttpEntry {
    /// Where it stands.
    pub span: Span,
    /// It has a `match`; without one it always matches (decision D3).
    pub has_match: bool,
    /// `match`; empty where there is none.
    pub matches: HttpMatch,
    /// `modify`; empty where there is none.
    pub modify: HttpModify,
    /// `split` or `destination`, as in the outer conf.
    pub split: Vec<SplitEntry>,
}

/// `conf.loadBalancer` (semantics 3.11).
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, serde::Serialize, serde::Deserialize,
)]
#[serde(tag = "type", rename_all = "camelCase")]
pub enum LoadBalancer {
    /// In turn.
    RoundRobin,
    /// Fewest live connections of `choice_count` samples.
    #[serde(rename_all = "camelCase")]
    LeastRequest {
        /// Samples, at least 2.
        choice_count: u32,
    },
    /// Ketama-like ring.
    #[serde(rename_all = "camelCase")]
    RingHash {
        /// Hash of the ring's points.
        function: HashFunction,
        /// Fewest points on the ring; 1,024 where absent (decision D7).
        min_ring_size: u64,
        /// Most points on the ring; 8,388,608 where absent.
        max_ring_size: u64,
    },
    /// At random.
    Random,
    /// Maglev.
    Maglev,
}

impl LoadBalancer {
    /// The name of the algorithm, as policies write it.
    pub fn name(self) -> &'static str {
        match self {
            Self::RoundRobin => "roundRobin",
            Self::LeastRequest { .. } => "leastRequest",
            Self::RingHash { .. } => "ringHash",
            Self::Random => "random",
            Self::Maglev => "maglev",
        }
    }
}

/// Hash function of a ring.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, serde::Serialize, serde::Deserialize,
)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum HashFunction {
    /// xxHash64, seed 0.
    XxHash,
    /// MurmurHash2, 64 bit, as `std::hash` of libstdc++ computes it.
    #[serde(rename = "MURMUR_HASH_2")]
    MurmurHash2,
}

/// The resources of one kind, in order. What is unchanged from one set to the next is shared by
/// both: a copy costs nothing, and one change in it little.
pub type List<T> = imbl::Vector<Arc<T>>;

/// Input texts. Shared as a [`List`] is.
pub type Texts = imbl::Vector<SourceText>;

/// Everything that was read, valid resources only.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct PolicySet {
    /// The texts, and the documents in them that spans point into.
    pub documents: Documents,
    /// Sorted by name.
    pub meshes: List<Mesh>,
    /// Sorted by (mesh, name).
    pub dataplanes: List<Dataplane>,
    /// Sorted by (mesh, name).
    pub traffic_routes: List<TrafficRoute>,
    /// TrafficRoutes labelled `kuma.io/effect: shadow`: kept for display, never applied.
    pub shadowed: List<TrafficRoute>,
    /// Sorted by (mesh, name).
    pub mesh_tcp_routes: List<MeshTcpRoute>,
    /// MeshTCPRoutes labelled `kuma.io/effect: shadow`.
    pub shadowed_mesh_tcp_routes: List<MeshTcpRoute>,
    /// Sorted by (mesh, name).
    pub mesh_http_routes: List<MeshHttpRoute>,
    /// MeshHTTPRoutes labelled `kuma.io/effect: shadow`.
    pub shadowed_mesh_http_routes: List<MeshHttpRoute>,
    /// Sorted by (mesh, name).
    pub mesh_load_balancing_strategies: List<MeshLoadBalancingStrategy>,
    /// MeshLoadBalancingStrategies labelled `kuma.io/effect: shadow`.
    pub shadowed_mesh_load_balancing_strategies: List<MeshLoadBalancingStrategy>,
    /// Sorted by (mesh, name).
    pub mesh_services: List<MeshService>,
    /// Sorted by (mesh, name).
    pub mesh_external_services: List<MeshExternalService>,
    /// Sorted by (mesh, name).
    pub mesh_multi_zone_services: List<MeshMultiZoneService>,
    /// Sorted by (mesh, name).
    pub external_services: List<ExternalService>,
    /// Services of Kubernetes. Sorted by (namespace, name), as all that follow.
    pub services: List<kubernetes::Service>,
    /// Where their endpoints are.
    pub endpoint_slices: List<kubernetes::EndpointSlice>,
    /// Namespaces.
    pub namespaces: List<kubernetes::Namespace>,
    /// Classes of Gateways.
    pub gateway_classes: List<gateway::GatewayClass>,
    /// Gateways.
    pub gateways: List<gateway::Gateway>,
    /// TCPRoutes.
    pub tcp_routes: List<gateway::TcpRoute>,
    /// HTTPRoutes. Not carried out yet.
    pub http_routes: List<gateway::HttpRoute>,
    /// GRPCRoutes. Not carried out yet.
    pub grpc_routes: List<gateway::GrpcRoute>,
    /// Permissions to name objects of another namespace.
    pub reference_grants: List<gateway::ReferenceGrant>,
}

#[cfg(test)]
#[path = "examples_tests.rs"]
mod examples;
