//! Regular expressions: compiled once, at admission, and linear in what they read (decision D19).

use std::{
    fmt,
    hash::{Hash, Hasher},
};

use regex::bytes::{Regex, RegexBuilder};
use serde::{Serialize, Serializer};

/// Largest compiled pattern in bytes: a pattern of a policy needs a few thousand.
const COMPILED_BYTES_MAX: usize = 1 << 20;

/// A pattern that the whole of a value must match.
#[derive(Clone)]
pub struct Pattern {
    text: Box<str>,
    /// What it plainly begins with is compared as bytes: what is left is often so small that the
    /// engine needs no memory of its own to match it.
    begin: Box<str>,
    /// `None`: nothing matches.
    rest: Option<Regex>,
}

/// A pattern with what takes the place of each of its matches.
#[derive(Clone)]
pub struct Substitution {
    pattern: Box<str>,
    replacement: Box<str>,
    /// `None`: nothing matches.
    regex: Option<Regex>,
    parts: Vec<Part>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Part {
    Text(String),
    Group(usize),
}

/// Why a pattern or a substitution cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PatternError {
    /// It is no regular expression of RE2's dialect.
    #[error(
        "`{pattern}` is no regular expression: {why}; the dialect is RE2's, without look-around and backreferences"
    )]
    Syntax {
        /// As written.
        pattern: String,
        /// What the engine says.
        why: String,
        /// The same with the pattern drawn above it and what is wrong in it marked.
        drawn: String,
    },
    /// Compiled it is larger than a MiB.
    #[error(
        "`{pattern}` is too large a regular expression: compiled it takes more than {} KiB",
        COMPILED_BYTES_MAX / 1024
    )]
    TooLarge {
        /// As written.
        pattern: String,
    },
    /// `\3` of a pattern with two groups.
    #[error("`{substitution}` names the group \\{group}, but `{pattern}` has {groups}")]
    Group {
        /// As written.
        substitution: String,
        /// As written.
        pattern: String,
        /// The group.
        group: usize,
        /// How many there are.
        groups: usize,
    },
}

impl Pattern {
    /// Compiles a pattern that must match the whole of a value.
    ///
    /// # Errors
    /// It is no regular expression, or larger than a MiB when compiled.
    pub fn new(text: &str) -> Result<Self, PatternError> {
        // A text that is taken as it stands is not compiled.
        if text.len() > COMPILED_BYTES_MAX {
            return Err(PatternError::TooLarge { pattern: text.to_owned() });
        }
        // `a)|(b` is no pattern, but would be one between our parentheses.
        if text.contains(')') {
            compile(text, text)?;
        }
        let (begin, rest) = split_literal(text);
        let rest = compile(&format!("^(?:{rest})$"), text)
            // Said of the whole of what is written, where the whole is at fault too.
            .map_err(|error| compile(text, text).err().unwrap_or(error))?;
        Ok(Self { text: text.into(), begin: begin.into(), rest: Some(rest) })
    }

    /// One that matches nothing, not even an empty text, in the place of `text`.
    pub fn nothing(text: &str) -> Self {
        Self { text: text.into(), begin: "".into(), rest: None }
    }

    /// Whether the whole of `value` matches.
    pub fn matches(&self, value: &[u8]) -> bool {
        let Some(regex) = &self.rest else { return false };
        value.strip_prefix(self.begin.as_bytes()).is_some_and(|rest| regex.is_match(rest))
    }

    /// As written.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// Bytes that everything it matches begins with: as many as are plain to see, often none.
    pub(super) fn literal_prefix(&self) -> &str {
        &self.begin
    }
}

/// What a pattern plainly begins with, and the pattern of what follows. Nothing is plain where
/// what follows could look back, or make something else of what stands before it.
fn split_literal(written: &str) -> (&str, &str) {
    let whole = ("", written);
    let text = written.strip_prefix('^').unwrap_or(written);
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"/_-~%@=:;,!&".contains(&b);
    let end = text.bytes().position(|b| !plain(b)).unwrap_or(text.len());
    let end = match text.as_bytes().get(end) {
        // It says how often the character before it may come, perhaps not at all.
        Some(b'?' | b'*' | b'+' | b'{') => end.saturating_sub(1),
        _ => end,
    };
    let (begin, rest) = text.split_at(end);
    // An alternative or a flag changes the meaning of all before it; a quantifier may follow `^`.
    if begin.is_empty() || rest.contains('|') || rest.contains("(?") {
        return whole;
    }
    // `^` and `\b` look at what stands before them.
    let mut before = ' ';
    for c in rest.chars() {
        let looks_back = match before {
            '\\' => c.is_ascii_alphanumeric() && !"dDwWsS".contains(c) || "<>".contains(c),
            '[' => false,
            _ => c == '^',
        };
        if looks_back {
            return whole;
        }
        // Of two backslashes the second begins nothing.
        before = if before == '\\' { ' ' } else { c };
    }
    (begin, rest)
}

impl Substitution {
    /// Compiles a pattern that is looked for anywhere, and what replaces it: `\1` … `\9` are its
    /// groups, `\0` the whole match, `\\` a backslash.
    ///
    /// # Errors
    /// It is no regular expression, or larger than a MiB when compiled; or a group is named that
    /// there is not.
    pub fn new(pattern: &str, replacement: &str) -> Result<Self, PatternError> {
        let regex = compile(pattern, pattern)?;
        let parts = parts(replacement);
        let groups = regex.captures_len() - 1;
        for part in &parts {
            if let Part::Group(group) = *part
                && group > groups
            {
                let (substitution, pattern) = (replacement.to_owned(), pattern.to_owned());
                return Err(PatternError::Group { substitution, pattern, group, groups });
            }
        }
        let (pattern, replacement) = (pattern.into(), replacement.into());
        Ok(Self { pattern, replacement, regex: Some(regex), parts })
    }

    /// One that finds nothing to replace, in the place of `pattern` and `replacement`.
    pub fn nothing(pattern: &str, replacement: &str) -> Self {
        let (pattern, replacement) = (pattern.into(), replacement.into());
        Self { pattern, replacement, regex: None, parts: Vec::new() }
    }

    /// `text` with every match replaced, none overlapping; `None`: there is no match, or what
    /// comes of it is no text.
    pub fn replace(&self, text: &str) -> Option<String> {
        let mut replaced: Vec<u8> = Vec::with_capacity(text.len());
        let mut end = 0;
        let mut any = false;
        for captures in self.regex.as_ref()?.captures_iter(text.as_bytes()) {
            any = true;
            let whole = captures.get(0)?;
            replaced.extend_from_slice(&text.as_bytes()[end..whole.start()]);
            end = whole.end();
            for part in &self.parts {
                match part {
                    Part::Text(text) => replaced.extend_from_slice(text.as_bytes()),
                    // A group that took no part is empty.
                    Part::Group(group) => {
                        replaced.extend(captures.get(*group).map_or(&b""[..], |m| m.as_bytes()));
                    }
                }
            }
        }
        replaced.extend_from_slice(&text.as_bytes()[end..]);
        any.then(|| String::from_utf8(replaced).ok()).flatten()
    }

    /// The pattern, as written.
    pub fn pattern(&self) -> &str {
        &self.pattern
    }

    /// What replaces it, as written.
    pub fn replacement(&self) -> &str {
        &self.replacement
    }
}

fn compile(whole: &str, written: &str) -> Result<Regex, PatternError> {
    RegexBuilder::new(whole).size_limit(COMPILED_BYTES_MAX).build().map_err(|error| {
        let pattern = written.to_owned();
        if let regex::Error::CompiledTooBig(_) = error {
            return PatternError::TooLarge { pattern };
        }
        // The last line says why; those above draw the pattern.
        let drawn = error.to_string();
        let why = drawn.lines().last().unwrap_or_default().trim_start_matches("error: ").to_owned();
        PatternError::Syntax { pattern, why, drawn }
    })
}

fn parts(replacement: &str) -> Vec<Part> {
    let mut parts = Vec::new();
    let mut text = String::new();
    let mut characters = replacement.chars();
    while let Some(c) = characters.next() {
        if c != '\\' {
            text.push(c);
            continue;
        }
        match characters.next() {
            Some(digit) if digit.is_ascii_digit() => {
                if !text.is_empty() {
                    parts.push(Part::Text(std::mem::take(&mut text)));
                }
                parts.push(Part::Group(digit as usize - '0' as usize));
            }
            Some(other) => text.push(other),
            None => text.push('\\'),
        }
    }
    if !text.is_empty() {
        parts.push(Part::Text(text));
    }
    parts
}

// Two patterns are one where they are written alike; the engine has no equality of its own.
impl PartialEq for Pattern {
    fn eq(&self, other: &Self) -> bool {
        self.text == other.text
    }
}

impl Eq for Pattern {}

impl Hash for Pattern {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.text.hash(state);
    }
}

impl PartialEq for Substitution {
    fn eq(&self, other: &Self) -> bool {
        self.pattern == other.pattern && self.replacement == other.replacement
    }
}

impl Eq for Substitution {}

impl Serialize for Pattern {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.text)
    }
}

impl fmt::Debug for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Pattern({:?})", self.text)
    }
}

impl fmt::Debug for Substitution {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Substitution({:?} -> {:?})", self.pattern, self.replacement)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn whole(pattern: &str, value: &str) -> bool {
        Pattern::new(pattern).unwrap().matches(value.as_bytes())
    }

    #[test]
    fn a_pattern_must_match_the_whole_value() {
        assert!(whole("/a|/ab", "/ab"), "the shorter alternative comes first in the pattern");
        assert!(whole("^v3$", "v3"));
        assert!(!whole("v3", "v30"));
        assert!(!whole("v3", "av3"));
        assert!(!whole("a", "a\n"));
        assert!(whole("(?i)GET", "get"));
    }

    #[test]
    fn a_pattern_that_only_our_parentheses_complete_is_refused() {
        for bad in ["a)|(b", "(", "(?<=a)b", r"(a)\1"] {
            let error = Pattern::new(bad).unwrap_err().to_string();
            assert!(error.starts_with(&format!("`{bad}` is no regular expression: ")), "{error}");
        }
        let error = Pattern::new("a{1000}{1000}").unwrap_err().to_string();
        assert!(error.ends_with("takes more than 1024 KiB"), "{error}");
    }

    #[test]
    fn what_matches_nothing_takes_no_value_and_replaces_none() {
        let nothing = Pattern::nothing("(");
        assert!(!nothing.matches(b"") && !nothing.matches(b"("));
        assert_eq!(nothing.text(), "(");
        assert_eq!(Substitution::nothing("(", "a").replace("("), None);
    }

    #[test]
    fn a_value_that_is_no_text_matches_what_is_said_of_its_bytes() {
        let any = Pattern::new("a(?-u:.)c").unwrap();
        assert!(any.matches(b"a\xffc"));
        assert!(!Pattern::new("a.c").unwrap().matches(b"a\xffc"));
    }

    #[test]
    fn what_a_pattern_surely_begins_with_is_found() {
        for (pattern, prefix) in [
            ("/tenants/[^/]+/.*", "/tenants/"),
            ("^/api/v1$", "/api/v1"),
            ("/ab?c", "/a"),
            ("/ab*", "/a"),
            ("/ab+", "/a"),
            ("/ab{0,2}", "/a"),
            ("/a|/b", ""),
            ("(?i)/a", ""),
            (".*", ""),
            ("/a\\.b", "/a"),
            ("/a\\d", "/a"),
            ("/a\\b", ""),
            ("/a\\\\b", "/a"),
            ("/a^b", ""),
            ("/a[b^]", ""),
            ("/é?", "/"),
        ] {
            assert_eq!(Pattern::new(pattern).unwrap().literal_prefix(), prefix, "{pattern}");
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 2000, ..ProptestConfig::default() })]

        #[test]
        fn a_pattern_matches_what_the_engine_alone_matches(
            text in "\\^?[/ab]{0,3}[/ab.*+?^$()\\[\\]|{}1\\\\dwsbB]{0,6}",
            values in prop::collection::vec("[/ab1^$. ]{0,6}", 1..8),
        ) {
            let alone = compile(&text, &text).and_then(|_| compile(&format!("^(?:{text})$"), &text));
            let pattern = Pattern::new(&text);
            prop_assert_eq!(pattern.is_ok(), alone.is_ok());
            if let (Ok(pattern), Ok(alone)) = (pattern, alone) {
                for value in &values {
                    prop_assert_eq!(
                        pattern.matches(value.as_bytes()), alone.is_match(value.as_bytes()),
                        "{} {}", text, value
                    );
                }
            }
        }
    }

    #[test]
    fn every_match_is_replaced_and_none_leaves_nothing() {
        let one = Substitution::new("one", "two").unwrap();
        assert_eq!(one.replace("/x/one/y/one").as_deref(), Some("/x/two/y/two"));
        assert_eq!(one.replace("/x"), None);
    }

    #[test]
    fn groups_change_places() {
        let swap = Substitution::new("^/service/([^/]+)(/.*)$", r"\2/instance/\1").unwrap();
        assert_eq!(swap.replace("/service/foo/v1/api").as_deref(), Some("/v1/api/instance/foo"));
        let odd = Substitution::new("(a)|(b)", r"[\0\1\2\\]").unwrap();
        assert_eq!(odd.replace("ab").as_deref(), Some(r"[aa\][bb\]"));
    }

    #[test]
    fn a_group_that_is_not_there_is_refused() {
        let error = Substitution::new("(a)", r"\2").unwrap_err();
        assert_eq!(error.to_string(), r"`\2` names the group \2, but `(a)` has 1");
    }
}
