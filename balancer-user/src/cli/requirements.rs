//! `balancer status --requirements`: whether this kernel can run balancer, and what it lacks.

use std::{fmt::Write as _, fs};

use serde::Serialize;

use super::{
    args::{Form, Global},
    failure::Failure,
    inputs,
    output::{self, columns, count},
};
use crate::kernel::requirements::{Judgement, Need, Presence, find, try_programs};

pub(crate) fn run(global: &Global) -> Result<(), Failure> {
    if global.output == Form::Hosts {
        return Err(output::hosts_refused());
    }
    let failed = |error| inputs::kernel(error, "cannot probe the kernel");
    let kernel = release()?;
    let probed = find(&global.bpffs(None)).map_err(failed)?;
    let judgement = probed.judgement();
    // Without what they need the programs would be refused for that.
    let programs = judgement.loads().then(try_programs);
    let rows = probed.answers.iter().map(|(feature, answer)| Row {
        feature: feature.name(),
        here: match answer {
            Presence::Here => Some(true),
            Presence::Lacking => Some(false),
            Presence::NotAsked(_) => None,
        },
        since: feature.since().to_string(),
        needed: !matches!(feature.need(), Need::Optional(_)),
        without_it: feature.without_it(),
        not_asked: match answer {
            Presence::NotAsked(why) => Some(why),
            _ => None,
        },
    });
    let requirements = Requirements {
        runs: judgement.runs() && programs.as_ref().is_none_or(Result::is_ok),
        programs: programs.as_ref().map(Result::is_ok),
        fall_backs: judgement.fall_backs.iter().map(|feature| feature.name()).collect(),
        features: rows.collect(),
        kernel,
    };
    output::value(global.output, &requirements, text)?;
    if let Some(refusal) = judgement.refusal(&requirements.kernel) {
        return Err(hints(Failure::unfit(refusal), &judgement).maybe_hint(probed.mount));
    }
    match programs {
        Some(Err(error)) => Err(inputs::kernel(
            error,
            "this kernel has every feature that balancer needs, but does not take its programs",
        )),
        _ => Ok(()),
    }
}

/// What to do about what is lacking.
fn hints(mut failure: Failure, judgement: &Judgement) -> Failure {
    let missing = || judgement.lacks.iter().chain(&judgement.set_up);
    for feature in missing() {
        failure =
            failure.maybe_hint(feature.remedy().map(|how| format!("{}: {how}", feature.name())));
    }
    match judgement.first() {
        Some(version) if missing().any(|feature| feature.remedy().is_none()) => failure.hint(format!(
            "boot Linux {version} or newer: the first that has all of it; a newer one that lacks \
             something was built or booted without"
        )),
        _ => failure,
    }
}

/// Names of fields are those of `-o json`.
#[derive(Serialize)]
struct Requirements {
    /// Release of the running kernel.
    kernel: String,
    /// Balancer runs here, with fall-backs or without.
    runs: bool,
    /// The verifier takes balancer's own programs; absent: not tried.
    programs: Option<bool>,
    /// Features that something else stands in for.
    fall_backs: Vec<&'static str>,
    features: Vec<Row>,
}

#[derive(Serialize)]
struct Row {
    feature: &'static str,
    /// Absent: not asked.
    here: Option<bool>,
    /// The first kernel that has it.
    since: String,
    needed: bool,
    without_it: String,
    /// Why it was not asked for.
    not_asked: Option<&'static str>,
}

/// Release of the running kernel, as uname(1) prints it.
pub(crate) fn release() -> Result<String, Failure> {
    const PATH: &str = "/proc/sys/kernel/osrelease";
    fs::read_to_string(PATH)
        .map(|text| text.trim().to_owned())
        .map_err(|error| Failure::system(error, format!("cannot read {PATH}")))
}

fn text(requirements: &Requirements) -> String {
    let head = ["FEATURE", "HERE", "SINCE", "WITHOUT IT"].map(str::to_owned).to_vec();
    let rows = requirements.features.iter().map(|row| {
        let here = match row.here {
            Some(true) => "yes",
            Some(false) => "no",
            None => "-",
        };
        let without_it = match row.not_asked {
            Some(why) => format!("{} (not asked: {why})", row.without_it),
            None => row.without_it.clone(),
        };
        vec![row.feature.to_owned(), here.to_owned(), row.since.clone(), without_it]
    });
    let lines: Vec<Vec<String>> = [head].into_iter().chain(rows).collect();
    let mut text = columns(&lines, &[]);
    let kernel = &requirements.kernel;
    // Writing to a string cannot fail.
    let _ = match (requirements.runs, requirements.fall_backs.as_slice()) {
        (false, _) => writeln!(text, "\nkernel {kernel}: balancer does not run"),
        (true, []) => writeln!(text, "\nkernel {kernel}: balancer runs"),
        (true, names) => writeln!(
            text,
            "\nkernel {kernel}: balancer runs, with {}: {}",
            count(names.len(), "fall-back"),
            names.join(", ")
        ),
    };
    text
}
