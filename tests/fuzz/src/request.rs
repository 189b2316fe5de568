//! Any rules and any request: what the router finds is what asking every match finds, and what is
//! then done comes to an end.

use std::net::IpAddr;

use arbitrary::{Result, Unstructured};
use balancer_user::http::{
    Age, Backend, BackendId, Chance, Choice, Connection, Decision, Destination, Filter, GrpcMatch,
    GrpcName, HeaderMatch, Host, HostRewrite, Hostname, Match, Order, PathMatch, PathRewrite,
    Pattern, Place, Precedence, QueryMatch, Readiness, Request, Router, Rule, Rules, Scheme,
    Segments, Split, Substitution, ValueMatch,
};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Uri, header::HOST};

/// Makes rules and a request of `data`.
pub fn request(data: &[u8]) {
    let mut data = Unstructured::new(data);
    // Too few bytes, or such that make nothing that is valid, are no finding.
    let Ok(rules) = rules(&mut data) else { return };
    let Ok(router) = Router::new(rules.clone()) else { return };
    for _ in 0..4 {
        let Ok(Some(asked)) = asked(&mut data) else { return };
        hold(&rules, &router, &asked);
    }
}

fn hold(rules: &Rules, router: &Router, asked: &Asked) {
    let connection =
        Connection { client: IpAddr::from([10, 0, 0, 9]), port: 80, scheme: Scheme::Http };
    let request = Request::new(&asked.method, &asked.target, &asked.headers, connection);
    let Ok(request) = request else { return };
    let found = router.find(&request).map(|found| found.place);
    let listed = match listed(rules, &request) {
        Some(place) => Some(Some(place)),
        None => rules.otherwise.as_ref().map(|_| None),
    };
    assert_eq!(found, listed, "{request:?}");
    let unreached =
        router.rules().unreached().into_iter().find(|one| found == Some(Some(one.place)));
    let aside = unreached.is_none_or(|one| one.but_asterisk && request.path == "*");
    assert!(aside, "{unreached:?} {request:?}");
    let why = router.why(&request);
    let took = why.last().filter(|last| last.differs.is_empty());
    assert_eq!(found.flatten(), took.and_then(|took| took.listed.found.place), "{request:?}");

    let chance = Chance { backend: Choice::Number(asked.number), cookie: asked.number };
    match router.decide(&request, chance, |_| {
        if asked.number.is_multiple_of(3) { Readiness::Empty } else { Readiness::Ready }
    }) {
        Decision::Forward(forward) => {
            let sent = forward.sent(&request);
            assert!(!sent.headers.contains_key(HOST), "the host stands by itself");
        }
        Decision::Refuse(..) => assert!(found.is_none() || asked.number.is_multiple_of(3)),
        Decision::Redirect(_) | Decision::Respond(_) => {}
    }
}

/// The first match by hostname and precedence among all that take the request.
fn listed(rules: &Rules, request: &Request<'_>) -> Option<Place> {
    let anything = Match { method: None, path: None, headers: Vec::new(), query: Vec::new() };
    let mut taking = Vec::new();
    for (number, rule) in rules.rules.iter().enumerate() {
        let any = [Hostname::Any];
        let hosts = if rule.hostnames.is_empty() { &any[..] } else { &rule.hostnames[..] };
        let all = [anything.clone()];
        let matches = if rule.matches.is_empty() { &all[..] } else { &rule.matches[..] };
        for host in hosts.iter().filter(|host| host.takes(request.host())) {
            for (at, matched) in matches.iter().enumerate() {
                if matched.takes(request) {
                    let order = Precedence::new(rules.order, matched, &rule.age, number, at);
                    taking.push((host.precedence(), order, Place { rule: number, at }));
                }
            }
        }
    }
    taking.sort();
    taking.first().map(|(.., place)| *place)
}

struct Asked {
    method: Method,
    target: Uri,
    headers: HeaderMap,
    number: u64,
}

/// `None`: it is no request.
fn asked(data: &mut Unstructured<'_>) -> Result<Option<Asked>> {
    let method: Method = (*data.choose(&["GET", "PUT", "get"])?).parse().unwrap_or_default();
    let mut target = path(data)?;
    if data.arbitrary()? {
        target.push('?');
        target.push_str(&text(data, b"ab=&%2+", 12)?);
    }
    let Ok(target) = target.parse::<Uri>() else { return Ok(None) };
    let mut headers = HeaderMap::new();
    let host = data.choose(&["a.b", "c.a.b", "x.b", "b", "B", "x.y:80", ".b", "", "[::1]:80"])?;
    headers.insert(HOST, HeaderValue::from_static(host));
    for _ in 0..data.int_in_range(0..=3)? {
        let name = HeaderName::from_static(data.choose(&["x-a", "x-b", "cookie"])?);
        let Ok(value) = HeaderValue::from_bytes(&bytes(data, 6)?) else { continue };
        headers.append(name, value);
    }
    Ok(Some(Asked { method, target, headers, number: data.arbitrary()? }))
}

fn bytes(data: &mut Unstructured<'_>, most: usize) -> Result<Vec<u8>> {
    let len = data.int_in_range(0..=most)?;
    Ok(data.bytes(len)?.to_vec())
}

/// A text of these letters.
fn text(data: &mut Unstructured<'_>, letters: &[u8], most: usize) -> Result<String> {
    let len = data.int_in_range(0..=most)?;
    (0..len).map(|_| Ok(char::from(*data.choose(letters)?))).collect()
}

fn path(data: &mut Unstructured<'_>) -> Result<String> {
    Ok(format!("/{}", text(data, b"ab/.AB%2f;~", 10)?))
}

/// `None`: what was made is no pattern.
fn pattern(data: &mut Unstructured<'_>) -> Result<Option<Pattern>> {
    Ok(Pattern::new(&text(data, b"/ab.*+?()|[]^$\\{}12,i:", 16)?).ok())
}

fn value(data: &mut Unstructured<'_>) -> Result<ValueMatch> {
    Ok(match data.int_in_range(0..=4)? {
        0 => ValueMatch::Exact(text(data, b"ab1,", 3)?.into()),
        1 => ValueMatch::Prefix(text(data, b"ab1,", 2)?.into()),
        2 => pattern(data)?.map_or(ValueMatch::Present, ValueMatch::Regex),
        3 => ValueMatch::Present,
        _ => ValueMatch::Absent,
    })
}

fn name(data: &mut Unstructured<'_>) -> Result<Option<GrpcName>> {
    Ok(match data.int_in_range(0..=2)? {
        0 => None,
        1 => Some(GrpcName::Exact(text(data, b"ab.", 4)?.into())),
        _ => pattern(data)?.map(GrpcName::Regex),
    })
}

fn one_match(data: &mut Unstructured<'_>) -> Result<Match> {
    let path = match data.int_in_range(0..=5)? {
        0 => Some(PathMatch::Exact(path(data)?.into())),
        1 => Some(PathMatch::Bytes(path(data)?.into())),
        2 => Some(PathMatch::Segments(Segments::new(&path(data)?))),
        3 => pattern(data)?.map(PathMatch::Regex),
        4 => Some(PathMatch::Grpc(GrpcMatch { service: name(data)?, method: name(data)? })),
        _ => None,
    };
    let method = if data.ratio(1, 4)? { Some(value(data)?) } else { None };
    let mut matched = Match { path, method, headers: Vec::new(), query: Vec::new() };
    for _ in 0..data.int_in_range(0..=2)? {
        let name = HeaderName::from_static(data.choose(&["x-a", "x-b", "host"])?);
        matched.headers.push(HeaderMatch { name, value: value(data)? });
    }
    for _ in 0..data.int_in_range(0..=2)? {
        let name = (*data.choose(&["a", "b", ""])?).into();
        matched.query.push(QueryMatch { name, value: value(data)? });
    }
    Ok(matched)
}

fn filter(data: &mut Unstructured<'_>) -> Result<Option<Filter>> {
    Ok(match data.int_in_range(0..=4)? {
        0 => Some(Filter::Path(PathRewrite::Full(path(data)?.into()))),
        1 => Some(Filter::Path(PathRewrite::Segments(path(data)?.into()))),
        2 => Some(Filter::Path(PathRewrite::Bytes(text(data, b"ab/", 5)?.into()))),
        3 => substitution(data)?.map(|by| Filter::Path(PathRewrite::Regex(by))),
        _ if data.arbitrary()? => {
            substitution(data)?.map(|by| Filter::Host(HostRewrite::FromPath(by)))
        }
        _ => Host::new(&text(data, b"ab.:1[]", 6)?)
            .ok()
            .map(|host| Filter::Host(HostRewrite::Value(host))),
    })
}

fn substitution(data: &mut Unstructured<'_>) -> Result<Option<Substitution>> {
    let pattern = text(data, b"/ab.*+?()|[]^$", 12)?;
    Ok(Substitution::new(&pattern, &text(data, b"ab/\\123", 6)?).ok())
}

fn rule(data: &mut Unstructured<'_>) -> Result<Rule> {
    let mut rule = Rule::default();
    for _ in 0..data.int_in_range(0..=3)? {
        rule.matches.push(one_match(data)?);
    }
    for _ in 0..data.int_in_range(0..=2)? {
        let name = data.choose(&["*", "a.b", "*.b", "*.a.b", "c.a.b", "b"])?;
        rule.hostnames.extend(Hostname::new(name).ok());
    }
    for _ in 0..data.int_in_range(0..=2)? {
        rule.filters.extend(filter(data)?);
    }
    let created =
        if data.arbitrary()? { Some(f64::from(data.int_in_range(0..=2u8)?)) } else { None };
    rule.age = Age { created, name: (*data.choose(&["a", "b"])?).to_owned() };
    let mut backends = vec![Backend::new(Destination::Backend(BackendId(0)), 1)];
    for number in 0..data.int_in_range(0..=2u32)? {
        backends.push(Backend::new(Destination::Backend(BackendId(number)), data.arbitrary()?));
    }
    rule.split = Split::new(backends);
    Ok(rule)
}

fn rules(data: &mut Unstructured<'_>) -> Result<Rules> {
    let order = *data.choose(&[Order::Listed, Order::Mesh, Order::Gateway])?;
    let mut rules = Vec::new();
    for _ in 0..data.int_in_range(0..=12)? {
        rules.push(rule(data)?);
    }
    let otherwise = if data.arbitrary()? { Some(rule(data)?) } else { None };
    Ok(Rules { order, rules, otherwise })
}
