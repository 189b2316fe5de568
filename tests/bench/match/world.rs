//! Rules and requests of the bench.

use anyhow::{Result, ensure};
use balancer_user::http::{
    Backend, BackendId, Connection, Destination, Filter, HeaderChanges, HeaderMatch, Hostname,
    Match, Order, PathMatch, Pattern, Request, Router, Rule, Rules, Segments, Split, ValueMatch,
    header_name,
};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Uri, header::HOST};

/// What rules ask for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Mixed,
    Exact,
    Prefix,
    Listed,
    Hosts,
}

impl Kind {
    pub(crate) const ALL: [Self; 5] =
        [Self::Mixed, Self::Exact, Self::Prefix, Self::Listed, Self::Hosts];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Mixed => "mixed",
            Self::Exact => "exact",
            Self::Prefix => "prefix",
            Self::Listed => "listed",
            Self::Hosts => "hosts",
        }
    }
}

/// A request as hyper hands it over, and the rule that is to take it.
pub(crate) struct Asked {
    pub(crate) method: Method,
    pub(crate) target: Uri,
    pub(crate) headers: HeaderMap,
    /// `None`: no rule is.
    rule: Option<usize>,
}

/// What the rule at `at` asks for.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Part {
    Prefix,
    Exact,
    Header,
    Pattern,
    Bytes,
    Host,
}

fn part(kind: Kind, at: usize) -> Part {
    match kind {
        Kind::Exact => Part::Exact,
        Kind::Prefix => Part::Prefix,
        Kind::Listed => Part::Bytes,
        Kind::Hosts => Part::Host,
        Kind::Mixed => match at % 8 {
            0 | 3 | 6 => Part::Prefix,
            1 | 4 | 7 => Part::Exact,
            2 => Part::Header,
            _ => Part::Pattern,
        },
    }
}

/// A path of the usual length, another for each rule; none begins another with a whole segment.
fn path(at: usize) -> String {
    const AREAS: [&str; 7] = ["orders", "offers", "users", "carts", "search", "reviews", "stock"];
    format!("/api/v{}/{}/{:05}", at % 3, AREAS[at % 7], at)
}

fn host(at: usize) -> String {
    format!("shop-{at:05}.example.com")
}

pub(crate) fn rules(kind: Kind, size: usize) -> Result<Rules> {
    let rules: Result<Vec<Rule>> = (0..size).map(|at| rule(kind, at)).collect();
    let order = if kind == Kind::Listed { Order::Listed } else { Order::Gateway };
    Ok(Rules { order, rules: rules?, otherwise: None })
}

fn rule(kind: Kind, at: usize) -> Result<Rule> {
    let path = path(at);
    let mut asks = Match::default();
    let mut hostnames = Vec::new();
    asks.path = Some(match part(kind, at) {
        Part::Prefix | Part::Header => PathMatch::Segments(Segments::new(&path)),
        Part::Exact => PathMatch::Exact(path.into()),
        Part::Bytes => PathMatch::Bytes(path.into()),
        Part::Pattern => PathMatch::Regex(Pattern::new(&format!("{path}/[0-9]+/.*"))?),
        Part::Host => {
            let wildcard = if at.is_multiple_of(4) { "*." } else { "" };
            hostnames.push(Hostname::new(&format!("{wildcard}{}", host(at)))?);
            PathMatch::Segments(Segments::new("/api"))
        }
    });
    if part(kind, at) == Part::Header {
        let value = ValueMatch::Exact("yes".into());
        asks.headers.push(HeaderMatch { name: header_name("x-canary")?, value });
    }
    let mut changes = HeaderChanges::default();
    changes.set("x-route", "bench")?;
    let backend = |id| Backend::new(Destination::Backend(BackendId(id)), 50);
    Ok(Rule {
        origin: format!("rule {at}"),
        hostnames,
        matches: vec![asks],
        filters: vec![Filter::RequestHeaders(changes)],
        split: Split::new(vec![backend(0), backend(1)]),
        ..Rule::default()
    })
}

pub(crate) fn requests(kind: Kind, size: usize, count: usize) -> Result<Vec<Asked>> {
    // A step that is prime goes all over the rules.
    (0..count)
        .map(|i| {
            let rule = (i % 8 != 7).then_some(i.wrapping_mul(7_919) % size);
            asked(kind, rule)
        })
        .collect()
}

fn asked(kind: Kind, rule: Option<usize>) -> Result<Asked> {
    let target = match rule {
        None => "/static/img/logo.svg?version=7".to_owned(),
        Some(at) => match part(kind, at) {
            Part::Exact => format!("{}?page=2", path(at)),
            _ => format!("{}/17/items?page=2", path(at)),
        },
    };
    let mut headers = HeaderMap::new();
    let host = match rule {
        Some(at) if kind == Kind::Hosts && at.is_multiple_of(4) => format!("www.{}", host(at)),
        Some(at) if kind == Kind::Hosts => host(at),
        _ => "shop.example.com".to_owned(),
    };
    headers.insert(HOST, HeaderValue::from_str(&host)?);
    for (name, value) in [
        ("user-agent", "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0"),
        ("accept", "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"),
        ("accept-language", "en-GB,en;q=0.5"),
        ("accept-encoding", "gzip, deflate, br"),
        ("cookie", "sid=0123456789abcdef; theme=dark"),
        ("x-request-id", "9f0c1a52-6a43-4a53-b1ad-2b0fb4b4a8f1"),
        ("x-canary", "yes"),
        ("traceparent", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"),
    ] {
        headers.insert(HeaderName::from_static(name), HeaderValue::from_static(value));
    }
    let target: Uri = target.parse()?;
    Ok(Asked { method: Method::GET, target, headers, rule })
}

/// Every request finds the rule that it was made for: else something else is measured.
pub(crate) fn check(router: &Router, requests: &[Asked], connection: Connection) -> Result<()> {
    for asked in requests {
        let request = Request::new(&asked.method, &asked.target, &asked.headers, connection)?;
        let found = router.find(&request).and_then(|found| Some(found.place?.rule));
        ensure!(
            found == asked.rule,
            "{} is taken by rule {found:?}, not {:?}",
            asked.target,
            asked.rule
        );
    }
    Ok(())
}
