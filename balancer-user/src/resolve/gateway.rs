//! Which TCPRoutes attach to which listeners, and what becomes of their references (semantics
//! 5.1, 5.4, 5.6, 5.8), as values. Nothing resolves Gateways yet: these are the rules that it
//! will go by.

use std::{cmp::Ordering, collections::BTreeMap, fmt, num::NonZeroU16};

use super::kubernetes::tcp_port;
use crate::policy::{
    PolicySet, Tags,
    gateway::{
        AllowedNamespaces, BackendRef, GROUP, Gateway, Listener, ListenerProtocol, ParentRef,
        ReferenceGrant, TcpRoute,
    },
    kubernetes::{NAMESPACE_NAME_LABEL, Service, ServiceKind, ServicePort},
};

/// What a route attaches to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Point<'s> {
    /// A listener of a Gateway.
    Listener {
        /// The Gateway's namespace.
        namespace: &'s str,
        /// The Gateway.
        gateway: &'s str,
        /// The listener.
        listener: &'s str,
    },
    /// A port of a Service, for all clients or only for those of one namespace.
    Service {
        /// The Service's namespace.
        namespace: &'s str,
        /// The Service.
        service: &'s str,
        /// Its port.
        port: NonZeroU16,
        /// The namespace of the clients; absent: all of them. A route of the Service's own
        /// namespace is for all clients, one of another namespace for that namespace's.
        clients: Option<&'s str>,
    },
}

/// ConditionReason of a condition, as the Gateway API spells it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum ConditionReason {
    /// Attached to at least one listener or port.
    Accepted,
    /// No listener or port is meant by the reference.
    NoMatchingParent,
    /// Listeners are meant, and none of them takes this route.
    NotAllowedByListeners,
    /// A parent of a kind that routes do not attach to.
    UnsupportedValue,
    /// Every backend is there.
    ResolvedRefs,
    /// Another namespace, and no ReferenceGrant there allows it.
    RefNotPermitted,
    /// No kind that connections can go to.
    InvalidKind,
    /// There is no such Service, or it has no such port.
    BackendNotFound,
    /// The port is none of TCP.
    UnsupportedProtocol,
}

impl fmt::Display for ConditionReason {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The variants are the API's words.
        fmt::Debug::fmt(self, formatter)
    }
}

/// A condition of a status.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Condition {
    /// `True`, else `False`.
    pub holds: bool,
    /// Why.
    pub reason: ConditionReason,
    /// Why, for people.
    pub message: String,
}

/// What became of one `backendRef`.
pub type Backend<'s> = Result<(&'s Service, &'s ServicePort), (ConditionReason, String)>;

/// What became of a route at one of its parents.
#[derive(Clone, Debug)]
pub struct ParentStatus<'s> {
    /// The reference.
    pub parent: &'s ParentRef,
    /// What it attached to, in order.
    pub points: Vec<Point<'s>>,
    /// Condition `Accepted`.
    pub accepted: Condition,
    /// Condition `ResolvedRefs`. A route with references that are not resolved stays accepted:
    /// their share of connections is refused.
    pub resolved: Condition,
    /// One for each of the route's backends.
    pub backends: Vec<Backend<'s>>,
}

/// What became of a route.
#[derive(Clone, Debug)]
pub struct RouteStatus<'s> {
    /// The route.
    pub route: &'s TcpRoute,
    /// One for each of its `parentRefs`.
    pub parents: Vec<ParentStatus<'s>>,
}

/// What became of every route.
#[derive(Clone, Debug, Default)]
pub struct Attachments<'s> {
    /// Sorted by (namespace, name).
    pub routes: Vec<RouteStatus<'s>>,
    /// Routes at each point as indices into `routes`, the oldest first. It carries the
    /// connections; the others are accepted and carry none.
    pub points: BTreeMap<Point<'s>, Vec<usize>>,
}

/// Attaches every TCPRoute of a set.
pub fn attach(set: &PolicySet) -> Attachments<'_> {
    let world = World::new(set);
    let mut routes: Vec<&TcpRoute> = set.tcp_routes.iter().collect();
    routes.sort_by_key(|route| (&route.meta.namespace, &route.meta.name));
    let routes: Vec<RouteStatus<'_>> = routes
        .into_iter()
        .map(|route| RouteStatus {
            route,
            parents: route.parents.iter().map(|parent| world.parent(route, parent)).collect(),
        })
        .collect();
    let mut points: BTreeMap<Point<'_>, Vec<usize>> = BTreeMap::new();
    for (index, status) in routes.iter().enumerate() {
        for point in status.parents.iter().flat_map(|parent| &parent.points) {
            let at = points.entry(*point).or_default();
            // Two references of one route can mean one listener.
            if !at.contains(&index) {
                at.push(index);
            }
        }
    }
    for at in points.values_mut() {
        at.sort_by(|a, b| by_age(routes[*a].route, routes[*b].route));
    }
    Attachments { routes, points }
}

/// The oldest first, then by namespace and name. A route without a creation time counts as
/// older than any with one, as policies do elsewhere (docs/decisions/020).
fn by_age(a: &TcpRoute, b: &TcpRoute) -> Ordering {
    let born = |route: &TcpRoute| route.meta.created.unwrap_or(f64::NEG_INFINITY);
    let name = |route: &TcpRoute| (route.meta.namespace.clone(), route.meta.name.clone());
    born(a).total_cmp(&born(b)).then_with(|| name(a).cmp(&name(b)))
}

/// What references are looked up in.
struct World<'s> {
    gateways: BTreeMap<(&'s str, &'s str), &'s Gateway>,
    services: BTreeMap<(&'s str, &'s str), &'s Service>,
    namespaces: BTreeMap<&'s str, &'s Tags>,
    grants: &'s [ReferenceGrant],
}

impl<'s> World<'s> {
    fn new(set: &'s PolicySet) -> Self {
        let gateways = set.gateways.iter().map(|gateway| (gateway.meta.object(), gateway));
        let services = set.services.iter().map(|service| (service.meta.object(), service));
        let namespaces =
            set.namespaces.iter().map(|one| (one.meta.name.as_str(), &one.meta.labels));
        Self {
            gateways: gateways.collect(),
            services: services.collect(),
            namespaces: namespaces.collect(),
            grants: &set.reference_grants,
        }
    }

    fn parent(&self, route: &'s TcpRoute, parent: &'s ParentRef) -> ParentStatus<'s> {
        let found = match (parent.group.as_str(), parent.kind.as_str()) {
            (GROUP, "Gateway") => self.listeners(route, parent),
            ("", "Service") => self.service_ports(route, parent),
            (group, kind) => Err((
                ConditionReason::UnsupportedValue,
                format!("a TCPRoute does not attach to a {kind} of the group '{group}'"),
            )),
        };
        let (points, accepted) = match found {
            Ok(points) => {
                let message = format!("attached to {}", counted(points.len(), "place"));
                (points, Condition { holds: true, reason: ConditionReason::Accepted, message })
            }
            Err((reason, message)) => (Vec::new(), Condition { holds: false, reason, message }),
        };
        // Routes on a Service may send to any namespace (semantics 5.1).
        let granted = parent.group.is_empty();
        let backends: Vec<_> =
            route.backends.iter().map(|backend| self.backend(route, backend, granted)).collect();
        let resolved = resolved(&backends);
        ParentStatus { parent, points, accepted, resolved, backends }
    }

    fn listeners(
        &self,
        route: &TcpRoute,
        parent: &'s ParentRef,
    ) -> Result<Vec<Point<'s>>, (ConditionReason, String)> {
        let (namespace, name) = (parent.namespace.as_str(), parent.name.as_str());
        let Some(gateway) = self.gateways.get(&(namespace, name)) else {
            let message = format!("there is no Gateway {namespace}/{name}");
            return Err((ConditionReason::NoMatchingParent, message));
        };
        let meant: Vec<&'s Listener> = gateway
            .listeners
            .iter()
            .filter(|listener| parent.section.as_ref().is_none_or(|name| *name == listener.name))
            .filter(|listener| parent.port.is_none_or(|port| port == listener.port))
            .collect();
        if meant.is_empty() {
            let message = format!("no listener of {namespace}/{name} has {}", wanted(parent));
            return Err((ConditionReason::NoMatchingParent, message));
        }
        let mut refusals = Vec::new();
        let mut points = Vec::new();
        for listener in meant {
            match self.refusal(route, namespace, listener) {
                Some(refusal) => refusals.push(format!("`{}` {refusal}", listener.name)),
                None => {
                    let listener = listener.name.as_str();
                    points.push(Point::Listener { namespace, gateway: name, listener });
                }
            }
        }
        if points.is_empty() {
            return Err((ConditionReason::NotAllowedByListeners, refusals.join("; ")));
        }
        points.sort_unstable();
        Ok(points)
    }

    /// Why a listener does not take a route.
    fn refusal(&self, route: &TcpRoute, own: &str, listener: &Listener) -> Option<String> {
        if listener.protocol != ListenerProtocol::Tcp {
            return Some("is no listener of TCP".to_owned());
        }
        let is_tcp_route = |(group, kind): &(String, String)| group == GROUP && kind == "TCPRoute";
        if !listener.kinds.is_empty() && !listener.kinds.iter().any(is_tcp_route) {
            return Some("allows no TCPRoute".to_owned());
        }
        let from = route.meta.object().0;
        let allowed = match &listener.namespaces {
            AllowedNamespaces::All => true,
            AllowedNamespaces::Same => from == own,
            AllowedNamespaces::Selector(selector) => match self.namespaces.get(from) {
                Some(labels) => selector.matches(labels),
                // Without a Namespace document its name is all that is known.
                None => selector
                    .matches(&Tags::from([(NAMESPACE_NAME_LABEL.to_owned(), from.to_owned())])),
            },
        };
        (!allowed).then(|| format!("allows no route of the namespace `{from}`"))
    }

    fn service_ports(
        &self,
        route: &'s TcpRoute,
        parent: &'s ParentRef,
    ) -> Result<Vec<Point<'s>>, (ConditionReason, String)> {
        let (namespace, name) = (parent.namespace.as_str(), parent.name.as_str());
        let no_parent = |message| Err((ConditionReason::NoMatchingParent, message));
        let Some(service) = self.services.get(&(namespace, name)) else {
            return no_parent(format!("there is no Service {namespace}/{name}"));
        };
        let from = route.meta.object().0;
        let clients = (from != namespace).then_some(from);
        let mut points: Vec<_> = service
            .ports
            .iter()
            .filter(|port| port.is_tcp())
            .filter(|port| parent.section.as_ref().is_none_or(|name| *name == port.name))
            .filter(|port| parent.port.is_none_or(|number| number == port.port))
            .map(|port| Point::Service { namespace, service: name, port: port.port, clients })
            .collect();
        if points.is_empty() {
            let message = format!("no TCP port of {namespace}/{name} has {}", wanted(parent));
            return no_parent(message);
        }
        points.sort_unstable();
        Ok(points)
    }

    fn backend(&self, route: &TcpRoute, backend: &BackendRef, granted: bool) -> Backend<'s> {
        let BackendRef { group, kind, namespace, name, port, .. } = backend;
        if !group.is_empty() || kind != "Service" {
            let message = format!("connections do not go to a {kind} of the group '{group}'");
            return Err((ConditionReason::InvalidKind, message));
        }
        // Before it is looked up: whether it is there is not for everybody to know.
        let from = route.meta.object().0;
        if from != namespace
            && !granted
            && !self.grants.iter().any(|one| grants(one, from, backend))
        {
            return Err((
                ConditionReason::RefNotPermitted,
                format!(
                    "no ReferenceGrant of `{namespace}` allows TCPRoutes of `{from}` to name the Service {name}"
                ),
            ));
        }
        let Some(service) = self.services.get(&(namespace.as_str(), name.as_str())) else {
            let message = format!("there is no Service {namespace}/{name}");
            return Err((ConditionReason::BackendNotFound, message));
        };
        if let ServiceKind::ExternalName(host) = &service.kind {
            let message = format!("{namespace}/{name} is only another name for {host}");
            return Err((ConditionReason::InvalidKind, message));
        }
        let number = port.map_or_else(|| "-".to_owned(), |port| port.to_string());
        if let Some(found) = port.and_then(|port| tcp_port(service, port)) {
            return Ok((service, found));
        }
        if service.ports.iter().any(|other| Some(other.port) == *port) {
            let message = format!("port {number} of {namespace}/{name} is no TCP port");
            return Err((ConditionReason::UnsupportedProtocol, message));
        }
        Err((ConditionReason::BackendNotFound, format!("{namespace}/{name} has no port {number}")))
    }
}

/// Whether a grant lets TCPRoutes of a namespace name a backend.
fn grants(grant: &ReferenceGrant, from: &str, backend: &BackendRef) -> bool {
    grant.meta.object().0 == backend.namespace
        && grant
            .from
            .iter()
            .any(|one| one.group == GROUP && one.kind == "TCPRoute" && one.namespace == from)
        && grant.to.iter().any(|to| {
            to.group == backend.group
                && to.kind == backend.kind
                && to.name.as_ref().is_none_or(|name| *name == backend.name)
        })
}

/// The condition that a route's references give together: the reason of the first that fails.
fn resolved(backends: &[Backend<'_>]) -> Condition {
    let failed: Vec<_> = backends.iter().filter_map(|backend| backend.as_ref().err()).collect();
    match failed.first() {
        Some((reason, _)) => {
            let messages: Vec<&str> = failed.iter().map(|(_, message)| message.as_str()).collect();
            Condition { holds: false, reason: *reason, message: messages.join("; ") }
        }
        None => Condition {
            holds: true,
            reason: ConditionReason::ResolvedRefs,
            message: format!("{} found", counted(backends.len(), "backend")),
        },
    }
}

/// What a reference asks of a listener or port.
fn wanted(parent: &ParentRef) -> String {
    match (&parent.section, parent.port) {
        (Some(name), Some(port)) => format!("the name `{name}` and the port {port}"),
        (Some(name), None) => format!("the name `{name}`"),
        (None, Some(port)) => format!("the port {port}"),
        (None, None) => "any name".to_owned(),
    }
}

fn counted(number: usize, what: &str) -> String {
    let plural = if number == 1 { "" } else { "s" };
    format!("{number} {what}{plural}")
}

#[cfg(test)]
#[path = "tests/gateway.rs"]
mod tests;
