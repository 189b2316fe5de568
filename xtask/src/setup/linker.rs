//! bpf-linker, matched to the LLVM of the rustc whose bitcode it reads.
//!
//! It is linked against the very libLLVM that this rustc uses, so no LLVM development package
//! is needed and versions cannot drift apart:
//!
//! - Debian's rustc-web depends on `libLLVM.so.MAJOR.MINOR` of the package libllvm*MAJOR*;
//! - a toolchain of rustup brings `lib/libLLVM.so.…` of its own.
//!
//! All that bpf-linker's build script asks of `LLVM_PREFIX` is `lib/libLLVM.so`, so a directory
//! of symbolic links will do. It stays beside the binary, whose run path names it: rustup's
//! library is in no directory that the loader searches.

use std::{
    fs,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, anyhow, bail, ensure};
use nix::fcntl::{Flock, FlockArg};

use super::toolchain::{Toolchain, cache, find_linker, inner};
use crate::run;

/// The version that is built.
const VERSION: &str = "0.13.0";
/// The LLVM versions that it has a feature for.
const LLVM_KNOWN: [u32; 3] = [21, 22, 23];
/// Why anybody needs it.
pub(super) const WHY: &str = "rustc writes bitcode for BPF; bpf-linker makes the object of it, and its LLVM must not be older";

/// The linker that the build will take, if it runs.
pub(super) fn find(toolchain: &Toolchain) -> Result<PathBuf> {
    let path = find_linker(toolchain.llvm).map_err(|e| anyhow!("{e}"))?;
    // A library that was updated away leaves a linker that does not start.
    run::ask(Command::new(&path).arg("--version"))
        .with_context(|| format!("{} does not start", path.display()))?;
    Ok(path)
}

/// How to build the linker for one toolchain.
#[derive(Debug)]
pub(super) struct Plan {
    llvm: u32,
    library: PathBuf,
    home: PathBuf,
}

impl Plan {
    pub(super) fn new(toolchain: &Toolchain) -> Result<Self> {
        let llvm = toolchain.llvm;
        if !LLVM_KNOWN.contains(&llvm) {
            bail!(
                "bpf-linker {VERSION} knows LLVM {LLVM_KNOWN:?} and {} has {llvm}: use another \
                 toolchain ({}=DIR) or put a bpf-linker that knows it on PATH",
                toolchain.rustc.display(),
                super::toolchain::TOOLCHAIN
            );
        }
        let home =
            cache().map_err(|e| anyhow!("{e}"))?.join(format!("bpf-linker-{VERSION}-llvm{llvm}"));
        Ok(Self { llvm, library: library_of(toolchain)?, home })
    }

    fn prefix(&self) -> PathBuf {
        self.home.join("llvm")
    }

    /// Where the links go: the name that the linker is linked with, and the one that the loader
    /// looks for.
    fn links(&self) -> Result<Vec<PathBuf>> {
        let lib = self.prefix().join("lib");
        let name = self.library.file_name().context("libLLVM without a name")?;
        Ok(vec![lib.join("libLLVM.so"), lib.join(name)])
    }

    fn install(&self) -> Command {
        // The cargo that runs this builds it too: it is a program for this machine.
        let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
        let mut command = inner(Path::new(&cargo));
        command.args(["install", "bpf-linker", "--version", VERSION, "--locked", "--force"]);
        // The work is done inside libLLVM: an unoptimised front to it links as fast and
        // compiles in a third of the time.
        command.args(["--debug", "--no-default-features", "--features"]);
        command.arg(format!("llvm-{}", self.llvm)).arg("--root").arg(&self.home);
        command
            .env("LLVM_PREFIX", self.prefix())
            .env("CARGO_PROFILE_DEV_DEBUG", "0")
            .env("CARGO_PROFILE_DEV_STRIP", "true");
        command
    }

    /// For people, in a shell.
    pub(super) fn commands(&self) -> Vec<String> {
        let Ok(links) = self.links() else { return Vec::new() };
        let mut lines = vec![format!("mkdir -p {}", self.prefix().join("lib").display())];
        lines.extend(
            links.iter().map(|l| format!("ln -sf {} {}", self.library.display(), l.display())),
        );
        lines.push(run::shown(&self.install()));
        lines
    }
}

/// The libLLVM that this toolchain's rustc uses.
fn library_of(toolchain: &Toolchain) -> Result<PathBuf> {
    let own = toolchain.sysroot.join("lib");
    let start = format!("libLLVM.so.{}.", toolchain.llvm);
    let bundled = fs::read_dir(&own)
        .into_iter()
        .flatten()
        .flatten()
        .find(|entry| entry.file_name().to_str().is_some_and(|name| name.starts_with(&start)));
    if let Some(bundled) = bundled {
        return Ok(bundled.path());
    }
    // The loader's cache, as the linker of rustc itself found it: `NAME (…) => PATH`.
    let ldconfig = run::program("ldconfig").context("no ldconfig to ask for libLLVM")?;
    run::ask(Command::new(ldconfig).arg("-p"))?
        .lines()
        .find(|line| line.trim_start().starts_with(&start))
        .and_then(|line| line.rsplit(" => ").next())
        .map(PathBuf::from)
        .with_context(|| format!("no {start}* in {} or in the loader's cache", own.display()))
}

/// Builds it, unless another setup that ran beside this one just did.
pub(super) fn build(plan: &Plan) -> Result<()> {
    let lib = plan.prefix().join("lib");
    fs::create_dir_all(&lib).with_context(|| format!("cannot create {}", lib.display()))?;
    let lock = fs::File::create(plan.home.join("lock"))?;
    let _lock = Flock::lock(lock, FlockArg::LockExclusive)
        .map_err(|(_, e)| anyhow!("cannot lock {}: {e}", plan.home.display()))?;
    let binary = plan.home.join("bin/bpf-linker");
    if run::ask(Command::new(&binary).arg("--version")).is_ok() {
        return Ok(());
    }
    for link in plan.links()? {
        // An older library may have had the name.
        match fs::remove_file(&link) {
            Err(e) if e.kind() != std::io::ErrorKind::NotFound => {
                return Err(e).with_context(|| format!("cannot replace {}", link.display()));
            }
            _ => symlink(&plan.library, &link)
                .with_context(|| format!("cannot link {}", link.display()))?,
        }
    }
    println!(
        "building bpf-linker {VERSION} against {}: once, about a minute",
        plan.library.display()
    );
    run::run(plan.install().current_dir(&plan.home))?;
    let version = run::ask(Command::new(&binary).arg("--version"))?;
    ensure!(version.contains(VERSION), "{} calls itself {version}", binary.display());
    Ok(())
}
