//! The route that connections of a point follow.

use std::collections::BTreeSet;

use super::{Attachments, Backend as Found, ParentStatus, Point, RouteStatus};
use crate::{
    policy::{
        LoadBalancer, Tags,
        gateway::BackendRef,
        kubernetes::{Service, ServicePort},
    },
    resolve::{
        Backend, BackendState, Decision, Destination, Hashing, PolicyRef, Route, VipProtocol,
        inventory::{Family, Inventory},
        split::Place,
    },
};

impl<'s> Attachments<'s> {
    /// The TCPRoute that carries the connections of a point, with what became of it there.
    pub fn carrier(&self, point: &Point<'_>) -> Option<(&RouteStatus<'s>, &ParentStatus<'s>)> {
        let status = &self.routes[*self.points.get(point)?.first()?];
        let parent = status.parents.iter().find(|parent| parent.points.contains(point))?;
        Some((status, parent))
    }

    /// The namespaces whose clients have a route of their own to a port of a Service, sorted.
    pub fn consumers(&self, destination: &Destination) -> &[&'s str] {
        self.consumers.get(destination).map_or(&[], Vec::as_slice)
    }

    /// The families in which the backends of a point's route have endpoints.
    pub(super) fn families(
        &self,
        point: &Point<'_>,
        inventory: &Inventory<'_>,
    ) -> BTreeSet<Family> {
        let Some((status, parent)) = self.carrier(point) else { return BTreeSet::new() };
        let weighted = status.route.backends.iter().zip(&parent.backends);
        weighted
            .filter(|(backend, _)| backend.weight > 0)
            .filter_map(|(_, found)| inventory.endpoints(&destination_of(found.as_ref().ok()?)))
            .flat_map(|known| known.families())
            .collect()
    }

    /// The route that connections from clients of a namespace to a destination follow: that of
    /// their own namespace, else that for all; `None` where no TCPRoute is attached.
    pub fn route(
        &self,
        destination: &Destination,
        clients: Option<&str>,
        place: &Place<'_>,
    ) -> Option<Route> {
        let point = self.point(destination, clients)?;
        let (status, parent) = self.carrier(&point)?;
        Some(carried(status, parent, place))
    }

    /// The point whose route connections from clients of a namespace to a destination follow.
    pub fn point<'d>(
        &self,
        destination: &'d Destination,
        clients: Option<&'d str>,
    ) -> Option<Point<'d>> {
        let all = match destination {
            Destination::Listener { namespace, gateway, listener } => {
                Point::Listener { namespace, gateway, listener }
            }
            Destination::Service { .. } => producer_point(destination)?,
            Destination::Tags { .. } | Destination::Port { .. } | Destination::Missing { .. } => {
                return None;
            }
        };
        let own = match all {
            Point::Service { namespace, service, port, .. } if clients.is_some() => {
                Some(Point::Service { namespace, service, port, clients })
            }
            _ => None,
        };
        own.into_iter().chain([all]).find(|point| self.points.contains_key(point))
    }
}

/// Where routes for all clients of a port of a Service attach. TCPRoutes do to ports of TCP.
fn producer_point(destination: &Destination) -> Option<Point<'_>> {
    match destination {
        Destination::Service { namespace, name, port, protocol: VipProtocol::Tcp } => {
            Some(Point::Service { namespace, service: name, port: *port, clients: None })
        }
        _ => None,
    }
}

fn carried(status: &RouteStatus<'_>, parent: &ParentStatus<'_>, place: &Place<'_>) -> Route {
    let meta = &status.route.meta;
    let (namespace, name) = meta.object();
    let weighted = status.route.backends.iter().zip(&parent.backends);
    Route {
        policy: Some(PolicyRef {
            kind: meta.kind.to_owned(),
            mesh: String::new(),
            name: format!("{name}.{namespace}"),
        }),
        decision: Decision::Forward,
        load_balancer: LoadBalancer::RoundRobin,
        hashing: Hashing::default(),
        backends: weighted.map(|(backend, found)| split(backend, found, place)).collect(),
        http: None,
    }
}

/// One backend: what a reference that is not resolved takes is refused (decision D10).
fn split(backend: &BackendRef, found: &Found<'_>, place: &Place<'_>) -> Backend {
    match found {
        Ok(found) => place.backend_of(backend.weight, destination_of(found), Tags::new()),
        Err(_) => Backend {
            destination: named(backend),
            tags: Tags::new(),
            weight: backend.weight,
            state: match backend.weight {
                0 => BackendState::Drained,
                _ => BackendState::Invalid,
            },
            reals: Vec::new(),
        },
    }
}

pub(super) fn destination_of((service, port): &(&Service, &ServicePort)) -> Destination {
    let (namespace, name) = service.meta.object();
    Destination::service(namespace, name, port.port)
}

/// What a reference says, whether or not it is there.
fn named(backend: &BackendRef) -> Destination {
    match backend.port {
        Some(port) if backend.group.is_empty() && backend.kind == "Service" => {
            Destination::service(&backend.namespace, &backend.name, port)
        }
        // Nothing that connections can go to: it has a name to be shown by, and no more.
        _ => Destination::tags(
            "",
            &format!("{}.{} ({})", backend.name, backend.namespace, backend.kind),
        ),
    }
}
