//! Which of the matches that take a request goes first: an order for each family of routes.

use std::{cmp::Ordering, cmp::Reverse, fmt};

use super::matcher::{GrpcMatch, GrpcName, Match, PathMatch};

/// By what rules are ordered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    /// As they are listed: TrafficRoute (semantics 3.8).
    Listed,
    /// MeshHTTPRoute (semantics 4.4): the path, the method, the number of headers, of query
    /// parameters, then as listed, which is the order of merging (4.6).
    Mesh,
    /// HTTPRoute (semantics 5.3): the same of each match, then the older route, then the route's
    /// name, then as listed. Hostnames are compared before. GRPCRoute (semantics 5.7): the longer
    /// service, the longer method, the number of headers, then the same. No two of different kinds
    /// are for one host, so that nothing has to be said of an HTTP path beside a service.
    Gateway,
}

/// The place of a match among all. Smaller is tried first.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Precedence {
    path: PathRank,
    method: Reverse<bool>,
    headers: Reverse<usize>,
    query: Reverse<usize>,
    age: Age,
    /// Of the rule among the listed ones, of the match in its rule.
    listed: (usize, usize),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum PathRank {
    Exact,
    /// Characters of the prefix.
    Prefix(Reverse<usize>),
    /// Characters of the pattern.
    Regex(Reverse<usize>),
    /// Characters of service and method.
    Grpc(Reverse<usize>, Reverse<usize>),
    /// Of every call, too.
    None,
}

/// Since when a route exists, and its name: what decides between routes that are alike otherwise.
/// Smaller goes first. One whose time is unknown is older than all others, as elsewhere.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Age {
    /// Creation time in seconds since 1970 with a fraction.
    pub created: Option<f64>,
    /// `namespace/name`.
    pub name: String,
}

impl Age {
    fn born(&self) -> f64 {
        self.created.unwrap_or(f64::NEG_INFINITY)
    }
}

impl Eq for Age {}

impl PartialOrd for Age {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Age {
    fn cmp(&self, other: &Self) -> Ordering {
        self.born().total_cmp(&other.born()).then_with(|| self.name.cmp(&other.name))
    }
}

/// Why one match goes before another: the first thing in which they differ.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Criterion {
    /// The kind of the path, or the length of what is compared with it.
    Path,
    /// One asks for a method.
    Method,
    /// One asks for more headers.
    Headers,
    /// One asks for more query parameters.
    Query,
    /// The older route, or the smaller name.
    Age,
    /// It is listed before.
    Listed,
}

impl fmt::Display for Criterion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Path => "its path is more specific",
            Self::Method => "it asks for a method",
            Self::Headers => "it asks for more headers",
            Self::Query => "it asks for more query parameters",
            Self::Age => "its route is older, or first by name",
            Self::Listed => "it is listed first",
        })
    }
}

impl Precedence {
    /// The place of a match: of the rule at `rule` in the list, the match at `at` of the rule.
    pub fn new(order: Order, matches: &Match, age: &Age, rule: usize, at: usize) -> Self {
        let listed = (rule, at);
        let counted = Self {
            path: PathRank::of(matches.path.as_ref()),
            method: Reverse(matches.method.is_some()),
            headers: Reverse(matches.headers.len()),
            query: Reverse(matches.query.len()),
            age: age.clone(),
            listed,
        };
        match order {
            Order::Listed => Self {
                path: PathRank::None,
                method: Reverse(false),
                headers: Reverse(0),
                query: Reverse(0),
                age: Age::default(),
                listed,
            },
            Order::Mesh => Self { age: Age::default(), ..counted },
            Order::Gateway => counted,
        }
    }

    /// Why this goes before `other`; `None` if it does not.
    pub fn before(&self, other: &Self) -> Option<Criterion> {
        if self >= other {
            return None;
        }
        let differ = [
            (self.path != other.path, Criterion::Path),
            (self.method != other.method, Criterion::Method),
            (self.headers != other.headers, Criterion::Headers),
            (self.query != other.query, Criterion::Query),
            (self.age != other.age, Criterion::Age),
        ];
        let first = differ.into_iter().find(|(differs, _)| *differs);
        Some(first.map_or(Criterion::Listed, |(_, criterion)| criterion))
    }
}

impl PathRank {
    fn of(path: Option<&PathMatch>) -> Self {
        let characters = |text: &str| Reverse(text.chars().count());
        let name = |name: &Option<GrpcName>| characters(name.as_ref().map_or("", GrpcName::text));
        match path {
            None => Self::None,
            Some(PathMatch::Exact(_)) => Self::Exact,
            Some(PathMatch::Bytes(prefix)) => Self::Prefix(characters(prefix)),
            Some(PathMatch::Segments(segments)) => Self::Prefix(characters(segments.path())),
            Some(PathMatch::Regex(pattern)) => Self::Regex(characters(pattern.text())),
            Some(PathMatch::Grpc(GrpcMatch { service, method })) => {
                Self::Grpc(name(service), name(method))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::{
        matcher::{Segments, ValueMatch},
        pattern::Pattern,
        tests::{exact, header, query},
    };

    /// What each order makes of a list, as places in the list.
    fn sorted(order: Order, matches: &[Match]) -> Vec<usize> {
        let mut places: Vec<(Precedence, usize)> = matches
            .iter()
            .enumerate()
            .map(|(i, m)| (Precedence::new(order, m, &Age::default(), i, 0), i))
            .collect();
        places.sort();
        places.into_iter().map(|(_, i)| i).collect()
    }

    fn of(path: PathMatch) -> Match {
        Match { path: Some(path), ..Match::default() }
    }

    fn prefix(path: &str) -> Match {
        of(PathMatch::Segments(Segments::new(path)))
    }

    fn pattern(text: &str) -> Match {
        of(PathMatch::Regex(Pattern::new(text).unwrap()))
    }

    fn call(service: Option<&str>, method: Option<&str>) -> Match {
        let name = |text: &str| GrpcName::Exact(text.into());
        of(PathMatch::Grpc(GrpcMatch { service: service.map(name), method: method.map(name) }))
    }

    #[test]
    fn exact_paths_go_first_then_long_prefixes_then_long_patterns_then_none() {
        let list = [
            Match::default(),
            pattern("/a.*"),
            pattern("/abc.*"),
            prefix("/"),
            prefix("/a/b"),
            of(PathMatch::Exact("/z".into())),
        ];
        for order in [Order::Mesh, Order::Gateway] {
            assert_eq!(sorted(order, &list), [5, 4, 3, 2, 1, 0], "{order:?}");
        }
        assert_eq!(sorted(Order::Listed, &list), [0, 1, 2, 3, 4, 5]);
    }

    #[test]
    fn a_method_goes_before_headers_and_headers_before_parameters() {
        let at = |m: Match| Match { path: Some(PathMatch::Exact("/a".into())), ..m };
        let list = [
            at(Match::default()),
            at(Match { query: vec![query("a", exact("1")); 2], ..Match::default() }),
            at(Match { headers: vec![header("a", exact("1"))], ..Match::default() }),
            at(Match { headers: vec![header("a", exact("1")); 2], ..Match::default() }),
            at(Match { method: Some(ValueMatch::Exact("GET".into())), ..Match::default() }),
        ];
        assert_eq!(sorted(Order::Mesh, &list), [4, 3, 2, 1, 0]);
    }

    #[test]
    fn all_exact_paths_are_alike_and_the_list_decides_between_equals() {
        let longer = of(PathMatch::Exact("/other".into()));
        assert_eq!(sorted(Order::Mesh, &[of(PathMatch::Exact("/a".into())), longer]), [0, 1]);
    }

    #[test]
    fn the_older_route_goes_first_then_the_name_and_only_in_the_gateway_api() {
        let age = |created: Option<f64>, name: &str| Age { created, name: name.into() };
        let place = |order, age: &Age, at| Precedence::new(order, &prefix("/a"), age, at, 0);
        let (old, young) = (age(Some(1.0), "z/z"), age(Some(2.0), "a/a"));
        let criterion = |order, first: &Age, second: &Age| {
            place(order, second, 1).before(&place(order, first, 0))
        };
        assert_eq!(criterion(Order::Gateway, &young, &old), Some(Criterion::Age));
        assert_eq!(criterion(Order::Gateway, &old, &young), None);
        assert_eq!(criterion(Order::Mesh, &young, &old), None);
        let named = |name| age(Some(1.0), name);
        assert_eq!(criterion(Order::Gateway, &named("a/b"), &named("a/a")), Some(Criterion::Age));
        assert_eq!(criterion(Order::Gateway, &old, &age(None, "z/z")), Some(Criterion::Age));
    }

    #[test]
    fn calls_of_grpc_go_by_service_then_method_then_headers() {
        let list = [
            Match::default(),
            call(None, Some("GetEverything")),
            call(Some("a.B"), None),
            call(Some("a.B"), Some("Get")),
            Match { headers: vec![header("a", exact("1"))], ..call(Some("a.B"), Some("Get")) },
            call(Some("a.Long"), None),
        ];
        assert_eq!(sorted(Order::Gateway, &list), [5, 4, 3, 2, 1, 0]);
    }

    #[test]
    fn what_decides_is_told() {
        let place = |m: &Match, at| Precedence::new(Order::Mesh, m, &Age::default(), at, 0);
        let long = place(&prefix("/a/b"), 1);
        let short = place(&prefix("/a"), 0);
        assert_eq!(long.before(&short), Some(Criterion::Path));
        assert_eq!(short.before(&long), None);
        assert_eq!(
            place(&prefix("/a"), 0).before(&place(&prefix("/c"), 1)),
            Some(Criterion::Listed)
        );
    }
}
