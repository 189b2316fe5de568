//! The outcome of reading: what is valid, and everything that is not.

use std::{collections::BTreeMap, sync::Arc};

use imbl::OrdMap;

use super::{Diagnostic, Documents, Meta, PolicySet, Span, Texts, objects::metas};

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
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Reading {
    /// The valid resources. Load it only if [`Report::valid`].
    pub set: PolicySet,
    /// What was found in them and in those that are not valid.
    pub report: Report,
}

impl Reading {
    /// Every resource that was met, in the order of the texts and documents. Costs time for all of
    /// them; [`Report::resources`] has those with findings.
    pub fn resources(&self) -> Vec<ResourceReport> {
        // What nothing was found in is valid, and what is valid is in the set.
        let order = |at: Place| self.report.documents.order(at);
        let mut all: BTreeMap<_, ResourceReport> =
            metas(&self.set).map(|meta| (order(meta.place()), ResourceReport::of(meta))).collect();
        let found = self.report.found.iter();
        all.extend(found.map(|(at, found)| (order(*at), ResourceReport::clone(found))));
        all.into_values().collect()
    }
}

/// Which document, and which item of it. The order of these is none of the texts: documents keep
/// their numbers wherever they move to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    /// Number of the document in [`Documents`].
    pub document: u32,
    /// Index in the `items` of a `List`, from 0; 0 where the document is none.
    pub item: u32,
}

/// What was found in the resources that were met. Copies share what they have in common.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Report {
    documents: Documents,
    /// The resources with findings.
    found: OrdMap<Place, Arc<ResourceReport>>,
    /// How many of them have an error.
    invalid: usize,
    /// How many resources there are, those without findings among them.
    met: usize,
    /// Documents that are not ours.
    skipped: OrdMap<Place, Note>,
    /// Meshes that no document defines, each where it is first named.
    assumed: Arc<BTreeMap<Place, Note>>,
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
    /// A report of one thing that has no kind and no name, such as a configuration file: the first
    /// of `texts`.
    pub fn of(texts: Texts, findings: Vec<Diagnostic>) -> Self {
        let mut report = Self { documents: Documents::whole(texts), ..Self::default() };
        report.add(Place::default(), ResourceReport { violations: findings, ..Default::default() });
        report
    }

    /// Where the documents stand that findings point into.
    pub fn documents(&self) -> &Documents {
        &self.documents
    }

    /// How many resources were met.
    pub fn len(&self) -> usize {
        self.met
    }

    /// Whether no resource was met.
    pub fn is_empty(&self) -> bool {
        self.met == 0
    }

    /// Whether no resource has an error.
    pub fn valid(&self) -> bool {
        self.invalid == 0
    }

    /// The resources with findings, in the order of the texts and documents.
    pub fn resources(&self) -> impl Iterator<Item = &ResourceReport> {
        self.ordered(&self.found).map(|found| &**found)
    }

    /// Every finding.
    pub fn violations(&self) -> impl Iterator<Item = &Diagnostic> {
        self.resources().flat_map(|resource| &resource.violations)
    }

    /// What is worth saying and finds fault with nothing: documents that are not ours, a mesh
    /// that no document defines.
    pub fn notes(&self) -> impl Iterator<Item = &Note> {
        self.ordered(&self.skipped).chain(self.ordered(&*self.assumed))
    }

    /// In the order of the texts and documents.
    fn ordered<'r, T: 'r>(
        &self,
        all: impl IntoIterator<Item = (&'r Place, &'r T)>,
    ) -> impl Iterator<Item = &'r T> {
        let mut all: Vec<(&Place, &T)> = all.into_iter().collect();
        all.sort_by_cached_key(|(at, _)| self.documents.order(**at));
        all.into_iter().map(|(_, one)| one)
    }

    /// Puts findings that concern several resources into the report, each at its resource.
    pub fn merge(&mut self, findings: &[(Meta, Diagnostic)]) {
        for (meta, finding) in findings {
            let none = || Arc::new(ResourceReport::of(meta));
            let resource = self.found.entry(meta.place()).or_insert_with(none);
            self.invalid += usize::from(resource.valid() && finding.is_error());
            Arc::make_mut(resource).violations.push(finding.clone());
        }
    }

    /// Adds a resource.
    pub(super) fn add(&mut self, at: Place, resource: ResourceReport) {
        self.met += 1;
        if !resource.violations.is_empty() {
            self.invalid += usize::from(!resource.valid());
            self.found.insert(at, Arc::new(resource));
        }
    }

    /// Takes a resource away that was added.
    pub(super) fn forget(&mut self, at: Place) {
        self.met -= 1;
        if let Some(found) = self.found.remove(&at) {
            self.invalid -= usize::from(!found.valid());
        }
    }

    /// Counts resources in which nothing was found.
    pub(super) fn add_quiet(&mut self, number: usize) {
        self.met += number;
    }

    pub(super) fn skip(&mut self, at: Place, note: Note) {
        self.skipped.insert(at, note);
    }

    pub(super) fn unskip(&mut self, at: Place) {
        self.skipped.remove(&at);
    }

    /// Says where the documents stand now.
    pub(super) fn set_documents(&mut self, documents: &Documents) {
        self.documents = documents.clone();
    }

    /// Says which meshes are taken to exist, in place of what was said of that.
    pub(super) fn assume(&mut self, notes: BTreeMap<Place, Note>) {
        self.assumed = Arc::new(notes);
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
    /// Number of its document in [`Documents`].
    pub document: u32,
    /// In the order of their positions.
    pub violations: Vec<Diagnostic>,
}

impl ResourceReport {
    /// Of a resource in which nothing was found.
    pub(super) fn of(meta: &Meta) -> Self {
        Self {
            kind: Some(meta.kind.to_owned()),
            mesh: Some(meta.mesh.clone()).filter(|mesh| !mesh.is_empty() && meta.kind != "Mesh"),
            namespace: meta.namespace.clone(),
            name: Some(meta.written_name().to_owned()),
            document: meta.span.document,
            violations: Vec::new(),
        }
    }

    /// Whether it has no error.
    pub fn valid(&self) -> bool {
        !self.violations.iter().any(Diagnostic::is_error)
    }
}
