//! Which routes of the Gateway API attach to which listeners and Services, and what becomes of
//! their references (semantics 5), as values: VIPs, routes, findings and explanations come from
//! them.

use std::{collections::BTreeMap, fmt, num::NonZeroU16};

mod beside;
mod carry;
mod check;
mod listeners;
mod rivals;
mod route;
mod rules;
mod turned_away;
mod world;

pub(super) use beside::losers;
pub(super) use check::{gateways, routes};
pub(super) use listeners::dialled;
pub use route::{AnyRoute, Reference, RouteKind, by_age_rule};

use route::by_age;
use world::World;

use super::Destination;

use crate::policy::{
    PolicySet,
    gateway::{Gateway, GatewayClass, ParentRef},
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
    /// Listeners would take this route, and none of them is for a host of its.
    NoMatchingListenerHostname,
    /// A route of another kind is there, and goes first.
    Conflicted,
    /// A parent of a kind that routes do not attach to; a part that is not known here.
    UnsupportedValue,
    /// Every backend is there.
    ResolvedRefs,
    /// Another namespace, and no ReferenceGrant there allows it.
    RefNotPermitted,
    /// No kind that connections or requests can go to.
    InvalidKind,
    /// There is no such Service, or it has no such port.
    BackendNotFound,
    /// The port is none of TCP, or its `appProtocol` is of no use to the route.
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
    /// What it would have attached to, was there no route of another kind: where, and which (an
    /// index into [`Attachments::routes`]).
    pub lost: Vec<(Point<'s>, usize)>,
    /// Listeners that are meant and do not take it, with why: `allows no GRPCRoute`.
    pub refused: Vec<(Point<'s>, String)>,
    /// Condition `Accepted`.
    pub accepted: Condition,
    /// Condition `ResolvedRefs`. A route with references that are not resolved stays accepted:
    /// their share is refused.
    pub resolved: Condition,
    /// Condition `PartiallyInvalid`, which is only there where it holds.
    pub partially_invalid: Option<Condition>,
    /// One for each of the route's references.
    pub backends: Vec<Backend<'s>>,
}

/// What became of a route.
#[derive(Clone, Debug)]
pub struct RouteStatus<'s> {
    /// The route.
    pub route: AnyRoute<'s>,
    /// What it names, in written order, of each rule backends before mirrors.
    pub references: Vec<Reference<'s>>,
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
    /// Sorted by (namespace, name), then by kind.
    pub routes: Vec<RouteStatus<'s>>,
    /// Routes at each point as indices into `routes`, the oldest first. Of TCPRoutes that one
    /// carries the connections, and the others are accepted and carry none; the rules of others
    /// hold together.
    pub points: BTreeMap<Point<'s>, Vec<usize>>,
    /// Ports of Services to which clients of some namespaces have routes of their own, with
    /// these namespaces, sorted.
    consumers: BTreeMap<Destination, Vec<&'s str>>,
}

/// Attaches every route of a set. Gateways are ours whose class names `controller`, and those
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
    let mut routes: Vec<AnyRoute<'_>> = Vec::new();
    routes.extend(set.grpc_routes.iter().map(|route| AnyRoute::Grpc(route)));
    routes.extend(set.http_routes.iter().map(|route| AnyRoute::Http(route)));
    routes.extend(set.tcp_routes.iter().map(|route| AnyRoute::Tcp(route)));
    routes.sort_by_key(|route| (route.meta().object(), route.kind()));
    let routes: Vec<RouteStatus<'_>> =
        routes.into_iter().map(|route| world.status(route)).collect();
    let mut points: BTreeMap<Point<'_>, Vec<usize>> = BTreeMap::new();
    for (index, status) in routes.iter().enumerate() {
        for point in status.parents.iter().flat_map(|parent| &parent.points) {
            let at = points.entry(*point).or_default();
            // Two references of one route can mean one listener.
            if at.last() != Some(&index) {
                at.push(index);
            }
        }
    }
    for at in points.values_mut() {
        at.sort_by(|a, b| by_age(routes[*a].route, routes[*b].route));
    }
    let mut attached =
        Attachments { gateways, foreign, routes, points, consumers: BTreeMap::new() };
    attached.settle();
    for point in attached.points.keys() {
        if let Point::Service { namespace, service, port, clients: Some(clients) } = point {
            let destination = Destination::service(namespace, service, *port);
            attached.consumers.entry(destination).or_default().push(*clients);
        }
    }
    attached
}

#[cfg(test)]
#[path = "../tests/gateway.rs"]
mod tests;
