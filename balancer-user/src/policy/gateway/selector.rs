//! Label selectors: `matchLabels` and `matchExpressions`.

use super::{LabelExpression, LabelOperator, LabelSelector};
use crate::policy::{
    Tags,
    fields::{Context, Field},
    names, object,
};

/// `operator`.
pub(in crate::policy) const OPERATORS: &[&str] = &["In", "NotIn", "Exists", "DoesNotExist"];

/// Reads a label selector. `None`: it has an error.
pub(super) fn selector(cx: &mut Context<'_>, field: &Field<'_>) -> Option<LabelSelector> {
    let mut fields = field.fields(cx)?;
    let labels =
        fields.take(cx, "matchLabels").map_or_else(Tags::new, |field| names::labels(cx, &field));
    let mut expressions = Some(Vec::new());
    if let Some(list) = fields.take(cx, "matchExpressions") {
        let items = list.items(cx)?;
        let read: Vec<_> = items.iter().map(|item| expression(cx, item)).collect();
        expressions = read.into_iter().collect();
    }
    fields.finish(cx);
    Some(LabelSelector { labels, expressions: expressions? })
}

fn expression(cx: &mut Context<'_>, item: &Field<'_>) -> Option<LabelExpression> {
    let mut fields = item.fields(cx)?;
    let key =
        object::required(cx, &mut fields, "key").and_then(|field| names::label_key(cx, &field));
    let operator =
        object::required(cx, &mut fields, "operator").and_then(|field| field.one_of(cx, OPERATORS));
    let values_field = fields.take(cx, "values");
    let mut values = Vec::new();
    if let Some(field) = &values_field {
        for item in field.items(cx)? {
            values.extend(names::label_value(cx, &item));
        }
    }
    match (operator, &values_field) {
        (Some("In" | "NotIn"), None) => {
            cx.report(fields.missing("values", "must be given with In and NotIn"));
        }
        (Some("In" | "NotIn"), Some(field)) if !field.is_set() => {
            cx.report(field.error("must have at least one value with In and NotIn"));
        }
        (Some("Exists" | "DoesNotExist"), Some(field)) if field.is_set() => {
            cx.report(field.error("must not be given with Exists and DoesNotExist"));
        }
        _ => {}
    }
    fields.finish(cx);
    let operator = match operator? {
        "In" => LabelOperator::In(values),
        "NotIn" => LabelOperator::NotIn(values),
        "Exists" => LabelOperator::Exists,
        _ => LabelOperator::DoesNotExist,
    };
    Some(LabelExpression { key: key?, operator })
}

impl LabelSelector {
    /// Whether an object with these labels is meant.
    pub fn matches(&self, labels: &Tags) -> bool {
        use LabelOperator::{DoesNotExist, Exists, In, NotIn};
        self.labels.iter().all(|(key, value)| labels.get(key) == Some(value))
            && self.expressions.iter().all(|expression| {
                let value = labels.get(&expression.key);
                match &expression.operator {
                    In(values) => value.is_some_and(|value| values.contains(value)),
                    NotIn(values) => value.is_none_or(|value| !values.contains(value)),
                    Exists => value.is_some(),
                    DoesNotExist => value.is_none(),
                }
            })
    }
}
