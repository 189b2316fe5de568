//! `MeshMultiZoneService` (semantics 2.8).

use super::{
    super::{
        Diagnostic, Meta, Span, Tags,
        fields::{Context, Field, Fields},
        metadata,
    },
    MeshMultiZoneService, label_name, ports,
};

/// Reads a MeshMultiZoneService. `None`: it has an error.
pub(in super::super) fn mesh_multi_zone_service(
    cx: &mut Context<'_>,
    meta: Meta,
    name_span: Span,
    mut spec: Fields<'_>,
    status: Option<&Field<'_>>,
) -> Option<MeshMultiZoneService> {
    label_name(cx, &meta, name_span);
    let match_labels = match_labels(cx, &mut spec);
    let ports_field = spec.take(cx, "ports");
    let ports = match &ports_field {
        Some(field) if field.is_set() => {
            ports::ports(cx, field, ports::Owner::MeshMultiZoneService)
        }
        _ => {
            cx.report(match &ports_field {
                Some(field) => field.error("cannot be empty"),
                None => spec.missing("ports", "cannot be empty"),
            });
            None
        }
    };
    spec.finish(cx);
    let status = ports::status(cx, status);
    Some(MeshMultiZoneService { meta, match_labels: match_labels?, ports: ports?, status: status? })
}

/// `selector.meshService.matchLabels`, at least one.
fn match_labels(cx: &mut Context<'_>, spec: &mut Fields<'_>) -> Option<Tags> {
    let Some(selector) = spec.take(cx, "selector") else {
        cx.report(empty(spec));
        return None;
    };
    let mut fields = selector.fields(cx)?;
    let services = fields.take(cx, "meshService");
    fields.finish(cx);
    let labels = match &services {
        Some(services) => {
            let mut fields = services.fields(cx)?;
            let labels = fields.take(cx, "matchLabels");
            fields.finish(cx);
            labels
        }
        None => None,
    };
    match labels.filter(Field::is_set) {
        Some(field) => {
            let errors_before = cx.errors();
            let labels = metadata::labels(cx, Some(&field));
            (cx.errors() == errors_before).then_some(labels)
        }
        None => {
            cx.report(empty(spec));
            None
        }
    }
}

fn empty(spec: &Fields<'_>) -> Diagnostic {
    let path = format!("{}.selector.meshService.matchLabels", spec.path);
    Diagnostic::error(path, "cannot be empty")
        .at(spec.span)
        .hint("e.g. `matchLabels: {kuma.io/display-name: backend}`")
}
