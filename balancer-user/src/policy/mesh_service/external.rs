//! `MeshExternalService` (semantics 2.7).

use super::{
    super::{
        Diagnostic, Host, Meta, Span,
        dataplane::is_dns_name,
        fields::{Context, Field, Fields, PORT_RANGE},
    },
    ExternalEndpoint, MeshExternalService, label_name, ports,
};

/// `match.type`.
pub(in super::super) const MATCH_TYPES: &[&str] = &["HostnameGenerator"];
/// `match.protocol`.
pub(in super::super) const PROTOCOLS: &[&str] = &["tcp", "grpc", "http", "http2"];
/// Kuma's bound of `priority`.
pub(in super::super) const PRIORITY_MAX: u32 = 128;
/// `tls.version`, in their order.
pub(in super::super) const VERSIONS: &[&str] = &["TLSAuto", "TLS10", "TLS11", "TLS12", "TLS13"];
/// `tls.verification.mode`.
pub(in super::super) const VERIFICATIONS: &[&str] = &["SkipSAN", "SkipCA", "Secured", "SkipAll"];
/// `type` of one of `subjectAltNames`.
pub(in super::super) const NAME_TYPES: &[&str] = &["Exact", "Prefix"];

/// Reads a MeshExternalService. `None`: it has an error.
pub(in super::super) fn mesh_external_service(
    cx: &mut Context<'_>,
    meta: Meta,
    name_span: Span,
    mut spec: Fields<'_>,
    status: Option<&Field<'_>>,
) -> Option<MeshExternalService> {
    label_name(cx, &meta, name_span);
    let matched = match spec.take(cx, "match") {
        Some(field) => matched(cx, &field),
        None => {
            let path = format!("{}.match.port", spec.path);
            cx.report(
                Diagnostic::error(path, PORT_RANGE).at(spec.span).hint("add `match: {port: 443}`"),
            );
            None
        }
    };
    let endpoints_field = spec.take(cx, "endpoints");
    let tls_field = spec.take(cx, "tls");
    let extension_field = spec.take(cx, "extension");
    let extension = extension_field.as_ref().map(|field| extension(cx, field));
    let (mut endpoints, mut tls) = (Some(Vec::new()), false);
    if extension.is_none() {
        match &endpoints_field {
            Some(field) => endpoints = self::endpoints(cx, field),
            None => cx.report(
                spec.missing_warning("endpoints", "not given: connections are refused")
                    .hint("e.g. `endpoints: [{address: api.example.com, port: 443}]`"),
            ),
        }
        tls = tls_field.as_ref().is_some_and(|field| self::tls(cx, field));
    }
    spec.finish(cx);
    let status = ports::status(cx, status);
    let (port, protocol) = matched?;
    Some(MeshExternalService {
        meta,
        port,
        protocol,
        endpoints: endpoints?,
        tls,
        extension: match extension {
            Some(read) => Some(read?),
            None => None,
        },
        status: status?,
    })
}

/// `match`: what clients dial.
fn matched(cx: &mut Context<'_>, field: &Field<'_>) -> Option<(std::num::NonZeroU16, String)> {
    let mut fields = field.fields(cx)?;
    if let Some(kind) = fields.take(cx, "type") {
        kind.one_of(cx, MATCH_TYPES);
    }
    let port = fields.take_port(cx);
    let protocol = match fields.take(cx, "protocol") {
        Some(field) => field.one_of(cx, PROTOCOLS),
        None => Some("tcp"),
    };
    fields.finish(cx);
    Some((port?, protocol?.to_owned()))
}

/// With an extension, endpoints and TLS are the extension's business: Kuma does not judge them.
fn extension(cx: &mut Context<'_>, field: &Field<'_>) -> Option<String> {
    let mut fields = field.fields(cx)?;
    let kind_field = fields.take(cx, "type").filter(Field::is_set);
    fields.without_effect(&["config"]);
    let kind = match &kind_field {
        Some(kind) => kind.string(cx),
        None => {
            cx.report(fields.missing("type", "must not be empty"));
            None
        }
    };
    fields.finish(cx);
    cx.report(
        Diagnostic::warning(
            field.path.clone(),
            "extensions are not carried out: connections to this service are refused, and `endpoints` and `tls` have no effect",
        )
        .at(field.key_span),
    );
    kind.map(str::to_owned)
}

fn endpoints(cx: &mut Context<'_>, field: &Field<'_>) -> Option<Vec<ExternalEndpoint>> {
    let items = field.items(cx)?;
    let mut read = Vec::new();
    for item in &items {
        let endpoint = item.fields(cx).and_then(|mut fields| {
            let address = match fields.take(cx, "address") {
                Some(field) => host(cx, &field),
                None => {
                    cx.report(fields.missing("address", "must be given"));
                    None
                }
            };
            let port = fields.take_port(cx);
            let priority = match fields.take(cx, "priority") {
                Some(field) => {
                    let priority = field.u32(cx)?;
                    if priority > PRIORITY_MAX {
                        let message =
                            format!("must be in the range [0, {PRIORITY_MAX}], is {priority}");
                        cx.report(field.error(message));
                    }
                    priority
                }
                None => 0,
            };
            fields.finish(cx);
            let (span, field) = (item.node.span, item.path.clone());
            Some(ExternalEndpoint { span, field, address: address?, port: port?, priority })
        });
        read.push(endpoint);
    }
    read.into_iter().collect()
}

/// The address of something outside the mesh.
fn host(cx: &mut Context<'_>, field: &Field<'_>) -> Option<Host> {
    let text = field.string(cx)?;
    let host = external_host(text);
    if host.is_none() {
        let finding = field.error("address has to be a valid IP address or a domain name");
        cx.report(if text.starts_with("unix:") {
            finding.hint("packets are forwarded: there is none to a Unix socket")
        } else {
            finding
        });
    }
    host
}

/// An IP address that can be dialled, or a DNS name.
pub(in super::super) fn external_host(text: &str) -> Option<Host> {
    match text.parse::<std::net::IpAddr>() {
        Ok(address) => {
            let address = address.to_canonical();
            (!address.is_unspecified()).then_some(Host::Ip(address))
        }
        Err(_) => is_dns_name(text).then(|| Host::Name(text.to_owned())),
    }
}

/// `tls`: whether it is enabled. The rest is judged, so that what Kuma refuses is refused here.
fn tls(cx: &mut Context<'_>, field: &Field<'_>) -> bool {
    let Some(mut fields) = field.fields(cx) else { return false };
    let enabled = fields.take(cx, "enabled").and_then(|field| field.boolean(cx));
    if let Some(field) = fields.take(cx, "allowRenegotiation") {
        field.boolean(cx);
    }
    if let Some(field) = fields.take(cx, "version") {
        version(cx, &field);
    }
    if let Some(field) = fields.take(cx, "verification") {
        verification(cx, &field);
    }
    fields.finish(cx);
    enabled.unwrap_or(false)
}

fn version(cx: &mut Context<'_>, field: &Field<'_>) {
    let Some(mut fields) = field.fields(cx) else { return };
    let min_field = fields.take(cx, "min");
    let max_field = fields.take(cx, "max");
    fields.finish(cx);
    let mut place = |field: &Option<Field<'_>>| {
        let version = field.as_ref()?.one_of(cx, VERSIONS)?;
        VERSIONS.iter().position(|known| *known == version)
    };
    let (min, max) = (place(&min_field), place(&max_field));
    // `TLSAuto`, the first, leaves it to the proxy.
    if let (Some(field), Some(min), Some(max)) = (&min_field, min, max)
        && max > 0
        && min > max
    {
        cx.report(field.error("min version must be lower than max"));
    }
}

fn verification(cx: &mut Context<'_>, field: &Field<'_>) {
    let Some(mut fields) = field.fields(cx) else { return };
    if let Some(mode) = fields.take(cx, "mode") {
        mode.one_of(cx, VERIFICATIONS);
    }
    if let Some(name) = fields.take(cx, "serverName") {
        name.string(cx);
    }
    let names = fields.take(cx, "subjectAltNames").and_then(|field| field.items(cx));
    for item in names.iter().flatten() {
        if let Some(mut fields) = item.fields(cx) {
            if let Some(kind) = fields.take(cx, "type") {
                kind.one_of(cx, NAME_TYPES);
            }
            match fields.take(cx, "value") {
                Some(value) => drop(value.string(cx)),
                None => cx.report(fields.missing("value", "must be given")),
            }
            fields.finish(cx);
        }
    }
    let certificate = fields.take(cx, "clientCert");
    let key = fields.take(cx, "clientKey");
    for (absent, name, given) in
        [(&key, "clientKey", &certificate), (&certificate, "clientCert", &key)]
    {
        if let (None, Some(given)) = (absent, given) {
            let other = if name == "clientKey" { "clientCert" } else { "clientKey" };
            cx.report(
                fields
                    .missing(name, format!("must be defined when {other} is defined"))
                    .related(given.key_span, format!("`{other}` is here")),
            );
        }
    }
    // Where Kuma's proxy finds its certificates.
    fields.without_effect(&["caCert"]);
    fields.finish(cx);
}
