//! Kinds of the Gateway API (semantics 2.10 and 5): GatewayClass, Gateway, TCPRoute, HTTPRoute,
//! GRPCRoute and ReferenceGrant. They have a schema, so that an unknown field is an error, and they
//! are in no mesh.

use std::num::NonZeroU16;

use super::{
    Host, Meta, Span, Tags,
    fields::{Context, Fields},
    names, object,
};

mod duration;
pub(super) mod grant;
pub(super) mod grpc;
pub(super) mod http;
pub(super) mod http_filter;
pub(super) mod http_match;
#[cfg(test)]
mod http_testing;
pub(super) mod listeners;
pub(super) mod route;
pub(super) mod rule;
pub(super) mod selector;

pub use grpc::{GrpcMatch, GrpcRoute, GrpcRule};
pub use http::{HttpRoute, HttpRule};
pub use rule::{RequestRoute, Retry, RuleBackend, SessionPersistence, SessionToken, Timeouts};

/// API group of these kinds.
pub const GROUP: &str = "gateway.networking.k8s.io";

/// `GatewayClass`: which controller carries out the Gateways of a class.
#[derive(Clone, Debug, PartialEq)]
pub struct GatewayClass {
    /// Identity; it has no namespace.
    pub meta: Meta,
    /// `spec.controllerName`.
    pub controller: String,
}

/// `Gateway`: addresses and ports that routes attach to.
#[derive(Clone, Debug, PartialEq)]
pub struct Gateway {
    /// Identity.
    pub meta: Meta,
    /// `spec.gatewayClassName`.
    pub class: String,
    /// Where that stands.
    pub class_span: Span,
    /// `spec.addresses`: its VIPs (decision D2).
    pub addresses: Vec<Host>,
    /// `spec.listeners` in written order.
    pub listeners: Vec<Listener>,
}

/// One listener of a Gateway.
#[derive(Clone, Debug, PartialEq)]
pub struct Listener {
    /// Where it stands.
    pub span: Span,
    /// `name`, unique in its Gateway; what a `sectionName` names.
    pub name: String,
    /// `port`.
    pub port: NonZeroU16,
    /// `protocol`.
    pub protocol: ListenerProtocol,
    /// `hostname`; absent: every host.
    pub hostname: Option<String>,
    /// `allowedRoutes.namespaces`.
    pub namespaces: AllowedNamespaces,
    /// `allowedRoutes.kinds` as (group, kind). Empty: those that its protocol carries.
    pub kinds: Vec<(String, String)>,
}

/// `protocol` of a listener.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum ListenerProtocol {
    /// HTTP.
    Http,
    /// HTTP over TLS.
    Https,
    /// TLS, told apart by server name.
    Tls,
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
    /// An implementation's own, e.g. `example.com/quic`.
    Other(String),
}

/// From which namespaces routes may attach.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AllowedNamespaces {
    /// The Gateway's own.
    Same,
    /// Every one.
    All,
    /// Those whose labels it matches.
    Selector(LabelSelector),
}

/// A label selector. All of it must match; an empty one matches everything.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LabelSelector {
    /// `matchLabels`.
    pub labels: Tags,
    /// `matchExpressions`.
    pub expressions: Vec<LabelExpression>,
}

/// One requirement of a label selector.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LabelExpression {
    /// The label.
    pub key: String,
    /// What it must be.
    pub operator: LabelOperator,
}

/// What a label must be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LabelOperator {
    /// One of these.
    In(Vec<String>),
    /// None of these; absent is right too.
    NotIn(Vec<String>),
    /// There.
    Exists,
    /// Not there.
    DoesNotExist,
}

/// `TCPRoute`: where the connections of listeners go.
#[derive(Clone, Debug, PartialEq)]
pub struct TcpRoute {
    /// Identity; its creation time orders routes that share a listener, the oldest first.
    pub meta: Meta,
    /// `spec.parentRefs`.
    pub parents: Vec<ParentRef>,
    /// `spec.rules[0].backendRefs`: the only rule there is.
    pub backends: Vec<BackendRef>,
}

/// What a route attaches to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ParentRef {
    /// Where it stands.
    pub span: Span,
    /// `group`; `""` for Services.
    pub group: String,
    /// `kind`: `Gateway`, or `Service`.
    pub kind: String,
    /// `namespace`, else the route's.
    pub namespace: String,
    /// `name`.
    pub name: String,
    /// `sectionName`: a listener, or a Service's port by name.
    pub section: Option<String>,
    /// `port`.
    pub port: Option<NonZeroU16>,
}

/// A weighted destination of a route.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BackendRef {
    /// Where it stands.
    pub span: Span,
    /// `group`; `""` for Services.
    pub group: String,
    /// `kind`: `Service`, or one that resolution refuses.
    pub kind: String,
    /// `namespace`, else the route's.
    pub namespace: String,
    /// `name`.
    pub name: String,
    /// `port` of the Service. Every reference to a Service has one.
    pub port: Option<NonZeroU16>,
    /// Relative weight, at most 1,000,000; 1 where absent. 0: takes nothing.
    pub weight: u32,
}

/// `ReferenceGrant`: who may name objects of its namespace from another one.
#[derive(Clone, Debug, PartialEq)]
pub struct ReferenceGrant {
    /// Identity; its namespace is the one that it opens.
    pub meta: Meta,
    /// `spec.from`: any of these may.
    pub from: Vec<GrantFrom>,
    /// `spec.to`: any of these may be named.
    pub to: Vec<GrantTo>,
}

/// Who may refer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GrantFrom {
    /// API group of the referring object.
    pub group: String,
    /// Its kind.
    pub kind: String,
    /// Its namespace.
    pub namespace: String,
}

/// What may be referred to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GrantTo {
    /// API group, `""` for Services.
    pub group: String,
    /// Kind.
    pub kind: String,
    /// Name; absent: every object of that kind.
    pub name: Option<String>,
}

/// Reads a GatewayClass. `None`: it has an error.
pub(super) fn class(cx: &mut Context<'_>, meta: Meta, root: Fields<'_>) -> Option<GatewayClass> {
    let mut spec = object::spec(cx, root)?;
    let controller = object::required(cx, &mut spec, "controllerName")
        .and_then(|field| names::domain_prefixed(cx, &field));
    spec.not_carried_out(cx, "parametersRef", "the controller's own settings apply");
    spec.without_effect(&["description"]);
    spec.finish(cx);
    Some(GatewayClass { meta, controller: controller? })
}

impl ListenerProtocol {
    /// As policies write it.
    pub fn name(&self) -> &str {
        match self {
            Self::Http => "HTTP",
            Self::Https => "HTTPS",
            Self::Tls => "TLS",
            Self::Tcp => "TCP",
            Self::Udp => "UDP",
            Self::Other(name) => name,
        }
    }
}
