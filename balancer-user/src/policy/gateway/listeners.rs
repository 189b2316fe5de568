//! `Gateway`: its addresses and listeners, with the rules that the API has for them.

use std::{collections::BTreeMap, net::IpAddr};

use super::{AllowedNamespaces, GROUP, Gateway, Listener, ListenerProtocol, selector};
use crate::policy::{
    Host, Meta, Span,
    fields::{Context, Field, Fields},
    names, object,
};

pub(in crate::policy) const LISTENERS_MAX: usize = 64;
pub(in crate::policy) const ADDRESSES_MAX: usize = 16;
pub(in crate::policy) const KINDS_MAX: usize = 8;
/// `protocol` of a listener, besides names with a domain.
pub(in crate::policy) const PROTOCOLS: &[&str] = &["HTTP", "HTTPS", "TLS", "TCP", "UDP"];
/// `tls.mode`.
pub(in crate::policy) const TLS_MODES: &[&str] = &["Terminate", "Passthrough"];
/// `allowedRoutes.namespaces.from`.
pub(in crate::policy) const NAMESPACES_FROM: &[&str] = &["Same", "All", "Selector"];

/// Reads a Gateway. `None`: it has an error.
pub(in crate::policy) fn gateway(
    cx: &mut Context<'_>,
    meta: Meta,
    root: Fields<'_>,
) -> Option<Gateway> {
    let mut spec = object::spec(cx, root)?;
    let class = object::required(cx, &mut spec, "gatewayClassName")
        .and_then(|field| Some((names::subdomain(cx, &field)?, field.node.span)));
    let addresses = match spec.take(cx, "addresses") {
        Some(field) => addresses(cx, &field),
        None => Some(Vec::new()),
    };
    let listeners =
        object::required(cx, &mut spec, "listeners").and_then(|field| listeners(cx, &field));
    spec.not_carried_out(cx, "allowedListeners", "listeners are those of the Gateway itself");
    spec.not_carried_out(cx, "tls", "connections are forwarded as they come");
    spec.not_carried_out(cx, "backendTLS", "connections are forwarded as they come");
    spec.not_carried_out(cx, "defaultScope", "routes attach to the parents that they name");
    // Labels and annotations of what a controller in the cluster would make.
    spec.without_effect(&["infrastructure"]);
    spec.finish(cx);
    let (class, class_span) = class?;
    Some(Gateway { meta, class, class_span, addresses: addresses?, listeners: listeners? })
}

fn addresses(cx: &mut Context<'_>, field: &Field<'_>) -> Option<Vec<Host>> {
    let mut seen: BTreeMap<String, Span> = BTreeMap::new();
    let mut addresses = Vec::new();
    for item in object::items(cx, field, ADDRESSES_MAX)? {
        let Some(mut fields) = item.fields(cx) else { continue };
        let kind = match fields.take(cx, "type") {
            Some(field) => field.string(cx).map(|text| (text, Some(field))),
            None => Some(("IPAddress", None)),
        };
        let value = fields.take(cx, "value");
        fields.finish(cx);
        let (Some((kind, kind_field)), Some(value)) = (kind, value) else {
            // Since 1.3 an implementation may choose the address.
            cx.report(item.warning("without a `value` no address is chosen: it has no effect"));
            continue;
        };
        let host = match (kind, &kind_field) {
            ("IPAddress", _) => address(cx, &value),
            ("Hostname", _) => names::hostname(cx, &value).map(Host::Name).inspect(|_| {
                cx.report(value.warning("a Hostname is not carried out yet: it has no effect"));
            }),
            (_, Some(field)) if names::is_domain_prefixed(kind) => {
                cx.report(field.warning(format!("`{kind}` is not known here: it has no effect")));
                continue;
            }
            (_, field) => {
                let at = field.as_ref().unwrap_or(&item);
                cx.report(at.error(format!(
                    "`{kind}` is neither IPAddress, Hostname, nor <domain>/<name>"
                )));
                continue;
            }
        };
        let Some(host) = host else { continue };
        let text = match &host {
            Host::Ip(address) => address.to_string(),
            Host::Name(name) => name.clone(),
        };
        if let Some(first) = seen.insert(text, value.node.span) {
            cx.report(value.error("is given twice").related(first, "first here"));
        }
        addresses.push(host);
    }
    Some(addresses)
}

fn address(cx: &mut Context<'_>, value: &Field<'_>) -> Option<Host> {
    let address: IpAddr = value.ip(cx, "an IPAddress")?;
    if address.is_unspecified() || address.is_multicast() {
        cx.report(value.error(format!("{address} is no address that a client can dial")));
        return None;
    }
    Some(Host::Ip(address.to_canonical()))
}

fn listeners(cx: &mut Context<'_>, field: &Field<'_>) -> Option<Vec<Listener>> {
    let items = object::items(cx, field, LISTENERS_MAX)?;
    if items.is_empty() {
        cx.report(field.error("must have at least one listener"));
    }
    let read: Vec<Option<Listener>> = items.iter().map(|item| listener(cx, item)).collect();
    let mut names_seen: BTreeMap<&str, Span> = BTreeMap::new();
    let mut ports_seen = BTreeMap::new();
    for (item, listener) in items.iter().zip(&read) {
        let Some(listener) = listener else { continue };
        if let Some(first) = names_seen.insert(&listener.name, listener.span) {
            let (field, what) =
                (format!("{}.name", item.path), format!("listeners named `{}`", listener.name));
            cx.report(object::twice(field, &what, (listener.span, first)));
        }
        let together = (listener.port, &listener.protocol, &listener.hostname);
        if let Some(first) = ports_seen.insert(together, listener.span) {
            let what =
                format!("listeners with port {}, one protocol and one hostname", listener.port);
            cx.report(
                object::twice(item.path.clone(), &what, (listener.span, first))
                    .hint("change the port or the hostname, or remove one of them"),
            );
        }
    }
    read.into_iter().collect()
}

fn listener(cx: &mut Context<'_>, item: &Field<'_>) -> Option<Listener> {
    let mut fields = item.fields(cx)?;
    let name =
        object::required(cx, &mut fields, "name").and_then(|field| names::subdomain(cx, &field));
    let port = object::required(cx, &mut fields, "port").and_then(|field| field.port(cx));
    let protocol =
        object::required(cx, &mut fields, "protocol").and_then(|field| protocol(cx, &field));
    // An empty hostname is none.
    let hostname_field = fields.take(cx, "hostname").filter(Field::is_set);
    let hostname = hostname_field.as_ref().map(|field| names::hostname(cx, field));
    let tls_field = fields.take(cx, "tls");
    if let (Some(field), Some(ListenerProtocol::Tcp | ListenerProtocol::Udp)) =
        (&hostname_field, &protocol)
    {
        cx.report(
            field
                .error("must not be given for the protocols TCP and UDP")
                .hint("connections are told apart by port; remove it"),
        );
    }
    match (&tls_field, &protocol) {
        (Some(field), Some(protocol)) => tls(cx, field, protocol),
        (None, Some(ListenerProtocol::Tls)) => {
            cx.report(
                fields.missing("tls", "must be given, with its `mode`, for the protocol TLS"),
            );
        }
        _ => {}
    }
    let mut namespaces = Some(AllowedNamespaces::Same);
    let mut kinds = Some(Vec::new());
    if let Some(field) = fields.take(cx, "allowedRoutes")
        && let Some(mut allowed) = field.fields(cx)
    {
        if let Some(field) = allowed.take(cx, "namespaces") {
            namespaces = allowed_namespaces(cx, &field);
        }
        if let Some(field) = allowed.take(cx, "kinds") {
            kinds = route_kinds(cx, &field);
        }
        allowed.finish(cx);
    }
    fields.finish(cx);
    Some(Listener {
        span: item.node.span,
        name: name?,
        port: port?,
        protocol: protocol?,
        hostname: match hostname {
            Some(read) => Some(read?),
            None => None,
        },
        namespaces: namespaces?,
        kinds: kinds?,
    })
}

fn protocol(cx: &mut Context<'_>, field: &Field<'_>) -> Option<ListenerProtocol> {
    let text = field.string(cx)?;
    Some(match text {
        "HTTP" => ListenerProtocol::Http,
        "HTTPS" => ListenerProtocol::Https,
        "TLS" => ListenerProtocol::Tls,
        "TCP" => ListenerProtocol::Tcp,
        "UDP" => ListenerProtocol::Udp,
        _ if names::is_domain_prefixed(text) => ListenerProtocol::Other(text.to_owned()),
        // The API leaves names without a domain to itself.
        _ => {
            field.one_of(cx, PROTOCOLS)?;
            return None;
        }
    })
}

/// Checks `tls`, as far as the rest of the listener depends on it.
fn tls(cx: &mut Context<'_>, field: &Field<'_>, protocol: &ListenerProtocol) {
    use ListenerProtocol::{Http, Https, Tcp, Tls, Udp};
    if matches!(protocol, Http | Tcp | Udp) {
        cx.report(field.error("must not be given for the protocols HTTP, TCP and UDP"));
        return;
    }
    let Some(mut fields) = field.fields(cx) else { return };
    let mode_field = fields.take(cx, "mode");
    let mode = match &mode_field {
        Some(field) => field.one_of(cx, TLS_MODES),
        None if *protocol == Tls => {
            cx.report(fields.missing("mode", "must be given for the protocol TLS"));
            None
        }
        None => Some("Terminate"),
    };
    if let (Some("Passthrough"), Https, Some(field)) = (mode, protocol, &mode_field) {
        cx.report(field.error("must be Terminate for the protocol HTTPS"));
    }
    let given = ["certificateRefs", "options"]
        .map(|name| fields.take(cx, name).is_some_and(|field| field.is_set()))
        .contains(&true);
    if mode == Some("Terminate") && !given {
        cx.report(field.error("needs certificateRefs or options where the mode is Terminate"));
    }
    fields.without_effect(&["frontendValidation"]);
    fields.finish(cx);
}

fn allowed_namespaces(cx: &mut Context<'_>, field: &Field<'_>) -> Option<AllowedNamespaces> {
    let mut fields = field.fields(cx)?;
    let from = match fields.take(cx, "from") {
        Some(field) => field.one_of(cx, NAMESPACES_FROM),
        None => Some("Same"),
    };
    let selector_field = fields.take(cx, "selector");
    let selector = selector_field.as_ref().map(|field| selector::selector(cx, field));
    let read = match (from?, selector) {
        ("Selector", Some(selector)) => selector.map(AllowedNamespaces::Selector),
        ("Selector", None) => {
            cx.report(
                fields
                    .missing("selector", "must be given with `from: Selector`")
                    .hint("e.g. `selector: {matchLabels: {kubernetes.io/metadata.name: shop}}`"),
            );
            None
        }
        (from, selector) => {
            if let (Some(field), Some(_)) = (&selector_field, selector) {
                cx.report(field.warning(format!("has no effect with `from: {from}`")));
            }
            Some(if from == "All" { AllowedNamespaces::All } else { AllowedNamespaces::Same })
        }
    };
    fields.finish(cx);
    read
}

fn route_kinds(cx: &mut Context<'_>, field: &Field<'_>) -> Option<Vec<(String, String)>> {
    let items = object::items(cx, field, KINDS_MAX)?;
    let read: Vec<_> = items
        .iter()
        .map(|item| {
            let mut fields = item.fields(cx)?;
            let group = match fields.take(cx, "group") {
                Some(field) => names::group(cx, &field),
                None => Some(GROUP.to_owned()),
            };
            let kind =
                object::required(cx, &mut fields, "kind").and_then(|field| names::kind(cx, &field));
            fields.finish(cx);
            Some((group?, kind?))
        })
        .collect();
    read.into_iter().collect()
}

#[cfg(test)]
#[path = "gateway_tests.rs"]
mod tests;
