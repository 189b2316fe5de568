//! Rules as whoever reads policies hands them over.

use std::time::Duration;

use super::{
    filter::Filter,
    hostname::Hostname,
    key::KeyPolicy,
    matcher::{Match, PathMatch},
    precedence::{Age, Order},
    retry::Retry,
    split::Split,
};

/// All that is said about the requests to one VIP or listener by one source.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rules {
    /// By what they are ordered.
    pub order: Order,
    /// In written order; of several routes one after another.
    pub rules: Vec<Rule>,
    /// What takes a request that none of them takes: a TrafficRoute's outer split, the service
    /// itself. `None`: nothing does, and the answer is 404, or UNIMPLEMENTED of gRPC.
    pub otherwise: Option<Rule>,
}

/// One HTTP rule.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rule {
    /// What it is called in output: policy and field, `TrafficRoute shop: conf.http[0]`.
    pub origin: String,
    /// Of its route, where the order asks for it.
    pub age: Age,
    /// Hosts that it is for; none given: all of them.
    pub hostnames: Vec<Hostname>,
    /// Hosts that it is not for, although `hostnames` take them: they are those of more specific
    /// listeners of the same address and port.
    pub except: Vec<Hostname>,
    /// Any of these; none given: every request.
    pub matches: Vec<Match>,
    /// What is done with requests.
    pub filters: Vec<Filter>,
    /// Who takes them. Not asked where a filter answers.
    pub split: Split,
    /// For how long.
    pub timeouts: Timeouts,
    /// When they are sent again; `None`: never.
    pub retry: Option<Retry>,
    /// By what requests are kept together.
    pub keys: Vec<KeyPolicy>,
}

/// How long things may take; `None`: as long as they will (GEP-1742).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Timeouts {
    /// From the request to the end of its answer.
    pub request: Option<Duration>,
    /// The same of one try at one backend.
    pub backend_request: Option<Duration>,
}

/// Rules that contradict themselves.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadRule {
    /// Validation of policies sees to it that it does not come to this (semantics 3.3, 4.5, 5.5).
    #[error(
        "{origin}: a prefix is to be replaced, but not every match has a path that is a prefix: \
         match by prefix, or replace the full path"
    )]
    NoPrefix {
        /// Of the rule.
        origin: String,
    },
}

impl Rule {
    /// The more specific listener's hostname that takes a host away from it.
    pub(super) fn taken_away(&self, host: &str) -> Option<&Hostname> {
        self.except.iter().find(|hostname| hostname.takes(host))
    }
}

impl Rules {
    /// Whether they can be carried out.
    ///
    /// # Errors
    /// A rule contradicts itself.
    pub fn check(&self) -> Result<(), BadRule> {
        for rule in self.rules.iter().chain(&self.otherwise) {
            let all =
                rule.filters.iter().chain(rule.split.backends().iter().flat_map(|b| &b.filters));
            let mut rewrites = all.filter_map(|filter| match filter {
                Filter::Path(rewrite) => Some(rewrite),
                Filter::Redirect(redirect) => redirect.path.as_ref(),
                _ => None,
            });
            let prefix =
                |m: &Match| matches!(m.path, Some(PathMatch::Bytes(_) | PathMatch::Segments(_)));
            let by_prefix = !rule.matches.is_empty() && rule.matches.iter().all(prefix);
            if !by_prefix && rewrites.any(|rewrite| rewrite.needs_prefix()) {
                return Err(BadRule::NoPrefix { origin: rule.origin.clone() });
            }
        }
        Ok(())
    }
}
