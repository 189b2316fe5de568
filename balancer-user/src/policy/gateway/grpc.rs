//! `GRPCRoute` (semantics 5.7).

use super::{
    BackendRef,
    http_filter::{self, GRPC_TYPES},
    http_match,
    rule::{self, RequestRoute, Rule, RuleBackend, SessionPersistence},
};
use crate::policy::{
    Meta, Span,
    fields::{Context, Field, Fields},
    http_route::{
        HeaderMatch, Located, RouteFilter, TextMatch,
        matches::{TEXT_TYPES, text_match},
    },
};

pub(in crate::policy) const NAME_BYTES_MAX: usize = 1024;

/// `GRPCRoute`. Without a rule every call is answered with UNIMPLEMENTED.
pub type GrpcRoute = RequestRoute<GrpcRule>;

/// One item of `rules`.
#[derive(Clone, Debug, PartialEq)]
pub struct GrpcRule {
    /// Where it stands.
    pub span: Span,
    /// Its field path: `spec.rules[0]`.
    pub field: String,
    /// `name`, unique in its route.
    pub name: Option<String>,
    /// `matches`: any of them. One at least; one without anything takes every request.
    pub matches: Vec<Located<GrpcMatch>>,
    /// `filters` in written order: no redirection, rewriting or CORS.
    pub filters: Vec<Located<RouteFilter<BackendRef>>>,
    /// `backendRefs`. Empty: requests are answered with UNAVAILABLE.
    pub backends: Vec<RuleBackend>,
    /// `sessionPersistence`.
    pub session: Option<SessionPersistence>,
}

/// What a request must be. Every part that is given must hold. Its path is `/<service>/<method>`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct GrpcMatch {
    /// `method.service`: the service with its package, e.g. `shop.Catalog`.
    pub service: Option<TextMatch>,
    /// `method.method`.
    pub method: Option<TextMatch>,
    /// `headers`: names in lower case, each once.
    pub headers: Vec<HeaderMatch>,
}

impl Rule for GrpcRule {
    type Match = GrpcMatch;

    fn place(&self) -> (&str, Span) {
        (&self.field, self.span)
    }

    fn name(&self) -> Option<&str> {
        self.name.as_deref()
    }

    fn matches(&self) -> &[Located<GrpcMatch>] {
        &self.matches
    }
}

/// Reads a GRPCRoute. `None`: it has an error.
pub(in crate::policy) fn grpc_route(
    cx: &mut Context<'_>,
    meta: Meta,
    root: Fields<'_>,
) -> Option<GrpcRoute> {
    rule::route(cx, meta, root, rule, |cx, spec, written| {
        let message = "has no rule: every request is answered with UNIMPLEMENTED";
        cx.report(match written {
            Some(field) => field.warning(message),
            None => spec.missing_warning("rules", message),
        });
        Vec::new()
    })
}

fn rule(cx: &mut Context<'_>, item: &Field<'_>, namespace: &str) -> Option<GrpcRule> {
    let mut fields = item.fields(cx)?;
    let name = rule::name(cx, &mut fields);
    let matches_field = fields.take(cx, "matches");
    let matches = matches(cx, item, matches_field.as_ref());
    let filters = match fields.take(cx, "filters") {
        Some(field) => http_filter::filters(cx, &field, GRPC_TYPES, None, namespace).filters,
        None => Some(Vec::new()),
    };
    let backends_field = fields.take(cx, "backendRefs");
    let backends = rule::backends(cx, backends_field.as_ref(), GRPC_TYPES, None, namespace);
    let session = rule::session(cx, &mut fields);
    fields.finish(cx);
    if let Some(backends) = &backends {
        rule::without_backend(cx, item, backends, "UNAVAILABLE");
    }
    Some(GrpcRule {
        span: item.node.span,
        field: item.path.clone(),
        name: name?,
        matches: matches?,
        filters: filters?,
        backends: backends?,
        session: session?,
    })
}

fn matches(
    cx: &mut Context<'_>,
    rule: &Field<'_>,
    field: Option<&Field<'_>>,
) -> Option<Vec<Located<GrpcMatch>>> {
    let items = rule::match_items(cx, field)?;
    if items.is_empty() {
        let path = format!("{}.matches", rule.path);
        let value = GrpcMatch::default();
        return Some(vec![Located { span: rule.node.span, field: path, value }]);
    }
    let read: Vec<_> = items.iter().map(|item| one(cx, item)).collect();
    read.into_iter().collect()
}

fn one(cx: &mut Context<'_>, item: &Field<'_>) -> Option<Located<GrpcMatch>> {
    let mut fields = item.fields(cx)?;
    let called = match fields.take(cx, "method") {
        Some(field) => called(cx, &field),
        None => Some((None, None)),
    };
    let headers = match fields.take(cx, "headers") {
        Some(field) => http_match::headers(cx, &field),
        None => Some(Vec::new()),
    };
    fields.finish(cx);
    let (service, method) = called?;
    let value = GrpcMatch { service, method, headers: headers? };
    Some(Located { span: item.node.span, field: item.path.clone(), value })
}

/// `method`: the service and the method, one of them at least.
fn called(
    cx: &mut Context<'_>,
    field: &Field<'_>,
) -> Option<(Option<TextMatch>, Option<TextMatch>)> {
    let mut fields = field.fields(cx)?;
    let kind = match fields.take(cx, "type") {
        Some(field) => field.one_of(cx, TEXT_TYPES),
        None => Some("Exact"),
    };
    // An empty one is none.
    let service = fields.take(cx, "service").filter(Field::is_set);
    let method = fields.take(cx, "method").filter(Field::is_set);
    fields.finish(cx);
    if service.is_none() && method.is_none() {
        cx.report(
            field
                .error("must have a `service` or a `method`")
                .hint("leave it out to match every request"),
        );
        return None;
    }
    let kind = kind?;
    let service = part(cx, kind, service.as_ref(), is_service, "a service, e.g. shop.Catalog");
    let method = part(cx, kind, method.as_ref(), is_identifier, "a method, e.g. Get");
    Some((service?, method?))
}

fn part(
    cx: &mut Context<'_>,
    kind: &str,
    field: Option<&Field<'_>>,
    is_right: impl Fn(&str) -> bool,
    what: &str,
) -> Option<Option<TextMatch>> {
    let Some(field) = field else { return Some(None) };
    let text = field.string(cx)?;
    if text.len() > NAME_BYTES_MAX {
        let found = text.len();
        cx.report(field.error(format!("must have at most {NAME_BYTES_MAX} bytes, has {found}")));
        return None;
    }
    if kind == "Exact" && !is_right(text) {
        cx.report(
            field.error(format!("is no name of {what}: letters, digits and '_', no digit first")),
        );
        return None;
    }
    text_match(cx, kind, field).map(Some)
}

/// A name of the protocol buffers' language, without dots.
fn is_identifier(text: &str) -> bool {
    let letter = |byte: u8| byte.is_ascii_alphabetic() || byte == b'_';
    text.bytes().next().is_some_and(letter)
        && text.bytes().all(|byte| letter(byte) || byte.is_ascii_digit())
}

/// The same with dots between, and perhaps one before.
fn is_service(text: &str) -> bool {
    text.strip_prefix('.').unwrap_or(text).split('.').all(is_identifier)
}

#[cfg(test)]
#[path = "grpc_tests.rs"]
mod tests;
