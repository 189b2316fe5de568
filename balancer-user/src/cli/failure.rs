//! Why a command failed: what was tried, on what object, the cause, and what to do.

use std::{fmt, process::ExitCode};

use super::output;

/// Whose fault it is; the number is the exit code.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    /// The policies are invalid, contradictory, or more than the limits hold; or there is no such
    /// element (`maps lookup`).
    Policies = 1,
    /// The command line or the configuration file.
    Usage = 2,
    /// The kernel, a privilege or the state directory.
    System = 3,
}

/// A failed command.
#[derive(Debug)]
pub(crate) struct Failure {
    fault: Fault,
    error: Option<anyhow::Error>,
    hints: Vec<String>,
}

impl Failure {
    /// The policies are at fault, and what is wrong with them has been printed already.
    pub(crate) fn reported() -> Self {
        Self { fault: Fault::Policies, error: None, hints: Vec::new() }
    }

    /// The policies are at fault.
    pub(crate) fn policies(error: impl Into<anyhow::Error>) -> Self {
        Self { fault: Fault::Policies, error: Some(error.into()), hints: Vec::new() }
    }

    /// What was asked for is not there; the exit code is 1, as grep's.
    pub(crate) fn absent(message: impl fmt::Display + fmt::Debug + Send + Sync + 'static) -> Self {
        Self { fault: Fault::Policies, error: Some(anyhow::Error::msg(message)), hints: Vec::new() }
    }

    /// The command line is at fault.
    pub(crate) fn usage(message: impl fmt::Display + fmt::Debug + Send + Sync + 'static) -> Self {
        Self { fault: Fault::Usage, error: Some(anyhow::Error::msg(message)), hints: Vec::new() }
    }

    /// The command line or the configuration file is at fault.
    pub(crate) fn wrong_usage(error: impl Into<anyhow::Error>) -> Self {
        Self { fault: Fault::Usage, error: Some(error.into()), hints: Vec::new() }
    }

    /// The system is at fault; `doing` says what was tried.
    pub(crate) fn system(error: impl Into<anyhow::Error>, doing: impl Into<String>) -> Self {
        let error = error.into().context(doing.into());
        Self { fault: Fault::System, error: Some(error), hints: Vec::new() }
    }

    /// The system is at fault, and `message` says all that there is to say.
    pub(crate) fn unfit(message: impl fmt::Display + fmt::Debug + Send + Sync + 'static) -> Self {
        Self { fault: Fault::System, error: Some(anyhow::Error::msg(message)), hints: Vec::new() }
    }

    /// Adds what to do about it.
    pub(crate) fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hints.push(hint.into());
        self
    }

    /// Adds what to do about it, where that is known.
    pub(crate) fn maybe_hint(mut self, hint: Option<String>) -> Self {
        self.hints.extend(hint);
        self
    }

    /// Says on standard error what went wrong and returns the exit code.
    pub(crate) fn report(&self) -> ExitCode {
        if self.error.is_some() {
            output::say(&self.text(output::stderr_colours()));
        }
        ExitCode::from(self.fault as u8)
    }

    pub(super) fn text(&self, colours: bool) -> String {
        let (red, cyan, plain) =
            if colours { ("\x1b[1;31m", "\x1b[1;36m", "\x1b[0m") } else { ("", "", "") };
        let mut lines = Vec::new();
        // An error whose text repeats its cause's would say the same twice.
        let mut said = String::new();
        for cause in self.error.iter().flat_map(anyhow::Error::chain) {
            let text = cause.to_string();
            if lines.is_empty() {
                lines.push(format!("{red}error{plain}: {}", indented(&text)));
            } else if !said.ends_with(&text) {
                lines.push(format!("  because: {}", indented(&text)));
            }
            said = text;
        }
        lines
            .extend(self.hints.iter().map(|hint| format!("{cyan}hint{plain}: {}", indented(hint))));
        lines.join("\n")
    }
}

/// Later lines stand below the first.
fn indented(text: &str) -> String {
    text.trim_end().replace('\n', "\n    ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use anyhow::anyhow;

    #[test]
    fn every_cause_has_a_line_and_hints_come_last() {
        let cause = anyhow!("Permission denied").context("cannot open REALS");
        let failure = Failure::system(cause, "cannot read the live set").hint("sudo balancer show");
        assert_eq!(
            failure.text(false),
            "error: cannot read the live set\n  because: cannot open REALS\n  \
             because: Permission denied\nhint: sudo balancer show"
        );
    }

    #[test]
    fn a_cause_that_the_error_already_quotes_is_not_repeated() {
        let cause = anyhow!("No such file").context("cannot open X: No such file");
        assert_eq!(Failure::policies(cause).text(false), "error: cannot open X: No such file");
    }
}
