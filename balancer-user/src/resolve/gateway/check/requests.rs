//! What there is to say of routes that tell requests apart: hosts that they cannot have, filters
//! that are not known, and rules that contradict themselves.

use std::collections::BTreeSet;

use super::super::{Attachments, ParentStatus, Point, RouteStatus, listeners};
use crate::{
    http::Hostname,
    policy::Diagnostic,
    resolve::{Destination, Resolver, findings::Findings, inventory::Family},
};

/// Says all of it.
pub(super) fn told_apart<'a>(resolver: &Resolver<'a>, findings: &mut Findings<'a>) {
    let attached = &resolver.attached;
    contradictions(resolver, findings);
    for status in &attached.routes {
        if !status.route.kind().is_of_requests() {
            continue;
        }
        let meta = status.route.meta();
        for parent in &status.parents {
            hostnames(attached, status, parent, findings);
            if let Some(found) = &parent.partially_invalid {
                let message = format!("partially invalid ({}): {}", found.reason, found.message);
                findings.add(meta, Diagnostic::warning("spec.rules", message).at(meta.span));
            }
        }
    }
}

/// What of the rules could not be carried out, and rules that contradict themselves: errors;
/// validation sees to it that there is none.
fn contradictions<'a>(resolver: &Resolver<'a>, findings: &mut Findings<'a>) {
    let attached = &resolver.attached;
    // It is the same in both families.
    let place = resolver.place("", Family::V4);
    let mut known = BTreeSet::new();
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
        // Listeners that share an address and port have their rules together.
        let listener = matches!(destination, Destination::Listener { .. });
        if !known.insert(destination.clone()) && listener {
            continue;
        }
        let Some(lowered) = attached.lowered(&destination, clients, &place) else { continue };
        for (of, refused) in &lowered.refused {
            let message = Diagnostic::error(refused.field.clone(), refused.why.clone());
            findings.add(of.meta(), message.at(of.meta().span));
        }
        if let (Err(bad), Some((status, _))) = (lowered.rules().check(), attached.carrier(point)) {
            let meta = status.route.meta();
            let message = Diagnostic::error("spec.rules", bad.to_string());
            findings.add(meta, message.at(meta.span));
        }
    }
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
