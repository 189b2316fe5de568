//! A request as the rules see it.

use std::{borrow::Cow, fmt, net::IpAddr};

use ::http::{
    HeaderMap, HeaderName, Method, Uri,
    header::{COOKIE, HOST, HeaderValue},
};

use super::normal::normal_path;

/// A request, borrowed from whoever read it. Building one allocates only where the path is not in
/// its normal form.
#[derive(Clone, Debug)]
pub struct Request<'a> {
    /// The method, case as sent (RFC 9110, 9.1: methods are case-sensitive).
    pub method: &'a str,
    /// How the client reached the listener.
    pub scheme: Scheme,
    /// `:authority`, the authority of an absolute target, or `Host`: as sent, with a port if one
    /// was; empty where a client of HTTP/1.0 sent none.
    pub authority: &'a str,
    /// The path in its normal form, without the query; `*` for `OPTIONS *`.
    pub path: Cow<'a, str>,
    /// What follows `?`, as sent.
    pub query: Option<&'a str>,
    /// All headers, several of one name in the order of arrival. A `host` among them is not read:
    /// [`authority`](Self::authority) is.
    pub headers: &'a HeaderMap,
    /// Who asks and where.
    pub connection: Connection,
}

/// What is known of a request before its first byte.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Connection {
    /// Address of the client.
    pub client: IpAddr,
    /// Port that it dialled: the VIP's or the listener's, in host order.
    pub port: u16,
    /// How.
    pub scheme: Scheme,
}

/// `http` or `https`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Scheme {
    /// Without TLS.
    Http,
    /// With TLS.
    Https,
}

impl Scheme {
    /// The port that goes without saying (RFC 9110, 4.2.1 and 4.2.2), in host order.
    pub fn port(self) -> u16 {
        match self {
            Self::Http => 80,
            Self::Https => 443,
        }
    }
}

impl fmt::Display for Scheme {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Http => "http",
            Self::Https => "https",
        })
    }
}

/// Why a request can be matched with nothing. The answer is 400 (RFC 9112, 3.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadRequest {
    /// Several `Host` headers.
    #[error("the request has several Host headers")]
    SeveralHosts,
    /// A `Host` header that is none.
    #[error("the Host header is no host and port")]
    Host,
}

impl<'a> Request<'a> {
    /// A view of what hyper and the `http` crate hold.
    ///
    /// # Errors
    /// Several `Host` headers, or one that names no host. HTTP/2 has `:authority` instead, which
    /// stands in the target; where both are there, the target counts (RFC 9112, 3.2.2).
    pub fn new(
        method: &'a Method,
        target: &'a Uri,
        headers: &'a HeaderMap,
        connection: Connection,
    ) -> Result<Self, BadRequest> {
        let mut hosts = headers.get_all(HOST).iter();
        let host = hosts.next();
        if hosts.next().is_some() {
            return Err(BadRequest::SeveralHosts);
        }
        let authority = match (target.authority(), host) {
            (Some(authority), _) => authority.as_str(),
            (None, Some(host)) => host.to_str().map_err(|_| BadRequest::Host)?,
            (None, None) => "",
        };
        // Who is asked for is no part of a URL where a name and password could stand.
        if authority.bytes().any(|b| b == b'@' || b == b'/' || b == b' ' || b == b',') {
            return Err(BadRequest::Host);
        }
        Ok(Self {
            method: method.as_str(),
            scheme: connection.scheme,
            authority,
            path: normal_path(target.path()),
            query: target.query(),
            headers,
            connection,
        })
    }

    /// The host that was asked for, without the port; an IPv6 address in its brackets.
    pub fn host(&self) -> &'a str {
        split_authority(self.authority).0
    }

    /// The port that stands in `Host`, in host order.
    pub fn host_port(&self) -> Option<u16> {
        split_authority(self.authority).1
    }

    /// All values of a header joined with `,`, as matchers see them (semantics 3.8); cookies with
    /// `; `, since clients of HTTP/2 may send each by itself (RFC 9113, 8.2.3). `host` is the
    /// authority, wherever it stood. `None`: there is none. Allocates only for several values.
    pub fn header(&self, name: &HeaderName) -> Option<Cow<'a, [u8]>> {
        if name == HOST {
            let authority = self.authority.as_bytes();
            return (!authority.is_empty()).then_some(Cow::Borrowed(authority));
        }
        let mut values = self.headers.get_all(name).iter();
        let first = values.next()?;
        let Some(second) = values.next() else { return Some(Cow::Borrowed(first.as_bytes())) };
        let between: &[u8] = if name == COOKIE { b"; " } else { b"," };
        let mut joined = first.as_bytes().to_vec();
        for value in std::iter::once(second).chain(values) {
            joined.extend_from_slice(between);
            joined.extend_from_slice(value.as_bytes());
        }
        Some(Cow::Owned(joined))
    }

    /// The first value of a query parameter, as sent: neither `%` nor `+` is decoded, as in Envoy.
    /// A parameter without `=` has the empty value; `None`: there is none of that name.
    pub fn parameter(&self, name: &str) -> Option<&'a str> {
        self.query?.split('&').find_map(|pair| {
            let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
            (key == name).then_some(value)
        })
    }

    /// The value of a cookie (RFC 6265, 4.2.1), without quotes.
    pub fn cookie(&self, name: &str) -> Option<&'a str> {
        self.headers
            .get_all(COOKIE)
            .iter()
            .filter_map(|header: &HeaderValue| header.to_str().ok())
            .flat_map(|header| header.split(';'))
            .find_map(|pair| {
                let (key, value) = pair.trim().split_once('=')?;
                (key == name).then(|| value.trim_matches('"'))
            })
    }

    /// Path and query as they stand in a request line.
    pub fn path_and_query(&self) -> Cow<'_, str> {
        with_query(&self.path, self.query)
    }
}

/// `path?query`, or the path alone.
pub(super) fn with_query<'p>(path: &'p str, query: Option<&str>) -> Cow<'p, str> {
    match query {
        Some(query) => Cow::Owned(format!("{path}?{query}")),
        None => Cow::Borrowed(path),
    }
}

/// Host and port of an authority. What follows the last colon outside brackets and is no number
/// of 1 to 65535 is no port.
pub(super) fn split_authority(authority: &str) -> (&str, Option<u16>) {
    let Some((host, port)) = authority.rsplit_once(':') else { return (authority, None) };
    if port.contains(']') || (host.contains(':') && !host.ends_with(']')) {
        // The colon is one of an IPv6 address.
        return (authority, None);
    }
    match port.parse() {
        Ok(0) | Err(_) => (host, None),
        Ok(port) => (host, Some(port)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::tests::{asked, connection};

    #[test]
    fn values_of_a_repeated_header_are_joined_with_a_comma() {
        let asked = asked("GET", "/").header("x-a", "1").header("x-b", "2").header("X-A", "3");
        let request = asked.request();
        let joined = request.header(&HeaderName::from_static("x-a"));
        assert_eq!(joined.as_deref(), Some(&b"1,3"[..]));
        assert_eq!(request.header(&HeaderName::from_static("x-c")), None);
    }

    #[test]
    fn cookies_are_joined_as_one_header_would_have_them_and_host_is_the_authority() {
        let of = |asked: &crate::http::tests::Asked, name| {
            let value = asked.request().header(&name)?.into_owned();
            Some(String::from_utf8(value).unwrap())
        };
        let cookies = asked("GET", "/").header("cookie", "a=1").header("cookie", "b=2");
        assert_eq!(of(&cookies, COOKIE).as_deref(), Some("a=1; b=2"));
        assert_eq!(of(&cookies, HOST), None);
        let absolute = asked("GET", "http://a.example:81/").host("b.example");
        assert_eq!(of(&absolute, HOST).as_deref(), Some("a.example:81"));
    }

    #[test]
    fn the_first_of_repeated_parameters_counts_and_nothing_is_decoded() {
        let asked = asked("GET", "/?a=1&b&a=2&A=3&c=x%20y+z&d=e=f");
        let request = asked.request();
        assert_eq!(request.parameter("a"), Some("1"));
        assert_eq!(request.parameter("b"), Some(""));
        assert_eq!(request.parameter("A"), Some("3"));
        assert_eq!(request.parameter("c"), Some("x%20y+z"));
        assert_eq!(request.parameter("d"), Some("e=f"));
        assert_eq!(request.parameter("x"), None);
    }

    #[test]
    fn a_cookie_is_found_among_others_and_in_several_headers() {
        let asked =
            asked("GET", "/").header("cookie", "a=1; sid=x").header("cookie", "b=\"2\"; sid=y");
        let request = asked.request();
        assert_eq!(request.cookie("sid"), Some("x"));
        assert_eq!(request.cookie("b"), Some("2"));
        assert_eq!(request.cookie("si"), None);
    }

    #[test]
    fn an_authority_is_host_and_port() {
        for (authority, host, port) in [
            ("a.example", "a.example", None),
            ("a.example:8080", "a.example", Some(8080)),
            ("[fd00::1]:81", "[fd00::1]", Some(81)),
            ("[fd00::1]", "[fd00::1]", None),
            ("fd00::1", "fd00::1", None),
            ("a.example:", "a.example", None),
            ("a.example:99999", "a.example", None),
            ("", "", None),
        ] {
            assert_eq!(split_authority(authority), (host, port), "{authority}");
        }
    }

    #[test]
    fn a_request_with_two_hosts_or_a_broken_one_is_refused() {
        let target: Uri = "/".parse().unwrap();
        let mut headers = HeaderMap::new();
        for bad in ["user@example.com", "a b", "a,b", "a/b"] {
            headers.insert(HOST, HeaderValue::from_static(bad));
            let refused = Request::new(&Method::GET, &target, &headers, connection());
            assert_eq!(refused.err(), Some(BadRequest::Host), "{bad}");
        }
        headers.append(HOST, HeaderValue::from_static("b.example"));
        let refused = Request::new(&Method::GET, &target, &headers, connection());
        assert_eq!(refused.err(), Some(BadRequest::SeveralHosts));
    }

    #[test]
    fn the_authority_of_the_target_goes_before_the_host_header() {
        let target: Uri = "http://b.example:81/x?y".parse().unwrap();
        let mut headers = HeaderMap::new();
        headers.insert(HOST, HeaderValue::from_static("a.example"));
        let request = Request::new(&Method::GET, &target, &headers, connection()).unwrap();
        assert_eq!((request.host(), request.host_port()), ("b.example", Some(81)));
        assert_eq!(request.path_and_query(), "/x?y");
    }
}
