//! The normal form of a path, in which it is matched and in which backends see it.
//!
//! Without it `/public/../admin` would be matched as something below `/public` and answered as
//! `/admin`. Kuma's listeners normalise before they match (semantics 3.8), with Envoy's
//! `normalize_path`.

use std::borrow::Cow;

/// The path without dot segments (RFC 3986, 5.2.4) and without `%` before characters that never
/// need it (letters, digits, `-._~`; RFC 3986, 6.2.2.2). Several slashes in a row stay. An empty
/// path becomes `/`; `*` stays. Allocates only where something changes.
pub fn normal_path(path: &str) -> Cow<'_, str> {
    if path.is_empty() {
        return Cow::Borrowed("/");
    }
    let decoded = decode_unreserved(path);
    if !has_dot_segment(&decoded) {
        return decoded;
    }
    let Some(rest) = decoded.strip_prefix('/') else { return decoded };
    let mut kept: Vec<&str> = Vec::new();
    let mut segments = rest.split('/').peekable();
    while let Some(segment) = segments.next() {
        let last = segments.peek().is_none();
        match segment {
            "." => {}
            ".." => drop(kept.pop()),
            other => {
                kept.push(other);
                continue;
            }
        }
        // `/a/.` and `/a/b/..` name a directory: `/a/`.
        if last {
            kept.push("");
        }
    }
    let mut normal = String::with_capacity(decoded.len());
    for segment in &kept {
        normal.push('/');
        normal.push_str(segment);
    }
    if normal.is_empty() {
        normal.push('/');
    }
    Cow::Owned(normal)
}

fn has_dot_segment(path: &str) -> bool {
    let bytes = path.as_bytes();
    // Few paths have `/.` at all.
    bytes.windows(2).enumerate().any(|(at, two)| {
        two == b"/." && {
            let rest = &bytes[at + 2..];
            let rest = rest.strip_prefix(b".").unwrap_or(rest);
            rest.is_empty() || rest[0] == b'/'
        }
    })
}

fn decode_unreserved(path: &str) -> Cow<'_, str> {
    if !path.contains('%') {
        return Cow::Borrowed(path);
    }
    let mut decoded = String::with_capacity(path.len());
    let mut rest = path;
    while let Some(at) = rest.find('%') {
        decoded.push_str(&rest[..at]);
        rest = &rest[at..];
        let digits = rest.as_bytes().get(1..3);
        let byte = digits.and_then(|digits| {
            let high = char::from(digits[0]).to_digit(16)?;
            let low = char::from(digits[1]).to_digit(16)?;
            u8::try_from(high * 16 + low).ok()
        });
        match byte {
            // Behind a `%` that begins no escape it could complete one, and backends would decode
            // what nobody has matched.
            Some(byte) if unreserved(byte) && !ends_in_half_an_escape(&decoded) => {
                decoded.push(char::from(byte));
                rest = &rest[3..];
            }
            _ => {
                decoded.push('%');
                rest = &rest[1..];
            }
        }
    }
    decoded.push_str(rest);
    Cow::Owned(decoded)
}

fn unreserved(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"-._~".contains(&byte)
}

fn ends_in_half_an_escape(text: &str) -> bool {
    text.bytes().rev().take(2).any(|b| b == b'%')
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn dot_segments_go_and_nothing_else_changes() {
        for (path, normal) in [
            ("", "/"),
            ("/", "/"),
            ("*", "*"),
            ("/a/b", "/a/b"),
            ("/a//b/", "/a//b/"),
            ("/a/./b", "/a/b"),
            ("/a/../b", "/b"),
            ("/a/b/..", "/a/"),
            ("/a/.", "/a/"),
            ("/..", "/"),
            ("/../../a", "/a"),
            ("/a/..b", "/a/..b"),
            ("/a/...", "/a/..."),
            ("/.a", "/.a"),
            ("/public/%2e%2E/admin", "/admin"),
            ("/%61pi", "/api"),
            ("/a%2fb%20", "/a%2fb%20"),
            ("/a%", "/a%"),
            ("/a%4", "/a%4"),
            ("/a%zz", "/a%zz"),
            ("/%%32e%%32e/a", "/%%32e%%32e/a"),
            ("/%2%65/a", "/%2%65/a"),
            // Decoded once only: what comes out of it is no escape any more.
            ("/a%2541", "/a%2541"),
        ] {
            assert_eq!(normal_path(path), normal, "{path}");
        }
    }

    proptest! {
        #[test]
        fn a_normal_path_has_no_dot_segments_and_stays_as_it_is(path in "/[a./%2563eE-]{0,24}") {
            let normal = normal_path(&path).into_owned();
            prop_assert!(!has_dot_segment(&normal), "{normal}");
            prop_assert!(normal.starts_with('/'));
            prop_assert_eq!(normal_path(&normal).into_owned(), normal);
        }
    }
}
