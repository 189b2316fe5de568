//! `split` and `destination`, outer ones and those of `http` entries (semantics 3.3, 3.7).

use super::super::{
    Diagnostic, Span, SplitEntry, Tags,
    fields::{Context, Field, Fields},
    tags::{self, DESTINATION, TagRules},
};

/// One of `split` and `destination`; a destination is a split with one entry of weight 1.
pub(super) fn split_or_destination(
    cx: &mut Context<'_>,
    parent: &Fields<'_>,
    parent_span: Span,
    split: Option<&Field<'_>>,
    destination: Option<&Field<'_>>,
) -> Option<Vec<SplitEntry>> {
    let on_parent = |message: &str| Diagnostic::error(parent.path.clone(), message).at(parent_span);
    match (split, destination) {
        (None, None) => cx.report(on_parent("requires either \"destination\" or \"split\"")),
        (Some(split), Some(destination)) => cx.report(
            Diagnostic::error(
                parent.path.clone(),
                "\"split\" cannot be defined at the same time as \"destination\"",
            )
            .at(split.key_span)
            .related(destination.key_span, "`destination` is here")
            .hint("keep one of them"),
        ),
        _ => {}
    }
    let by_split = split.map(|field| read_split(cx, field));
    let by_destination = destination.map(|field| {
        let tags = tags::tags(cx, &field.path, Some(field), field.node.span, DESTINATION)?;
        let (span, field) = (field.node.span, field.path.clone());
        Some(vec![SplitEntry { span, field, weight: 1, destination: tags }])
    });
    match (by_split, by_destination) {
        (Some(entries), None) | (None, Some(entries)) => entries,
        (None, None) | (Some(_), Some(_)) => None,
    }
}

/// `conf` of Kuma 0.5: an absent weight is 0.
pub(super) fn old_split(cx: &mut Context<'_>, field: &Field<'_>) -> Option<Vec<SplitEntry>> {
    let items = field.items(cx)?;
    let rules = TagRules { unprefixed: true, ..DESTINATION };
    entries(cx, field, &items, rules, |cx, fields| {
        cx.report(fields.missing_warning("weight", "not given: taken as 0, as Kuma 0.5 takes it"));
        Some(0)
    })
}

fn read_split(cx: &mut Context<'_>, field: &Field<'_>) -> Option<Vec<SplitEntry>> {
    let items = field.items(cx)?;
    let single = items.len() == 1 && cx.options.lenient();
    entries(cx, field, &items, DESTINATION, |cx, fields| {
        if single {
            // Decision D3: the shares are the same whatever the weight.
            cx.report(
                fields
                    .missing_warning("weight", "not given: the only entry takes everything")
                    .hint("Kuma asks for a weight, e.g. `weight: 1`"),
            );
            return Some(1);
        }
        cx.report(
            fields
                .missing("weight", "needs to be defined")
                .hint("every entry needs its weight, e.g. `weight: 10`; 0 is one too"),
        );
        None
    })
}

/// Reads the entries and checks their weights together. `absent` says what an absent weight
/// means, and reports it.
fn entries(
    cx: &mut Context<'_>,
    list: &Field<'_>,
    items: &[Field<'_>],
    rules: TagRules,
    absent: impl Fn(&mut Context<'_>, &Fields<'_>) -> Option<u32>,
) -> Option<Vec<SplitEntry>> {
    if items.is_empty() {
        cx.report(list.error("must have at least one element"));
        return None;
    }
    let mut entries = Vec::new();
    let mut complete = true;
    let mut sum: u64 = 0;
    // A weight that cannot be read says nothing about the sum.
    let mut sum_known = true;
    for item in items {
        let Some(mut fields) = item.fields(cx) else {
            (complete, sum_known) = (false, false);
            continue;
        };
        let weight = match fields.take(cx, "weight") {
            Some(weight) => {
                let read = weight.u32(cx);
                sum_known &= read.is_some();
                read
            }
            None => absent(cx, &fields),
        };
        sum += u64::from(weight.unwrap_or(0));
        let destination = destination(cx, &mut fields, rules);
        fields.finish(cx);
        match (weight, destination) {
            (Some(weight), Some(destination)) => {
                let field = format!("{}.destination", item.path);
                entries.push(SplitEntry { span: item.node.span, field, weight, destination });
            }
            _ => complete = false,
        }
    }
    if sum == 0 && sum_known {
        cx.report(list.error("there must be at least one split entry with weight above 0"));
        return None;
    }
    if sum > u64::from(u32::MAX) {
        cx.report(
            list.error(format!("the weights sum to {sum}, more than {}", u32::MAX))
                .hint("weights are relative: divide them all by the same number"),
        );
        return None;
    }
    complete.then_some(entries)
}

fn destination(cx: &mut Context<'_>, fields: &mut Fields<'_>, rules: TagRules) -> Option<Tags> {
    let field = fields.take(cx, "destination");
    let path = format!("{}.destination", fields.path);
    tags::tags(cx, &path, field.as_ref(), fields.span, rules)
}
