//! `Mesh` (semantics 2.2).

use super::{
    Mesh, Meta,
    fields::{Context, Fields},
};

/// `meshServices.mode`.
pub(super) const MODES: &[&str] = &["Disabled", "Everywhere", "ReachableBackends", "Exclusive"];

/// Fields that have no effect on routing.
pub(super) const WITHOUT_EFFECT: &[&str] =
    &["tracing", "logging", "metrics", "constraints", "skipCreatingInitialPolicies"];

/// Reads a Mesh.
pub(super) fn mesh(cx: &mut Context<'_>, meta: Meta, mut spec: Fields<'_>) -> Mesh {
    let mut locality_aware = false;
    if let Some(routing) = spec.take(cx, "routing")
        && let Some(mut routing) = routing.fields(cx)
    {
        if let Some(field) = routing.take(cx, "localityAwareLoadBalancing") {
            locality_aware = field.boolean(cx).unwrap_or(false);
        }
        for (name, instead) in [
            ("zoneEgress", "endpoints in other zones are dialled directly"),
            (
                "defaultForbidMeshExternalServiceAccess",
                "every workload reaches MeshExternalServices",
            ),
        ] {
            if let Some(field) = routing.take(cx, name)
                && field.boolean(cx) == Some(true)
            {
                cx.report(field.warning(format!("`{name}` is not carried out yet: {instead}")));
            }
        }
        routing.finish(cx);
    }
    if let Some(services) = spec.take(cx, "meshServices")
        && let Some(mut services) = services.fields(cx)
    {
        if let Some(field) = services.take(cx, "mode")
            && let Some(mode) = field.one_of(cx, MODES)
            && mode != "Disabled"
        {
            cx.report(field.warning(format!(
                "the mode {mode} is not carried out: MeshServices are those that are written, and services of the tag `kuma.io/service` are dialled as well"
            )));
        }
        services.finish(cx);
    }
    spec.not_carried_out(cx, "mtls", "connections are forwarded as they come");
    spec.not_carried_out(cx, "networking", "what goes to no VIP passes untouched");
    spec.without_effect(WITHOUT_EFFECT);
    spec.finish(cx);
    Mesh { meta, locality_aware }
}
