//! Tag maps: on Dataplanes, and as selectors and destinations of policies (semantics 2.1, 3.3).

use super::{
    Diagnostic, PROTOCOL_TAG, SERVICE_TAG, Tags,
    fields::{Context, Field},
    scalar::{Meaning, meaning},
    yaml::{Scalar, Value},
};

/// Protocols that Kuma knows up to 2.14, in any case of letters (semantics 2.1).
pub(super) const PROTOCOLS: &[&str] = &["grpc", "http", "http2", "kafka", "tcp"];

/// Whether it is one of them.
pub(super) fn is_protocol(text: &str) -> bool {
    PROTOCOLS.iter().any(|known| known.eq_ignore_ascii_case(text))
}

/// What is asked of a tag map.
#[derive(Clone, Copy, Default)]
pub(super) struct TagRules {
    /// Selectors may have `/` in values, and `*`.
    pub(super) selector: bool,
    /// At least one tag.
    pub(super) some: bool,
    /// `kuma.io/service` among them.
    pub(super) service: bool,
    /// `kuma.io/service` and nothing else.
    pub(super) only_service: bool,
    /// `service` and `protocol` stand for `kuma.io/service` and `kuma.io/protocol` (K0.5).
    pub(super) unprefixed: bool,
}

/// Rules of a source selector and of a destination to send to.
pub(super) const DESTINATION: TagRules =
    TagRules { selector: true, some: true, service: true, only_service: false, unprefixed: false };

/// Reads a tag map. `None`: it has an error, which is reported. An absent map is read as an
/// empty one.
pub(super) fn tags(
    cx: &mut Context<'_>,
    path: &str,
    field: Option<&Field<'_>>,
    absent_at: super::Span,
    rules: TagRules,
) -> Option<Tags> {
    let errors_before = cx.errors();
    let entries = match field {
        Some(field) => field.entries(cx)?,
        None => &[],
    };
    let map_span = field.map_or(absent_at, |field| field.node.span);
    let on_map = |message: &str| Diagnostic::error(path, message.to_owned()).at(map_span);

    if rules.some && entries.is_empty() {
        cx.report(on_map("must have at least one tag"));
    }
    // Both spellings in one map: then `service` is a tag like any other.
    let unprefixed = rules.unprefixed
        && !entries.iter().any(|entry| matches!(&*entry.key, SERVICE_TAG | PROTOCOL_TAG));
    let named = |key: &str| match key {
        "service" if unprefixed => SERVICE_TAG.to_owned(),
        "protocol" if unprefixed => PROTOCOL_TAG.to_owned(),
        _ => key.to_owned(),
    };
    let has_service = entries.iter().any(|entry| named(&entry.key) == SERVICE_TAG);
    if rules.only_service && (entries.len() != 1 || !has_service) {
        cx.report(on_map(&format!("must consist of exactly one tag \"{SERVICE_TAG}\"")));
    }

    let mut tags = Tags::new();
    for (entry, field) in entries.iter().filter_map(|entry| Some((entry, field?.at_key(entry)))) {
        let name = named(&entry.key);
        if name.is_empty() {
            cx.report(Diagnostic::error(path, "tag name must be non-empty").at(entry.key_span));
        }
        if !name.bytes().all(is_name_byte) {
            let message = "tag name must consist of alphanumeric characters, dots, dashes, slashes and underscores";
            cx.report(Diagnostic::error(field.path.clone(), message).at(entry.key_span));
        }
        if rules.only_service && name != SERVICE_TAG {
            cx.report(
                Diagnostic::error(field.path.clone(), format!("tag \"{name}\" is not allowed"))
                    .at(entry.key_span),
            );
        }
        if let Some(value) = value(cx, &field, "tag") {
            check_value(cx, &field, &value, rules);
            tags.insert(name, value);
        }
    }
    if rules.service && !has_service {
        let mut finding = on_map(&format!("mandatory tag \"{SERVICE_TAG}\" is missing"));
        if entries.iter().any(|entry| entry.key == "service") {
            finding =
                finding.hint(format!("`service` is the name of Kuma 0.5; write `{SERVICE_TAG}`"));
        }
        cx.report(finding);
    }
    (cx.errors() == errors_before).then_some(tags)
}

/// A tag's or label's value: a string, or an integer whose text is certain (semantics 1). `what`
/// is `tag` or `label`.
pub(super) fn value(cx: &mut Context<'_>, field: &Field<'_>, what: &str) -> Option<String> {
    let Value::Scalar(Scalar { text, plain }) = &field.node.value else {
        cx.report(field.error(format!("{what} value must be a string, not a list or a mapping")));
        return None;
    };
    if !plain {
        return Some(text.clone());
    }
    match meaning(text) {
        Meaning::String => {
            if matches!(text.as_str(), "yes" | "no" | "on" | "off" | "Yes" | "No" | "On" | "Off") {
                cx.report(
                    field
                        .warning(format!("unquoted `{text}` is a boolean to readers of YAML 1.1"))
                        .hint(format!("quote it: '{text}'")),
                );
            }
            Some(text.clone())
        }
        Meaning::Integer => {
            cx.report(
                field
                    .warning(format!("the number {text} is taken as the string '{text}'"))
                    .hint(format!("quote it: '{text}'")),
            );
            Some(text.clone())
        }
        // The reference reads an absent value as an empty string and refuses it in these words.
        Meaning::Null => {
            cx.report(field.error(format!("{what} value must be non-empty")).hint(
                if text.is_empty() {
                    "give it a value".to_owned()
                } else {
                    format!("quote it if the string '{text}' is meant")
                },
            ));
            None
        }
        found @ (Meaning::Bool(_) | Meaning::OddInteger | Meaning::Float) => {
            let kind = if matches!(found, Meaning::Bool(_)) { "boolean" } else { "number" };
            cx.report(
                field
                    .error(format!(
                        "{what} value must be a string, not the {kind} {text}: its text is not certain"
                    ))
                    .hint(format!("quote it: '{text}'")),
            );
            None
        }
    }
}

fn check_value(cx: &mut Context<'_>, field: &Field<'_>, value: &str, rules: TagRules) {
    if value.is_empty() {
        cx.report(field.error("tag value must be non-empty"));
    }
    if rules.selector {
        if value != "*" && !value.bytes().all(is_name_byte) {
            let finding = field.error("tag value must consist of alphanumeric characters, dots, dashes, slashes and underscores or be \"*\"");
            let finding = if value.contains('*') {
                finding.hint("`*` stands for any value; patterns like `v*` are not known")
            } else {
                finding
            };
            cx.report(finding);
        }
    } else if !value.bytes().all(|byte| is_name_byte(byte) && byte != b'/') {
        cx.report(field.error(
            "tag value must consist of alphanumeric characters, dots, dashes and underscores",
        ));
    }
}

fn is_name_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'_' | b':' | b'/')
}
