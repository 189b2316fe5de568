//! What names, labels and hosts of Kubernetes must look like.

use super::{
    Tags,
    fields::{Context, Field},
    metadata::{NAME_CHARACTERS_MAX, is_subdomain},
    tags,
};

/// A lowercase label of RFC 1123 (2.1): letters, digits and `-`, at most 63.
fn is_label(text: &str) -> bool {
    text.len() <= 63 && !text.contains('.') && is_subdomain(text)
}

/// A name of an object, a section or a host: a lowercase RFC 1123 subdomain.
pub(super) fn subdomain(cx: &mut Context<'_>, field: &Field<'_>) -> Option<String> {
    checked(
        cx,
        field,
        |text| text.len() <= NAME_CHARACTERS_MAX && is_subdomain(text),
        "must be a lowercase RFC 1123 subdomain: at most 253 lower case letters, digits, '-' and '.', a letter or digit at the ends of each part",
    )
}

/// A name without dots: of a namespace, a Service, a port.
pub(super) fn label(cx: &mut Context<'_>, field: &Field<'_>) -> Option<String> {
    checked(
        cx,
        field,
        is_label,
        "must be a lowercase RFC 1123 label: at most 63 lower case letters, digits and '-', a letter or digit at both ends",
    )
}

/// The name of a kind, e.g. `TCPRoute`.
pub(super) fn kind(cx: &mut Context<'_>, field: &Field<'_>) -> Option<String> {
    let is_kind = |text: &str| {
        let letter = |byte: u8| byte.is_ascii_alphabetic();
        let inner = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-';
        (1..=63).contains(&text.len())
            && text.bytes().all(inner)
            && text.bytes().next().is_some_and(letter)
            && text.bytes().last().is_some_and(|byte| byte.is_ascii_alphanumeric())
    };
    checked(
        cx,
        field,
        is_kind,
        "must be the name of a kind, e.g. `Service`: at most 63 letters, digits and '-', a letter first",
    )
}

/// An API group; `""` is that of Kubernetes itself.
pub(super) fn group(cx: &mut Context<'_>, field: &Field<'_>) -> Option<String> {
    let is_group =
        |text: &str| text.is_empty() || (text.len() <= NAME_CHARACTERS_MAX && is_subdomain(text));
    checked(
        cx,
        field,
        is_group,
        "must be an API group: a lowercase RFC 1123 subdomain, or '' for that of Service",
    )
}

/// A host: a subdomain, `*.` may stand before it. Addresses are none.
pub(super) fn hostname(cx: &mut Context<'_>, field: &Field<'_>) -> Option<String> {
    let is_host = |text: &str| {
        let host = text.strip_prefix("*.").unwrap_or(text);
        text.len() <= NAME_CHARACTERS_MAX
            && is_subdomain(host)
            && text.parse::<std::net::IpAddr>().is_err()
    };
    checked(cx, field, is_host, "must be a DNS name in lower case; `*.` may stand before it")
}

/// `targetPort` where it is a name (RFC 6335, 5.1).
pub(super) fn service_name(cx: &mut Context<'_>, field: &Field<'_>) -> Option<String> {
    let is_name = |text: &str| {
        (1..=15).contains(&text.len())
            && is_label(text)
            && !text.contains("--")
            && text.bytes().any(|byte| byte.is_ascii_lowercase())
    };
    checked(
        cx,
        field,
        is_name,
        "must be a port number or the name of a port: at most 15 lower case letters, digits and single '-', a letter among them",
    )
}

/// `<domain>/<path>`, as controllers and implementations name what is theirs.
pub(super) fn domain_prefixed(cx: &mut Context<'_>, field: &Field<'_>) -> Option<String> {
    checked(
        cx,
        field,
        is_domain_prefixed,
        "must be a domain, '/' and a path, e.g. example.com/gateway",
    )
}

/// Whether it is `<domain>/<path>`.
pub fn is_domain_prefixed(text: &str) -> bool {
    let path = |byte: u8| byte.is_ascii_alphanumeric() || b"/-._~%!$&'()*+,;=:".contains(&byte);
    text.len() <= NAME_CHARACTERS_MAX
        && text.split_once('/').is_some_and(|(domain, rest)| {
            is_subdomain(domain) && !rest.is_empty() && rest.bytes().all(path)
        })
}

/// A label's key, or another qualified name: 63 characters, a domain and `/` may stand before.
pub(super) fn is_qualified(text: &str) -> bool {
    let (domain, name) = match text.split_once('/') {
        Some((domain, name)) => (Some(domain), name),
        None => (None, text),
    };
    domain.is_none_or(|domain| domain.len() <= NAME_CHARACTERS_MAX && is_subdomain(domain))
        && !name.is_empty()
        && is_label_value(name)
}

/// Whether it can be a label's value: at most 63 characters, or nothing.
pub(super) fn is_label_value(text: &str) -> bool {
    let inner = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
    let end = |byte: Option<u8>| byte.is_none_or(|byte| byte.is_ascii_alphanumeric());
    text.len() <= 63
        && text.bytes().all(inner)
        && end(text.bytes().next())
        && end(text.bytes().last())
}

const LABEL_KEY: &str = "a label's name must be at most 63 letters, digits, '-', '_' and '.', a letter or digit at both ends; a domain and '/' may stand before it";
const LABEL_VALUE: &str = "a label's value must be at most 63 letters, digits, '-', '_' and '.', a letter or digit at both ends";

/// A map of labels: those of an object, or `matchLabels`.
pub(super) fn labels(cx: &mut Context<'_>, field: &Field<'_>) -> Tags {
    let mut labels = Tags::new();
    for entry in field.entries(cx).unwrap_or_default() {
        let at = field.at_key(entry);
        if !is_qualified(&entry.key) {
            cx.report(super::Diagnostic::error(at.path.clone(), LABEL_KEY).at(entry.key_span));
        }
        let Some(value) = tags::value(cx, &at, "label") else { continue };
        if !is_label_value(&value) {
            cx.report(at.error(LABEL_VALUE));
        }
        labels.insert(entry.key.clone(), value);
    }
    labels
}

/// A label's key as a value, as selectors name it.
pub(super) fn label_key(cx: &mut Context<'_>, field: &Field<'_>) -> Option<String> {
    checked(cx, field, is_qualified, LABEL_KEY)
}

/// A label's value.
pub(super) fn label_value(cx: &mut Context<'_>, field: &Field<'_>) -> Option<String> {
    checked(cx, field, is_label_value, LABEL_VALUE)
}

fn checked(
    cx: &mut Context<'_>,
    field: &Field<'_>,
    is_right: impl Fn(&str) -> bool,
    rule: &str,
) -> Option<String> {
    let text = field.string(cx)?;
    if !is_right(text) {
        cx.report(field.error(rule));
        return None;
    }
    Some(text.to_owned())
}
