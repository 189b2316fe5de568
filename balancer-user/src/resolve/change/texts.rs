//! Where findings stand, which small changes leave as they are.

use std::collections::BTreeSet;

use super::super::Resolved;
use crate::policy::Span;

/// Texts that something is found in, or that a finding points at.
pub(super) fn texts_of(resolved: &Resolved) -> BTreeSet<u32> {
    let mut texts = BTreeSet::new();
    for (meta, diagnostic) in &resolved.diagnostics {
        texts.insert(meta.span.text);
        texts.extend(diagnostic.span.map(|span| span.text));
        texts.extend(diagnostic.related.as_ref().map(|(span, _)| span.text));
    }
    texts
}

/// Texts that a finding points at for something else than the resource that it is about.
pub(super) fn pointed_of(resolved: &Resolved) -> BTreeSet<u32> {
    let mut texts = BTreeSet::new();
    for (meta, diagnostic) in &resolved.diagnostics {
        let own = |span: &Span| span.text == meta.span.text;
        texts.extend(diagnostic.span.filter(|span| !own(span)).map(|span| span.text));
        texts.extend(diagnostic.related.as_ref().map(|(span, _)| span.text));
    }
    texts
}
