//! The answer, in the form of design section 9.3: names, order and meaning of the fields are a
//! contract with whoever reads `explain -o json`.

use serde::Serialize;

use crate::{
    http::Match,
    policy::Tags,
    resolve::{BackendState, DestinationKind, PolicyRef},
};

/// Where a connection would go, and why. Field order is output order.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Answer {
    /// Who asks.
    pub source: SourceAnswer,
    /// What is dialled.
    pub destination: DestinationAnswer,
    /// Protocol of the service, folded from its endpoints; `tcp` where it is not known.
    pub protocol: String,
    /// Who decides.
    pub layer: Layer,
    /// The policy that won; of a request the one that gave its rule. `None` where none matched.
    pub policy: Option<PolicyAnswer>,
    /// The rule of the policy that matched; `None` where the policy has no rules to choose from,
    /// where no request was described, and where a request is taken by what is there for the rest.
    pub rule: Option<RuleAnswer>,
    /// What happens.
    pub decision: Decision,
    /// Weighted destinations in written order, those of weight 0 included: of the rule that takes
    /// the request; where none was described, those of connections.
    pub backends: Vec<BackendAnswer>,
    /// How connections are spread; `None` where nothing is forwarded.
    pub load_balancer: Option<LoadBalancerAnswer>,
    /// The request as the backend with the largest share would see it; `None` at L4, and where it
    /// is answered before.
    pub request: Option<RequestAnswer>,
    /// What is answered, or changed on the way back; `None` where nothing is.
    pub response: Option<ResponseAnswer>,
    /// One line for each decision, for people.
    pub steps: Vec<String>,
    /// Every route of the destination in order of precedence, where asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub routes: Option<Vec<RouteAnswer>>,
}

/// The source of a connection.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct SourceAnswer {
    /// Name of its Dataplane; `None`: an address that no Dataplane has, or tags alone.
    pub dataplane: Option<String>,
    /// Its address; `None` where only tags were given.
    pub address: Option<String>,
}

/// What a connection is opened to.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct DestinationAnswer {
    /// The service; `None` for an address that is no VIP.
    pub service: Option<String>,
    /// Address and port.
    pub address: String,
}

/// Who decides.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Layer {
    /// Each connection as a whole.
    L4,
    /// Each request by itself: the route has HTTP rules.
    L7,
}

/// What happens to a connection or request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Decision {
    /// Spread over `backends`.
    Forward,
    /// Answered with a redirect.
    Redirect,
    /// Answered by a filter.
    Respond,
    /// Refused: a connection is reset, a request answered with an error.
    Reject,
    /// No policy: to the service itself; or no VIP at all: left alone.
    Direct,
}

/// A policy's identity.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct PolicyAnswer {
    /// `TrafficRoute`, `MeshTCPRoute`.
    pub kind: String,
    /// Its mesh; `None` for kinds of the Gateway API, which are in none.
    pub mesh: Option<String>,
    /// Its name; of kinds of the Gateway API `NAME.NAMESPACE`.
    pub name: String,
}

impl From<&PolicyRef> for PolicyAnswer {
    fn from(policy: &PolicyRef) -> Self {
        Self {
            kind: policy.kind.clone(),
            mesh: Some(policy.mesh.clone()).filter(|mesh| !mesh.is_empty()),
            name: policy.name.clone(),
        }
    }
}

/// The rule that matched: an HTTP rule, or the item of `to` of a MeshTCPRoute.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct RuleAnswer {
    /// Its place, from 0: of an item in its policy, of an HTTP rule among those of the route, which
    /// are in written order, policy after policy.
    pub index: usize,
    /// The match of the rule that took the request; absent at L4.
    #[serde(rename = "match", skip_serializing_if = "Option::is_none")]
    pub matches: Option<Match>,
}

/// A weighted destination.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct BackendAnswer {
    /// What it is called; empty for a reference that names nothing.
    pub service: String,
    /// What kind of thing it is; absent: a service by its tag.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kind: Option<DestinationKind>,
    /// The tags that its reals must have, the service's apart.
    pub tags: Tags,
    /// Weight as written.
    pub weight: u32,
    /// Share of all connections or requests, 0 to 1: weight ÷ sum of weights. The table of
    /// connections keeps it to within a slot; `steps` say how many it has.
    pub share: f64,
    /// Usable or not.
    pub state: BackendState,
    /// Its reals. Empty where the share is refused.
    pub reals: Vec<RealAnswer>,
}

/// A real and its part.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct RealAnswer {
    /// Address and port.
    pub address: String,
    /// Share of all connections or requests, 0 to 1.
    pub share: f64,
}

/// How connections are spread.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct LoadBalancerAnswer {
    /// `maglev`, `ringHash`, `roundRobin`, `random` or `leastRequest`.
    #[serde(rename = "type")]
    pub kind: String,
    /// Slots of the table; `None` where there is none: no tables are at hand, or it is a request
    /// that is decided.
    pub slots: Option<usize>,
}

/// A request as the backend would see it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct RequestAnswer {
    /// Method.
    pub method: String,
    /// Path with query.
    pub path: String,
    /// Host.
    pub host: String,
    /// Headers in order, without the host.
    pub headers: Vec<(String, String)>,
}

/// An answer that no backend gives, or how a backend's is changed.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct ResponseAnswer {
    /// Status; `None`: the backend's.
    pub status: Option<u16>,
    /// Where a redirect leads; it stands among the headers too.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub location: Option<String>,
    /// Headers of the answer, or those that are set or added, in order.
    pub headers: Vec<(String, String)>,
    /// Headers of the backend's answer that are taken away.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub removed: Vec<String>,
    /// Why it is no backend that answers.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub why: Option<String>,
}

/// One route of a destination, for `--all`: one match of an HTTP rule, what takes the rest of the
/// requests, or all that connections get.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct RouteAnswer {
    /// What it matches; `None`: every connection, or every request that is left.
    #[serde(rename = "match")]
    pub matches: Option<Match>,
    /// See [`Answer::backends`].
    pub backends: Vec<BackendAnswer>,
    /// What a backend would see of the request that was described or, where the match does not take
    /// that, of the nearest one that it takes; `None` also where none was found.
    pub request: Option<RequestAnswer>,
    /// See [`Answer::response`]; of the same request.
    pub response: Option<ResponseAnswer>,
    /// Of an HTTP rule; absent at L4.
    #[serde(flatten)]
    pub rule: Option<ListedRule>,
}

/// Whose match stands in the list of `--all`.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ListedRule {
    /// The hosts that it is for: a name, `*.` and a name, or `*`.
    pub hostname: String,
    /// Hosts among them that it is not for: those of more specific listeners.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub except: Vec<String>,
    /// Place of its rule among those of the route, from 0; `None`: it takes the rest.
    pub rule: Option<usize>,
    /// The policy that gave the rule.
    pub policy: Option<PolicyAnswer>,
    /// What happens to that request; `None` where none was found that it takes.
    pub decision: Option<Decision>,
    /// What is done with requests, a line for each filter.
    pub filters: Vec<String>,
}
