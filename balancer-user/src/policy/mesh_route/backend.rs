//! `rules[].default.backendRefs` of route policies, and where a MeshHTTPRoute sends copies
//! (semantics 4.2, 4.3).

use super::{
    super::{
        Api, Diagnostic,
        envelope::only,
        fields::{Context, Field},
        reference::Written,
    },
    BackendRef, BackendTarget, target,
};

pub(in super::super) const KINDS: &[&str] =
    &["MeshService", "MeshServiceSubset", "MeshExternalService", "MeshMultiZoneService"];
const KINDS_OF_KUMA_3: &[&str] = &["MeshService", "MeshExternalService", "MeshMultiZoneService"];

/// Reads the list.
pub(super) fn backends(cx: &mut Context<'_>, field: &Field<'_>) -> Option<Vec<BackendRef>> {
    let items = field.items(cx)?;
    let backends: Option<Vec<BackendRef>> = {
        let read: Vec<_> = items.iter().map(|item| backend(cx, item)).collect();
        read.into_iter().collect()
    };
    let backends = backends?;
    let sum: u64 = backends.iter().map(|backend| u64::from(backend.weight)).sum();
    if sum > u64::from(u32::MAX) {
        // Decision D14.
        cx.report(
            field
                .error(format!("the weights sum to {sum}, more than {}", u32::MAX))
                .hint("weights are relative: divide them all by the same number"),
        );
        return None;
    }
    Some(backends)
}

fn backend(cx: &mut Context<'_>, field: &Field<'_>) -> Option<BackendRef> {
    let kinds = match cx.options.api {
        Some(Api::Kuma27) => &KINDS[..2],
        Some(Api::Kuma3) => KINDS_OF_KUMA_3,
        Some(Api::Kuma29) | None => KINDS,
    };
    of_kinds(cx, field, kinds)
}

/// `requestMirror.backendRef` of a MeshHTTPRoute. Its weight has no effect.
pub(super) fn mirrored(cx: &mut Context<'_>, field: &Field<'_>) -> Option<BackendRef> {
    let kinds = match cx.options.api {
        Some(Api::Kuma27 | Api::Kuma29) => &KINDS[..2],
        Some(Api::Kuma3) => KINDS_OF_KUMA_3,
        None => KINDS,
    };
    of_kinds(cx, field, kinds)
}

fn of_kinds(cx: &mut Context<'_>, field: &Field<'_>, kinds: &[&'static str]) -> Option<BackendRef> {
    let mut written = Written::new(cx, field)?;
    let kind = written.kind(cx, kinds)?;
    let errors_before = cx.errors();
    let weight = match written.fields.take(cx, "weight") {
        Some(field) => field.u32(cx),
        None => Some(1),
    };
    let port_field = written.fields.take(cx, "port");
    let port = port_field.as_ref().and_then(|field| field.port(cx));
    let target = if kind == "MeshServiceSubset" {
        written.allow(cx, kind, &["name", "tags"]);
        if let Some(field) = port_field {
            let message = format!("has no effect with kind {kind}");
            cx.report(Diagnostic::warning(field.path, message).at(field.key_span));
        }
        let name = written.name(cx, kind);
        let tags = target::exact_tags(cx, &written);
        name.zip(tags).map(|(name, tags)| BackendTarget::Subset { name, tags })
    } else {
        if kind == "MeshMultiZoneService" && port_field.is_none() {
            cx.report(
                written
                    .fields
                    .missing("port", format!("must be defined with kind {kind}"))
                    .hint("give one of the ports of the MeshMultiZoneService"),
            );
        }
        written.service(cx, kind, port).map(BackendTarget::Service)
    };
    written.fields.finish(cx);
    let (weight, target) = (weight?, target?);
    (cx.errors() == errors_before).then(|| BackendRef {
        span: field.node.span,
        field: field.path.clone(),
        weight,
        target,
    })
}

/// Whether a rule must name a backend: since Kuma 2.10, and what any version accepts is accepted.
pub(super) fn must_be_given(cx: &Context<'_>) -> bool {
    only(cx.options, &[Api::Kuma3])
}
