//! Texts into typed resources: documents, envelopes, kinds, and what concerns several of them.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use super::{
    Diagnostic, Note, PolicySet, ReadOptions, Reading, Report, ResourceReport, Span, Texts,
    dataplane,
    envelope::{self, Body, Envelope, Resource},
    fields::{Context, nearest},
    kinds::Kind,
    mesh,
    mesh_kinds::{self, MeshKind},
    object, traffic_route,
    yaml::{self, Document, Node},
};

/// Reads every document of every text and validates it. Nothing of a resource that has an error
/// is in the set; load the set only if [`Report::valid`].
pub fn read(texts: impl Into<Texts>, options: &ReadOptions) -> Reading {
    let texts = texts.into();
    let mut reader = Reader::new(options);
    for (index, text) in (0..).zip(&texts) {
        for (document, content) in (0..).zip(yaml::documents(&text.text, index)) {
            reader.document(index, document, content);
        }
    }
    reader.finish(texts)
}

/// What a resource is known by: its kind, its mesh and its name. The internal name of Kuma's
/// namespaced kinds carries the namespace; kinds that are in no mesh have it in the mesh's place.
type Identity = (&'static str, String, String);

struct Reader<'o> {
    options: &'o ReadOptions,
    set: PolicySet,
    report: Report,
    /// Every resource with a name: where it is in the report, and where its name stands.
    named: BTreeMap<Identity, (usize, Span)>,
    /// Resources in a mesh: where they are in the report, which mesh, where that stands.
    in_mesh: Vec<(usize, String, Span)>,
}

impl<'o> Reader<'o> {
    fn new(options: &'o ReadOptions) -> Self {
        Self {
            options,
            set: PolicySet::default(),
            report: Report::default(),
            named: BTreeMap::new(),
            in_mesh: Vec::new(),
        }
    }

    fn document(&mut self, text: u32, document: u32, content: Document) {
        match &content.root {
            Some(root) => self.node(text, document, root, content.problems),
            None => self.report.resources.push(ResourceReport {
                text,
                document,
                violations: content.problems,
                ..ResourceReport::default()
            }),
        }
    }

    /// A document, or an item of a list. `problems` were found when its text was parsed.
    fn node(&mut self, text: u32, document: u32, root: &Node, problems: Vec<Diagnostic>) {
        let mut cx = Context::new(self.options);
        match envelope::envelope(&mut cx, root, document) {
            Envelope::List(items) => {
                let mut problems = problems;
                for (index, item) in items.iter().enumerate() {
                    // A list within a list would be walked without bound through aliases.
                    let prefix = format!("items[{index}].");
                    let (own, others) = problems
                        .into_iter()
                        .partition(|problem| problem.field.starts_with(&prefix));
                    problems = others;
                    self.item(text, document, item, without_prefix(own, &prefix));
                }
                if !problems.is_empty() {
                    self.push(text, document, Resource::default(), cx, problems);
                }
            }
            Envelope::Foreign { api_version, kind, span } => {
                if problems.is_empty() {
                    self.report.notes.push(Note {
                        message: format!(
                            "skipped {kind} of {api_version}: not a kind of this tool"
                        ),
                        span,
                    });
                } else {
                    let kind = Some(kind.to_owned());
                    let resource = Resource { kind, ..Resource::default() };
                    self.push(text, document, resource, cx, problems);
                }
            }
            Envelope::Resource(resource) => {
                let problems =
                    if resource.kubernetes { without_prefix(problems, "spec.") } else { problems };
                self.push(text, document, *resource, cx, problems);
            }
        }
    }

    fn item(&mut self, text: u32, document: u32, item: &Node, problems: Vec<Diagnostic>) {
        let is_list = item.entry("kind").is_some_and(|kind| {
            matches!(&kind.value.value, yaml::Value::Scalar(scalar) if scalar.text == "List")
        });
        if is_list {
            let nested =
                Diagnostic::error("kind", "a List within a List is not read").at(item.span);
            let violations = problems.into_iter().chain([nested]).collect();
            self.report.resources.push(ResourceReport {
                kind: Some("List".to_owned()),
                text,
                document,
                violations,
                ..ResourceReport::default()
            });
        } else {
            self.node(text, document, item, problems);
        }
    }

    /// Reads the specification of a resource and files what came of it.
    fn push(
        &mut self,
        text: u32,
        document: u32,
        resource: Resource<'_>,
        mut cx: Context<'_>,
        problems: Vec<Diagnostic>,
    ) {
        for problem in problems {
            cx.report(problem);
        }
        let index = self.report.resources.len();
        if let Some(body) = resource.body {
            self.body(index, body, &mut cx);
        }
        let mut violations = cx.into_findings();
        violations.sort_by_key(|finding| finding.span);
        self.report.resources.push(ResourceReport {
            kind: resource.kind,
            mesh: resource.mesh,
            namespace: resource.namespace,
            name: resource.name,
            text,
            document,
            violations,
        });
    }

    fn body(&mut self, index: usize, body: Body<'_>, cx: &mut Context<'_>) {
        let Body { kind, meta, name_span, mesh_span, spec } = body;
        let scope = match kind {
            Kind::Object(_) => meta.namespace.clone().unwrap_or_default(),
            _ => meta.mesh.clone(),
        };
        let identity = (meta.kind, scope, meta.name.clone());
        if let Some((_, first)) = self.named.get(&identity) {
            cx.report(
                Diagnostic::error(
                    if matches!(kind, Kind::Object(_)) { "metadata.name" } else { "name" },
                    format!("there are two of {} {}", meta.kind, shown(kind, &identity)),
                )
                .at(name_span)
                .related(*first, "the other is here")
                .hint("rename or remove one of them"),
            );
        } else {
            self.named.insert(identity, (index, name_span));
        }
        if !matches!(kind, Kind::Mesh | Kind::Object(_)) {
            self.in_mesh.push((index, meta.mesh.clone(), mesh_span));
        }
        let shadow = matches!(kind, Kind::TrafficRoute | Kind::Kuma(MeshKind::MeshTcpRoute))
            && envelope::is_shadow(&meta.labels);
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
            Kind::Mesh => {
                let mesh = mesh::mesh(cx, meta, spec);
                if cx.errors() == 0 {
                    self.set.meshes.push_back(Arc::new(mesh));
                }
            }
            Kind::Dataplane => {
                let dataplane = dataplane::dataplane(cx, meta, spec);
                self.set.dataplanes.extend(dataplane.filter(|_| cx.errors() == 0).map(Arc::new));
            }
            Kind::TrafficRoute => {
                let route = traffic_route::traffic_route(cx, meta, spec);
                let routes =
                    if shadow { &mut self.set.shadowed } else { &mut self.set.traffic_routes };
                routes.extend(route.filter(|_| cx.errors() == 0).map(Arc::new));
            }
            Kind::Kuma(kind) => mesh_kinds::read(cx, kind, meta, name_span, spec, &mut self.set),
            Kind::Object(object) => object::read(cx, object, meta, spec, &mut self.set),
            // Envelopes of other kinds have no body.
            Kind::Other(_) => {}
        }
    }

    fn finish(mut self, texts: Texts) -> Reading {
        let unknown = self.check_meshes();
        let mut set = self.set;
        mesh_kinds::settle(&mut set, &unknown);
        set.texts = texts;
        set.meshes.sort_by(|a, b| a.meta.name.cmp(&b.meta.name));
        object::sort(&mut set);
        Reading { set, report: self.report }
    }

    /// A resource that names an unknown mesh is refused. Where no Mesh is among the inputs at
    /// all, every mesh exists with its defaults: a policy can be checked on its own. Gives the
    /// meshes that are unknown.
    fn check_meshes(&mut self) -> BTreeSet<String> {
        let meshes: BTreeSet<&str> = self
            .named
            .keys()
            .filter(|(kind, ..)| *kind == "Mesh")
            .map(|(_, _, name)| name.as_str())
            .collect();
        if meshes.is_empty() {
            let mut said = BTreeSet::new();
            for (_, mesh, span) in &self.in_mesh {
                if said.insert(mesh) {
                    self.report.notes.push(Note {
                        message: format!(
                            "no Mesh is given: `{mesh}` is taken to exist, with its defaults"
                        ),
                        span: *span,
                    });
                }
            }
            return BTreeSet::new();
        }
        let known: Vec<&str> = meshes.iter().copied().collect();
        let mut unknown = BTreeSet::new();
        for (index, mesh, span) in &self.in_mesh {
            if meshes.contains(mesh.as_str()) {
                continue;
            }
            unknown.insert(mesh.clone());
            let message = format!("there is no mesh `{mesh}` among {}", known.join(", "));
            let finding = Diagnostic::error("mesh", message).at(*span);
            let finding = match nearest(mesh, &known) {
                Some(near) => finding.hint(format!("did you mean `{near}`?")),
                None => finding
                    .hint(format!("add `type: Mesh` with `name: {mesh}`, or change the mesh")),
            };
            let violations = &mut self.report.resources[*index].violations;
            violations.push(finding);
            violations.sort_by_key(|finding| finding.span);
        }
        unknown
    }
}

fn shown(kind: Kind, (_, scope, name): &Identity) -> String {
    match kind {
        Kind::Object(_) if !scope.is_empty() => format!("`{name}` in the namespace `{scope}`"),
        Kind::Mesh | Kind::Object(_) => format!("`{name}`"),
        _ => format!("`{name}` in the mesh `{scope}`"),
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

#[cfg(test)]
#[path = "read_tests.rs"]
mod tests;
