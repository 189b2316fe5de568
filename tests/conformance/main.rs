//! Runs cases that are data: the project's own and, where it is present, a corpus taken from
//! other projects' tests.
//!
//! The corpus is the directory in `BALANCER_CORPUS`, else `../shared/conformance` beside the
//! workspace; its README describes the format. None of it is part of the project. Each file
//! `NAME.jsonl` belongs to the suite of that name here; the project's own cases have the same
//! form and stand in `own/`. Arguments that are no options select cases whose id contains one
//! of them.
//!
//! A failing case prints what was expected and what was found. A case that the project answers
//! differently on purpose is listed in `exceptions.txt` with the decision that says why. Cases
//! of kinds that are not built yet are counted apart and never as passed.

#![forbid(unsafe_code)]

use std::process::ExitCode;

mod asked;
mod cases;
mod clusters;
mod found;
mod gateway;
mod hashing;
mod left_out;
mod listeners;
mod match_order;
mod merging;
mod outbounds;
mod outcome;
mod requests;
mod resources;
mod routing;
mod said;
mod samples;
mod traffic_route;
mod validation;

use cases::{Exceptions, Verdict};

/// One file's cases.
struct Suite {
    /// `NAME.jsonl` in the corpus and in `own/`.
    file: &'static str,
    /// Judges one case.
    judge: fn(&serde_json::Value) -> Verdict,
}

/// A file of the corpus that is not named here counts as "of kinds not built".
const SUITES: &[Suite] = &[
    Suite { file: "gatewayapi.jsonl", judge: gateway::judge },
    Suite { file: "hashing.jsonl", judge: hashing::judge },
    Suite { file: "routing.jsonl", judge: routing::judge },
    Suite { file: "validation.jsonl", judge: validation::judge },
];

fn main() -> ExitCode {
    match run() {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("conformance: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> anyhow::Result<bool> {
    let filters: Vec<String> = std::env::args().skip(1).filter(|a| !a.starts_with('-')).collect();
    let exceptions = Exceptions::parse(include_str!("exceptions.txt"))?;
    let own = cases::files(&cases::own_directory())?;
    let corpus = match cases::corpus_directory() {
        Some(directory) => cases::files(&directory)?,
        None => {
            println!(
                "conformance: no corpus at {}; the project's own cases run (BALANCER_CORPUS names another place)",
                cases::corpus_place().display()
            );
            Vec::new()
        }
    };

    let mut all_passed = true;
    for file in own.iter().chain(&corpus) {
        let suite = SUITES.iter().find(|suite| suite.file == file.name);
        let mut tally = cases::Tally::default();
        for case in file.cases()? {
            if !filters.is_empty() && !filters.iter().any(|filter| case.id.contains(filter)) {
                continue;
            }
            let verdict = suite.map_or(Verdict::NotBuilt, |suite| (suite.judge)(&case.body));
            tally.count(&case.id, verdict, exceptions.reason(&case.id));
        }
        println!("{}{}: {tally}", file.label, file.name);
        all_passed &= tally.failed == 0;
    }
    Ok(all_passed)
}
