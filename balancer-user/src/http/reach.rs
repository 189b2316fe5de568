//! Matches that no request gets to, because one that is asked before takes all that they could.
//!
//! Said where it is plain: the one before asks for nothing that the other does not ask for as well,
//! and for any path, for the same one, or for one that begins so that the other's must. Whether one
//! pattern takes all that another takes is not looked at. Matches are found by what they ask for
//! besides the path, so that 10,000 of them are not compared with each other.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
};

use super::{
    hostname::Hostname,
    matcher::{HeaderMatch, Match, PathMatch, QueryMatch, ValueMatch},
    precedence::Criterion,
    router::{HostIndex, Place, Router},
    rule::{Rule, Rules},
    tree::{After, Tree},
};

/// Of a match with more conditions besides the path only those are found that take it with just as
/// many, or with none: each of two to this power of sets is looked up.
const CONDITIONS_MAX: usize = 8;

/// A match that takes no request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Unreached {
    /// Where it stands.
    pub place: Place,
    /// The first match that takes all of its requests; of several hostnames those of the first.
    pub by: Place,
    /// Why that one is asked before.
    pub why: Criterion,
    /// It takes `OPTIONS *` all the same, which has no path that could begin with anything.
    pub but_asterisk: bool,
}

impl Match {
    /// Whether it plainly takes every request for a path that another takes. Requests for `*` have
    /// none, see [`Unreached::but_asterisk`].
    pub fn covers(&self, other: &Self) -> bool {
        let path = self.path.as_ref().is_none_or(|path| path.covers(other.path.as_ref()));
        path && self.method.iter().all(|method| other.method.as_ref() == Some(method))
            && self.headers.iter().all(|header| other.headers.contains(header))
            && self.query.iter().all(|parameter| other.query.contains(parameter))
    }

    fn takes_asterisk(&self) -> bool {
        self.path.as_ref().is_none_or(|path| path.takes("*"))
    }
}

impl PathMatch {
    /// The same of paths; `None` is any.
    fn covers(&self, other: Option<&Self>) -> bool {
        if other == Some(self) {
            return true;
        }
        match (self, other) {
            // Every path begins with a slash.
            (Self::Bytes(prefix), None) => "/".starts_with(&**prefix),
            (Self::Bytes(prefix), Some(Self::Exact(path) | Self::Bytes(path))) => {
                path.starts_with(&**prefix)
            }
            (Self::Bytes(prefix), Some(Self::Segments(segments))) => {
                segments.path().starts_with(&**prefix)
            }
            (Self::Bytes(prefix), Some(Self::Regex(pattern))) => {
                "/".starts_with(&**prefix) || pattern.literal_prefix().starts_with(&**prefix)
            }
            (Self::Segments(prefix), None) => prefix.as_str().is_empty(),
            (Self::Segments(prefix), Some(Self::Exact(path))) => prefix.begin(path),
            (Self::Segments(prefix), Some(Self::Segments(segments))) => {
                prefix.begin(segments.as_str())
            }
            // What follows could go on with the last segment, unless a slash ends it.
            (Self::Segments(prefix), Some(Self::Bytes(path))) => below(prefix.as_str(), path),
            (Self::Segments(prefix), Some(Self::Regex(pattern))) => {
                prefix.as_str().is_empty() || below(prefix.as_str(), pattern.literal_prefix())
            }
            _ => false,
        }
    }
}

fn below(prefix: &str, path: &str) -> bool {
    path.strip_prefix(prefix).is_some_and(|rest| rest.starts_with('/'))
}

impl Rules {
    /// The matches that take no request, in written order.
    pub fn unreached(&self) -> Vec<Unreached> {
        let asked = |rule: &Rule| Rule {
            age: rule.age.clone(),
            hostnames: rule.hostnames.clone(),
            except: rule.except.clone(),
            matches: rule.matches.clone(),
            ..Rule::default()
        };
        let rules = self.rules.iter().map(asked).collect();
        Router::of(Arc::new(Self { order: self.order, rules, otherwise: None })).unreached()
    }
}

impl Router {
    fn unreached(&self) -> Vec<Unreached> {
        // One that stands under several hostnames has to be unreached under each.
        let mut all: BTreeMap<Place, Option<Unreached>> = BTreeMap::new();
        for index in self.hosts() {
            for (row, by) in self.taken_before(index).into_iter().enumerate() {
                let here = by.and_then(|by| self.said(index, row, by));
                all.entry(index.rows[row])
                    .and_modify(|known| *known = known.filter(|_| here.is_some()))
                    .or_insert(here);
            }
        }
        all.into_values().flatten().collect()
    }

    fn said(&self, index: &HostIndex, row: usize, by: usize) -> Option<Unreached> {
        let (place, first) = (index.rows[row], index.rows[by]);
        let why = index.precedences[by].before(&index.precedences[row])?;
        let asterisk = |place| self.found(place).matched.takes_asterisk();
        let but_asterisk = asterisk(place) && !asterisk(first);
        Some(Unreached { place, by: first, why, but_asterisk })
    }

    /// For each row of a hostname the first one that takes all of its requests.
    fn taken_before(&self, index: &HostIndex) -> Vec<Option<usize>> {
        if index.rows.len() < 2 {
            return vec![None; index.rows.len()];
        }
        let mut numbers = HashMap::new();
        let mut groups: HashMap<(&[Hostname], Vec<u32>), Group<'_>> = HashMap::new();
        let mut asked = Vec::with_capacity(index.rows.len());
        for (row, place) in (0..).zip(&index.rows) {
            let found = self.found(*place);
            let conditions = conditions(found.matched, &mut numbers);
            let of = (&*found.rule.except, conditions.clone());
            groups.entry(of).or_insert_with(Group::new).add(row, found.matched);
            asked.push((found, conditions));
        }
        groups.values_mut().for_each(|group| group.prefixes.finish());
        let mut taken = Vec::with_capacity(asked.len());
        for (row, (found, conditions)) in (0..).zip(&asked) {
            let mut best = row;
            for fewer in subsets(conditions) {
                if let Some(group) = groups.get(&(&*found.rule.except, fewer)) {
                    let path = |row: u32| asked[row as usize].0.matched.path.as_ref();
                    best = group.first(found.matched.path.as_ref(), best, path);
                }
            }
            taken.push((best < row).then_some(best as usize));
        }
        taken
    }
}

/// Matches that ask for the same besides the path.
struct Group<'m> {
    /// The first one for any path.
    any: Option<u32>,
    /// The first one for each path.
    same: HashMap<&'m PathMatch, u32>,
    /// Those for paths that begin so.
    prefixes: Tree,
}

impl<'m> Group<'m> {
    fn new() -> Self {
        Self { any: None, same: HashMap::new(), prefixes: Tree::new() }
    }

    fn add(&mut self, row: u32, matched: &'m Match) {
        let Some(path) = &matched.path else {
            self.any = self.any.or(Some(row));
            return;
        };
        self.same.entry(path).or_insert(row);
        match path {
            PathMatch::Bytes(prefix) => self.prefixes.insert(prefix, row, After::Anything),
            PathMatch::Segments(prefix) => {
                self.prefixes.insert(prefix.as_str(), row, After::SegmentEnd);
            }
            PathMatch::Exact(_) | PathMatch::Regex(_) | PathMatch::Grpc(_) => {}
        }
    }

    /// The first row before `best` that takes every path that `path` takes, else `best`.
    fn first<'p>(
        &self,
        path: Option<&PathMatch>,
        best: u32,
        path_of: impl Fn(u32) -> Option<&'p PathMatch>,
    ) -> u32 {
        let same = path.and_then(|path| self.same.get(path)).copied();
        let best = self.any.into_iter().chain(same).fold(best, u32::min);
        let begins = match path {
            None => "/",
            Some(PathMatch::Exact(path) | PathMatch::Bytes(path)) => path,
            Some(PathMatch::Segments(segments)) => segments.path(),
            Some(PathMatch::Regex(pattern)) if pattern.literal_prefix().is_empty() => "/",
            Some(PathMatch::Regex(pattern)) => pattern.literal_prefix(),
            Some(PathMatch::Grpc(_)) => return best,
        };
        let covers = |row| path_of(row).is_some_and(|prefix| prefix.covers(path));
        self.prefixes.find(begins, best, |row, _| covers(row))
    }
}

/// What a match asks for besides the path, each with a number; sorted, each once.
fn conditions<'m>(matched: &'m Match, numbers: &mut HashMap<Condition<'m>, u32>) -> Vec<u32> {
    let method = matched.method.iter().map(Condition::Method);
    let headers = matched.headers.iter().map(Condition::Header);
    let query = matched.query.iter().map(Condition::Query);
    let mut asked: Vec<u32> = method
        .chain(headers)
        .chain(query)
        .map(|condition| {
            let next = numbers.len() as u32;
            *numbers.entry(condition).or_insert(next)
        })
        .collect();
    asked.sort_unstable();
    asked.dedup();
    asked
}

#[derive(PartialEq, Eq, Hash)]
enum Condition<'m> {
    Method(&'m ValueMatch),
    Header(&'m HeaderMatch),
    Query(&'m QueryMatch),
}

/// All choices of some conditions; of many only all of them and none.
fn subsets(conditions: &[u32]) -> Vec<Vec<u32>> {
    if conditions.len() > CONDITIONS_MAX {
        return vec![Vec::new(), conditions.to_vec()];
    }
    let chosen = |set: u32| {
        let at = |at: &usize| set & 1 << at != 0;
        (0..conditions.len()).filter(at).map(|at| conditions[at]).collect()
    };
    (0..1 << conditions.len()).map(chosen).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::{
        Order, Pattern, Segments,
        tests::{exact, header, query},
    };

    fn path(path: PathMatch) -> Match {
        Match { path: Some(path), ..Match::default() }
    }

    fn bytes(text: &str) -> Match {
        path(PathMatch::Bytes(text.into()))
    }

    fn segments(text: &str) -> Match {
        path(PathMatch::Segments(Segments::new(text)))
    }

    fn only(text: &str) -> Match {
        path(PathMatch::Exact(text.into()))
    }

    fn pattern(text: &str) -> Match {
        path(PathMatch::Regex(Pattern::new(text).unwrap()))
    }

    fn get(matched: Match) -> Match {
        Match { method: Some(exact("GET")), ..matched }
    }

    fn with(matched: Match, names: &[&str]) -> Match {
        let headers = names.iter().map(|name| header(name, exact("1"))).collect();
        Match { headers, ..matched }
    }

    /// The matches that are not reached, each with the one that takes its requests.
    fn unreached(order: Order, matches: &[Match]) -> Vec<(usize, usize)> {
        let rule = |one: &Match| Rule { matches: vec![one.clone()], ..Rule::default() };
        let rules = Rules { order, rules: matches.iter().map(rule).collect(), otherwise: None };
        let unreached = rules.unreached();
        unreached.iter().map(|one| (one.place.rule, one.by.rule)).collect()
    }

    #[test]
    fn what_one_before_takes_is_not_reached() {
        for (wide, narrow) in [
            (Match::default(), get(only("/a"))),
            (bytes("/api"), bytes("/api/v1")),
            (bytes("/api"), get(only("/apis"))),
            (bytes("/ä"), only("/äö")),
            (bytes("/api"), segments("/apis/v1")),
            (bytes("/api"), pattern("/api.*")),
            (bytes("/"), pattern(".*x")),
            (segments("/api"), only("/api")),
            (segments("/api"), bytes("/api/")),
            (segments("/api"), pattern("/api/[0-9]+")),
            (segments("/"), Match::default()),
            (pattern("/a.*"), get(pattern("/a.*"))),
            (get(bytes("/a")), with(get(bytes("/a")), &["x"])),
            (with(Match::default(), &["x"]), with(get(only("/a")), &["y", "x"])),
        ] {
            let said = unreached(Order::Listed, &[wide.clone(), only("/other"), narrow.clone()]);
            assert!(said.contains(&(2, 0)), "{wide} {narrow}");
        }
    }

    #[test]
    fn what_one_before_leaves_is_reached() {
        for (first, second) in [
            (bytes("/api/v1"), bytes("/api")),
            (only("/api"), only("/api/")),
            (segments("/api"), bytes("/api")),
            (segments("/api"), only("/apis")),
            (segments("/api"), pattern("/api.*")),
            (bytes("/api"), pattern("/a.*")),
            (bytes("/api"), Match::default()),
            (get(bytes("/api")), bytes("/api")),
            (get(bytes("/api")), with(bytes("/api"), &["x"])),
            (with(bytes("/api"), &["x"]), with(bytes("/api"), &["y"])),
            (Match { query: vec![query("q", exact("1"))], ..bytes("/") }, bytes("/")),
        ] {
            let said = unreached(Order::Listed, &[first.clone(), second.clone()]);
            assert_eq!(said, [], "{first} {second}");
        }
    }

    #[test]
    fn where_the_more_specific_goes_first_patterns_and_any_path_come_after_the_root() {
        let all = [pattern("/a.*"), segments("/"), with(Match::default(), &["x"]), only("/a")];
        for order in [Order::Mesh, Order::Gateway] {
            assert_eq!(unreached(order, &all), [(0, 1), (2, 1)]);
        }
        let rule = |one: &Match| Rule { matches: vec![one.clone()], ..Rule::default() };
        let rules = all.iter().map(rule).collect();
        let rules = Rules { order: Order::Mesh, rules, otherwise: None };
        let said = rules.unreached();
        assert_eq!(said.iter().map(|one| one.but_asterisk).collect::<Vec<_>>(), [false, true]);
        assert!(said.iter().all(|one| one.why == Criterion::Path));
    }

    #[test]
    fn of_many_conditions_the_same_and_none_are_looked_for() {
        let names: Vec<String> = (0..20).map(|n| format!("x-{n}")).collect();
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        let many = with(only("/a"), &names);
        let said = unreached(Order::Listed, &[many.clone(), many.clone(), bytes("/a"), many]);
        assert_eq!(said, [(1, 0), (3, 0)]);
    }

    #[test]
    fn many_matches_of_one_path_take_no_more_than_their_number() {
        let names: Vec<String> = (0..20_000).map(|n| format!("x-{n}")).collect();
        let one = |name: &String| with(segments("/"), &[name, "y"]);
        let mut all: Vec<Match> = names.iter().map(one).collect();
        all.extend((0..20_000).map(|n| bytes(&format!("/{n}x/"))));
        all.push(all[7].clone());
        assert_eq!(unreached(Order::Listed, &all), [(40_000, 7)]);
    }
}
