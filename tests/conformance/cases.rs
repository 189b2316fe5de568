//! Files of cases, the exceptions, and counting.

use std::{
    collections::BTreeMap,
    fmt, fs,
    path::{Path, PathBuf},
};

use anyhow::{Context, bail};
use serde_json::Value;

/// How one case came out.
pub(crate) enum Verdict {
    /// As the case says.
    Passed,
    /// Otherwise.
    Failed {
        /// What the case says.
        expected: String,
        /// What came out.
        found: String,
    },
    /// Otherwise, in just the way that a decision says, which is named with its reason.
    Decided(&'static str),
    /// The case needs a kind that is not built yet.
    NotBuilt,
}

/// A file of cases, one JSON object a line.
pub(crate) struct CaseFile {
    /// `own/` for the project's own cases.
    pub(crate) label: &'static str,
    /// `validation.jsonl`, …
    pub(crate) name: String,
    path: PathBuf,
}

/// One case.
pub(crate) struct Case {
    /// Its name, version behind the `@`.
    pub(crate) id: String,
    /// The whole object.
    pub(crate) body: Value,
}

impl CaseFile {
    /// Reads all cases.
    ///
    /// # Errors
    ///
    /// The file cannot be read, or a line is no JSON object with an `id`.
    pub(crate) fn cases(&self) -> anyhow::Result<Vec<Case>> {
        let shown = self.path.display();
        let text = fs::read_to_string(&self.path).with_context(|| format!("reading {shown}"))?;
        text.lines()
            .enumerate()
            .filter(|(_, line)| !line.trim().is_empty())
            .map(|(number, line)| {
                let body: Value = serde_json::from_str(line)
                    .with_context(|| format!("{shown}:{}: no JSON", number + 1))?;
                let id = body["id"]
                    .as_str()
                    .with_context(|| format!("{shown}:{}: a case without id", number + 1))?
                    .to_owned();
                Ok(Case { id, body })
            })
            .collect()
    }
}

/// The files of a directory that hold cases, by name.
pub(crate) fn files(directory: &Path) -> anyhow::Result<Vec<CaseFile>> {
    let label = if directory == own_directory() { "own/" } else { "" };
    let mut found = Vec::new();
    for entry in
        fs::read_dir(directory).with_context(|| format!("listing {}", directory.display()))?
    {
        let path = entry?.path();
        if let Some(name) = path.file_name().and_then(|name| name.to_str())
            && name.ends_with(".jsonl")
        {
            found.push(CaseFile { label, name: name.to_owned(), path: path.clone() });
        }
    }
    found.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(found)
}

/// Where the project's own cases stand.
pub(crate) fn own_directory() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("conformance/own")
}

/// Where the corpus would be.
pub(crate) fn corpus_place() -> PathBuf {
    std::env::var_os("BALANCER_CORPUS").map_or_else(
        || Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/conformance"),
        PathBuf::from,
    )
}

/// Where the corpus is, if there is one.
pub(crate) fn corpus_directory() -> Option<PathBuf> {
    Some(corpus_place()).filter(|place| place.is_dir())
}

/// Cases that are answered differently on purpose: id → decision and reason.
pub(crate) struct Exceptions(BTreeMap<String, String>);

impl Exceptions {
    /// Reads lines `ID: DECISION, REASON`; `#` begins a comment line.
    ///
    /// # Errors
    ///
    /// A line without a reason, or an id that stands twice.
    pub(crate) fn parse(text: &str) -> anyhow::Result<Self> {
        let mut exceptions = BTreeMap::new();
        for line in text.lines().map(str::trim) {
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let Some((id, reason)) = line.split_once(": ").filter(|(_, r)| !r.trim().is_empty())
            else {
                bail!("exceptions.txt: `{line}` gives no decision; write ID: DECISION, REASON");
            };
            if exceptions.insert(id.to_owned(), reason.trim().to_owned()).is_some() {
                bail!("exceptions.txt: `{id}` stands twice");
            }
        }
        Ok(Self(exceptions))
    }

    /// Why this case is excepted.
    pub(crate) fn reason(&self, id: &str) -> Option<&str> {
        self.0.get(id).map(String::as_str)
    }
}

/// Counts of one file.
#[derive(Default)]
pub(crate) struct Tally {
    passed: usize,
    /// What makes the run fail.
    pub(crate) failed: usize,
    excepted: usize,
    not_built: usize,
}

impl Tally {
    /// Counts one verdict and prints a failing case.
    pub(crate) fn count(&mut self, id: &str, verdict: Verdict, exception: Option<&str>) {
        match (verdict, exception) {
            (Verdict::Passed, None) => self.passed += 1,
            (Verdict::Passed, Some(_)) => {
                println!("passes, remove it from exceptions.txt: {id}");
                self.passed += 1;
            }
            (Verdict::Failed { .. }, Some(reason)) => {
                println!("excepted: {id}: {reason}");
                self.excepted += 1;
            }
            (Verdict::Failed { expected, found }, None) => {
                println!("FAILED: {id}\n  expected: {expected}\n  found:    {found}");
                self.failed += 1;
            }
            (Verdict::Decided(reason), _) => {
                println!("excepted: {id}: {reason}");
                self.excepted += 1;
            }
            (Verdict::NotBuilt, _) => self.not_built += 1,
        }
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { passed, failed, excepted, not_built } = self;
        write!(
            f,
            "{passed} passed, {failed} failed, {excepted} excepted, {not_built} of kinds not built"
        )
    }
}
