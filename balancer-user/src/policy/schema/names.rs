//! Texts that look like something: names, tags, addresses. Patterns are ECMA-262's, as JSON Schema
//! asks for; `patterns_are_what_the_reader_checks` holds them against the functions that read.

use super::{
    super::{
        http_route::matches::{HEADER_NAME_MAX, HEADER_VALUE_MAX},
        metadata::NAME_CHARACTERS_MAX,
    },
    write::{Schema, map, text, word},
};

/// A lowercase subdomain of RFC 1123.
pub(super) const SUBDOMAIN: &str =
    r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$";
/// A label of one.
pub(super) const LABEL: &str = "^[a-z0-9]([-a-z0-9]*[a-z0-9])?$";
/// The same, or nothing.
pub(super) const GROUP: &str =
    r"^([a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*)?$";
/// A host, `*.` may stand before it.
pub(super) const HOSTNAME: &str =
    r"^(\*\.)?[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$";
/// The name of a kind.
pub(super) const KIND: &str = "^[a-zA-Z]([-a-zA-Z0-9]*[a-zA-Z0-9])?$";
/// A label's key of Kubernetes.
pub(super) const QUALIFIED: &str = r"^([a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*/)?[A-Za-z0-9]([-_.A-Za-z0-9]*[A-Za-z0-9])?$";
/// A label's value of Kubernetes.
pub(super) const LABEL_VALUE: &str = "^([A-Za-z0-9]([-_.A-Za-z0-9]*[A-Za-z0-9])?)?$";
/// A domain, `/` and a path.
pub(super) const DOMAIN_PREFIXED: &str = r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*/[A-Za-z0-9/\-._~%!$&'()*+,;=:]+$";
/// The name of a port of a Service.
pub(super) const SERVICE_NAME: &str = "^(?=.*[a-z])(?!.*--)[a-z0-9]([-a-z0-9]*[a-z0-9])?$";
/// A token of RFC 9110.
pub(super) const TOKEN: &str = r"^[A-Za-z0-9!#$%&'*+\-.^_`|~]+$";
/// The same without letters in upper case.
pub(super) const LOWER_TOKEN: &str = r"^[a-z0-9!#$%&'*+\-.^_`|~]+$";
/// A tag's name.
pub(super) const TAG_NAME: &str = r"^[A-Za-z0-9.\-_:/]+$";
/// A tag's value on a workload.
pub(super) const TAG_VALUE: &str = r"^[A-Za-z0-9.\-_:]+$";
/// A tag's value in a selector.
pub(super) const SELECTED_VALUE: &str = r"^([A-Za-z0-9.\-_:/]+|\*)$";
/// A mesh.
pub(super) const MESH: &str = r"^[0-9a-z\-_.]+$";
/// What a reference names.
pub(super) const REFERRED: &str = r"^[0-9a-z.\-_]+$";
/// A duration of the Gateway API.
pub(super) const DURATION: &str = "^([0-9]{1,5}(h|m|s|ms)){1,4}$";

/// Tags of a workload.
pub(super) fn tags() -> Schema {
    map(text().like(TAG_VALUE)).keys(text().like(TAG_NAME))
}

/// Tags that select or say where to go; `*` is any value.
pub(super) fn selected() -> Schema {
    map(text().like(SELECTED_VALUE)).keys(text().like(TAG_NAME)).some()
}

/// Labels of Kuma's kinds.
pub(super) fn labels() -> Schema {
    map(text())
}

/// Labels of Kubernetes.
pub(super) fn object_labels() -> Schema {
    map(text().like(LABEL_VALUE).characters(0..=63)).keys(text().like(QUALIFIED))
}

/// A lowercase subdomain.
pub(super) fn subdomain() -> Schema {
    text().like(SUBDOMAIN).characters(1..=NAME_CHARACTERS_MAX)
}

/// A lowercase label.
pub(super) fn label() -> Schema {
    text().like(LABEL).characters(1..=63)
}

/// A host.
pub(super) fn hostname() -> Schema {
    text().like(HOSTNAME).characters(1..=NAME_CHARACTERS_MAX)
}

/// A kind.
pub(super) fn kind() -> Schema {
    text().like(KIND).characters(1..=63)
}

/// An API group.
pub(super) fn group() -> Schema {
    text().like(GROUP).characters(0..=NAME_CHARACTERS_MAX)
}

/// The name of a header; of MeshHTTPRoutes in lower case.
pub(super) fn header_name(lower: bool) -> Schema {
    text().like(if lower { LOWER_TOKEN } else { TOKEN }).characters(1..=HEADER_NAME_MAX)
}

/// The value of a header.
pub(super) fn header_value() -> Schema {
    text().characters(0..=HEADER_VALUE_MAX)
}

/// A duration of the Gateway API.
pub(super) fn duration() -> Schema {
    text().like(DURATION)
}

/// A time stamp; the cluster writes null where there is none.
pub(super) fn time() -> Schema {
    text().with("type", vec!["string", "null"]).with("format", "date-time")
}

/// A word that is written in any case of letters; an empty one is none.
pub(super) fn word_in_any_case(words: &[&str]) -> Schema {
    let either = |word: &&str| -> String {
        let one = |c: char| match c.is_ascii_alphabetic() {
            true => format!("[{}{}]", c.to_ascii_lowercase(), c.to_ascii_uppercase()),
            false => c.to_string(),
        };
        word.chars().map(one).collect()
    };
    let patterns: Vec<String> = words.iter().map(either).collect();
    text().like(&format!("^({})?$", patterns.join("|"))).with("examples", words.to_vec())
}

/// The word of a field that says what the document is.
pub(super) fn only(name: &'static str) -> Schema {
    word([name])
}
