//! What the tests of this room share.

use super::{Api, Diagnostic, ReadOptions, Reading, SourceText, read};

pub(super) const LENIENT: ReadOptions =
    ReadOptions { api: None, strict: false, deny_unknown: false };
pub(super) const STRICT: ReadOptions = ReadOptions { api: None, strict: true, deny_unknown: false };

pub(super) fn exactly(api: Api) -> ReadOptions {
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
