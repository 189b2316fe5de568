//! `conf.http[]` (semantics 3.3, 3.8, 3.9): read and validated; `resolve` makes HTTP rules of it.

use super::{
    super::{
        Diagnostic, HttpEntry, HttpMatch, HttpModify,
        fields::{Context, Field, Fields},
        http::{HeaderAdd, HeaderChanges, HostRewrite, PathRewrite, StringMatcher},
        pattern,
        yaml::{Scalar, Value},
    },
    split,
};
use crate::http::Substitution;

/// What became of an entry.
pub(super) struct Read {
    /// It has no `match`, so nothing gets past it (decision D3).
    pub(super) always: bool,
    /// `None`: it has an error.
    pub(super) entry: Option<HttpEntry>,
}

/// Reads one entry.
pub(super) fn http_entry(cx: &mut Context<'_>, field: &Field<'_>) -> Read {
    let span = field.node.span;
    let mut read = Read { always: false, entry: None };
    let Some(mut fields) = field.fields(cx) else { return read };
    let errors_before = cx.errors();
    let match_field = fields.take(cx, "match");
    let modify_field = fields.take(cx, "modify");
    let split_field = fields.take(cx, "split");
    let destination_field = fields.take(cx, "destination");

    let matches = http_match(cx, &fields, match_field.as_ref());
    let by_prefix = matches!(
        matches,
        Some(HttpMatch { path: Some(StringMatcher::Prefix(ref prefix)), .. }) if !prefix.is_empty()
    );
    let modify = match &modify_field {
        Some(field) => modify(cx, field, by_prefix),
        None => HttpModify::default(),
    };
    let split = split::split_or_destination(
        cx,
        &fields,
        span,
        split_field.as_ref(),
        destination_field.as_ref(),
    );
    fields.finish(cx);
    read.always = match_field.is_none();
    if let (Some(split), Some(matches), true) = (split, matches, cx.errors() == errors_before) {
        let has_match = match_field.is_some();
        read.entry = Some(HttpEntry { span, has_match, matches, modify, split });
    }
    read
}

fn http_match(
    cx: &mut Context<'_>,
    entry: &Fields<'_>,
    field: Option<&Field<'_>>,
) -> Option<HttpMatch> {
    const NEEDED: &str = "must be present and contain at least one of the elements: \"method\", \"path\" or \"headers\"";
    let Some(field) = field else {
        if cx.options.lenient() {
            cx.report(
                entry
                    .missing_warning("match", "not given: this entry takes everything")
                    .hint("Kuma asks for a match, e.g. `match: {path: {prefix: /}}`"),
            );
        } else {
            cx.report(entry.missing("match", NEEDED));
        }
        return Some(HttpMatch::default());
    };
    let mut fields = field.fields(cx)?;
    let method_field = fields.take(cx, "method");
    let path_field = fields.take(cx, "path");
    let headers_field = fields.take(cx, "headers");
    if method_field.is_none() && path_field.is_none() && headers_field.is_none() {
        cx.report(field.error(NEEDED));
        fields.finish(cx);
        return None;
    }
    let mut matches = HttpMatch::default();
    if let Some(field) = method_field {
        matches.method = method(cx, &field);
    }
    if let Some(field) = path_field {
        matches.path = string_matcher(cx, &field);
    }
    if let Some(field) = headers_field {
        let entries = field.entries(cx).unwrap_or_default();
        if entries.is_empty() && matches!(field.node.value, Value::Mapping(_)) {
            cx.report(field.error("must contain at least one element"));
        }
        for entry in entries {
            let header = field.at_key(entry);
            if entry.key.is_empty() {
                cx.report(
                    Diagnostic::error(header.path.clone(), "cannot be empty").at(entry.key_span),
                );
            }
            if let Some(matcher) = string_matcher(cx, &header) {
                matches.headers.insert(entry.key.clone(), matcher);
            }
        }
    }
    fields.finish(cx);
    Some(matches)
}

/// A method: a matcher, or in the design proposal a bare string (decision D3).
fn method(cx: &mut Context<'_>, field: &Field<'_>) -> Option<StringMatcher> {
    if let Value::Scalar(Scalar { text, .. }) = &field.node.value
        && cx.options.lenient()
    {
        cx.report(
            field
                .warning("a bare string is read as an exact match")
                .hint(format!("write `method: {{exact: {text}}}`")),
        );
        return field.string(cx).map(|text| StringMatcher::Exact(text.to_owned()));
    }
    string_matcher(cx, field)
}

fn string_matcher(cx: &mut Context<'_>, field: &Field<'_>) -> Option<StringMatcher> {
    const OPTIONS: &str = "cannot be empty. Available options: \"exact\", \"split\" or \"regex\"";
    let hint = "\"split\" is Kuma's slip of the pen: it means `prefix`";
    if field.node.is_null() {
        cx.report(field.error(OPTIONS).hint(hint));
        return None;
    }
    let mut fields = field.fields(cx)?;
    let prefix = fields.take(cx, "prefix");
    let exact = fields.take(cx, "exact");
    let regex = fields.take(cx, "regex");
    fields.finish(cx);
    let given: Vec<&Field<'_>> = [&prefix, &exact, &regex].into_iter().flatten().collect();
    match given[..] {
        [] => {
            cx.report(field.error(OPTIONS).hint(hint));
            return None;
        }
        [_] => {}
        [first, second, ..] => {
            one_only(cx, field, first, second);
            return None;
        }
    }
    if let Some(field) = &exact {
        return field.string(cx).map(|text| StringMatcher::Exact(text.to_owned()));
    }
    if let Some(field) = &prefix {
        return not_empty(cx, field).map(StringMatcher::Prefix);
    }
    let field = regex?;
    not_empty(cx, &field)?;
    pattern::whole(cx, &field).map(StringMatcher::Regex)
}

/// Decision D22: two alternatives of which one is asked for.
fn one_only(cx: &mut Context<'_>, field: &Field<'_>, first: &Field<'_>, second: &Field<'_>) {
    let name = |field: &Field<'_>| field.path.rsplit('.').next().unwrap_or_default().to_owned();
    cx.report(
        Diagnostic::error(
            field.path.clone(),
            format!("only one of `{}` and `{}` can be set", name(first), name(second)),
        )
        .at(second.key_span)
        .related(first.key_span, "first here")
        .hint("keep one of them"),
    );
}

fn not_empty(cx: &mut Context<'_>, field: &Field<'_>) -> Option<String> {
    let text = field.string(cx)?;
    if text.is_empty() {
        cx.report(field.error("cannot be empty"));
        return None;
    }
    Some(text.to_owned())
}

fn modify(cx: &mut Context<'_>, field: &Field<'_>, by_prefix: bool) -> HttpModify {
    let mut modify = HttpModify::default();
    let Some(mut fields) = field.fields(cx) else { return modify };
    if let Some(field) = fields.take(cx, "path") {
        modify.path = path_rewrite(cx, &field, by_prefix);
    }
    if let Some(field) = fields.take(cx, "host") {
        modify.host = host_rewrite(cx, &field);
    }
    if let Some(field) = fields.take(cx, "requestHeaders") {
        modify.request_headers = headers(cx, &field);
    }
    if let Some(field) = fields.take(cx, "responseHeaders") {
        modify.response_headers = headers(cx, &field);
    }
    fields.finish(cx);
    modify
}

fn path_rewrite(cx: &mut Context<'_>, field: &Field<'_>, by_prefix: bool) -> Option<PathRewrite> {
    let mut fields = field.fields(cx)?;
    let prefix = fields.take(cx, "rewritePrefix");
    let regex = fields.take(cx, "regex");
    fields.finish(cx);
    match (&prefix, &regex) {
        (None, None) => {
            cx.report(field.error("either \"rewritePrefix\" or \"regex\" has to be set"));
            None
        }
        (Some(first), Some(second)) => {
            one_only(cx, field, first, second);
            None
        }
        (Some(prefix), None) => {
            let text = not_empty(cx, prefix)?;
            if !by_prefix {
                cx.report(
                    prefix.error("can only be set when .http.match.path.prefix is not empty"),
                );
                return None;
            }
            Some(PathRewrite::Prefix(text))
        }
        (None, Some(regex)) => substitution(cx, regex).map(PathRewrite::Regex),
    }
}

fn host_rewrite(cx: &mut Context<'_>, field: &Field<'_>) -> Option<HostRewrite> {
    let mut fields = field.fields(cx)?;
    let value = fields.take(cx, "value");
    let from_path = fields.take(cx, "fromPath");
    fields.finish(cx);
    match (&value, &from_path) {
        (None, None) => {
            cx.report(field.error("either \"value\" or \"fromPath\" has to be set"));
            None
        }
        (Some(first), Some(second)) => {
            one_only(cx, field, first, second);
            None
        }
        (Some(value), None) => not_empty(cx, value).map(HostRewrite::Value),
        (None, Some(from_path)) => substitution(cx, from_path).map(HostRewrite::FromPath),
    }
}

fn substitution(cx: &mut Context<'_>, field: &Field<'_>) -> Option<Substitution> {
    let mut fields = field.fields(cx)?;
    let pattern_field = fields.take(cx, "pattern");
    let substitution_field = fields.take(cx, "substitution");
    let pattern = required(cx, &fields, "pattern", pattern_field.as_ref());
    let substitution = required(cx, &fields, "substitution", substitution_field.as_ref());
    fields.finish(cx);
    let (_, _) = (pattern?, substitution?);
    pattern::substitution(cx, &pattern_field?, &substitution_field?)
}

fn required(
    cx: &mut Context<'_>,
    fields: &Fields<'_>,
    name: &str,
    field: Option<&Field<'_>>,
) -> Option<String> {
    match field {
        Some(field) => not_empty(cx, field),
        None => {
            cx.report(fields.missing(name, "cannot be empty"));
            None
        }
    }
}

fn headers(cx: &mut Context<'_>, field: &Field<'_>) -> HeaderChanges {
    let mut changes = HeaderChanges::default();
    let Some(mut fields) = field.fields(cx) else { return changes };
    if let Some(add) = fields.take(cx, "add") {
        for item in add.items(cx).unwrap_or_default() {
            let Some(mut fields) = item.fields(cx) else { continue };
            let name = header_name(cx, &mut fields);
            let value_field = fields.take(cx, "value");
            let value = required(cx, &fields, "value", value_field.as_ref());
            let append = fields.take(cx, "append").and_then(|field| field.boolean(cx));
            fields.finish(cx);
            if let (Some(name), Some(value)) = (name, value) {
                changes.add.push(HeaderAdd { name, value, append: append.unwrap_or(false) });
            }
        }
    }
    if let Some(remove) = fields.take(cx, "remove") {
        for item in remove.items(cx).unwrap_or_default() {
            let Some(mut fields) = item.fields(cx) else { continue };
            changes.remove.extend(header_name(cx, &mut fields));
            fields.finish(cx);
        }
    }
    fields.finish(cx);
    changes
}

fn header_name(cx: &mut Context<'_>, fields: &mut Fields<'_>) -> Option<String> {
    let field = fields.take(cx, "name");
    let name = required(cx, fields, "name", field.as_ref())?;
    // `HOST` is not refused: the reference compares these two spellings (semantics 6, row 20).
    if name.starts_with(':') || name == "host" || name == "Host" {
        if let Some(field) = field {
            cx.report(
                field.error("host header and HTTP/2 pseudo-headers are not allowed to be modified"),
            );
        }
        return None;
    }
    Some(name)
}
