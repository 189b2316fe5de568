//! What the kinds that route requests have in common (semantics 4.4, 4.5, 5.2, 5.5): matches and
//! filters as values. MeshHTTPRoute, HTTPRoute and GRPCRoute read them each by its own rules.

use std::num::NonZeroU16;

use super::Span;
use crate::http::Pattern;

pub(super) mod filters;
pub(super) mod matches;

/// A part of a rule, and where it stands.
#[derive(Clone, Debug, PartialEq)]
pub struct Located<T> {
    /// Where.
    pub span: Span,
    /// Its field path, e.g. `spec.to[0].rules[0].matches[0]`.
    pub field: String,
    /// What.
    pub value: T,
}

/// What a request must be. Every part that is given must hold.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct RequestMatch {
    /// `path`, without the query.
    pub path: Option<PathMatch>,
    /// `method`.
    pub method: Option<Method>,
    /// `headers`: names in lower case, each once.
    pub headers: Vec<HeaderMatch>,
    /// `queryParams`: names as written, each once.
    pub query: Vec<QueryMatch>,
}

/// What a path must be; cases of letters count.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum PathMatch {
    /// It is this.
    Exact(String),
    /// It begins with these elements, those between slashes. Without a slash at the end, but for
    /// `/` itself, which every path begins with.
    Prefix(String),
    /// The whole of it matches.
    Regex(Pattern),
}

/// Methods that rules can name (RFC 9110, 9; RFC 5789).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Method {
    /// CONNECT.
    Connect,
    /// DELETE.
    Delete,
    /// GET.
    Get,
    /// HEAD.
    Head,
    /// OPTIONS.
    Options,
    /// PATCH.
    Patch,
    /// POST.
    Post,
    /// PUT.
    Put,
    /// TRACE.
    Trace,
}

impl Method {
    pub(super) const NAMES: &'static [&'static str] =
        &["CONNECT", "DELETE", "GET", "HEAD", "OPTIONS", "PATCH", "POST", "PUT", "TRACE"];
    const ALL: [Self; 9] = [
        Self::Connect,
        Self::Delete,
        Self::Get,
        Self::Head,
        Self::Options,
        Self::Patch,
        Self::Post,
        Self::Put,
        Self::Trace,
    ];

    /// As requests write it.
    pub fn name(self) -> &'static str {
        Self::NAMES[self as usize]
    }

    fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|method| method.name() == name)
    }
}

/// A header that a request must have, or must not.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct HeaderMatch {
    /// Its name in lower case.
    pub name: String,
    /// What it must be.
    pub value: HeaderValueMatch,
}

/// What a header must be. Several of one name are joined by `,` before they are compared.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum HeaderValueMatch {
    /// Its value is this.
    Exact(String),
    /// Its value begins with these bytes.
    Prefix(String),
    /// The whole of its value matches.
    Regex(Pattern),
    /// It is there, with whatever value.
    Present,
    /// It is not there.
    Absent,
}

/// A query parameter that a request must have.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct QueryMatch {
    /// Its name; cases of letters count.
    pub name: String,
    /// What its value must be.
    pub value: TextMatch,
}

/// What a text must be.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum TextMatch {
    /// This.
    Exact(String),
    /// The whole of it matches.
    Regex(Pattern),
}

/// What is done to a request that a rule takes, or to its answer. `B` names where copies of
/// requests go.
#[derive(Clone, Debug, PartialEq)]
pub enum RouteFilter<B> {
    /// `RequestHeaderModifier`.
    RequestHeaders(HeaderModifier),
    /// `ResponseHeaderModifier`.
    ResponseHeaders(HeaderModifier),
    /// `RequestRedirect`: the answer is a redirection, no backend is asked.
    Redirect(Redirect),
    /// `URLRewrite`.
    Rewrite(UrlRewrite),
    /// `RequestMirror`.
    Mirror(Mirror<B>),
    /// `CORS`; Gateway API only.
    Cors(Cors),
    /// One that is not known here, as `ExtensionRef`: its requests are answered with 500, as
    /// passing them without it could be wrong. Gateway API only.
    Unsupported(String),
}

/// Changes of headers: first `remove`, then `set`, then `add`. Each name is in one of them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HeaderModifier {
    /// Headers that get this value in place of all they have.
    pub set: Vec<HeaderField>,
    /// Headers that get one more value.
    pub add: Vec<HeaderField>,
    /// Names of headers that go.
    pub remove: Vec<String>,
}

/// A header.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HeaderField {
    /// Its name; cases of letters do not count.
    pub name: String,
    /// Its value.
    pub value: String,
}

/// `requestRedirect`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Redirect {
    /// `scheme`; absent: the request's.
    pub scheme: Option<Scheme>,
    /// `hostname`; absent: the request's.
    pub hostname: Option<String>,
    /// `port`; what an absent one means differs by kind.
    pub port: Option<NonZeroU16>,
    /// `path`; absent: the request's.
    pub path: Option<PathModifier>,
    /// `statusCode`: 301, 302, 303, 307 or 308; 302 where absent.
    pub status: u16,
}

/// `scheme` of a redirection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scheme {
    /// `http`.
    Http,
    /// `https`.
    Https,
}

/// `urlRewrite`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UrlRewrite {
    /// The new host; absent: the request's.
    pub host: Option<HostChange>,
    /// `path`; absent: the request's.
    pub path: Option<PathModifier>,
}

/// The host that the backend sees.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HostChange {
    /// `hostname`.
    To(String),
    /// `hostToBackendHostname`: that of the backend; below a MeshGateway only.
    Backend,
}

/// A new path; the query stays.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PathModifier {
    /// `ReplaceFullPath`: this is all of it.
    Full(String),
    /// `ReplacePrefixMatch`: this instead of the prefix that matched. All matches of the rule
    /// are prefixes.
    Prefix(String),
}

/// `requestMirror`: copies go to a backend, whose answers go nowhere.
#[derive(Clone, Debug, PartialEq)]
pub struct Mirror<B> {
    /// `backendRef`.
    pub backend: B,
    /// How many of the requests, 0 to 1.
    pub share: f64,
}

/// `cors` (the Fetch standard, "CORS protocol").
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cors {
    /// `allowOrigins`: `SCHEME://HOST[:PORT]`, the host may begin with `*.`; or `*`.
    pub origins: Vec<String>,
    /// `allowMethods`, or `*`.
    pub methods: Vec<String>,
    /// `allowHeaders`, or `*`.
    pub headers: Vec<String>,
    /// `exposeHeaders`, or `*`.
    pub exposed: Vec<String>,
    /// `allowCredentials`.
    pub credentials: bool,
    /// `maxAge`: for how long an answer to a preflight may be kept; 5 where absent.
    pub max_age_seconds: u32,
}
