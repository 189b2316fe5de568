//! The account of a decision, as people read it.

use super::{asked, exact, header, query, regex};
use crate::http::{
    Criterion, GrpcMatch, GrpcName, Hostname, Match, Order, PathMatch, Pattern, Router, Rule,
    Rules, Segments, ValueMatch,
};

fn at(path: PathMatch) -> Match {
    Match { path: Some(path), ..Match::default() }
}

fn prefix(path: &str) -> PathMatch {
    PathMatch::Segments(Segments::new(path))
}

#[test]
fn every_match_before_the_one_that_took_the_request_says_in_what_they_differ() {
    let rule = |host: &str, matches: Match| Rule {
        hostnames: vec![Hostname::new(host).unwrap()],
        matches: vec![matches],
        ..Rule::default()
    };
    let canary = Match {
        method: Some(exact("GET")),
        headers: vec![header("x-canary", exact("yes"))],
        query: vec![query("v", exact("2"))],
        ..at(prefix("/api"))
    };
    let rules = Rules {
        order: Order::Gateway,
        rules: vec![
            rule("*", at(prefix("/"))),
            rule("*", at(PathMatch::Exact("/other".into()))),
            rule("*", canary),
            rule("shop.example", at(prefix("/"))),
        ],
        otherwise: None,
    };
    let router = Router::new(rules).unwrap();
    let asked = asked("PUT", "/api/x?v=1").host("a.example").header("x-canary", "no");
    let why = router.why(&asked.request());
    let told: Vec<(usize, Vec<String>, Option<Criterion>)> = why
        .iter()
        .map(|one| {
            let differs = one.differs.iter().map(ToString::to_string).collect();
            (one.listed.found.place.unwrap().rule, differs, one.listed.before_next)
        })
        .collect();
    let words = |list: &[&str]| list.iter().map(|&word| word.to_owned()).collect::<Vec<_>>();
    let differences = words(&[
        "method PUT is not `GET`",
        "header x-canary: `no` is not `yes`",
        "query parameter v: `1` is not `2`",
    ]);
    assert_eq!(
        told,
        [
            (3, words(&["it is for host shop.example, not a.example"]), None),
            (1, words(&["path /api/x is not `/other`"]), Some(Criterion::Path)),
            (2, differences, Some(Criterion::Path)),
            (0, vec![], None),
        ]
    );
    assert_eq!(why[1].listed.before_next.unwrap().to_string(), "its path is more specific");
}

#[test]
fn each_kind_of_difference_has_its_sentence() {
    let call = GrpcMatch { service: Some(GrpcName::Exact("a.B".into())), method: None };
    let pattern = |text: &str| Pattern::new(text).unwrap();
    for (matches, sentence) in [
        (at(PathMatch::Exact("/b".into())), "path /a is not `/b`"),
        (at(PathMatch::Bytes("/b".into())), "path /a does not begin with `/b`"),
        (at(prefix("/b")), "path /a is neither `/b` nor below it"),
        (at(PathMatch::Regex(pattern("/b+"))), "path /a does not match `/b+` as a whole"),
        (at(PathMatch::Grpc(call)), "path /a is not a call of service `a.B`, method any"),
        (headers("x-b", exact("1")), "header x-b is not there"),
        (headers("x-a", ValueMatch::Absent), "header x-a is there"),
        (headers("x-a", ValueMatch::Prefix("2".into())), "header x-a: `1` does not begin with `2`"),
        (headers("x-a", regex("2")), "header x-a: `1` does not match `2` as a whole"),
    ] {
        let asked = asked("GET", "/a").header("x-a", "1");
        let differs = matches.differs(&asked.request());
        assert_eq!(differs.iter().map(ToString::to_string).collect::<Vec<_>>(), [sentence]);
    }
}

fn headers(name: &str, value: ValueMatch) -> Match {
    Match { headers: vec![header(name, value)], ..Match::default() }
}

#[test]
fn a_match_says_what_it_asks_for() {
    let all = Match {
        method: Some(exact("GET")),
        headers: vec![header("x-a", ValueMatch::Present)],
        query: vec![query("v", regex("[12]"))],
        ..at(prefix("/api/"))
    };
    assert_eq!(
        all.to_string(),
        "path `/api` and below, method `GET`, header x-a present, query parameter v matching `[12]`"
    );
    assert_eq!(Match::default().to_string(), "any request");
}
