//! Other paths and hosts than those that were asked for (semantics 3.9, 5.5).

use std::borrow::Cow;

use super::{matcher::PathMatch, pattern::Substitution, request::split_authority};

/// What becomes of a path. All are computed from the path as it was matched.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PathRewrite {
    /// This path. A query in it takes the place of the request's.
    Full(Box<str>),
    /// The matched segments become this; slashes where they meet are one (semantics 5.5,
    /// decision D9).
    Segments(Box<str>),
    /// The matched bytes become this text, whatever slashes come together (TrafficRoute, 3.9).
    Bytes(Box<str>),
    /// Every match is replaced; where nothing matches, the path stays.
    Regex(Substitution),
}

/// What becomes of the host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HostRewrite {
    /// This host, with a port if it has one.
    Value(Host),
    /// The path with every match replaced. Where nothing matches, or no host comes of it, the host
    /// stays (decision D8).
    FromPath(Substitution),
    /// That of the endpoint that the request goes to.
    OfEndpoint,
}

/// A host and perhaps a port, as `Host` has them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Host(Box<str>);

/// A text that cannot stand in `Host`.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is no host: write a name or an address, with :port if need be")]
pub struct NoHost(String);

impl Host {
    /// Reads a host and perhaps a port.
    ///
    /// # Errors
    /// It is empty or has characters that no host has.
    pub fn new(text: &str) -> Result<Self, NoHost> {
        let (host, _) = split_authority(text);
        let right = |b: u8| b.is_ascii_alphanumeric() || b"-._~:[]%".contains(&b);
        if host.is_empty() || !text.bytes().all(right) {
            return Err(NoHost(text.to_owned()));
        }
        Ok(Self(text.into()))
    }

    /// As written.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl PathRewrite {
    /// Whether it needs a prefix that was matched.
    pub fn needs_prefix(&self) -> bool {
        matches!(self, Self::Segments(_) | Self::Bytes(_))
    }

    /// Path and query that come of a path and what it was matched with; no query: that of the
    /// request stays.
    pub fn apply(&self, path: &str, matched: Option<&PathMatch>) -> (String, Option<String>) {
        let rewritten = match self {
            Self::Full(full) => full.to_string(),
            Self::Segments(replacement) => match rest(path, matched) {
                Some("") => replacement.to_string(),
                Some(rest) if rest.starts_with('/') => {
                    format!("{}{rest}", replacement.trim_end_matches('/'))
                }
                // Of a prefix of bytes: no slash stands between the two.
                Some(rest) => format!("{replacement}{rest}"),
                None => path.to_owned(),
            },
            Self::Bytes(replacement) => match rest(path, matched) {
                Some(rest) => format!("{replacement}{rest}"),
                None => path.to_owned(),
            },
            Self::Regex(substitution) => {
                substitution.replace(path).unwrap_or_else(|| path.to_owned())
            }
        };
        let (path, query) = match rewritten.split_once('?') {
            Some((path, query)) => (path, Some(encoded(query).into_owned())),
            None => (&*rewritten, None),
        };
        let mut path = encoded(path).into_owned();
        if !path.starts_with('/') {
            // A request line has no other form (RFC 9112, 3.2.1).
            path.insert(0, '/');
        }
        (path, query)
    }
}

/// What follows the matched prefix; `None`: no prefix was matched.
fn rest<'p>(path: &'p str, matched: Option<&PathMatch>) -> Option<&'p str> {
    match matched? {
        PathMatch::Bytes(prefix) => path.strip_prefix(&**prefix),
        PathMatch::Segments(segments) => path.strip_prefix(segments.as_str()),
        PathMatch::Exact(_) | PathMatch::Regex(_) | PathMatch::Grpc(_) => None,
    }
}

/// The text with `%` codes for what may not stand in a request line: policies are written by
/// people, who write `/Straße` and `/a b`. Codes that are there stay.
fn encoded(text: &str) -> Cow<'_, str> {
    let stays = |b: u8| b.is_ascii_graphic() && !b"#<>`\"".contains(&b);
    if text.bytes().all(stays) {
        return Cow::Borrowed(text);
    }
    let mut encoded = String::with_capacity(text.len() + 8);
    for byte in text.bytes() {
        if stays(byte) {
            encoded.push(char::from(byte));
        } else {
            encoded.push_str(&format!("%{byte:02X}"));
        }
    }
    Cow::Owned(encoded)
}

impl HostRewrite {
    /// The host that comes of it; `None`: it stays, or is that of the endpoint.
    pub fn apply(&self, path: &str) -> Option<Cow<'_, str>> {
        match self {
            Self::Value(host) => Some(Cow::Borrowed(host.as_str())),
            Self::FromPath(substitution) => {
                let host = substitution.replace(path)?;
                Host::new(&host).is_ok().then_some(Cow::Owned(host))
            }
            Self::OfEndpoint => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::matcher::Segments;

    fn segments(path: &str, prefix: &str, replacement: &str) -> String {
        let matched = PathMatch::Segments(Segments::new(prefix));
        assert!(matched.takes(path), "{prefix} takes {path}");
        let (path, query) = PathRewrite::Segments(replacement.into()).apply(path, Some(&matched));
        assert_eq!(query, None);
        path
    }

    #[test]
    fn segments_are_replaced_with_one_slash_where_they_meet() {
        for (path, prefix, replacement, rewritten) in [
            ("/foo/bar", "/foo", "/xyz", "/xyz/bar"),
            ("/foo/bar", "/foo", "/xyz/", "/xyz/bar"),
            ("/foo/bar", "/foo/", "/xyz", "/xyz/bar"),
            ("/foo/bar", "/foo/", "/xyz/", "/xyz/bar"),
            ("/foo", "/foo", "/xyz", "/xyz"),
            ("/foo/", "/foo", "/xyz", "/xyz/"),
            ("/foo/bar", "/foo", "", "/bar"),
            ("/foo", "/foo", "", "/"),
            ("/foo/", "/foo", "", "/"),
            ("/foo", "/foo", "/", "/"),
            ("/foo/", "/foo", "/", "/"),
            // Not in the table, by the same rule.
            ("/v1/x", "/v1", "/v2", "/v2/x"),
            ("/a", "/", "/xyz", "/xyz/a"),
            ("/foo", "/foo", "/xyz/", "/xyz/"),
        ] {
            assert_eq!(segments(path, prefix, replacement), rewritten, "{path} {replacement}");
        }
    }

    #[test]
    fn bytes_are_replaced_as_text_and_slashes_double() {
        let matched = PathMatch::Bytes("/offers".into());
        let rewrite = |to: &str, path| PathRewrite::Bytes(to.into()).apply(path, Some(&matched)).0;
        assert_eq!(rewrite("/", "/offers/7"), "//7");
        assert_eq!(rewrite("/v2/offers", "/offers/7"), "/v2/offers/7");
        assert_eq!(rewrite("/v2", "/offersale"), "/v2ale");
    }

    #[test]
    fn a_full_path_takes_the_place_of_all_and_brings_its_query() {
        let full = |to: &str| PathRewrite::Full(to.into()).apply("/a/b", None);
        assert_eq!(full("/one"), ("/one".to_owned(), None));
        assert_eq!(full("/one?x=1"), ("/one".to_owned(), Some("x=1".to_owned())));
    }

    #[test]
    fn a_pattern_replaces_all_its_matches_or_nothing() {
        let regex = |pattern, to| PathRewrite::Regex(Substitution::new(pattern, to).unwrap());
        assert_eq!(regex("one", "two").apply("/x/one/y/one", None).0, "/x/two/y/two");
        let swap = regex("^/service/([^/]+)(/.*)$", r"\2/instance/\1");
        assert_eq!(swap.apply("/service/foo/v1/api", None).0, "/v1/api/instance/foo");
        assert_eq!(swap.apply("/other", None).0, "/other");
    }

    #[test]
    fn what_comes_of_a_rewrite_can_stand_in_a_request_line() {
        let full = |to: &str| PathRewrite::Full(to.into()).apply("/a", None).0;
        assert_eq!(full("a"), "/a");
        assert_eq!(full(""), "/");
        assert_eq!(full("/a b#c%20\r\n"), "/a%20b%23c%20%0D%0A");
        assert_eq!(full("/ß"), "/%C3%9F");
        for path in ["/a b#c%20\r\n", "/ß", "/\"<>`{}|\\^"] {
            full(path).parse::<::http::Uri>().unwrap();
        }
    }

    #[test]
    fn a_host_from_the_path_stays_where_nothing_matches() {
        let from = |pattern, to| HostRewrite::FromPath(Substitution::new(pattern, to).unwrap());
        let tenant = from("^/tenants/([^/]+)/.*$", r"\1.tenant.internal");
        assert_eq!(tenant.apply("/tenants/a/x").as_deref(), Some("a.tenant.internal"));
        assert_eq!(tenant.apply("/other"), None);
        // What stands in the path is written by clients.
        assert_eq!(from("^/(.*)$", r"\1").apply("/a/b"), None);
        assert_eq!(from("^/(.*)$", r"\1").apply("/a@b"), None);
        assert_eq!(from("^/.*$", "").apply("/a"), None);
    }

    #[test]
    fn what_is_no_host_is_refused() {
        for bad in ["", ":80", "a b", "a/b", "a@b", "a\n", "ä"] {
            let error = Host::new(bad).unwrap_err().to_string();
            assert!(error.contains(bad), "{error}");
        }
        for good in ["a.example", "a.example:80", "[fd00::1]:80", "10.0.0.1"] {
            assert_eq!(Host::new(good).unwrap().as_str(), good);
        }
    }
}
