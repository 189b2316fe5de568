//! Kuma's kinds besides Mesh, Dataplane and TrafficRoute: which of them are read, and how. All
//! but ExternalService have a schema: their fields stand under `spec` in both envelopes, and
//! paths say so.

use std::{collections::BTreeSet, sync::Arc};

use super::{
    List, Meta, PolicySet, Span, external_service,
    fields::{Context, Fields, Form},
    mesh_route, mesh_service,
};

/// A kind that is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum MeshKind {
    ExternalService,
    MeshTcpRoute,
    MeshService,
    MeshExternalService,
    MeshMultiZoneService,
}

impl MeshKind {
    pub(super) const ALL: [Self; 5] = [
        Self::ExternalService,
        Self::MeshTcpRoute,
        Self::MeshService,
        Self::MeshExternalService,
        Self::MeshMultiZoneService,
    ];

    /// `type:`, `kind:`.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::ExternalService => "ExternalService",
            Self::MeshTcpRoute => "MeshTCPRoute",
            Self::MeshService => "MeshService",
            Self::MeshExternalService => "MeshExternalService",
            Self::MeshMultiZoneService => "MeshMultiZoneService",
        }
    }

    /// How its fields are read. Kinds with a schema are namespaced on Kubernetes.
    pub(super) fn form(self) -> Form {
        match self {
            Self::ExternalService => Form::Proto,
            _ => Form::Schema,
        }
    }

    /// What Kuma 3 has instead, if it has not this kind.
    pub(super) fn instead_in_kuma_3(self) -> Option<&'static str> {
        (self == Self::ExternalService).then_some("MeshExternalService")
    }
}

/// Reads a resource into the set, unless it has an error. `root` is the specification of an
/// ExternalService, and of other kinds the document without what the envelope has taken.
pub(super) fn read(
    cx: &mut Context<'_>,
    kind: MeshKind,
    meta: Meta,
    name_span: Span,
    mut root: Fields<'_>,
    set: &mut PolicySet,
) {
    if kind == MeshKind::ExternalService {
        let service = external_service::external_service(cx, meta, root);
        return file(cx, &mut set.external_services, service);
    }
    let spec_field = root.take(cx, "spec");
    let status_field = root.take(cx, "status");
    let absent = Fields::new(root.span, &[], "spec".to_owned());
    root.finish(cx);
    let spec = match &spec_field {
        Some(field) => field.fields(cx),
        None => Some(absent),
    };
    let Some(spec) = spec else { return };
    let status = status_field.as_ref();
    match kind {
        MeshKind::MeshTcpRoute => {
            let shadow = super::envelope::is_shadow(&meta.labels);
            let route = mesh_route::mesh_tcp_route(cx, meta, spec);
            let routes =
                if shadow { &mut set.shadowed_mesh_tcp_routes } else { &mut set.mesh_tcp_routes };
            file(cx, routes, route);
        }
        MeshKind::MeshService => {
            let service = mesh_service::mesh_service(cx, meta, name_span, spec, status);
            file(cx, &mut set.mesh_services, service);
        }
        MeshKind::MeshExternalService => {
            let service = mesh_service::mesh_external_service(cx, meta, name_span, spec, status);
            file(cx, &mut set.mesh_external_services, service);
        }
        MeshKind::MeshMultiZoneService => {
            let service = mesh_service::mesh_multi_zone_service(cx, meta, name_span, spec, status);
            file(cx, &mut set.mesh_multi_zone_services, service);
        }
        MeshKind::ExternalService => {}
    }
}

fn file<T>(cx: &Context<'_>, list: &mut List<T>, read: Option<T>) {
    list.extend(read.filter(|_| cx.errors() == 0).map(Arc::new));
}

/// Drops what is in a mesh that does not exist, and sorts the rest by (mesh, name).
pub(super) fn settle(set: &mut PolicySet, unknown: &BTreeSet<String>) {
    fn list<T>(list: &mut List<T>, unknown: &BTreeSet<String>, meta: impl Fn(&T) -> &Meta) {
        let known = list.iter().filter(|one| !unknown.contains(&meta(one).mesh));
        let mut sorted: Vec<Arc<T>> = known.cloned().collect();
        sorted.sort_by(|a, b| {
            let key = |one| (&meta(one).mesh, &meta(one).name);
            key(a).cmp(&key(b))
        });
        *list = sorted.into();
    }
    list(&mut set.dataplanes, unknown, |one| &one.meta);
    list(&mut set.traffic_routes, unknown, |one| &one.meta);
    list(&mut set.shadowed, unknown, |one| &one.meta);
    list(&mut set.external_services, unknown, |one| &one.meta);
    list(&mut set.mesh_tcp_routes, unknown, |one| &one.meta);
    list(&mut set.shadowed_mesh_tcp_routes, unknown, |one| &one.meta);
    list(&mut set.mesh_services, unknown, |one| &one.meta);
    list(&mut set.mesh_external_services, unknown, |one| &one.meta);
    list(&mut set.mesh_multi_zone_services, unknown, |one| &one.meta);
}
