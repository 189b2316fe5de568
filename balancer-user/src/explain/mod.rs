//! Where a connection would go, and why.
//!
//! Belongs here: names that people type into a source and a destination, the shares of a route
//! as its table has them, and the sentences that say how it came about. Pure, like the rooms it
//! asks: it reads no file and no map. The decisions themselves are made in
//! [`resolve`] and [`compile`](crate::compile); this room repeats none of them,
//! it asks the same functions and says what they answered.

#![forbid(unsafe_code)]

use std::net::SocketAddr;

use crate::{
    compile::Tables,
    policy::PolicySet,
    resolve::{
        self, ResolveSettings, Resolved, Resolver, Route, Vip, VipKey, VipProtocol,
        sources::workload_addresses,
    },
};

mod answer;
mod asked;
mod backends;
mod described;
mod every;
mod listeners;
mod mesh_policies;
mod names;
mod objects;
mod requests;
mod shares;
mod source;
mod steps;

pub use answer::{
    Answer, BackendAnswer, Decision, DestinationAnswer, Layer, ListedRule, LoadBalancerAnswer,
    PolicyAnswer, RealAnswer, RequestAnswer, ResponseAnswer, RouteAnswer, RuleAnswer, SourceAnswer,
};
use asked::HttpRoute;
use described::Described;
use source::Source;

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
    /// What it is dialled with; `None`: TCP where that is possible.
    pub protocol: Option<VipProtocol>,
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

/// Says where connections go, and a request where one is described. A question that names something
/// unknown, or more than one thing, is refused with what could have been meant.
pub fn explain(input: &Input<'_>, query: &Query) -> Result<Answer, QueryError> {
    // What is wrong with a request is wrong whatever is dialled.
    query.request.as_ref().map(|request| Described::new(request, "any")).transpose()?;
    let asker = names::asker(input, &query.from)?;
    let resolver = Resolver::new(input.set, input.settings);
    let attached = &resolver.attached;
    let vips = match names::target(input, attached, &asker, &query.to, query.protocol)? {
        names::Target::Vips(vips) => vips,
        names::Target::Elsewhere(addr) => return Ok(no_vip(input, &asker, addr, query)),
    };
    let mut taken: Vec<(&Vip, Source<'_>, Route)> = Vec::new();
    for vip in vips {
        let source = source::source(&resolver, input, &asker, vip, query)?;
        let route = source.route.clone();
        taken.push((vip, source, route));
    }
    let (vip, source, route) = &taken[0];
    if taken.iter().any(|(.., other)| other != route) {
        let all: Vec<&Vip> = taken.iter().map(|(vip, ..)| *vip).collect();
        return Err(QueryError {
            message: format!(
                "{} has {} VIPs that route this source differently",
                vip.destination.called(),
                all.len()
            ),
            candidates: names::addresses(&all),
        });
    }
    let others: Vec<VipKey> = taken[1..].iter().map(|(vip, ..)| vip.key).collect();

    let shares = shares::shares(input.resolved, input.tables, vip, route);
    let listener = listeners::named(attached, &vip.destination, &query.to);
    let hostname = listener.as_ref().map(|(_, hostname)| hostname);
    let http = HttpRoute::new(query, vip, source, hostname)?;
    let asked = http.as_ref().map(|http| http.ask(query)).transpose()?.flatten();
    let listener = listener.as_ref().map(|(listener, _)| listener);
    let told = steps::Told { input, resolver: &resolver, query, vip, listener, source, route };
    let steps = told.steps(&others, &shares, http.as_ref().zip(Some(asked.as_ref())));
    let known = resolver.inventory.endpoints(&vip.destination);
    let protocol = match vip.key.protocol {
        VipProtocol::Tcp => known.map_or("tcp", |service| service.protocol().name()),
        VipProtocol::Udp => "udp",
    };
    let routes = query.all.then(|| match &http {
        Some(http) => http.every(),
        None => vec![RouteAnswer {
            matches: None,
            backends: shares.backends.clone(),
            request: None,
            response: None,
            rule: None,
        }],
    });
    let spread = |slots| LoadBalancerAnswer { kind: route.load_balancer.name().to_owned(), slots };
    let answer = Answer {
        source: SourceAnswer {
            dataplane: source.dataplane.map(|dataplane| dataplane.meta.name.clone()),
            address: source.address.map(|address| address.to_string()),
        },
        destination: DestinationAnswer {
            service: Some(listener.unwrap_or(&vip.destination).to_string()),
            address: vip.key.addr.to_string(),
        },
        protocol: protocol.to_owned(),
        layer: if http.is_some() { Layer::L7 } else { Layer::L4 },
        policy: match &http {
            Some(http) => http.rules.policies.first(),
            None => route.policy.as_ref(),
        }
        .map(PolicyAnswer::from),
        rule: source
            .mesh_tcp
            .winner
            .filter(|_| !source.by_mesh_http)
            .map(|item| RuleAnswer { index: item.index, matches: None }),
        decision: match route.decision {
            resolve::Decision::Forward => Decision::Forward,
            resolve::Decision::Direct => Decision::Direct,
            resolve::Decision::Reject => Decision::Reject,
        },
        load_balancer: (route.decision != resolve::Decision::Reject)
            .then(|| spread(shares.slots.as_ref().map(|(all, _)| *all))),
        backends: shares.backends,
        request: None,
        response: None,
        steps,
        routes,
    };
    let Some(asked) = asked else { return Ok(answer) };
    // A described request is answered by the rule that takes it.
    let outcome = asked.outcome;
    Ok(Answer {
        policy: asked.policy,
        rule: asked.rule,
        load_balancer: (outcome.decision == Decision::Forward).then(|| spread(None)),
        decision: outcome.decision,
        backends: outcome.backends,
        request: outcome.request,
        response: outcome.response,
        ..answer
    })
}

/// The answer for an address that is no VIP.
fn no_vip(input: &Input<'_>, asker: &names::Asker<'_>, addr: SocketAddr, query: &Query) -> Answer {
    let dataplane = asker.dataplanes().first().copied();
    let address = match asker {
        names::Asker::Address(address, _) => Some(*address),
        names::Asker::Dataplane(_) | names::Asker::Tags(..) => dataplane.and_then(|dataplane| {
            workload_addresses(dataplane, &input.settings.names).first().copied()
        }),
    };
    Answer {
        source: SourceAnswer {
            dataplane: dataplane.map(|dataplane| dataplane.meta.name.clone()),
            address: address.map(|address| address.to_string()),
        },
        destination: DestinationAnswer { service: None, address: addr.to_string() },
        protocol: query.protocol.unwrap_or_default().name().to_owned(),
        layer: Layer::L4,
        policy: None,
        rule: None,
        decision: Decision::Direct,
        backends: Vec::new(),
        load_balancer: None,
        request: None,
        response: None,
        steps: steps::no_vip(input, addr),
        routes: query.all.then(Vec::new),
    }
}

#[cfg(test)]
mod gateway_tests;
#[cfg(test)]
mod http_properties;
#[cfg(test)]
mod http_tests;
#[cfg(test)]
mod mesh_http_tests;
#[cfg(test)]
mod mesh_object_tests;
#[cfg(test)]
mod object_tests;
#[cfg(test)]
mod tests;
