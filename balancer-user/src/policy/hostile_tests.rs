//! Texts that are made to harm: each comes to an end, with a message that says what it is.

use crate::policy::testing::{LENIENT, finding, reading};

/// Kinds that route requests, as far as their `spec`.
const HEADS: [&str; 4] = [
    "type: MeshHTTPRoute\nname: r\nmesh: default\nspec:\n",
    "type: MeshLoadBalancingStrategy\nname: r\nmesh: default\nspec:\n",
    "apiVersion: gateway.networking.k8s.io/v1\nkind: HTTPRoute\nmetadata: {name: r}\nspec:\n",
    "apiVersion: gateway.networking.k8s.io/v1\nkind: GRPCRoute\nmetadata: {name: r}\nspec:\n",
];

/// What is said of a text besides that its kind has no effect: message, line and column.
fn said(body: &str) -> Vec<(String, u32, u32)> {
    let reading = reading(body, &LENIENT);
    let findings = reading.report.violations().filter(|f| !matches!(&*f.field, "type" | "kind"));
    findings
        .map(|f| {
            let span = f.span.expect("a place");
            (f.message.clone(), span.line, span.column)
        })
        .collect()
}

#[test]
fn aliases_that_multiply_are_refused_in_any_kind() {
    for head in HEADS {
        let mut body = format!("{head}  a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n");
        for level in 1..12 {
            let aliases = vec![format!("*a{}", level - 1); 10].join(", ");
            body.push_str(&format!("  a{level}: &a{level} [{aliases}]\n"));
        }
        let found = said(&body);
        assert_eq!(found.len(), 1, "{found:?}");
        assert_eq!(found[0].0, "aliases expand to more than 100000 values");
    }
}

#[test]
fn aliases_of_rules_and_items_are_read_as_often_as_they_stand() {
    let rule = "matches: [{method: GET}], default: {}";
    let body = format!(
        "{}  to: [{{targetRef: {{kind: MeshService, name: a}}, rules: [&r {{{rule}}}, *r, *r]}}]\n",
        HEADS[0]
    );
    let found = said(&body);
    assert_eq!(found.len(), 2, "{found:?}");
    assert!(found.iter().all(|(message, ..)| message.contains("never takes a request")));
    let list = "apiVersion: v1\nkind: List\nitems:\n- &m {type: Mesh, name: a}\n- *m\n";
    assert_eq!(said(list)[0].0, "there are two of Mesh `a`");
}

#[test]
fn nesting_without_end_is_refused_in_any_kind() {
    for head in HEADS {
        for (open, close) in [("[", "]"), ("{a: ", "}")] {
            let body = format!("{head}  to: {}x{}\n", open.repeat(5_000), close.repeat(5_000));
            let found = said(&body);
            assert_eq!(found.len(), 1, "{found:?}");
            assert_eq!(found[0].0, "lists and mappings nested deeper than 100 levels");
        }
        let below = format!("{head}  to: {}{}\n", "[".repeat(97), "]".repeat(97));
        assert!(said(&below).iter().all(|(message, ..)| !message.contains("deeper")));
    }
}

#[test]
fn line_ends_and_a_byte_order_mark_move_no_finding() {
    let bodies = [
        format!("{}  to:\n  - targetRef: {{kind: MeshServise, name: a}}\n", HEADS[0]),
        format!("{}  to:\n  - targetRef: {{kind: Mesh}}\n    default: {{x: 1}}\n", HEADS[1]),
        format!("{}  parentRefs: [{{name: e}}]\n  rules:\n  - name: A\n", HEADS[2]),
        format!("{}  parentRefs: [{{name: e}}]\n  rules:\n  - timeouts: {{}}\n", HEADS[3]),
    ];
    for body in bodies {
        let plain = said(&body);
        assert!(!plain.is_empty(), "{body}");
        assert_eq!(said(&body.replace('\n', "\r\n")), plain, "CR LF");
        assert_eq!(said(&body.replace('\n', "\r")), plain, "CR");
        assert_eq!(said(&format!("\u{feff}{body}")), plain, "a byte order mark");
        assert_eq!(said(&format!("\u{feff}{}", body.replace('\n', "\r\n"))), plain, "both");
        assert_eq!(said(body.trim_end()), plain, "no line end at the end");
    }
}

#[test]
fn tabs_are_refused_in_the_indentation_and_read_elsewhere() {
    for head in HEADS {
        let found = said(&format!("{head}  to:\n\t- a\n"));
        assert_eq!((found[0].0.as_str(), found[0].2), ("a tab in the indentation", 1));
        let elsewhere = said(&format!("{head}  to:\t[]\t\n"));
        assert!(elsewhere.iter().all(|(message, ..)| !message.contains("tab")), "{elsewhere:?}");
    }
}

#[test]
fn control_characters_are_refused_where_they_would_end_a_header() {
    let header = |value: &str| {
        format!(
            "{}  to: [{{targetRef: {{kind: MeshService, name: a}}, rules: [{{matches: [{{headers: [{{name: a, value: {value}}}]}}], default: {{}}}}]}}]\n",
            HEADS[0]
        )
    };
    let field = "spec.to[0].rules[0].matches[0].headers[0].value";
    for (value, named) in
        [(r#""a\r\nb: c""#, "U+000D"), (r#""a\0""#, "U+0000"), (r#""\x7F""#, "U+007F")]
    {
        let found = finding(&header(value), &LENIENT, field);
        assert!(found.is_error() && found.message.contains(named), "{}", found.message);
    }
    assert_eq!(said(&header(r#""a\tb""#)), []);
}

#[test]
fn a_long_word_is_shown_shortened() {
    let long = "x".repeat(1_000_000);
    for body in [
        format!("{}  {long}: 1\n", HEADS[0]),
        format!("{}  to: [{{targetRef: {{kind: {long}}}}}]\n", HEADS[0]),
        format!(
            "{}  to: [{{targetRef: {{kind: MeshService, name: a}}, rules: [{{matches: [{{path: {{type: Exact, value: {long}}}}}]}}]}}]\n",
            HEADS[0]
        ),
        format!("{}  rules: [{{filters: [{{type: {long}}}]}}]\n", HEADS[2]),
        format!("{}  rules: [{{timeouts: {{request: {long}}}}}]\n", HEADS[2]),
        format!("type: {long}\nname: a\n"),
    ] {
        let reading = reading(&body, &LENIENT);
        for finding in reading.report.violations() {
            let hint = finding.hint.as_deref().unwrap_or_default();
            assert!(finding.message.len() < 500, "{}", &finding.message[..100]);
            assert!(hint.len() < 500, "{}", &hint[..100]);
        }
    }
}
