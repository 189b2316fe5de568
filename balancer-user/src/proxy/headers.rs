//! Headers that are between two neighbours, and those that whoever forwards adds.

use ::http::{
    HeaderMap, HeaderName, HeaderValue, Method, Version,
    header::{
        CONNECTION, HOST, MAX_FORWARDS, PROXY_AUTHENTICATE, TE, TRANSFER_ENCODING, UPGRADE, VIA,
    },
};

const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const X_FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");

/// What is added to requests.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Added {
    /// `X-Forwarded-For` and `X-Forwarded-Proto`.
    pub forwarded: Forwarded,
    /// `Via` (RFC 9110, 7.6.3), of requests and answers.
    pub via: bool,
}

/// What is said of the client.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Forwarded {
    /// Its address comes behind those that it sends; its word on the protocol counts, if it has one.
    #[default]
    Append,
    /// What it says itself counts for nothing: for clients that nobody answers for.
    Replace,
    /// Nothing but what it says itself.
    Keep,
}

/// What is wrong with how long a request says that it is, and where it is to go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Wrong {
    /// One of HTTP/1.1 without a host (RFC 9112, 3.2), or with a coding that is given twice.
    Contradiction,
    /// More fields than one may have.
    TooMany,
    /// A transfer coding other than `chunked` (RFC 9112, 6.1), which would be lost on the way.
    Coding,
}

/// Looks for what hyper lets through; `most`: how many fields there may be.
pub(super) fn wrong(headers: &HeaderMap, version: Version, most: usize) -> Option<Wrong> {
    if headers.len() > most {
        return Some(Wrong::TooMany);
    }
    if version == Version::HTTP_11 && !headers.contains_key(HOST) {
        return Some(Wrong::Contradiction);
    }
    let mut codings = headers.get_all(TRANSFER_ENCODING).iter();
    match (codings.next(), codings.next()) {
        (None, _) => None,
        (Some(_), Some(_)) => Some(Wrong::Contradiction),
        (Some(coding), None) => {
            let chunked = coding.as_bytes().trim_ascii().eq_ignore_ascii_case(b"chunked");
            (!chunked).then_some(Wrong::Coding)
        }
    }
}

/// How far a request may go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Hop {
    /// To the next one.
    On,
    /// No further: it is for whoever has it now.
    Last,
    /// What it says is no number.
    Unknown,
}

/// Counts one hop in `Max-Forwards` of TRACE and OPTIONS; those of other methods go on as they are
/// (RFC 9110, 7.6.2).
pub(super) fn hop(method: &Method, headers: &mut HeaderMap) -> Hop {
    if !matches!(*method, Method::TRACE | Method::OPTIONS) {
        return Hop::On;
    }
    let Some(left) = headers.get(MAX_FORWARDS) else { return Hop::On };
    let digits = left.to_str().ok().filter(|left| left.bytes().all(|byte| byte.is_ascii_digit()));
    match digits.and_then(|digits| digits.parse::<u64>().ok()) {
        Some(0) => Hop::Last,
        Some(left) => {
            headers.insert(MAX_FORWARDS, HeaderValue::from(left - 1));
            Hop::On
        }
        None => Hop::Unknown,
    }
}

/// The protocol that a client wants to change to (RFC 9110, 7.8); `None`: it wants to go on.
/// Changing to HTTP/2 is for neighbours only, and nobody has to accept it (RFC 9113, 3.1).
pub(super) fn upgrade(headers: &HeaderMap) -> Option<HeaderValue> {
    let to = headers.get(UPGRADE)?;
    let asked = tokens(headers).any(|token| token.eq_ignore_ascii_case("upgrade"));
    (asked && !to.as_bytes().eq_ignore_ascii_case(b"h2c")).then(|| to.clone())
}

/// Removes what is between two neighbours (RFC 9110, 7.6.1): `Connection`, what it names, and
/// what says the same without being named there.
///
/// `TE: trailers` stays, which gRPC asks of all on the way (RFC 9113, 8.2.2 allows nothing else).
pub(super) fn between_neighbours(headers: &mut HeaderMap) {
    remove(headers, |name| {
        matches!(
            name,
            "keep-alive" | "proxy-connection" | "transfer-encoding" | "upgrade" | "http2-settings"
        )
    });
    if headers.contains_key(CONNECTION) {
        let named: Vec<HeaderName> = tokens(headers)
            .filter_map(|token| HeaderName::from_bytes(token.as_bytes()).ok())
            .filter(|name| *name != TE)
            .collect();
        named.iter().for_each(|name| drop(headers.remove(name)));
        headers.remove(CONNECTION);
    }
}

/// Removes those whose names are so. Most requests have none of them: one look at each name costs
/// less than to ask the map for every one.
fn remove(headers: &mut HeaderMap, is: impl Fn(&str) -> bool) {
    while let Some(name) = headers.keys().find(|name| is(name.as_str())).cloned() {
        headers.remove(name);
    }
}

/// Makes headers of a request those of the next one. `client`: its address.
pub(super) fn of_request(
    headers: &mut HeaderMap,
    client: &HeaderValue,
    version: Version,
    added: Added,
) {
    let trailers = headers
        .get_all(TE)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .any(|coding| coding.trim().eq_ignore_ascii_case("trailers"));
    between_neighbours(headers);
    // Credentials for a proxy that clients know of: this one they do not see. Whoever asks to be
    // told to go on is told here, once the backend reads the body.
    remove(headers, |name| matches!(name, "te" | "proxy-authorization" | "expect"));
    if trailers {
        headers.insert(TE, HeaderValue::from_static("trailers"));
    }
    if added.forwarded == Forwarded::Replace {
        headers.remove(X_FORWARDED_FOR);
        headers.remove(X_FORWARDED_PROTO);
    }
    if added.forwarded != Forwarded::Keep {
        append(headers, X_FORWARDED_FOR, client);
        headers.entry(X_FORWARDED_PROTO).or_insert(const { HeaderValue::from_static("http") });
    }
    if added.via {
        via(headers, version);
    }
}

/// Makes headers of an answer those of the next one.
pub(super) fn of_answer(headers: &mut HeaderMap, version: Version, added: Added) {
    between_neighbours(headers);
    headers.remove(PROXY_AUTHENTICATE);
    if added.via {
        via(headers, version);
    }
}

/// Says that no other request is taken on the connection (RFC 9112, 9.6); HTTP/2 says so otherwise.
pub(super) fn last(headers: &mut HeaderMap, version: Version) {
    if version < Version::HTTP_2 && !headers.contains_key(CONNECTION) {
        headers.insert(CONNECTION, HeaderValue::from_static("close"));
    }
}

fn via(headers: &mut HeaderMap, version: Version) {
    let via = match version {
        Version::HTTP_2 => "2 balancer",
        Version::HTTP_10 => "1.0 balancer",
        _ => "1.1 balancer",
    };
    append(headers, VIA, &HeaderValue::from_static(via));
}

/// Adds an element to a list: behind the last one, in the same line (RFC 9110, 5.3).
fn append(headers: &mut HeaderMap, name: HeaderName, element: &HeaderValue) {
    let mut list = Vec::new();
    for value in headers.get_all(&name) {
        list.extend_from_slice(value.as_bytes());
        list.extend_from_slice(b", ");
    }
    let value = if list.is_empty() {
        element.clone()
    } else {
        list.extend_from_slice(element.as_bytes());
        // Of values that are valid nothing else can come.
        HeaderValue::from_bytes(&list).unwrap_or_else(|_| element.clone())
    };
    headers.insert(name, value);
}

/// What `Connection` names.
fn tokens(headers: &HeaderMap) -> impl Iterator<Item = &str> {
    headers
        .get_all(CONNECTION)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .map(str::trim)
        .filter(|token| !token.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    const CLIENT: HeaderValue = HeaderValue::from_static("10.0.0.1");

    fn headers(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
        let pairs = pairs
            .iter()
            .map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value)));
        pairs.fold(HeaderMap::new(), |mut headers, (name, value)| {
            headers.append(name, value);
            headers
        })
    }

    fn text(headers: &HeaderMap) -> Vec<String> {
        headers.iter().map(|(name, value)| format!("{name}: {}", value.to_str().unwrap())).collect()
    }

    #[test]
    fn what_is_between_neighbours_and_what_it_names_goes() {
        let mut map = headers(&[
            ("connection", "close, X-Hop"),
            ("connection", "keep-alive"),
            ("x-hop", "1"),
            ("keep-alive", "timeout=5"),
            ("proxy-connection", "close"),
            ("transfer-encoding", "chunked"),
            ("upgrade", "websocket"),
            ("x-end", "2"),
        ]);
        between_neighbours(&mut map);
        assert_eq!(text(&map), ["x-end: 2"]);
    }

    #[test]
    fn of_te_only_trailers_goes_on() {
        let added = Added { forwarded: Forwarded::Keep, via: false };
        for (sent, left) in [
            ("trailers", vec!["te: trailers"]),
            ("gzip, Trailers", vec!["te: trailers"]),
            ("gzip", vec![]),
        ] {
            let mut map = headers(&[("connection", "te"), ("te", sent)]);
            of_request(&mut map, &CLIENT, Version::HTTP_11, added);
            assert_eq!(text(&map), left, "{sent}");
        }
    }

    #[test]
    fn the_client_comes_behind_those_before_it_or_in_their_place() {
        let said = |forwarded, pairs: &[_]| {
            let mut map = headers(pairs);
            of_request(&mut map, &CLIENT, Version::HTTP_11, Added { forwarded, via: false });
            text(&map)
        };
        let before = [
            ("x-forwarded-for", "192.0.2.1"),
            ("x-forwarded-for", "192.0.2.2, 192.0.2.3"),
            ("x-forwarded-proto", "https"),
        ];
        assert_eq!(
            said(Forwarded::Append, &before),
            [
                "x-forwarded-for: 192.0.2.1, 192.0.2.2, 192.0.2.3, 10.0.0.1",
                "x-forwarded-proto: https"
            ]
        );
        let own = ["x-forwarded-for: 10.0.0.1", "x-forwarded-proto: http"];
        assert_eq!(said(Forwarded::Replace, &before), own);
        assert_eq!(said(Forwarded::Append, &[]), own);
        assert_eq!(said(Forwarded::Keep, &before).len(), 3);
    }

    #[test]
    fn hops_of_trace_and_options_are_counted_and_of_others_are_not() {
        for (method, sent, on, left) in [
            (Method::TRACE, "2", Hop::On, "1"),
            (Method::OPTIONS, "1", Hop::On, "0"),
            (Method::OPTIONS, "0", Hop::Last, "0"),
            (Method::TRACE, "-1", Hop::Unknown, "-1"),
            (Method::TRACE, "", Hop::Unknown, ""),
            (Method::GET, "0", Hop::On, "0"),
        ] {
            let mut map = headers(&[("max-forwards", sent)]);
            assert_eq!(hop(&method, &mut map), on, "{method} {sent}");
            assert_eq!(text(&map), [format!("max-forwards: {left}")]);
        }
        assert_eq!(hop(&Method::TRACE, &mut HeaderMap::new()), Hop::On);
    }

    #[test]
    fn via_names_the_version_that_came_and_keeps_those_before() {
        let mut map = headers(&[("via", "1.1 other")]);
        of_answer(&mut map, Version::HTTP_2, Added { via: true, ..Added::default() });
        assert_eq!(text(&map), ["via: 1.1 other, 2 balancer"]);
    }

    #[test]
    fn only_who_says_so_in_connection_too_wants_another_protocol() {
        let asks = |pairs| upgrade(&headers(pairs)).map(|to| to.to_str().unwrap().to_owned());
        let websocket = [("connection", "keep-alive, Upgrade"), ("upgrade", "websocket")];
        assert_eq!(asks(&websocket), Some("websocket".to_owned()));
        assert_eq!(asks(&[("upgrade", "websocket")]), None);
        assert_eq!(asks(&[("connection", "upgrade"), ("upgrade", "h2c")]), None);
        assert_eq!(asks(&[("connection", "upgrade")]), None);
    }
}
