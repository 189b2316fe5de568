//! Any text through the reader, and where it is valid through `resolve` and `compile`.

use balancer_user::{
    compile::{self, Assignment, Limits},
    policy::{self, Api, ReadOptions, Reading, SourceText, Span, render},
    resolve::{self, VipAssignments},
    settings::Settings,
};

/// Reads `data` as a text, by rules that its first byte chooses, and as `load` goes on with it.
pub fn policy(data: &[u8]) {
    let body = String::from_utf8_lossy(data);
    let options = options(data.first().copied().unwrap_or_default());
    let read =
        || policy::read(vec![SourceText { name: "a".into(), text: (&*body).into() }], &options);
    let reading = read();
    places_are_in_the_text(&reading, &body);
    let shown = render::report(&reading.report, false);
    assert!(reading.report.valid() || !shown.is_empty(), "an error is shown");
    if !reading.report.valid() {
        return;
    }
    assert_eq!(read().set, reading.set, "what is read is a function of the text");
    let settings = Settings::default().resolve_settings(VipAssignments::default());
    let resolved = resolve::resolve(&reading.set, &settings);
    for (_, finding) in &resolved.diagnostics {
        is_for_people(&finding.message);
    }
    let limits = Limits { arena_slots: 1 << 20, ..Limits::default() };
    // More than the limits hold is an error like any other.
    let _ = compile::compile(&resolved, &Assignment::default(), &limits);
}

fn options(choice: u8) -> ReadOptions {
    let api = [None, Some(Api::Kuma27), Some(Api::Kuma29), Some(Api::Kuma3)];
    // Letters begin documents: the lower bits of `a` to `z` are as good as any.
    let (strict, deny_unknown) = (choice & 4 > 0, choice & 8 > 0);
    ReadOptions { api: api[usize::from(choice % 4)], strict, deny_unknown }
}

fn places_are_in_the_text(reading: &Reading, body: &str) {
    let lines = body.split(['\n', '\r']).count();
    let holds = |span: &Span| {
        let at = reading.report.documents().position(*span).expect("a document that is there");
        assert!(at.line >= 1 && at.column >= 1 && span.len >= 1, "{at:?}");
        assert!(at.line as usize <= lines + 1, "{at:?} of {lines} lines");
    };
    for finding in reading.report.violations() {
        finding.span.iter().for_each(holds);
        finding.related.iter().for_each(|(span, _)| holds(span));
        is_for_people(&finding.message);
    }
}

fn is_for_people(message: &str) {
    assert!(!message.is_empty() && message.len() < 2_000, "{} bytes", message.len());
}
