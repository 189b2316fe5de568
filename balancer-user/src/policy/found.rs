//! What one document holds. Nothing here depends on any other document: what concerns several of
//! them, such as two resources of one name, is found where all are at hand.

use std::sync::Arc;

use super::{
    Diagnostic, Meta, Note, ReadOptions, ResourceReport, Span, dataplane,
    envelope::{self, Body, Envelope, Resource},
    fields::Context,
    kinds::Kind,
    mesh, mesh_kinds, object,
    objects::{Identity, Object, identity},
    traffic_route,
    yaml::{Document, Node},
};

/// A document, or an item of a list.
#[derive(Debug, PartialEq)]
pub(super) enum Found {
    /// It is not of ours.
    Skipped(Note),
    /// One of ours.
    Resource(Box<FoundResource>),
}

/// A resource and what was found in it.
#[derive(Debug, Default, PartialEq)]
pub(super) struct FoundResource {
    /// Who it is, as far as that could be read, and the findings.
    pub(super) report: ResourceReport,
    /// Of a resource that has a name.
    pub(super) named: Option<Named>,
    /// There is none where there is an error.
    pub(super) object: Option<Object>,
}

/// A resource as others may be in conflict with it.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Named {
    kind: Kind,
    scope: String,
    name: String,
    /// Where the name stands.
    span: Span,
    mesh_span: Span,
}

impl Named {
    fn new(kind: Kind, meta: &Meta, span: Span, mesh_span: Span) -> Self {
        let (_, scope, name) = identity(meta);
        Self { kind, scope: scope.to_owned(), name: name.to_owned(), span, mesh_span }
    }

    pub(super) fn identity(&self) -> Identity<'_> {
        (self.kind.name(), &self.scope, &self.name)
    }

    /// The mesh, and where it stands, of kinds that are in one.
    pub(super) fn mesh(&self) -> Option<(&str, Span)> {
        let is_in_one = !matches!(self.kind, Kind::Mesh | Kind::Object(_));
        is_in_one.then_some((&*self.scope, self.mesh_span))
    }

    /// What to say of the second one of a name.
    pub(super) fn second(&self, first: &Self) -> Diagnostic {
        let is_object = matches!(self.kind, Kind::Object(_));
        let (scope, name) = (&self.scope, &self.name);
        let shown = match self.kind {
            Kind::Object(_) if !scope.is_empty() => format!("`{name}` in the namespace `{scope}`"),
            Kind::Mesh | Kind::Object(_) => format!("`{name}`"),
            _ => format!("`{name}` in the mesh `{scope}`"),
        };
        Diagnostic::error(
            if is_object { "metadata.name" } else { "name" },
            format!("there are two of {} {shown}", self.kind.name()),
        )
        .at(self.span)
        .related(first.span, "the other is here")
        .hint("rename or remove one of them")
    }
}

/// Reads a document, whose spans have this number; one that is a list gives all its items.
pub(super) fn found(content: Document, document: u32, options: &ReadOptions) -> Vec<Found> {
    let mut reader = Reader { options, document, found: Vec::with_capacity(1) };
    match &content.root {
        Some(root) => reader.node(root, content.problems, true),
        None => reader.report(None, content.problems),
    }
    reader.found
}

struct Reader<'o> {
    options: &'o ReadOptions,
    document: u32,
    found: Vec<Found>,
}

impl Reader<'_> {
    /// A document, or an item of a list. `problems` were found when its text was parsed.
    fn node(&mut self, root: &Node, problems: Vec<Diagnostic>, is_document: bool) {
        let mut cx = Context::new(self.options);
        match envelope::envelope(&mut cx, root) {
            // A list within a list would be walked without bound through aliases.
            Envelope::List(_) if !is_document => {
                let nested =
                    Diagnostic::error("kind", "a List within a List is not read").at(root.span);
                let violations = problems.into_iter().chain([nested]).collect();
                self.report(Some("List"), violations);
            }
            Envelope::List(items) => {
                let mut problems = problems;
                for (index, item) in items.iter().enumerate() {
                    let prefix = format!("items[{index}].");
                    let (own, others) = problems
                        .into_iter()
                        .partition(|problem| problem.field.starts_with(&prefix));
                    problems = others;
                    self.node(item, without_prefix(own, &prefix), false);
                }
                if !problems.is_empty() {
                    self.push(Resource::default(), cx, problems);
                }
            }
            Envelope::Foreign { api_version, kind, span } => {
                if problems.is_empty() {
                    let message =
                        format!("skipped {kind} of {api_version}: not a kind of this tool");
                    self.found.push(Found::Skipped(Note { message, span }));
                } else {
                    let kind = Some(kind.to_owned());
                    let resource = Resource { kind, ..Resource::default() };
                    self.push(resource, cx, problems);
                }
            }
            Envelope::Resource(resource) => {
                let problems =
                    if resource.kubernetes { without_prefix(problems, "spec.") } else { problems };
                self.push(*resource, cx, problems);
            }
        }
    }

    /// Files something that has no more than a kind.
    fn report(&mut self, kind: Option<&str>, violations: Vec<Diagnostic>) {
        let (kind, document) = (kind.map(str::to_owned), self.document);
        let report = ResourceReport { kind, document, violations, ..ResourceReport::default() };
        self.found
            .push(Found::Resource(Box::new(FoundResource { report, ..FoundResource::default() })));
    }

    /// Reads the specification of a resource and files what came of it.
    fn push(&mut self, resource: Resource<'_>, mut cx: Context<'_>, problems: Vec<Diagnostic>) {
        for problem in problems {
            cx.report(problem);
        }
        let (mut named, mut object) = (None, None);
        if let Some(mut body) = resource.body {
            body.meta.item = u32::try_from(self.found.len()).unwrap_or(u32::MAX);
            named = Some(Named::new(body.kind, &body.meta, body.name_span, body.mesh_span));
            object = read(body, &mut cx).filter(|_| cx.errors() == 0);
        }
        let mut violations = cx.into_findings();
        violations.sort_by_key(|finding| finding.span);
        let report = ResourceReport {
            kind: resource.kind,
            mesh: resource.mesh,
            namespace: resource.namespace,
            name: resource.name,
            document: self.document,
            violations,
        };
        self.found.push(Found::Resource(Box::new(FoundResource { report, named, object })));
    }
}

/// Reads the specification. The object is not to be used where there are errors.
fn read(body: Body<'_>, cx: &mut Context<'_>) -> Option<Object> {
    let Body { kind, meta, name_span, mesh_span: _, spec } = body;
    let is_policy = match kind {
        Kind::TrafficRoute => true,
        Kind::Kuma(kind) => kind.is_policy(),
        Kind::Mesh | Kind::Dataplane | Kind::Object(_) | Kind::Other(_) => false,
    };
    let shadow = is_policy && envelope::is_shadow(&meta.labels);
    if shadow {
        cx.report(
            Diagnostic::warning(
                "labels[\"kuma.io/effect\"]",
                "kept and not applied: the policy is labelled `kuma.io/effect: shadow`",
            )
            .at(name_span),
        );
    }
    match kind {
        Kind::Mesh => Some(Object::Mesh(Arc::new(mesh::mesh(cx, meta, spec)))),
        Kind::Dataplane => Some(Object::Dataplane(Arc::new(dataplane::dataplane(cx, meta, spec)?))),
        Kind::TrafficRoute => {
            let route = Arc::new(traffic_route::traffic_route(cx, meta, spec)?);
            Some(if shadow {
                Object::ShadowedTrafficRoute(route)
            } else {
                Object::TrafficRoute(route)
            })
        }
        Kind::Kuma(kind) => mesh_kinds::read(cx, kind, meta, name_span, spec),
        Kind::Object(object) => object::read(cx, object, meta, spec),
        // Envelopes of other kinds have no body.
        Kind::Other(_) => None,
    }
}

fn without_prefix(mut problems: Vec<Diagnostic>, prefix: &str) -> Vec<Diagnostic> {
    for problem in &mut problems {
        if let Some(rest) = problem.field.strip_prefix(prefix) {
            problem.field = rest.to_owned();
        }
    }
    problems
}
