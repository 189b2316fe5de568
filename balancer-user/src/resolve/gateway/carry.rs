//! The route that connections and requests of a point follow.

use std::collections::BTreeSet;

use super::{Attachments, ParentStatus, Point, RouteStatus, route::AnyRoute};
use crate::{
    policy::{
        LoadBalancer, Tags,
        gateway::{BackendRef, TcpRoute},
        kubernetes::{Service, ServicePort},
    },
    resolve::{
        Decision, Destination, Hashing, PolicyRef, Route, VipProtocol,
        inventory::{Family, Inventory},
        split::Place,
    },
};

impl<'s> Attachments<'s> {
    /// The routes of a point, the oldest first, each with what became of it there.
    pub fn at(&self, point: &Point<'_>) -> Vec<(&RouteStatus<'s>, &ParentStatus<'s>)> {
        let routes = self.points.get(point).map_or(&[][..], Vec::as_slice).iter();
        let with_parent = routes.filter_map(|route| {
            let status = &self.routes[*route];
            let parent = status.parents.iter().find(|parent| parent.points.contains(point))?;
            Some((status, parent))
        });
        with_parent.collect()
    }

    /// The route that goes first at a point, with what became of it there: of TCPRoutes the one
    /// that carries the connections.
    pub fn carrier(&self, point: &Point<'_>) -> Option<(&RouteStatus<'s>, &ParentStatus<'s>)> {
        self.at(point).into_iter().next()
    }

    /// The namespaces whose clients have a route of their own to a port of a Service, sorted.
    pub fn consumers(&self, destination: &Destination) -> &[&'s str] {
        self.consumers.get(destination).map_or(&[], Vec::as_slice)
    }

    /// The families in which the backends of a point's routes have endpoints.
    pub(super) fn families(
        &self,
        point: &Point<'_>,
        inventory: &Inventory<'_>,
    ) -> BTreeSet<Family> {
        let mut families = BTreeSet::new();
        for (status, parent) in self.at(point) {
            let weighted = status.references.iter().zip(&parent.backends);
            let used = weighted.filter(|(reference, _)| reference.to.weight > 0);
            let found = used.filter_map(|(_, found)| found.as_ref().ok());
            let known = found.filter_map(|found| inventory.endpoints(&destination_of(found)));
            families.extend(known.flat_map(|known| known.families()));
            // Of several TCPRoutes the first carries all connections.
            if !status.route.kind().is_of_requests() {
                break;
            }
        }
        families
    }

    /// The route that connections from clients of a namespace to a destination follow: that of
    /// their own namespace, else that for all; `None` where no route is attached and nobody tells
    /// requests apart.
    pub fn route(
        &self,
        destination: &Destination,
        clients: Option<&str>,
        place: &Place<'_>,
    ) -> Option<Route> {
        if let Some(lowered) = self.lowered(destination, clients, place) {
            return Some(lowered.route(destination, place));
        }
        let point = self.point(destination, clients)?;
        let (status, parent) = self.carrier(&point)?;
        match status.route {
            AnyRoute::Tcp(route) => Some(carried(route, status, parent, place)),
            AnyRoute::Http(_) | AnyRoute::Grpc(_) => None,
        }
    }

    /// The point whose routes connections from clients of a namespace to a destination follow; of
    /// listeners that are dialled as one the first that has any.
    pub fn point<'d>(
        &self,
        destination: &'d Destination,
        clients: Option<&'d str>,
    ) -> Option<Point<'d>>
    where
        's: 'd,
    {
        self.places(destination, clients).into_iter().find(|point| self.points.contains_key(point))
    }

    /// Where routes for connections from clients of a namespace to a destination attach, whether
    /// there are any or not: those of the first that has some are followed, and the rules of all
    /// listeners that are dialled as one.
    pub fn places<'d>(
        &self,
        destination: &'d Destination,
        clients: Option<&'d str>,
    ) -> Vec<Point<'d>>
    where
        's: 'd,
    {
        match (destination, producer_point(destination)) {
            (Destination::Listener { namespace, gateway, .. }, _) => {
                let listeners = self.dialled_as(destination).into_iter();
                let points = listeners.map(|one| {
                    let listener = one.name.as_str();
                    Point::Listener { namespace, gateway, listener }
                });
                points.collect()
            }
            (_, Some(all @ Point::Service { namespace, service, port, .. })) => {
                let own = clients.map(|_| Point::Service { namespace, service, port, clients });
                own.into_iter().chain([all]).collect()
            }
            _ => Vec::new(),
        }
    }
}

/// Where routes for all clients of a port of a Service attach. They do to ports of TCP.
fn producer_point(destination: &Destination) -> Option<Point<'_>> {
    match destination {
        Destination::Service { namespace, name, port, protocol: VipProtocol::Tcp } => {
            Some(Point::Service { namespace, service: name, port: *port, clients: None })
        }
        _ => None,
    }
}

/// A route as outcomes name it.
pub(super) fn policy_of(route: AnyRoute<'_>) -> PolicyRef {
    let meta = route.meta();
    let (namespace, name) = meta.object();
    PolicyRef {
        kind: meta.kind.to_owned(),
        mesh: String::new(),
        name: format!("{name}.{namespace}"),
    }
}

fn carried(
    route: &TcpRoute,
    status: &RouteStatus<'_>,
    parent: &ParentStatus<'_>,
    place: &Place<'_>,
) -> Route {
    let share = |backend: &BackendRef| {
        place.backend_of(backend.weight, leads_to(status, parent, backend), Tags::new())
    };
    Route {
        policy: Some(policy_of(status.route)),
        decision: Decision::Forward,
        load_balancer: LoadBalancer::RoundRobin,
        hashing: Hashing::default(),
        backends: route.backends.iter().map(share).collect(),
        http: None,
    }
}

/// Where a reference of a route leads at one of its parents.
pub(super) fn leads_to(
    status: &RouteStatus<'_>,
    parent: &ParentStatus<'_>,
    to: &BackendRef,
) -> Destination {
    let says_so = |other: &BackendRef| {
        (&other.group, &other.kind, &other.namespace, &other.name, other.port)
            == (&to.group, &to.kind, &to.namespace, &to.name, to.port)
    };
    let at = status.references.iter().position(|reference| says_so(reference.to));
    match at.and_then(|at| parent.backends.get(at)) {
        Some(Ok(found)) => destination_of(found),
        Some(Err(_)) | None => refused(to),
    }
}

pub(super) fn destination_of((service, port): &(&Service, &ServicePort)) -> Destination {
    let (namespace, name) = service.meta.object();
    Destination::service(namespace, name, port.port)
}

/// What a reference says that is refused: nothing that is ever there, though a Service of that
/// name may be, so that its share stays refused (decision D10) whatever becomes of its endpoints.
pub(super) fn refused(to: &BackendRef) -> Destination {
    let BackendRef { group, kind, namespace, name, .. } = to;
    let text = match to.port {
        Some(port) if group.is_empty() && kind == "Service" => {
            format!("{name}.{namespace}:{port}")
        }
        _ => format!("{name}.{namespace} ({kind})"),
    };
    // No mesh has this name.
    Destination::tags("", &text)
}
