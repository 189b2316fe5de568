//! Parts of matches that are read alike wherever they stand.

use std::collections::{BTreeMap, btree_map::Entry};

use super::{HeaderMatch, HeaderValueMatch, Method, QueryMatch, TextMatch};
use crate::policy::{
    Diagnostic, Span,
    fields::{Context, Field, Fields},
    object, pattern,
    words::shortened,
    yaml::{Node, Scalar, Value},
};

/// Whose rules hold where the families differ.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::policy) enum Family {
    /// MeshHTTPRoute (semantics 4.4, 4.5).
    Mesh,
    /// HTTPRoute and GRPCRoute (semantics 5.2, 5.5).
    Gateway,
}

/// `type` of a path.
pub(in crate::policy) const PATH_TYPES: &[&str] = &["Exact", "PathPrefix", "RegularExpression"];
/// `type` of what is compared exactly or by a pattern.
pub(in crate::policy) const TEXT_TYPES: &[&str] = &["Exact", "RegularExpression"];
/// Longest name and value of a header.
pub(in crate::policy) const HEADER_NAME_MAX: usize = 256;
pub(in crate::policy) const HEADER_VALUE_MAX: usize = 4096;

/// What a token consists of, for messages.
pub(in crate::policy) const TOKEN_CHARACTERS: &str = "letters, digits and !#$%&'*+-.^_`|~";

/// Whether it is a token (RFC 9110, 5.6.2).
pub(in crate::policy) fn is_token(text: &str) -> bool {
    let token = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
    !text.is_empty() && text.bytes().all(token)
}

/// Reads a method.
pub(in crate::policy) fn method(cx: &mut Context<'_>, field: &Field<'_>) -> Option<Method> {
    field.one_of(cx, Method::NAMES).and_then(Method::named)
}

/// A header's name: a token of RFC 9110 (5.6.2), at most 256 characters. MeshHTTPRoutes write it
/// in lower case.
pub(in crate::policy) fn header_name(
    cx: &mut Context<'_>,
    field: &Field<'_>,
    family: Family,
) -> Option<String> {
    let text = field.string(cx)?;
    let shown = shortened(text);
    if text.len() > HEADER_NAME_MAX || !is_token(text) {
        let finding = field.error(format!(
            "`{shown}` is no name of a header: 1 to {HEADER_NAME_MAX} {TOKEN_CHARACTERS}"
        ));
        cx.report(if text.starts_with(':') {
            finding.hint("pseudo-headers cannot be named; there are `path`, `method` and hostnames")
        } else {
            finding
        });
        return None;
    }
    if family == Family::Mesh && text.bytes().any(|byte| byte.is_ascii_uppercase()) {
        cx.report(
            field.error(format!("`{shown}` must be in lower case")).hint(format!(
                "write {}; cases of letters do not count",
                text.to_ascii_lowercase()
            )),
        );
        return None;
    }
    Some(text.to_owned())
}

/// Reports what cannot be in a header: it would end it, or the message.
pub(in crate::policy) fn header_value(cx: &mut Context<'_>, field: &Field<'_>) -> Option<String> {
    let text = field.string(cx)?;
    if text.len() > HEADER_VALUE_MAX {
        cx.report(
            field.error(format!("must have at most {HEADER_VALUE_MAX} bytes, has {}", text.len())),
        );
        return None;
    }
    if let Some(control) = text.chars().find(|c| c.is_control() && *c != '\t') {
        cx.report(
            field
                .error(format!("must not have the control character U+{:04X}", u32::from(control))),
        );
        return None;
    }
    Some(text.to_owned())
}

/// Takes what both a header and a query parameter have: `type`, `name`, `value`.
pub(in crate::policy) struct Named<'n> {
    pub(in crate::policy) kind: Option<Field<'n>>,
    pub(in crate::policy) name: Option<Field<'n>>,
    pub(in crate::policy) value: Option<Field<'n>>,
}

impl<'n> Named<'n> {
    /// Takes them, the name of which has to be there.
    pub(in crate::policy) fn take(cx: &mut Context<'_>, fields: &mut Fields<'n>) -> Self {
        let kind = fields.take(cx, "type");
        let name = object::required(cx, fields, "name");
        let value = fields.take(cx, "value");
        Self { kind, name, value }
    }
}

/// Reads a value to be compared as `kind` says. An absent one is an empty text.
pub(in crate::policy) fn header_test(
    cx: &mut Context<'_>,
    fields: &Fields<'_>,
    kind: &str,
    value: Option<&Field<'_>>,
) -> Option<HeaderValueMatch> {
    let value_is_set = value.is_some_and(Field::is_set);
    if let ("Present" | "Absent", Some(field), true) = (kind, value, value_is_set) {
        cx.report(field.error("must not be defined").hint(format!("{kind} looks at no value")));
        return None;
    }
    let Some(field) = value.filter(|_| value_is_set) else {
        return match kind {
            "Present" => Some(HeaderValueMatch::Present),
            "Absent" => Some(HeaderValueMatch::Absent),
            // Every value begins with nothing.
            "Prefix" => Some(HeaderValueMatch::Present),
            "RegularExpression" => {
                cx.report(missing_value(fields, value, "must be given with RegularExpression"));
                None
            }
            _ => {
                let mut finding =
                    missing_value(fields, value, "not given: only an empty value matches");
                finding.severity = crate::policy::Severity::Warning;
                cx.report(finding.hint("for a header with any value write `type: Present`"));
                Some(HeaderValueMatch::Exact(String::new()))
            }
        };
    };
    match kind {
        "RegularExpression" => pattern::whole(cx, field).map(HeaderValueMatch::Regex),
        "Prefix" => header_value(cx, field).map(HeaderValueMatch::Prefix),
        _ => header_value(cx, field).map(HeaderValueMatch::Exact),
    }
}

fn missing_value(fields: &Fields<'_>, value: Option<&Field<'_>>, message: &str) -> Diagnostic {
    match value {
        Some(field) => field.error(message),
        None => fields.missing("value", message),
    }
}

/// Reads a text that is compared exactly or by a regular expression.
pub(in crate::policy) fn text_match(
    cx: &mut Context<'_>,
    kind: &str,
    value: &Field<'_>,
) -> Option<TextMatch> {
    if kind == "RegularExpression" {
        return pattern::whole(cx, value).map(TextMatch::Regex);
    }
    value.string(cx).map(|text| TextMatch::Exact(text.to_owned()))
}

/// Drops what is named twice: the first counts, cases of letters do not.
pub(in crate::policy) fn first_of_each_name(
    cx: &mut Context<'_>,
    read: Vec<(Field<'_>, Option<HeaderMatch>)>,
) -> Option<Vec<HeaderMatch>> {
    let mut seen: BTreeMap<String, Span> = BTreeMap::new();
    let mut headers = Some(Vec::new());
    for (item, header) in read {
        let Some(mut header) = header else {
            headers = None;
            continue;
        };
        header.name = header.name.to_ascii_lowercase();
        if let Some(first) = seen.get(&header.name) {
            cx.report(ignored(&item, &header.name, *first));
            continue;
        }
        seen.insert(header.name.clone(), item.node.span);
        if let Some(headers) = &mut headers {
            headers.push(header);
        }
    }
    headers
}

/// The same of query parameters, whose names are compared as written.
pub(in crate::policy) fn first_of_each_parameter(
    cx: &mut Context<'_>,
    read: Vec<(Field<'_>, Option<QueryMatch>)>,
    twice: impl Fn(&Field<'_>, &str, Span) -> Diagnostic,
) -> Option<Vec<QueryMatch>> {
    let mut seen: BTreeMap<String, Span> = BTreeMap::new();
    let mut parameters = Some(Vec::new());
    for (item, parameter) in read {
        let Some(parameter) = parameter else {
            parameters = None;
            continue;
        };
        if let Some(first) = seen.get(&parameter.name) {
            cx.report(twice(&item, &parameter.name, *first));
            continue;
        }
        seen.insert(parameter.name.clone(), item.node.span);
        if let Some(parameters) = &mut parameters {
            parameters.push(parameter);
        }
    }
    parameters
}

/// A second match of one name, of which only the first counts.
pub(in crate::policy) fn ignored(item: &Field<'_>, name: &str, first: Span) -> Diagnostic {
    item.warning(format!("`{name}` is matched before: this one has no effect"))
        .related(first, "this one counts")
        .hint("remove one of them")
}

/// Warns about parts that stand before in the same form: they never take anything. `parts` are
/// compared by what they print as, so that many take no longer than their number.
pub(in crate::policy) fn repeated<'f, T: std::fmt::Debug>(
    cx: &mut Context<'_>,
    parts: impl Iterator<Item = (&'f str, Span, T)>,
    message: impl Fn(&str) -> String,
) {
    let mut seen: BTreeMap<String, (&str, Span)> = BTreeMap::new();
    for (path, span, part) in parts {
        match seen.entry(format!("{part:?}")) {
            Entry::Vacant(entry) => {
                entry.insert((path, span));
            }
            Entry::Occupied(entry) => {
                let (first, first_span) = *entry.get();
                cx.report(
                    Diagnostic::warning(path, message(first))
                        .at(span)
                        .related(first_span, "the same stands here")
                        .hint("remove one of them"),
                );
            }
        }
    }
}

/// A number that may be written as a decimal string, as `10` or `'0.5'`: what Kubernetes calls
/// IntOrString.
pub(in crate::policy) fn decimal(cx: &mut Context<'_>, field: &Field<'_>) -> Option<f64> {
    let Node { value, .. } = field.node;
    let Value::Scalar(Scalar { text, .. }) = value else {
        cx.report(field.error("must be a number, or a decimal number as a string"));
        return None;
    };
    let digits = text.strip_prefix(['-', '+']).unwrap_or(text);
    let is_decimal = digits.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.');
    match text.parse::<f64>() {
        Ok(number) if is_decimal && number.is_finite() => Some(number),
        _ => {
            cx.report(field.error(format!("`{}` is no decimal number", shortened(text))));
            None
        }
    }
}
