//! Where a connection would go, and why.
//!
//! Belongs here: names that people type into a source and a destination, the shares of a route
//! as its table has them, and the sentences that say how it came about. Pure, like the rooms it
//! asks: it reads no file and no map. The decisions themselves are made in
//! [`resolve`](crate::resolve) and [`compile`](crate::compile); this room repeats none of them,
//! it asks the same functions and says what they answered.

#![forbid(unsafe_code)]

use crate::{
    compile::Tables,
    policy::PolicySet,
    resolve::{ResolveSettings, Resolved},
};

mod answer;

pub use answer::{
    Answer, BackendAnswer, Decision, DestinationAnswer, Layer, LoadBalancerAnswer, PolicyAnswer,
    RealAnswer, RequestAnswer, ResponseAnswer, RouteAnswer, RuleAnswer, SourceAnswer,
};

/// What the answer is made from: one set, resolved and, where possible, compiled.
#[derive(Clone, Copy, Debug)]
pub struct Input<'a> {
    /// The policies.
    pub set: &'a PolicySet,
    /// What they were resolved with.
    pub settings: &'a ResolveSettings,
    /// `resolve(set, settings)`.
    pub resolved: &'a Resolved,
    /// `compile(resolved, …)`; without it shares come from weights and slots stay unknown.
    pub tables: Option<&'a Tables>,
}

/// What is asked.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Query {
    /// `DATAPLANE`, `MESH/DATAPLANE`, an address, or `k=v,k=v`.
    pub from: String,
    /// `SERVICE`, `SERVICE:PORT`, either with `MESH/` before it, or `ADDRESS:PORT`.
    pub to: String,
    /// The request, where one was described.
    pub request: Option<RequestQuery>,
    /// Every route of the destination, not only the one that is taken.
    pub all: bool,
}

/// A described request. What is absent was not given.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RequestQuery {
    /// `--method`.
    pub method: Option<String>,
    /// `--path`, with query.
    pub path: Option<String>,
    /// `--host`.
    pub host: Option<String>,
    /// `--header NAME:VALUE`, in order.
    pub headers: Vec<(String, String)>,
}

/// A question that names something unknown, or more than one thing.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct QueryError {
    /// What is wrong with which word.
    pub message: String,
    /// What would be understood, closest first.
    pub candidates: Vec<String>,
}
