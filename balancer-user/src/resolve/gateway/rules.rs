//! The rules of HTTPRoutes and GRPCRoutes that hold together at one place, and what connections
//! get there while nobody tells requests apart.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use ::http::StatusCode;

use super::{
    Attachments, ParentStatus, Point, RouteStatus, carry, listeners,
    route::{AnyRoute, is_of_requests},
};
use crate::{
    http::{self, Age, Filter, Hostname, Order, Retry, Rule, Rules, Split, Timeouts},
    policy::{
        Tags,
        gateway::{self as policy, BackendRef, GrpcMatch, Listener, RuleBackend},
        http_route::{Located, PathMatch, RequestMatch, RouteFilter},
    },
    resolve::{
        Backend, Decision, Destination, HttpRules, PolicyRef, Route,
        http::{
            Backends, Refused,
            filters::{self, Family},
            matches::{grpc_match, request_match},
        },
        split::Place,
    },
};

/// A route where it is attached.
struct Attached<'r, 's> {
    status: &'r RouteStatus<'s>,
    parent: &'r ParentStatus<'s>,
    /// Hosts that it is for there.
    hostnames: Vec<Hostname>,
    /// See [`Rule::except`].
    except: Vec<Hostname>,
}

/// What the rules of one place come to.
pub(super) struct Lowered<'s> {
    http: HttpRules,
    /// Who takes any request whatsoever, and with which backends.
    any: Option<(PolicyRef, Vec<Backend>)>,
    /// What could not be carried out. Validation sees to it that there is nothing.
    pub(super) refused: Vec<(AnyRoute<'s>, Refused)>,
}

impl<'s> Attachments<'s> {
    /// What requests get that clients of a namespace send to a destination; `None`: nobody tells
    /// them apart.
    pub(super) fn lowered(
        &self,
        destination: &Destination,
        clients: Option<&str>,
        place: &Place<'_>,
    ) -> Option<Lowered<'s>> {
        if let Destination::Listener { namespace, gateway, .. } = destination {
            let listeners = self.dialled_as(destination);
            let of_requests = listeners.first().is_some_and(|one| is_of_requests(&one.protocol));
            return of_requests
                .then(|| lowered(&self.of_listeners((namespace, gateway), &listeners), place));
        }
        let point = self.point(destination, clients)?;
        let attached: Vec<_> = self
            .at(&point)
            .into_iter()
            .filter(|(status, _)| status.route.kind().is_of_requests())
            // Clients have told the Service apart by its address: hostnames mean nothing.
            .map(|(status, parent)| Attached {
                status,
                parent,
                hostnames: Vec::new(),
                except: Vec::new(),
            })
            .collect();
        (!attached.is_empty()).then(|| lowered(&attached, place))
    }

    /// The routes of listeners that are dialled as one.
    fn of_listeners(
        &self,
        (namespace, gateway): (&str, &str),
        listeners: &[&Listener],
    ) -> Vec<Attached<'_, 's>> {
        let mut attached = Vec::new();
        for listener in listeners {
            let point = Point::Listener { namespace, gateway, listener: &listener.name };
            let own = listeners::hostname(listener);
            let except = listeners::except(listener, listeners);
            for (status, parent) in self.at(&point) {
                let hostnames = status.route.hosts_at(&own);
                attached.push(Attached { status, parent, hostnames, except: except.clone() });
            }
        }
        attached
    }
}

impl Lowered<'_> {
    /// The route to a destination: connections go where the rule for any request says; without
    /// one to the Service itself, and nowhere from a listener.
    pub(super) fn route(self, destination: &Destination, place: &Place<'_>) -> Route {
        let refused = place.no_policy_route(Decision::Reject, &Tags::new());
        let route = match (self.any, destination) {
            (Some((policy, backends)), _) => Route {
                policy: Some(policy),
                decision: if backends.is_empty() { Decision::Reject } else { Decision::Forward },
                backends,
                ..refused
            },
            (None, Destination::Listener { .. }) => refused,
            (None, _) => place.direct_route(destination),
        };
        Route { http: Some(Arc::new(self.http)), ..route }
    }

    /// The rules.
    pub(super) fn rules(&self) -> &Rules {
        &self.http.rules
    }
}

fn lowered<'s>(attached: &[Attached<'_, 's>], place: &Place<'_>) -> Lowered<'s> {
    let mut backends = Backends::new(*place, false);
    let (mut policies, mut given_by, mut rules) = (Vec::new(), Vec::new(), Vec::new());
    let (mut any, mut refused) = (None, Vec::new());
    let mut known: BTreeMap<PolicyRef, usize> = BTreeMap::new();
    for one in attached {
        let policy = carry::policy_of(one.status.route);
        // A route can be attached to several of the listeners.
        let giver = *known.entry(policy.clone()).or_insert_with(|| {
            policies.push(policy.clone());
            policies.len() - 1
        });
        let mut of_route = Vec::new();
        for written in Written::of(one.status.route) {
            let rule = one.rule(&written, &mut backends, &mut of_route);
            if any.is_none() && one.is_for_any_host() && written.takes_any_request(&rule) {
                any = Some((policy.clone(), one.connections(written.backends, place)));
            }
            rules.push(rule);
            given_by.push(giver);
        }
        refused.extend(of_route.into_iter().map(|refused| (one.status.route, refused)));
    }
    let rules = Rules { order: Order::Gateway, rules, otherwise: None };
    Lowered { http: backends.finish(policies, given_by, rules), any, refused }
}

/// What rules of both kinds have.
struct Written<'s> {
    field: &'s str,
    matches: Matches<'s>,
    filters: &'s [Located<RouteFilter<BackendRef>>],
    backends: &'s [RuleBackend],
    timeouts: policy::Timeouts,
    retry: Option<&'s policy::Retry>,
}

enum Matches<'s> {
    Http(&'s [Located<RequestMatch>]),
    Grpc(&'s [Located<GrpcMatch>]),
}

impl<'s> Written<'s> {
    fn of(route: AnyRoute<'s>) -> Vec<Self> {
        match route {
            AnyRoute::Tcp(_) => Vec::new(),
            AnyRoute::Http(route) => {
                let of = |rule: &'s policy::HttpRule| Self {
                    field: &rule.field,
                    matches: Matches::Http(&rule.matches),
                    filters: &rule.filters,
                    backends: &rule.backends,
                    timeouts: rule.timeouts,
                    retry: rule.retry.as_ref(),
                };
                route.rules.iter().map(of).collect()
            }
            AnyRoute::Grpc(route) => {
                let of = |rule: &'s policy::GrpcRule| Self {
                    field: &rule.field,
                    matches: Matches::Grpc(&rule.matches),
                    filters: &rule.filters,
                    backends: &rule.backends,
                    timeouts: policy::Timeouts::default(),
                    retry: None,
                };
                route.rules.iter().map(of).collect()
            }
        }
    }

    /// Whether no request is too special for it, and it sends them on.
    fn takes_any_request(&self, lowered: &Rule) -> bool {
        let is_root = |path: &Option<PathMatch>| match path {
            None => true,
            Some(PathMatch::Prefix(prefix)) => prefix == "/",
            Some(PathMatch::Exact(_) | PathMatch::Regex(_)) => false,
        };
        let any = match self.matches {
            Matches::Http(matches) => matches.iter().any(|one| {
                let RequestMatch { path, method, headers, query } = &one.value;
                is_root(path) && method.is_none() && headers.is_empty() && query.is_empty()
            }),
            Matches::Grpc(matches) => matches.iter().any(|one| one.value == GrpcMatch::default()),
        };
        let answers = |filter: &Filter| matches!(filter, Filter::Redirect(_) | Filter::Respond(_));
        any && !lowered.filters.iter().any(answers)
    }
}

impl Attached<'_, '_> {
    /// Nobody is turned away for the host that they ask for.
    fn is_for_any_host(&self) -> bool {
        self.except.is_empty()
            && (self.hostnames.is_empty() || self.hostnames.contains(&Hostname::Any))
    }

    fn rule(
        &self,
        written: &Written<'_>,
        backends: &mut Backends<'_>,
        refused: &mut Vec<Refused>,
    ) -> Rule {
        let route = self.status.route;
        let (namespace, name) = route.meta().object();
        let matches = match written.matches {
            Matches::Http(all) => all.iter().map(|one| request_match(one, refused)).collect(),
            Matches::Grpc(all) => all.iter().map(|one| grpc_match(one, refused)).collect(),
        };
        let mut filters = |of: &[Located<RouteFilter<BackendRef>>], backends: &mut Backends<'_>| {
            filters::filters(of, Family::Gateway, refused, |mirror| {
                http::Destination::Backend(backends.id(self.destination(mirror), Tags::new()))
            })
        };
        let of_rule = filters(written.filters, backends);
        let split = written.backends.iter().map(|backend| {
            let to = &backend.to;
            let mut lowered = backends.weighted(to.weight, self.destination(to), Tags::new());
            lowered.filters = filters(&backend.filters, backends);
            // What must not pass without a filter that is not known here passes nowhere.
            if lowered.filters.iter().any(|filter| matches!(filter, Filter::Respond(_))) {
                lowered.destination = http::Destination::Invalid;
            }
            lowered
        });
        let split = Split::new(split.collect());
        let retry = written.retry.map(|retry| {
            // Validation has seen to it that each is a code.
            let codes = retry.codes.iter().filter_map(|code| StatusCode::from_u16(*code).ok());
            let backoff = retry.backoff_ms.map(Duration::from_millis);
            Retry::new(retry.attempts, codes.collect(), backoff)
        });
        let milliseconds = |of: Option<u64>| of.filter(|ms| *ms > 0).map(Duration::from_millis);
        Rule {
            origin: format!("{}: {}", route.called(), written.field),
            age: Age { created: route.meta().created, name: format!("{namespace}/{name}") },
            hostnames: self.hostnames.clone(),
            except: self.except.clone(),
            matches,
            filters: of_rule,
            split,
            timeouts: Timeouts {
                request: milliseconds(written.timeouts.request_ms),
                backend_request: milliseconds(written.timeouts.backend_request_ms),
            },
            retry,
            keys: Vec::new(),
        }
    }

    fn destination(&self, to: &BackendRef) -> Destination {
        carry::leads_to(self.status, self.parent, to)
    }

    /// The shares of connections that follow a rule's backends.
    fn connections(&self, backends: &[RuleBackend], place: &Place<'_>) -> Vec<Backend> {
        let share = |backend: &RuleBackend| {
            place.backend_of(backend.to.weight, self.destination(&backend.to), Tags::new())
        };
        backends.iter().map(share).collect()
    }
}
