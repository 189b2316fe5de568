//! Routes that are not accepted somewhere, carry nothing somewhere, or name what is not there.

use std::collections::BTreeSet;

use super::{
    super::{
        Attachments, ConditionReason, ParentStatus, Reference, RouteKind, RouteStatus, by_age_rule,
        carry::destination_of,
    },
    hints::{backends_there, parents_there},
    requests,
};
use crate::{
    policy::{
        Diagnostic, PolicySet,
        kubernetes::{SERVICE_NAME_LABEL, Service, ServicePort},
    },
    resolve::{Resolver, findings::Findings, inventory::Inventory},
};

/// Everything that there is to say of routes.
pub(in crate::resolve) fn routes<'a>(resolver: &Resolver<'a>, findings: &mut Findings<'a>) {
    let Resolver { attached, inventory, set, .. } = resolver;
    for (index, status) in attached.routes.iter().enumerate() {
        // References are judged at each parent; what they have in common is said once.
        let mut said = BTreeSet::new();
        for parent in &status.parents {
            if !parent.accepted.holds {
                not_accepted(set, status, parent, findings);
            } else {
                lost(attached, index, parent, findings);
            }
            if status.route.kind() == RouteKind::Tcp {
                idle(attached, index, parent, findings);
            }
            for (at, (backend, reference)) in
                parent.backends.iter().zip(&status.references).enumerate()
            {
                match backend {
                    Err((reason, message)) if said.insert((at, message.as_str())) => {
                        unresolved(set, status, reference, (*reason, message), findings);
                    }
                    Ok(found) if said.insert((at, "")) => {
                        without_endpoints(status, reference, found, inventory, findings);
                    }
                    _ => {}
                }
            }
        }
    }
    requests::told_apart(resolver, findings);
}

fn not_accepted<'a>(
    set: &'a PolicySet,
    status: &RouteStatus<'a>,
    parent: &ParentStatus<'a>,
    findings: &mut Findings<'a>,
) {
    let reason = parent.accepted.reason;
    let found = Diagnostic::warning(
        format!("spec.parentRefs[{}]", parent.index),
        format!("not accepted ({reason}): {}", parent.accepted.message),
    )
    .at(parent.parent.span);
    let protocol = if status.route.kind().is_of_requests() { "HTTP" } else { "TCP" };
    let hint = match reason {
        ConditionReason::NoMatchingParent => parents_there(set, parent.parent),
        ConditionReason::NotAllowedByListeners => Some(format!(
            "let the listener allow it with `allowedRoutes`, or name a listener of {protocol}"
        )),
        ConditionReason::NoMatchingListenerHostname => Some(
            "give the route a host of the listener's in `hostnames`, or name another listener"
                .to_owned(),
        ),
        ConditionReason::Conflicted => {
            Some("attach it elsewhere, or write one route of one kind for both".to_owned())
        }
        _ => Some("name a Gateway, or a Service with `group: ''` and `kind: Service`".to_owned()),
    };
    findings.add(status.route.meta(), Diagnostic { hint, ..found });
}

/// Says where a route is accepted, but for a place at which one of another kind goes first.
fn lost<'a>(
    attached: &Attachments<'a>,
    route: usize,
    parent: &ParentStatus<'a>,
    findings: &mut Findings<'a>,
) {
    for (point, winner) in &parent.lost {
        let before = attached.goes_before(point, *winner, route);
        let winner = attached.routes[*winner].route.meta();
        let message = format!("accepted elsewhere, but not there: {before}");
        let found = Diagnostic::warning(format!("spec.parentRefs[{}]", parent.index), message);
        findings.add(
            attached.routes[route].route.meta(),
            found.at(parent.parent.span).related(winner.span, "that route is here"),
        );
    }
}

/// Says where another TCPRoute carries the connections.
fn idle<'a>(
    attached: &Attachments<'a>,
    route: usize,
    parent: &ParentStatus<'a>,
    findings: &mut Findings<'a>,
) {
    for point in &parent.points {
        let Some(&first) = attached.points.get(point).and_then(|at| at.first()) else { continue };
        if first == route {
            continue;
        }
        let (winner, own) = (attached.routes[first].route, attached.routes[route].route);
        let message = format!(
            "accepted, but no connection of {point} follows it: the {} is attached there too and \
             goes first: {}",
            winner.called(),
            by_age_rule(winner, own)
        );
        let found = Diagnostic::warning(format!("spec.parentRefs[{}]", parent.index), message);
        findings.add(
            own.meta(),
            found
                .at(parent.parent.span)
                .related(winner.meta().span, "that route is here")
                .hint("attach each to a listener or port of its own, or remove one of them"),
        );
    }
}

/// What becomes of the share of a reference that leads nowhere; nothing where it has none.
/// `empty`: there is a Service, and nothing serves it.
fn share(kind: RouteKind, reference: &Reference<'_>, empty: bool) -> String {
    let answer = match (reference.to.weight, reference.mirror, kind) {
        (0, ..) => return String::new(),
        (_, true, _) => "no copy of a request is sent there",
        (_, _, RouteKind::Tcp) => "its share of the connections is refused",
        (_, _, RouteKind::Grpc) => "its share of the calls is UNAVAILABLE",
        (_, _, RouteKind::Http) if empty => "its share of the requests is answered with 503",
        (_, _, RouteKind::Http) => "its share of the requests is answered with 500",
    };
    answer.to_owned()
}

fn unresolved<'a>(
    set: &'a PolicySet,
    status: &RouteStatus<'a>,
    reference: &Reference<'a>,
    (reason, message): (ConditionReason, &str),
    findings: &mut Findings<'a>,
) {
    let (backend, kind) = (reference.to, status.route.kind());
    let mut message = format!("not resolved ({reason}): {message}");
    let share = share(kind, reference, false);
    if !share.is_empty() {
        message.push_str("; ");
        message.push_str(&share);
    }
    let found = Diagnostic::warning(reference.field.clone(), message).at(backend.span);
    let hint = match reason {
        ConditionReason::BackendNotFound => backends_there(set, backend),
        ConditionReason::RefNotPermitted => Some(format!(
            "add a ReferenceGrant to the namespace {} whose `from` is {} of {} and whose `to` is \
             Service",
            backend.namespace,
            kind.name(),
            status.route.meta().object().0
        )),
        ConditionReason::UnsupportedProtocol if kind.is_of_requests() => Some(
            "name a port of HTTP without TLS: its `appProtocol` may be absent, http, grpc, \
             kubernetes.io/h2c or, for an HTTPRoute, kubernetes.io/ws"
                .to_owned(),
        ),
        ConditionReason::UnsupportedProtocol => Some("name a port of TCP".to_owned()),
        _ => Some("name a Service that has endpoints".to_owned()),
    };
    findings.add(status.route.meta(), Diagnostic { hint, ..found });
}

/// A backend that is there, and that nothing serves: its share is refused all the same.
fn without_endpoints<'a>(
    status: &RouteStatus<'a>,
    reference: &Reference<'a>,
    found: &(&Service, &ServicePort),
    inventory: &Inventory<'_>,
    findings: &mut Findings<'a>,
) {
    let known = inventory.endpoints(&destination_of(found));
    let served = known.is_some_and(|known| known.endpoints.iter().any(|endpoint| endpoint.ready));
    let share = share(status.route.kind(), reference, true);
    if share.is_empty() || served {
        return;
    }
    let (namespace, name) = found.0.meta.object();
    let (what, hint) = match known.is_none_or(|known| known.endpoints.is_empty()) {
        true => (
            "endpoint",
            Some(format!(
                "its EndpointSlices have the label {SERVICE_NAME_LABEL}: {name} and a port named \
                 as the Service's is"
            )),
        ),
        false => ("ready endpoint", None),
    };
    let message =
        format!("port {} of the Service {namespace}/{name} has no {what}: {share}", found.1.port);
    let found = Diagnostic::warning(reference.field.clone(), message);
    findings.add(status.route.meta(), Diagnostic { hint, ..found.at(reference.to.span) });
}
