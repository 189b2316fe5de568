//! Where a client is sent instead (semantics 4.5, 5.5).

use ::http::{HeaderValue, StatusCode, header::LOCATION};

use super::{
    answer::Answer,
    matcher::PathMatch,
    request::{Request, Scheme, with_query},
    rewrite::{Host, PathRewrite},
};

/// A redirect. What is not given is that of the request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Redirect {
    /// Another scheme.
    pub scheme: Option<Scheme>,
    /// Another host.
    pub host: Option<Host>,
    /// Another port, in host order.
    pub port: Option<u16>,
    /// What stands for a port that is not given.
    pub port_else: PortElse,
    /// Another path.
    pub path: Option<PathRewrite>,
    /// 301, 302, 303, 307 or 308.
    pub status: StatusCode,
}

/// The port of a redirect that gives none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PortElse {
    /// That of the new scheme, else that of the listener (Gateway API, semantics 5.5).
    Listener,
    /// The one that stands in the request's `Host`, if any (MeshHTTPRoute, semantics 4.5). One
    /// that only spells out the scheme that is left goes away with it.
    Request,
}

impl Redirect {
    /// The answer to a request that was taken by this path.
    pub fn answer(&self, request: &Request<'_>, matched: Option<&PathMatch>) -> Answer {
        let mut answer = Answer::new(self.status);
        // Host and path are of visible ASCII: those of a request that was parsed, or checked.
        if let Ok(location) = HeaderValue::from_str(&self.location(request, matched)) {
            answer.headers.insert(LOCATION, location);
        }
        answer
    }

    /// `scheme://host:port/path?query`, the port only where it does not go without saying; the path
    /// alone where nobody has named a host.
    pub fn location(&self, request: &Request<'_>, matched: Option<&PathMatch>) -> String {
        let scheme = self.scheme.unwrap_or(request.scheme);
        let host = self.host.as_ref().map_or(request.host(), Host::as_str);
        let port = match self.port.or_else(|| self.port_of(request)) {
            Some(port) if port != scheme.port() => format!(":{port}"),
            _ => String::new(),
        };
        let path = match &self.path {
            Some(rewrite) => {
                let (path, query) = rewrite.apply(&request.path, matched);
                with_query(&path, query.as_deref().or(request.query)).into_owned()
            }
            None => request.path_and_query().into_owned(),
        };
        if host.is_empty() {
            // A client of HTTP/1.0 that named no host; it knows whom it has asked (RFC 9110, 10.2.2).
            return path;
        }
        format!("{scheme}://{host}{port}{path}")
    }

    fn port_of(&self, request: &Request<'_>) -> Option<u16> {
        match (self.port_else, self.scheme) {
            (PortElse::Listener, Some(scheme)) => Some(scheme.port()),
            (PortElse::Listener, None) => Some(request.connection.port),
            (PortElse::Request, _) => {
                request.host_port().filter(|port| *port != request.scheme.port())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::{
        matcher::Segments,
        tests::{Asked, asked, redirect},
    };

    fn location(redirect: &Redirect, asked: &Asked) -> String {
        redirect.location(&asked.request(), None)
    }

    fn host(name: &str) -> Option<Host> {
        Some(Host::new(name).unwrap())
    }

    #[test]
    fn what_is_not_given_is_that_of_the_request() {
        let asked = asked("GET", "/a/b?c=d").host("example.org:80");
        assert_eq!(location(&redirect(), &asked), "http://example.org/a/b?c=d");
        let answer = redirect().answer(&asked.request(), None);
        assert_eq!(answer.status, 302);
        assert_eq!(answer.headers[LOCATION], "http://example.org/a/b?c=d");
    }

    #[test]
    fn a_given_scheme_brings_its_own_port() {
        let https = Redirect { scheme: Some(Scheme::Https), ..redirect() };
        let asked = asked("GET", "/").host("example.org:8080").port(8080);
        assert_eq!(location(&https, &asked), "https://example.org/");
        let with_port = Redirect { port: Some(8443), ..https };
        assert_eq!(location(&with_port, &asked), "https://example.org:8443/");
    }

    #[test]
    fn without_a_scheme_the_port_is_that_of_the_listener() {
        // The port in Host is the client's business: a mapped port, or none.
        let asked = asked("GET", "/").host("example.org").port(8080);
        let elsewhere = Redirect { host: host("b.example"), ..redirect() };
        assert_eq!(location(&elsewhere, &asked), "http://b.example:8080/");
        let back = Redirect { port: Some(80), ..redirect() };
        assert_eq!(location(&back, &asked), "http://example.org/");
    }

    #[test]
    fn a_port_that_goes_without_saying_is_not_said() {
        let asked = asked("GET", "/").host("example.org").port(80);
        let of = |scheme, port| Redirect { scheme: Some(scheme), port: Some(port), ..redirect() };
        assert_eq!(location(&of(Scheme::Http, 80), &asked), "http://example.org/");
        assert_eq!(location(&of(Scheme::Https, 443), &asked), "https://example.org/");
        assert_eq!(location(&of(Scheme::Https, 80), &asked), "https://example.org:80/");
    }

    #[test]
    fn kuma_keeps_the_port_of_the_request() {
        let kuma = Redirect { port_else: PortElse::Request, host: host("b.example"), ..redirect() };
        let with = asked("GET", "/").host("a.example:8080").port(10_001);
        assert_eq!(location(&kuma, &with), "http://b.example:8080/");
        let without = asked("GET", "/").host("a.example").port(10_001);
        assert_eq!(location(&kuma, &without), "http://b.example/");
        let https = Redirect { scheme: Some(Scheme::Https), ..kuma };
        let eighty = asked("GET", "/").host("a.example:80");
        assert_eq!(location(&https, &eighty), "https://b.example/");
    }

    #[test]
    fn a_path_is_replaced_whole_or_by_prefix_and_the_query_stays() {
        let asked = asked("GET", "/old/x?a=b").host("example.org");
        let full = Redirect { path: Some(PathRewrite::Full("/new".into())), ..redirect() };
        assert_eq!(location(&full, &asked), "http://example.org/new?a=b");
        let prefix = Redirect { path: Some(PathRewrite::Segments("/new".into())), ..redirect() };
        let matched = PathMatch::Segments(Segments::new("/old"));
        let found = prefix.location(&asked.request(), Some(&matched));
        assert_eq!(found, "http://example.org/new/x?a=b");
    }

    #[test]
    fn without_any_host_the_location_is_a_path() {
        assert_eq!(location(&redirect(), &asked("GET", "/a?b")), "/a?b");
        let named = Redirect { host: host("a.example"), ..redirect() };
        assert_eq!(location(&named, &asked("GET", "/a?b")), "http://a.example/a?b");
    }

    #[test]
    fn an_address_of_ipv6_keeps_its_brackets() {
        let asked = asked("GET", "/").host("[fd00::1]:80");
        assert_eq!(location(&redirect(), &asked), "http://[fd00::1]/");
    }
}
