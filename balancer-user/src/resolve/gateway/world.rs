//! Finds what references name: Gateways and their listeners, Services and their ports, grants.

use std::collections::{BTreeMap, BTreeSet};

use super::{
    AnyRoute, Backend, Condition, ConditionReason, ParentStatus, Point, Reference, RouteKind,
    RouteStatus, listeners::hostname,
};
use crate::{
    policy::{
        PolicySet, Tags,
        gateway::{
            AllowedNamespaces, BackendRef, GROUP, Gateway, GatewayClass, Listener, ParentRef,
            ReferenceGrant,
        },
        kubernetes::{NAMESPACE_NAME_LABEL, Service, ServiceKind},
    },
    resolve::kubernetes::tcp_port,
};

/// What references are looked up in.
pub(super) struct World<'s> {
    gateways: BTreeMap<(&'s str, &'s str), &'s Gateway>,
    foreign: BTreeSet<(&'s str, &'s str)>,
    services: BTreeMap<(&'s str, &'s str), &'s Service>,
    namespaces: BTreeMap<&'s str, &'s Tags>,
    /// By the namespace that they open.
    grants: BTreeMap<&'s str, Vec<&'s ReferenceGrant>>,
}

impl<'s> World<'s> {
    pub(super) fn new(
        set: &'s PolicySet,
        ours: &[&'s Gateway],
        foreign: &[(&'s Gateway, &'s GatewayClass)],
    ) -> Self {
        let gateways = ours.iter().map(|gateway| (gateway.meta.object(), *gateway));
        let services = set.services.iter().map(|service| (service.meta.object(), &**service));
        let namespaces =
            set.namespaces.iter().map(|one| (one.meta.name.as_str(), &one.meta.labels));
        let mut grants: BTreeMap<_, Vec<&ReferenceGrant>> = BTreeMap::new();
        for grant in &set.reference_grants {
            grants.entry(grant.meta.object().0).or_default().push(grant);
        }
        Self {
            gateways: gateways.collect(),
            foreign: foreign.iter().map(|(gateway, _)| gateway.meta.object()).collect(),
            services: services.collect(),
            namespaces: namespaces.collect(),
            grants,
        }
    }

    pub(super) fn is_foreign(&self, parent: &ParentRef) -> bool {
        (parent.group.as_str(), parent.kind.as_str()) == (GROUP, "Gateway")
            && self.foreign.contains(&(parent.namespace.as_str(), parent.name.as_str()))
    }

    /// What becomes of a route.
    pub(super) fn status(&self, route: AnyRoute<'s>) -> RouteStatus<'s> {
        let references = route.references();
        let parents = route.parents().iter().enumerate();
        let ours = parents.filter(|(_, parent)| !self.is_foreign(parent));
        let parents =
            ours.map(|(index, parent)| self.parent(route, &references, index, parent)).collect();
        RouteStatus { route, references, parents }
    }

    fn parent(
        &self,
        route: AnyRoute<'s>,
        references: &[Reference<'s>],
        index: usize,
        parent: &'s ParentRef,
    ) -> ParentStatus<'s> {
        let mut refused = Vec::new();
        let found = match (parent.group.as_str(), parent.kind.as_str()) {
            (GROUP, "Gateway") => self.listeners(route, parent, &mut refused),
            ("", "Service") => self.service_ports(route, parent),
            (group, kind) => Err((
                ConditionReason::UnsupportedValue,
                format!(
                    "a {} does not attach to a {kind} of the group '{group}'",
                    route.kind().name()
                ),
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
            references.iter().map(|one| self.backend(route, one.to, granted)).collect();
        let resolved = resolved(&backends);
        let partially_invalid = partially_invalid(route);
        let lost = Vec::new();
        ParentStatus {
            parent,
            index,
            points,
            lost,
            refused,
            accepted,
            resolved,
            partially_invalid,
            backends,
        }
    }

    fn listeners(
        &self,
        route: AnyRoute<'_>,
        parent: &'s ParentRef,
        refused: &mut Vec<(Point<'s>, String)>,
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
            let point = Point::Listener { namespace, gateway: name, listener: &listener.name };
            match self.refusal(route, namespace, listener) {
                Some((reason, refusal)) => {
                    refusals.push((reason, format!("`{}` {refusal}", listener.name)));
                    refused.push((point, refusal));
                }
                None => points.push(point),
            }
        }
        if points.is_empty() {
            // One that would take the route is what the author meant.
            let nearest = ConditionReason::NoMatchingListenerHostname;
            let reason = match refusals.iter().any(|(reason, _)| *reason == nearest) {
                true => nearest,
                false => ConditionReason::NotAllowedByListeners,
            };
            let messages: Vec<String> = refusals.into_iter().map(|(_, message)| message).collect();
            return Err((reason, messages.join("; ")));
        }
        points.sort_unstable();
        Ok(points)
    }

    /// Why a listener does not take a route.
    fn refusal(
        &self,
        route: AnyRoute<'_>,
        own: &str,
        listener: &Listener,
    ) -> Option<(ConditionReason, String)> {
        let not_allowed = |why: String| Some((ConditionReason::NotAllowedByListeners, why));
        let kind = route.kind();
        if !kind.fits(&listener.protocol) {
            let wanted = if kind.is_of_requests() { "HTTP" } else { "TCP" };
            return not_allowed(format!("is no listener of {wanted}"));
        }
        let is_of_kind = |(group, name): &(String, String)| group == GROUP && name == kind.name();
        if !listener.kinds.is_empty() && !listener.kinds.iter().any(is_of_kind) {
            return not_allowed(format!("allows no {}", kind.name()));
        }
        let from = route.meta().object().0;
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
        if !allowed {
            return not_allowed(format!("allows no route of the namespace `{from}`"));
        }
        let of_listener = hostname(listener);
        if kind.is_of_requests() && route.hosts_at(&of_listener).is_empty() {
            let why = format!("is for the host {of_listener}, and the route for none of its");
            return Some((ConditionReason::NoMatchingListenerHostname, why));
        }
        None
    }

    fn service_ports(
        &self,
        route: AnyRoute<'s>,
        parent: &'s ParentRef,
    ) -> Result<Vec<Point<'s>>, (ConditionReason, String)> {
        let (namespace, name) = (parent.namespace.as_str(), parent.name.as_str());
        let no_parent = |message| Err((ConditionReason::NoMatchingParent, message));
        let Some(service) = self.services.get(&(namespace, name)) else {
            return no_parent(format!("there is no Service {namespace}/{name}"));
        };
        if service.headless || matches!(service.kind, ServiceKind::ExternalName(_)) {
            return no_parent(format!(
                "the Service {namespace}/{name} has no address of its own that clients dial"
            ));
        }
        let from = route.meta().object().0;
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

    fn grants_of(&self, namespace: &str) -> &[&'s ReferenceGrant] {
        self.grants.get(namespace).map_or(&[], Vec::as_slice)
    }

    fn backend(&self, route: AnyRoute<'_>, backend: &BackendRef, granted: bool) -> Backend<'s> {
        let BackendRef { group, kind, namespace, name, port, .. } = backend;
        if !group.is_empty() || kind != "Service" {
            let what = route.kind().carried();
            let message = format!("{what} do not go to a {kind} of the group '{group}'");
            return Err((ConditionReason::InvalidKind, message));
        }
        // Before it is looked up: whether it is there is not for everybody to know.
        let from = route.meta().object().0;
        if from != namespace
            && !granted
            && !self.grants_of(namespace).iter().any(|one| grants(one, route, backend))
        {
            return Err((
                ConditionReason::RefNotPermitted,
                format!(
                    "no ReferenceGrant of `{namespace}` allows {}s of `{from}` to name the Service {name}",
                    route.kind().name()
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
            return match &found.app_protocol {
                Some(spoken) if !route.kind().can_use(spoken) => Err((
                    ConditionReason::UnsupportedProtocol,
                    format!(
                        "port {number} of {namespace}/{name} speaks {spoken}, which no {} is sent \
                         to",
                        if route.kind() == RouteKind::Grpc { "call" } else { "request" }
                    ),
                )),
                _ => Ok((service, found)),
            };
        }
        if service.ports.iter().any(|other| Some(other.port) == *port) {
            let message = format!("port {number} of {namespace}/{name} is no TCP port");
            return Err((ConditionReason::UnsupportedProtocol, message));
        }
        Err((ConditionReason::BackendNotFound, format!("{namespace}/{name} has no port {number}")))
    }
}

/// What is to be said of filters that are not known here. Where no rule is left the condition of
/// the API would be another; nothing is lost by saying this.
fn partially_invalid(route: AnyRoute<'_>) -> Option<Condition> {
    let (unknown, others) = route.unknown_filters();
    if unknown.is_empty() {
        return None;
    }
    let filters: Vec<String> =
        unknown.iter().map(|(field, kind)| format!("{field} is of the type {kind}")).collect();
    let left = if others == 0 { "; no rule is left" } else { "" };
    Some(Condition {
        holds: true,
        reason: ConditionReason::UnsupportedValue,
        message: format!(
            "Dropped Rule: {}, which is not known here: requests are answered with 500{left}",
            filters.join(", ")
        ),
    })
}

/// Whether a grant of the backend's namespace lets a route of another one name it.
fn grants(grant: &ReferenceGrant, route: AnyRoute<'_>, backend: &BackendRef) -> bool {
    let (from, kind) = (route.meta().object().0, route.kind().name());
    grant.from.iter().any(|one| one.group == GROUP && one.kind == kind && one.namespace == from)
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
pub(super) fn wanted(parent: &ParentRef) -> String {
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
