//! Kuma's kinds besides Mesh, Dataplane and TrafficRoute: which of them are read, and how. All
//! but ExternalService have a schema: their fields stand under `spec` in both envelopes, and
//! paths say so.

use std::sync::Arc;

use super::{
    Meta, Span, external_service,
    fields::{Context, Fields, Form},
    mesh_route, mesh_service,
    objects::Object,
    strategy,
};

/// A kind that is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum MeshKind {
    ExternalService,
    MeshTcpRoute,
    MeshHttpRoute,
    MeshLoadBalancingStrategy,
    MeshService,
    MeshExternalService,
    MeshMultiZoneService,
}

impl MeshKind {
    pub(super) const ALL: [Self; 7] = [
        Self::ExternalService,
        Self::MeshTcpRoute,
        Self::MeshHttpRoute,
        Self::MeshLoadBalancingStrategy,
        Self::MeshService,
        Self::MeshExternalService,
        Self::MeshMultiZoneService,
    ];

    /// `type:`, `kind:`.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::ExternalService => "ExternalService",
            Self::MeshTcpRoute => "MeshTCPRoute",
            Self::MeshHttpRoute => "MeshHTTPRoute",
            Self::MeshLoadBalancingStrategy => "MeshLoadBalancingStrategy",
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

    /// Whether it is a policy, which can be kept and not applied (`kuma.io/effect: shadow`).
    pub(super) fn is_policy(self) -> bool {
        matches!(self, Self::MeshTcpRoute | Self::MeshHttpRoute | Self::MeshLoadBalancingStrategy)
    }

    /// What Kuma 3 has instead, if it has not this kind.
    pub(super) fn instead_in_kuma_3(self) -> Option<&'static str> {
        (self == Self::ExternalService).then_some("MeshExternalService")
    }
}

/// Reads a resource. `None`: it has an error. `root` is the specification of an
/// ExternalService, and of other kinds the document without what the envelope has taken.
pub(super) fn read(
    cx: &mut Context<'_>,
    kind: MeshKind,
    meta: Meta,
    name_span: Span,
    mut root: Fields<'_>,
) -> Option<Object> {
    if kind == MeshKind::ExternalService {
        let service = external_service::external_service(cx, meta, root)?;
        return Some(Object::ExternalService(Arc::new(service)));
    }
    let spec_field = root.take(cx, "spec");
    let status_field = root.take(cx, "status");
    let absent = Fields::new(root.span, &[], "spec".to_owned());
    root.finish(cx);
    let spec = match &spec_field {
        Some(field) => field.fields(cx),
        None => Some(absent),
    };
    let spec = spec?;
    let status = status_field.as_ref();
    match kind {
        MeshKind::MeshTcpRoute => {
            let shadow = super::envelope::is_shadow(&meta.labels);
            let route = Arc::new(mesh_route::mesh_tcp_route(cx, meta, spec)?);
            Some(if shadow {
                Object::ShadowedMeshTcpRoute(route)
            } else {
                Object::MeshTcpRoute(route)
            })
        }
        MeshKind::MeshHttpRoute => {
            let shadow = super::envelope::is_shadow(&meta.labels);
            let route = Arc::new(mesh_route::mesh_http_route(cx, meta, spec)?);
            Some(if shadow {
                Object::ShadowedMeshHttpRoute(route)
            } else {
                Object::MeshHttpRoute(route)
            })
        }
        MeshKind::MeshLoadBalancingStrategy => {
            let shadow = super::envelope::is_shadow(&meta.labels);
            let strategy = Arc::new(strategy::strategy(cx, meta, spec)?);
            Some(if shadow {
                Object::ShadowedMeshLoadBalancingStrategy(strategy)
            } else {
                Object::MeshLoadBalancingStrategy(strategy)
            })
        }
        MeshKind::MeshService => {
            let service = mesh_service::mesh_service(cx, meta, name_span, spec, status)?;
            Some(Object::MeshService(Arc::new(service)))
        }
        MeshKind::MeshExternalService => {
            let service = mesh_service::mesh_external_service(cx, meta, name_span, spec, status)?;
            Some(Object::MeshExternalService(Arc::new(service)))
        }
        MeshKind::MeshMultiZoneService => {
            let service = mesh_service::mesh_multi_zone_service(cx, meta, name_span, spec, status)?;
            Some(Object::MeshMultiZoneService(Arc::new(service)))
        }
        MeshKind::ExternalService => None,
    }
}
