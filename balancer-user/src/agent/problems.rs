//! Errors and findings of the other rooms as lines of the log and of the state.

use std::collections::BTreeSet;

use tracing::{error, warn};

use super::state::Problem;
use crate::{
    node::NodeError,
    policy::{Diagnostic, Documents, InputError, Report},
};

/// Problems of one set that are told; of more, their number.
const TOLD_MAX: usize = 20;

/// What keeps a set from being carried out: at least one problem.
pub(super) struct Broken {
    pub(super) problems: Vec<Problem>,
    pub(super) total: usize,
    /// The next sweep may succeed without any change of the files.
    pub(super) again: bool,
}

impl Broken {
    pub(super) fn one(problem: Problem) -> Self {
        Self { problems: vec![problem], total: 1, again: false }
    }

    pub(super) fn input(error: &InputError) -> Self {
        Self::one(Problem {
            object: error.path().to_owned(),
            line: error.line(),
            message: error.to_string(),
            ..Problem::default()
        })
    }

    pub(super) fn node(error: &NodeError) -> Self {
        let mut message = error.to_string();
        let mut source = std::error::Error::source(error);
        while let Some(cause) = source {
            let text = cause.to_string();
            if !message.contains(&text) {
                message = format!("{message}: {text}");
            }
            source = cause.source();
        }
        let hint = match error {
            NodeError::Capacity { pinned: true, .. } => Some(
                "raise the limit in the configuration file, stop the agent, `balancer unload` \
                 (connections through VIPs break), start it"
                    .to_owned(),
            ),
            NodeError::Capacity { pinned: false, .. } => {
                Some("raise the limit in the configuration file".to_owned())
            }
            error => error.hint(),
        };
        let again = !matches!(
            error,
            NodeError::Capacity { .. } | NodeError::LimitsDiffer { .. } | NodeError::OneWay { .. }
        );
        Self { again, ..Self::one(Problem { message, hint, ..Problem::default() }) }
    }

    /// The errors of a report, if it has any.
    pub(super) fn report(report: &Report) -> Option<Self> {
        if report.valid() {
            return None;
        }
        let mut errors = report.violations().filter(|finding| finding.is_error()).peekable();
        errors.peek()?;
        let told = errors.by_ref().take(TOLD_MAX);
        let problems: Vec<Problem> =
            told.map(|finding| problem(report.documents(), finding)).collect();
        let total = problems.len() + errors.count();
        Some(Self { problems, total, again: false })
    }

    /// Says it, each problem with its object.
    pub(super) fn say(&self) {
        for problem in &self.problems {
            error!(
                file = problem.object,
                line = problem.line,
                column = problem.column,
                field = problem.field,
                hint = problem.hint,
                "the set is not carried out: {}",
                problem.message
            );
        }
        if self.total > self.problems.len() {
            error!(more = self.total - self.problems.len(), "and more that is wrong with the set");
        }
    }
}

pub(super) fn problem(documents: &Documents, finding: &Diagnostic) -> Problem {
    let position = finding.span.and_then(|span| documents.position(span));
    Problem {
        object: position.map(|at| at.file.to_owned()).unwrap_or_default(),
        line: position.map(|at| at.line),
        column: position.map(|at| at.column),
        field: finding.field.clone(),
        message: finding.message.clone(),
        hint: finding.hint.clone(),
    }
}

/// Warnings that were said: each is said when it comes, not at every look.
#[derive(Debug, Default)]
pub(super) struct Said(BTreeSet<String>);

impl Said {
    pub(super) fn report(&mut self, report: &Report) {
        let mut now = BTreeSet::new();
        for finding in report.violations().filter(|finding| !finding.is_error()) {
            let problem = problem(report.documents(), finding);
            // Without the position: a line that moves says nothing new.
            let key = format!("{}\0{}\0{}", problem.object, problem.field, problem.message);
            if !self.0.contains(&key) {
                warn!(
                    file = problem.object,
                    line = problem.line,
                    column = problem.column,
                    field = problem.field,
                    hint = problem.hint,
                    "{}",
                    problem.message
                );
            }
            now.insert(key);
        }
        self.0 = now;
    }
}
