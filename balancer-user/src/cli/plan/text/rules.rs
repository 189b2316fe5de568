//! What changes about HTTP rules.

use std::fmt::Write as _;

use super::{MOST, arrow, more};
use crate::{
    cli::output::{columns, count, printable, share},
    plan::{RuleBackend, RuleChange, RuleChanges, RuleFate},
    policy::Tags,
    resolve::PolicyRef,
};

pub(super) fn text(text: &mut String, http: &RuleChanges) {
    let rules =
        |rules: Option<usize>| rules.map_or("no HTTP rules".to_owned(), |n| count(n, "HTTP rule"));
    let _ = match (http.rules.before, http.rules.after) {
        (None, Some(now)) => {
            writeln!(text, "  requests will be told apart by {}", rules(Some(now)))
        }
        (Some(_), None) => writeln!(
            text,
            "  requests will be told apart no more: {} before",
            rules(http.rules.before)
        ),
        (before, after) => writeln!(text, "  {}", arrow(rules(before), rules(after))),
    };
    for change in http.changed.iter().take(MOST) {
        rule(text, change);
    }
    more(text, http.changed.len(), "matches");
    if http.unchanged > 0 {
        let _ = writeln!(text, "  unchanged: {}", matches(http.unchanged));
    }
}

fn matches(number: usize) -> String {
    if number == 1 { "1 match".to_owned() } else { format!("{number} matches") }
}

fn rule(text: &mut String, change: &RuleChange) {
    let sign = match change.change {
        RuleFate::Added => '+',
        RuleFate::Removed => '-',
        RuleFate::Changed => '~',
        RuleFate::Moved => '>',
    };
    let matched = match &change.matches {
        Some(matched) => printable(&matched.to_string()),
        None => "anything else".to_owned(),
    };
    let host = match change.hostname.as_str() {
        "*" => String::new(),
        name => format!("host {}, ", printable(name)),
    };
    let place = |place: Option<usize>| place.map_or(String::new(), |place| place.to_string());
    let tried = match (change.place.before, change.place.after) {
        (Some(_), Some(_)) => arrow(place(change.place.before), place(change.place.after)),
        (before, after) => place(after.or(before)),
    };
    let _ = writeln!(text, "  {sign} match {tried}: {host}{matched}");
    if change.change == RuleFate::Moved {
        return;
    }
    let policy = |policy: &Option<PolicyRef>| match policy {
        Some(policy) => format!("{} {}", policy.kind, printable(&policy.name)),
        None => "no policy".to_owned(),
    };
    let by = match change.change {
        RuleFate::Added => policy(&change.policy.after),
        RuleFate::Removed => policy(&change.policy.before),
        _ => arrow(policy(&change.policy.before), policy(&change.policy.after)),
    };
    let _ = writeln!(text, "    by {by}");
    filters(text, "    ", &change.filters.before, &change.filters.after);
    let shares = |backend: &RuleBackend| match change.change {
        RuleFate::Added => share(backend.share.after),
        RuleFate::Removed => share(backend.share.before),
        _ => arrow(share(backend.share.before), share(backend.share.after)),
    };
    let lines: Vec<Vec<String>> = change
        .backends
        .iter()
        .map(|backend| {
            vec![format!("    {}", name(&backend.service, &backend.tags)), shares(backend)]
        })
        .collect();
    for (line, backend) in columns(&lines, &[]).lines().zip(&change.backends) {
        let _ = writeln!(text, "{line}");
        filters(text, "      ", &backend.filters.before, &backend.filters.after);
    }
}

fn name(service: &str, tags: &Tags) -> String {
    let tags: Vec<String> = tags.iter().map(|(key, value)| format!("{key}={value}")).collect();
    let tags = if tags.is_empty() { String::new() } else { format!(" {}", tags.join(",")) };
    if service.is_empty() { "-".to_owned() } else { printable(&format!("{service}{tags}")) }
}

/// Lines that go and lines that come.
fn filters(text: &mut String, indent: &str, before: &[String], after: &[String]) {
    for filter in before.iter().filter(|filter| !after.contains(filter)) {
        let _ = writeln!(text, "{indent}- {}", printable(filter));
    }
    for filter in after.iter().filter(|filter| !before.contains(filter)) {
        let _ = writeln!(text, "{indent}+ {}", printable(filter));
    }
}
