//! The answer, in the form of design section 9.3: names, order and meaning of the fields are a
//! contract with whoever reads `explain -o json`.

use serde::Serialize;

use crate::{
    policy::Tags,
    resolve::{BackendState, DestinationKind},
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
    /// The policy that won; `None` where none matched.
    pub policy: Option<PolicyAnswer>,
    /// The rule of the policy that matched; `None` where the policy has no rules to choose from.
    pub rule: Option<RuleAnswer>,
    /// What happens.
    pub decision: Decision,
    /// Weighted destinations in written order, those of weight 0 included.
    pub backends: Vec<BackendAnswer>,
    /// How connections are spread; `None` where nothing is forwarded by a table.
    pub load_balancer: Option<LoadBalancerAnswer>,
    /// The request as the backend would see it; `None` at L4.
    pub request: Option<RequestAnswer>,
    /// What is answered or changed on the way back; `None` at L4.
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
    /// Each connection, in the kernel.
    L4,
    /// Each request, in the proxy.
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
    /// Answered by balancer itself.
    Respond,
    /// Refused.
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

/// The rule that matched: an http entry, or the item of `to` of a MeshTCPRoute.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct RuleAnswer {
    /// Its place in the policy, from 0.
    pub index: usize,
    /// Which requests it matches; absent at L4.
    #[serde(rename = "match", skip_serializing_if = "Option::is_none")]
    pub matches: Option<serde_json::Value>,
}

/// A weighted destination.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct BackendAnswer {
    /// What it is called.
    pub service: String,
    /// What kind of thing it is; absent: a service by its tag.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kind: Option<DestinationKind>,
    /// The tags that its reals must have, the service's apart.
    pub tags: Tags,
    /// Weight as written.
    pub weight: u32,
    /// Share of all connections, 0 to 1: weight ÷ sum of weights. The table keeps it to within a
    /// slot; `steps` say how many it has.
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
    /// Share of all connections, 0 to 1.
    pub share: f64,
}

/// How connections are spread.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct LoadBalancerAnswer {
    /// `maglev`, `ringHash`, `roundRobin`, `random` or `leastRequest`.
    #[serde(rename = "type")]
    pub kind: String,
    /// Slots of the table; `None` where no tables are at hand.
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
    /// Headers in order.
    pub headers: Vec<(String, String)>,
}

/// An answer that balancer gives, or how it changes the backend's.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ResponseAnswer {
    /// Status, where balancer answers.
    pub status: Option<u16>,
    /// Headers in order.
    pub headers: Vec<(String, String)>,
}

/// One route of a destination, for `--all`.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct RouteAnswer {
    /// What it matches; `None`: every connection.
    #[serde(rename = "match")]
    pub matches: Option<serde_json::Value>,
    /// See [`Answer::backends`].
    pub backends: Vec<BackendAnswer>,
    /// See [`Answer::request`].
    pub request: Option<RequestAnswer>,
    /// See [`Answer::response`].
    pub response: Option<ResponseAnswer>,
}
