//! Kinds of Kubernetes itself (semantics 2.10): what a Service is, where its endpoints are, and
//! the labels of namespaces. As in the cluster: nothing here is in a mesh.

use std::num::NonZeroU16;

use super::{
    Host, Meta, Span,
    fields::{Context, Field, Fields},
};

pub(super) mod service;
pub(super) mod slice;

/// Label of an EndpointSlice that names its Service.
pub const SERVICE_NAME_LABEL: &str = "kubernetes.io/service-name";
/// Label that the cluster gives to every namespace: its name.
pub const NAMESPACE_NAME_LABEL: &str = "kubernetes.io/metadata.name";

/// `Service` of `v1`. Its identity is [`Meta::namespace`] and [`Meta::name`].
#[derive(Clone, Debug, PartialEq)]
pub struct Service {
    /// Identity.
    pub meta: Meta,
    /// `spec.type`.
    pub kind: ServiceKind,
    /// `spec.clusterIPs`, else `spec.clusterIP`: at most one of each family. Empty where the
    /// cluster has not assigned one, and for headless Services.
    pub cluster_ips: Vec<std::net::IpAddr>,
    /// `spec.clusterIP: None`.
    pub headless: bool,
    /// `spec.ports` in written order, those of UDP and SCTP too.
    pub ports: Vec<ServicePort>,
    /// `spec.sessionAffinity: ClientIP` and for how many seconds a client keeps its endpoint.
    pub affinity_seconds: Option<u32>,
}

/// `spec.type` of a Service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ServiceKind {
    /// Reached by its cluster addresses.
    ClusterIp,
    /// And by a port of every node.
    NodePort,
    /// And by a load balancer outside.
    LoadBalancer,
    /// Another name for this DNS name; it has no endpoints.
    ExternalName(String),
}

/// Protocol of a port.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Transport {
    /// TCP, where nothing is written.
    Tcp,
    /// UDP.
    Udp,
    /// SCTP.
    Sctp,
}

/// One port of a Service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServicePort {
    /// Where it stands.
    pub span: Span,
    /// `name`; empty where the only port has none.
    pub name: String,
    /// `protocol`.
    pub protocol: Transport,
    /// `port`: what clients dial, and what a `backendRef` names.
    pub port: NonZeroU16,
    /// `targetPort`: where the workload listens. EndpointSlices say the same as numbers.
    pub target: TargetPort,
    /// `appProtocol`.
    pub app_protocol: Option<String>,
}

/// `targetPort` of a Service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TargetPort {
    /// This port; the Service's own where nothing is written.
    Number(NonZeroU16),
    /// The port that each workload names so.
    Name(String),
}

/// `EndpointSlice` of `discovery.k8s.io/v1`: some of a Service's endpoints.
#[derive(Clone, Debug, PartialEq)]
pub struct EndpointSlice {
    /// Identity.
    pub meta: Meta,
    /// Label `kubernetes.io/service-name`: the Service of its namespace that it belongs to.
    pub service: Option<String>,
    /// `addressType`.
    pub address_type: AddressType,
    /// `ports`.
    pub ports: Vec<SlicePort>,
    /// `endpoints` in written order.
    pub endpoints: Vec<SliceEndpoint>,
}

/// What the addresses of a slice are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum AddressType {
    /// IPv4 addresses.
    Ipv4,
    /// IPv6 addresses.
    Ipv6,
    /// DNS names.
    Fqdn,
}

/// A port of every endpoint of a slice.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SlicePort {
    /// Where it stands.
    pub span: Span,
    /// `name`: the Service port's.
    pub name: String,
    /// `protocol`.
    pub protocol: Transport,
    /// `port`. Absent: the slice names no port, and nothing can be dialled by it.
    pub port: Option<NonZeroU16>,
}

/// One endpoint of a slice.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SliceEndpoint {
    /// Where it stands.
    pub span: Span,
    /// The first of `addresses`: the others stand for the same endpoint, and who uses slices
    /// uses the first.
    pub address: Host,
    /// `conditions.ready`; absent: true.
    pub ready: bool,
    /// `conditions.serving`; absent: as `ready`.
    pub serving: bool,
    /// `conditions.terminating`; absent: false.
    pub terminating: bool,
    /// `zone`.
    pub zone: Option<String>,
    /// `nodeName`.
    pub node: Option<String>,
}

/// `Namespace` of `v1`: its labels, among them `kubernetes.io/metadata.name`, which the cluster
/// gives to every namespace.
#[derive(Clone, Debug, PartialEq)]
pub struct Namespace {
    /// Identity and labels.
    pub meta: Meta,
}

/// Reads a Namespace.
pub(super) fn namespace(cx: &mut Context<'_>, mut meta: Meta, mut root: Fields<'_>) -> Namespace {
    root.without_effect(&["spec"]);
    root.finish(cx);
    meta.labels.insert(NAMESPACE_NAME_LABEL.to_owned(), meta.name.clone());
    Namespace { meta }
}

/// `protocol` of a port.
pub(super) const TRANSPORTS: &[&str] = &["TCP", "UDP", "SCTP"];

/// `protocol` of a port; TCP where there is none.
fn transport(cx: &mut Context<'_>, field: Option<&Field<'_>>) -> Option<Transport> {
    let Some(field) = field else { return Some(Transport::Tcp) };
    Some(match field.one_of(cx, TRANSPORTS)? {
        "UDP" => Transport::Udp,
        "SCTP" => Transport::Sctp,
        _ => Transport::Tcp,
    })
}

/// An address in the only form that it has on the wire: one of IPv4 in the clothes of IPv6 would
/// count as the other family.
fn address(cx: &mut Context<'_>, field: &Field<'_>, what: &str) -> Option<std::net::IpAddr> {
    let address = field.ip(cx, what)?;
    let plain = address.to_canonical();
    if plain != address {
        cx.report(
            field.error(format!("{address} is an IPv4 address")).hint(format!("write {plain}")),
        );
        return None;
    }
    Some(address)
}
