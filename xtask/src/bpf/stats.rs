//! `cargo xtask bpf --stats`: what the verifiers of several kernels say of the programs.

use std::{
    path::PathBuf,
    process::{Command, Stdio},
};

use anyhow::{Context, Result, bail};
use clap::ValueEnum;

use super::figures::{self, Page, Row};
use crate::run;

/// The page with the committed figures.
const PAGE: &str = "docs/datapath.md";

#[derive(Clone, Copy, Debug, ValueEnum)]
pub(crate) enum Output {
    /// For people
    Text,
    /// A list of figures
    Json,
}

/// Asks the running kernel, prints, and compares with the page or, with `bless`, writes there.
pub(crate) fn run(bless: bool, output: Output) -> Result<()> {
    let rows = here()?;
    match output {
        Output::Text => print!("{}", figures::aligned(&rows)),
        Output::Json => println!("{}", serde_json::to_string_pretty(&rows)?),
    }
    if !bless {
        return compare(&rows);
    }
    let file = run::root().join(PAGE);
    let text = std::fs::read_to_string(&file).with_context(|| format!("reading {PAGE}"))?;
    let text = Page::read(&text).with_context(|| PAGE.to_owned())?.with(&rows);
    std::fs::write(&file, text).with_context(|| format!("writing {PAGE}"))?;
    eprintln!("{PAGE} has these figures now");
    Ok(())
}

/// Says on stderr how `rows` differ from the page. A difference is no failure: figures may
/// change, but not unseen.
pub(crate) fn compare(rows: &[Row]) -> Result<()> {
    let text = std::fs::read_to_string(run::root().join(PAGE))
        .with_context(|| format!("reading {PAGE}"))?;
    let changes = Page::read(&text).with_context(|| PAGE.to_owned())?.changes(rows);
    if changes.is_empty() {
        eprintln!("no figure differs by more than 10 % from {PAGE}");
        return Ok(());
    }
    for change in &changes {
        eprintln!("changed: {change}");
    }
    eprintln!("if that is meant: `cargo xtask bpf --stats --bless` writes {PAGE} anew");
    Ok(())
}

/// The figures of the running kernel.
fn here() -> Result<Vec<Row>> {
    let mut stats = Command::new(program()?);
    eprintln!("$ {}", run::shown(&stats));
    let output = stats.stderr(Stdio::inherit()).output().context("running the program `stats`")?;
    if !output.status.success() {
        bail!("the program `stats` failed on the running kernel: {}", output.status);
    }
    figures::read(String::from_utf8_lossy(&output.stdout).lines())
}

/// Builds the program that asks a kernel.
pub(crate) fn program() -> Result<PathBuf> {
    let build =
        ["build", "--package", "balancer-tests", "--bin", "stats", "--message-format", "json"];
    let mut cargo = run::cargo(&build);
    eprintln!("$ {}", run::shown(&cargo));
    let messages = run::ask(&mut cargo)?;
    messages
        .lines()
        .filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok())
        .find_map(|message| message["executable"].as_str().map(PathBuf::from))
        .context("cargo did not say where the program `stats` is")
}
