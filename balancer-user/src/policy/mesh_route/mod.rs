//! `MeshTCPRoute` and `MeshHTTPRoute` (semantics 4).

pub(super) mod backend;
mod http;
pub(super) mod http_filter;
pub(super) mod http_match;
#[cfg(test)]
mod http_testing;
pub(super) mod target;

pub(super) use http::mesh_http_route;
pub use http::{MeshHttpRoute, MeshHttpRule, MeshHttpTo};

use super::{
    Api, Diagnostic, Meta, ReferredBy, ServiceRef, Span, Tags,
    envelope::only,
    fields::{Context, Field, Fields},
    reference::Written,
};

/// `MeshTCPRoute`.
#[derive(Clone, Debug, PartialEq)]
pub struct MeshTcpRoute {
    /// Identity.
    pub meta: Meta,
    /// `targetRef`: whose connections it concerns. Absent: everybody's.
    pub target: RouteTarget,
    /// `to[]` in written order.
    pub to: Vec<MeshTcpTo>,
}

/// `spec.targetRef` of a route policy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RouteTarget {
    /// Every workload.
    Mesh {
        /// Of which kind.
        proxies: Proxies,
    },
    /// Workloads one inbound of which has all these tags.
    MeshSubset {
        /// Exact values; empty: every workload.
        tags: Tags,
        /// Of which kind.
        proxies: Proxies,
    },
    /// Dataplanes by their labels, an object by its name, or all (`None`).
    Dataplane(Option<ReferredBy>),
    /// Workloads that offer this `kuma.io/service`.
    MeshService {
        /// The service.
        name: String,
    },
    /// The same, on an inbound that has these tags too.
    MeshServiceSubset {
        /// The service.
        name: String,
        /// Exact values.
        tags: Tags,
    },
    /// Listeners of a built-in gateway. Reported; concerns nobody here (decision D24).
    MeshGateway {
        /// The MeshGateway.
        name: String,
        /// Tags of its listeners.
        tags: Tags,
    },
}

/// `proxyTypes`: which Dataplanes; both where absent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Proxies {
    /// Those without `networking.gateway`.
    pub sidecars: bool,
    /// Those with it.
    pub gateways: bool,
}

impl Default for Proxies {
    fn default() -> Self {
        Self { sidecars: true, gateways: true }
    }
}

/// One item of `to`.
#[derive(Clone, Debug, PartialEq)]
pub struct MeshTcpTo {
    /// Where it stands.
    pub span: Span,
    /// Its field path: `spec.to[0]`.
    pub field: String,
    /// `targetRef`: what is dialled.
    pub target: ToTarget,
    /// The only item of `rules`. `None`: connections go to what is dialled.
    pub rule: Option<MeshTcpRule>,
}

/// What an item of `to` speaks of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ToTarget {
    /// Everything; only where the policy's own target is a MeshGateway.
    Mesh,
    /// A service.
    Service(ServiceRef),
}

/// One item of `rules`.
#[derive(Clone, Debug, PartialEq)]
pub struct MeshTcpRule {
    /// Where it stands.
    pub span: Span,
    /// Its field path: `spec.to[0].rules[0]`.
    pub field: String,
    /// `default.backendRefs` in written order, those of weight 0 included. Empty: connections
    /// are refused (semantics 4.3).
    pub backends: Vec<BackendRef>,
}

/// One of `backendRefs`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BackendRef {
    /// Where it stands.
    pub span: Span,
    /// Its field path: `spec.to[0].rules[0].default.backendRefs[0]`.
    pub field: String,
    /// Relative weight, 1 where absent; 0: takes nothing.
    pub weight: u32,
    /// What it names.
    pub target: BackendTarget,
}

/// What a backend is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BackendTarget {
    /// A service, or one of its ports.
    Service(ServiceRef),
    /// `MeshServiceSubset`: endpoints of a `kuma.io/service` that have all these tags.
    Subset {
        /// The service.
        name: String,
        /// Exact values.
        tags: Tags,
    },
}

/// Reads a MeshTCPRoute. `None`: it has an error.
pub(super) fn mesh_tcp_route(
    cx: &mut Context<'_>,
    meta: Meta,
    spec: Fields<'_>,
) -> Option<MeshTcpRoute> {
    let (target, to) = policy(cx, &meta, spec, to_item)?;
    Some(MeshTcpRoute { meta, target, to })
}

/// What all policies of this form have: `targetRef`, and items of `to`, each of which `read` reads.
/// It is told whether the policy is for a MeshGateway. `None`: there is an error.
pub(super) fn policy<'n, T>(
    cx: &mut Context<'_>,
    meta: &Meta,
    mut spec: Fields<'n>,
    read: impl Fn(&mut Context<'_>, &Field<'n>, bool) -> Option<T>,
) -> Option<(RouteTarget, Vec<T>)> {
    let target_field = spec.take(cx, "targetRef");
    let to_field = spec.take(cx, "to");
    let top = match &target_field {
        Some(field) => target::target(cx, meta, field),
        None => {
            // Optional since 2.9.
            if only(cx.options, &[Api::Kuma27]) {
                cx.report(
                    Diagnostic::error(format!("{}.targetRef.kind", spec.path), "must be set")
                        .at(spec.span)
                        .hint("add `targetRef: {kind: Mesh}`"),
                );
            }
            let target = RouteTarget::Mesh { proxies: Proxies::default() };
            target::Top { gateway: false, target: Some(target) }
        }
    };
    let items = match &to_field {
        Some(field) => field.items(cx),
        None => Some(Vec::new()),
    };
    if items.as_ref().is_some_and(Vec::is_empty) {
        let message = "has no element: this policy has no effect";
        cx.report(match &to_field {
            Some(field) => field.warning(message),
            None => spec.missing_warning("to", message),
        });
    }
    let to: Vec<Option<T>> =
        items.unwrap_or_default().iter().map(|item| read(cx, item, top.gateway)).collect();
    spec.finish(cx);
    Some((top.target?, to.into_iter().collect::<Option<_>>()?))
}

fn to_item(cx: &mut Context<'_>, item: &Field<'_>, gateway: bool) -> Option<MeshTcpTo> {
    let mut fields = item.fields(cx)?;
    let target = route_target(cx, &mut fields, gateway);
    let rule = match fields.take(cx, "rules") {
        Some(field) => rules(cx, &field),
        None => Some(None),
    };
    fields.finish(cx);
    let (span, field) = (item.node.span, item.path.clone());
    Some(MeshTcpTo { span, field, target: target?, rule: rule? })
}

/// `targetRef` of an item of `to`, which must be there.
pub(super) fn to_target_ref<'n>(
    cx: &mut Context<'_>,
    fields: &mut Fields<'n>,
) -> Option<Field<'n>> {
    let field = fields.take(cx, "targetRef");
    if field.is_none() {
        cx.report(
            Diagnostic::error(format!("{}.targetRef.kind", fields.path), "must be set")
                .at(fields.span)
                .hint("add `targetRef: {kind: MeshService, name: NAME}`"),
        );
    }
    field
}

/// The same of a route policy.
fn route_target(cx: &mut Context<'_>, fields: &mut Fields<'_>, gateway: bool) -> Option<ToTarget> {
    to_target_ref(cx, fields).and_then(|field| to_target(cx, &field, gateway))
}

/// Kinds that `targetRef` of an item of `to` may have below anything but a MeshGateway.
pub(super) const SERVICES: &[&str] =
    &["MeshService", "MeshExternalService", "MeshMultiZoneService"];

fn to_target(cx: &mut Context<'_>, field: &Field<'_>, gateway: bool) -> Option<ToTarget> {
    let written = Written::new(cx, field)?;
    let kinds = match cx.options.api {
        _ if gateway => &["Mesh"],
        Some(Api::Kuma27) => &SERVICES[..1],
        Some(Api::Kuma29 | Api::Kuma3) | None => SERVICES,
    };
    let kind = written.kind(cx, kinds)?;
    let errors_before = cx.errors();
    let target = if kind == "Mesh" {
        written.allow(cx, kind, &["proxyTypes"]);
        Some(ToTarget::Mesh)
    } else {
        written.service(cx, kind, None).map(ToTarget::Service)
    };
    written.fields.finish(cx);
    target.filter(|_| cx.errors() == errors_before)
}

/// `rules`, of which there is at most one (semantics 4.3).
fn rules(cx: &mut Context<'_>, field: &Field<'_>) -> Option<Option<MeshTcpRule>> {
    let items = field.items(cx)?;
    if let [_, second, ..] = items.as_slice() {
        cx.report(
            field
                .error(format!("must have at most one element, has {}", items.len()))
                .related(second.node.span, "the second is here")
                .hint("put all `backendRefs` into one rule"),
        );
    }
    let mut read: Vec<Option<MeshTcpRule>> = items.iter().map(|item| rule(cx, item)).collect();
    match read.len() {
        0 => Some(None),
        1 => read.remove(0).map(Some),
        _ => None,
    }
}

fn rule(cx: &mut Context<'_>, item: &Field<'_>) -> Option<MeshTcpRule> {
    let mut fields = item.fields(cx)?;
    let default = fields.take(cx, "default");
    fields.finish(cx);
    let path = format!("{}.default.backendRefs", item.path);
    let backends_field = match &default {
        Some(field) => {
            let mut fields = field.fields(cx)?;
            let backends = fields.take(cx, "backendRefs");
            fields.finish(cx);
            backends
        }
        None => None,
    };
    let backends = match &backends_field {
        Some(field) => backend::backends(cx, field)?,
        None => Vec::new(),
    };
    if backends.is_empty() {
        let at = backends_field
            .as_ref()
            .or(default.as_ref())
            .map_or(item.node.span, |field| field.key_span);
        cx.report(if backend::must_be_given(cx) {
            Diagnostic::error(path, "must be defined").at(at)
        } else {
            Diagnostic::warning(
                path,
                "names no backend: connections are refused, unless another MeshTCPRoute names some",
            )
            .at(at)
            .hint("leave out the whole rule to send them to the service itself")
        });
    } else if backends.iter().all(|backend| backend.weight == 0) {
        let at = backends_field.as_ref().map_or(item.node.span, |field| field.key_span);
        cx.report(
            Diagnostic::warning(path, "every weight is 0: connections are refused")
                .at(at)
                .hint("give one of them a weight above 0"),
        );
    }
    Some(MeshTcpRule { span: item.node.span, field: item.path.clone(), backends })
}

#[cfg(test)]
#[path = "../mesh_route_tests.rs"]
mod tests;
