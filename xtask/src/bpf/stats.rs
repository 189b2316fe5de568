//! `cargo xtask bpf --stats`: what the verifiers of several kernels say of the programs.

use std::{fs, process::Command, str::FromStr};

use anyhow::{Context, Result, ensure};
use clap::ValueEnum;

use super::figures::{self, Page, Row};
use crate::{
    run,
    setup::{self, Group},
    vm::{self, Binaries, End, Job, Luggage, Series, Told},
};

/// The page with the committed figures.
const PAGE: &str = "docs/datapath.md";
/// The program that asks a kernel, and its job in a guest.
const STATS: &str = "stats";

#[derive(Clone, Copy, Debug, ValueEnum)]
pub(crate) enum Output {
    /// For people
    Text,
    /// A list of figures
    Json,
}

/// A kernel to ask.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kernel {
    /// This machine's own.
    Running,
    /// One in a guest.
    Guest(Series),
}

impl FromStr for Kernel {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        match name {
            "running" => Ok(Self::Running),
            _ => name
                .parse()
                .map(Self::Guest)
                .map_err(|e: String| format!("{e}; here the word `running` stands for it")),
        }
    }
}

/// Asks `kernels`, or each one, prints, and compares with the page or, with `bless`, writes there.
pub(crate) fn run(kernels: &[Kernel], bless: bool, output: Output) -> Result<()> {
    let here = kernels.is_empty() || kernels.contains(&Kernel::Running);
    let guests: Vec<Series> = Series::ALL
        .into_iter()
        .filter(|series| kernels.is_empty() || kernels.contains(&Kernel::Guest(*series)))
        .collect();
    let groups: &[Group] = if guests.is_empty() {
        &[Group::Build, Group::Run]
    } else {
        &[Group::Build, Group::Run, Group::Vm]
    };
    setup::run(setup::Talk::Short, groups)?;
    let binaries = vm::build(&["datapath"])?;
    let mut rows = Vec::new();
    if !guests.is_empty() {
        let found = vm::find(&guests)?;
        let luggage = Luggage::pack(&binaries, vec![job(&binaries)?], &[])?;
        let say = |series: &str, line: &str| eprintln!("{series:<4} | {line}");
        for (series, told) in guests.iter().zip(vm::run_all(&guests, &found, &luggage, say)) {
            let told = told.with_context(|| format!("kernel {series}"))?;
            rows.extend(told_by(&told)?.context("the guest ran no job `stats`")?);
        }
    }
    if here {
        rows.extend(running(&binaries)?);
    }
    match output {
        Output::Text => print!("{}", figures::aligned(&rows)),
        Output::Json => println!("{}", serde_json::to_string_pretty(&rows)?),
    }
    if !bless {
        return compare(&rows);
    }
    let file = run::root().join(PAGE);
    let text = fs::read_to_string(&file).with_context(|| format!("reading {PAGE}"))?;
    let text = Page::read(&text).with_context(|| PAGE.to_owned())?.with(&rows);
    fs::write(&file, text).with_context(|| format!("writing {PAGE}"))?;
    eprintln!("{PAGE} has these figures now");
    Ok(())
}

/// What a guest is to do for the figures of its kernel.
pub(crate) fn job(binaries: &Binaries) -> Result<Job> {
    let program = binaries.get(STATS).cloned();
    Ok(Job {
        name: STATS.into(),
        program: program.with_context(|| format!("no `{STATS}` was built"))?,
        args: Vec::new(),
        env: Vec::new(),
        directory: "/".into(),
        // Each program is verified three times, which takes 20 s beside other guests.
        limit_s: 240,
    })
}

/// The figures that a guest told, if it was asked for them.
///
/// # Errors
/// The program that asks the kernel failed: with all that it said.
pub(crate) fn told_by(told: &Told) -> Result<Option<Vec<Row>>> {
    let Some(ended) = told.ended.iter().find(|ended| ended.job == STATS) else { return Ok(None) };
    let said = ended.lines.join("\n");
    ensure!(
        ended.end == End::Exit(0),
        "the program `{STATS}` failed on {} ({}): {said}",
        told.release,
        ended.end
    );
    figures::read(said.lines()).map(Some)
}

/// Says on stderr how `rows` differ from the page. A difference is no failure: figures may
/// change, but not unseen.
pub(crate) fn compare(rows: &[Row]) -> Result<()> {
    let text =
        fs::read_to_string(run::root().join(PAGE)).with_context(|| format!("reading {PAGE}"))?;
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
fn running(binaries: &Binaries) -> Result<Vec<Row>> {
    let program = binaries.get(STATS).with_context(|| format!("no `{STATS}` was built"))?;
    let mut stats = Command::new(program);
    eprintln!("$ {}", run::shown(&stats));
    figures::read(run::ask(&mut stats)?.lines())
}
