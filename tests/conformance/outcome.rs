//! What becomes of a request, in words that are the same whoever decided it: what a case says
//! ([`said`](crate::said)) or what was resolved ([`found`](crate::found)).

use std::{collections::BTreeMap, fmt};

/// The host that requests ask for.
pub(crate) const HOST: &str = "called.example";

/// Stands for the name that something outside the mesh is known by.
pub(crate) const OWN_HOST: &str = "(its own)";

/// Stands for a destination without endpoints, whether it is there or not.
pub(crate) const NOWHERE: &str = "(nobody)";

/// Shares that differ by less are one: some write theirs in whole hundredths of a percent.
const SHARE: f64 = 1e-4;

/// Headers, several of one name in order.
pub(crate) type Headers = Vec<(String, String)>;

/// Which share of equal requests comes out how.
#[derive(Clone, Debug, Default)]
pub(crate) struct Outcome(BTreeMap<String, f64>);

/// A request as its backend sees it, and its answer as the client does.
#[derive(Debug)]
pub(crate) struct Seen {
    /// What the backend means.
    pub(crate) to: String,
    /// With the query.
    pub(crate) target: String,
    pub(crate) host: String,
    pub(crate) headers: Headers,
    pub(crate) answer: Headers,
    /// What copies go to, and their share.
    pub(crate) mirrors: Vec<(String, f64)>,
}

impl Outcome {
    /// Adds a share.
    pub(crate) fn add(&mut self, what: impl fmt::Display, share: f64) {
        if share > 0.0 {
            *self.0.entry(what.to_string()).or_default() += share;
        }
    }

    /// Whether two come to the same.
    pub(crate) fn equals(&self, other: &Self) -> bool {
        let near = |(a, b): (f64, f64)| (a - b).abs() < SHARE;
        self.0.keys().eq(other.0.keys())
            && self.0.values().copied().zip(other.0.values().copied()).all(near)
    }
}

/// An answer that no backend gives.
pub(crate) fn answered(status: u16) -> String {
    format!("answered with {status}")
}

/// A redirection.
pub(crate) fn redirected(status: u16, location: &str) -> String {
    format!("sent to {location} with {status}")
}

/// Headers by name, the values of each in their order.
pub(crate) fn by_name(mut headers: Headers) -> Headers {
    headers.sort_by(|a, b| a.0.cmp(&b.0));
    headers
}

/// The headers of an answer before anything changes them: each of these twice.
pub(crate) fn of_backend<'n>(touched: impl IntoIterator<Item = &'n String>) -> Headers {
    let both = |name: &String| ["first", "second"].map(|value| (name.clone(), value.to_owned()));
    touched.into_iter().flat_map(both).collect()
}

impl fmt::Display for Seen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { to, target, host, headers, answer, mirrors } = self;
        let pairs = |all: &Headers| {
            let all: Vec<String> =
                all.iter().map(|(name, value)| format!("{name}: {value}")).collect();
            all.join(", ")
        };
        write!(f, "{to} sees {target} of {host} [{}]", pairs(headers))?;
        if !answer.is_empty() {
            write!(f, ", answer [{}]", pairs(answer))?;
        }
        let mut mirrors: Vec<String> =
            mirrors.iter().map(|(to, share)| format!("{:.4} to {to}", share)).collect();
        mirrors.sort();
        if !mirrors.is_empty() {
            write!(f, ", copied {}", mirrors.join(", "))?;
        }
        Ok(())
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, (what, share)) in self.0.iter().enumerate() {
            if at > 0 {
                f.write_str("; ")?;
            }
            write!(f, "{:.2} % {what}", share * 100.0)?;
        }
        Ok(())
    }
}
