//! Texts into typed resources: documents, envelopes, kinds, and what concerns several of them.

use super::{Diagnostic, PolicySet, ReadOptions, Reading, Report, ResourceReport, SourceText};

/// Reads every document of every text and validates it.
pub fn read(texts: Vec<SourceText>, options: &ReadOptions) -> Reading {
    let _ = options;
    let resources = (0..texts.len())
        .map(|text| ResourceReport {
            text: text as u32,
            violations: vec![Diagnostic::error("", "no kind of resource can be read yet")],
            ..ResourceReport::default()
        })
        .collect();
    Reading { set: PolicySet { texts, ..PolicySet::default() }, report: Report { resources } }
}
