//! Where findings stand, which small changes leave as they are.

use std::collections::BTreeSet;

use super::super::Resolved;
use crate::policy::Span;

/// Documents that something is found in, or that a finding points at.
pub(super) fn documents_of(resolved: &Resolved) -> BTreeSet<u32> {
    let mut documents = pointed_of(resolved);
    documents.extend(resolved.diagnostics.iter().map(|(meta, _)| meta.span.document));
    documents
}

/// Documents that a finding points at for something else than the resource that it is about.
pub(super) fn pointed_of(resolved: &Resolved) -> BTreeSet<u32> {
    let mut documents = BTreeSet::new();
    for (meta, diagnostic) in &resolved.diagnostics {
        let own = |span: &Span| span.document == meta.span.document;
        documents.extend(diagnostic.span.filter(|span| !own(span)).map(|span| span.document));
        documents.extend(diagnostic.related.as_ref().map(|(span, _)| span.document));
    }
    documents
}
