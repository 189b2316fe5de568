//! What the file may say and the agent cannot do yet. Each is told with its place: silence would
//! be taken for consent.

use super::{OnGone, Settings};
use crate::policy::Diagnostic;

/// What of `settings` the agent does not carry out: errors, where packets would go another way
/// than asked for, and warnings, where only something is missing.
pub fn undone(settings: &Settings) -> Vec<Diagnostic> {
    let mut findings = Vec::new();
    let mut say = |severe: bool, path: String, message: &str, hint: &str| {
        let make = if severe { Diagnostic::error } else { Diagnostic::warning };
        let mut finding = make(path.clone(), message.to_owned()).hint(hint);
        finding.span = settings.positions.get(&path).copied();
        findings.push(finding);
    };
    if settings.drain.deadline.is_some() && settings.drain.on_gone == OnGone::Keep {
        say(
            true,
            "drain.deadline".to_owned(),
            "a deadline resets connections as `on_gone: reset` does, and on_gone is `keep`",
            "write `deadline: none`, or `on_gone: reset`",
        );
    }
    if settings.api_socket != Settings::default().api_socket {
        say(
            false,
            "api.socket".to_owned(),
            "the agent serves no API yet",
            "leave `api` out; `balancer status` and `show` need no API",
        );
    }
    findings.sort_by_key(|finding| finding.span);
    findings
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{policy::SourceText, settings::read};

    #[track_caller]
    fn found(text: &str) -> Vec<String> {
        let text = SourceText { name: "config.yaml".to_owned(), text: text.into() };
        undone(&read(&text).expect("a configuration"))
            .into_iter()
            .map(|finding| {
                let span = finding.span.expect("a position");
                format!("{} {}:{} {}", finding.severity, span.line, span.column, finding.field)
            })
            .collect()
    }

    #[test]
    fn what_is_not_carried_out_is_told_with_its_place() {
        assert_eq!(found("api: {socket: /run/x.sock}\n"), ["warning 1:15 api.socket"]);
        assert_eq!(found("drain: {deadline: 5m, on_gone: keep}\n"), ["error 1:19 drain.deadline"]);
    }

    #[test]
    fn the_defaults_are_all_carried_out() {
        assert_eq!(undone(&Settings::default()), []);
    }
}
