//! Fields of a Dataplane that have no effect on routing. They are validated as Kuma does, so
//! that a resource that Kuma refuses is refused here too.

use std::{
    collections::BTreeMap,
    net::{IpAddr, Ipv4Addr},
};

use super::{
    super::{
        Api, Diagnostic, Inbound,
        envelope::only,
        fields::{Context, Field, Fields, PORT_RANGE},
        metadata::{SUBDOMAIN_RULE, is_subdomain},
        yaml::{Scalar, Value},
    },
    outbound,
};

/// `networking.admin.port` must not be that of an inbound or outbound on the loopback address.
pub(super) fn admin(
    cx: &mut Context<'_>,
    field: &Field<'_>,
    own: Option<IpAddr>,
    inbounds: &[Option<Inbound>],
    outbounds: &[outbound::Read],
) {
    let Some(mut fields) = field.fields(cx) else { return };
    let port_field = fields.take(cx, "port");
    fields.finish(cx);
    let Some(port_field) = port_field else { return };
    let Some(port) = port_field.u32(cx) else { return };
    let loopback = IpAddr::V4(Ipv4Addr::LOCALHOST);
    let taken = |address: Option<IpAddr>, by: u16| {
        u32::from(by) == port
            && address.is_some_and(|address| address.is_unspecified() || address == loopback)
    };
    let by_inbound = inbounds.iter().flatten().any(|inbound| {
        let address = inbound.address.or(own);
        let service_port = inbound.service_port.unwrap_or(inbound.port).get();
        taken(address, inbound.port.get())
            || taken(inbound.service_address.or(address), service_port)
    });
    if by_inbound {
        cx.report(port_field.error("must differ from inbound"));
    }
    let by_outbound = outbounds
        .iter()
        .any(|outbound| outbound.port.is_some_and(|by| taken(Some(outbound.address), by.get())));
    if by_outbound {
        cx.report(port_field.error("must differ from outbound"));
    }
}

/// `inbound[].serviceProbe`: health checks are a proxy's, but their numbers must make sense.
pub(super) fn service_probe(cx: &mut Context<'_>, field: &Field<'_>) {
    let Some(mut fields) = field.fields(cx) else { return };
    for name in ["interval", "timeout"] {
        if let Some(field) = fields.take(cx, name)
            && let Some(text) = field.string(cx)
        {
            match duration_is_zero(text) {
                Some(false) => {}
                Some(true) => cx.report(field.error("must have a positive value")),
                None => cx.report(
                    field
                        .error("must have a valid value")
                        .hint("a duration is written as in `10s`"),
                ),
            }
        }
    }
    for name in ["unhealthyThreshold", "healthyThreshold"] {
        if let Some(field) = fields.take(cx, name)
            && field.u32(cx) == Some(0)
        {
            cx.report(field.error("must have a positive value"));
        }
    }
    fields.without_effect(&["tcp"]);
    fields.finish(cx);
}

/// Whether a duration in protobuf's JSON form (`1.5s`) is zero; `None` if it is none.
fn duration_is_zero(text: &str) -> Option<bool> {
    let number = text.strip_suffix('s')?;
    let number = number.strip_prefix('-').unwrap_or(number);
    let (whole, fraction) = number.split_once('.').unwrap_or((number, "0"));
    let digits = |part: &str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit());
    (digits(whole) && digits(fraction) && fraction.len() <= 9 && whole.len() <= 12)
        .then(|| number.bytes().all(|byte| matches!(byte, b'0' | b'.')))
}

/// `probes`: removed in Kuma 3.
pub(super) fn probes(cx: &mut Context<'_>, field: &Field<'_>) {
    if only(cx.options, &[Api::Kuma3]) {
        return;
    }
    let Some(mut fields) = field.fields(cx) else { return };
    port(cx, &mut fields, "port");
    if let Some(endpoints) = fields.take(cx, "endpoints") {
        for endpoint in endpoints.items(cx).unwrap_or_default() {
            let Some(mut fields) = endpoint.fields(cx) else { continue };
            port(cx, &mut fields, "inboundPort");
            for name in ["inboundPath", "path"] {
                url_path(cx, &mut fields, name);
            }
            fields.finish(cx);
        }
    }
    fields.finish(cx);
}

fn port(cx: &mut Context<'_>, fields: &mut Fields<'_>, name: &'static str) {
    match fields.take(cx, name) {
        Some(field) => {
            field.port(cx);
        }
        None => cx.report(fields.missing(name, PORT_RANGE)),
    }
}

fn url_path(cx: &mut Context<'_>, fields: &mut Fields<'_>, name: &'static str) {
    let message = "should be a valid URL Path";
    match fields.take(cx, name) {
        Some(field) => {
            if let Some(text) = field.string(cx)
                && !is_request_uri(text)
            {
                cx.report(field.error(message));
            }
        }
        None => cx.report(fields.missing(name, message)),
    }
}

/// An absolute path or an absolute URI, without control characters or broken escapes.
fn is_request_uri(text: &str) -> bool {
    let bytes = text.as_bytes();
    let escapes_fit = bytes.iter().enumerate().all(|(at, byte)| {
        *byte != b'%'
            || bytes.get(at + 1..at + 3).is_some_and(|hex| hex.iter().all(u8::is_ascii_hexdigit))
    });
    let scheme = text.split_once(':').is_some_and(|(scheme, _)| {
        scheme.starts_with(|c: char| c.is_ascii_alphabetic())
            && scheme.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'+' | b'-' | b'.'))
    });
    (text.starts_with('/') || scheme)
        && escapes_fit
        && !bytes.iter().any(|byte| byte.is_ascii_control() || *byte == b' ')
}

/// `metrics`: one backend type exists; removed in Kuma 3.
pub(super) fn metrics(cx: &mut Context<'_>, field: &Field<'_>) {
    if only(cx.options, &[Api::Kuma3]) {
        return;
    }
    let Some(mut fields) = field.fields(cx) else { return };
    let message = "unknown backend type. Available backends: \"prometheus\"";
    match fields.take(cx, "type") {
        Some(kind) => {
            if kind.string(cx).is_some_and(|kind| kind != "prometheus") {
                cx.report(kind.error(message));
            }
        }
        None => cx.report(fields.missing("type", message)),
    }
    fields.without_effect(&["name", "conf"]);
    fields.finish(cx);
}

/// `type` of a listener.
pub(in super::super) const LISTENER_TYPES: &[&str] = &["ZoneIngress", "ZoneEgress"];

/// `networking.listeners[]` of zone proxies (Kuma 3). Says whether there is one.
pub(super) fn listeners(cx: &mut Context<'_>, field: &Field<'_>, inbounds: &[Field<'_>]) -> bool {
    let listeners = field.items(cx).unwrap_or_default();
    let mut names: Vec<String> =
        inbounds.iter().filter_map(|inbound| text_of(inbound, "name")).collect();
    let mut types: BTreeMap<(String, String), String> = BTreeMap::new();
    for listener in &listeners {
        let Some(mut fields) = listener.fields(cx) else { continue };
        let kind = fields.take(cx, "type");
        if let Some(kind) = &kind {
            kind.one_of(cx, LISTENER_TYPES);
        }
        match fields.take(cx, "address") {
            Some(address) => {
                super::host(cx, &address);
            }
            None => cx.report(fields.missing("address", "address can't be empty")),
        }
        port(cx, &mut fields, "port");
        if let Some(name) = fields.take(cx, "name")
            && let Some(text) = name.string(cx)
            && !text.is_empty()
        {
            if names.iter().any(|taken| taken == text) {
                cx.report(name.error(format!(
                    "name \"{text}\" must be unique across inbounds and listeners"
                )));
            }
            names.push(text.to_owned());
        }
        if let (Some(address), Some(port), Some(kind)) =
            (text_of(listener, "address"), text_of(listener, "port"), text_of(listener, "type"))
        {
            let place = format!("{address}:{port}");
            let first = types.entry((address, port)).or_insert_with(|| kind.clone());
            if *first != kind {
                cx.report(listener.error(format!(
                    "address:port {place} is used by listeners of different types"
                )));
            }
        }
        fields.without_effect(&["tags", "state", "protocol"]);
        fields.finish(cx);
    }
    !listeners.is_empty()
}

fn text_of(field: &Field<'_>, name: &str) -> Option<String> {
    match &field.node.entry(name)?.value.value {
        Value::Scalar(Scalar { text, .. }) if !text.is_empty() => Some(text.clone()),
        _ => None,
    }
}

/// `networking.transparentProxying.reachableBackends.refs[]` (from 2.9 on). The misspelt path
/// is the reference's.
pub(super) fn transparent_proxying(cx: &mut Context<'_>, field: &Field<'_>) {
    if only(cx.options, &[Api::Kuma27]) {
        return;
    }
    let Some(reachable) = field.node.entry("reachableBackends") else { return };
    let Some(refs) = reachable.value.entry("refs") else { return };
    let Value::Sequence(items) = &refs.value.value else { return };
    for (index, node) in items.iter().enumerate() {
        let path = format!("networking.transparentProxing.reachableBackends.refs[{index}]");
        let item = Field { node, path, key_span: node.span };
        let text = |name| text_of(&item, name);
        let report = |cx: &mut Context<'_>, name: &str, message: &str| {
            let at = item.node.entry(name).map_or(node.span, |entry| entry.value.span);
            cx.report(Diagnostic::error(format!("{}.{name}", item.path), message).at(at));
        };
        const KINDS: [&str; 3] = ["MeshExternalService", "MeshMultiZoneService", "MeshService"];
        if !text("kind").is_some_and(|kind| KINDS.contains(&&*kind)) {
            let message = format!("invalid value. Available values are: {}", KINDS.join(","));
            report(cx, "kind", &message);
        }
        let labels = item.node.entry("labels").is_some_and(
            |labels| matches!(&labels.value.value, Value::Mapping(entries) if !entries.is_empty()),
        );
        match (text("name"), text("namespace")) {
            (Some(name), _) if !is_subdomain(&name) => report(cx, "name", SUBDOMAIN_RULE),
            (None, Some(_)) => report(cx, "name", "name is required, when namespace is defined"),
            (None, None) if !labels => report(cx, "name", "name or labels are required"),
            _ => {}
        }
        if labels && (text("name").is_some() || text("namespace").is_some()) {
            report(cx, "labels", "labels cannot be defined when name is specified");
        }
    }
}
