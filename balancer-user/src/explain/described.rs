//! A described request as one that rules can be asked about.

use ::http::{
    HeaderMap, HeaderName, HeaderValue, Method, Uri,
    header::{self, HOST},
};

use super::{QueryError, RequestQuery};
use crate::http::{
    Connection, GrpcName, Host, Hostname, Match, PathMatch, QueryMatch, Request, ValueMatch,
    header_name,
};

/// A request, with what was not said filled in.
#[derive(Clone, Debug)]
pub(super) struct Described {
    method: Method,
    target: Uri,
    /// With a `Host`.
    headers: HeaderMap,
    /// Of the headers that were given, in order.
    names: Vec<HeaderName>,
}

fn refused(message: String) -> QueryError {
    QueryError { message, candidates: Vec::new() }
}

impl Described {
    /// Its headers, a `Host` among them.
    pub(super) fn headers(&self) -> &HeaderMap {
        &self.headers
    }

    /// Reads what was said of a request: `GET`, `/` and `host` where nothing was.
    ///
    /// # Errors
    /// It is none that a client could send.
    pub(super) fn new(query: &RequestQuery, host: &str) -> Result<Self, QueryError> {
        let method = query.method.as_deref().unwrap_or("GET");
        let method = Method::from_bytes(method.as_bytes()).map_err(|_| {
            refused(format!(
                "`{method}` is no method: it may hold letters, digits and !#$%&'*+-.^_`|~, as GET \
                 does"
            ))
        })?;
        let target = target(query.path.as_deref().unwrap_or("/"), &method)?;
        let mut headers = HeaderMap::new();
        let mut names = Vec::new();
        let mut said = query.host.as_deref();
        for (name, value) in &query.headers {
            let name = header_name(name).map_err(|error| refused(error.to_string()))?;
            if name == HOST {
                if said.is_some() {
                    return Err(refused(
                        "the host is given twice: a request has one, so give --host or --header \
                         host:NAME once"
                            .to_owned(),
                    ));
                }
                said = Some(value);
                continue;
            }
            let read = HeaderValue::from_bytes(value.as_bytes()).map_err(|_| {
                refused(format!("the value {value:?} of `{name}` holds what no header may"))
            })?;
            if !headers.contains_key(&name) {
                names.push(name.clone());
            }
            headers.append(name, read);
        }
        let host = said.unwrap_or(host);
        let read = Host::new(host).ok();
        let read = read.and_then(|host| HeaderValue::from_str(host.as_str()).ok());
        let read = read.ok_or_else(|| {
            refused(format!(
                "`{host}` is no host: write a name or an address, with :port if need be"
            ))
        })?;
        headers.insert(HOST, read);
        Ok(Self { method, target, headers, names })
    }

    /// As rules see it.
    ///
    /// # Errors
    /// None that [`new`](Self::new) would not have found.
    pub(super) fn request(&self, connection: Connection) -> Result<Request<'_>, QueryError> {
        Request::new(&self.method, &self.target, &self.headers, connection)
            .map_err(|error| refused(error.to_string()))
    }

    /// In one line.
    pub(super) fn words(&self, request: &Request<'_>) -> String {
        let written = self.target.path();
        let mut words = format!("{} {}", self.method, self.target);
        if *written != *request.path {
            words += &format!(" (compared as {})", request.path);
        }
        words += &format!(", host {}", request.authority);
        for (name, value) in self.in_order(&self.headers, &[]) {
            words += &format!(", header {name}: {value}");
        }
        words
    }

    /// Headers in the order in which they were given, then those that were added: the order of a
    /// map changes with what is taken out of it.
    pub(super) fn in_order(
        &self,
        headers: &HeaderMap,
        added: &[&HeaderName],
    ) -> Vec<(String, String)> {
        let mut names: Vec<&HeaderName> = self.names.iter().collect();
        for name in added {
            if !names.contains(name) {
                names.push(name);
            }
        }
        names.into_iter().flat_map(|name| values(headers, name)).collect()
    }

    /// This request where a match takes it, else one that is changed where the match asks for it;
    /// `None`: none was found, as of a pattern.
    pub(super) fn nearest(
        &self,
        hostname: &Hostname,
        wanted: &Match,
        connection: Connection,
    ) -> Option<Self> {
        let mut other = self.clone();
        let request = self.request(connection).ok()?;
        match hostname {
            _ if hostname.takes(request.host()) => {}
            Hostname::Any => {}
            Hostname::Exact(name) => drop(other.headers.insert(HOST, value(name)?)),
            Hostname::Below(name) => {
                drop(other.headers.insert(HOST, value(&format!("any.{name}"))?));
            }
        }
        if let Some(method) = &wanted.method
            && !method.takes(Some(request.method.as_bytes()))
        {
            other.method = Method::from_bytes(text(method)?.as_bytes()).ok()?;
        }
        let path = match &wanted.path {
            Some(path) if !path.takes(&request.path) => beginning(path)?,
            _ => self.target.path().to_owned(),
        };
        let query = with_parameters(&request, &wanted.query)?;
        let target = if query.is_empty() { path } else { format!("{path}?{query}") };
        other.target = target.parse().ok()?;
        for header in wanted.headers.iter().filter(|header| !header.takes(&request)) {
            if header.value == ValueMatch::Absent {
                other.headers.remove(&header.name);
                continue;
            }
            if !other.headers.contains_key(&header.name) {
                other.names.push(header.name.clone());
            }
            other.headers.insert(header.name.clone(), value(text(&header.value)?)?);
        }
        let changed = other.request(connection).ok()?;
        let taken = hostname.takes(changed.host()) && wanted.takes(&changed);
        taken.then_some(other)
    }
}

/// All values of a header.
pub(super) fn values(headers: &HeaderMap, name: &HeaderName) -> Vec<(String, String)> {
    let text = |value: &HeaderValue| String::from_utf8_lossy(value.as_bytes()).into_owned();
    headers.get_all(name).iter().map(|value| (name.to_string(), text(value))).collect()
}

/// Headers of an answer.
pub(super) fn pairs(headers: &HeaderMap) -> Vec<(String, String)> {
    headers.keys().flat_map(|name| values(headers, name)).collect()
}

/// Where a redirect leads.
pub(super) fn location(headers: &HeaderMap) -> Option<String> {
    let location = headers.get(header::LOCATION)?;
    Some(String::from_utf8_lossy(location.as_bytes()).into_owned())
}

fn target(path: &str, method: &Method) -> Result<Uri, QueryError> {
    let example = "as /api/items?page=2 does";
    if path == "*" && *method != Method::OPTIONS {
        return Err(refused("only OPTIONS has the path *: give one that begins with /".to_owned()));
    }
    if path != "*" && !path.starts_with('/') {
        return Err(refused(format!("the path `{path}` must begin with /, {example}")));
    }
    if path.contains('#') {
        return Err(refused(format!(
            "the path `{path}` has a fragment, which clients do not send: write %23 for a #"
        )));
    }
    path.parse().map_err(|_| {
        refused(format!(
            "the path `{path}` holds what no request line may: write % codes, as %20 for a blank"
        ))
    })
}

fn value(text: &str) -> Option<HeaderValue> {
    HeaderValue::from_str(text).ok()
}

/// A value that is taken; `None`: that is not plain to see.
fn text(wanted: &ValueMatch) -> Option<&str> {
    match wanted {
        ValueMatch::Exact(text) | ValueMatch::Prefix(text) => Some(text),
        ValueMatch::Present => Some("any"),
        ValueMatch::Regex(_) | ValueMatch::Absent => None,
    }
}

fn beginning(path: &PathMatch) -> Option<String> {
    let name = |name: &Option<GrpcName>, any: &str| match name {
        None => Some(any.to_owned()),
        Some(GrpcName::Exact(name)) => Some(name.to_string()),
        Some(GrpcName::Regex(_)) => None,
    };
    match path {
        PathMatch::Exact(path) | PathMatch::Bytes(path) => Some(path.to_string()),
        PathMatch::Segments(segments) => Some(segments.path().to_owned()),
        PathMatch::Regex(_) => None,
        PathMatch::Grpc(call) => {
            Some(format!("/{}/{}", name(&call.service, "any.Service")?, name(&call.method, "Any")?))
        }
    }
}

/// The query of a request with the parameters that are asked for: of several of one name the first
/// is compared.
fn with_parameters(request: &Request<'_>, wanted: &[QueryMatch]) -> Option<String> {
    let mut pairs: Vec<String> =
        request.query.into_iter().flat_map(|query| query.split('&')).map(str::to_owned).collect();
    for parameter in wanted.iter().filter(|parameter| !parameter.takes(request)) {
        let name = &*parameter.name;
        pairs.retain(|pair| pair.split('=').next() != Some(name));
        if parameter.value != ValueMatch::Absent {
            pairs.push(format!("{name}={}", text(&parameter.value)?));
        }
    }
    Some(pairs.join("&"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::{HeaderMatch, Pattern, Scheme, Segments};

    fn query(method: &str, path: &str, headers: &[(&str, &str)]) -> RequestQuery {
        RequestQuery {
            method: Some(method.to_owned()),
            path: Some(path.to_owned()),
            host: None,
            headers: headers.iter().map(|(n, v)| ((*n).to_owned(), (*v).to_owned())).collect(),
        }
    }

    fn connection() -> Connection {
        Connection { client: [10, 0, 0, 1].into(), port: 80, scheme: Scheme::Http }
    }

    #[test]
    fn what_was_not_said_is_a_get_of_the_root_at_the_name_that_was_dialled() {
        let described = Described::new(&RequestQuery::default(), "backend").unwrap();
        let request = described.request(connection()).unwrap();
        assert_eq!((request.method, &*request.path, request.authority), ("GET", "/", "backend"));
        assert_eq!(described.words(&request), "GET /, host backend");
    }

    #[test]
    fn headers_keep_their_order_and_a_host_among_them_is_the_host() {
        let headers = [("x-b", "1"), ("Host", "a.example:81"), ("X-A", "2"), ("x-b", "3")];
        let described = Described::new(&query("PUT", "/a/../b?c", &headers), "backend").unwrap();
        let request = described.request(connection()).unwrap();
        assert_eq!(
            described.words(&request),
            "PUT /a/../b?c (compared as /b), host a.example:81, header x-b: 1, header x-b: 3, \
             header x-a: 2"
        );
    }

    #[test]
    fn what_no_client_could_send_is_refused_with_what_would_be_right() {
        let refused = |query: RequestQuery| Described::new(&query, "b").unwrap_err().message;
        for (query, words) in [
            (query("GE T", "/", &[]), "`GE T` is no method"),
            (query("", "/", &[]), "`` is no method"),
            (query("GET", "api", &[]), "the path `api` must begin with /"),
            (query("GET", "", &[]), "the path `` must begin with /"),
            (query("GET", "*", &[]), "only OPTIONS has the path *"),
            (query("GET", "/a#b", &[]), "write %23 for a #"),
            (query("GET", "/a b", &[]), "%20 for a blank"),
            (query("GET", "/", &[("x y", "1")]), "`x y` is no name of a header"),
            (query("GET", "/", &[(":path", "/")]), "`:path` is no name of a header"),
            (query("GET", "/", &[("x-a", "1\n2")]), "holds what no header may"),
            (query("GET", "/", &[("host", "a b")]), "`a b` is no host"),
            (query("GET", "/", &[("host", "a"), ("host", "b")]), "the host is given twice"),
        ] {
            let message = refused(query);
            assert!(message.contains(words), "{message}");
        }
        let twice = RequestQuery { host: Some("a".into()), ..query("GET", "/", &[("host", "b")]) };
        assert!(refused(twice).contains("the host is given twice"));
        assert!(Described::new(&query("OPTIONS", "*", &[]), "b").is_ok());
    }

    #[test]
    fn a_request_is_changed_only_where_a_match_asks_for_it() {
        let asked = query("GET", "/offers?page=2", &[("x-a", "1")]);
        let described = Described::new(&asked, "backend").unwrap();
        let nearest = |hostname: &str, wanted: &Match| {
            let hostname = Hostname::new(hostname).unwrap();
            let nearest = described.nearest(&hostname, wanted, connection())?;
            let request = nearest.request(connection()).unwrap();
            Some(nearest.words(&request))
        };
        let path = |path: PathMatch| Match { path: Some(path), ..Match::default() };
        let same = "GET /offers?page=2, host backend, header x-a: 1";
        assert_eq!(nearest("*", &path(PathMatch::Bytes("/off".into()))).as_deref(), Some(same));
        assert_eq!(
            nearest("*.example", &path(PathMatch::Segments(Segments::new("/api")))).as_deref(),
            Some("GET /api?page=2, host any.example, header x-a: 1")
        );
        let pattern = |text: &str| path(PathMatch::Regex(Pattern::new(text).unwrap()));
        assert_eq!(nearest("*", &pattern("/o.*")).as_deref(), Some(same));
        assert_eq!(nearest("*", &pattern("/z.*")), None);
        // No path is like this in its normal form.
        assert_eq!(nearest("*", &path(PathMatch::Exact("/a/../b".into()))), None);
        let header = |name: &str, value| HeaderMatch { name: name.parse().unwrap(), value };
        let parameter = |name: &str, value| QueryMatch { name: name.into(), value };
        let much = Match {
            method: Some(ValueMatch::Exact("PUT".into())),
            headers: vec![
                header("x-a", ValueMatch::Absent),
                header("x-b", ValueMatch::Prefix("2".into())),
            ],
            query: vec![
                parameter("page", ValueMatch::Exact("3".into())),
                parameter("size", ValueMatch::Present),
            ],
            ..Match::default()
        };
        assert_eq!(
            nearest("shop.example", &much).as_deref(),
            Some("PUT /offers?page=3&size=any, host shop.example, header x-b: 2")
        );
    }
}
