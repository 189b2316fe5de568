//! `rules[].default.filters` of a MeshHTTPRoute (semantics 4.5).

use super::{
    super::{
        Api, Diagnostic,
        envelope::only,
        fields::{Context, Field},
        http_route::{
            HostChange, Located, Mirror, RouteFilter, UrlRewrite,
            filters::{Typed, header_modifier, hostname, path_modifier, redirect, typed},
            matches::{Family, decimal},
        },
        object,
    },
    BackendRef, backend,
};

/// The types, and the field of each.
pub(in super::super) const TYPES: &[(&str, &str)] = &[
    ("RequestHeaderModifier", "requestHeaderModifier"),
    ("ResponseHeaderModifier", "responseHeaderModifier"),
    ("RequestRedirect", "requestRedirect"),
    ("URLRewrite", "urlRewrite"),
    ("RequestMirror", "requestMirror"),
];

type Filter = Located<RouteFilter<BackendRef>>;

/// What became of the list.
pub(super) struct Read {
    /// `None`: it has an error.
    pub(super) filters: Option<Vec<Filter>>,
    /// One of them is written as a redirection, right or wrong otherwise.
    pub(super) redirects: bool,
}

/// Reads the list. `prefixes`: all matches of the rule are of prefixes.
pub(super) fn filters(
    cx: &mut Context<'_>,
    field: &Field<'_>,
    prefixes: bool,
    gateway: bool,
) -> Read {
    let Some(items) = field.items(cx) else { return Read { filters: None, redirects: false } };
    let redirects = items.iter().any(|item| {
        item.node.entry("type").is_some_and(|kind| kind.value.is_text("RequestRedirect"))
    });
    let read: Vec<Option<Filter>> = items
        .iter()
        .map(|item| {
            let value = filter(cx, item, prefixes, gateway)?;
            Some(Located { span: item.node.span, field: item.path.clone(), value })
        })
        .collect();
    after_redirect(cx, &read);
    Read { filters: read.into_iter().collect(), redirects }
}

/// A redirection is the answer: what comes after it and changes or copies the request would not
/// be done. Kuma reads it and fails where it makes the configuration of proxies.
fn after_redirect(cx: &mut Context<'_>, read: &[Option<Filter>]) {
    let mut all = read.iter().flatten();
    let redirect = all.find(|filter| matches!(filter.value, RouteFilter::Redirect(_)));
    let Some(redirect) = redirect else { return };
    for filter in all {
        let message = match filter.value {
            RouteFilter::Rewrite(_) => "cannot rewrite a request that is redirected before",
            RouteFilter::Mirror(_) => "cannot mirror a request that is redirected before",
            RouteFilter::Redirect(_) => "cannot redirect a request that is redirected before",
            _ => continue,
        };
        cx.report_unless_exact(
            Diagnostic::error(filter.field.clone(), message)
                .at(filter.span)
                .related(redirect.span, "it is redirected here")
                .hint("keep one of them"),
        );
    }
}

fn filter(
    cx: &mut Context<'_>,
    item: &Field<'_>,
    prefixes: bool,
    gateway: bool,
) -> Option<RouteFilter<BackendRef>> {
    let Typed { name, body } = typed(cx, item, TYPES, Family::Mesh)?;
    let prefix = (!prefixes).then_some("can only appear if all matches match a path prefix");
    match name {
        "RequestHeaderModifier" => {
            header_modifier(cx, &body, Family::Mesh).map(RouteFilter::RequestHeaders)
        }
        "ResponseHeaderModifier" => {
            header_modifier(cx, &body, Family::Mesh).map(RouteFilter::ResponseHeaders)
        }
        "RequestRedirect" => redirect(cx, &body, prefix).map(RouteFilter::Redirect),
        "URLRewrite" => rewrite(cx, &body, prefix, gateway).map(RouteFilter::Rewrite),
        _ => mirror(cx, &body).map(RouteFilter::Mirror),
    }
}

fn rewrite(
    cx: &mut Context<'_>,
    field: &Field<'_>,
    prefix: Option<&str>,
    gateway: bool,
) -> Option<UrlRewrite> {
    let mut fields = field.fields(cx)?;
    let hostname = hostname(cx, &mut fields);
    let path = fields.optional(cx, "path", |cx, field| path_modifier(cx, field, prefix));
    let errors_before = cx.errors();
    let mut backend = false;
    if let Some(field) = fields.take(cx, "hostToBackendHostname")
        && field.boolean(cx) == Some(true)
    {
        backend = true;
        if !gateway {
            cx.report(field.error(if only(cx.options, &[Api::Kuma3]) {
                "must not be set"
            } else {
                "can only be set with MeshGateway"
            }));
        }
        if !matches!(hostname, Some(None)) {
            cx.report(field.error("cannot be set together with hostname"));
        }
    }
    fields.finish(cx);
    let (hostname, path) = (hostname?, path?);
    if hostname.is_none() && path.is_none() && !backend {
        cx.report(field.warning("changes nothing"));
    }
    let host = if backend { Some(HostChange::Backend) } else { hostname.map(HostChange::To) };
    (cx.errors() == errors_before).then_some(UrlRewrite { host, path })
}

fn mirror(cx: &mut Context<'_>, field: &Field<'_>) -> Option<Mirror<BackendRef>> {
    let mut fields = field.fields(cx)?;
    let share = match fields.take(cx, "percentage") {
        Some(field) => percentage(cx, &field),
        None => Some(1.0),
    };
    let backend = object::required(cx, &mut fields, "backendRef")
        .and_then(|field| backend::mirrored(cx, &field));
    fields.finish(cx);
    Some(Mirror { backend: backend?, share: share? })
}

fn percentage(cx: &mut Context<'_>, field: &Field<'_>) -> Option<f64> {
    let percent = decimal(cx, field)?;
    if !(0.0..=100.0).contains(&percent) {
        // Kuma leaves it to the proxy, which takes no more than all.
        cx.report_unless_exact(field.error("must be from 0 to 100"));
        return Some(percent.clamp(0.0, 100.0) / 100.0);
    }
    Some(percent / 100.0)
}

#[cfg(test)]
#[path = "../mesh_http_filter_tests.rs"]
mod tests;
