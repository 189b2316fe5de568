//! Differences between proxies, and why they are.

use std::fmt;

use anyhow::{Context, Result, ensure};

use super::verdict::Verdict;

/// What ours did, and what the others did beside it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Outcome {
    ours: String,
    nginx: String,
    haproxy: String,
}

impl Outcome {
    pub(crate) fn new(ours: &Verdict, nginx: &Verdict, haproxy: &Verdict) -> Self {
        let word = |seen: &[String]| if seen.is_empty() { "refused" } else { "forwarded" };
        let beside = |of: &Verdict| if of.seen == ours.seen { "same" } else { word(&of.seen) };
        Self {
            ours: word(&ours.seen).to_owned(),
            nginx: beside(nginx).to_owned(),
            haproxy: beside(haproxy).to_owned(),
        }
    }

    /// Whether this, of a line, is about another one.
    fn covers(&self, other: &Self) -> bool {
        let is = |this: &str, other: &str| this == "*" || this == other;
        self.ours == other.ours
            && is(&self.nginx, &other.nginx)
            && is(&self.haproxy, &other.haproxy)
    }

    /// The same reached all backends.
    pub(crate) fn is_alike(&self) -> bool {
        self.nginx == "same" && self.haproxy == "same"
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} | {} | {}", self.ours, self.nginx, self.haproxy)
    }
}

/// Lines `CASE | OURS | NGINX | HAPROXY | WHY`; a `*` at the end of CASE stands for anything, as does one
/// for what nginx or HAProxy does, where that depends on how the bytes arrive.
pub(crate) struct Differences<'t>(Vec<Line<'t>>);

struct Line<'t> {
    text: &'t str,
    case: &'t str,
    outcome: Outcome,
    used: bool,
}

impl<'t> Differences<'t> {
    pub(crate) fn read(text: &'t str) -> Result<Self> {
        let lines = text.lines().filter(|line| !line.is_empty() && !line.starts_with('#'));
        let lines = lines.map(|text| {
            let parts: Vec<_> = text.splitn(5, '|').map(str::trim).collect();
            let [case, ours, nginx, haproxy, why] = parts[..] else {
                return None;
            };
            let [ours, nginx, haproxy] = [ours, nginx, haproxy].map(str::to_owned);
            let outcome = Outcome { ours, nginx, haproxy };
            (!why.is_empty()).then_some(Line { text, case, outcome, used: false })
        });
        let lines = lines.collect::<Option<Vec<_>>>();
        let lines = lines.context("a line is not `CASE | OURS | NGINX | HAPROXY | WHY`")?;
        ensure!(lines.iter().all(|line| !line.outcome.is_alike()), "a line explains no difference");
        Ok(Self(lines))
    }

    /// Whether a line is about the case and its outcome.
    pub(crate) fn explain(&mut self, case: &str, outcome: &Outcome) -> bool {
        let is = |line: &Line<'_>| {
            line.outcome.covers(outcome)
                && match line.case.strip_suffix('*') {
                    Some(begin) => case.starts_with(begin),
                    None => line.case == case,
                }
        };
        match self.0.iter_mut().find(|line| is(line)) {
            Some(line) => {
                line.used = true;
                true
            }
            None => false,
        }
    }

    /// Lines that explain nothing.
    pub(crate) fn unused(&self) -> impl Iterator<Item = &str> {
        self.0.iter().filter(|line| !line.used).map(|line| line.text)
    }
}
