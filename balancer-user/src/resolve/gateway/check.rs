//! What there is to say of Gateways and TCPRoutes: what is left alone, what is not accepted,
//! what leads nowhere.

use std::collections::BTreeSet;

use super::{
    Attachments, ConditionReason, ParentStatus, Point, RouteStatus, by_age_rule,
    carry::destination_of,
};
use crate::{
    policy::{
        Diagnostic, PolicySet,
        gateway::{BackendRef, GROUP, Gateway, ListenerProtocol, ParentRef},
        kubernetes::{SERVICE_NAME_LABEL, Service, ServicePort},
        suggest::suggest,
    },
    resolve::{findings::Findings, inventory::Inventory},
};

/// Gateways that are another controller's, listeners that are not carried out, and those that
/// refuse everything.
pub(in crate::resolve) fn gateways<'a>(
    attached: &Attachments<'a>,
    controller: &str,
    findings: &mut Findings<'a>,
) {
    for (gateway, class) in &attached.foreign {
        let message = format!(
            "the Gateway is left to the controller {}, which its GatewayClass names: this node is \
             {controller}",
            class.controller
        );
        let found = Diagnostic::warning("spec.gatewayClassName", message);
        findings.add(
            &gateway.meta,
            found.at(gateway.class_span).related(class.meta.span, "the class is here").hint(
                "to carry it out here, name that controller as `gateway_controller` of the \
                 configuration",
            ),
        );
    }
    for gateway in &attached.gateways {
        shared_ports(gateway, findings);
        for (index, listener) in gateway.listeners.iter().enumerate() {
            let field = format!("spec.listeners[{index}]");
            if listener.protocol != ListenerProtocol::Tcp {
                let protocol = listener.protocol.name();
                let message = format!(
                    "a listener of {protocol} is not carried out yet: what is sent to its port \
                     passes untouched"
                );
                let found = Diagnostic::warning(format!("{field}.protocol"), message);
                findings.add(&gateway.meta, found.at(listener.span));
                continue;
            }
            let (namespace, name) = gateway.meta.object();
            let point = Point::Listener { namespace, gateway: name, listener: &listener.name };
            if !attached.points.contains_key(&point) {
                let found =
                    Diagnostic::warning(field, "no TCPRoute is attached: connections are refused");
                let hint = format!(
                    "attach one: `parentRefs: [{{name: {name}, sectionName: {}}}]`",
                    listener.name
                );
                findings.add(&gateway.meta, found.at(listener.span).hint(hint));
            }
        }
    }
}

/// Listeners that claim one TCP port in different protocols.
fn shared_ports<'a>(gateway: &'a Gateway, findings: &mut Findings<'a>) {
    let claims_tcp = |protocol: &ListenerProtocol| *protocol != ListenerProtocol::Udp;
    for (index, listener) in gateway.listeners.iter().enumerate() {
        let other = gateway.listeners.iter().find(|other| {
            other.name != listener.name
                && other.port == listener.port
                && other.protocol != listener.protocol
                && claims_tcp(&other.protocol)
        });
        let Some(other) = other.filter(|_| listener.protocol == ListenerProtocol::Tcp) else {
            continue;
        };
        let message = format!(
            "port {} is also that of the listener `{}`, which is of {}: connections cannot be \
             told apart",
            listener.port,
            other.name,
            other.protocol.name()
        );
        let found = Diagnostic::error(format!("spec.listeners[{index}].port"), message);
        findings.add(
            &gateway.meta,
            found
                .at(listener.span)
                .related(other.span, format!("`{}` is here", other.name))
                .hint("change the port of one of them"),
        );
    }
}

/// Routes that are not accepted somewhere, carry nothing somewhere, or have backends that are
/// not there.
pub(in crate::resolve) fn routes<'a>(
    set: &'a PolicySet,
    attached: &Attachments<'a>,
    inventory: &Inventory<'_>,
    findings: &mut Findings<'a>,
) {
    for (index, status) in attached.routes.iter().enumerate() {
        // Backends are judged at each parent; what they have in common is said once.
        let mut said = BTreeSet::new();
        for parent in &status.parents {
            if !parent.accepted.holds {
                not_accepted(set, status, parent, findings);
            }
            idle(attached, index, parent, findings);
            for (at, backend) in parent.backends.iter().enumerate() {
                match backend {
                    Err((reason, message)) if said.insert((at, message.as_str())) => {
                        unresolved(set, status, at, (*reason, message), findings);
                    }
                    Ok(found) if said.insert((at, "")) => {
                        without_endpoints(status, at, found, inventory, findings);
                    }
                    _ => {}
                }
            }
        }
    }
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
    let hint = match reason {
        ConditionReason::NoMatchingParent => parents_there(set, parent.parent),
        ConditionReason::NotAllowedByListeners => Some(
            "let the listener allow it with `allowedRoutes`, or name a listener of TCP".to_owned(),
        ),
        _ => Some("name a Gateway, or a Service with `group: ''` and `kind: Service`".to_owned()),
    };
    findings.add(&status.route.meta, Diagnostic { hint, ..found });
}

/// What the author of a reference to a parent may have meant.
fn parents_there(set: &PolicySet, parent: &ParentRef) -> Option<String> {
    let named = (parent.namespace.as_str(), parent.name.as_str());
    let is_gateway = parent.group == GROUP;
    let all: Vec<(&str, &str)> = if is_gateway {
        set.gateways.iter().map(|gateway| gateway.meta.object()).collect()
    } else {
        set.services.iter().map(|service| service.meta.object()).collect()
    };
    if !all.contains(&named) {
        return object_meant(named, &all);
    }
    let there: Vec<String> = if is_gateway {
        let gateway = set.gateways.iter().find(|gateway| gateway.meta.object() == named)?;
        let listeners = gateway.listeners.iter();
        listeners.map(|listener| format!("`{}` ({})", listener.name, listener.port)).collect()
    } else {
        let service = set.services.iter().find(|service| service.meta.object() == named)?;
        let ports = service.ports.iter().filter(|port| port.is_tcp());
        ports.map(|port| named_port(&port.name, port.port.get())).collect()
    };
    let what = if is_gateway { "listeners" } else { "TCP ports" };
    Some(match there.is_empty() {
        true => format!("it has no {what}"),
        false => format!("its {what} are {}", there.join(", ")),
    })
}

fn named_port(name: &str, port: u16) -> String {
    if name.is_empty() { port.to_string() } else { format!("`{name}` ({port})") }
}

/// Objects of the same namespace with a name like it, and of the same name in another.
fn object_meant((namespace, name): (&str, &str), all: &[(&str, &str)]) -> Option<String> {
    let here = all.iter().filter(|(of, _)| *of == namespace).map(|(_, name)| *name);
    let close = suggest(name, here);
    if !close.is_empty() {
        return Some(format!("did you mean {}", close.join(" or ")));
    }
    let elsewhere = all.iter().find(|(_, other)| *other == name)?;
    Some(format!("there is one in the namespace {0}: name it with `namespace: {0}`", elsewhere.0))
}

/// Says where another route carries the connections.
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
        let (namespace, name) = winner.meta.object();
        let message = format!(
            "accepted, but no connection of {point} follows it: the TCPRoute {namespace}/{name} \
             is attached there too and goes first: {}",
            by_age_rule(winner, own)
        );
        let found = Diagnostic::warning(format!("spec.parentRefs[{}]", parent.index), message);
        findings.add(
            &own.meta,
            found
                .at(parent.parent.span)
                .related(winner.meta.span, "that route is here")
                .hint("attach each to a listener or port of its own, or remove one of them"),
        );
    }
}

fn unresolved<'a>(
    set: &'a PolicySet,
    status: &RouteStatus<'a>,
    at: usize,
    (reason, message): (ConditionReason, &str),
    findings: &mut Findings<'a>,
) {
    let backend = &status.route.backends[at];
    let share = if backend.weight == 0 { "" } else { "; its share of the connections is refused" };
    let found = Diagnostic::warning(
        format!("spec.rules[0].backendRefs[{at}]"),
        format!("not resolved ({reason}): {message}{share}"),
    )
    .at(backend.span);
    let hint = match reason {
        ConditionReason::BackendNotFound => backends_there(set, backend),
        ConditionReason::RefNotPermitted => Some(format!(
            "add a ReferenceGrant to the namespace {} whose `from` is TCPRoute of {} and whose \
             `to` is Service",
            backend.namespace,
            status.route.meta.object().0
        )),
        ConditionReason::UnsupportedProtocol => Some("name a port of TCP".to_owned()),
        _ => Some("name a Service that has endpoints".to_owned()),
    };
    findings.add(&status.route.meta, Diagnostic { hint, ..found });
}

/// A backend that is there, and that nothing serves: its share is refused all the same.
fn without_endpoints<'a>(
    status: &RouteStatus<'a>,
    at: usize,
    found: &(&Service, &ServicePort),
    inventory: &Inventory<'_>,
    findings: &mut Findings<'a>,
) {
    let backend = &status.route.backends[at];
    let known = inventory.endpoints(&destination_of(found));
    let served = known.is_some_and(|known| known.endpoints.iter().any(|endpoint| endpoint.ready));
    if backend.weight == 0 || served {
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
    let message = format!(
        "port {} of the Service {namespace}/{name} has no {what}: its share of the connections is \
         refused",
        found.1.port
    );
    let found = Diagnostic::warning(format!("spec.rules[0].backendRefs[{at}]"), message);
    findings.add(&status.route.meta, Diagnostic { hint, ..found.at(backend.span) });
}

/// What the author of a reference to a backend may have meant.
fn backends_there(set: &PolicySet, backend: &BackendRef) -> Option<String> {
    let named = (backend.namespace.as_str(), backend.name.as_str());
    let Some(service) = set.services.iter().find(|service| service.meta.object() == named) else {
        let all: Vec<_> = set.services.iter().map(|service| service.meta.object()).collect();
        return object_meant(named, &all);
    };
    let ports: Vec<String> = service
        .ports
        .iter()
        .filter(|port| port.is_tcp())
        .map(|port| named_port(&port.name, port.port.get()))
        .collect();
    Some(match ports.is_empty() {
        true => "it has no TCP ports".to_owned(),
        false => format!("its TCP ports are {}", ports.join(", ")),
    })
}
