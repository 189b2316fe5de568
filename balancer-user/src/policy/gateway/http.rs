//! `HTTPRoute` (semantics 5.1 to 5.5).

use super::{
    BackendRef,
    http_filter::{self, HTTP_TYPES},
    http_match,
    rule::{self, RequestRoute, Retry, Rule, RuleBackend, SessionPersistence, Timeouts},
};
use crate::policy::{
    Diagnostic, Meta, Span,
    fields::{Context, Field, Fields},
    http_route::{Located, PathMatch, RequestMatch, RouteFilter},
};

/// `HTTPRoute`. Where `rules` is absent, it has one that takes every request.
pub type HttpRoute = RequestRoute<HttpRule>;

/// One item of `rules`.
#[derive(Clone, Debug, PartialEq)]
pub struct HttpRule {
    /// Where it stands.
    pub span: Span,
    /// Its field path: `spec.rules[0]`.
    pub field: String,
    /// `name`, unique in its route.
    pub name: Option<String>,
    /// `matches`: any of them, each with a path.
    pub matches: Vec<Located<RequestMatch>>,
    /// `filters` in written order.
    pub filters: Vec<Located<RouteFilter<BackendRef>>>,
    /// `backendRefs`. Empty: requests are answered with 500, if no filter redirects them.
    pub backends: Vec<RuleBackend>,
    /// `timeouts`.
    pub timeouts: Timeouts,
    /// `retry`.
    pub retry: Option<Retry>,
    /// `sessionPersistence`.
    pub session: Option<SessionPersistence>,
}

impl Rule for HttpRule {
    type Match = RequestMatch;

    fn place(&self) -> (&str, Span) {
        (&self.field, self.span)
    }

    fn name(&self) -> Option<&str> {
        self.name.as_deref()
    }

    fn matches(&self) -> &[Located<RequestMatch>] {
        &self.matches
    }
}

/// Reads an HTTPRoute. `None`: it has an error.
pub(in crate::policy) fn http_route(
    cx: &mut Context<'_>,
    meta: Meta,
    root: Fields<'_>,
) -> Option<HttpRoute> {
    rule::route(cx, meta, root, rule, |cx, spec, written| {
        if let Some(field) = written {
            cx.report(field.warning("has no rule: every request is answered with 404"));
            return Vec::new();
        }
        cx.report(
            spec.missing_warning(
                "rules",
                "not given: every request is taken and answered with 500",
            ),
        );
        vec![every_request(spec.span)]
    })
}

/// What the API puts in place of absent rules.
fn every_request(span: Span) -> HttpRule {
    HttpRule {
        span,
        field: "spec.rules".to_owned(),
        name: None,
        matches: vec![Located {
            span,
            field: "spec.rules".to_owned(),
            value: http_match::every_path(),
        }],
        filters: Vec::new(),
        backends: Vec::new(),
        timeouts: Timeouts::default(),
        retry: None,
        session: None,
    }
}

fn rule(cx: &mut Context<'_>, item: &Field<'_>, namespace: &str) -> Option<HttpRule> {
    let mut fields = item.fields(cx)?;
    let name = rule::name(cx, &mut fields);
    let matches_field = fields.take(cx, "matches");
    let filters_field = fields.take(cx, "filters");
    let backends_field = fields.take(cx, "backendRefs");
    let timeouts_field = fields.take(cx, "timeouts");
    let retry = rule::retry(cx, &mut fields);
    let session = rule::session(cx, &mut fields);
    fields.finish(cx);

    let matches = http_match::matches(cx, item, matches_field.as_ref());
    let one_prefix = matches.as_ref().is_none_or(|matches| {
        matches!(&matches[..], [one] if matches!(one.value.path, Some(PathMatch::Prefix(_))))
    });
    let prefix =
        (!one_prefix).then_some("needs exactly one match in the rule, and that of a PathPrefix");
    let filters = match &filters_field {
        Some(field) => http_filter::filters(cx, field, HTTP_TYPES, prefix, namespace),
        None => http_filter::Read { filters: Some(Vec::new()), redirect: None },
    };
    let backends = rule::backends(cx, backends_field.as_ref(), HTTP_TYPES, prefix, namespace);
    let timeouts = rule::timeouts(cx, timeouts_field.as_ref());
    match (&filters.redirect, &backends_field, &backends) {
        (Some(redirect), Some(backends), _) if backends.is_set() => cx.report(
            Diagnostic::error(
                backends.path.clone(),
                "must not be given with a filter of type RequestRedirect",
            )
            .at(backends.key_span)
            .related(*redirect, "requests are redirected here")
            .hint("remove them, or the filter"),
        ),
        (None, _, Some(backends)) if filters.filters.is_some() => {
            rule::without_backend(cx, item, backends, "500");
        }
        _ => {}
    }
    Some(HttpRule {
        span: item.node.span,
        field: item.path.clone(),
        name: name?,
        matches: matches?,
        filters: filters.filters?,
        backends: backends?,
        timeouts: timeouts?,
        retry: retry?,
        session: session?,
    })
}

#[cfg(test)]
#[path = "http_tests.rs"]
mod tests;
