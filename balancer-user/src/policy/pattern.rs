//! Regular expressions: compiled where they are read, once (decision D19).

use super::{
    Span,
    fields::{Context, Field},
};
use crate::http::{Pattern, PatternError, Substitution};

/// Reads a pattern that whole values must match. Where exactly one version's rules are asked for,
/// which let pass what is no regular expression, that matches nothing. `None`: it is no string.
pub(super) fn whole(cx: &mut Context<'_>, field: &Field<'_>) -> Option<Pattern> {
    let text = field.string(cx)?;
    Some(Pattern::new(text).unwrap_or_else(|error| {
        report(cx, field, field, text, error);
        Pattern::nothing(text)
    }))
}

/// Reads a pattern of which every match anywhere counts, and what replaces them. `None`: one of
/// them is no string.
pub(super) fn substitution(
    cx: &mut Context<'_>,
    pattern_field: &Field<'_>,
    replacement_field: &Field<'_>,
) -> Option<Substitution> {
    let (text, replacement) = (pattern_field.string(cx)?, replacement_field.string(cx)?);
    Some(Substitution::new(text, replacement).unwrap_or_else(|error| {
        report(cx, pattern_field, replacement_field, text, error);
        Substitution::nothing(text, replacement)
    }))
}

/// Reports a failure. Kuma does not look: where exactly its rules are asked for, it is a warning.
fn report(
    cx: &mut Context<'_>,
    field: &Field<'_>,
    replacement: &Field<'_>,
    text: &str,
    error: PatternError,
) {
    let finding = match error {
        PatternError::TooLarge { .. } => field
            .error("is too large a regular expression: compiled it takes more than 1024 KiB")
            .hint("repeat less, as in `{1,1000}`, or match less exactly"),
        PatternError::Syntax { why, drawn, .. } => field
            .error(format!("is no regular expression: {why}"))
            .at(part(field, text, &drawn).unwrap_or(field.node.span))
            .hint("the dialect is RE2's: no look-around, no backreferences"),
        PatternError::Group { group, groups, .. } => {
            replacement.error(format!("names the group \\{group}, but the pattern has {groups}"))
        }
    };
    cx.report_unless_exact(finding);
}

/// Where the part of a pattern stands that is wrong in it. `error` draws the pattern, a line with
/// carets below it, and says why; patterns of several lines it draws otherwise. `None`: it is not
/// certain, as in a text with escapes.
fn part(field: &Field<'_>, text: &str, error: &str) -> Option<Span> {
    let lines: Vec<&str> = error.lines().collect();
    let [_, drawn, carets, _] = lines[..] else { return None };
    let margin = drawn.strip_suffix(text)?.chars().count();
    let before = carets.chars().take_while(|c| *c == ' ').count().checked_sub(margin)?;
    let len = carets.chars().filter(|c| *c == '^').count().max(1);
    let characters = text.chars().count();
    let span = field.node.span;
    let quote = match (span.len as usize).checked_sub(characters)? {
        0 => 0,
        2 => 1,
        _ => return None,
    };
    Some(Span {
        column: span.column + u32::try_from(quote + before).ok()?,
        len: u32::try_from(len).ok()?,
        ..span
    })
}

#[cfg(test)]
mod tests {
    use crate::policy::testing::{LENIENT, errors, exactly, finding, reading, route};
    use crate::policy::{Api, http::StringMatcher};

    fn with(pattern: &str) -> String {
        let pattern = pattern.replace('\'', "''");
        route(&format!(
            "{{http: [{{match: {{path: {{regex: '{pattern}'}}}}, destination: {{kuma.io/service: a}}}}], destination: {{kuma.io/service: a}}}}"
        ))
    }

    const FIELD: &str = "conf.http[0].match.path.regex";

    #[test]
    fn whole_values_match_and_parts_do_not() {
        let reading = reading(&with("/a|/a/b"), &LENIENT);
        let http = &reading.set.traffic_routes[0].conf.http[0];
        let Some(StringMatcher::Regex(pattern)) = &http.matches.path else { panic!("{http:?}") };
        let matches = |text: &str| pattern.matches(text.as_bytes());
        assert_eq!(pattern.text(), "/a|/a/b");
        assert!(matches("/a") && matches("/a/b"));
        assert!(!matches("/a/") && !matches("x/a") && !matches("/a\n"));
    }

    #[test]
    fn what_is_no_pattern_by_itself_is_refused_though_it_would_be_between_parentheses() {
        for pattern in ["a)(?:b", "(", "(?=a)", r"(a)\1", "[a-", "a{2,1}", r"\p{Nobody}"] {
            let found = finding(&with(pattern), &LENIENT, FIELD);
            assert!(found.is_error() && found.message.starts_with("is no regular expression: "));
            assert!(found.hint.is_some(), "{pattern}");
        }
    }

    #[test]
    fn the_part_that_is_wrong_is_underlined() {
        let place = |pattern: &str| {
            let found = finding(&with(pattern), &LENIENT, FIELD);
            let (span, line) = (found.span.expect("a place"), with(pattern));
            let line = line.lines().nth(span.line as usize - 1).expect("the line");
            let from = span.column as usize - 1;
            line.chars().skip(from).take(span.len as usize).collect::<String>()
        };
        assert_eq!(place("/a(b"), "(");
        assert_eq!(place("/ä(?=b)"), "(?=");
        assert_eq!(place("/x[a-"), "[");
        assert_eq!(place(r"/a\p{Nobody}"), r"\p{Nobody}");
        assert_eq!(place("/it's(b"), "'/it''s(b'", "with an escape the whole of it");
    }

    #[test]
    fn a_huge_pattern_is_refused_without_being_built() {
        for pattern in ["(a{1,1000}){1,1000}", r"\w{1,100000}", &"a".repeat(2_000_000)] {
            let found = finding(&with(pattern), &LENIENT, FIELD);
            assert!(found.is_error(), "{}", found.message);
            let said = &found.message;
            assert!(said.contains("too large") || said.contains("repetition"), "{said}");
            assert!(found.message.len() < 200, "{}", found.message);
        }
    }

    #[test]
    fn a_version_that_does_not_look_lets_it_pass_and_it_matches_nothing() {
        let options = exactly(Api::Kuma29);
        assert_eq!(errors(&with("("), &options), [""; 0]);
        let reading = reading(&with("("), &options);
        let http = &reading.set.traffic_routes[0].conf.http[0];
        let Some(StringMatcher::Regex(pattern)) = &http.matches.path else { panic!("{http:?}") };
        assert!(!pattern.matches(b"") && !pattern.matches(b"("));
        assert!(!finding(&with("("), &options, FIELD).is_error());
    }
}
