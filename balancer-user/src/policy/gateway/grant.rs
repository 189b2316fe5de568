//! `ReferenceGrant`: who may name what from another namespace.

use super::{GrantFrom, GrantTo, ReferenceGrant};
use crate::policy::{
    Meta,
    fields::{Context, Field, Fields},
    names, object,
};

pub(in crate::policy) const ENTRIES_MAX: usize = 16;

/// Reads a ReferenceGrant. `None`: it has an error.
pub(in crate::policy) fn reference_grant(
    cx: &mut Context<'_>,
    meta: Meta,
    root: Fields<'_>,
) -> Option<ReferenceGrant> {
    let mut spec = object::spec(cx, root)?;
    let from = entries(cx, &mut spec, "from", |cx, fields, group, kind| {
        let namespace =
            object::required(cx, fields, "namespace").and_then(|field| names::label(cx, &field));
        Some(GrantFrom { group: group?, kind: kind?, namespace: namespace? })
    });
    let to = entries(cx, &mut spec, "to", |cx, fields, group, kind| {
        // An empty name is every name.
        let name = match fields.take(cx, "name").filter(Field::is_set) {
            Some(field) => names::subdomain(cx, &field).map(Some),
            None => Some(None),
        };
        Some(GrantTo { group: group?, kind: kind?, name: name? })
    });
    spec.finish(cx);
    Some(ReferenceGrant { meta, from: from?, to: to? })
}

/// Reads a list whose entries have a `group` and a `kind`.
fn entries<'n, T>(
    cx: &mut Context<'_>,
    spec: &mut Fields<'n>,
    name: &'static str,
    rest: impl Fn(&mut Context<'_>, &mut Fields<'n>, Option<String>, Option<String>) -> Option<T>,
) -> Option<Vec<T>> {
    let field: Field<'n> = object::required(cx, spec, name)?;
    let items = object::items(cx, &field, ENTRIES_MAX)?;
    if items.is_empty() {
        cx.report(field.error("must have at least one entry"));
    }
    let read: Vec<Option<T>> = items
        .iter()
        .map(|item| {
            let mut fields = item.fields(cx)?;
            let group = object::required(cx, &mut fields, "group")
                .and_then(|field| names::group(cx, &field));
            let kind =
                object::required(cx, &mut fields, "kind").and_then(|field| names::kind(cx, &field));
            let entry = rest(cx, &mut fields, group, kind);
            fields.finish(cx);
            entry
        })
        .collect();
    read.into_iter().collect()
}

#[cfg(test)]
#[path = "grant_tests.rs"]
mod tests;
