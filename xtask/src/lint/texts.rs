//! Rules about what files say, whatever room they are in.

use super::{Finding, source::Source};

/// A file longer than this probably has two subjects.
const LINES_MAX: usize = 500;

/// Longer files, and why they are one subject all the same.
const LONG: &[(&str, &str)] = &[
    ("Cargo.lock", "written by cargo"),
    ("fuzz/Cargo.lock", "written by cargo"),
    ("tests/fuzz/corpora/plan.hex", "an input a line, kept by `cargo xtask fuzz`"),
    ("tests/fuzz/corpora/request.hex", "an input a line, kept by `cargo xtask fuzz`"),
    ("LICENSE", "not ours"),
    ("tests/cli/help.txt", "what clap prints, for all commands"),
];

/// Where `unsafe` may stand: behind these walls somebody states the fact relied on.
const UNSAFE: &[&str] = &["balancer-user/src/kernel/", "balancer-ebpf/src/bin/", "tests/harness/"];

/// Never in code. Split so that this file does not contain them.
const NEVER_IN_CODE: &[(&str, &str)] = &[
    (concat!("todo", "!("), "unfinished code"),
    (concat!("unimplemented", "!("), "unfinished code"),
    (concat!("#[", "ignore"), "a test that nobody runs"),
];

/// Directories of somebody's machine. Split likewise.
const MACHINE_PATHS: &[&str] =
    &[concat!("/wo", "rk/"), concat!("/ro", "ot/"), concat!("/ho", "me/"), concat!("/tmp/", "wt/")];

const REASONS: &str = "balancer-ebpf/src/reason.rs";
const REASONS_TESTS: &str = "tests/datapath/";

pub(super) fn check(sources: &[Source]) -> Vec<Finding> {
    let mut findings = Vec::new();
    for source in sources {
        length(source, &mut findings);
        words(source, &mut findings);
        links(source, sources, &mut findings);
        examples(source, &mut findings);
    }
    reasons(sources, &mut findings);
    findings
}

fn finding(source: &Source, line: usize, message: String) -> Finding {
    Finding { path: source.path.clone(), line, message }
}

fn length(source: &Source, findings: &mut Vec<Finding>) {
    let lines = source.text.lines().count();
    if lines > LINES_MAX && !LONG.iter().any(|(path, _)| *path == source.path) {
        let message = format!("{lines} lines; over {LINES_MAX}, split by subject");
        findings.push(finding(source, 0, message));
    }
}

fn words(source: &Source, findings: &mut Vec<Finding>) {
    for (index, line) in source.text.lines().enumerate() {
        if let Some(path) = MACHINE_PATHS.iter().find(|path| line.contains(*path)) {
            let message = format!("`{path}` is a directory of one machine");
            findings.push(finding(source, index + 1, message));
        }
    }
    if !source.is_rust() {
        return;
    }
    for (number, line) in source.text.lines().enumerate().map(|(i, l)| (i + 1, l)) {
        if let Some((word, why)) = NEVER_IN_CODE.iter().find(|(word, _)| line.contains(word)) {
            findings.push(finding(source, number, format!("`{word}`: {why}")));
        }
    }
    let may = UNSAFE.iter().any(|part| source.path.starts_with(part));
    for (number, line) in source.code() {
        let names = line.split(|c: char| !(c.is_alphanumeric() || c == '_'));
        // Attributes and lint names (`unsafe_code`) are other words; strings hold prose.
        let bare = !line.contains('"') && !line.trim_start().starts_with('#');
        if !may && bare && names.clone().any(|name| name == "unsafe") {
            let message = format!("unsafe belongs to {}", UNSAFE.join(", "));
            findings.push(finding(source, number, message));
        }
    }
}

/// Relative links in documents lead somewhere.
fn links(source: &Source, sources: &[Source], findings: &mut Vec<Finding>) {
    if !source.path.ends_with(".md") {
        return;
    }
    let folder = source.path.rsplit_once('/').map_or("", |(folder, _)| folder);
    for (index, line) in source.text.lines().enumerate() {
        for target in line.split("](").skip(1).filter_map(|rest| rest.split(')').next()) {
            let target = target.split('#').next().unwrap_or_default();
            if target.is_empty() || target.contains("://") {
                continue;
            }
            let path = normal(folder, target.trim_end_matches('/'));
            let below = format!("{path}/");
            if !sources.iter().any(|s| s.path == path || s.path.starts_with(&below)) {
                let message = format!("the link leads nowhere: {target}");
                findings.push(finding(source, index + 1, message));
            }
        }
    }
}

/// `folder` and `target` joined, without `.` and `..`.
fn normal(folder: &str, target: &str) -> String {
    let mut parts: Vec<&str> = folder.split('/').filter(|part| !part.is_empty()).collect();
    for part in target.split('/') {
        match part {
            "." | "" => {}
            ".." => drop(parts.pop()),
            part => parts.push(part),
        }
    }
    parts.join("/")
}

/// What lies in `policies/` is loaded by a test that walks the directory as `-f` does, so it
/// must have an ending that `-f` takes.
fn examples(source: &Source, findings: &mut Vec<Finding>) {
    let endings = [".yaml", ".yml", ".json", ".md"];
    if source.path.starts_with("policies/") && !endings.iter().any(|e| source.path.ends_with(e)) {
        let message =
            format!("`balancer load -f policies` passes it by: name it {}", endings.join(", "));
        findings.push(finding(source, 0, message));
    }
}

/// Every reason has a datapath test.
fn reasons(sources: &[Source], findings: &mut Vec<Finding>) {
    let Some(source) = sources.iter().find(|s| s.path == REASONS) else {
        findings.push(Finding { path: REASONS.into(), line: 0, message: "is missing".into() });
        return;
    };
    for (index, line) in source.text.lines().enumerate() {
        // `Variant = "name", Fate, "sentence";`
        let Some((variant, rest)) = line.trim().split_once(" = \"") else { continue };
        if !rest.contains("\", ") || !rest.ends_with("\";") {
            continue;
        }
        let tested = format!("Reason::{variant}");
        let is_name = |rest: &str| !rest.starts_with(|c: char| c.is_alphanumeric());
        let used = |s: &Source| s.text.split(tested.as_str()).skip(1).any(is_name);
        if !sources.iter().any(|s| s.path.starts_with(REASONS_TESTS) && used(s)) {
            let message = format!("no test in {REASONS_TESTS} names {tested}");
            findings.push(finding(source, index + 1, message));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn source(path: &str, text: &str) -> Source {
        Source { path: path.into(), text: text.into() }
    }

    fn tested() -> Vec<Source> {
        vec![
            source(REASONS, "reasons! {\n    NewFlow = \"new_flow\", Forward, \"A SYN.\";\n}"),
            source("tests/datapath/main.rs", "assert_eq!(reason, Reason::NewFlow);"),
        ]
    }

    fn messages(sources: &[Source]) -> Vec<String> {
        check(sources).into_iter().map(|f| f.message).collect()
    }

    #[test]
    fn a_reason_needs_its_test() {
        assert_eq!(messages(&tested()), Vec::<String>::new());
        let mut sources = tested();
        sources[1].text = "Reason::NewFlowButOther".into();
        assert_eq!(messages(&sources).len(), 1);
    }

    #[test]
    fn unsafe_stays_behind_its_walls() {
        let mut sources = tested();
        sources.push(source("balancer-user/src/kernel/map.rs", "unsafe { read() }"));
        sources.push(source("balancer-user/src/lib.rs", "#![forbid(unsafe_code)]"));
        assert_eq!(messages(&sources), Vec::<String>::new());
        sources.push(source("balancer-user/src/cli/mod.rs", "let x = unsafe { read() };"));
        assert_eq!(messages(&sources).len(), 1);
    }

    #[test]
    fn unfinished_code_long_files_and_dead_links_are_found() {
        for (path, text) in [
            ("a.rs", concat!("fn a() { todo", "!() }").to_owned()),
            ("a.rs", concat!("#[", "ignore]").to_owned()),
            ("a.md", "[map](docs/nowhere.md)".to_owned()),
            ("docs/a.md", "[map](nowhere.md#top)".to_owned()),
            ("a.md", format!("{}here", MACHINE_PATHS[0])),
            ("a.rs", "\n".repeat(LINES_MAX + 1)),
            ("policies/a.txt", String::new()),
        ] {
            let mut sources = tested();
            sources.push(source(path, &text));
            assert_eq!(messages(&sources).len(), 1, "{path}: {text}");
        }
        let mut sources = tested();
        sources.push(source("docs/datapath.md", ""));
        sources.push(source("docs/a/b.md", "[here](../datapath.md) [there](https://kernel.org)"));
        assert_eq!(messages(&sources), Vec::<String>::new());
    }
}
