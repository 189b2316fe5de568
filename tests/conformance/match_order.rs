//! Family `match-order` of `routing.jsonl`: in which order matches are tried.

use balancer_user::http::{
    Age, HeaderMatch, Match, Order, PathMatch, Pattern, Precedence, QueryMatch, Segments,
    ValueMatch, header_name,
};
use serde_json::Value;

use crate::{
    cases::Verdict,
    resources::{array, text},
    routing::compared,
};

/// Judges one case. The matches are those of one list, as policies write them.
pub(crate) fn judge(case: &Value) -> Result<Verdict, String> {
    let order = match text(&case["policy_kind"]).as_deref() {
        Some("MeshHTTPRoute") => Order::Mesh,
        Some("HTTPRoute") => Order::Gateway,
        _ => return Ok(Verdict::NotBuilt),
    };
    let mut places = Vec::new();
    for (at, written) in array(&case["matches"]).iter().enumerate() {
        let matches = read(written).map_err(|why| format!("{written}: {why}"))?;
        places.push((Precedence::new(order, &matches, &Age::default(), at, 0), written.clone()));
    }
    places.sort_by(|a, b| a.0.cmp(&b.0));
    let found: Vec<Value> = places.into_iter().map(|(_, written)| written).collect();
    Ok(compared(array(&case["expected_order"]).to_vec(), found))
}

fn read(written: &Value) -> Result<Match, String> {
    let mut matches = Match::default();
    if written["path"].is_object() {
        let value = required(&written["path"], "value")?;
        matches.path = Some(match required(&written["path"], "type")?.as_str() {
            "Exact" => PathMatch::Exact(value.into()),
            "PathPrefix" => PathMatch::Segments(Segments::new(&value)),
            "RegularExpression" => {
                PathMatch::Regex(Pattern::new(&value).map_err(|e| e.to_string())?)
            }
            other => return Err(format!("no such type of path: {other}")),
        });
    }
    matches.method = text(&written["method"]).map(|method| ValueMatch::Exact(method.into()));
    for header in array(&written["headers"]) {
        let name = header_name(&required(header, "name")?).map_err(|e| e.to_string())?;
        matches.headers.push(HeaderMatch { name, value: value(header)? });
    }
    for parameter in array(&written["queryParams"]) {
        let name = required(parameter, "name")?.into();
        matches.query.push(QueryMatch { name, value: value(parameter)? });
    }
    Ok(matches)
}

fn value(written: &Value) -> Result<ValueMatch, String> {
    let value = || required(written, "value");
    Ok(match text(&written["type"]).as_deref().unwrap_or("Exact") {
        "Exact" => ValueMatch::Exact(value()?.into()),
        "Prefix" => ValueMatch::Prefix(value()?.into()),
        "RegularExpression" => {
            ValueMatch::Regex(Pattern::new(&value()?).map_err(|e| e.to_string())?)
        }
        "Present" => ValueMatch::Present,
        "Absent" => ValueMatch::Absent,
        other => return Err(format!("no such type of value: {other}")),
    })
}

fn required(written: &Value, field: &str) -> Result<String, String> {
    text(&written[field]).ok_or_else(|| format!("no {field}"))
}
