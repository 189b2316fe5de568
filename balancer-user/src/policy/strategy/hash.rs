//! `hashPolicies` of a MeshLoadBalancingStrategy.

use super::{
    super::{
        fields::{Context, Field, Fields},
        http_route::matches::{Family, header_name, is_token},
        object,
        words::shortened,
    },
    HashKey, HashPolicy, not_empty, only_beside, without_effect,
};

/// The types, and the field that each needs.
pub(in super::super) const TYPES: &[(&str, &str)] = &[
    ("Header", "header"),
    ("Cookie", "cookie"),
    ("Connection", "connection"),
    ("QueryParameter", "queryParameter"),
    ("FilterState", "filterState"),
    ("SourceIP", "connection"),
];

/// Reads the list. Policies that never yield a hash are reported and left out.
pub(super) fn policies(cx: &mut Context<'_>, field: &Field<'_>) -> Option<Vec<HashPolicy>> {
    let items = field.items(cx)?;
    let read: Vec<Option<Option<HashPolicy>>> = items.iter().map(|item| policy(cx, item)).collect();
    let read: Vec<Option<HashPolicy>> = read.into_iter().collect::<Option<_>>()?;
    Some(read.into_iter().flatten().collect())
}

/// Outer `None`: it has an error; inner `None`: it never yields a hash.
fn policy(cx: &mut Context<'_>, item: &Field<'_>) -> Option<Option<HashPolicy>> {
    let mut fields = item.fields(cx)?;
    // `SourceIP` is a word of the schema that only old versions let pass, and never had an effect.
    let types = if only_beside(cx) { &TYPES[..TYPES.len() - 1] } else { TYPES };
    let names: Vec<&'static str> = types.iter().map(|(name, _)| *name).collect();
    let kind = object::required(cx, &mut fields, "type");
    let name = kind.as_ref().and_then(|field| field.one_of(cx, &names));
    let terminal = match fields.take(cx, "terminal") {
        Some(field) => field.boolean(cx),
        None => Some(false),
    };
    let wanted = types.iter().find(|(of, _)| Some(*of) == name).map(|(_, part)| *part);
    let body = fields.take_of_type(cx, types, name, |field, of| without_effect(field, of, name));
    let (name, wanted) = (name?, wanted?);
    if body.is_none() {
        cx.report(
            fields
                .missing(wanted, "must be defined")
                .hint(format!("the type {name} needs `{wanted}`")),
        );
    }
    fields.finish(cx);
    let body = body?;
    let errors_before = cx.errors();
    let key = key(cx, name, &body);
    if cx.errors() > errors_before {
        return None;
    }
    let Some(key) = key else {
        cx.report(item.warning(format!("never yields a hash: {}", why_not(name))));
        return Some(None);
    };
    let (span, field, terminal) = (item.node.span, item.path.clone(), terminal?);
    Some(Some(HashPolicy { span, field, key, terminal }))
}

fn why_not(name: &str) -> &'static str {
    match name {
        "FilterState" => "there are no filters that could set a state",
        "SourceIP" => "no version carries the type out; write `type: Connection`",
        _ => "`sourceIP` is not true",
    }
}

/// What is hashed. `None`: nothing, or there is an error.
fn key(cx: &mut Context<'_>, name: &str, body: &Field<'_>) -> Option<HashKey> {
    let mut fields = body.fields(cx)?;
    let key = match name {
        "Header" => object::required(cx, &mut fields, "name")
            .and_then(|field| header_name(cx, &field, Family::Gateway))
            .map(|name| HashKey::Header(name.to_ascii_lowercase())),
        "Cookie" => cookie(cx, &mut fields),
        "QueryParameter" => {
            not_empty(cx, &mut fields, "name").map(|name| HashKey::QueryParameter(name.to_owned()))
        }
        "FilterState" => {
            not_empty(cx, &mut fields, "key");
            None
        }
        _ => {
            let source = fields.take(cx, "sourceIP").and_then(|field| field.boolean(cx));
            (source == Some(true) && name == "Connection").then_some(HashKey::SourceAddress)
        }
    };
    fields.finish(cx);
    key
}

fn cookie(cx: &mut Context<'_>, fields: &mut Fields<'_>) -> Option<HashKey> {
    let name_field = object::required(cx, fields, "name");
    let ttl_field = fields.take(cx, "ttl");
    let path_field = fields.take(cx, "path");
    let name = name_field.and_then(|field| {
        let text = field.string(cx)?;
        if !is_token(text) {
            cx.report(field.error(format!("`{}` is no name of a cookie", shortened(text))));
            return None;
        }
        Some(text.to_owned())
    });
    let ttl_ms = match ttl_field {
        Some(field) => ttl(cx, &field).map(Some),
        None => Some(None),
    };
    let path = match path_field {
        Some(field) => {
            let text = field.string(cx)?;
            if !text.starts_with('/') {
                cx.report(field.error("must be an absolute path").hint(format!("write /{text}")));
            } else if text.contains(';') || text.contains(char::is_control) {
                cx.report(field.error("must not have `;` or control characters"));
            }
            Some(text.to_owned())
        }
        None => None,
    };
    Some(HashKey::Cookie { name: name?, ttl_ms: ttl_ms?, path })
}

/// A duration as Go writes it: numbers, perhaps with a fraction, each with its unit. In
/// milliseconds, rounded down.
fn ttl(cx: &mut Context<'_>, field: &Field<'_>) -> Option<u64> {
    let text = field.string(cx)?;
    let read = milliseconds(text);
    if read.is_none() {
        cx.report(
            field
                .error(format!("`{}` is no duration", shortened(text)))
                .hint("write numbers with h, m, s or ms, e.g. 1h30m or 0.5s"),
        );
    }
    read
}

fn milliseconds(text: &str) -> Option<u64> {
    const UNITS: [(&str, f64); 7] = [
        ("ns", 1e-6),
        ("us", 1e-3),
        ("µs", 1e-3),
        ("ms", 1.0),
        ("s", 1e3),
        ("m", 6e4),
        ("h", 3.6e6),
    ];
    if text == "0" {
        return Some(0);
    }
    let mut rest = text;
    let mut sum = 0.0;
    while !rest.is_empty() {
        let end = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let (number, after) = rest.split_at(end);
        let number: f64 = number.parse().ok()?;
        let (unit, factor) = UNITS.into_iter().find(|(unit, _)| after.starts_with(unit))?;
        sum += number * factor;
        rest = &after[unit.len()..];
    }
    // Longer than Go's longest (2⁶³ ns) is none.
    let most = 9.223_372e12;
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a fraction is to be cut off, and the bounds are checked"
    )]
    (!text.is_empty() && sum <= most).then_some(sum as u64)
}

#[cfg(test)]
mod tests {
    use super::milliseconds;

    #[test]
    fn durations_are_written_as_go_writes_them() {
        let cases = [
            ("0", Some(0)),
            ("0s", Some(0)),
            ("1h30m", Some(5_400_000)),
            ("1.5s", Some(1_500)),
            ("100ms", Some(100)),
            ("1500us", Some(1)),
            ("1500µs", Some(1)),
            ("2000000ns", Some(2)),
            ("", None),
            ("1", None),
            ("1d", None),
            ("-1s", None),
            ("1.2.3s", None),
            (".s", None),
            ("9999999h", None),
        ];
        for (text, expected) in cases {
            assert_eq!(milliseconds(text), expected, "{text:?}");
        }
    }
}
