//! `cargo xtask test provision`: the script that sets up a machine, on a machine that has nothing.

mod chroot;

use std::time::Instant;

use anyhow::{Result, ensure};

use crate::setup::needs::SCRIPT;
use chroot::{Chroot, PROJECT};

/// Every installed package and its version.
const PACKAGES: &str = "dpkg-query --show";
/// Seconds that a run with nothing to do may take.
const QUICK: u64 = 10;

/// A step: its name, and what it does.
type Step = (&'static str, fn(&Chroot) -> Result<()>);

/// In this order, because each needs the one before.
const STEPS: [Step; 6] = [
    ("new_debian_has_neither_rust_nor_the_project", bare),
    ("script_installs_what_setup_wants", provision),
    ("second_run_changes_nothing", again),
    ("setup_finds_every_package", setup),
    ("object_builds", object),
    ("demo_runs", demo),
];

/// Runs the steps until one fails, prints each with its time, and shows `report` the sum in the
/// form of cargo's. Whether all went well.
pub(crate) fn run(mut report: impl FnMut(&str)) -> Result<bool> {
    ensure!(
        nix::unistd::geteuid().is_root(),
        "the provision test makes a Debian in a directory and runs in it, which needs root"
    );
    let chroot = Chroot::new()?;
    let mut lines = Vec::new();
    let mut failed = 0;
    for (name, step) in STEPS {
        println!("== {name}");
        let begun = Instant::now();
        let outcome = step(&chroot);
        let seconds = begun.elapsed().as_secs_f64();
        match outcome {
            Ok(()) => lines.push(format!("test {name} ... ok ({seconds:.1} s)")),
            Err(e) => {
                lines.push(format!("test {name} ... FAILED ({seconds:.1} s)\n  {e:#}"));
                failed = 1;
                break;
            }
        }
    }
    let (done, verdict) = (lines.len(), if failed == 0 { "ok" } else { "FAILED" });
    println!("\n{}", lines.join("\n"));
    let result = format!(
        "test result: {verdict}. {} passed; {failed} failed; {} not run",
        done - failed,
        STEPS.len() - done
    );
    println!("{result}");
    report(&result);
    Ok(failed == 0)
}

fn bare(chroot: &Chroot) -> Result<()> {
    chroot.debootstrap()?;
    let files = chroot.copy_project()?;
    println!("{files} files of the project in {PROJECT}");
    // What is there already would prove nothing.
    chroot.shell("for name in cargo rustc cc ip ethtool; do ! type -p $name || exit 1; done")
}

fn provision(chroot: &Chroot) -> Result<()> {
    chroot.shell(SCRIPT)
}

fn again(chroot: &Chroot) -> Result<()> {
    let before = chroot.ask(PACKAGES)?;
    let begun = Instant::now();
    chroot.shell(SCRIPT)?;
    let seconds = begun.elapsed().as_secs();
    ensure!(seconds < QUICK, "with nothing to do it took {seconds} s");
    unchanged(chroot, &before)
}

fn setup(chroot: &Chroot) -> Result<()> {
    let before = chroot.ask(PACKAGES)?;
    chroot.shell("cargo xtask setup")?;
    // It builds bpf-linker; a package that it had to install is one that the script forgot.
    unchanged(chroot, &before)
}

fn object(chroot: &Chroot) -> Result<()> {
    chroot.shell("cargo xtask bpf")
}

fn demo(chroot: &Chroot) -> Result<()> {
    chroot.shell("cargo xtask demo")
}

fn unchanged(chroot: &Chroot, before: &str) -> Result<()> {
    let after = chroot.ask(PACKAGES)?;
    let new: Vec<_> = after.lines().filter(|line| !before.lines().any(|b| b == *line)).collect();
    ensure!(after == before, "packages changed: {}", new.join(", "));
    Ok(())
}
