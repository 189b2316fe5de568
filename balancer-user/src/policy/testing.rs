//! What the tests of this room share.

use proptest::prelude::*;

use std::fmt::Debug;

use super::{
    Api, Diagnostic, Documents, PolicySet, ReadOptions, Reading, SourceText, Stand, read, render,
};

pub(super) const LENIENT: ReadOptions =
    ReadOptions { api: None, strict: false, deny_unknown: false };
pub(super) const STRICT: ReadOptions = ReadOptions { api: None, strict: true, deny_unknown: false };

pub(super) const fn exactly(api: Api) -> ReadOptions {
    ReadOptions { api: Some(api), ..LENIENT }
}

pub(super) fn text(body: &str) -> SourceText {
    SourceText { name: "a.yaml".to_owned(), text: body.into() }
}

pub(super) fn reading(body: &str, options: &ReadOptions) -> Reading {
    read(vec![text(body)], options)
}

/// Everything that a reading holds, with the places of documents in place of their numbers: those
/// depend on what was read before.
pub(super) fn placed(reading: &Reading) -> String {
    let Reading { set, report } = reading;
    let set = PolicySet { documents: Documents::default(), ..set.clone() };
    let found: Vec<_> = report.resources().collect();
    let notes: Vec<_> = report.notes().collect();
    let counts = (report.len(), report.valid());
    let all = [
        shown(&set, report.documents()),
        shown(&(found, notes, reading.resources()), report.documents()),
        render::report(report, false),
    ];
    format!("{} {counts:?}", all.join("\n"))
}

fn shown(value: &impl Debug, documents: &Documents) -> String {
    let text = format!("{value:?}");
    let mut parts = text.split("document: ");
    let mut out = parts.next().unwrap_or_default().to_owned();
    let digits = |text: &str| text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    for part in parts {
        let (document, rest) = part.split_at(digits(part));
        let Ok(document) = document.parse() else {
            out += &format!("document: {part}");
            continue;
        };
        let Stand { text, number, line: first } = documents.stand(document).expect("a document");
        out += &format!("text: {text}, number: {number}");
        let line = rest.strip_prefix(", line: ").map(|rest| rest.split_at(digits(rest)));
        out += &match line {
            Some((line, rest)) => {
                format!(", line: {}{rest}", first + line.parse::<u32>().expect("a line") - 1)
            }
            None => rest.to_owned(),
        };
    }
    out
}

/// The field paths of all errors, in the order of their positions.
pub(super) fn errors(body: &str, options: &ReadOptions) -> Vec<String> {
    fields(&reading(body, options), Diagnostic::is_error)
}

/// Holds that `body` of each case has errors at these fields, by each of these rules.
pub(super) fn refused(
    cases: &[(&str, &[&str])],
    options: &[&ReadOptions],
    body: impl Fn(&str) -> String,
) {
    for (part, fields) in cases {
        for options in options {
            assert_eq!(errors(&body(part), options), *fields, "{part} {:?}", options.api);
        }
    }
}

/// The field paths of all warnings.
pub(super) fn warnings(body: &str, options: &ReadOptions) -> Vec<String> {
    fields(&reading(body, options), |finding| !finding.is_error())
}

fn fields(reading: &Reading, wanted: impl Fn(&Diagnostic) -> bool) -> Vec<String> {
    reading
        .report
        .violations()
        .filter(|finding| wanted(finding))
        .map(|finding| finding.field.clone())
        .collect()
}

/// The finding about a field; panics if there is none.
pub(super) fn finding(body: &str, options: &ReadOptions, field: &str) -> Diagnostic {
    let reading = reading(body, options);
    let found = reading.report.violations().find(|finding| finding.field == field).cloned();
    found.unwrap_or_else(|| panic!("nothing about {field} in {:#?}", reading.report))
}

/// A TrafficRoute whose `conf` is this flow mapping or list.
pub(super) fn route(conf: &str) -> String {
    format!(
        "type: TrafficRoute\nname: r\nmesh: default\n\
         sources: [{{match: {{kuma.io/service: web}}}}]\n\
         destinations: [{{match: {{kuma.io/service: redis}}}}]\n\
         conf: {conf}\n"
    )
}

/// A Dataplane whose `networking` is this flow mapping.
pub(super) fn dataplane(networking: &str) -> String {
    format!("type: Dataplane\nname: d\nmesh: default\nnetworking: {networking}\n")
}

/// A document of Kubernetes or the Gateway API whose `spec` is this flow mapping.
pub(super) fn object(api_version: &str, kind: &str, metadata: &str, spec: &str) -> String {
    format!("apiVersion: {api_version}\nkind: {kind}\n{metadata}\nspec: {spec}\n")
}

/// A port number.
pub(super) fn port(number: u16) -> std::num::NonZeroU16 {
    std::num::NonZeroU16::new(number).expect("a port of a test is not 0")
}

/// Policies with a part cut out or replaced.
pub(super) fn nearly(policies: Vec<String>) -> impl Strategy<Value = String> {
    (
        prop::sample::select(policies),
        any::<prop::sample::Index>(),
        any::<prop::sample::Index>(),
        ".{0,6}",
    )
        .prop_map(|(policy, from, to, instead)| {
            let characters: Vec<char> = policy.chars().collect();
            let (a, b) = (from.index(characters.len()), to.index(characters.len()));
            let (a, b) = (a.min(b), a.max(b).min(a.min(b) + 40));
            let head = characters[..a].iter().collect::<String>();
            let tail = characters[b..].iter().collect::<String>();
            format!("{head}{instead}{tail}")
        })
}

/// Reading and rendering come to an end, and every place is inside its text.
pub(super) fn holds(body: &str) -> Result<(), TestCaseError> {
    for options in [LENIENT, STRICT] {
        let reading = reading(body, &options);
        let lines = crate::policy::text::lines(body).count();
        for finding in reading.report.violations() {
            let spans =
                finding.span.into_iter().chain(finding.related.iter().map(|(span, _)| *span));
            for span in spans {
                let at = reading.report.documents().position(span).expect("a document");
                prop_assert!(at.line >= 1 && at.column >= 1 && span.len >= 1);
                prop_assert!(at.line as usize <= lines + 1, "{at:?} of {lines}");
            }
            prop_assert!(!finding.message.ends_with('.'), "{}", finding.message);
        }
        let shown = render::report(&reading.report, false);
        prop_assert!(shown.is_empty() || shown.ends_with('\n'));
        prop_assert!(reading.report.valid() || !shown.is_empty());
    }
    Ok(())
}
