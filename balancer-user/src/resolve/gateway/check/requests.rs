//! What there is to say of routes that tell requests apart: hosts that they cannot have, filters
//! that are not known, and what connections get while nobody tells requests apart.

use std::collections::{BTreeMap, BTreeSet};

use super::super::{Attachments, ParentStatus, Point, RouteStatus, carry, listeners};
use crate::{
    http::Hostname,
    policy::{Diagnostic, diagnostic::requests_not_yet},
    resolve::{Destination, PolicyRef, Resolver, findings::Findings, inventory::Family},
};

/// Says all of it.
pub(super) fn told_apart<'a>(resolver: &Resolver<'a>, findings: &mut Findings<'a>) {
    let attached = &resolver.attached;
    let connections = connections(resolver, findings);
    for status in &attached.routes {
        if !status.route.kind().is_of_requests() {
            continue;
        }
        let meta = status.route.meta();
        until_there_is_a_proxy(status, &connections, findings);
        for parent in &status.parents {
            hostnames(attached, status, parent, findings);
            if let Some(found) = &parent.partially_invalid {
                let message = format!("partially invalid ({}): {}", found.reason, found.message);
                findings.add(meta, Diagnostic::warning("spec.rules", message).at(meta.span));
            }
        }
    }
}

/// What becomes of connections so far.
enum Connections {
    /// They follow the rule that a route has for any request.
    Rule(PolicyRef),
    /// They reach the Service itself.
    Service,
    /// They are refused.
    Refused,
}

/// What becomes of connections to each point of HTTPRoutes and GRPCRoutes. What of the rules could
/// not be carried out, and rules that contradict themselves, are errors; validation sees to it that
/// there is none.
fn connections<'a>(
    resolver: &Resolver<'a>,
    findings: &mut Findings<'a>,
) -> BTreeMap<Point<'a>, Connections> {
    let attached = &resolver.attached;
    // The outcome is the same in both families.
    let place = resolver.place("", Family::V4);
    let mut found = BTreeMap::new();
    let mut known: BTreeMap<Destination, Option<PolicyRef>> = BTreeMap::new();
    for point in attached.points.keys() {
        let (destination, clients) = match point {
            Point::Listener { namespace, gateway, listener } => {
                let own = Destination::listener(namespace, gateway, listener);
                (attached.named_by(&own).unwrap_or(own), None)
            }
            Point::Service { namespace, service, port, clients } => {
                (Destination::service(namespace, service, *port), *clients)
            }
        };
        let listener = matches!(destination, Destination::Listener { .. });
        let carrier = match known.get(&destination).filter(|_| listener) {
            Some(carrier) => carrier.clone(),
            None => {
                let Some(lowered) = attached.lowered(&destination, clients, &place) else {
                    continue;
                };
                for (of, refused) in &lowered.refused {
                    let message = Diagnostic::error(refused.field.clone(), refused.why.clone());
                    findings.add(of.meta(), message.at(of.meta().span));
                }
                if let (Err(bad), Some((status, _))) =
                    (lowered.rules().check(), attached.carrier(point))
                {
                    let meta = status.route.meta();
                    let message = Diagnostic::error("spec.rules", bad.to_string());
                    findings.add(meta, message.at(meta.span));
                }
                lowered.carrier().cloned()
            }
        };
        known.insert(destination, carrier.clone());
        let outcome = match carrier {
            Some(policy) => Connections::Rule(policy),
            None if listener => Connections::Refused,
            None => Connections::Service,
        };
        found.insert(*point, outcome);
    }
    found
}

/// One warning for each route: what becomes of connections so far.
fn until_there_is_a_proxy<'a>(
    status: &RouteStatus<'a>,
    connections: &BTreeMap<Point<'a>, Connections>,
    findings: &mut Findings<'a>,
) {
    let points: BTreeSet<Point<'a>> =
        status.parents.iter().flat_map(|parent| &parent.points).copied().collect();
    let own = carry::policy_of(status.route);
    let mut by_outcome: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for point in points {
        let outcome = match connections.get(&point) {
            Some(Connections::Rule(policy)) if *policy == own => {
                "follow its rule that takes every request".to_owned()
            }
            Some(Connections::Rule(policy)) => {
                format!(
                    "follow the rule of the {} {} that takes every request",
                    policy.kind, policy.name
                )
            }
            Some(Connections::Service) => "go to the Service itself".to_owned(),
            Some(Connections::Refused) => "are refused".to_owned(),
            None => continue,
        };
        by_outcome.entry(outcome).or_default().push(point.to_string());
    }
    if by_outcome.is_empty() {
        return;
    }
    let outcomes: Vec<String> = by_outcome
        .into_iter()
        .map(|(outcome, points)| format!("to {} {outcome}", points.join(", ")))
        .collect();
    let message = requests_not_yet(&outcomes.join(", "));
    let meta = status.route.meta();
    findings.add(meta, Diagnostic::warning("kind", message).at(meta.span));
}

/// Hostnames that no listener of a parent has, and those that mean nothing.
fn hostnames<'a>(
    attached: &Attachments<'a>,
    status: &RouteStatus<'a>,
    parent: &ParentStatus<'a>,
    findings: &mut Findings<'a>,
) {
    let written = status.route.hostnames();
    if written.is_empty() || parent.points.is_empty() {
        return;
    }
    let meta = status.route.meta();
    let mut say = |field: String, message: String| {
        findings.add(meta, Diagnostic::warning(field, message).at(parent.parent.span));
    };
    if parent.parent.group.is_empty() {
        say(
            "spec.hostnames".to_owned(),
            "has no effect on a Service, which clients tell apart by its address".to_owned(),
        );
        return;
    }
    let points = parent.points.iter();
    let of_listeners: Vec<Hostname> =
        points.filter_map(|point| attached.listener(point)).map(listeners::hostname).collect();
    for (at, hostname) in written.iter().enumerate() {
        let Ok(own) = Hostname::new(hostname) else { continue };
        if of_listeners.iter().all(|listener| own.intersect(listener).is_none()) {
            let theirs: Vec<String> = of_listeners.iter().map(Hostname::to_string).collect();
            say(
                format!("spec.hostnames[{at}]"),
                format!(
                    "no request for {hostname} comes here: the listeners that are meant are for {}",
                    theirs.join(", ")
                ),
            );
        }
    }
}
