//! What a case says of a listener: its routes in order of precedence, and what becomes of a
//! request by them. The form is described in the corpus's README; a part of it that is not known
//! here is an error and never passed over.

use std::collections::BTreeSet;

use balancer_user::http::Substitution;
use serde_json::Value;

use crate::{
    asked::{Asked, Asks, Path},
    outcome::{
        HOST, Headers, NOWHERE, OWN_HOST, Outcome, Seen, answered, by_name, of_backend, redirected,
    },
    resources::{array, number, text},
};

/// What a cluster stands for.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Meaning {
    /// An object's port, or endpoints; with the kind of load balancer.
    pub(crate) called: String,
    /// Its endpoints are known by a name outside the mesh.
    pub(crate) named: bool,
}

/// Routes in order of precedence.
#[derive(Debug)]
pub(crate) struct Said(Vec<Entry>);

#[derive(Debug)]
struct Entry {
    asks: Asks,
    /// It takes this part of its requests.
    share: Option<f64>,
    does: Does,
    modifications: Modifications,
    mirrors: Vec<(Meaning, f64)>,
}

#[derive(Debug)]
enum Does {
    Forward(Vec<(Meaning, u64)>),
    Redirect(Redirect),
    Respond(u16),
}

#[derive(Debug, Default)]
struct Redirect {
    scheme: Option<String>,
    host: Option<String>,
    port: Option<u64>,
    path: Option<PathChange>,
    status: u16,
}

#[derive(Debug, Default)]
struct Modifications {
    path: Option<PathChange>,
    host: Option<HostChange>,
    request: HeaderChanges,
    answer: HeaderChanges,
}

#[derive(Debug)]
enum PathChange {
    Full(String),
    Prefix(String),
    Regex(Substitution),
}

#[derive(Debug)]
enum HostChange {
    To(String),
    FromPath(Substitution),
    OfEndpoint,
}

#[derive(Debug, Default)]
struct HeaderChanges {
    remove: Vec<String>,
    set: Headers,
    add: Headers,
}

impl Said {
    /// Reads a listener. `means` says what a cluster stands for.
    pub(crate) fn read(
        listener: &Value,
        means: &impl Fn(&str) -> Result<Meaning, String>,
    ) -> Result<Self, String> {
        let routes = match text(&listener["protocol"]).as_deref() {
            Some("tcp") => array(&listener["routes"]),
            Some("http") => match array(&listener["hosts"]) {
                [host] if host["domains"] == serde_json::json!(["*"]) => array(&host["routes"]),
                _ => return Err("hosts that are not one for every domain".to_owned()),
            },
            other => return Err(format!("a listener of protocol {other:?}")),
        };
        routes.iter().map(|route| Entry::read(route, means)).collect::<Result<_, _>>().map(Self)
    }

    /// What its routes ask.
    pub(crate) fn asks(&self) -> impl Iterator<Item = &Asks> {
        self.0.iter().map(|entry| &entry.asks)
    }

    /// Headers of requests and of answers that some route changes.
    pub(crate) fn touched(&self) -> [BTreeSet<String>; 2] {
        let names = |of: fn(&Modifications) -> &HeaderChanges| {
            self.0.iter().flat_map(move |entry| of(&entry.modifications).names()).collect()
        };
        [
            names(|modifications| &modifications.request),
            names(|modifications| &modifications.answer),
        ]
    }

    /// What becomes of a request. With `slash`, what follows a prefix that is replaced keeps the
    /// slash before it.
    pub(crate) fn outcome(
        &self,
        asked: &Asked,
        touched: &BTreeSet<String>,
        slash: bool,
    ) -> Outcome {
        let mut outcome = Outcome::default();
        let mut left = 1.0;
        for entry in self.0.iter().filter(|entry| entry.asks.takes(asked)) {
            let share = left * entry.share.unwrap_or(1.0);
            entry.add(&mut outcome, share, asked, touched, slash);
            left -= share;
            if left <= 0.0 {
                return outcome;
            }
        }
        outcome.add(answered(404), left);
        outcome
    }
}

impl Entry {
    fn read(
        route: &Value,
        means: &impl Fn(&str) -> Result<Meaning, String>,
    ) -> Result<Self, String> {
        known(
            route,
            "route",
            &[
                "match",
                "destinations",
                "redirect",
                "direct_response",
                "modifications",
                "mirrors",
                "timeout",
            ],
        )?;
        let meant = |one: &Value| means(one["cluster"].as_str().ok_or("a place without cluster")?);
        let does = if route["redirect"].is_object() {
            Does::Redirect(Redirect::read(&route["redirect"])?)
        } else if !route["direct_response"].is_null() {
            Does::Respond(status(&route["direct_response"])?)
        } else {
            let mut to = Vec::new();
            for one in array(&route["destinations"]) {
                let weight = match one["only"] == true {
                    true => 1,
                    false => number(&one["weight"]).ok_or("a destination without weight")?,
                };
                to.push((meant(one)?, weight));
            }
            Does::Forward(to)
        };
        let mut mirrors = Vec::new();
        for mirror in array(&route["mirrors"]) {
            mirrors.push((meant(mirror)?, fraction(mirror)?.unwrap_or(1.0)));
        }
        let share = match &route["match"]["share"] {
            Value::Null => None,
            Value::Number(share) => share.as_f64(),
            parts => fraction(parts)?,
        };
        if share.is_some_and(|share| !(0.0..=1.0).contains(&share)) {
            return Err(format!("an unknown form of share: {}", route["match"]["share"]));
        }
        let modifications = Modifications::read(&route["modifications"])?;
        Ok(Self { asks: Asks::read(&route["match"])?, share, does, modifications, mirrors })
    }

    fn add(
        &self,
        outcome: &mut Outcome,
        share: f64,
        asked: &Asked,
        touched: &BTreeSet<String>,
        slash: bool,
    ) {
        match &self.does {
            Does::Respond(status) => outcome.add(answered(*status), share),
            Does::Redirect(redirect) => {
                let location = redirect.location(asked, self.asks.path.as_ref(), slash);
                outcome.add(redirected(redirect.status, &location), share);
            }
            Does::Forward(to) => {
                let sum: u64 = to.iter().map(|(_, weight)| weight).sum();
                if sum == 0 {
                    outcome.add(NOWHERE, share);
                }
                for (meaning, weight) in to.iter().filter(|(_, weight)| *weight > 0) {
                    let share = share * *weight as f64 / sum as f64;
                    if meaning.called == NOWHERE {
                        outcome.add(NOWHERE, share);
                    } else {
                        outcome.add(self.seen(meaning, asked, touched, slash), share);
                    }
                }
            }
        }
    }

    fn seen(
        &self,
        meaning: &Meaning,
        asked: &Asked,
        touched: &BTreeSet<String>,
        slash: bool,
    ) -> Seen {
        let Modifications { path, host, request, answer } = &self.modifications;
        let asks = self.asks.path.as_ref();
        let target = match path {
            Some(change) => with_query(change.apply(&asked.path, asks, slash), asked),
            None => asked.target(),
        };
        let host = match host {
            // Without a name there is nothing to put in its place (Envoy, `auto_host_rewrite`).
            Some(HostChange::OfEndpoint) if meaning.named => OWN_HOST.to_owned(),
            Some(HostChange::OfEndpoint) | None => HOST.to_owned(),
            Some(HostChange::To(host)) => host.clone(),
            // Decision D8: the host stays where the pattern does not match.
            Some(HostChange::FromPath(from)) => {
                from.replace(&asked.path).unwrap_or_else(|| HOST.to_owned())
            }
        };
        let mirrors = self.mirrors.iter().filter(|(to, _)| to.called != NOWHERE);
        Seen {
            to: meaning.called.clone(),
            target,
            host,
            headers: request.applied(asked.headers.clone()),
            answer: answer.applied(of_backend(touched)),
            mirrors: mirrors.map(|(to, share)| (to.called.clone(), *share)).collect(),
        }
    }
}

impl PathChange {
    /// A part whose name begins with `path` or `prefix`: a text, or a pattern and what stands for
    /// it.
    fn read(of: &str, value: &Value) -> Result<Option<Self>, String> {
        if !(of.starts_with("path") || of.starts_with("prefix")) {
            return Ok(None);
        }
        Ok(Some(match value {
            Value::String(to) if of.contains("prefix") => Self::Prefix(to.clone()),
            Value::String(full) => Self::Full(full.clone()),
            pattern => Self::Regex(substitution(pattern)?),
        }))
    }

    fn apply(&self, path: &str, asks: Option<&Path>, slash: bool) -> String {
        match self {
            Self::Full(full) => full.clone(),
            Self::Regex(regex) => regex.replace(path).unwrap_or_else(|| path.to_owned()),
            Self::Prefix(to) => {
                let matched = match asks {
                    Some(Path::Exact(text) | Path::Prefix(text) | Path::Segments(text)) => text,
                    Some(Path::Regex(_)) => path,
                    None => "/",
                };
                let rest = path.strip_prefix(matched).unwrap_or_default();
                if slash && matched.ends_with('/') {
                    format!("{}/{rest}", to.trim_end_matches('/'))
                } else {
                    format!("{to}{rest}")
                }
            }
        }
    }
}

impl Redirect {
    fn read(written: &Value) -> Result<Self, String> {
        let mut redirect = Self { status: 301, ..Self::default() };
        for (field, value) in written.as_object().into_iter().flatten() {
            match field.trim_end_matches("_redirect") {
                "scheme" => redirect.scheme = text(value),
                "host" | "hostname" => redirect.host = text(value),
                "port" => redirect.port = number(value),
                "status" | "status_code" | "response_code" => redirect.status = status(value)?,
                other => match PathChange::read(other, value)? {
                    Some(change) => redirect.path = Some(change),
                    None => return Err(format!("an unknown part of a redirect: {other}")),
                },
            }
        }
        Ok(redirect)
    }

    fn location(&self, asked: &Asked, asks: Option<&Path>, slash: bool) -> String {
        let scheme = self.scheme.as_deref().unwrap_or("http");
        let host = self.host.as_deref().unwrap_or(HOST);
        let usual = if scheme == "https" { 443 } else { 80 };
        let port = self.port.filter(|port| *port != usual && *port != 0);
        let port = port.map(|port| format!(":{port}")).unwrap_or_default();
        let path = match &self.path {
            Some(change) => with_query(change.apply(&asked.path, asks, slash), asked),
            None => asked.target(),
        };
        format!("{scheme}://{host}{port}{path}")
    }
}

impl Modifications {
    fn read(written: &Value) -> Result<Self, String> {
        let mut all = Self::default();
        for (part, value) in written.as_object().into_iter().flatten() {
            match part.as_str() {
                "host_of_endpoint" if *value == true => all.host = Some(HostChange::OfEndpoint),
                "host" | "hostname" => {
                    all.host = Some(HostChange::To(text(value).ok_or("a host that is no text")?));
                }
                // Only a path can be what a pattern for hosts is matched with.
                host if host.starts_with("host_") && value.is_object() => {
                    all.host = Some(HostChange::FromPath(substitution(value)?));
                }
                "request_headers" => all.request = HeaderChanges::read(value)?,
                "response_headers" => all.answer = HeaderChanges::read(value)?,
                other => match PathChange::read(other, value)? {
                    Some(change) => all.path = Some(change),
                    None => return Err(format!("an unknown modification: {other}")),
                },
            }
        }
        Ok(all)
    }
}

impl HeaderChanges {
    fn read(written: &Value) -> Result<Self, String> {
        known(written, "change of headers", &["remove", "set", "add"])?;
        let pairs = |of: &Value| {
            let pair = |one: &Value| {
                let name = text(&one["name"])?.to_ascii_lowercase();
                Some((name, text(&one["value"])?))
            };
            array(of).iter().map(pair).collect::<Option<Headers>>().ok_or("no header and value")
        };
        let name = |one: &Value| text(one).or_else(|| text(&one["name"]));
        let remove: Option<Vec<String>> = array(&written["remove"]).iter().map(name).collect();
        let remove = remove.ok_or("no name of a header")?;
        Ok(Self {
            remove: remove.iter().map(|name| name.to_ascii_lowercase()).collect(),
            set: pairs(&written["set"])?,
            add: pairs(&written["add"])?,
        })
    }

    fn names(&self) -> impl Iterator<Item = String> {
        let given = self.set.iter().chain(&self.add).map(|(name, _)| name);
        self.remove.iter().chain(given).cloned()
    }

    /// Removed, then set, then added.
    fn applied(&self, mut headers: Headers) -> Headers {
        let gone = |name: &str| {
            self.remove.iter().any(|n| n == name) || self.set.iter().any(|(n, _)| n == name)
        };
        headers.retain(|(name, _)| !gone(name));
        headers.extend(self.set.iter().chain(&self.add).cloned());
        by_name(headers)
    }
}

fn with_query(path: String, asked: &Asked) -> String {
    match asked.query_text() {
        Some(query) => format!("{path}?{query}"),
        None => path,
    }
}

fn substitution(written: &Value) -> Result<Substitution, String> {
    let of = |field: &str| text(&written[field]).ok_or_else(|| format!("no {field}"));
    Substitution::new(&of("pattern")?, &of("substitution")?).map_err(|error| error.to_string())
}

/// `numerator ÷ denominator`, where there are such; a denominator goes without saying if it is
/// 100 (Envoy, `FractionalPercent`).
fn fraction(written: &Value) -> Result<Option<f64>, String> {
    match (&written["numerator"], &written["denominator"]) {
        (Value::Null, Value::Null) => Ok(None),
        (Value::Number(part), Value::Null) => Ok(part.as_f64().map(|part| part / 100.0)),
        (Value::Number(part), Value::Number(whole)) => {
            Ok(part.as_f64().zip(whole.as_f64()).map(|(part, whole)| part / whole))
        }
        _ => Err(format!("no part of a whole: {written}")),
    }
}

/// A number, the object that holds it, or what Envoy calls it.
fn status(written: &Value) -> Result<u16, String> {
    match text(written).as_deref() {
        Some("MOVED_PERMANENTLY") => return Ok(301),
        Some("FOUND") => return Ok(302),
        Some("SEE_OTHER") => return Ok(303),
        Some("TEMPORARY_REDIRECT") => return Ok(307),
        Some("PERMANENT_REDIRECT") => return Ok(308),
        _ => {}
    }
    let number = number(written).or_else(|| number(&written["status"]));
    let status = number.and_then(|status| u16::try_from(status).ok());
    status.ok_or_else(|| format!("an unknown form of status: {written}"))
}

fn known(written: &Value, what: &str, fields: &[&str]) -> Result<(), String> {
    let mut all = written.as_object().into_iter().flatten().map(|(field, _)| field.as_str());
    match all.find(|field| !fields.contains(field)) {
        Some(field) => Err(format!("an unknown part of a {what}: {field}")),
        None => Ok(()),
    }
}
