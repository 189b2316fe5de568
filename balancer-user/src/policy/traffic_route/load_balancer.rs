//! `conf.loadBalancer` (semantics 3.11, decision D7).

use super::super::{
    Diagnostic, HashFunction, LoadBalancer,
    fields::{Context, Field},
};

/// The types, one of which may be given.
pub(in super::super) const TYPES: [&str; 5] =
    ["roundRobin", "leastRequest", "ringHash", "random", "maglev"];
/// Samples where `choiceCount` is absent or 0.
pub(in super::super) const CHOICES: u32 = 2;
/// Most samples: the datapath keeps their number in one byte.
pub(in super::super) const CHOICES_MAX: u32 = 255;
/// Points on a ring where the sizes are absent or 0 (Envoy's defaults).
pub(in super::super) const MIN_RING_SIZE: u64 = 1024;
/// The same, and the most that a ring may have.
pub(in super::super) const MAX_RING_SIZE: u64 = 8 * 1024 * 1024;

/// `hashFunction`.
pub(in super::super) const HASH_FUNCTIONS: [&str; 2] = ["XX_HASH", "MURMUR_HASH_2"];

/// Reads `loadBalancer`. Outer `None`: it has an error; inner `None`: none is set.
pub(super) fn load_balancer(
    cx: &mut Context<'_>,
    field: &Field<'_>,
) -> Option<Option<LoadBalancer>> {
    let mut fields = field.fields(cx)?;
    let given: Vec<Field<'_>> =
        TYPES.into_iter().filter_map(|name| fields.take_written(cx, name)).collect();
    fields.finish(cx);
    let mut read = None;
    let mut set = Vec::new();
    for field in &given {
        if field.node.is_null() {
            // The reference takes null for "not set" and goes on with round robin.
            let name = field.path.rsplit('.').next().unwrap_or_default();
            cx.report(
                Diagnostic::warning(field.path.clone(), "has no value and is therefore not set")
                    .at(field.key_span)
                    .hint(format!("write `{name}: {{}}`")),
            );
            continue;
        }
        set.push(field);
        read = Some(of_type(cx, field));
    }
    if let [first, second, ..] = set[..] {
        cx.report(
            Diagnostic::error(field.path.clone(), "only one type can be set")
                .at(second.key_span)
                .related(first.key_span, "first here")
                .hint("keep one of them"),
        );
        return None;
    }
    match read {
        Some(balancer) => Some(Some(balancer?)),
        None => Some(None),
    }
}

fn of_type(cx: &mut Context<'_>, field: &Field<'_>) -> Option<LoadBalancer> {
    let mut fields = field.fields(cx)?;
    let balancer = match field.path.rsplit('.').next().unwrap_or_default() {
        "leastRequest" => {
            let choice_count = match fields.take(cx, "choiceCount") {
                Some(choices) => choice_count(cx, &choices),
                None => Some(CHOICES),
            };
            choice_count.map(|choice_count| LoadBalancer::LeastRequest { choice_count })
        }
        "ringHash" => {
            let function_field = fields.take(cx, "hashFunction");
            let min_field = fields.take(cx, "minRingSize");
            let max_field = fields.take(cx, "maxRingSize");
            let function = hash_function(cx, &fields.path, fields.span, function_field.as_ref());
            let sizes = ring_sizes(cx, min_field.as_ref(), max_field.as_ref());
            function.zip(sizes).map(|(function, (min_ring_size, max_ring_size))| {
                LoadBalancer::RingHash { function, min_ring_size, max_ring_size }
            })
        }
        "random" => Some(LoadBalancer::Random),
        "maglev" => Some(LoadBalancer::Maglev),
        _ => Some(LoadBalancer::RoundRobin),
    };
    fields.finish(cx);
    balancer
}

fn choice_count(cx: &mut Context<'_>, field: &Field<'_>) -> Option<u32> {
    match field.u32(cx)? {
        0 => Some(CHOICES),
        1 => {
            cx.report(field.error("value must be greater than or equal to 2"));
            None
        }
        choices @ 2..=CHOICES_MAX => Some(choices),
        choices => {
            cx.report(
                field
                    .error(format!(
                        "{choices} samples are more than the {CHOICES_MAX} that can be taken"
                    ))
                    .hint("2 or 3 samples come close to the best choice"),
            );
            None
        }
    }
}

fn hash_function(
    cx: &mut Context<'_>,
    path: &str,
    absent_at: super::super::Span,
    field: Option<&Field<'_>>,
) -> Option<HashFunction> {
    let lenient = cx.options.lenient();
    let path = format!("{path}.hashFunction");
    let Some(field) = field else {
        if lenient {
            cx.report(
                Diagnostic::warning(path, "not given: XX_HASH is used")
                    .at(absent_at)
                    .hint("Kuma asks for it: write `hashFunction: XX_HASH`"),
            );
            return Some(HashFunction::XxHash);
        }
        cx.report(Diagnostic::error(path, "must have a valid hash function").at(absent_at));
        return None;
    };
    let [xx, murmur] = HASH_FUNCTIONS;
    let (function, name) = match field.string(cx)? {
        written if written == xx => return Some(HashFunction::XxHash),
        written if written == murmur => return Some(HashFunction::MurmurHash2),
        "XXHash" if lenient => (HashFunction::XxHash, xx),
        "MurmurHash2" if lenient => (HashFunction::MurmurHash2, murmur),
        _ => {
            cx.report(
                field.error("must have a valid hash function").hint("XX_HASH or MURMUR_HASH_2"),
            );
            return None;
        }
    };
    cx.report(field.warning("spelt as in MeshLoadBalancingStrategy").hint(format!("write {name}")));
    Some(function)
}

/// Smallest and largest ring. Kuma checks neither; where exactly its rules are asked for, what
/// makes no sense is cut to what does, with a warning.
fn ring_sizes(
    cx: &mut Context<'_>,
    min_field: Option<&Field<'_>>,
    max_field: Option<&Field<'_>>,
) -> Option<(u64, u64)> {
    let errors_before = cx.errors();
    let size = |cx: &mut Context<'_>, field: Option<&Field<'_>>, default: u64| {
        let size = field.and_then(|field| field.u64(cx)).filter(|size| *size > 0);
        if let (Some(field), Some(size)) = (field, size)
            && size > MAX_RING_SIZE
        {
            cx.report_unless_exact(
                field.error(format!("a ring of {size} points is larger than {MAX_RING_SIZE}")),
            );
        }
        size.map_or(default, |size| size.min(MAX_RING_SIZE))
    };
    let min = size(cx, min_field, MIN_RING_SIZE);
    let max = size(cx, max_field, MAX_RING_SIZE);
    if min > max
        && let Some(field) = max_field.or(min_field)
    {
        cx.report_unless_exact(
            field
                .error(format!(
                    "the largest ring ({max} points) is smaller than the smallest ({min})"
                ))
                .hint(format!("minRingSize is {MIN_RING_SIZE} where it is not given")),
        );
    }
    (cx.errors() == errors_before).then_some((min.min(max), max))
}
