//! From a request to the match that takes it, without asking every rule.
//!
//! Built once for a set of [`Rules`], and never changed. For each hostname there is a list of
//! matches in order of precedence; exact paths are found by hash, prefixes in a tree, and so are
//! patterns by what they plainly begin with. What is left is asked one by one. A place found so
//! is the one that asking all of them in order finds (`indexed_and_listed_rules_agree`).

use std::{borrow::Cow, collections::HashMap, sync::Arc};

use super::{
    hostname::Hostname,
    matcher::{GrpcName, Match, PathMatch, grpc_call},
    precedence::Precedence,
    request::Request,
    rule::{BadRule, Rule, Rules},
    tree::{After, Tree},
};

/// Rules, ready to be asked.
#[derive(Debug)]
pub struct Router {
    rules: Arc<Rules>,
    /// In the order of their hostnames.
    hosts: Vec<HostIndex>,
    /// Hostname → its place in `hosts`.
    exact_hosts: HashMap<Box<str>, u32>,
    /// `example.com` of `*.example.com` → likewise.
    hosts_below: HashMap<Box<str>, u32>,
    /// The place of those for every host.
    any_host: Option<u32>,
}

/// A match that takes a request.
#[derive(Clone, Copy, Debug)]
pub struct Found<'r> {
    /// Its rule.
    pub rule: &'r Rule,
    /// The match; of [`Rules::otherwise`] and of rules without matches one that asks for nothing.
    pub matched: &'r Match,
    /// Where it stands; `None`: nowhere, the rule is [`Rules::otherwise`].
    pub place: Option<Place>,
}

/// Where a match stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    /// Of the rule in [`Rules::rules`].
    pub rule: usize,
    /// Of the match in the rule.
    pub at: usize,
}

/// What a rule without matches asks for.
static ANYTHING: Match = Match { method: None, path: None, headers: Vec::new(), query: Vec::new() };

/// The matches of one hostname.
#[derive(Debug)]
pub(super) struct HostIndex {
    pub(super) hostname: Hostname,
    /// In order of precedence. A row is the index of one.
    pub(super) rows: Vec<Place>,
    pub(super) precedences: Vec<Precedence>,
    exact: HashMap<Box<str>, Vec<u32>>,
    prefixes: Tree,
    /// Rows that no path leads to.
    rest: Vec<u32>,
}

impl Router {
    /// Orders and indexes rules.
    ///
    /// # Errors
    /// A rule contradicts itself.
    pub fn new(rules: impl Into<Arc<Rules>>) -> Result<Self, BadRule> {
        let rules = rules.into();
        rules.check()?;
        Ok(Self::of(rules))
    }

    /// The same of rules that are known not to.
    pub(super) fn of(rules: Arc<Rules>) -> Self {
        let mut by_host: HashMap<&Hostname, Vec<Place>> = HashMap::new();
        let mut hosts: Vec<&Hostname> = Vec::new();
        for (at, rule) in rules.rules.iter().enumerate() {
            let names = if rule.hostnames.is_empty() {
                std::slice::from_ref(&Hostname::Any)
            } else {
                &rule.hostnames[..]
            };
            for (nth, name) in names.iter().enumerate() {
                // Said twice is said once.
                if names[..nth].contains(name) {
                    continue;
                }
                let places = by_host.entry(name).or_insert_with(|| {
                    hosts.push(name);
                    Vec::new()
                });
                let matches = rule.matches.len().max(1);
                places.extend((0..matches).map(|m| Place { rule: at, at: m }));
            }
        }
        hosts.sort_by(|a, b| {
            let longest = a.precedence().cmp(&b.precedence());
            longest.then_with(|| a.to_string().cmp(&b.to_string()))
        });
        let mut router = Self {
            rules: Arc::clone(&rules),
            hosts: Vec::with_capacity(hosts.len()),
            exact_hosts: HashMap::new(),
            hosts_below: HashMap::new(),
            any_host: None,
        };
        for host in hosts {
            let at = router.hosts.len() as u32;
            match host {
                Hostname::Any => router.any_host = Some(at),
                Hostname::Exact(name) => drop(router.exact_hosts.insert(name.clone(), at)),
                Hostname::Below(name) => drop(router.hosts_below.insert(name.clone(), at)),
            }
            let places = by_host.remove(host).unwrap_or_default();
            router.hosts.push(HostIndex::new(host.clone(), places, &rules));
        }
        router
    }

    /// The rules, as they were handed over.
    pub fn rules(&self) -> &Rules {
        &self.rules
    }

    /// The match that takes a request; `None`: none does.
    ///
    /// Matches of the hostname that goes first are asked first; where none of them takes the
    /// request, those of the next hostname that takes the host are.
    pub fn find(&self, request: &Request<'_>) -> Option<Found<'_>> {
        let found = self.in_hosts(request, |index| {
            let row = index.find(&self.rules, request)?;
            Some(self.found(index.rows[row as usize]))
        });
        found.or_else(|| {
            let rule = self.rules.otherwise.as_ref()?;
            Some(Found { rule, matched: &ANYTHING, place: None })
        })
    }

    pub(super) fn found(&self, place: Place) -> Found<'_> {
        let rule = &self.rules.rules[place.rule];
        Found { rule, matched: match_at(rule, place.at), place: Some(place) }
    }

    /// What `look` finds in the first of the hostnames that take the host.
    fn in_hosts<'t, T>(
        &'t self,
        request: &Request<'_>,
        mut look: impl FnMut(&'t HostIndex) -> Option<T>,
    ) -> Option<T> {
        let mut ask = |at: u32| look(&self.hosts[at as usize]);
        if !self.exact_hosts.is_empty() || !self.hosts_below.is_empty() {
            let host = lower_case(request.host());
            if let Some(found) = self.exact_hosts.get(&*host).and_then(|at| ask(*at)) {
                return Some(found);
            }
            if !self.hosts_below.is_empty() {
                let mut rest = &*host;
                while let Some((label, below)) = rest.split_once('.') {
                    let first = rest.len() == host.len();
                    // `.example.com` has no label before the dot.
                    if !(first && label.is_empty())
                        && let Some(at) = self.hosts_below.get(below)
                        && let Some(found) = ask(*at)
                    {
                        return Some(found);
                    }
                    rest = below;
                }
            }
        }
        self.any_host.and_then(ask)
    }

    /// Hostnames with their matches, in order of precedence.
    pub(super) fn hosts(&self) -> &[HostIndex] {
        &self.hosts
    }

    /// The same as [`find`](Self::find), by asking one match after the other.
    #[cfg(test)]
    pub(super) fn find_by_listing(&self, request: &Request<'_>) -> Option<Found<'_>> {
        self.hosts
            .iter()
            .filter(|index| index.hostname.takes(request.host()))
            .flat_map(|index| &index.rows)
            .map(|place| self.found(*place))
            .find(|found| {
                found.matched.takes(request) && found.rule.taken_away(request.host()).is_none()
            })
            .or_else(|| {
                let rule = self.rules.otherwise.as_ref()?;
                Some(Found { rule, matched: &ANYTHING, place: None })
            })
    }
}

fn match_at(rule: &Rule, at: usize) -> &Match {
    rule.matches.get(at).unwrap_or(&ANYTHING)
}

fn lower_case(host: &str) -> Cow<'_, str> {
    if host.bytes().any(|b| b.is_ascii_uppercase()) {
        Cow::Owned(host.to_ascii_lowercase())
    } else {
        Cow::Borrowed(host)
    }
}

impl HostIndex {
    fn new(hostname: Hostname, places: Vec<Place>, rules: &Rules) -> Self {
        let of = |place: &Place| {
            let rule = &rules.rules[place.rule];
            let matched = match_at(rule, place.at);
            Precedence::new(rules.order, matched, &rule.age, place.rule, place.at)
        };
        let mut ordered: Vec<(Precedence, Place)> =
            places.into_iter().map(|place| (of(&place), place)).collect();
        ordered.sort();
        let (precedences, rows): (Vec<_>, Vec<_>) = ordered.into_iter().unzip();
        let mut index = Self {
            hostname,
            exact: HashMap::new(),
            prefixes: Tree::new(),
            rest: Vec::new(),
            precedences,
            rows,
        };
        for (row, place) in (0..).zip(index.rows.clone()) {
            index.add(row, match_at(&rules.rules[place.rule], place.at));
        }
        index.prefixes.finish();
        index
    }

    fn add(&mut self, row: u32, matched: &Match) {
        match &matched.path {
            Some(PathMatch::Exact(path)) => self.exact.entry(path.clone()).or_default().push(row),
            Some(PathMatch::Bytes(prefix)) => self.prefixes.insert(prefix, row, After::Anything),
            Some(PathMatch::Segments(segments)) => {
                self.prefixes.insert(segments.as_str(), row, After::SegmentEnd);
            }
            Some(PathMatch::Regex(pattern)) => match pattern.literal_prefix() {
                "" => self.rest.push(row),
                prefix => self.prefixes.insert(prefix, row, After::Unknown),
            },
            Some(PathMatch::Grpc(call)) => match (&call.service, &call.method) {
                (Some(GrpcName::Exact(service)), Some(GrpcName::Exact(method)))
                    if grpc_call(&format!("/{service}/{method}")) == Some((service, method)) =>
                {
                    let path = format!("/{service}/{method}").into();
                    self.exact.entry(path).or_default().push(row);
                }
                (Some(GrpcName::Exact(service)), _) => {
                    self.prefixes.insert(&format!("/{service}/"), row, After::Unknown);
                }
                _ => self.rest.push(row),
            },
            None => self.rest.push(row),
        }
    }

    /// The first row that takes a request.
    fn find(&self, rules: &Rules, request: &Request<'_>) -> Option<u32> {
        let rest_takes = |row: u32| self.asks(rules, row, request, Match::rest_takes);
        let takes = |row: u32| self.asks(rules, row, request, Match::takes);
        let exact = self.exact.get(&*request.path);
        let exact = exact.and_then(|rows| rows.iter().find(|row| rest_takes(**row)));
        let mut best = exact.copied().unwrap_or(u32::MAX);
        best = self.prefixes.find(&request.path, best, |row, after| match after {
            After::Anything | After::SegmentEnd => rest_takes(row),
            After::Unknown => takes(row),
        });
        let before = self.rest.iter().take_while(|row| **row < best);
        if let Some(row) = before.copied().find(|row| takes(*row)) {
            best = row;
        }
        (best != u32::MAX).then_some(best)
    }

    /// Whether a row's match takes a request, and no more specific listener does.
    fn asks(
        &self,
        rules: &Rules,
        row: u32,
        request: &Request<'_>,
        takes: impl Fn(&Match, &Request<'_>) -> bool,
    ) -> bool {
        let place = self.rows[row as usize];
        let rule = &rules.rules[place.rule];
        takes(match_at(rule, place.at), request)
            && (rule.except.is_empty() || rule.taken_away(request.host()).is_none())
    }
}
