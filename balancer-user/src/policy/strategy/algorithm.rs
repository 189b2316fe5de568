//! `default.loadBalancer` of a MeshLoadBalancingStrategy.

use super::{
    super::{
        Diagnostic, HashFunction, LoadBalancer, Span,
        fields::{Context, Field, Fields},
        http_route::matches::decimal,
        object,
    },
    HashPolicy, StrategyBalancer, hash, only_beside, without_effect,
};

/// The types, and the field of each.
const TYPES: &[(&str, &str)] = &[
    ("RoundRobin", "roundRobin"),
    ("LeastRequest", "leastRequest"),
    ("RingHash", "ringHash"),
    ("Random", "random"),
    ("Maglev", "maglev"),
];
pub(in super::super) const NAMES: &[&str] =
    &["RoundRobin", "LeastRequest", "RingHash", "Random", "Maglev"];
/// Samples where `choiceCount` is absent, and the most that the datapath keeps.
pub(in super::super) const CHOICES: u32 = 2;
pub(in super::super) const CHOICES_MAX: u32 = 255;
/// Points on a ring where the sizes are absent, and the most that the schema lets write.
pub(in super::super) const MIN_RING_SIZE: u32 = 1024;
pub(in super::super) const MAX_RING_SIZE: u32 = 8_000_000;
pub(in super::super) const TABLE_SIZE_MAX: u32 = 5_000_011;

/// `hashFunction`.
pub(in super::super) const HASH_FUNCTIONS: [&str; 2] = ["XXHash", "MurmurHash2"];

/// What became of it.
pub(super) struct Read {
    pub(super) balancer: StrategyBalancer,
    /// `hashPolicies` of the type, and where they stand: up to Kuma 2.14.
    pub(super) hash_policies: Option<(Span, Vec<HashPolicy>)>,
}

/// Reads it. `None`: it has an error.
pub(super) fn load_balancer(cx: &mut Context<'_>, field: &Field<'_>) -> Option<Read> {
    let mut fields = field.fields(cx)?;
    let name = object::required(cx, &mut fields, "type").and_then(|field| field.one_of(cx, NAMES));
    let body = fields.take_of_type(cx, TYPES, name, |field, of| without_effect(field, of, name));
    fields.finish(cx);
    let name = name?;
    let absent = Fields::new(field.node.span, &[], field.path.clone());
    let mut body_fields = match &body {
        Some(field) => field.fields(cx)?,
        None => absent,
    };
    let errors_before = cx.errors();
    let (mut active_request_bias, mut table_size, mut hash_policies) = (None, None, None);
    let algorithm = match name {
        "LeastRequest" => {
            let choice_count = match body_fields.take(cx, "choiceCount") {
                Some(field) => within(cx, &field, 2, CHOICES_MAX),
                None => Some(CHOICES),
            };
            if let Some(field) = body_fields.take(cx, "activeRequestBias") {
                active_request_bias = bias(cx, &field);
            }
            choice_count.map(|choice_count| LoadBalancer::LeastRequest { choice_count })
        }
        "RingHash" => {
            let algorithm = ring(cx, &mut body_fields);
            hash_policies = old_policies(cx, &mut body_fields);
            algorithm
        }
        "Maglev" => {
            if let Some(field) = body_fields.take(cx, "tableSize") {
                table_size = within(cx, &field, 1, TABLE_SIZE_MAX);
                if table_size.is_some_and(|size| !is_prime(size)) {
                    // Kuma leaves it to Envoy.
                    cx.report_unless_exact(
                        field.error("must be a prime number").hint("e.g. 65537, or 5000011"),
                    );
                }
            }
            hash_policies = old_policies(cx, &mut body_fields);
            Some(LoadBalancer::Maglev)
        }
        "Random" => Some(LoadBalancer::Random),
        _ => Some(LoadBalancer::RoundRobin),
    };
    body_fields.finish(cx);
    let balancer = StrategyBalancer { algorithm: algorithm?, active_request_bias, table_size };
    (cx.errors() == errors_before).then_some(Read { balancer, hash_policies })
}

fn ring(cx: &mut Context<'_>, fields: &mut Fields<'_>) -> Option<LoadBalancer> {
    let function = match fields.take(cx, "hashFunction") {
        Some(field) => hash_function(cx, &field),
        None => Some(HashFunction::XxHash),
    };
    let sizes = ["minRingSize", "maxRingSize"].map(|name| fields.take(cx, name));
    let mut read = [Some(MIN_RING_SIZE), Some(MAX_RING_SIZE)];
    for (read, field) in read.iter_mut().zip(&sizes) {
        if let Some(field) = field {
            *read = within(cx, field, 1, MAX_RING_SIZE);
        }
    }
    let [min, max] = read;
    let (min, max) = (min?, max?);
    if min > max
        && let Some(field) = sizes.iter().flatten().last()
    {
        cx.report_unless_exact(
            field
                .error(format!(
                    "the largest ring ({max} points) is smaller than the smallest ({min})"
                ))
                .hint(format!("minRingSize is {MIN_RING_SIZE} where it is not given")),
        );
    }
    let (min_ring_size, max_ring_size) = (u64::from(min.min(max)), u64::from(max));
    Some(LoadBalancer::RingHash { function: function?, min_ring_size, max_ring_size })
}

/// `hashFunction`: spelled otherwise than in a TrafficRoute, whose spelling the page of this policy
/// shows.
fn hash_function(cx: &mut Context<'_>, field: &Field<'_>) -> Option<HashFunction> {
    let [xx, murmur] = HASH_FUNCTIONS;
    let meant = match field.string(cx)? {
        written if written == xx => return Some(HashFunction::XxHash),
        written if written == murmur => return Some(HashFunction::MurmurHash2),
        "XX_HASH" => (HashFunction::XxHash, xx),
        "MURMUR_HASH_2" => (HashFunction::MurmurHash2, murmur),
        _ => {
            field.one_of(cx, &HASH_FUNCTIONS)?;
            return None;
        }
    };
    let (function, name) = meant;
    let finding = field.error("spelt as in a TrafficRoute").hint(format!("write {name}"));
    if cx.options.lenient() {
        cx.report(Diagnostic { severity: super::super::Severity::Warning, ..finding });
        return Some(function);
    }
    cx.report(finding);
    None
}

fn old_policies(cx: &mut Context<'_>, fields: &mut Fields<'_>) -> Option<(Span, Vec<HashPolicy>)> {
    if only_beside(cx) {
        return None;
    }
    let field = fields.take(cx, "hashPolicies")?;
    let policies = hash::policies(cx, &field)?;
    Some((field.key_span, policies))
}

fn within(cx: &mut Context<'_>, field: &Field<'_>, least: u32, most: u32) -> Option<u32> {
    let read = field.u32(cx)?;
    if !(least..=most).contains(&read) {
        cx.report(field.error(format!("must be in the range [{least}, {most}], is {read}")));
        return None;
    }
    Some(read)
}

fn bias(cx: &mut Context<'_>, field: &Field<'_>) -> Option<f64> {
    let bias = decimal(cx, field)?;
    if bias < 0.0 {
        cx.report(field.error("must be greater or equal to 0"));
        return None;
    }
    Some(bias)
}

fn is_prime(number: u32) -> bool {
    number >= 2
        && (2..)
            .take_while(|d: &u32| u64::from(*d) * u64::from(*d) <= u64::from(number))
            .all(|d| !number.is_multiple_of(d))
}
