//! Kinds of Kubernetes and the Gateway API: which there are, and what all of them have around
//! their specification. They are in no mesh, their paths are written as the cluster writes them
//! (`metadata.name`, `spec.ports[0].port`), and `status` is the cluster's.

use std::sync::Arc;

use super::{
    Diagnostic, Meta, Span, Tags,
    envelope::Body,
    fields::{Context, Field, Fields, Form},
    gateway,
    kinds::Kind,
    kubernetes, metadata, names,
    objects::Object,
};

/// A kind that is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ObjectKind {
    Service,
    EndpointSlice,
    Namespace,
    GatewayClass,
    Gateway,
    TcpRoute,
    HttpRoute,
    GrpcRoute,
    ReferenceGrant,
}

impl ObjectKind {
    pub(super) const ALL: [Self; 9] = [
        Self::Service,
        Self::EndpointSlice,
        Self::Namespace,
        Self::GatewayClass,
        Self::Gateway,
        Self::TcpRoute,
        Self::HttpRoute,
        Self::GrpcRoute,
        Self::ReferenceGrant,
    ];

    /// `kind:`.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Service => "Service",
            Self::EndpointSlice => "EndpointSlice",
            Self::Namespace => "Namespace",
            Self::GatewayClass => "GatewayClass",
            Self::Gateway => "Gateway",
            Self::TcpRoute => "TCPRoute",
            Self::HttpRoute => "HTTPRoute",
            Self::GrpcRoute => "GRPCRoute",
            Self::ReferenceGrant => "ReferenceGrant",
        }
    }

    /// `apiVersion:`, all of one group.
    pub(super) fn api_versions(self) -> &'static [&'static str] {
        match self {
            Self::Service | Self::Namespace => &["v1"],
            Self::EndpointSlice => &["discovery.k8s.io/v1"],
            Self::TcpRoute | Self::GrpcRoute => {
                &["gateway.networking.k8s.io/v1", "gateway.networking.k8s.io/v1alpha2"]
            }
            Self::GatewayClass | Self::Gateway | Self::HttpRoute | Self::ReferenceGrant => {
                &["gateway.networking.k8s.io/v1", "gateway.networking.k8s.io/v1beta1"]
            }
        }
    }

    /// Whether it is this kind of this group.
    pub(super) fn is(self, group: &str, kind: &str) -> bool {
        let own = self.api_versions()[0].rsplit_once('/').map_or("", |(group, _)| group);
        group == own && kind == self.name()
    }

    /// How its fields are read.
    pub(super) fn form(self) -> Form {
        match self {
            Self::Service | Self::EndpointSlice | Self::Namespace => Form::Core,
            Self::GatewayClass
            | Self::Gateway
            | Self::TcpRoute
            | Self::HttpRoute
            | Self::GrpcRoute
            | Self::ReferenceGrant => Form::Schema,
        }
    }

    pub(super) fn namespaced(self) -> bool {
        !matches!(self, Self::Namespace | Self::GatewayClass)
    }
}

/// What was taken from `metadata`.
pub(super) struct Metadata<'n> {
    pub(super) name: Option<Field<'n>>,
    pub(super) namespace: Option<Field<'n>>,
    pub(super) labels: Option<Field<'n>>,
    pub(super) created: Option<Field<'n>>,
}

/// Checks the metadata. `None`: it has an error, or no name.
pub(super) fn body<'n>(
    cx: &mut Context<'_>,
    kind: ObjectKind,
    mut fields: Fields<'n>,
    metadata: &Metadata<'n>,
) -> Option<Body<'n>> {
    let span = fields.span;
    let name = match &metadata.name {
        // A Service is a label of its DNS name, and so is a namespace.
        Some(field) if matches!(kind, ObjectKind::Service | ObjectKind::Namespace) => {
            names::label(cx, field)
        }
        Some(field) => names::subdomain(cx, field),
        None => {
            let finding = Diagnostic::error("metadata.name", "cannot be empty").at(span);
            cx.report(finding.hint("give it a name"));
            None
        }
    };
    let namespace = match &metadata.namespace {
        Some(field) if !kind.namespaced() => {
            cx.report(
                field.error(format!("a {} is in no namespace", kind.name())).hint("remove it"),
            );
            None
        }
        Some(field) => names::label(cx, field),
        // What kubectl does where nothing else is configured.
        None => kind.namespaced().then(|| "default".to_owned()),
    };
    let labels = metadata.labels.as_ref().map_or_else(Tags::new, |field| names::labels(cx, field));
    let created = metadata::created(cx, metadata.created.as_ref());
    fields.without_effect(&["status"]);
    let name = name?;
    let meta = Meta {
        kind: kind.name(),
        mesh: String::new(),
        namespace,
        display_name: name.clone(),
        name,
        labels,
        created,
        item: 0,
        span,
    };
    let name_span = metadata.name.as_ref().map_or(span, |field| field.node.span);
    Some(Body { kind: Kind::Object(kind), meta, name_span, mesh_span: span, spec: fields })
}

/// Reads an object. `None`: it has an error.
pub(super) fn read(
    cx: &mut Context<'_>,
    kind: ObjectKind,
    meta: Meta,
    root: Fields<'_>,
) -> Option<Object> {
    Some(match kind {
        ObjectKind::Service => {
            Object::Service(Arc::new(kubernetes::service::service(cx, meta, root)?))
        }
        ObjectKind::EndpointSlice => {
            Object::EndpointSlice(Arc::new(kubernetes::slice::endpoint_slice(cx, meta, root)?))
        }
        ObjectKind::Namespace => Object::Namespace(Arc::new(kubernetes::namespace(cx, meta, root))),
        ObjectKind::GatewayClass => Object::GatewayClass(Arc::new(gateway::class(cx, meta, root)?)),
        ObjectKind::Gateway => {
            Object::Gateway(Arc::new(gateway::listeners::gateway(cx, meta, root)?))
        }
        ObjectKind::TcpRoute => {
            Object::TcpRoute(Arc::new(gateway::route::tcp_route(cx, meta, root)?))
        }
        ObjectKind::HttpRoute => {
            Object::HttpRoute(Arc::new(gateway::http::http_route(cx, meta, root)?))
        }
        ObjectKind::GrpcRoute => {
            Object::GrpcRoute(Arc::new(gateway::grpc::grpc_route(cx, meta, root)?))
        }
        ObjectKind::ReferenceGrant => {
            Object::ReferenceGrant(Arc::new(gateway::grant::reference_grant(cx, meta, root)?))
        }
    })
}

/// Takes `spec`, which most kinds have to have.
pub(super) fn spec<'n>(cx: &mut Context<'_>, mut root: Fields<'n>) -> Option<Fields<'n>> {
    let spec = root.take(cx, "spec");
    if spec.is_none() {
        cx.report(root.missing("spec", "must be given"));
    }
    root.finish(cx);
    spec?.fields(cx)
}

/// Takes a field that has to be there.
pub(super) fn required<'n>(
    cx: &mut Context<'_>,
    fields: &mut Fields<'n>,
    name: &'static str,
) -> Option<Field<'n>> {
    let field = fields.take(cx, name);
    if field.is_none() {
        cx.report(fields.missing(name, "must be given"));
    }
    field
}

/// A finding about a field that makes two items of a list the same.
pub(super) fn twice(field: String, what: &str, (at, first): (Span, Span)) -> Diagnostic {
    Diagnostic::error(field, format!("there are two {what}"))
        .at(at)
        .related(first, "the other is here")
}

/// The items of a list that has a bound. `None`: it is none.
pub(super) fn items<'n>(
    cx: &mut Context<'_>,
    field: &Field<'n>,
    most: usize,
) -> Option<Vec<Field<'n>>> {
    let items = field.items(cx)?;
    if items.len() > most {
        cx.report(field.error(format!("must have at most {most} items, has {}", items.len())));
    }
    Some(items)
}

#[cfg(test)]
#[path = "object_tests.rs"]
mod tests;
