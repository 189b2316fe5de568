//! `TCPRoute`: where its connections go; and what all routes attach to and name as backends
//! (semantics 5.1, 5.4, 5.6).

use std::{collections::BTreeMap, num::NonZeroU16};

use super::{BackendRef, GROUP, ParentRef, TcpRoute};
use crate::policy::{
    Diagnostic, Meta,
    fields::{Context, Field, Fields},
    names, object,
};

pub(in crate::policy) const PARENTS_MAX: usize = 32;
pub(in crate::policy) const BACKENDS_MAX: usize = 16;
pub(in crate::policy) const WEIGHT_MAX: u32 = 1_000_000;

/// Reads a TCPRoute. `None`: it has an error.
pub(in crate::policy) fn tcp_route(
    cx: &mut Context<'_>,
    meta: Meta,
    root: Fields<'_>,
) -> Option<TcpRoute> {
    let namespace = meta.namespace.clone().unwrap_or_default();
    let mut spec = object::spec(cx, root)?;
    let parents = parent_refs(cx, &mut spec, &namespace);
    let backends =
        object::required(cx, &mut spec, "rules").and_then(|field| rules(cx, &field, &namespace));
    spec.finish(cx);
    Some(TcpRoute { meta, parents: parents?, backends: backends? })
}

/// `parentRefs`, and what else says what a route attaches to.
pub(super) fn parent_refs(
    cx: &mut Context<'_>,
    spec: &mut Fields<'_>,
    namespace: &str,
) -> Option<Vec<ParentRef>> {
    let parents = match spec.take(cx, "parentRefs") {
        Some(field) => parents(cx, &field, namespace),
        None => Some(Vec::new()),
    };
    if parents.as_ref().is_some_and(Vec::is_empty) {
        cx.report(
            spec.missing_warning("parentRefs", "names nothing: the route attaches to nothing")
                .hint("name a Gateway: `parentRefs: [{name: edge, sectionName: redis}]`"),
        );
    }
    spec.not_carried_out(cx, "useDefaultGateways", "the route attaches to the parents it names");
    parents
}

/// `rules`: exactly one, as nothing tells TCP connections of one listener apart.
fn rules(cx: &mut Context<'_>, field: &Field<'_>, namespace: &str) -> Option<Vec<BackendRef>> {
    let items = field.items(cx)?;
    if items.len() != 1 {
        let finding = field.error(format!("must have exactly one rule, has {}", items.len()));
        cx.report(
            finding
                .hint("connections can only be told apart by listener: attach one route to each"),
        );
    }
    let read: Vec<_> = items.iter().map(|item| rule(cx, item, namespace)).collect();
    read.into_iter().next().flatten()
}

fn rule(cx: &mut Context<'_>, item: &Field<'_>, namespace: &str) -> Option<Vec<BackendRef>> {
    let mut fields = item.fields(cx)?;
    if let Some(field) = fields.take(cx, "name") {
        names::subdomain(cx, &field);
    }
    let backends = object::required(cx, &mut fields, "backendRefs").and_then(|field| {
        let items = object::items(cx, &field, BACKENDS_MAX)?;
        if items.is_empty() {
            cx.report(field.error("must have at least one reference"));
        }
        let read: Vec<_> = items.iter().map(|item| backend(cx, item, namespace)).collect();
        let read: Vec<BackendRef> = read.into_iter().collect::<Option<_>>()?;
        if !read.is_empty() && read.iter().all(|backend| backend.weight == 0) {
            cx.report(field.warning("every weight is 0: all connections are refused"));
        }
        Some(read)
    });
    fields.finish(cx);
    backends
}

/// What parents and backends have in common.
struct Reference {
    group: String,
    kind: String,
    namespace: String,
    name: String,
    port: Option<NonZeroU16>,
}

/// Reads them. `None`: one of them has an error, and all are read.
fn reference(
    cx: &mut Context<'_>,
    fields: &mut Fields<'_>,
    (group, kind): (&str, &str),
    own_namespace: &str,
) -> Option<Reference> {
    let group = match fields.take(cx, "group") {
        Some(field) => names::group(cx, &field),
        None => Some(group.to_owned()),
    };
    let kind = match fields.take(cx, "kind") {
        Some(field) => names::kind(cx, &field),
        None => Some(kind.to_owned()),
    };
    let namespace = match fields.take(cx, "namespace") {
        Some(field) => names::label(cx, &field),
        None => Some(own_namespace.to_owned()),
    };
    let name = object::required(cx, fields, "name").and_then(|field| names::subdomain(cx, &field));
    let port = fields.optional(cx, "port", |cx, field| field.port(cx));
    Some(Reference { group: group?, kind: kind?, namespace: namespace?, name: name?, port: port? })
}

fn backend(cx: &mut Context<'_>, item: &Field<'_>, own_namespace: &str) -> Option<BackendRef> {
    let mut fields = item.fields(cx)?;
    let backend = weighted(cx, item, &mut fields, own_namespace);
    fields.finish(cx);
    backend
}

/// What backends of all routes have: a reference and a weight.
pub(super) fn weighted(
    cx: &mut Context<'_>,
    item: &Field<'_>,
    fields: &mut Fields<'_>,
    own_namespace: &str,
) -> Option<BackendRef> {
    let weight = match fields.take(cx, "weight") {
        Some(field) => {
            let weight = field.u32(cx);
            if weight.is_some_and(|weight| weight > WEIGHT_MAX) {
                cx.report(field.error(format!("must be in the range [0, {WEIGHT_MAX}]")));
            }
            weight.filter(|weight| *weight <= WEIGHT_MAX)
        }
        None => Some(1),
    };
    let backend = object_ref(cx, item, fields, own_namespace)?;
    Some(BackendRef { weight: weight?, ..backend })
}

/// A reference to where connections or requests go, of weight 1.
pub(super) fn object_ref(
    cx: &mut Context<'_>,
    item: &Field<'_>,
    fields: &mut Fields<'_>,
    own_namespace: &str,
) -> Option<BackendRef> {
    let read = reference(cx, fields, ("", "Service"), own_namespace);
    if let Some(Reference { group, kind, port: None, .. }) = &read
        && group.is_empty()
        && kind == "Service"
    {
        cx.report(
            fields
                .missing("port", "must be given for a Service")
                .hint("it is the port of the Service, not of its endpoints"),
        );
    }
    let Reference { group, kind, namespace, name, port } = read?;
    let span = item.node.span;
    Some(BackendRef { span, group, kind, namespace, name, port, weight: 1 })
}

fn parents(cx: &mut Context<'_>, field: &Field<'_>, namespace: &str) -> Option<Vec<ParentRef>> {
    let items = object::items(cx, field, PARENTS_MAX)?;
    let read: Vec<_> = items.iter().map(|item| parent(cx, item, namespace)).collect();
    distinct(cx, &items, &read);
    read.into_iter().collect()
}

fn parent(cx: &mut Context<'_>, item: &Field<'_>, namespace: &str) -> Option<ParentRef> {
    let mut fields = item.fields(cx)?;
    let read = reference(cx, &mut fields, (GROUP, "Gateway"), namespace);
    let section = fields.optional(cx, "sectionName", |cx, field| names::subdomain(cx, field));
    fields.finish(cx);
    let Reference { group, kind, namespace, name, port } = read?;
    let span = item.node.span;
    Some(ParentRef { span, group, kind, namespace, name, section: section?, port })
}

/// References to one parent must differ by listener or port, and name one each.
fn distinct(cx: &mut Context<'_>, items: &[Field<'_>], parents: &[Option<ParentRef>]) {
    let mut seen: BTreeMap<_, Vec<&ParentRef>> = BTreeMap::new();
    for (item, parent) in items.iter().zip(parents) {
        let Some(parent) = parent else { continue };
        let others =
            seen.entry((&parent.group, &parent.kind, &parent.namespace, &parent.name)).or_default();
        let part = |one: &ParentRef| (one.section.clone(), one.port);
        let clash = others.iter().find(|other| {
            part(other) == part(parent)
                || part(other) == (None, None)
                || part(parent) == (None, None)
        });
        if let Some(other) = clash {
            cx.report(
                Diagnostic::error(
                    item.path.clone(),
                    "references to one parent must name different listeners or ports",
                )
                .at(parent.span)
                .related(other.span, "the other is here")
                .hint("give each its own `sectionName` or `port`"),
            );
        }
        others.push(parent);
    }
}

#[cfg(test)]
#[path = "route_tests.rs"]
mod tests;
