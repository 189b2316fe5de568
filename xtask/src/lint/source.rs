//! Files as the rules read them: Rust code without comments, and the paths in it.

/// A tracked file.
#[derive(Clone, Debug)]
pub(super) struct Source {
    /// Relative to the workspace, with `/`.
    pub(super) path: String,
    pub(super) text: String,
}

impl Source {
    /// Whether it is Rust code.
    pub(super) fn is_rust(&self) -> bool {
        self.path.ends_with(".rs")
    }

    /// Whether all of it is tests.
    pub(super) fn is_test(&self) -> bool {
        self.path.starts_with("tests/")
            || self.path.contains("/tests/")
            || self.path.ends_with("/tests.rs")
            || self.path.ends_with("_tests.rs")
    }

    /// The lines of code with their numbers: no comments, and nothing of the tests at the end.
    pub(super) fn code(&self) -> Vec<(usize, &str)> {
        let mut lines = Vec::new();
        for (index, line) in self.text.lines().enumerate() {
            // The house order puts tests last.
            if line == "#[cfg(test)]"
                && self.text.lines().nth(index + 1).is_some_and(|l| l.ends_with('{'))
            {
                break;
            }
            let code = without_comment(line);
            if !code.trim().is_empty() {
                lines.push((index + 1, code));
            }
        }
        lines
    }

    /// Every path that the code names, with the line it begins on: each leaf of each `use`, and
    /// every `a::b` elsewhere.
    pub(super) fn paths(&self) -> Vec<(usize, String)> {
        let mut paths = Vec::new();
        let code = self.code();
        let mut lines = code.iter();
        while let Some((number, line)) = lines.next() {
            let start = line.trim_start();
            let declared = start.strip_prefix("pub ").unwrap_or(start);
            let declared = match declared.strip_prefix("pub(") {
                Some(rest) => rest.split_once(") ").map_or(declared, |(_, rest)| rest),
                None => declared,
            };
            if let Some(first) = declared.strip_prefix("use ") {
                let mut tree = first.to_owned();
                while !tree.contains(';') {
                    let Some((_, more)) = lines.next() else { break };
                    tree.push_str(more.trim());
                }
                let tree = tree.split(';').next().unwrap_or_default();
                paths.extend(leaves(tree).into_iter().map(|leaf| (*number, leaf)));
            } else {
                paths.extend(inline(line).into_iter().map(|path| (*number, path)));
            }
        }
        paths
    }
}

/// Cuts `// …` off, unless it stands in a string (as in a URL).
fn without_comment(line: &str) -> &str {
    let mut in_string = false;
    let mut before = ' ';
    for (at, c) in line.char_indices() {
        match c {
            '"' if before != '\\' && before != '\'' => in_string = !in_string,
            '/' if before == '/' && !in_string => return &line[..at - 1],
            _ => {}
        }
        before = c;
    }
    line
}

/// `a::{b, c::d}` → `a::b`, `a::c::d`.
fn leaves(tree: &str) -> Vec<String> {
    let tree = tree.trim();
    let Some(open) = tree.find('{') else {
        let path = tree.split(" as ").next().unwrap_or(tree);
        return vec![path.trim().to_owned()];
    };
    let prefix = &tree[..open];
    let inside = tree[open + 1..].trim_end().trim_end_matches('}');
    // `trim_end_matches` takes the braces of inner groups too: give them back.
    let depth = inside.matches('{').count() - inside.matches('}').count();
    let inside = format!("{inside}{}", "}".repeat(depth));
    let mut parts = Vec::new();
    let (mut depth, mut start) = (0, 0);
    for (at, c) in inside.char_indices() {
        match c {
            '{' => depth += 1,
            '}' => depth -= 1,
            ',' if depth == 0 => {
                parts.push(&inside[start..at]);
                start = at + 1;
            }
            _ => {}
        }
    }
    parts.push(&inside[start..]);
    parts
        .iter()
        .filter(|part| !part.trim().is_empty())
        .flat_map(|part| leaves(part))
        .map(|leaf| {
            if leaf == "self" {
                prefix.trim_end_matches("::").into()
            } else {
                format!("{prefix}{leaf}")
            }
        })
        .collect()
}

/// Words joined by `::`.
fn inline(line: &str) -> Vec<String> {
    line.split(|c: char| !(c.is_alphanumeric() || c == '_' || c == ':'))
        .map(|word| word.trim_matches(':'))
        .filter(|word| word.contains("::"))
        .map(str::to_owned)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn paths(text: &str) -> Vec<String> {
        let source = Source { path: "a.rs".into(), text: text.into() };
        source.paths().into_iter().map(|(_, path)| path).collect()
    }

    #[test]
    fn nested_imports_are_taken_apart() {
        let text = "use std::{\n    fs,\n    time::{Duration, Instant},\n};\npub use a::b as c;";
        assert_eq!(paths(text), ["std::fs", "std::time::Duration", "std::time::Instant", "a::b"]);
        assert_eq!(paths("use a::{self, b::{c, d}};"), ["a", "a::b::c", "a::b::d"]);
    }

    #[test]
    fn paths_in_expressions_count_and_comments_do_not() {
        assert_eq!(
            paths("let t = std::time::Instant::now(); // not std::fs::read"),
            ["std::time::Instant::now"]
        );
        assert_eq!(paths("//! aya::Ebpf"), Vec::<String>::new());
    }

    #[test]
    fn tests_at_the_end_are_left_out() {
        assert_eq!(
            paths("use a::b;\n#[cfg(test)]\nmod tests {\n    use std::fs::read;\n}"),
            ["a::b"]
        );
    }
}
