//! What every resource has around its specification (semantics 1): kind, mesh, name, labels,
//! time of creation, in the Universal and the Kubernetes form.

use super::{
    Api, Diagnostic, Meta, ReadOptions, Span, Tags,
    fields::{Context, Field, Fields, Form},
    kinds::{self, Kind, Lookup},
    metadata::{Who, created, labels, mesh, name},
    object,
    yaml::{Node, Value},
};

/// Fields of `metadata` that a cluster writes for its own use.
pub(super) const OF_THE_CLUSTER: &[&str] = &[
    "annotations",
    "uid",
    "resourceVersion",
    "generation",
    "generateName",
    "managedFields",
    "ownerReferences",
    "finalizers",
    "selfLink",
    "deletionTimestamp",
    "deletionGracePeriodSeconds",
];

/// A document, or an item of a list.
pub(super) enum Envelope<'n> {
    /// `kind: List`.
    List(&'n [Node]),
    /// Of an API group that is none of ours.
    Foreign {
        /// Its `apiVersion`.
        api_version: &'n str,
        /// Its `kind`.
        kind: &'n str,
        /// Where the kind stands.
        span: Span,
    },
    /// One of ours.
    Resource(Box<Resource<'n>>),
}

/// A resource as far as all kinds are alike.
#[derive(Default)]
pub(super) struct Resource<'n> {
    /// The kind as written.
    pub(super) kind: Option<String>,
    /// The mesh as written.
    pub(super) mesh: Option<String>,
    /// The Kubernetes namespace.
    pub(super) namespace: Option<String>,
    /// The name as written.
    pub(super) name: Option<String>,
    /// Its fields stand under `spec`, and their paths leave that out.
    pub(super) kubernetes: bool,
    /// What a kind's reader needs; `None` if there is an error that leaves nothing to read, or
    /// if the kind is not carried out.
    pub(super) body: Option<Body<'n>>,
}

/// What a kind's reader gets.
pub(super) struct Body<'n> {
    pub(super) kind: Kind,
    pub(super) meta: Meta,
    /// Where the name stands, for findings about two resources of one name.
    pub(super) name_span: Span,
    /// Where the mesh stands.
    pub(super) mesh_span: Span,
    /// The specification; for kinds with a schema, of Kubernetes and the Gateway API all of the
    /// document that the envelope has not taken.
    pub(super) spec: Fields<'n>,
}

/// Reads the envelope of a document.
pub(super) fn envelope<'n>(cx: &mut Context<'_>, root: &'n Node) -> Envelope<'n> {
    let Value::Mapping(entries) = &root.value else {
        cx.report(
            Diagnostic::error("", "a resource must be a mapping").at(root.span).hint(
                "begin it with `type:` (Universal) or `apiVersion:` and `kind:` (Kubernetes)",
            ),
        );
        return Envelope::Resource(Box::default());
    };
    let mut fields = Fields::new(root.span, entries, String::new());
    if let Some(api_version) = fields.take(cx, "apiVersion") {
        kubernetes(cx, fields, &api_version)
    } else if let Some(kind) = fields.take(cx, "type") {
        Envelope::Resource(Box::new(universal(cx, fields, &kind)))
    } else {
        cx.report(
            Diagnostic::error("type", "neither `type` nor `apiVersion` says what this is")
                .at(root.span)
                .hint("add `type: TrafficRoute` (Universal), or `apiVersion: kuma.io/v1alpha1` and `kind:` (Kubernetes)"),
        );
        Envelope::Resource(Box::default())
    }
}

fn universal<'n>(
    cx: &mut Context<'_>,
    mut fields: Fields<'n>,
    kind_field: &Field<'n>,
) -> Resource<'n> {
    let kind = kind_field.string(cx);
    let name_field = fields.take(cx, "name");
    let mesh_field = fields.take(cx, "mesh");
    let labels_field = fields.take(cx, "labels");
    let created_field = fields.take(cx, "creationTime");
    fields.without_effect(&["modificationTime"]);

    let mut resource = Resource {
        kind: kind.map(str::to_owned),
        mesh: peek(mesh_field.as_ref()),
        name: peek(name_field.as_ref()),
        ..Resource::default()
    };
    let Some(kind) =
        kind.and_then(|kind| carried_out(cx, kinds::universal(kind), kind, kind_field))
    else {
        return resource;
    };
    if kind.has_schema() {
        cx.form = Form::Schema;
        fields.form = cx.form;
    }
    let labels = labels(cx, labels_field.as_ref());
    let (name, name_span) = name(cx, &fields, name_field.as_ref());
    let (mesh, mesh_span) = mesh(cx, kind, &fields, mesh_field.as_ref(), &labels, false);
    let created = created(cx, created_field.as_ref());
    resource.mesh.clone_from(&mesh);
    if let (Some(name), Some(mesh)) =
        (name, mesh.or_else(|| (kind == Kind::Mesh).then(String::new)))
    {
        let who = Who { kind, mesh, namespace: None, name, labels, created };
        resource.body =
            Some(Body { kind, meta: who.meta(fields.span), name_span, mesh_span, spec: fields });
    }
    resource
}

fn kubernetes<'n>(
    cx: &mut Context<'_>,
    mut fields: Fields<'n>,
    api_version: &Field<'n>,
) -> Envelope<'n> {
    let version = api_version.string(cx);
    let kind_field = fields.take(cx, "kind");
    let (Some(version), Some(kind_field)) = (version, kind_field) else {
        if version.is_some() {
            cx.report(
                fields
                    .missing("kind", "must be given next to `apiVersion`")
                    .hint("e.g. `kind: TrafficRoute`"),
            );
        }
        return Envelope::Resource(Box::new(Resource { kubernetes: true, ..Resource::default() }));
    };
    let Some(written) = kind_field.string(cx) else {
        return Envelope::Resource(Box::new(Resource { kubernetes: true, ..Resource::default() }));
    };
    if written == "List" {
        return list(cx, fields);
    }
    let lookup = kinds::kubernetes(version, written);
    if lookup == Lookup::Foreign {
        let span = kind_field.node.span;
        return Envelope::Foreign { api_version: version, kind: written, span };
    }

    let object = match lookup {
        Lookup::Known(Kind::Object(object)) => Some(object),
        _ => None,
    };
    if let Some(object) = object {
        cx.form = object.form();
        fields.form = cx.form;
    }
    let metadata_field = fields.take(cx, "metadata");
    let mesh_field = if object.is_none() { fields.take(cx, "mesh") } else { None };
    let mut metadata = metadata_field
        .as_ref()
        .and_then(|field| field.fields(cx))
        .unwrap_or_else(|| Fields::new(fields.span, &[], String::new()));
    let name_field = metadata.take(cx, "name");
    let namespace_field = metadata.take(cx, "namespace");
    let labels_field = metadata.take(cx, "labels");
    let created_field = metadata.take(cx, "creationTimestamp");
    metadata.without_effect(OF_THE_CLUSTER);

    let mut resource = Resource {
        kind: Some(written.to_owned()),
        mesh: peek(mesh_field.as_ref()),
        namespace: peek(namespace_field.as_ref()),
        name: peek(name_field.as_ref()),
        kubernetes: object.is_none(),
        body: None,
    };
    if let Lookup::UnknownVersion { known } = lookup {
        cx.report(
            api_version
                .error(format!("the API version `{version}` of {written} is not known"))
                .hint(format!("write `apiVersion: {}`", known.join("` or `apiVersion: "))),
        );
        return Envelope::Resource(Box::new(resource));
    }
    let Some(kind) = carried_out(cx, lookup, written, &kind_field) else {
        return Envelope::Resource(Box::new(resource));
    };
    metadata.finish(cx);
    if let Kind::Object(object) = kind {
        let metadata = object::Metadata {
            name: name_field,
            namespace: namespace_field,
            labels: labels_field,
            created: created_field,
        };
        resource.body = object::body(cx, object, fields, &metadata);
        if let Some(body) = &resource.body {
            resource.namespace.clone_from(&body.meta.namespace);
        }
        return Envelope::Resource(Box::new(resource));
    }
    // Findings about metadata are named as in the Universal form (semantics, appendix A).
    let labels_field = labels_field.map(|field| Field { path: "labels".to_owned(), ..field });
    let name_field = name_field.map(|field| Field { path: "name".to_owned(), ..field });
    let labels = labels(cx, labels_field.as_ref());
    let (name, name_span) = name(cx, &fields, name_field.as_ref());
    let (mesh, mesh_span) = mesh(cx, kind, &fields, mesh_field.as_ref(), &labels, true);
    let namespace = namespace_field.as_ref().and_then(|field| field.string(cx)).map(str::to_owned);
    let created = created(cx, created_field.as_ref());
    resource.mesh.clone_from(&mesh);

    if kind.has_schema() {
        cx.form = Form::Schema;
        fields.form = cx.form;
        resource.kubernetes = false;
        if let (Some(name), Some(mesh)) = (name, mesh) {
            let who = Who { kind, mesh, namespace, name, labels, created };
            let meta = who.meta(fields.span);
            resource.body = Some(Body { kind, meta, name_span, mesh_span, spec: fields });
        }
        return Envelope::Resource(Box::new(resource));
    }
    let spec = fields.take(cx, "spec").map(|field| Field { path: String::new(), ..field });
    fields.without_effect(&["status"]);
    let at = fields.span;
    fields.finish(cx);
    let spec = match &spec {
        Some(field) => field.fields(cx),
        None => Some(Fields::new(at, &[], String::new())),
    };
    if let (Some(name), Some(mesh), Some(spec)) =
        (name, mesh.or_else(|| (kind == Kind::Mesh).then(String::new)), spec)
    {
        let who = Who { kind, mesh, namespace, name, labels, created };
        let meta = who.meta(at);
        resource.body = Some(Body { kind, meta, name_span, mesh_span, spec });
    }
    Envelope::Resource(Box::new(resource))
}

fn list<'n>(cx: &mut Context<'_>, mut fields: Fields<'n>) -> Envelope<'n> {
    let items = fields.take(cx, "items");
    match items.map(|items| (&items.node.value, items)) {
        Some((Value::Sequence(nodes), _)) => Envelope::List(nodes),
        Some((_, items)) => {
            cx.report(items.error("must be a list of resources"));
            Envelope::Resource(Box::new(Resource { kubernetes: true, ..Resource::default() }))
        }
        None => Envelope::List(&[]),
    }
}

/// Reports what a kind that is not read means. `Some`: it is read.
fn carried_out(
    cx: &mut Context<'_>,
    lookup: Lookup,
    written: &str,
    field: &Field<'_>,
) -> Option<Kind> {
    match lookup {
        Lookup::Known(kind) => {
            if matches!(kind, Kind::Other(_)) {
                let name = kind.name();
                let message = format!("{name} is not carried out yet: this document has no effect");
                cx.report(field.warning(message));
                return None;
            }
            if let Some(instead) =
                kind.instead_in_kuma_3().filter(|_| only(cx.options, &[Api::Kuma3]))
            {
                cx.report(
                    field.error(format!("{written} does not exist in Kuma 3")).hint(format!(
                        "check it with --api kuma-2.9 or older, or write a {instead}"
                    )),
                );
                return None;
            }
            Some(kind)
        }
        Lookup::Unknown { meant, elsewhere } => {
            let finding = field.error(format!("there is no kind `{written}`"));
            cx.report(match (elsewhere, meant) {
                (Some(write), _) => finding.hint(format!(
                    "it is one of another API group: write `{write}` and `kind: {written}`"
                )),
                (None, Some(meant)) => finding.hint(format!("did you mean `{meant}`?")),
                (None, None) => finding.hint("e.g. Mesh, Dataplane, TrafficRoute or MeshTCPRoute"),
            });
            None
        }
        Lookup::Foreign | Lookup::UnknownVersion { .. } => None,
    }
}

/// A string for the report, before it is checked.
fn peek(field: Option<&Field<'_>>) -> Option<String> {
    match &field?.node.value {
        Value::Scalar(scalar) => Some(scalar.text.clone()),
        Value::Sequence(_) | Value::Mapping(_) => None,
    }
}

/// Whether a policy is only to be shown, not applied (semantics 1).
pub(super) fn is_shadow(labels: &Tags) -> bool {
    labels.get("kuma.io/effect").is_some_and(|effect| effect == "shadow")
}

/// Whether exactly one version's rules are asked for, and it is one of these.
pub(super) fn only(options: &ReadOptions, apis: &[Api]) -> bool {
    options.api.is_some_and(|api| apis.contains(&api))
}
