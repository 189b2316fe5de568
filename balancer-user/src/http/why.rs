//! Why a rule took a request, and why each one before it did not.

use std::fmt;

use super::{
    hostname::Hostname,
    matcher::{GrpcMatch, GrpcName, HeaderMatch, Match, PathMatch, QueryMatch, ValueMatch},
    precedence::Criterion,
    request::Request,
    router::{Found, Router},
};

/// A match among all, in the order of precedence.
#[derive(Clone, Debug)]
pub struct Listed<'r> {
    /// The match.
    pub found: Found<'r>,
    /// The hostname that it stands under.
    pub hostname: &'r Hostname,
    /// Why it comes before the next one of its hostname; `None`: it is the last.
    pub before_next: Option<Criterion>,
}

/// What became of a match that was looked at.
#[derive(Clone, Debug)]
pub struct Considered<'r> {
    /// The match.
    pub listed: Listed<'r>,
    /// In what the request differs from it; nothing: it took the request.
    pub differs: Vec<Difference<'r>>,
}

/// One thing that a request is not or has not.
#[derive(Clone, Debug, PartialEq)]
pub enum Difference<'r> {
    /// Another host was asked for.
    Host(&'r Hostname, String),
    /// The host that was asked for is that of a more specific listener.
    Listener(&'r Hostname, String),
    /// Another method was used.
    Method(&'r ValueMatch, String),
    /// Another path was asked for.
    Path(&'r PathMatch, String),
    /// A header is another, is missing, or is there.
    Header(&'r HeaderMatch, Option<String>),
    /// A query parameter likewise.
    Query(&'r QueryMatch, Option<String>),
}

impl Router {
    /// Every match in the order of precedence; one of several hostnames under each of them.
    /// [`Rules::otherwise`](super::Rules::otherwise) is none of them.
    pub fn listed(&self) -> impl Iterator<Item = Listed<'_>> {
        self.hosts().iter().flat_map(|index| {
            index.rows.iter().enumerate().map(|(row, place)| {
                let next = index.precedences.get(row + 1);
                Listed {
                    found: self.found(*place),
                    hostname: &index.hostname,
                    before_next: next.and_then(|next| index.precedences[row].before(next)),
                }
            })
        })
    }

    /// Every match up to and with the one that takes the request, or all if none does; those for
    /// other hosts among them.
    pub fn why(&self, request: &Request<'_>) -> Vec<Considered<'_>> {
        let mut considered = Vec::new();
        for listed in self.listed() {
            let mut differs = Vec::new();
            if !listed.hostname.takes(request.host()) {
                differs.push(Difference::Host(listed.hostname, request.host().to_owned()));
            }
            if let Some(other) = listed.found.rule.taken_away(request.host()) {
                differs.push(Difference::Listener(other, request.host().to_owned()));
            }
            differs.extend(listed.found.matched.differs(request));
            let took = differs.is_empty();
            considered.push(Considered { listed, differs });
            if took {
                break;
            }
        }
        considered
    }
}

impl Match {
    /// In what a request differs from it; nothing: it takes the request.
    pub fn differs(&self, request: &Request<'_>) -> Vec<Difference<'_>> {
        let mut differs = Vec::new();
        if let Some(path) = &self.path
            && !path.takes(&request.path)
        {
            differs.push(Difference::Path(path, request.path.clone().into_owned()));
        }
        if let Some(method) = &self.method
            && !method.takes(Some(request.method.as_bytes()))
        {
            differs.push(Difference::Method(method, request.method.to_owned()));
        }
        for header in self.headers.iter().filter(|header| !header.takes(request)) {
            let found = request.header(&header.name);
            let found = found.map(|value| String::from_utf8_lossy(&value).into_owned());
            differs.push(Difference::Header(header, found));
        }
        for parameter in self.query.iter().filter(|parameter| !parameter.takes(request)) {
            let found = request.parameter(&parameter.name).map(str::to_owned);
            differs.push(Difference::Query(parameter, found));
        }
        differs
    }
}

impl fmt::Display for Difference<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Host(wanted, found) if found.is_empty() => {
                write!(f, "it is for host {wanted}, and none was asked for")
            }
            Self::Host(wanted, found) => write!(f, "it is for host {wanted}, not {found}"),
            Self::Listener(other, found) => {
                write!(f, "host {found} is that of the listener for {other}")
            }
            Self::Method(wanted, found) => write!(f, "method {found} {}", Not(wanted)),
            Self::Path(wanted, found) => write!(f, "path {found} {}", NotPath(wanted)),
            Self::Header(HeaderMatch { name, value }, found) => {
                part(f, "header", name.as_str(), value, found.as_deref())
            }
            Self::Query(QueryMatch { name, value }, found) => {
                part(f, "query parameter", name, value, found.as_deref())
            }
        }
    }
}

fn part(
    f: &mut fmt::Formatter<'_>,
    what: &str,
    name: &str,
    wanted: &ValueMatch,
    found: Option<&str>,
) -> fmt::Result {
    match (wanted, found) {
        (ValueMatch::Absent, _) => write!(f, "{what} {name} is there"),
        (_, None) => write!(f, "{what} {name} is not there"),
        (_, Some(found)) => write!(f, "{what} {name}: `{found}` {}", Not(wanted)),
    }
}

/// What a path is not.
struct NotPath<'a>(&'a PathMatch);

impl fmt::Display for NotPath<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            PathMatch::Exact(wanted) => write!(f, "is not `{wanted}`"),
            PathMatch::Bytes(prefix) => write!(f, "does not begin with `{prefix}`"),
            PathMatch::Segments(segments) => {
                write!(f, "is neither `{}` nor below it", segments.path())
            }
            PathMatch::Regex(pattern) => {
                write!(f, "does not match `{}` as a whole", pattern.text())
            }
            PathMatch::Grpc(call) => write!(f, "is not {call}"),
        }
    }
}

/// What a value is not.
struct Not<'a>(&'a ValueMatch);

impl fmt::Display for Not<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            ValueMatch::Exact(wanted) => write!(f, "is not `{wanted}`"),
            ValueMatch::Prefix(prefix) => write!(f, "does not begin with `{prefix}`"),
            ValueMatch::Regex(pattern) => {
                write!(f, "does not match `{}` as a whole", pattern.text())
            }
            ValueMatch::Present => f.write_str("is not there"),
            ValueMatch::Absent => f.write_str("is there"),
        }
    }
}

impl fmt::Display for GrpcMatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = |name: &Option<GrpcName>| match name {
            None => "any".to_owned(),
            Some(GrpcName::Exact(text)) => format!("`{text}`"),
            Some(GrpcName::Regex(pattern)) => format!("matching `{}`", pattern.text()),
        };
        write!(f, "a call of service {}, method {}", name(&self.service), name(&self.method))
    }
}

impl fmt::Display for PathMatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exact(path) => write!(f, "path `{path}`"),
            Self::Bytes(prefix) => write!(f, "path beginning with `{prefix}`"),
            Self::Segments(segments) => write!(f, "path `{}` and below", segments.path()),
            Self::Regex(pattern) => write!(f, "path matching `{}`", pattern.text()),
            Self::Grpc(call) => call.fmt(f),
        }
    }
}

impl fmt::Display for ValueMatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exact(wanted) => write!(f, "`{wanted}`"),
            Self::Prefix(prefix) => write!(f, "beginning with `{prefix}`"),
            Self::Regex(pattern) => write!(f, "matching `{}`", pattern.text()),
            Self::Present => f.write_str("present"),
            Self::Absent => f.write_str("absent"),
        }
    }
}

/// What it asks for, in one line.
impl fmt::Display for Match {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let path = self.path.iter().map(PathMatch::to_string);
        let method = self.method.iter().map(|method| format!("method {method}"));
        let headers = self.headers.iter().map(|h| format!("header {} {}", h.name, h.value));
        let query = self.query.iter().map(|q| format!("query parameter {} {}", q.name, q.value));
        let parts: Vec<String> = path.chain(method).chain(headers).chain(query).collect();
        f.write_str(if parts.is_empty() { "any request" } else { "" })?;
        f.write_str(&parts.join(", "))
    }
}
