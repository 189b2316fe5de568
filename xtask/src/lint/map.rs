//! The pages that claim what is held by tests say the truth: every test that they name exists.

use super::{Finding, source::Source};

const PAGES: [&str; 5] = [
    "ARCHITECTURE.md",
    "docs/security.md",
    "docs/datapath.md",
    "docs/http-model.md",
    "docs/odd-packets.md",
];

pub(super) fn check(sources: &[Source]) -> Vec<Finding> {
    PAGES.iter().flat_map(|page| check_page(page, sources)).collect()
}

fn check_page(page: &str, sources: &[Source]) -> Vec<Finding> {
    let Some(map) = sources.iter().find(|s| s.path == page) else {
        return vec![Finding { path: page.into(), line: 0, message: "is missing".into() }];
    };
    let mut findings = Vec::new();
    for (index, line) in map.text.lines().enumerate() {
        for name in line.split('`').skip(1).step_by(2).filter(|quoted| is_sentence(quoted)) {
            let stands = |line: &str| {
                let line = line.trim();
                let line = line.strip_prefix("async ").unwrap_or(line);
                let Some(rest) = line.strip_prefix("fn ") else { return false };
                rest.split_once('(').is_some_and(|(found, _)| has_form(found, name))
            };
            if !sources.iter().any(|s| s.is_rust() && s.text.lines().any(stands)) {
                let message = format!("no test is called `{name}`");
                findings.push(Finding { path: page.into(), line: index + 1, message });
            }
        }
    }
    findings
}

/// Whether a name has a form in which `…` stands for what differs between tests.
fn has_form(name: &str, form: &str) -> bool {
    let mut parts = form.split('…');
    let Some(mut rest) = parts.next().and_then(|head| name.strip_prefix(head)) else {
        return false;
    };
    let mut whole = true;
    for part in parts {
        whole = part.is_empty();
        let Some(at) = rest.find(part) else { return false };
        rest = &rest[at + part.len()..];
    }
    rest.is_empty() || form.contains('…') && whole
}

/// Tests are sentences: four words or more. Shorter names on the page are rooms and maps.
fn is_sentence(quoted: &str) -> bool {
    quoted.matches('_').count() >= 3
        && quoted.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || "_…".contains(c))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn findings(map: &str) -> usize {
        let source = |path: &str, text: &str| Source { path: path.into(), text: text.into() };
        let tests = "    async fn a_test_that_waits() {\n    fn a_test_that_stands() {\n    fn too_many_cats_name_limits_cats() {";
        let mut sources = vec![source("tests/a.rs", tests), source(PAGES[0], map)];
        sources.extend(PAGES[1..].iter().map(|page| source(page, "")));
        check(&sources).len()
    }

    #[test]
    fn a_test_that_is_gone_is_found() {
        assert_eq!(findings("held by `a_test_that_stands` and `kernel`, `a_b`"), 0);
        assert_eq!(findings("held by `a_test_that_waits`"), 0);
        assert_eq!(findings("held by `a_test_that_fell`"), 1);
        assert_eq!(findings("`too_many_…_name_limits_…` of each"), 0);
        assert_eq!(findings("`too_few_…_name_limits_…` of each"), 1);
    }
}
