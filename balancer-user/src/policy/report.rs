//! The outcome of reading: what is valid, and everything that is not.

use super::{Diagnostic, Meta, PolicySet, Span};

/// Whose rules apply.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Api {
    /// Kuma 2.7.
    Kuma27,
    /// Kuma 2.9.
    Kuma29,
    /// Kuma 3: no TrafficRoute, inbounds without tags.
    Kuma3,
}

impl Api {
    /// The name on the command line.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Kuma27 => "kuma-2.7",
            Self::Kuma29 => "kuma-2.9",
            Self::Kuma3 => "kuma-3",
        }
    }
}

impl std::str::FromStr for Api {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        [Self::Kuma27, Self::Kuma29, Self::Kuma3]
            .into_iter()
            .find(|api| api.as_str() == text)
            .ok_or_else(|| format!("`{text}` is none of kuma-2.7, kuma-2.9, kuma-3"))
    }
}

/// How strictly to read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ReadOptions {
    /// Exactly that version's rules; implies `strict`. Without it, what any version accepts is
    /// accepted.
    pub api: Option<Api>,
    /// Without the leniencies of decisions D3, D5 and D7.
    pub strict: bool,
    /// Unknown fields are errors in every kind, not only in those that have a schema.
    pub deny_unknown: bool,
}

impl ReadOptions {
    /// Whether the leniencies of decisions D3, D5 and D7 apply.
    pub fn lenient(&self) -> bool {
        !self.strict && self.api.is_none()
    }
}

/// What reading came to.
#[derive(Clone, Debug, Default)]
pub struct Reading {
    /// The valid resources. Load it only if [`Report::valid`].
    pub set: PolicySet,
    /// Every resource that was met and every finding.
    pub report: Report,
}

/// Every resource that was met, in the order of the texts and documents.
#[derive(Clone, Debug, Default)]
pub struct Report {
    /// One for each document, or for each item of a `List`.
    pub resources: Vec<ResourceReport>,
    /// What is worth saying and finds fault with nothing: documents that are not ours, a mesh
    /// that no document defines.
    pub notes: Vec<Note>,
}

/// Something to say that finds fault with nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Note {
    /// What.
    pub message: String,
    /// Where.
    pub span: Span,
}

impl Report {
    /// Whether no resource has an error.
    pub fn valid(&self) -> bool {
        self.resources.iter().all(ResourceReport::valid)
    }

    /// Puts findings that concern several resources into the report, each at its resource.
    pub fn merge(&mut self, findings: &[(Meta, Diagnostic)]) {
        for (meta, finding) in findings {
            let place = self.resources.iter_mut().find(|resource| {
                resource.text == meta.span.text
                    && resource.document == meta.document
                    && resource.kind.as_deref() == Some(meta.kind)
                    // Several items of a `List` share a document, and objects of two namespaces
                    // a name.
                    && resource
                        .namespace
                        .as_ref()
                        .is_none_or(|namespace| Some(namespace) == meta.namespace.as_ref())
                    && resource.name.as_deref().is_some_and(|name| {
                        meta.name == name
                            || meta.name.strip_prefix(name).is_some_and(|rest| rest.starts_with('.'))
                    })
            });
            match place {
                Some(resource) => resource.violations.push(finding.clone()),
                None => self.resources.push(ResourceReport {
                    kind: Some(meta.kind.to_owned()),
                    mesh: Some(meta.mesh.clone()).filter(|mesh| !mesh.is_empty()),
                    namespace: meta.namespace.clone(),
                    name: Some(meta.name.clone()),
                    text: meta.span.text,
                    document: meta.document,
                    violations: vec![finding.clone()],
                }),
            }
        }
    }

    /// Every finding.
    pub fn violations(&self) -> impl Iterator<Item = &Diagnostic> {
        self.resources.iter().flat_map(|resource| &resource.violations)
    }
}

/// One resource and what was found in it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ResourceReport {
    /// Its kind, where that much could be read.
    pub kind: Option<String>,
    /// Its mesh.
    pub mesh: Option<String>,
    /// Its Kubernetes namespace.
    pub namespace: Option<String>,
    /// Its name as written.
    pub name: Option<String>,
    /// Index into [`PolicySet::texts`].
    pub text: u32,
    /// Index of the document in its text, from 0; empty documents do not count.
    pub document: u32,
    /// In the order of their positions.
    pub violations: Vec<Diagnostic>,
}

impl ResourceReport {
    /// Whether it has no error.
    pub fn valid(&self) -> bool {
        !self.violations.iter().any(Diagnostic::is_error)
    }
}
