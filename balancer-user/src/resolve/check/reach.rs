//! HTTP rules that take no request, because another goes before them and takes all that they could.

use std::collections::{BTreeMap, HashMap, HashSet, btree_map::Entry};

use crate::{
    http::{Hostname, Order, Place, Rules, Unreached},
    policy::{
        Diagnostic, Meta, Span, TrafficRoute,
        http_route::{Located, RequestMatch},
    },
    resolve::{HttpRules, Resolver, Route, findings::Findings, gateway::AnyRoute},
};

/// Says it of the entries of a TrafficRoute's `conf.http`.
pub(super) fn traffic_route<'a>(
    route: &'a TrafficRoute,
    rules: &Rules,
    findings: &mut Findings<'a>,
) {
    for one in rules.unreached() {
        let (own, first) = (one.place.rule, one.by.rule);
        let message = said(&one, &format!("`conf.http[{first}]`"));
        let found = Diagnostic::warning(format!("conf.http[{own}]"), message);
        let (own, first) = (&route.conf.http[own], &route.conf.http[first]);
        let found = found.at(own.span).related(first.span, "that entry is here");
        findings.add(&route.meta, found.hint("put it before that one, or remove it"));
    }
}

fn said(one: &Unreached, by: &str) -> String {
    let but = if one.but_asterisk { " but `OPTIONS *`" } else { "" };
    format!("never takes a request{but}: {by} takes all that it could and goes first: {}", one.why)
}

/// A rule: the mesh of its policy, and its origin.
type RuleId = (String, String);

/// Of each match of rules whether it is unreached in all routes so far, and which match of which
/// rule takes its requests.
type Found = BTreeMap<RuleId, BTreeMap<usize, Option<(Unreached, RuleId)>>>;

/// Says it of the rules of all other kinds: where no route that they are part of has a request for
/// them. Of equal matches of one route of the Gateway API reading has said it.
pub(in crate::resolve) fn routes<'a>(
    resolver: &Resolver<'a>,
    routes: &[Route],
    findings: &mut Findings<'a>,
) {
    let mut found = Found::new();
    let mut looked_at = HashSet::new();
    for http in routes.iter().filter_map(|route| route.http.as_deref()) {
        if http.rules.order != Order::Listed && looked_at.insert(alike(http)) {
            look(http, &mut found);
        }
    }
    found.retain(|_, matches| matches.values().any(Option::is_some));
    if found.is_empty() {
        return;
    }
    let written = written(resolver);
    for (id, matches) in &found {
        let Some(own) = written.get(id).filter(|own| !own.merged) else { continue };
        let mut say = |place: (&str, Span), (one, by): &(Unreached, RuleId)| {
            let Some(first) = written.get(by) else { return };
            let which = match first.matches.get(one.by.at) {
                Some((field, _)) if first.matches.len() > 1 => field,
                _ => first.place.0,
            };
            let of = format!("`{which}` of the {}", first.called);
            let by = if std::ptr::eq(own.meta, first.meta) { format!("`{which}`") } else { of };
            let found = Diagnostic::warning(place.0, said(one, &by)).at(place.1);
            findings.add(own.meta, found.related(first.place.1, "that rule is here"));
        };
        for (at, by) in matches.iter().filter_map(|(at, by)| Some((*at, by.as_ref()?))) {
            // A rule with one match is the match, for its author.
            let of_match = own.matches.get(at).filter(|_| own.matches.len() > 1);
            say(*of_match.unwrap_or(&own.place), by);
        }
    }
}

/// A rule's origin, and the hosts that it is for and not for.
type OfHosts<'h> = (&'h str, &'h [Hostname], &'h [Hostname]);

/// What routes have in common whose rules are reached alike: the mesh, and these. Many VIPs follow
/// one policy.
fn alike(http: &HttpRules) -> (&str, Vec<OfHosts<'_>>) {
    let rules = http.rules.rules.iter();
    (mesh(http), rules.map(|rule| (&*rule.origin, &*rule.hostnames, &*rule.except)).collect())
}

fn mesh(http: &HttpRules) -> &str {
    http.policies.first().map_or("", |policy| &policy.mesh)
}

/// A match that is reached in one route is reached, and so is one of a route that is attached at
/// several listeners.
fn look(http: &HttpRules, found: &mut Found) {
    let (rules, order) = (&http.rules.rules, http.rules.order);
    let id = |rule: usize| (mesh(http).to_owned(), rules[rule].origin.clone());
    let unreached = http.rules.unreached().into_iter();
    let by_place: BTreeMap<Place, Unreached> = unreached.map(|one| (one.place, one)).collect();
    for (number, rule) in rules.iter().enumerate() {
        let matches = found.entry(id(number)).or_default();
        for at in 0..rule.matches.len().max(1) {
            let told = |one: &&Unreached| {
                order == Order::Gateway
                    && http.given_by[number] == http.given_by[one.by.rule]
                    && rules[one.by.rule].matches.get(one.by.at) == rule.matches.get(at)
            };
            let here = by_place.get(&Place { rule: number, at }).filter(|one| !told(one));
            match (matches.entry(at), here) {
                (Entry::Vacant(new), here) => {
                    _ = new.insert(here.map(|one| (*one, id(one.by.rule))))
                }
                (Entry::Occupied(mut known), None) => _ = known.insert(None),
                (Entry::Occupied(_), Some(_)) => {}
            }
        }
    }
}

/// A rule as it is written.
struct Written<'a> {
    meta: &'a Meta,
    /// `HTTPRoute shop/storefront`.
    called: String,
    place: (&'a str, Span),
    matches: Vec<(&'a str, Span)>,
    /// Another one of its mesh has the same matches: where the two are one, either may give what is
    /// done with requests, and which of them takes none is hard to say.
    merged: bool,
}

fn written<'a>(resolver: &Resolver<'a>) -> HashMap<RuleId, Written<'a>> {
    fn places<T>(matches: &[Located<T>]) -> Vec<(&str, Span)> {
        matches.iter().map(|one| (&*one.field, one.span)).collect()
    }
    let mut all = HashMap::new();
    let mut add = |meta: &'a Meta, called: String, place: (&'a str, Span), matches, merged| {
        let id = (meta.mesh.clone(), format!("{called}: {}", place.0));
        all.insert(id, Written { meta, called, place, matches, merged });
    };
    for status in &resolver.attached.routes {
        let (meta, called) = (status.route.meta(), status.route.called());
        match status.route {
            AnyRoute::Tcp(_) => {}
            AnyRoute::Http(route) => {
                for rule in &route.rules {
                    add(
                        meta,
                        called.clone(),
                        (&rule.field, rule.span),
                        places(&rule.matches),
                        false,
                    );
                }
            }
            AnyRoute::Grpc(route) => {
                for rule in &route.rules {
                    add(
                        meta,
                        called.clone(),
                        (&rule.field, rule.span),
                        places(&rule.matches),
                        false,
                    );
                }
            }
        }
    }
    for routes in resolver.mesh_http.values() {
        let items = || {
            routes
                .policies()
                .iter()
                .flat_map(|policy| policy.to.iter().map(move |to| (*policy, to)))
        };
        let list = |matches: &'a [Located<RequestMatch>]| -> Vec<&'a RequestMatch> {
            matches.iter().map(|one| &one.value).collect()
        };
        let mut lists: HashMap<Vec<&RequestMatch>, usize> = HashMap::new();
        for rule in items().flat_map(|(_, to)| &to.rules) {
            *lists.entry(list(&rule.matches)).or_default() += 1;
        }
        for (policy, to) in items() {
            for rule in &to.rules {
                let meta = &policy.meta;
                let called = format!("{} {}", meta.kind, meta.name);
                let merged = lists.get(&list(&rule.matches)).is_some_and(|number| *number > 1);
                add(meta, called, (&rule.field, rule.span), places(&rule.matches), merged);
            }
        }
    }
    all
}
