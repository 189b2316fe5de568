//! Which TCPRoutes attach to which listeners, and what becomes of their references (semantics
//! 5.1, 5.4, 5.6, 5.8), as values: VIPs, routes, findings and explanations come from them.

use std::{cmp::Ordering, collections::BTreeMap, fmt, num::NonZeroU16};

mod beside;
mod carry;
mod check;
mod listeners;
mod world;

pub(super) use beside::losers;
pub(super) use check::{gateways, routes};
pub(super) use listeners::dialled;

use world::World;

use super::Destination;

use crate::policy::{
    PolicySet,
    gateway::{Gateway, GatewayClass, ParentRef, TcpRoute},
    kubernetes::{Service, ServicePort},
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

impl fmt::Display for Point<'_> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Listener { namespace, gateway, listener } => {
                write!(formatter, "the listener {gateway}.{namespace}/{listener}")
            }
            Self::Service { namespace, service, port, clients } => {
                write!(formatter, "the Service {service}.{namespace}:{port}")?;
                match clients {
                    Some(clients) => write!(formatter, " from the namespace {clients}"),
                    None => Ok(()),
                }
            }
        }
    }
}

/// Reason of a condition, as the Gateway API spells it.
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
    /// Its place in `parentRefs`.
    pub index: usize,
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
    /// One for each of its `parentRefs`, but for those that name a Gateway of another
    /// controller: what becomes of them is that one's to say.
    pub parents: Vec<ParentStatus<'s>>,
}

/// What became of every route.
#[derive(Clone, Debug, Default)]
pub struct Attachments<'s> {
    /// The Gateways that are carried out here, sorted by (namespace, name).
    pub gateways: Vec<&'s Gateway>,
    /// Those of a class that names another controller, with their class, sorted the same.
    pub foreign: Vec<(&'s Gateway, &'s GatewayClass)>,
    /// Sorted by (namespace, name).
    pub routes: Vec<RouteStatus<'s>>,
    /// Routes at each point as indices into `routes`, the oldest first. It carries the
    /// connections; the others are accepted and carry none.
    pub points: BTreeMap<Point<'s>, Vec<usize>>,
    /// Ports of Services to which clients of some namespaces have routes of their own, with
    /// these namespaces, sorted.
    consumers: BTreeMap<Destination, Vec<&'s str>>,
}

/// Attaches every TCPRoute of a set. Gateways are ours whose class names `controller`, and those
/// whose class is not among the documents: then nobody says that they are another's.
pub fn attach<'s>(set: &'s PolicySet, controller: &str) -> Attachments<'s> {
    let classes: BTreeMap<&str, &GatewayClass> =
        set.gateway_classes.iter().map(|class| (class.meta.name.as_str(), &**class)).collect();
    let mut sorted: Vec<&Gateway> = set.gateways.iter().map(|gateway| &**gateway).collect();
    sorted.sort_by_key(|gateway| gateway.meta.object());
    let (mut gateways, mut foreign) = (Vec::new(), Vec::new());
    for gateway in sorted {
        match classes.get(gateway.class.as_str()).filter(|class| class.controller != controller) {
            Some(class) => foreign.push((gateway, *class)),
            None => gateways.push(gateway),
        }
    }
    let world = World::new(set, &gateways, &foreign);
    let mut routes: Vec<&TcpRoute> = set.tcp_routes.iter().map(|route| &**route).collect();
    routes.sort_by_key(|route| route.meta.object());
    let routes: Vec<RouteStatus<'_>> = routes
        .into_iter()
        .map(|route| {
            let parents = route.parents.iter().enumerate();
            let ours = parents.filter(|(_, parent)| !world.is_foreign(parent));
            let parents = ours.map(|(index, parent)| world.parent(route, index, parent)).collect();
            RouteStatus { route, parents }
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
    let mut consumers: BTreeMap<_, Vec<_>> = BTreeMap::new();
    for point in points.keys() {
        if let Point::Service { namespace, service, port, clients: Some(clients) } = point {
            let destination = Destination::service(namespace, service, *port);
            consumers.entry(destination).or_default().push(*clients);
        }
    }
    Attachments { gateways, foreign, routes, points, consumers }
}

/// The oldest first, then by namespace and name. A route without a creation time counts as
/// older than any with one, as policies do elsewhere (docs/decisions/020).
fn by_age(a: &TcpRoute, b: &TcpRoute) -> Ordering {
    let born = |route: &TcpRoute| route.meta.created.unwrap_or(f64::NEG_INFINITY);
    born(a).total_cmp(&born(b)).then_with(|| a.meta.object().cmp(&b.meta.object()))
}

/// By which rule the first of two routes goes before the second, for people.
pub fn by_age_rule(first: &TcpRoute, second: &TcpRoute) -> &'static str {
    match (first.meta.created, second.meta.created) {
        (None, Some(_)) => "it has no creation time, which counts as older",
        (Some(first), Some(second)) if first < second => "it was created earlier",
        _ => "neither is older, and its namespace and name come first",
    }
}

#[cfg(test)]
#[path = "../tests/gateway.rs"]
mod tests;
