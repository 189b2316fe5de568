//! Debian packages.

use std::{fs, process::Command};

use anyhow::{Context, Result};

use crate::run;

/// Whether this is Debian itself: its derivatives have other toolchain packages.
pub(crate) fn is_debian() -> bool {
    fs::read_to_string("/etc/os-release")
        .is_ok_and(|text| text.lines().any(|line| line.trim_matches('"') == "ID=debian"))
}

/// The command that installs `packages`.
pub(crate) fn command(packages: &[&str]) -> String {
    format!("sudo apt-get install --no-install-recommends {}", packages.join(" "))
}

/// Installs `packages` and what they need.
pub(crate) fn install(packages: &[&str]) -> Result<()> {
    let apt = |args: &[&str]| {
        let mut command = Command::new("apt-get");
        command.args(args).env("DEBIAN_FRONTEND", "noninteractive");
        command
    };
    run::run(&mut apt(&["update", "--quiet"])).context("the package lists cannot be fetched")?;
    let mut install = apt(&["install", "--yes", "--quiet", "--no-install-recommends"]);
    run::run(install.args(packages)).with_context(|| {
        format!(
            "{} cannot be installed; rustc-web 1.95 or newer comes from the security archive \
             (bookworm-security, trixie-security), so /etc/apt must name it; \
             `rustup toolchain install nightly --component rust-src` does as well",
            packages.join(" ")
        )
    })
}
