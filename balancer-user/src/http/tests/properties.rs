//! What holds for any rules and any request.

use std::{collections::BTreeMap, sync::LazyLock};

use proptest::prelude::*;

use super::{Asked, asked, header, query};
use crate::http::{
    Backend, BackendId, Choice, Destination, GrpcMatch, GrpcName, Hostname, Match, Order,
    PathMatch, Pattern, Readiness, Router, Rule, Rules, Segments, Split, ValueMatch,
    precedence::Age,
};

/// Few and overlapping, so that matches meet.
const PATHS: [&str; 16] = [
    "/", "/a", "/a/", "/ab", "/a/b", "/a/b/c", "/ab/c", "/abc", "/a.b/c", "/a.b/d", "/b", "/b/a",
    "//", "/a//b", "/A", "/c%20",
];
const PATTERNS: [&str; 12] = [
    "/a",
    "/a.*",
    "/a/b?c?",
    "/a|/ab",
    "/[ab]/?.*",
    "(?i)/a",
    "^/a/b$",
    "/ab*/c",
    ".*b",
    "/a{0,1}b?",
    "/a\\.b/.*",
    "/(a|b)+",
];
/// Compiling them for each case would take most of the time.
static COMPILED: LazyLock<Vec<Pattern>> =
    LazyLock::new(|| PATTERNS.map(|text| Pattern::new(text).unwrap()).into());
static ONE_OR_TWO: LazyLock<Pattern> = LazyLock::new(|| Pattern::new("[12]").unwrap());
static GRPC: LazyLock<Pattern> = LazyLock::new(|| Pattern::new("a.b").unwrap());
const HOSTS: [&str; 6] = ["*", "a.b", "*.b", "*.a.b", "c.a.b", "b"];

fn any_path() -> impl Strategy<Value = PathMatch> {
    let path = || prop::sample::select(&PATHS[..]);
    let pattern = prop::sample::select(&COMPILED[..]);
    let name = |names: &'static [&'static str]| {
        prop::option::of(prop::sample::select(names).prop_map(|name| match name {
            "a.b" => GrpcName::Regex(GRPC.clone()),
            name => GrpcName::Exact(name.into()),
        }))
    };
    prop_oneof![
        path().prop_map(|path| PathMatch::Exact(path.into())),
        path().prop_map(|path| PathMatch::Bytes(path.into())),
        path().prop_map(|path| PathMatch::Segments(Segments::new(path))),
        pattern.prop_map(PathMatch::Regex),
        (name(&["a", "b", "a/b", "a.b", ""]), name(&["a", "b", "c", "."]))
            .prop_map(|(service, method)| PathMatch::Grpc(GrpcMatch { service, method })),
    ]
}

fn any_value() -> impl Strategy<Value = ValueMatch> {
    prop_oneof![
        prop::sample::select(&["1", "2", ""][..]).prop_map(|value| ValueMatch::Exact(value.into())),
        Just(ValueMatch::Prefix("1".into())),
        Just(ValueMatch::Regex(ONE_OR_TWO.clone())),
        Just(ValueMatch::Present),
        Just(ValueMatch::Absent),
    ]
}

prop_compose! {
    fn any_match()(
        path in prop::option::weighted(0.8, any_path()),
        method in prop::option::weighted(0.2, prop::sample::select(&["GET", "PUT"][..])),
        headers in prop::collection::vec((prop::sample::select(&["x-a", "x-b"][..]), any_value()), 0..2),
        parameters in prop::collection::vec((prop::sample::select(&["a", "b"][..]), any_value()), 0..2),
    ) -> Match {
        Match {
            path,
            method: method.map(super::exact),
            headers: headers.into_iter().map(|(name, value)| header(name, value)).collect(),
            query: parameters.into_iter().map(|(name, value)| query(name, value)).collect(),
        }
    }
}

prop_compose! {
    fn any_rule()(
        matches in prop::collection::vec(any_match(), 0..4),
        hostnames in prop::collection::vec(prop::sample::select(&HOSTS[..]), 0..3),
        except in prop::collection::vec(prop::sample::select(&HOSTS[..]), 0..2),
        created in prop::option::of(0..2u8),
        name in prop::sample::select(&["a", "b"][..]),
    ) -> Rule {
        Rule {
            matches,
            hostnames: hostnames.into_iter().map(|name| Hostname::new(name).unwrap()).collect(),
            except: except.into_iter().map(|name| Hostname::new(name).unwrap()).collect(),
            age: Age { created: created.map(f64::from), name: name.to_owned() },
            split: Split::new(vec![Backend::new(Destination::Backend(BackendId(0)), 1)]),
            ..Rule::default()
        }
    }
}

fn any_order() -> impl Strategy<Value = Order> {
    prop::sample::select(&[Order::Listed, Order::Mesh, Order::Gateway][..])
}

prop_compose! {
    pub(crate) fn any_rules()(
        order in any_order(),
        rules in prop::collection::vec(any_rule(), 0..12),
        otherwise in prop::option::of(any_rule()),
    ) -> Rules {
        Rules { order, rules, otherwise }
    }
}

prop_compose! {
    pub(crate) fn any_request()(
        method in prop::sample::select(&["GET", "PUT"][..]),
        path in prop_oneof![
            4 => prop::sample::select(&PATHS[..]).prop_map(str::to_owned),
            1 => "/[abcAB./]{0,6}",
        ],
        parameters in prop::sample::select(&["", "?a=1", "?b=2&a=1", "?a&b=12"][..]),
        host in prop::sample::select(&["a.b", "c.a.b", "x.b", "b", "B", "x.y:80", ".b"][..]),
        headers in prop::collection::vec((prop::sample::select(&["x-a", "x-b"][..]), prop::sample::select(&["1", "2", ""][..])), 0..3),
    ) -> Asked {
        let asked = asked(method, &format!("{path}{parameters}")).host(host);
        headers.into_iter().fold(asked, |asked, (name, value)| asked.header(name, value))
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    #[test]
    fn indexed_and_listed_rules_agree(
        rules in any_rules(),
        requests in prop::collection::vec(any_request(), 1..12),
    ) {
        let router = Router::new(rules).unwrap();
        for asked in &requests {
            let request = asked.request();
            let place = |found: Option<crate::http::Found<'_>>| found.map(|found| found.place);
            let indexed = place(router.find(&request));
            prop_assert_eq!(indexed, place(router.find_by_listing(&request)), "{:?}", request);
            // And so does the account of it.
            let why = router.why(&request);
            let took = why.last().filter(|last| last.differs.is_empty());
            let explained = took.map(|took| took.listed.found.place);
            prop_assert_eq!(indexed.flatten(), explained.flatten());
        }
    }

    #[test]
    fn no_request_finds_a_match_that_is_not_reached(
        rules in any_rules(),
        requests in prop::collection::vec(any_request(), 1..40),
    ) {
        let router = Router::new(rules).unwrap();
        let unreached = router.rules().unreached();
        let asterisk = asked("OPTIONS", "*").host("a.b");
        for asked in requests.iter().chain([&asterisk]) {
            let request = asked.request();
            let place = router.find(&request).and_then(|found| found.place);
            let said = unreached.iter().find(|one| Some(one.place) == place);
            let aside = said.is_none_or(|one| one.but_asterisk && request.path == "*");
            prop_assert!(aside, "{:?} {:?}", said, request);
        }
    }

    #[test]
    fn matches_are_not_reached_where_one_by_one_comparison_says_so(rules in any_rules()) {
        let router = Router::new(rules).unwrap();
        let listed: Vec<_> = router.listed().collect();
        let mut reached = BTreeMap::new();
        for (row, one) in listed.iter().enumerate() {
            let covers = |before: &&crate::http::Listed<'_>| {
                before.hostname == one.hostname
                    && before.found.rule.except == one.found.rule.except
                    && before.found.matched.covers(one.found.matched)
            };
            let by = listed[..row].iter().find(covers).and_then(|by| by.found.place);
            let place = one.found.place.unwrap();
            let known = reached.entry(place).or_insert(by);
            *known = known.filter(|_| by.is_some());
        }
        let expected: Vec<_> = reached.into_iter().filter_map(|(at, by)| Some((at, by?))).collect();
        let said: Vec<_> = router.rules().unreached().iter().map(|one| (one.place, one.by)).collect();
        prop_assert_eq!(said, expected);
    }

    #[test]
    fn decisions_are_total(rules in any_rules(), asked in any_request(), number in any::<u64>()) {
        let router = Router::new(rules).unwrap();
        let chance = crate::http::Chance { backend: Choice::Number(number), cookie: number };
        let request = asked.request();
        let decision = router.decide(&request, chance, |_| if number % 3 == 0 { Readiness::Empty } else { Readiness::Ready });
        let found = router.find(&request).is_some();
        let refused = matches!(decision, crate::http::Decision::Refuse(..));
        prop_assert_eq!(refused, !found || number % 3 == 0);
    }
}
