//! Routes of any kind: what all of them have, and the references that they make.

use std::cmp::Ordering;

use crate::{
    http::Hostname,
    policy::{
        Meta,
        gateway::{
            BackendRef, GrpcRoute, HttpRoute, ListenerProtocol, ParentRef, RuleBackend, TcpRoute,
        },
        http_route::{Located, RouteFilter},
    },
};

/// Kinds of routes. At a port of a Service the smaller goes first (semantics 5.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum RouteKind {
    /// GRPCRoute.
    Grpc,
    /// HTTPRoute.
    Http,
    /// TCPRoute.
    Tcp,
}

impl RouteKind {
    /// As policies write it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Grpc => "GRPCRoute",
            Self::Http => "HTTPRoute",
            Self::Tcp => "TCPRoute",
        }
    }

    /// It tells requests apart, not only connections.
    pub fn is_of_requests(self) -> bool {
        self != Self::Tcp
    }

    /// What it speaks of: connections or requests.
    pub(super) fn carried(self) -> &'static str {
        if self.is_of_requests() { "requests" } else { "connections" }
    }

    /// Whether listeners of a protocol can carry it.
    pub(super) fn fits(self, protocol: &ListenerProtocol) -> bool {
        if self.is_of_requests() {
            is_of_requests(protocol)
        } else {
            *protocol == ListenerProtocol::Tcp
        }
    }

    /// Whether what a port of a Service says that it speaks is of use to it (`appProtocol`).
    /// Nothing said is anything. Behind a port with TLS nothing of ours is understood.
    pub(super) fn can_use(self, app_protocol: &str) -> bool {
        let spoken = app_protocol.to_ascii_lowercase();
        match self {
            Self::Tcp => true,
            Self::Grpc => {
                matches!(&*spoken, "grpc" | "http2" | "http" | "tcp" | "kubernetes.io/h2c")
            }
            Self::Http => matches!(
                &*spoken,
                "grpc" | "http2" | "http" | "tcp" | "kubernetes.io/h2c" | "kubernetes.io/ws"
            ),
        }
    }
}

/// Whether requests are told apart at listeners of a protocol.
pub(super) fn is_of_requests(protocol: &ListenerProtocol) -> bool {
    matches!(protocol, ListenerProtocol::Http | ListenerProtocol::Https)
}

/// A route.
#[derive(Clone, Copy, Debug)]
pub enum AnyRoute<'s> {
    /// Of calls of gRPC.
    Grpc(&'s GrpcRoute),
    /// Of requests of HTTP.
    Http(&'s HttpRoute),
    /// Of connections.
    Tcp(&'s TcpRoute),
}

/// An object that a route names.
#[derive(Clone, Debug)]
pub struct Reference<'s> {
    /// What it says.
    pub to: &'s BackendRef,
    /// Its field path: `spec.rules[0].backendRefs[1]`.
    pub field: String,
    /// Copies of requests go there, not the requests.
    pub mirror: bool,
}

impl<'s> AnyRoute<'s> {
    /// Its kind.
    pub fn kind(self) -> RouteKind {
        match self {
            Self::Grpc(_) => RouteKind::Grpc,
            Self::Http(_) => RouteKind::Http,
            Self::Tcp(_) => RouteKind::Tcp,
        }
    }

    /// Its identity.
    pub fn meta(self) -> &'s Meta {
        match self {
            Self::Grpc(route) => &route.meta,
            Self::Http(route) => &route.meta,
            Self::Tcp(route) => &route.meta,
        }
    }

    /// `HTTPRoute shop/storefront`.
    pub fn called(self) -> String {
        let (namespace, name) = self.meta().object();
        format!("{} {namespace}/{name}", self.kind().name())
    }

    /// What it attaches to.
    pub fn parents(self) -> &'s [ParentRef] {
        match self {
            Self::Grpc(route) => &route.parents,
            Self::Http(route) => &route.parents,
            Self::Tcp(route) => &route.parents,
        }
    }

    /// Hosts that it is for, as written; none: all of them.
    pub(in crate::resolve) fn hostnames(self) -> &'s [String] {
        match self {
            Self::Grpc(route) => &route.hostnames,
            Self::Http(route) => &route.hostnames,
            Self::Tcp(_) => &[],
        }
    }

    /// The hosts of a listener that it is for; none: those of the two have nothing in common.
    pub(super) fn hosts_at(self, listener: &Hostname) -> Vec<Hostname> {
        if self.hostnames().is_empty() {
            return vec![listener.clone()];
        }
        let mut both: Vec<Hostname> = Vec::new();
        for hostname in self.hostnames() {
            // Validation has seen to it that each is one.
            let own = Hostname::new(hostname).ok();
            if let Some(host) = own.and_then(|own| own.intersect(listener))
                && !both.contains(&host)
            {
                both.push(host);
            }
        }
        both
    }

    /// Everything that it names, in written order, of each rule backends first.
    pub(in crate::resolve) fn references(self) -> Vec<Reference<'s>> {
        let mut references = Vec::new();
        match self {
            Self::Tcp(route) => {
                let backends = route.backends.iter().enumerate();
                references.extend(backends.map(|(at, to)| Reference {
                    to,
                    field: format!("spec.rules[0].backendRefs[{at}]"),
                    mirror: false,
                }));
            }
            Self::Http(route) => {
                for rule in &route.rules {
                    of_rule(&rule.field, &rule.backends, &rule.filters, &mut references);
                }
            }
            Self::Grpc(route) => {
                for rule in &route.rules {
                    of_rule(&rule.field, &rule.backends, &rule.filters, &mut references);
                }
            }
        }
        references
    }

    /// The rules whose requests are answered with 500 because of a filter that is not known here:
    /// field and type of each such filter. And how many rules there are that have none.
    pub(super) fn unknown_filters(self) -> (Vec<(&'s str, &'s str)>, usize) {
        type Filters<'f> = &'f [Located<RouteFilter<BackendRef>>];
        let of_rules: Vec<Filters<'s>> = match self {
            Self::Tcp(_) => Vec::new(),
            Self::Http(route) => route.rules.iter().map(|rule| &*rule.filters).collect(),
            Self::Grpc(route) => route.rules.iter().map(|rule| &*rule.filters).collect(),
        };
        let unknown = |filters: Filters<'s>| {
            filters.iter().find_map(|filter| match &filter.value {
                RouteFilter::Unsupported(kind) => Some((filter.field.as_str(), kind.as_str())),
                _ => None,
            })
        };
        let found: Vec<_> = of_rules.iter().filter_map(|filters| unknown(filters)).collect();
        let others = of_rules.len() - found.len();
        (found, others)
    }
}

fn of_rule<'s>(
    field: &str,
    backends: &'s [RuleBackend],
    filters: &'s [Located<RouteFilter<BackendRef>>],
    references: &mut Vec<Reference<'s>>,
) {
    for (at, backend) in backends.iter().enumerate() {
        let field = format!("{field}.backendRefs[{at}]");
        references.push(Reference { to: &backend.to, field, mirror: false });
    }
    let of_backends = backends.iter().flat_map(|backend| &backend.filters);
    for filter in filters.iter().chain(of_backends) {
        if let RouteFilter::Mirror(mirror) = &filter.value {
            let field = format!("{}.requestMirror.backendRef", filter.field);
            references.push(Reference { to: &mirror.backend, field, mirror: true });
        }
    }
}

/// The oldest first, then by namespace and name. A route without a creation time counts as
/// older than any with one, as policies do elsewhere (docs/decisions/020).
pub(super) fn by_age(a: AnyRoute<'_>, b: AnyRoute<'_>) -> Ordering {
    let born = |route: AnyRoute<'_>| route.meta().created.unwrap_or(f64::NEG_INFINITY);
    born(a)
        .total_cmp(&born(b))
        .then_with(|| a.meta().object().cmp(&b.meta().object()))
        .then_with(|| a.kind().cmp(&b.kind()))
}

/// By which rule the first of two routes goes before the second, for people.
pub fn by_age_rule(first: AnyRoute<'_>, second: AnyRoute<'_>) -> &'static str {
    match (first.meta().created, second.meta().created) {
        (None, Some(_)) => "it has no creation time, which counts as older",
        (Some(first), Some(second)) if first < second => "it was created earlier",
        _ if first.meta().object() == second.meta().object() => {
            "neither is older, both have one name, and its kind goes first"
        }
        _ => "neither is older, and its namespace and name come first",
    }
}
