//! Filters that are read alike wherever they stand (semantics 4.5, 5.5).

use std::{collections::BTreeMap, net::Ipv4Addr};

use super::{
    HeaderField, HeaderModifier, PathModifier, Redirect, Scheme,
    matches::{Family, header_name, header_value},
};
use crate::policy::{
    Diagnostic, Span,
    fields::{Context, Field, Fields},
    names, object,
};

pub(in crate::policy) const HEADERS_MAX: usize = 16;
pub(in crate::policy) const PATH_BYTES_MAX: usize = 1024;
/// `scheme` of a redirection.
pub(in crate::policy) const SCHEMES: &[&str] = &["http", "https"];
/// `type` of a new path.
pub(in crate::policy) const PATH_MODIFIERS: &[&str] = &["ReplaceFullPath", "ReplacePrefixMatch"];
/// Status codes of redirections.
pub(in crate::policy) const STATUS: [u16; 5] = [301, 302, 303, 307, 308];

/// A filter as far as all types are alike: its type, and what stands in the field of that type.
pub(in crate::policy) struct Typed<'n> {
    /// `type`.
    pub(in crate::policy) name: &'static str,
    /// What the type needs.
    pub(in crate::policy) body: Field<'n>,
}

/// Reads the type of a filter and takes its body. `types` are the types there are, with the field
/// of each. `None`: one of the two is missing, which is reported.
pub(in crate::policy) fn typed<'n>(
    cx: &mut Context<'_>,
    item: &Field<'n>,
    types: &'static [(&'static str, &'static str)],
    family: Family,
) -> Option<Typed<'n>> {
    let mut fields = item.fields(cx)?;
    let names: Vec<&'static str> = types.iter().map(|(name, _)| *name).collect();
    let kind = object::required(cx, &mut fields, "type");
    let name = kind.as_ref().and_then(|field| field.one_of(cx, &names));
    let other =
        |field: &Field<'_>, of: &str| other_type(field, of, name.unwrap_or_default(), family);
    let body = fields.take_of_type(cx, types, name, other);
    let name = name?;
    let wanted = types.iter().find(|(of, _)| *of == name).map(|(_, field)| *field)?;
    if body.is_none() {
        cx.report(
            fields
                .missing(wanted, "must be defined")
                .hint(format!("a filter of type {name} needs `{wanted}`")),
        );
    }
    fields.finish(cx);
    Some(Typed { name, body: body? })
}

/// What stands in the field of another type. Kuma does not look at it.
fn other_type(field: &Field<'_>, of: &str, name: &str, family: Family) -> Diagnostic {
    let hint = format!("it belongs to filters of type {of}");
    match family {
        Family::Mesh => {
            let message = format!("has no effect in a filter of type {name}");
            Diagnostic::warning(field.path.clone(), message).at(field.key_span).hint(hint)
        }
        Family::Gateway => {
            let message = format!("must not be given in a filter of type {name}");
            Diagnostic::error(field.path.clone(), message).at(field.key_span).hint(hint)
        }
    }
}

/// `requestHeaderModifier`, `responseHeaderModifier`.
pub(in crate::policy) fn header_modifier(
    cx: &mut Context<'_>,
    field: &Field<'_>,
    family: Family,
) -> Option<HeaderModifier> {
    let mut fields = field.fields(cx)?;
    let set = fields.take(cx, "set");
    let add = fields.take(cx, "add");
    let remove = fields.take(cx, "remove");
    fields.finish(cx);
    let given = [&set, &add, &remove];
    if given.iter().all(|field| field.is_none()) {
        let message = "must have at least one defined: set, add, remove";
        match family {
            Family::Mesh => {
                cx.report(field.error(message));
                return None;
            }
            Family::Gateway => cx.report(field.warning("changes nothing")),
        }
    } else if !given.iter().any(|field| field.as_ref().is_some_and(Field::is_set)) {
        cx.report(field.warning("changes nothing"));
    }
    // One action for each name. Names of MeshHTTPRoutes are compared as written.
    let mut seen: BTreeMap<String, Span> = BTreeMap::new();
    let mut once = |cx: &mut Context<'_>, name: &str, field: String, at: Span| {
        let key = if family == Family::Mesh { name.to_owned() } else { name.to_ascii_lowercase() };
        if let Some(first) = seen.get(&key) {
            cx.report(
                Diagnostic::error(field, "duplicate header name")
                    .at(at)
                    .related(*first, "first here")
                    .hint("a header is set, added to or removed, and once; join values with `,`"),
            );
        } else {
            seen.insert(key, at);
        }
    };
    let errors_before = cx.errors();
    let mut lists: [Vec<HeaderField>; 2] = Default::default();
    for (list, field) in lists.iter_mut().zip([&set, &add]) {
        let Some(field) = field else { continue };
        for item in object::items(cx, field, HEADERS_MAX)? {
            let Some(mut fields) = item.fields(cx) else { continue };
            let name_field = object::required(cx, &mut fields, "name");
            let value_field = object::required(cx, &mut fields, "value");
            fields.finish(cx);
            let name = name_field.as_ref().and_then(|field| header_name(cx, field, family));
            let value = value_field.as_ref().and_then(|field| header_value(cx, field));
            if let (Some(name), Some(field)) = (&name, &name_field) {
                once(cx, name, field.path.clone(), field.node.span);
            }
            if let Some((name, value)) = name.zip(value) {
                list.push(HeaderField { name, value });
            }
        }
    }
    let mut removed = Vec::new();
    if let Some(field) = &remove {
        for item in object::items(cx, field, HEADERS_MAX)? {
            // Here Kuma asks for no lower case.
            let Some(name) = header_name(cx, &item, Family::Gateway) else { continue };
            let path = match family {
                // As Kuma writes it, although the item is the name itself.
                Family::Mesh => format!("{}.name", item.path),
                Family::Gateway => item.path.clone(),
            };
            once(cx, &name, path, item.node.span);
            removed.push(name);
        }
    }
    let [set, add] = lists;
    (cx.errors() == errors_before).then_some(HeaderModifier { set, add, remove: removed })
}

/// `requestRedirect`. `prefix` says what is wrong with replacing a prefix here, if anything is.
pub(in crate::policy) fn redirect(
    cx: &mut Context<'_>,
    field: &Field<'_>,
    prefix: Option<&str>,
) -> Option<Redirect> {
    let mut fields = field.fields(cx)?;
    let scheme = match fields.take(cx, "scheme") {
        Some(field) => match field.one_of(cx, SCHEMES) {
            Some("http") => Some(Some(Scheme::Http)),
            Some(_) => Some(Some(Scheme::Https)),
            None => None,
        },
        None => Some(None),
    };
    let hostname = hostname(cx, &mut fields);
    let path = fields.optional(cx, "path", |cx, field| path_modifier(cx, field, prefix));
    let port = fields.optional(cx, "port", |cx, field| field.port(cx));
    let status = match fields.take(cx, "statusCode") {
        Some(field) => status(cx, &field),
        None => Some(302),
    };
    fields.finish(cx);
    Some(Redirect {
        scheme: scheme?,
        hostname: hostname?,
        port: port?,
        path: path?,
        status: status?,
    })
}

fn status(cx: &mut Context<'_>, field: &Field<'_>) -> Option<u16> {
    let written = field.u32(cx)?;
    let status = u16::try_from(written).ok().filter(|status| STATUS.contains(status));
    if status.is_none() {
        cx.report(
            field
                .error(format!("{written} is none of 301, 302, 303, 307, 308"))
                .hint("301 and 308 are for good, 302 and 307 for now; 307 and 308 keep the method"),
        );
    }
    status
}

/// `hostname` of a redirection or of a rewrite. Outer `None`: it has an error.
pub(in crate::policy) fn hostname(
    cx: &mut Context<'_>,
    fields: &mut Fields<'_>,
) -> Option<Option<String>> {
    let Some(field) = fields.take(cx, "hostname") else { return Some(None) };
    if is_address(field.string(cx)?) {
        cx.report(field.error("cannot be an IP address").hint("write a name, e.g. example.com"));
        return None;
    }
    names::subdomain(cx, &field).map(Some)
}

/// Whether a name would be taken for an IP address, with zeros before its numbers too.
pub(in crate::policy) fn is_address(text: &str) -> bool {
    let plain: Vec<&str> = text
        .split('.')
        .map(|part| {
            let digits = !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit());
            if digits && part.bytes().any(|byte| byte != b'0') {
                part.trim_start_matches('0')
            } else if digits {
                "0"
            } else {
                part
            }
        })
        .collect();
    plain.join(".").parse::<Ipv4Addr>().is_ok() || text.parse::<std::net::Ipv6Addr>().is_ok()
}

/// `path` of a redirection or of a rewrite.
pub(in crate::policy) fn path_modifier(
    cx: &mut Context<'_>,
    field: &Field<'_>,
    prefix: Option<&str>,
) -> Option<PathModifier> {
    let mut fields = field.fields(cx)?;
    let kind_field = object::required(cx, &mut fields, "type");
    let full_field = fields.take(cx, "replaceFullPath");
    let prefix_field = fields.take(cx, "replacePrefixMatch");
    let errors_before = cx.errors();
    // Kuma asks for the prefix whatever the type.
    if let (Some(field), Some(wrong)) = (&prefix_field, prefix) {
        cx.report(field.error(wrong).hint("match by `path: {type: PathPrefix, value: …}`"));
    }
    let kind = kind_field.as_ref().and_then(|field| field.one_of(cx, PATH_MODIFIERS));
    let (wanted, own, other) = match kind {
        Some("ReplaceFullPath") => ("replaceFullPath", &full_field, &prefix_field),
        _ => ("replacePrefixMatch", &prefix_field, &full_field),
    };
    if let (Some(kind), Some(other)) = (kind, other) {
        cx.report_unless_exact(
            Diagnostic::error(other.path.clone(), format!("must not be given with type {kind}"))
                .at(other.key_span)
                .hint("remove it, or change the type"),
        );
    }
    if let (Some(kind), None) = (kind, own) {
        cx.report_unless_exact(fields.missing(wanted, format!("must be given with type {kind}")));
    }
    let path = own.as_ref().map(|field| new_path(cx, field));
    fields.finish(cx);
    let kind = kind.filter(|_| cx.errors() == errors_before)?;
    // Where exactly Kuma's rules are asked for, nothing is an empty text.
    let path = match path {
        Some(path) => path?,
        None => String::new(),
    };
    Some(if kind == "ReplaceFullPath" {
        PathModifier::Full(path)
    } else {
        PathModifier::Prefix(path)
    })
}

fn new_path(cx: &mut Context<'_>, field: &Field<'_>) -> Option<String> {
    let text = field.string(cx)?;
    if text.len() > PATH_BYTES_MAX {
        let found = text.len();
        cx.report(field.error(format!("must have at most {PATH_BYTES_MAX} bytes, has {found}")));
        return None;
    }
    if let Some(at) = text.find(|c: char| matches!(c, '?' | '#') || c.is_control() || c == ' ') {
        let what = text[at..].chars().next().unwrap_or_default();
        cx.report_unless_exact(
            field
                .error(format!("must not have {what:?}: it replaces a path"))
                .hint("the query of the request stays as it is"),
        );
    }
    if !text.is_empty() && !text.starts_with('/') {
        cx.report(field.warning("is no absolute path").hint("begin it with `/`"));
    }
    Some(text.to_owned())
}
