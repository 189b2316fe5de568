//! What the new policies have to say that the old ones had not.

use std::collections::BTreeSet;

use serde::Serialize;

use crate::policy::{Diagnostic, Reading, Report, ResourceReport, Severity};

/// A finding and whose it is.
#[derive(Serialize)]
pub(super) struct Finding {
    pub(super) severity: Severity,
    kind: Option<String>,
    mesh: Option<String>,
    name: Option<String>,
    pub(super) field: String,
    pub(super) message: String,
    file: Option<String>,
    line: Option<u32>,
    column: Option<u32>,
    /// `FILE:LINE:COLUMN`, for people.
    #[serde(skip)]
    pub(super) place: Option<String>,
}

/// What a finding is known by in two readings: not by its place, which an edit above it moves.
type Known<'a> =
    (Option<&'a str>, Option<&'a str>, Option<&'a str>, Option<&'a str>, &'a str, &'a str);

fn known<'a>(resource: &'a ResourceReport, finding: &'a Diagnostic) -> Known<'a> {
    (
        resource.kind.as_deref(),
        resource.mesh.as_deref(),
        resource.namespace.as_deref(),
        resource.name.as_deref(),
        &finding.field,
        &finding.message,
    )
}

fn all(report: &Report) -> impl Iterator<Item = (&ResourceReport, &Diagnostic)> {
    report
        .resources()
        .flat_map(|resource| resource.violations.iter().map(move |finding| (resource, finding)))
}

/// The findings of `new` that `old` does not have.
pub(super) fn new(new: &Reading, old: &Report) -> Vec<Finding> {
    let before: BTreeSet<Known<'_>> = all(old).map(|(at, finding)| known(at, finding)).collect();
    let fresh = all(&new.report).filter(|(at, finding)| !before.contains(&known(at, finding)));
    fresh
        .map(|(resource, finding)| {
            let documents = new.report.documents();
            let position = finding.span.and_then(|span| documents.position(span));
            Finding {
                severity: finding.severity,
                kind: resource.kind.clone(),
                mesh: resource.mesh.clone(),
                name: resource.name.clone(),
                field: finding.field.clone(),
                message: finding.message.clone(),
                file: documents.file(resource.document).map(str::to_owned),
                line: position.map(|at| at.line),
                column: position.map(|at| at.column),
                place: position.map(|at| at.to_string()),
            }
        })
        .collect()
}
