//! Findings as text for people, in rustc's manner.

use super::{Diagnostic, SourceText};

/// One finding, without colour and without a newline at the end.
pub fn diagnostic(texts: &[SourceText], finding: &Diagnostic, colour: bool) -> String {
    let _ = (texts, colour);
    format!("{}: {}", finding.severity, finding.message)
}
