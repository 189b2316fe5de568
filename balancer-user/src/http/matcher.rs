//! What a rule asks of a request (semantics 3.8, 4.4, 5.2, 5.7).

use ::http::HeaderName;
use serde::{Serialize, Serializer};

use super::{pattern::Pattern, request::Request};

/// Conditions of which all must hold. None at all holds for every request. In `-o json` a value is
/// an object with how it is compared: `{"path": {"segment_prefix": "/api"}}`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize)]
pub struct Match {
    /// The method.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub method: Option<ValueMatch>,
    /// The path, without the query.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub path: Option<PathMatch>,
    /// Headers. Names may repeat: every one is asked for.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub headers: Vec<HeaderMatch>,
    /// Query parameters. Likewise.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub query: Vec<QueryMatch>,
}

/// How a path is compared: always with case, never with the query.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum PathMatch {
    /// It is this.
    Exact(Box<str>),
    /// It begins with these bytes: `/offers` takes `/offersale` (TrafficRoute).
    #[serde(rename = "prefix")]
    Bytes(Box<str>),
    /// It begins with these segments: `/api` takes `/api`, `/api/` and `/api/x`, not `/apix`.
    #[serde(rename = "segment_prefix")]
    Segments(Segments),
    /// The whole of it matches.
    Regex(Pattern),
    /// It is `/service/method` of gRPC.
    Grpc(GrpcMatch),
}

/// Segments that a path begins with. A slash at the end says nothing (semantics 5.2).
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Segments(Box<str>);

impl Segments {
    /// Segments written as a path: `/api`, `/api/`, `/`.
    pub fn new(path: &str) -> Self {
        Self(path.trim_end_matches('/').into())
    }

    /// Without the slash at the end: `/api`; of `/` nothing is left.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// As a path.
    pub fn path(&self) -> &str {
        if self.0.is_empty() { "/" } else { &self.0 }
    }

    /// Whether a path begins with them.
    pub fn begin(&self, path: &str) -> bool {
        path.strip_prefix(&*self.0).is_some_and(ends_segment)
    }
}

/// Whether what follows a prefix of a path begins a new segment, or nothing follows. Of the whole
/// path (the prefix is empty) that is so where it is a path at all, and not `*`.
pub(super) fn ends_segment(rest: &str) -> bool {
    rest.is_empty() || rest.starts_with('/')
}

/// A call of gRPC, whose path is `/service/method`. At least one of the two is given.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize)]
pub struct GrpcMatch {
    /// The service, with its package: `shop.Catalog`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub service: Option<GrpcName>,
    /// The method.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub method: Option<GrpcName>,
}

/// How one of the two names is compared.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum GrpcName {
    /// It is this.
    Exact(Box<str>),
    /// The whole of it matches.
    Regex(Pattern),
}

impl GrpcName {
    fn takes(&self, name: &str) -> bool {
        match self {
            Self::Exact(wanted) => **wanted == *name,
            Self::Regex(pattern) => pattern.matches(name.as_bytes()),
        }
    }

    /// As written.
    pub fn text(&self) -> &str {
        match self {
            Self::Exact(text) => text,
            Self::Regex(pattern) => pattern.text(),
        }
    }
}

/// How a value is compared.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum ValueMatch {
    /// It is this, case included.
    Exact(Box<str>),
    /// It begins with these bytes.
    Prefix(Box<str>),
    /// The whole of it matches.
    Regex(Pattern),
    /// There is one, whatever it is.
    Present,
    /// There is none.
    Absent,
}

impl ValueMatch {
    /// Whether it takes this value; `None`: there is none, and only [`Absent`](Self::Absent) does.
    pub fn takes(&self, value: Option<&[u8]>) -> bool {
        let Some(value) = value else { return *self == Self::Absent };
        match self {
            Self::Exact(wanted) => wanted.as_bytes() == value,
            Self::Prefix(prefix) => value.starts_with(prefix.as_bytes()),
            Self::Regex(pattern) => pattern.matches(value),
            Self::Present => true,
            Self::Absent => false,
        }
    }
}

/// A header that is asked for.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize)]
pub struct HeaderMatch {
    /// Its name; case does not count.
    #[serde(serialize_with = "name")]
    pub name: HeaderName,
    /// What its values, joined with `,`, must be.
    pub value: ValueMatch,
}

/// A query parameter that is asked for.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize)]
pub struct QueryMatch {
    /// Its name, case included.
    pub name: Box<str>,
    /// What its first value must be.
    pub value: ValueMatch,
}

fn name<S: Serializer>(name: &HeaderName, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(name.as_str())
}

impl Serialize for Segments {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.path())
    }
}

impl PathMatch {
    /// Whether it takes this path.
    pub fn takes(&self, path: &str) -> bool {
        match self {
            Self::Exact(wanted) => **wanted == *path,
            Self::Bytes(prefix) => path.starts_with(&**prefix),
            Self::Segments(segments) => segments.begin(path),
            Self::Regex(pattern) => pattern.matches(path.as_bytes()),
            Self::Grpc(call) => call.takes(path),
        }
    }
}

impl GrpcMatch {
    fn takes(&self, path: &str) -> bool {
        let Some((service, method)) = grpc_call(path) else { return false };
        self.service.as_ref().is_none_or(|name| name.takes(service))
            && self.method.as_ref().is_none_or(|name| name.takes(method))
    }
}

/// Service and method of the path of a call (gRPC over HTTP/2, "Requests").
pub(super) fn grpc_call(path: &str) -> Option<(&str, &str)> {
    let (service, method) = path.strip_prefix('/')?.rsplit_once('/')?;
    (!service.is_empty() && !method.is_empty()).then_some((service, method))
}

impl Match {
    /// Whether a request fulfils it.
    pub fn takes(&self, request: &Request<'_>) -> bool {
        self.path.as_ref().is_none_or(|path| path.takes(&request.path)) && self.rest_takes(request)
    }

    /// The same but for the path, which an index has compared.
    pub(super) fn rest_takes(&self, request: &Request<'_>) -> bool {
        self.method.as_ref().is_none_or(|method| method.takes(Some(request.method.as_bytes())))
            && self.headers.iter().all(|header| header.takes(request))
            && self.query.iter().all(|parameter| parameter.takes(request))
    }
}

impl HeaderMatch {
    /// Whether the request has such a header.
    pub fn takes(&self, request: &Request<'_>) -> bool {
        self.value.takes(request.header(&self.name).as_deref())
    }
}

impl QueryMatch {
    /// Whether the request has such a parameter.
    pub fn takes(&self, request: &Request<'_>) -> bool {
        self.value.takes(request.parameter(&self.name).map(str::as_bytes))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::tests::{asked, exact, header, query, regex};

    fn segments(prefix: &str, path: &str) -> bool {
        PathMatch::Segments(Segments::new(prefix)).takes(path)
    }

    #[test]
    fn a_byte_prefix_takes_half_words_and_a_segment_prefix_does_not() {
        let bytes = PathMatch::Bytes("/offers".into());
        for path in ["/offers", "/offersale", "/offers/1"] {
            assert!(bytes.takes(path), "{path}");
        }
        assert!(!bytes.takes("/offer"));
        assert!(segments("/offers", "/offers") && segments("/offers", "/offers/1"));
        assert!(!segments("/offers", "/offersale"));
    }

    #[test]
    fn a_slash_at_the_end_of_a_segment_prefix_says_nothing() {
        for prefix in ["/abc", "/abc/"] {
            for path in ["/abc", "/abc/", "/abc/def"] {
                assert!(segments(prefix, path), "{prefix} {path}");
            }
            assert!(!segments(prefix, "/abcd") && !segments(prefix, "/ab"), "{prefix}");
            assert!(!segments(prefix, "/ABC"), "case counts");
        }
    }

    #[test]
    fn the_root_takes_every_path_but_not_the_asterisk() {
        assert!(segments("/", "/") && segments("/", "/a"));
        assert!(!segments("/", "*"));
    }

    #[test]
    fn an_exact_path_is_that_path_and_no_other() {
        let path = PathMatch::Exact("/abc".into());
        assert!(path.takes("/abc"));
        assert!(!path.takes("/abc/") && !path.takes("/ABC"));
    }

    #[test]
    fn a_path_is_compared_without_the_query() {
        let asked = asked("GET", "/abc?d=e");
        let of = |path| Match { path: Some(path), ..Match::default() };
        assert!(of(PathMatch::Exact("/abc".into())).takes(&asked.request()));
        assert!(of(PathMatch::Regex(Pattern::new("/a[^?]*").unwrap())).takes(&asked.request()));
    }

    #[test]
    fn methods_are_compared_with_case() {
        let of = |value| Match { method: Some(value), ..Match::default() };
        assert!(of(exact("GET")).takes(&asked("GET", "/").request()));
        assert!(!of(exact("get")).takes(&asked("GET", "/").request()));
        assert!(of(ValueMatch::Prefix("P".into())).takes(&asked("PATCH", "/").request()));
        assert!(of(regex("GET|HEAD")).takes(&asked("HEAD", "/").request()));
    }

    #[test]
    fn an_absent_header_matches_nothing_but_absent() {
        let with = asked("GET", "/").header("x-a", "v1");
        let without = asked("GET", "/");
        for value in
            [exact("v1"), ValueMatch::Prefix("v".into()), regex("v[0-9]"), ValueMatch::Present]
        {
            let asks = header("X-A", value);
            assert!(asks.takes(&with.request()), "{asks:?}");
            assert!(!asks.takes(&without.request()), "{asks:?}");
        }
        assert!(header("x-a", ValueMatch::Absent).takes(&without.request()));
        assert!(!header("x-a", ValueMatch::Absent).takes(&with.request()));
        assert!(!header("x-a", regex(".*")).takes(&without.request()));
        assert!(!header("x-a", exact("")).takes(&without.request()));
    }

    #[test]
    fn repeated_headers_are_compared_as_one_value() {
        let asked = asked("GET", "/").header("x-a", "1").header("x-a", "2");
        assert!(header("x-a", exact("1,2")).takes(&asked.request()));
        assert!(!header("x-a", exact("1")).takes(&asked.request()));
    }

    #[test]
    fn names_of_parameters_are_compared_with_case_and_the_first_value_counts() {
        let asked = asked("GET", "/?animal=whale&animal=dolphin");
        assert!(query("animal", exact("whale")).takes(&asked.request()));
        assert!(!query("animal", exact("dolphin")).takes(&asked.request()));
        assert!(!query("ANIMAL", exact("whale")).takes(&asked.request()));
        assert!(query("animal", regex("wh.*")).takes(&asked.request()));
        assert!(!query("animal", regex("wh")).takes(&asked.request()));
    }

    #[test]
    fn all_parts_of_a_match_must_hold() {
        let all = Match {
            method: Some(exact("GET")),
            path: Some(PathMatch::Exact("/a".into())),
            headers: vec![header("x-a", exact("1"))],
            query: vec![query("q", exact("2"))],
        };
        let right = || asked("GET", "/a?q=2").header("x-a", "1");
        assert!(all.takes(&right().request()));
        assert!(!all.takes(&asked("GET", "/a?q=2").request()));
        assert!(!all.takes(&asked("PUT", "/a?q=2").header("x-a", "1").request()));
        assert!(!all.takes(&asked("GET", "/a?q=3").header("x-a", "1").request()));
        assert!(!all.takes(&asked("GET", "/b?q=2").header("x-a", "1").request()));
    }

    #[test]
    fn a_match_is_written_as_an_object_with_how_each_part_is_compared() {
        let all = Match {
            method: Some(exact("GET")),
            path: Some(PathMatch::Segments(Segments::new("/api/"))),
            headers: vec![header("X-A", regex("1+")), header("x-b", ValueMatch::Present)],
            query: vec![],
        };
        let written = serde_json::json!({
            "method": {"exact": "GET"},
            "path": {"segment_prefix": "/api"},
            "headers": [
                {"name": "x-a", "value": {"regex": "1+"}},
                {"name": "x-b", "value": "present"},
            ],
        });
        assert_eq!(serde_json::to_value(&all).unwrap(), written);
        let service = Some(GrpcName::Exact("a.B".into()));
        let call = PathMatch::Grpc(GrpcMatch { service, method: None });
        let written = serde_json::json!({"grpc": {"service": {"exact": "a.B"}}});
        assert_eq!(serde_json::to_value(&call).unwrap(), written);
        let bytes = serde_json::to_value(PathMatch::Bytes("/a".into())).unwrap();
        assert_eq!(bytes, serde_json::json!({"prefix": "/a"}));
    }

    #[test]
    fn a_call_of_grpc_is_found_by_service_method_or_both() {
        let name = |text: &str| Some(GrpcName::Exact(text.into()));
        let call = |service, method| PathMatch::Grpc(GrpcMatch { service, method });
        let both = call(name("shop.Catalog"), name("Get"));
        assert!(both.takes("/shop.Catalog/Get"));
        assert!(!both.takes("/shop.Catalog/GetAll") && !both.takes("/shop.Catalog/"));
        let service = call(name("shop.Catalog"), None);
        assert!(service.takes("/shop.Catalog/List"));
        assert!(!service.takes("/shop.Catalogs/List") && !service.takes("/shop.Catalog"));
        assert!(call(None, name("Get")).takes("/any/Get"));
        let pattern = Some(GrpcName::Regex(Pattern::new("shop\\..*").unwrap()));
        assert!(call(pattern, None).takes("/shop.Catalog/Get"));
    }
}
