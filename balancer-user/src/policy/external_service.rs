//! `ExternalService` (semantics 2.5), up to Kuma 2.14.

use std::num::NonZeroU16;

use super::{
    Diagnostic, ExternalService, Host, Meta, PROTOCOL_TAG, SERVICE_TAG, Tags,
    fields::{Context, Field, Fields, PORT_RANGE},
    mesh_service::external_host,
    tags::{self, TagRules},
};

/// How Kuma's proxy speaks TLS.
pub(super) const TLS_WITHOUT_EFFECT: &[&str] = &[
    "caCert",
    "clientCert",
    "clientKey",
    "allowRenegotiation",
    "skipHostnameVerification",
    "subjectAltNames",
];

/// Reads an ExternalService. `None`: it has an error.
pub(super) fn external_service(
    cx: &mut Context<'_>,
    meta: Meta,
    mut spec: Fields<'_>,
) -> Option<ExternalService> {
    let tags_field = spec.take(cx, "tags");
    let networking = spec.take(cx, "networking");
    let path = match spec.path.as_str() {
        "" => "tags".to_owned(),
        path => format!("{path}.tags"),
    };
    let rules = TagRules { service: true, ..TagRules::default() };
    let tags = tags::tags(cx, &path, tags_field.as_ref(), spec.span, rules);
    let (endpoint, tls) = match &networking {
        Some(field) => self::networking(cx, field),
        None => {
            cx.report(
                spec.missing("networking", "should have networking")
                    .hint("add `networking: {address: HOST:PORT}`"),
            );
            (None, false)
        }
    };
    spec.finish(cx);
    if let (Some(tags), Some(field)) = (&tags, &tags_field) {
        check_tags(cx, field, tags, endpoint.as_ref().map(|endpoint| endpoint.written));
    }
    let Endpoint { address, port, .. } = endpoint?;
    Some(ExternalService { meta, tags: tags?, address, port, tls })
}

fn check_tags(cx: &mut Context<'_>, field: &Field<'_>, tags: &Tags, host: Option<&str>) {
    let mut refuse = |tag: &str, message: String| {
        if let Some(entry) = field.node.entry(tag) {
            let path = format!("{}[{tag:?}]", field.path);
            cx.report(Diagnostic::error(path, message).at(entry.value.span));
        }
    };
    if let Some(protocol) = tags.get(PROTOCOL_TAG)
        && !tags::is_protocol(protocol)
    {
        let known = tags::PROTOCOLS.join(", ");
        refuse(
            PROTOCOL_TAG,
            format!(
                "tag \"{PROTOCOL_TAG}\" has an invalid value \"{protocol}\". Allowed values: {known}"
            ),
        );
    }
    if let Some(service) = tags.get(SERVICE_TAG)
        && host == Some(service.as_str())
    {
        refuse(SERVICE_TAG, "cannot be the same as networking.address".to_owned());
    }
}

/// `networking.address`.
struct Endpoint<'n> {
    address: Host,
    /// The host as written.
    written: &'n str,
    port: NonZeroU16,
}

fn networking<'n>(cx: &mut Context<'_>, field: &Field<'n>) -> (Option<Endpoint<'n>>, bool) {
    let Some(mut fields) = field.fields(cx) else { return (None, false) };
    let endpoint = match fields.take(cx, "address").filter(Field::is_set) {
        Some(field) => address(cx, &field),
        None => {
            cx.report(
                fields
                    .missing("address", "address can't be empty")
                    .hint("write `address: HOST:PORT`"),
            );
            None
        }
    };
    let mut enabled = false;
    if let Some(tls) = fields.take(cx, "tls")
        && let Some(mut tls) = tls.fields(cx)
    {
        let field = tls.take(cx, "enabled");
        enabled = field.and_then(|field| field.boolean(cx)).unwrap_or(false);
        if let Some(name) = tls.take(cx, "serverName")
            && name.string(cx) == Some("")
        {
            cx.report(name.error("cannot be empty").hint("leave it out for the host of `address`"));
        }
        tls.without_effect(TLS_WITHOUT_EFFECT);
        tls.finish(cx);
    }
    fields.finish(cx);
    (endpoint, enabled)
}

/// `HOST:PORT`, an IPv6 address in brackets.
fn address<'n>(cx: &mut Context<'_>, field: &Field<'n>) -> Option<Endpoint<'n>> {
    let text = field.string(cx)?;
    let Some((host, port)) = text.rsplit_once(':') else {
        cx.report(field.error("unable to parse address").hint("write `HOST:PORT`"));
        return None;
    };
    let written = match host.strip_prefix('[') {
        Some(inner) => inner.strip_suffix(']').unwrap_or(host),
        // Several colons without brackets: an IPv6 address without a port.
        None if host.contains(':') => {
            cx.report(field.error("unable to parse address").hint("write `[ADDRESS]:PORT`"));
            return None;
        }
        None => host,
    };
    let address = external_host(written);
    if address.is_none() {
        cx.report(field.error("address has to be a valid IP address or a domain name"));
    }
    let port = port.parse::<u16>().ok().and_then(NonZeroU16::new);
    if port.is_none() {
        cx.report(field.error(PORT_RANGE));
    }
    Some(Endpoint { address: address?, written, port: port? })
}

#[cfg(test)]
#[path = "external_service_tests.rs"]
mod tests;
