//! `MeshLoadBalancingStrategy` (semantics 4.9): how connections and requests to services are
//! spread, by what they are hashed, and which zones they may go to.

use super::{
    Api, Diagnostic, LoadBalancer, Meta, ReferredBy, RouteTarget, ServiceRef, Span,
    envelope::only,
    fields::{Context, Field, Fields},
    mesh_route::{policy, to_target_ref},
    object,
    reference::Written,
};

pub(super) mod algorithm;
pub(super) mod hash;
pub(super) mod locality;

/// `MeshLoadBalancingStrategy`.
#[derive(Clone, Debug, PartialEq)]
pub struct MeshLoadBalancingStrategy {
    /// Identity.
    pub meta: Meta,
    /// `targetRef`: whose connections it concerns. Absent: everybody's.
    pub target: RouteTarget,
    /// `to[]` in written order.
    pub to: Vec<StrategyTo>,
}

/// One item of `to`. What is not given is taken from another policy.
#[derive(Clone, Debug, PartialEq)]
pub struct StrategyTo {
    /// Where it stands.
    pub span: Span,
    /// Its field path: `spec.to[0]`.
    pub field: String,
    /// `targetRef`: what is dialled.
    pub target: StrategyTarget,
    /// `default.loadBalancer`.
    pub load_balancer: Option<StrategyBalancer>,
    /// `default.hashPolicies`, up to Kuma 2.14 also of the load balancer: in order, their hashes
    /// are combined. Of none of them: whatever the load balancer hashes by itself.
    pub hash_policies: Option<Vec<HashPolicy>>,
    /// `default.localityAwareness`.
    pub locality: Option<Locality>,
}

/// What an item of `to` speaks of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StrategyTarget {
    /// Every service.
    Mesh,
    /// A service.
    Service(ServiceRef),
    /// What a MeshHTTPRoute takes; only `hashPolicies` then.
    HttpRoute(ReferredBy),
}

/// `default.loadBalancer`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct StrategyBalancer {
    /// The algorithm.
    pub algorithm: LoadBalancer,
    /// `leastRequest.activeRequestBias`: how much active requests count where weights differ.
    pub active_request_bias: Option<f64>,
    /// `maglev.tableSize`: a prime from 2 to 5,000,011.
    pub table_size: Option<u32>,
}

/// One of `hashPolicies`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HashPolicy {
    /// Where it stands.
    pub span: Span,
    /// Its field path: `spec.to[0].default.hashPolicies[0]`.
    pub field: String,
    /// What is hashed.
    pub key: HashKey,
    /// `terminal`: if there is a hash after it, the rest is not looked at.
    pub terminal: bool,
}

/// What is hashed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HashKey {
    /// The values of this header.
    Header(String),
    /// The value of a cookie.
    Cookie {
        /// Its name.
        name: String,
        /// `ttl`, milliseconds: requests without it get one that lives so long; 0: as long as the
        /// browser. Absent: they get none.
        ttl_ms: Option<u64>,
        /// `path` of the cookie that is given.
        path: Option<String>,
    },
    /// `Connection` with `sourceIP: true`: the client's address.
    SourceAddress,
    /// The value of this query parameter; cases of letters count.
    QueryParameter(String),
}

/// `default.localityAwareness`.
#[derive(Clone, Debug, PartialEq)]
pub struct Locality {
    /// `disabled`: zones and affinity tags do not count.
    pub disabled: bool,
    /// `localZone.affinityTags`: endpoints that share the first of these tags with the source, then
    /// the second, …
    pub affinity: Vec<AffinityTag>,
    /// `crossZone.failover`: to which other zones, in order of preference. `None`: not given.
    pub failover: Option<Vec<Failover>>,
    /// `crossZone.failoverThreshold.percentage`: the next priority is used when fewer endpoints of
    /// this one are alive. Above 0, at most 100; 50 where absent.
    pub threshold_percent: f64,
}

/// One of `affinityTags`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AffinityTag {
    /// `key`: the tag.
    pub key: String,
    /// `weight`, at least 1; all of them have one or none has: then nine of ten go to the first,
    /// nine of ten others to the second, …
    pub weight: Option<u32>,
}

/// One of `failover`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failover {
    /// `from.zones`: of which zones the sources are. `None`: of all.
    pub from: Option<Vec<String>>,
    /// `to`.
    pub to: FailoverTo,
}

/// Which zones traffic may go to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FailoverTo {
    /// To each other.
    Any,
    /// To none.
    None,
    /// To these.
    Only(Vec<String>),
    /// To all but these.
    AnyExcept(Vec<String>),
}

/// Reads a MeshLoadBalancingStrategy. `None`: it has an error.
pub(super) fn strategy(
    cx: &mut Context<'_>,
    meta: Meta,
    spec: Fields<'_>,
) -> Option<MeshLoadBalancingStrategy> {
    let (target, to) = policy(cx, &meta, spec, to_item)?;
    Some(MeshLoadBalancingStrategy { meta, target, to })
}

fn to_item(cx: &mut Context<'_>, item: &Field<'_>, gateway: bool) -> Option<StrategyTo> {
    let mut fields = item.fields(cx)?;
    let target_field = to_target_ref(cx, &mut fields);
    let default = fields.take(cx, "default");
    fields.finish(cx);
    let balanced = default.as_ref().is_some_and(|field| {
        field.node.entry("loadBalancer").is_some_and(|entry| !entry.value.is_null())
    });
    let target = target_field.as_ref().and_then(|field| to_target(cx, field, gateway, balanced));
    let kind = Dialled::of(target_field.as_ref());
    let errors_before = cx.errors();
    let conf = match &default {
        Some(field) => conf(cx, field, kind),
        None => Some(Conf::default()),
    };
    if errors_before == cx.errors() && conf.as_ref().is_some_and(|conf| *conf == Conf::default()) {
        cx.report(match &default {
            Some(field) => field.warning("sets nothing: this item has no effect"),
            None => item.warning("has no `default`: it has no effect"),
        });
    }
    let Conf { load_balancer, hash_policies, locality } = conf?;
    let (span, field, target) = (item.node.span, item.path.clone(), target?);
    Some(StrategyTo { span, field, target, load_balancer, hash_policies, locality })
}

/// What else depends on what is dialled, as it is written.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Dialled {
    HttpRoute,
    /// A MeshService that is an object, not a tag's value.
    OneZone,
    MultiZone,
    Other,
}

impl Dialled {
    fn of(field: Option<&Field<'_>>) -> Self {
        let Some(field) = field else { return Self::Other };
        let is_kind = |kind: &str| field.node.entry("kind").is_some_and(|k| k.value.is_text(kind));
        let is_set = |name: &str| field.node.entry(name).is_some_and(|e| !e.value.is_null());
        if is_kind("MeshHTTPRoute") {
            Self::HttpRoute
        } else if is_kind("MeshMultiZoneService") {
            Self::MultiZone
        } else if is_kind("MeshService") && (is_set("sectionName") || is_set("labels")) {
            Self::OneZone
        } else {
            Self::Other
        }
    }
}

/// Kinds that `targetRef` of an item of `to` may have.
pub(super) const KINDS: &[&str] =
    &["Mesh", "MeshService", "MeshMultiZoneService", "MeshExternalService", "MeshHTTPRoute"];

fn to_target(
    cx: &mut Context<'_>,
    field: &Field<'_>,
    gateway: bool,
    balanced: bool,
) -> Option<StrategyTarget> {
    let written = Written::new(cx, field)?;
    let kinds = match cx.options.api {
        // All listeners of a gateway are balanced alike.
        _ if gateway && balanced => &KINDS[..1],
        Some(Api::Kuma27) => &KINDS[..2],
        Some(Api::Kuma29) => &KINDS[..3],
        Some(Api::Kuma3) | None => KINDS,
    };
    let kind = written.kind(cx, kinds)?;
    let errors_before = cx.errors();
    let target = match kind {
        "Mesh" => {
            written.allow(cx, kind, &["proxyTypes"]);
            Some(StrategyTarget::Mesh)
        }
        "MeshHTTPRoute" => {
            written.allow(cx, kind, &["name", "namespace", "labels"]);
            written.by(cx, kind).map(StrategyTarget::HttpRoute)
        }
        _ => written.service(cx, kind, None).map(StrategyTarget::Service),
    };
    written.fields.finish(cx);
    target.filter(|_| cx.errors() == errors_before)
}

/// `default`.
#[derive(Debug, Default, PartialEq)]
struct Conf {
    load_balancer: Option<StrategyBalancer>,
    hash_policies: Option<Vec<HashPolicy>>,
    locality: Option<Locality>,
}

fn conf(cx: &mut Context<'_>, field: &Field<'_>, dialled: Dialled) -> Option<Conf> {
    let mut fields = field.fields(cx)?;
    let balancer_field = fields.take(cx, "loadBalancer");
    let hash_field = fields.take(cx, "hashPolicies");
    let locality_field = fields.take(cx, "localityAwareness");
    fields.finish(cx);
    if dialled == Dialled::HttpRoute {
        for field in [&balancer_field, &locality_field].into_iter().flatten() {
            cx.report(
                Diagnostic::error(
                    field.path.clone(),
                    "must not be set for a MeshHTTPRoute, which has `hashPolicies` only",
                )
                .at(field.key_span)
                .hint("set it for the service"),
            );
        }
    }
    let balancer = match &balancer_field {
        Some(field) => algorithm::load_balancer(cx, field).map(Some),
        None => Some(None),
    };
    let own = match &hash_field {
        Some(field) => hash::policies(cx, field).map(Some),
        None => Some(None),
    };
    let locality = match &locality_field {
        Some(field) => locality::locality(cx, field, dialled).map(Some),
        None => Some(None),
    };
    let (balancer, own, locality) = (balancer?, own?, locality?);
    let within = balancer.as_ref().and_then(|read| read.hash_policies.as_ref());
    if let (Some(within), Some(own)) = (within, &hash_field) {
        cx.report(
            Diagnostic::error(own.path.clone(), "must not be given here and in the load balancer")
                .at(own.key_span)
                .related(within.0, "they are given here too")
                .hint("keep these: newer versions have them only here"),
        );
        return None;
    }
    let hash_policies = own.or_else(|| within.map(|(_, policies)| policies.clone()));
    let load_balancer = balancer.map(|read| read.balancer);
    if let (Some(balancer), Some(field)) = (&load_balancer, &hash_field)
        && !matches!(balancer.algorithm, LoadBalancer::RingHash { .. } | LoadBalancer::Maglev)
    {
        let name = balancer.algorithm.name();
        cx.report(
            Diagnostic::warning(field.path.clone(), format!("has no effect with {name}"))
                .at(field.key_span)
                .hint("RingHash and Maglev go by hashes"),
        );
    }
    Some(Conf { load_balancer, hash_policies, locality })
}

/// What stands in the field of another type, `of`.
fn without_effect(field: &Field<'_>, of: &str, name: Option<&str>) -> Diagnostic {
    let message = format!("has no effect with type {}", name.unwrap_or_default());
    Diagnostic::warning(field.path.clone(), message)
        .at(field.key_span)
        .hint(format!("write `type: {of}`, or remove it"))
}

/// Takes a field that must not be empty.
fn not_empty<'n>(
    cx: &mut Context<'_>,
    fields: &mut Fields<'n>,
    name: &'static str,
) -> Option<&'n str> {
    let field = object::required(cx, fields, name)?;
    let text = field.string(cx)?;
    if text.is_empty() {
        cx.report(field.error("must not be empty"));
        return None;
    }
    Some(text)
}

/// Whether hash policies stand in `default` only: since Kuma 3.
fn only_beside(cx: &Context<'_>) -> bool {
    only(cx.options, &[Api::Kuma3])
}

#[cfg(test)]
#[path = "../strategy_tests.rs"]
mod tests;
