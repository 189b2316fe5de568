//! From `-f` to something to compile, with everything said on the way.

use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
};

use super::{
    failure::Failure,
    output::{self, count},
};
use crate::{
    kernel::KernelError,
    node::NodeError,
    policy::{self, ReadOptions, Reading, Report, Texts},
    settings::{self, Settings},
    store::StoreError,
};

/// An input of `-f` in which no document could be read.
pub(crate) struct Unread {
    /// The file, as given.
    pub(crate) file: String,
    /// Why not, without what to do.
    pub(crate) message: String,
    /// The line, from 1, where that is known.
    pub(crate) line: Option<u32>,
    /// For people.
    failure: Failure,
}

impl From<Unread> for Failure {
    fn from(unread: Unread) -> Self {
        unread.failure
    }
}

/// Reads `-f`. What is wrong inside the documents is in the report, not an error here. Input
/// without any resource is refused: it would mean "carry out nothing", which nobody asks for by
/// naming an empty file.
pub(crate) fn read(paths: &[PathBuf], options: &ReadOptions) -> Result<Reading, Unread> {
    let texts = policy::gather(paths).map_err(|error| Unread {
        file: error.path().to_owned(),
        message: error.to_string(),
        line: error.line(),
        failure: Failure::policies(error),
    })?;
    let reading = policy::read(texts, options);
    let report = &reading.report;
    let texts = &report.documents().texts;
    if report.is_empty() {
        let notes = policy::render::report(report, output::stderr_colours());
        if !notes.is_empty() {
            output::say(notes.trim_end());
        }
        let names: Vec<&str> = texts.iter().map(|text| &*text.name).collect();
        let message = format!("no resource in {}", names.join(", "));
        return Err(Unread {
            file: names.first().copied().unwrap_or_default().to_owned(),
            line: None,
            failure: Failure::policies(anyhow::anyhow!(message.clone()))
                .hint("a resource begins with `type: Mesh`, or with `apiVersion` and `kind`"),
            message,
        });
    }
    let used: BTreeSet<u32> = reading
        .resources()
        .iter()
        .map(|resource| resource.document)
        .chain(report.notes().map(|note| note.span.document))
        .filter_map(|document| report.documents().stand(document))
        .map(|stand| stand.text)
        .collect();
    for (at, text) in (0..).zip(texts) {
        if !used.contains(&at) {
            output::say(&format!("note: {} holds no resource", text.name));
        }
    }
    Ok(reading)
}

/// `12 resources in 3 files: 2 errors, 1 warning`.
pub(crate) fn summary(report: &Report) -> String {
    let (errors, warnings) = totals(report);
    format!(
        "{} in {}: {}, {}",
        count(report.len(), "resource"),
        count(report.documents().texts.len(), "file"),
        count(errors, "error"),
        count(warnings, "warning")
    )
}

fn totals(report: &Report) -> (usize, usize) {
    let errors = report.violations().filter(|finding| finding.is_error()).count();
    (errors, report.violations().count() - errors)
}

/// Says every note and finding on standard error; fails where one of them is an error.
pub(crate) fn accept(report: &Report) -> Result<(), Failure> {
    let text = policy::render::report(report, output::stderr_colours());
    if !text.is_empty() {
        output::say(text.trim_end());
    }
    if report.valid() {
        return Ok(());
    }
    let (errors, _) = totals(report);
    Err(Failure::policies(anyhow::anyhow!(
        "the policies have {}; nothing was changed",
        count(errors, "error")
    )))
}

/// Reads `--config`; `None` without it.
pub(crate) fn settings(config: Option<&Path>) -> Result<Option<Settings>, Failure> {
    let Some(path) = config else { return Ok(None) };
    settings_with_text(path).map(|(settings, _)| Some(settings))
}

/// Reads a configuration file, and gives its text back for findings of others.
pub(crate) fn settings_with_text(path: &Path) -> Result<(Settings, Texts), Failure> {
    if path.is_dir() {
        return Err(Failure::usage(format!("{} is a directory", path.display()))
            .hint("name the configuration file itself after --config"));
    }
    let texts = policy::gather(&[path.to_owned()]).map_err(Failure::wrong_usage)?;
    let Some(text) = texts.front() else { return Ok((Settings::default(), texts)) };
    match settings::read(text) {
        Ok(settings) => Ok((settings, texts)),
        Err(problems) => Err(configuration_refused(&texts, problems)),
    }
}

/// Says what of the configuration the agent does not carry out; fails where packets would go
/// another way than asked for.
pub(crate) fn undone(settings: &Settings, texts: &Texts) -> Result<(), Failure> {
    let findings = settings::undone(settings);
    if findings.iter().any(policy::Diagnostic::is_error) {
        return Err(configuration_refused(texts, findings));
    }
    if !findings.is_empty() {
        let report = Report::of(texts.clone(), findings);
        output::say(policy::render::report(&report, output::stderr_colours()).trim_end());
    }
    Ok(())
}

fn configuration_refused(texts: &Texts, findings: Vec<policy::Diagnostic>) -> Failure {
    let report = Report::of(texts.clone(), findings);
    output::say(policy::render::report(&report, output::stderr_colours()).trim_end());
    let (errors, _) = totals(&report);
    let name = texts.front().map_or("", |text| &text.name);
    Failure::usage(format!(
        "the configuration file {name} has {}; nothing was changed",
        count(errors, "error")
    ))
}

/// Whose fault an error of the kernel room is, and what was being done.
pub(crate) fn kernel(error: KernelError, doing: &str) -> Failure {
    match error {
        KernelError::Full { .. } => {
            Failure::policies(anyhow::Error::new(error).context(doing.to_owned()))
        }
        KernelError::Limit { .. } => {
            Failure::wrong_usage(anyhow::Error::new(error).context(doing.to_owned()))
        }
        error @ KernelError::Rejected(_) => Failure::system(error, doing)
            .hint("balancer status --requirements says what this kernel lacks"),
        error => Failure::system(error, doing),
    }
}

/// Whose fault it is that a set could not be carried out.
pub(crate) fn node(error: NodeError) -> Failure {
    let hint = error.hint();
    let failure = match error {
        NodeError::Store(error) => return store(error),
        NodeError::Kernel { doing, source } => return kernel(source, doing),
        NodeError::Capacity { source, .. } => Failure::policies(source),
        error @ NodeError::OneWay { .. } => Failure::policies(error),
        error @ NodeError::LimitsDiffer { .. } => Failure::wrong_usage(error),
    };
    failure.maybe_hint(hint)
}

/// An error of the state directory with its hint.
pub(crate) fn store(error: StoreError) -> Failure {
    let hint = error.hint();
    Failure::system(error, "cannot use the state directory").maybe_hint(hint)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernel::Rejection;

    #[test]
    fn refused_program_points_at_the_requirements() {
        let rejection = Rejection {
            program: "balancer_in".into(),
            error: std::io::Error::from_raw_os_error(22),
            instruction: None,
            origin: None,
            telling: vec!["R9 !read_ok".into()],
            omitted: 0,
            log_file: Err("a test".into()),
        };
        let failure = kernel(Box::new(rejection).into(), "cannot load");
        let text = failure.text(false);
        assert!(text.contains("balancer_in") && text.contains("R9 !read_ok"), "{text}");
        assert!(
            text.ends_with("hint: balancer status --requirements says what this kernel lacks"),
            "{text}"
        );
    }
}
