//! What rules of HTTPRoutes and GRPCRoutes have in common: names, backends with filters, timeouts,
//! retries, sessions (semantics 5.2).

use std::collections::BTreeMap;

use super::{BackendRef, ParentRef, duration, http_filter, route};
use crate::policy::{
    Diagnostic, Meta, Span,
    fields::{Context, Field, Fields},
    http_route::{
        Located, RouteFilter,
        matches::{TOKEN_CHARACTERS, is_token, repeated},
    },
    names, object,
    yaml::Value,
};

pub(in crate::policy) const HOSTNAMES_MAX: usize = 16;
pub(in crate::policy) const RULES_MAX: usize = 16;
pub(in crate::policy) const BACKENDS_MAX: usize = 16;
pub(in crate::policy) const MATCHES_MAX: usize = 64;
const MATCHES_OF_ROUTE_MAX: usize = 128;
pub(in crate::policy) const SESSION_NAME_MAX: usize = 128;
/// Status codes after which a request may be tried again.
pub(in crate::policy) const RETRIED: std::ops::Range<u16> = 400..600;
/// `sessionPersistence.type`.
pub(in crate::policy) const SESSION_TYPES: &[&str] = &["Cookie", "Header"];
/// `sessionPersistence.cookieConfig.lifetimeType`.
pub(in crate::policy) const LIFETIMES: &[&str] = &["Permanent", "Session"];

/// A route of requests: an [`HttpRoute`](super::HttpRoute) or a [`GrpcRoute`](super::GrpcRoute).
#[derive(Clone, Debug, PartialEq)]
pub struct RequestRoute<R> {
    /// Identity; its creation time orders routes whose matches are equally specific, the oldest
    /// first.
    pub meta: Meta,
    /// `spec.parentRefs`.
    pub parents: Vec<ParentRef>,
    /// `spec.hostnames`; empty: all of the listener's. `*.` may stand before one.
    pub hostnames: Vec<String>,
    /// `spec.rules` in written order.
    pub rules: Vec<R>,
}

/// What a rule is, for what holds among all rules of a route.
pub(super) trait Rule {
    /// What its requests must be.
    type Match: std::fmt::Debug;
    /// Where it stands: field path and span.
    fn place(&self) -> (&str, Span);
    /// `name`.
    fn name(&self) -> Option<&str>;
    /// `matches`.
    fn matches(&self) -> &[Located<Self::Match>];
}

/// Reads a route. `rule` reads a rule, given the route's namespace; `absent` says what no `rules`
/// mean, and reports it. `None`: there is an error.
pub(super) fn route<R: Rule>(
    cx: &mut Context<'_>,
    meta: Meta,
    root: Fields<'_>,
    rule: impl Fn(&mut Context<'_>, &Field<'_>, &str) -> Option<R>,
    absent: impl Fn(&mut Context<'_>, &Fields<'_>, Option<&Field<'_>>) -> Vec<R>,
) -> Option<RequestRoute<R>> {
    let namespace = meta.namespace.clone().unwrap_or_default();
    let mut spec = object::spec(cx, root)?;
    let parents = route::parent_refs(cx, &mut spec, &namespace);
    let hostnames = hostnames(cx, &mut spec);
    let rules_field = spec.take(cx, "rules");
    let read: Option<Vec<R>> = match &rules_field {
        Some(field) => rules(cx, field).and_then(|items| {
            let read: Vec<_> = items.iter().map(|item| rule(cx, item, &namespace)).collect();
            among(cx, &read.iter().flatten().collect::<Vec<_>>());
            read.into_iter().collect()
        }),
        None => Some(Vec::new()),
    };
    let read = match read {
        Some(read) if read.is_empty() => Some(absent(cx, &spec, rules_field.as_ref())),
        read => read,
    };
    spec.finish(cx);
    Some(RequestRoute { meta, parents: parents?, hostnames: hostnames?, rules: read? })
}

/// What holds among rules: names are unique, and of equal matches the first counts.
fn among<R: Rule>(cx: &mut Context<'_>, rules: &[&R]) {
    let mut seen: BTreeMap<&str, Span> = BTreeMap::new();
    for rule in rules {
        let (Some(name), (field, span)) = (rule.name(), rule.place()) else { continue };
        if let Some(first) = seen.insert(name, span) {
            let what = format!("rules named `{name}`");
            cx.report(object::twice(format!("{field}.name"), &what, (span, first)));
        }
    }
    let matches = rules.iter().flat_map(|rule| rule.matches());
    repeated(cx, matches.map(|one| (&*one.field, one.span, &one.value)), |first| {
        format!("never takes a request: it is the same as `{first}`, which comes first")
    });
}

/// A weighted destination of requests.
#[derive(Clone, Debug, PartialEq)]
pub struct RuleBackend {
    /// Where they go.
    pub to: BackendRef,
    /// `filters`, for the requests that go there.
    pub filters: Vec<Located<RouteFilter<BackendRef>>>,
}

/// `timeouts`, in milliseconds; 0: none. Absent: not said.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Timeouts {
    /// `request`: from the client's request to the end of the answer.
    pub request_ms: Option<u64>,
    /// `backendRequest`: of one request to a backend; not above that of the whole.
    pub backend_request_ms: Option<u64>,
}

/// `retry` (GEP-1731).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Retry {
    /// `codes`: 400 to 599.
    pub codes: Vec<u16>,
    /// `attempts`, the first one not counted.
    pub attempts: Option<u32>,
    /// `backoff`, milliseconds.
    pub backoff_ms: Option<u64>,
}

/// `sessionPersistence`. Kept and reported; not carried out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SessionPersistence {
    /// `sessionName`.
    pub name: Option<String>,
    /// `absoluteTimeout`, milliseconds.
    pub absolute_ms: Option<u64>,
    /// `idleTimeout`, milliseconds.
    pub idle_ms: Option<u64>,
    /// `type`.
    pub token: SessionToken,
}

/// What carries a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SessionToken {
    /// A cookie; a permanent one outlives the browser.
    Cookie {
        /// `cookieConfig.lifetimeType: Permanent`.
        permanent: bool,
    },
    /// A header.
    Header,
}

/// `hostnames`: exact ones, or with `*.` before them.
fn hostnames(cx: &mut Context<'_>, spec: &mut Fields<'_>) -> Option<Vec<String>> {
    let Some(field) = spec.take(cx, "hostnames") else { return Some(Vec::new()) };
    let items = object::items(cx, &field, HOSTNAMES_MAX)?;
    let read: Vec<_> = items.iter().map(|item| names::hostname(cx, item)).collect();
    read.into_iter().collect()
}

/// The items of `rules`, and what holds for all of them.
fn rules<'n>(cx: &mut Context<'_>, field: &Field<'n>) -> Option<Vec<Field<'n>>> {
    let items = object::items(cx, field, RULES_MAX)?;
    let matches = |item: &Field<'_>| {
        item.node.entry("matches").map_or(0, |list| match &list.value.value {
            Value::Sequence(items) => items.len(),
            Value::Scalar(_) | Value::Mapping(_) => 0,
        })
    };
    let sum: usize = items.iter().map(matches).sum();
    if sum > MATCHES_OF_ROUTE_MAX {
        cx.report(
            field
                .error(format!(
                    "must have at most {MATCHES_OF_ROUTE_MAX} matches in all rules, has {sum}"
                ))
                .hint("make two routes of it"),
        );
    }
    Some(items)
}

/// `matches` of a rule as items; none where it is absent.
pub(super) fn match_items<'n>(
    cx: &mut Context<'_>,
    field: Option<&Field<'n>>,
) -> Option<Vec<Field<'n>>> {
    match field {
        Some(field) => object::items(cx, field, MATCHES_MAX),
        None => Some(Vec::new()),
    }
}

/// `name` of a rule. Outer `None`: it has an error.
pub(super) fn name(cx: &mut Context<'_>, fields: &mut Fields<'_>) -> Option<Option<String>> {
    fields.optional(cx, "name", |cx, field| names::subdomain(cx, field))
}

/// `backendRefs` of a rule; none where it is absent. `types` are the filters that may stand there.
pub(super) fn backends(
    cx: &mut Context<'_>,
    field: Option<&Field<'_>>,
    types: &'static [(&'static str, &'static str)],
    prefix: Option<&str>,
    namespace: &str,
) -> Option<Vec<RuleBackend>> {
    let Some(field) = field else { return Some(Vec::new()) };
    let items = object::items(cx, field, BACKENDS_MAX)?;
    let read: Vec<Option<RuleBackend>> = items
        .iter()
        .map(|item| {
            let mut fields = item.fields(cx)?;
            let to = route::weighted(cx, item, &mut fields, namespace);
            let filters = match fields.take(cx, "filters") {
                Some(field) => http_filter::filters(cx, &field, types, prefix, namespace).filters,
                None => Some(Vec::new()),
            };
            fields.finish(cx);
            Some(RuleBackend { to: to?, filters: filters? })
        })
        .collect();
    read.into_iter().collect()
}

/// Warns where nothing can answer the requests of a rule. `answer` is what they get.
pub(super) fn without_backend(
    cx: &mut Context<'_>,
    rule: &Field<'_>,
    backends: &[RuleBackend],
    answer: &str,
) {
    let path = format!("{}.backendRefs", rule.path);
    let finding = if backends.is_empty() {
        Diagnostic::warning(path, format!("names no backend: requests are answered with {answer}"))
            .hint("name one, e.g. `backendRefs: [{name: echo, port: 80}]`")
    } else if backends.iter().all(|backend| backend.to.weight == 0) {
        Diagnostic::warning(path, format!("every weight is 0: requests are answered with {answer}"))
            .hint("give one of them a weight above 0")
    } else {
        return;
    };
    cx.report(finding.at(backends.first().map_or(rule.node.span, |backend| backend.to.span)));
}

/// `timeouts` of a rule.
pub(super) fn timeouts(cx: &mut Context<'_>, field: Option<&Field<'_>>) -> Option<Timeouts> {
    let Some(field) = field else { return Some(Timeouts::default()) };
    let mut fields = field.fields(cx)?;
    let request = fields.take(cx, "request");
    let backend = fields.take(cx, "backendRequest");
    fields.finish(cx);
    let read = |cx: &mut Context<'_>, field: &Option<Field<'_>>| match field {
        Some(field) => duration::milliseconds(cx, field).map(Some),
        None => Some(None),
    };
    let request_ms = read(cx, &request);
    let backend_request_ms = read(cx, &backend);
    if let (Some(Some(whole)), Some(Some(part)), Some(field)) =
        (request_ms, backend_request_ms, &backend)
        && whole != 0
        && part > whole
    {
        cx.report(
            field
                .error("must not be longer than `request`, which contains it")
                .hint("make it shorter, or `request` longer; 0s is none"),
        );
        return None;
    }
    Some(Timeouts { request_ms: request_ms?, backend_request_ms: backend_request_ms? })
}

/// `retry` of a rule. Outer `None`: it has an error.
pub(super) fn retry(cx: &mut Context<'_>, fields: &mut Fields<'_>) -> Option<Option<Retry>> {
    let Some(field) = fields.take(cx, "retry") else { return Some(None) };
    let mut fields = field.fields(cx)?;
    let mut codes = Some(Vec::new());
    if let Some(field) = fields.take(cx, "codes") {
        let read: Vec<Option<u16>> =
            field.items(cx)?.iter().map(|item| retried(cx, item)).collect();
        codes = read.into_iter().collect();
    }
    let attempts = fields.optional(cx, "attempts", |cx, field| field.u32(cx));
    let backoff_ms = fields.optional(cx, "backoff", |cx, field| duration::milliseconds(cx, field));
    fields.finish(cx);
    Some(Some(Retry { codes: codes?, attempts: attempts?, backoff_ms: backoff_ms? }))
}

fn retried(cx: &mut Context<'_>, field: &Field<'_>) -> Option<u16> {
    let code = field.u32(cx)?;
    let code = u16::try_from(code).ok().filter(|code| RETRIED.contains(code));
    if code.is_none() {
        cx.report(field.error("must be a status code from 400 to 599"));
    }
    code
}

/// `sessionPersistence` of a rule. Outer `None`: it has an error.
pub(super) fn session(
    cx: &mut Context<'_>,
    fields: &mut Fields<'_>,
) -> Option<Option<SessionPersistence>> {
    let Some(field) = fields.take(cx, "sessionPersistence") else { return Some(None) };
    let mut fields = field.fields(cx)?;
    let name = fields.optional(cx, "sessionName", |cx, field| session_name(cx, field));
    let durations = ["absoluteTimeout", "idleTimeout"].map(|name| match fields.take(cx, name) {
        Some(field) => duration::milliseconds(cx, &field).map(Some),
        None => Some(None),
    });
    let header = match fields.take(cx, "type") {
        Some(field) => field.one_of(cx, SESSION_TYPES).map(|kind| kind == "Header"),
        None => Some(false),
    };
    let mut permanent = Some(false);
    if let Some(field) = fields.take(cx, "cookieConfig") {
        if header == Some(true) {
            cx.report(field.error("must not be given with type Header"));
        }
        let mut fields = field.fields(cx)?;
        if let Some(field) = fields.take(cx, "lifetimeType") {
            permanent = field.one_of(cx, LIFETIMES).map(|kind| kind == "Permanent");
        }
        fields.finish(cx);
    }
    let [absolute_ms, idle_ms] = durations;
    if permanent == Some(true) && absolute_ms == Some(None) {
        cx.report(
            fields
                .missing("absoluteTimeout", "must be given for a permanent cookie")
                .hint("it is how long the cookie is kept"),
        );
        return None;
    }
    fields.finish(cx);
    cx.report(unsupported(
        &field,
        "`sessionPersistence` is not carried out: requests of a session go to any backend",
    ));
    let token =
        if header? { SessionToken::Header } else { SessionToken::Cookie { permanent: permanent? } };
    let (name, absolute_ms, idle_ms) = (name?, absolute_ms?, idle_ms?);
    Some(Some(SessionPersistence { name, absolute_ms, idle_ms, token }))
}

fn session_name(cx: &mut Context<'_>, field: &Field<'_>) -> Option<String> {
    let text = field.string(cx)?;
    if text.len() > SESSION_NAME_MAX || !is_token(text) {
        cx.report(field.error(format!(
            "must be the name of a cookie or header: 1 to {SESSION_NAME_MAX} {TOKEN_CHARACTERS}"
        )));
        return None;
    }
    Some(text.to_owned())
}

fn unsupported(field: &Field<'_>, message: &str) -> Diagnostic {
    Diagnostic::warning(field.path.clone(), message).at(field.key_span)
}
