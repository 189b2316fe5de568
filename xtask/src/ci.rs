//! `cargo xtask ci`: what CI runs, in the order that fails soonest. The tests are the
//! command that README names for testing.

use std::time::Instant;

use anyhow::{Context, Result};

use crate::{bpf::stats, lint, run, setup, test};

pub(crate) fn run() -> Result<()> {
    let begun = Instant::now();
    step("format", || run::run(&mut run::cargo(&["fmt", "--all", "--check"])))?;
    step("house rules", lint::run)?;
    step("setup", || setup::run(setup::Talk::Full, setup::Group::ALL))?;
    step("clippy", || {
        let clippy = ["clippy", "--workspace", "--all-targets", "--", "-D", "warnings"];
        run::run(&mut run::cargo(&clippy))
    })?;
    step("tests", || test::run(None, &test::Choice::default()))?;
    // The guests' kernels said theirs among the tests.
    step("figures", || stats::run(&[stats::Kernel::Running], false, stats::Output::Text))?;
    println!("ci: everything passed in {:.0} s", begun.elapsed().as_secs_f64());
    Ok(())
}

fn step(name: &str, work: impl FnOnce() -> Result<()>) -> Result<()> {
    println!("== {name}");
    work().with_context(|| format!("step `{name}`"))
}
