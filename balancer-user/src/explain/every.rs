//! `--all`: every match of a route's HTTP rules, in the order in which they are tried.

use super::{
    answer::{ListedRule, PolicyAnswer, RouteAnswer},
    asked::HttpRoute,
    described::Described,
};
use crate::http::{Found, Hostname, Match, Router, Rule, Rules};

impl HttpRoute<'_> {
    /// The matches in order of precedence, and last what takes the rest.
    pub(super) fn every(&self) -> Vec<RouteAnswer> {
        let mut every: Vec<RouteAnswer> = self
            .router
            .listed()
            .map(|listed| {
                let (hostname, found) = (listed.hostname, listed.found);
                let nearest = self.described.nearest(hostname, found.matched, self.connection);
                self.listed(found, hostname, Some(found.matched), nearest.as_ref())
            })
            .collect();
        every.extend(self.rules.rules.otherwise.as_ref().map(|rule| {
            // It takes whatever is left: hosts are nothing to it.
            let rule = &Rule { except: Vec::new(), ..rule.clone() };
            let found = Found { rule, matched: &Match::default(), place: None };
            self.listed(found, &Hostname::Any, None, Some(&self.described))
        }));
        every
    }

    fn listed(
        &self,
        found: Found<'_>,
        hostname: &Hostname,
        matches: Option<&Match>,
        nearest: Option<&Described>,
    ) -> RouteAnswer {
        // Alone, so that no other match takes the request before it.
        let rule = Rule {
            hostnames: vec![hostname.clone()],
            matches: matches.into_iter().cloned().collect(),
            ..found.rule.clone()
        };
        let order = self.rules.rules.order;
        let alone = Router::new(Rules { order, rules: vec![rule], otherwise: None }).ok();
        let taken = |router: &Router, asked: &Described| {
            // The host may be one that a more specific listener takes away.
            let request = asked.request(self.connection).ok()?;
            router.find(&request).and_then(|_| self.outcome(router, asked).ok())
        };
        let outcome = alone.zip(nearest).and_then(|(router, asked)| taken(&router, asked));
        let rule = ListedRule {
            hostname: hostname.to_string(),
            except: found.rule.except.iter().map(ToString::to_string).collect(),
            rule: found.place.map(|place| place.rule),
            policy: self.policy(found).map(PolicyAnswer::from),
            decision: outcome.as_ref().map(|outcome| outcome.decision),
            filters: found.rule.words(|to| self.name(to)),
        };
        let (request, response) =
            outcome.map_or((None, None), |outcome| (outcome.request, outcome.response));
        RouteAnswer {
            matches: matches.cloned(),
            backends: self.backends(found.rule),
            request,
            response,
            rule: Some(rule),
        }
    }
}
