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

impl std::fmt::Display for Severity {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Error => "error",
            Self::Warning => "warning",
        })
    }
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
    /// A second place that belongs to it, and what stands there.
    pub related: Option<(Span, String)>,
}

impl Diagnostic {
    /// Begins a finding that makes the resource invalid.
    pub fn error(field: impl Into<String>, message: impl Into<String>) -> Self {
        Self::new(Severity::Error, field.into(), message.into())
    }

    /// Begins a finding that leaves the resource valid.
    pub fn warning(field: impl Into<String>, message: impl Into<String>) -> Self {
        Self::new(Severity::Warning, field.into(), message.into())
    }

    fn new(severity: Severity, field: String, message: String) -> Self {
        Self { severity, field, message, hint: None, span: None, related: None }
    }

    /// Says where.
    #[must_use]
    pub fn at(mut self, span: Span) -> Self {
        self.span = Some(span);
        self
    }

    /// Says what would be right.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// Points at a second place.
    #[must_use]
    pub fn related(mut self, span: Span, what: impl Into<String>) -> Self {
        self.related = Some((span, what.into()));
        self
    }

    /// Whether it makes the resource invalid.
    pub fn is_error(&self) -> bool {
        self.severity == Severity::Error
    }
}
