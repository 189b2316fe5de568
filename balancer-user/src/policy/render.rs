//! Findings as text for people, in rustc's manner.

use std::{cell::OnceCell, fmt::Write as _};

use super::{Diagnostic, Documents, Note, Report, Severity, Span, text};

/// Widest part of an input line that is shown.
const WIDTH: usize = 100;

/// Every note and finding of a report, blank lines between them. Empty if there is none.
pub fn report(report: &Report, colour: bool) -> String {
    let sources = Sources::new(report.documents(), colour);
    let findings = report.violations().map(|finding| sources.diagnostic(finding));
    let notes = report.notes().map(|note| sources.note(note));
    findings.chain(notes).collect::<Vec<_>>().join("\n")
}

/// The input texts, ready for showing their lines.
pub struct Sources<'t> {
    documents: &'t Documents,
    /// The lines of each text that was asked for.
    lines: Vec<OnceCell<Vec<&'t str>>>,
    colour: bool,
}

impl<'t> Sources<'t> {
    /// Prepares the texts that spans point into.
    pub fn new(documents: &'t Documents, colour: bool) -> Self {
        let lines = documents.texts.iter().map(|_| OnceCell::new()).collect();
        Self { documents, lines, colour }
    }

    /// One finding: what, where, the line with an underline, what would be right.
    ///
    /// ```text
    /// error: needs to be defined
    ///   --> canary.yaml:9:5
    ///   |
    /// 9 |   - destination: {kuma.io/service: redis}
    ///   |     ^^^^^^^^^^^
    ///   = field: conf.split[0].weight
    ///   = help: every entry needs its weight, e.g. `weight: 10`; 0 is one too
    /// ```
    pub fn diagnostic(&self, finding: &Diagnostic) -> String {
        let accent = match finding.severity {
            Severity::Error => RED,
            Severity::Warning => YELLOW,
        };
        let mut out = String::new();
        let head = self.paint(accent, &finding.severity.to_string());
        line(
            &mut out,
            &format!("{head}{}", self.paint(BOLD, &format!(": {}", harmless(&finding.message)))),
        );
        let places = finding.span.iter().chain(finding.related.as_ref().map(|(span, _)| span));
        let margin = places.map(|span| self.margin(*span)).max().unwrap_or(1);
        if let Some(span) = finding.span {
            self.place(&mut out, span, margin, ('^', accent), "");
        }
        if let Some((span, what)) = &finding.related {
            self.place(&mut out, *span, margin, ('-', BLUE), what);
        }
        let bar = self.paint(BLUE, "=");
        if !finding.field.is_empty() {
            line(&mut out, &format!("{:margin$} {bar} field: {}", "", harmless(&finding.field)));
        }
        if let Some(hint) = &finding.hint {
            line(&mut out, &format!("{:margin$} {bar} help: {}", "", harmless(hint)));
        }
        out
    }

    /// One note.
    pub fn note(&self, note: &Note) -> String {
        let mut out = String::new();
        line(&mut out, &format!("{}: {}", self.paint(GREEN, "note"), harmless(&note.message)));
        self.place(&mut out, note.span, self.margin(note.span), ('^', GREEN), "");
        out
    }

    /// How wide the number of a line is.
    fn margin(&self, span: Span) -> usize {
        self.documents.position(span).map_or(1, |at| at.line.to_string().len())
    }

    fn place(
        &self,
        out: &mut String,
        span: Span,
        margin: usize,
        (mark, accent): (char, &str),
        label: &str,
    ) {
        let Some(at) = self.documents.position(span) else { return };
        let index = at.text as usize;
        let (Some(text), Some(lines)) = (self.documents.texts.get(index), self.lines.get(index))
        else {
            return;
        };
        let arrow = self.paint(BLUE, "-->");
        line(out, &format!("{:margin$}{arrow} {}", "", harmless(&at.to_string())));
        let lines = lines.get_or_init(|| {
            text::lines(text.text.strip_prefix('\u{feff}').unwrap_or(&text.text)).collect()
        });
        let number = usize::try_from(at.line).unwrap_or(usize::MAX);
        let Some(source) = lines.get(number.saturating_sub(1)) else { return };
        let column = usize::try_from(span.column).unwrap_or(1).saturating_sub(1);
        let (shown, before) = window(source, column);
        let len = usize::try_from(span.len).unwrap_or(1).max(1);
        let room = shown.chars().count().saturating_sub(before).max(1);
        let underline: String = std::iter::repeat_n(mark, len.min(room)).collect();
        let bar = self.paint(BLUE, "|");
        line(out, &format!("{:margin$} {bar}", ""));
        let number = self.paint(BLUE, &format!("{:>margin$}", at.line));
        line(out, &format!("{number} {bar} {shown}"));
        let space = if label.is_empty() { "" } else { " " };
        let underline = self.paint(accent, &format!("{underline}{space}{label}"));
        line(out, &format!("{:margin$} {bar} {:before$}{underline}", "", ""));
    }

    fn paint(&self, code: &str, text: &str) -> String {
        if self.colour { format!("{code}{text}\u{1b}[0m") } else { text.to_owned() }
    }
}

/// Tabs and control characters become spaces: then the underline stands where it should, and a
/// terminal obeys nobody's input.
fn harmless(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}

/// The part of a line around a column, and how many characters of it stand before the column.
fn window(source: &str, column: usize) -> (String, usize) {
    let skip = if column > WIDTH * 3 / 4 { column - WIDTH / 2 } else { 0 };
    let mut characters = source.chars().skip(skip);
    let mut shown = harmless(&characters.by_ref().take(WIDTH).collect::<String>());
    if characters.next().is_some() {
        shown.push('…');
    }
    if skip > 0 {
        shown.insert(0, '…');
    }
    (shown.trim_end().to_owned(), column - skip + usize::from(skip > 0))
}

fn line(out: &mut String, text: &str) {
    // Writing into a String cannot fail.
    let _ = writeln!(out, "{}", text.trim_end());
}

const RED: &str = "\u{1b}[1;31m";
const YELLOW: &str = "\u{1b}[1;33m";
const GREEN: &str = "\u{1b}[1;32m";
const BLUE: &str = "\u{1b}[1;34m";
const BOLD: &str = "\u{1b}[1m";

#[cfg(test)]
#[path = "render_tests.rs"]
mod tests;
