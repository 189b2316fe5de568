//! Routes of the Gateway API that say something else, and stay attached where they were.
//!
//! Then only what is dialled there can differ. It is made again, by the functions of the whole,
//! from a small set: the Gateways and Services that the route is attached to, every other route
//! that is attached to one of them, and the Services that all of these name.

use std::collections::BTreeSet;

use super::{
    super::{
        Destination, Outcome, ResolveSettings, Resolved, Resolver, Route,
        classes::OfObject,
        findings::Findings,
        gateway::{self, AnyRoute},
    },
    offers::{Offers, Touched},
    policies::is_part,
};
use crate::policy::{Diagnostic, Edit, Meta, PolicySet, gateway::ParentRef};

/// What routes to objects are made from that others are attached to.
#[derive(Debug)]
pub(super) struct OfAttached(Vec<(OfObject, usize)>);

/// Group, kind, namespace and name.
type Name<'n> = (&'n str, &'n str, &'n str, &'n str);

impl OfAttached {
    pub(super) fn new(outcome: &Outcome<'_>) -> Self {
        Self(outcome.of_objects.clone())
    }

    /// The routes that are other ones after an edit of a route of the Gateway API, which is one of
    /// `edits`. `None`: more may differ than they.
    pub(super) fn edited(
        &self,
        (edit, edits): (&Edit, &[Edit]),
        resolved: &Resolved,
        set: &PolicySet,
        offers: &Offers,
        settings: &ResolveSettings,
    ) -> Option<Vec<(usize, Route)>> {
        let (before, after) = both(edit)?;
        let meta = after.meta();
        let about = |route: AnyRoute<'_>| (route.parents().to_vec(), route.hostnames().to_vec());
        if before.meta() != meta || about(before) != about(after) {
            return None;
        }
        let parents: BTreeSet<Name<'_>> = after.parents().iter().map(name_of).collect();

        let mut now = around(set, &parents);
        // A Gateway without addresses has those of the families that its backends have.
        if now.gateways.iter().any(|gateway| gateway.addresses.is_empty()) {
            return None;
        }
        let mut touched = Touched::default();
        for (group, kind, namespace, name) in &parents {
            if (*group, *kind) == ("", "Service") {
                offers.touch_kubernetes(namespace, name, &mut touched);
            }
        }
        for route in routes_of(&now).into_iter().chain([before]) {
            for reference in route.references() {
                offers.touch_kubernetes(&reference.to.namespace, &reference.to.name, &mut touched);
            }
        }
        let endpoints = offers.set_of(&touched);
        now.services = endpoints.services;
        now.endpoint_slices = endpoints.endpoint_slices;
        let mut then = now.clone();
        // What is said of one route can hang on several others.
        edits.iter().for_each(|edit| exchange(&mut then, edit));

        let resolver = Resolver::new(&now, settings);
        let said = said_of(&then, &Resolver::new(&then, settings));
        let own = |said: &[(Meta, Diagnostic)]| -> Vec<_> {
            said.iter().filter(|(of, _)| is_same(of, meta)).cloned().collect()
        };
        if own(&said) != own(&resolved.diagnostics) || said != said_of(&now, &resolver) {
            return None;
        }

        let mut new = Vec::new();
        for (of, index) in self.0.iter().filter(|(of, _)| is_at(&of.object, &parents)) {
            let route = resolver.object_route(&of.object, of.clients.as_deref(), of.family);
            new.push((*index, route));
        }
        new.retain(|(index, route)| resolved.routes[*index] != *route);
        // What came to the same might do so no longer.
        let named = |index: usize| self.0.iter().filter(|(_, route)| *route == index).count();
        let fits = |(index, route): &(usize, Route)| {
            named(*index) == 1 && is_part(&resolved.routes[*index], route)
        };
        new.iter().all(fits).then_some(new)
    }
}

fn both(edit: &Edit) -> Option<(AnyRoute<'_>, AnyRoute<'_>)> {
    match edit {
        Edit::HttpRoute { before: Some(before), after: Some(after) } => {
            Some((AnyRoute::Http(before), AnyRoute::Http(after)))
        }
        Edit::GrpcRoute { before: Some(before), after: Some(after) } => {
            Some((AnyRoute::Grpc(before), AnyRoute::Grpc(after)))
        }
        Edit::TcpRoute { before: Some(before), after: Some(after) } => {
            Some((AnyRoute::Tcp(before), AnyRoute::Tcp(after)))
        }
        _ => None,
    }
}

/// Puts the route before the edit in the place of that after it.
fn exchange(set: &mut PolicySet, edit: &Edit) {
    macro_rules! exchange {
        ($list:ident, $before:ident, $after:ident) => {
            for route in set.$list.iter_mut().filter(|route| *route == $after) {
                *route = $before.clone();
            }
        };
    }
    match edit {
        Edit::HttpRoute { before: Some(before), after: Some(after) } => {
            exchange!(http_routes, before, after);
        }
        Edit::GrpcRoute { before: Some(before), after: Some(after) } => {
            exchange!(grpc_routes, before, after);
        }
        Edit::TcpRoute { before: Some(before), after: Some(after) } => {
            exchange!(tcp_routes, before, after);
        }
        _ => {}
    }
}

fn name_of(parent: &ParentRef) -> Name<'_> {
    (&parent.group, &parent.kind, &parent.namespace, &parent.name)
}

/// The Gateways among `parents`, every route that is attached to one of these, and what says who
/// may be attached to what.
fn around(set: &PolicySet, parents: &BTreeSet<Name<'_>>) -> PolicySet {
    let shares = |of: &[ParentRef]| of.iter().any(|parent| parents.contains(&name_of(parent)));
    let is_parent = |meta: &Meta| {
        let (namespace, name) = meta.object();
        parents
            .iter()
            .any(|(_, kind, of, other)| *kind == "Gateway" && (*of, *other) == (namespace, name))
    };
    PolicySet {
        namespaces: set.namespaces.clone(),
        gateway_classes: set.gateway_classes.clone(),
        reference_grants: set.reference_grants.clone(),
        gateways: set.gateways.iter().filter(|one| is_parent(&one.meta)).cloned().collect(),
        tcp_routes: set.tcp_routes.iter().filter(|one| shares(&one.parents)).cloned().collect(),
        http_routes: set.http_routes.iter().filter(|one| shares(&one.parents)).cloned().collect(),
        grpc_routes: set.grpc_routes.iter().filter(|one| shares(&one.parents)).cloned().collect(),
        ..PolicySet::default()
    }
}

fn routes_of(set: &PolicySet) -> Vec<AnyRoute<'_>> {
    let http = set.http_routes.iter().map(|route| AnyRoute::Http(route));
    let grpc = set.grpc_routes.iter().map(|route| AnyRoute::Grpc(route));
    http.chain(grpc).chain(set.tcp_routes.iter().map(|route| AnyRoute::Tcp(route))).collect()
}

/// What there is to say of routes.
fn said_of(set: &PolicySet, resolver: &Resolver<'_>) -> Vec<(Meta, Diagnostic)> {
    let mut findings = Findings::new(set, &resolver.settings.names);
    gateway::gateways(&resolver.attached, &resolver.settings.gateway_controller, &mut findings);
    gateway::routes(resolver, &mut findings);
    findings.into_sorted()
}

fn is_same(a: &Meta, b: &Meta) -> bool {
    a.kind == b.kind && a.object() == b.object()
}

/// Whether something is of one of these Gateways and Services.
fn is_at(object: &Destination, parents: &BTreeSet<Name<'_>>) -> bool {
    let (kind, own, called) = match object {
        Destination::Listener { namespace, gateway, .. } => ("Gateway", namespace, gateway),
        Destination::Service { namespace, name, .. } => ("Service", namespace, name),
        _ => return false,
    };
    parents
        .iter()
        .any(|(_, of, namespace, name)| *of == kind && (*namespace, *name) == (&**own, &**called))
}
