//! Findings about policies with `targetRef` and `to`: what they name and is not there, and which
//! TrafficRoutes they leave without effect.

use std::collections::BTreeMap;

use super::{
    super::{
        Destination, Resolver,
        check::{did_you_mean, subset, with_hint},
        findings::Findings,
        objects::NoPort,
        signatures::{Before, Signatures},
    },
    Clause, Item, Nobody, Spoken, ToPolicies, ToPolicy, backends,
    order::mixed,
    speaks::{self, Nowhere},
};
use crate::policy::{
    BackendRef, BackendTarget, Diagnostic, Meta, ReferredBy, ServiceKind, ServiceRef, Tags,
    TrafficRoute,
};

/// Names that one finding lists at most.
const LISTED: usize = 3;

/// What there is to say of a policy's target and of what its items speak of.
pub(in crate::resolve) fn policy<'a, P: ToPolicy>(
    resolver: &Resolver<'a>,
    policy: &'a P,
    findings: &mut Findings<'a>,
) {
    let meta = policy.meta();
    if let Some(to) = mixed(policy) {
        let (span, field) = P::place(to);
        let message = "this item and the first one are of different namespaces, and whether the \
                       policy is for all who dial or for those of its own namespace depends on it";
        let found = Diagnostic::error(format!("{field}.targetRef"), message)
            .at(span)
            .hint("make two policies of it, or say which with a label `kuma.io/policy-role`");
        findings.add(meta, found);
    }
    if Clause::of(policy, resolver.settings.zone.as_deref()) == Err(Nobody::NoNamespace) {
        let message = "this policy concerns nobody: its role is for the workloads of its own \
                       namespace, and it has none";
        let field = "labels[\"kuma.io/policy-role\"]";
        let hint = "give it the label `k8s.kuma.io/namespace`, or the role `system`";
        findings.add(meta, Diagnostic::warning(field, message).at(meta.span).hint(hint));
    }
    for index in 0..policy.to().len() {
        let item = Item { policy, index };
        if let (Spoken::Service(to), Some(nowhere)) =
            (item.spoken(), speaks::nowhere(&item, &resolver.objects))
        {
            let then = "this item has no effect";
            findings.add(meta, names_nothing(resolver, meta, to, &nowhere, then));
        }
    }
}

/// What there is to say of a backend. `refused` says what becomes of its share where it names
/// nothing, `failed` where nothing is there to take it.
pub(in crate::resolve) fn backend(
    resolver: &Resolver<'_>,
    meta: &Meta,
    backend: &BackendRef,
    (refused, failed): (&str, &str),
) -> Option<Diagnostic> {
    let (inventory, field) = (&resolver.inventory, &backend.field);
    let of_tags = |name: &str, tags: &Tags| {
        let name_field = format!("{field}.name");
        Some(subset(inventory, &meta.mesh, name, tags, (&name_field, field))?.at(backend.span))
    };
    let reference = match &backend.target {
        BackendTarget::Subset { name, tags } => return of_tags(name, tags),
        BackendTarget::Service(reference) => reference,
    };
    match backends::service(reference, meta, &resolver.objects, inventory) {
        Err(nowhere) => Some(names_nothing(resolver, meta, reference, &nowhere, refused)),
        Ok(Destination::Tags { service, .. }) => of_tags(&service, &Tags::new()),
        Ok(destination) => {
            let endpoints = inventory.endpoints(&destination).map(|known| &known.endpoints);
            let what = match endpoints {
                Some(all) if all.iter().any(|endpoint| endpoint.ready) => return None,
                Some(all) if !all.is_empty() => "ready endpoint",
                _ => "endpoint",
            };
            let message = format!("{} has no {what}: {failed}", destination.called());
            Some(Diagnostic::warning(field.clone(), message).at(backend.span))
        }
    }
}

/// A reference to an object or port that is not there. `then` says what comes of it.
fn names_nothing(
    resolver: &Resolver<'_>,
    referrer: &Meta,
    reference: &ServiceRef,
    nowhere: &Nowhere,
    then: &str,
) -> Diagnostic {
    let kind = match reference.kind {
        ServiceKind::MeshService => "MeshService",
        ServiceKind::MeshExternalService => "MeshExternalService",
        ServiceKind::MeshMultiZoneService => "MeshMultiZoneService",
    };
    let field = |part: &str| format!("{}.{part}", reference.field);
    match nowhere {
        Nowhere::NoObject => {
            let written = speaks::written(&reference.by);
            let mesh = &referrer.mesh;
            let of_kind =
                resolver.objects.of_mesh(mesh).filter(|object| object.kind == reference.kind);
            let (part, known) = match &reference.by {
                ReferredBy::Name { name, .. }
                    if reference.kind == ServiceKind::MeshService
                        && resolver.inventory.service(mesh, name).is_some() =>
                {
                    let part = if reference.section.is_some() { "sectionName" } else { "port" };
                    let by_tag =
                        format!("`{name}` is a kuma.io/service: leave `{part}` out for it");
                    ("name", Some(by_tag))
                }
                ReferredBy::Name { .. } => {
                    ("name", did_you_mean(&written, of_kind.map(|o| o.meta.name.as_str())))
                }
                ReferredBy::Labels(_) => ("labels", None),
            };
            let message = format!("mesh {mesh} has no {kind} `{written}`: {then}");
            with_hint(Diagnostic::warning(field(part), message), known)
        }
        Nowhere::NoPort(name, no_port, ports) => {
            let has = format!("it has {}", ports.join(", "));
            let part = if reference.section.is_some() { "sectionName" } else { "port" };
            match no_port {
                NoPort::Unknown(port) => {
                    let message = format!("{kind} `{name}` has no port `{port}`: {then}");
                    Diagnostic::warning(field(part), message).hint(has)
                }
                NoPort::Which(0) => {
                    let message = format!("{kind} `{name}` has no port: {then}");
                    Diagnostic::warning(reference.field.clone(), message)
                        .hint("add one to its `ports`")
                }
                NoPort::Which(several) => {
                    let message = format!(
                        "{kind} `{name}` has {several} ports and this names none of them: {then}"
                    );
                    let hint = format!("add `port` or `sectionName`; {has}");
                    Diagnostic::warning(reference.field.clone(), message).hint(hint)
                }
            }
        }
    }
    .at(reference.span)
}

/// For each TrafficRoute the services at which another kind goes before it, with the first such
/// policy and whether that is so for every source.
type Overruled<'a, P> = BTreeMap<usize, BTreeMap<String, (Item<'a, P>, bool)>>;

/// TrafficRoutes that would decide and do not, because a policy of another kind does (decision
/// D23).
pub(in crate::resolve) fn overruled<'a, P: ToPolicy>(
    resolver: &Resolver<'a>,
    signatures: &Signatures<'a>,
    before: Before,
    by_mesh: &BTreeMap<&'a str, ToPolicies<'a, P>>,
    findings: &mut Findings<'a>,
) {
    for (mesh, routes) in by_mesh {
        let mut overruled = Overruled::new();
        for (service, _) in routes.tag_services() {
            let called = Destination::tags(mesh, service);
            if before == Before::MeshHttp && !resolver.speaks_http(&called) {
                continue;
            }
            let mut lost: BTreeMap<usize, Item<'a, P>> = BTreeMap::new();
            let mut used = Vec::new();
            for (traffic, first) in signatures.rivals(resolver, &called, before) {
                match first {
                    Some(place) => _ = lost.entry(traffic).or_insert(routes.item(place)),
                    None => used.push(traffic),
                }
            }
            for (traffic, item) in lost {
                let everywhere = !used.contains(&traffic);
                let services = overruled.entry(traffic).or_default();
                services.insert(service.to_owned(), (item, everywhere));
            }
        }
        for (traffic, services) in overruled {
            let policy = resolver.traffic_routes(mesh)[traffic];
            findings.add(&policy.meta, overruled_route(policy, &services));
        }
    }
}

fn overruled_route<P: ToPolicy>(
    policy: &TrafficRoute,
    services: &BTreeMap<String, (Item<'_, P>, bool)>,
) -> Diagnostic {
    let of_service = |(service, (item, everywhere)): (&String, &(Item<'_, P>, bool))| {
        let whose = if *everywhere { "" } else { " of some sources" };
        let Meta { kind, name, .. } = item.meta();
        format!("on connections{whose} to `{service}`, because of {kind} {name}")
    };
    let mut listed: Vec<String> = services.iter().take(LISTED).map(of_service).collect();
    if services.len() > LISTED {
        listed.push(format!("on those to {} more services", services.len() - LISTED));
    }
    let kind = services.values().next().map_or("", |(item, _)| item.meta().kind);
    let message = format!("TrafficRoute {} has no effect {}", policy.meta.name, listed.join("; "));
    Diagnostic::warning("destinations", message)
        .at(policy.meta.span)
        .hint(format!("a {kind} goes before every TrafficRoute for what it speaks of; remove one"))
}
