//! Entries of `conf.http` that no request reaches, because one before takes all that they would:
//! the first that matches counts (semantics 3.8).

use std::collections::BTreeMap;

use super::{
    super::{Diagnostic, HttpMatch, Span, fields::Context, http::StringMatcher},
    http::Read,
};

/// Warns about them. Those that take everything are told apart only where leniency lets them be.
pub(super) fn unreachable(cx: &mut Context<'_>, entries: &[Read]) {
    let mut before = Before::default();
    for read in entries {
        if let Some((path, span, why)) = before.takes(read, cx.options.lenient()) {
            let message = format!("is never reached: `{path}` {why}");
            cx.report(
                Diagnostic::warning(read.path.clone(), message)
                    .at(read.span)
                    .related(span, "this entry comes first")
                    .hint("put it before that one, or remove it"),
            );
        } else {
            before.add(read);
        }
    }
}

/// What the entries so far take. Each is found in a time that does not grow with their number.
#[derive(Default)]
struct Before<'e> {
    /// The first one without `match`.
    always: Option<&'e Read>,
    /// By what they ask for besides a path that begins so; an empty one is any path.
    prefixes: BTreeMap<String, BTreeMap<&'e str, &'e Read>>,
    /// By what their match prints as.
    same: BTreeMap<String, &'e Read>,
}

/// What a match asks for besides the path, as it prints.
fn besides(matches: &HttpMatch, method: bool, headers: bool) -> String {
    let method = matches.method.as_ref().filter(|_| method);
    let headers = if headers { Some(&matches.headers) } else { None };
    format!("{method:?} {:?}", headers.filter(|headers| !headers.is_empty()))
}

impl<'e> Before<'e> {
    fn takes(&self, read: &Read, lenient: bool) -> Option<(String, Span, &'static str)> {
        let told = |by: &Read, why| Some((by.path.clone(), by.span, why));
        if let Some(by) = self.always.filter(|_| lenient) {
            return told(by, "has no match and takes everything");
        }
        let matches = &read.entry.as_ref()?.matches;
        if let Some(by) = self.same.get(&format!("{matches:?}")) {
            return told(by, "has the same match");
        }
        // Whoever asks for less takes as much, and more.
        let less = [(true, true), (true, false), (false, true), (false, false)];
        let asked = less.map(|(method, headers)| besides(matches, method, headers));
        for prefixes in asked.iter().filter_map(|asked| self.prefixes.get(asked)) {
            if let Some(by) = prefixes.get("") {
                return told(by, "takes them whatever their path");
            }
            let Some(StringMatcher::Prefix(path) | StringMatcher::Exact(path)) = &matches.path
            else {
                continue;
            };
            let mut ends = path.char_indices().map(|(at, c)| at + c.len_utf8());
            if let Some(by) = ends.find_map(|end| prefixes.get(&path[..end])) {
                return told(by, "takes every path that begins so");
            }
        }
        None
    }

    fn add(&mut self, read: &'e Read) {
        if read.always {
            self.always = self.always.or(Some(read));
            return;
        }
        let Some(entry) = &read.entry else { return };
        let prefix = match &entry.matches.path {
            Some(StringMatcher::Prefix(prefix)) => Some(prefix.as_str()),
            None => Some(""),
            Some(StringMatcher::Exact(_) | StringMatcher::Regex(_)) => None,
        };
        if let Some(prefix) = prefix {
            let asked = besides(&entry.matches, true, true);
            self.prefixes.entry(asked).or_default().entry(prefix).or_insert(read);
        }
        self.same.entry(format!("{:?}", entry.matches)).or_insert(read);
    }
}

#[cfg(test)]
mod tests {
    use crate::policy::testing::{LENIENT, STRICT, errors, finding, route, warnings};

    const TO: &str = "destination: {kuma.io/service: a}";

    /// A TrafficRoute whose entries have these matches.
    fn matching(matches: &[&str]) -> String {
        let entries: Vec<String> =
            matches.iter().map(|m| format!("{{match: {m}, {TO}}}")).collect();
        route(&format!("{{{TO}, http: [{}]}}", entries.join(", ")))
    }

    /// The indexes of the entries that are said never to be reached.
    fn unreached(matches: &[&str]) -> Vec<usize> {
        let body = matching(matches);
        assert_eq!(errors(&body, &STRICT), [""; 0], "{body}");
        let is = |at: &usize| warnings(&body, &STRICT).contains(&format!("conf.http[{at}]"));
        (0..matches.len()).filter(is).collect()
    }

    #[test]
    fn what_an_entry_before_takes_is_never_reached() {
        let api = "{path: {prefix: /api}}";
        assert_eq!(unreached(&[api, "{path: {prefix: /api/v1}}"]), [1]);
        assert_eq!(unreached(&[api, "{path: {exact: /apis}, method: {exact: GET}}"]), [1]);
        assert_eq!(unreached(&["{path: {prefix: /ä}}", "{path: {exact: /äö}}"]), [1]);
        let get = "{method: {exact: GET}, headers: {a: {exact: b}}}";
        assert_eq!(unreached(&[get, api, get]), [2]);
        let narrow = "{path: {exact: /api/x}, method: {exact: GET}, headers: {a: {exact: b}}}";
        for wide in [
            "{path: {prefix: /api}, method: {exact: GET}, headers: {a: {exact: b}}}",
            "{path: {prefix: /api}, method: {exact: GET}}",
            "{path: {prefix: /api}, headers: {a: {exact: b}}}",
            get,
            "{method: {exact: GET}}",
        ] {
            assert_eq!(unreached(&[wide, narrow]), [1], "{wide}");
        }
        let regex = "{path: {regex: '/a.*'}, method: {exact: GET}}";
        assert_eq!(unreached(&["{method: {exact: GET}}", regex]), [1]);
        let said = finding(&matching(&[api, "{path: {exact: /api/x}}"]), &LENIENT, "conf.http[1]");
        assert!(said.related.is_some() && said.message.contains("`conf.http[0]`"));
    }

    #[test]
    fn what_an_entry_before_leaves_is_reached() {
        let api = "{path: {prefix: /api}}";
        assert_eq!(unreached(&["{path: {prefix: /api/v1}}", api]), [0; 0]);
        assert_eq!(unreached(&["{path: {exact: /api}}", "{path: {exact: /api/x}}"]), [0; 0]);
        assert_eq!(unreached(&[api, "{path: {regex: /api.*}}"]), [0; 0], "nobody knows");
        assert_eq!(unreached(&["{path: {prefix: /api}, method: {exact: GET}}", api]), [0; 0]);
        assert_eq!(unreached(&[api, "{method: {exact: GET}}"]), [0; 0]);
        let get = "{path: {prefix: /api}, method: {exact: GET}}";
        assert_eq!(unreached(&[get, "{path: {prefix: /api}, method: {exact: PUT}}"]), [0; 0]);
        assert_eq!(unreached(&[get, "{path: {prefix: /api}, headers: {a: {exact: b}}}"]), [0; 0]);
    }

    #[test]
    fn many_entries_take_no_more_than_their_number() {
        let matches: Vec<String> =
            (0..20_000).map(|i| format!("{{path: {{prefix: /a{i}x}}}}")).collect();
        let matches: Vec<&str> = matches.iter().map(String::as_str).collect();
        assert_eq!(errors(&matching(&matches), &LENIENT), [""; 0]);
    }
}
