//! Kernel modules that the suites need, in the order to load them.

use std::{
    fs,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, bail, ensure};

use super::{kernels::Kernel, tool};
use crate::run;

/// Modules, and what is made with them. Debian's cloud kernels have none of these built in.
const NEEDED: [(&str, &str); 5] = [
    ("veth", "pairs of interfaces"),
    ("tun", "the interface that a test reads packets from"),
    ("dummy", "interfaces without a peer"),
    ("sch_ingress", "the clsact qdisc"),
    ("cls_bpf", "programs at the clsact qdisc"),
];

/// A module as the guest is to load it.
#[derive(Debug)]
pub(super) struct Module {
    /// The file's name without what compressed it.
    pub(super) name: String,
    pub(super) bytes: Vec<u8>,
}

/// Each needed module of `kernel` after those that it needs.
pub(super) fn find(kernel: &Kernel) -> Result<Vec<Module>> {
    prepare(kernel)?;
    let modprobe = tool("modprobe", "kmod")?;
    let mut files: Vec<PathBuf> = Vec::new();
    for (name, why) in NEEDED {
        let mut ask = Command::new(&modprobe);
        ask.arg("-d").arg(&kernel.directory).args(["-S", &kernel.release, "--show-depends", name]);
        let shown = run::ask(&mut ask).with_context(|| {
            format!(
                "the kernel {} has no module `{name}` (for {why}); remove {} so that the next run \
                 fetches it anew, or unpack a package there that has the module \
                 (linux-image-*-cloud-amd64)",
                kernel.release,
                kernel.directory.display()
            )
        })?;
        for line in shown.lines() {
            // `insmod FILE OPTIONS`, or `builtin NAME`. The options are this machine's own taste.
            let Some(file) = line.strip_prefix("insmod ") else { continue };
            let file = Path::new(file)
                .strip_prefix(&kernel.directory)
                .with_context(|| format!("`{line}`: not of {}", kernel.directory.display()))?;
            let end = file.to_str().and_then(|file| file.split(' ').next());
            let file = kernel.directory.join(end.context("a module without a name")?);
            if !files.contains(&file) {
                files.push(file);
            }
        }
    }
    files.iter().map(|file| read(file)).collect()
}

/// A package holds modules without the index that its installation would write, and in the
/// directory that its Debian has them in, which need not be the one that modprobe here looks in.
fn prepare(kernel: &Kernel) -> Result<()> {
    let places = ["lib/modules", "usr/lib/modules"].map(|place| kernel.directory.join(place));
    let [place, other] = match &places {
        [lib, usr] if lib.is_dir() => [lib, usr],
        [lib, usr] if usr.is_dir() => [usr, lib],
        [lib, usr] => bail!(
            "the kernel {} has no modules: neither {} nor {}; remove {} so that the next run \
             fetches it anew",
            kernel.release,
            lib.display(),
            usr.display(),
            kernel.directory.display()
        ),
    };
    if !other.exists() {
        fs::create_dir_all(other.parent().context("a place without a directory")?)?;
        match symlink(place, other) {
            Err(e) if e.kind() != std::io::ErrorKind::AlreadyExists => {
                return Err(e).with_context(|| format!("cannot create {}", other.display()));
            }
            // Another run was faster.
            _ => {}
        }
    }
    if !place.join(&kernel.release).join("modules.dep.bin").is_file() {
        let depmod = tool("depmod", "kmod")?;
        run::ask(Command::new(depmod).arg("-b").arg(&kernel.directory).arg(&kernel.release))?;
    }
    Ok(())
}

/// Debian compresses the modules of newer kernels.
fn read(file: &Path) -> Result<Module> {
    let name =
        file.file_name().and_then(|name| name.to_str()).context("a module without a name")?;
    let unpacked = |program: &str, package: &str| -> Result<Vec<u8>> {
        let mut command = Command::new(tool(program, package)?);
        let output = command.args(["--decompress", "--stdout"]).arg(file).output()?;
        let said = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "`{}` failed: {said}", run::shown(&command));
        Ok(output.stdout)
    };
    let (name, bytes) = if let Some(name) = name.strip_suffix(".xz") {
        (name, unpacked("xz", "xz-utils")?)
    } else if let Some(name) = name.strip_suffix(".zst") {
        (name, unpacked("zstd", "zstd")?)
    } else {
        (name, fs::read(file).with_context(|| format!("cannot read {}", file.display()))?)
    };
    Ok(Module { name: name.to_owned(), bytes })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kernel_without_modules_says_what_to_do() {
        let directory = tempfile::tempdir().unwrap();
        let kernel = Kernel { directory: directory.path().into(), release: "6.1.0-1".into() };
        let error = format!("{:#}", find(&kernel).unwrap_err());
        assert!(error.contains("6.1.0-1 has no modules"), "{error}");
        assert!(error.contains(&format!("remove {}", directory.path().display())), "{error}");
    }
}
