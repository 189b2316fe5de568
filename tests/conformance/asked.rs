//! Requests that tell the routes of a case apart, and what a route asks of them.
//!
//! Matches are read from the form in which cases have them, which is also the one in which
//! `balancer` shows its own; they are compared by an evaluator of its own, so that a case is not
//! judged by the code that it is to judge. Only patterns are left to the room that compiles them.

use std::collections::BTreeSet;

use balancer_user::http::Pattern;
use serde_json::Value;

use crate::{
    resources::{array, text},
    samples,
};

/// A request.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Asked {
    pub(crate) method: String,
    pub(crate) path: String,
    /// Parameters in order.
    pub(crate) query: Vec<(String, String)>,
    /// In order; names in small letters.
    pub(crate) headers: Vec<(String, String)>,
}

/// How a text is compared.
#[derive(Clone, Debug)]
pub(crate) enum Text {
    Exact(String),
    Prefix(String),
    Regex(Pattern),
    Present,
    Absent,
}

#[derive(Clone, Debug)]
pub(crate) enum Path {
    Exact(String),
    Prefix(String),
    /// Without a slash at the end.
    Segments(String),
    Regex(Pattern),
}

/// What a route asks of a request.
#[derive(Clone, Debug, Default)]
pub(crate) struct Asks {
    pub(crate) path: Option<Path>,
    method: Option<Text>,
    headers: Vec<(String, Text)>,
    query: Vec<(String, Text)>,
}

impl Asked {
    /// Without the query.
    fn plain(path: &str) -> Self {
        Self {
            method: "GET".to_owned(),
            path: path.to_owned(),
            query: Vec::new(),
            headers: Vec::new(),
        }
    }

    /// What follows `?`.
    pub(crate) fn query_text(&self) -> Option<String> {
        let pairs: Vec<String> = self.query.iter().map(|(k, v)| format!("{k}={v}")).collect();
        (!pairs.is_empty()).then(|| pairs.join("&"))
    }

    /// Path and query.
    pub(crate) fn target(&self) -> String {
        match self.query_text() {
            Some(query) => format!("{}?{query}", self.path),
            None => self.path.clone(),
        }
    }

    fn header(&self, name: &str) -> Option<String> {
        let values: Vec<&str> =
            self.headers.iter().filter(|(n, _)| n == name).map(|(_, v)| v.as_str()).collect();
        (!values.is_empty()).then(|| values.join(","))
    }

    fn set_header(&mut self, name: &str, values: &[String]) {
        self.headers.retain(|(n, _)| n != name);
        self.headers.extend(values.iter().map(|value| (name.to_owned(), value.clone())));
    }

    fn set_parameter(&mut self, name: &str, value: Option<String>) {
        self.query.retain(|(n, _)| n != name);
        self.query.extend(value.map(|value| (name.to_owned(), value)));
    }
}

impl Text {
    /// Reads `{"exact": "a"}` and its like.
    fn read(written: &Value) -> Result<Self, String> {
        let unknown = || format!("an unknown way to compare: {written}");
        if let Some(word) = written.as_str() {
            return match word {
                "present" => Ok(Self::Present),
                "absent" => Ok(Self::Absent),
                _ => Err(unknown()),
            };
        }
        let ways = written.as_object().ok_or_else(unknown)?;
        let inverted = ways.get("invert").is_some_and(|invert| *invert == true);
        if inverted && ways.get("present").is_some_and(|present| *present == true) {
            return Ok(Self::Absent);
        }
        let mut ways = ways.iter().filter(|(way, _)| *way != "name");
        let (Some((way, value)), None) = (ways.next(), ways.next()) else { return Err(unknown()) };
        match (way.as_str(), value) {
            ("value", nested) => Self::read(nested),
            ("exact", Value::String(value)) => Ok(Self::Exact(value.clone())),
            ("prefix", Value::String(value)) => Ok(Self::Prefix(value.clone())),
            ("regex", Value::String(value)) => {
                Pattern::new(value).map(Self::Regex).map_err(|error| error.to_string())
            }
            ("present", Value::Bool(true)) | ("absent", Value::Bool(false)) => Ok(Self::Present),
            ("present", Value::Bool(false)) | ("absent", Value::Bool(true)) => Ok(Self::Absent),
            _ => Err(unknown()),
        }
    }

    fn takes(&self, value: Option<&str>) -> bool {
        match (self, value) {
            (Self::Absent, value) => value.is_none(),
            (_, None) => false,
            (Self::Exact(wanted), Some(value)) => wanted == value,
            (Self::Prefix(prefix), Some(value)) => value.starts_with(prefix.as_str()),
            (Self::Regex(pattern), Some(value)) => pattern.matches(value.as_bytes()),
            (Self::Present, Some(_)) => true,
        }
    }

    /// Values near its border, one that it takes first.
    fn values(&self) -> Result<Vec<Option<String>>, String> {
        let some = |text: String| Some(text);
        Ok(match self {
            Self::Exact(value) => {
                vec![some(value.clone()), some(format!("{value}x")), some("other".into()), None]
            }
            Self::Prefix(value) => {
                vec![
                    some(format!("{value}1")),
                    some(value.clone()),
                    some(format!("x{value}")),
                    None,
                ]
            }
            Self::Regex(pattern) => {
                let mut values: Vec<_> =
                    samples::taken_by(pattern)?.into_iter().map(Some).collect();
                values.extend([some("other value".into()), None]);
                values
            }
            Self::Present => vec![some("any".into()), None],
            Self::Absent => vec![None, some("any".into())],
        })
    }

    fn shown(&self) -> String {
        match self {
            Self::Regex(pattern) => format!("Regex({})", pattern.text()),
            other => format!("{other:?}"),
        }
    }
}

impl Path {
    fn read(written: &Value) -> Result<Option<Self>, String> {
        if let Some(prefix) = text(&written["segment_prefix"]) {
            let segments = prefix.trim_end_matches('/').to_owned();
            return Ok((!segments.is_empty()).then_some(Self::Segments(segments)));
        }
        Ok(match Text::read(written)? {
            Text::Exact(path) => Some(Self::Exact(path)),
            Text::Prefix(prefix) if prefix == "/" => None,
            Text::Prefix(prefix) => Some(Self::Prefix(prefix)),
            Text::Regex(pattern) => Some(Self::Regex(pattern)),
            Text::Present | Text::Absent => return Err(format!("no path: {written}")),
        })
    }

    fn takes(&self, path: &str) -> bool {
        match self {
            Self::Exact(wanted) => wanted == path,
            Self::Prefix(prefix) => path.starts_with(prefix.as_str()),
            Self::Segments(segments) => {
                let rest = path.strip_prefix(segments.as_str());
                rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
            }
            Self::Regex(pattern) => pattern.matches(path.as_bytes()),
        }
    }

    /// Paths near its border, one that it takes first.
    fn paths(&self) -> Result<Vec<String>, String> {
        let begins = match self {
            Self::Exact(path) | Self::Prefix(path) | Self::Segments(path) => vec![path.clone()],
            Self::Regex(pattern) => samples::taken_by(pattern)?,
        };
        let ends = ["", "/", "/below", "/below/it", "x"];
        let mut paths = Vec::new();
        for begin in begins {
            paths.extend(ends.iter().map(|end| format!("{begin}{end}")));
            if let Some((parent, _)) = begin.trim_end_matches('/').rsplit_once('/') {
                paths.push(format!("{parent}/"));
            }
        }
        Ok(paths)
    }

    fn shown(&self) -> String {
        match self {
            Self::Regex(pattern) => format!("Regex({})", pattern.text()),
            other => format!("{other:?}"),
        }
    }
}

impl Asks {
    /// Reads a match; `share` is none of it.
    pub(crate) fn read(written: &Value) -> Result<Self, String> {
        let mut asks = Self::default();
        if !written.is_object() && !written.is_null() {
            return Err(format!("no match: {written}"));
        }
        for (part, value) in written.as_object().into_iter().flatten() {
            match part.as_str() {
                "path" => asks.path = Path::read(value)?,
                "method" => asks.method = Some(Text::read(value)?),
                "headers" => asks.headers = named(value, str::to_ascii_lowercase)?,
                "query" => asks.query = named(value, str::to_owned)?,
                "share" => {}
                other => return Err(format!("an unknown part of a match: {other}")),
            }
        }
        Ok(asks)
    }

    /// Whether it takes a request.
    pub(crate) fn takes(&self, asked: &Asked) -> bool {
        let parameter = |name: &str| {
            asked.query.iter().find(|(n, _)| n == name).map(|(_, value)| value.as_str())
        };
        self.path.as_ref().is_none_or(|path| path.takes(&asked.path))
            && self.method.as_ref().is_none_or(|method| method.takes(Some(&asked.method)))
            && self.headers.iter().all(|(name, text)| text.takes(asked.header(name).as_deref()))
            && self.query.iter().all(|(name, text)| text.takes(parameter(name)))
    }

    /// As text in which equal matches are equal.
    pub(crate) fn shown(&self) -> String {
        let pairs = |all: &[(String, Text)]| {
            let mut all: Vec<String> =
                all.iter().map(|(name, text)| format!("{name} {}", text.shown())).collect();
            all.sort();
            all.join(", ")
        };
        let path = self.path.as_ref().map_or_else(|| "any".to_owned(), Path::shown);
        let method = self.method.as_ref().map_or_else(|| "any".to_owned(), Text::shown);
        let (headers, query) = (pairs(&self.headers), pairs(&self.query));
        format!("path {path} method {method} headers [{headers}] query [{query}]")
    }

    /// Makes a request one that it takes, but for what `keep` says of the path.
    fn impose(&self, asked: &mut Asked) -> Result<(), String> {
        if let Some(method) = &self.method
            && let Some(Some(value)) = method.values()?.into_iter().next()
        {
            asked.method = value;
        }
        for (name, text) in &self.headers {
            if let Some(value) = text.values()?.into_iter().next() {
                asked.set_header(name, value.as_slice());
            }
        }
        for (name, text) in &self.query {
            if let Some(value) = text.values()?.into_iter().next() {
                asked.set_parameter(name, value);
            }
        }
        Ok(())
    }

    fn paths(&self) -> Result<Vec<String>, String> {
        match &self.path {
            Some(path) => path.paths(),
            None => Ok(vec!["/".to_owned(), "/elsewhere".to_owned()]),
        }
    }
}

/// `[{"name": "a", "exact": "b"}]`.
fn named(written: &Value, form: impl Fn(&str) -> String) -> Result<Vec<(String, Text)>, String> {
    let mut all = Vec::new();
    for one in array(written) {
        let name = one["name"].as_str().ok_or_else(|| format!("without a name: {one}"))?;
        all.push((form(name), Text::read(one)?));
    }
    Ok(all)
}

/// The order in which matches stand, each once. `exact /a` followed by `prefix /a/` is what
/// begins with the segment `/a`: some write it so.
pub(crate) fn order(all: &[Asks]) -> Vec<String> {
    let mut joined: Vec<Asks> = Vec::new();
    for asks in all {
        if let Some(last) = joined.last_mut()
            && let (Some(Path::Exact(path)), Some(Path::Prefix(prefix))) = (&last.path, &asks.path)
            && prefix.strip_suffix('/') == Some(path)
        {
            let segments = Asks { path: Some(Path::Segments(path.clone())), ..last.clone() };
            if (Asks { path: segments.path.clone(), ..asks.clone() }).shown() == segments.shown() {
                *last = segments;
                continue;
            }
        }
        joined.push(asks.clone());
    }
    let mut seen = BTreeSet::new();
    joined.iter().map(Asks::shown).filter(|shown| seen.insert(shown.clone())).collect()
}

/// Requests near the borders of all these matches: for each its path and those beside it, each of
/// its conditions held and missed, and those of every other match on top of it. `touched` are
/// headers that somebody changes: they are also sent twice.
pub(crate) fn requests(
    all: &[Asks],
    touched: &BTreeSet<String>,
) -> Result<BTreeSet<Asked>, String> {
    let mut requests = BTreeSet::new();
    let mut methods: BTreeSet<String> = ["GET", "POST"].map(str::to_owned).into();
    for method in all.iter().filter_map(|asks| asks.method.as_ref()) {
        methods.extend(method.values()?.into_iter().flatten());
    }
    for asks in all {
        let paths = asks.paths()?;
        let mut base = Asked::plain(&paths[0]);
        asks.impose(&mut base)?;
        let with = |change: &mut dyn FnMut(&mut Asked)| {
            let mut asked = base.clone();
            change(&mut asked);
            asked
        };
        requests.extend(paths.iter().map(|path| with(&mut |asked| asked.path = path.clone())));
        requests.extend(methods.iter().map(|m| with(&mut |asked| asked.method = m.clone())));
        for (name, text) in &asks.headers {
            for value in text.values()? {
                requests.insert(with(&mut |asked| asked.set_header(name, value.as_slice())));
                let twice: Vec<String> =
                    value.iter().flat_map(|v| [v.clone(), v.clone()]).collect();
                requests.insert(with(&mut |asked| asked.set_header(name, &twice)));
            }
        }
        for (name, text) in &asks.query {
            for value in text.values()? {
                requests.insert(with(&mut |asked| asked.set_parameter(name, value.clone())));
            }
        }
        let twice = ["one", "two"].map(str::to_owned);
        requests.insert(with(&mut |asked| {
            for name in touched
                .iter()
                .filter(|name| asked.header(name).is_none())
                .cloned()
                .collect::<Vec<_>>()
            {
                asked.set_header(&name, &twice);
            }
        }));
        for other in all {
            let mut both = base.clone();
            other.impose(&mut both)?;
            requests.insert(both.clone());
            for path in other.paths()? {
                requests.insert(Asked { path, ..both.clone() });
            }
        }
    }
    Ok(requests)
}
