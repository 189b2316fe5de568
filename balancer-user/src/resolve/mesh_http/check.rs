//! Findings about MeshHTTPRoutes: where they lead, what has no effect, and which TrafficRoutes
//! they leave without effect.

use super::{
    super::{
        Destination, Resolver,
        findings::Findings,
        http::Refused,
        mesh_policy::{Item, Spoken, backends, check},
        signatures::{Before, Signatures},
    },
    rules::refusals,
};
use crate::policy::{
    BackendRef, Diagnostic, MeshHttpRoute, MeshHttpRule,
    http_route::{Located, RouteFilter},
};

/// Looks at every MeshHTTPRoute.
pub(in crate::resolve) fn check<'a>(
    resolver: &Resolver<'a>,
    signatures: &Signatures<'a>,
    findings: &mut Findings<'a>,
) {
    by_themselves(resolver, findings);
    check::overruled(resolver, signatures, Before::MeshHttp, &resolver.mesh_http, findings);
}

/// What there is to say of each, whatever other policies there are.
pub(in crate::resolve) fn by_themselves<'a>(resolver: &Resolver<'a>, findings: &mut Findings<'a>) {
    for policy in resolver.mesh_http.values().flat_map(|routes| routes.policies()) {
        check::policy(resolver, *policy, findings);
        for index in 0..policy.to.len() {
            let item = Item { policy: *policy, index };
            for rule in &item.to().rules {
                of_rule(resolver, policy, rule, findings);
            }
            not_http(resolver, &item, findings);
        }
    }
}

fn of_rule<'a>(
    resolver: &Resolver<'a>,
    policy: &'a MeshHttpRoute,
    rule: &MeshHttpRule,
    findings: &mut Findings<'a>,
) {
    let meta = &policy.meta;
    for Refused { field, why } in refusals(rule) {
        findings.add(meta, Diagnostic::error(field, why).at(rule.span));
    }
    let of_backend = |backend: &BackendRef, invalid: &str, empty: &str| {
        let speaks = || no_http(resolver, policy, backend, invalid);
        check::backend(resolver, meta, backend, (invalid, empty)).or_else(speaks)
    };
    for backend in rule.backends.iter().flatten().filter(|backend| backend.weight > 0) {
        let (invalid, empty) =
            ("its share of the requests is answered with 500", "its share is answered with 503");
        findings.extend(meta, of_backend(backend, invalid, empty));
    }
    let mirrored = |filter: &'_ Located<RouteFilter<BackendRef>>| match &filter.value {
        RouteFilter::Mirror(mirror) => Some(mirror.backend.clone()),
        _ => None,
    };
    for backend in rule.filters.iter().flatten().filter_map(mirrored) {
        let nowhere = "no request is copied to it";
        findings.extend(meta, of_backend(&backend, nowhere, nowhere));
    }
}

/// A backend that is there and does not speak HTTP (decision D10).
fn no_http(
    resolver: &Resolver<'_>,
    policy: &MeshHttpRoute,
    backend: &BackendRef,
    then: &str,
) -> Option<Diagnostic> {
    let Resolver { inventory, objects, .. } = resolver;
    let (to, _) = backends::led_to(&backend.target, &policy.meta, objects, inventory);
    let known = inventory.endpoints(&to)?;
    let protocol = known.protocol();
    if protocol.is_http_like() || !known.endpoints.iter().any(|endpoint| endpoint.ready) {
        return None;
    }
    let message = format!("{} is handled as {}: {then}", to.called(), protocol.name());
    let found = Diagnostic::warning(backend.field.clone(), message).at(backend.span);
    Some(found.hint(how_to_speak(&to)))
}

/// An item that speaks of something that is there and does not speak HTTP: its rules have no
/// effect (semantics 4.7).
fn not_http<'a>(
    resolver: &Resolver<'a>,
    item: &Item<'a, MeshHttpRoute>,
    findings: &mut Findings<'a>,
) {
    let Spoken::Service(to) = item.spoken() else { return };
    let Resolver { inventory, objects, .. } = resolver;
    let meta = item.meta();
    let Ok(called) = backends::service(to, meta, objects, inventory) else { return };
    let Some(known) = inventory.endpoints(&called) else { return };
    let protocol = known.protocol();
    let undecided = known.declared.is_none() && !known.endpoints.iter().any(|one| one.ready);
    if protocol.is_http_like() || undecided {
        return;
    }
    let (span, field) = item.place();
    let message = format!(
        "{} is handled as {}, so these rules have no effect on it",
        called.called(),
        protocol.name()
    );
    let found = Diagnostic::warning(format!("{field}.targetRef"), message).at(span);
    findings.add(meta, found.hint(how_to_speak(&called)));
}

fn how_to_speak(destination: &Destination) -> &'static str {
    match destination {
        Destination::Tags { .. } => {
            "every endpoint needs the tag `kuma.io/protocol`: http, http2 or grpc, and the same"
        }
        _ => "give its port an `appProtocol`: http, http2 or grpc",
    }
}
