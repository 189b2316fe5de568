//! What a rule does with the requests that it takes, in one line for each thing.
//!
//! Two rules with the same lines do the same, so that sets can be compared by them.

use ::http::StatusCode;

use super::{
    cors::{Cors, Origin},
    filter::{Filter, HeaderChange, HeaderChanges, Mirror, Share},
    key::{KeyOf, KeyPolicy},
    redirect::{PortElse, Redirect},
    retry::Retry,
    rewrite::{HostRewrite, PathRewrite},
    rule::{Rule, Timeouts},
    split::Destination,
};

impl Rule {
    /// Filters in written order, then time limits, tries, and what keeps requests together; without
    /// those of single backends. `name` says what a mirror leads to.
    pub fn words(&self, name: impl Fn(Destination) -> String) -> Vec<String> {
        let filters = self.filters.iter().map(|filter| filter.words(&name));
        let keys = self.keys.iter().map(KeyPolicy::words);
        let retry = self.retry.iter().map(Retry::words);
        filters.chain(self.timeouts.words()).chain(retry).chain(keys).collect()
    }
}

impl Filter {
    /// What it does. `name` says what a mirror leads to.
    pub fn words(&self, name: impl Fn(Destination) -> String) -> String {
        match self {
            Self::RequestHeaders(changes) => format!("request headers: {}", listed(changes)),
            Self::ResponseHeaders(changes) => format!("response headers: {}", listed(changes)),
            Self::Path(rewrite) => format!("path: {}", path(rewrite)),
            Self::Host(HostRewrite::Value(host)) => format!("host: becomes `{}`", host.as_str()),
            Self::Host(HostRewrite::FromPath(from)) => format!(
                "host: the path with every match of `{}` replaced by `{}`, if a host comes of it",
                from.pattern(),
                from.replacement()
            ),
            Self::Host(HostRewrite::OfEndpoint) => "host: becomes that of the endpoint".to_owned(),
            Self::Redirect(to) => format!("redirect: {}", redirect(to)),
            Self::Mirror(Mirror { destination, share, shadow }) => {
                let of = if *share == Share::ALL {
                    "every request".to_owned()
                } else {
                    format!("{} % of the requests", share.as_f64() * 100.0)
                };
                let shadow = if *shadow { ", with -shadow behind its host" } else { "" };
                format!("mirror: a copy of {of} goes to {}{shadow}", name(*destination))
            }
            Self::Cors(allowed) => format!("CORS: {}", cors(allowed)),
            Self::Respond(status) => format!("answer: {}", status.as_u16()),
        }
    }
}

fn listed(changes: &HeaderChanges) -> String {
    let value =
        |value: &::http::HeaderValue| String::from_utf8_lossy(value.as_bytes()).into_owned();
    let one = |change: &HeaderChange| match change {
        HeaderChange::Remove(name) => format!("{name} is removed"),
        HeaderChange::Set(name, to) => format!("{name} becomes `{}`", value(to)),
        HeaderChange::Append(name, more) => format!("{name} gets `{}` too", value(more)),
    };
    changes.iter().map(one).collect::<Vec<_>>().join(", ")
}

fn path(rewrite: &PathRewrite) -> String {
    match rewrite {
        PathRewrite::Full(full) => format!("becomes `{full}`"),
        PathRewrite::Segments(to) => format!("the matched segments become `{to}`"),
        PathRewrite::Bytes(to) => format!("the matched bytes become `{to}`"),
        PathRewrite::Regex(by) => {
            format!("every match of `{}` becomes `{}`", by.pattern(), by.replacement())
        }
    }
}

fn redirect(redirect: &Redirect) -> String {
    let Redirect { scheme, host, port, port_else, path: other, status } = redirect;
    let parts = [
        scheme.map(|scheme| format!("scheme {scheme}")),
        host.as_ref().map(|host| format!("host `{}`", host.as_str())),
        Some(match (port, port_else) {
            (Some(port), _) => format!("port {port}"),
            (None, PortElse::Listener) => "the port of the scheme or the listener".to_owned(),
            (None, PortElse::Request) => "the port of the request".to_owned(),
        }),
        other.as_ref().map(|rewrite| format!("path: {}", path(rewrite))),
    ];
    let parts: Vec<String> = parts.into_iter().flatten().collect();
    format!("{} with {}", status.as_u16(), parts.join(", "))
}

fn cors(cors: &Cors) -> String {
    let origin = |origin: &Origin| match origin {
        Origin::Any => "*".to_owned(),
        Origin::Exact(origin) => origin.clone(),
        Origin::Below { scheme, end } => format!("{scheme}*{end}"),
    };
    let origins: Vec<String> = cors.origins.iter().map(origin).collect();
    let mut words = format!("scripts of {} may ask", origins.join(", "));
    for (what, names) in [
        ("methods", &cors.methods),
        ("headers", &cors.headers),
        ("headers of answers", &cors.expose),
    ] {
        if !names.is_empty() {
            words += &format!(", {what} {}", names.join(", "));
        }
    }
    if cors.credentials {
        words += ", with credentials";
    }
    words + &format!(", remembered for {} s", cors.max_age_seconds)
}

impl Timeouts {
    fn words(&self) -> impl Iterator<Item = String> {
        let whole = self.request.map(|time| format!("time limit: {time:?} for the whole request"));
        let each = self.backend_request.map(|time| format!("time limit: {time:?} for each try"));
        whole.into_iter().chain(each)
    }
}

impl Retry {
    fn words(&self) -> String {
        let Self { attempts, codes, backoff } = self;
        let codes: Vec<&str> = codes.iter().map(StatusCode::as_str).collect();
        let codes =
            if codes.is_empty() { String::new() } else { format!(" or {}", codes.join(", ")) };
        let wait = backoff.map_or(String::new(), |time| format!(", {time:?} apart at least"));
        format!("tries: up to {attempts} more after no answer{codes}{wait}")
    }
}

impl KeyPolicy {
    fn words(&self) -> String {
        let of = match &self.of {
            KeyOf::Header(name) => format!("header {name}"),
            KeyOf::Cookie(cookie) => cookie.words(),
            KeyOf::Source => "the address of the client".to_owned(),
            KeyOf::Query(name) => format!("query parameter {name}"),
        };
        let terminal = if self.terminal { ", and by nothing after it" } else { "" };
        format!("kept together by {of}{terminal}")
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::http::{BackendId, Cookie, Host, Scheme, Substitution, tests::redirect};

    fn words(filter: Filter) -> String {
        filter.words(|to| match to {
            Destination::Backend(BackendId(id)) => format!("backend {id}"),
            Destination::Invalid => "nothing".to_owned(),
        })
    }

    #[test]
    fn each_filter_says_what_it_does() {
        let mut changes = HeaderChanges::default();
        changes.remove("x-a").unwrap();
        changes.set("x-b", "1").unwrap();
        changes.append("x-c", "2").unwrap();
        let changed = "x-a is removed, x-b becomes `1`, x-c gets `2` too";
        assert_eq!(
            words(Filter::RequestHeaders(changes.clone())),
            format!("request headers: {changed}")
        );
        assert_eq!(words(Filter::ResponseHeaders(changes)), format!("response headers: {changed}"));
        let host = Host::new("a.example").unwrap();
        assert_eq!(
            words(Filter::Host(HostRewrite::Value(host.clone()))),
            "host: becomes `a.example`"
        );
        let by = Substitution::new("^/(.*)$", r"\1").unwrap();
        assert_eq!(
            words(Filter::Path(PathRewrite::Regex(by))),
            r"path: every match of `^/(.*)$` becomes `\1`"
        );
        let away = Redirect {
            scheme: Some(Scheme::Https),
            host: Some(host),
            path: Some(PathRewrite::Segments("/new".into())),
            status: StatusCode::MOVED_PERMANENTLY,
            ..redirect()
        };
        assert_eq!(
            words(Filter::Redirect(away)),
            "redirect: 301 with scheme https, host `a.example`, the port of the scheme or the \
             listener, path: the matched segments become `/new`"
        );
        let mirror =
            |destination, share| Filter::Mirror(Mirror { destination, share, shadow: true });
        let tenth = mirror(Destination::Backend(BackendId(3)), Share::new(1, 10).unwrap());
        assert_eq!(
            words(tenth),
            "mirror: a copy of 10 % of the requests goes to backend 3, with -shadow behind its host"
        );
        assert!(words(mirror(Destination::Invalid, Share::ALL)).contains("every request"));
        assert_eq!(words(Filter::Respond(StatusCode::NOT_FOUND)), "answer: 404");
        let cors = Cors {
            origins: vec![Origin::new("https://*.a.example")],
            methods: vec!["GET".into()],
            max_age_seconds: 5,
            ..Cors::default()
        };
        assert_eq!(
            words(Filter::Cors(cors)),
            "CORS: scripts of https://*.a.example may ask, methods GET, remembered for 5 s"
        );
    }

    #[test]
    fn a_rule_says_its_time_limits_and_what_keeps_requests_together() {
        let cookie = Cookie::new("sid", Some(Duration::from_secs(60)), Some("/")).unwrap();
        let rule = Rule {
            timeouts: Timeouts {
                request: Some(Duration::from_secs(2)),
                backend_request: Some(Duration::from_millis(500)),
            },
            retry: Some(Retry {
                attempts: 2,
                codes: vec![StatusCode::BAD_GATEWAY, StatusCode::SERVICE_UNAVAILABLE],
                backoff: Some(Duration::from_millis(100)),
            }),
            keys: vec![
                KeyPolicy { of: KeyOf::Cookie(cookie), terminal: true },
                KeyPolicy { of: KeyOf::Source, terminal: false },
            ],
            ..Rule::default()
        };
        assert_eq!(
            rule.words(|_| String::new()),
            [
                "time limit: 2s for the whole request",
                "time limit: 500ms for each try",
                "tries: up to 2 more after no answer or 502, 503, 100ms apart at least",
                "kept together by cookie sid (made where there is none, for 60s, path /), and by \
                 nothing after it",
                "kept together by the address of the client",
            ]
        );
    }
}
