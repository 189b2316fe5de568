//! What is wrong with a policy, where, and what to do.

use super::Span;

/// How bad it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// The resource is invalid; nothing is loaded.
    Error,
    /// It is carried out, but not as its author may think.
    Warning,
}

/// One finding.
#[derive(Clone, Debug, PartialEq)]
pub struct Diagnostic {
    /// Error or warning.
    pub severity: Severity,
    /// Field path (semantics, appendix A): `conf.split[0].weight`, `sources[0].match["x"]`.
    /// Empty for a document that cannot be read.
    pub field: String,
    /// What is wrong, without a full stop.
    pub message: String,
    /// What would be right.
    pub hint: Option<String>,
    /// Where.
    pub span: Option<Span>,
}
