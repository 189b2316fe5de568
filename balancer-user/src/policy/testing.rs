//! What the tests of this room share.

use proptest::prelude::*;

use super::{Api, Diagnostic, ReadOptions, Reading, SourceText, read};

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
                prop_assert!(span.line >= 1 && span.column >= 1 && span.len >= 1);
                prop_assert!(span.line as usize <= lines + 1, "{span:?} of {lines}");
            }
            prop_assert!(!finding.message.ends_with('.'), "{}", finding.message);
        }
        let shown = crate::policy::render::report(&reading.set.texts, &reading.report, false);
        prop_assert!(shown.is_empty() || shown.ends_with('\n'));
        prop_assert!(reading.report.valid() || !shown.is_empty());
    }
    Ok(())
}
