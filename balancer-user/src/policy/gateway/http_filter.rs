//! Filters of HTTPRoutes and GRPCRoutes, of rules and of backends (semantics 5.5).

use super::{BackendRef, route};
use crate::policy::{
    Diagnostic, Span,
    fields::{Context, Field, Fields},
    http_route::{
        Cors, HostChange, Located, Method, Mirror, RouteFilter, UrlRewrite,
        filters::{Typed, header_modifier, hostname, path_modifier, redirect, typed},
        matches::{Family, header_name},
    },
    names, object,
};

/// Filters of HTTPRoutes, and the field of each.
pub(in crate::policy) const HTTP_TYPES: &[(&str, &str)] = &[
    ("RequestHeaderModifier", "requestHeaderModifier"),
    ("ResponseHeaderModifier", "responseHeaderModifier"),
    ("RequestMirror", "requestMirror"),
    ("RequestRedirect", "requestRedirect"),
    ("URLRewrite", "urlRewrite"),
    ("CORS", "cors"),
    ("ExternalAuth", "externalAuth"),
    ("ExtensionRef", "extensionRef"),
];
/// The same of GRPCRoutes.
pub(in crate::policy) const GRPC_TYPES: &[(&str, &str)] = &[
    ("RequestHeaderModifier", "requestHeaderModifier"),
    ("ResponseHeaderModifier", "responseHeaderModifier"),
    ("RequestMirror", "requestMirror"),
    ("ExtensionRef", "extensionRef"),
];
/// Those that may stand in a list more than once.
const REPEATABLE: [&str; 2] = ["RequestMirror", "ExtensionRef"];

pub(in crate::policy) const FILTERS_MAX: usize = 16;
pub(in crate::policy) const ORIGINS_MAX: usize = 64;
pub(in crate::policy) const METHODS_MAX: usize = 9;
pub(in crate::policy) const HEADERS_MAX: usize = 64;
/// How long an answer to a preflight may be kept where nothing is said.
pub(in crate::policy) const MAX_AGE_SECONDS: u32 = 5;

type Filter = Located<RouteFilter<BackendRef>>;

/// What became of a list.
pub(super) struct Read {
    /// `None`: it has an error.
    pub(super) filters: Option<Vec<Filter>>,
    /// Where one of them is written as a redirection, right or wrong otherwise.
    pub(super) redirect: Option<Span>,
}

/// Reads a list. `prefix` says what is wrong with replacing a prefix here, if anything is.
pub(super) fn filters(
    cx: &mut Context<'_>,
    field: &Field<'_>,
    types: &'static [(&'static str, &'static str)],
    prefix: Option<&str>,
    namespace: &str,
) -> Read {
    let Some(items) = object::items(cx, field, FILTERS_MAX) else {
        return Read { filters: None, redirect: None };
    };
    let place = |name: &str| {
        let is = |item: &&Field<'_>| {
            item.node.entry("type").is_some_and(|kind| kind.value.is_text(name))
        };
        items.iter().find(is).map(|item| item.node.span)
    };
    let redirect = place("RequestRedirect");
    if let (Some(redirect), Some(rewrite)) = (redirect, place("URLRewrite")) {
        cx.report(
            field
                .error("must not have both RequestRedirect and URLRewrite")
                .related(redirect.max(rewrite), "the second of them is here")
                .hint("a redirection has a `path` and a `hostname` of its own"),
        );
    }
    for (name, _) in types.iter().filter(|(name, _)| !REPEATABLE.contains(name)) {
        let mut of_type = items
            .iter()
            .filter(|item| item.node.entry("type").is_some_and(|kind| kind.value.is_text(name)));
        if let (Some(first), Some(second)) = (of_type.next(), of_type.next()) {
            let spans = (second.node.span, first.node.span);
            cx.report(
                object::twice(second.path.clone(), &format!("filters of type {name}"), spans)
                    .hint("put everything into one of them"),
            );
        }
    }
    let read: Vec<Option<Filter>> = items
        .iter()
        .map(|item| {
            let value = filter(cx, item, types, prefix, namespace)?;
            Some(Located { span: item.node.span, field: item.path.clone(), value })
        })
        .collect();
    Read { filters: read.into_iter().collect(), redirect }
}

fn filter(
    cx: &mut Context<'_>,
    item: &Field<'_>,
    types: &'static [(&'static str, &'static str)],
    prefix: Option<&str>,
    namespace: &str,
) -> Option<RouteFilter<BackendRef>> {
    let Typed { name, body } = typed(cx, item, types, Family::Gateway)?;
    match name {
        "RequestHeaderModifier" => {
            header_modifier(cx, &body, Family::Gateway).map(RouteFilter::RequestHeaders)
        }
        "ResponseHeaderModifier" => {
            header_modifier(cx, &body, Family::Gateway).map(RouteFilter::ResponseHeaders)
        }
        "RequestRedirect" => redirect(cx, &body, prefix).map(RouteFilter::Redirect),
        "URLRewrite" => rewrite(cx, &body, prefix).map(RouteFilter::Rewrite),
        "RequestMirror" => mirror(cx, &body, namespace).map(RouteFilter::Mirror),
        "CORS" => cors(cx, &body).map(RouteFilter::Cors),
        "ExtensionRef" => extension(cx, &body).map(RouteFilter::Unsupported),
        _ => {
            // Of the experimental channel: its fields may still change.
            body.fields(cx)?;
            unsupported(cx, &body, name);
            Some(RouteFilter::Unsupported(name.to_owned()))
        }
    }
}

fn unsupported(cx: &mut Context<'_>, body: &Field<'_>, what: &str) {
    cx.report(body.warning(format!(
        "{what} is not carried out: requests that it concerns are answered with 500"
    )));
}

fn rewrite(cx: &mut Context<'_>, field: &Field<'_>, prefix: Option<&str>) -> Option<UrlRewrite> {
    let mut fields = field.fields(cx)?;
    let hostname = hostname(cx, &mut fields);
    let path = fields.optional(cx, "path", |cx, field| path_modifier(cx, field, prefix));
    fields.finish(cx);
    let (hostname, path) = (hostname?, path?);
    if hostname.is_none() && path.is_none() {
        cx.report(field.warning("changes nothing"));
    }
    Some(UrlRewrite { host: hostname.map(HostChange::To), path })
}

fn extension(cx: &mut Context<'_>, field: &Field<'_>) -> Option<String> {
    let mut fields = field.fields(cx)?;
    let group =
        object::required(cx, &mut fields, "group").and_then(|field| names::group(cx, &field));
    let kind = object::required(cx, &mut fields, "kind").and_then(|field| names::kind(cx, &field));
    let name =
        object::required(cx, &mut fields, "name").and_then(|field| names::subdomain(cx, &field));
    fields.finish(cx);
    let what = format!("{}.{}/{}", kind?, group?, name?);
    unsupported(cx, field, &format!("the extension {what}"));
    Some(what)
}

fn mirror(cx: &mut Context<'_>, field: &Field<'_>, namespace: &str) -> Option<Mirror<BackendRef>> {
    let mut fields = field.fields(cx)?;
    let backend = object::required(cx, &mut fields, "backendRef").and_then(|field| {
        let mut fields = field.fields(cx)?;
        let backend = route::object_ref(cx, &field, &mut fields, namespace);
        fields.finish(cx);
        backend
    });
    let percent = fields.take(cx, "percent");
    let fraction = fields.take(cx, "fraction");
    fields.finish(cx);
    if let (Some(percent), Some(fraction)) = (&percent, &fraction) {
        cx.report(
            Diagnostic::error(fraction.path.clone(), "must not be given together with `percent`")
                .at(fraction.key_span)
                .related(percent.key_span, "`percent` is here")
                .hint("keep one of them"),
        );
        return None;
    }
    let share = match (&percent, &fraction) {
        (Some(field), _) => {
            let percent = field.u32(cx)?;
            if percent > 100 {
                cx.report(field.error(format!("must be from 0 to 100, is {percent}")));
                return None;
            }
            f64::from(percent) / 100.0
        }
        (None, Some(field)) => part(cx, field)?,
        (None, None) => 1.0,
    };
    Some(Mirror { backend: backend?, share })
}

/// `fraction`: numerator and denominator, 100 where absent.
fn part(cx: &mut Context<'_>, field: &Field<'_>) -> Option<f64> {
    let mut fields = field.fields(cx)?;
    let numerator = object::required(cx, &mut fields, "numerator");
    let denominator = fields.take(cx, "denominator");
    fields.finish(cx);
    let numerator = numerator?.u32(cx);
    let below = match &denominator {
        Some(field) => {
            let read = field.u32(cx)?;
            if read == 0 {
                cx.report(field.error("must be at least 1"));
                return None;
            }
            read
        }
        None => 100,
    };
    let numerator = numerator?;
    if numerator > below {
        cx.report(field.error(format!("{numerator} of {below} are more than all")));
        return None;
    }
    Some(f64::from(numerator) / f64::from(below))
}

fn cors(cx: &mut Context<'_>, field: &Field<'_>) -> Option<Cors> {
    let mut fields = field.fields(cx)?;
    let origins = list(cx, &mut fields, "allowOrigins", ORIGINS_MAX, origin);
    let methods = list(cx, &mut fields, "allowMethods", METHODS_MAX, |cx, field| {
        if field.node.is_text("*") {
            return Some("*".to_owned());
        }
        field.one_of(cx, Method::NAMES).map(str::to_owned)
    });
    let headers = list(cx, &mut fields, "allowHeaders", HEADERS_MAX, name);
    let exposed = list(cx, &mut fields, "exposeHeaders", HEADERS_MAX, name);
    let credentials = match fields.take(cx, "allowCredentials") {
        Some(field) => field.boolean(cx),
        None => Some(false),
    };
    let max_age_seconds = match fields.take(cx, "maxAge") {
        Some(field) => {
            let seconds = field.u32(cx)?;
            if seconds == 0 {
                cx.report(field.error("must be at least 1"));
            }
            (seconds > 0).then_some(seconds)
        }
        None => Some(MAX_AGE_SECONDS),
    };
    fields.finish(cx);
    if origins.as_ref().is_some_and(Vec::is_empty) {
        cx.report(
            field
                .warning("allows no origin: browsers refuse what other pages ask for")
                .hint("e.g. `allowOrigins: ['https://*.example.com']`"),
        );
    }
    Some(Cors {
        origins: origins?,
        methods: methods?,
        headers: headers?,
        exposed: exposed?,
        credentials: credentials?,
        max_age_seconds: max_age_seconds?,
    })
}

/// A list of different words, in which `*` stands alone.
fn list(
    cx: &mut Context<'_>,
    fields: &mut Fields<'_>,
    name: &'static str,
    most: usize,
    one: impl Fn(&mut Context<'_>, &Field<'_>) -> Option<String>,
) -> Option<Vec<String>> {
    let Some(field) = fields.take(cx, name) else { return Some(Vec::new()) };
    let items = object::items(cx, &field, most)?;
    let read: Vec<Option<String>> = items.iter().map(|item| one(cx, item)).collect();
    let read: Vec<String> = read.into_iter().collect::<Option<_>>()?;
    if read.len() > 1 && read.iter().any(|word| word == "*") {
        cx.report(
            field
                .error("must not have `*` beside others")
                .hint("`*` stands for all: leave it alone"),
        );
        return None;
    }
    for (at, word) in read.iter().enumerate() {
        if let Some(first) = read[..at].iter().position(|other| other == word) {
            let spans = (items[at].node.span, items[first].node.span);
            cx.report(object::twice(items[at].path.clone(), &format!("entries `{word}`"), spans));
            return None;
        }
    }
    Some(read)
}

fn name(cx: &mut Context<'_>, field: &Field<'_>) -> Option<String> {
    header_name(cx, field, Family::Gateway)
}

/// `<scheme>://<host>[:<port>]`, where the host may begin with `*`; or `*`.
fn origin(cx: &mut Context<'_>, field: &Field<'_>) -> Option<String> {
    let text = field.string(cx)?;
    if !is_origin(text) {
        cx.report(
            field
                .error("is no origin: a scheme, `://`, a host and perhaps `:` and a port")
                .hint("e.g. https://www.example.com, https://*.example.com:8443, or `*` for all; no path and no slash at the end"),
        );
        return None;
    }
    Some(text.to_owned())
}

fn is_origin(text: &str) -> bool {
    if text == "*" {
        return true;
    }
    let Some((scheme, authority)) = text.split_once("://") else { return false };
    let (host, port) = match authority.rsplit_once(':') {
        // Colons within brackets are those of an IPv6 address.
        Some((host, port)) if !port.contains(']') => (host, Some(port)),
        _ => (authority, None),
    };
    let is_scheme = scheme.bytes().next().is_some_and(|byte| byte.is_ascii_alphabetic())
        && scheme.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"+-.".contains(&byte));
    let is_port = port.is_none_or(|port| port.parse::<std::num::NonZeroU16>().is_ok());
    let bare = host.strip_prefix("*.").unwrap_or(host);
    let bracketed = bare.strip_prefix('[').and_then(|bare| bare.strip_suffix(']'));
    let is_host = match bracketed {
        Some(address) => address.parse::<std::net::Ipv6Addr>().is_ok(),
        None => {
            bare == "*"
                || (!bare.is_empty()
                    && bare
                        .bytes()
                        .all(|byte| byte.is_ascii_alphanumeric() || b"-.".contains(&byte)))
        }
    };
    is_scheme && is_port && is_host
}

#[cfg(test)]
#[path = "http_filter_tests.rs"]
mod tests;
