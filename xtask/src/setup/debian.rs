//! Debian packages.

use std::{fs, process::Command};

use anyhow::{Context, Result};

use super::needs::SCRIPT;
use crate::run;

/// Whether this is Debian itself: its derivatives have other toolchain packages.
pub(crate) fn is_debian() -> bool {
    fs::read_to_string("/etc/os-release")
        .is_ok_and(|text| text.lines().any(|line| line.trim_matches('"') == "ID=debian"))
}

/// The command that installs `packages`, for people in any directory.
pub(crate) fn command(packages: &[&str]) -> String {
    format!("sudo apt-get install --no-install-recommends {}", packages.join(" "))
}

/// Installs `packages` and what they need.
pub(crate) fn install(packages: &[&str]) -> Result<()> {
    let mut script = Command::new(run::root().join(SCRIPT));
    run::run(script.args(packages))
        .with_context(|| format!("{} cannot be installed", packages.join(" ")))
}
