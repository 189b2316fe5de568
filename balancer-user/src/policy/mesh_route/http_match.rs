//! `rules[].matches` of a MeshHTTPRoute (semantics 4.4).

use super::super::{
    Diagnostic,
    fields::{Context, Field, Fields},
    http_route::{
        HeaderMatch, Located, PathMatch, QueryMatch, RequestMatch,
        matches::{
            Family, Named, PATH_TYPES, TEXT_TYPES, first_of_each_name, first_of_each_parameter,
            header_name, header_test, method, repeated, text_match,
        },
    },
    object, pattern,
    yaml::Value,
};

/// `type` of a header.
pub(in super::super) const HEADER_TYPES: &[&str] =
    &["Exact", "Present", "RegularExpression", "Absent", "Prefix"];

/// Reads the list, which has at least one item.
pub(super) fn matches(
    cx: &mut Context<'_>,
    field: &Field<'_>,
) -> Option<Vec<Located<RequestMatch>>> {
    let items = field.items(cx)?;
    if items.is_empty() {
        cx.report(
            field
                .error("must be given with at least one element")
                .hint("for every request write `matches: [{path: {type: PathPrefix, value: /}}]`"),
        );
    }
    let read: Vec<_> = items.iter().map(|item| one(cx, item)).collect();
    let parts = read.iter().flatten().map(|one| (one.field.as_str(), one.span, &one.value));
    repeated(cx, parts, |first| format!("has no effect: it is the same as `{first}`"));
    read.into_iter().collect()
}

/// Whether all of them are written as matches of a prefix, right or wrong otherwise.
pub(super) fn all_prefixes(matches: &Field<'_>) -> bool {
    let Value::Sequence(items) = &matches.node.value else { return true };
    items.iter().all(|item| {
        let kind = item.entry("path").and_then(|path| path.value.entry("type"));
        kind.is_some_and(|kind| kind.value.is_text("PathPrefix"))
    })
}

fn one(cx: &mut Context<'_>, item: &Field<'_>) -> Option<Located<RequestMatch>> {
    let mut fields = item.fields(cx)?;
    let path = fields.optional(cx, "path", |cx, field| path(cx, field));
    let method = fields.optional(cx, "method", |cx, field| method(cx, field));
    let headers = match fields.take(cx, "headers") {
        Some(field) => headers(cx, &field),
        None => Some(Vec::new()),
    };
    let query = match fields.take(cx, "queryParams") {
        Some(field) => query(cx, &field),
        None => Some(Vec::new()),
    };
    fields.finish(cx);
    let value = RequestMatch { path: path?, method: method?, headers: headers?, query: query? };
    Some(Located { span: item.node.span, field: item.path.clone(), value })
}

fn path(cx: &mut Context<'_>, field: &Field<'_>) -> Option<PathMatch> {
    let mut fields = field.fields(cx)?;
    let kind =
        object::required(cx, &mut fields, "type").and_then(|field| field.one_of(cx, PATH_TYPES));
    let value = object::required(cx, &mut fields, "value");
    fields.finish(cx);
    let (kind, value) = (kind?, value?);
    let text = value.string(cx)?;
    if kind == "RegularExpression" {
        if text.is_empty() {
            cx.report(value.error("must be given with at least one character"));
            return None;
        }
        return pattern::whole(cx, &value).map(PathMatch::Regex);
    }
    let mut valid = true;
    if kind == "PathPrefix" && text.ends_with('/') && text != "/" {
        cx.report(
            value
                .error("does not need a trailing slash: whole elements of the path are compared")
                .hint(format!("write {}", text.trim_end_matches('/'))),
        );
        valid = false;
    }
    if !text.starts_with('/') {
        cx.report(value.error("must be an absolute path").hint(format!("write /{text}")));
        valid = false;
    } else if text.contains(['?', '#']) {
        cx.report(
            value
                .warning("matches no request: a path has no `?` and no `#`")
                .hint("for the query there is `queryParams`"),
        );
    }
    valid.then(|| match kind {
        "Exact" => PathMatch::Exact(text.to_owned()),
        _ => PathMatch::Prefix(text.to_owned()),
    })
}

fn headers(cx: &mut Context<'_>, field: &Field<'_>) -> Option<Vec<HeaderMatch>> {
    let items = field.items(cx)?;
    let read = items.into_iter().map(|item| {
        let header = header(cx, &item, HEADER_TYPES);
        (item, header)
    });
    let read: Vec<_> = read.collect();
    first_of_each_name(cx, read)
}

fn header(cx: &mut Context<'_>, item: &Field<'_>, types: &[&'static str]) -> Option<HeaderMatch> {
    let mut fields: Fields<'_> = item.fields(cx)?;
    let Named { kind, name, value } = Named::take(cx, &mut fields);
    let kind = match &kind {
        Some(field) => field.one_of(cx, types),
        None => Some("Exact"),
    };
    let name = name.and_then(|field| header_name(cx, &field, Family::Mesh));
    let value = kind.and_then(|kind| header_test(cx, &fields, kind, value.as_ref()));
    fields.finish(cx);
    Some(HeaderMatch { name: name?, value: value? })
}

fn query(cx: &mut Context<'_>, field: &Field<'_>) -> Option<Vec<QueryMatch>> {
    let items = field.items(cx)?;
    let read = items.into_iter().map(|item| {
        let parameter = parameter(cx, &item);
        (item, parameter)
    });
    let read: Vec<_> = read.collect();
    first_of_each_parameter(cx, read, |item, name, first| {
        let path = format!("{}.name", item.path);
        Diagnostic::error(path, format!("multiple entries for name {name}"))
            .at(item.node.span)
            .related(first, "first here")
            .hint("keep one of them")
    })
}

fn parameter(cx: &mut Context<'_>, item: &Field<'_>) -> Option<QueryMatch> {
    let mut fields = item.fields(cx)?;
    let Named { kind, name, value } = Named::take(cx, &mut fields);
    if kind.is_none() {
        cx.report(fields.missing("type", "must be given").hint("Exact or RegularExpression"));
    }
    if value.is_none() {
        cx.report(fields.missing("value", "must be given"));
    }
    let kind = kind.and_then(|field| field.one_of(cx, TEXT_TYPES));
    let name = name.and_then(|field| {
        let text = field.string(cx)?;
        if text.is_empty() {
            cx.report(field.error("must be given with at least one character"));
            return None;
        }
        Some(text.to_owned())
    });
    let value = kind.zip(value).and_then(|(kind, value)| text_match(cx, kind, &value));
    fields.finish(cx);
    Some(QueryMatch { name: name?, value: value? })
}
