//! `spec.targetRef` of a MeshTCPRoute: whose connections it concerns.

use super::{
    super::{
        Api, Meta, Tags,
        envelope::only,
        fields::{Context, Field},
        reference::Written,
        tags::{self, TagRules},
    },
    Proxies, RouteTarget,
};

/// What became of `spec.targetRef`.
pub(super) struct Top {
    /// It names a MeshGateway, rightly or not: `to` has rules of its own then.
    pub(super) gateway: bool,
    /// It is valid.
    pub(super) target: Option<RouteTarget>,
}

/// Kinds of Kuma 2.7 and 2.9, the MeshGateway last.
const TAG_KINDS: &[&str] =
    &["Mesh", "MeshSubset", "MeshService", "MeshServiceSubset", "MeshGateway"];
/// Kinds of any version.
pub(in super::super) const ALL_KINDS: &[&str] =
    &["Mesh", "Dataplane", "MeshSubset", "MeshService", "MeshServiceSubset", "MeshGateway"];

/// `proxyTypes`.
pub(in super::super) const PROXY_TYPES: &[&str] = &["Sidecar", "Gateway"];

/// The kinds that exist where it stands (semantics 4.2).
fn kinds(cx: &Context<'_>, meta: &Meta) -> &'static [&'static str] {
    // Policies of namespaces that are not the system's have no MeshGateway since 2.9.
    let system = meta.labels.get("kuma.io/policy-role").is_none_or(|role| role == "system");
    match cx.options.api {
        Some(Api::Kuma3) => &ALL_KINDS[..2],
        Some(Api::Kuma29) if !system => &TAG_KINDS[..4],
        Some(Api::Kuma27 | Api::Kuma29) => TAG_KINDS,
        None => ALL_KINDS,
    }
}

/// Reads `spec.targetRef`.
pub(super) fn target(cx: &mut Context<'_>, meta: &Meta, field: &Field<'_>) -> Top {
    let mut top = Top { gateway: false, target: None };
    let Some(written) = Written::new(cx, field) else { return top };
    top.gateway = written.is_kind("MeshGateway") && !only(cx.options, &[Api::Kuma3]);
    let Some(kind) = written.kind(cx, kinds(cx, meta)) else { return top };
    let errors_before = cx.errors();
    let target = match kind {
        "MeshSubset" => {
            written.allow(cx, kind, &["tags", "proxyTypes"]);
            let tags = exact_tags(cx, &written);
            let proxies = proxies(cx, &written);
            tags.map(|tags| RouteTarget::MeshSubset { tags, proxies })
        }
        "Dataplane" => {
            // A section would choose inbounds, and routes are for what is dialled.
            written.allow(cx, kind, &["name", "namespace", "labels"]);
            Some(RouteTarget::Dataplane(written.given_by(cx, kind)))
        }
        "MeshService" => {
            written.allow(cx, kind, &["name"]);
            written.name(cx, kind).map(|name| RouteTarget::MeshService { name })
        }
        "MeshServiceSubset" => {
            written.allow(cx, kind, &["name", "tags"]);
            let name = written.name(cx, kind);
            let tags = exact_tags(cx, &written);
            name.zip(tags).map(|(name, tags)| RouteTarget::MeshServiceSubset { name, tags })
        }
        "MeshGateway" => {
            written.warn_of_kind(cx, "MeshGateway is not carried out: this policy has no effect");
            written.allow(cx, kind, &["name", "tags"]);
            let name = written.name(cx, kind);
            let tags = exact_tags(cx, &written);
            name.zip(tags).map(|(name, tags)| RouteTarget::MeshGateway { name, tags })
        }
        _ => {
            written.allow(cx, kind, &["proxyTypes"]);
            Some(RouteTarget::Mesh { proxies: proxies(cx, &written) })
        }
    };
    written.fields.finish(cx);
    top.target = target.filter(|_| cx.errors() == errors_before);
    top
}

/// `tags`: exact values, none where absent.
pub(super) fn exact_tags(cx: &mut Context<'_>, written: &Written<'_>) -> Option<Tags> {
    let path = format!("{}.tags", written.fields.path);
    tags::tags(cx, &path, written.part("tags"), written.fields.span, TagRules::default())
}

fn proxies(cx: &mut Context<'_>, written: &Written<'_>) -> Proxies {
    let Some(field) = written.part("proxyTypes") else { return Proxies::default() };
    let Some(items) = field.items(cx) else { return Proxies::default() };
    if items.is_empty() {
        cx.report(field.error("must not be empty").hint("leave it out for all of them"));
    }
    let mut proxies = Proxies { sidecars: false, gateways: false };
    for item in &items {
        match item.one_of(cx, PROXY_TYPES) {
            Some("Sidecar") => proxies.sidecars = true,
            Some(_) => proxies.gateways = true,
            None => {}
        }
    }
    proxies
}
