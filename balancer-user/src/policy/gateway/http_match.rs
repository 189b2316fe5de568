//! `rules[].matches` of an HTTPRoute (semantics 5.2).

use super::rule;
use crate::policy::{
    fields::{Context, Field, Fields},
    http_route::{
        HeaderMatch, HeaderValueMatch, Located, PathMatch, QueryMatch, RequestMatch,
        matches::{
            Family, Named, PATH_TYPES, TEXT_TYPES, first_of_each_name, first_of_each_parameter,
            header_name, header_value, ignored, method, text_match,
        },
    },
    object, pattern,
};

pub(in crate::policy) const HEADERS_MAX: usize = 16;
pub(in crate::policy) const PARAMETERS_MAX: usize = 16;
pub(in crate::policy) const PATH_BYTES_MAX: usize = 1024;
pub(in crate::policy) const PARAMETER_BYTES_MAX: usize = 1024;

/// A match of every request.
pub(super) fn every_path() -> RequestMatch {
    RequestMatch { path: Some(PathMatch::Prefix("/".to_owned())), ..RequestMatch::default() }
}

/// Reads the list; absent, the rule takes every request.
pub(super) fn matches(
    cx: &mut Context<'_>,
    rule: &Field<'_>,
    field: Option<&Field<'_>>,
) -> Option<Vec<Located<RequestMatch>>> {
    let items = rule::match_items(cx, field)?;
    if items.is_empty() {
        let path = format!("{}.matches", rule.path);
        return Some(vec![Located { span: rule.node.span, field: path, value: every_path() }]);
    }
    let read: Vec<_> = items.iter().map(|item| one(cx, item)).collect();
    read.into_iter().collect()
}

fn one(cx: &mut Context<'_>, item: &Field<'_>) -> Option<Located<RequestMatch>> {
    let mut fields = item.fields(cx)?;
    let path = match fields.take(cx, "path") {
        Some(field) => path(cx, &field),
        None => every_path().path,
    };
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
    let value =
        RequestMatch { path: Some(path?), method: method?, headers: headers?, query: query? };
    Some(Located { span: item.node.span, field: item.path.clone(), value })
}

fn path(cx: &mut Context<'_>, field: &Field<'_>) -> Option<PathMatch> {
    let mut fields = field.fields(cx)?;
    let kind = match fields.take(cx, "type") {
        Some(field) => field.one_of(cx, PATH_TYPES),
        None => Some("PathPrefix"),
    };
    let value = fields.take(cx, "value");
    fields.finish(cx);
    let kind = kind?;
    let Some(value) = value else {
        let root = "/".to_owned();
        return match kind {
            "Exact" => Some(PathMatch::Exact(root)),
            "PathPrefix" => Some(PathMatch::Prefix(root)),
            _ => {
                cx.report(fields_missing_value(field));
                None
            }
        };
    };
    let text = value.string(cx)?;
    if text.len() > PATH_BYTES_MAX {
        let found = text.len();
        cx.report(value.error(format!("must have at most {PATH_BYTES_MAX} bytes, has {found}")));
        return None;
    }
    if kind == "RegularExpression" {
        return pattern::whole(cx, &value).map(PathMatch::Regex);
    }
    if let Some(wrong) = wrong_path(text) {
        cx.report(value.error(format!("{wrong}, for the types Exact and PathPrefix")));
        return None;
    }
    Some(if kind == "Exact" {
        PathMatch::Exact(text.to_owned())
    } else {
        // A slash at the end of a prefix does not count.
        let elements = text.trim_end_matches('/');
        PathMatch::Prefix(if elements.is_empty() { "/" } else { elements }.to_owned())
    })
}

fn fields_missing_value(field: &Field<'_>) -> crate::policy::Diagnostic {
    crate::policy::Diagnostic::error(
        format!("{}.value", field.path),
        "must be given with RegularExpression",
    )
    .at(field.node.span)
}

/// What is wrong with a path to compare with (the rules of the API, and RFC 3986, 3.3).
fn wrong_path(text: &str) -> Option<&'static str> {
    if !text.starts_with('/') {
        return Some("must be an absolute path, which begins with `/`");
    }
    for (part, wrong) in [
        ("//", "must not have `//`"),
        ("/./", "must not have `/./`"),
        ("/../", "must not have `/../`"),
        ("%2f", "must not have `%2f`, which is a slash or is not"),
        ("%2F", "must not have `%2F`, which is a slash or is not"),
        ("#", "must not have `#`"),
        ("?", "must not have `?`: the query is matched by `queryParams`"),
    ] {
        if text.contains(part) {
            return Some(wrong);
        }
    }
    if text.ends_with("/..") {
        return Some("must not end with `/..`");
    }
    if text.ends_with("/.") {
        return Some("must not end with `/.`");
    }
    let mut bytes = text.bytes();
    while let Some(byte) = bytes.next() {
        let escaped = byte == b'%'
            && bytes.next().is_some_and(|byte| byte.is_ascii_hexdigit())
            && bytes.next().is_some_and(|byte| byte.is_ascii_hexdigit());
        let plain = byte.is_ascii_alphanumeric() || b"-/._~!$&'()*+,;=:@".contains(&byte);
        if !escaped && !plain {
            return Some(
                "must have only letters, digits, -/._~!$&'()*+,;=:@ and `%` with two hexadecimal digits",
            );
        }
    }
    None
}

/// `headers` of a match, of a GRPCRoute too.
pub(super) fn headers(cx: &mut Context<'_>, field: &Field<'_>) -> Option<Vec<HeaderMatch>> {
    let items = object::items(cx, field, HEADERS_MAX)?;
    let read = items.into_iter().map(|item| {
        let header = header(cx, &item);
        (item, header)
    });
    let read: Vec<_> = read.collect();
    first_of_each_name(cx, read)
}

fn header(cx: &mut Context<'_>, item: &Field<'_>) -> Option<HeaderMatch> {
    let mut fields = item.fields(cx)?;
    let (kind, name, value) = named(cx, &mut fields);
    let value = match (kind?, value?) {
        ("RegularExpression", value) => pattern::whole(cx, &value).map(HeaderValueMatch::Regex),
        (_, value) => header_value(cx, &value).map(HeaderValueMatch::Exact),
    };
    fields.finish(cx);
    Some(HeaderMatch { name: name?, value: value? })
}

/// `type`, `name` and `value`, which has at least one character.
fn named<'n>(
    cx: &mut Context<'_>,
    fields: &mut Fields<'n>,
) -> (Option<&'static str>, Option<String>, Option<Field<'n>>) {
    let Named { kind, name, value } = Named::take(cx, fields);
    let kind = match &kind {
        Some(field) => field.one_of(cx, TEXT_TYPES),
        None => Some("Exact"),
    };
    let name = name.and_then(|field| header_name(cx, &field, Family::Gateway));
    let empty = value.as_ref().is_none_or(|field| field.node.is_text(""));
    if empty {
        let message = "must be given with at least one character";
        cx.report(match &value {
            Some(field) => field.error(message),
            None => fields.missing("value", message),
        });
    }
    (kind, name, value.filter(|_| !empty))
}

fn query(cx: &mut Context<'_>, field: &Field<'_>) -> Option<Vec<QueryMatch>> {
    let items = object::items(cx, field, PARAMETERS_MAX)?;
    let read = items.into_iter().map(|item| {
        let parameter = parameter(cx, &item);
        (item, parameter)
    });
    let read: Vec<_> = read.collect();
    first_of_each_parameter(cx, read, ignored)
}

fn parameter(cx: &mut Context<'_>, item: &Field<'_>) -> Option<QueryMatch> {
    let mut fields = item.fields(cx)?;
    let (kind, name, value) = named(cx, &mut fields);
    fields.finish(cx);
    let (kind, value) = (kind?, value?);
    let text = value.string(cx)?;
    if text.len() > PARAMETER_BYTES_MAX {
        let found = text.len();
        cx.report(
            value.error(format!("must have at most {PARAMETER_BYTES_MAX} bytes, has {found}")),
        );
        return None;
    }
    let value = text_match(cx, kind, &value);
    Some(QueryMatch { name: name?, value: value? })
}
