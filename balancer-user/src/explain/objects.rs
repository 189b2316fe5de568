//! Services, listeners and other objects: how a question names them, and which of the routes
//! that are attached to them was taken.

use std::collections::BTreeSet;

use super::{
    Input, QueryError, listeners,
    steps::{LISTED, Told},
};
use crate::{
    policy::Tags,
    resolve::{
        Destination, PolicyRef, Vip,
        gateway::{AnyRoute, Attachments, Point, by_age_rule},
        objects::NAMESPACE_LABEL,
        sources::namespace_of,
    },
};

/// Objects that a refusal lists at most.
const CANDIDATES: usize = 5;

/// The VIPs of the object that `text` names: `NAME.NAMESPACE:PORT` of a Service,
/// `GATEWAY.NAMESPACE/LISTENER`, or either without what comes after the namespace where there is
/// only one. Of an object of a mesh, `MESH/` may come first. Empty: it names none.
pub(super) fn vips<'a>(
    attached: &Attachments<'_>,
    among: &[&'a Vip],
    text: &str,
) -> Result<Vec<&'a Vip>, QueryError> {
    let is_object = |vip: &&Vip| vip.destination.object_kind().is_some();
    let objects = among.iter().copied().filter(is_object);
    let is_meant = |vip: &&Vip| {
        is_named(&vip.destination, text)
            || listeners::named(attached, &vip.destination, text).is_some()
    };
    let named: Vec<&Vip> = objects.filter(is_meant).collect();
    let destinations: BTreeSet<&Destination> = named.iter().map(|vip| &vip.destination).collect();
    if destinations.len() > 1 {
        return Err(QueryError {
            message: format!("`{text}` can be dialled as {} things", destinations.len()),
            candidates: destinations.into_iter().take(CANDIDATES).map(typed).collect(),
        });
    }
    Ok(named)
}

fn is_named(destination: &Destination, text: &str) -> bool {
    let plain = match text.split_once('/') {
        Some((mesh, name)) if !mesh.is_empty() && mesh == destination.mesh() => name,
        _ => text,
    };
    let own = destination.to_string();
    // What was asked has said the protocol in another way.
    let without_protocol = own.strip_suffix("/udp").filter(|_| is_service(destination));
    *destination.owner().name == *plain || own == plain || without_protocol == Some(plain)
}

fn is_service(destination: &Destination) -> bool {
    matches!(destination, Destination::Service { .. })
}

/// What a person types to mean it.
fn typed(destination: &Destination) -> String {
    match destination.mesh() {
        "" => destination.to_string(),
        mesh => format!("{mesh}/{destination}"),
    }
}

/// The names of all objects that can be dialled, and of all listeners.
pub(super) fn names(input: &Input<'_>, attached: &Attachments<'_>) -> Vec<String> {
    let objects = input.resolved.vips.iter().filter(|vip| vip.destination.object_kind().is_some());
    objects
        .flat_map(|vip| match &vip.destination {
            listener @ Destination::Listener { .. } => {
                let all = attached.listeners(listener).into_iter();
                all.map(|(listener, _)| listener.to_string()).collect()
            }
            other => vec![other.owner().name.to_string()],
        })
        .collect()
}

/// The namespace of a source that is known by its tags only.
pub(super) fn clients(tag_sets: &[Tags]) -> Option<&str> {
    tag_sets.iter().find_map(|tags| tags.get(NAMESPACE_LABEL)).map(String::as_str)
}

impl Told<'_, '_> {
    /// The source as routes of the Gateway API know it: by its namespace, if at all.
    pub(super) fn asker_of_object(&self) -> String {
        let source = self.source;
        let at = source.address.map_or(String::new(), |address| format!(" at {address}"));
        let in_namespace = match self.namespace() {
            Some(namespace) => format!("of the namespace {namespace}"),
            None => "of no namespace".to_owned(),
        };
        match (source.dataplane, source.address) {
            (Some(dataplane), _) => {
                format!("source: Dataplane {}{at}, {in_namespace}", dataplane.meta.name)
            }
            (None, Some(address)) => {
                format!("source: {address} is the address of no Dataplane, so it is {in_namespace}")
            }
            (None, None) => format!("source: a workload {in_namespace}"),
        }
    }

    fn namespace(&self) -> Option<&str> {
        match self.source.dataplane {
            Some(dataplane) => match self.source.address {
                Some(address) => namespace_of(self.resolver.dataplanes_at(address)),
                None => namespace_of(&[dataplane]),
            },
            None => clients(&self.source.tag_sets),
        }
    }

    /// The Service or listener that TCPRoutes of this VIP are attached to.
    fn object(&self) -> &Destination {
        self.vip.also.as_ref().unwrap_or(&self.vip.destination)
    }

    /// What there is to say of TCPRoutes where a mesh and a Service have the address in common.
    pub(super) fn attached_besides(&self) -> Vec<String> {
        let Some(service) = &self.vip.also else { return Vec::new() };
        let attached = &self.resolver.attached;
        let mut steps = vec![format!("policy: the address is also that of {}", service.called())];
        let Some(point) = attached.point(service, self.namespace()) else {
            steps.extend(self.turned_away());
            return steps;
        };
        let of = attached.routes[attached.points[&point][0]].route.kind().name();
        steps.extend(self.attached());
        let before = match self.source.mesh_tcp.winner {
            _ if self.source.by_mesh_http => Some("MeshHTTPRoute"),
            winner => winner.map(|_| "MeshTCPRoute"),
        };
        steps.push(match before {
            Some(kind) => format!("policy: a {kind} goes before every {of}, so none carries here"),
            None => format!("policy: {} {of} goes before every TrafficRoute", article(of)),
        });
        steps
    }

    /// Which routes decide, which are attached besides, and which are not attached.
    pub(super) fn attached(&self) -> Vec<String> {
        let mut steps = self.deciding();
        steps.extend(self.turned_away());
        steps
    }

    /// Where routes for the source's connections attach.
    fn places(&self) -> Vec<Point<'_>> {
        self.resolver.attached.places(self.object(), self.namespace())
    }

    /// Routes that ask for the destination and are not attached to it.
    fn turned_away(&self) -> Vec<String> {
        let attached = &self.resolver.attached;
        let places = self.places().into_iter();
        let mut all: Vec<String> = places
            .flat_map(|point| attached.turned_away(&point))
            .map(|(route, why)| format!("policy: {} is not attached: {why}", route.called()))
            .collect();
        // A listener or port that is not there is not there for any of them.
        let mut seen = BTreeSet::new();
        all.retain(|step| seen.insert(step.clone()));
        let more = all.len().saturating_sub(LISTED);
        all.truncate(LISTED);
        all.extend((more > 0).then(|| format!("policy: {more} more are not attached")));
        all
    }

    fn deciding(&self) -> Vec<String> {
        let destination = self.object();
        let attached = &self.resolver.attached;
        let Some(point) = attached.point(destination, self.namespace()) else {
            return vec![match destination {
                Destination::Listener { .. } => {
                    "policy: no route is attached to the listener, so connections are reset"
                        .to_owned()
                }
                _ => {
                    "policy: no route is attached, so the endpoints are reached directly".to_owned()
                }
            }];
        };
        let routes: Vec<AnyRoute<'_>> =
            attached.points[&point].iter().map(|at| attached.routes[*at].route).collect();
        let winner = routes[0];
        if winner.kind().is_of_requests() {
            let places = match point {
                Point::Listener { .. } => self.places(),
                Point::Service { .. } => vec![point],
            };
            return places.iter().map(|point| self.given_at(point)).collect();
        }
        let number = match routes.len() {
            1 => "one TCPRoute is".to_owned(),
            several => format!("{several} TCPRoutes are"),
        };
        let mut steps =
            vec![format!("policy: {number} attached to {point}; {} carries", name(winner))];
        steps.extend(routes[1..].iter().map(|loser| {
            format!(
                "policy: {} is attached too and carries nothing; {} goes first: {}",
                name(*loser),
                name(winner),
                by_age_rule(winner, *loser)
            )
        }));
        if let Point::Service { clients: Some(clients), .. } = point
            && let Some(all) = attached.point(destination, None)
        {
            let producer = attached.routes[attached.points[&all][0]].route;
            steps.push(format!(
                "policy: {} is for all clients; those of the namespace {clients} follow their own",
                name(producer)
            ));
        }
        steps
    }

    /// The routes that give rules at a place.
    fn given_at(&self, point: &Point<'_>) -> String {
        let routes = self.resolver.attached.at(point).into_iter();
        let all: Vec<String> = routes.map(|(status, _)| status.route.called()).collect();
        if all.is_empty() {
            return format!("policy: no route is attached to {point}");
        }
        format!("policy: rules are given by {}, at {point}", all.join(", "))
    }

    /// Why a policy is refused what it names as a backend; `None`: it is no route of the Gateway
    /// API, or is not refused.
    pub(super) fn why_refused(
        &self,
        policy: Option<&PolicyRef>,
        destination: &Destination,
    ) -> Option<&str> {
        self.resolver.attached.why_refused(&self.places(), policy?, destination)
    }
}

/// `redis-canary of shop`.
fn name(route: AnyRoute<'_>) -> String {
    let (namespace, name) = route.meta().object();
    format!("{name} of {namespace}")
}

/// Before the name of a kind.
fn article(kind: &str) -> &'static str {
    if kind.starts_with('H') { "an" } else { "a" }
}
